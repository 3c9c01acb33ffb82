/* What local steps share; on dense and on sparse rows of one class: the coefficients of a row of a step. */
#ifndef SKALD_KERNELS_LOCAL_CUH
#define SKALD_KERNELS_LOCAL_CUH

#include "kernels/step.cuh"
#include "kernels/twice.cuh"

#define LOCAL_NEAR 0.25 /* as far as phi'' at z will do for kappa: see skald_local in compute.h */

/* A column's state on sparse rows, a sector: the model is Q (u - S (a + d/n)), Q and S those of the step. */
typedef struct column {
    double u, d;  /* d: sum of s h x over the steps so far */
    double a, w0; /* abar and the model as they came */
} column;

/* One task's memory; the same at every launch. */
typedef struct local_args {
    const skald_gpu_local_settings *settings;
    const float *norm2;
    bool saga;
    uint32_t step_rows;
    uint32_t dim, width, last; /* last: the column that is not regularised, or NO_ROW */
    double last_step;          /* its eta, in the others' */
    const double *w0, *abar;   /* as they came */
    const float *unit;
    /* by position in the batch */
    double *loss, *k; /* s phi, and k of skald_sums */
    float *pending;   /* the new alpha, or those of all classes */
    unsigned *bad;
    /* one step's, by position in it */
    float2 *coefficient; /* {s c, s h} */
    /* dense: width entries */
    double *w, *d;
    float *narrow, *narrow0; /* the model now and as it came, as f32, times the units; 0 at `last` */
    /* sparse: dim */
    column *columns;
    long long *fixed;  /* all columns in every step: 2 x dim, zero between steps; else NULL */
    unsigned *largest; /* with fixed: two a step, zeroed at the beginning */
    /* softmax, beside w and d of classes x dim */
    uint32_t classes;
    float *alpha;
    float *x; /* one step's rows, ld floats each */
    size_t ld;
    double *z; /* 4 x step_rows x classes: margins at both models, then coefficients */
} local_args;

typedef struct local_facts {
    row_facts row;
    double eta_b;
    float norm2;
} local_facts;

/* Rows of the step that begins at offset. */
static __device__ __forceinline__ uint64_t rows_of_step(const local_args &l, uint64_t offset) {
    const uint64_t count = l.settings->count;
    if (offset >= count) return 0;
    return count - offset < l.step_rows ? count - offset : l.step_rows;
}

/* The step's eta over its rows. */
static __device__ __forceinline__ double local_eta_of(const local_args &l, uint64_t offset) {
    return l.settings->eta / (double)rows_of_step(l, offset);
}

static __device__ __forceinline__ local_facts local_facts_of(const local_args &l, const row_args &rows, uint32_t row,
                                                             uint64_t offset) {
    local_facts f;
    f.row = facts_of(rows, row);
    f.norm2 = row == NO_ROW ? 0.0f : __ldg(l.norm2 + row);
    f.eta_b = local_eta_of(l, offset);
    return f;
}

/* The coefficients {s c, s h} of a row with margins z at the local model and z0 at the model read. */
static __device__ __forceinline__ float2 local_terms_of(const local_args &l, const row_args &rows, uint64_t position,
                                                        double z, double z0, const local_facts &f) {
    const double s = f.row.s, y = f.row.y, old = l.saga ? (double)f.row.alpha : 0.0;
    const loss_terms now = loss_at(rows.loss, rows.delta, z, y);
    const double e = now.first - old, own = s * (double)f.norm2, moved = f.eta_b * own * e;
    double slope = now.second, h = 0;
    l.loss[position] = s * now.value;
    if (l.saga) {
        const loss_terms start = loss_at(rows.loss, rows.delta, z0, y);
        const float fresh = (float)start.first;
        h = s * ((double)fresh - old);
        l.loss[position] = s * start.value;
        l.pending[position] = fresh;
    }
    if (fabs(moved) > LOCAL_NEAR) slope = (now.first - loss_at(rows.loss, rows.delta, z - moved, y).first) / moved;
    l.k[position] = own * slope;
    const float2 c = make_float2((float)(s * e / (1.0 + f.eta_b * own * slope)), (float)h);
    if (!finite_f64(z) || !finite_f32((float)now.first) || !finite_f32(c.x) || !finite_f32(c.y)) atomicMax(l.bad, 1u);
    return c;
}

/* local_dense.cu, local_sparse.cu, local_softmax.cu: kernels of one step; the columns in and out. */
int skald_local_dense_begin(const local_args *l, skald_gpu_stream stream);
int skald_local_dense_step(const skald_gpu_local *local, const local_args *l, const row_args *rows, uint32_t step,
                           skald_gpu_stream stream);
int skald_local_sparse_begin(const local_args *l, uint32_t steps, skald_gpu_stream stream);
int skald_local_sparse_step(const skald_gpu_local *local, const local_args *l, const row_args *rows, uint32_t step,
                            skald_gpu_stream stream);
int skald_local_softmax_begin(const local_args *l, skald_gpu_stream stream);
int skald_local_softmax_step(const skald_gpu_local *local, const local_args *l, const row_args *rows, uint32_t step,
                             skald_gpu_stream stream);
/* dw, and g unless NULL. */
int skald_local_dense_end(const local_args *l, double *dw, double *g, skald_gpu_stream stream);
int skald_local_sparse_end(const local_args *l, double *dw, double *g, skald_gpu_stream stream);
/* Also the sums and the history. */
int skald_local_softmax_end(const local_args *l, const row_args *rows, double *dw, double *g, skald_gpu_sums *sums,
                            skald_gpu_stream stream);

#endif
