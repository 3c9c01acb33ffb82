/* Softmax, one thread.
 *
 *   bench_softmax [dense | sparse]
 *
 * Sparse rows: nanoseconds an entry and class of each operation (of the processor's time), beside logistic on the same
 * rows. Tasks are 1/16 of the rows; where vectors are long beside them, `train` makes 1/8 for a lone process and 1/20
 * for each of two workers, so local steps are measured with those, too.
 *
 * Dense rows: the gradient of Skald's CPU backend beside two matrix products of OpenBLAS. The peer makes Z = X W' and G
 * = R' X over sub-batches that stay in the caches, without the losses in between: dgemm on rows widened to doubles, as
 * Skald's sums are, and sgemm, which has half of the digits. Times are medians of turns.
 */
#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

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

/* ---- sparse rows ---------------------------------------------------------------------------------- */

enum { TURNS = 9, SPARSE_ROWS = 20000, MOST_DRAWN = 128 };

typedef struct sparse_shape {
    uint32_t columns, least, most, classes; /* least, most: columns drawn for a row, of which some come twice */
} sparse_shape;

/* Columns by Zipf's law. */
static skald_rows sparse_rows(const sparse_shape *shape, uint32_t classes) {
    skald_rows r = {.layout = SKALD_CSR, .n = SPARSE_ROWS, .dim = shape->columns};
    r.ptr = skald_zalloc(r.n + 1, sizeof *r.ptr);
    r.idx = skald_alloc(r.n * shape->most, sizeof *r.idx);
    r.val = skald_alloc(r.n * shape->most, sizeof *r.val);
    r.y = skald_alloc(r.n, sizeof *r.y);
    r.s = skald_alloc(r.n, sizeof *r.s);
    uint64_t end = 0, draw = 0;
    for (size_t i = 0; i < r.n; i++) {
        const uint64_t want = shape->least + skald_random(3, i) % (shape->most - shape->least + 1);
        uint32_t column[MOST_DRAWN];
        size_t count = 0;
        for (uint64_t k = 0; k < want; k++) {
            const uint32_t j = (uint32_t)skald_permute(5, r.dim, (uint64_t)pow(r.dim, skald_uniform(4, draw++)) - 1);
            size_t at = 0;
            while (at < count && column[at] < j) at++;
            if (at < count && column[at] == j) continue;
            memmove(column + at + 1, column + at, (count++ - at) * sizeof *column);
            column[at] = j;
        }
        for (size_t k = 0; k < count; k++, end++) {
            r.idx[end] = column[k];
            r.val[end] = (float)(1 / sqrt((double)count));
        }
        r.ptr[i + 1] = end;
        r.y[i] = classes > 1 ? (float)(i % classes) : i & 1 ? 1 : -1;
        r.s[i] = 1;
    }
    return r;
}

typedef struct sparse {
    skald_compute *c;
    skald_shard *shard;
    uint32_t classes, task, *rows;  /* task: rows */
    double entries, *w, *a, *g, *d; /* entries: in all rows */
    uint64_t position;
} sparse;

static skald_batch next_task(sparse *b) {
    skald_batch batch = {b->rows, 0};
    batch.count = skald_draw(1, 0, SPARSE_ROWS, b->position, b->task, b->rows);
    b->position += batch.count;
    return batch;
}

static void gradient_task(sparse *b) {
    const skald_batch batch = next_task(b);
    skald_sums sums;
    must(b->c->ops->gradient(b->c, b->shard, &batch, b->w, b->g, &sums));
}
static void saga_task(sparse *b) {
    const skald_batch batch = next_task(b);
    skald_sums sums;
    must(b->c->ops->saga(b->c, b->shard, &batch, b->w, b->g, &sums));
}
static void local_task(sparse *b) {
    const skald_batch batch = next_task(b);
    const skald_local local = {true, 1, 0.5, SPARSE_ROWS};
    skald_sums sums;
    must(b->c->ops->local(b->c, b->shard, &batch, &local, b->w, b->a, b->d, b->g, &sums));
}
static void gradient_all(sparse *b) {
    const skald_batch all = {0};
    skald_sums sums;
    must(b->c->ops->gradient(b->c, b->shard, &all, b->w, b->g, &sums));
}
static void objective_all(sparse *b) {
    skald_sums sums;
    must(b->c->ops->objective(b->c, b->shard, 1, (const double *const[]){b->w}, NULL, false, &sums));
}

static void sparse_open(sparse *b, const sparse_shape *shape, uint32_t classes) {
    const skald_objective o = {.loss = classes > 1 ? SKALD_SOFTMAX : SKALD_LOGISTIC, .l2 = 1e-4, .classes = classes};
    const skald_compute_options options = {.device = "cpu", .threads = 1, .isa = getenv("BENCH_ISA")};
    const size_t length = (size_t)shape->columns * classes;
    skald_rows rows = sparse_rows(shape, classes);
    *b = (sparse){.classes = classes, .entries = (double)rows.ptr[rows.n]};
    b->w = skald_alloc(length, sizeof *b->w);
    b->a = skald_zalloc(length, sizeof *b->a);
    b->g = skald_zalloc(length, sizeof *b->g);
    b->d = skald_zalloc(length, sizeof *b->d);
    b->rows = skald_alloc(SPARSE_ROWS, sizeof *b->rows);
    for (size_t k = 0; k < length; k++) b->w[k] = 0.1 * skald_normal(2, k);
    must(skald_compute_open(&options, &o, rows.dim, &b->c));
    must(b->c->ops->load(b->c, &rows, &b->shard));
}

static void sparse_close(sparse *b) {
    b->c->ops->unload(b->c, b->shard);
    b->c->ops->destroy(b->c);
    free(b->w);
    free(b->a);
    free(b->g);
    free(b->d);
    free(b->rows);
}

/* What other programs take meanwhile does not count. */
static double processor_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void measure_sparse(const sparse_shape *shape) {
    static const struct {
        const char *name;
        void (*run)(sparse *);
        double part; /* of the rows */
    } operation[] = {{"gradient, a task", gradient_task, 1.0 / 16}, {"saga, a task", saga_task, 1.0 / 16},
                     {"local steps, a task", local_task, 1.0 / 16}, {"local steps, 1/8", local_task, 1.0 / 8},
                     {"local steps, 1/20", local_task, 1.0 / 20},   {"gradient, all rows", gradient_all, 1},
                     {"objective, all rows", objective_all, 1}};
    sparse b[2];
    sparse_open(&b[0], shape, 1);
    sparse_open(&b[1], shape, shape->classes);
    printf("%d rows x %d columns, %.1f entries a row, %u classes\n", SPARSE_ROWS, shape->columns,
           b[1].entries / SPARSE_ROWS, shape->classes);
    for (size_t k = 0; k < SKALD_ARRAY_LENGTH(operation); k++) {
        double taken[2][TURNS], ns[2];
        for (int r = -1; r < TURNS; r++)
            for (int side = 0; side < 2; side++) {
                b[side].task = (uint32_t)(SPARSE_ROWS * operation[k].part);
                const double start = processor_ns();
                operation[k].run(&b[side]);
                if (r >= 0) taken[side][r] = processor_ns() - start;
            }
        for (int side = 0; side < 2; side++) {
            qsort(taken[side], TURNS, sizeof taken[side][0], by_value);
            ns[side] = taken[side][TURNS / 2] / (operation[k].part * b[side].entries * b[side].classes);
        }
        printf("  %-26s %8.2f ns an entry and class; logistic %8.2f ns an entry; %6.1f times logistic\n",
               operation[k].name, ns[1], ns[0], ns[1] * shape->classes / ns[0]);
        fflush(stdout);
    }
    sparse_close(&b[0]);
    sparse_close(&b[1]);
}

int main(int argc, char **argv) {
    const char *only = argc > 1 ? argv[1] : "";
    if (strcmp(only, "dense") != 0) {
        static const sparse_shape shapes[] = {
            {60000, 2, 20, 10},  {60000, 2, 20, 60},   {60000, 2, 20, 300}, /* short texts */
            {12000, 30, 70, 10}, {47236, 70, 110, 20}, {5000, 20, 60, 60}};
        for (size_t k = 0; k < SKALD_ARRAY_LENGTH(shapes); k++) measure_sparse(&shapes[k]);
    }
    if (strcmp(only, "sparse") == 0) return 0;
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
