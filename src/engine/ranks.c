/* What the engine does besides when its crew are ranks in lockstep. Nobody has all the anchors here, so that what
 * concerns them is done on their sum: abar is rebuilt from it after a loss, and compared with it in an audit.
 *
 * A lost member's rows have a new holder when SKALD_EVENT_LOST comes, with alpha = 0. One SAGA task over all of them at
 * the present model gives A_k,new; then abar = (1/n) sum_k A_k over everybody's tables, which is abar += (A_k,new -
 * A_k)/n, and with it come the results that were in flight, whose steps were not taken but which are in the tables. */
#include <math.h>
#include <stdlib.h>

#include "base/base.h"
#include "engine/run.h"

static void note_holders(skald_run *run) {
    for (uint32_t k = 0; k < run->size; k++) {
        const skald_member *m = run->crew->ops->member(run->crew, k);
        for (uint32_t i = 0; i < m->shard_count; i++) run->holders[m->shards[i]] = k;
    }
}

skald_status skald_ranks_init(skald_run *run) {
    skald_vectors *v = &run->engine.vectors;
    for (int k = 0; k < 2; k++) TRY(v->ops->create(v, &run->ending[k]));
    note_holders(run);
    return SKALD_OK;
}

void skald_ranks_fini(skald_run *run) {
    for (int k = 0; k < 2; k++) skald_run_drop(run, &run->ending[k]);
    free(run->holders);
}

skald_status skald_ranks_lost(skald_run *run) {
    for (uint32_t k = 0; k < run->size; k++) run->members[k].alive = run->crew->ops->member(run->crew, k)->slots > 0;
    run->regroup = true;
    return SKALD_AGAIN;
}

void skald_ranks_finish(skald_run *run) {
    skald_vectors *v = &run->engine.vectors;
    skald_work *work = &run->work;
    if (!work->w || work->w == run->ending[0]) return;
    v->ops->copy(v, run->ending[0], work->w);
    work->w = run->ending[0];
    work->wbar = NULL;
    if (!work->abar) return;
    v->ops->copy(v, run->ending[1], work->abar);
    work->abar = run->ending[1];
}

static void drop_flights(skald_run *run) {
    while (run->flight_count) {
        skald_flight *f = &run->flights[run->flight_count - 1];
        if (f->result) run->crew->ops->release(run->crew, f->result);
        skald_run_land(run, f);
    }
    for (uint32_t k = 0; k < run->size; k++) {
        if (run->evaluator.results[k]) run->crew->ops->release(run->crew, run->evaluator.results[k]);
        run->evaluator.results[k] = NULL;
    }
}

/* Waits for all that was submitted; adds up its vectors over all ranks (sum NULL: does not). SKALD_AGAIN: another
 * loss. */
static skald_status gather(skald_run *run, double *sum) {
    skald_vectors *v = &run->engine.vectors;
    if (sum) v->ops->zero(v, sum);
    while (run->flight_count) {
        skald_event event = {0};
        TRY(run->crew->ops->next(run->crew, SKALD_NS_PER_S / 20, &event));
        if (event.kind == SKALD_EVENT_REQUEST) skald_run_answer(run, &event);
        if (event.kind == SKALD_EVENT_LOST) return skald_ranks_lost(run);
        if (event.kind != SKALD_EVENT_RESULT) continue;
        skald_result *r = event.result;
        skald_flight *flight = skald_run_find(run, r->task);
        skald_status st = SKALD_OK;
        if (r->status != SKALD_OK)
            st =
                skald_fail(r->status, "worker %u (%s), %s task: %s", r->worker,
                           run->crew->ops->member(run->crew, r->worker)->name, skald_task_kind_name(r->kind), r->error);
        if (sum && st == SKALD_OK && r->vectors[0]) v->ops->axpy(v, sum, 1, r->vectors[0]);
        if (flight) skald_run_land(run, flight);
        run->crew->ops->release(run->crew, r);
        TRY(st);
    }
    return sum ? run->crew->ranks->reduce(run->crew, &sum, 1) : SKALD_OK;
}

/* sum_k A_k over all shards, from scratch, into history_sum. */
static skald_status total_anchor(skald_run *run) {
    for (uint32_t k = 0; k < run->size; k++) {
        skald_task task = {.kind = SKALD_TASK_ANCHOR, .shard = SKALD_ALL_SHARDS};
        if (run->members[k].alive && run->crew->ops->member(run->crew, k)->shard_count)
            TRY(skald_run_submit(run, k, &task));
    }
    return gather(run, run->history_sum);
}

/* Newton: some tables are at the model of a round that was never merged, others not, and those of shards that have
 * changed hands are empty. abar is their sum all the same; the next round takes all of them to the model. */
static void forget_parts(skald_run *run) {
    skald_vectors *v = &run->engine.vectors;
    skald_parts_forget(&run->parts);
    run->engine.seen = 0;
    run->engine.fresh = (skald_fresh){0};
    if (run->work.wbar) v->ops->zero(v, run->work.wbar);
    note_holders(run);
}

/* The tables of shards that have changed hands are empty. */
static skald_status refill(skald_run *run) {
    for (uint32_t k = 0; k < run->size; k++) {
        const skald_member *m = run->crew->ops->member(run->crew, k);
        for (uint32_t i = 0; i < m->shard_count; i++) {
            const uint32_t shard = m->shards[i];
            if (run->holders[shard] == k) continue;
            skald_task task = {.kind = SKALD_TASK_SAGA,
                               .shard = shard,
                               .model = run->current,
                               .rows = (uint32_t)run->ledger.entries[shard].rows};
            TRY(skald_run_submit(run, k, &task));
        }
    }
    TRY(gather(run, NULL));
    note_holders(run);
    return SKALD_OK;
}

static skald_status regroup(skald_run *run) {
    uint32_t alive = 0;
    run->regroup = false;
    drop_flights(run);
    for (uint32_t k = 0; k < run->size; k++) alive += run->members[k].alive;
    TRY(skald_evaluator_again(&run->evaluator, alive, false));
    run->engine.parallel = alive;
    if (!run->history) {
        note_holders(run);
        return SKALD_OK;
    }
    TRY(skald_run_publish(run));
    if (run->parts.parts)
        forget_parts(run);
    else
        TRY(refill(run));
    TRY(total_anchor(run));
    skald_vectors *v = &run->engine.vectors;
    v->ops->combine(v, run->work.abar, 1 / run->problem->n, run->history_sum, 0, NULL);
    run->dirty = true;
    return SKALD_OK;
}

/* |n abar - sum_k A_k| relative to the sum: what has been added up against what there is. */
static skald_status audit(skald_run *run) {
    TRY(total_anchor(run));
    skald_vectors *v = &run->engine.vectors;
    const double norm = v->ops->norm2(v, run->history_sum);
    v->ops->combine(v, run->round_g, run->problem->n, run->work.abar, -1, run->history_sum);
    const double difference = v->ops->norm2(v, run->round_g);
    run->audit.drift = norm > 0 ? sqrt(difference / norm) : sqrt(difference);
    run->audit.outstanding = 0;
    skald_audit_finish(run);
    return SKALD_OK;
}

skald_status skald_ranks_tend(skald_run *run) {
    while (run->regroup) {
        skald_status st = regroup(run);
        if (st != SKALD_OK && st != SKALD_AGAIN) return st;
    }
    if (!run->audit.outstanding || run->flight_count || skald_evaluator_active(&run->evaluator)) return SKALD_OK;
    skald_status st = audit(run);
    return st == SKALD_AGAIN ? skald_ranks_tend(run) : st;
}
