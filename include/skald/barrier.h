/* Barriers: who may be given work now (ASYNC's; Soori et al. 2020). A predicate over the state of the run and of one
 * worker. Asked for each worker with a free slot whenever something has changed: a result merged, an evaluation done.
 */
#ifndef SKALD_BARRIER_H
#define SKALD_BARRIER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "skald/status.h"

typedef struct skald_overview {
    uint32_t workers;   /* that are there and hold rows */
    uint32_t avail;     /* of them with a free slot, and */
    uint32_t busy;      /* with a training task in flight: both as this round of hand-outs began */
    uint32_t in_flight; /* training tasks now, without the one being considered */
    /* version + tasks in flight - oldest version in flight, the task being considered counted: what every task in
     * flight, that one included, will be less stale than when it is merged. */
    uint64_t max_stale;
    uint64_t version, updates; /* commits; results merged with a step */
    double passes;
    double time; /* median of the workers' mean task times, s; 0: none yet */
} skald_overview;

typedef struct skald_worker_view {
    uint32_t worker;
    uint64_t tasks;     /* training tasks completed */
    uint64_t lead;      /* tasks over the slowest worker's, a slot, once this one and those in flight are completed */
    uint64_t staleness; /* of its last result */
    double mean_staleness; /* of all of them */
    double time;           /* mean task time, s (moving); 0: none yet */
    double slowdown;       /* time over the median; 1: not known yet */
    double waiting;        /* mean time between its tasks, s */
} skald_worker_view;

/* true: it may be given a task. Owner thread; must not block, and must depend on its arguments alone: a run where
 * nothing is in flight and nobody is admitted ends with SKALD_EINVAL, since nothing would ever change. */
typedef bool (*skald_barrier)(void *user, const skald_overview *all, const skald_worker_view *one);

/* A barrier as an expression (src/base/expression.h) over the names above (time and staleness are the worker's). */
typedef struct skald_barrier_rule skald_barrier_rule;
/* SKALD_EINVAL with a caret under the mistake. Free with skald_barrier_free. */
skald_status skald_barrier_parse(const char *text, skald_barrier_rule **out);
void skald_barrier_free(skald_barrier_rule *rule); /* NULL-safe */
/* A skald_barrier whose user is a rule. */
bool skald_barrier_by_rule(void *rule, const skald_overview *all, const skald_worker_view *one);

/* What --mode sync is: nobody is given a task while anybody has one, "busy == 0". (A round's results are also reduced
 * into one update, which no barrier does.) */
bool skald_barrier_rounds(void *unused, const skald_overview *all, const skald_worker_view *one);

/* What a preset stands for: "async" for nothing, "sync" (*sync) for skald_barrier_rounds and no expression; "ssp:S" for
 * "lead <= S" (stale synchronous parallel, Ho et al. 2013), S >= 1; "partial:B" for "avail >= B*workers", 0 < B <= 1.
 * `size` bytes of expression; SKALD_EINVAL. */
skald_status skald_barrier_preset(const char *mode, bool *sync, char *expression, size_t size);

#endif
