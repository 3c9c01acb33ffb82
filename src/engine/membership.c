/* Who is there, who has which shard, and what follows when that changes.
 *
 * A lost worker takes its tables with it and the results it had not sent; the A_k of its shards stay in abar, as
 * delayed gradients, until whoever has them next has rebuilt the tables (ledger.h: rebuild). Taking them out instead
 * would throw away that part of the gradient each time. Evaluations, which are sums over all that a worker holds, begin
 * anew; parts of full gradients and pieces of the model's way are asked for again; a synchronous round makes no step.
 */
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "engine/run.h"

uint64_t skald_members_laps(const skald_run *run, uint32_t worker) {
    const skald_member_state *m = &run->members[worker];
    return m->laps + (m->slots ? (m->tasks - m->lapped) / m->slots : 0);
}

/* After whatever has changed: slots, those of all together. How many have rows, and answer an evaluation. */
static uint32_t recount(skald_run *run) {
    uint32_t with_rows = 0, slots = 0, capacity = 0;
    for (uint32_t k = 0; k < run->size; k++) {
        skald_member_state *m = &run->members[k];
        const skald_member *member = run->crew->ops->member(run->crew, k);
        const uint32_t now = m->alive ? skald_run_slots(member) : 0;
        if (now != m->slots) {
            m->laps = skald_members_laps(run, k);
            m->lapped = m->tasks;
            m->slots = now;
        }
        with_rows += now > 0;
        slots += now;
        capacity += now * skald_run_depth(run, member);
    }
    run->engine.parallel = slots ? slots : 1;
    run->flight_capacity = capacity ? capacity : 1;
    return with_rows;
}

skald_status skald_members_init(skald_run *run) {
    const skald_crew_ops *ops = run->crew->ops;
    const uint32_t shards = run->problem->shard_count;
    run->size = ops->size(run->crew);
    run->most = run->crew->most > run->size ? run->crew->most : run->size;
    run->members = skald_zalloc(run->most, sizeof *run->members);
    run->holders = skald_zalloc(shards, sizeof *run->holders);
    if (!run->members || !run->holders) return SKALD_ENOMEM;
    for (uint32_t s = 0; s < shards; s++) run->holders[s] = SKALD_NOBODY;
    run->unheld = shards;
    for (uint32_t k = 0; k < run->size; k++) {
        const skald_member *m = ops->member(run->crew, k);
        run->members[k].alive = true;
        for (uint32_t i = 0; i < m->shard_count; i++) {
            run->unheld -= run->holders[m->shards[i]] == SKALD_NOBODY;
            run->holders[m->shards[i]] = k;
        }
    }
    recount(run);
    return SKALD_OK;
}

skald_status skald_members_ready(skald_run *run) {
    return skald_evaluator_again(&run->evaluator, recount(run), !skald_members_complete(run));
}

static void release_shard(skald_run *run, uint32_t shard) {
    if (run->holders[shard] == SKALD_NOBODY) return;
    run->holders[shard] = SKALD_NOBODY;
    run->unheld++;
}

/* Its tasks in flight, results that wait for the rest of their round among them: the history behind those is gone. */
static void drop_flights(skald_run *run, uint32_t worker) {
    for (uint32_t f = run->flight_count; f-- > 0;) {
        skald_flight *flight = &run->flights[f];
        if (flight->worker != worker) continue;
        flight->lost = true;
        if (flight->full) run->full.asked[flight->shard] = false;
        if (flight->result) run->crew->ops->release(run->crew, flight->result);
        if (run->options->mode == SKALD_SYNC && flight->trains) run->round_spoilt = true;
        skald_run_land(run, flight); /* the last one takes its place, and has been looked at */
    }
    if (!run->training) run->round_spoilt = false;
}

static void lose(skald_run *run, const skald_event *event) {
    const uint32_t worker = event->worker;
    skald_member_state *m = &run->members[worker];
    skald_run_notice(run, "worker %u (%s) is gone: %s; %llu rows were with it", worker,
                     run->crew->ops->member(run->crew, worker)->name, event->reason ? event->reason : "no reason given",
                     (unsigned long long)event->rows);
    drop_flights(run, worker);
    for (uint32_t s = 0; s < run->problem->shard_count; s++)
        if (run->holders[s] == worker) release_shard(run, s);
    m->alive = false;
}

/* Who joins is no further behind than the slowest: `ssp` is about speed. */
static void join(skald_run *run, uint32_t worker) {
    uint64_t slowest = UINT64_MAX, slots = 0;
    const skald_member *member = run->crew->ops->member(run->crew, worker);
    run->size = run->crew->ops->size(run->crew);
    for (uint32_t k = 0; k < run->size; k++)
        if (k != worker && run->members[k].alive) slots += run->crew->ops->member(run->crew, k)->slots;
    skald_run_notice(run, "worker %u (%s, %s) has joined%s", worker, member->name, member->device,
                     slots < run->problem->shard_count
                         ? ""
                         : "; it waits, for the others have a shard a thread at most (--shards makes more)");
    for (uint32_t k = 0; k < run->size; k++)
        if (k != worker && run->members[k].slots && skald_members_laps(run, k) < slowest)
            slowest = skald_members_laps(run, k);
    skald_eviction_leave(run, worker);
    run->members[worker] = (skald_member_state){.alive = true, .laps = slowest == UINT64_MAX ? 0 : slowest};
}

static void lease(skald_run *run, uint32_t worker, uint32_t shard) {
    skald_ledger_entry *e = &run->ledger.entries[shard];
    run->unheld -= run->holders[shard] == SKALD_NOBODY;
    run->holders[shard] = worker;
    if (!run->history) return;
    e->suspect = e->refresh = false;
    e->rebuild = e->busy > 0 || skald_ledger_begun(&run->ledger, shard); /* until then A_k is 0, as the table */
    if (!(run->stop && e->rebuild && e->audit)) return;
    e->audit = false; /* nobody will fill it any more */
    if (--run->audit.outstanding == 0) skald_audit_finish(run);
}

skald_status skald_members_event(skald_run *run, const skald_event *event) {
    if (event->worker >= run->most) return skald_fail(SKALD_EINTERNAL, "event of worker %u", event->worker);
    switch (event->kind) {
    case SKALD_EVENT_LOST:
        lose(run, event);
        break;
    case SKALD_EVENT_JOINED:
        join(run, event->worker);
        recount(run);
        return SKALD_OK; /* without rows it changes nothing yet */
    case SKALD_EVENT_WITHDRAWN:
        release_shard(run, event->shard);
        break;
    case SKALD_EVENT_LEASED:
        lease(run, event->worker, event->shard);
        break;
    default:
        return SKALD_OK;
    }
    const uint32_t with_rows = recount(run);
    skald_evaluator_drop(&run->evaluator, run->crew);
    return skald_evaluator_again(&run->evaluator, with_rows, !skald_members_complete(run));
}
