/* Checkpoints: all of a run's state but the tables at the workers, on disk.
 *
 * A run that goes on from one has the model, the guard, the step and stopping state, and every shard's part A_k of the
 * anchor as they were; the tables of history are empty, and rebuilt as those of lost shards are (algorithms: the rule
 * for lost shards). The number of workers may be another one. */
#ifndef SKALD_CHECKPOINT_H
#define SKALD_CHECKPOINT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "skald/storage.h"

typedef struct skald_checkpoint_shard {
    uint64_t rows, checksum; /* which rows: as in skald_shard_info */
    uint64_t position, visits;
    double mass; /* see src/engine/ledger.h */
} skald_checkpoint_shard;

/* A model that some part's history is at, or is about to be. */
typedef struct skald_checkpoint_version {
    uint64_t number, commits;
} skald_checkpoint_version;

/* Where a part of a shard has its history, and the loss there: see src/engine/parts.h. */
typedef struct skald_checkpoint_part {
    uint64_t version; /* its number; 0: none */
    double loss;
} skald_checkpoint_part;

enum { SKALD_CHECKPOINT_NUMBERS = 8 };

typedef struct skald_checkpoint {
    char run[40];
    uint64_t term; /* starts of the run: each raises it, and a version is (run, term, number) */
    /* The problem, which has to be the same. algo, loss: as the options call them. */
    char algo[16], loss[16];
    uint64_t classes, intercept, rows, length, seed, shard_count, data; /* length: of w; data: a hash of all blocks */
    double huber_delta, l2, l1, nonconvex, weight_scale, shift, scale;  /* the last two: sums over the columns */
    double L;
    /* the state: see src/engine/run.h */
    uint64_t commits, updates, merged, refused, next_task, next_version, generation, rollbacks, full_gradients;
    uint64_t applied, scaled, folded, rejected, staleness_sum, staleness_max, evaluations, evaluated_rows;
    uint64_t steps, failures, has_average;
    double passes, processed, seconds, paused_seconds, backoff, step, mass; /* processed: rows */
    double window_loss, window_rows, window_begin, estimate, best, k, k2, sum_count, average_begin;
    double last_passes, estimate_checked, eval_estimate, calibration, bound, drift;
    double objective, gap, relative_gap, gradient_norm, accuracy, eval_passes, eval_seconds, eval_train_seconds;
    uint64_t eval_commits, eval_updates;
    double *w, *good, *candidate, *sum, *average; /* length each; owned, as what follows */
    skald_checkpoint_shard *shards;               /* shard_count */
    double *anchors;                              /* shard_count x length; NULL without history */
    uint8_t *manifest;                            /* packed (see data.h); NULL: none */
    uint64_t manifest_bytes;
    /* newton: the points of the history; counts 0: none, as in other runs, or not known as the checkpoint was made */
    uint64_t part_count, version_count;
    skald_checkpoint_part *parts;       /* part_count: those of the first shard, of the second, ... */
    skald_checkpoint_version *versions; /* version_count, by ascending number, each once: what parts are at, or tasks */
    double *models;                     /* theirs: version_count x length */
    uint64_t version_room;              /* of the last two */
    double solver[SKALD_CHECKPOINT_NUMBERS]; /* the solver's own numbers */
} skald_checkpoint;

/* Makes room for vectors of `length` and shards; with history: for anchors too. Zeroed. SKALD_ENOMEM, *out is empty. */
skald_status skald_checkpoint_make(uint64_t length, uint64_t shards, bool history, skald_checkpoint *out);
/* Makes room for parts and versions, and keeps it where there is enough; what is in it is to be filled in.
 * SKALD_ENOMEM: counts are 0. */
skald_status skald_checkpoint_fit(skald_checkpoint *c, uint64_t parts, uint64_t versions);
void skald_checkpoint_free(skald_checkpoint *c); /* zeroes the struct */

/* HDF5 behind a 512-byte header with length and a checksum over everything, as a model's. Replaces `path` as a whole
 * or leaves it; the checkpoint that was there is at `path`.1 then. storage NULL: the file system. SKALD_EIO. */
skald_status skald_checkpoint_save(skald_storage *storage, const char *path, const skald_checkpoint *c);
/* SKALD_EMODEL naming the file for anything that is not a whole checkpoint of this version. */
skald_status skald_checkpoint_load(skald_storage *storage, const char *path, skald_checkpoint *out);
/* The same, but if that fails the message offers `path`.1 when that one is whole. */
skald_status skald_checkpoint_open(skald_storage *storage, const char *path, skald_checkpoint *out);
/* The run and term that the file's header claims, for as much as it can be read; false: it is no checkpoint. */
bool skald_checkpoint_peek(skald_storage *storage, const char *path, char run[40], uint64_t *term);

/* ---- writing them while a run goes on -------------------------------------------------------------- */

typedef struct skald_checkpointer skald_checkpointer;

typedef struct skald_checkpointer_options {
    skald_storage *storage; /* NULL: the file system */
    const char *path;
    int64_t every_ns;    /* 0: not by time */
    double every_passes; /* 0: not by passes */
    char run[40];
    uint64_t term;
} skald_checkpointer_options;

/* Starts the thread that writes; the options' pointers must outlive it. */
skald_status skald_checkpointer_open(const skald_checkpointer_options *options, skald_checkpointer **out);
/* Is it time for one, and the last one written? A run's first term wants one at once: by it a coordinator that dies
 * soon is known again by its workers. Owner thread, as all that follows; none of it waits for storage but close.
 * now_ns: since training began. */
bool skald_checkpointer_due(skald_checkpointer *c, int64_t now_ns, double passes);
/* Room to be filled in, run and term as opened; NULL: out of memory, which `news` tells. What was filled in before is
 * still being written, perhaps: it has room of its own. */
skald_checkpoint *skald_checkpointer_begin(skald_checkpointer *c, uint64_t length, uint64_t shards, bool history,
                                           uint64_t parts, uint64_t versions);
/* What the workers found in the data, packed (see data.h): taken over, and part of every checkpoint. */
void skald_checkpointer_manifest(skald_checkpointer *c, uint8_t *packed, size_t size);
/* It is filled in: to be written. Later ones go before those that wait. */
void skald_checkpointer_give(skald_checkpointer *c);
/* What there is to tell a person about it, once; false: nothing. */
bool skald_checkpointer_news(skald_checkpointer *c, char *out, size_t size);
/* Waits until what was given is written, ends the thread, frees. The status of the last write (SKALD_OK: none). */
skald_status skald_checkpointer_close(skald_checkpointer *c); /* NULL-safe */

#endif
