/* The CPU backend, inside.
 *
 *   cpu.c            shards, argument checks, the table of operations
 *   cpu_pass.c       passes over rows: fixed chunks, reduced in fixed order, so bits do not depend on threads
 *   cpu_local.c      local steps: scratch, outputs, undo
 *   cpu_columns.c    sparse rows with several classes: the columns of a batch, and their transposes
 *   cpu_pool.c       the threads inside one operation
 *   cpu_<isa>.c      the kernels: the .inc files of kernels/ compiled for one instruction set each
 *
 * Kernels know nothing of threads, argument checks or allocation. */
#ifndef SKALD_COMPUTE_CPU_H
#define SKALD_COMPUTE_CPU_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "skald/compute.h"

/* ---- shards --------------------------------------------------------------------------------------- */

typedef struct cpu_shard {
    skald_shard base; /* first: see skald_shard */
    skald_rows rows;
    uint32_t classes;  /* C: 1 for all but softmax */
    float *alpha;      /* n x C: the history */
    float *norm2;      /* n: |x_i|^2, intercept included */
    float *pending;    /* n x C: alpha's replacement or undo, by position in the batch */
    double *margin[2]; /* n x C each, once kept by `objective`; NULL before */
    uint32_t margins;  /* points kept: 0, 1, 2 */
} cpu_shard;

/* Vectors as the kernels see them. One class: `width` entries, zero beyond dim. Softmax, dense rows: width entries a
 * class; sparse rows: for each slot (see cpu_columns) `lanes` entries, zero beyond the classes. */
static inline size_t cpu_lanes(size_t classes) {
    return (classes + 7) / 8 * 8;
}

/* Local steps on sparse rows keep u, d, a and w0 (see cpu_column) of four classes together, as {u, d, a, w0}[4]. */
#define CPU_QUAD 16
static inline size_t cpu_quads(size_t classes) {
    return (classes + 3) / 4;
}

/* The rows of a batch over slots: the columns that they touch, in ascending order (the intercept's is the last one).
 * Large batches: a slot for every column, and the shard's rows as they lie. */
typedef struct cpu_columns {
    size_t count;           /* slots */
    const uint32_t *column; /* of each slot; NULL: a slot is a column */
    const uint32_t *rows;   /* row of ptr at each position of the batch; NULL: the position */
    const uint64_t *ptr;    /* as in skald_rows, idx: slots */
    const uint32_t *idx;
    const float *val;
} cpu_columns;

static inline size_t cpu_columns_row(const cpu_columns *columns, size_t k) {
    return columns->rows ? columns->rows[k] : k;
}

/* Softmax: rows whose losses are taken together, and doubles of scratch that a chunk needs. */
#define CPU_SOFTMAX_TILE 16
static inline size_t cpu_softmax_doubles(size_t classes) {
    return (2 * classes + 5) * CPU_SOFTMAX_TILE + cpu_lanes(classes);
}
/* The same of local steps of `room` rows. */
static inline size_t cpu_softmax_step_doubles(size_t classes, size_t room) {
    return (4 * room + 4) * cpu_lanes(classes) + classes * room;
}

/* ---- kernels -------------------------------------------------------------------------------------- */

typedef enum cpu_pass_kind {
    CPU_GRADIENT,
    CPU_SAGA,
    CPU_DIFFERENCE,
    CPU_OBJECTIVE,
    CPU_ANCHOR,
    CPU_CURVATURE
} cpu_pass_kind;

/* One pass over the rows of a batch: margins against `points` vectors, coefficients by `kind`, and
 * `outputs` sums of coefficient x row. */
typedef struct cpu_pass {
    cpu_pass_kind kind;
    const skald_objective *objective;
    const cpu_shard *shard;
    const uint32_t *rows; /* NULL: rows 0 .. count */
    size_t count;
    uint32_t points;
    uint32_t classes;           /* C; 1: `pass`, more: `softmax_pass` */
    const double *w[2];         /* as the kernels see them */
    const cpu_columns *columns; /* sparse rows, several classes */
    float *pending;             /* CPU_SAGA: receives phi' by position in the batch */
    double *margin[2];          /* CPU_OBJECTIVE: receive z by row, or NULL */
} cpu_pass;

typedef struct cpu_tally {
    skald_sums sums[2];
    double probe; /* 0, or NaN once a margin or coefficient was not finite */
} cpu_tally;

/* Skipped steps of a sparse column: w_m = q w - s a after m steps with gradient a and no prox. */
typedef struct cpu_skip {
    double q, s; /* (1 - eta l2)^m, eta sum_{k<m} (1 - eta l2)^k */
} cpu_skip;

/* A column's state in sparse local steps, one half of a cache line: model w = Q (u - S (a + d/n)), with Q and S of
 * the step (cpu_local.scale, .slope). */
typedef struct cpu_column {
    double u, d;  /* d: sum of s h x over the steps so far */
    double a, w0; /* abar and the model as they came */
} cpu_column;

/* One call of `local`. abar is never stored: it is a + d/n, so that the sum that is returned and the one
 * that is used are the same numbers. */
typedef struct cpu_local {
    const skald_objective *objective;
    cpu_shard *shard;
    const uint32_t *rows; /* NULL: rows 0 .. count */
    size_t count, step_rows;
    bool saga;
    double eta, inv_n;    /* inv_n: 1/n, 0 for sgd */
    double *w, *d, *a;    /* dense: width entries each (d, a: saga only), in and out */
    const double *w0;     /* dense: the model read, as wide as w */
    double *sum, *taken;  /* dense: width entries of scratch */
    cpu_column *columns;  /* CSR: dim */
    double scale, slope;  /* CSR, out: Q and S of the columns */
    uint32_t *last;       /* CSR with l1: dim, the step a column stands at */
    const cpu_skip *skip; /* CSR with l1: steps + 1 entries */
    double *z, *z0;       /* count: margins at the local model and at the model read, by position in the batch */
    double *tile;         /* 13 x (step_rows rounded up to 8), scratch */
    const float **x;      /* dense: 2 x (step_rows rounded up to 8), scratch */
    size_t undo;          /* out: alphas saved in shard->pending */
    double k, k2;         /* out, as in skald_sums */
    /* softmax: */
    double *classes_tile;       /* cpu_softmax_step_doubles, scratch */
    const cpu_columns *touched; /* CSR */
    double *class_columns;      /* CSR: slots x cpu_quads x CPU_QUAD */
    double keep, pull;          /* CSR without l1, out: a column without a slot ends at keep w0 - pull a */
    double loss;                /* out, as in skald_sums */
    double probe;               /* out, as in cpu_tally */
} cpu_local;

typedef struct cpu_kernels {
    const char *name;
    /* Adds coefficient x row over positions [begin, end) of the batch to g[o] (width entries). */
    void (*pass)(const cpu_pass *pass, size_t begin, size_t end, double *const g[2], cpu_tally *tally);
    /* The same for several classes. tile: cpu_softmax_doubles of scratch. */
    void (*softmax_pass)(const cpu_pass *pass, size_t begin, size_t end, double *const g[2], cpu_tally *tally,
                         double *tile);
    /* Steps until done or until a coefficient is not finite. */
    void (*local)(cpu_local *local);
    /* Softmax, local steps on sparse rows. Before: slots begin .. end from w and abar (NULL: sgd). */
    void (*softmax_begin)(const cpu_local *local, size_t begin, size_t end, const double *w, const double *abar);
    /* After: dw and g (NULL: not wanted) of classes c .. c + 4 in the columns of slots begin .. end. */
    void (*softmax_end)(const cpu_local *local, size_t c, size_t begin, size_t end, double *dw, double *g);
    /* After: dw of `count` columns without a slot at w and abar (NULL: sgd). */
    void (*softmax_rest)(const cpu_local *local, size_t count, const double *w, const double *abar, double *dw);
    /* loss, dphi, d2phi, correct and rows of rows [begin, end) (positions of `rows` when not NULL), whose
     * margins are z[begin..end) + delta. */
    void (*losses)(const skald_objective *objective, const skald_rows *data, const uint32_t *rows, const double *z,
                   double delta, size_t begin, size_t end, skald_sums *sums);
    /* skald_compute_ops.shift_classes for one point: adds to moments and sums. */
    void (*softmax_shift)(const skald_rows *data, size_t classes, const double *margin, const double *delta,
                          double *moments, double *tile, skald_sums *sums);
} cpu_kernels;

extern const cpu_kernels cpu_kernels_portable;
#if defined(__x86_64__)
extern const cpu_kernels cpu_kernels_avx2;
extern const cpu_kernels cpu_kernels_avx512;
#endif

/* ---- threads -------------------------------------------------------------------------------------- */

typedef struct cpu_pool cpu_pool;
/* threads >= 1, the caller's included. */
skald_status cpu_pool_create(int threads, cpu_pool **out);
void cpu_pool_destroy(cpu_pool *pool);
/* Calls task(context, k) once for every k < count, on any of the threads; returns when all are done. When
 * another thread is using the pool, the caller does all of it. */
void cpu_pool_run(cpu_pool *pool, size_t count, void (*task)(void *context, size_t k), void *context);

/* ---- the backend ---------------------------------------------------------------------------------- */

/* Scratch memory, taken for the length of an operation and kept for the next one. */
typedef struct cpu_scratch {
    struct cpu_scratch *next;
    char *bytes;
    size_t size, used;
} cpu_scratch;

typedef struct cpu_compute {
    skald_compute base;
    const cpu_kernels *kernels;
    cpu_pool *pool;
    pthread_mutex_t lock; /* guards scratch */
    cpu_scratch *scratch;
} cpu_compute;

skald_status cpu_describe(int threads, const char *isa, char device[64]);
skald_status cpu_open(int threads, const char *isa, const skald_objective *objective, uint32_t dim,
                      skald_compute **out);

/* Entries a dense vector needs for the kernels: dim rounded up for dense rows. */
static inline size_t cpu_width(const cpu_shard *shard) {
    return shard->rows.layout == SKALD_DENSE ? shard->rows.stride : shard->rows.dim;
}

/* Entries of a vector of `classes` as the kernels see it; slots: of sparse rows. */
static inline size_t cpu_room(const cpu_shard *shard, uint32_t classes, size_t slots) {
    const size_t width = cpu_width(shard);
    return classes == 1 ? width : shard->rows.layout == SKALD_DENSE ? width * classes : slots * cpu_lanes(classes);
}

/* Bytes of a scratch block of `count` T, to be added up before cpu_scratch_take. */
#define CPU_SCRATCH_BYTES(count, T) (((count) * sizeof(T) + 127) / 64 * 64)
skald_status cpu_scratch_take(cpu_compute *c, size_t bytes, cpu_scratch **out);
void *cpu_scratch_carve(cpu_scratch *scratch, size_t count, size_t size); /* 64-byte aligned, not zeroed */
void cpu_scratch_give(cpu_compute *c, cpu_scratch *scratch);

/* Runs a pass; g[o] receive dim entries, tally the sums. SKALD_ENUMERIC as compute.h says. */
skald_status cpu_pass_run(cpu_compute *c, const cpu_pass *pass, double *const g[2], cpu_tally *tally);
/* A copy of v as the kernels see it, but for sparse rows with several classes. */
double *cpu_widen(const cpu_shard *shard, uint32_t classes, const double *v, cpu_scratch *scratch);

/* Entries of a batch that is worth packing, else 0. rows NULL: all of the shard. */
size_t cpu_columns_entries(const cpu_shard *shard, const uint32_t *rows, size_t count);
/* The most slots, and the bytes of scratch, that cpu_columns_find takes for so many entries. */
size_t cpu_columns_most(const cpu_shard *shard, size_t entries);
size_t cpu_columns_bytes(const cpu_shard *shard, size_t count, size_t entries);
cpu_columns cpu_columns_find(const cpu_shard *shard, const uint32_t *rows, size_t count, size_t entries,
                             cpu_scratch *scratch);
/* The first slot of a column at or after `column`. */
size_t cpu_columns_slot(const cpu_columns *columns, size_t column);
/* Slots begin .. end of v ([class][dim]) to `to` + slot x stride, zeros up to the next multiple of 8 classes; and the
 * other way, which leaves other columns as they are. */
void cpu_columns_gather(const cpu_columns *columns, size_t classes, size_t dim, const double *v, size_t begin,
                        size_t end, size_t stride, double *to);
void cpu_columns_scatter(const cpu_columns *columns, size_t classes, size_t dim, const double *from, size_t begin,
                         size_t end, size_t stride, double *v);
/* Slots, or columns, that one thread takes at a time: eight streams of them stay in L2 with what becomes of them. */
#define CPU_COLUMN_BLOCK 512
static inline size_t cpu_column_blocks(size_t count) {
    return (count + CPU_COLUMN_BLOCK - 1) / CPU_COLUMN_BLOCK;
}

/* cpu_local.c, cpu_pass.c: operations of skald_compute_ops, arguments checked by cpu.c. */
skald_status cpu_local_run(cpu_compute *c, cpu_shard *shard, const skald_batch *batch, const skald_local *local,
                           const double *w, const double *abar, double *dw, double *g, skald_sums *sums);

#endif
