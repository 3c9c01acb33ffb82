/* Between the launchers of passes (pass.cu) and the files their kernels are in. */
#ifndef SKALD_KERNELS_PASS_CUH
#define SKALD_KERNELS_PASS_CUH

#include "kernels/fixed.cuh"
#include "kernels/fused.cuh"

/* ---- fused_<storage>.cu -------------------------------------------------------------------------------- */

typedef void (*fused_kernel)(fused_args);

/* One fused kernel for a range of shapes. */
typedef struct fused_choice {
    skald_gpu_kernel kernel;
    uint32_t most; /* entries of a stored row */
    int block, groups, rows, resident;
    fused_kernel run[3]; /* points x outputs: 1 x 1, 2 x 1, 2 x 2; NULL: not made */
} fused_choice;

#define FUSED_CHOICES 8
extern const fused_choice skald_fused_f32[FUSED_CHOICES], skald_fused_bf16[FUSED_CHOICES],
    skald_fused_u8[FUSED_CHOICES];

template <class S, int T, int K, int R, int RESIDENT, int RESIDENT2>
static constexpr fused_choice direct(skald_gpu_kernel kernel) {
    return {kernel,
            (uint32_t)(T * K * S::entries),
            group<T>::block,
            group<T>::groups,
            R,
            RESIDENT,
            {fused<S, T, K, R, 1, 1, false, RESIDENT>, fused<S, T, K, R, 2, 1, false, RESIDENT2>,
             fused<S, T, K, R, 2, 2, false, RESIDENT2>}};
}
template <class S, int T, int K, int R, int RESIDENT> static constexpr fused_choice ring(void) {
    return {SKALD_GPU_RING,
            (uint32_t)(T * K * S::entries),
            group<T>::block,
            group<T>::groups,
            R,
            RESIDENT,
            {fused<S, T, K, R, 1, 1, true, RESIDENT>, NULL, NULL}};
}

/* ---- twice.cu ------------------------------------------------------------------------------------------ */

typedef struct twice_args {
    const unsigned char *x;
    size_t row_bytes;
    uint32_t width;
    const float *w[2];     /* as f32, times the units, zero from dim to width */
    float *coefficient[2]; /* by position - offset */
    uint64_t offset, rows; /* positions offset .. offset + rows */
    double *sum[2];        /* pieces x width */
    int pieces;
    bool add; /* to what is in sum */
} twice_args;

/* Dots and coefficients (w[0] NULL: coefficients alone), then sums. `blocks`: of the dots; tally has as many. */
int skald_twice_dots(skald_gpu_storage storage, int points, int blocks, const twice_args *a, const row_args *rows,
                     skald_gpu_stream stream);
int skald_twice_sums(skald_gpu_storage storage, const twice_args *a, const row_args *rows, int outputs,
                     skald_gpu_stream stream);
/* out[j] = (float)(w[j] * unit[j]), zero from dim (without an intercept) to width. */
int skald_twice_model(const double *w, const float *unit, uint32_t dim, uint32_t width, float *out,
                      skald_gpu_stream stream);

/* ---- sparse.cu ----------------------------------------------------------------------------------------- */

typedef struct sparse_args {
    row_args rows;
    const uint64_t *ptr;
    const uint32_t *idx;
    const float *val;
    uint32_t dim;
    const float *w[2];
    double *g[2];          /* zeroed before */
    float *coefficient[2]; /* by position; fixed point, or without g */
    const float *norm2;
    unsigned *largest;   /* fixed point: bits of the largest |c_i| max_j |x_ij| of each output; zeroed before */
    long long *fixed[2]; /* fixed point: dim, zeroed before */
} sparse_args;

/* Dots, coefficients and, where g is, atomic sums. */
int skald_sparse_fused(int blocks, int points, const sparse_args *a, skald_gpu_stream stream);
/* The sums alone, from coefficient: in f64 (g), or in fixed point (fixed). */
int skald_sparse_sums(int blocks, int outputs, const sparse_args *a, bool fixed, skald_gpu_stream stream);
/* g = fixed, as numbers. */
int skald_sparse_unfix(int outputs, const sparse_args *a, skald_gpu_stream stream);

/* ---- finish.cu ----------------------------------------------------------------------------------------- */

typedef struct finish_args {
    uint32_t dim, width;
    int outputs, partials, points;
    bool wide;              /* partials are f64 */
    const void *partial[2]; /* partials x width */
    double *g[2];
    const float *unit;
    double scale;
    const double *tally; /* tallies x TALLY */
    int tallies;
    int last[2]; /* the tallies' field that is g[o]'s last entry; 0: that is as the others */
    uint64_t count;
    skald_gpu_sums *sums; /* points; may be NULL */
    const uint32_t *list;
    const float *pending; /* NULL: nothing to publish */
    skald_gpu_record *record;
} finish_args;

/* Adds partials and tallies in order; publishes pending unless something is bad. */
int skald_finish(const finish_args *a, skald_gpu_stream stream);

#endif
