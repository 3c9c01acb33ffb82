/* Results of local tasks as floats: half the bytes on their way.
 *
 * A model difference may round, like any step. The history may not: the sums at the coordinator would drift away from
 * what the shard holds. So what rounding took from one result is carried over to the shard's next one, and what has
 * been reported is the shard's sum less what is being carried. */
#include <stdlib.h>

#include "base/base.h"
#include "worker/worker_state.h"

skald_bytes *skald_worker_narrow(skald_worker *w, const skald_result *r) {
    const size_t dim = w->runner.dim;
    float **carry = &w->carries[r->shard];
    if (r->count > 1 && !*carry && !(*carry = skald_zalloc(dim, sizeof **carry))) return NULL;
    skald_bytes *bytes = skald_pool_get(w->narrow);
    if (!bytes) return NULL;
    float *restrict dw = (float *)(void *)skald_bytes_data(bytes), *restrict d = dw + dim, *restrict c = *carry;
    const double *restrict from_dw = r->vectors[0], *restrict from_d = r->vectors[1];
    float beyond = 0; /* what floats cannot hold leaves as doubles */
    for (size_t j = 0; j < dim; j++) beyond += 0 * (dw[j] = (float)from_dw[j]);
    for (size_t j = 0; j < dim && from_d; j++) beyond += 0 * (d[j] = (float)(from_d[j] + (double)c[j]));
    if (!(beyond == 0)) {
        skald_bytes_unref(bytes);
        return NULL;
    }
    for (size_t j = 0; j < dim && from_d; j++) c[j] = (float)(from_d[j] + (double)c[j] - (double)d[j]);
    return bytes;
}

void skald_worker_uncarry(skald_worker *w, skald_result *r) {
    for (uint32_t k = 0; k < w->shard_count; k++) {
        const float *c = w->carries[k];
        if (!c || (r->shard != SKALD_ALL_SHARDS && r->shard != k)) continue;
        for (uint32_t j = 0; j < w->runner.dim; j++) r->vectors[0][j] -= (double)c[j];
    }
}
