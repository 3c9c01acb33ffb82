/* The engine port: what a solver programs against.
 *
 * A solver is a short program: while not finished, dispatch work, collect a result, update its vectors,
 * commit. It never knows who computes, where, or how many; it reads no clock, no socket and no random
 * number. All calls come from one thread, the owner. */
#ifndef SKALD_ENGINE_H
#define SKALD_ENGINE_H

#include "skald/problem.h"
#include "skald/stale.h"
#include "skald/task.h"
#include "skald/vectors.h"

typedef struct skald_engine skald_engine;

/* What a batch's gradients are the difference to. */
typedef enum skald_origin {
    SKALD_FROM_NOTHING = 0, /* the gradients themselves */
    SKALD_FROM_FULL,        /* the gradients at the model of the last full gradient that was committed (SVRG) */
    SKALD_FROM_PATH /* those where the last task's ended: the tasks cover the way of the model piece by piece, each
                     * piece once, beginning at the last full gradient's model (SYNTHESIS) */
} skald_origin;

/* What the solver wants computed next, and the vectors it is computed at. */
typedef struct skald_work {
    bool history;       /* SAGA tasks rather than plain gradients */
    bool local;         /* H steps on the worker's copy rather than one batch */
    uint32_t task_rows; /* rows a task: H x b, or the batch; 0: no tasks but those of a full gradient */
    uint32_t step_rows; /* local: b */
    double eta;         /* local: step inside the task */
    double theta;       /* local: weight of a merge in regular running */
    double *w, *abar;   /* the solver's vectors (abar NULL without history) */
    skald_origin origin;
    /* The gradient over all rows too, at the model as it is when the round begins; a round that has begun is made
     * whatever later work says, and comes as one merge. Other tasks go on meanwhile, unless task_rows is 0 or the mode
     * synchronous. */
    bool full;
} skald_work;

/* One result to merge; in synchronous mode the sum over the round. Valid until the next collect. */
typedef struct skald_merge {
    bool local;
    const double *dw;      /* local: model difference */
    const double *g;       /* plain: gradient direction; multiply by `weight` for the estimate */
    double weight;         /* plain: q / r (async), 1 (sync, already averaged) */
    double bias;           /* local sgd: q_k; else 1 */
    const double *history; /* exact sum of the D's, for abar; NULL without history */
    uint64_t rows;
    uint64_t staleness; /* commits between the version read and now */
    uint32_t chains;    /* P: slots computing at the same time (async), 1 (sync) */
    uint64_t regular;   /* staleness of regular running: tasks that can be in flight, less one */
    skald_stale action; /* what the policy says: how long a step is made (fold and reject: none, and fold is set) */
    double adapted;     /* action adapt: the part of the step to be made */
    bool fold;          /* only the history counts: too stale, of a generation rolled back, or of an old origin */
    /* g is the mean gradient of the data term over all rows, weight 1. Once this is committed it is what
     * SKALD_FROM_FULL and SKALD_FROM_PATH begin from, and what is still in flight is of an old origin. A step of 0 in
     * the commit says that the model did not change. */
    bool full;
} skald_merge;

typedef struct skald_engine_ops {
    /* Checks targets, limits and interrupts; true: stop. */
    bool (*finished)(skald_engine *e);
    /* Publishes the vectors if they changed and gives a task to every worker the barrier admits. */
    skald_status (*dispatch)(skald_engine *e, const skald_work *work);
    /* The next result. SKALD_AGAIN: nothing to merge, go round again. Blocks. */
    skald_status (*collect)(skald_engine *e, skald_merge *merge);
    /* The vectors now hold the merged result; `step` is the step length really applied (0: folded). */
    skald_status (*commit)(skald_engine *e, const skald_merge *merge, double step);
} skald_engine_ops;

struct skald_engine {
    const skald_engine_ops *ops;
    skald_vectors vectors;
    const skald_problem *problem;
    double passes;       /* rows processed / n */
    double backoff;      /* the guard's factor on every step: 1, 1/2, ... */
    uint32_t parallel;   /* P: tasks in flight in regular running */
    uint32_t generation; /* raised when the model is set back: what was derived from it before is of no use */
    double smoothness;   /* sum k^2 / sum k of the last pass's local steps (see skald_sums); 0 = not known yet */
    const double *start_w, *start_abar; /* where the run begins, in the host's memory: NULL is 0 */
};

static inline skald_regulariser skald_engine_regulariser(const skald_engine *e) {
    const skald_objective *o = &e->problem->objective;
    return (skald_regulariser){o->l2, o->l1, o->intercept, o->nonconvex, skald_objective_intercept_step(o)};
}

/* Gives fresh vectors their first values: those of a checkpoint, if the run goes on from one; else w = 0 with the
 * problem's constant (see skald_problem_start). abar: NULL, or the average history. Anything else a solver keeps is to
 * be found anew, from a full gradient. */
static inline void skald_begin(skald_engine *e, double *w, double *abar) {
    skald_vectors *v = &e->vectors; /* an error is in its status */
    if (e->start_w) (void)v->ops->write(v, w, e->start_w);
    if (e->start_abar && abar) (void)v->ops->write(v, abar, e->start_abar);
}

static inline bool skald_finished(skald_engine *e) {
    return e->ops->finished(e);
}
static inline skald_status skald_dispatch(skald_engine *e, const skald_work *work) {
    return e->ops->dispatch(e, work);
}
static inline skald_status skald_collect(skald_engine *e, skald_merge *m) {
    return e->ops->collect(e, m);
}
static inline skald_status skald_commit(skald_engine *e, const skald_merge *m, double step) {
    return e->ops->commit(e, m, step);
}

#endif
