/* What tasks on one lane hand on to each other, and what floats on the wire do to results: one text for the worker,
 * whose lanes are threads, and for crews in one process that must come to the same bits (src/replay). */
#ifndef SKALD_WORKER_CHAIN_H
#define SKALD_WORKER_CHAIN_H

#include "worker/runner.h"

/* The last local result of a lane: a task queued behind it starts from there. One thread at a time. */
typedef struct skald_chain {
    uint64_t task;     /* 0: none */
    skald_bytes *last; /* its vectors, one after the other, not rounded */
    bool saga;
    double *start; /* 2 x dim */
} skald_chain;

/* dim: entries of a vector. SKALD_ENOMEM. */
skald_status skald_chain_init(skald_chain *chain, uint32_t dim);
void skald_chain_fini(skald_chain *chain);
/* Runs the task as skald_runner_run does, from where the chain's last result will have taken the model if it is queued
 * behind that one (task->after). result->vectors lie in `bytes` (NULL for a task without vectors), of which a
 * reference is kept. */
void skald_chain_run(skald_chain *chain, skald_runner *runner, skald_lane *lane, const skald_task *task,
                     skald_bytes *bytes, skald_result *result);

/* The result of a local task as floats, dw and then the history's D, into out (as many vectors as the result has).
 * What rounding takes from the history is carried over in *carry (dim floats, made when needed) to the shard's next
 * result. False: floats cannot hold it, or there is no memory; nothing has happened. */
bool skald_narrow(const skald_result *result, size_t dim, float **carry, float *out);
/* An anchor's result: what has been reported of it. carries: one a shard. */
void skald_uncarry(skald_result *result, size_t dim, uint32_t shards, float *const *carries);

#endif
