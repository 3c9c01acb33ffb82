/* Local steps: the workspace, the sums, the history published. Steps themselves: local_dense.cu, local_sparse.cu,
 * local_softmax.cu. */
#include "kernels/local.cuh"

#include <math.h>

extern "C" void skald_gpu_local_set(skald_gpu_local_settings *out, double eta, double n, double l2, double l1,
                                    uint64_t count) {
    /* scaled coordinates: as long as Q = (1 - eta l2)^p stays above 1e-100 */
    const double steps = l2 > 0 ? 230.0 / -log1p(-eta * l2) : HUGE_VAL;
    const uint32_t most = 1u << 30;
    const uint32_t period = steps < 32 ? 16 : steps < (double)most ? (uint32_t)steps / 16 * 16 : most;
    *out = {eta, n > 0 ? 1.0 / n : 0.0, l2, l1, count, period, 0};
}

/* ---- the workspace ------------------------------------------------------------------------------------- */

#define END_THREADS 256
#define END_BLOCKS 64

typedef struct layout {
    unsigned char *at;
    size_t used;
} layout;

static void *take(layout *w, size_t bytes) {
    void *p = w->at ? w->at + w->used : NULL;
    w->used += (bytes + 255) / 256 * 256;
    return p;
}

static bool softmax_of(const skald_gpu_local *local) {
    return local->loss == SKALD_SOFTMAX;
}
static bool dense_of(const skald_gpu_local *local) {
    return local->rows->layout == SKALD_DENSE;
}
static uint32_t steps_of(const skald_gpu_local *local) {
    return (uint32_t)((local->most + local->step_rows - 1) / local->step_rows);
}

/* Bytes; with a workspace, also where everything lies. */
static size_t lay_out(const skald_gpu_local *local, void *workspace, local_args *l, double **tally) {
    layout w = {(unsigned char *)workspace, 0};
    const skald_gpu_rows *rows = local->rows;
    const size_t dim = rows->dim, width = dense_of(local) ? rows->stride : dim;
    *l = {};
    l->settings = local->settings;
    l->norm2 = rows->norm2;
    l->saga = local->saga;
    l->step_rows = local->step_rows;
    l->dim = rows->dim;
    l->width = (uint32_t)width;
    l->last = local->intercept ? rows->dim - 1 : NO_ROW;
    l->last_step = local->intercept_step;
    l->w0 = local->w;
    l->abar = local->abar;
    l->unit = dense_of(local) ? rows->unit : NULL;
    l->loss = (double *)take(&w, local->most * sizeof(double));
    l->k = (double *)take(&w, local->most * sizeof(double));
    l->bad = (unsigned *)take(&w, sizeof(unsigned));
    *tally = NULL;
    if (softmax_of(local)) {
        l->classes = local->classes;
        l->alpha = local->alpha;
        l->pending = local->pending;
        l->ld = (dim + 7) / 8 * 8;
        l->w = (double *)take(&w, l->classes * dim * sizeof(double));
        l->d = (double *)take(&w, l->classes * dim * sizeof(double));
        l->z = (double *)take(&w, 4 * (size_t)l->step_rows * l->classes * sizeof(double));
        l->x = (float *)take(&w, l->step_rows * l->ld * sizeof(float));
        return w.used;
    }
    l->pending = (float *)take(&w, local->most * sizeof(float));
    l->coefficient = (float2 *)take(&w, local->step_rows * sizeof(float2));
    *tally = (double *)take(&w, END_BLOCKS * 3 * sizeof(double));
    if (dense_of(local)) {
        l->w = (double *)take(&w, width * sizeof(double));
        l->d = (double *)take(&w, width * sizeof(double));
        l->narrow = (float *)take(&w, width * sizeof(float));
        l->narrow0 = (float *)take(&w, width * sizeof(float));
    } else {
        l->columns = (column *)take(&w, dim * sizeof(column));
        if (local->l1 || local->deterministic) {
            l->fixed = (long long *)take(&w, 2 * dim * sizeof(long long));
            l->largest = (unsigned *)take(&w, 2 * (size_t)steps_of(local) * sizeof(unsigned));
        }
    }
    return w.used;
}

extern "C" size_t skald_gpu_local_workspace(const skald_gpu_local *local) {
    local_args l;
    double *tally;
    return lay_out(local, NULL, &l, &tally);
}

static bool valid(const skald_gpu_local *local) {
    return local->step_rows >= 1 && local->most >= 1 && local->rows->n <= 0xffffffffu &&
           (local->most <= local->rows->n || local->most == 1) && local->rows->norm2 && local->settings &&
           (!local->saga || local->abar) &&
           (!softmax_of(local) || (local->classes >= 2 && local->alpha && local->pending));
}

/* ---- the end ------------------------------------------------------------------------------------------- */

/* A block's sums of loss, k and k^2. */
__global__ void __launch_bounds__(END_THREADS) end_tally(local_args l, double *tally) {
    SKALD_SHARED(double, share, 3 * END_THREADS);
    const uint64_t count = l.settings->count;
    double loss = 0, k = 0, k2 = 0;
    for (uint64_t i = (uint64_t)blockIdx.x * END_THREADS + threadIdx.x; i < count;
         i += (uint64_t)gridDim.x * END_THREADS) {
        const double own = l.k[i];
        loss += l.loss[i];
        k += own;
        k2 += own * own;
    }
    share[threadIdx.x] = loss;
    share[END_THREADS + threadIdx.x] = k;
    share[2 * END_THREADS + threadIdx.x] = k2;
    __syncthreads();
    for (unsigned n = END_THREADS / 2; n > 0; n /= 2) {
        if (threadIdx.x < n)
            for (int f = 0; f < 3; f++)
                share[f * END_THREADS + threadIdx.x] += share[f * END_THREADS + threadIdx.x + n];
        __syncthreads();
    }
    if (threadIdx.x < 3) tally[blockIdx.x * 3 + threadIdx.x] = share[threadIdx.x * END_THREADS];
}

__global__ void __launch_bounds__(END_THREADS)
    end_publish(local_args l, row_args rows, const double *tally, int tallies, skald_gpu_sums *sums) {
    const uint64_t count = l.settings->count;
    const unsigned bad = *l.bad;
    if (blockIdx.x == 0 && threadIdx.x == 0) {
        skald_gpu_sums s = {0, 0, 0, 0, (double)count, 0, 0, (double)bad};
        for (int b = 0; b < tallies; b++) {
            s.loss += tally[3 * b];
            s.k += tally[3 * b + 1];
            s.k2 += tally[3 * b + 2];
        }
        *sums = s;
    }
    if (bad || !l.saga) return;
    skald_gpu_record *record = const_cast<skald_gpu_record *>(rows.record);
    for (uint64_t i = (uint64_t)blockIdx.x * END_THREADS + threadIdx.x; i < count;
         i += (uint64_t)gridDim.x * END_THREADS)
        record[row_at(rows, i)].alpha = l.pending[i];
}

/* ---- launchers ----------------------------------------------------------------------------------------- */

extern "C" int skald_gpu_local_begin(const skald_gpu_local *local, void *workspace, skald_gpu_stream stream) {
    local_args l;
    double *tally;
    if (!valid(local)) return cudaErrorInvalidValue;
    lay_out(local, workspace, &l, &tally);
    if (softmax_of(local)) return skald_local_softmax_begin(&l, stream);
    return dense_of(local) ? skald_local_dense_begin(&l, stream)
                           : skald_local_sparse_begin(&l, steps_of(local), stream);
}

static row_args rows_of(const skald_gpu_local *local) {
    row_args rows = {};
    rows.loss = local->loss;
    rows.delta = local->huber_delta;
    rows.list = local->list;
    rows.count = local->most;
    rows.record = local->rows->record;
    rows.s = local->rows->s;
    return rows;
}

extern "C" int skald_gpu_local_steps(const skald_gpu_local *local, void *workspace, uint32_t first, uint32_t count,
                                     skald_gpu_stream stream) {
    local_args l;
    double *tally;
    if (!valid(local) || first > steps_of(local) || count > steps_of(local) - first) return cudaErrorInvalidValue;
    lay_out(local, workspace, &l, &tally);
    const row_args rows = rows_of(local);
    int error = cudaSuccess;
    for (uint32_t step = first; step < first + count && error == cudaSuccess; step++)
        error = softmax_of(local) ? skald_local_softmax_step(local, &l, &rows, step, stream)
                : dense_of(local) ? skald_local_dense_step(local, &l, &rows, step, stream)
                                  : skald_local_sparse_step(local, &l, &rows, step, stream);
    return error;
}

extern "C" int skald_gpu_local_end(const skald_gpu_local *local, void *workspace, skald_gpu_stream stream) {
    local_args l;
    double *tally;
    if (!valid(local)) return cudaErrorInvalidValue;
    lay_out(local, workspace, &l, &tally);
    const row_args rows = rows_of(local);
    const uint64_t wanted = (local->most + END_THREADS - 1) / END_THREADS;
    const unsigned blocks = wanted < END_BLOCKS ? (unsigned)wanted : END_BLOCKS;
    double *const g = local->saga ? local->g : NULL;
    if (softmax_of(local)) return skald_local_softmax_end(&l, &rows, local->dw, g, local->sums, stream);
    int error = dense_of(local) ? skald_local_dense_end(&l, local->dw, g, stream)
                                : skald_local_sparse_end(&l, local->dw, g, stream);
    if (error != cudaSuccess) return error;
    SKALD_LAUNCH(end_tally, blocks, END_THREADS, 0, stream, l, tally);
    error = cudaGetLastError(); /* after a launch that failed, the history must not be published */
    if (error != cudaSuccess) return error;
    SKALD_LAUNCH(end_publish, blocks, END_THREADS, 0, stream, l, rows, (const double *)tally, (int)blocks, local->sums);
    return cudaGetLastError();
}
