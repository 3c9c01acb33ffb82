/* The guard: an objective estimate from the batches, the last model that was well, the way back to it. */
#include <math.h>

#include "base/base.h"
#include "engine/run.h"

static const double WINDOW = 1;      /* passes over which losses are averaged: less, and outliers mislead */
static const double NOTHING = 1e-10; /* of the loss at the start */
static const double GROWTH = 4;      /* a window this many times worse than the best is a divergence */
static const uint32_t PATIENCE = 40; /* rollbacks (halvings of the step) in a row before giving up */

skald_status skald_watch_init(skald_run *run) {
    skald_watch *w = &run->watch;
    skald_vectors *v = &run->engine.vectors;
    TRY(v->ops->create(v, &w->candidate));
    TRY(v->ops->create(v, &w->sum));
    TRY(v->ops->create(v, &w->average));
    TRY(v->ops->create(v, &w->good));
    v->ops->copy(v, w->good, run->work.w);
    v->ops->copy(v, w->candidate, w->good);
    w->estimate = NAN;
    w->best = w->good_loss = w->candidate_loss = run->problem->start_loss;
    return SKALD_OK;
}

void skald_watch_fini(skald_run *run) {
    skald_run_drop(run, &run->watch.good);
    skald_run_drop(run, &run->watch.candidate);
    skald_run_drop(run, &run->watch.sum);
    skald_run_drop(run, &run->watch.average);
}

void skald_watch_loss(skald_run *run, const skald_result *r) {
    skald_watch *w = &run->watch;
    w->window_loss += r->sums[0].loss;
    w->window_rows += r->rows;
    if (!(r->sums[0].k > 0)) return;
    const double keep = exp(-(double)r->rows / run->problem->n);
    w->k = keep * w->k + r->sums[0].k;
    w->k2 = keep * w->k2 + r->sums[0].k2;
    run->engine.smoothness = w->k2 / w->k;
}

skald_status skald_watch_rollback(skald_run *run, const char *why) {
    skald_watch *w = &run->watch;
    if (++w->failures > PATIENCE)
        return skald_fail(SKALD_EDIVERGED, "diverged %u times in a row, the last time because %s", w->failures, why);
    skald_vectors *v = &run->engine.vectors;
    v->ops->copy(v, run->work.w, w->good);
    v->ops->copy(v, w->candidate, w->good);
    w->best = fmax(w->best, w->good_loss); /* the loss may have fallen far since, and begins there again */
    w->candidate_loss = w->good_loss;
    run->engine.backoff /= 2;
    run->generation++; /* what is in flight was computed from the bad model: it only counts as history */
    run->engine.generation = run->generation;
    run->rollbacks++;
    for (uint32_t k = 0; run->history && k < run->ledger.count; k++) run->ledger.entries[k].refresh = true;
    run->unsettled = run->history;
    run->engine.commits = ++run->commits;
    run->engine.fresh = (skald_fresh){0};
    run->dirty = true;
    w->window_loss = w->window_rows = 0;
    w->window_begin = run->engine.passes;
    v->ops->zero(v, w->sum);
    w->sum_count = 0;
    w->has_average = false;
    w->average_begin = run->engine.passes;
    skald_run_notice(run, "diverging (%s): back to the last good model, steps halved to x %g", why,
                     run->engine.backoff);
    return SKALD_OK;
}

void skald_watch_settled(skald_run *run) {
    skald_watch *w = &run->watch;
    if (w->window_rows > 0) w->best = fmax(w->best, w->window_loss / w->window_rows);
    w->window_loss = w->window_rows = 0;
    w->window_begin = run->engine.passes;
}

static void average(skald_run *run) {
    skald_watch *w = &run->watch;
    if (run->parts.parts) return; /* steps that know curvature end nearer than their mean */
    skald_vectors *v = &run->engine.vectors;
    v->ops->axpy(v, w->sum, 1, run->work.w);
    w->sum_count++;
    if (run->engine.passes - w->average_begin < 1) return;
    v->ops->combine(v, w->average, 1 / w->sum_count, w->sum, 0, NULL);
    v->ops->zero(v, w->sum);
    w->sum_count = 0;
    w->has_average = true;
    w->average_begin = run->engine.passes;
}

skald_status skald_watch_commit(skald_run *run) {
    skald_watch *w = &run->watch;
    const skald_problem *p = run->problem;
    average(run);
    if (!isfinite(w->window_loss)) return skald_watch_rollback(run, "the loss is not finite");
    const double least = fmax(w->best, NOTHING * p->start_loss); /* growth of what is rounding is none */
    if (w->window_loss > GROWTH * least * p->n) return skald_watch_rollback(run, "the objective grew");
    if (run->engine.passes - w->window_begin < WINDOW || w->window_rows < 1) return SKALD_OK;

    double mean = w->window_loss / w->window_rows;
    skald_vectors *v = &run->engine.vectors;
    const skald_regulariser r = skald_engine_regulariser(&run->engine);
    double estimate = mean + v->ops->penalty(v, run->work.w, &r);
    w->window_loss = w->window_rows = 0;
    w->window_begin = run->engine.passes;
    if (!isfinite(estimate)) return skald_watch_rollback(run, "the model is not finite");
    if (mean > GROWTH * least) return skald_watch_rollback(run, "the objective grew");
    w->estimate = estimate;
    if (mean < w->best) w->best = mean;
    w->failures = 0;
    double *old = w->good;
    w->good = w->candidate;
    w->candidate = old;
    v->ops->copy(v, w->candidate, run->work.w);
    w->good_loss = fmax(w->candidate_loss, mean); /* it lies between the two windows */
    w->candidate_loss = mean;
    return SKALD_OK;
}
