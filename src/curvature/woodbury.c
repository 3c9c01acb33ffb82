/* Many columns, few rows: H^-1 = R^-1 - R^-1 A' (I + A R^-1 A')^-1 A R^-1 with A = sqrt(h) o X. Rows without curvature
 * are not there, so 1/h never is. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "curvature/room.h"
#include "curvature/state.h"
#include "curvature/vector.h"

enum { MOST_ROWS = 8192, COLUMN_BLOCK = 64, MOST_REFINEMENTS = 10 };
#define REFINED 1e-12     /* of a step's length */
#define LEAST_RIDGE 1e-12 /* of the largest diagonal entry: below, all digits of the difference above are lost */

void skald_woodbury_free(skald_metric *m) {
    free(m->sample.start);
    free(m->sample.row);
    free(m->sample.value);
    free(m->sample.root);
    free(m->sample.change);
}

/* ---- the sample by columns --------------------------------------------------------------------------- */

static skald_status turn_sparse(skald_columns *s, const skald_rows *rows, const double *h) {
    TRY(skald_room((void **)&s->start, &s->start_room, (size_t)s->dim + 2, sizeof *s->start));
    memset(s->start, 0, (s->dim + 2) * sizeof *s->start);
    uint64_t *const next = s->start + 1; /* is start[j + 1] once column j is full */
    uint64_t entries = 0;
    for (size_t i = 0; i < rows->n; i++)
        for (uint64_t e = rows->ptr[i]; h[i] > 0 && e < rows->ptr[i + 1]; e++, entries++) next[rows->idx[e] + 1]++;
    TRY(skald_room((void **)&s->row, &s->row_room, entries, sizeof *s->row));
    TRY(skald_room((void **)&s->value, &s->value_room, entries, sizeof *s->value));
    for (size_t j = 1; j < s->dim; j++) next[j] += next[j - 1];
    uint32_t row = 0;
    for (size_t i = 0; i < rows->n; i++) {
        if (!(h[i] > 0)) continue;
        for (uint64_t e = rows->ptr[i]; e < rows->ptr[i + 1]; e++) {
            const uint64_t at = next[rows->idx[e]]++;
            s->row[at] = row;
            s->value[at] = rows->val[e];
        }
        row++;
    }
    return SKALD_OK;
}

static skald_status turn_dense(skald_columns *s, const skald_rows *rows, const double *h) {
    TRY(skald_room((void **)&s->value, &s->value_room, s->m * s->dim, sizeof *s->value));
    size_t row = 0;
    for (size_t i = 0; i < rows->n; i++) {
        if (!(h[i] > 0)) continue;
        for (size_t j = 0; j < s->dim; j++) s->value[j * s->m + row] = rows->x[i * rows->stride + j];
        row++;
    }
    return SKALD_OK;
}

static skald_status turn(skald_columns *s, size_t m, const skald_rows *rows, const double *h) {
    s->m = m;
    s->dim = rows->dim;
    s->dense = rows->layout == SKALD_DENSE;
    TRY(skald_room((void **)&s->root, &s->root_room, m, sizeof *s->root));
    size_t row = 0;
    for (size_t i = 0; i < rows->n; i++)
        if (h[i] > 0) s->root[row++] = sqrt(h[i]);
    return s->dense ? turn_dense(s, rows, h) : turn_sparse(s, rows, h);
}

void skald_columns_times(const skald_columns *s, const double *v, double *out) {
    memset(out, 0, s->m * sizeof *out);
    for (size_t j = 0; j < s->dim; j++) {
        if (v[j] == 0) continue;
        if (s->dense)
            for (size_t i = 0; i < s->m; i++) out[i] += v[j] * (double)s->value[j * s->m + i];
        else
            for (uint64_t e = s->start[j]; e < s->start[j + 1]; e++) out[s->row[e]] += v[j] * (double)s->value[e];
    }
    for (size_t i = 0; i < s->m; i++) out[i] *= s->root[i];
}

/* t: sqrt(h) is in it. */
double skald_columns_dot(const skald_columns *s, size_t j, const double *t) {
    double lane[4] = {0}, rest = 0;
    if (s->dense) {
        const float *x = s->value + j * s->m;
        size_t i = 0;
        for (; i + 4 <= s->m; i += 4)
            for (size_t k = 0; k < 4; k++) lane[k] += (double)x[i + k] * t[i + k];
        for (; i < s->m; i++) rest += (double)x[i] * t[i];
    } else
        for (uint64_t e = s->start[j]; e < s->start[j + 1]; e++) rest += (double)s->value[e] * t[s->row[e]];
    return (lane[0] + lane[2]) + (lane[1] + lane[3]) + rest;
}

void skald_columns_transposed(const skald_columns *s, double *t, double *out) {
    for (size_t i = 0; i < s->m; i++) t[i] *= s->root[i];
    for (size_t j = 0; j < s->dim; j++) out[j] = skald_columns_dot(s, j, t);
}

/* ---- I + A R^-1 A' ----------------------------------------------------------------------------------- */

/* Row by row: its columns' other rows, from the first to itself, into a sum that stays in the cache. */
static void outer_sparse(skald_metric *m, const skald_measure *measure) {
    const skald_columns *s = &m->sample;
    const skald_rows *rows = measure->rows;
    size_t row = 0;
    for (size_t i = 0; i < rows->n; i++) {
        if (!(measure->h[i] > 0)) continue;
        double *const sums = m->factor.a + row * m->factor.lda;
        for (uint64_t e = rows->ptr[i]; e < rows->ptr[i + 1]; e++) {
            const uint32_t j = rows->idx[e];
            const double x = (double)rows->val[e] / m->ridge[j];
            for (uint64_t f = s->start[j]; s->row[f] < row; f++) sums[s->row[f]] += x * (double)s->value[f];
            sums[row] += x * (double)rows->val[e];
        }
        for (size_t k = 0; k <= row; k++) sums[k] *= s->root[row] * s->root[k];
        row++;
    }
}

static skald_status outer_dense(skald_metric *m) {
    const skald_columns *s = &m->sample;
    skald_gram *g = &m->gram;
    TRY(skald_room((void **)&g->block, &g->block_room, COLUMN_BLOCK * s->m, sizeof *g->block));
    for (size_t j = 0; j < s->dim; j += COLUMN_BLOCK) {
        const size_t count = skald_min_size(COLUMN_BLOCK, s->dim - j);
        for (size_t k = 0; k < count; k++) {
            const double scale = 1 / sqrt(m->ridge[j + k]);
            for (size_t i = 0; i < s->m; i++)
                g->block[k * s->m + i] = scale * s->root[i] * (double)s->value[(j + k) * s->m + i];
        }
        m->blas->dsyrk(SKALD_BLAS_ROWS, SKALD_BLAS_LOWER, SKALD_BLAS_TRANSPOSED, (int)s->m, (int)count, 1, g->block,
                       (int)s->m, 1, m->factor.a, (int)m->factor.lda);
    }
    return SKALD_OK;
}

/* A A' v: what is left of the data's part of H has the same spectrum. */
static void product(void *user, const double *v, double *out) {
    skald_metric *m = user;
    const size_t rows = m->sample.m;
    double *const t = m->scratch + 3 * skald_max_size(m->entries, rows), *const u = m->gram.block;
    memcpy(t, v, rows * sizeof *t);
    skald_columns_transposed(&m->sample, t, u);
    skald_columns_times(&m->sample, u, out);
}

static skald_status ridge(skald_metric *m, const skald_measure *measure) {
    const size_t dim = m->options.dim;
    TRY(skald_room((void **)&m->gram.block, &m->gram.block_room, dim, sizeof *m->gram.block));
    if (skald_metric_wants_ridge(m, measure->whole)) TRY(skald_metric_explore(m, measure->whole, m->sample.m, product));
    double *const d = m->scratch + dim; /* the first vector is set_ridge's */
    skald_metric_squares(measure->rows, measure->h, d);
    double most = 0;
    for (size_t j = 0; j < dim; j++) {
        if (!isfinite(d[j])) return skald_fail(SKALD_ENUMERIC, "column %zu of the sample is not finite", j);
        most = fmax(most, d[j]);
    }
    skald_metric_set_ridge(m, measure, d);
    for (size_t j = 0; j < dim; j++) m->ridge[j] = fmax(m->ridge[j], LEAST_RIDGE * most);
    if (!(most > 0)) return skald_fail(SKALD_EINVAL, "the sample's rows are empty");
    return SKALD_OK;
}

skald_status skald_woodbury_measure(skald_metric *m, const skald_measure *measure) {
    const size_t rows = m->facts.rows;
    if (rows > MOST_ROWS)
        return skald_fail(SKALD_EUNSUPPORTED, "a sample of %zu rows of %u columns: the most is %d", rows,
                          m->options.dim, MOST_ROWS);
    m->refine = measure->whole;
    TRY(turn(&m->sample, rows, measure->rows, measure->h));
    if (m->refine) TRY(skald_room((void **)&m->sample.change, &m->sample.change_room, m->options.dim, sizeof(double)));
    TRY(ridge(m, measure));
    TRY(skald_factor_reserve(&m->factor, rows));
    for (size_t i = 0; i < rows; i++) memset(m->factor.a + i * m->factor.lda, 0, (i + 1) * sizeof(double));
    if (m->sample.dense)
        TRY(outer_dense(m));
    else
        outer_sparse(m, measure);
    for (size_t i = 0; i < rows; i++) m->factor.a[i * m->factor.lda + i] += 1;
    TRY(skald_factor_make(&m->factor, m->blas));
    m->facts.lift = m->factor.lift;
    if (skald_metric_damps(m, measure->whole))
        skald_metric_damp(m, (double)rows - skald_factor_trace(&m->factor, m->blas, NULL));
    return SKALD_OK;
}

static void solve_once(skald_metric *m, const double *g, double *out) {
    const size_t dim = m->options.dim;
    double *const t = m->scratch + skald_max_size(dim, m->sample.m), *const v = t + skald_max_size(dim, m->sample.m);
    for (size_t j = 0; j < dim; j++) out[j] = g[j] / m->ridge[j];
    skald_columns_times(&m->sample, out, t);
    skald_factor_solve(&m->factor, m->blas, t);
    skald_columns_transposed(&m->sample, t, v);
    for (size_t j = 0; j < dim; j++) out[j] = (g[j] - v[j]) / m->ridge[j];
}

/* g - H x */
static void residual(skald_metric *m, const double *g, const double *x, double *out) {
    const size_t dim = m->options.dim;
    double *const t = m->scratch + skald_max_size(dim, m->sample.m);
    skald_columns_times(&m->sample, x, t);
    skald_columns_transposed(&m->sample, t, out);
    for (size_t j = 0; j < dim; j++) out[j] = g[j] - out[j] - m->ridge[j] * x[j];
}

/* Where columns are large beside the ridge, the difference above loses digits, and so the step is corrected by what it
 * leaves over (iterative refinement), until that no longer helps. */
void skald_woodbury_solve(skald_metric *m, const double *g, double *out) {
    const size_t dim = m->options.dim;
    solve_once(m, g, out);
    if (!m->refine) return;
    double *const left = m->scratch + 3 * skald_max_size(dim, m->sample.m), *const change = m->sample.change;
    double last = INFINITY;
    for (uint32_t k = 0; k < MOST_REFINEMENTS; k++) {
        residual(m, g, out, left);
        solve_once(m, left, change);
        const double now = skald_vector_dot(dim, change, change);
        if (!(now <= last / 4)) return;
        skald_vector_add(dim, 1, change, out);
        if (now <= REFINED * REFINED * skald_vector_dot(dim, out, out)) return;
        last = now;
    }
}
