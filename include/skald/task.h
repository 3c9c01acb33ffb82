/* Tasks, results and model versions: what travels between the engine and whoever computes. */
#ifndef SKALD_TASK_H
#define SKALD_TASK_H

#include <stdbool.h>
#include <stdint.h>

#include "skald/bytes.h"
#include "skald/compute.h"

typedef enum skald_task_kind {
    SKALD_TASK_GRADIENT = 1, /* result vectors: g */
    SKALD_TASK_SAGA,         /* g */
    SKALD_TASK_LOCAL,        /* dw, and g when with history */
    SKALD_TASK_DIFFERENCE,   /* g */
    SKALD_TASK_OBJECTIVE,    /* g of each point when want_gradient */
    SKALD_TASK_SHIFT,  /* none; with a model (softmax: vectors begin with each class's shift): moments of each point */
    SKALD_TASK_ANCHOR, /* a */
    SKALD_TASK_CURVATURE, /* g, of the first class's part of the vector */
    SKALD_TASK_SAMPLE     /* none; copies of rows */
} skald_task_kind;

const char *skald_task_kind_name(skald_task_kind kind);
/* Does a task of this kind process rows for training? */
static inline bool skald_task_trains(skald_task_kind kind) {
    return kind <= SKALD_TASK_DIFFERENCE;
}

#define SKALD_ALL_SHARDS UINT32_MAX /* every shard the worker holds; sums and vectors are added up in shard order */
#define SKALD_MAX_POINTS 2

/* A published set of vectors: immutable and refcounted from the moment it is published. */
typedef struct skald_version {
    uint64_t id;                             /* unique in the run, increasing */
    uint64_t commits;                        /* the clock: model commits when it was published */
    uint32_t count;                          /* vectors: 1 (w), 2 (w and abar, or two points to evaluate) */
    uint32_t dim;                            /* entries of a vector: skald_problem_length */
    const double *vectors[SKALD_MAX_POINTS]; /* in the memory of the run's skald_vectors, as those of results are */
    const float *narrow[SKALD_MAX_POINTS];   /* the vectors as floats, if that will do on the wire; else NULL */
    skald_bytes bytes; /* vectors, one after the other (none on a device); references are taken on this, for `narrow`
                        * too */
} skald_version;

static inline skald_version *skald_version_ref(skald_version *v) {
    if (v) skald_bytes_ref(&v->bytes);
    return v;
}
static inline void skald_version_unref(skald_version *v) {
    if (v) skald_bytes_unref(&v->bytes);
}

typedef struct skald_task {
    uint64_t id; /* given by the engine, unique in the run */
    skald_task_kind kind;
    uint32_t shard; /* or SKALD_ALL_SHARDS (objective, shift, anchor, curvature) */
    skald_version *model;
    skald_version *origin; /* difference: gradients at `model` less those at this one */
    uint64_t position;     /* rows drawn from the shard so far: epoch and offset of the batch */
    uint32_t rows;         /* rows to draw; curvature: rows per shard */
    uint32_t step_rows;    /* local: b */
    double eta;            /* local */
    double n;              /* rows of the whole problem (local) */
    uint64_t after;  /* local: the task on this shard queued before this one and not in `model`; 0: none. The steps
                      * start from w + theta dw and abar + D/n of its result */
    double theta;    /* local: the weight its results are merged with */
    bool saga;       /* local: with history */
    bool by_part;    /* saga: the rows of the shard's part `position`, instead of a draw */
    bool by_version; /* saga: the history is the model that a row's gradient was taken at (src/worker/history.h) */
    uint64_t before; /* saga by version: not a draw, but all rows that are at an older version than that; 0: a draw */
    uint32_t points; /* objective, shift */
    bool want_gradient, keep_margins;
    double shift[SKALD_MAX_POINTS];
    uint32_t generation; /* raised by a rollback: results of an older one only fold */
} skald_task;

/* A task holds a reference on each version it names. */
static inline void skald_task_ref(const skald_task *task) {
    skald_version_ref(task->model);
    skald_version_ref(task->origin);
}
static inline void skald_task_unref(const skald_task *task) {
    skald_version_unref(task->model);
    skald_version_unref(task->origin);
}

/* Shards fall into parts for good, which tasks of a history by parts take one at a time: of each eight rows, as they
 * lie, every part has one, whichever (seed, shard) says: files are often sorted. A shard of fewer than eight rows has
 * empty parts. */
#define SKALD_SHARD_PARTS 8
uint32_t skald_task_part_of(uint64_t seed, uint32_t shard, uint64_t row);
/* The part's rows, ascending, of a shard of n; rows NULL: counts only. Returns how many there are. */
size_t skald_task_part(uint64_t seed, uint32_t shard, size_t n, uint32_t part, uint32_t *rows);

/* The rows of a shard that sample tasks bring, one after the other: `count` of them from `position` on, in an order
 * that depends on (seed, shard) alone. `n`: rows of the shard. Returns how many there were. */
size_t skald_task_sample(uint64_t seed, uint32_t shard, size_t n, uint64_t position, size_t count, uint32_t *rows);

/* Where a part's history was last taken, as the shard's holder knows it. */
typedef struct skald_part_taken {
    uint64_t version; /* its number; 0: never, the history is 0 */
    double loss;      /* sum s_i phi_i over the part there */
} skald_part_taken;
#define SKALD_VERSION_UNKNOWN UINT64_MAX /* in place of a number: its rows are at several, or nobody knows */

/* How many vectors a result of this task carries. */
uint32_t skald_task_vectors(const skald_task *task);

typedef struct skald_result {
    uint64_t task;
    skald_task_kind kind;
    uint32_t worker, shard;
    skald_status status; /* not OK: `error` says why, no vectors, history untouched */
    char error[200];
    uint32_t rows;   /* rows really processed */
    uint64_t oldest; /* saga by version, anchor of such: the oldest version a row of the shard is then at; 0: none */
    double *vectors[SKALD_MAX_POINTS]; /* skald_problem_length doubles each, as the kind says; else NULL */
    uint32_t count;
    skald_rows sample; /* sample: the rows; owned, and freed when the result is released */
    skald_sums sums[SKALD_MAX_POINTS];
    skald_part_taken parts[SKALD_SHARD_PARTS]; /* anchor of one shard */
    int64_t wait_ns;                           /* worker idle before the task */
    int64_t receive_ns;                        /* from arrival to start at the worker */
    int64_t compute_ns;
    int64_t delay_ns;           /* waited on purpose */
    int64_t came_ns, posted_ns; /* worker's clock: when the task came and the result left; 0: not known */
    int64_t arrived_ns;         /* engine's clock, as the next */
    int64_t ready_ns;           /* ranks: when it was there, to wait for the others'; 0: not a rank's */
} skald_result;

#endif
