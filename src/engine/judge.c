/* When to evaluate the objective for real, and what the outcome means. */
#include <math.h>
#include <string.h>

#include "base/base.h"
#include "engine/run.h"

/* Confirming passes stay within this share of the rows processed for training; a short run may need one or
 * two more. */
static const double BUDGET = 0.1;
static const uint64_t FREE = 3;
static const double CIRCLE = 8, NEAR = 1e-10; /* passes; a relative gap next to rounding */

double skald_run_stationarity(skald_run *run, const double *w, const double *g) {
    skald_vectors *v = &run->engine.vectors;
    const skald_regulariser r = skald_engine_regulariser(&run->engine);
    return sqrt(v->ops->stationarity(v, w, g, 1 / (run->problem->L + r.l2), &r));
}

/* How far the history's gradient, or the last full one, is from what the targets ask for: 1 or less looks reached. An
 * estimate: it only decides whether to look, and each look calibrates it. The history's is that of abar, about a pass
 * behind. */
static double estimated_excess(skald_run *run) {
    const skald_train_options *o = run->options;
    const skald_objective *f = &run->problem->objective;
    double norm = run->history ? skald_run_stationarity(run, run->work.w, run->work.abar) : run->full.norm, excess = 0;
    if (norm == 0) return 0;
    const double F = fabs(isnan(run->watch.estimate) ? run->watch.best : run->watch.estimate);
    const bool by_decrement = o->target_decrement > 0 && run->engine.judge;
    if ((o->target_gap > 0 || by_decrement) && run->engine.decrement > 0)
        excess = run->engine.decrement / (fmax(o->target_gap, by_decrement ? o->target_decrement : 0) * F);
    else if (o->target_gap > 0) /* what l2 makes of it, or by how much the dual point has to shrink for l1 */
        excess = fmin(norm * norm / (2 * f->l2) / F, norm / f->l1) / o->target_gap;
    if (o->target_gradient > 0) excess = fmax(excess, norm / o->target_gradient);
    return excess;
}

static bool looks_reached(skald_run *run) {
    const skald_train_options *o = run->options;
    const bool wanted = o->target_gap > 0 || o->target_gradient > 0 || (o->target_decrement > 0 && run->engine.judge);
    if (!(run->history || run->full.norm >= 0) || !wanted) return false;
    if (run->engine.passes - run->estimate_checked < 0.1 || run->engine.passes < 1) return false;
    run->estimate_checked = run->engine.passes;
    return estimated_excess(run) * run->calibration <= 0.3; /* a margin: a look that fails costs a pass */
}

bool skald_judge_due(skald_run *run) {
    const skald_train_options *o = run->options;
    if (run->stop || o->eval_every < 0 || run->updates == 0) return false;
    double since = run->engine.passes - run->last_eval_passes;
    if (o->eval_every > 0) return since >= o->eval_every;
    if (o->has_target_objective) return since >= fmax(1, run->engine.passes / 20); /* nothing else tells */
    bool affordable = (double)run->evaluator.rows <= BUDGET * run->rows || run->evaluations < FREE;
    if (since < 0.5) return false;
    return affordable ? looks_reached(run) || since >= 1 / BUDGET : since >= 3 && looks_reached(run);
}

skald_status skald_judge_begin(skald_run *run) {
    const double *points[2] = {run->work.w, run->watch.average};
    run->eval_passes = run->engine.passes;
    run->eval_seconds = (double)skald_run_now(run) * 1e-9;
    run->eval_train_seconds = run->eval_seconds - (double)run->paused_ns * 1e-9;
    run->eval_commits = run->commits;
    run->eval_updates = run->updates;
    run->last_eval_passes = run->engine.passes;
    run->eval_estimate = run->history || run->full.norm >= 0 ? estimated_excess(run) : 0;
    return skald_evaluator_begin(&run->evaluator, run->commits, points, run->watch.has_average ? 2 : 1, true);
}

skald_stop skald_judge_reached(const skald_train_options *o, const skald_evaluation *e) {
    if (o->has_target_objective &&
        e->objective <= o->target_objective + o->target_tolerance * fabs(o->target_objective))
        return SKALD_STOP_OBJECTIVE;
    if (o->target_gap > 0 && e->relative_gap <= o->target_gap) return SKALD_STOP_GAP;
    if (o->target_decrement > 0 && e->decrement <= o->target_decrement) return SKALD_STOP_DECREMENT;
    if (o->target_gradient > 0 && e->gradient_norm <= o->target_gradient) return SKALD_STOP_GRADIENT;
    return SKALD_STOP_NONE;
}

/* Not there yet: by how much was the estimate wrong? */
static void calibrate(skald_run *run) {
    const skald_train_options *o = run->options;
    double truth = 0;
    if (o->target_gap > 0) truth = fmin(run->last.relative_gap, 1) / o->target_gap; /* infinite: far, that is all */
    if (o->target_gradient > 0) truth = fmax(truth, run->last.gradient_norm / o->target_gradient);
    if (!(run->eval_estimate > 0) || !isfinite(truth)) return;
    run->calibration = fmin(fmax(truth / run->eval_estimate, 1e-2), 1e6);
}

/* Of the point evaluated, by the solver's curvature. */
static skald_status judge_decrement(skald_run *run, uint32_t point, double *out) {
    skald_evaluator *ev = &run->evaluator;
    const skald_problem *p = run->problem;
    const uint32_t classes = skald_objective_classes(&p->objective);
    double *g = ev->gradient[point];
    const double *w = ev->point[point];
    *out = NAN;
    if (!run->engine.judge || !ev->gradients) return SKALD_OK;
    for (uint32_t c = 0; c < classes; c++)
        for (uint32_t j = 0; j < p->dim; j++) {
            const size_t k = (size_t)c * p->dim + j;
            run->smooth[k] = g[k] / p->n + (j < p->features ? p->objective.l2 * w[k] : 0);
        }
    TRY(run->engine.judge(run->engine.judge_user, w, run->smooth, out));
    const double F = ev->certificate[point].objective;
    const bool vanished = skald_relative_gap(fmin(*out, F), F, skald_problem_loss_at_zero(p)) == 0; /* F* >= 0 */
    *out = vanished ? 0 : *out / fabs(F);
    return SKALD_OK;
}

/* Local steps are longer than is proven (skald_schedule_eta), and can end in a circle about the optimum: seen with
 * weights that differ a thousandfold. F would fall from look to look; where most results are too stale for a step, it
 * is that. */
static void look_for_circle(skald_run *run) {
    const skald_evaluation *e = &run->last;
    const uint64_t idle = run->folded + run->rejected;
    const double steps = (double)(e->updates - run->lowest_updates);
    if (!(run->lowest <= e->objective)) {
        run->lowest = e->objective;
    } else {
        const bool circle = steps * run->work.task_rows >= CIRCLE * run->problem->n;
        const bool late = (double)(idle - run->lowest_idle) >= steps;
        if (!run->history || !run->work.local || !circle || late || e->relative_gap <= NEAR) return;
        run->engine.backoff /= 2;
        skald_run_notice(run, "the objective has not fallen for %g passes: steps halved to x %g", CIRCLE,
                         run->engine.backoff);
    }
    run->lowest_updates = e->updates;
    run->lowest_idle = idle;
}

skald_status skald_judge_done(skald_run *run) {
    const skald_evaluator *ev = &run->evaluator;
    uint32_t best = skald_evaluator_best(ev);
    const skald_certificate *c = &ev->certificate[best];
    /* each point bounds F* from below, and the best bound serves all that come after */
    for (uint32_t k = 0; k < ev->points; k++)
        run->bound = fmax(run->bound, ev->certificate[k].objective - ev->certificate[k].gap);
    double gap = c->objective - run->bound;
    if (!(gap >= 0)) gap = c->gap; /* by rounding */
    const double at_zero = skald_problem_loss_at_zero(run->problem);
    run->last = (skald_evaluation){.passes = run->eval_passes,
                                   .seconds = run->eval_seconds,
                                   .train_seconds = run->eval_train_seconds,
                                   .commits = run->eval_commits,
                                   .updates = run->eval_updates,
                                   .objective = c->objective,
                                   .gap = gap,
                                   .relative_gap = skald_relative_gap(gap, c->objective, at_zero),
                                   .gradient_norm = c->gradient_norm,
                                   .accuracy = skald_loss_is_classifier(run->problem->objective.loss)
                                                   ? ev->sums[best].correct / ev->sums[best].rows
                                                   : NAN,
                                   .average = best == 1};
    TRY(judge_decrement(run, best, &run->last.decrement));
    run->evaluations++;
    memcpy(run->delivered, ev->point[best], skald_problem_length(run->problem) * sizeof(double));
    if (run->observer && run->observer->evaluation) run->observer->evaluation(run->observer->user, &run->last);
    if (run->stop) return SKALD_OK; /* the final one */
    run->stop = skald_judge_reached(run->options, &run->last);
    if (run->stop) return SKALD_OK;
    calibrate(run);
    look_for_circle(run);
    return SKALD_OK;
}
