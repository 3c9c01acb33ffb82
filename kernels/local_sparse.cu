/* Local steps on sparse rows, a warp a row.
 *
 * Without l1, in the coordinates u with w = Q (u - S A), A = a + d/n the average of the history as it goes. A step
 * moves Q' = q Q and S' = S + eta/Q', q = 1 - eta l2; then a column that no row of the step has stands still, and the
 * others take u' = u - (eta/b) C/Q' + (S'/n) D, d' = d + D, with C and D the step's sums of c x and h x. After p steps
 * Q = q^p and S = eta (q^-1 + ... + q^-p) = (q^-p - 1)/l2, so neither is stored. The intercept has coordinates of
 * its own, with q = 1. Before Q gets too small to divide by, all columns are taken to Q = 1, S = 0 anew.
 *
 * Otherwise (`fixed`) all columns move in every step: Q = 1, S = 0, u = w; C and D are added up in fixed point. */
#include "kernels/local.cuh"

#define STEP_THREADS 64
#define STEP_WARPS (STEP_THREADS / 32)
#define REBASE_STEPS 16 /* even q = 2^-53 leaves a number of Q after so many */

typedef struct scaling {
    double q, s;
} scaling;

/* Q and S after p steps. */
static __device__ __forceinline__ scaling scaling_at(double eta, double l2, uint32_t p) {
    scaling c = {1.0, (double)p * eta};
    if (l2 > 0) {
        const double log_q = (double)p * log1p(-eta * l2);
        c.q = exp(log_q);
        c.s = expm1(-log_q) / l2;
    }
    return c;
}

/* Those of column j, from those of regularised columns and of the intercept. */
static __device__ __forceinline__ scaling scaling_of(const local_args &l, uint32_t j, scaling all, scaling last) {
    return j == l.last ? last : all;
}

static __device__ __forceinline__ double model_of(const column &c, double inv_n, scaling k) {
    return k.q * (c.u - k.s * (c.a + inv_n * c.d));
}

__global__ void __launch_bounds__(STEP_THREADS) sparse_dots(local_args l, row_args rows, const uint64_t *ptr,
                                                            const uint32_t *idx, const float *val, uint32_t step) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const uint64_t offset = (uint64_t)step * l.step_rows;
    const uint32_t r = blockIdx.x * STEP_WARPS + (uint32_t)warp;
    if (r >= rows_of_step(l, offset)) return; /* no barriers below */
    const skald_gpu_local_settings t = *l.settings;
    const uint32_t row = row_at(rows, offset + r), p = l.fixed ? 0 : step % t.period;
    const local_facts facts = local_facts_of(l, rows, row, offset);
    const scaling all = scaling_at(t.eta, t.l2, p), last = scaling_at(t.eta * l.last_step, 0, p);
    double z = 0, z0 = 0;
    const uint64_t end = __ldg(ptr + row + 1);
    for (uint64_t k = __ldg(ptr + row) + lane; k < end; k += 32) {
        const uint32_t j = __ldg(idx + k);
        const double x = (double)__ldg(val + k);
        const column c = l.columns[j];
        z += x * model_of(c, t.inv_n, scaling_of(l, j, all, last));
        z0 += x * c.w0;
    }
    z = lanes_sum(z, 32);
    z0 = lanes_sum(z0, 32);
    if (lane != 0) return;
    const float2 by = local_terms_of(l, rows, offset + r, z, z0, facts);
    l.coefficient[r] = by;
    if (l.fixed) {
        const float own = l.last == NO_ROW ? 0.0f : 1.0f; /* the constant's 1, which norm2 need not have whole */
        const float length = sqrtf(facts.norm2 + own) * 1.0001f;
        atomicMax(l.largest + 2 * (size_t)step, __float_as_uint(fabsf(by.x) * length));
        atomicMax(l.largest + 2 * (size_t)step + 1, __float_as_uint(fabsf(by.y) * length));
    }
}

__global__ void __launch_bounds__(STEP_THREADS)
    sparse_add(local_args l, row_args rows, const uint64_t *ptr, const uint32_t *idx, const float *val, uint32_t step) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const uint64_t offset = (uint64_t)step * l.step_rows, n = rows_of_step(l, offset);
    const uint32_t r = blockIdx.x * STEP_WARPS + (uint32_t)warp;
    if (r >= n) return;
    const skald_gpu_local_settings t = *l.settings;
    const uint32_t row = row_at(rows, offset + r);
    const float2 by = l.coefficient[r];
    const double c = (double)by.x, h = (double)by.y;
    double scale_c = 1, scale_h = 1;
    scaling all = {1, 0}, last = {1, 0};
    if (l.fixed) {
        scale_c = fixed_scale(l.largest[2 * (size_t)step], (double)n);
        scale_h = fixed_scale(l.largest[2 * (size_t)step + 1], (double)n);
    } else {
        all = scaling_at(t.eta, t.l2, step % t.period + 1);
        last = scaling_at(t.eta * l.last_step, 0, step % t.period + 1);
    }
    const uint64_t end = __ldg(ptr + row + 1);
    for (uint64_t k = __ldg(ptr + row) + lane; k < end; k += 32) {
        const uint32_t j = __ldg(idx + k);
        const double x = (double)__ldg(val + k);
        if (l.fixed) {
            fixed_add(l.fixed + j, c * x, scale_c);
            if (l.saga) fixed_add(l.fixed + l.dim + j, h * x, scale_h);
            continue;
        }
        const scaling s = scaling_of(l, j, all, last);
        const double eta = j == l.last ? t.eta * l.last_step : t.eta;
        atomicAdd(&l.columns[j].u, x * (s.s * t.inv_n * h - eta / (s.q * (double)n) * c));
        if (l.saga) atomicAdd(&l.columns[j].d, x * h);
    }
}

/* `fixed`: the update of all columns. */
__global__ void __launch_bounds__(256) sparse_update(local_args l, uint32_t step) {
    const uint64_t n = rows_of_step(l, (uint64_t)step * l.step_rows);
    const skald_gpu_local_settings t = *l.settings;
    if (n == 0) return;
    const double scale_c = fixed_scale(l.largest[2 * (size_t)step], (double)n);
    const double scale_h = fixed_scale(l.largest[2 * (size_t)step + 1], (double)n);
    for (uint32_t j = blockIdx.x * blockDim.x + threadIdx.x; j < l.dim; j += gridDim.x * blockDim.x) {
        column c = l.columns[j];
        const double sum = fixed_value(l.fixed[j], scale_c), taken = fixed_value(l.fixed[l.dim + j], scale_h);
        const double l2 = j == l.last ? 0.0 : t.l2, l1 = j == l.last ? 0.0 : t.l1;
        const double eta = j == l.last ? t.eta * l.last_step : t.eta;
        const double w = (1.0 - eta * l2) * c.u - eta / (double)n * sum - eta * (c.a + t.inv_n * c.d);
        l.columns[j].u = soft(w, eta * l1);
        l.columns[j].d = c.d + taken;
        l.fixed[j] = l.fixed[l.dim + j] = 0;
    }
}

/* After step `step`, when a period is over. */
__global__ void __launch_bounds__(256) sparse_rebase(local_args l, uint32_t step) {
    const skald_gpu_local_settings t = *l.settings;
    if ((step + 1) % t.period != 0 || rows_of_step(l, (uint64_t)step * l.step_rows) == 0) return;
    const scaling all = scaling_at(t.eta, t.l2, t.period), last = scaling_at(t.eta * l.last_step, 0, t.period);
    for (uint32_t j = blockIdx.x * blockDim.x + threadIdx.x; j < l.dim; j += gridDim.x * blockDim.x)
        l.columns[j].u = model_of(l.columns[j], t.inv_n, scaling_of(l, j, all, last));
}

/* ---- a task -------------------------------------------------------------------------------------------- */

static unsigned column_blocks(const local_args *l) {
    const unsigned blocks = (l->dim + 255) / 256;
    return blocks < 1024 ? blocks : 1024;
}

__global__ void __launch_bounds__(256) begin_sparse(local_args l, uint32_t steps) {
    const uint32_t first = blockIdx.x * blockDim.x + threadIdx.x, jump = gridDim.x * blockDim.x;
    if (first == 0) *l.bad = 0;
    for (uint32_t j = first; j < l.dim; j += jump) {
        column c;
        c.u = c.w0 = l.w0[j];
        c.d = 0;
        c.a = l.saga ? l.abar[j] : 0.0;
        l.columns[j] = c;
        if (l.fixed) l.fixed[j] = l.fixed[l.dim + j] = 0;
    }
    if (l.fixed)
        for (uint64_t k = first; k < 2 * (uint64_t)steps; k += jump) l.largest[k] = 0;
}

int skald_local_sparse_begin(const local_args *l, uint32_t steps, skald_gpu_stream stream) {
    SKALD_LAUNCH(begin_sparse, column_blocks(l), 256, 0, stream, *l, steps);
    return cudaGetLastError();
}

int skald_local_sparse_step(const skald_gpu_local *local, const local_args *l, const row_args *rows, uint32_t step,
                            skald_gpu_stream stream) {
    const skald_gpu_rows *x = local->rows;
    const unsigned blocks = (l->step_rows + STEP_WARPS - 1) / STEP_WARPS;
    SKALD_LAUNCH(sparse_dots, blocks, STEP_THREADS, 0, stream, *l, *rows, x->ptr, x->idx, x->val, step);
    SKALD_LAUNCH(sparse_add, blocks, STEP_THREADS, 0, stream, *l, *rows, x->ptr, x->idx, x->val, step);
    if (l->fixed)
        SKALD_LAUNCH(sparse_update, column_blocks(l), 256, 0, stream, *l, step);
    else if ((step + 1) % REBASE_STEPS == 0)
        SKALD_LAUNCH(sparse_rebase, column_blocks(l), 256, 0, stream, *l, step);
    return cudaGetLastError();
}

__global__ void __launch_bounds__(256) end_sparse(local_args l, double *dw, double *g) {
    const skald_gpu_local_settings t = *l.settings;
    const uint64_t steps = (t.count + l.step_rows - 1) / l.step_rows;
    const uint32_t p = l.fixed ? 0 : (uint32_t)(steps % t.period);
    const scaling all = scaling_at(t.eta, t.l2, p), last = scaling_at(t.eta * l.last_step, 0, p);
    for (uint32_t j = blockIdx.x * blockDim.x + threadIdx.x; j < l.dim; j += gridDim.x * blockDim.x) {
        const column c = l.columns[j];
        dw[j] = model_of(c, t.inv_n, scaling_of(l, j, all, last)) - c.w0;
        if (g) g[j] = c.d;
    }
}

int skald_local_sparse_end(const local_args *l, double *dw, double *g, skald_gpu_stream stream) {
    SKALD_LAUNCH(end_sparse, column_blocks(l), 256, 0, stream, *l, dw, g);
    return cudaGetLastError();
}
