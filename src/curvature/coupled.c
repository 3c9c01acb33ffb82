/* Softmax by conjugate gradients: products with the sample's own coupled Hessian, a block of rows at a time.
 *
 * Moving all classes alike changes no probability: on vectors that are the same for all classes H is R, and it maps
 * vectors whose classes sum to 0 to such. So the two parts of a gradient are solved for apart. The preconditioner, a
 * block a class (sum h p (1 - p) x x' + R) and its result's common part taken off, then has no small direction left:
 * 3-16 products leave 1e-6 of the error (digits, l2 1e-4 and 1e-6), without that projection 45-110 do. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "curvature/room.h"
#include "curvature/state.h"
#include "curvature/vector.h"

#define TOLERANCE 1e-6 /* of r' M^-1 r, a square: three digits of B g */
enum { ROW_BLOCK = 128, MOST_PRODUCTS = 200, BLOCKS_DIM = 2048, SHARED_DIM = 4096, BLOCKS_ENTRIES = 1 << 25 };

uint32_t skald_coupled_blocks(uint32_t dim, uint32_t classes) {
    if (dim <= BLOCKS_DIM && (uint64_t)classes * dim * dim <= BLOCKS_ENTRIES) return classes;
    return dim <= SHARED_DIM ? 1 : 0;
}

void skald_coupled_free(skald_metric *m) {
    skald_coupled *s = &m->coupled;
    for (uint32_t c = 0; s->block && c < s->blocks; c++) skald_factor_free(s->block + c);
    free(s->block);
    skald_rows_free(&s->rows);
    free(s->h);
    free(s->p);
    free(s->inverse);
    free(s->wide);
    free(s->z);
    free(s->r);
}

/* ---- the sample -------------------------------------------------------------------------------------- */

static void keep_row(skald_coupled *s, const skald_rows *rows, size_t i) {
    const size_t at = s->rows.n++;
    if (rows->layout == SKALD_DENSE) {
        memcpy(s->rows.x + at * rows->dim, rows->x + i * rows->stride, rows->dim * sizeof(float));
        return;
    }
    const uint64_t first = rows->ptr[i], count = rows->ptr[i + 1] - first, to = s->rows.ptr[at];
    memcpy(s->rows.idx + to, rows->idx + first, count * sizeof(uint32_t));
    memcpy(s->rows.val + to, rows->val + first, count * sizeof(float));
    s->rows.ptr[at + 1] = to + count;
}

static skald_status keep(skald_metric *m, const skald_measure *measure) {
    skald_coupled *s = &m->coupled;
    const skald_rows *rows = measure->rows;
    const size_t count = m->facts.rows, classes = m->options.classes, dim = m->options.dim;
    TRY(skald_room((void **)&s->h, &s->h_room, count, sizeof *s->h));
    TRY(skald_room((void **)&s->p, &s->p_room, count * classes, sizeof *s->p));
    if (rows->layout == SKALD_DENSE)
        TRY(skald_room((void **)&s->rows.x, &s->x_room, count * dim, sizeof(float)));
    else {
        TRY(skald_room((void **)&s->rows.ptr, &s->ptr_room, count + 1, sizeof(uint64_t)));
        TRY(skald_room((void **)&s->rows.idx, &s->idx_room, rows->ptr[rows->n], sizeof(uint32_t)));
        TRY(skald_room((void **)&s->rows.val, &s->val_room, rows->ptr[rows->n], sizeof(float)));
        s->rows.ptr[0] = 0;
    }
    s->rows.layout = rows->layout;
    s->rows.dim = rows->dim;
    s->rows.stride = dim;
    s->rows.n = 0;
    for (size_t i = 0; i < rows->n; i++) {
        if (!(measure->h[i] > 0)) continue;
        s->h[s->rows.n] = measure->h[i];
        memcpy(s->p + s->rows.n * classes, measure->p + i * classes, classes * sizeof *s->p);
        keep_row(s, rows, i);
    }
    TRY(skald_room((void **)&s->z, &s->z_room, ROW_BLOCK * classes, sizeof *s->z));
    TRY(skald_room((void **)&s->wide, &s->wide_room, skald_max_size(ROW_BLOCK * dim, 2 * m->entries), sizeof *s->wide));
    return skald_room((void **)&s->r, &s->vectors_room, 4 * m->entries, sizeof *s->r);
}

/* ---- products ---------------------------------------------------------------------------------------- */

/* z of row i becomes h (diag(p) - p p') z. */
static void bend(const skald_coupled *s, size_t i, size_t classes, double *z) {
    const double *p = s->p + i * classes;
    double mean = 0;
    for (size_t c = 0; c < classes; c++) mean += p[c] * z[c];
    for (size_t c = 0; c < classes; c++) z[c] = s->h[i] * p[c] * (z[c] - mean);
}

static void product_dense(skald_metric *m, const double *v, double *out) {
    const skald_coupled *s = &m->coupled;
    const size_t classes = m->options.classes, dim = m->options.dim;
    const int C = (int)classes, d = (int)dim;
    for (size_t i = 0; i < s->rows.n; i += ROW_BLOCK) {
        const size_t count = skald_min_size(ROW_BLOCK, s->rows.n - i);
        const float *x = s->rows.x + i * dim;
        for (size_t k = 0; k < count * dim; k++) s->wide[k] = (double)x[k];
        m->blas->dgemm(SKALD_BLAS_ROWS, SKALD_BLAS_PLAIN, SKALD_BLAS_TRANSPOSED, (int)count, C, d, 1, s->wide, d, v, d,
                       0, s->z, C);
        for (size_t k = 0; k < count; k++) bend(s, i + k, classes, s->z + k * classes);
        m->blas->dgemm(SKALD_BLAS_ROWS, SKALD_BLAS_TRANSPOSED, SKALD_BLAS_PLAIN, C, d, (int)count, 1, s->z, C, s->wide,
                       d, 1, out, d);
    }
}

/* With [column][class] vectors: an entry's classes lie together. */
static void product_sparse(skald_metric *m, const double *v, double *out) {
    const skald_coupled *s = &m->coupled;
    const size_t classes = m->options.classes, dim = m->options.dim;
    double *const turned = s->wide, *const sums = s->wide + m->entries;
    for (size_t c = 0; c < classes; c++)
        for (size_t j = 0; j < dim; j++) turned[j * classes + c] = v[c * dim + j];
    memset(sums, 0, m->entries * sizeof *sums);
    for (size_t i = 0; i < s->rows.n; i++) {
        memset(s->z, 0, classes * sizeof *s->z);
        for (uint64_t e = s->rows.ptr[i]; e < s->rows.ptr[i + 1]; e++)
            skald_vector_add(classes, (double)s->rows.val[e], turned + s->rows.idx[e] * classes, s->z);
        bend(s, i, classes, s->z);
        for (uint64_t e = s->rows.ptr[i]; e < s->rows.ptr[i + 1]; e++)
            skald_vector_add(classes, (double)s->rows.val[e], s->z, sums + s->rows.idx[e] * classes);
    }
    for (size_t c = 0; c < classes; c++)
        for (size_t j = 0; j < dim; j++) out[c * dim + j] = sums[j * classes + c];
}

/* The data's part of H. */
static void product(void *user, const double *v, double *out) {
    skald_metric *m = user;
    m->facts.products++;
    memset(out, 0, m->entries * sizeof *out);
    if (m->coupled.rows.layout == SKALD_DENSE)
        product_dense(m, v, out);
    else
        product_sparse(m, v, out);
}

/* ---- the preconditioner ------------------------------------------------------------------------------ */

/* Weights of block c: the class's curvature, or (one block for all) its mean over classes. */
static void weigh(skald_metric *m, uint32_t c) {
    const skald_coupled *s = &m->coupled;
    const size_t classes = m->options.classes;
    for (size_t i = 0; i < s->rows.n; i++) {
        const double *p = s->p + i * classes;
        double spread = p[c] * (1 - p[c]);
        if (s->blocks == 1) spread = (1 - skald_vector_dot(classes, p, p)) / (double)classes;
        m->weight[i] = s->h[i] * fmax(spread, 0);
    }
}

static skald_status make_block(skald_metric *m, uint32_t c) {
    skald_coupled *s = &m->coupled;
    skald_factor *f = s->block + c;
    TRY(skald_factor_reserve(f, m->options.dim));
    for (size_t j = 0; j < f->n; j++) memset(f->a + j * f->lda, 0, (j + 1) * sizeof *f->a);
    weigh(m, c);
    if (s->rows.layout == SKALD_DENSE) /* a preconditioner: seven digits are enough */
        TRY(skald_gram_add_single(&m->gram, m->blas, &s->rows, m->weight, f->a, f->lda));
    else
        TRY(skald_gram_add(&m->gram, m->blas, &s->rows, m->weight, 1, f->a, f->lda));
    for (size_t j = 0; j < f->n; j++) f->a[j * f->lda + j] += m->ridge[j];
    return skald_factor_make(f, m->blas);
}

static skald_status make_diagonal(skald_metric *m) {
    skald_coupled *s = &m->coupled;
    const size_t dim = m->options.dim;
    TRY(skald_room((void **)&s->inverse, &s->inverse_room, m->entries, sizeof *s->inverse));
    for (uint32_t c = 0; c < m->options.classes; c++) {
        weigh(m, c);
        double *const out = s->inverse + c * dim;
        skald_metric_squares(&s->rows, m->weight, out);
        for (size_t j = 0; j < dim; j++) out[j] = out[j] + m->ridge[j] > 0 ? 1 / (out[j] + m->ridge[j]) : 0;
    }
    return SKALD_OK;
}

static skald_status precondition(skald_metric *m) {
    skald_coupled *s = &m->coupled;
    s->blocks = skald_coupled_blocks(m->options.dim, m->options.classes);
    if (s->blocks == 0) return make_diagonal(m);
    if (!s->block) s->block = skald_zalloc(s->blocks, sizeof *s->block);
    if (!s->block) return SKALD_ENOMEM;
    for (uint32_t c = 0; c < s->blocks; c++) {
        TRY(make_block(m, c));
        m->facts.lift = fmax(m->facts.lift, s->block[c].lift);
    }
    return SKALD_OK;
}

static void take_common(const skald_metric *m, double *v, double *common) {
    const size_t classes = m->options.classes, dim = m->options.dim;
    for (size_t j = 0; j < dim; j++) {
        double sum = 0;
        for (size_t c = 0; c < classes; c++) sum += v[c * dim + j];
        sum /= (double)classes;
        for (size_t c = 0; c < classes; c++) v[c * dim + j] -= sum;
        if (common) common[j] = sum;
    }
}

static void preconditioned(const skald_metric *m, const double *r, double *z) {
    const skald_coupled *s = &m->coupled;
    const size_t dim = m->options.dim;
    for (size_t k = 0; k < m->entries; k++) z[k] = s->blocks ? r[k] : r[k] * s->inverse[k];
    for (size_t c = 0; s->blocks && c < m->options.classes; c++)
        skald_factor_solve(s->block + (s->blocks == 1 ? 0 : c), m->blas, z + c * dim);
    take_common(m, z, NULL);
}

/* ---- measuring and solving --------------------------------------------------------------------------- */

skald_status skald_coupled_measure(skald_metric *m, const skald_measure *measure) {
    const size_t dim = m->options.dim;
    TRY(keep(m, measure));
    double *const d = m->coupled.r; /* mean over classes of the diagonal */
    for (size_t i = 0; i < measure->rows->n; i++) {
        const double *p = measure->p + i * m->options.classes;
        const double spread = 1 - skald_vector_dot(m->options.classes, p, p);
        m->weight[i] = measure->h[i] * fmax(spread, 0) / m->options.classes;
    }
    skald_metric_squares(measure->rows, m->weight, d);
    for (size_t j = 0; j < dim; j++)
        if (!isfinite(d[j])) return skald_fail(SKALD_ENUMERIC, "column %zu of the sample is not finite", j);
    if (skald_metric_wants_ridge(m, measure->whole) || skald_metric_damps(m, measure->whole))
        TRY(skald_metric_explore(m, measure->whole, m->entries, product));
    skald_metric_set_ridge(m, measure, d);
    if (skald_metric_damps(m, measure->whole)) skald_metric_damp(m, m->facts.effective);
    m->facts.products = 0;
    return precondition(m);
}

/* The part that all classes have in common: R, and for intercepts, where R is next to nothing, their mean curvature. */
static void add_common(const skald_metric *m, const double *common, double *out) {
    const size_t dim = m->options.dim;
    for (size_t j = 0; j < dim; j++) {
        const double curvature = m->ridge[j] + (m->options.intercept && j == dim - 1 ? m->curvature : 0);
        for (size_t c = 0; curvature > 0 && c < m->options.classes; c++) out[c * dim + j] += common[j] / curvature;
    }
}

void skald_coupled_solve(skald_metric *m, const double *g, double *out) {
    const size_t n = m->entries, dim = m->options.dim;
    double *const r = m->coupled.r, *const z = r + n, *const d = z + n, *const q = d + n;
    double *const common = m->scratch + n;
    memcpy(r, g, n * sizeof *r);
    take_common(m, r, common);
    memset(out, 0, n * sizeof *out);
    preconditioned(m, r, z);
    memcpy(d, z, n * sizeof *d);
    double rz = skald_vector_dot(n, r, z);
    const double enough = TOLERANCE * rz;
    for (int k = 0; k < MOST_PRODUCTS && rz > enough; k++) {
        product(m, d, q);
        for (size_t j = 0; j < n; j++) q[j] += m->ridge[j % dim] * d[j];
        const double step = rz / skald_vector_dot(n, d, q);
        skald_vector_add(n, step, d, out);
        skald_vector_add(n, -step, q, r);
        preconditioned(m, r, z);
        const double next = skald_vector_dot(n, r, z), keep_of_it = next / rz;
        for (size_t j = 0; j < n; j++) d[j] = z[j] + keep_of_it * d[j];
        rz = next;
    }
    add_common(m, common, out);
}
