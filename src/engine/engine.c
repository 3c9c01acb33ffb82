/* Collect, commit, finish: the engine port over a crew of workers, asynchronous or synchronous. Dispatch is in
 * dispatch.c, what results do in merge.c. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "engine/run.h"

static skald_run *of(skald_engine *e) {
    return (skald_run *)e;
}

skald_flight *skald_run_find(skald_run *run, uint64_t task) {
    for (uint32_t f = 0; f < run->flight_count; f++)
        if (run->flights[f].task == task) return &run->flights[f];
    return NULL;
}

void skald_run_land(skald_run *run, skald_flight *flight) {
    run->members[flight->worker].busy--;
    if (flight->shard != SKALD_ALL_SHARDS) run->ledger.entries[flight->shard].busy--;
    if (flight->piece) skald_path_land(run, flight);
    if (flight->full)
        run->full.flights--;
    else if (skald_task_trains(flight->kind))
        run->training--;
    if (flight->kind == SKALD_TASK_SAMPLE) skald_sampling_lost(&run->sampling, flight->shard); /* or landed */
    if (flight->model && flight->part != SKALD_ALL_PARTS) skald_parts_landed(&run->parts, flight->shard, flight->part);
    skald_version_unref(flight->model);
    *flight = run->flights[--run->flight_count];
}

bool skald_run_expel(skald_run *run, uint32_t worker, const char *kind, const skald_result *r) {
    char reason[400];
    if (!run->crew->ops->expel || !skald_blames_worker(r->status)) return false;
    snprintf(reason, sizeof reason, "%s task: %s", kind, r->error);
    run->crew->ops->expel(run->crew, worker, reason);
    return true;
}

static skald_status failed(skald_run *run, skald_flight *flight, skald_result *r) {
    const skald_member *member = run->crew->ops->member(run->crew, flight->worker);
    const char *kind = skald_task_kind_name(flight->kind);
    skald_status st = SKALD_AGAIN;
    if (r->status == SKALD_ENUMERIC && skald_task_trains(flight->kind)) {
        st = flight->generation == run->generation ? skald_watch_rollback(run, r->error) : SKALD_AGAIN;
        if (st == SKALD_OK) st = SKALD_AGAIN;
    } else if (r->status == SKALD_EREFUSED && ++run->members[flight->worker].refused < SKALD_REFUSALS) {
        /* the message was not usable; what the worker did to its history is unknown */
        run->refused++;
        skald_run_notice(run, "result of worker %u (%s) refused: %s", flight->worker, member->name, r->error);
        if (run->history && flight->shard != SKALD_ALL_SHARDS) {
            run->ledger.entries[flight->shard].suspect = true;
            if (run->parts.parts) run->ledger.entries[flight->shard].refresh = true; /* and of what model, too */
            run->ledger.entries[flight->shard].rebuild = false; /* the table may be full: its anchor says */
        }
    } else if (skald_run_expel(run, flight->worker, kind, r)) {
        run->crew->ops->release(run->crew, r);
        return SKALD_AGAIN; /* what it had in flight goes when it is gone */
    } else {
        st = skald_fail(r->status, "worker %u (%s), %s task: %s", flight->worker, member->name, kind, r->error);
    }
    flight->lost = true;
    if (flight->full && r->status == SKALD_EREFUSED) run->full.asked[flight->shard] = false; /* ask again */
    skald_run_land(run, flight);
    run->crew->ops->release(run->crew, r);
    if (!run->training) run->round_spoilt = false;
    return st;
}

static bool round_complete(const skald_run *run) {
    for (uint32_t f = 0; f < run->flight_count; f++)
        if (skald_task_trains(run->flights[f].kind) && !run->flights[f].full && !run->flights[f].result) return false;
    return run->training > 0;
}

static skald_status on_result(skald_run *run, skald_result *r, skald_merge *m) {
    skald_flight *flight = skald_run_find(run, r->task);
    if (!flight) { /* not asked for: a crew filters duplicates, so this is a stray */
        run->crew->ops->release(run->crew, r);
        return SKALD_AGAIN;
    }
    r->worker = flight->worker;
    skald_table_result(run, flight, r);
    const bool evaluates = flight->kind == SKALD_TASK_OBJECTIVE || flight->kind == SKALD_TASK_SHIFT;
    if (evaluates && flight->evaluation != run->evaluator.round) { /* of one that has begun anew */
        skald_run_land(run, flight);
        run->crew->ops->release(run->crew, r);
        return SKALD_AGAIN;
    }
    if (evaluates && r->status == SKALD_EREFUSED) {
        run->evaluator.asked[flight->worker] = false; /* ask again */
        return failed(run, flight, r);
    }
    if (r->status != SKALD_OK) {
        skald_status st = failed(run, flight, r);
        if (st != SKALD_AGAIN || run->options->mode != SKALD_SYNC || !round_complete(run)) return st;
        return skald_merge_round(run, m); /* the rest of the round has waited for nothing else */
    }
    skald_eviction_landed(run, r);
    if (evaluates) {
        bool done = false;
        skald_run_land(run, flight);
        TRY(skald_evaluator_add(&run->evaluator, run->crew, r, &done));
        if (done) TRY(skald_judge_done(run));
        return SKALD_AGAIN;
    }
    if (flight->kind == SKALD_TASK_SAMPLE) {
        const skald_status st = skald_sampling_add(&run->sampling, flight->position, r);
        skald_run_land(run, flight);
        run->crew->ops->release(run->crew, r);
        return st == SKALD_OK ? SKALD_AGAIN : st;
    }
    if (flight->kind == SKALD_TASK_ANCHOR) {
        bool merge = skald_merge_anchor(run, flight, r, m);
        skald_run_land(run, flight);
        if (merge) return SKALD_OK;
        run->crew->ops->release(run->crew, r);
        return SKALD_AGAIN;
    }
    if (flight->full) {
        bool complete = skald_full_add(run, flight, r, m);
        skald_run_land(run, flight);
        return complete ? SKALD_OK : SKALD_AGAIN;
    }
    if (run->options->mode == SKALD_SYNC) {
        flight->result = r;
        return round_complete(run) ? skald_merge_round(run, m) : SKALD_AGAIN;
    }
    skald_merge_one(run, flight, r, m);
    skald_run_land(run, flight);
    return SKALD_OK;
}

void skald_run_answer(skald_run *run, const skald_event *event) {
    if (event->request == SKALD_REQUEST_MODEL) {
        run->crew->ops->answer(run->crew, event->asker, NULL, run->current);
        return;
    }
    if (event->request == SKALD_REQUEST_AUDIT && run->history && !run->audit.outstanding && !run->stop) {
        skald_audit_begin(run, event->asker);
        return; /* answered when every shard's anchor has come back */
    }
    char *json = skald_table_json(run, false);
    run->crew->ops->answer(run->crew, event->asker, json, NULL);
    free(json);
}

skald_status skald_run_pump(skald_run *run, skald_merge *m) {
    skald_event event = {0};
    if (!skald_run_next_held(run, &event)) TRY(run->crew->ops->next(run->crew, SKALD_NS_PER_S / 20, &event));
    skald_table_progress(run);
    switch (event.kind) {
    case SKALD_EVENT_NONE:
        return SKALD_AGAIN;
    case SKALD_EVENT_RESULT:
        return on_result(run, event.result, m);
    case SKALD_EVENT_LOST:
        if (run->crew->ranks) return skald_ranks_lost(run);
        break;
    case SKALD_EVENT_JOINED:
    case SKALD_EVENT_WITHDRAWN:
    case SKALD_EVENT_LEASED:
        break;
    case SKALD_EVENT_REQUEST:
        skald_run_answer(run, &event);
        return SKALD_AGAIN;
    }
    TRY(skald_members_event(run, &event));
    /* the rest of a round may have waited for nothing but what is lost */
    return run->options->mode == SKALD_SYNC && round_complete(run) ? skald_merge_round(run, m) : SKALD_AGAIN;
}

static skald_status collect(skald_engine *engine, skald_merge *m) {
    skald_run *run = of(engine);
    return skald_run_pump(run, m);
}

static skald_status commit(skald_engine *engine, const skald_merge *m, double step) {
    skald_run *run = of(engine);
    if (run->held) {
        /* without q, which a local step has in it: q would feed back on itself, and weigh by the root of the mass */
        if (!m->fold && !run->history)
            skald_ledger_add_mass(&run->ledger, run->held->shard, m->local ? step / m->bias : step);
        run->crew->ops->release(run->crew, run->held);
        run->held = NULL;
    }
    if (m->full) skald_full_commit(run);
    const bool moved = !m->fold && step != 0;
    if (moved || (run->history && run->work.local)) run->dirty = true; /* what is published: w, and then abar */
    if (!moved) return SKALD_OK;                                       /* the model did not change: the clock stands */
    run->commits++;
    run->engine.commits = run->commits;
    run->engine.fresh = (skald_fresh){0};
    run->updates++;
    run->steps[run->commits % SKALD_STEPS_KEPT] = m->action == SKALD_STALE_ADAPT ? (float)m->adapted : 1;
    run->step_used = step;
    return skald_watch_commit(run);
}

skald_stop skald_run_stop_reason(const skald_run *run) {
    const skald_train_options *o = run->options;
    if (run->stop) return run->stop;
    if (run->stop_flag && *run->stop_flag) return SKALD_STOP_INTERRUPTED;
    if (o->max_passes > 0 && run->engine.passes >= o->max_passes) return SKALD_STOP_PASSES;
    if (o->max_updates && run->updates >= o->max_updates) return SKALD_STOP_UPDATES;
    if (o->max_seconds > 0 && (double)skald_run_now(run) * 1e-9 >= o->max_seconds) return SKALD_STOP_TIME;
    return SKALD_STOP_NONE;
}

static bool over(skald_engine *engine) {
    skald_run *run = of(engine);
    if (run->stop) return true;
    run->stop = skald_run_stop_reason(run);
    if (run->stop && run->work.w) /* the solver's vectors go with it: keep the last model */
        engine->vectors.ops->copy(&engine->vectors, run->watch.good, run->work.w);
    return run->stop != SKALD_STOP_NONE;
}

static bool finished(skald_engine *engine) {
    if (!over(engine)) return false;
    skald_run *run = of(engine);
    if (run->options->audit && run->parts.parts && run->work.wbar)
        run->audit_drift = fmax(run->audit_drift, skald_audit_points(run));
    skald_checkpoint_last(run);
    if (run->crew->ranks) skald_ranks_finish(run);
    return true;
}

static skald_status commit_and_tell(skald_engine *engine, const skald_merge *m, double step) {
    skald_run *run = of(engine);
    const skald_result *r = run->held;
    uint64_t *const counts[] = {[SKALD_STALE_SCALE] = &run->scaled,
                                [SKALD_STALE_APPLY] = &run->applied,
                                [SKALD_STALE_FOLD] = &run->folded,
                                [SKALD_STALE_REJECT] = &run->rejected};
    const skald_stale fate = skald_stale_fate(m, step);
    const bool repair = r && r->kind == SKALD_TASK_ANCHOR;
    if (!m->full && !repair) ++*counts[fate];
    skald_merged merged = {.task = r ? r->task : 0,
                           .how = m->full  ? "full"
                                  : repair ? "repair"
                                           : skald_stale_name(fate),
                           .staleness = m->staleness,
                           .step = m->fold ? 0 : step,
                           .bias = m->bias};
    const skald_status st = commit(engine, m, step);
    if (st == SKALD_OK) skald_checkpoint_tend(run);
    merged.commits = run->commits;
    merged.generation = run->generation;
    if (run->observer && run->observer->merged) run->observer->merged(run->observer->user, &merged);
    return st;
}

static const double *taken_at(const skald_engine *engine, uint32_t shard, uint32_t row) {
    const skald_version *at = skald_parts_at(&((const skald_run *)engine)->parts, shard, row);
    return at ? at->vectors[0] : NULL;
}

static double extrapolate(const skald_engine *engine, double *abar, double *wbar) {
    const skald_run *run = (const skald_run *)engine;
    const uint32_t dim = run->ledger.dim;
    double rows = 0;
    for (uint32_t j = 0; j < dim; j++) abar[j] = wbar[j] = 0;
    for (uint32_t k = 0; k < run->ledger.count; k++) {
        const skald_ledger_entry *e = &run->ledger.entries[k];
        const double seen = (double)skald_parts_seen(&run->parts, k), factor = (double)e->rows / seen;
        if (!(seen > 0)) continue;
        rows += (double)e->rows;
        for (uint32_t j = 0; j < dim; j++) abar[j] += factor * e->anchor[j];
        skald_parts_add(&run->parts, k, factor, dim, wbar);
    }
    for (uint32_t j = 0; rows > 0 && j < dim; j++) abar[j] /= rows, wbar[j] /= rows;
    return rows / run->problem->n;
}

static uint64_t oldest(const skald_engine *engine) {
    return skald_parts_oldest(&((const skald_run *)engine)->parts);
}

static bool decides(const skald_engine *engine) {
    const skald_crew *crew = ((const skald_run *)engine)->crew;
    return !crew->ranks || crew->ranks->decides(crew);
}

static skald_status agree(skald_engine *engine, double *vector, double *numbers, uint32_t count) {
    skald_crew *crew = of(engine)->crew;
    return crew->ranks ? crew->ranks->agree(crew, vector, numbers, count) : SKALD_OK;
}

const skald_engine_ops skald_crew_engine_ops = {
    .finished = finished,
    .dispatch = skald_run_dispatch,
    .collect = collect,
    .commit = commit_and_tell,
    .taken_at = taken_at,
    .extrapolate = extrapolate,
    .oldest = oldest,
    .beside = skald_run_beside,
    .decides = decides,
    .agree = agree,
};
