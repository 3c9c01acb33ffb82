/* History Newton: SAGA's history together with where it was taken, and steps from there through the inverse of a
 * sampled Hessian. newton.md beside this file has the mathematics.
 *
 *   abar <- abar + D/n                                    D: change of a part's history, taken at the model read
 *   wbar <- wbar + (rows/n) (model read - model before)   so that abar + l2 wbar is F's gradient at wbar, but for the
 *                                                         Hessians' differences times the models' spread
 *   w    <- wbar - t B (abar + l2 wbar)                   with l1: the minimum of the model that B is the inverse of
 *
 * There is no step length to choose, and delay costs nothing at first order, however many workers there are. It is
 * aggregated (IAG: Blatt, Hero, Gauchman 2007) and distributed (DAve-QN: Soori et al. 2020) Newton with one shared
 * Hessian, of a sample (Pilanci, Wainwright 2017).
 *
 * Where that runs away (the model is far, the sample too small), it goes on in rounds: a step is made when all of the
 * history is at the model, so that gradient and F are exact, and is halved until F falls enough (Armijo). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "skald/solver.h"
#include "solver/hessian.h"

static const double STEPS = 8;        /* a pass; more gain nothing */
static const double ENOUGH_SEEN = .5; /* of the rows, in shards of which something was seen, before the first step */
static const double WINDOW = 1.5;     /* passes between looks at the decrement */
static const double SLOW = 4;         /* a pass that lowers it by less asks for a larger sample */
static const double ROUGH = 1e-3;     /* tolerance of a step with l1 */
static const double SAMPLED = 2;      /* what a sample may underrate the decrement by, and a half */
static const double ARMIJO = 1e-4, ROUNDING = 1e-13;

typedef struct newton {
    skald_engine *e;
    const skald_problem *p;
    skald_hessian *h;
    double *w, *abar, *wbar;       /* the engine's vectors */
    double *some_abar, *some_wbar; /* of the rows seen so far, until all are */
    double *g, *direction, *from;  /* a gradient, B times that, and the point that the step is made from */
    double *data;                  /* the data's part of a gradient that is judged */
    double t;                      /* the part of a step that is made */
    double part, asked;            /* what the sample can bear of a step, and when it was asked (passes) */
    double stepped;                /* passes at the last step */
    uint32_t generation;
    /* the guard */
    double decrement, looked; /* at the last look, and when; decrement < 0: none yet */
    uint64_t since;           /* the clock then */
    bool troubled;            /* it had grown at the last look */
    /* rounds */
    bool rounds, tried;
    double F, slope; /* at `from`, before the step that is tried */
} newton;

/* s->direction from x, where the gradient is a + l2 x. Returns what it promises: twice F's distance from the optimum.
 */
static skald_status look(newton *s, const double *a, const double *x, double *promise) {
    skald_hessian_gradient(s->p, a, x, s->g);
    return skald_hessian_direction(s->h, x, s->g, s->w, ROUGH, s->direction, promise);
}

static void go(newton *s, const double *x, double t, double *moved) {
    const uint32_t length = skald_problem_length(s->p);
    for (uint32_t j = 0; j < length; j++) s->w[j] = x[j] - t * s->direction[j];
    s->stepped = s->e->passes;
    *moved = t;
}

/* How much of the step can the sample bear? Asked once a pass, and while the answer is less than all of it: it takes
 * two dots a row of the sample. */
static skald_status look_along(newton *s, const double *x, const double *a) {
    if (s->part >= 1 && s->e->passes - s->asked < 1) return SKALD_OK;
    s->asked = s->e->passes;
    return skald_hessian_line(s->h, x, a, s->g, s->direction, &s->part);
}

static void begin_rounds(newton *s) {
    s->rounds = true;
    s->tried = false;
    s->t = 1;
    skald_hessian_forget(s->h);
}

/* Every window in which all of the history was renewed: has the decrement grown? Once: shorter steps and a new B. Twice
 * in a row: rounds. Has it hardly fallen: the sample is too small. */
static void guard(newton *s, double decrement) {
    skald_engine *e = s->e;
    const double passes = e->passes - s->looked;
    if (s->decrement >= 0 && (passes < WINDOW || skald_oldest(e) < s->since)) return;
    const bool grown = s->decrement >= 0 && !(decrement <= s->decrement);
    const bool slow = s->decrement > 0 && !(decrement * pow(SLOW, passes) <= s->decrement);
    if (grown && s->troubled) {
        begin_rounds(s);
    } else if (grown) {
        s->t /= 2;
        skald_hessian_forget(s->h);
    } else {
        s->t = fmin(1, 2 * s->t);
    }
    if (grown || slow) skald_hessian_grow(s->h);
    e->guards += grown;
    s->troubled = grown;
    s->decrement = decrement;
    s->looked = e->passes;
    s->since = e->commits;
}

/* The step of the flow: from wbar, whatever is in flight. */
static skald_status flow_step(newton *s, double *moved) {
    skald_engine *e = s->e;
    const double *a = s->abar, *x = s->wbar;
    double promise;
    if (e->passes - s->stepped < 1 / STEPS) return SKALD_OK;
    const bool all = e->seen >= s->p->n;
    if (!all && skald_extrapolate(e, s->some_abar, s->some_wbar) < ENOUGH_SEEN) return SKALD_OK;
    if (!all) a = s->some_abar, x = s->some_wbar;
    TRY(skald_hessian_tend(s->h, s->w, x, all ? a : NULL));
    TRY(look(s, a, x, &promise));
    if (all) {
        guard(s, promise);
        e->decrement = promise / 2;
    }
    if (s->rounds) return SKALD_OK;
    TRY(look_along(s, x, a));
    go(s, x, fmin(s->t, s->part), moved);
    return SKALD_OK;
}

/* The step of a round: all of the history is at w. */
static skald_status round_step(newton *s, double *moved) {
    skald_engine *e = s->e;
    skald_vectors *v = &e->vectors;
    const skald_regulariser reg = skald_engine_regulariser(e);
    if (e->fresh.rows < s->p->n) return SKALD_OK;
    const double F = e->fresh.loss / s->p->n + v->ops->penalty(v, s->w, &reg);
    if (s->tried && !(F <= s->F - ARMIJO * s->t * s->slope + ROUNDING * fabs(s->F))) {
        s->t /= 2;
        go(s, s->from, s->t, moved);
        return SKALD_OK;
    }
    double promises[2]; /* of the first step, and of the last */
    v->ops->copy(v, s->from, s->w);
    if (skald_decides(e))
        TRY(skald_hessian_minimise(s->h, F, s->from, s->abar, s->direction, &promises[0], &promises[1]));
    const skald_status st = skald_agree(e, s->direction, promises, 2);
    if (st == SKALD_AGAIN) { /* there is no step, and none to go back on: the next round is at the same point */
        s->tried = false;
        return SKALD_OK;
    }
    TRY(st);
    if (s->tried && s->t < 1) skald_hessian_grow(s->h);
    s->F = F;
    s->slope = promises[0];
    e->decrement = promises[e->sample->whole] / 2;
    s->t = s->tried ? fmin(1, 2 * s->t) : 1;
    s->tried = true;
    go(s, s->from, s->t, moved);
    return SKALD_OK;
}

static skald_status step(newton *s, double *moved) {
    *moved = 0;
    if (s->generation != s->e->generation) { /* the engine's guard has set the model back: what follows is exact */
        s->generation = s->e->generation;
        begin_rounds(s);
    }
    if (s->e->sample->complete && s->e->sample->whole && !s->rounds) begin_rounds(s); /* it has grown to that */
    if (!s->e->sample->complete && (s->rounds || !skald_hessian_known(s->h))) return SKALD_OK;
    return s->rounds ? round_step(s, moved) : flow_step(s, moved);
}

/* What a run that goes on has again (e->numbers): how its steps are made, and the guard. The sample is gathered anew.
 */
enum { T, ROUNDS, SAMPLE, DECREMENT, LOOKED, SINCE, TROUBLED, GENERATION };

static void keep(const newton *s) {
    double *to = s->e->numbers;
    to[T] = s->t;
    to[ROUNDS] = s->rounds;
    to[SAMPLE] = (double)skald_hessian_sample(s->h);
    to[DECREMENT] = s->decrement;
    to[LOOKED] = s->looked;
    to[SINCE] = (double)s->since;
    to[TROUBLED] = s->troubled;
    to[GENERATION] = s->generation;
}

static void recall(newton *s) {
    const double *from = s->e->numbers;
    if (!(from[T] > 0 && from[T] <= 1)) return; /* a new run */
    s->t = from[T];
    s->rounds = from[ROUNDS] != 0;
    skald_hessian_ask(s->h, from[SAMPLE]);
    s->decrement = from[DECREMENT];
    s->looked = fmin(from[LOOKED], s->e->passes);
    s->since = from[SINCE] > 0 ? (uint64_t)fmin(from[SINCE], (double)s->e->commits) : 0;
    s->troubled = from[TROUBLED] != 0;
    if (from[GENERATION] != s->generation) begin_rounds(s); /* the model was set back, and no step made since */
}

/* Twice what F has left by H. Rows whose loss is flat have curvature in H that they may not have: how far F really
 * falls along the step shows it. (s->direction may be of a step under trial.) */
static skald_status left_by_curvature(newton *s, const double *w, const double *g, double *left) {
    const skald_objective *o = &s->p->objective;
    const double excess = skald_hessian_excess(s->h);
    double t = 1;
    TRY(skald_hessian_direction(s->h, w, g, w, ROUGH, s->g, left));
    if (excess <= 1) return SKALD_OK;
    for (uint32_t j = 0; j < s->p->dim; j++) s->data[j] = g[j] - (j < s->p->features ? o->l2 * w[j] : 0);
    TRY(skald_hessian_line(s->h, w, s->data, g, s->g, &t));
    *left *= fmax(excess, t);
    return SKALD_OK;
}

static skald_status judge(void *user, const double *w, const double *g, double *estimate) {
    newton *s = user;
    double left;
    *estimate = NAN;
    if (s->p->objective.l1 > 0) return SKALD_OK; /* it has a certificate, and needs it */
    if (skald_decides(s->e) && skald_hessian_known(s->h) && left_by_curvature(s, w, g, &left) == SKALD_OK)
        *estimate = (s->e->sample->whole ? 0.5 : SAMPLED) * left;
    const skald_status st = skald_agree(s->e, NULL, estimate, 1);
    if (st == SKALD_AGAIN) *estimate = NAN;
    return st == SKALD_AGAIN ? SKALD_OK : st;
}

static skald_status make(newton *s, skald_engine *e, const skald_train_options *options) {
    double **const vectors[] = {&s->w, &s->abar,      &s->wbar, &s->some_abar, &s->some_wbar,
                                &s->g, &s->direction, &s->from, &s->data};
    *s = (newton){.e = e,
                  .p = e->problem,
                  .t = 1,
                  .part = 1,
                  .asked = -1,
                  .stepped = -1,
                  .generation = e->generation,
                  .decrement = -1};
    for (size_t k = 0; k < sizeof vectors / sizeof *vectors; k++) TRY(e->vectors.ops->create(&e->vectors, vectors[k]));
    TRY(skald_hessian_create(e, &s->h));
    recall(s);
    /* Softmax was not seen to hold in the flow; a sample of all rows is worth more in rounds: newton.md. */
    s->rounds |= s->p->objective.loss == SKALD_SOFTMAX || (double)skald_hessian_sample(s->h) >= s->p->n || e->lockstep;
    return SKALD_OK;
}

static void drop(newton *s) {
    double *const vectors[] = {s->w, s->abar,      s->wbar, s->some_abar, s->some_wbar,
                               s->g, s->direction, s->from, s->data};
    for (size_t k = 0; k < sizeof vectors / sizeof *vectors; k++)
        s->e->vectors.ops->destroy(&s->e->vectors, vectors[k]);
    skald_hessian_destroy(s->h);
}

skald_status skald_newton(skald_engine *e, const skald_train_options *options) {
    skald_vectors *v = &e->vectors;
    newton s;
    skald_status st;
    TRY_GOTO(st, make(&s, e, options), out);
    skald_begin(e, s.w, s.abar, s.wbar);
    e->judge = judge;
    e->judge_user = &s;

    while (!skald_finished(e)) {
        const skald_work work = {.history = true,
                                 .parts = true,
                                 .rounds = s.rounds,
                                 .sample_rows = skald_hessian_sample(s.h),
                                 .task_rows = 1,
                                 .w = s.w,
                                 .abar = s.abar,
                                 .wbar = s.wbar};
        skald_merge m;
        double moved = 0;
        TRY_GOTO(st, skald_dispatch(e, &work), out);
        st = skald_collect(e, &m);
        if (st == SKALD_AGAIN) continue;
        if (st != SKALD_OK) goto out;
        v->ops->axpy(v, s.abar, 1 / e->problem->n, m.history);
        v->ops->axpy(v, s.wbar, 1, m.moved);
        if (!m.fold) TRY_GOTO(st, step(&s, &moved), out);
        keep(&s);
        TRY_GOTO(st, skald_commit(e, &m, moved), out);
    }
    st = SKALD_OK;
out:
    e->judge = NULL;
    drop(&s);
    return st;
}
