/* Results of local tasks as floats: half the bytes on their way.
 *
 * A model difference may round, like any step. The history may not: the sums at the coordinator would drift away from
 * what the shard holds. So what rounding took from one result is carried over to the shard's next one, and what has
 * been reported is the shard's sum less what is being carried. */
#include <stdlib.h>

#include "base/base.h"
#include "worker/worker_state.h"

/* to = from + carry (NULL: none); 0 unless an entry is beyond floats, or is no number. Eight sums, so that they are
 * taken in vectors. */
static float round_off(float *restrict to, const double *restrict from, const float *restrict carry, size_t n) {
    float beyond[8] = {0};
    size_t j = 0;
    for (; j + 8 <= n; j += 8)
        for (size_t k = 0; k < 8; k++)
            beyond[k] += 0 * (to[j + k] = (float)(carry ? from[j + k] + (double)carry[j + k] : from[j + k]));
    for (; j < n; j++) beyond[0] += 0 * (to[j] = (float)(carry ? from[j] + (double)carry[j] : from[j]));
    for (size_t k = 1; k < 8; k++) beyond[0] += beyond[k];
    return beyond[0];
}

bool skald_narrow(const skald_result *r, size_t dim, float **carry, float *out) {
    if (r->count > 1 && !*carry && !(*carry = skald_zalloc(dim, sizeof **carry))) return false;
    float *restrict d = out + dim, *restrict c = *carry;
    const double *restrict from_d = r->vectors[1];
    if (!(round_off(out, r->vectors[0], NULL, dim) == 0)) return false; /* it leaves as doubles */
    if (!from_d) return true;
    if (!(round_off(d, from_d, c, dim) == 0)) return false;
    for (size_t j = 0; j < dim; j++) c[j] = (float)(from_d[j] + (double)c[j] - (double)d[j]);
    return true;
}

void skald_uncarry(skald_result *r, size_t dim, uint32_t shards, float *const *carries) {
    for (uint32_t k = 0; k < shards; k++) {
        const float *c = carries[k];
        if (!c || (r->shard != SKALD_ALL_SHARDS && r->shard != k)) continue;
        for (size_t j = 0; j < dim; j++) r->vectors[0][j] -= (double)c[j];
    }
}

skald_bytes *skald_worker_narrow(skald_worker *w, const skald_result *r) {
    skald_bytes *bytes = skald_pool_get(w->narrow);
    if (!bytes) return NULL;
    if (skald_narrow(r, w->runner.dim, &w->carries[r->shard], (float *)(void *)skald_bytes_data(bytes))) return bytes;
    skald_bytes_unref(bytes);
    return NULL;
}
