/* Who has which shard, from the first lease after training has begun.
 *
 * A shard whose holder was lost is dealt to the living at once (or waits for somebody to join, as the options say). One
 * that moves from a living worker comes to rest first: the engine gives no more tasks on it, those in flight are
 * finished, the holder drops it, and only then somebody else is asked to load it. Its history does not travel: the new
 * holder rebuilds it by the same rule as a lost one's, which costs one pass over the shard, where a table would be
 * packed, sent twice and unpacked; and there is one way for a shard to change hands, not two. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/state.h"

static bool ready(const skald_session_state *s) {
    return s->alive && s->known && s->stage == SKALD_STAGE_READY;
}

/* By seat: shards that it has, or is about to. */
static void count_loads(skald_coordinator *c) {
    memset(c->loads, 0, c->joined * sizeof *c->loads);
    for (uint32_t k = 0; k < c->problem.shard_count; k++) {
        const skald_lease *l = &c->leases[k];
        if (l->state == SKALD_LEASE_HELD || l->state == SKALD_LEASE_LOADING) c->loads[l->holder]++;
    }
}

bool skald_leases_any(const skald_coordinator *c, uint32_t worker) {
    for (uint32_t k = 0; k < c->problem.shard_count; k++)
        if (c->leases[k].state != SKALD_LEASE_FREE && c->leases[k].holder == worker) return true;
    return false;
}

skald_status skald_leases_init(skald_coordinator *c) {
    const uint32_t shards = c->problem.shard_count;
    c->leases = skald_zalloc(shards, sizeof *c->leases);
    c->loads = skald_zalloc(c->crew.most, sizeof *c->loads);
    c->change_capacity = 2 * (c->crew.most + shards) + 16;
    c->changes = skald_zalloc(c->change_capacity, sizeof *c->changes);
    if (!c->leases || !c->loads || !c->changes) return SKALD_ENOMEM;
    c->unsettled = true;
    c->told = skald_coordinator_founders(c);
    for (uint32_t k = c->told; k < c->joined; k++) { /* early: they join when the others begin */
        skald_session_state *s = &c->workers[k];
        s->member.shards = s->shards = skald_zalloc(shards, sizeof *s->shards);
        if (!s->shards) return SKALD_ENOMEM;
    }
    for (uint32_t k = 0; k < c->told; k++) {
        c->workers[k].known = true;
        for (uint32_t i = 0; i < c->workers[k].member.shard_count; i++)
            c->leases[c->workers[k].shards[i]] = (skald_lease){.state = SKALD_LEASE_HELD, .holder = k};
    }
    return SKALD_OK;
}

void skald_leases_lose(skald_coordinator *c, uint32_t worker) {
    for (uint32_t k = 0; c->leases && k < c->problem.shard_count; k++) {
        skald_lease *l = &c->leases[k];
        if (l->state == SKALD_LEASE_FREE || l->holder != worker) continue;
        *l = (skald_lease){.state = SKALD_LEASE_FREE, .moving = l->state >= SKALD_LEASE_LEAVING};
    }
}

static void withdraw(skald_coordinator *c, uint32_t shard) {
    skald_lease *l = &c->leases[shard];
    l->state = SKALD_LEASE_LEAVING;
    l->told = false;
    skald_changes_note(c, SKALD_EVENT_WITHDRAWN, l->holder, shard, NULL);
}

static void release(skald_coordinator *c, uint32_t shard, int64_t now_ns) {
    skald_lease *l = &c->leases[shard];
    l->state = SKALD_LEASE_RELEASING;
    l->asked_ns = now_ns;
    skald_ask_release(c, &c->workers[l->holder], shard);
}

void skald_leases_vacate(skald_coordinator *c, uint32_t worker) {
    for (uint32_t k = 0; k < c->problem.shard_count; k++) {
        skald_lease *l = &c->leases[k];
        if (l->holder != worker) continue;
        if (l->state == SKALD_LEASE_HELD) withdraw(c, k);
        if (l->state == SKALD_LEASE_LOADING) release(c, k, skald_now_ns(c->options->clock));
    }
    c->unsettled = true;
}

void skald_leases_told(skald_coordinator *c, uint32_t worker, uint32_t shard) {
    skald_lease *l = &c->leases[shard];
    if (l->state == SKALD_LEASE_LEAVING && l->holder == worker) l->told = c->unsettled = true;
}

void skald_leases_loaded(skald_coordinator *c, skald_session_state *s, const Skald__V1__Loaded *m) {
    const uint32_t worker = (uint32_t)(s - c->workers);
    if (m->shard >= c->problem.shard_count) return;
    skald_lease *l = &c->leases[m->shard];
    const bool its = l->state != SKALD_LEASE_FREE && l->holder == worker;
    if (!its && !m->released) skald_ask_release(c, s, m->shard); /* a lease that came again, late */
    if (its && m->released && l->state == SKALD_LEASE_RELEASING) {
        *l = (skald_lease){.state = SKALD_LEASE_FREE, .moving = true};
        c->unsettled = true;
    }
    if (!its || m->released || l->state != SKALD_LEASE_LOADING) return;
    if (m->error[0] || m->rows != c->problem.shards[m->shard].rows) {
        char reason[300];
        snprintf(reason, sizeof reason, "it cannot take over shard %u: %.200s", m->shard,
                 m->error[0] ? m->error : "it read another number of rows");
        skald_coordinator_lose(c, s, reason);
        return;
    }
    l->state = SKALD_LEASE_HELD;
    skald_changes_note(c, SKALD_EVENT_LEASED, worker, m->shard, NULL);
    c->unsettled = true;
}

/* ---- dealing --------------------------------------------------------------------------------------------- */

static bool in_use(const skald_session_state *s, uint32_t shard) {
    for (uint32_t t = 0; t < s->task_count; t++)
        if (s->tasks[t].task.shard == shard) return true;
    return false;
}

/* Of those that may have one more: who would have the fewest for its slots. `wait`: none beyond its share of all. */
static uint32_t heir(const skald_coordinator *c, bool wait) {
    uint64_t slots = 0;
    uint32_t best = UINT32_MAX;
    for (uint32_t k = 0; k < skald_coordinator_founders(c); k++) slots += c->workers[k].member.slots;
    for (uint32_t k = 0; k < c->joined; k++) {
        const skald_session_state *s = &c->workers[k];
        if (!ready(s) || s->leaving || s->broken_ns) continue;
        const uint64_t mine = c->loads[k] + 1, size = s->member.slots;
        if (wait && mine > 1 && mine * slots > (uint64_t)c->problem.shard_count * size + slots - 1) continue;
        if (best == UINT32_MAX || mine * c->workers[best].member.slots < (c->loads[best] + 1ull) * size) best = k;
    }
    return best;
}

static void deal(skald_coordinator *c, uint32_t shard, int64_t now_ns) {
    skald_lease *l = &c->leases[shard];
    const uint32_t to = heir(c, c->options->on_loss == SKALD_LOSS_WAIT && !l->moving);
    if (to == UINT32_MAX) return;
    *l = (skald_lease){.state = SKALD_LEASE_LOADING, .holder = to, .asked_ns = now_ns};
    c->loads[to]++;
    skald_ask_lease(c, &c->workers[to], shard);
}

/* While somebody is busier than another would be with one shard more: that shard moves. */
static void even_out(skald_coordinator *c) {
    for (;;) {
        uint32_t most = UINT32_MAX;
        const uint32_t least = heir(c, false);
        for (uint32_t k = 0; k < c->joined; k++) {
            const skald_session_state *s = &c->workers[k];
            if (!ready(s) || s->leaving || s->broken_ns || c->loads[k] < 2) continue;
            if (most == UINT32_MAX ||
                (uint64_t)c->loads[k] * c->workers[most].member.slots > (uint64_t)c->loads[most] * s->member.slots)
                most = k;
        }
        if (most == UINT32_MAX || least == UINT32_MAX || most == least) return;
        if ((c->loads[least] + 1ull) * c->workers[most].member.slots >=
            (uint64_t)c->loads[most] * c->workers[least].member.slots)
            return;
        uint32_t shard = 0;
        while (c->leases[shard].state != SKALD_LEASE_HELD || c->leases[shard].holder != most) shard++;
        withdraw(c, shard);
        c->loads[most]--;
        c->loads[least]++;
    }
}

void skald_leases_tend(skald_coordinator *c, int64_t now_ns) {
    bool settled = true;
    c->unsettled = false;
    count_loads(c);
    for (uint32_t k = 0; k < c->problem.shard_count; k++) {
        skald_lease *l = &c->leases[k];
        if (l->state == SKALD_LEASE_LEAVING && l->told && !in_use(&c->workers[l->holder], k)) {
            release(c, k, now_ns);
        }
        if (l->state == SKALD_LEASE_FREE) deal(c, k, now_ns);
        if (l->state == SKALD_LEASE_LOADING && now_ns - l->asked_ns >= c->repeat_ns) {
            l->asked_ns = now_ns;
            skald_ask_lease(c, &c->workers[l->holder], k);
        }
        if (l->state == SKALD_LEASE_RELEASING && now_ns - l->asked_ns >= c->repeat_ns) release(c, k, now_ns);
        settled &= l->state == SKALD_LEASE_HELD;
    }
    if (settled) even_out(c);
    skald_members_left(c);
}
