/* Results of local tasks as floats: half the bytes on their way.
 *
 * A model difference may round, like any step. The history may not: the sums at the coordinator would drift away from
 * what the shard holds. So what rounding took from one result is carried over to the shard's next one, and what has
 * been reported is the shard's sum less what is being carried. */
#include <stdlib.h>

#include "base/base.h"
#include "worker/worker_state.h"

bool skald_narrow(const skald_result *r, size_t dim, float **carry, float *out) {
    if (r->count > 1 && !*carry && !(*carry = skald_zalloc(dim, sizeof **carry))) return false;
    float *restrict dw = out, *restrict d = dw + dim, *restrict c = *carry;
    const double *restrict from_dw = r->vectors[0], *restrict from_d = r->vectors[1];
    float beyond = 0; /* what floats cannot hold leaves as doubles */
    for (size_t j = 0; j < dim; j++) beyond += 0 * (dw[j] = (float)from_dw[j]);
    for (size_t j = 0; j < dim && from_d; j++) beyond += 0 * (d[j] = (float)(from_d[j] + (double)c[j]));
    if (!(beyond == 0)) return false;
    for (size_t j = 0; j < dim && from_d; j++) c[j] = (float)(from_d[j] + (double)c[j] - (double)d[j]);
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
