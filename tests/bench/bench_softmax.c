/* Softmax on dense rows, one thread: the gradient of Skald's CPU backend beside two matrix products of OpenBLAS.
 *
 *   bench_softmax
 *
 * The peer makes Z = X W' and G = R' X over sub-batches that stay in the caches, without the losses in between: dgemm
 * on rows widened to doubles, as Skald's sums are, and sgemm, which has half of the digits. Times are medians of turns.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "skald/compute.h"

#define ROUNDS 9
enum { ROW_MAJOR = 101, PLAIN = 111, TRANSPOSED = 112, BATCH = 128 };

typedef void dgemm_function(int order, int ta, int tb, int m, int n, int k, double alpha, const double *a, int lda,
                            const double *b, int ldb, double beta, double *c, int ldc);
typedef void sgemm_function(int order, int ta, int tb, int m, int n, int k, float alpha, const float *a, int lda,
                            const float *b, int ldb, float beta, float *c, int ldc);

typedef struct bench {
    skald_compute *c;
    skald_shard *shard;
    size_t n;
    int d, classes;
    const float *x;
    double *w, *g, *wide, *z;
    float *wf, *gf, *zf;
    dgemm_function *dgemm;
    sgemm_function *sgemm;
} bench;

static void must(skald_status st) {
    if (st == SKALD_OK) return;
    fprintf(stderr, "bench_softmax: %s\n", skald_error());
    exit(1);
}

static void own(bench *b) {
    const skald_batch all = {0};
    skald_sums sums;
    must(b->c->ops->gradient(b->c, b->shard, &all, b->w, b->g, &sums));
}

static void by_dgemm(bench *b) {
    const int d = b->d, C = b->classes;
    for (size_t i = 0; i + BATCH <= b->n; i += BATCH) {
        for (size_t k = 0; k < (size_t)BATCH * (size_t)d; k++) b->wide[k] = (double)b->x[i * (size_t)d + k];
        b->dgemm(ROW_MAJOR, PLAIN, TRANSPOSED, BATCH, C, d, 1, b->wide, d, b->w, d, 0, b->z, C);
        b->dgemm(ROW_MAJOR, TRANSPOSED, PLAIN, C, d, BATCH, 1e-9, b->z, C, b->wide, d, 1, b->g, d);
    }
}

static void by_sgemm(bench *b) {
    const int d = b->d, C = b->classes;
    for (size_t i = 0; i + BATCH <= b->n; i += BATCH) {
        const float *x = b->x + i * (size_t)d;
        b->sgemm(ROW_MAJOR, PLAIN, TRANSPOSED, BATCH, C, d, 1, x, d, b->wf, d, 0, b->zf, C);
        b->sgemm(ROW_MAJOR, TRANSPOSED, PLAIN, C, d, BATCH, 1e-9f, b->zf, C, x, d, 1, b->gf, d);
    }
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static void measure(size_t n, int d, int classes, void *blas) {
    static void (*const run[3])(bench *) = {own, by_dgemm, by_sgemm};
    static const char *const name[3] = {"Skald, softmax and all", "two dgemm, rows widened", "two sgemm"};
    const size_t entries = (size_t)d * (size_t)classes;
    const skald_objective o = {.loss = SKALD_SOFTMAX, .l2 = 1e-3, .classes = (uint32_t)classes};
    const skald_compute_options options = {.device = "cpu", .threads = 1, .isa = getenv("BENCH_ISA")};
    skald_rows rows = {
        .layout = SKALD_DENSE, .n = n, .dim = (uint32_t)d, .stride = (size_t)d}; /* d: a multiple of 16 */
    rows.x = skald_alloc(n * rows.stride, sizeof *rows.x);
    rows.y = skald_alloc(n, sizeof *rows.y);
    rows.s = skald_alloc(n, sizeof *rows.s);
    for (size_t k = 0; k < n * rows.stride; k++) rows.x[k] = (float)skald_uniform(1, k);
    for (size_t i = 0; i < n; i++) rows.y[i] = (double)(i % (size_t)classes), rows.s[i] = 1;
    bench b = {.n = n, .d = d, .classes = classes, .x = rows.x};
    b.w = skald_alloc(entries, sizeof *b.w);
    b.g = skald_zalloc(entries, sizeof *b.g);
    b.wf = skald_zalloc(entries, sizeof *b.wf);
    b.gf = skald_zalloc(entries, sizeof *b.gf);
    b.wide = skald_alloc((size_t)BATCH * rows.stride, sizeof *b.wide);
    b.z = skald_alloc((size_t)BATCH * (size_t)classes, sizeof *b.z);
    b.zf = skald_alloc((size_t)BATCH * (size_t)classes, sizeof *b.zf);
    for (size_t k = 0; k < entries; k++) b.w[k] = 0.01 * skald_normal(2, k), b.wf[k] = (float)b.w[k];
    must(skald_compute_open(&options, &o, rows.dim, &b.c));
    must(b.c->ops->load(b.c, &rows, &b.shard)); /* b.x stays where it is */
    if (blas) {
        *(void **)&b.dgemm = dlsym(blas, "cblas_dgemm");
        *(void **)&b.sgemm = dlsym(blas, "cblas_sgemm");
    }
    double seconds[3][ROUNDS];
    const int contenders = b.dgemm && b.sgemm ? 3 : 1;
    for (int r = -1; r < ROUNDS; r++)
        for (int k = 0; k < contenders; k++) {
            int64_t start = skald_now_ns(skald_clock_system());
            run[k](&b);
            if (r >= 0) seconds[k][r] = (double)(skald_now_ns(skald_clock_system()) - start) * 1e-9;
        }
    printf("%zu rows x %d columns, %d classes\n", n, d, classes);
    for (int k = 0; k < contenders; k++) {
        qsort(seconds[k], ROUNDS, sizeof seconds[k][0], by_value);
        printf("  %-26s %8.4f s  %6.1f GFlop/s\n", name[k], seconds[k][ROUNDS / 2],
               4e-9 * (double)n * (double)entries / seconds[k][ROUNDS / 2]);
    }
    b.c->ops->unload(b.c, b.shard);
    b.c->ops->destroy(b.c);
    free(b.w);
    free(b.g);
    free(b.wf);
    free(b.gf);
    free(b.wide);
    free(b.z);
    free(b.zf);
}

int main(void) {
    void *blas = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL);
    void (*threads)(int) = NULL;
    if (blas) *(void **)&threads = dlsym(blas, "openblas_set_num_threads");
    if (threads) threads(1);
    if (!blas) printf("no OpenBLAS here\n");
    measure(20480, 784, 3, blas);
    measure(20480, 784, 10, blas);
    measure(10240, 2000, 10, blas);
    measure(5120, 784, 100, blas);
    measure(1280, 784, 1000, blas);
    return 0;
}
