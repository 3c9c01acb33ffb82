/* The engine port: what a solver programs against.
 *
 * A solver is a short program: while not finished, dispatch work, collect a result, update its vectors,
 * commit. It never knows who computes, where, or how many; it reads no clock, no socket and no random
 * number. All calls come from one thread, the owner. */
#ifndef SKALD_ENGINE_H
#define SKALD_ENGINE_H

#include <stdatomic.h>

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
    /* history: a task is the next of the parts (SKALD_SHARD_PARTS) that a shard has for good, whatever
     * task_rows (lockstep: all of them), and merges tell where the history is taken (skald_merge.moved). */
    bool parts;
    bool rounds; /* parts: none whose history is at the model as it is is taken anew: it waits for the others */
    uint64_t sample_rows; /* rows to be brought to skald_engine.sample; no fewer than before */
    double eta;           /* local: step inside the task */
    double theta;         /* local: weight of a merge in regular running */
    double *w, *abar;     /* the solver's vectors (abar NULL without history) */
    double *wbar;         /* with parts: the rows' mean of the models that the history is taken at; else NULL */
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
    const double *moved;   /* parts: change of wbar, sum (rows/n) (model - model before); NULL without */
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

/* Rows that the solver has asked for, whole. Read-only; a solver that keeps the pointer across a dispatch that asks for
 * more keeps nothing: they are made anew. */
typedef struct skald_sample {
    skald_rows rows;       /* as they come from the shards */
    const uint32_t *shard; /* of each */
    const uint32_t *row;   /* number of each in its shard */
    bool complete;         /* as many as were asked for are here */
    bool whole;            /* that is all rows */
} skald_sample;

/* What is known about the objective at the model as it is now, from rows whose history is taken at it. */
typedef struct skald_fresh {
    double rows; /* n: the history is the gradient at w, and loss is all of its data term */
    double loss; /* sum s_i phi_i over them */
} skald_fresh;

typedef struct skald_engine_ops {
    /* Checks targets, limits and interrupts; true: stop. */
    bool (*finished)(skald_engine *e);
    /* Publishes the vectors if they changed and gives a task to every worker the barrier admits. */
    skald_status (*dispatch)(skald_engine *e, const skald_work *work);
    /* The next result. SKALD_AGAIN: nothing to merge, go round again. Blocks. */
    skald_status (*collect)(skald_engine *e, skald_merge *merge);
    /* The vectors now hold the merged result; `step` is the step length really applied (0: folded). */
    skald_status (*commit)(skald_engine *e, const skald_merge *merge, double step);
    /* Parts: the model that a row's history is taken at; NULL: none yet (its history is 0). Host memory. */
    const double *(*taken_at)(const skald_engine *e, uint32_t shard, uint32_t row);
    /* Parts: abar and wbar as they would be if what has been seen of each shard stood for all of it, and the shards of
     * which something was seen for the others. Returns the share of rows in those. Host memory. */
    double (*extrapolate)(const skald_engine *e, double *abar, double *wbar);
    /* Parts: the clock (skald_merge.staleness counts by it) when the oldest model that some history is at was
     * published; 0 before every row has been seen. */
    uint64_t (*oldest)(const skald_engine *e);
    /* Runs `work` on a thread of its own, for arithmetic that may take seconds, and returns its status. Meanwhile the
     * owner thread answers requests; *stop becomes true when the run is to end: work looks at it now and then. It may
     * use the solver's vectors, as nothing is merged meanwhile, but not the engine's operations. Blocks. */
    skald_status (*beside)(skald_engine *e, skald_status (*work)(void *user, const atomic_bool *stop), void *user);
    /* Lockstep: does this process decide, of those that run this solver? Its numbers, and its vector (NULL: none), go
     * to all by agree. SKALD_AGAIN: they hold anything, and nothing is decided: go round again, the model as it is. */
    bool (*decides)(const skald_engine *e);
    skald_status (*agree)(skald_engine *e, double *vector, double *numbers, uint32_t count);
} skald_engine_ops;

enum { SKALD_SOLVER_NUMBERS = 8 };

struct skald_engine {
    const skald_engine_ops *ops;
    skald_vectors vectors;
    const skald_problem *problem;
    double passes;              /* rows processed / n */
    double backoff;             /* the guard's factor on every step: 1, 1/2, ... */
    uint32_t parallel;          /* P: tasks in flight in regular running */
    uint64_t guards;            /* newton: how often its steps did not do what they promised */
    uint32_t generation;        /* raised when the model is set back: what was derived from it before is of no use */
    double smoothness;          /* sum k^2 / sum k of the last pass's local steps (see skald_sums); 0 = not known yet */
    uint64_t commits;           /* the clock: changes of the model */
    double seen;                /* parts: rows whose history is at some model */
    skald_fresh fresh;          /* parts */
    const skald_sample *sample; /* parts */
    double decrement;           /* the solver's estimate of F(w) - F*, for judging when to look; 0: none */
    const double *start_w, *start_abar; /* where the run begins, in the host's memory: NULL is 0 */
    const double *start_wbar;
    /* Several processes run this solver on the same numbers, and go the same way by them: what is reckoned by a library
     * whose last bits differ from machine to machine is to be decided by one, and agreed on. The history is taken
     * whole, by `rounds`: taken_at, extrapolate and oldest are not to be used. */
    bool lockstep;
    /* How far a gradient of F says that its point is from the optimum, by the solver's curvature: an estimate of F - F*
     * (half the Newton decrement, squared; NaN: it cannot tell); `g` and `w` are in host memory. NULL: the solver knows
     * no curvature. */
    skald_status (*judge)(void *user, const double *w, const double *g, double *estimate);
    void *judge_user;
    /* What the solver would have again in a run that goes on: written by it before each commit, and kept in checkpoints
     * if the first one is not 0. All 0 in a new run. */
    double numbers[SKALD_SOLVER_NUMBERS];
};

static inline skald_regulariser skald_engine_regulariser(const skald_engine *e) {
    const skald_objective *o = &e->problem->objective;
    return (skald_regulariser){o->l2, o->l1, o->intercept, o->nonconvex, skald_objective_intercept_step(o)};
}

/* Gives fresh vectors their first values: those of a checkpoint, if the run goes on from one; else w = 0 with the
 * problem's constant (see skald_problem_start). abar, wbar: NULL, or the average history and the mean of the models it
 * is taken at. Anything else a solver keeps but its `numbers` is to be found anew. */
static inline void skald_begin(skald_engine *e, double *w, double *abar, double *wbar) {
    skald_vectors *v = &e->vectors; /* an error is in its status */
    if (e->start_w) (void)v->ops->write(v, w, e->start_w);
    if (e->start_abar && abar) (void)v->ops->write(v, abar, e->start_abar);
    if (e->start_wbar && wbar) (void)v->ops->write(v, wbar, e->start_wbar);
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

static inline const double *skald_taken_at(const skald_engine *e, uint32_t shard, uint32_t row) {
    return e->ops->taken_at(e, shard, row);
}
static inline double skald_extrapolate(const skald_engine *e, double *abar, double *wbar) {
    return e->ops->extrapolate(e, abar, wbar);
}
static inline bool skald_decides(const skald_engine *e) {
    return e->ops->decides(e);
}
static inline skald_status skald_agree(skald_engine *e, double *vector, double *numbers, uint32_t count) {
    return e->ops->agree(e, vector, numbers, count);
}
static inline uint64_t skald_oldest(const skald_engine *e) {
    return e->ops->oldest(e);
}
static inline skald_status skald_beside(skald_engine *e, skald_status (*work)(void *user, const atomic_bool *stop),
                                        void *user) {
    return e->ops->beside(e, work, user);
}

#endif
