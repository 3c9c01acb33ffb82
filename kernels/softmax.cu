/* Softmax: rows gathered, margins to coefficients, sums put together. */
#include "kernels/softmax.cuh"
#include "kernels/storage.cuh"

static unsigned blocks_for(uint64_t items, unsigned threads, unsigned most) {
    const uint64_t wanted = (items + threads - 1) / threads;
    return wanted < 1 ? 1 : wanted > most ? most : (unsigned)wanted;
}

static __device__ __forceinline__ uint32_t listed(const uint32_t *list, uint64_t position) {
    return list ? __ldg(list + position) : (uint32_t)position;
}

/* ---- rows ---------------------------------------------------------------------------------------------- */

/* How many of the positions first .. first + count come before *end. */
static __device__ __forceinline__ uint64_t before(uint64_t first, uint64_t count, const uint64_t *end) {
    if (!end || *end >= first + count) return count;
    return *end > first ? *end - first : 0;
}

/* A block a row. */
template <class S>
__global__ void __launch_bounds__(128) gather_dense(skald_gpu_rows rows, const uint32_t *list, uint64_t first,
                                                    uint64_t count, const uint64_t *end, float *x, size_t ld) {
    count = before(first, count, end);
    for (uint64_t k = blockIdx.x; k < count; k += gridDim.x) {
        const uint32_t row = listed(list, first + k);
        const size_t bytes = 16 / S::entries;
        const uint4 *from = (const uint4 *)((const unsigned char *)rows.x + (size_t)row * rows.stride * bytes);
        for (uint32_t j = threadIdx.x * S::entries; j < ld; j += blockDim.x * S::entries) {
            float v[S::entries];
            S::widen(j < rows.stride ? from[j / S::entries] : nothing(), v);
            for (uint32_t e = 0; e < S::entries && j + e < ld; e++) {
                const bool in = j + e < rows.dim;
                x[k * ld + j + e] = in ? (rows.unit ? rows.unit[j + e] : 1.0f) * v[e] : 0.0f;
            }
        }
    }
}

__global__ void __launch_bounds__(128) gather_sparse(skald_gpu_rows rows, const uint32_t *list, uint64_t first,
                                                     uint64_t count, const uint64_t *end, float *x, size_t ld) {
    count = before(first, count, end);
    for (uint64_t k = blockIdx.x; k < count; k += gridDim.x) {
        const uint32_t row = listed(list, first + k);
        for (size_t j = threadIdx.x; j < ld; j += blockDim.x) x[k * ld + j] = 0;
        __syncthreads();
        for (uint64_t e = rows.ptr[row] + threadIdx.x; e < rows.ptr[row + 1]; e += blockDim.x)
            x[k * ld + rows.idx[e]] = rows.val[e];
        __syncthreads();
    }
}

extern "C" int skald_gpu_softmax_gather(const skald_gpu_rows *rows, const uint32_t *list, uint64_t first,
                                        uint64_t count, const uint64_t *end, float *x, size_t ld,
                                        skald_gpu_stream stream) {
    const unsigned blocks = blocks_for(count, 1, 4096);
    if (rows->layout == SKALD_CSR)
        SKALD_LAUNCH(gather_sparse, blocks, 128, 0, stream, *rows, list, first, count, end, x, ld);
    else if (rows->storage == SKALD_GPU_F32)
        SKALD_LAUNCH(gather_dense<stored_f32>, blocks, 128, 0, stream, *rows, list, first, count, end, x, ld);
    else if (rows->storage == SKALD_GPU_BF16)
        SKALD_LAUNCH(gather_dense<stored_bf16>, blocks, 128, 0, stream, *rows, list, first, count, end, x, ld);
    else
        SKALD_LAUNCH(gather_dense<stored_u8>, blocks, 128, 0, stream, *rows, list, first, count, end, x, ld);
    return cudaGetLastError();
}

__global__ void __launch_bounds__(256)
    narrow(const double *w, uint32_t dim, uint32_t columns, uint32_t classes, float *to, size_t ld) {
    for (size_t k = (size_t)blockIdx.x * 256 + threadIdx.x; k < classes * ld; k += (size_t)gridDim.x * 256) {
        const size_t c = k / ld, j = k % ld;
        to[k] = j < columns ? (float)w[c * dim + j] : 0.0f;
    }
}

extern "C" int skald_gpu_softmax_narrow(const double *w, uint32_t dim, uint32_t columns, uint32_t classes, float *to,
                                        size_t ld, skald_gpu_stream stream) {
    SKALD_LAUNCH(narrow, blocks_for(classes * ld, 256, 4096), 256, 0, stream, w, dim, columns, classes, to, ld);
    return cudaGetLastError();
}

/* ---- sparse rows ----------------------------------------------------------------------------------------- */

typedef struct sparse_args {
    const uint64_t *ptr;
    const uint32_t *idx, *list;
    const float *val;
    uint64_t first, count;
    uint32_t dim, columns, classes;
} sparse_args;

static sparse_args sparse_of(const skald_gpu_rows *rows, const uint32_t *list, uint64_t first, uint64_t count,
                             uint32_t columns, uint32_t classes) {
    return {rows->ptr, rows->idx, list, rows->val, first, count, rows->dim, columns, classes};
}

__global__ void __launch_bounds__(256) sparse_margins(sparse_args a, const double *w, float *z) {
    const unsigned lane = threadIdx.x % 32, warps = gridDim.x * 8;
    for (uint64_t k = blockIdx.x * 8 + threadIdx.x / 32; k < a.count; k += warps) {
        const uint32_t row = listed(a.list, a.first + k);
        const uint64_t begin = a.ptr[row], end = a.ptr[row + 1];
        for (uint32_t c = 0; c < a.classes; c++) {
            double sum = 0;
            for (uint64_t e = begin + lane; e < end; e += 32)
                if (a.idx[e] < a.columns) sum += (double)a.val[e] * w[(size_t)c * a.dim + a.idx[e]];
            sum = lanes_sum(sum, 32);
            if (lane == 0) z[k * a.classes + c] = (float)sum;
        }
    }
}

template <bool ORDERED> __global__ void __launch_bounds__(256) sparse_add(sparse_args a, const float *r, double *g) {
    const unsigned lane = threadIdx.x % 32, warps = gridDim.x * (blockDim.x / 32);
    for (uint64_t k = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32; k < a.count; k += warps) {
        const uint32_t row = listed(a.list, a.first + k);
        for (uint64_t e = a.ptr[row] + lane; e < a.ptr[row + 1]; e += 32) {
            if (a.idx[e] >= a.columns) continue;
            for (uint32_t c = 0; c < a.classes; c++) {
                double *to = g + (size_t)c * a.dim + a.idx[e];
                const double v = (double)r[k * a.classes + c] * (double)a.val[e];
                if (ORDERED)
                    *to += v;
                else
                    atomicAdd(to, v);
            }
        }
        __syncwarp(0xffffffffu); /* one warp: the next row sees this one's sums */
    }
}

extern "C" int skald_gpu_softmax_sparse_margins(const skald_gpu_rows *rows, const uint32_t *list, uint64_t first,
                                                uint64_t count, const double *w, uint32_t columns, uint32_t classes,
                                                float *z, skald_gpu_stream stream) {
    SKALD_LAUNCH(sparse_margins, blocks_for(count, 8, 4096), 256, 0, stream,
                 sparse_of(rows, list, first, count, columns, classes), w, z);
    return cudaGetLastError();
}

extern "C" int skald_gpu_softmax_sparse_add(const skald_gpu_rows *rows, const uint32_t *list, uint64_t first,
                                            uint64_t count, const float *r, uint32_t columns, uint32_t classes,
                                            double *g, bool deterministic, skald_gpu_stream stream) {
    const sparse_args a = sparse_of(rows, list, first, count, columns, classes);
    if (deterministic)
        SKALD_LAUNCH(sparse_add<true>, 1, 32, 0, stream, a, r, g);
    else
        SKALD_LAUNCH(sparse_add<false>, blocks_for(count, 8, 4096), 256, 0, stream, a, r, g);
    return cudaGetLastError();
}

/* ---- coefficients ---------------------------------------------------------------------------------------- */

/* A block's sums of what its threads hold, in their order. */
static __device__ __forceinline__ void write_tally(double loss, double correct, double bad, double *slots,
                                                   double *tally, bool more) {
    slots[threadIdx.x] = loss;
    slots[GROUP_THREADS + threadIdx.x] = correct;
    slots[2 * GROUP_THREADS + threadIdx.x] = bad;
    __syncthreads();
    if (threadIdx.x < 3) {
        double sum = more ? tally[blockIdx.x * 3 + threadIdx.x] : 0;
        for (int k = 0; k < GROUP_THREADS; k++) sum += slots[threadIdx.x * GROUP_THREADS + k];
        tally[blockIdx.x * 3 + threadIdx.x] = sum;
    }
}

__global__ void __launch_bounds__(GROUP_THREADS) terms(skald_gpu_softmax_terms a, int width) {
    SKALD_SHARED(double, slots, 3 * GROUP_THREADS);
    const int lane = threadIdx.x % width, groups = GROUP_THREADS / width;
    const uint64_t stride = (uint64_t)gridDim.x * groups, begin = (uint64_t)blockIdx.x * groups + threadIdx.x / width;
    const uint32_t C = a.classes;
    double loss = 0, correct = 0, bad = 0;
    for (uint64_t round = 0; round * stride < a.count; round++) { /* as many for all lanes of a warp */
        const uint64_t k = begin + round * stride;
        const bool here = k < a.count;
        const uint32_t row = here ? listed(a.list, a.first + k) : 0;
        const uint32_t y = here ? (uint32_t)a.record[row].y : 0;
        const double s = here ? (a.s ? a.s[row] : 1.0) : 0;
        const auto margin = [&](int p, uint32_t c) {
            const double b = a.b[p] ? a.b[p][(size_t)c * a.b_stride] : 0;
            return here ? (double)a.z[p][k * C + c] + b : 0.0;
        };
        row_softmax now = {}, then = {};
        if (a.kind != SKALD_GPU_ANCHOR) now = softmax_of(C, lane, width, y, [&](uint32_t c) { return margin(0, c); });
        if (a.kind == SKALD_GPU_DIFFERENCE)
            then = softmax_of(C, lane, width, y, [&](uint32_t c) { return margin(1, c); });
        if (!here) continue;
        if (a.kind != SKALD_GPU_ANCHOR && lane == 0) {
            loss += s * now.loss;
            correct += now.which == (int)y;
            bad += !now.good || (a.kind == SKALD_GPU_DIFFERENCE && !then.good);
        }
        for (uint32_t c = lane; c < C; c += width) {
            double slope;
            if (a.kind == SKALD_GPU_ANCHOR) {
                slope = (double)a.alpha[(size_t)row * C + c];
            } else {
                const double z = margin(0, c);
                slope = softmax_slope(now, z, c == y);
                if (a.margin) a.margin[(size_t)row * C + c] = z;
            }
            if (a.kind == SKALD_GPU_SAGA) {
                const float fresh = (float)slope;
                a.pending[(a.first + k) * C + c] = fresh;
                slope = (double)fresh - (double)a.alpha[(size_t)row * C + c];
            } else if (a.kind == SKALD_GPU_DIFFERENCE) {
                slope -= softmax_slope(then, margin(1, c), c == y);
            }
            if (a.slopes) a.slopes[k * C + c] = s * slope;
            a.r[k * C + c] = (float)(s * slope);
        }
    }
    write_tally(loss, correct, bad, slots, a.tally, true);
}

extern "C" int skald_gpu_softmax_terms_run(const skald_gpu_softmax_terms *a, skald_gpu_stream stream) {
    const int width = group_width(a->classes);
    SKALD_LAUNCH(terms, blocks_for(a->count, (unsigned)(GROUP_THREADS / width), SKALD_GPU_SOFTMAX_BLOCKS),
                 GROUP_THREADS, 0, stream, *a, width);
    return cudaGetLastError();
}

/* ---- sums ------------------------------------------------------------------------------------------------ */

__global__ void __launch_bounds__(256) add_parts(const float *part, uint32_t parts, uint32_t dim, uint32_t columns,
                                                 uint32_t classes, size_t ld, double *g) {
    const size_t all = (size_t)classes * columns;
    for (size_t k = (size_t)blockIdx.x * 256 + threadIdx.x; k < all; k += (size_t)gridDim.x * 256) {
        const size_t c = k / columns, j = k % columns;
        double sum = g[c * dim + j];
        for (uint32_t p = 0; p < parts; p++) sum += (double)part[(size_t)p * classes * ld + c * ld + j];
        g[c * dim + j] = sum;
    }
}

extern "C" int skald_gpu_softmax_add(const float *part, uint32_t parts, uint32_t dim, uint32_t columns,
                                     uint32_t classes, size_t ld, double *g, skald_gpu_stream stream) {
    if (!columns) return cudaSuccess;
    SKALD_LAUNCH(add_parts, blocks_for((uint64_t)classes * columns, 256, 4096), 256, 0, stream, part, parts, dim,
                 columns, classes, ld, g);
    return cudaGetLastError();
}

/* The sum of value(i) over i < count, by a block. */
template <class F> static __device__ double block_sum(uint64_t count, double *share, F value) {
    double sum = 0;
    for (uint64_t i = threadIdx.x; i < count; i += 256) sum += value(i);
    share[threadIdx.x] = sum;
    __syncthreads();
    for (unsigned n = 128; n > 0; n /= 2) {
        if (threadIdx.x < n) share[threadIdx.x] += share[threadIdx.x + n];
        __syncthreads();
    }
    sum = share[0];
    __syncthreads();
    return sum;
}

__global__ void __launch_bounds__(256)
    constants(const double *slopes, uint64_t count, uint32_t classes, double *out, size_t stride) {
    SKALD_SHARED(double, share, 256);
    const double sum = block_sum(count, share, [&](uint64_t i) { return slopes[i * classes + blockIdx.x]; });
    if (threadIdx.x == 0) out[blockIdx.x * stride] += sum;
}

extern "C" int skald_gpu_softmax_constants(const double *slopes, uint64_t count, uint32_t classes, double *out,
                                           size_t stride, skald_gpu_stream stream) {
    SKALD_LAUNCH(constants, classes, 256, 0, stream, slopes, count, classes, out, stride);
    return cudaGetLastError();
}

__global__ void __launch_bounds__(256)
    finish_softmax(const double *tally, uint64_t count, uint32_t classes, const uint32_t *list, const float *pending,
                   float *alpha, skald_gpu_sums *sums) {
    SKALD_SHARED(double, share, 256);
    double field[3];
    for (int f = 0; f < 3; f++)
        field[f] = block_sum(SKALD_GPU_SOFTMAX_BLOCKS, share, [&](uint64_t i) { return tally[3 * i + f]; });
    if (blockIdx.x == 0 && threadIdx.x == 0) {
        const skald_gpu_sums s = {field[0], 0, 0, field[1], (double)count, 0, 0, field[2]};
        *sums = s;
    }
    if (!pending || field[2] != 0) return;
    const uint64_t all = count * classes;
    for (uint64_t k = (uint64_t)blockIdx.x * 256 + threadIdx.x; k < all; k += (uint64_t)gridDim.x * 256)
        alpha[(size_t)listed(list, k / classes) * classes + k % classes] = pending[k];
}

extern "C" int skald_gpu_softmax_finish(const double *tally, uint64_t count, uint32_t classes, const uint32_t *list,
                                        const float *pending, float *alpha, skald_gpu_sums *sums,
                                        skald_gpu_stream stream) {
    const unsigned blocks = pending ? blocks_for(count * classes, 256, 256) : 1;
    SKALD_LAUNCH(finish_softmax, blocks, 256, 0, stream, tally, count, classes, list, pending, alpha, sums);
    return cudaGetLastError();
}

/* ---- moments --------------------------------------------------------------------------------------------- */

__global__ void __launch_bounds__(GROUP_THREADS)
    probabilities(skald_gpu_rows rows, uint32_t C, int width, const double *margin, const double *delta, double *p,
                  double *tally) {
    SKALD_SHARED(double, slots, 3 * GROUP_THREADS);
    const int lane = threadIdx.x % width, groups = GROUP_THREADS / width;
    const uint64_t stride = (uint64_t)gridDim.x * groups, begin = (uint64_t)blockIdx.x * groups + threadIdx.x / width;
    double loss = 0, correct = 0, bad = 0;
    for (uint64_t round = 0; round * stride < rows.n; round++) {
        const uint64_t i = begin + round * stride;
        const bool here = i < rows.n;
        const uint32_t y = here ? (uint32_t)rows.record[i].y : 0;
        const auto at = [&](uint32_t c) { return here ? margin[i * C + c] + delta[c] : 0.0; };
        const row_softmax now = softmax_of(C, lane, width, y, at);
        if (!here) continue;
        if (lane == 0) {
            loss += (rows.s ? rows.s[i] : 1.0) * now.loss;
            correct += now.which == (int)y;
            bad += !now.good;
        }
        for (uint32_t c = lane; c < C; c += width) p[i * C + c] = exp(at(c) - now.top) * now.inverse;
    }
    write_tally(loss, correct, bad, slots, tally, false);
}

/* A block a number: C slopes, then the pairs c >= d. */
__global__ void __launch_bounds__(256) moments(skald_gpu_rows rows, uint32_t C, const double *p, double *out) {
    SKALD_SHARED(double, share, 256);
    const uint32_t m = blockIdx.x;
    uint32_t c = m, d = 0;
    const bool slope = m < C;
    if (!slope) {
        d = m - C;
        for (c = 0; d > c; c++) d -= c + 1;
    }
    const double sum = block_sum(rows.n, share, [&](uint64_t i) {
        const double s = rows.s ? rows.s[i] : 1.0, pc = p[i * C + c];
        if (slope) return s * (pc - (rows.record[i].y == (double)c ? 1.0 : 0.0));
        return s * pc * ((c == d ? 1.0 : 0.0) - p[i * C + d]);
    });
    if (threadIdx.x == 0) out[m] = sum;
}

extern "C" int skald_gpu_softmax_moments(const skald_gpu_rows *rows, uint32_t classes, const double *margin,
                                         const double *delta, double *p, double *out, double *tally,
                                         skald_gpu_sums *sums, skald_gpu_stream stream) {
    const int width = group_width(classes);
    const int error = cudaMemsetAsync(tally, 0, SKALD_GPU_SOFTMAX_TALLY * sizeof(double), stream);
    if (error != cudaSuccess) return error;
    SKALD_LAUNCH(probabilities, blocks_for(rows->n, (unsigned)(GROUP_THREADS / width), SKALD_GPU_SOFTMAX_BLOCKS),
                 GROUP_THREADS, 0, stream, *rows, classes, width, margin, delta, p, tally);
    SKALD_LAUNCH(moments, classes * (classes + 3) / 2, 256, 0, stream, *rows, classes, (const double *)p, out);
    return skald_gpu_softmax_finish(tally, rows->n, classes, NULL, NULL, NULL, sums, stream);
}
