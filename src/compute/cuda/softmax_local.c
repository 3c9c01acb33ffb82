/* Local steps of softmax on a card, and its history in and out. */
#include <string.h>

#include "base/base.h"
#include "compute/checks.h"
#include "compute/cuda/softmax.h"

/* Room for a step: its rows, and four numbers a row and class. */
static skald_status prepare(cuda_compute *c, cuda_shard *shard, size_t step_rows) {
    cuda_softmax *m = shard->softmax;
    const size_t numbers = (4 * step_rows * m->classes * sizeof(double) + 255) / 256 * 256;
    const size_t bytes = numbers + step_rows * m->ld * sizeof(float);
    if (bytes > m->step_bytes) {
        if (m->step) cudaFree(m->step);
        m->step = NULL;
        m->step_bytes = 0;
        CUDA_TRY(c, cudaMalloc((void **)&m->step, bytes), "allocating workspace for local steps");
        m->step_bytes = bytes;
    }
    m->step_x = (float *)(void *)((char *)m->step + numbers);
    return SKALD_OK;
}

static skald_status start(cuda_compute *c, cuda_shard *shard, const skald_batch *batch, const skald_local *local,
                          const double *w, const double *abar) {
    cuda_softmax *m = shard->softmax;
    cuda_lane *lane = &shard->lane;
    const skald_objective *o = &c->base.objective;
    const uint64_t n = shard->rows.n, count = batch->rows ? batch->count : n;
    const size_t b = skald_max_size(1, skald_min_size(local->step_rows, count));
    TRY(prepare(c, shard, b));
    TRY(cuda_upload_vector(c, lane, 0, w));
    TRY(cuda_upload_list(c, lane, batch->rows, batch->count, lane->stream));
    if (local->saga) TRY(cuda_upload_vector(c, lane, 1, abar));
    const skald_gpu_softmax_local l = {.rows = &shard->rows,
                                       .classes = m->classes,
                                       .step_rows = (uint32_t)b,
                                       .saga = local->saga,
                                       .intercept = o->intercept,
                                       .eta = local->eta,
                                       .inv_n = local->saga ? 1 / local->n : 0,
                                       .l2 = o->l2,
                                       .l1 = o->l1,
                                       .list = batch->rows ? lane->d_list : NULL,
                                       .count = count,
                                       .w0 = lane->d_vector[0],
                                       .abar = lane->d_vector[1],
                                       .w = m->w,
                                       .d = m->d,
                                       .x = m->step_x,
                                       .ld = m->ld,
                                       .z = m->step,
                                       .loss = m->loss,
                                       .alpha = m->alpha,
                                       .pending = m->pending,
                                       .bad = m->bad};
    CUDA_TRY(c, skald_gpu_softmax_local_run(&l, lane->stream), "starting local steps");
    CUDA_TRY(c,
             skald_gpu_softmax_local_end(&l, lane->d_out[0], local->saga ? lane->d_out[1] : NULL, lane->d_results->sums,
                                         lane->stream),
             "ending local steps");
    return SKALD_OK;
}

skald_status cuda_softmax_local(skald_compute *base, skald_shard *base_shard, const skald_batch *batch,
                                const skald_local *local, const double *w, const double *abar, double *dw, double *g,
                                skald_sums *sums) {
    cuda_compute *c = (cuda_compute *)base;
    cuda_shard *shard = (cuda_shard *)base_shard;
    TRY(compute_check_batch(shard->rows.n, batch));
    TRY(compute_check_local(&base->objective, local, abar));
    TRY(cuda_begin(c, shard, local->saga));
    skald_status st = start(c, shard, batch, local, w, abar);
    if (st != SKALD_OK) return cuda_settle(&shard->lane, st);
    skald_gpu_sums got[2];
    st = cuda_download(c, &shard->lane, 1, (double *[2]){dw, local->saga ? g : NULL}, got);
    if (st == SKALD_ENUMERIC)
        return skald_fail(st, "local steps diverged: a derivative is not finite; use a smaller step");
    if (st != SKALD_OK) {
        shard->doubtful |= local->saga;
        return cuda_settle(&shard->lane, st);
    }
    *sums = (skald_sums){.loss = got[0].loss, .rows = got[0].rows, .k = got[0].k, .k2 = got[0].k2};
    if (!local->saga && g) memset(g, 0, shard->lane.dim * sizeof *g);
    return SKALD_OK;
}

static skald_status move(cuda_compute *c, cuda_shard *shard, void *to, const void *from, enum cudaMemcpyKind kind) {
    const size_t bytes = shard->rows.n * shard->softmax->classes * sizeof(float);
    CUDA_TRY(c, cudaMemcpyAsync(to, from, bytes, kind, shard->lane.stream), "copying the history");
    CUDA_TRY(c, cudaStreamSynchronize(shard->lane.stream), "copying the history");
    return SKALD_OK;
}

skald_status cuda_softmax_history_get(skald_compute *base, skald_shard *base_shard, float *alpha) {
    cuda_compute *c = (cuda_compute *)base;
    cuda_shard *shard = (cuda_shard *)base_shard;
    TRY(cuda_begin(c, shard, true));
    return cuda_settle(&shard->lane, move(c, shard, alpha, shard->softmax->alpha, cudaMemcpyDeviceToHost));
}

skald_status cuda_softmax_history_set(skald_compute *base, skald_shard *base_shard, const float *alpha) {
    cuda_compute *c = (cuda_compute *)base;
    cuda_shard *shard = (cuda_shard *)base_shard;
    TRY(compute_check_history(shard->rows.n * shard->softmax->classes, alpha));
    TRY(cuda_begin(c, shard, false));
    TRY(cuda_settle(&shard->lane, move(c, shard, shard->softmax->alpha, alpha, cudaMemcpyHostToDevice)));
    shard->doubtful = false;
    return SKALD_OK;
}
