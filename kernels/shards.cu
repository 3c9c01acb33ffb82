/* Loading a shard: rows into their storage, norms, records, the history in and out; rows out again. */
#include "kernels/storage.cuh"
#include "kernels/terms.cuh"

#define THREADS 256
#define MOST_BLOCKS 4096
#define EACH(i, n)                                                                                                     \
    (uint64_t i = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x; i < (n); i += (uint64_t)gridDim.x * blockDim.x)

static unsigned blocks_for(uint64_t n) {
    const uint64_t blocks = (n + THREADS - 1) / THREADS;
    return blocks < 1 ? 1 : blocks > MOST_BLOCKS ? MOST_BLOCKS : (unsigned)blocks;
}

/* ---- rows into their storage -------------------------------------------------------------------------- */

typedef struct pack_args {
    const float *source;
    size_t source_stride, stride;
    uint64_t n;
    uint32_t dim;
    const float *unit;
    void *x;
    uint32_t *inexact;
} pack_args;

/* Stores v as an entry; returns what it will be read as. */
static __device__ __forceinline__ float store(float *to, float v) {
    *to = v;
    return v;
}
static __device__ __forceinline__ float store(uint16_t *to, float v) {
    const unsigned bits = __float_as_uint(v);
    const unsigned kept = v == v ? bits + 0x7fffu + (bits >> 16 & 1u) : bits | 0x400000u; /* nearest even; NaN stays */
    *to = (uint16_t)(kept >> 16);
    return __uint_as_float(kept & 0xffff0000u);
}
static __device__ __forceinline__ float store(uint8_t *to, float v) {
    const float kept = v > 0 ? rintf(v < 255.0f ? v : 255.0f) : 0.0f;
    *to = (uint8_t)kept;
    return kept;
}

template <class T> __global__ void __launch_bounds__(THREADS) pack(pack_args a) {
    bool exact = true;
    for
        EACH(k, a.n * a.stride) {
            const uint64_t i = k / a.stride;
            const uint32_t j = (uint32_t)(k % a.stride);
            float v = 0;
            if (j < a.dim) v = a.source[i * a.source_stride + j];
            const float u = a.unit && j < a.dim ? a.unit[j] : 1.0f;
            const float kept = store((T *)a.x + k, a.unit ? v / u : v);
            exact = exact && kept * u == v;
        }
    if (!exact && a.inexact) atomicMax(a.inexact, 1u);
}

extern "C" int skald_gpu_pack(const float *source, size_t source_stride, uint64_t n, uint32_t dim,
                              skald_gpu_storage storage, const float *unit, void *x, size_t stride, uint32_t *inexact,
                              skald_gpu_stream stream) {
    const pack_args a = {source, source_stride, stride, n, dim, unit, x, inexact};
    const unsigned blocks = blocks_for(n * stride);
    if (storage == SKALD_GPU_F32)
        SKALD_LAUNCH(pack<float>, blocks, THREADS, 0, stream, a);
    else if (storage == SKALD_GPU_BF16)
        SKALD_LAUNCH(pack<uint16_t>, blocks, THREADS, 0, stream, a);
    else
        SKALD_LAUNCH(pack<uint8_t>, blocks, THREADS, 0, stream, a);
    return cudaGetLastError();
}

/* ---- history ------------------------------------------------------------------------------------------- */

__global__ void __launch_bounds__(THREADS) get_history(const skald_gpu_record *record, uint64_t n, float *alpha) {
    for
        EACH(i, n) alpha[i] = record[i].alpha;
}

extern "C" int skald_gpu_history_get(const skald_gpu_record *record, uint64_t n, float *alpha,
                                     skald_gpu_stream stream) {
    SKALD_LAUNCH(get_history, blocks_for(n), THREADS, 0, stream, record, n, alpha);
    return cudaGetLastError();
}

__global__ void __launch_bounds__(THREADS) set_history(skald_gpu_record *record, uint64_t n, const float *alpha) {
    for
        EACH(i, n) record[i].alpha = alpha[i];
}

extern "C" int skald_gpu_history_set(skald_gpu_record *record, uint64_t n, const float *alpha,
                                     skald_gpu_stream stream) {
    SKALD_LAUNCH(set_history, blocks_for(n), THREADS, 0, stream, record, n, alpha);
    return cudaGetLastError();
}

/* ---- norms: a warp a row ------------------------------------------------------------------------------- */

template <class S>
__global__ void __launch_bounds__(THREADS)
    dense_norms(skald_gpu_rows rows, uint64_t first, uint64_t count, float *out) {
    const int lane = threadIdx.x % 32;
    const uint64_t warps = (uint64_t)gridDim.x * (THREADS / 32);
    const size_t chunks = rows.stride / S::entries;
    for (uint64_t i = (uint64_t)blockIdx.x * (THREADS / 32) + threadIdx.x / 32; i < count; i += warps) {
        const uint4 *x = (const uint4 *)rows.x + (first + i) * chunks;
        double sum = 0;
        for (size_t k = lane; k < chunks; k += 32) {
            float v[S::entries];
            S::widen(skald_load_once(x + k), v);
            for (int e = 0; e < S::entries; e++) {
                const size_t j = k * S::entries + e;
                const double u = j < rows.dim ? (double)v[e] * (rows.unit ? (double)rows.unit[j] : 1.0) : 0.0;
                sum += u * u;
            }
        }
        sum = lanes_sum(sum, 32);
        if (lane == 0) out[first + i] = (float)sum;
    }
}

__global__ void __launch_bounds__(THREADS)
    sparse_norms(skald_gpu_rows rows, uint64_t first, uint64_t count, float *out) {
    const int lane = threadIdx.x % 32;
    const uint64_t warps = (uint64_t)gridDim.x * (THREADS / 32);
    for (uint64_t i = (uint64_t)blockIdx.x * (THREADS / 32) + threadIdx.x / 32; i < count; i += warps) {
        double sum = 0;
        const uint64_t end = rows.ptr[first + i + 1];
        for (uint64_t k = rows.ptr[first + i] + lane; k < end; k += 32)
            sum += (double)rows.val[k] * (double)rows.val[k];
        sum = lanes_sum(sum, 32);
        if (lane == 0) out[first + i] = (float)sum;
    }
}

extern "C" int skald_gpu_norms(const skald_gpu_rows *rows, uint64_t first, uint64_t count, float *norm2,
                               skald_gpu_stream stream) {
    const unsigned blocks = blocks_for(count * 32);
    if (rows->layout == SKALD_CSR)
        SKALD_LAUNCH(sparse_norms, blocks, THREADS, 0, stream, *rows, first, count, norm2);
    else if (rows->storage == SKALD_GPU_F32)
        SKALD_LAUNCH(dense_norms<stored_f32>, blocks, THREADS, 0, stream, *rows, first, count, norm2);
    else if (rows->storage == SKALD_GPU_BF16)
        SKALD_LAUNCH(dense_norms<stored_bf16>, blocks, THREADS, 0, stream, *rows, first, count, norm2);
    else
        SKALD_LAUNCH(dense_norms<stored_u8>, blocks, THREADS, 0, stream, *rows, first, count, norm2);
    return cudaGetLastError();
}

/* ---- rows out again -------------------------------------------------------------------------------------- */

static __device__ __forceinline__ uint64_t listed(const uint32_t *list, uint64_t position) {
    return list ? list[position] : position;
}

__global__ void __launch_bounds__(THREADS)
    take_heads(skald_gpu_rows rows, const uint32_t *list, uint64_t count, skald_gpu_head *head) {
    for
        EACH(k, count) {
            const uint64_t i = listed(list, k);
            head[k].y = rows.record[i].y;
            head[k].s = rows.s ? rows.s[i] : 1.0;
            head[k].entries = rows.layout == SKALD_CSR ? rows.ptr[i + 1] - rows.ptr[i] : 0;
        }
}

extern "C" int skald_gpu_heads(const skald_gpu_rows *rows, const uint32_t *list, uint64_t count, skald_gpu_head *head,
                               skald_gpu_stream stream) {
    SKALD_LAUNCH(take_heads, blocks_for(count), THREADS, 0, stream, *rows, list, count, head);
    return cudaGetLastError();
}

/* A warp a row. */
__global__ void __launch_bounds__(THREADS) take_entries(skald_gpu_rows rows, const uint32_t *list, uint64_t first,
                                                        uint64_t count, const uint64_t *at, uint32_t *idx, float *val) {
    const int lane = threadIdx.x % 32;
    const uint64_t warps = (uint64_t)gridDim.x * (THREADS / 32);
    for (uint64_t k = (uint64_t)blockIdx.x * (THREADS / 32) + threadIdx.x / 32; k < count; k += warps) {
        const uint64_t i = listed(list, first + k), begin = rows.ptr[i], end = rows.ptr[i + 1];
        const uint64_t to = at[first + k] - at[first];
        for (uint64_t e = begin + lane; e < end; e += 32) {
            idx[to + e - begin] = rows.idx[e];
            val[to + e - begin] = rows.val[e];
        }
    }
}

extern "C" int skald_gpu_entries(const skald_gpu_rows *rows, const uint32_t *list, uint64_t first, uint64_t count,
                                 const uint64_t *at, uint32_t *idx, float *val, skald_gpu_stream stream) {
    SKALD_LAUNCH(take_entries, blocks_for(count * 32), THREADS, 0, stream, *rows, list, first, count, at, idx, val);
    return cudaGetLastError();
}
