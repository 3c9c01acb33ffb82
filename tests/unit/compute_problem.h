/* Problems for the conformance suite of the compute port, and what they come to by plain loops in double. */
#ifndef COMPUTE_PROBLEM_H
#define COMPUTE_PROBLEM_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "skald/compute.h"
#include "skald/vectors.h"

typedef struct compute_suite {
    skald_status (*open)(const void *user, const skald_objective *objective, uint32_t dim, skald_compute **out);
    const void *user;
    double tolerance; /* of sums over rows, relative to the sizes of their terms */
    /* What f32 dots cost; 0 for a backend whose dots are in double. */
    double dots; /* error of a margin, relative to the root of the sum of its squared terms */
    double
        loose; /* of everything a margin's error goes into, beside the sums over rows: relative, or absolute below 1 */
    bool slow; /* emulated, or under a sanitizer: leave many combinations out */
    bool dense_only; /* operations and local steps: the backend has sparse rows in one way, tested elsewhere */
    enum { VALUES_ANY, VALUES_BF16, VALUES_BYTES } values; /* of dense rows: what the backend's storage holds exactly */
} compute_suite;

/* ---- problems ------------------------------------------------------------------------------------- */

typedef struct shape {
    skald_layout layout;
    size_t n;
    uint32_t dim;
    bool weighted;
    double scale; /* of the values */
    uint64_t seed;
    size_t distinct; /* rows that differ: row i has the entries of row i % distinct, but its own y and s. 0: all do */
} shape;

/* A shard on the backend, and the same rows as doubles. */
typedef struct problem {
    const compute_suite *suite;
    skald_compute *c;
    skald_shard *shard;
    skald_objective o;
    size_t n, distinct;
    uint32_t dim;
    double *x, *y, *s; /* distinct x dim, n, n */
    double *alpha;     /* n x classes: history as the reference has it */
    double slack;      /* error of the margins at hand: see take_slack */
} problem;

/* v as the storage under test holds it exactly. */
static inline float representable(const compute_suite *suite, skald_layout layout, float v) {
    if (layout != SKALD_DENSE || suite->values == VALUES_ANY) return v;
    if (suite->values == VALUES_BYTES) return fminf(floorf(fabsf(v) * 2), 5);
    int exponent;
    const float part = frexpf(v, &exponent);
    return ldexpf(rintf(part * 256), exponent - 8); /* to nearest, ties to even */
}

static inline size_t distinct_rows(const shape *sh) {
    return sh->distinct && sh->distinct < sh->n ? sh->distinct : sh->n;
}

static inline skald_rows make_rows(const compute_suite *suite, const shape *sh, const skald_objective *o) {
    const uint64_t key = sh->seed;
    const size_t n = sh->n, dim = sh->dim, features = dim - o->intercept, distinct = distinct_rows(sh);
    skald_rows r = {.layout = sh->layout, .n = n, .dim = sh->dim};
    const double density = sh->layout == SKALD_DENSE ? 1 : features < 20 ? 0.6 : 10.0 / (double)features;
    float *x = skald_zalloc(distinct * dim, sizeof *x);
    size_t *entries = skald_zalloc(distinct, sizeof *entries), most = 0;
    r.y = skald_alloc(n, sizeof *r.y);
    r.s = skald_alloc(n, sizeof *r.s);
    for (size_t i = 0; i < distinct; i++) {
        for (size_t j = 0; j < features; j++)
            if (skald_uniform(key + 1, i * dim + j) < density)
                x[i * dim + j] = representable(suite, sh->layout, (float)(sh->scale * skald_normal(key, i * dim + j)));
        if (o->intercept) x[i * dim + dim - 1] = 1;
        for (size_t j = 0; j < dim; j++) entries[i] += x[i * dim + j] != 0;
    }
    for (size_t i = 0; i < n; i++) {
        double y = skald_normal(key + 2, i);
        r.y[i] = skald_loss_is_binary(o->loss) ? (y > 0 ? 1 : -1) : y;
        if (o->loss == SKALD_SOFTMAX) r.y[i] = (double)(skald_random(key + 2, i) % o->classes);
        r.s[i] = sh->weighted ? 0.25 + 1.5 * skald_uniform(key + 3, i) : 1;
        most += entries[i % distinct];
    }
    if (sh->layout == SKALD_DENSE) {
        r.stride = (dim + 15) / 16 * 16;
        r.x = skald_zalloc(n * r.stride, sizeof *r.x);
        for (size_t i = 0; i < n; i++) memcpy(r.x + i * r.stride, x + i % distinct * dim, dim * sizeof *x);
    } else {
        r.ptr = skald_zalloc(n + 1, sizeof *r.ptr);
        r.idx = skald_alloc(most, sizeof *r.idx);
        r.val = skald_alloc(most, sizeof *r.val);
        for (size_t i = 0, k = 0; i < n; i++) {
            const float *row = x + i % distinct * dim;
            for (size_t j = 0; j < dim; j++)
                if (row[j] != 0) {
                    r.idx[k] = (uint32_t)j;
                    r.val[k++] = row[j];
                }
            r.ptr[i + 1] = k;
        }
    }
    free(entries);
    free(x);
    return r;
}

static inline problem problem_open(const compute_suite *suite, const shape *sh, const skald_objective *o) {
    problem p = {.suite = suite, .o = *o, .n = sh->n, .distinct = distinct_rows(sh), .dim = sh->dim};
    skald_rows r = make_rows(suite, sh, o);
    p.x = skald_zalloc(p.distinct * p.dim, sizeof *p.x);
    p.y = skald_zalloc(p.n, sizeof *p.y);
    p.s = skald_zalloc(p.n, sizeof *p.s);
    p.alpha = skald_zalloc(p.n * skald_objective_classes(o), sizeof *p.alpha);
    for (size_t i = 0; i < p.n; i++) {
        p.y[i] = r.y[i];
        p.s[i] = r.s[i];
    }
    for (size_t i = 0; i < p.distinct; i++) {
        if (r.layout == SKALD_DENSE)
            for (size_t j = 0; j < p.dim; j++) p.x[i * p.dim + j] = (double)r.x[i * r.stride + j];
        else
            for (uint64_t k = r.ptr[i]; k < r.ptr[i + 1]; k++) p.x[i * p.dim + r.idx[k]] = (double)r.val[k];
    }
    if (suite->open(suite->user, o, p.dim, &p.c) != SKALD_OK || p.c->ops->load(p.c, &r, &p.shard) != SKALD_OK)
        fail_msg("%s", skald_error());
    assert_null(r.y); /* taken over */
    return p;
}

static inline void problem_close(problem *p) {
    p->c->ops->unload(p->c, p->shard);
    p->c->ops->destroy(p->c);
    free(p->x);
    free(p->y);
    free(p->s);
    free(p->alpha);
}

static inline double *vector(const problem *p, uint64_t key, double scale) {
    const size_t length = (size_t)p->dim * skald_objective_classes(&p->o);
    double *v = skald_zalloc(length, sizeof *v);
    for (size_t j = 0; j < length; j++) v[j] = scale * skald_normal(key, j);
    return v;
}

/* ---- the reference -------------------------------------------------------------------------------- */

static inline const double *x_of(const problem *p, size_t i) {
    return p->x + i % p->distinct * p->dim;
}
static inline double ref_margin(const problem *p, size_t i, const double *w) {
    const double *x = x_of(p, i);
    double z = 0;
    for (size_t j = 0; j < p->dim; j++) z += x[j] * w[j];
    return z;
}
/* Margins of every row at w: row i's of class c at i * classes + c. */
static inline double *ref_margins(const problem *p, const double *w) {
    const size_t classes = skald_objective_classes(&p->o);
    double *z = skald_alloc(p->n * classes, sizeof *z);
    for (size_t i = 0; i < p->distinct; i++)
        for (size_t c = 0; c < classes; c++) z[i * classes + c] = ref_margin(p, i, w + c * p->dim);
    for (size_t k = p->distinct * classes; k < p->n * classes; k++) z[k] = z[k - p->distinct * classes];
    return z;
}
static inline double ref_first(const problem *p, size_t i, double z) {
    return skald_loss_derivative(p->o.loss, p->o.huber_delta, z, p->y[i]);
}
static inline double ref_second(const problem *p, size_t i, double z) {
    return skald_loss_second(p->o.loss, p->o.huber_delta, z, p->y[i]);
}
static inline double ref_value(const problem *p, size_t i, double z) {
    return skald_loss_value(p->o.loss, p->o.huber_delta, z, p->y[i]);
}

/* How far margins of backends with f32 dots may be off, at w and at u (may be NULL). */
static inline void take_slack(problem *p, const double *w, const double *u) {
    double most = 0;
    for (size_t i = 0; i < p->distinct && p->suite->dots > 0; i++) {
        const double *x = x_of(p, i);
        double sum = 0;
        for (size_t j = 0; j < p->dim; j++) {
            const double a = x[j] * w[j], b = u ? x[j] * u[j] : 0;
            sum += a * a + b * b;
        }
        most = fmax(most, sum);
    }
    p->slack = p->suite->dots * sqrt(most);
}

/* Compares g with sum_k c_k x_{row k}. */
static inline void check_sum(const problem *p, const double *g, const uint32_t *rows, size_t count, const double *c) {
    const size_t dim = p->dim;
    double *by = skald_zalloc(3 * p->distinct, sizeof *by), *total = skald_zalloc(3 * dim, sizeof *total);
    double *sum = total, *size = total + dim, *slack = total + 2 * dim;
    for (size_t k = 0; k < count; k++) {
        const size_t i = rows ? rows[k] : k;
        double *b = by + 3 * (i % p->distinct);
        b[0] += c[k];
        b[1] += 1 + fabs(c[k]); /* 1: c may be a difference of derivatives of that size */
        b[2] += p->slack * p->s[i];
    }
    for (size_t i = 0; i < p->distinct; i++) {
        const double *x = x_of(p, i), *b = by + 3 * i;
        if (b[1] == 0) continue;
        for (size_t j = 0; j < dim; j++) {
            sum[j] += b[0] * x[j];
            size[j] += b[1] * fabs(x[j]);
            slack[j] += b[2] * fabs(x[j]);
        }
    }
    for (size_t j = 0; j < dim; j++)
        if (!(fabs(g[j] - sum[j]) <= p->suite->tolerance * (size[j] + 1e-300) + slack[j]))
            fail_msg("column %zu of %u: %.17g, should be %.17g", j, p->dim, g[j], sum[j]);
    free(by);
    free(total);
}

/* Where a margin's error goes in. */
static inline double loose(const problem *p, double tolerance) {
    return fmax(tolerance, p->suite->loose);
}

static inline void check_near(double got, double want, double tolerance, const char *what) {
    if (!(fabs(got - want) <= tolerance * (1 + fabs(want)))) fail_msg("%s: %.17g, should be %.17g", what, got, want);
}

static inline skald_sums ref_sums(const problem *p, const double *w, double delta) {
    skald_sums sums = {0};
    double *margins = ref_margins(p, w);
    for (size_t i = 0; i < p->n; i++) {
        const double z = margins[i] + delta;
        sums.loss += p->s[i] * ref_value(p, i, z);
        sums.dphi += p->s[i] * ref_first(p, i, z);
        sums.d2phi += p->s[i] * skald_loss_second(p->o.loss, p->o.huber_delta, z, p->y[i]);
        sums.correct += skald_loss_correct(p->o.loss, z, p->y[i]);
        sums.rows += 1;
    }
    free(margins);
    return sums;
}

static inline void check_sums(const problem *p, const skald_sums *got, const skald_sums *want) {
    check_near(got->loss, want->loss, loose(p, 1e-11), "loss");
    check_near(got->dphi, want->dphi, loose(p, 1e-10), "dphi");
    check_near(got->d2phi, want->d2phi, loose(p, 1e-11), "d2phi");
    check_near(got->correct, want->correct, 0, "correct");
    check_near(got->rows, want->rows, 0, "rows");
}

/* The local steps of compute.h, every column in every step. */
static inline void ref_local(problem *p, const uint32_t *rows, size_t count, const skald_local *l, const double *w0,
                             const double *abar0, double *dw, double *g, skald_sums *sums) {
    const size_t dim = p->dim, m = p->distinct;
    double *w = skald_zalloc(dim, sizeof *w), *abar = skald_zalloc(dim, sizeof *abar);
    double *d = skald_zalloc(dim, sizeof *d), *taken = skald_zalloc(dim, sizeof *taken);
    double *z0 = ref_margins(p, w0), *norm2 = skald_zalloc(m, sizeof *norm2);
    struct {
        double z, c, h; /* of a row's entries in this step: the margin, sums of coefficients */
        bool met;
    } *of = skald_zalloc(m, sizeof *of);
    memcpy(w, w0, dim * sizeof *w);
    if (l->saga) memcpy(abar, abar0, dim * sizeof *abar);
    memset(g, 0, dim * sizeof *g);
    for (size_t i = 0; i < m; i++) norm2[i] = skald_objective_norm2_more(&p->o);
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < dim; j++) norm2[i] += x_of(p, i)[j] * x_of(p, i)[j];
    for (size_t k = 0; k < count; k += l->step_rows) {
        size_t b = skald_min_size(l->step_rows, count - k);
        memset(of, 0, m * sizeof *of);
        for (size_t r = 0; r < b; r++) {
            const size_t i = rows ? rows[k + r] : k + r, q = i % m;
            if (!of[q].met) of[q].z = ref_margin(p, i, w);
            of[q].met = true;
            const double z = of[q].z, fresh = ref_first(p, i, z);
            const double own = p->s[i] * (double)(float)norm2[q], e = fresh - (l->saga ? p->alpha[i] : 0);
            const double by = l->eta / (double)b * own * e;
            const double slope = own * (fabs(by) > 0.25 ? (fresh - ref_first(p, i, z - by)) / by : ref_second(p, i, z));
            of[q].c += p->s[i] * e / (1 + l->eta / (double)b * slope);
            sums->k += slope;
            sums->k2 += slope * slope;
            if (l->saga) {
                const double start = (double)(float)ref_first(p, i, z0[i]);
                of[q].h += p->s[i] * (start - p->alpha[i]);
                p->alpha[i] = start;
            }
        }
        memset(d, 0, dim * sizeof *d);
        memset(taken, 0, dim * sizeof *taken);
        for (size_t q = 0; q < m; q++) {
            const double *x = x_of(p, q);
            if (!of[q].met) continue;
            for (size_t j = 0; j < dim; j++) {
                d[j] += of[q].c * x[j];
                taken[j] += of[q].h * x[j];
            }
        }
        for (size_t j = 0; j < dim; j++) {
            bool free_column = p->o.intercept && j == dim - 1;
            const double eta = free_column ? l->eta * skald_objective_intercept_step(&p->o) : l->eta;
            double v = w[j] - eta * (d[j] / (double)b + abar[j] + (free_column ? 0 : p->o.l2) * w[j]);
            w[j] = free_column ? v : skald_soft(v, l->eta * p->o.l1);
            if (l->saga) {
                abar[j] += taken[j] / l->n;
                g[j] += taken[j];
            }
        }
    }
    for (size_t j = 0; j < dim; j++) dw[j] = w[j] - w0[j];
    free(w);
    free(abar);
    free(d);
    free(taken);
    free(z0);
    free(norm2);
    free(of);
}

#endif
