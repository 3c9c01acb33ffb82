/* One evaluation at a time: real passes over the data at pinned points, while training goes on.
 *
 * Without an intercept it is one phase: sums and gradients. With one: a pass that keeps the margins,
 * Newton rounds on b0 alone over the kept margins, and the pass for the gradients at the b0 found, so that
 * the duality gap is one. The b0 of several classes are minimised together (intercepts.h). Each phase is one task a
 * worker; results are reduced in worker order. */
#ifndef SKALD_ENGINE_EVALUATION_H
#define SKALD_ENGINE_EVALUATION_H

#include "engine/certificate.h"
#include "engine/versions.h"
#include "skald/crew.h"

typedef enum skald_phase {
    SKALD_PHASE_IDLE = 0,
    SKALD_PHASE_MARGINS,
    SKALD_PHASE_NEWTON,
    SKALD_PHASE_FINAL
} skald_phase;

typedef struct skald_evaluator {
    const skald_problem *problem;
    skald_versions *versions;
    uint32_t workers, expected; /* all, and those that have rows */
    bool waiting;               /* rows are missing: nobody is asked */
    uint32_t round;             /* begun so far, those begun anew counted */
    uint32_t anew;              /* in a row, because rows were missing */
    skald_phase phase;
    bool gradients;
    uint32_t points;
    uint32_t newton_rounds;
    skald_version *model; /* the points */
    double shift[SKALD_MAX_POINTS];
    /* with intercepts of several classes, else NULL: their shifts (vectors, since they travel as a version) */
    double *shifts[SKALD_MAX_POINTS], *scratch;
    skald_version *shifts_model;
    bool *asked;            /* workers */
    skald_result **results; /* workers; owned by the crew until released */
    uint32_t outstanding;
    uint64_t rows; /* passes over rows made so far, all evaluations */
    /* the outcome, valid after the phase went back to idle */
    double *point[SKALD_MAX_POINTS];    /* skald_problem_length each: with the b0 found */
    double *gradient[SKALD_MAX_POINTS]; /* sums, not means */
    skald_sums sums[SKALD_MAX_POINTS];
    skald_certificate certificate[SKALD_MAX_POINTS];
} skald_evaluator;

/* Versions are published from the run's own pool: their ids are unique in the run. */
skald_status skald_evaluator_init(skald_evaluator *ev, const skald_problem *problem, skald_versions *versions,
                                  uint32_t workers);
void skald_evaluator_fini(skald_evaluator *ev);

/* Pins the points (copies) and begins. */
skald_status skald_evaluator_begin(skald_evaluator *ev, uint64_t commits, const double *const *points, uint32_t count,
                                   bool gradients);
/* From here on `workers` have rows; waiting: not all rows are there, until the next call. What is running begins anew.
 * The caller has released its results. */
skald_status skald_evaluator_again(skald_evaluator *ev, uint32_t workers, bool waiting);
/* Releases the results kept so far: before `again`, and at the end. */
void skald_evaluator_drop(skald_evaluator *ev, skald_crew *crew);
static inline bool skald_evaluator_active(const skald_evaluator *ev) {
    return ev->phase != SKALD_PHASE_IDLE;
}
/* The task this worker still has to be given in the present phase; false: none. Marks it as given. */
bool skald_evaluator_task(skald_evaluator *ev, uint32_t worker, skald_task *task);
/* Takes a result (keeps it until the phase is reduced). *done: the evaluation is complete. */
skald_status skald_evaluator_add(skald_evaluator *ev, skald_crew *crew, skald_result *result, bool *done);
/* Index of the point with the lower objective. */
uint32_t skald_evaluator_best(const skald_evaluator *ev);

#endif
