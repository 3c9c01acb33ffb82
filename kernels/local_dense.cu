/* Local steps on dense rows: dots and coefficients, a block a row; then sums and update, a slab of columns a block. */
#include "kernels/local.cuh"

struct local_terms {
    local_args l;
    uint64_t offset; /* of the step */
    typedef local_facts facts;
    __device__ __forceinline__ uint64_t count(const row_args &rows) const {
        (void)rows;
        return l.settings->count;
    }
    __device__ __forceinline__ facts ask(const row_args &rows, uint32_t row, uint64_t position) const {
        (void)position;
        facts f = {facts_of(rows, row), 0, row == NO_ROW ? 0.0f : __ldg(l.norm2 + row)};
        return f;
    }
    __device__ __forceinline__ void take(const twice_args &a, const row_args &rows, uint32_t row, uint64_t position,
                                         double z0, double z1, const facts &f, double *slot) const {
        (void)row;
        (void)slot;
        if (l.last != NO_ROW) { /* the constant, which may be large beside what z - y is made of: not through f32 */
            z0 += l.w[l.last];
            z1 += l.w0[l.last];
        }
        facts now = f; /* the rest of them here: a double more across the dots would not fit the registers */
        now.eta_b = local_eta_of(l, offset);
        l.coefficient[position - a.offset] = local_terms_of(l, rows, position, z0, z1, now);
    }
};

/* ---- sums and update ----------------------------------------------------------------------------------- */

#define UPDATE_THREADS 256
#define UPDATE_WARPS (UPDATE_THREADS / 32)
#define UPDATE_AHEAD 4 /* rows a thread asks for at once */

/* A block has 32 bytes of every row: two threads a row, as many rows at a time as it has room for. f32 in a thread and
 * in a warp, f64 across warps, all in fixed order. */
template <class S, bool SAGA>
__global__ void __launch_bounds__(UPDATE_THREADS)
    update(local_args l, row_args rows, const unsigned char *x, size_t row_bytes, uint64_t offset) {
    constexpr int E = S::entries, COLUMNS = 2 * E, O = SAGA ? 2 : 1;
    SKALD_SHARED(float, share, UPDATE_WARPS *COLUMNS *O);
    const int half = threadIdx.x % 2, mine = threadIdx.x / 2, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int many = blockDim.x / 2, warps = blockDim.x / 32;
    const uint64_t n = rows_of_step(l, offset);
    const size_t chunk = (size_t)blockIdx.x * 2 + half;
    float c[E], h[SAGA ? E : 1];
#pragma unroll
    for (int e = 0; e < E; e++) c[e] = h[SAGA ? e : 0] = 0;
    for (uint64_t from = mine; from < l.step_rows; from += UPDATE_AHEAD * many) {
        uint4 raw[UPDATE_AHEAD];
        float2 by[UPDATE_AHEAD];
        uint32_t row[UPDATE_AHEAD];
#pragma unroll
        for (int u = 0; u < UPDATE_AHEAD; u++) {
            const uint64_t r = from + u * many;
            row[u] = r < l.step_rows ? row_at(rows, offset + r) : NO_ROW; /* asked for before n is known */
            by[u] = make_float2(0, 0);
            if (r < n) by[u] = l.coefficient[r];
        }
#pragma unroll
        for (int u = 0; u < UPDATE_AHEAD; u++) {
            raw[u] = nothing();
            if (from + u * many < n) raw[u] = skald_load_once(x + (size_t)row[u] * row_bytes + chunk * 16);
        }
#pragma unroll
        for (int u = 0; u < UPDATE_AHEAD; u++) {
            float v[E];
            S::widen(raw[u], v);
#pragma unroll
            for (int e = 0; e < E; e++) {
                c[e] = fmaf(by[u].x, v[e], c[e]);
                if constexpr (SAGA) h[e] = fmaf(by[u].y, v[e], h[e]);
            }
        }
    }
#pragma unroll
    for (int e = 0; e < E; e++) {
#pragma unroll
        for (int k = 16; k >= 2; k /= 2) {
            c[e] += __shfl_xor_sync(0xffffffffu, c[e], k);
            if constexpr (SAGA) h[e] += __shfl_xor_sync(0xffffffffu, h[e], k);
        }
        if (lane < 2) {
            share[warp * COLUMNS + half * E + e] = c[e];
            if constexpr (SAGA) share[(UPDATE_WARPS + warp) * COLUMNS + half * E + e] = h[e];
        }
    }
    __syncthreads();
    const uint32_t j = blockIdx.x * COLUMNS + threadIdx.x;
    if (threadIdx.x >= COLUMNS || j >= l.dim || n == 0) return;
    double sum = 0, taken = 0;
    for (int k = 0; k < warps; k++) {
        sum += (double)share[k * COLUMNS + threadIdx.x];
        if constexpr (SAGA) taken += (double)share[(UPDATE_WARPS + k) * COLUMNS + threadIdx.x];
    }
    const skald_gpu_local_settings t = *l.settings;
    const double unit = l.unit ? (double)l.unit[j] : 1.0;
    const double l2 = j == l.last ? 0.0 : t.l2, l1 = j == l.last ? 0.0 : t.l1;
    const double eta = j == l.last ? t.eta * l.last_step : t.eta;
    double w = l.w[j];
    w = (1.0 - eta * l2) * w - eta / (double)n * (unit * sum);
    if constexpr (SAGA) { /* this step still sees abar as it was before it */
        const double d = l.d[j];
        w -= eta * (l.abar[j] + t.inv_n * d);
        l.d[j] = d + unit * taken;
    }
    w = soft(w, eta * l1);
    l.w[j] = w;
    l.narrow[j] = j == l.last ? 0.0f : (float)(w * unit);
}

/* ---- a task -------------------------------------------------------------------------------------------- */

__global__ void __launch_bounds__(256) begin_dense(local_args l) {
    const uint32_t j = blockIdx.x * blockDim.x + threadIdx.x;
    if (j == 0) *l.bad = 0;
    if (j >= l.width) return;
    const double w = j < l.dim ? l.w0[j] : 0.0;
    const float narrow = j == l.last ? 0.0f : (float)(l.unit && j < l.dim ? w * (double)l.unit[j] : w);
    l.w[j] = w;
    l.d[j] = 0;
    l.narrow[j] = l.narrow0[j] = narrow;
}

int skald_local_dense_begin(const local_args *l, skald_gpu_stream stream) {
    SKALD_LAUNCH(begin_dense, (l->width + 255) / 256, 256, 0, stream, *l);
    return cudaGetLastError();
}

template <class S>
static int step_of(const skald_gpu_local *local, const local_args *l, const row_args *rows, uint64_t offset,
                   skald_gpu_stream stream) {
    const skald_gpu_rows *stored = local->rows;
    const unsigned char *x = (const unsigned char *)stored->x;
    const local_terms terms = {*l, offset};
    twice_args a = {};
    a.x = x;
    a.row_bytes = stored->stride * (16 / S::entries);
    a.w[0] = l->narrow;
    a.w[1] = l->narrow0;
    a.offset = offset;
    a.rows = l->step_rows;
    const unsigned threads = a.row_bytes <= 8192 ? 128 : 256, slabs = (unsigned)(a.row_bytes / 32);
    const unsigned warps = l->step_rows < UPDATE_THREADS / 2 ? (l->step_rows + 15) / 16 : UPDATE_WARPS;
    if (local->saga) {
        SKALD_LAUNCH((dots<S, 2, 1, local_terms>), l->step_rows, threads, 0, stream, a, *rows, terms);
        SKALD_LAUNCH((update<S, true>), slabs, warps * 32, 0, stream, *l, *rows, x, a.row_bytes, offset);
    } else {
        SKALD_LAUNCH((dots<S, 1, 1, local_terms>), l->step_rows, threads, 0, stream, a, *rows, terms);
        SKALD_LAUNCH((update<S, false>), slabs, warps * 32, 0, stream, *l, *rows, x, a.row_bytes, offset);
    }
    return cudaGetLastError();
}

int skald_local_dense_step(const skald_gpu_local *local, const local_args *l, const row_args *rows, uint32_t step,
                           skald_gpu_stream stream) {
    const uint64_t offset = (uint64_t)step * l->step_rows;
    switch (local->rows->storage) {
    case SKALD_GPU_BF16:
        return step_of<stored_bf16>(local, l, rows, offset, stream);
    case SKALD_GPU_U8:
        return step_of<stored_u8>(local, l, rows, offset, stream);
    default:
        return step_of<stored_f32>(local, l, rows, offset, stream);
    }
}

__global__ void __launch_bounds__(256) end_dense(local_args l, double *dw, double *g) {
    const uint32_t j = blockIdx.x * blockDim.x + threadIdx.x;
    if (j >= l.dim) return;
    dw[j] = l.w[j] - l.w0[j];
    if (g) g[j] = l.d[j];
}

int skald_local_dense_end(const local_args *l, double *dw, double *g, skald_gpu_stream stream) {
    SKALD_LAUNCH(end_dense, (l->dim + 255) / 256, 256, 0, stream, *l, dw, g);
    return cudaGetLastError();
}
