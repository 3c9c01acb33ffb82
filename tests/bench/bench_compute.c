/* How fast the CPU backend is, beside what the machine can do.
 *
 *   bench_compute [results.json]
 *
 * Each figure is a ratio of two things measured in turns within one run; times are medians. Arrays are far
 * larger than the caches. Peers: a plain read of the same array, OpenBLAS (two sgemv make a gradient), and a
 * plain scalar loop with libm. */
#include <dlfcn.h>
#include <jansson.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "base/base.h"
#include "skald/compute.h"
#include "skald/vectors.h"

#define ROUNDS 9
#define DENSE_BYTES ((size_t)384 << 20)

static void must(skald_status st) {
    if (st == SKALD_OK) return;
    fprintf(stderr, "bench_compute: %s\n", skald_error());
    exit(1);
}

static double now(void) {
    return (double)skald_now_ns(skald_clock_system()) * 1e-9;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(const double *values, size_t count) {
    double sorted[64];
    memcpy(sorted, values, count * sizeof *sorted);
    qsort(sorted, count, sizeof *sorted, by_value);
    return sorted[count / 2];
}

/* ---- contenders: things that are timed in turns --------------------------------------------------- */

typedef struct contender {
    const char *name;
    void (*run)(void *context);
    void *context;
    double seconds;       /* out: median */
    unsigned int rest_us; /* pause afterwards: OpenBLAS threads spin for a while, at the next one's expense */
} contender;

static void race(contender *c, size_t count) {
    double times[8][ROUNDS];
    for (int round = -1; round < ROUNDS; round++) /* the first round warms up */
        for (size_t k = 0; k < count; k++) {
            double start = now();
            c[k].run(c[k].context);
            if (round >= 0) times[k][round] = now() - start;
            if (c[k].rest_us) usleep(c[k].rest_us);
        }
    for (size_t k = 0; k < count; k++) c[k].seconds = median(times[k], ROUNDS);
}

static json_t *results;

/* A line of the table and of the JSON; goal 0: none. */
static void report(const char *what, double value, const char *unit, double goal, bool at_most) {
    const bool met = goal == 0 || (at_most ? value <= goal : value >= goal);
    if (goal != 0)
        printf("  %-58s %8.3f %-9s goal %s %.2f  %s\n", what, value, unit, at_most ? "<=" : ">=", goal,
               met ? "met" : "MISSED");
    else
        printf("  %-58s %8.3f %s\n", what, value, unit);
    fflush(stdout);
    json_t *line = json_pack("{s:s, s:f, s:s}", "name", what, "value", value, "unit", unit);
    if (goal != 0) {
        json_object_set_new(line, "goal", json_real(goal));
        json_object_set_new(line, "met", json_boolean(met));
        if (at_most) json_object_set_new(line, "at_most", json_true());
    }
    json_array_append_new(results, line);
}

/* ---- plain read ----------------------------------------------------------------------------------- */

typedef struct reader {
    const float *x;
    size_t count;
    int threads;
} reader;

typedef struct slice {
    const float *x;
    size_t count;
    float sum;
} slice;

#if defined(__x86_64__)
__attribute__((target("avx512f"))) static float read_avx512(const float *x, size_t count) {
    __m512 a[8];
    for (int k = 0; k < 8; k++) a[k] = _mm512_setzero_ps();
    for (size_t j = 0; j + 128 <= count; j += 128)
        for (int k = 0; k < 8; k++) a[k] = _mm512_add_ps(a[k], _mm512_load_ps(x + j + 16 * k));
    for (int k = 1; k < 8; k++) a[0] = _mm512_add_ps(a[0], a[k]);
    return _mm512_reduce_add_ps(a[0]);
}
#endif

static float read_plain(const float *x, size_t count) {
    float a[32] = {0};
    for (size_t j = 0; j + 32 <= count; j += 32)
        for (int k = 0; k < 32; k++) a[k] += x[j + k];
    for (int k = 1; k < 32; k++) a[0] += a[k];
    return a[0];
}

static void *read_slice(void *argument) {
    slice *s = argument;
#if defined(__x86_64__)
    s->sum = __builtin_cpu_supports("avx512f") ? read_avx512(s->x, s->count) : read_plain(s->x, s->count);
#else
    s->sum = read_plain(s->x, s->count);
#endif
    return NULL;
}

static volatile float sink;

static void run_reader(void *context) {
    const reader *r = context;
    slice slices[16];
    pthread_t threads[16];
    const size_t each = r->count / (size_t)r->threads / 128 * 128;
    for (int k = 0; k < r->threads; k++) {
        slices[k] = (slice){r->x + (size_t)k * each, each, 0};
        if (k) pthread_create(&threads[k], NULL, read_slice, &slices[k]);
    }
    read_slice(&slices[0]);
    for (int k = 1; k < r->threads; k++) pthread_join(threads[k], NULL);
    for (int k = 0; k < r->threads; k++) sink = sink + slices[k].sum;
}

/* The same rows in the order of a batch: eight at once, the next eight asked for, which is the fastest we
 * found (a row at a time reaches a third of it). */
typedef struct order_reader {
    const float *x;
    size_t n, stride;
    const uint32_t *rows;
} order_reader;

#if defined(__x86_64__)
__attribute__((target("avx512f"))) static float read_order_avx512(const order_reader *o) {
    __m512 a[8];
    for (int k = 0; k < 8; k++) a[k] = _mm512_setzero_ps();
    for (size_t i = 0; i + 8 <= o->n; i += 8) {
        const float *x[8], *next[8];
        for (size_t k = 0; k < 8; k++) {
            x[k] = o->x + o->rows[i + k] * o->stride;
            next[k] = o->x + o->rows[i + 8 + k < o->n ? i + 8 + k : i + k] * o->stride;
        }
        for (size_t j = 0; j < o->stride; j += 16)
#pragma GCC unroll 8
            for (int k = 0; k < 8; k++) {
                __builtin_prefetch(next[k] + j, 0, 2);
                a[k] = _mm512_add_ps(a[k], _mm512_load_ps(x[k] + j));
            }
    }
    for (int k = 1; k < 8; k++) a[0] = _mm512_add_ps(a[0], a[k]);
    return _mm512_reduce_add_ps(a[0]);
}
#endif

static void run_order_reader(void *context) {
    const order_reader *o = context;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f")) {
        sink = sink + read_order_avx512(o);
        return;
    }
#endif
    for (size_t i = 0; i < o->n; i++) sink = sink + read_plain(o->x + o->rows[i] * o->stride, o->stride);
}

/* ---- OpenBLAS ------------------------------------------------------------------------------------- */

typedef void sgemv_function(int order, int trans, int m, int n, float alpha, const float *a, int lda, const float *x,
                            int incx, float beta, float *y, int incy);

typedef struct blas {
    sgemv_function *sgemv;
    void (*set_threads)(int);
    const float *x;
    int n, d, stride;
    float *w, *z, *g;
} blas;

static bool blas_open(blas *b, const char *core) {
    if (core[0])
        setenv("OPENBLAS_CORETYPE", core, 1);
    else
        unsetenv("OPENBLAS_CORETYPE");
    void *library = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL);
    if (!library) return false;
    *(void **)&b->sgemv = dlsym(library, "cblas_sgemv");
    *(void **)&b->set_threads = dlsym(library, "openblas_set_num_threads");
    return b->sgemv && b->set_threads;
}

static void run_blas(void *context) {
    const blas *b = context;
    b->sgemv(101, 111, b->n, b->d, 1, b->x, b->stride, b->w, 1, 0, b->z, 1);
    for (int i = 0; i < b->n; i++) b->z[i] = -1 / (1 + b->z[i] * b->z[i]); /* some coefficient */
    b->sgemv(101, 112, b->n, b->d, 1, b->x, b->stride, b->z, 1, 0, b->g, 1);
}

/* The set of kernels that is fastest here; OpenBLAS reads the variable once a process, hence the children. */
static const char *blas_best_core(void) {
    static const char *const cores[] = {"", "SkylakeX", "Zen", "Haswell", "Cooperlake"};
    double best = INFINITY;
    size_t winner = 0;
    for (size_t k = 0; k < SKALD_ARRAY_LENGTH(cores); k++) {
        int ends[2];
        double seconds = INFINITY;
        if (pipe(ends) != 0) return "";
        pid_t child = fork();
        if (child == 0) {
            blas b = {.n = 8000, .d = 2000, .stride = 2000};
            float *x = skald_zalloc((size_t)b.n * 2000, sizeof *x);
            b.x = x;
            b.w = skald_zalloc(2000, sizeof(float));
            b.g = skald_zalloc(2000, sizeof(float));
            b.z = skald_zalloc((size_t)b.n, sizeof(float));
            if (x && blas_open(&b, cores[k])) {
                memset(x, 0, (size_t)b.n * 2000 * sizeof *x);
                b.set_threads(1);
                contender c = {"", run_blas, &b, 0, 0};
                race(&c, 1);
                seconds = c.seconds;
            }
            if (write(ends[1], &seconds, sizeof seconds) < 0) _exit(1);
            _exit(0);
        }
        close(ends[1]);
        if (read(ends[0], &seconds, sizeof seconds) != sizeof seconds) seconds = INFINITY;
        close(ends[0]);
        waitpid(child, NULL, 0);
        if (seconds < 0.97 * best) {
            best = seconds;
            winner = k;
        }
    }
    return cores[winner];
}

/* ---- Skald ---------------------------------------------------------------------------------------- */

typedef struct bench {
    skald_compute *c;
    skald_shard *shard;
    size_t n;
    uint32_t dim;
    double *w, *g, *abar, *dw;
    uint32_t *rows; /* a permutation */
    skald_local local;
    size_t call_rows; /* rows a local call */
} bench;

static void run_gradient(void *context) {
    bench *b = context;
    const skald_batch all = {0};
    skald_sums sums;
    must(b->c->ops->gradient(b->c, b->shard, &all, b->w, b->g, &sums));
}
static void run_saga(void *context) {
    bench *b = context;
    const skald_batch all = {0};
    skald_sums sums;
    must(b->c->ops->saga(b->c, b->shard, &all, b->w, b->g, &sums));
}
static void run_objective(void *context) {
    bench *b = context;
    const double *w = b->w;
    double *none = NULL;
    skald_sums sums;
    must(b->c->ops->objective(b->c, b->shard, 1, &w, &none, false, &sums));
}
static void run_objective_gradient(void *context) {
    bench *b = context;
    const double *w = b->w;
    skald_sums sums;
    must(b->c->ops->objective(b->c, b->shard, 1, &w, &b->g, false, &sums));
}
/* One pass over the shard in calls of call_rows, as a worker does it. */
static void run_local(void *context) {
    bench *b = context;
    skald_sums sums;
    for (size_t k = 0; k < b->n; k += b->call_rows) {
        const skald_batch batch = {b->rows + k, skald_min_size(b->call_rows, b->n - k)};
        must(b->c->ops->local(b->c, b->shard, &batch, &b->local, b->w, b->abar, b->dw, b->g, &sums));
    }
}

static void bench_open(bench *b, skald_rows *rows, double l1, int threads) {
    const skald_compute_options options = {.device = "cpu", .threads = threads, .isa = getenv("BENCH_ISA")};
    const skald_objective o = {.loss = SKALD_LOGISTIC, .l2 = 1e-4, .l1 = l1, .classes = 1};
    b->n = rows->n;
    b->dim = rows->dim;
    must(skald_compute_open(&options, &o, rows->dim, &b->c));
    must(b->c->ops->load(b->c, rows, &b->shard));
    b->w = skald_zalloc(b->dim, sizeof *b->w);
    b->g = skald_zalloc(b->dim, sizeof *b->g);
    b->dw = skald_zalloc(b->dim, sizeof *b->dw);
    b->abar = skald_zalloc(b->dim, sizeof *b->abar);
    for (size_t j = 0; j < b->dim; j++) b->w[j] = 0.1 * skald_normal(1, j);
    b->rows = skald_zalloc(b->n, sizeof *b->rows);
    for (size_t k = 0; k < b->n; k++) b->rows[k] = (uint32_t)skald_permute(7, b->n, k);
    b->call_rows = 2048;
}

static void bench_close(bench *b) {
    b->c->ops->unload(b->c, b->shard);
    b->c->ops->destroy(b->c);
    free(b->w);
    free(b->g);
    free(b->dw);
    free(b->abar);
    free(b->rows);
}

/* ---- dense ---------------------------------------------------------------------------------------- */

static skald_rows dense_rows(uint32_t dim) {
    const size_t stride = (dim + 15u) / 16u * 16u, n = DENSE_BYTES / stride / sizeof(float);
    skald_rows r = {.layout = SKALD_DENSE, .n = n, .dim = dim, .stride = stride};
    r.x = skald_zalloc(n * stride, sizeof *r.x);
    r.y = skald_zalloc(n, sizeof *r.y);
    r.s = skald_zalloc(n, sizeof *r.s);
    if (!r.x || !r.y || !r.s) must(SKALD_ENOMEM);
    const float scale = 1 / sqrtf((float)dim);
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < dim; j++)
            r.x[i * stride + j] = scale * (float)((double)(skald_random(i, j) >> 40) * 0x1p-23 - 1);
        r.y[i] = i & 1 ? 1 : -1;
        r.s[i] = 1;
    }
    return r;
}

static void bench_dense(uint32_t dim, int threads, blas *peer) {
    char what[128];
    skald_rows rows = dense_rows(dim);
    reader plain = {rows.x, rows.n * rows.stride, threads};
    const size_t bytes = plain.count * sizeof(float);
    peer->x = rows.x;
    peer->n = (int)rows.n;
    peer->d = (int)dim;
    peer->stride = (int)rows.stride;
    peer->w = skald_zalloc(dim, sizeof(float));
    peer->g = skald_zalloc(dim, sizeof(float));
    peer->z = skald_zalloc(rows.n, sizeof(float));
    if (peer->set_threads) peer->set_threads(threads);
    bench b = {0};
    bench_open(&b, &rows, 0, threads);
    contender c[] = {{"read", run_reader, &plain, 0, 0},
                     {"gradient", run_gradient, &b, 0, 0},
                     {"saga", run_saga, &b, 0, 0},
                     {"objective", run_objective, &b, 0, 0},
                     {"objective with gradient", run_objective_gradient, &b, 0, 0},
                     {"sgemv", run_blas, peer, 0, threads > 1 ? 100000 : 0}};
    race(c, peer->sgemv ? 6 : 5);
    printf("dense, d = %u, %zu MB, %d thread%s: plain read %.1f GB/s\n", dim, bytes >> 20, threads,
           threads > 1 ? "s" : "", (double)bytes / c[0].seconds * 1e-9);
    for (int k = 1; k <= 4; k++) {
        snprintf(what, sizeof what, "d %u threads %d: %s / read speed", dim, threads, c[k].name);
        report(what, c[0].seconds / c[k].seconds, "", 0.85, false);
    }
    if (peer->sgemv) {
        snprintf(what, sizeof what, "d %u threads %d: gradient / two sgemv speed", dim, threads);
        report(what, c[5].seconds / c[1].seconds, "", 1.7, false);
    }
    bench_close(&b);
    free(peer->w);
    free(peer->g);
    free(peer->z);
}

/* Local steps take rows in random order, so there are two floors: the array read in order, and the same rows
 * read in the same order. */
static void bench_local(void) {
    static const uint32_t steps[] = {1, 4, 8, 16};
    char what[128];
    skald_rows rows = dense_rows(2000);
    reader plain = {rows.x, rows.n * rows.stride, 1};
    order_reader order = {rows.x, rows.n, rows.stride, NULL};
    const double bytes = (double)(plain.count * sizeof(float));
    bench b = {0};
    bench_open(&b, &rows, 0, 1);
    order.rows = b.rows;
    for (int kind = 0; kind < 2; kind++)
        for (size_t k = 0; k < SKALD_ARRAY_LENGTH(steps); k++) {
            const char *name = kind ? "sgd" : "saga";
            b.local = (skald_local){kind == 0, steps[k], 0.5, (double)b.n};
            contender c[] = {{"read", run_reader, &plain, 0, 0},
                             {"read in order of rows", run_order_reader, &order, 0, 0},
                             {"local", run_local, &b, 0, 0}};
            race(c, 3);
            if (kind + k == 0)
                printf("local, d = 2000, 1 thread: plain read %.1f GB/s, in the order of the batches %.1f GB/s\n",
                       bytes / c[0].seconds * 1e-9, bytes / c[1].seconds * 1e-9);
            snprintf(what, sizeof what, "local %s b = %u: time / read of the same rows", name, steps[k]);
            report(what, c[2].seconds / c[1].seconds, "", steps[k] >= 8 ? 1.15 : 0, true);
            snprintf(what, sizeof what, "local %s b = %u: time / plain read", name, steps[k]);
            report(what, c[2].seconds / c[0].seconds, "", 0, true);
        }
    bench_close(&b);
}

/* ---- sparse --------------------------------------------------------------------------------------- */

/* Rows of the shape of rcv1: 47,236 columns, about 74 entries a row, columns by a power law. */
static skald_rows sparse_rows(size_t n) {
    const uint32_t dim = 47236;
    skald_rows r = {.layout = SKALD_CSR, .n = n, .dim = dim};
    r.ptr = skald_zalloc(n + 1, sizeof *r.ptr);
    r.idx = skald_zalloc(n * 160, sizeof *r.idx);
    r.val = skald_zalloc(n * 160, sizeof *r.val);
    r.y = skald_zalloc(n, sizeof *r.y);
    r.s = skald_zalloc(n, sizeof *r.s);
    uint8_t *seen = skald_zalloc(dim, 1);
    if (!r.ptr || !r.idx || !r.val || !r.y || !r.s || !seen) must(SKALD_ENOMEM);
    uint64_t draw = 0;
    for (size_t i = 0; i < n; i++) {
        uint64_t begin = r.ptr[i], end = begin, want = 20 + skald_random(3, i) % 109;
        while (end - begin < want) {
            double u = skald_uniform(4, draw++);
            uint32_t j = (uint32_t)skald_permute(5, dim, (uint64_t)(pow(dim + 1, u) - 1) % dim);
            if (seen[j]) continue;
            seen[j] = 1;
            size_t at = end++; /* insertion keeps the columns ascending */
            for (; at > begin && r.idx[at - 1] > j; at--) r.idx[at] = r.idx[at - 1];
            r.idx[at] = j;
        }
        for (uint64_t k = begin; k < end; k++) {
            seen[r.idx[k]] = 0;
            r.val[k] = (float)((0.5 + skald_uniform(6, k)) / sqrt((double)want));
        }
        r.ptr[i + 1] = end;
        r.y[i] = i & 1 ? 1 : -1;
        r.s[i] = 1;
    }
    free(seen);
    return r;
}

typedef struct naive {
    const skald_rows *rows;
    const double *w;
    double *g, loss;
} naive;

static void naive_gradient(void *context) {
    naive *p = context;
    const skald_rows *r = p->rows;
    memset(p->g, 0, r->dim * sizeof *p->g);
    p->loss = 0;
    for (size_t i = 0; i < r->n; i++) {
        double z = 0, y = r->y[i], s = r->s[i];
        for (uint64_t k = r->ptr[i]; k < r->ptr[i + 1]; k++) z += (double)r->val[k] * p->w[r->idx[k]];
        p->loss += s * skald_loss_value(SKALD_LOGISTIC, 0, z, y);
        double c = s * skald_loss_derivative(SKALD_LOGISTIC, 0, z, y);
        for (uint64_t k = r->ptr[i]; k < r->ptr[i + 1]; k++) p->g[r->idx[k]] += c * (double)r->val[k];
    }
}
static void naive_objective(void *context) {
    naive *p = context;
    const skald_rows *r = p->rows;
    p->loss = 0;
    for (size_t i = 0; i < r->n; i++) {
        double z = 0;
        for (uint64_t k = r->ptr[i]; k < r->ptr[i + 1]; k++) z += (double)r->val[k] * p->w[r->idx[k]];
        p->loss += r->s[i] * skald_loss_value(SKALD_LOGISTIC, 0, z, r->y[i]);
    }
    sink = sink + (float)p->loss;
}

static void bench_sparse(int threads) {
    char what[128];
    skald_rows rows = sparse_rows(100000), view = rows;
    const double nnz = (double)rows.ptr[rows.n];
    bench b = {0};
    bench_open(&b, &rows, 0, threads);
    naive slow = {&view, b.w, skald_zalloc(b.dim, sizeof(double)), 0};
    contender c[] = {{"naive gradient", naive_gradient, &slow, 0, 0},
                     {"naive objective", naive_objective, &slow, 0, 0},
                     {"gradient", run_gradient, &b, 0, 0},
                     {"saga", run_saga, &b, 0, 0},
                     {"objective", run_objective, &b, 0, 0}};
    race(c, 5);
    printf("sparse, 100,000 x 47,236, %.1f a row, %d thread%s\n", nnz / (double)b.n, threads, threads > 1 ? "s" : "");
    for (int k = 0; k < 5; k++) {
        snprintf(what, sizeof what, "csr threads %d: %s", threads, c[k].name);
        report(what, c[k].seconds / nnz * 1e9, "ns/nnz", 0, true);
    }
    snprintf(what, sizeof what, "csr threads %d: gradient / naive speed", threads);
    report(what, c[0].seconds / c[2].seconds, "", 0, false);
    snprintf(what, sizeof what, "csr threads %d: objective / naive speed", threads);
    report(what, c[1].seconds / c[4].seconds, "", 0, false);
    free(slow.g);
    if (threads == 1) {
        static const uint32_t steps[] = {1, 4, 16};
        for (int kind = 0; kind < 3; kind++)
            for (size_t k = 0; k < SKALD_ARRAY_LENGTH(steps); k++) {
                b.local = (skald_local){kind != 1, steps[k], 0.5, (double)b.n};
                b.c->objective.l1 = kind == 2 ? 1e-6 : 0;
                b.call_rows = 10000;
                contender l = {"local", run_local, &b, 0, 0};
                race(&l, 1);
                snprintf(what, sizeof what, "csr: local %s b = %u",
                         kind == 0   ? "saga"
                         : kind == 1 ? "sgd"
                                     : "saga l1",
                         steps[k]);
                report(what, l.seconds / nnz * 1e9, "ns/nnz", kind < 2 && k == 0 ? 4 : 0, true);
            }
    }
    bench_close(&b);
}

/* ---- vectors -------------------------------------------------------------------------------------- */

typedef struct merge {
    skald_vectors v;
    double *x[4];
} merge;

static void run_merge(void *context) {
    merge *m = context;
    for (int k = 0; k < 4; k++) m->v.ops->local_merge(&m->v, m->x[0], m->x[1], m->x[2], 1e-3, m->x[3], 1e6);
}
static void run_saga_update(void *context) {
    merge *m = context;
    const skald_regulariser r = {1e-4, 1e-6, true, 0, 1};
    for (int k = 0; k < 4; k++) m->v.ops->saga_update(&m->v, m->x[0], m->x[1], m->x[2], 1e-2, m->x[3], 1e-3, 1e6, &r);
}

static void bench_vectors(uint32_t dim) {
    merge m;
    char what[128];
    skald_vectors_host(&m.v, dim);
    for (int k = 0; k < 4; k++) must(m.v.ops->create(&m.v, &m.x[k]));
    contender c[] = {{"local_merge", run_merge, &m, 0, 0}, {"saga_update", run_saga_update, &m, 0, 0}};
    race(c, 2);
    printf("vectors, %u doubles\n", dim);
    for (int k = 0; k < 2; k++) { /* four vectors read, two written */
        snprintf(what, sizeof what, "%s of %u", c[k].name, dim);
        report(what, 4.0 * 6 * dim * 8 / c[k].seconds * 1e-9, "GB/s", 0, false);
    }
    for (int k = 0; k < 4; k++) m.v.ops->destroy(&m.v, m.x[k]);
}

/* What reading alone gains from a second thread: the last line is JSON, GB/s by threads. */
static void bench_read(void) {
    const size_t count = DENSE_BYTES / sizeof(float);
    float *x = skald_zalloc(count, sizeof *x);
    if (!x) must(SKALD_ENOMEM);
    memset(x, 0, DENSE_BYTES);
    reader one = {x, count, 1}, two = {x, count, 2};
    contender c[] = {{"1 thread", run_reader, &one, 0, 0}, {"2 threads", run_reader, &two, 0, 0}};
    race(c, 2);
    printf("{\"1\": %.3f, \"2\": %.3f}\n", (double)DENSE_BYTES / c[0].seconds * 1e-9,
           (double)DENSE_BYTES / c[1].seconds * 1e-9);
    free(x);
}

int main(int argc, char **argv) {
    const char *only = getenv("BENCH_ONLY"); /* "read", "dense", "local", "sparse" or "vectors" */
    if (only && !strcmp(only, "read")) {
        bench_read();
        return 0;
    }
    results = json_array();
    blas peer = {0};
    if (!only || !strcmp(only, "dense")) {
        const char *core = blas_best_core();
        if (blas_open(&peer, core))
            printf("OpenBLAS with its %s kernels, the fastest here\n", core[0] ? core : "default");
        else
            printf("OpenBLAS not found: not compared\n");
        for (int threads = 1; threads <= 2; threads++) {
            bench_dense(784, threads, &peer);
            bench_dense(2000, threads, &peer);
        }
    }
    if (!only || !strcmp(only, "local")) bench_local();
    if (!only || !strcmp(only, "sparse"))
        for (int threads = 1; threads <= 2; threads++) bench_sparse(threads);
    if (!only || !strcmp(only, "vectors")) {
        bench_vectors(47236);
        bench_vectors(1000000);
        bench_vectors(20000000);
    }
    if (argc > 1 && json_dump_file(results, argv[1], JSON_INDENT(1)) != 0) {
        fprintf(stderr, "bench_compute: cannot write %s\n", argv[1]);
        return 1;
    }
    json_decref(results);
    return 0;
}
