/* The end of a pass: partial sums added in a fixed order, the sums, the history published.
 *
 * One launch; blocks differ by role:
 *   outputs x ceil(dim / 32):  g[o][j] = scale unit[j] sum over partials, eight warps a column block
 *   1:                         sums[p] from the blocks' tallies, and g's entries of an intercept
 *   the rest:                  record[row].alpha = pending[position], unless a tally says that something is bad */
#include "kernels/pass.cuh"

#define FINISH_THREADS 256
#define COLUMNS 32
#define PUBLISH_BLOCKS 64

template <class F> static __device__ void add_columns(const finish_args &a, unsigned block) {
    SKALD_SHARED(double, share, 8 * COLUMNS);
    const unsigned blocks = (a.dim + COLUMNS - 1) / COLUMNS;
    const int o = (int)(block / blocks), warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const uint32_t j = block % blocks * COLUMNS + lane;
    const F *from = (const F *)(o ? a.partial[1] : a.partial[0]) + j;
    double sum = 0;
    if (j < a.dim) {
        int k = warp;
        for (; k + 56 < a.partials; k += 64) { /* eight loads at once */
            F v[8];
#pragma unroll
            for (int u = 0; u < 8; u++) v[u] = from[(size_t)(k + 8 * u) * a.width];
#pragma unroll
            for (int u = 0; u < 8; u++) sum += (double)v[u];
        }
        for (; k < a.partials; k += 8) sum += (double)from[(size_t)k * a.width];
    }
    share[warp * COLUMNS + lane] = sum;
    __syncthreads();
    if (warp == 0 && j < a.dim && !(j == a.dim - 1 && a.last[o])) {
        for (int k = 1; k < 8; k++) sum += share[k * COLUMNS + lane];
        double *const g = o ? a.g[1] : a.g[0];
        g[j] = a.scale * (a.unit ? (double)a.unit[j] : 1.0) * sum;
    }
}

/* Sums of the tallies' fields [first, first+fields): every thread its tallies, then threads in a tree. */
static __device__ double add_field(const finish_args &a, int field, double *share) {
    double sum = 0;
    for (int k = threadIdx.x; k < a.tallies; k += blockDim.x) sum += a.tally[k * TALLY + field];
    share[threadIdx.x] = sum;
    __syncthreads();
    for (int n = FINISH_THREADS / 2; n > 0; n /= 2) {
        if ((int)threadIdx.x < n) share[threadIdx.x] += share[threadIdx.x + n];
        __syncthreads();
    }
    sum = share[0];
    __syncthreads();
    return sum;
}

template <class F> __global__ void __launch_bounds__(FINISH_THREADS) finish(finish_args a, unsigned columns) {
    SKALD_SHARED(double, share, FINISH_THREADS);
    if (blockIdx.x < columns) {
        add_columns<F>(a, blockIdx.x);
    } else if (blockIdx.x == columns) {
        for (int o = 0; o < 2; o++) {
            if (!a.last[o]) continue;
            const double sum = add_field(a, a.last[o], share);
            if (threadIdx.x == 0) a.g[o][a.dim - 1] = (a.outputs ? a.scale : 1.0) * sum; /* else the caller scales */
        }
        if (!a.sums) return;
        const double bad = add_field(a, TALLY_BAD, share);
        for (int p = 0; p < a.points; p++) {
            const double loss = add_field(a, 4 * p, share), dphi = add_field(a, 4 * p + 1, share);
            const double d2phi = add_field(a, 4 * p + 2, share), correct = add_field(a, 4 * p + 3, share);
            if (threadIdx.x == 0) {
                const skald_gpu_sums sums = {loss, dphi, d2phi, correct, (double)a.count, 0, 0, bad};
                a.sums[p] = sums;
            }
        }
    } else {
        if (add_field(a, TALLY_BAD, share) != 0) return;
        const uint64_t step = (uint64_t)(gridDim.x - columns - 1) * blockDim.x;
        for (uint64_t k = (uint64_t)(blockIdx.x - columns - 1) * blockDim.x + threadIdx.x; k < a.count; k += step)
            a.record[a.list ? a.list[k] : k].alpha = a.pending[k];
    }
}

int skald_finish(const finish_args *a, skald_gpu_stream stream) {
    const unsigned columns = (unsigned)a->outputs * ((a->dim + COLUMNS - 1) / COLUMNS);
    unsigned publish = 0;
    if (a->pending) {
        publish = (unsigned)((a->count + FINISH_THREADS - 1) / FINISH_THREADS);
        if (publish > PUBLISH_BLOCKS) publish = PUBLISH_BLOCKS;
    }
    if (a->wide)
        SKALD_LAUNCH(finish<double>, columns + 1 + publish, FINISH_THREADS, 0, stream, *a, columns);
    else
        SKALD_LAUNCH(finish<float>, columns + 1 + publish, FINISH_THREADS, 0, stream, *a, columns);
    return cudaGetLastError();
}

/* ---- shift: the losses of kept margins ---------------------------------------------------------------- */

#define SHIFT_BLOCKS 256

typedef struct shift_args {
    row_args rows;
    int points;
    const double *margin[2];
    double delta[2];
} shift_args;

__global__ void __launch_bounds__(FINISH_THREADS) shift(shift_args a) {
    SKALD_SHARED(double, slots, FINISH_THREADS *TALLY);
    tally_clear(slots, FINISH_THREADS);
    __syncthreads();
    double *const slot = slots + threadIdx.x * TALLY;
    const uint64_t step = (uint64_t)gridDim.x * blockDim.x;
    for (uint64_t i = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x; i < a.rows.count; i += step) {
        float c[2];
        row_terms(a.rows, (uint32_t)i, i, a.margin[0][i] + a.delta[0],
                  a.points == 2 ? a.margin[1][i] + a.delta[1] : 0.0, facts_of(a.rows, (uint32_t)i), c, slot);
    }
    __syncthreads();
    tally_write(slots, FINISH_THREADS, a.rows.tally, a.rows.more);
}

extern "C" size_t skald_gpu_shift_workspace(void) {
    return SHIFT_BLOCKS * TALLY * sizeof(double);
}

extern "C" int skald_gpu_shift(const skald_gpu_rows *rows, skald_loss loss, double huber_delta, uint32_t points,
                               const double *const margin[2], const double delta[2], skald_gpu_sums *sums,
                               void *workspace, skald_gpu_stream stream) {
    if (points < 1 || points > 2) return cudaErrorInvalidValue;
    shift_args a = {};
    a.rows.kind = SKALD_GPU_OBJECTIVE;
    a.rows.loss = loss;
    a.rows.delta = huber_delta;
    a.rows.count = rows->n;
    a.rows.record = rows->record;
    a.rows.s = rows->s;
    a.rows.tally = (double *)workspace;
    a.points = (int)points;
    finish_args f = {};
    for (uint32_t p = 0; p < points; p++) {
        a.margin[p] = margin[p];
        a.delta[p] = delta[p];
    }
    const uint64_t blocks = (rows->n + FINISH_THREADS - 1) / FINISH_THREADS;
    f.tallies = blocks < 1 ? 1 : blocks > SHIFT_BLOCKS ? SHIFT_BLOCKS : (int)blocks;
    SKALD_LAUNCH(shift, (unsigned)f.tallies, FINISH_THREADS, 0, stream, a);
    f.points = (int)points;
    f.tally = a.rows.tally;
    f.count = rows->n;
    f.sums = sums;
    return skald_finish(&f, stream);
}
