/* The verbs of include/skald/vectors.h on device vectors: one pass each, f64. Compiled without contraction to
 * FMA, so that entries have the bits of src/engine/vectors_host.c, and all cards the same. */
#include "kernels/device.cuh"
#include "kernels/kernels.h"
#include "kernels/step.cuh"

#define THREADS 256
#define MOST_BLOCKS 1024
#define EACH(j, n)                                                                                                     \
    (size_t j = (size_t)blockIdx.x * blockDim.x + threadIdx.x; j < (n); j += (size_t)gridDim.x * blockDim.x)

static unsigned blocks_for(size_t n) {
    const size_t blocks = (n + THREADS - 1) / THREADS;
    return blocks < 1 ? 1 : blocks > MOST_BLOCKS ? MOST_BLOCKS : (unsigned)blocks;
}

__global__ void __launch_bounds__(THREADS)
    combine(size_t n, double *out, double a, const double *x, double b, const double *y) {
    for
        EACH(j, n) out[j] = y ? a * x[j] + b * y[j] : a * x[j];
}

extern "C" int skald_gpu_axpy(size_t n, double *y, double a, const double *x, skald_gpu_stream stream) {
    return skald_gpu_combine(n, y, a, x, 1.0, y, stream);
}

extern "C" int skald_gpu_combine(size_t n, double *out, double a, const double *x, double b, const double *y,
                                 skald_gpu_stream stream) {
    SKALD_LAUNCH(combine, blocks_for(n), THREADS, 0, stream, n, out, a, x, b, y);
    return cudaGetLastError();
}

/* ---- sums over a vector: blocks, then their sums, each in a tree --------------------------------------------- */

#define SUM_BLOCKS (SKALD_GPU_SUM_BYTES / 8)

static __device__ __forceinline__ bool is_free(const skald_gpu_regulariser &r, size_t j) {
    return r.intercept && j % r.columns == r.columns - 1;
}

/* v^2 / (1 + v^2) and its slope. */
static __device__ __forceinline__ double bounded_value(double v) {
    return v * v / (1 + v * v);
}
static __device__ __forceinline__ double bounded_slope(double v) {
    const double q = 1 + v * v;
    return 2 * v / (q * q);
}

enum sum_kind { SUM_SQUARES, SUM_PENALTY, SUM_STATIONARITY };

typedef struct sum_args {
    int kind;
    size_t n;
    const double *x, *g;
    double eta;
    skald_gpu_regulariser r;
} sum_args;

/* As in src/engine/vectors_host.c. */
static __device__ double sum_term(const sum_args &a, size_t j) {
    const double x = a.x[j];
    const skald_gpu_regulariser &r = a.r;
    if (a.kind == SUM_SQUARES) return x * x;
    if (is_free(r, j)) return 0;
    if (a.kind == SUM_PENALTY)
        return 0.5 * r.l2 * (x * x) + r.l1 * fabs(x) + (r.nonconvex > 0 ? r.nonconvex * bounded_value(x) : 0.0);
    const double slope = r.l2 * x + (r.nonconvex > 0 ? r.nonconvex * bounded_slope(x) : 0.0);
    const double smooth = a.g[j] + slope, ahead = x - a.eta * smooth, t = a.eta * r.l1;
    const double s = r.l1 <= 0 ? smooth : ahead > t ? smooth + r.l1 : ahead < -t ? smooth - r.l1 : x / a.eta;
    return s * s;
}

static __device__ void block_sum(double v, double *out) {
    SKALD_SHARED(double, share, THREADS);
    share[threadIdx.x] = v;
    __syncthreads();
    for (unsigned n = THREADS / 2; n > 0; n /= 2) {
        if (threadIdx.x < n) share[threadIdx.x] += share[threadIdx.x + n];
        __syncthreads();
    }
    if (threadIdx.x == 0) *out = share[0];
}

__global__ void __launch_bounds__(THREADS) sum_blocks(sum_args a, double *partial) {
    double sum = 0;
    for
        EACH(j, a.n) sum += sum_term(a, j);
    block_sum(sum, partial + blockIdx.x);
}

__global__ void __launch_bounds__(THREADS) sum_total(int n, const double *partial, double *out) {
    block_sum((int)threadIdx.x < n ? partial[threadIdx.x] : 0.0, out);
}

static int sum(const sum_args &a, double *out, void *workspace, skald_gpu_stream stream) {
    const unsigned most = SUM_BLOCKS, wanted = blocks_for(a.n), blocks = wanted < most ? wanted : most;
    SKALD_LAUNCH(sum_blocks, blocks, THREADS, 0, stream, a, (double *)workspace);
    SKALD_LAUNCH(sum_total, 1, THREADS, 0, stream, (int)blocks, (const double *)workspace, out);
    return cudaGetLastError();
}

extern "C" int skald_gpu_norm2(size_t n, const double *x, double *out, void *workspace, skald_gpu_stream stream) {
    sum_args a = {};
    a.kind = SUM_SQUARES;
    a.n = n;
    a.x = x;
    return sum(a, out, workspace, stream);
}

extern "C" int skald_gpu_penalty(size_t n, const double *w, const skald_gpu_regulariser *r, double *out,
                                 void *workspace, skald_gpu_stream stream) {
    sum_args a = {};
    a.kind = SUM_PENALTY;
    a.n = n;
    a.x = w;
    a.r = *r;
    return sum(a, out, workspace, stream);
}

extern "C" int skald_gpu_stationarity(size_t n, const double *w, const double *g, double eta,
                                      const skald_gpu_regulariser *r, double *out, void *workspace,
                                      skald_gpu_stream stream) {
    const sum_args a = {SUM_STATIONARITY, n, w, g, eta, *r};
    return sum(a, out, workspace, stream);
}

/* ---- updates ------------------------------------------------------------------------------------------- */

__global__ void __launch_bounds__(THREADS)
    sgd_update(size_t n, double *w, const double *g, double a, double eta, skald_gpu_regulariser r) {
    for
        EACH(j, n) {
            const bool free = is_free(r, j);
            double slope = a * g[j] + (free ? 0.0 : r.l2) * w[j];
            if (r.nonconvex > 0 && !free) slope += r.nonconvex * bounded_slope(w[j]);
            w[j] = soft(w[j] - (free ? eta * r.intercept_step : eta) * slope, free ? 0.0 : eta * r.l1);
        }
}

extern "C" int skald_gpu_sgd_update(size_t n, double *w, const double *g, double a, double eta,
                                    const skald_gpu_regulariser *r, skald_gpu_stream stream) {
    SKALD_LAUNCH(sgd_update, blocks_for(n), THREADS, 0, stream, n, w, g, a, eta, *r);
    return cudaGetLastError();
}

__global__ void __launch_bounds__(THREADS)
    saga_update(size_t n, double *w, double *abar, const double *g, double a, const double *h, double eta, double inv_n,
                skald_gpu_regulariser r) {
    for
        EACH(j, n) {
            const bool free = is_free(r, j);
            const double b = abar[j];
            const double step = free ? eta * r.intercept_step : eta;
            w[j] = soft(w[j] - step * (a * g[j] + b + (free ? 0.0 : r.l2) * w[j]), free ? 0.0 : eta * r.l1);
            abar[j] = b + h[j] * inv_n;
        }
}

extern "C" int skald_gpu_saga_update(size_t n, double *w, double *abar, const double *g, double a, const double *h,
                                     double eta, double rows, const skald_gpu_regulariser *r, skald_gpu_stream stream) {
    SKALD_LAUNCH(saga_update, blocks_for(n), THREADS, 0, stream, n, w, abar, g, a, h, eta, 1 / rows, *r);
    return cudaGetLastError();
}

__global__ void __launch_bounds__(THREADS)
    local_merge(size_t n, double *w, double *abar, const double *dw, double theta, const double *h, double inv_n) {
    for
        EACH(j, n) {
            w[j] += theta * dw[j];
            if (h) abar[j] += h[j] * inv_n;
        }
}

extern "C" int skald_gpu_local_merge(size_t n, double *w, double *abar, const double *dw, double theta, const double *h,
                                     double rows, skald_gpu_stream stream) {
    SKALD_LAUNCH(local_merge, blocks_for(n), THREADS, 0, stream, n, w, abar, dw, theta, h, h ? 1 / rows : 0.0);
    return cudaGetLastError();
}
