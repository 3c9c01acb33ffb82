/* The guard: an objective estimate from the batches, the last model that was well, the way back to it. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "engine/run.h"

static const double WINDOW = 0.25;   /* passes over which losses are averaged */
static const double GROWTH = 4;      /* a window this many times worse than the best is a divergence */
static const uint32_t PATIENCE = 40; /* rollbacks (halvings of the step) in a row before giving up */

skald_status skald_watch_init(skald_run *run) {
    skald_watch *w = &run->watch;
    uint32_t dim = run->problem->dim;
    w->good = skald_alloc(dim, sizeof(double));
    w->sum = skald_zalloc(dim, sizeof(double));
    w->average = skald_zalloc(dim, sizeof(double));
    if (!w->good || !w->sum || !w->average) return SKALD_ENOMEM;
    memcpy(w->good, run->work.w, dim * sizeof(double));
    w->estimate = NAN;
    /* at w = 0 a two-class loss is phi(0, y), the same for both classes */
    w->best = skald_loss_is_binary(run->problem->objective.loss)
                  ? skald_loss_value(run->problem->objective.loss, run->problem->objective.huber_delta, 0, 1)
                  : INFINITY;
    return SKALD_OK;
}

void skald_watch_fini(skald_run *run) {
    free(run->watch.good);
    free(run->watch.sum);
    free(run->watch.average);
}

void skald_watch_loss(skald_run *run, const skald_result *r) {
    run->watch.window_loss += r->sums[0].loss;
    run->watch.window_rows += r->rows;
}

skald_status skald_watch_rollback(skald_run *run, const char *why) {
    skald_watch *w = &run->watch;
    if (++w->failures > PATIENCE)
        return skald_fail(SKALD_EDIVERGED, "diverged %u times in a row, the last time because %s", w->failures, why);
    memcpy(run->work.w, w->good, run->problem->dim * sizeof(double));
    run->engine.backoff /= 2;
    run->generation++; /* what is in flight was computed from the bad model: it only counts as history */
    run->rollbacks++;
    run->commits++;
    run->dirty = true;
    w->window_loss = w->window_rows = 0;
    w->window_begin = run->engine.passes;
    memset(w->sum, 0, run->problem->dim * sizeof(double));
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
    const uint32_t dim = run->problem->dim;
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
    if (run->engine.passes - w->window_begin < WINDOW || w->window_rows < 1) return SKALD_OK;

    double mean = w->window_loss / w->window_rows;
    double norm2 = 0, norm1 = 0;
    for (uint32_t j = 0; j < p->features; j++) {
        norm2 += run->work.w[j] * run->work.w[j];
        norm1 += fabs(run->work.w[j]);
    }
    double estimate = mean + 0.5 * p->objective.l2 * norm2 + p->objective.l1 * norm1;
    w->window_loss = w->window_rows = 0;
    w->window_begin = run->engine.passes;
    if (!isfinite(estimate)) return skald_watch_rollback(run, "the model is not finite");
    if (estimate > GROWTH * w->best) return skald_watch_rollback(run, "the objective grew");
    w->estimate = estimate;
    if (estimate < w->best) w->best = estimate;
    w->failures = 0;
    memcpy(w->good, run->work.w, p->dim * sizeof(double));
    return SKALD_OK;
}
