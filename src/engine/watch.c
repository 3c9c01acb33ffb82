/* The guard: an objective estimate from the batches, the last model that was well, the way back to it. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "engine/run.h"

static const double WINDOW = 1;      /* passes over which losses are averaged: less, and outliers mislead */
static const double GROWTH = 4;      /* a window this many times worse than the best is a divergence */
static const uint32_t PATIENCE = 40; /* rollbacks (halvings of the step) in a row before giving up */

/* Mean loss of w = 0: for classes phi(0, y), the same for all; for real targets at most y^2/2. */
static double loss_at_zero(const skald_problem *p) {
    if (p->objective.loss == SKALD_SOFTMAX) return log(p->objective.classes);
    if (skald_loss_is_binary(p->objective.loss)) return skald_loss_value(p->objective.loss, 1, 0, 1);
    double y2 = 0;
    for (uint32_t k = 0; k < p->shard_count; k++) y2 += p->shards[k].facts.sum_weighted_y2;
    return 0.5 * y2 / p->n;
}

skald_status skald_watch_init(skald_run *run) {
    skald_watch *w = &run->watch;
    uint32_t dim = skald_problem_length(run->problem);
    w->good = skald_alloc(dim, sizeof(double));
    w->candidate = skald_alloc(dim, sizeof(double));
    w->sum = skald_zalloc(dim, sizeof(double));
    w->average = skald_zalloc(dim, sizeof(double));
    if (!w->good || !w->candidate || !w->sum || !w->average) return SKALD_ENOMEM;
    memcpy(w->good, run->work.w, dim * sizeof(double));
    memcpy(w->candidate, w->good, dim * sizeof(double));
    w->estimate = NAN;
    w->best = loss_at_zero(run->problem);
    return SKALD_OK;
}

void skald_watch_fini(skald_run *run) {
    free(run->watch.good);
    free(run->watch.candidate);
    free(run->watch.sum);
    free(run->watch.average);
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
    const size_t bytes = skald_problem_length(run->problem) * sizeof(double);
    memcpy(run->work.w, w->good, bytes);
    memcpy(w->candidate, w->good, bytes);
    run->engine.backoff /= 2;
    run->generation++; /* what is in flight was computed from the bad model: it only counts as history */
    run->engine.generation = run->generation;
    run->rollbacks++;
    for (uint32_t k = 0; run->history && k < run->ledger.count; k++) run->ledger.entries[k].refresh = true;
    run->commits++;
    run->dirty = true;
    w->window_loss = w->window_rows = 0;
    w->window_begin = run->engine.passes;
    memset(w->sum, 0, bytes);
    w->sum_count = 0;
    w->has_average = false;
    w->average_begin = run->engine.passes;
    skald_run_notice(run, "diverging (%s): back to the last good model, steps halved to x %g", why,
                     run->engine.backoff);
    return SKALD_OK;
}

static void average(skald_run *run) {
    skald_watch *w = &run->watch;
    const double *restrict x = run->work.w;
    double *restrict sum = w->sum;
    const uint32_t dim = skald_problem_length(run->problem);
    for (uint32_t j = 0; j < dim; j++) sum[j] += x[j];
    w->sum_count++;
    if (run->engine.passes - w->average_begin < 1) return;
    for (uint32_t j = 0; j < dim; j++) {
        w->average[j] = sum[j] / w->sum_count;
        sum[j] = 0;
    }
    w->sum_count = 0;
    w->has_average = true;
    w->average_begin = run->engine.passes;
}

skald_status skald_watch_commit(skald_run *run) {
    skald_watch *w = &run->watch;
    const skald_problem *p = run->problem;
    average(run);
    if (!isfinite(w->window_loss)) return skald_watch_rollback(run, "the loss is not finite");
    if (w->window_loss > GROWTH * w->best * p->n) return skald_watch_rollback(run, "the objective grew");
    if (run->engine.passes - w->window_begin < WINDOW || w->window_rows < 1) return SKALD_OK;

    double mean = w->window_loss / w->window_rows;
    double norm2 = 0, norm1 = 0, bounded = 0;
    for (uint32_t c = 0; c < skald_objective_classes(&p->objective); c++) {
        const double *wc = run->work.w + (size_t)c * p->dim;
        for (uint32_t j = 0; j < p->features; j++) {
            norm2 += wc[j] * wc[j];
            norm1 += fabs(wc[j]);
            bounded += p->objective.nonconvex > 0 ? skald_bounded_value(wc[j]) : 0;
        }
    }
    double estimate = mean + 0.5 * p->objective.l2 * norm2 + p->objective.l1 * norm1 + p->objective.nonconvex * bounded;
    w->window_loss = w->window_rows = 0;
    w->window_begin = run->engine.passes;
    if (!isfinite(estimate)) return skald_watch_rollback(run, "the model is not finite");
    if (mean > GROWTH * w->best) return skald_watch_rollback(run, "the objective grew");
    w->estimate = estimate;
    if (mean < w->best) w->best = mean;
    w->failures = 0;
    double *old = w->good;
    w->good = w->candidate;
    w->candidate = old;
    memcpy(w->candidate, run->work.w, skald_problem_length(p) * sizeof(double));
    return SKALD_OK;
}
