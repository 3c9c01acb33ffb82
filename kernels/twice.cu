/* Dense passes in two readings of the rows: dots and coefficients, then sums. */
#include "kernels/twice.cuh"

struct pass_terms {
    typedef row_facts facts;
    __device__ __forceinline__ uint64_t count(const row_args &rows) const {
        return rows.count;
    }
    __device__ __forceinline__ facts ask(const row_args &rows, uint32_t row, uint64_t position) const {
        (void)position;
        return facts_of(rows, row);
    }
    __device__ __forceinline__ void take(const twice_args &a, const row_args &rows, uint32_t row, uint64_t position,
                                         double z0, double z1, facts f, double *slot) const {
        float c[2];
        row_terms(rows, row, position, z0, z1, f, c, slot);
        if (a.coefficient[0]) a.coefficient[0][position - a.offset] = c[0];
        if (a.coefficient[1]) a.coefficient[1][position - a.offset] = c[1];
    }
};

#define DOTS_ROWS 4

template <class S>
static int run_dots(int points, int blocks, const twice_args *a, const row_args *rows, skald_gpu_stream stream) {
    const pass_terms terms = {};
    if (points == 0)
        SKALD_LAUNCH((dots<S, 0, 128, pass_terms>), (unsigned)blocks, 256, 0, stream, *a, *rows, terms);
    else if (points == 1)
        SKALD_LAUNCH((dots<S, 1, DOTS_ROWS, pass_terms>), (unsigned)blocks, 256, 0, stream, *a, *rows, terms);
    else
        SKALD_LAUNCH((dots<S, 2, DOTS_ROWS, pass_terms>), (unsigned)blocks, 256, 0, stream, *a, *rows, terms);
    return cudaGetLastError();
}

int skald_twice_dots(skald_gpu_storage storage, int points, int blocks, const twice_args *a, const row_args *rows,
                     skald_gpu_stream stream) {
    switch (storage) {
    case SKALD_GPU_BF16:
        return run_dots<stored_bf16>(points, blocks, a, rows, stream);
    case SKALD_GPU_U8:
        return run_dots<stored_u8>(points, blocks, a, rows, stream);
    default:
        return run_dots<stored_f32>(points, blocks, a, rows, stream);
    }
}

/* ---- sums ---------------------------------------------------------------------------------------------- */

#define SUM_THREADS 256
#define SUM_ROWS 4 /* asked for at once */

/* A block adds rows piece, piece + pieces, ... of a slab of SUM_THREADS chunks; f32 for CHAIN_ROWS rows, then f64. */
template <class S, int O> __global__ void __launch_bounds__(SUM_THREADS) sums(twice_args a, row_args rows) {
    constexpr int E = S::entries;
    const unsigned chunks = (unsigned)(a.row_bytes / 16), slabs = (chunks + SUM_THREADS - 1) / SUM_THREADS;
    const unsigned chunk = blockIdx.x % slabs * SUM_THREADS + threadIdx.x, piece = blockIdx.x / slabs;
    if (chunk >= chunks) return; /* no barriers below */
    const uint64_t end = a.offset + a.rows < rows.count ? a.rows : rows.count - a.offset;
    double *to[O];
#pragma unroll
    for (int o = 0; o < O; o++) {
        to[o] = a.sum[o] + (size_t)piece * a.width + (size_t)chunk * E;
        if (!a.add)
            for (int e = 0; e < E; e++) to[o][e] = 0;
    }
    for (uint64_t from = piece; from < end;) {
        float g[O][E];
#pragma unroll
        for (int o = 0; o < O; o++) {
#pragma unroll
            for (int e = 0; e < E; e++) g[o][e] = 0;
        }
        for (int n = 0; n < SKALD_GPU_CHAIN_ROWS && from < end; n += SUM_ROWS) {
            uint4 raw[SUM_ROWS];
            float c[SUM_ROWS][O];
#pragma unroll
            for (int u = 0; u < SUM_ROWS; u++) {
                const uint64_t at = from + (uint64_t)u * a.pieces;
                raw[u] = nothing();
#pragma unroll
                for (int o = 0; o < O; o++) c[u][o] = 0;
                if (at < end) {
                    raw[u] =
                        skald_load_once(a.x + (size_t)row_at(rows, a.offset + at) * a.row_bytes + (size_t)chunk * 16);
#pragma unroll
                    for (int o = 0; o < O; o++) c[u][o] = a.coefficient[o][at];
                }
            }
#pragma unroll
            for (int u = 0; u < SUM_ROWS; u++) {
                float x[E];
                S::widen(raw[u], x);
#pragma unroll
                for (int o = 0; o < O; o++) {
#pragma unroll
                    for (int e = 0; e < E; e++) g[o][e] = fmaf(c[u][o], x[e], g[o][e]);
                }
            }
            from += (uint64_t)SUM_ROWS * a.pieces;
        }
#pragma unroll
        for (int o = 0; o < O; o++) {
#pragma unroll
            for (int e = 0; e < E; e++) to[o][e] += (double)g[o][e];
        }
    }
}

template <class S>
static int run_sums(const twice_args *a, const row_args *rows, int outputs, skald_gpu_stream stream) {
    const unsigned slabs = (unsigned)((a->row_bytes / 16 + SUM_THREADS - 1) / SUM_THREADS);
    if (outputs == 2)
        SKALD_LAUNCH((sums<S, 2>), slabs * (unsigned)a->pieces, SUM_THREADS, 0, stream, *a, *rows);
    else
        SKALD_LAUNCH((sums<S, 1>), slabs * (unsigned)a->pieces, SUM_THREADS, 0, stream, *a, *rows);
    return cudaGetLastError();
}

int skald_twice_sums(skald_gpu_storage storage, const twice_args *a, const row_args *rows, int outputs,
                     skald_gpu_stream stream) {
    switch (storage) {
    case SKALD_GPU_BF16:
        return run_sums<stored_bf16>(a, rows, outputs, stream);
    case SKALD_GPU_U8:
        return run_sums<stored_u8>(a, rows, outputs, stream);
    default:
        return run_sums<stored_f32>(a, rows, outputs, stream);
    }
}

/* ---- the model as f32 ---------------------------------------------------------------------------------- */

__global__ void __launch_bounds__(256)
    narrow(const double *w, const float *unit, uint32_t dim, uint32_t width, float *out) {
    for (uint32_t j = blockIdx.x * blockDim.x + threadIdx.x; j < width; j += gridDim.x * blockDim.x)
        out[j] = j < dim ? (float)(unit ? w[j] * (double)unit[j] : w[j]) : 0.0f;
}

int skald_twice_model(const double *w, const float *unit, uint32_t dim, uint32_t width, float *out,
                      skald_gpu_stream stream) {
    const unsigned blocks = (width + 255) / 256;
    SKALD_LAUNCH(narrow, blocks < 256 ? blocks : 256, 256, 0, stream, w, unit, dim, width, out);
    return cudaGetLastError();
}
