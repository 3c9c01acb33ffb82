/* L, before training begins: a power iteration whose products the workers make. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "engine/run.h"

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
        } else if (st != SKALD_OK && skald_run_expel(run, who, "curvature", r)) {
            st = SKALD_OK;
        }
        run->crew->ops->release(run->crew, r);
        return st;
    }
    run->evaluator.results[r->worker] = r; /* idle now, and freed with the run should this fail */
    return SKALD_OK;
}

/* One product (1/m) X'SX v over a sample of rows, summed over the workers; `out` is host memory. */
static skald_status product(skald_run *run, skald_version *v, uint32_t rows_per_shard, double *out, double *rows) {
    skald_vectors *vectors = &run->engine.vectors;
    const skald_task task = {
        .kind = SKALD_TASK_CURVATURE, .shard = SKALD_ALL_SHARDS, .model = v, .rows = rows_per_shard};
    vectors->ops->zero(vectors, run->round_g);
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
        if (r->vectors[0]) vectors->ops->axpy(vectors, run->round_g, 1, r->vectors[0]);
        *rows += r->sums[0].rows;
    }
    skald_evaluator_drop(&run->evaluator, run->crew);
    if (run->crew->ranks) TRY(run->crew->ranks->reduce(run->crew, &run->round_g, 1));
    return vectors->ops->read(vectors, out, run->round_g);
}

/* L = max phi'' times the largest eigenvalue of (1/n) sum s_i x_i x_i', by power iteration on a sample;
 * x 1.1, because the iteration stops early; a small sample errs to the safe side. */
skald_status skald_smoothness_measure(skald_run *run, double *L) {
    const skald_problem *p = run->problem;
    const uint32_t length = skald_problem_length(p); /* of messages; the product is with the first class's part */
    double *v = skald_zalloc(length, sizeof(double)), *next = skald_zalloc(length, sizeof(double));
    skald_status st = SKALD_ENOMEM;
    if (!v || !next) goto out;
    for (uint32_t j = 0; j < p->dim; j++) v[j] = skald_normal(p->seed + 77, j);
    /* the column as the steps have it: see intercept_step */
    const double constant = p->objective.intercept ? sqrt(skald_objective_intercept_step(&p->objective)) : 1;
    double lambda = 0, rows = 0;
    uint32_t sample = (uint32_t)ceil(4000.0 / p->shard_count);
    for (int round = 0; round < 20; round++) {
        double norm = 0;
        for (uint32_t j = 0; j < p->dim; j++) norm += v[j] * v[j];
        norm = sqrt(norm);
        if (!(norm > 0)) break;
        for (uint32_t j = 0; j < p->dim; j++) v[j] /= norm;
        v[p->dim - 1] *= constant;
        const double *vectors[1] = {v};
        skald_version *version = skald_versions_publish_host(run->versions, 0, vectors, 1);
        if (!version) {
            st = SKALD_ENOMEM;
            goto out;
        }
        st = product(run, version, sample, next, &rows);
        skald_version_unref(version);
        if (st != SKALD_OK) goto out;
        v[p->dim - 1] /= constant;
        next[p->dim - 1] *= constant;
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
