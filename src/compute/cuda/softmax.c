/* Softmax on a card: memory, passes over rows, the history. Local steps: local.c. */
#include "compute/cuda/softmax.h"

#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "compute/checks.h"

/* Rows of a sub-batch stay in L2 between the two products; f32 sums are over SKALD_GPU_CHAIN_ROWS rows at most. */
enum { BATCH_BYTES = 24 << 20, CHAIN = SKALD_GPU_CHAIN_ROWS };

/* ---- memory --------------------------------------------------------------------------------------------- */

static size_t take(size_t *used, size_t bytes) {
    const size_t at = *used;
    *used += (bytes + 255) / 256 * 256;
    return at;
}

/* Bytes; with a block, also where everything lies. */
static size_t lay_out(cuda_softmax *m, const skald_objective *o, size_t n, uint32_t dim, char *block) {
    const size_t C = o->classes, f = sizeof(float), d = sizeof(double);
    size_t used = 0;
    m->classes = o->classes;
    m->columns = dim - o->intercept;
    m->ld = (dim + 7) / 8 * 8;
    m->batch = skald_max_size(BATCH_BYTES / (f * (m->ld + 2 * C)) / CHAIN, 1) * CHAIN;
    m->batch = skald_max_size(skald_min_size(m->batch, n), 1);
    m->parts = (m->batch + CHAIN - 1) / CHAIN;
#define TAKE(member, bytes)                                                                                            \
    do {                                                                                                               \
        const size_t at_ = take(&used, bytes);                                                                         \
        if (block) m->member = (void *)(block + at_);                                                                  \
    } while (0)
    TAKE(alpha, n * C * f);
    TAKE(pending, n * C * f);
    TAKE(x, m->batch * m->ld * f);
    TAKE(part, m->parts * C * m->ld * f);
    TAKE(slopes, m->batch * C * d);
    TAKE(delta, C * d);
    TAKE(moments, skald_objective_moments(o) * d);
    for (int k = 0; k < 2; k++) {
        TAKE(narrow[k], C * m->ld * f);
        TAKE(z[k], m->batch * C * f);
        TAKE(tally[k], SKALD_GPU_SOFTMAX_TALLY * d);
    }
#undef TAKE
    return used;
}

size_t cuda_softmax_bytes(const skald_objective *o, size_t n, uint32_t dim) {
    cuda_softmax m;
    return lay_out(&m, o, n, dim, NULL) + (o->intercept ? 3 * n * o->classes * sizeof(double) : 0);
}

skald_status cuda_softmax_init(cuda_compute *c, cuda_shard *shard) {
    const size_t n = shard->rows.n;
    cuda_softmax *m = shard->softmax = skald_zalloc(1, sizeof *m);
    if (!m) return SKALD_ENOMEM;
    TRY(cuda_cublas(&m->cublas));
    const size_t bytes = lay_out(m, &c->base.objective, n, shard->rows.dim, NULL);
    CUDA_TRY(c, cudaMalloc(&m->block, bytes), "allocating memory for the classes");
    lay_out(m, &c->base.objective, n, shard->rows.dim, m->block);
    CUDA_TRY(c, cudaMemsetAsync(m->alpha, 0, n * m->classes * sizeof(float), shard->lane.stream),
             "clearing the history");
    int status = m->cublas->create(&m->handle);
    if (status == 0) status = m->cublas->set_stream(m->handle, shard->lane.stream);
    if (status != 0) return skald_fail(SKALD_EIO, "%s: cuBLAS: %s", c->spec, m->cublas->status(status));
    return SKALD_OK;
}

void cuda_softmax_fini(cuda_shard *shard) {
    cuda_softmax *m = shard->softmax;
    if (!m) return;
    if (m->handle) m->cublas->destroy(m->handle);
    if (m->scratch) cudaFree(m->scratch);
    if (m->block) cudaFree(m->block);
    free(m);
    shard->softmax = NULL;
}

/* ---- one sub-batch ---------------------------------------------------------------------------------------- */

typedef struct piece {
    cuda_compute *c;
    cuda_shard *shard;
    const uint32_t *list; /* on the card; NULL: rows in order */
    uint64_t first, count;
    const float *x; /* dense: the rows, ld floats each */
    size_t ld;
} piece;

static skald_status products(const piece *p, int status) {
    if (status == 0) return SKALD_OK;
    return skald_fail(SKALD_EIO, "%s: cuBLAS: %s", p->c->spec, p->shard->softmax->cublas->status(status));
}

/* Rows where the products can read them. */
static skald_status find_rows(piece *p) {
    const skald_gpu_rows *r = &p->shard->rows;
    cuda_softmax *m = p->shard->softmax;
    if (r->layout == SKALD_CSR) return SKALD_OK;
    if (!p->list && r->storage == SKALD_GPU_F32 && !r->unit) {
        p->x = (const float *)r->x + p->first * r->stride;
        p->ld = r->stride;
        return SKALD_OK;
    }
    p->x = m->x;
    p->ld = m->ld;
    CUDA_TRY(p->c, skald_gpu_softmax_gather(r, p->list, p->first, p->count, NULL, m->x, m->ld, p->shard->lane.stream),
             "gathering rows");
    return SKALD_OK;
}

/* Z = X W', without the intercept. */
static skald_status margins(const piece *p, int k) {
    const float one = 1, zero = 0;
    cuda_softmax *m = p->shard->softmax;
    const skald_gpu_rows *r = &p->shard->rows;
    if (r->layout == SKALD_CSR) {
        CUDA_TRY(p->c,
                 skald_gpu_softmax_sparse_margins(r, p->list, p->first, p->count, p->shard->lane.d_vector[k],
                                                  m->columns, m->classes, m->z[k], p->shard->lane.stream),
                 "starting the margins");
        return SKALD_OK;
    }
    return products(p, m->cublas->sgemm(m->handle, CUBLAS_OP_T, CUBLAS_OP_N, (int)m->classes, (int)p->count,
                                        (int)r->dim, &one, m->narrow[k], (int)m->ld, p->x, (int)p->ld, &zero, m->z[k],
                                        (int)m->classes));
}

/* G += R' X, constants apart. */
static skald_status sums(const piece *p, const float *r, double *g) {
    const float one = 1, zero = 0;
    cuda_softmax *m = p->shard->softmax;
    const skald_gpu_rows *rows = &p->shard->rows;
    const cudaStream_t stream = p->shard->lane.stream;
    const int C = (int)m->classes, dim = (int)rows->dim;
    if (m->columns < rows->dim)
        CUDA_TRY(p->c,
                 skald_gpu_softmax_constants(m->slopes, p->count, m->classes, g + rows->dim - 1, rows->dim, stream),
                 "adding up constants");
    if (rows->layout == SKALD_CSR) {
        CUDA_TRY(p->c,
                 skald_gpu_softmax_sparse_add(rows, p->list, p->first, p->count, r, m->columns, m->classes, g,
                                              p->c->deterministic, stream),
                 "starting the sums");
        return SKALD_OK;
    }
    const uint64_t whole = p->count / CHAIN, left = p->count % CHAIN;
    const size_t part = (size_t)C * m->ld;
    if (whole)
        TRY(products(p, m->cublas->sgemm_batched(m->handle, CUBLAS_OP_N, CUBLAS_OP_T, dim, C, CHAIN, &one, p->x,
                                                 (int)p->ld, (long long)(CHAIN * p->ld), r, C, (long long)CHAIN * C,
                                                 &zero, m->part, (int)m->ld, (long long)part, (int)whole)));
    if (left)
        TRY(products(p, m->cublas->sgemm(m->handle, CUBLAS_OP_N, CUBLAS_OP_T, dim, C, (int)left, &one,
                                         p->x + whole * CHAIN * p->ld, (int)p->ld, r + whole * CHAIN * (size_t)C, C,
                                         &zero, m->part + whole * part, (int)m->ld)));
    CUDA_TRY(p->c,
             skald_gpu_softmax_add(m->part, (uint32_t)(whole + (left > 0)), rows->dim, m->columns, m->classes, m->ld, g,
                                   stream),
             "adding up the sums");
    return SKALD_OK;
}

/* ---- passes ----------------------------------------------------------------------------------------------- */

typedef struct pass {
    skald_gpu_kind kind;
    int models, points; /* vectors read; points with sums and g of their own */
    double *g[2];       /* on the card, or NULL */
    bool keep;          /* margins */
} pass;

static skald_status run_piece(const pass *q, piece *p) {
    cuda_softmax *m = p->shard->softmax;
    const skald_gpu_rows *r = &p->shard->rows;
    const bool intercept = m->columns < r->dim;
    TRY(find_rows(p));
    for (int k = 0; k < q->models; k++) TRY(margins(p, k));
    for (int k = 0; k < q->points; k++) {
        skald_gpu_softmax_terms t = {.kind = q->kind,
                                     .classes = m->classes,
                                     .list = p->list,
                                     .first = p->first,
                                     .count = p->count,
                                     .record = r->record,
                                     .s = r->s,
                                     .alpha = m->alpha,
                                     .z = {m->z[k], m->z[1]},
                                     .b_stride = r->dim,
                                     .r = m->z[k],
                                     .slopes = intercept && q->g[k] ? m->slopes : NULL,
                                     .pending = m->pending,
                                     .margin = q->keep ? p->shard->margin[k] : NULL,
                                     .tally = m->tally[k]};
        for (int v = 0; intercept && v < q->models; v++) t.b[v] = p->shard->lane.d_vector[v ? v : k] + r->dim - 1;
        CUDA_TRY(p->c, skald_gpu_softmax_terms_run(&t, p->shard->lane.stream), "starting the coefficients");
        if (q->g[k]) TRY(sums(p, m->z[k], q->g[k]));
    }
    return SKALD_OK;
}

static skald_status start(cuda_compute *c, cuda_shard *shard, const skald_batch *batch, const pass *q,
                          const double *const w[2]) {
    cuda_softmax *m = shard->softmax;
    cuda_lane *lane = &shard->lane;
    const bool listed = batch && batch->rows;
    const uint64_t count = listed ? batch->count : shard->rows.n;
    for (int k = 0; k < q->models; k++) {
        TRY(cuda_upload_vector(c, lane, k, w[k]));
        CUDA_TRY(c,
                 skald_gpu_softmax_narrow(lane->d_vector[k], shard->rows.dim, m->columns, m->classes, m->narrow[k],
                                          m->ld, lane->stream),
                 "preparing a model");
    }
    if (listed) TRY(cuda_upload_list(c, lane, batch->rows, batch->count, lane->stream));
    for (int k = 0; k < q->points; k++) {
        CUDA_TRY(c, cudaMemsetAsync(m->tally[k], 0, SKALD_GPU_SOFTMAX_TALLY * sizeof(double), lane->stream),
                 "clearing");
        if (q->g[k]) CUDA_TRY(c, cudaMemsetAsync(q->g[k], 0, lane->dim * sizeof(double), lane->stream), "clearing");
    }
    for (uint64_t first = 0; first < count; first += m->batch) {
        piece p = {.c = c,
                   .shard = shard,
                   .list = listed ? lane->d_list : NULL,
                   .first = first,
                   .count = skald_min_size(m->batch, count - first)};
        TRY(run_piece(q, &p));
    }
    for (int k = 0; k < q->points; k++) {
        const bool saga = q->kind == SKALD_GPU_SAGA;
        CUDA_TRY(c,
                 skald_gpu_softmax_finish(m->tally[k], count, m->classes, listed ? lane->d_list : NULL,
                                          saga ? m->pending : NULL, m->alpha, &lane->d_results->sums[k], lane->stream),
                 "finishing a pass");
    }
    return SKALD_OK;
}

static skald_status run(skald_compute *base, skald_shard *base_shard, const skald_batch *batch, pass *q,
                        const double *const w[2], double *const out[2], skald_sums *result) {
    cuda_compute *c = (cuda_compute *)base;
    cuda_shard *shard = (cuda_shard *)base_shard;
    skald_gpu_sums got[2];
    if (batch) TRY(compute_check_batch(shard->rows.n, batch));
    TRY(cuda_begin(c, shard, q->kind == SKALD_GPU_SAGA || q->kind == SKALD_GPU_ANCHOR));
    for (int k = 0; k < q->points; k++) q->g[k] = out[k] ? shard->lane.d_out[k] : NULL;
    skald_status st = start(c, shard, batch, q, w);
    if (st != SKALD_OK) return cuda_settle(&shard->lane, st);
    st = cuda_download(c, &shard->lane, (uint32_t)q->points, out, got);
    if (st != SKALD_OK && st != SKALD_ENUMERIC) {
        shard->doubtful |= q->kind == SKALD_GPU_SAGA;
        return cuda_settle(&shard->lane, st);
    }
    for (int k = 0; st == SKALD_OK && result && k < q->points; k++)
        result[k] = (skald_sums){
            .loss = got[k].loss, .correct = q->kind == SKALD_GPU_OBJECTIVE ? got[k].correct : 0, .rows = got[k].rows};
    return st;
}

static skald_status gradient(skald_compute *c, skald_shard *shard, const skald_batch *batch, const double *w, double *g,
                             skald_sums *s) {
    pass q = {.kind = SKALD_GPU_GRADIENT, .models = 1, .points = 1};
    return run(c, shard, batch, &q, (const double *[2]){w}, (double *[2]){g}, s);
}

static skald_status saga(skald_compute *c, skald_shard *shard, const skald_batch *batch, const double *w, double *g,
                         skald_sums *s) {
    pass q = {.kind = SKALD_GPU_SAGA, .models = 1, .points = 1};
    return run(c, shard, batch, &q, (const double *[2]){w}, (double *[2]){g}, s);
}

static skald_status difference(skald_compute *c, skald_shard *shard, const skald_batch *batch, const double *w,
                               const double *u, double *g, skald_sums *s) {
    pass q = {.kind = SKALD_GPU_DIFFERENCE, .models = 2, .points = 1};
    return run(c, shard, batch, &q, (const double *[2]){w, u}, (double *[2]){g}, s);
}

static skald_status anchor(skald_compute *c, skald_shard *shard, double *a) {
    pass q = {.kind = SKALD_GPU_ANCHOR, .points = 1};
    return run(c, shard, NULL, &q, (const double *[2]){NULL}, (double *[2]){a}, NULL);
}

static skald_status objective(skald_compute *base, skald_shard *base_shard, uint32_t points, const double *const *w,
                              double *const *g, bool keep_margins, skald_sums *s) {
    cuda_compute *c = (cuda_compute *)base;
    cuda_shard *shard = (cuda_shard *)base_shard;
    if (points < 1 || points > 2) return skald_fail(SKALD_EINVAL, "objective at %u points: 1 or 2", points);
    pass q = {.kind = SKALD_GPU_OBJECTIVE, .models = (int)points, .points = (int)points, .keep = keep_margins};
    if (keep_margins) {
        TRY(cuda_begin(c, shard, false));
        const size_t bytes = skald_max_size(shard->rows.n, 1) * shard->softmax->classes * sizeof(double);
        for (uint32_t p = 0; p < points; p++)
            if (!shard->margin[p])
                CUDA_TRY(c, cudaMalloc((void **)&shard->margin[p], bytes), "allocating margins on the card");
        shard->margins = 0;
    }
    double *const out[2] = {g ? g[0] : NULL, g && points > 1 ? g[1] : NULL};
    TRY(run(base, base_shard, NULL, &q, (const double *[2]){w[0], points > 1 ? w[1] : NULL}, out, s));
    if (keep_margins) shard->margins = points;
    return SKALD_OK;
}

/* Of one class: its product with the first `dim` entries alone. */
static skald_status one_product(cuda_compute *c, cuda_shard *shard, size_t rows, const double *v, double *g) {
    cuda_lane *lane = &shard->lane;
    const size_t bytes = shard->rows.dim * sizeof(double);
    skald_gpu_sums got[2];
    const skald_gpu_pass product = {.kind = SKALD_GPU_CURVATURE,
                                    .loss = SKALD_SQUARED,
                                    .rows = &shard->rows,
                                    .count = rows,
                                    .w = {lane->d_vector[0]},
                                    .g = {lane->d_out[0]},
                                    .sums = lane->d_results->sums,
                                    .deterministic = c->deterministic};
    TRY(cuda_upload(c, lane, lane->d_vector[0], v, bytes));
    CUDA_TRY(c, skald_gpu_pass_run(&c->gpu, &product, lane->d_workspace, lane->workspace_bytes, lane->stream),
             "starting a pass over rows");
    CUDA_TRY(c, cudaMemcpyAsync(g, lane->d_out[0], bytes, cuda_to(c, g), lane->stream), "copying a product");
    return cuda_download(c, lane, 1, (double *[2]){NULL}, got);
}

static skald_status curvature(skald_compute *base, skald_shard *base_shard, size_t m, const double *v, double *g) {
    cuda_compute *c = (cuda_compute *)base;
    cuda_shard *shard = (cuda_shard *)base_shard;
    if (m < 1 || m > shard->rows.n)
        return skald_fail(SKALD_EINVAL, "curvature over %zu of %zu rows", m, (size_t)shard->rows.n);
    TRY(cuda_begin(c, shard, false));
    return cuda_settle(&shard->lane, one_product(c, shard, m, v, g));
}

/* ---- intercepts ------------------------------------------------------------------------------------------- */

static skald_status shift(skald_compute *c, skald_shard *shard, uint32_t points, const double *delta, skald_sums *s) {
    return skald_fail(SKALD_EINVAL, "a shift of %u classes", c->objective.classes);
}

static skald_status one_shift(cuda_compute *c, cuda_shard *shard, const double *margin, const double *delta,
                              double *moments, skald_gpu_sums *got) {
    cuda_softmax *m = shard->softmax;
    cuda_lane *lane = &shard->lane;
    const size_t bytes = skald_objective_moments(&c->base.objective) * sizeof(double);
    if (!m->scratch)
        CUDA_TRY(c, cudaMalloc(&m->scratch, skald_max_size(shard->rows.n, 1) * m->classes * sizeof(double)),
                 "allocating room for probabilities");
    TRY(cuda_upload(c, lane, m->delta, delta, m->classes * sizeof(double)));
    CUDA_TRY(c,
             skald_gpu_softmax_moments(&shard->rows, m->classes, margin, m->delta, m->scratch, m->moments, m->tally[0],
                                       lane->d_results->sums, lane->stream),
             "starting a pass over margins");
    CUDA_TRY(c, cudaMemcpyAsync(moments, m->moments, bytes, cuda_to(c, moments), lane->stream), "copying moments");
    return cuda_download(c, lane, 1, (double *[2]){NULL}, got);
}

static skald_status shift_classes(skald_compute *base, skald_shard *base_shard, uint32_t points,
                                  const double *const *delta, double *const *moments, skald_sums *s) {
    cuda_compute *c = (cuda_compute *)base;
    cuda_shard *shard = (cuda_shard *)base_shard;
    if (points < 1 || points > shard->margins)
        return skald_fail(SKALD_EINVAL, "shift at %u points: %u are kept", points, shard->margins);
    TRY(cuda_begin(c, shard, false));
    for (uint32_t p = 0; p < points; p++) {
        skald_gpu_sums got[2];
        skald_status st = one_shift(c, shard, shard->margin[p], delta[p], moments[p], got);
        if (st != SKALD_OK) return cuda_settle(&shard->lane, st);
        s[p] = (skald_sums){.loss = got[0].loss, .correct = got[0].correct, .rows = got[0].rows};
    }
    return SKALD_OK;
}

/* ---- the history ------------------------------------------------------------------------------------------ */

static skald_status move(cuda_compute *c, cuda_shard *shard, void *to, const void *from, enum cudaMemcpyKind kind) {
    const size_t bytes = shard->rows.n * shard->softmax->classes * sizeof(float);
    CUDA_TRY(c, cudaMemcpyAsync(to, from, bytes, kind, shard->lane.stream), "copying the history");
    CUDA_TRY(c, cudaStreamSynchronize(shard->lane.stream), "copying the history");
    return SKALD_OK;
}

static skald_status history_get(skald_compute *base, skald_shard *base_shard, float *alpha) {
    cuda_compute *c = (cuda_compute *)base;
    cuda_shard *shard = (cuda_shard *)base_shard;
    TRY(cuda_begin(c, shard, true));
    return cuda_settle(&shard->lane, move(c, shard, alpha, shard->softmax->alpha, cudaMemcpyDeviceToHost));
}

static skald_status history_set(skald_compute *base, skald_shard *base_shard, const float *alpha) {
    cuda_compute *c = (cuda_compute *)base;
    cuda_shard *shard = (cuda_shard *)base_shard;
    TRY(compute_check_history(shard->rows.n * shard->softmax->classes, alpha));
    TRY(cuda_begin(c, shard, false));
    TRY(cuda_settle(&shard->lane, move(c, shard, shard->softmax->alpha, alpha, cudaMemcpyHostToDevice)));
    shard->doubtful = false;
    return SKALD_OK;
}

const skald_compute_ops cuda_softmax_operations = {
    .name = "cuda",
    .load = cuda_load,
    .unload = cuda_unload,
    .gradient = gradient,
    .saga = saga,
    .local = cuda_local,
    .difference = difference,
    .objective = objective,
    .shift = shift,
    .shift_classes = shift_classes,
    .anchor = anchor,
    .curvature = curvature,
    .rows = cuda_rows,
    .history_get = history_get,
    .history_set = history_set,
    .vectors = cuda_vectors_open,
    .destroy = cuda_destroy,
};
