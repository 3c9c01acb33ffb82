/* The proximal step of l1 in the metric: coordinate descent on the columns that matter, and Newton steps on those that
 * are not 0 (feature-sign search: Lee, Battle, Raina, Ng 2006), without which correlated columns take for ever. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "curvature/room.h"
#include "curvature/state.h"
#include "curvature/vector.h"
#include "skald/objective.h"

enum {
    MOST_SWEEPS = 200,
    NEWTON_EVERY = 4,
    HALVINGS = 8,
    SWEEPS_OF_COLUMNS = 5,
    SQUARE_COLUMNS = 4096,
    ROW_BLOCK = 128
};

typedef struct problem {
    skald_metric *m;
    const double *c, *g;
    double l1, enough; /* violation that is let be */
    double *w, *q;     /* entries: the point, the smooth part's gradient there */
    double *t;         /* entries and m: temporary; Woodbury: sqrt(h) o A (w - c), m */
    uint32_t active;   /* columns in m->active.index */
    double *u, *b, *e; /* active: their w, q, and a direction */
    uint32_t sweeps;
} problem;

void skald_active_free(skald_active *a) {
    free(a->index);
    free(a->support);
    free(a->vectors);
    free(a->square);
    skald_factor_free(&a->newton);
}

static bool penalised(const skald_metric *m, size_t j) {
    return !m->options.intercept || j % m->options.dim != m->options.dim - 1;
}

/* q, and for Woodbury t, at w. */
static void gradient(problem *p) {
    skald_metric *m = p->m;
    const size_t n = m->entries;
    const double weight = 1 / m->facts.damping;
    double *const moved = m->scratch;
    for (size_t j = 0; j < n; j++) moved[j] = p->w[j] - p->c[j];
    if (m->facts.kind == SKALD_METRIC_CHOLESKY)
        m->blas->dsymv(SKALD_BLAS_ROWS, SKALD_BLAS_LOWER, (int)n, weight, m->factor.a, (int)m->factor.lda, moved, 1, 0,
                       p->q, 1);
    else {
        skald_columns_times(&m->sample, moved, p->t);
        skald_columns_transposed(&m->sample, p->t, p->q);
        for (size_t j = 0; j < n; j++) p->q[j] = weight * (p->q[j] + m->ridge[j] * moved[j]);
    }
    for (size_t j = 0; j < n; j++) p->q[j] += p->g[j];
}

/* Chooses the columns that matter; the worst violation of any. */
static double choose(problem *p) {
    skald_active *a = &p->m->active;
    double worst = 0;
    p->active = 0;
    for (size_t j = 0; j < p->m->entries; j++) {
        const double l1 = penalised(p->m, j) ? p->l1 : 0, w = p->w[j], q = p->q[j];
        const double violation = w != 0 ? fabs(q + (w > 0 ? l1 : -l1)) : fmax(fabs(q) - l1, 0);
        worst = fmax(worst, violation);
        if (w != 0 || violation > 0 || l1 == 0) a->index[p->active++] = (uint32_t)j;
    }
    return worst;
}

/* ---- few columns: their part of H -------------------------------------------------------------------- */

static void square_exact(problem *p) {
    const skald_metric *m = p->m;
    const skald_active *a = &m->active;
    for (size_t j = 0; j < p->active; j++) {
        const double *row = m->factor.a + a->index[j] * m->factor.lda;
        for (size_t k = 0; k <= j; k++) a->square[j * p->active + k] = row[a->index[k]] / m->facts.damping;
    }
}

static void square_sparse(problem *p) {
    const skald_metric *m = p->m;
    const skald_columns *s = &m->sample;
    const skald_active *a = &m->active;
    double *const column = m->scratch;
    memset(column, 0, s->m * sizeof *column);
    for (size_t j = 0; j < p->active; j++) {
        const uint64_t first = s->start[a->index[j]], end = s->start[a->index[j] + 1];
        for (uint64_t e = first; e < end; e++)
            column[s->row[e]] = s->root[s->row[e]] * s->root[s->row[e]] * (double)s->value[e];
        for (size_t k = 0; k <= j; k++)
            a->square[j * p->active + k] = skald_columns_dot(s, a->index[k], column) / m->facts.damping;
        for (uint64_t e = first; e < end; e++) column[s->row[e]] = 0;
    }
}

static skald_status square_dense(problem *p) {
    skald_metric *m = p->m;
    const skald_columns *s = &m->sample;
    const skald_active *a = &m->active;
    skald_gram *g = &m->gram;
    const size_t n = p->active;
    TRY(skald_room((void **)&g->block, &g->block_room, ROW_BLOCK * n, sizeof *g->block));
    memset(a->square, 0, n * n * sizeof *a->square);
    for (size_t i = 0; i < s->m; i += ROW_BLOCK) {
        const size_t count = skald_min_size(ROW_BLOCK, s->m - i);
        for (size_t j = 0; j < n; j++)
            for (size_t k = 0; k < count; k++)
                g->block[j * count + k] = s->root[i + k] * (double)s->value[a->index[j] * s->m + i + k];
        m->blas->dsyrk(SKALD_BLAS_ROWS, SKALD_BLAS_LOWER, SKALD_BLAS_PLAIN, (int)n, (int)count, 1 / m->facts.damping,
                       g->block, (int)count, 1, a->square, (int)n);
    }
    return SKALD_OK;
}

static skald_status make_square(problem *p) {
    skald_metric *m = p->m;
    skald_active *a = &m->active;
    const size_t n = p->active;
    TRY(skald_room((void **)&a->square, &a->square_room, n * n, sizeof *a->square));
    if (m->facts.kind == SKALD_METRIC_CHOLESKY)
        square_exact(p);
    else {
        if (m->sample.dense)
            TRY(square_dense(p));
        else
            square_sparse(p);
        for (size_t j = 0; j < n; j++) a->square[j * n + j] += m->ridge[a->index[j]] / m->facts.damping;
    }
    for (size_t j = 0; j < n; j++)
        for (size_t k = 0; k < j; k++) a->square[k * n + j] = a->square[j * n + k];
    return SKALD_OK;
}

/* One sweep over them; the worst violation met. */
static double sweep_square(problem *p) {
    const skald_active *a = &p->m->active;
    const size_t n = p->active;
    double worst = 0;
    for (size_t k = 0; k < n; k++) {
        const double *row = a->square + k * n;
        if (!(row[k] > 0)) continue;
        const double l1 = penalised(p->m, a->index[k]) ? p->l1 : 0;
        const double to = skald_soft(p->u[k] * row[k] - p->b[k], l1) / row[k], moved = to - p->u[k];
        if (moved == 0) continue;
        p->u[k] = to;
        skald_vector_add(n, moved, row, p->b);
        worst = fmax(worst, fabs(moved) * row[k]);
    }
    return worst;
}

/* change = square e; by how much the model falls if u moves by e (< 0). */
static double fall_of(problem *p, double *change) {
    const skald_active *a = &p->m->active;
    const size_t n = p->active;
    double fall = 0;
    memset(change, 0, n * sizeof *change);
    for (size_t k = 0; k < n; k++)
        if (p->e[k] != 0) skald_vector_add(n, p->e[k], a->square + k * n, change);
    for (size_t k = 0; k < n; k++) {
        const double l1 = penalised(p->m, a->index[k]) ? p->l1 : 0, to = p->u[k] + p->e[k];
        fall += p->e[k] * (p->b[k] + 0.5 * change[k]) + l1 * (fabs(to) - fabs(p->u[k]));
    }
    return fall;
}

/* The sign that column k has, or would get by moving from 0; 0: it stays. */
static int sign_of(const problem *p, size_t k) {
    if (p->u[k] != 0) return p->u[k] > 0 ? 1 : -1;
    return p->b[k] > p->l1 ? -1 : p->b[k] < -p->l1 ? 1 : 0;
}

/* d = where the model is least for the `count` columns of the support with slopes b, as if signs were kept: the change.
 */
static skald_status solve_support(problem *p, size_t count, const double *b, double *d) {
    skald_metric *m = p->m;
    skald_active *a = &m->active;
    TRY(skald_factor_reserve(&a->newton, count));
    for (size_t j = 0; j < count; j++) {
        const size_t at = a->support[j];
        const double *row = a->square + at * p->active;
        for (size_t k = 0; k <= j; k++) a->newton.a[j * a->newton.lda + k] = row[a->support[k]];
        d[j] = -(b[at] + (penalised(m, a->index[at]) ? sign_of(p, at) * p->l1 : 0));
    }
    TRY(skald_factor_make(&a->newton, m->blas));
    skald_factor_solve(&a->newton, m->blas, d);
    return SKALD_OK;
}

static bool take(problem *p) {
    double *const change = p->m->scratch;
    if (!(fall_of(p, change) < 0)) return false;
    for (size_t k = 0; k < p->active; k++) {
        p->u[k] += p->e[k];
        p->b[k] += change[k];
    }
    return true;
}

/* All columns that are not 0 or want to move go to where the model is least; those that would end on the other side are
 * held at 0, and the rest is solved again, until none does. *took: the model is less there, so they went. */
static skald_status jump(problem *p, bool *took) {
    skald_metric *m = p->m;
    skald_active *a = &m->active;
    double *const b = m->scratch + m->entries, *const d = b + m->entries;
    size_t count = 0, before = SIZE_MAX;
    for (size_t k = 0; k < p->active; k++) {
        p->e[k] = 0;
        b[k] = p->b[k];
        if (!penalised(m, a->index[k]) || sign_of(p, k) != 0) a->support[count++] = (uint32_t)k;
    }
    while (count > 0 && count < before) {
        TRY(solve_support(p, count, b, d));
        before = count;
        count = 0;
        for (size_t j = 0; j < before; j++) {
            const size_t at = a->support[j];
            p->e[at] = d[j];
            if (penalised(m, a->index[at]) && sign_of(p, at) * (p->u[at] + d[j]) <= 0) {
                p->e[at] = -p->u[at];
                skald_vector_add(p->active, -p->u[at], a->square + at * p->active, b);
            } else
                a->support[count++] = (uint32_t)at;
        }
    }
    *took = take(p);
    return SKALD_OK;
}

/* The columns that are not 0 go towards where the model is least, until the first of them is 0: it falls on the way. */
static skald_status walk(problem *p) {
    skald_metric *m = p->m;
    skald_active *a = &m->active;
    double *const d = m->scratch + m->entries, first = 1;
    size_t count = 0;
    for (size_t k = 0; k < p->active; k++)
        if (p->u[k] != 0 || !penalised(m, a->index[k])) a->support[count++] = (uint32_t)k;
    if (count == 0) return SKALD_OK;
    TRY(solve_support(p, count, p->b, d));
    for (size_t j = 0; j < count; j++) {
        const double u = p->u[a->support[j]];
        if (penalised(m, a->index[a->support[j]]) && u * (u + d[j]) <= 0) first = fmin(first, -u / d[j]);
    }
    memset(p->e, 0, p->active * sizeof *p->e);
    for (size_t j = 0; j < count; j++) {
        const double u = p->u[a->support[j]];
        const bool ends = penalised(m, a->index[a->support[j]]) && u * (u + d[j]) <= 0 && -u / d[j] <= first;
        p->e[a->support[j]] = ends ? -u : first * d[j];
    }
    take(p);
    return SKALD_OK;
}

static skald_status solve_square(problem *p) {
    const skald_active *a = &p->m->active;
    TRY(make_square(p));
    for (size_t k = 0; k < p->active; k++) {
        p->u[k] = p->w[a->index[k]];
        p->b[k] = p->q[a->index[k]];
    }
    for (uint32_t k = 1; p->sweeps < MOST_SWEEPS; k++) {
        p->sweeps++;
        if (sweep_square(p) <= 0.5 * p->enough) break;
        if (k % NEWTON_EVERY != 0) continue;
        bool took;
        TRY(jump(p, &took));
        if (!took) TRY(walk(p));
    }
    for (size_t k = 0; k < p->active; k++) p->w[a->index[k]] = p->u[k];
    return SKALD_OK;
}

/* ---- many columns: the sample's own ------------------------------------------------------------------ */

static double column_square(const skald_columns *s, size_t j) {
    double sum = 0;
    const size_t count = s->dense ? s->m : s->start[j + 1] - s->start[j];
    const size_t first = s->dense ? j * s->m : s->start[j];
    for (size_t k = 0; k < count; k++) {
        const double x = s->root[s->dense ? k : s->row[first + k]] * (double)s->value[first + k];
        sum += x * x;
    }
    return sum;
}

/* t += by h o column j */
static void add_column(const skald_columns *s, size_t j, double by, double *t) {
    const size_t count = s->dense ? s->m : s->start[j + 1] - s->start[j];
    const size_t first = s->dense ? j * s->m : s->start[j];
    for (size_t k = 0; k < count; k++) {
        const size_t row = s->dense ? k : s->row[first + k];
        t[row] += by * s->root[row] * s->root[row] * (double)s->value[first + k];
    }
}

static void solve_columns(problem *p) {
    const skald_metric *m = p->m;
    const skald_active *a = &m->active;
    const double weight = 1 / m->facts.damping;
    for (size_t k = 0; k < p->active; k++)
        p->b[k] = weight * (column_square(&m->sample, a->index[k]) + m->ridge[a->index[k]]);
    for (int sweep = 0; sweep < SWEEPS_OF_COLUMNS && p->sweeps < MOST_SWEEPS; sweep++) {
        double worst = 0;
        p->sweeps++;
        for (size_t k = 0; k < p->active; k++) {
            const size_t j = a->index[k];
            const double l1 = penalised(m, j) ? p->l1 : 0, bend = p->b[k];
            const double q =
                p->g[j] + weight * (skald_columns_dot(&m->sample, j, p->t) + m->ridge[j] * (p->w[j] - p->c[j]));
            const double to = skald_soft(p->w[j] * bend - q, l1) / bend, moved = to - p->w[j];
            if (moved == 0) continue;
            p->w[j] = to;
            add_column(&m->sample, j, moved, p->t);
            worst = fmax(worst, fabs(moved) * bend);
        }
        if (worst <= 0.5 * p->enough) return;
    }
}

/* ------------------------------------------------------------------------------------------------------- */

static skald_status reserve(problem *p) {
    skald_metric *m = p->m;
    skald_active *a = &m->active;
    const size_t n = m->entries, rows = m->facts.kind == SKALD_METRIC_WOODBURY ? m->sample.m : 0;
    TRY(skald_room((void **)&a->index, &a->index_room, n, sizeof *a->index));
    TRY(skald_room((void **)&a->support, &a->support_room, n, sizeof *a->support));
    TRY(skald_room((void **)&a->vectors, &a->vectors_room, 4 * n + rows, sizeof *a->vectors));
    p->q = a->vectors;
    p->u = p->q + n;
    p->b = p->u + n;
    p->e = p->b + n;
    p->t = p->e + n;
    return SKALD_OK;
}

skald_status skald_metric_proximal(skald_metric *m, const double *c, const double *g, double l1, double tolerance,
                                   double *w, uint32_t *sweeps) {
    const skald_metric_kind kind = m->facts.kind;
    if (kind == SKALD_METRIC_PAIRS) return skald_fail(SKALD_EINVAL, "a proximal step before anything was measured");
    if (kind == SKALD_METRIC_CG)
        return skald_fail(SKALD_EUNSUPPORTED, "l1 with softmax of %zu numbers: no proximal step", m->entries);
    problem p = {.m = m, .c = c, .g = g, .l1 = l1, .enough = tolerance * l1, .w = w};
    if (l1 > 0) {
        const size_t most = kind == SKALD_METRIC_CHOLESKY ? m->entries : SQUARE_COLUMNS;
        TRY(reserve(&p));
        for (gradient(&p); choose(&p) > p.enough && p.sweeps < MOST_SWEEPS; gradient(&p)) {
            if (p.active <= most)
                TRY(solve_square(&p));
            else
                solve_columns(&p);
        }
    } else {
        skald_metric_base(m, g, w);
        for (size_t j = 0; j < m->entries; j++) w[j] = c[j] - m->facts.damping * w[j];
    }
    memset(w + m->entries, 0, (m->length - m->entries) * sizeof *w);
    if (sweeps) *sweeps = p.sweeps;
    return SKALD_OK;
}
