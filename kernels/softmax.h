/* Launchers of softmax's kernels: everything but the two matrix products of dense rows, which are cuBLAS's.
 *
 * What holds for every function is said in kernels.h. Vectors are `classes` x dim doubles, a class's together; Z and R
 * are [position][class], f32. With an intercept its column takes no part in products: constants are added to margins,
 * and their slopes added up, in f64, so that they can be minimised over to the last digit. */
#ifndef SKALD_KERNELS_SOFTMAX_H
#define SKALD_KERNELS_SOFTMAX_H

#include "kernels/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/* x[k] (ld floats each) = row list[first + k] (list NULL: row first + k) as f32, zeros behind dim; dense or CSR. `end`:
 * NULL, or on the card: positions from *end on are left out. */
int skald_gpu_softmax_gather(const skald_gpu_rows *rows, const uint32_t *list, uint64_t first, uint64_t count,
                             const uint64_t *end, float *x, size_t ld, skald_gpu_stream stream);
/* to[c] (ld floats each) = w's class c as f32, zeros from `columns` on (dim without the intercept). */
int skald_gpu_softmax_narrow(const double *w, uint32_t dim, uint32_t columns, uint32_t classes, float *to, size_t ld,
                             skald_gpu_stream stream);
/* CSR: z = x.w of the first `columns` columns, a warp a row. */
int skald_gpu_softmax_sparse_margins(const skald_gpu_rows *rows, const uint32_t *list, uint64_t first, uint64_t count,
                                     const double *w, uint32_t columns, uint32_t classes, float *z,
                                     skald_gpu_stream stream);
/* CSR: g[c*dim + j] += sum_k r[k][c] x_kj for j < columns, by atomics; deterministic: by one warp, in order. */
int skald_gpu_softmax_sparse_add(const skald_gpu_rows *rows, const uint32_t *list, uint64_t first, uint64_t count,
                                 const float *r, uint32_t columns, uint32_t classes, double *g, bool deterministic,
                                 skald_gpu_stream stream);

#define SKALD_GPU_SOFTMAX_BLOCKS 256
#define SKALD_GPU_SOFTMAX_TALLY (3 * SKALD_GPU_SOFTMAX_BLOCKS) /* doubles */

/* From margins to coefficients, some positions of one point. */
typedef struct skald_gpu_softmax_terms {
    skald_gpu_kind kind; /* not CURVATURE */
    uint32_t classes;
    const uint32_t *list;
    uint64_t first, count; /* positions */
    const skald_gpu_record *record;
    const double *s;
    const float *alpha; /* n x classes */
    const float *z[2];  /* count x classes; [1]: DIFFERENCE only */
    const double *b[2]; /* each class's constant, b_stride apart; NULL: none */
    size_t b_stride;
    float *r;       /* out, count x classes; may be z[0] */
    double *slopes; /* NULL, or out: the same in f64 */
    float *pending; /* SAGA: by position (first included) x classes */
    double *margin; /* NULL, or n x classes by row number */
    double *tally;  /* SKALD_GPU_SOFTMAX_TALLY, added to (zero it before): loss, correct, bad a block */
} skald_gpu_softmax_terms;
int skald_gpu_softmax_terms_run(const skald_gpu_softmax_terms *terms, skald_gpu_stream stream);

/* g[c*dim + j] += sum over k of part[k][c*ld + j] in order, j < columns. */
int skald_gpu_softmax_add(const float *part, uint32_t parts, uint32_t dim, uint32_t columns, uint32_t classes,
                          size_t ld, double *g, skald_gpu_stream stream);
/* out[c*stride] += sum over positions of slopes[k][c], in a fixed order. */
int skald_gpu_softmax_constants(const double *slopes, uint64_t count, uint32_t classes, double *out, size_t stride,
                                skald_gpu_stream stream);
/* sums from a tally; pending not NULL: alpha of the `count` rows written, if nothing is bad. */
int skald_gpu_softmax_finish(const double *tally, uint64_t count, uint32_t classes, const uint32_t *list,
                             const float *pending, float *alpha, skald_gpu_sums *sums, skald_gpu_stream stream);
/* shift_classes of compute.h for one point: moments at margin + delta. p: n x classes of scratch. */
int skald_gpu_softmax_moments(const skald_gpu_rows *rows, uint32_t classes, const double *margin, const double *delta,
                              double *p, double *moments, double *tally, skald_gpu_sums *sums, skald_gpu_stream stream);

#ifdef __cplusplus
}
#endif
#endif
