/* What a metric costs, one thread: measuring it, a step, a proximal step.
 *
 *   bench_metric [dense|single|sparse|softmax|l1]...
 *
 * Times are the thread's own (whatever else the machine does), the least of three. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/base.h"
#include "curvature/blas.h"
#include "curvature/gram.h"
#include "curvature/metric.h"
#include "curvature/rows.h"

static void must(skald_status st) {
    if (st == SKALD_OK) return;
    fprintf(stderr, "bench_metric: %s\n", skald_error());
    exit(1);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Non-negative, correlated: as pixels are. Of norm 1 about. */
static skald_rows dense_rows(size_t n, uint32_t dim) {
    skald_rows r = {.layout = SKALD_DENSE, .n = n, .dim = dim, .stride = (dim + 15) / 16 * 16};
    r.x = skald_zalloc(n * r.stride, sizeof *r.x);
    r.s = skald_zalloc(n, sizeof *r.s);
    for (size_t i = 0; i < n; i++) {
        double common[8];
        for (size_t k = 0; k < 8; k++) common[k] = skald_uniform(i, k);
        for (uint32_t j = 0; j < dim; j++) {
            const double u = skald_uniform(i + 1000000, j);
            r.x[i * r.stride + j] = (float)(u < 0.2 ? 2 * (common[j % 8] + u) / sqrt(dim) : 0);
        }
        r.s[i] = 1;
    }
    return r;
}

/* Words: column frequencies fall as 1/rank; about `count` in a row. */
static skald_rows sparse_rows(size_t n, uint32_t dim, size_t count) {
    skald_rows r = {.layout = SKALD_CSR, .n = n, .dim = dim};
    r.ptr = skald_zalloc(n + 1, sizeof *r.ptr);
    r.idx = skald_zalloc(n * count, sizeof *r.idx);
    r.val = skald_zalloc(n * count, sizeof *r.val);
    r.s = skald_zalloc(n, sizeof *r.s);
    uint64_t at = 0;
    for (size_t i = 0; i < n; i++) {
        const double step = log((double)dim) / (double)count;
        uint32_t last = UINT32_MAX;
        for (size_t k = 0; k < count; k++) {
            const uint32_t j = (uint32_t)(exp(step * ((double)k + skald_uniform(i, k))) - 1);
            if (j == last || j >= dim) continue;
            r.idx[at] = last = j;
            r.val[at++] = (float)(1 / sqrt((double)count));
        }
        r.ptr[i + 1] = at;
        r.s[i] = 1;
    }
    return r;
}

static double *curvatures(size_t n) {
    double *h = skald_zalloc(n, sizeof *h);
    for (size_t i = 0; i < n; i++) h[i] = 0.25 * skald_uniform(9, i) / (double)n;
    return h;
}

static void one(const char *what, const skald_rows *rows, const double *h, const double *p, skald_metric_options o,
                bool whole, double l1) {
    skald_metric *m;
    const size_t n = (size_t)o.dim * o.classes;
    double *g = skald_zalloc(n, sizeof *g), *w = skald_zalloc(n, sizeof *w), *c = skald_zalloc(n, sizeof *c);
    double best[3] = {INFINITY, INFINITY, INFINITY};
    uint32_t sweeps = 0;
    o.ridge = -1;
    o.damp = true;
    o.smoothness = 1;
    must(skald_metric_create(&o, &m));
    for (size_t j = 0; j < n; j++) g[j] = 1e-3 * skald_normal(4, j);
    for (int k = 0; k < 3; k++) {
        double t = now();
        must(skald_metric_measure(m, rows, h, p, whole));
        best[0] = fmin(best[0], now() - t);
        t = now();
        skald_metric_apply(m, g, w);
        best[1] = fmin(best[1], now() - t);
        if (!(l1 > 0)) continue;
        t = now();
        memset(w, 0, n * sizeof *w);
        must(skald_metric_proximal(m, c, g, l1, 1e-3, w, &sweeps));
        best[2] = fmin(best[2], now() - t);
    }
    const skald_metric_facts f = skald_metric_state(m);
    printf("%-34s %-8s measure %8.1f ms (%5.1f GFLOP/s), step %7.2f ms, d_eff %6.0f of %5zu, nu %.1e, sigma %.2f", what,
           skald_metric_kind_name(f.kind), 1e3 * best[0], 1e-9 * f.flops / best[0], 1e3 * best[1], f.effective, f.rows,
           f.ridge, f.damping);
    if (f.kind == SKALD_METRIC_CG) printf(", %llu products", (unsigned long long)f.products);
    if (l1 > 0) {
        size_t kept = 0;
        for (size_t j = 0; j < n; j++) kept += w[j] != 0;
        printf("; l1 %.1f ms, %u sweeps, %zu columns", 1e3 * best[2], sweeps, kept);
    }
    printf("\n");
    skald_metric_destroy(m);
    free(g);
    free(w);
    free(c);
}

static void bench_dense(void) {
    static const struct {
        uint32_t dim;
        size_t rows;
    } sizes[] = {{784, 3136}, {784, 7840}, {2000, 4000}, {2000, 8000}, {4096, 6000}};
    for (size_t k = 0; k < SKALD_ARRAY_LENGTH(sizes); k++) {
        skald_rows rows = dense_rows(sizes[k].rows, sizes[k].dim);
        double *h = curvatures(rows.n);
        char what[64];
        snprintf(what, sizeof what, "dense %zu x %u", rows.n, rows.dim);
        one(what, &rows, h, NULL, (skald_metric_options){.dim = rows.dim, .classes = 1, .l2 = 1e-5}, false, 0);
        skald_rows_free(&rows);
        free(h);
    }
}

/* The Gram alone, in double and in single precision; and the farthest entry, of what Cauchy and Schwarz allow it. */
static void bench_single(void) {
    static const uint32_t dims[] = {784, 2000};
    for (int k = 0; k < 2; k++) {
        const size_t d = dims[k];
        skald_rows rows = dense_rows(4 * d, dims[k]);
        double *h = curvatures(rows.n), *a = skald_alloc(d * d, sizeof *a), *b = skald_alloc(d * d, sizeof *b);
        const skald_blas *blas;
        skald_gram g = {0};
        double best[2] = {INFINITY, INFINITY}, worst = 0;
        must(skald_blas_open(&blas));
        for (int turn = 0; turn < 3; turn++) {
            memset(a, 0, d * d * sizeof *a);
            memset(b, 0, d * d * sizeof *b);
            double t = now();
            must(skald_gram_add(&g, blas, &rows, h, 1, a, d));
            best[0] = fmin(best[0], now() - t);
            t = now();
            must(skald_gram_add_single(&g, blas, &rows, h, b, d));
            best[1] = fmin(best[1], now() - t);
        }
        for (size_t i = 0; i < d; i++)
            for (size_t j = 0; j <= i; j++)
                worst = fmax(worst, fabs(a[i * d + j] - b[i * d + j]) / sqrt(a[i * d + i] * a[j * d + j]));
        printf("Gram %zu x %zu: double %.1f ms, single %.1f ms, farthest entry %.1e\n", rows.n, d, 1e3 * best[0],
               1e3 * best[1], worst);
        skald_gram_free(&g);
        skald_rows_free(&rows);
        free(h);
        free(a);
        free(b);
    }
}

static void bench_sparse(double l1) {
    skald_rows rows = sparse_rows(2000, 47236, 76), few = sparse_rows(4000, 2000, 20);
    double *h = curvatures(rows.n), *hf = curvatures(few.n);
    one("sparse 2000 x 47236", &rows, h, NULL, (skald_metric_options){.dim = 47236, .classes = 1, .l2 = 1e-5}, false,
        l1);
    one("sparse 4000 x 2000", &few, hf, NULL, (skald_metric_options){.dim = 2000, .classes = 1, .l2 = 1e-5}, false, l1);
    skald_rows_free(&rows);
    skald_rows_free(&few);
    free(h);
    free(hf);
}

static void bench_softmax(void) {
    static const struct {
        uint32_t dim, classes;
        size_t rows;
    } sizes[] = {{64, 10, 1797}, {784, 10, 3136}, {784, 100, 3136}};
    for (size_t k = 0; k < SKALD_ARRAY_LENGTH(sizes); k++) {
        const uint32_t classes = sizes[k].classes;
        skald_rows rows = dense_rows(sizes[k].rows, sizes[k].dim);
        double *h = skald_alloc(rows.n, sizeof *h), *p = skald_alloc(rows.n * classes, sizeof *p);
        for (size_t i = 0; i < rows.n * classes; i++) p[i] = 2 * skald_normal(3, i);
        skald_curvature_softmax(classes, rows.n, rows.s, 1 / (double)rows.n, p, h);
        char what[64];
        snprintf(what, sizeof what, "softmax %zu x %u, %u classes", rows.n, rows.dim, classes);
        one(what, &rows, h, p, (skald_metric_options){.dim = rows.dim, .classes = classes, .l2 = 1e-4}, false, 0);
        skald_rows_free(&rows);
        free(h);
        free(p);
    }
}

static void bench_l1(void) {
    skald_rows rows = dense_rows(3136, 784);
    double *h = curvatures(rows.n);
    one("dense 3136 x 784", &rows, h, NULL, (skald_metric_options){.dim = 784, .classes = 1, .l2 = 1e-5}, false, 5e-4);
    skald_rows_free(&rows);
    free(h);
    bench_sparse(1e-3);
}

int main(int argc, char **argv) {
    static const char *const all[] = {"", "dense", "single", "sparse", "softmax", "l1"};
    for (int k = 1; k < (argc > 1 ? argc : 6); k++) {
        const char *what = argc > 1 ? argv[k] : all[k];
        if (strcmp(what, "dense") == 0) bench_dense();
        if (strcmp(what, "single") == 0) bench_single();
        if (strcmp(what, "sparse") == 0) bench_sparse(0);
        if (strcmp(what, "softmax") == 0) bench_softmax();
        if (strcmp(what, "l1") == 0) bench_l1();
    }
    return 0;
}
