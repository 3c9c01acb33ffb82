/* The certified gap: never below the true one wherever the point is, tight where that is the optimum, for every loss
 * and every mix of regularisers; and what runs make of it. */
#include "engine/certificate.h"
#include "harness.h"

enum { ROWS = 60, COLUMNS = 7, MOST_CLASSES = 3, MOST = (COLUMNS + 1) * MOST_CLASSES };

/* A small dense problem in double: the tests' own, with an own minimiser. */
typedef struct tiny {
    skald_objective o;
    uint32_t dim, classes;
    double x[ROWS][COLUMNS + 1], y[ROWS], s[ROWS];
    double label; /* what labels are of the order of */
} tiny;

static void tiny_make(tiny *t, const skald_objective *o, bool weighted, double label, uint64_t seed) {
    memset(t, 0, sizeof *t);
    t->o = *o;
    t->classes = t->o.classes = o->loss == SKALD_SOFTMAX ? MOST_CLASSES : 1;
    t->dim = COLUMNS + (o->intercept ? 1 : 0);
    double sum = 0;
    for (int i = 0; i < ROWS; i++) {
        double z = 0.4;
        for (int j = 0; j < COLUMNS; j++) {
            t->x[i][j] = skald_normal(seed ^ 0x11, (uint64_t)(i * COLUMNS + j)) / (1 + 0.4 * j) + 0.1;
            z += t->x[i][j] * (j % 2 ? 1 : -0.7);
        }
        z += 0.5 * skald_normal(seed ^ 0x22, (uint64_t)i) + (i % 9 == 0 ? 4 : 0);
        t->x[i][COLUMNS] = 1;
        t->y[i] = skald_loss_is_binary(o->loss) ? (z > 0 ? 1 : -1)
                  : o->loss == SKALD_SOFTMAX    ? (z > 0.7    ? 2
                                                   : z > -0.3 ? 1
                                                              : 0)
                                                : label * z;
        sum += t->s[i] = weighted ? skald_uniform(seed ^ 0x33, (uint64_t)i) * 3 : 1;
    }
    double y2 = 0;
    for (int i = 0; i < ROWS; i++) t->s[i] *= ROWS / sum, y2 += t->s[i] * t->y[i] * t->y[i];
    t->label = skald_loss_is_classifier(o->loss) ? 1 : sqrt(y2 / ROWS);
    t->o.huber_delta *= label;
}

/* The sums of one pass at w. */
static void tiny_pass(const tiny *t, const double *w, skald_sums *sums, double *g) {
    memset(sums, 0, sizeof *sums);
    memset(g, 0, MOST * sizeof *g);
    for (int i = 0; i < ROWS; i++) {
        double z[MOST_CLASSES] = {0}, slope[MOST_CLASSES];
        for (uint32_t c = 0; c < t->classes; c++)
            for (uint32_t j = 0; j < t->dim; j++) z[c] += t->x[i][j] * w[c * t->dim + j];
        if (t->o.loss == SKALD_SOFTMAX) {
            sums->loss += t->s[i] * skald_softmax_value(t->classes, z, (uint32_t)t->y[i]);
            skald_softmax(t->classes, z, slope);
            slope[(int)t->y[i]] -= 1;
        } else {
            sums->loss += t->s[i] * skald_loss_value(t->o.loss, t->o.huber_delta, z[0], t->y[i]);
            sums->d2phi += t->s[i] * skald_loss_second(t->o.loss, t->o.huber_delta, z[0], t->y[i]);
            slope[0] = skald_loss_derivative(t->o.loss, t->o.huber_delta, z[0], t->y[i]);
        }
        for (uint32_t c = 0; c < t->classes; c++)
            for (uint32_t j = 0; j < t->dim; j++) g[c * t->dim + j] += t->s[i] * slope[c] * t->x[i][j];
    }
}

static bool regular(const tiny *t, uint32_t k) {
    return k % t->dim < COLUMNS;
}

static double tiny_objective(const tiny *t, const double *w, double *g) {
    skald_sums sums;
    tiny_pass(t, w, &sums, g);
    double f = sums.loss / ROWS;
    for (uint32_t k = 0; k < t->dim * t->classes; k++)
        if (regular(t, k)) f += 0.5 * t->o.l2 * w[k] * w[k] + t->o.l1 * fabs(w[k]);
    return f;
}

/* Proximal gradient steps with momentum; only_intercepts: the rest of w stays. */
static void tiny_descend(const tiny *t, double *w, int steps, bool only_intercepts) {
    const uint32_t length = t->dim * t->classes;
    double v[MOST], g[MOST], next[MOST], L = 0, k = 1;
    for (int i = 0; i < ROWS; i++)
        for (uint32_t j = only_intercepts ? COLUMNS : 0; j < t->dim; j++) L += t->s[i] * t->x[i][j] * t->x[i][j] / ROWS;
    L = L * skald_loss_curvature(t->o.loss) + t->o.l2;
    memcpy(v, w, sizeof v);
    for (int step = 0; step < steps; step++) {
        double back = 0;
        tiny_objective(t, v, g);
        memcpy(next, v, sizeof next);
        for (uint32_t j = 0; j < length; j++) {
            if (!regular(t, j))
                next[j] = v[j] - g[j] / ROWS / L;
            else if (!only_intercepts)
                next[j] = skald_soft(v[j] - (g[j] / ROWS + t->o.l2 * v[j]) / L, t->o.l1 / L);
            back += (v[j] - next[j]) * (next[j] - w[j]);
        }
        if (back > 0) k = 1;
        const double ahead = 0.5 * (1 + sqrt(1 + 4 * k * k));
        for (uint32_t j = 0; j < length; j++) v[j] = next[j] + (k - 1) / ahead * (next[j] - w[j]);
        memcpy(w, next, sizeof next);
        k = ahead;
    }
}

static skald_certificate tiny_certify(const tiny *t, const double *w) {
    skald_sums sums;
    double g[MOST];
    tiny_pass(t, w, &sums, g);
    return skald_certify(&t->o, t->dim, ROWS, w, &sums, g, 1, t->label);
}

/* The bound of t = 1, where there is one: |soft(g, l1)|^2 / (2 l2) and the rest. */
static double unscaled_gap(const tiny *t, const double *w) {
    skald_sums sums;
    double g[MOST], gap = 0;
    tiny_pass(t, w, &sums, g);
    for (uint32_t k = 0; k < t->dim * t->classes; k++) {
        if (!regular(t, k)) continue;
        const double gk = g[k] / ROWS, soft = skald_soft(gk, t->o.l1);
        gap += w[k] * gk + 0.5 * t->o.l2 * w[k] * w[k] + t->o.l1 * fabs(w[k]) + soft * soft / (2 * t->o.l2);
    }
    return gap;
}

static const double mixes[][2] = {/* l1, l2 */ {0, 1e-1}, {0, 1e-3}, {2e-2, 1e-3},
                                  {2e-2, 1e-9},           {2e-2, 0}, {0.2, 0}};
#define MIXES (sizeof mixes / sizeof *mixes)

static void examine(const tiny *t, const char *what) {
    double best[MOST] = {0}, w[MOST], g[MOST];
    tiny_descend(t, best, 6000, false);
    if (t->o.intercept) tiny_descend(t, best, 300, true);
    const double least = tiny_objective(t, best, g);
    const skald_certificate there = tiny_certify(t, best);
    assert_true(fabs(there.objective - least) <= 1e-14 * least);
    if (!(there.gap <= 1e-7 * least)) fail_msg("%s: gap %g of %g at the optimum", what, there.gap, least);
    for (int trial = 0; trial < 36; trial++) {
        const double far = pow(10, 1 - trial % 12), pull = trial % 3 == 0 ? 0 : 1;
        for (uint32_t k = 0; k < t->dim * t->classes; k++) {
            const double unit = t->o.loss == SKALD_SQUARED || t->o.loss == SKALD_HUBER ? t->label : 1;
            w[k] = pull * best[k] + far * unit * skald_normal(77 + (uint64_t)trial, k);
        }
        if (t->o.intercept) tiny_descend(t, w, 400, true);
        const skald_certificate c = tiny_certify(t, w);
        assert_true(c.gap >= 0 && c.gap <= c.objective);
        if (!(c.objective - c.gap <= least * (1 + 1e-13)))
            fail_msg("%s, trial %d: F %.15g, gap %.15g, but F* is at most %.15g", what, trial, c.objective, c.gap,
                     least);
        /* 1e-5 away: within a hundredth of F, and of what the unscaled bound says at most that */
        if (pull > 0 && far < 2e-5) assert_true(c.gap <= 1e-2 * c.objective);
        if (t->o.l2 > 0 && !t->o.intercept) assert_true(c.gap <= unscaled_gap(t, w) + 1e-14 * c.objective);
    }
}

static void never_below_the_true_gap(void **state) {
    const skald_loss losses[] = {SKALD_SQUARED, SKALD_LOGISTIC, SKALD_SQUARED_HINGE, SKALD_HUBER, SKALD_SOFTMAX};
    for (size_t l = 0; l < 5; l++)
        for (size_t m = 0; m < MIXES; m++)
            for (int how = 0; how < 4; how++) {
                const skald_objective o = {
                    .loss = losses[l], .huber_delta = 0.7, .l2 = mixes[m][1], .l1 = mixes[m][0], .intercept = how & 1};
                char what[100];
                snprintf(what, sizeof what, "%s l1 %g l2 %g%s%s", skald_loss_name(losses[l]), o.l1, o.l2,
                         how & 1 ? ", intercept" : "", how & 2 ? ", weights" : "");
                static tiny t;
                tiny_make(&t, &o, how & 2, 1, 10 * l + m + 1);
                examine(&t, what);
            }
}

/* Without l2 the bound goes with the distance, not its square; that is what scaling costs. At a tiny l2 it is nothing
 * like what the unscaled bound loses. */
static void tight_at_a_tiny_l2(void **state) {
    const skald_objective o = {.loss = SKALD_SQUARED, .l2 = 1e-9, .l1 = 2e-2};
    static tiny t;
    tiny_make(&t, &o, false, 1, 3);
    double best[MOST] = {0}, w[MOST], g[MOST];
    tiny_descend(&t, best, 6000, false);
    const double least = tiny_objective(&t, best, g);
    for (double far = 1e-1; far > 1e-6; far /= 10) {
        for (uint32_t k = 0; k < t.dim; k++) w[k] = best[k] + far * skald_normal(5, k);
        const skald_certificate c = tiny_certify(&t, w);
        const double old = unscaled_gap(&t, w);
        print_message("%.0e away: true %.1e, certified %.1e, unscaled %.1e\n", far, (c.objective - least) / least,
                      c.gap / least, old / least);
        assert_true(c.gap < 60 * far && c.gap < 0.1 * old);
    }
}

/* The zeros of sum s_i phi' are told by the scale of the labels, whatever that is. */
static void intercepts_of_any_scale(void **state) {
    const double labels[] = {1e-6, 1, 1e6};
    for (int k = 0; k < 3; k++)
        for (int huber = 0; huber < 2; huber++) {
            const skald_objective o = {
                .loss = huber ? SKALD_HUBER : SKALD_SQUARED, .huber_delta = 1, .l2 = 0.1, .intercept = true};
            static tiny t;
            tiny_make(&t, &o, true, labels[k], 4);
            examine(&t, "scaled labels");
            double w[MOST] = {0};
            tiny_descend(&t, w, 6000, false);
            w[COLUMNS] += 1e-7 * t.label; /* not where the intercept is best */
            const skald_certificate c = tiny_certify(&t, w);
            assert_true(c.gap == c.objective);
        }
}

static void without_regulariser_or_convexity(void **state) {
    skald_objective o = {.loss = SKALD_LOGISTIC};
    static tiny t;
    tiny_make(&t, &o, false, 1, 5);
    const double w[MOST] = {0.1};
    assert_true(tiny_certify(&t, w).gap == INFINITY);
    t.o.l2 = 1, t.o.nonconvex = 0.1;
    assert_true(tiny_certify(&t, w).gap == INFINITY);
}

static void relative_gaps(void **state) {
    assert_true(skald_relative_gap(0.5, 1, 1) == 1);
    assert_true(skald_relative_gap(1, 1, 1) == INFINITY); /* F* may be 0 */
    assert_true(skald_relative_gap(1e9, 1, 1) == INFINITY);
    assert_true(skald_relative_gap(INFINITY, 1, 1) == INFINITY);
    assert_true(skald_relative_gap(0, 0, 0) == 0);
    assert_true(skald_relative_gap(0, 0, 12.5) == 0);
    assert_true(skald_relative_gap(3e-30, 3e-30, 12.5) == 0); /* rows fitted to the last digit */
    assert_true(skald_relative_gap(3e-20, 3e-20, 12.5) == INFINITY);
}

/* ---- runs ------------------------------------------------------------------------------------------- */

static void lasso_runs(void **state) {
    const skald_loss losses[] = {SKALD_SQUARED, SKALD_LOGISTIC, SKALD_SQUARED_HINGE, SKALD_HUBER};
    for (int l = 0; l < 4; l++)
        for (int intercept = 0; intercept < 2; intercept++)
            for (int tiny_l2 = 0; tiny_l2 < 2; tiny_l2++) {
                toy of = {800, 30, 1, losses[l], false, 5};
                setup s = setup_default(toy_write(&of, "lasso"));
                s.objective.loss = losses[l];
                s.objective.l1 = 5e-3;
                s.objective.l2 = tiny_l2 ? 1e-9 : 0;
                s.data.intercept = intercept;
                s.train.target_gap = 1e-6;
                s.train.max_passes = 2000;
                skald_outcome out;
                must_train(&s, &out);
                const double e = excess(&s, &out);
                print_message("%s%s, l2 %g: %.1f passes, gap %.1e, true %.1e\n", skald_loss_name(losses[l]),
                              intercept ? "+b" : "", s.objective.l2, out.passes, out.last.relative_gap, e);
                assert_int_equal(out.stop, SKALD_STOP_GAP);
                assert_true(out.reached && out.last.relative_gap <= 1e-6);
                assert_true(e <= out.last.relative_gap + 1e-12 && e > -1e-9);
                skald_outcome_free(&out);
                unlink(s.data.path);
            }
}

/* Five rows of two columns, all with this label. */
static const char *same_labels(const char *label) {
    static char path[128];
    snprintf(path, sizeof path, "/tmp/skald-test-%d-same.svm", (int)getpid());
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    for (int i = 0; i < 5; i++) fprintf(f, "%s 1:%d 2:%d\n", label, i, (i * i) % 3);
    fclose(f);
    return path;
}

static void an_objective_of_zero(void **state) {
    const char *labels[] = {"0", "5", "5000000", "-0.0000005"};
    for (int k = 0; k < 4; k++)
        for (int l1 = 0; l1 < 2; l1++) {
            setup s = setup_default(same_labels(labels[k]));
            s.objective.loss = SKALD_SQUARED;
            s.objective.l1 = l1 ? 1e-3 : 0;
            s.objective.l2 = l1 ? 0 : 1e-3;
            s.data.intercept = k > 0;
            s.train.target_gap = 1e-6;
            s.train.max_passes = 5000;
            skald_outcome out;
            must_train(&s, &out);
            print_message("all %s: F %g, gap %g, relative %g, %.1f passes\n", labels[k], out.last.objective,
                          out.last.gap, out.last.relative_gap, out.passes);
            assert_true(out.reached && out.last.relative_gap <= 1e-6);
            if (k == 0) assert_true(out.last.gap == 0 && out.passes < 12);
            skald_outcome_free(&out);
            unlink(s.data.path);
        }
}

static void large_labels(void **state) {
    toy of = {400, 10, 1, SKALD_SQUARED, false, 6};
    char line[4096];
    const char *path = toy_write(&of, "large");
    char scaled[160];
    snprintf(scaled, sizeof scaled, "%s.large", path);
    FILE *in = fopen(path, "r"), *out_file = fopen(scaled, "w");
    assert_true(in && out_file);
    while (fgets(line, sizeof line, in)) {
        char *rest;
        const double y = strtod(line, &rest);
        fprintf(out_file, "%.1f%s", 1e6 * (y + 3), rest);
    }
    fclose(in);
    fclose(out_file);
    setup s = setup_default(scaled);
    s.objective.loss = SKALD_SQUARED;
    s.data.intercept = true;
    s.train.target_gap = 1e-6;
    skald_outcome out;
    must_train(&s, &out);
    assert_int_equal(out.stop, SKALD_STOP_GAP);
    assert_true(excess(&s, &out) <= 1e-6);
    skald_outcome_free(&out);
    unlink(path);
    unlink(scaled);
}

static void hopeless_runs_reach_no_gap(void **state) {
    toy of = {300, 20, 1, SKALD_LOGISTIC, false, 7};
    setup s = setup_default(toy_write(&of, "hopeless"));
    s.objective.l2 = 1e-12;
    s.train.target_gap = 1.1;
    s.train.max_passes = 2;
    skald_outcome out;
    must_train(&s, &out);
    const double e = excess(&s, &out);
    print_message("F %g, gap %g, relative %g, true %g\n", out.last.objective, out.last.gap, out.last.relative_gap, e);
    assert_true(!out.reached && out.stop == SKALD_STOP_PASSES && out.last.relative_gap >= e);
    skald_outcome_free(&out);
    s.objective.l2 = 0;
    assert_int_equal(train(&s, &out), SKALD_EINVAL);
    assert_non_null(strstr(skald_error(), "--l1"));
    unlink(s.data.path);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(never_below_the_true_gap),
                                       cmocka_unit_test(tight_at_a_tiny_l2),
                                       cmocka_unit_test(intercepts_of_any_scale),
                                       cmocka_unit_test(without_regulariser_or_convexity),
                                       cmocka_unit_test(relative_gaps),
                                       cmocka_unit_test(lasso_runs),
                                       cmocka_unit_test(an_objective_of_zero),
                                       cmocka_unit_test(large_labels),
                                       cmocka_unit_test(hopeless_runs_reach_no_gap)};
    return cmocka_run_group_tests_name("certificate", tests, NULL, NULL);
}
