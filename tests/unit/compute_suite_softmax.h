/* The conformance suite of the compute port for softmax: every operation against plain loops in double. A backend that
 * has it calls compute_suite_softmax after compute_suite_run. */
#ifndef COMPUTE_SUITE_SOFTMAX_H
#define COMPUTE_SUITE_SOFTMAX_H

#include "compute_suite.h"

/* ---- the reference -------------------------------------------------------------------------------- */

enum { MOST_CLASSES = 40 };

/* Margins of row i, and dphi = softmax(z) - e_y in extended precision, so that no digit is lost to cancellation. */
static inline void class_margins(const problem *p, size_t i, const double *w, double *z) {
    for (uint32_t c = 0; c < p->o.classes; c++) z[c] = ref_margin(p, i, w + (size_t)c * p->dim);
}
static inline void class_slopes(const problem *p, size_t i, const double *z, double *dphi) {
    const uint32_t C = p->o.classes, y = (uint32_t)p->y[i];
    long double top = z[0], sum = 0, rest = 0, e[MOST_CLASSES];
    for (uint32_t c = 1; c < C; c++)
        if (z[c] > top) top = z[c];
    for (uint32_t c = 0; c < C; c++) sum += e[c] = expl(z[c] - top);
    for (uint32_t c = 0; c < C; c++) rest += c == y ? 0 : e[c];
    for (uint32_t c = 0; c < C; c++) dphi[c] = (double)(c == y ? -rest / sum : e[c] / sum);
}
static inline double class_value(const problem *p, size_t i, const double *z) {
    const uint32_t C = p->o.classes, y = (uint32_t)p->y[i];
    long double top = 0, rest = 0; /* log sum_c exp(z_c - z_y) */
    for (uint32_t c = 0; c < C; c++) top = fmaxl(top, (long double)z[c] - z[y]);
    if (top == 0) {
        for (uint32_t c = 0; c < C; c++) rest += c == y ? 0 : expl((long double)z[c] - z[y]);
        return (double)log1pl(rest);
    }
    for (uint32_t c = 0; c < C; c++) rest += expl((long double)z[c] - z[y] - top);
    return (double)(top + logl(rest));
}

/* How far any class's margins may be off: see take_slack. A slope's error is at most twice its margins'. */
static inline void take_class_slack(problem *p, const double *w, const double *u) {
    double most = 0;
    for (uint32_t c = 0; c < p->o.classes; c++) {
        take_slack(p, w + (size_t)c * p->dim, u ? u + (size_t)c * p->dim : NULL);
        most = fmax(most, p->slack);
    }
    p->slack = 2 * most;
}

/* g_c against sum_k coefficient[k][c] x_{row k}, class by class. */
static inline void check_class_sums(const problem *p, const double *g, const uint32_t *rows, size_t count,
                                    const double *coefficient) {
    const uint32_t C = p->o.classes;
    double *one = skald_zalloc(count, sizeof *one);
    for (uint32_t c = 0; c < C; c++) {
        for (size_t k = 0; k < count; k++) one[k] = coefficient[k * C + c];
        check_sum(p, g + (size_t)c * p->dim, rows, count, one);
    }
    free(one);
}

static inline void check_class_history(problem *p) {
    const size_t entries = p->n * p->o.classes;
    float *alpha = skald_zalloc(entries, sizeof *alpha);
    OK(p->c->ops->history_get(p->c, p->shard, alpha));
    for (size_t k = 0; k < entries; k++) check_near((double)alpha[k], p->alpha[k], loose(p, 2e-7), "alpha");
    free(alpha);
}

/* The local steps of compute.h, every column of every class in every step. */
static inline void ref_local_classes(problem *p, const uint32_t *rows, size_t count, const skald_local *l,
                                     const double *w0, const double *abar0, double *dw, double *g, skald_sums *sums) {
    const size_t dim = p->dim, C = p->o.classes, length = dim * C;
    double *w = skald_zalloc(length, sizeof *w), *abar = skald_zalloc(length, sizeof *abar);
    double *d = skald_zalloc(length, sizeof *d), *taken = skald_zalloc(length, sizeof *taken);
    memcpy(w, w0, length * sizeof *w);
    if (l->saga) memcpy(abar, abar0, length * sizeof *abar);
    memset(g, 0, length * sizeof *g);
    for (size_t k = 0; k < count; k += l->step_rows) {
        const size_t b = skald_min_size(l->step_rows, count - k);
        memset(d, 0, length * sizeof *d);
        memset(taken, 0, length * sizeof *taken);
        for (size_t r = 0; r < b; r++) {
            const size_t i = rows ? rows[k + r] : k + r;
            double z[MOST_CLASSES], e[MOST_CLASSES], q[MOST_CLASSES], start[MOST_CLASSES], norm2 = 0, far = 0;
            double a = 0, ae = 0, trace = 0, most = 0, kappa;
            norm2 = skald_objective_norm2_more(&p->o);
            double *alpha = p->alpha + i * C;
            for (size_t j = 0; j < dim; j++) norm2 += x_of(p, i)[j] * x_of(p, i)[j];
            class_margins(p, i, w, z);
            class_slopes(p, i, z, e);
            double prob[MOST_CLASSES];
            const double own = p->s[i] * (double)(float)norm2, t = l->eta / (double)b * own;
            for (size_t c = 0; c < C; c++) {
                prob[c] = e[c] + (c == (size_t)p->y[i]);
                if (l->saga) e[c] -= alpha[c];
                far = fmax(far, fabs(t * e[c]));
                a += prob[c] / (1 + t * prob[c]);
                ae += e[c] * prob[c] / (1 + t * prob[c]);
                trace += prob[c] * (1 - prob[c]);
                most = fmax(most, prob[c] * (1 - prob[c]));
            }
            if (l->saga) {
                class_margins(p, i, w0, q);
                sums->loss += p->s[i] * class_value(p, i, q);
                class_slopes(p, i, q, start);
            } else {
                sums->loss += p->s[i] * class_value(p, i, z);
            }
            if (far > 0.25) {
                double along = 0, size = 0;
                for (size_t c = 0; c < C; c++) q[c] = z[c] - t * e[c];
                skald_softmax((uint32_t)C, q, q);
                for (size_t c = 0; c < C; c++) along += e[c] * (prob[c] - q[c]), size += e[c] * e[c];
                kappa = along / (t * size);
                for (size_t c = 0; c < C; c++) e[c] /= 1 + t * kappa;
            } else {
                kappa = fmin(trace, 2 * most);
                for (size_t c = 0; c < C; c++) e[c] = (e[c] + t * ae / a * prob[c]) / (1 + t * prob[c]);
            }
            sums->k += own * kappa;
            sums->k2 += own * kappa * own * kappa;
            for (size_t c = 0; c < C; c++) {
                const double h = l->saga ? (double)(float)start[c] - alpha[c] : 0;
                for (size_t j = 0; j < dim; j++) {
                    d[c * dim + j] += p->s[i] * e[c] * x_of(p, i)[j];
                    taken[c * dim + j] += p->s[i] * h * x_of(p, i)[j];
                }
                if (l->saga) alpha[c] = (double)(float)start[c];
            }
        }
        for (size_t j = 0; j < length; j++) {
            const bool free_column = p->o.intercept && j % dim == dim - 1;
            const double eta = free_column ? l->eta * skald_objective_intercept_step(&p->o) : l->eta;
            const double v = w[j] - eta * (d[j] / (double)b + abar[j] + (free_column ? 0 : p->o.l2) * w[j]);
            w[j] = free_column ? v : skald_soft(v, l->eta * p->o.l1);
            if (l->saga) {
                abar[j] += taken[j] / l->n;
                g[j] += taken[j];
            }
        }
    }
    for (size_t j = 0; j < length; j++) dw[j] = w[j] - w0[j];
    free(w);
    free(abar);
    free(d);
    free(taken);
}

/* ---- operations ----------------------------------------------------------------------------------- */

static inline void check_class_passes(problem *p, const uint32_t *rows, size_t count, uint64_t key) {
    const skald_compute_ops *ops = p->c->ops;
    const skald_batch batch = {rows, count};
    const uint32_t C = p->o.classes;
    skald_sums sums;
    if (!rows) count = p->n;
    double *w = vector(p, key, 0.3), *u = vector(p, key + 1, 0.3), *g = vector(p, key + 2, 1), loss = 0;
    double *c = skald_zalloc(count * C, sizeof *c), slope[MOST_CLASSES];
    double *zw = ref_margins(p, w), *zu = ref_margins(p, u);
    take_class_slack(p, w, u);
    for (size_t k = 0; k < count; k++) {
        const size_t i = rows ? rows[k] : k;
        class_slopes(p, i, zw + i * C, slope);
        for (uint32_t q = 0; q < C; q++) c[k * C + q] = p->s[i] * slope[q];
        loss += p->s[i] * class_value(p, i, zw + i * C);
    }
    OK(ops->gradient(p->c, p->shard, &batch, w, g, &sums));
    check_class_sums(p, g, rows, count, c);
    check_near(sums.loss, loss, loose(p, 1e-11), "loss of gradient");
    check_near(sums.rows, (double)count, 0, "rows of gradient");

    for (size_t k = 0; k < count; k++) {
        const size_t i = rows ? rows[k] : k;
        class_slopes(p, i, zu + i * C, slope);
        for (uint32_t q = 0; q < C; q++) c[k * C + q] -= p->s[i] * slope[q];
    }
    OK(ops->difference(p->c, p->shard, &batch, w, u, g, &sums));
    check_class_sums(p, g, rows, count, c);
    check_near(sums.loss, loss, loose(p, 1e-11), "loss of difference");
    check_class_history(p);

    float *fresh = skald_zalloc(p->n * C, sizeof *fresh);
    OK(ops->saga(p->c, p->shard, &batch, w, g, &sums));
    OK(ops->history_get(p->c, p->shard, fresh));
    for (size_t k = 0; k < count; k++) {
        const size_t i = rows ? rows[k] : k;
        class_slopes(p, i, zw + i * C, slope);
        for (uint32_t q = 0; q < C; q++) {
            const double now = (double)fresh[i * C + q];
            check_near(now, slope[q], loose(p, 2e-7), "alpha after saga");
            c[k * C + q] = p->s[i] * (now - p->alpha[i * C + q]);
            p->alpha[i * C + q] = now;
        }
    }
    check_class_sums(p, g, rows, count, c);
    check_near(sums.loss, loss, loose(p, 1e-11), "loss of saga");
    check_class_history(p);
    free(zw);
    free(zu);
    free(fresh);
    free(w);
    free(u);
    free(g);
    free(c);
}

/* Sums at margins + delta; also the moments, when asked for. */
static inline skald_sums ref_class_sums(const problem *p, const double *w, const double *delta, double *moments) {
    const uint32_t C = p->o.classes;
    skald_sums sums = {0};
    double *margins = ref_margins(p, w);
    if (moments) memset(moments, 0, skald_objective_moments(&p->o) * sizeof *moments);
    for (size_t i = 0; i < p->n; i++) {
        double z[MOST_CLASSES], slope[MOST_CLASSES];
        for (uint32_t c = 0; c < C; c++) z[c] = margins[i * C + c] + delta[c];
        class_slopes(p, i, z, slope);
        sums.loss += p->s[i] * class_value(p, i, z);
        sums.correct += skald_softmax_class(C, z) == (uint32_t)p->y[i];
        sums.rows += 1;
        for (uint32_t c = 0, at = C; moments && c < C; c++) {
            const double pc = slope[c] + (c == (uint32_t)p->y[i]);
            moments[c] += p->s[i] * slope[c];
            for (uint32_t d = 0; d <= c; d++)
                moments[at++] += p->s[i] * pc * ((c == d) - (slope[d] + (d == (uint32_t)p->y[i])));
        }
    }
    free(margins);
    return sums;
}

static inline void check_class_objective(problem *p, uint64_t key, bool brief) {
    const skald_compute_ops *ops = p->c->ops;
    const uint32_t C = p->o.classes;
    const size_t count_moments = (size_t)skald_objective_moments(&p->o);
    double *w = vector(p, key, 0.3), *u = vector(p, key + 1, 0.2), *g = vector(p, 1, 1), *h = vector(p, 1, 1);
    double *c = skald_zalloc(p->n * C, sizeof *c), zero[MOST_CLASSES] = {0};
    const double *points[2] = {w, u};
    double *z[2] = {ref_margins(p, w), ref_margins(p, u)};
    take_class_slack(p, w, u);
    skald_sums sums[2], want[2] = {ref_class_sums(p, w, zero, NULL), ref_class_sums(p, u, zero, NULL)};
    for (uint32_t count = brief ? 2 : 1; count <= 2; count++)
        for (int with = brief ? 3 : 0; with < 4; with++) {
            double *out[2] = {with & 1 ? g : NULL, with & 2 ? h : NULL};
            OK(ops->objective(p->c, p->shard, count, points, out, with == 3, sums));
            for (uint32_t q = 0; q < count; q++) {
                check_sums(p, &sums[q], &want[q]);
                if (!out[q]) continue;
                for (size_t i = 0; i < p->n; i++) {
                    class_slopes(p, i, z[q] + i * C, c + i * C);
                    for (uint32_t k = 0; k < C; k++) c[i * C + k] *= p->s[i];
                }
                check_class_sums(p, out[q], NULL, p->n, c);
            }
        }
    double *moments[2], *moved[2], *exact = skald_zalloc(count_moments, sizeof *exact);
    for (int q = 0; q < 2; q++) {
        moments[q] = skald_alloc(count_moments, sizeof **moments);
        moved[q] = skald_alloc(C, sizeof **moved);
        for (uint32_t k = 0; k < C; k++) moved[q][k] = skald_normal(key + 2, 50 * (uint64_t)q + k);
    }
    OK(ops->shift_classes(p->c, p->shard, 2, (const double *const *)moved, moments, sums));
    for (int q = 0; q < 2; q++) {
        skald_sums at = ref_class_sums(p, points[q], moved[q], exact);
        check_sums(p, &sums[q], &at);
        for (size_t k = 0; k < count_moments; k++) check_near(moments[q][k], exact[k], loose(p, 1e-10), "moment");
        free(moments[q]);
        free(moved[q]);
    }
    free(exact);

    const size_t m = (p->n + 1) / 2; /* the first class's part only */
    double *one = skald_zalloc(p->n, sizeof *one);
    for (size_t i = 0; i < m; i++) one[i] = p->s[i] * z[0][i * C] / (double)m;
    OK(ops->curvature(p->c, p->shard, m, w, g));
    check_sum(p, g, NULL, p->n, one);
    free(one);
    for (size_t i = 0; i < p->n * C; i++) c[i] = p->s[i / C] * p->alpha[i];
    OK(ops->anchor(p->c, p->shard, g));
    check_class_sums(p, g, NULL, p->n, c);
    free(z[0]);
    free(z[1]);
    free(w);
    free(u);
    free(g);
    free(h);
    free(c);
}

static inline void check_class_local(problem *p, const uint32_t *rows, size_t count, bool saga, uint32_t step_rows,
                                     double eta, uint64_t key) {
    const skald_batch batch = {rows, count};
    const skald_local l = {.saga = saga, .step_rows = step_rows, .eta = eta, .n = (double)(3 * p->n)};
    double *w = vector(p, key, 0.1), *abar = vector(p, key + 1, 0.05), *g = vector(p, key, 1), *dw = vector(p, key, 1);
    double *want_g = vector(p, key, 1), *want_dw = vector(p, key, 1);
    skald_sums sums, want = {0};
    w[0] = 0; /* a zero is special with l1 */
    if (!rows) count = p->n;
    OK(p->c->ops->local(p->c, p->shard, &batch, &l, w, saga ? abar : NULL, dw, saga ? g : NULL, &sums));
    const size_t C = p->o.classes;
    double *c = skald_zalloc(count * C, sizeof *c); /* what the history changes by */
    for (size_t k = 0; k < count * C; k++) {
        const size_t i = rows ? rows[k / C] : k / C;
        c[k] = -p->s[i] * p->alpha[i * C + k % C];
    }
    ref_local_classes(p, rows, count, &l, w, abar, want_dw, want_g, &want);
    for (size_t k = 0; k < count * C; k++) {
        const size_t i = rows ? rows[k / C] : k / C;
        c[k] += p->s[i] * p->alpha[i * C + k % C];
    }
    take_class_slack(p, w, NULL);
    if (saga) check_class_sums(p, g, rows, count, c);
    free(c);
    for (size_t j = 0; j < (size_t)p->dim * p->o.classes; j++) {
        check_near(dw[j], want_dw[j], loose(p, 1e-11), "dw");
        if (w[j] + want_dw[j] == 0) assert_true(w[j] + dw[j] == 0);
    }
    check_near(sums.rows, (double)count, 0, "rows of local");
    check_near(sums.loss, want.loss, loose(p, 1e-11), "loss of local");
    check_near(sums.k, want.k, loose(p, 1e-9), "k");
    check_near(sums.k2, want.k2, loose(p, 1e-9), "k2");
    check_class_history(p);
    free(w);
    free(abar);
    free(g);
    free(dw);
    free(want_g);
    free(want_dw);
}

/* ---- the suite ------------------------------------------------------------------------------------ */

static inline skald_objective softmax_of(uint32_t classes, double l2, double l1, bool intercept) {
    return (skald_objective){
        .loss = SKALD_SOFTMAX, .l2 = l2, .l1 = l1, .intercept = intercept, .intercept_step = 0.4, .classes = classes};
}

static inline void suite_softmax_operations(const compute_suite *suite, bool brief) {
    static const struct {
        size_t n;
        uint32_t dim;
    } sizes[] = {{33, 1}, {2100, 3}, {150, 47}, {70, 784}, {37, 2001}};
    static const uint32_t classes[] = {2, 3, 10, 37};
    for (size_t z = 0; z < SKALD_ARRAY_LENGTH(sizes); z++)
        for (uint64_t variant = brief ? z : 0; variant < 16; variant += brief ? 5 : 1) {
            if (brief && sizes[z].n > 1000) break;
            const uint32_t C = classes[variant & 3];
            const bool intercept = sizes[z].dim > 1 && (variant >> 2 & 1) != (variant & 1);
            const shape s = {.layout = variant & 8 ? SKALD_CSR : SKALD_DENSE,
                             .n = sizes[z].n,
                             .dim = sizes[z].dim,
                             .weighted = variant & 4,
                             .scale = 1,
                             .seed = z * 100 + variant};
            const skald_objective o = softmax_of(C, 0.01, 0, intercept);
            problem p = problem_open(suite, &s, &o);
            check_class_passes(&p, NULL, 0, 5);
            for (size_t b = 1; b <= p.n; b = b < p.n && 40 * b > p.n ? p.n : 40 * b) {
                uint32_t *rows = draw(p.n, b, b);
                check_class_passes(&p, rows, b, b);
                check_rows(&p, rows, b);
                free(rows);
                if (b == p.n) break;
            }
            check_class_objective(&p, 9, false);
            problem_close(&p);
        }
}

/* Steps short and long (implicit ones that move margins far), as suite_local has them. */
static inline void suite_softmax_local(const compute_suite *suite, bool brief) {
    static const uint32_t dims[] = {1, 3, 47, 801}, steps[] = {1, 3, 8, 19, 1000}, classes[] = {2, 3, 10, 15, 37};
    for (size_t z = 0; z < SKALD_ARRAY_LENGTH(dims); z++)
        for (uint64_t variant = brief ? z : 0; variant < 32; variant += brief ? 7 : 1) {
            const skald_objective o = softmax_of(classes[(variant + z) % 5], variant & 1 ? 0.05 : 0,
                                                 variant & 2 ? 0.06 : 0, dims[z] > 1 && variant & 4);
            const shape s = {.layout = variant & 8 ? SKALD_CSR : SKALD_DENSE,
                             .n = dims[z] > 500 ? 41 : 133,
                             .dim = dims[z],
                             .weighted = variant & 16,
                             .scale = dims[z] > 500 ? 0.2 : 1,
                             .seed = z * 100 + variant};
            problem p = problem_open(suite, &s, &o);
            for (size_t b = brief ? 1 : 0; b < SKALD_ARRAY_LENGTH(steps); b++) {
                const size_t count = p.n - p.n / 5;
                const double eta = b % 2 ? 0.3 : 0.02;
                uint32_t *rows = draw(p.n, count, b);
                check_class_local(&p, rows, count, true, steps[b], eta, b);
                check_class_local(&p, rows, count, false, steps[b], eta, b);
                free(rows);
            }
            check_class_local(&p, NULL, 0, true, 4, 0.02, 3);
            problem_close(&p);
        }
}

/* Model entries that decay so fast that scaled ones become too small to divide by, also where no row comes. */
static inline void suite_softmax_decay(const compute_suite *suite) {
    const skald_objective o = softmax_of(3, 1.9, 0, true);
    const shape s = {SKALD_CSR, 203, 801, true, 0.2, 77, 0};
    problem p = problem_open(suite, &s, &o);
    uint32_t *rows = draw(p.n, 155, 1); /* q = 0.05: below 1e-100 a step before the end, once and twice */
    check_class_local(&p, rows, 78, true, 1, 0.5, 1);
    check_class_local(&p, rows, 155, true, 1, 0.5, 2);
    check_class_local(&p, rows, 78, false, 1, 0.5, 2);
    check_class_local(&p, rows, 3, true, 2, 0.5, 3);
    free(rows);
    problem_close(&p);
}

/* Margins up to 1e4 of either sign, one row at a time, to 1e-12 relative: no overflow, no cancellation. */
static inline void suite_softmax_range(const compute_suite *suite) {
    static const uint32_t classes[] = {2, 3, 10};
    if (suite->values == VALUES_BYTES) return; /* some are 0: no w makes their margin what it should be */
    for (size_t q = 0; q < SKALD_ARRAY_LENGTH(classes); q++) {
        const uint32_t C = classes[q];
        const shape s = {SKALD_DENSE, 600, 1, false, 1, 1, 0};
        const skald_objective o = softmax_of(C, 0, 0, false);
        problem p = problem_open(suite, &s, &o);
        for (uint32_t row = 0; row < 600; row++) {
            const skald_batch one = {&row, 1};
            const double size = pow(10, -9 + 13.0 * row / 599);
            double w[MOST_CLASSES], z[MOST_CLASSES], slope[MOST_CLASSES], g[MOST_CLASSES];
            for (uint32_t c = 0; c < C; c++)
                w[c] = size * (row % 3 == 0 ? (c % 2 ? 1 : -1) : 2 * skald_uniform(row, c) - 1) / fabs(p.x[row]);
            skald_sums sums;
            OK(p.c->ops->gradient(p.c, p.shard, &one, w, g, &sums));
            class_margins(&p, row, w, z);
            class_slopes(&p, row, z, slope);
            const double want = class_value(&p, row, z);
            /* margins of f32 are off by what rounds away, and floats end sooner */
            const double off = 4 * suite->dots * size, least = suite->dots > 0 ? 1e-36 : 1e-300;
            if (!(fabs(sums.loss - want) <= fmax(2e-12, suite->loose) * want + off + least))
                fail_msg("loss at size %g: %.17g, should be %.17g", size, sums.loss, want);
            for (uint32_t c = 0; c < C; c++) {
                const double exact = slope[c] * p.x[row];
                if (!(fabs(g[c] - exact) <= fmax(1e-11, suite->loose) * fabs(exact) + off * fabs(p.x[row]) + least))
                    fail_msg("slope %u at size %g: %.17g, should be %.17g", c, size, g[c] / p.x[row], slope[c]);
            }
        }
        problem_close(&p);
    }
}

/* Two classes are logistic regression in the difference of their vectors: loss, gradient and curvature of b0. */
static inline void suite_softmax_two(const compute_suite *suite) {
    for (int layout = 0; layout < 2; layout++) {
        const shape s = {(skald_layout)layout, 400, 29, true, 1, 31, 0};
        const skald_objective two = softmax_of(2, 0, 0, true), one = objective_of(SKALD_LOGISTIC, 0, 0, true);
        problem p = problem_open(suite, &s, &two);
        skald_compute *c;
        skald_shard *shard;
        skald_rows r = make_rows(suite, &s, &two);
        for (size_t i = 0; i < r.n; i++) r.y[i] = 2 * r.y[i] - 1;
        OK(suite->open(suite->user, &one, s.dim, &c));
        OK(c->ops->load(c, &r, &shard));
        double *w = vector(&p, 3, 0.3), *g = vector(&p, 1, 1), v[29], h[29], moments[5], *out[2] = {g, NULL};
        for (size_t j = 0; j < 29; j++) v[j] = w[29 + j] - w[j];
        const double *at[2] = {w, NULL}, *const line[2] = {v, NULL}, shift[1] = {0.7};
        const double shifts[2] = {0.2, 0.9}, *moved[1] = {shifts};
        double *const line_out[2] = {h, NULL}, *moment_out[1] = {moments};
        skald_sums sums, want;
        OK(p.c->ops->objective(p.c, p.shard, 1, at, out, true, &sums));
        OK(c->ops->objective(c, shard, 1, line, line_out, true, &want));
        check_near(sums.loss, want.loss, loose(&p, 1e-12), "loss of two classes");
        check_near(sums.correct, want.correct, 0, "correct of two classes");
        for (size_t j = 0; j < 29; j++) {
            check_near(g[29 + j], h[j], loose(&p, 1e-11), "gradient of the larger class");
            check_near(g[j], -h[j], loose(&p, 1e-11), "gradient of the smaller class");
        }
        OK(p.c->ops->shift_classes(p.c, p.shard, 1, moved, moment_out, &sums));
        OK(c->ops->shift(c, shard, 1, shift, &want));
        check_near(sums.loss, want.loss, loose(&p, 1e-12), "loss, shifted");
        check_near(moments[1], want.dphi, loose(&p, 1e-11), "slope, shifted");
        check_near(moments[0], -want.dphi, loose(&p, 1e-11), "slope, shifted");
        check_near(moments[2], want.d2phi, loose(&p, 1e-11), "curvature");
        check_near(moments[3], -want.d2phi, loose(&p, 1e-11), "curvature");
        check_near(moments[4], want.d2phi, loose(&p, 1e-11), "curvature");
        c->ops->unload(c, shard);
        c->ops->destroy(c);
        free(w);
        free(g);
        problem_close(&p);
    }
}

/* What cannot be is refused, and then the history is as it was. */
static inline void suite_softmax_refusals(const compute_suite *suite) {
    for (int layout = 0; layout < 2; layout++) {
        const shape s = {(skald_layout)layout, 200, 20, true, 1, 29, 0};
        const skald_objective o = softmax_of(4, 1e-3, 0, true), other = objective_of(SKALD_LOGISTIC, 0, 0, true);
        problem p = problem_open(suite, &s, &o);
        const skald_compute_ops *ops = p.c->ops;
        double *w = vector(&p, 1, 0.1), *g = vector(&p, 2, 1), *dw = vector(&p, 2, 1), *zero = vector(&p, 3, 0);
        float before[800], after[800];
        const skald_batch all = {NULL, 0};
        const skald_local l = {true, 4, 1e-2, 200};
        skald_sums sums[2];
        double *const out[2] = {g, NULL};
        const double *const at[2] = {zero, NULL};
        OK(ops->saga(p.c, p.shard, &all, w, g, sums));
        OK(ops->history_get(p.c, p.shard, before));
        assert_int_equal(ops->shift_classes(p.c, p.shard, 1, at, out, sums), SKALD_EINVAL); /* no margins are kept */
        OK(ops->objective(p.c, p.shard, 1, at, out, true, sums));
        assert_int_equal(ops->shift(p.c, p.shard, 1, zero, sums), SKALD_EINVAL); /* one shift for four */
        static const double bad[] = {NAN, INFINITY};
        for (size_t k = 0; k < SKALD_ARRAY_LENGTH(bad); k++) {
            w[27] = bad[k]; /* the second class's */
            assert_int_equal(ops->gradient(p.c, p.shard, &all, w, g, sums), SKALD_ENUMERIC);
            assert_int_equal(ops->saga(p.c, p.shard, &all, w, g, sums), SKALD_ENUMERIC);
            assert_int_equal(ops->local(p.c, p.shard, &all, &l, w, zero, dw, g, sums), SKALD_ENUMERIC);
            OK(ops->history_get(p.c, p.shard, after));
            assert_memory_equal(before, after, sizeof before);
        }
        skald_compute *c;
        skald_shard *shard;
        OK(suite->open(suite->user, &o, s.dim, &c));
        for (int k = 0; k < 3; k++) {
            skald_rows r = make_rows(suite, &s, &other);
            for (size_t i = 0; i < r.n; i++) r.y[i] = 1;
            r.y[7] = k == 0 ? 4 : k == 1 ? -1 : 0.5;
            assert_int_equal(c->ops->load(c, &r, &shard), SKALD_EDATA);
        }
        c->ops->destroy(c);
        free(w);
        free(g);
        free(dw);
        free(zero);
        problem_close(&p);
    }
}

/* brief: less of everything, for devices that are emulated. */
static inline void compute_suite_softmax(const compute_suite *suite, bool brief) {
    suite_softmax_range(suite);
    suite_softmax_operations(suite, brief);
    suite_softmax_local(suite, brief);
    suite_softmax_decay(suite);
    suite_softmax_two(suite);
    suite_softmax_refusals(suite);
}

#endif
