/* Local steps of softmax: four kernels a step. (1) its rows as f32; (2) their margins at the local model and at the one
 * that was read, a warp each; (3) coefficients, a warp a row; (4) the update, a thread a column of a class. */
#include "kernels/local.cuh"
#include "kernels/softmax.cuh"

static unsigned some_blocks(uint64_t items, unsigned each) {
    const uint64_t wanted = (items + each - 1) / each;
    return wanted < 1 ? 1 : wanted > 4096 ? 4096 : (unsigned)wanted;
}
static unsigned column_blocks(const local_args *l) {
    return some_blocks((uint64_t)l->classes * l->dim, 256);
}

__global__ void __launch_bounds__(256) softmax_margins(local_args l, uint64_t offset) {
    const unsigned lane = threadIdx.x % 32, points = l.saga ? 2 : 1;
    const uint32_t rows = (uint32_t)rows_of_step(l, offset), all = rows * l.classes * points;
    for (uint32_t k = blockIdx.x * 8 + threadIdx.x / 32; k < all; k += gridDim.x * 8) {
        const uint32_t c = k % l.classes, r = k / l.classes % rows, p = k / l.classes / rows;
        const double *w = (p ? l.w0 : (const double *)l.w) + (size_t)c * l.dim;
        const float *x = l.x + r * l.ld;
        double sum = 0;
        for (uint32_t j = lane; j < l.dim; j += 32) sum += (double)x[j] * w[j];
        sum = lanes_sum(sum, 32);
        if (lane == 0) l.z[((size_t)p * l.step_rows + r) * l.classes + c] = sum;
    }
}

/* One row's coefficients, as compute.h has them. */
__global__ void __launch_bounds__(32) softmax_terms(local_args l, row_args rows, uint64_t offset) {
    const unsigned lane = threadIdx.x;
    const uint32_t C = l.classes, r = blockIdx.x;
    if (r >= rows_of_step(l, offset)) return;
    const uint64_t k = offset + r;
    const uint32_t row = row_at(rows, k);
    const local_facts facts = local_facts_of(l, rows, row, offset);
    const uint32_t y = (uint32_t)facts.row.y;
    const double s = facts.row.s, own = s * (double)facts.norm2, t = facts.eta_b * own;
    const size_t block = (size_t)l.step_rows * C, at = (size_t)r * C;
    const double *z = l.z + at, *z0 = l.z + block + at;
    double *cs = l.z + 2 * block + at, *hs = l.z + 3 * block + at;
    float *const alpha = l.alpha + (size_t)row * C;
    const row_softmax now = softmax_of(C, lane, 32, y, [&](uint32_t c) { return z[c]; });
    double loss = now.loss, far = 0, a = 0, ae = 0, trace = 0, most = 0, size = 0;
    bool good = now.good;
    if (l.saga) {
        const row_softmax start = softmax_of(C, lane, 32, y, [&](uint32_t c) { return z0[c]; });
        loss = start.loss;
        good = good && start.good;
        for (uint32_t c = lane; c < C; c += 32) {
            const float fresh = (float)softmax_slope(start, z0[c], c == y);
            hs[c] = s * ((double)fresh - (double)alpha[c]);
            l.pending[k * C + c] = fresh;
        }
    }
    for (uint32_t c = lane; c < C; c += 32) {
        const double p = exp(z[c] - now.top) * now.inverse,
                     e = softmax_slope(now, z[c], c == y) - (l.saga ? (double)alpha[c] : 0);
        const double bend = p * (1 - p), share = p / (1 + t * p), moved = fabs(t * e);
        cs[c] = e;
        if (moved > far) far = moved;
        if (bend > most) most = bend;
        a += share;
        ae += share * e;
        trace += bend;
        size += e * e;
    }
    for (int n = 16; n > 0; n /= 2) {
        const double f = __shfl_xor_sync(0xffffffffu, far, n), m = __shfl_xor_sync(0xffffffffu, most, n);
        if (f > far) far = f;
        if (m > most) most = m;
    }
    a = lanes_sum(a, 32);
    ae = lanes_sum(ae, 32);
    trace = lanes_sum(trace, 32);
    size = lanes_sum(size, 32);
    double kappa = 2 * most < trace ? 2 * most : trace;
    if (far > LOCAL_NEAR) { /* all lanes agree */
        const row_softmax ahead = softmax_of(C, lane, 32, y, [&](uint32_t c) {
            return z[c] - t * (softmax_slope(now, z[c], c == y) - (l.saga ? (double)alpha[c] : 0));
        });
        double along = 0;
        for (uint32_t c = lane; c < C; c += 32) {
            const double e = cs[c];
            along += e * (exp(z[c] - now.top) * now.inverse - exp(z[c] - t * e - ahead.top) * ahead.inverse);
        }
        kappa = lanes_sum(along, 32) / (t * size);
        if (kappa < 0) kappa = 0;
        for (uint32_t c = lane; c < C; c += 32) cs[c] *= s / (1 + t * kappa);
    } else {
        for (uint32_t c = lane; c < C; c += 32) {
            const double p = exp(z[c] - now.top) * now.inverse;
            cs[c] = s * (cs[c] + t * ae / a * p) / (1 + t * p);
        }
    }
    if (lane == 0) {
        l.loss[k] = s * loss;
        l.k[k] = own * kappa;
        if (!good) atomicMax(l.bad, 1u);
    }
}

__global__ void __launch_bounds__(256) softmax_update(local_args l, uint64_t offset) {
    const size_t all = (size_t)l.classes * l.dim, block = (size_t)l.step_rows * l.classes;
    const uint32_t count = (uint32_t)rows_of_step(l, offset);
    const skald_gpu_local_settings t = *l.settings;
    if (count == 0) return;
    for (size_t k = (size_t)blockIdx.x * 256 + threadIdx.x; k < all; k += (size_t)gridDim.x * 256) {
        const uint32_t c = (uint32_t)(k / l.dim), j = (uint32_t)(k % l.dim);
        const double *cs = l.z + 2 * block + c, *hs = l.z + 3 * block + c;
        const bool regular = j != l.last;
        double step = 0, taken = 0;
        for (uint32_t r = 0; r < count; r++) {
            const double x = (double)l.x[r * l.ld + j];
            step += cs[(size_t)r * l.classes] * x;
            if (l.saga) taken += hs[(size_t)r * l.classes] * x;
        }
        double v = l.w[k];
        const double pull = (l.saga ? l.abar[k] + t.inv_n * l.d[k] : 0) + (regular ? t.l2 * v : 0);
        v -= (regular ? t.eta : t.eta * l.last_step) * (step / count + pull);
        l.w[k] = regular ? soft(v, t.eta * t.l1) : v;
        if (l.saga) l.d[k] += taken;
    }
}

/* ---- a task -------------------------------------------------------------------------------------------- */

__global__ void __launch_bounds__(256) begin_softmax(local_args l) {
    const size_t all = (size_t)l.classes * l.dim, first = (size_t)blockIdx.x * 256 + threadIdx.x;
    if (first == 0) *l.bad = 0;
    for (size_t k = first; k < all; k += (size_t)gridDim.x * 256) {
        l.w[k] = l.w0[k];
        l.d[k] = 0;
    }
}

int skald_local_softmax_begin(const local_args *l, skald_gpu_stream stream) {
    SKALD_LAUNCH(begin_softmax, column_blocks(l), 256, 0, stream, *l);
    return cudaGetLastError();
}

int skald_local_softmax_step(const skald_gpu_local *local, const local_args *l, const row_args *rows, uint32_t step,
                             skald_gpu_stream stream) {
    const uint64_t offset = (uint64_t)step * l->step_rows;
    int error = skald_gpu_softmax_gather(local->rows, rows->list, offset, l->step_rows, &l->settings->count, l->x,
                                         l->ld, stream);
    if (error != cudaSuccess) return error;
    const uint64_t dots = (uint64_t)l->step_rows * l->classes * (l->saga ? 2 : 1);
    SKALD_LAUNCH(softmax_margins, some_blocks(dots, 8), 256, 0, stream, *l, offset);
    SKALD_LAUNCH(softmax_terms, l->step_rows, 32, 0, stream, *l, *rows, offset);
    SKALD_LAUNCH(softmax_update, column_blocks(l), 256, 0, stream, *l, offset);
    return cudaGetLastError();
}

/* dw = w - w0, and the sums by the first block; the history by all. */
__global__ void __launch_bounds__(256)
    end_softmax(local_args l, row_args rows, double *dw, double *g, skald_gpu_sums *sums) {
    SKALD_SHARED(double, share, 3 * 256);
    const size_t all = (size_t)l.classes * l.dim, step = (size_t)gridDim.x * 256;
    const uint64_t count = l.settings->count;
    for (size_t k = (size_t)blockIdx.x * 256 + threadIdx.x; k < all; k += step) {
        dw[k] = l.w[k] - l.w0[k];
        if (g) g[k] = l.d[k];
    }
    const unsigned bad = *l.bad;
    if (!bad && l.saga)
        for (uint64_t k = (uint64_t)blockIdx.x * 256 + threadIdx.x; k < count * l.classes; k += step)
            l.alpha[(size_t)row_at(rows, k / l.classes) * l.classes + k % l.classes] = l.pending[k];
    if (blockIdx.x != 0) return;
    double field[3] = {0, 0, 0};
    for (uint64_t i = threadIdx.x; i < count; i += 256) {
        const double k = l.k[i];
        field[0] += l.loss[i];
        field[1] += k;
        field[2] += k * k;
    }
    for (int f = 0; f < 3; f++) share[f * 256 + threadIdx.x] = field[f];
    __syncthreads();
    for (unsigned n = 128; n > 0; n /= 2) {
        if (threadIdx.x < n)
            for (int f = 0; f < 3; f++) share[f * 256 + threadIdx.x] += share[f * 256 + threadIdx.x + n];
        __syncthreads();
    }
    if (threadIdx.x == 0) {
        const skald_gpu_sums s = {share[0], 0, 0, 0, (double)count, share[256], share[512], (double)bad};
        *sums = s;
    }
}

int skald_local_softmax_end(const local_args *l, const row_args *rows, double *dw, double *g, skald_gpu_sums *sums,
                            skald_gpu_stream stream) {
    SKALD_LAUNCH(end_softmax, column_blocks(l), 256, 0, stream, *l, *rows, dw, g, sums);
    return cudaGetLastError();
}
