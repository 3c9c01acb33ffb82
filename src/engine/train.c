/* A training run from a ready crew to its outcome. */
#include "skald/train.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "engine/run.h"

int64_t skald_run_now(const skald_run *run) {
    return skald_now_ns(run->clock) - run->begin_ns;
}

double skald_run_passes(const skald_run *run) {
    return run->rows / run->problem->n;
}

void skald_run_notice(const skald_run *run, const char *format, ...) {
    if (!run->observer || !run->observer->notice) return;
    char text[600];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    run->observer->notice(run->observer->user, text);
}

const char *skald_algo_name(skald_algo algo) {
    switch (algo) {
    case SKALD_SGD:
        return "sgd";
    case SKALD_SAGA:
        return "saga";
    case SKALD_SVRG:
        return "svrg";
    case SKALD_SYNTHESIS:
        return "synthesis";
    case SKALD_NEWTON:
        return "newton";
    }
    return "unknown";
}

bool skald_algo_parse(const char *name, skald_algo *out) {
    for (int a = SKALD_SGD; strcmp(skald_algo_name((skald_algo)a), "unknown") != 0; a++)
        if (strcmp(skald_algo_name((skald_algo)a), name) == 0) {
            *out = (skald_algo)a;
            return true;
        }
    return false;
}

void skald_run_drop(skald_run *run, double **x) {
    if (*x) run->engine.vectors.ops->destroy(&run->engine.vectors, *x);
    *x = NULL;
}

const char *skald_stop_name(skald_stop stop) {
    switch (stop) {
    case SKALD_STOP_NONE:
        return "failed";
    case SKALD_STOP_GAP:
        return "target gap reached";
    case SKALD_STOP_GRADIENT:
        return "target gradient reached";
    case SKALD_STOP_DECREMENT:
        return "target decrement reached";
    case SKALD_STOP_OBJECTIVE:
        return "target objective reached";
    case SKALD_STOP_PASSES:
        return "maximum passes done";
    case SKALD_STOP_TIME:
        return "time is up";
    case SKALD_STOP_UPDATES:
        return "maximum updates done";
    case SKALD_STOP_SOLVER:
        return "the solver ended";
    case SKALD_STOP_INTERRUPTED:
        return "interrupted";
    }
    return "unknown";
}

/* ---- begin and end --------------------------------------------------------------------------------- */

static skald_status check(const skald_train_options *o, const skald_problem *p) {
    if (o->target_gap > 0 && !(p->objective.l2 > 0 || p->objective.l1 > 0))
        return skald_fail(SKALD_EINVAL, "--target-gap needs --l2 or --l1 above 0: without either no gap can be "
                                        "certified; use --target-gradient");
    if (!(p->objective.nonconvex > 0)) return SKALD_OK;
    if (o->target_gap > 0)
        return skald_fail(SKALD_EINVAL,
                          "--target-gap: with --nonconvex no gap can be certified; use --target-gradient");
    if (o->algo != SKALD_SYNTHESIS && !(o->algo == SKALD_SGD && o->local == 0))
        return skald_fail(SKALD_EINVAL,
                          "--nonconvex: %s does not step by it; use --algo synthesis, or sgd with --local "
                          "off",
                          skald_algo_name(o->algo));
    return SKALD_OK;
}

/* A new run: at w = 0 and the problem's constant. */
static skald_status start(skald_run *run) {
    const skald_problem *p = run->problem;
    if (!p->start) return SKALD_OK;
    run->start_w = skald_zalloc(skald_problem_length(p), sizeof(double));
    if (!run->start_w) return SKALD_ENOMEM;
    for (uint32_t c = 0; c < skald_objective_classes(&p->objective); c++)
        run->start_w[(size_t)c * p->dim + p->features] = p->start[c];
    run->engine.start_w = run->start_w;
    return SKALD_OK;
}

static skald_status begin(skald_run *run) {
    const uint32_t dim = skald_problem_length(run->problem);
    TRY(check(run->options, run->problem));
    run->engine.ops = &skald_crew_engine_ops;
    skald_vectors *v = &run->engine.vectors;
    skald_vectors_host(v, dim);
    v->classes = skald_objective_classes(&run->problem->objective);
    v->columns = run->problem->dim;
    if (run->crew->vectors) *v = *run->crew->vectors;
    run->engine.problem = run->problem;
    run->engine.backoff = 1;
    run->calibration = 1;
    run->bound = -INFINITY;
    run->lowest = NAN;
    run->history = run->options->algo == SKALD_SAGA || run->options->algo == SKALD_NEWTON;
    run->quiesce =
        (run->options->has_target_objective && !run->options->eval_beside) || run->options->mode == SKALD_SYNC;
    TRY(skald_members_init(run));
    run->delivered = skald_zalloc(dim, sizeof(double));
    if (!run->delivered) return SKALD_ENOMEM;
    TRY(v->ops->create(v, &run->round_g));
    TRY(v->ops->create(v, &run->history_sum));
    TRY(skald_ledger_init(&run->ledger, run->problem, run->history && !run->crew->ranks));
    run->engine.lockstep = run->crew->ranks != NULL;
    if (run->crew->ranks) TRY(skald_ranks_init(run));
    if (run->options->algo == SKALD_NEWTON) {
        TRY(v->ops->create(v, &run->moved));
        TRY(skald_parts_init(&run->parts, run->problem));
        TRY(skald_sampling_init(&run->sampling, run->problem));
        run->engine.sample = &run->sampling.sample;
        run->smooth = skald_zalloc(dim, sizeof(double));
        if (!run->smooth) return SKALD_ENOMEM;
    }
    TRY(skald_full_init(run));
    TRY(skald_versions_create(v, dim, 2, &run->versions));
    /* one a task in flight, one still being sent to each worker, the current one, the one being evaluated; ranks, all
     * of whose tasks are of one version: that, the one before, and the one being evaluated */
    TRY(skald_versions_reserve(run->versions, run->crew->ranks ? 3 : run->flight_capacity + run->size + 2));
    TRY(skald_evaluator_init(&run->evaluator, run->problem, v, run->versions, run->most));
    TRY(skald_members_ready(run));
    run->last.objective = run->last.gap = run->last.relative_gap = run->last.gradient_norm = run->last.decrement = NAN;
    run->audit_drift = -1;
    TRY(skald_checkpoint_init(run));
    run->begin_ns = skald_now_ns(run->clock);
    TRY(run->options->resume ? skald_checkpoint_resume(run) : start(run));
    if (run->problem->L <= 0 && run->parts.parts && !(run->problem->objective.l1 > 0))
        ((skald_problem *)run->problem)->L = run->problem->L_max; /* a bound will do: no step's length depends on it */
    if (run->problem->L <= 0)
        TRY(skald_smoothness_measure(run, &((skald_problem *)run->problem)->L)); /* the crew's, fixed from here on */
    if (!run->options->resume) run->begin_ns = skald_now_ns(run->clock);
    return SKALD_OK;
}

/* Goes on until the running evaluation is done; nothing else is dispatched any more. */
static skald_status complete_evaluation(skald_run *run) {
    skald_merge ignored;
    while (skald_evaluator_active(&run->evaluator)) {
        skald_work none = run->work;
        TRY(run->engine.ops->dispatch(&run->engine, &none));
        skald_status st = skald_run_pump(run, &ignored);
        if (st == SKALD_OK && run->held) { /* a straggler: computed, too late to matter */
            run->crew->ops->release(run->crew, run->held);
            run->held = NULL;
        } else if (st != SKALD_OK && st != SKALD_AGAIN) {
            return st;
        }
    }
    return SKALD_OK;
}

static skald_status evaluate_now(skald_run *run, const double *const *points, uint32_t count) {
    TRY(complete_evaluation(run));
    TRY(skald_evaluator_begin(&run->evaluator, run->commits, points, count, true));
    return complete_evaluation(run);
}

/* l1: one full proximal step of the point delivered, so that its zeros are exact. */
static skald_status sharpen(skald_run *run) {
    const skald_problem *p = run->problem;
    skald_vectors *v = &run->engine.vectors;
    if (!(p->objective.l1 > 0)) return SKALD_OK;
    uint32_t best = skald_evaluator_best(&run->evaluator);
    double *g = run->evaluator.gradient[best];
    for (uint32_t j = 0; j < skald_problem_length(p); j++) g[j] /= p->n;
    const skald_regulariser r = skald_engine_regulariser(&run->engine);
    TRY(v->ops->write(v, run->history_sum, g));
    TRY(v->ops->write(v, run->round_g, run->delivered));
    v->ops->proximal_step(v, run->round_g, run->history_sum, 1 / (p->L + p->objective.l2), &r);
    const double *points[1] = {run->round_g};
    run->eval_passes = run->engine.passes;
    return evaluate_now(run, points, 1);
}

/* Every shard's anchor recomputed by its holder and compared with the ledger's. */
static skald_status audit(skald_run *run) {
    if (!run->history) return SKALD_OK;
    skald_audit_begin(run, NULL);
    skald_merge ignored;
    while (run->audit.outstanding) {
        skald_work none = run->work;
        TRY(run->engine.ops->dispatch(&run->engine, &none));
        skald_status st = skald_run_pump(run, &ignored);
        if (st != SKALD_OK && st != SKALD_AGAIN) return st;
        if (run->held) run->crew->ops->release(run->crew, run->held);
        run->held = NULL;
    }
    return SKALD_OK;
}

/* The limits ended it: evaluate what there is. (A target ended it: that was an evaluation.) */
static skald_status finish(skald_run *run) {
    if (!run->watch.good) return skald_fail(SKALD_INTERRUPTED, "interrupted before the first update");
    bool by_target = run->stop == SKALD_STOP_GAP || run->stop == SKALD_STOP_GRADIENT ||
                     run->stop == SKALD_STOP_OBJECTIVE || run->stop == SKALD_STOP_DECREMENT;
    if (!by_target) {
        const double *points[2] = {run->watch.good, run->watch.average};
        run->eval_passes = run->engine.passes;
        run->eval_seconds = (double)skald_run_now(run) * 1e-9;
        run->eval_train_seconds = run->eval_seconds - (double)run->paused_ns * 1e-9;
        run->eval_commits = run->commits;
        run->eval_updates = run->updates;
        TRY(complete_evaluation(run));
        TRY(evaluate_now(run, points, run->watch.has_average ? 2 : 1));
    }
    if (!run->parts.parts) TRY(sharpen(run)); /* newton's zeros are exact */
    return run->options->audit ? audit(run) : SKALD_OK;
}

static void fill(skald_run *run, skald_outcome *out) {
    out->stop = run->stop;
    bool wanted = run->options->target_gap > 0 || run->options->target_gradient > 0 ||
                  run->options->has_target_objective ||
                  (run->options->target_decrement > 0 && run->options->algo == SKALD_NEWTON);
    out->reached = !wanted || skald_judge_reached(run->options, &run->last);
    out->last = run->last;
    out->seconds = (double)skald_run_now(run) * 1e-9;
    out->train_seconds = run->eval_train_seconds;
    out->passes = run->engine.passes;
    out->rows_per_s = out->train_seconds > 0 ? run->rows / out->train_seconds : 0;
    out->updates = run->updates;
    out->commits = run->commits;
    out->applied = run->applied;
    out->scaled = run->scaled;
    out->folded = run->folded;
    out->rejected = run->rejected;
    out->rollbacks = run->rollbacks;
    out->guards = run->engine.guards;
    out->evaluations = run->evaluations;
    out->full_gradients = run->epoch;
    out->evictions = run->evictions;
    out->versions_held = run->versions_held;
    out->staleness_mean = run->merged ? (double)run->staleness_sum / (double)run->merged : 0;
    out->staleness_max = run->staleness_max;
    out->step = run->work.local ? run->work.eta : run->step_used;
    out->theta = run->work.local ? run->step_used : 0;
    out->task_rows =
        run->work.task_rows ? run->work.task_rows : run->work.step_rows; /* 0 while a full gradient is made */
    out->step_rows = run->work.local ? run->work.step_rows : out->task_rows;
    out->audit_drift = run->audit_drift;
    out->workers = skald_zalloc(run->size, sizeof *out->workers);
    if (out->workers) {
        out->worker_count = run->size;
        skald_table_rows(run, out->workers);
    }
    out->w = run->delivered;
    run->delivered = NULL;
}

static void end(skald_run *run) {
    for (uint32_t f = 0; f < run->flight_count; f++) {
        if (run->flights[f].result) run->crew->ops->release(run->crew, run->flights[f].result);
        skald_version_unref(run->flights[f].model);
    }
    if (run->held) run->crew->ops->release(run->crew, run->held);
    skald_run_drop_held(run);
    if (run->audit.asker)
        run->crew->ops->answer(run->crew, run->audit.asker, "{\"state\":\"ended before the audit did\"}", NULL);
    skald_evaluator_drop(&run->evaluator, run->crew);
    skald_version_unref(run->current);
    skald_eviction_fini(run);
    skald_checkpoint_fini(run);
    skald_full_fini(run);
    skald_path_fini(run);
    skald_evaluator_fini(&run->evaluator);
    skald_parts_fini(&run->parts);
    skald_sampling_fini(&run->sampling);
    skald_versions_destroy(run->versions);
    skald_ledger_fini(&run->ledger);
    skald_watch_fini(run);
    skald_ranks_fini(run);
    skald_run_drop(run, &run->round_g);
    skald_run_drop(run, &run->history_sum);
    skald_run_drop(run, &run->moved);
    free(run->members);
    free(run->flights);
    free(run->delivered);
    free(run->smooth);
    free(run->start_w);
    free(run->start_abar);
    free(run->start_wbar);
}

skald_status skald_train(skald_crew *crew, skald_solver solver, const skald_train_options *options, skald_clock *clock,
                         const skald_observer *observer, const atomic_int *stop_flag, skald_outcome *outcome) {
    skald_train_options o = *options;
    if (o.q_cap == 0) o.q_cap = 8;
    if (o.algo != SKALD_SAGA) o.history_versions = 0;
    if (o.algo == SKALD_SVRG || o.algo == SKALD_SYNTHESIS || o.algo == SKALD_NEWTON || o.history_versions)
        o.local = 0; /* their steps are the coordinator's */
    if (o.target_tolerance <= 0) o.target_tolerance = 1e-8;
    if (!(o.slow_ratio > 0)) o.slow_ratio = 1.5;
    if (o.mode == SKALD_SYNC) o.barrier = skald_barrier_rounds;
    skald_run run = {.crew = crew,
                     .problem = crew->problem,
                     .options = &o,
                     .clock = clock,
                     .observer = observer,
                     .stop_flag = stop_flag};
    memset(outcome, 0, sizeof *outcome);
    char why[400] = "";
    if (o.mode == SKALD_SYNC && crew->conduct) {
        const bool full = o.algo == SKALD_SVRG || o.algo == SKALD_SYNTHESIS;
        const char *lacks = full                                     ? "take no full gradients"
                            : crew->problem->objective.nonconvex > 0 ? "know no regulariser that is not convex"
                            : o.history_versions                     ? "keep no history by version"
                            : o.checkpointer || o.resume             ? "keep no checkpoints"
                                                                     : NULL;
        if (lacks) {
            snprintf(why, sizeof why, "ranks %s", lacks);
        } else {
            skald_status conducted = crew->conduct(crew, &o, observer, stop_flag, outcome);
            if (conducted != SKALD_EUNSUPPORTED) return conducted;
            snprintf(why, sizeof why, "%s", skald_error());
        }
    }
    skald_status st = begin(&run);
    if (st == SKALD_OK && why[0]) skald_run_notice(&run, "synchronous through the coordinator: %s", why);
    if (st == SKALD_OK) st = solver(&run.engine, &o);
    if (st == SKALD_OK && !run.stop) run.stop = SKALD_STOP_SOLVER; /* its vectors are gone: nothing starts from them */
    if (st == SKALD_OK) st = finish(&run);
    if (run.members && run.evaluator.asked) fill(&run, outcome);
    end(&run);
    return st;
}

void skald_outcome_free(skald_outcome *outcome) {
    free(outcome->workers);
    free(outcome->w);
    memset(outcome, 0, sizeof *outcome);
}
