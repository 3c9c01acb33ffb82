/* The conformance suite of the compute port: every operation against plain loops in double.
 *
 * Include it, describe the backend in a compute_suite, and call compute_suite_run. Nothing here knows which
 * backend it is. */
#ifndef COMPUTE_SUITE_H
#define COMPUTE_SUITE_H

#include "compute_problem.h"

/* ---- operations ----------------------------------------------------------------------------------- */

#define OK(expr)                                                                                                       \
    do {                                                                                                               \
        if ((expr) != SKALD_OK) fail_msg("%s: %s", #expr, skald_error());                                              \
    } while (0)

static inline void check_history(problem *p) {
    float *alpha = skald_zalloc(p->n, sizeof *alpha);
    OK(p->c->ops->history_get(p->c, p->shard, alpha));
    for (size_t i = 0; i < p->n; i++) check_near((double)alpha[i], p->alpha[i], loose(p, 2e-7), "alpha");
    free(alpha);
}

static inline void check_passes(problem *p, const uint32_t *rows, size_t count, uint64_t key) {
    const skald_compute_ops *ops = p->c->ops;
    const skald_batch batch = {rows, count};
    skald_sums sums;
    if (!rows) count = p->n;
    double *w = vector(p, key, 0.3), *u = vector(p, key + 1, 0.3), *g = vector(p, key + 2, 1), *c;
    double *zw = ref_margins(p, w), *zu = ref_margins(p, u);
    take_slack(p, w, u);
    c = skald_zalloc(count, sizeof *c);
    double loss = 0;
    for (size_t k = 0; k < count; k++) {
        size_t i = rows ? rows[k] : k;
        c[k] = p->s[i] * ref_first(p, i, zw[i]);
        loss += p->s[i] * ref_value(p, i, zw[i]);
    }
    OK(ops->gradient(p->c, p->shard, &batch, w, g, &sums));
    check_sum(p, g, rows, count, c);
    check_near(sums.loss, loss, loose(p, 1e-11), "loss of gradient");
    check_near(sums.rows, (double)count, 0, "rows of gradient");

    for (size_t k = 0; k < count; k++) {
        size_t i = rows ? rows[k] : k;
        c[k] -= p->s[i] * ref_first(p, i, zu[i]);
    }
    OK(ops->difference(p->c, p->shard, &batch, w, u, g, &sums));
    check_sum(p, g, rows, count, c);
    check_near(sums.loss, loss, loose(p, 1e-11), "loss of difference");
    check_history(p); /* untouched by both */

    /* saga: its sum is compared with the history it reports, whose rounding to float may differ by a bit */
    float *fresh = skald_zalloc(p->n, sizeof *fresh);
    OK(ops->saga(p->c, p->shard, &batch, w, g, &sums));
    OK(ops->history_get(p->c, p->shard, fresh));
    for (size_t k = 0; k < count; k++) {
        size_t i = rows ? rows[k] : k;
        check_near((double)fresh[i], ref_first(p, i, zw[i]), loose(p, 2e-7), "alpha after saga");
        c[k] = p->s[i] * ((double)fresh[i] - p->alpha[i]);
        p->alpha[i] = (double)fresh[i];
    }
    check_sum(p, g, rows, count, c);
    check_near(sums.loss, loss, loose(p, 1e-11), "loss of saga");
    check_history(p);
    free(zw);
    free(zu);
    free(fresh);
    free(w);
    free(u);
    free(g);
    free(c);
}

/* brief: both points and both sums only. */
static inline void check_objective_op(problem *p, uint64_t key, bool brief) {
    const skald_compute_ops *ops = p->c->ops;
    double *w = vector(p, key, 0.3), *u = vector(p, key + 1, 0.2), *g = vector(p, 1, 1), *h = vector(p, 1, 1);
    double *c = skald_zalloc(p->n, sizeof *c);
    const double *points[2] = {w, u};
    double *z[2] = {ref_margins(p, w), ref_margins(p, u)};
    take_slack(p, w, u);
    skald_sums sums[2], want[2] = {ref_sums(p, w, 0), ref_sums(p, u, 0)};

    for (uint32_t count = brief ? 2 : 1; count <= 2; count++)
        for (int with = brief ? 3 : 0; with < 4; with++) {
            double *out[2] = {with & 1 ? g : NULL, with & 2 ? h : NULL};
            OK(ops->objective(p->c, p->shard, count, points, out, with == 3, sums));
            for (uint32_t q = 0; q < count; q++) {
                check_sums(p, &sums[q], &want[q]);
                if (!out[q]) continue;
                for (size_t i = 0; i < p->n; i++) c[i] = p->s[i] * ref_first(p, i, z[q][i]);
                check_sum(p, out[q], NULL, p->n, c);
            }
        }
    const double delta[2] = {0.7, -0.4};
    OK(ops->shift(p->c, p->shard, 2, delta, sums));
    for (int q = 0; q < 2; q++) {
        skald_sums moved = ref_sums(p, points[q], delta[q]);
        check_sums(p, &sums[q], &moved);
    }
    size_t m = (p->n + 1) / 2;
    memset(c, 0, p->n * sizeof *c);
    for (size_t i = 0; i < m; i++) c[i] = p->s[i] * z[0][i] / (double)m;
    OK(ops->curvature(p->c, p->shard, m, w, g));
    check_sum(p, g, NULL, p->n, c);
    for (size_t i = 0; i < p->n; i++) c[i] = p->s[i] * p->alpha[i];
    OK(ops->anchor(p->c, p->shard, g));
    check_sum(p, g, NULL, p->n, c);
    free(z[0]);
    free(z[1]);
    free(w);
    free(u);
    free(g);
    free(h);
    free(c);
}

static inline void check_local(problem *p, const uint32_t *rows, size_t count, bool saga, uint32_t step_rows,
                               uint64_t key) {
    const skald_batch batch = {rows, count};
    const skald_local l = {.saga = saga, .step_rows = step_rows, .eta = 0.02, .n = (double)(3 * p->n)};
    double *w = vector(p, key, 0.1), *abar = vector(p, key + 1, 0.05), *g = vector(p, key, 1), *dw = vector(p, key, 1);
    double *want_g = vector(p, key, 1), *want_dw = vector(p, key, 1);
    skald_sums sums;
    w[0] = 0; /* a zero is special with l1 */
    if (!rows) count = p->n;
    OK(p->c->ops->local(p->c, p->shard, &batch, &l, w, saga ? abar : NULL, dw, saga ? g : NULL, &sums));
    skald_sums want = {0};
    double *c = skald_zalloc(count, sizeof *c); /* what the history changes by */
    for (size_t k = 0; k < count; k++) c[k] = -p->s[rows ? rows[k] : k] * p->alpha[rows ? rows[k] : k];
    ref_local(p, rows, count, &l, w, abar, want_dw, want_g, &want);
    for (size_t k = 0; k < count; k++) c[k] += p->s[rows ? rows[k] : k] * p->alpha[rows ? rows[k] : k];
    take_slack(p, w, NULL);
    if (saga) check_sum(p, g, rows, count, c);
    free(c);
    for (size_t j = 0; j < p->dim; j++) {
        check_near(dw[j], want_dw[j], loose(p, 1e-11), "dw");
        if (w[j] + want_dw[j] == 0) assert_true(w[j] + dw[j] == 0); /* l1: zeros are zeros */
    }
    check_near(sums.rows, (double)count, 0, "rows of local");
    check_near(sums.k, want.k, loose(p, 1e-9), "k");
    check_near(sums.k2, want.k2, loose(p, 1e-9), "k2");
    assert_true(sums.loss >= 0 && isfinite(sums.loss));
    check_history(p);
    free(w);
    free(abar);
    free(g);
    free(dw);
    free(want_g);
    free(want_dw);
}

/* Copies are what was loaded, to the bit, in the order asked for. Seen to fail on the CPU: all rows (NULL). */
static inline void check_rows(problem *p, const uint32_t *rows, size_t count) {
    const skald_batch batch = {rows, count};
    skald_rows got;
    if (!rows) count = p->n;
    OK(p->c->ops->rows(p->c, p->shard, &batch, &got));
    assert_true(got.n == count && got.dim == p->dim && !got.origin);
    double *x = skald_alloc(p->dim, sizeof *x);
    for (size_t k = 0; k < count; k++) {
        const size_t i = rows ? rows[k] : k;
        for (uint32_t j = 0; j < p->dim; j++) x[j] = got.x ? (double)got.x[k * got.stride + j] : 0;
        for (size_t j = p->dim; got.x && j < got.stride; j++) assert_true(got.x[k * got.stride + j] == 0);
        for (uint64_t e = got.ptr ? got.ptr[k] : 0; got.ptr && e < got.ptr[k + 1]; e++) {
            assert_true(got.idx[e] < p->dim && (e == got.ptr[k] || got.idx[e] > got.idx[e - 1]));
            x[got.idx[e]] = (double)got.val[e];
        }
        assert_memory_equal(x, x_of(p, i), p->dim * sizeof *x);
        assert_true(got.y[k] == p->y[i] && got.s[k] == p->s[i]);
    }
    free(x);
    skald_rows_free(&got);
    const skald_batch beyond = {(const uint32_t[]){(uint32_t)p->n}, 1};
    assert_int_equal(p->c->ops->rows(p->c, p->shard, &beyond, &got), SKALD_EINVAL);
}

/* ---- the suite ------------------------------------------------------------------------------------ */

static inline uint32_t *draw(size_t n, size_t count, uint64_t key) {
    uint32_t *rows = skald_alloc(count, sizeof *rows);
    for (size_t k = 0; k < count; k++) rows[k] = (uint32_t)skald_permute(key, n, k);
    return rows;
}

static inline skald_objective objective_of(skald_loss loss, double l2, double l1, bool intercept) {
    return (skald_objective){.loss = loss,
                             .huber_delta = 0.6,
                             .l2 = l2,
                             .l1 = l1,
                             .intercept = intercept,
                             .intercept_step = 2.5,
                             .classes = 1};
}

/* Every operation over losses, layouts, intercept, weights, tails and batch sizes. */
static inline void suite_operations(const compute_suite *suite) {
    static const struct {
        size_t n;
        uint32_t dim;
    } sizes[] = {{33, 1}, {4200, 3}, {300, 47}, {70, 784}, {40, 2000}, {37, 2001}, {19, 8192}, {9, 20000}};
    static const size_t batches[] = {1, 31, 4096};
    for (size_t z = 0; z < SKALD_ARRAY_LENGTH(sizes); z++)
        for (int variant = 0; variant < 16; variant++) {
            if (suite->dense_only && variant & 8) continue;
            /* still every loss with every layout: 0 3 5 6, 9 10 12 15 */
            if (suite->slow && sizes[z].dim > 3 && __builtin_parity((unsigned)variant)) continue;
            const skald_loss loss = (skald_loss)(variant & 3);
            const bool intercept = sizes[z].dim > 1 && ((variant >> 2) & 1) != (variant & 1);
            const shape s = {.layout = variant & 8 ? SKALD_CSR : SKALD_DENSE,
                             .n = sizes[z].n,
                             .dim = sizes[z].dim,
                             .weighted = (variant >> 2) & 1,
                             .scale = 1,
                             .seed = z * 100 + (uint64_t)variant};
            const skald_objective o = objective_of(loss, 0.01, 0, intercept);
            problem p = problem_open(suite, &s, &o);
            check_passes(&p, NULL, 0, 5);
            for (size_t b = 0; b < SKALD_ARRAY_LENGTH(batches); b++) {
                if (suite->slow && b != 1 && p.n < batches[b] && batches[b] > 1) continue; /* all rows: as above */
                size_t count = skald_min_size(batches[b], p.n);
                uint32_t *rows = draw(p.n, count, b);
                check_passes(&p, rows, count, b);
                check_rows(&p, rows, count);
                free(rows);
            }
            check_rows(&p, NULL, 0);
            check_objective_op(&p, 9, false);
            problem_close(&p);
        }
}

/* Local steps: l2, l1, both, neither; batches of 1 to more than all; saga and sgd; a short last step. */
static inline void suite_local(const compute_suite *suite) {
    static const uint32_t dims[] = {1, 3, 47, 2001};
    static const uint32_t steps[] = {1, 2, 3, 5, 8, 19, 1000};
    for (size_t z = 0; z < SKALD_ARRAY_LENGTH(dims); z++)
        for (int variant = 0; variant < 32; variant++) {
            if (suite->dense_only && variant & 8) continue;
            /* dense steps of an emulated card take milliseconds and more */
            if (suite->slow && dims[z] > 1000 && variant != 18 && variant != 31) continue;
            const double l2 = variant & 1 ? 0.05 : 0, l1 = variant & 2 ? 0.06 : 0;
            const bool intercept = dims[z] > 1 && variant & 4;
            const skald_loss loss = (skald_loss)((variant + (int)z) & 3);
            const shape s = {.layout = variant & 8 ? SKALD_CSR : SKALD_DENSE,
                             .n = dims[z] > 1000 || suite->slow ? 41 : 133,
                             .dim = dims[z],
                             .weighted = variant & 16,
                             .scale = dims[z] > 1000 ? 0.2 : 1,
                             .seed = z * 100 + (uint64_t)variant};
            const skald_objective o = objective_of(loss, l2, l1, intercept);
            problem p = problem_open(suite, &s, &o);
            for (size_t b = 0; b < SKALD_ARRAY_LENGTH(steps); b++) {
                size_t count = p.n - p.n / 5;
                if (suite->slow && (dims[z] > 1000 ? steps[b] < 19 : steps[b] == 2 || steps[b] == 8)) continue;
                uint32_t *rows = draw(p.n, count, b);
                check_local(&p, rows, count, true, steps[b], b);
                if (!suite->slow || b != 0) check_local(&p, rows, count, false, steps[b], b);
                free(rows);
            }
            check_local(&p, NULL, 0, true, suite->slow ? 16 : 4, 3);
            problem_close(&p);
        }
}

/* An intercept is minimised over by shifts of kept margins, and then told optimal by the gradient of a pass: the
 * margins of both, and its entry of the gradient, are the same to the rounding of doubles, whatever the rest is made
 * of. */
static inline void suite_intercept(const compute_suite *suite) {
    for (int variant = 0; variant < 8; variant++) {
        const bool wide = variant & 4;
        const shape s = {(skald_layout)(variant & 1), wide ? 60 : 500, wide ? 2500 : 83, variant & 2, 1, 29, 0};
        const skald_objective o = objective_of(SKALD_LOGISTIC, 1e-3, 0, true);
        problem p = problem_open(suite, &s, &o);
        const skald_compute_ops *ops = p.c->ops;
        double *w[2] = {vector(&p, 1, 0.1), vector(&p, 2, 0.1)};
        double *g[2] = {vector(&p, 1, 1), vector(&p, 1, 1)};
        const double delta[2] = {0.123, -0.77}, tolerance = 1e-13 * (double)p.n;
        skald_sums shifted[2], sums[2];
        for (int k = 0; k < 2; k++) w[k][p.dim - 1] = 1.0 / 3 + k;
        for (uint32_t points = 1; points <= 2; points++) {
            OK(ops->objective(p.c, p.shard, points, (const double *const *)w, (double *[2]){NULL, NULL}, true, sums));
            OK(ops->shift(p.c, p.shard, points, delta, shifted));
            for (uint32_t k = 0; k < points; k++) w[k][p.dim - 1] += delta[k];
            OK(ops->objective(p.c, p.shard, points, (const double *const *)w, g, false, sums));
            for (uint32_t k = 0; k < points; k++) {
                assert_true(fabs(sums[k].dphi - shifted[k].dphi) <= tolerance);
                assert_true(fabs(g[k][p.dim - 1] - sums[k].dphi) <= tolerance);
            }
        }
        for (int k = 0; k < 2; k++) {
            free(w[k]);
            free(g[k]);
        }
        problem_close(&p);
    }
}

/* Vectors on a device: verbs do what the host's do, to the same bits but for sums over a vector; operations do with
 * them, in any mix, what they do with the host's. */
static inline void suite_vectors(const compute_suite *suite) {
    const shape s = {SKALD_DENSE, 90, 31, true, 1, 41, 0};
    const skald_objective o = objective_of(SKALD_LOGISTIC, 0.05, 0.02, true);
    const skald_regulariser r = {0.05, 0.02, true, 0.3, 2.5}, plain = {0.05, 0.02, true, 0, 2.5};
    problem p = problem_open(suite, &s, &o);
    const skald_compute_ops *ops = p.c->ops;
    skald_vectors sides[2];
    if (!ops->vectors) {
        problem_close(&p);
        return;
    }
    skald_vectors_host(&sides[0], p.dim);
    OK(ops->vectors(p.c, &sides[1]));
    assert_true(sides[1].dim == p.dim && sides[1].columns == p.dim && sides[1].classes == 1 && sides[1].on_device);
    double *x[2][4], value[2][3], *seen[2] = {vector(&p, 1, 1), vector(&p, 1, 1)};
    uint32_t *rows = draw(p.n, 60, 1);
    float *none = skald_zalloc(p.n, sizeof *none);
    const skald_batch batch = {rows, 60};
    const skald_local local = {true, 7, 0.1, 500};
    skald_sums sums[2][2];
    for (int k = 0; k < 2; k++) {
        skald_vectors *v = &sides[k];
        double **y = x[k], *out[2], *loose = vector(&p, 9, 0.1), *zeros = skald_zalloc(p.dim, sizeof *zeros);
        for (int j = 0; j < 4; j++) {
            double *start = vector(&p, (uint64_t)j + 1, 0.3);
            OK(v->ops->create(v, &y[j]));
            OK(v->ops->read(v, seen[0], y[j]));
            assert_memory_equal(seen[0], zeros, p.dim * sizeof *zeros);
            OK(v->ops->write(v, y[j], start));
            free(start);
        }
        v->ops->saga_update(v, y[0], y[1], y[2], 0.7, y[3], 0.3, 11, &plain);
        v->ops->sgd_update(v, y[0], y[2], 0.7, 0.3, &r);
        v->ops->local_merge(v, y[0], y[1], y[2], 0.4, y[3], 13);
        v->ops->local_merge(v, y[0], NULL, y[2], 0.4, NULL, 13);
        v->ops->proximal_step(v, y[0], y[1], 0.2, &r);
        v->ops->axpy(v, y[2], -0.3, y[3]);
        v->ops->combine(v, y[3], 2, y[3], -1, y[2]);
        v->ops->copy(v, y[2], y[3]);
        v->ops->combine(v, y[3], 0.5, y[0], 0, NULL);
        value[k][0] = v->ops->norm2(v, y[0]);
        value[k][1] = v->ops->penalty(v, y[0], &r);
        value[k][2] = v->ops->stationarity(v, y[0], y[1], 0.3, &r);
        /* operations: y[0] the model, y[1] abar */
        OK(ops->history_set(p.c, p.shard, none));
        OK(ops->saga(p.c, p.shard, &batch, y[0], y[2], sums[k]));
        v->ops->axpy(v, y[1], 0.01, y[2]); /* behind the operation, and before the next */
        OK(ops->local(p.c, p.shard, &batch, &local, y[0], y[1], y[2], y[3], sums[k]));
        v->ops->axpy(v, y[0], 0.5, y[2]);
        OK(ops->gradient(p.c, p.shard, &batch, y[0], y[2], sums[k]));
        v->ops->axpy(v, y[1], 1, y[2]);
        OK(ops->difference(p.c, p.shard, &batch, y[0], loose, y[2], sums[k]));
        v->ops->axpy(v, y[1], 1, y[2]);
        OK(ops->curvature(p.c, p.shard, 50, y[1], y[2]));
        v->ops->axpy(v, y[1], 1, y[2]);
        OK(ops->anchor(p.c, p.shard, y[2]));
        v->ops->axpy(v, y[1], 1, y[2]);
        out[0] = loose; /* the host's beside the device's */
        out[1] = y[2];
        OK(ops->objective(p.c, p.shard, 2, (const double *[2]){y[0], loose}, out, false, sums[k]));
        OK(v->ops->write(v, y[3], loose));
        OK(v->ops->status(v));
        free(loose);
        free(zeros);
    }
    for (int j = 0; j < 4; j++) {
        for (int k = 0; k < 2; k++) {
            OK(sides[k].ops->read(&sides[k], seen[k], x[k][j]));
            sides[k].ops->destroy(&sides[k], x[k][j]);
        }
        assert_memory_equal(seen[0], seen[1], p.dim * sizeof *seen[0]);
    }
    assert_memory_equal(sums[0], sums[1], sizeof sums[0]);
    for (int j = 0; j < 3; j++) assert_true(fabs(value[0][j] - value[1][j]) <= 1e-14 * value[0][j]);
    for (int k = 0; k < 2; k++) free(seen[k]);
    free(none);
    free(rows);
    problem_close(&p);
}

/* The sums handed out since the start add up to the anchor. Seen to fail when local rounded c_i to float
 * after subtracting alpha_i instead of before. */
static inline void suite_invariant(const compute_suite *suite) {
    for (int layout = 0; layout < 2; layout++) {
        const shape s = {(skald_layout)layout, 500, 83, true, 1, 17, 0};
        const skald_objective o = objective_of(SKALD_LOGISTIC, 1e-3, 0, true);
        problem p = problem_open(suite, &s, &o);
        const skald_compute_ops *ops = p.c->ops;
        double *total = skald_zalloc(p.dim, sizeof *total), *g = skald_zalloc(p.dim, sizeof *g);
        double *w = vector(&p, 1, 0.1), *dw = skald_zalloc(p.dim, sizeof *dw),
               *size = skald_zalloc(p.dim, sizeof *size);
        skald_sums sums;
        for (uint64_t call = 0; call < (suite->slow ? 12 : 60); call++) {
            size_t count = 1 + skald_random(3, call) % 300;
            uint32_t *rows = draw(p.n, count, call);
            const skald_batch batch = {rows, count};
            const skald_local l = {true, (uint32_t)(1 + call % 9) * (suite->slow ? 20 : 1), 0.05, 500};
            if (call % 3 == 0)
                OK(ops->saga(p.c, p.shard, &batch, w, g, &sums));
            else
                OK(ops->local(p.c, p.shard, &batch, &l, w, total, dw, g, &sums));
            for (size_t j = 0; j < p.dim; j++) {
                total[j] += g[j];
                size[j] += fabs(g[j]);
                w[j] = 0.5 * w[j] + 0.1 * skald_normal(call, j);
            }
            free(rows);
        }
        OK(ops->anchor(p.c, p.shard, g));
        for (size_t j = 0; j < p.dim; j++)
            if (!(fabs(total[j] - g[j]) <= suite->tolerance * (1 + size[j])))
                fail_msg("column %zu: %.17g handed out, %.17g in the table", j, total[j], g[j]);
        free(total);
        free(g);
        free(w);
        free(dw);
        free(size);
        problem_close(&p);
    }
}

/* A failure part of the way leaves every alpha as it was. Seen to fail (both operations) when alpha was
 * written tile by tile without undo. */
static inline void suite_numeric(const compute_suite *suite) {
    for (int layout = 0; layout < 2; layout++) {
        const shape s = {(skald_layout)layout, 400, 30, true, 1, 23, 0};
        const skald_objective o = objective_of(SKALD_SQUARED, 0, 0, false);
        problem p = problem_open(suite, &s, &o);
        const skald_compute_ops *ops = p.c->ops;
        double *w = vector(&p, 1, 0.1), *g = vector(&p, 2, 1), *dw = vector(&p, 2, 1), *zero = vector(&p, 3, 0);
        float *before = skald_zalloc(p.n, sizeof *before), *after = skald_zalloc(p.n, sizeof *after);
        skald_sums sums[2];
        const skald_batch all = {NULL, 0};
        OK(ops->saga(p.c, p.shard, &all, w, g, sums));
        OK(ops->history_get(p.c, p.shard, before));

        const skald_local wild = {true, 4, 1e-3, 400};
        w[3] += 1;
        zero[3] = 1e41; /* as abar: beyond float after some steps */
        assert_int_equal(ops->local(p.c, p.shard, &all, &wild, w, zero, dw, g, sums), SKALD_ENUMERIC);
        zero[3] = 0;
        OK(ops->history_get(p.c, p.shard, after));
        assert_memory_equal(before, after, p.n * sizeof *before);

        static const double bad[] = {NAN, INFINITY, 1e300, 1e39};
        for (size_t k = 0; k < SKALD_ARRAY_LENGTH(bad); k++) {
            /* sparse: only the rows that have column 7 see it */
            w[7] = bad[k];
            assert_int_equal(ops->saga(p.c, p.shard, &all, w, g, sums), SKALD_ENUMERIC);
            const skald_local calm = {true, 4, 1e-3, 400};
            assert_int_equal(ops->local(p.c, p.shard, &all, &calm, w, zero, dw, g, sums), SKALD_ENUMERIC);
            if (k < 2) {
                const double *points[2] = {zero, w};
                double *none[2] = {NULL, NULL};
                assert_int_equal(ops->gradient(p.c, p.shard, &all, w, g, sums), SKALD_ENUMERIC);
                assert_int_equal(ops->difference(p.c, p.shard, &all, zero, w, g, sums), SKALD_ENUMERIC);
                assert_int_equal(ops->objective(p.c, p.shard, 2, points, none, false, sums), SKALD_ENUMERIC);
            }
            OK(ops->history_get(p.c, p.shard, after));
            assert_memory_equal(before, after, p.n * sizeof *before);
        }
        free(w);
        free(g);
        free(dw);
        free(zero);
        free(before);
        free(after);
        problem_close(&p);
    }
}

/* Losses over the whole range of margins, row by row, to 1e-12 relative: no overflow, no cancellation. */
static inline void suite_losses(const compute_suite *suite) {
    for (int loss = 0; loss < 4; loss++) {
        const shape s = {SKALD_DENSE, 1600, 1, false, 1, 1, 0};
        const skald_objective o = objective_of((skald_loss)loss, 0, 0, false);
        problem p = problem_open(suite, &s, &o);
        for (size_t k = 0; k < 1600; k++) {
            /* margins from 1e-9 to 1e4 of either sign: w does what x does not */
            const uint32_t row = (uint32_t)k;
            const skald_batch one = {&row, 1};
            double z = (k & 1 ? 1 : -1) * pow(10, -9 + 13.0 * (double)k / 1599);
            double w = z / p.x[k], g;
            z = w * p.x[k];
            skald_sums sums;
            OK(p.c->ops->gradient(p.c, p.shard, &one, &w, &g, &sums));
            double loss_want = ref_value(&p, k, z), first = ref_first(&p, k, z);
            const double dz = suite->dots * fabs(z), dphi = fabs(first) * dz + dz * dz; /* phi'' <= 1 */
            if (!(fabs(sums.loss - loss_want) <= 2e-12 * fabs(loss_want) + dphi + 1e-300) ||
                !(fabs(g - first * p.x[k]) <=
                  fmax(1e-11, suite->tolerance) * fabs(first * p.x[k]) + dz * fabs(p.x[k]) + 1e-300))
                fail_msg("%s at z = %g, y = %g: %.17g and %.17g, should be %.17g and %.17g",
                         skald_loss_name((skald_loss)loss), z, p.y[k], sums.loss, g / p.x[k], loss_want, first);
        }
        problem_close(&p);
    }
}

/* Everything that comes from the wire is checked. */
static inline void suite_refusals(const compute_suite *suite) {
    const shape s = {SKALD_CSR, 50, 12, false, 1, 4, 0};
    const skald_objective o = objective_of(SKALD_LOGISTIC, 0.1, 0, false);
    problem p = problem_open(suite, &s, &o);
    const skald_compute_ops *ops = p.c->ops;
    double *w = vector(&p, 1, 0.1), *g = vector(&p, 2, 1), *dw = vector(&p, 2, 1);
    skald_sums sums[2];
    const uint32_t rows[3] = {1, 50, 2};
    const skald_batch bad = {rows, 3}, fine = {rows, 1};
    const skald_local l = {true, 1, 0.1, 50}, no_rows = {true, 0, 0.1, 50}, no_step = {true, 1, 0, 50};
    const skald_local nan_step = {true, 1, NAN, 50}, overshoot = {true, 1, 10, 50}, no_n = {true, 1, 0.1, 0};
    assert_int_equal(ops->gradient(p.c, p.shard, &bad, w, g, sums), SKALD_EINVAL);
    assert_non_null(strstr(skald_error(), "row 50 of a shard of 50"));
    assert_int_equal(ops->saga(p.c, p.shard, &bad, w, g, sums), SKALD_EINVAL);
    assert_int_equal(ops->difference(p.c, p.shard, &bad, w, w, g, sums), SKALD_EINVAL);
    assert_int_equal(ops->local(p.c, p.shard, &bad, &l, w, w, dw, g, sums), SKALD_EINVAL);
    assert_int_equal(ops->local(p.c, p.shard, &fine, &no_rows, w, w, dw, g, sums), SKALD_EINVAL);
    assert_int_equal(ops->local(p.c, p.shard, &fine, &no_step, w, w, dw, g, sums), SKALD_EINVAL);
    assert_int_equal(ops->local(p.c, p.shard, &fine, &nan_step, w, w, dw, g, sums), SKALD_EINVAL);
    assert_int_equal(ops->local(p.c, p.shard, &fine, &overshoot, w, w, dw, g, sums), SKALD_EINVAL);
    assert_int_equal(ops->local(p.c, p.shard, &fine, &no_n, w, w, dw, g, sums), SKALD_EINVAL);
    assert_int_equal(ops->local(p.c, p.shard, &fine, &l, w, NULL, dw, g, sums), SKALD_EINVAL);
    const double *points[2] = {w, w};
    double *none[2] = {NULL, NULL};
    assert_int_equal(ops->objective(p.c, p.shard, 3, points, none, false, sums), SKALD_EINVAL);
    assert_int_equal(ops->objective(p.c, p.shard, 0, points, none, false, sums), SKALD_EINVAL);
    assert_int_equal(ops->shift(p.c, p.shard, 1, w, sums), SKALD_EINVAL); /* none kept */
    OK(ops->objective(p.c, p.shard, 1, points, none, true, sums));
    assert_int_equal(ops->shift(p.c, p.shard, 2, w, sums), SKALD_EINVAL);
    assert_int_equal(ops->curvature(p.c, p.shard, 51, w, g), SKALD_EINVAL);
    float alpha[50] = {0};
    alpha[3] = NAN;
    assert_int_equal(ops->history_set(p.c, p.shard, alpha), SKALD_ENUMERIC);
    alpha[3] = 2;
    OK(ops->history_set(p.c, p.shard, alpha));
    p.alpha[3] = 2;
    check_history(&p); /* and nothing else moved it */
    free(w);
    free(g);
    free(dw);
    problem_close(&p);

    /* rows that are not what they should be; load takes them over all the same */
    for (int k = 0; k < 6; k++) {
        static const skald_status want[] = {SKALD_EINVAL, SKALD_EINVAL, SKALD_EINVAL,
                                            SKALD_EDATA,  SKALD_EDATA,  SKALD_EINVAL};
        skald_compute *c;
        skald_shard *shard;
        OK(suite->open(suite->user, &o, 12, &c));
        skald_rows r = make_rows(suite, &s, &o);
        if (k == 0) r.dim = 13;
        if (k == 1) r.idx[5] = 12;
        if (k == 2) r.ptr[3] = r.ptr[5] + 1;
        if (k == 3) r.val[9] = NAN;
        if (k == 4) r.s[2] = -1;
        if (k == 5) r.layout = (skald_layout)7;
        assert_int_equal(c->ops->load(c, &r, &shard), want[k]);
        assert_null(shard);
        assert_null(r.y);
        c->ops->destroy(c);
    }
}

static inline void suite_facts(const compute_suite *suite) {
    for (int layout = 0; layout < 2; layout++) {
        const shape s = {(skald_layout)layout, 77, 19, true, 2, 3, 0};
        const skald_objective o = objective_of(SKALD_HUBER, 0, 0, true);
        problem p = problem_open(suite, &s, &o);
        skald_shard_facts f, want = {.rows = p.n};
        skald_shard_get_facts(p.shard, &f);
        double weights = 0;
        for (size_t i = 0; i < p.n; i++) weights += p.s[i];
        for (size_t i = 0; i < p.n; i++) {
            double norm2 = skald_objective_norm2_more(&o), apart = p.y[i];
            for (size_t k = 0; k < p.n; k++) apart -= p.s[k] * p.y[k] / weights;
            want.spread_y += p.s[i] * apart * apart;
            want.mean_y += p.s[i] * p.y[i] / weights;
            for (size_t j = 0; j < p.dim; j++) {
                norm2 += p.x[i * p.dim + j] * p.x[i * p.dim + j];
                want.nonzeros += p.x[i * p.dim + j] != 0;
            }
            want.weight_sum += p.s[i];
            want.sum_weighted_norm2 += p.s[i] * norm2;
            want.max_weighted_norm2 = fmax(want.max_weighted_norm2, p.s[i] * norm2);
        }
        assert_int_equal(f.rows, want.rows);
        check_near(f.nonzeros, want.nonzeros, 0, "nonzeros");
        check_near(f.weight_sum, want.weight_sum, 1e-12, "weight_sum");
        check_near(f.sum_weighted_norm2, want.sum_weighted_norm2, 1e-12, "sum_weighted_norm2");
        check_near(f.mean_y, want.mean_y, 1e-12, "mean_y");
        check_near(f.spread_y, want.spread_y, 1e-12, "spread_y");
        check_near(f.max_weighted_norm2, want.max_weighted_norm2, 1e-12, "max_weighted_norm2");
        problem_close(&p);
    }
}

static inline void compute_suite_run(const compute_suite *suite) {
    suite_facts(suite);
    suite_losses(suite);
    suite_operations(suite);
    suite_local(suite);
    suite_invariant(suite);
    suite_intercept(suite);
    suite_numeric(suite);
    suite_refusals(suite);
}

#endif
