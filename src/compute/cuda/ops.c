/* Operations that are one pass over rows, and the history. */
#include <math.h>
#include <string.h>

#include "base/base.h"
#include "compute/checks.h"
#include "compute/cuda/cuda.h"

skald_status cuda_begin(cuda_compute *c, const cuda_shard *shard, bool history) {
    if (history && shard->doubtful)
        return skald_fail(SKALD_EIO, "the history of this shard is in doubt since an error of %s", c->spec);
    TRY(cuda_enter(c));
    return cuda_vectors_precede(c, shard->lane.stream);
}

static skald_sums sums_of(const skald_gpu_sums *s) {
    return (skald_sums){.loss = s->loss,
                        .dphi = s->dphi,
                        .d2phi = s->d2phi,
                        .correct = s->correct,
                        .rows = s->rows,
                        .k = s->k,
                        .k2 = s->k2};
}

/* Uploads w[0..models) and the batch, and starts the pass, of which the caller has filled in kind, points, count
 * (without a batch) and margin. */
static skald_status start(cuda_compute *c, cuda_shard *shard, const skald_batch *batch, skald_gpu_pass *pass,
                          int models, const double *const w[2], double *const out[2]) {
    cuda_lane *lane = &shard->lane;
    pass->loss = c->base.objective.loss;
    pass->huber_delta = c->base.objective.huber_delta;
    pass->rows = &shard->rows;
    pass->intercept = c->base.objective.intercept;
    pass->deterministic = c->deterministic;
    pass->sums = lane->d_results->sums;
    if (batch && batch->rows) {
        pass->count = batch->count;
        pass->list = lane->d_list;
    } else if (!pass->count) {
        pass->count = shard->rows.n;
    }
    for (int k = 0; k < models; k++) {
        pass->w[k] = lane->d_vector[k];
        TRY(cuda_upload_vector(c, lane, k, w[k]));
    }
    if (batch) TRY(cuda_upload_list(c, lane, batch->rows, batch->count, lane->stream));
    /* The second sum alone is not to be had; and margins that are kept come from the kernel that will make sums at
     * these points, once shifted: not a bit of them is to differ then. */
    for (int k = 0; k < 2; k++)
        if (out[k] || (k == 0 && out[1]) || pass->margin[k]) pass->g[k] = lane->d_out[k];
    CUDA_TRY(c, skald_gpu_pass_run(&c->gpu, pass, lane->d_workspace, lane->workspace_bytes, lane->stream),
             "starting a pass over rows");
    return SKALD_OK;
}

static skald_status run(cuda_compute *c, cuda_shard *shard, const skald_batch *batch, skald_gpu_pass *pass, int models,
                        const double *const w[2], double *const out[2], skald_sums *sums) {
    const bool history = pass->kind == SKALD_GPU_SAGA || pass->kind == SKALD_GPU_ANCHOR;
    skald_gpu_sums got[2];
    if (batch) TRY(compute_check_batch(shard->rows.n, batch));
    TRY(cuda_begin(c, shard, history));
    skald_status st = start(c, shard, batch, pass, models, w, out);
    if (st != SKALD_OK) return cuda_settle(&shard->lane, st);
    st = cuda_download(c, &shard->lane, pass->points ? pass->points : 1, out, got);
    if (st != SKALD_OK && st != SKALD_ENUMERIC) {
        shard->doubtful |= pass->kind == SKALD_GPU_SAGA;
        return cuda_settle(&shard->lane, st);
    }
    for (uint32_t p = 0; st == SKALD_OK && sums && p < (pass->points ? pass->points : 1); p++)
        sums[p] = sums_of(&got[p]);
    return st;
}

skald_status cuda_gradient(skald_compute *c, skald_shard *shard, const skald_batch *batch, const double *w, double *g,
                           skald_sums *sums) {
    skald_gpu_pass pass = {.kind = SKALD_GPU_GRADIENT};
    return run((cuda_compute *)c, (cuda_shard *)shard, batch, &pass, 1, (const double *[2]){w}, (double *[2]){g}, sums);
}

skald_status cuda_saga(skald_compute *c, skald_shard *shard, const skald_batch *batch, const double *w, double *g,
                       skald_sums *sums) {
    skald_gpu_pass pass = {.kind = SKALD_GPU_SAGA};
    return run((cuda_compute *)c, (cuda_shard *)shard, batch, &pass, 1, (const double *[2]){w}, (double *[2]){g}, sums);
}

skald_status cuda_difference(skald_compute *c, skald_shard *shard, const skald_batch *batch, const double *w,
                             const double *u, double *g, skald_sums *sums) {
    skald_gpu_pass pass = {.kind = SKALD_GPU_DIFFERENCE};
    return run((cuda_compute *)c, (cuda_shard *)shard, batch, &pass, 2, (const double *[2]){w, u}, (double *[2]){g},
               sums);
}

static skald_status keep_room(cuda_compute *c, cuda_shard *shard, uint32_t points) {
    const size_t bytes = skald_max_size(shard->rows.n, 1) * sizeof(double);
    for (uint32_t p = 0; p < points; p++)
        if (!shard->margin[p])
            CUDA_TRY(c, cudaMalloc((void **)&shard->margin[p], bytes), "allocating margins on the card");
    return SKALD_OK;
}

skald_status cuda_objective(skald_compute *base, skald_shard *base_shard, uint32_t points, const double *const *w,
                            double *const *g, bool keep_margins, skald_sums *sums) {
    cuda_compute *c = (cuda_compute *)base;
    cuda_shard *shard = (cuda_shard *)base_shard;
    if (points < 1 || points > 2) return skald_fail(SKALD_EINVAL, "objective at %u points: 1 or 2", points);
    skald_gpu_pass pass = {.kind = SKALD_GPU_OBJECTIVE, .points = points};
    if (keep_margins) {
        TRY(cuda_begin(c, shard, false));
        TRY(keep_room(c, shard, points));
        for (uint32_t p = 0; p < points; p++) pass.margin[p] = shard->margin[p];
        shard->margins = 0;
    }
    double *const out[2] = {g ? g[0] : NULL, g && points > 1 ? g[1] : NULL};
    TRY(run(c, shard, NULL, &pass, (int)points, (const double *[2]){w[0], points > 1 ? w[1] : NULL}, out, sums));
    if (keep_margins) shard->margins = points;
    return SKALD_OK;
}

static skald_status start_shift(cuda_compute *c, cuda_shard *shard, uint32_t points, const double *delta) {
    const double *margin[2] = {shard->margin[0], shard->margin[1]};
    const double by[2] = {delta[0], points > 1 ? delta[1] : 0};
    CUDA_TRY(c,
             skald_gpu_shift(&shard->rows, c->base.objective.loss, c->base.objective.huber_delta, points, margin, by,
                             shard->lane.d_results->sums, shard->lane.d_workspace, shard->lane.stream),
             "starting a pass over margins");
    return SKALD_OK;
}

skald_status cuda_shift(skald_compute *base, skald_shard *base_shard, uint32_t points, const double *delta,
                        skald_sums *sums) {
    cuda_compute *c = (cuda_compute *)base;
    cuda_shard *shard = (cuda_shard *)base_shard;
    skald_gpu_sums got[2];
    if (points < 1 || points > shard->margins)
        return skald_fail(SKALD_EINVAL, "shift at %u points: %u are kept", points, shard->margins);
    TRY(cuda_begin(c, shard, false));
    skald_status st = start_shift(c, shard, points, delta);
    if (st == SKALD_OK) st = cuda_download(c, &shard->lane, points, (double *[2]){NULL}, got);
    if (st != SKALD_OK) return cuda_settle(&shard->lane, st);
    for (uint32_t p = 0; p < points; p++) sums[p] = sums_of(&got[p]);
    return SKALD_OK;
}

skald_status cuda_anchor(skald_compute *c, skald_shard *shard, double *a) {
    skald_gpu_pass pass = {.kind = SKALD_GPU_ANCHOR};
    return run((cuda_compute *)c, (cuda_shard *)shard, NULL, &pass, 0, (const double *[2]){NULL}, (double *[2]){a},
               NULL);
}

skald_status cuda_curvature(skald_compute *c, skald_shard *base_shard, size_t m, const double *v, double *g) {
    cuda_shard *shard = (cuda_shard *)base_shard;
    if (m < 1 || m > shard->rows.n)
        return skald_fail(SKALD_EINVAL, "curvature over %zu of %zu rows", m, (size_t)shard->rows.n);
    skald_gpu_pass pass = {.kind = SKALD_GPU_CURVATURE, .count = m};
    return run((cuda_compute *)c, shard, NULL, &pass, 1, (const double *[2]){v}, (double *[2]){g}, NULL);
}

/* ---- history -------------------------------------------------------------------------------------- */

static skald_status fetch_history(cuda_compute *c, cuda_shard *shard) {
    cuda_lane *lane = &shard->lane;
    const size_t n = shard->rows.n;
    CUDA_TRY(c, skald_gpu_history_get(shard->rows.record, n, (float *)(void *)lane->d_list, lane->stream),
             "reading the history");
    CUDA_TRY(c, cudaMemcpyAsync(lane->h_list, lane->d_list, n * sizeof(float), cudaMemcpyDeviceToHost, lane->stream),
             "copying the history");
    CUDA_TRY(c, cudaStreamSynchronize(lane->stream), "waiting for the history");
    return SKALD_OK;
}

skald_status cuda_history_get(skald_compute *c, skald_shard *base, float *alpha) {
    cuda_shard *shard = (cuda_shard *)base;
    TRY(cuda_begin((cuda_compute *)c, shard, true));
    skald_status st = fetch_history((cuda_compute *)c, shard);
    if (st != SKALD_OK) return cuda_settle(&shard->lane, st);
    memcpy(alpha, shard->lane.h_list, shard->rows.n * sizeof *alpha);
    return SKALD_OK;
}

static skald_status send_history(cuda_compute *c, cuda_shard *shard) {
    cuda_lane *lane = &shard->lane;
    const size_t n = shard->rows.n;
    CUDA_TRY(c, cudaMemcpyAsync(lane->d_list, lane->h_list, n * sizeof(float), cudaMemcpyHostToDevice, lane->stream),
             "copying the history");
    CUDA_TRY(c, cudaStreamSynchronize(lane->stream), "waiting for the history");
    CUDA_TRY(c, skald_gpu_history_set(shard->rows.record, n, (const float *)(const void *)lane->d_list, lane->stream),
             "writing the history");
    /* the next local task's rows go to d_list on another stream (seen as a history of row numbers) */
    CUDA_TRY(c, cuda_wait(lane), "waiting for the history");
    return SKALD_OK;
}

skald_status cuda_history_set(skald_compute *c, skald_shard *base, const float *alpha) {
    cuda_shard *shard = (cuda_shard *)base;
    TRY(compute_check_history(shard->rows.n, alpha));
    TRY(cuda_begin((cuda_compute *)c, shard, false));
    memcpy(shard->lane.h_list, alpha, shard->rows.n * sizeof *alpha);
    skald_status st = send_history((cuda_compute *)c, shard);
    if (st != SKALD_OK) return cuda_settle(&shard->lane, st);
    shard->doubtful = false;
    return SKALD_OK;
}
