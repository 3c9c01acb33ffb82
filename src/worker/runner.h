/* Runs tasks over the compute port: what a worker process and the local crew have in common. */
#ifndef SKALD_WORKER_RUNNER_H
#define SKALD_WORKER_RUNNER_H

#include "skald/problem.h"
#include "skald/task.h"
#include "skald/vectors.h"
#include "worker/history.h"

typedef struct skald_runner {
    skald_compute *compute;
    uint64_t seed;
    uint32_t dim; /* entries of a vector: skald_objective_length */
    uint32_t shard_count;
    skald_shard **shards;      /* shard_count entries; NULL where not held */
    skald_history **histories; /* the same; NULL before the first task by version */
    skald_part_taken *parts;   /* SKALD_SHARD_PARTS of each shard */
    size_t max_rows;           /* rows of the largest shard held */
    skald_vectors vectors;     /* where models and results lie: at first in the host's memory */
} skald_runner;

/* What one thread needs to run tasks. */
typedef struct skald_lane {
    uint32_t *rows; /* room: grows to the largest shard */
    size_t room;
    skald_vectors vectors;             /* the runner's as the lane was made */
    double *partial[SKALD_MAX_POINTS]; /* of them: of a task over all shards; scratch otherwise */
} skald_lane;

/* columns: of the rows, intercept included. */
skald_status skald_runner_init(skald_runner *runner, const skald_compute_options *options,
                               const skald_objective *objective, uint32_t columns, uint64_t seed, uint32_t shard_count);
/* Takes over the rows (already rescaled). SKALD_EINVAL if the shard is out of range or held already. */
skald_status skald_runner_add(skald_runner *runner, uint32_t shard, skald_rows *rows);
/* Unloads it, if it is held. */
void skald_runner_drop(skald_runner *runner, uint32_t shard);
void skald_runner_fini(skald_runner *runner);
/* Draws and parts are by this seed from here on. */
void skald_runner_reseed(skald_runner *runner, uint64_t seed);

/* For the shards held now, once it is settled where vectors lie. */
skald_status skald_lane_init(skald_lane *lane, const skald_runner *runner);
void skald_lane_fini(skald_lane *lane);

/* Models and results in the device's memory from here on, if that has any of its own; else nothing changes. */
skald_status skald_runner_to_device(skald_runner *runner);
void skald_runner_to_host(skald_runner *runner);

/* Runs one task. result->vectors[0..skald_task_vectors) must be runner->vectors; fills rows, sums,
 * count, sample (owned by the result), status, error, compute_ns. Failures are in result->status; the task is checked
 * as if it came from a stranger.
 * Tasks on one shard must not run at the same time (the caller serialises); on distinct shards they may. */
void skald_runner_run(skald_runner *runner, skald_lane *lane, const skald_task *task, skald_result *result);

#endif
