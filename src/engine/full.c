/* Full gradients: one task a shard, all at the version pinned when the round began, summed in the order of the shards.
 *
 * A round takes its turn before other work of the same workers, and nobody waits for it: in asynchronous mode those
 * that are done go on with batches, by the full gradient before. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "engine/run.h"

skald_status skald_full_init(skald_run *run) {
    skald_full *full = &run->full;
    full->norm = NAN;
    full->asked = skald_zalloc(run->ledger.count, sizeof *full->asked);
    full->results = skald_zalloc(run->ledger.count, sizeof(skald_result *));
    full->sum = skald_zalloc(skald_problem_length(run->problem), sizeof(double));
    return full->asked && full->results && full->sum ? SKALD_OK : SKALD_ENOMEM;
}

static void abandon(skald_run *run) {
    skald_full *full = &run->full;
    for (uint32_t k = 0; full->results && k < run->ledger.count; k++) {
        if (full->results[k]) run->crew->ops->release(run->crew, full->results[k]);
        full->results[k] = NULL;
    }
    skald_version_unref(full->model);
    full->model = NULL;
}

void skald_full_fini(skald_run *run) {
    abandon(run);
    free(run->full.asked);
    free(run->full.results);
    free(run->full.sum);
    skald_version_unref(run->origin);
}

skald_status skald_full_begin(skald_run *run) {
    skald_full *full = &run->full;
    if (full->model && full->generation != run->generation) abandon(run); /* at a model that was set back */
    if (full->model || !run->work.full || run->stop) return SKALD_OK;
    TRY(skald_run_publish(run));
    full->model = skald_version_ref(run->current);
    full->generation = run->generation;
    full->summed = 0;
    memset(full->asked, 0, run->ledger.count * sizeof *full->asked);
    memset(run->full.sum, 0, skald_problem_length(run->problem) * sizeof(double));
    return SKALD_OK;
}

bool skald_full_task(skald_run *run, uint32_t worker, skald_task *task) {
    skald_full *full = &run->full;
    const skald_member *m = run->crew->ops->member(run->crew, worker);
    for (uint32_t i = 0; full->model && !run->stop && i < m->shard_count; i++) {
        const uint32_t shard = m->shards[i];
        if (full->asked[shard] || run->ledger.entries[shard].busy) continue;
        full->asked[shard] = true;
        *task = (skald_task){.kind = SKALD_TASK_GRADIENT,
                             .shard = shard,
                             .model = full->model,
                             .rows = (uint32_t)run->ledger.entries[shard].rows};
        return true;
    }
    return false;
}

bool skald_full_add(skald_run *run, const skald_flight *flight, skald_result *r, skald_merge *m) {
    skald_full *full = &run->full;
    run->rows += r->rows;
    run->engine.passes = skald_run_passes(run);
    if (!full->model || flight->generation != full->generation || full->generation != run->generation) {
        run->crew->ops->release(run->crew, r);
        return false;
    }
    skald_watch_loss(run, r);
    full->results[flight->shard] = r;
    const uint32_t dim = skald_problem_length(run->problem);
    double *restrict sum = full->sum;
    while (full->summed < run->ledger.count && full->results[full->summed]) { /* what overtook its turn has waited */
        skald_result **next = &full->results[full->summed++];
        const double *restrict from = (*next)->vectors[0];
        for (uint32_t j = 0; j < dim; j++) sum[j] += from[j];
        run->crew->ops->release(run->crew, *next);
        *next = NULL;
    }
    if (full->summed < run->ledger.count) return false;
    for (uint32_t j = 0; j < dim; j++) sum[j] /= run->problem->n;
    full->norm = skald_run_stationarity(run, full->model->vectors[0], sum);
    *m = (skald_merge){.full = true, .g = sum, .weight = 1, .bias = 1, .chains = 1, .rows = (uint64_t)run->problem->n};
    return true;
}

void skald_full_commit(skald_run *run) {
    skald_version_unref(run->origin);
    run->origin = run->full.model;
    run->full.model = NULL;
    run->epoch++;
    skald_path_restart(run);
}
