/* The metric against naive loops: H (B g) = g for every kind, the rules for nu and sigma from an exact spectrum, the
 * conditions of a minimum for a proximal step. Needs OpenBLAS. */
#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/base.h"
#include "curvature/blas.h"
#include "curvature/gram.h"
#include "curvature/metric.h"
#include "curvature/rows.h"

typedef struct sample {
    skald_rows rows;
    double *h, *p;
    uint32_t classes;
} sample;

static void *zeros(size_t count, size_t size) {
    void *all = skald_zalloc(count ? count : 1, size);
    assert_non_null(all);
    return all;
}
static double *vector(size_t n, uint64_t seed) {
    double *v = zeros(n, sizeof *v);
    for (size_t j = 0; j < n; j++) v[j] = skald_normal(seed, j);
    return v;
}

typedef struct shape {
    size_t n;
    uint32_t dim, classes;
    double density, spread; /* column j is times spread^(j/dim) */
    bool intercept, correlated;
    uint64_t seed;
} shape;

/* Dense rows; every seventh has no curvature. */
static sample make(shape t) {
    sample s = {.classes = t.classes ? t.classes : 1};
    s.rows = (skald_rows){.layout = SKALD_DENSE, .n = t.n, .dim = t.dim, .stride = (t.dim + 15) / 16 * 16};
    s.rows.x = zeros(t.n * s.rows.stride, sizeof *s.rows.x);
    s.rows.s = zeros(t.n, sizeof *s.rows.s);
    s.rows.y = zeros(t.n, sizeof *s.rows.y);
    s.h = zeros(t.n, sizeof *s.h);
    for (size_t i = 0; i < t.n; i++) {
        const double common = skald_normal(t.seed + 5, i);
        for (uint32_t j = 0; j < t.dim; j++) {
            if (skald_uniform(t.seed + i, j) >= t.density) continue;
            double x = skald_normal(t.seed + 1000 + i, j);
            if (t.correlated) x = common + 0.03 * x;
            s.rows.x[i * s.rows.stride + j] = (float)(x * pow(t.spread, (double)j / t.dim) + (t.spread > 1 ? 0.5 : 0));
        }
        if (t.intercept) s.rows.x[i * s.rows.stride + t.dim - 1] = 1;
        s.rows.s[i] = 1;
        s.h[i] = i % 7 == 3 ? 0 : skald_uniform(t.seed + 2, i) / (double)t.n;
    }
    if (s.classes == 1) return s;
    s.p = zeros(t.n * s.classes, sizeof *s.p);
    for (size_t k = 0; k < t.n * s.classes; k++) s.p[k] = 2 * skald_normal(t.seed + 3, k);
    for (size_t i = 0; i < t.n; i++) skald_softmax(s.classes, s.p + i * s.classes, s.p + i * s.classes);
    return s;
}

static sample sparse_of(const sample *from) {
    const skald_rows *x = &from->rows;
    sample s = {.classes = from->classes};
    s.rows = (skald_rows){.layout = SKALD_CSR, .n = x->n, .dim = x->dim};
    s.rows.ptr = zeros(x->n + 1, sizeof *s.rows.ptr);
    s.rows.idx = zeros(x->n * x->dim, sizeof *s.rows.idx);
    s.rows.val = zeros(x->n * x->dim, sizeof *s.rows.val);
    s.rows.s = zeros(x->n, sizeof *s.rows.s);
    s.h = zeros(x->n, sizeof *s.h);
    memcpy(s.h, from->h, x->n * sizeof *s.h);
    uint64_t at = 0;
    for (size_t i = 0; i < x->n; i++) {
        for (uint32_t j = 0; j < x->dim; j++)
            if (x->x[i * x->stride + j] != 0) {
                s.rows.idx[at] = j;
                s.rows.val[at++] = x->x[i * x->stride + j];
            }
        s.rows.ptr[i + 1] = at;
        s.rows.s[i] = 1;
    }
    if (!from->p) return s;
    s.p = zeros(x->n * from->classes, sizeof *s.p);
    memcpy(s.p, from->p, x->n * from->classes * sizeof *s.p);
    return s;
}

static void drop(sample *s) {
    skald_rows_free(&s->rows);
    free(s->h);
    free(s->p);
}

static double intercept_floor; /* of the last measure */

/* out = H v of dense rows, in long double, R from l2 and nu. */
static void hessian(const sample *s, bool intercept, double l2, double nu, const double *v, double *out) {
    const size_t d = s->rows.dim, C = s->classes;
    double total = 0;
    long double *sum = zeros(d * C, sizeof *sum), *z = zeros(C, sizeof *z);
    for (size_t i = 0; i < s->rows.n; i++) {
        const float *x = s->rows.x + i * s->rows.stride;
        long double mean = 0, spread = 1;
        for (size_t c = 0; c < C; c++) {
            const double p = C > 1 ? s->p[i * C + c] : 0;
            z[c] = 0;
            for (size_t j = 0; j < d; j++) z[c] += (long double)x[j] * (long double)v[c * d + j];
            mean += p * z[c];
            spread -= p * p;
        }
        total += s->h[i] * (C > 1 ? (double)(spread / (long double)C) : 1);
        for (size_t c = 0; c < C; c++) {
            const long double t = s->h[i] * (C > 1 ? s->p[i * C + c] * (z[c] - mean) : z[c]);
            for (size_t j = 0; j < d; j++) sum[c * d + j] += t * (long double)x[j];
        }
    }
    for (size_t k = 0; k < d * C; k++) {
        const double r = intercept && k % d == d - 1 ? fmax(nu, intercept_floor * total) : l2 + nu;
        out[k] = (double)(sum[k] + (long double)r * (long double)v[k]);
    }
    free(sum);
    free(z);
}

static double distance(size_t n, const double *a, const double *b) {
    double difference = 0, size = 0;
    for (size_t k = 0; k < n; k++) {
        difference += (a[k] - b[k]) * (a[k] - b[k]);
        size += b[k] * b[k];
    }
    return sqrt(difference / size);
}

static skald_metric *metric_of(skald_metric_options o) {
    skald_metric *m = NULL;
    if (o.classes == 0) o.classes = 1;
    if (o.smoothness == 0) o.smoothness = 4;
    if (skald_metric_create(&o, &m) != SKALD_OK) fail_msg("%s", skald_error());
    return m;
}
static void measure(skald_metric *m, const sample *s, bool whole) {
    intercept_floor = whole ? 1e-12 : 1e-8;
    if (skald_metric_measure(m, &s->rows, s->h, s->p, whole) != SKALD_OK) fail_msg("%s", skald_error());
}

/* |H B g - g| / |g|, for a g that H maps something to (softmax: a gradient's classes sum to 0). */
static double residual(skald_metric *m, const sample *dense, bool intercept, double l2) {
    const size_t n = (size_t)dense->rows.dim * dense->classes, d = dense->rows.dim;
    const skald_metric_facts facts = skald_metric_state(m);
    double *v = vector(n, 77), *g = zeros(n, sizeof *g), *out = zeros(n + 40, sizeof *out), *back = zeros(n, sizeof *g);
    if (dense->classes > 1 && intercept) { /* the one direction without curvature */
        double mean = 0;
        for (size_t c = 0; c < dense->classes; c++) mean += v[c * d + d - 1] / dense->classes;
        for (size_t c = 0; c < dense->classes; c++) v[c * d + d - 1] -= mean;
    }
    hessian(dense, intercept, l2, facts.ridge, v, g);
    const double decrement = skald_metric_apply(m, g, out);
    hessian(dense, intercept, l2, facts.ridge, out, back);
    double reference = 0;
    for (size_t k = 0; k < n; k++) {
        out[k] /= facts.damping;
        back[k] /= facts.damping;
        reference += g[k] * v[k] * facts.damping;
    }
    assert_true(fabs(decrement - reference) <= 1e-2 * reference);
    const double far = distance(n, back, g);
    free(v);
    free(g);
    free(out);
    free(back);
    return far;
}

static void missing_library_is_said(void **state) {
    static const char *const names[][2] = {{"libskald-no-such-library.so.7", NULL}};
    skald_blas blas;
    assert_int_equal(skald_blas_load(names, 1, &blas, NULL), SKALD_EUNSUPPORTED);
    assert_non_null(strstr(skald_error(), "libopenblas0"));
}

static int threads(void) {
    int count = 0;
    DIR *tasks = opendir("/proc/self/task");
    assert_non_null(tasks);
    while (readdir(tasks)) count++;
    closedir(tasks);
    return count;
}

/* Seen to fail without the environment of blas.c: two threads more, and "Prescott" on a processor of 2023. */
static void library_runs_in_this_thread_alone(void **state) {
    static const char *const names[][2] = {{"libopenblas.so.0", NULL}};
    const int before = threads();
    const char *const path = getenv("PATH");
    skald_blas blas;
    char core[32] = "";
    if (skald_blas_load(names, 1, &blas, core) != SKALD_OK) fail_msg("%s", skald_error());
    assert_int_equal(threads(), before);
    assert_null(getenv("OPENBLAS_NUM_THREADS"));
    assert_ptr_equal(getenv("PATH"), path);
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) assert_string_not_equal(core, "Prescott");
#endif
}

static void exact_of_dense_and_sparse_rows(void **state) {
    static const shape shapes[] = {
        {.n = 300, .dim = 40, .density = 1, .spread = 1, .intercept = true},
        {.n = 300, .dim = 200, .density = 0.03, .spread = 1, .intercept = true}, /* entries */
        {.n = 300, .dim = 61, .density = 0.5, .spread = 1, .intercept = false}}; /* blocks */
    for (size_t k = 0; k < SKALD_ARRAY_LENGTH(shapes); k++) {
        sample dense = make(shapes[k]), sparse = sparse_of(&dense);
        skald_metric *m = metric_of((skald_metric_options){
            .dim = shapes[k].dim, .l2 = 1e-3, .intercept = shapes[k].intercept, .ridge = -1, .damp = true});
        assert_int_equal(skald_metric_state(m).kind, SKALD_METRIC_PAIRS);
        measure(m, &dense, true);
        assert_int_equal(skald_metric_state(m).kind, SKALD_METRIC_CHOLESKY);
        assert_true(skald_metric_state(m).ridge == 0 && skald_metric_state(m).damping == 1);
        assert_true(residual(m, &dense, shapes[k].intercept, 1e-3) < 1e-10);
        skald_metric *again = metric_of((skald_metric_options){
            .dim = shapes[k].dim, .l2 = 1e-3, .intercept = shapes[k].intercept, .ridge = -1, .damp = true});
        double *g = vector(shapes[k].dim, 3), *one = vector(shapes[k].dim, 0), *other = vector(shapes[k].dim, 0);
        measure(again, &sparse, true);
        measure(again, &dense, true);
        skald_metric_apply(m, g, one);
        skald_metric_apply(again, g, other);
        assert_memory_equal(one, other, shapes[k].dim * sizeof *one);
        skald_metric_destroy(again);
        free(g);
        free(one);
        free(other);
        measure(m, &sparse, true); /* the same object again */
        assert_true(residual(m, &dense, shapes[k].intercept, 1e-3) < 1e-10);
        skald_metric_destroy(m);
        drop(&dense);
        drop(&sparse);
    }
}

/* Columns that differ by 1e5, the least l2: the step still solves. Seen to fail with the Gram in single precision. */
static void raw_units(void **state) {
    const shape t = {.n = 2000, .dim = 60, .density = 1, .spread = 1e5, .intercept = true};
    sample s = make(t);
    skald_metric *m = metric_of((skald_metric_options){.dim = 60, .l2 = 1e-9, .intercept = true, .ridge = -1});
    measure(m, &s, true);
    assert_true(skald_metric_state(m).lift == 0);
    assert_true(residual(m, &s, true, 1e-9) < 1e-8);
    for (size_t i = 0; i < t.n; i++) /* one column twice: no pivot is left for it */
        s.rows.x[i * s.rows.stride + 10] = 3 * s.rows.x[i * s.rows.stride + 50];
    measure(m, &s, true);
    assert_true(skald_metric_state(m).lift > 0 && skald_metric_state(m).lift < 1e-10);
    assert_true(residual(m, &s, true, 1e-9) < 1e-4);
    skald_metric_destroy(m);
    drop(&s);
}

/* d_eff of a few rows by brute force: eigenvalues of the m x m Gram by Jacobi's rotations. */
static double effective(const sample *s, double c) {
    const size_t m = s->rows.n;
    double *k = zeros(m * m, sizeof *k), sum = 0;
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < m; j++) {
            for (size_t a = 0; a < s->rows.dim; a++)
                k[i * m + j] += (double)s->rows.x[i * s->rows.stride + a] * (double)s->rows.x[j * s->rows.stride + a];
            k[i * m + j] *= sqrt(s->h[i] * s->h[j]);
        }
    for (int sweep = 0; sweep < 12; sweep++)
        for (size_t p = 0; p < m; p++)
            for (size_t q = p + 1; q < m; q++) {
                if (fabs(k[p * m + q]) < 1e-300) continue;
                const double theta = (k[q * m + q] - k[p * m + p]) / (2 * k[p * m + q]);
                const double t = (theta >= 0 ? 1 : -1) / (fabs(theta) + sqrt(theta * theta + 1));
                const double cosine = 1 / sqrt(t * t + 1), sine = t * cosine;
                for (size_t a = 0; a < m; a++) {
                    const double x = k[a * m + p], y = k[a * m + q];
                    k[a * m + p] = cosine * x - sine * y;
                    k[a * m + q] = sine * x + cosine * y;
                }
                for (size_t a = 0; a < m; a++) {
                    const double x = k[p * m + a], y = k[q * m + a];
                    k[p * m + a] = cosine * x - sine * y;
                    k[q * m + a] = sine * x + cosine * y;
                }
            }
    for (size_t i = 0; i < m; i++) sum += k[i * m + i] / (k[i * m + i] + c);
    free(k);
    return sum;
}

static void ridge_and_damping_follow_the_rules(void **state) {
    const shape few = {.n = 120, .dim = 100, .density = 1, .spread = 1},
                many = {.n = 120, .dim = 20, .density = 1, .spread = 1};
    const shape wide = {.n = 120, .dim = 4200, .density = 0.1, .spread = 1};
    const shape *const shapes[] = {&few, &wide};
    for (int k = 0; k < 2; k++) {
        sample dense = make(*shapes[k]), sparse = sparse_of(&dense);
        skald_metric *m =
            metric_of((skald_metric_options){.dim = shapes[k]->dim, .l2 = 1e-9, .ridge = -1, .damp = true});
        for (int kind = 0; kind < 2; kind++) {
            measure(m, kind ? &sparse : &dense, false);
            const skald_metric_facts f = skald_metric_state(m);
            assert_int_equal(f.rows, 103);
            assert_true(f.ridge > 0 && f.damping == 1);
            const double d_eff = effective(&dense, 1e-9 + f.ridge);
            if (!(d_eff > 0.8 * 103 / 3 && d_eff < 1.2 * 103 / 3)) fail_msg("d_eff %g, said %g", d_eff, f.effective);
            assert_true(fabs(f.effective - 103.0 / 3) < 1e-3 * 103);
            assert_true(residual(m, &dense, false, 1e-9) < 1e-9);
        }
        measure(m, &dense, true);
        assert_true(skald_metric_state(m).ridge == 0);
        skald_metric_destroy(m);
        drop(&dense);
        drop(&sparse);
    }
    sample s = make(many);
    skald_metric *m = metric_of((skald_metric_options){.dim = 20, .l2 = 1e-2, .ridge = -1, .damp = true});
    measure(m, &s, false);
    const skald_metric_facts f = skald_metric_state(m);
    const double r = effective(&s, 1e-2) / 103;
    assert_true(f.ridge == 0 && fabs(f.effective / 103 - r) < 1e-9);
    assert_true(fabs(f.damping - (1 - r) * (1 - r) / (1 + r)) < 1e-9);
    assert_true(residual(m, &s, false, 1e-2) < 1e-10); /* through the inverse of the factor */
    skald_metric_destroy(m);
    drop(&s);
}

static void woodbury(void **state) {
    const shape t = {.n = 150, .dim = 4300, .density = 0.05, .spread = 1, .intercept = true};
    sample dense = make(t), sparse = sparse_of(&dense);
    const double l2s[] = {1e-3, 1e-9};
    for (int k = 0; k < 2; k++) {
        skald_metric *m = metric_of((skald_metric_options){.dim = t.dim, .l2 = l2s[k], .intercept = true, .ridge = -1});
        measure(m, &dense, true);
        assert_int_equal(skald_metric_state(m).kind, SKALD_METRIC_WOODBURY);
        const double first = residual(m, &dense, true, l2s[k]);
        measure(m, &sparse, true);
        const double second = residual(m, &dense, true, l2s[k]);
        assert_true(first < 1e-5 && second < 1e-5);
        skald_metric_destroy(m);
    }
    drop(&dense);
    drop(&sparse);
}

/* More columns than rows, one of them 1e5 as large as another, next to no l2: a step is exact all the same, through the
 * matrix of the rows. Seen to fail (4e-4) without the corrections. */
static void few_rows_in_raw_units(void **state) {
    const shape t = {.n = 40, .dim = 600, .density = 1, .spread = 1e5, .intercept = true};
    sample dense = make(t), sparse = sparse_of(&dense);
    double columns[600];
    for (int j = 0; j < 600; j++) columns[j] = pow(1e10, j / 600.0);
    skald_metric *m =
        metric_of((skald_metric_options){.dim = t.dim, .l2 = 1e-3, .intercept = true, .ridge = -1, .columns = columns});
    for (int turn = 0; turn < 2; turn++) {
        measure(m, turn ? &sparse : &dense, true);
        assert_int_equal(skald_metric_state(m).kind, SKALD_METRIC_WOODBURY);
        const double far = residual(m, &dense, true, 1e-3);
        if (!(far < 1e-8)) fail_msg("turn %d: %g", turn, far);
    }
    skald_metric_destroy(m);
    drop(&dense);
    drop(&sparse);
}

/* A column that no sampled row has: its B is not 1/l2. */
static void rare_columns(void **state) {
    const shape t = {.n = 400, .dim = 30, .density = 1, .spread = 1};
    sample s = make(t);
    double columns[30], g[30] = {0}, out[30], total = 0;
    for (int j = 0; j < 30; j++) columns[j] = 1;
    for (size_t i = 0; i < t.n; i++) {
        s.rows.x[i * s.rows.stride + 4] = 0;
        total += s.h[i];
    }
    g[4] = 1;
    skald_metric *m = metric_of((skald_metric_options){.dim = 30, .l2 = 1e-9, .ridge = 0, .columns = columns});
    measure(m, &s, false);
    skald_metric_apply(m, g, out);
    assert_true(fabs(out[4] * total - 1) < 1e-6);
    measure(m, &s, true);
    skald_metric_apply(m, g, out);
    assert_true(fabs(out[4] * 1e-9 - 1) < 1e-6);
    skald_metric_destroy(m);
    drop(&s);
}

static void pairs_satisfy_the_secant_equation(void **state) {
    const shape t = {.n = 200, .dim = 25, .density = 1, .spread = 1};
    sample s = make(t);
    skald_metric *m =
        metric_of((skald_metric_options){.dim = 25, .l2 = 1e-3, .ridge = -1, .damp = true, .pairs = 3, .length = 28});
    double g[28] = {1}, out[28], y[25], back[25];
    assert_true(fabs(skald_metric_apply(m, g, out) - 0.25) < 1e-15); /* I / smoothness */
    assert_true(out[0] == 0.25 && out[1] == 0);
    for (int measured = 0; measured < 2; measured++) {
        for (uint64_t k = 0; k < 5; k++) { /* more than are kept */
            double *v = vector(25, k), *around = vector(25, 100 + k);
            hessian(&s, false, 1e-3, 0, v, y);
            for (int j = 0; j < 25; j++) y[j] += 1e-4 * around[j];
            assert_true(skald_metric_pair(m, v, y));
            memcpy(g, y, sizeof y);
            skald_metric_apply(m, g, out);
            assert_true(distance(25, out, v) < 1e-10);
            assert_true(out[25] == 0 && out[27] == 0);
            for (int j = 0; j < 25; j++) back[j] = -y[j];
            assert_false(skald_metric_pair(m, v, back));
            free(v);
            free(around);
        }
        assert_int_equal(skald_metric_state(m).pairs, 3);
        measure(m, &s, false);
        assert_int_equal(skald_metric_state(m).pairs, 3);
    }
    skald_metric_drop_pairs(m);
    assert_true(residual(m, &s, false, 1e-3) < 1e-10);
    const double zero[25] = {0};
    assert_false(skald_metric_pair(m, zero, zero));
    skald_metric_destroy(m);
    drop(&s);
}

static void softmax(void **state) {
    static const shape shapes[] = {
        {.n = 300, .dim = 20, .classes = 5, .density = 1, .spread = 1, .intercept = true},
        {.n = 300, .dim = 401, .classes = 5, .density = 1, .spread = 1, .intercept = true},   /* a block a class */
        {.n = 60, .dim = 2049, .classes = 3, .density = 0.2, .spread = 1, .intercept = true}, /* one for all */
        {.n = 60, .dim = 4100, .classes = 2, .density = 0.1, .spread = 1, .intercept = false} /* the diagonal */
    };
    for (size_t k = 0; k < SKALD_ARRAY_LENGTH(shapes); k++) {
        const shape *t = shapes + k;
        sample dense = make(*t), sparse = sparse_of(&dense);
        skald_metric *m = metric_of((skald_metric_options){.dim = t->dim,
                                                           .classes = t->classes,
                                                           .length = (uint64_t)t->dim * t->classes + 40,
                                                           .l2 = 1e-3,
                                                           .intercept = t->intercept,
                                                           .ridge = -1,
                                                           .damp = true});
        for (int turn = 0; turn < 4; turn++) {
            measure(m, turn % 2 ? &sparse : &dense, turn < 2);
            const skald_metric_facts f = skald_metric_state(m);
            assert_int_equal(f.kind, k == 0 ? SKALD_METRIC_CHOLESKY : SKALD_METRIC_CG);
            assert_true((f.ridge > 0) == (turn >= 2 && f.rows < 3 * (size_t)t->dim &&
                                          f.effective > 0.33 * (double)f.rows * (t->classes - 1)));
            const double far = residual(m, &dense, t->intercept, 1e-3);
            if (!(far < (k == 0 ? 1e-10 : 1e-2))) fail_msg("shape %zu, turn %d: %g", k, turn, far);
            const unsigned long long products = skald_metric_state(m).products;
            if (k == 1 && turn < 2 && products > 12) fail_msg("turn %d: %llu products", turn, products);
            if (getenv("SKALD_TEST_SHOW")) printf("shape %zu, turn %d: %g after %llu\n", k, turn, far, products);
        }
        skald_metric_destroy(m);
        drop(&dense);
        drop(&sparse);
    }
}

/* Violation of the conditions of a minimum by w, over l1; H, c and g in the naive form. */
static double violation(const sample *s, bool intercept, double l2, skald_metric_facts f, const double *c,
                        const double *g, double l1, const double *w) {
    const size_t d = (size_t)s->rows.dim * s->classes;
    double *moved = zeros(d, sizeof *moved), *q = zeros(d, sizeof *q), worst = 0;
    for (size_t j = 0; j < d; j++) moved[j] = w[j] - c[j];
    hessian(s, intercept, l2, f.ridge, moved, q);
    for (size_t j = 0; j < d; j++) {
        const double slope = q[j] / f.damping + g[j];
        const double penalty = intercept && j % s->rows.dim == s->rows.dim - 1 ? 0 : l1;
        worst = fmax(worst, w[j] != 0 ? fabs(slope + (w[j] > 0 ? penalty : -penalty)) : fabs(slope) - penalty);
    }
    free(moved);
    free(q);
    return worst / l1;
}

/* Slow and simple: proximal gradient steps of 1/L. */
static void ista(const sample *s, bool intercept, double l2, skald_metric_facts f, const double *c, const double *g,
                 double l1, double *w) {
    const size_t d = s->rows.dim;
    double *moved = zeros(d, sizeof *moved), *q = zeros(d, sizeof *q), L = 0;
    for (size_t i = 0; i < s->rows.n; i++)
        for (size_t j = 0; j < d; j++)
            L += s->h[i] * (double)s->rows.x[i * s->rows.stride + j] * (double)s->rows.x[i * s->rows.stride + j];
    L = (L + l2 + f.ridge) / f.damping;
    for (int k = 0; k < 20000; k++) {
        for (size_t j = 0; j < d; j++) moved[j] = w[j] - c[j];
        hessian(s, intercept, l2, f.ridge, moved, q);
        for (size_t j = 0; j < d; j++)
            w[j] = skald_soft(w[j] - (q[j] / f.damping + g[j]) / L, intercept && j == d - 1 ? 0 : l1 / L);
    }
    free(moved);
    free(q);
}

static void proximal_steps(void **state) {
    static const struct {
        shape t;
        double l2, l1; /* l1: of the largest slope */
        bool whole, ista;
    } cases[] = {
        {{.n = 100, .dim = 20, .density = 1, .spread = 1, .intercept = true}, 1e-3, 0.2, true, true},
        {{.n = 200, .dim = 20, .density = 1, .spread = 1, .intercept = true}, 1e-3, 0.2, false, true},
        {{.n = 400, .dim = 120, .density = 1, .spread = 1, .correlated = true}, 1e-7, 1e-4, true, false},
        {{.n = 400, .dim = 120, .density = 1, .spread = 1e5, .intercept = true}, 1e-9, 1e-6, true, false},
        {{.n = 120, .dim = 4200, .density = 0.05, .spread = 1, .intercept = true}, 1e-6, 0.1, false, false},
        {{.n = 120, .dim = 4200, .density = 0.05, .spread = 1, .intercept = true}, 1e-4, 1e-4, true, false},
        {{.n = 60, .dim = 8000, .density = 0.05, .spread = 1, .intercept = true},
         1e-4,
         1e-3,
         false,
         false}, /* > 4096 */
        {{.n = 200, .dim = 24, .classes = 4, .density = 1, .spread = 1, .intercept = true}, 1e-4, 0.1, true, false},
    };
    for (size_t k = 0; k < SKALD_ARRAY_LENGTH(cases); k++) {
        const shape t = cases[k].t;
        sample dense = make(t), sparse = sparse_of(&dense);
        const size_t n = (size_t)t.dim * dense.classes;
        skald_metric *m = metric_of((skald_metric_options){.dim = t.dim,
                                                           .classes = dense.classes,
                                                           .l2 = cases[k].l2,
                                                           .intercept = t.intercept,
                                                           .ridge = -1,
                                                           .damp = true});
        double *c = vector(n, 5), *v = vector(n, 6), *g = zeros(n, sizeof *g), *w = zeros(n, sizeof *w), most = 0;
        hessian(&dense, t.intercept, cases[k].l2, 0, v, g);
        for (size_t j = 0; j < n; j++) most = fmax(most, fabs(g[j]));
        const double l1 = cases[k].l1 * most;
        for (int kind = 0; kind < 2; kind++) {
            measure(m, kind ? &sparse : &dense, cases[k].whole);
            uint32_t sweeps;
            for (size_t j = 0; j < n; j++) w[j] = j % 3 ? 0 : c[j];
            if (skald_metric_proximal(m, c, g, l1, 1e-3, w, &sweeps) != SKALD_OK) fail_msg("%s", skald_error());
            const skald_metric_facts f = skald_metric_state(m);
            const double by = violation(&dense, t.intercept, cases[k].l2, f, c, g, l1, w);
            size_t zero = 0;
            for (size_t j = 0; j < n; j++) zero += w[j] == 0;
            if (!(by < 2e-3)) fail_msg("case %zu: %g after %u sweeps, %zu zeros", k, by, sweeps, zero);
            if (zero == 0) fail_msg("case %zu: no zeros", k);
            if (getenv("SKALD_TEST_SHOW"))
                printf("case %zu kind %d: violation %.1e, %u sweeps, %zu zeros of %zu\n", k, kind, by, sweeps, zero, n);
            if (!cases[k].ista) continue;
            assert_int_equal(skald_metric_proximal(m, c, g, l1, 1e-9, w, NULL), SKALD_OK);
            double *slow = zeros(n, sizeof *slow);
            ista(&dense, t.intercept, cases[k].l2, f, c, g, l1, slow);
            assert_true(distance(n, w, slow) < 1e-6);
            for (size_t j = 0; j < n; j++) assert_int_equal(w[j] == 0, slow[j] == 0);
            free(slow);
        }
        double *step = zeros(n, sizeof *step);
        assert_int_equal(skald_metric_proximal(m, c, g, 0, 1e-3, w, NULL), SKALD_OK);
        skald_metric_apply(m, g, step);
        for (size_t j = 0; j < n; j++) step[j] = c[j] - step[j];
        assert_true(distance(n, w, step) < 1e-12);
        free(step);
        skald_metric_destroy(m);
        drop(&dense);
        drop(&sparse);
        free(c);
        free(v);
        free(g);
        free(w);
    }
}

static void bad_samples_leave_the_pairs(void **state) {
    const shape t = {.n = 50, .dim = 8, .density = 1, .spread = 1};
    sample s = make(t);
    skald_metric *m = metric_of((skald_metric_options){.dim = 8, .l2 = 1e-3, .ridge = -1, .pairs = 2});
    double v[8] = {1}, y[8] = {2}, out[8];
    assert_int_equal(skald_metric_proximal(m, v, y, 1, 1e-3, out, NULL), SKALD_EINVAL);
    assert_true(skald_metric_pair(m, v, y));
    measure(m, &s, true);
    const float before = s.rows.x[5];
    s.rows.x[5] = NAN;
    assert_int_equal(skald_metric_measure(m, &s.rows, s.h, NULL, true), SKALD_ENUMERIC);
    assert_int_equal(skald_metric_state(m).kind, SKALD_METRIC_PAIRS);
    assert_int_equal(skald_metric_state(m).pairs, 1);
    skald_metric_apply(m, y, out);
    assert_true(out[0] == 1 && out[1] == 0);
    s.rows.x[5] = before;
    s.h[3] = -1;
    assert_int_equal(skald_metric_measure(m, &s.rows, s.h, NULL, true), SKALD_ENUMERIC);
    for (size_t i = 0; i < t.n; i++) s.h[i] = 0;
    assert_int_equal(skald_metric_measure(m, &s.rows, s.h, NULL, true), SKALD_EINVAL);
    s.rows.dim = 7;
    assert_int_equal(skald_metric_measure(m, &s.rows, s.h, NULL, true), SKALD_EINVAL);
    skald_metric_destroy(m);
    drop(&s);
}

static void margins_and_curvatures(void **state) {
    const shape t = {.n = 40, .dim = 37, .classes = 3, .density = 0.5, .spread = 1};
    sample dense = make(t), sparse = sparse_of(&dense);
    double *w = vector(37 * 3, 1), z[30], same[30], h[10];
    skald_curvature_margins(&dense.rows, 7, 17, 3, w, z);
    skald_curvature_margins(&sparse.rows, 7, 17, 3, w, same);
    for (size_t i = 0; i < 10; i++)
        for (size_t c = 0; c < 3; c++) {
            double sum = 0;
            for (size_t j = 0; j < 37; j++)
                sum += (double)dense.rows.x[(i + 7) * dense.rows.stride + j] * w[c * 37 + j];
            assert_true(fabs(z[i * 3 + c] - sum) < 1e-12 && fabs(same[i * 3 + c] - sum) < 1e-12);
        }
    for (int loss = SKALD_SQUARED; loss < SKALD_SOFTMAX; loss++) {
        const skald_objective o = {.loss = (skald_loss)loss, .huber_delta = 0.3, .classes = 1};
        double y[10], s[10];
        for (int i = 0; i < 10; i++) {
            y[i] = i % 2 ? 1 : -1;
            s[i] = i;
        }
        skald_curvature_second(&o, 10, z, y, s, 0.1, h);
        for (int i = 0; i < 10; i++) assert_true(h[i] == 0.1 * s[i] * skald_loss_second(o.loss, 0.3, z[i], y[i]));
    }
    skald_curvature_softmax(3, 10, dense.rows.s, 0.5, z, h);
    for (int i = 0; i < 10; i++) {
        double p[3];
        skald_softmax(3, same + 3 * i, p);
        assert_true(h[i] == 0.5 && fabs(z[3 * i] - p[0]) < 1e-12 && fabs(z[3 * i + 2] - p[2]) < 1e-12);
    }
    free(w);
    drop(&dense);
    drop(&sparse);
}

static void single_precision_loses_no_more_than_its_digits(void **state) {
    const shape t = {.n = 1500, .dim = 70, .density = 1, .spread = 1e5};
    sample s = make(t);
    const skald_blas *blas;
    skald_gram work = {0};
    double *a = zeros(70 * 80, sizeof *a), *b = zeros(70 * 80, sizeof *b);
    assert_int_equal(skald_blas_open(&blas), SKALD_OK);
    assert_int_equal(skald_gram_add(&work, blas, &s.rows, s.h, 1, a, 80), SKALD_OK);
    assert_int_equal(skald_gram_add_single(&work, blas, &s.rows, s.h, b, 80), SKALD_OK);
    for (size_t j = 0; j < 70; j++)
        for (size_t k = 0; k <= j; k++)
            assert_true(fabs(a[j * 80 + k] - b[j * 80 + k]) < 1e-6 * sqrt(a[j * 80 + j] * a[k * 80 + k]));
    skald_gram_free(&work);
    free(a);
    free(b);
    drop(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(missing_library_is_said),
        cmocka_unit_test(library_runs_in_this_thread_alone),
        cmocka_unit_test(exact_of_dense_and_sparse_rows),
        cmocka_unit_test(raw_units),
        cmocka_unit_test(ridge_and_damping_follow_the_rules),
        cmocka_unit_test(woodbury),
        cmocka_unit_test(few_rows_in_raw_units),
        cmocka_unit_test(rare_columns),
        cmocka_unit_test(pairs_satisfy_the_secant_equation),
        cmocka_unit_test(softmax),
        cmocka_unit_test(proximal_steps),
        cmocka_unit_test(bad_samples_leave_the_pairs),
        cmocka_unit_test(margins_and_curvatures),
        cmocka_unit_test(single_precision_loses_no_more_than_its_digits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
