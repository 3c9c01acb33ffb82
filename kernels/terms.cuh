/* From a row's margins to its coefficients and its part of the sums: what every pass over rows shares. */
#ifndef SKALD_KERNELS_TERMS_CUH
#define SKALD_KERNELS_TERMS_CUH

#include "kernels/device.cuh"
#include "kernels/kernels.h"

#define NO_ROW 0xffffffffu

/* ---- losses: include/skald/objective.h, in f64 --------------------------------------------------------- */

typedef struct loss_terms {
    double value, first, second;
} loss_terms;

static __device__ __forceinline__ loss_terms loss_at(int loss, double delta, double z, double y) {
    loss_terms t;
    switch (loss) {
    case SKALD_LOGISTIC: {
        const double m = y * z, e = exp(-fabs(m)), inverse = 1.0 / (1.0 + e);
        t.value = log1p(e) + (m > 0 ? 0.0 : -m);
        t.first = -y * (m > 0 ? e : 1.0) * inverse;
        t.second = e * inverse * inverse;
        break;
    }
    case SKALD_SQUARED_HINGE: {
        const double h = 1.0 - y * z, over = h <= 0 ? 0.0 : h; /* NaN stays NaN */
        t.value = 0.5 * over * over;
        t.first = -y * over;
        t.second = h <= 0 ? 0.0 : 1.0;
        break;
    }
    case SKALD_HUBER: {
        const double r = z - y, a = fabs(r);
        t.value = a > delta ? delta * (a - 0.5 * delta) : 0.5 * r * r;
        t.first = a > delta ? (r > 0 ? delta : -delta) : r;
        t.second = a > delta ? 0.0 : 1.0;
        break;
    }
    default: /* squared */
        t.first = z - y;
        t.value = 0.5 * t.first * t.first;
        t.second = 1.0;
    }
    return t;
}

static __device__ __forceinline__ bool finite_f64(double v) {
    return fabs(v) <= 1.7976931348623157e308;
}
static __device__ __forceinline__ bool finite_f32(float v) {
    return fabsf(v) <= 3.402823466e38f;
}

/* ---- sums ---------------------------------------------------------------------------------------------- */

/* A block's share of the sums: loss, dphi, d2phi, correct of both points, then bad. */
#define TALLY 9
#define TALLY_BAD 8
/* The sum of output o's coefficients in f64: OBJECTIVE's are dphi; the others have one point, and room. */
#define TALLY_COEFFICIENTS(kind, o) ((kind) == SKALD_GPU_OBJECTIVE ? 4 * (o) + 1 : 5)

static __device__ __forceinline__ void tally_clear(double *slots, int count) {
    for (int k = threadIdx.x; k < count * TALLY; k += blockDim.x) slots[k] = 0;
}
/* slots in order, so that bits repeat. Behind a barrier. */
static __device__ __forceinline__ void tally_write(const double *slots, int count, double *out, bool more) {
    if (threadIdx.x < TALLY) {
        double sum = more ? out[blockIdx.x * TALLY + threadIdx.x] : 0;
        for (int k = 0; k < count; k++) sum += slots[k * TALLY + threadIdx.x];
        out[blockIdx.x * TALLY + threadIdx.x] = sum;
    }
}

/* ---- a pass's rows ------------------------------------------------------------------------------------- */

typedef struct row_args {
    int kind, loss;
    double delta;
    const uint32_t *list; /* NULL: rows in order */
    uint64_t count;
    const skald_gpu_record *record;
    const double *s;
    float *pending;        /* SAGA: new alpha, by position */
    double *margin[2];     /* OBJECTIVE: by row, or NULL */
    double *tally;         /* blocks x TALLY */
    const double *bias[2]; /* intercept: the models' last entries, which z0 and z1 come without; else NULL */
    bool more;             /* add to what is there: a later launch of the same blocks */
} row_args;

/* What a row's coefficients need beside its margins; loaded early. */
typedef struct row_facts {
    double y, s;
    float alpha;
} row_facts;

static __device__ __forceinline__ uint32_t row_at(const row_args &a, uint64_t position) {
    if (position >= a.count) return NO_ROW;
    return a.list ? __ldg(a.list + position) : (uint32_t)position;
}

static __device__ __forceinline__ row_facts facts_of(const row_args &a, uint32_t row) {
    row_facts f = {0, 0, 0};
    if (row != NO_ROW) {
        f.y = __ldg(&a.record[row].y);
        f.alpha = __ldg(&a.record[row].alpha);
        f.s = a.s ? __ldg(a.s + row) : 1.0;
    }
    return f;
}

static __device__ __forceinline__ void tally_point(double *tally, const loss_terms &t, double s, bool correct) {
    tally[0] += s * t.value;
    tally[1] += s * t.first;
    tally[2] += s * t.second;
    tally[3] += correct;
}

/* Coefficients c[0..2) of one row. tally: its slot of the sums; NULL: another thread writes what is to be written. */
static __device__ __forceinline__ void row_terms(const row_args &a, uint32_t row, uint64_t position, double z0,
                                                 double z1, row_facts f, float *c, double *tally) {
    const double s = f.s, y = f.y;
    if (a.bias[0]) z0 += __ldg(a.bias[0]);
    if (a.bias[1]) z1 += __ldg(a.bias[1]);
    bool good = finite_f64(z0);
    c[1] = 0;
    if (a.kind == SKALD_GPU_OBJECTIVE) {
        const bool binary = a.loss == SKALD_LOGISTIC || a.loss == SKALD_SQUARED_HINGE;
        const loss_terms t = loss_at(a.loss, a.delta, z0, y);
        c[0] = (float)(s * t.first);
        if (tally) tally_point(tally, t, s, binary && (z0 >= 0) == (y > 0));
        const loss_terms u = loss_at(a.loss, a.delta, z1, y); /* one point: z1 is 0 and u not looked at */
        c[1] = (float)(s * u.first);
        good = good && finite_f64(z1) && finite_f32(c[1]);
        if (tally) {
            tally_point(tally + 4, u, s, binary && (z1 >= 0) == (y > 0));
            if (a.margin[0]) a.margin[0][row] = z0;
            if (a.margin[1]) a.margin[1][row] = z1;
        }
    } else {
        double exact = s;
        if (a.kind == SKALD_GPU_CURVATURE) {
            exact *= z0;
        } else if (a.kind == SKALD_GPU_ANCHOR) {
            exact *= (double)f.alpha;
        } else {
            const loss_terms t = loss_at(a.loss, a.delta, z0, y);
            double first = t.first;
            if (tally) tally[0] += s * t.value;
            if (a.kind == SKALD_GPU_SAGA) {
                const float fresh = (float)first;
                good = good && finite_f32(fresh);
                first = (double)fresh - (double)f.alpha;
                if (tally) a.pending[position] = fresh;
            } else if (a.kind == SKALD_GPU_DIFFERENCE) {
                good = good && finite_f64(z1);
                first -= loss_at(a.loss, a.delta, z1, y).first;
            }
            exact *= first;
        }
        c[0] = (float)exact;
        if (tally) tally[TALLY_COEFFICIENTS(SKALD_GPU_SAGA, 0)] += exact;
    }
    if (tally && (!good || !finite_f32(c[0]))) tally[TALLY_BAD] += 1;
}

/* ---- sums across threads ------------------------------------------------------------------------------- */

static __device__ __forceinline__ double lanes_sum(double v, int width) {
    for (int k = width / 2; k > 0; k /= 2) v += __shfl_xor_sync(0xffffffffu, v, k);
    return v;
}

#endif
