/* Step sizes, batch sizes and staleness rules. */
#ifndef SKALD_SOLVER_SCHEDULE_H
#define SKALD_SOLVER_SCHEDULE_H

#include "skald/train.h"

typedef struct skald_schedule {
    uint32_t parallel; /* the P it was made for */
    bool local;
    uint32_t task_rows, step_rows;
    double eta;    /* step of one update at the worker (local) or at the coordinator (plain) */
    double decay;  /* T in eta / sqrt(1 + passes/T); 0: constant */
    double theta;  /* local: what one merge counts, times P */
    bool lengthen; /* lengthen eta as the curvature met allows */

} skald_schedule;

/* L_b: expected smoothness of a batch of b out of n rows (Gazagnadou, Gower, Salmon 2019):
 * n(b-1)/(b(n-1)) L + (n-b)/(b(n-1)) L_max. */
double skald_expected_smoothness(double n, double b, double L, double L_max);

skald_schedule skald_schedule_make(const skald_engine *engine, const skald_train_options *options, bool history);

/* For gradients by differences (SVRG): plain tasks. */
skald_schedule skald_schedule_difference(const skald_engine *engine, const skald_train_options *options);

/* For gradients integrated along the path (SYNTHESIS): batches of about the root of n. */
skald_schedule skald_schedule_path(const skald_engine *engine, const skald_train_options *options);

/* The step for work begun now: schedule times the guard's backoff. */
double skald_schedule_eta(const skald_schedule *s, const skald_engine *engine);
/* As the merge's action says; scale: min(1, (1 + regular) / (1 + tau)), so that only staleness beyond that of regular
 * running is damped. 0 when folded. */
double skald_schedule_damping(const skald_schedule *s, const skald_merge *m);
/* theta = damping x q / P: weight of a local model difference. P counts chains of steps, not tasks: a task queued
 * behind another goes on where that one ended. */
double skald_schedule_theta(const skald_schedule *s, const skald_merge *m);

#endif
