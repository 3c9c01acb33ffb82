/* H itself: the Gram, or softmax's coupled one block by block. */
#include <math.h>
#include <string.h>

#include "curvature/room.h"
#include "curvature/state.h"

/* Classes c >= b: sum h p_c (1 - p_c) x x' where c = b, - sum h p_c p_b x x' elsewhere; the lower triangle of a block
 * that is symmetric. */
static skald_status block(skald_metric *m, const skald_measure *measure, size_t c, size_t b) {
    const size_t classes = m->options.classes, dim = m->options.dim, lda = m->factor.lda;
    for (size_t i = 0; i < measure->rows->n; i++) {
        const double pc = measure->p[i * classes + c], pb = measure->p[i * classes + b];
        m->weight[i] = measure->h[i] * pc * (c == b ? fmax(1 - pc, 0) : pb);
    }
    double *const corner = m->factor.a + c * dim * lda + b * dim;
    TRY(skald_gram_add(&m->gram, m->blas, measure->rows, m->weight, c == b ? 1 : -1, corner, lda));
    for (size_t j = 0; c != b && j < dim; j++)
        for (size_t k = 0; k < j; k++) corner[k * lda + j] = corner[j * lda + k];
    return SKALD_OK;
}

static skald_status sum(skald_metric *m, const skald_measure *measure) {
    const size_t classes = m->options.classes;
    for (size_t j = 0; j < m->entries; j++) memset(m->factor.a + j * m->factor.lda, 0, (j + 1) * sizeof(double));
    if (classes == 1)
        return skald_gram_add(&m->gram, m->blas, measure->rows, measure->h, 1, m->factor.a, m->factor.lda);
    for (size_t c = 0; c < classes; c++)
        for (size_t b = 0; b <= c; b++) TRY(block(m, measure, c, b));
    return SKALD_OK;
}

static void product(void *user, const double *v, double *out) {
    const skald_metric *m = user;
    m->blas->dsymv(SKALD_BLAS_ROWS, SKALD_BLAS_LOWER, (int)m->entries, 1, m->factor.a, (int)m->factor.lda, v, 1, 0, out,
                   1);
}

/* Mean over classes, dim entries. */
static void diagonal(const skald_metric *m, double *out) {
    const size_t classes = m->options.classes, dim = m->options.dim;
    for (size_t j = 0; j < dim; j++) out[j] = 0;
    for (size_t k = 0; k < m->entries; k++) out[k % dim] += m->factor.a[k * m->factor.lda + k] / (double)classes;
}

/* Moving all intercepts alike changes nothing: with their mean curvature there, H has an inverse. */
static void add_shift(skald_metric *m, double curvature) {
    const size_t classes = m->options.classes, dim = m->options.dim;
    for (size_t c = 0; c < classes; c++)
        for (size_t b = 0; b <= c; b++)
            m->factor.a[(c * dim + dim - 1) * m->factor.lda + b * dim + dim - 1] += curvature / (double)classes;
}

skald_status skald_exact_measure(skald_metric *m, const skald_measure *measure) {
    const size_t dim = m->options.dim, n = m->entries;
    TRY(skald_factor_reserve(&m->factor, n));
    TRY(sum(m, measure));
    if (skald_metric_wants_ridge(m, measure->whole)) TRY(skald_metric_explore(m, measure->whole, n, product));
    double *const d = m->scratch + n; /* the first vector is set_ridge's */
    diagonal(m, d);
    skald_metric_set_ridge(m, measure, d);
    for (size_t k = 0; k < n; k++) m->factor.a[k * m->factor.lda + k] += m->ridge[k % dim];
    if (m->options.classes > 1 && m->options.intercept) add_shift(m, d[dim - 1]);
    TRY(skald_factor_make(&m->factor, m->blas));
    m->facts.lift = m->factor.lift;
    if (!skald_metric_damps(m, measure->whole)) return SKALD_OK;
    for (size_t k = 0; k < n; k++) d[k] = m->ridge[k % dim];
    skald_metric_damp(m, (double)n - skald_factor_trace(&m->factor, m->blas, d));
    return SKALD_OK;
}
