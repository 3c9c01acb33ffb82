/* Passes over sparse rows: a warp a row. Up to 128 entries stay in registers between the dot and the sum; what is
 * beyond is read again. Gathers of the model come from L1 and L2 (f32), sums are atomic additions in L2:
 *   f64:         any order, so last bits vary
 *   fixed point: integers, whose sum does not depend on the order. Each output has its own scale, a power of two
 *                from the largest possible entry of the batch, |c_i| |x_i| at most, times the rows: one term is
 *                rounded to 2^-62 rows of it. The coefficients must be known before: entries are read twice. */
#include "kernels/pass.cuh"

#define SPARSE_THREADS 256
#define SPARSE_WARPS (SPARSE_THREADS / 32)
#define HELD 4 /* entries a lane holds */

static __device__ __forceinline__ void hold(const sparse_args &a, uint64_t begin, uint64_t end, int lane, uint32_t *idx,
                                            float *val) {
#pragma unroll
    for (int u = 0; u < HELD; u++) {
        const uint64_t k = begin + (unsigned)(32 * u + lane);
        idx[u] = 0;
        val[u] = 0;
        if (k < end) {
            idx[u] = __ldg(a.idx + k);
            val[u] = __ldg(a.val + k);
        }
    }
}

template <int P, int O> __global__ void __launch_bounds__(SPARSE_THREADS) sparse(sparse_args a) {
    SKALD_SHARED(double, slots, SPARSE_WARPS *TALLY);
    tally_clear(slots, SPARSE_WARPS);
    __syncthreads();
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const uint64_t step = (uint64_t)gridDim.x * SPARSE_WARPS;
    unsigned largest[2] = {0, 0};
    for (uint64_t at = (uint64_t)blockIdx.x * SPARSE_WARPS + warp; at < a.rows.count; at += step) {
        const uint32_t row = row_at(a.rows, at);
        row_facts facts = {0, 0, 0};
        if constexpr (O > 0) facts = facts_of(a.rows, row); /* asked for early; beside coefficients they do not fit */
        uint32_t idx[HELD];
        float val[HELD];
        uint64_t begin = 0, end = 0;
        double z[2] = {0, 0};
        if constexpr (P > 0) {
            begin = __ldg(a.ptr + row);
            end = __ldg(a.ptr + row + 1);
            hold(a, begin, end, lane, idx, val);
#pragma unroll
            for (int p = 0; p < P; p++) {
                float dot = 0;
#pragma unroll
                for (int u = 0; u < HELD; u++)
                    if (val[u] != 0) dot = fmaf(val[u], __ldg(a.w[p] + idx[u]), dot);
                double sum = (double)dot;
                for (uint64_t k = begin + 32 * HELD + lane; k < end; k += 32)
                    sum += (double)(__ldg(a.val + k) * __ldg(a.w[p] + __ldg(a.idx + k)));
                z[p] = lanes_sum(sum, 32);
            }
        }
        if constexpr (O == 0) facts = facts_of(a.rows, row);
        float c[2]; /* every lane finds them; lane 0 writes */
        row_terms(a.rows, row, at, z[0], z[1], facts, c, lane == 0 ? slots + warp * TALLY : NULL);
        if constexpr (O > 0) {
#pragma unroll
            for (int o = 0; o < O; o++) {
#pragma unroll
                for (int u = 0; u < HELD; u++)
                    if (val[u] != 0) atomicAdd(a.g[o] + idx[u], (double)c[o] * (double)val[u]);
                for (uint64_t k = begin + 32 * HELD + lane; k < end; k += 32)
                    atomicAdd(a.g[o] + __ldg(a.idx + k), (double)c[o] * (double)__ldg(a.val + k));
            }
        } else if (lane == 0 && a.coefficient[0]) {
            const float length = a.largest ? sqrtf(a.norm2[row]) * 1.0001f : 0;
#pragma unroll
            for (int o = 0; o < 2; o++) {
                if (!a.coefficient[o]) continue;
                a.coefficient[o][at] = c[o];
                const unsigned bits = __float_as_uint(fabsf(c[o]) * length);
                largest[o] = bits > largest[o] ? bits : largest[o];
            }
        }
    }
    if (a.largest && lane == 0)
        for (int o = 0; o < 2; o++) atomicMax(a.largest + o, largest[o]);
    __syncthreads();
    tally_write(slots, SPARSE_WARPS, a.rows.tally, a.rows.more);
}

int skald_sparse_fused(int blocks, int points, const sparse_args *a, skald_gpu_stream stream) {
    const int outputs = a->g[0] ? a->g[1] ? 2 : 1 : 0;
    const unsigned grid = (unsigned)blocks;
    if (outputs == 0 && points == 0)
        SKALD_LAUNCH((sparse<0, 0>), grid, SPARSE_THREADS, 0, stream, *a);
    else if (outputs == 0 && points == 1)
        SKALD_LAUNCH((sparse<1, 0>), grid, SPARSE_THREADS, 0, stream, *a);
    else if (outputs == 0)
        SKALD_LAUNCH((sparse<2, 0>), grid, SPARSE_THREADS, 0, stream, *a);
    else if (points == 1)
        SKALD_LAUNCH((sparse<1, 1>), grid, SPARSE_THREADS, 0, stream, *a);
    else if (outputs == 1)
        SKALD_LAUNCH((sparse<2, 1>), grid, SPARSE_THREADS, 0, stream, *a);
    else
        SKALD_LAUNCH((sparse<2, 2>), grid, SPARSE_THREADS, 0, stream, *a);
    return cudaGetLastError();
}

/* ---- the sums alone ------------------------------------------------------------------------------------ */

template <bool FIXED> __global__ void __launch_bounds__(SPARSE_THREADS) scatter(sparse_args a, int outputs) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const uint64_t step = (uint64_t)gridDim.x * SPARSE_WARPS;
    double scale[2] = {1, 1};
#pragma unroll
    for (int o = 0; o < 2; o++)
        if (FIXED && o < outputs) scale[o] = fixed_scale(a.largest[o], (double)a.rows.count);
    for (uint64_t at = (uint64_t)blockIdx.x * SPARSE_WARPS + warp; at < a.rows.count; at += step) {
        const uint32_t row = row_at(a.rows, at);
        const uint64_t begin = __ldg(a.ptr + row), end = __ldg(a.ptr + row + 1);
        for (uint64_t k = begin + lane; k < end; k += 32) {
            const uint32_t j = __ldg(a.idx + k);
            const double x = (double)__ldg(a.val + k);
#pragma unroll
            for (int o = 0; o < 2; o++) {
                if (o >= outputs) continue;
                const double term = (double)a.coefficient[o][at] * x;
                if (FIXED)
                    fixed_add(a.fixed[o] + j, term, scale[o]);
                else
                    atomicAdd(a.g[o] + j, term);
            }
        }
    }
}

int skald_sparse_sums(int blocks, int outputs, const sparse_args *a, bool fixed, skald_gpu_stream stream) {
    if (fixed)
        SKALD_LAUNCH(scatter<true>, (unsigned)blocks, SPARSE_THREADS, 0, stream, *a, outputs);
    else
        SKALD_LAUNCH(scatter<false>, (unsigned)blocks, SPARSE_THREADS, 0, stream, *a, outputs);
    return cudaGetLastError();
}

__global__ void __launch_bounds__(256) unfix(sparse_args a, int outputs) {
    for (uint32_t j = blockIdx.x * blockDim.x + threadIdx.x; j < a.dim; j += gridDim.x * blockDim.x)
#pragma unroll
        for (int o = 0; o < 2; o++)
            if (o < outputs) a.g[o][j] = fixed_value(a.fixed[o][j], fixed_scale(a.largest[o], (double)a.rows.count));
}

int skald_sparse_unfix(int outputs, const sparse_args *a, skald_gpu_stream stream) {
    const unsigned blocks = (a->dim + 255) / 256;
    SKALD_LAUNCH(unfix, blocks < 1024 ? blocks : 1024, 256, 0, stream, *a, outputs);
    return cudaGetLastError();
}
