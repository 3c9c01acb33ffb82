/* Who is given what: models published, tasks made and handed out. */
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "engine/run.h"

skald_status skald_run_publish(skald_run *run) {
    if (run->current && !run->dirty) return SKALD_OK;
    const skald_work *work = &run->work;
    const double *vectors[2] = {work->w, work->abar};
    const uint32_t count = work->local && work->history ? 2 : 1;
    const bool lent = work->local && run->crew->here;
    skald_version *v = lent ? skald_versions_lend(run->versions, run->commits, vectors, count)
                            : skald_versions_publish(run->versions, run->commits, vectors, count);
    if (!v) return SKALD_ENOMEM;
    if (work->local && !run->crew->ranks && !lent) skald_versions_narrow(v, run->current);
    skald_version_unref(run->current);
    run->current = v;
    run->dirty = false;
    return SKALD_OK;
}

skald_status skald_run_submit(skald_run *run, uint32_t worker, skald_task *task) {
    task->id = ++run->next_task;
    task->n = run->problem->n;
    task->generation = run->generation;
    if (run->flight_count == run->flight_room) {
        const uint32_t room = run->flight_room ? 2 * run->flight_room : 16;
        skald_flight *grown = realloc(run->flights, room * sizeof *grown);
        if (!grown) return skald_fail(SKALD_ENOMEM, "out of memory");
        run->flights = grown;
        run->flight_room = room;
    }
    run->flights[run->flight_count++] = (skald_flight){.task = task->id,
                                                       .kind = task->kind,
                                                       .worker = worker,
                                                       .shard = task->shard,
                                                       .trains = skald_task_trains(task->kind),
                                                       .generation = run->generation,
                                                       .epoch = run->epoch,
                                                       .evaluation = run->evaluator.round,
                                                       .commits = task->model ? task->model->commits : run->commits,
                                                       .issued_ns = skald_now_ns(run->clock)};
    skald_flight *flight = &run->flights[run->flight_count - 1];
    flight->position = task->position;
    flight->part = task->by_part ? (uint32_t)task->position : SKALD_ALL_PARTS;
    if (run->parts.parts && task->kind == SKALD_TASK_SAGA) flight->model = skald_version_ref(task->model);
    run->members[worker].busy++;
    if (skald_task_trains(task->kind)) {
        run->training++;
        skald_barrier_dealt(run, worker);
    }
    if (task->shard != SKALD_ALL_SHARDS) run->ledger.entries[task->shard].busy++;
    TRY(skald_eviction_issued(run, worker, task));
    return run->crew->ops->submit(run->crew, worker, task);
}

/* The part to be handed out next. While history is put right: one whose own is to be. Rounds wait for all to be at the
 * model as it is: of those that are not. (While the sample is on its way, then of all: a step is made when a result is
 * merged, and there has to be one.) */
static uint32_t next_part(const skald_run *run, uint32_t shard) {
    if (run->unsettled && !run->parts.stale) return SKALD_ALL_PARTS;
    const bool round = run->work.rounds && !run->dirty;
    const uint32_t part = skald_parts_next(&run->parts, shard, round ? run->current : NULL);
    if (part < SKALD_ALL_PARTS || run->sampling.sample.complete) return part;
    return skald_parts_next(&run->parts, shard, NULL);
}

static bool rests(const skald_run *run, uint32_t shard) {
    const skald_ledger_entry *e = &run->ledger.entries[shard];
    return run->work.parts && !e->refresh && !e->rebuild && next_part(run, shard) == SKALD_ALL_PARTS;
}

/* All of the history is at the model, and still no step has been made of it: what came last was a table rebuilt, which
 * counts as history only, or the sample. Something has to be merged. */
static bool stands(const skald_run *run) {
    return run->work.rounds && !run->training && !run->unsettled && run->engine.fresh.rows >= run->problem->n;
}

static skald_status submit_training(skald_run *run, uint32_t worker, uint32_t shard) {
    TRY(skald_run_publish(run));
    const skald_work *work = &run->work;
    skald_ledger_entry *e = &run->ledger.entries[shard];
    skald_piece *piece = NULL;
    if (work->origin == SKALD_FROM_PATH && !(piece = skald_path_take(run))) return SKALD_AGAIN;
    uint64_t after = 0; /* its result is not in the model yet: the worker adds it itself */
    for (uint32_t f = 0; f < run->flight_count; f++) {
        const skald_flight *q = &run->flights[f];
        if (q->kind == SKALD_TASK_LOCAL && q->shard == shard && q->generation == run->generation) after = q->task;
    }
    const bool by_part = work->parts && !run->engine.lockstep;
    uint32_t part = by_part ? next_part(run, shard) : 0;
    if (part == SKALD_ALL_PARTS) part = skald_parts_next(&run->parts, shard, NULL); /* stands */
    const uint64_t rows = work->parts ? e->rows : work->task_rows;
    uint64_t left = e->rows - e->position % e->rows; /* a batch never crosses an epoch: no row occurs twice */
    skald_task task = {.kind = work->local     ? SKALD_TASK_LOCAL
                               : work->history ? SKALD_TASK_SAGA
                               : work->origin  ? SKALD_TASK_DIFFERENCE
                                               : SKALD_TASK_GRADIENT,
                       .shard = shard,
                       .model = piece ? piece->to : run->current,
                       .origin = piece          ? piece->from
                                 : work->origin ? run->origin
                                                : NULL,
                       .position = by_part ? part : e->position,
                       .by_part = by_part,
                       .rows = by_part ? skald_parts_get(&run->parts, shard, part)->rows
                                       : (uint32_t)(rows < left ? rows : left),
                       .step_rows = work->step_rows,
                       .eta = work->eta,
                       .theta = work->theta,
                       .after = after,
                       .saga = work->history,
                       .by_version = work->history && run->options->history_versions};
    e->position += task.rows;
    if (by_part) skald_parts_take(&run->parts, shard, part);
    TRY(skald_run_submit(run, worker, &task));
    run->flights[run->flight_count - 1].piece = piece;
    run->flights[run->flight_count - 1].refresh = run->unsettled; /* a stale part */
    e->rests = rests(run, shard);
    return SKALD_OK;
}

/* After a rollback the tables hold gradients of the bad model: one SAGA task over all rows of the shard at
 * the good one puts that right. A lost shard's new table is empty (alpha = 0): the same task fills it, and its result
 * is all of A_k. What the lost table left in the anchor stays there until then, as a delayed gradient. By version: also
 * one over the rows at versions that are to go. */
static skald_status submit_refresh(skald_run *run, uint32_t worker, uint32_t shard) {
    TRY(skald_run_publish(run));
    skald_ledger_entry *e = &run->ledger.entries[shard];
    skald_task task = {.kind = SKALD_TASK_SAGA,
                       .shard = shard,
                       .model = skald_eviction_target(run, worker),
                       .rows = (uint32_t)e->rows,
                       .by_version = run->options->history_versions,
                       .before = e->refresh || e->rebuild ? 0 : e->before};
    TRY(skald_run_submit(run, worker, &task));
    skald_flight *flight = &run->flights[run->flight_count - 1];
    flight->refresh = true; /* both stand until the result is merged: it may get lost */
    flight->rebuild = e->rebuild;
    return SKALD_OK;
}

static skald_status submit_full(skald_run *run, uint32_t worker, skald_task *task) {
    TRY(skald_run_submit(run, worker, task));
    skald_flight *flight = &run->flights[run->flight_count - 1];
    flight->full = true; /* of no round, and no barrier's business */
    flight->trains = false;
    run->training--;
    run->full.flights++;
    return SKALD_OK;
}

/* A refused result left the shard's history unknown, or somebody wants an audit: recompute its anchor. */
static bool anchor_task(skald_run *run, uint32_t worker, skald_task *task) {
    if (!run->history) return false;
    const skald_member *m = run->crew->ops->member(run->crew, worker);
    for (uint32_t i = 0; i < m->shard_count; i++) {
        skald_ledger_entry *e = &run->ledger.entries[m->shards[i]];
        if (e->busy || e->rebuild || !(e->suspect || e->audit)) continue;
        *task = (skald_task){.kind = SKALD_TASK_ANCHOR, .shard = m->shards[i]};
        return true;
    }
    return false;
}

static bool quiet(const skald_run *run) {
    return run->quiesce && skald_evaluator_active(&run->evaluator);
}

/* The barrier: may this worker be given training work now? Asynchronous: as the barrier says. Synchronous: while the
 * round is being dealt, and no full gradient is under way. While an evaluation wants the machine to itself, nobody;
 * while anchors are put right for all, whoever has some to put right. */
static bool admitted(skald_run *run, uint32_t worker) {
    if (run->stop || quiet(run) || run->work.task_rows == 0) return false;
    const bool rounds = run->options->mode == SKALD_SYNC;
    if (rounds && (run->full.model || !skald_members_complete(run))) return false; /* a round has all shards in it */
    if (run->engine.lockstep && run->work.parts && !run->sampling.sample.complete) return false; /* and then a step */
    return (run->unsettled && !rounds) || skald_barrier_admits(run, worker);
}

uint32_t skald_run_slots(const skald_member *m) {
    return m->slots < m->shard_count ? m->slots : m->shard_count;
}

uint32_t skald_run_depth(const skald_run *run, const skald_member *m) {
    const bool plain =
        run->options->local == 0 && !run->parts.parts; /* parts: the next one does not need this one's step */
    if (run->options->mode == SKALD_SYNC || plain || run->options->barrier) return 1;
    return run->options->depth ? run->options->depth : m->depth;
}

static uint32_t any_idle(const skald_run *run, const skald_member *m) {
    for (uint32_t i = 0; i < m->shard_count; i++) {
        const skald_ledger_entry *e = &run->ledger.entries[m->shards[i]];
        if (!e->busy && !e->suspect && !e->audit) return m->shards[i];
    }
    return UINT32_MAX;
}

static skald_status dispatch_to(skald_run *run, uint32_t worker) {
    const skald_member *m = run->crew->ops->member(run->crew, worker);
    uint32_t first = run->flight_count;
    const uint32_t depth = skald_run_depth(run, m);
    while (run->members[worker].busy < skald_run_slots(m) * depth) {
        skald_task task = {0};
        if (anchor_task(run, worker, &task) || skald_evaluator_task(&run->evaluator, worker, &task) ||
            (!run->stop && skald_sampling_task(&run->sampling, m, &task))) {
            TRY(skald_run_submit(run, worker, &task));
            continue;
        }
        if (!quiet(run) && skald_full_task(run, worker, &task)) {
            TRY(submit_full(run, worker, &task));
            continue;
        }
        uint32_t shard = skald_eviction_pick(run, worker, depth);
        if (shard == UINT32_MAX && stands(run)) shard = any_idle(run, m);
        if (shard == UINT32_MAX || !admitted(run, worker)) break;
        const skald_ledger_entry *e = &run->ledger.entries[shard];
        if (run->unsettled && !e->rebuild && !e->refresh && !run->parts.stale) break;
        skald_status st = e->refresh || e->rebuild || e->before ? submit_refresh(run, worker, shard)
                                                                : submit_training(run, worker, shard);
        if (st == SKALD_AGAIN) break; /* nothing to do before the model moves */
        TRY(st);
    }
    /* synchronous: sum_k (n_k/n) D_k/r_k, each shard standing for its worker's equal visits to all its shards */
    uint32_t dealt = 0;
    for (uint32_t f = first; f < run->flight_count; f++)
        dealt += skald_task_trains(run->flights[f].kind) && !run->flights[f].full;
    for (uint32_t f = first; f < run->flight_count; f++) {
        skald_flight *flight = &run->flights[f];
        if (skald_task_trains(flight->kind))
            flight->share = (double)run->ledger.entries[flight->shard].rows / run->problem->n * m->shard_count / dealt;
    }
    return SKALD_OK;
}

/* Is all of the history put right? Then steps begin. */
static void settle(skald_run *run) {
    if (skald_ledger_incomplete(&run->ledger) || run->parts.stale) return;
    run->unsettled = false;
    skald_watch_settled(run);
    if (run->parts.known_count)
        skald_run_notice(run,
                         "%u of %u parts of the history were at models that nobody has any more, and are taken anew",
                         run->parts.lost, run->parts.shards * SKALD_SHARD_PARTS);
    skald_parts_settled(&run->parts);
}

skald_status skald_run_dispatch(skald_engine *engine, const skald_work *work) {
    skald_run *run = (skald_run *)engine;
    if (!run->current) run->dirty = true;
    run->work = *work;
    if (work->sample_rows) skald_sampling_want(&run->sampling, work->sample_rows);
    TRY(engine->vectors.ops->status(&engine->vectors));
    if (!run->watch.good) TRY(skald_watch_init(run));
    if (run->crew->ranks) TRY(skald_ranks_tend(run));
    if (!skald_evaluator_active(&run->evaluator) && skald_judge_due(run)) TRY(skald_judge_begin(run));
    if (run->options->mode == SKALD_ASYNC || !run->training) TRY(skald_full_begin(run));
    if (run->unsettled) settle(run);
    for (uint32_t k = 0; k < run->ledger.count; k++) run->ledger.entries[k].rests = rests(run, k);
    skald_barrier_look(run);
    skald_eviction_look(run);
    for (uint32_t k = 0; k < run->size; k++)
        if (run->members[k].alive) TRY(dispatch_to(run, k));
    TRY(skald_barrier_check(run));
    /* the training clock stands still while only evaluations run */
    int64_t now = skald_now_ns(run->clock);
    const bool trained = run->training || run->full.flights;
    if (!trained && !run->pause_began_ns) run->pause_began_ns = now;
    if (trained && run->pause_began_ns) run->paused_ns += now - run->pause_began_ns, run->pause_began_ns = 0;
    return SKALD_OK;
}
