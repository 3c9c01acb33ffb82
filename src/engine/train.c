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
    }
    return "unknown";
}

const char *skald_stop_name(skald_stop stop) {
    switch (stop) {
    case SKALD_STOP_NONE:
        return "failed";
    case SKALD_STOP_GAP:
        return "target gap reached";
    case SKALD_STOP_GRADIENT:
        return "target gradient reached";
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

/* ---- smoothness ------------------------------------------------------------------------------------ */

/* A result of the product is in, or what was in flight has changed; again: the members have, and all is to be asked
 * anew. */
static skald_status product_event(skald_run *run, const skald_task *asked, bool *again) {
    skald_event event = {0};
    TRY(run->crew->ops->next(run->crew, SKALD_NS_PER_S / 20, &event));
    if (run->stop_flag && *run->stop_flag) return skald_fail(SKALD_INTERRUPTED, "interrupted before training");
    if (event.kind == SKALD_EVENT_REQUEST) {
        run->crew->ops->answer(run->crew, event.asker, "{\"state\":\"starting\"}", NULL);
        return SKALD_OK;
    }
    if (event.kind == SKALD_EVENT_LOST && run->crew->ranks)
        return skald_fail(SKALD_ELOST, "a rank is gone: %s", event.reason ? event.reason : "");
    if (event.kind != SKALD_EVENT_RESULT) {
        *again |= event.kind != SKALD_EVENT_NONE;
        return skald_members_event(run, &event);
    }
    skald_result *r = event.result;
    skald_flight *flight = skald_run_find(run, r->task);
    if (flight) skald_run_land(run, flight);
    if (!flight || *again || r->status != SKALD_OK) {
        const uint32_t who = r->worker;
        const char *name = run->crew->ops->member(run->crew, who)->name;
        skald_status st = SKALD_OK;
        if (flight && !*again) st = skald_fail(r->status, "worker %u (%s), curvature task: %s", who, name, r->error);
        if (st == SKALD_EREFUSED && ++run->members[who].refused < SKALD_REFUSALS) {
            run->refused++;
            skald_run_notice(run, "result of worker %u (%s) refused: %s", who, name, r->error);
            skald_task t = *asked;
            st = skald_run_submit(run, who, &t);
        }
        run->crew->ops->release(run->crew, r);
        return st;
    }
    run->evaluator.results[r->worker] = r; /* idle now, and freed with the run should this fail */
    return SKALD_OK;
}

/* One product (1/m) X'SX v over a sample of rows, summed over the workers. */
static skald_status product(skald_run *run, skald_version *v, uint32_t rows_per_shard, double *out, double *rows) {
    const uint32_t dim = skald_problem_length(run->problem);
    const skald_task task = {
        .kind = SKALD_TASK_CURVATURE, .shard = SKALD_ALL_SHARDS, .model = v, .rows = rows_per_shard};
    memset(out, 0, dim * sizeof(double));
    *rows = 0;
    for (bool again = true; again || run->flight_count;) {
        if (again && !run->flight_count && skald_members_complete(run)) {
            again = false;
            skald_evaluator_drop(&run->evaluator, run->crew);
            for (uint32_t k = 0; k < run->size; k++) {
                skald_task t = task;
                if (run->members[k].alive && run->members[k].slots) TRY(skald_run_submit(run, k, &t));
            }
        }
        TRY(product_event(run, &task, &again));
    }
    for (uint32_t k = 0; k < run->size; k++) { /* in worker order: the step's bits do not depend on arrival */
        skald_result *r = run->evaluator.results[k];
        if (!r) continue;
        for (uint32_t j = 0; j < dim && r->vectors[0]; j++) out[j] += r->vectors[0][j];
        *rows += r->sums[0].rows;
    }
    skald_evaluator_drop(&run->evaluator, run->crew);
    return run->crew->ranks ? run->crew->ranks->reduce(run->crew, &out, 1) : SKALD_OK;
}

/* L = max phi'' times the largest eigenvalue of (1/n) sum s_i x_i x_i', by power iteration on a sample;
 * x 1.1, because the iteration stops early; a small sample errs to the safe side. */
static skald_status measure_L(skald_run *run, double *L) {
    const skald_problem *p = run->problem;
    const uint32_t length = skald_problem_length(p); /* of messages; the product is with the first class's part */
    double *v = skald_zalloc(length, sizeof(double)), *next = skald_zalloc(length, sizeof(double));
    skald_status st = SKALD_ENOMEM;
    if (!v || !next) goto out;
    for (uint32_t j = 0; j < p->dim; j++) v[j] = skald_normal(p->seed + 77, j);
    double lambda = 0, rows = 0;
    uint32_t sample = (uint32_t)ceil(4000.0 / p->shard_count);
    for (int round = 0; round < 20; round++) {
        double norm = 0;
        for (uint32_t j = 0; j < p->dim; j++) norm += v[j] * v[j];
        norm = sqrt(norm);
        if (!(norm > 0)) break;
        for (uint32_t j = 0; j < p->dim; j++) v[j] /= norm;
        const double *vectors[1] = {v};
        skald_version *version = skald_versions_publish(run->versions, 0, vectors, 1);
        if (!version) {
            st = SKALD_ENOMEM;
            goto out;
        }
        st = product(run, version, sample, next, &rows);
        skald_version_unref(version);
        if (st != SKALD_OK) goto out;
        double quotient = 0;
        for (uint32_t j = 0; j < p->dim; j++) next[j] /= rows, quotient += v[j] * next[j];
        double *swap = v;
        v = next;
        next = swap;
        bool settled = quotient < lambda * 1.02;
        if (quotient > lambda) lambda = quotient;
        if (settled) break;
    }
    *L = fmin(1.1 * skald_loss_curvature(p->objective.loss) * lambda, p->L_max);
    if (!(*L > 0)) *L = p->L_max;
    st = SKALD_OK;
out:
    free(v);
    free(next);
    return st;
}

/* ---- begin and end --------------------------------------------------------------------------------- */

static skald_status check(const skald_train_options *o, const skald_problem *p) {
    if (o->target_gap > 0 && p->objective.l2 <= 0)
        return skald_fail(SKALD_EINVAL, "--target-gap needs --l2 > 0 (the certificate divides by it): use "
                                        "--target-gradient");
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

static skald_status begin(skald_run *run) {
    const uint32_t dim = skald_problem_length(run->problem);
    TRY(check(run->options, run->problem));
    run->engine.ops = &skald_crew_engine_ops;
    skald_vectors_host(&run->engine.vectors, dim);
    run->engine.vectors.classes = skald_objective_classes(&run->problem->objective);
    run->engine.vectors.columns = run->problem->dim;
    run->engine.problem = run->problem;
    run->engine.backoff = 1;
    run->calibration = 1;
    run->bound = -INFINITY;
    run->history = run->options->algo == SKALD_SAGA;
    run->quiesce =
        (run->options->has_target_objective && !run->options->eval_beside) || run->options->mode == SKALD_SYNC;
    TRY(skald_members_init(run));
    run->round_g = skald_zalloc(dim, sizeof(double));
    run->history_sum = skald_zalloc(dim, sizeof(double));
    run->delivered = skald_zalloc(dim, sizeof(double));
    if (!run->round_g || !run->history_sum || !run->delivered) return SKALD_ENOMEM;
    TRY(skald_ledger_init(&run->ledger, run->problem, run->history && !run->crew->ranks));
    if (run->crew->ranks) TRY(skald_ranks_init(run));
    TRY(skald_full_init(run));
    TRY(skald_versions_create(dim, 2, &run->versions));
    /* one a task in flight, one still being sent to each worker, the current one, the one being evaluated */
    TRY(skald_versions_reserve(run->versions, run->flight_capacity + run->size + 2));
    TRY(skald_evaluator_init(&run->evaluator, run->problem, run->versions, run->most));
    TRY(skald_members_ready(run));
    run->last.objective = run->last.gap = run->last.relative_gap = run->last.gradient_norm = NAN;
    run->audit_drift = -1;
    if (run->problem->L <= 0)
        TRY(measure_L(run, &((skald_problem *)run->problem)->L)); /* the crew's, fixed from here on */
    run->begin_ns = skald_now_ns(run->clock);
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
    if (!(p->objective.l1 > 0)) return SKALD_OK;
    uint32_t best = skald_evaluator_best(&run->evaluator);
    double *g = run->evaluator.gradient[best];
    for (uint32_t j = 0; j < skald_problem_length(p); j++) g[j] /= p->n;
    const skald_regulariser r = skald_engine_regulariser(&run->engine);
    run->engine.vectors.ops->proximal_step(&run->engine.vectors, run->delivered, g, 1 / (p->L + p->objective.l2), &r);
    const double *points[1] = {run->delivered};
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
    bool by_target =
        run->stop == SKALD_STOP_GAP || run->stop == SKALD_STOP_GRADIENT || run->stop == SKALD_STOP_OBJECTIVE;
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
    TRY(sharpen(run));
    return run->options->audit ? audit(run) : SKALD_OK;
}

static void fill(skald_run *run, skald_outcome *out) {
    out->stop = run->stop;
    bool wanted =
        run->options->target_gap > 0 || run->options->target_gradient > 0 || run->options->has_target_objective;
    const skald_train_options *o = run->options;
    bool met = (o->target_gap > 0 && run->last.relative_gap <= o->target_gap) ||
               (o->target_gradient > 0 && run->last.gradient_norm <= o->target_gradient) ||
               (o->has_target_objective &&
                run->last.objective <= o->target_objective + o->target_tolerance * fabs(o->target_objective));
    out->reached = !wanted || met;
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
    out->evaluations = run->evaluations;
    out->full_gradients = run->epoch;
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
    for (uint32_t f = 0; f < run->flight_count; f++)
        if (run->flights[f].result) run->crew->ops->release(run->crew, run->flights[f].result);
    if (run->held) run->crew->ops->release(run->crew, run->held);
    if (run->audit.asker)
        run->crew->ops->answer(run->crew, run->audit.asker, "{\"state\":\"ended before the audit did\"}", NULL);
    skald_evaluator_drop(&run->evaluator, run->crew);
    skald_version_unref(run->current);
    skald_full_fini(run);
    skald_path_fini(run);
    skald_evaluator_fini(&run->evaluator);
    skald_versions_destroy(run->versions);
    skald_ledger_fini(&run->ledger);
    skald_watch_fini(run);
    free(run->holders);
    free(run->ending);
    free(run->members);
    free(run->flights);
    free(run->round_g);
    free(run->history_sum);
    free(run->delivered);
}

skald_status skald_train(skald_crew *crew, skald_solver solver, const skald_train_options *options, skald_clock *clock,
                         const skald_observer *observer, const atomic_int *stop_flag, skald_outcome *outcome) {
    skald_train_options o = *options;
    if (o.q_cap == 0) o.q_cap = 8;
    if (o.algo == SKALD_SVRG || o.algo == SKALD_SYNTHESIS) o.local = 0; /* their steps are the coordinator's */
    if (o.target_tolerance <= 0) o.target_tolerance = 1e-8;
    if (!(o.slow_ratio > 0)) o.slow_ratio = 1.5;
    skald_run run = {.crew = crew,
                     .problem = crew->problem,
                     .options = &o,
                     .clock = clock,
                     .observer = observer,
                     .stop_flag = stop_flag};
    memset(outcome, 0, sizeof *outcome);
    char why[400] = "";
    /* full gradients and bent regularisers are the coordinator's */
    const bool ranks_can = (o.algo == SKALD_SGD || o.algo == SKALD_SAGA) && !(crew->problem->objective.nonconvex > 0);
    if (o.mode == SKALD_SYNC && crew->conduct && ranks_can) {
        skald_status conducted = crew->conduct(crew, &o, observer, stop_flag, outcome);
        if (conducted != SKALD_EUNSUPPORTED) return conducted;
        snprintf(why, sizeof why, "%s", skald_error());
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
