/* The verbs of include/skald/vectors.h on device vectors: one pass each, f64. */
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

/* ---- |x|^2: blocks, then their sums, each in a tree --------------------------------------------------- */

#define NORM_BLOCKS (SKALD_GPU_NORM2_BYTES / 8)

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

__global__ void __launch_bounds__(THREADS) norm2_blocks(size_t n, const double *x, double *partial) {
    double sum = 0;
    for
        EACH(j, n) sum += x[j] * x[j];
    block_sum(sum, partial + blockIdx.x);
}

__global__ void __launch_bounds__(THREADS) norm2_total(int n, const double *partial, double *out) {
    block_sum((int)threadIdx.x < n ? partial[threadIdx.x] : 0.0, out);
}

extern "C" int skald_gpu_norm2(size_t n, const double *x, double *out, void *workspace, skald_gpu_stream stream) {
    const unsigned most = NORM_BLOCKS, wanted = blocks_for(n), blocks = wanted < most ? wanted : most;
    SKALD_LAUNCH(norm2_blocks, blocks, THREADS, 0, stream, n, x, (double *)workspace);
    SKALD_LAUNCH(norm2_total, 1, THREADS, 0, stream, (int)blocks, (const double *)workspace, out);
    return cudaGetLastError();
}

/* ---- updates ------------------------------------------------------------------------------------------- */

__global__ void __launch_bounds__(THREADS)
    sgd_update(size_t n, double *w, const double *g, double a, double eta, double l2, double l1, bool intercept) {
    for
        EACH(j, n) {
            const bool free = intercept && j == n - 1;
            w[j] = soft(w[j] - eta * (a * g[j] + (free ? 0.0 : l2) * w[j]), free ? 0.0 : eta * l1);
        }
}

extern "C" int skald_gpu_sgd_update(size_t n, double *w, const double *g, double a, double eta, double l2, double l1,
                                    bool intercept, skald_gpu_stream stream) {
    SKALD_LAUNCH(sgd_update, blocks_for(n), THREADS, 0, stream, n, w, g, a, eta, l2, l1, intercept);
    return cudaGetLastError();
}

__global__ void __launch_bounds__(THREADS)
    saga_update(size_t n, double *w, double *abar, const double *g, double a, const double *h, double eta, double inv_n,
                double l2, double l1, bool intercept) {
    for
        EACH(j, n) {
            const bool free = intercept && j == n - 1;
            const double b = abar[j];
            w[j] = soft(w[j] - eta * (a * g[j] + b + (free ? 0.0 : l2) * w[j]), free ? 0.0 : eta * l1);
            abar[j] = b + h[j] * inv_n;
        }
}

extern "C" int skald_gpu_saga_update(size_t n, double *w, double *abar, const double *g, double a, const double *h,
                                     double eta, double rows, double l2, double l1, bool intercept,
                                     skald_gpu_stream stream) {
    SKALD_LAUNCH(saga_update, blocks_for(n), THREADS, 0, stream, n, w, abar, g, a, h, eta, 1 / rows, l2, l1, intercept);
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
