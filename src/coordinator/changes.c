/* What the engine is told about the members, in the order in which it happened. What it sees through `member` changes
 * as it is told, not before: a task that it hands out meanwhile is one it had reason to. */
#include <stdio.h>
#include <string.h>

#include "coordinator/state.h"

void skald_changes_note(skald_coordinator *c, skald_event_kind kind, uint32_t worker, uint32_t shard,
                        const char *reason) {
    if (c->change_count == c->change_capacity) { /* there is room for all that can happen between two events */
        c->overflow = true;
        return;
    }
    skald_change *change = &c->changes[c->change_count++];
    *change = (skald_change){.kind = kind, .worker = worker, .shard = shard};
    snprintf(change->reason, sizeof change->reason, "%s", reason ? reason : "");
}

static void take_shard(skald_coordinator *c, skald_session_state *s, uint32_t shard) {
    s->shards[s->member.shard_count++] = shard;
    s->member.rows += c->problem.shards[shard].rows;
}

static void give_shard(skald_coordinator *c, skald_session_state *s, uint32_t shard) {
    uint32_t k = 0;
    while (k < s->member.shard_count && s->shards[k] != shard) k++;
    if (k == s->member.shard_count) return;
    memmove(&s->shards[k], &s->shards[k + 1], (--s->member.shard_count - k) * sizeof *s->shards);
    s->member.rows -= c->problem.shards[shard].rows;
}

bool skald_changes_next(skald_coordinator *c, skald_event *event) {
    if (!c->change_count) return false;
    const skald_change change = c->changes[0];
    memmove(&c->changes[0], &c->changes[1], --c->change_count * sizeof change);
    skald_session_state *s = &c->workers[change.worker];
    snprintf(c->change_reason, sizeof c->change_reason, "%s", change.reason);
    *event =
        (skald_event){.kind = change.kind, .worker = change.worker, .shard = change.shard, .reason = c->change_reason};
    switch (change.kind) {
    case SKALD_EVENT_LOST:
        event->rows = s->member.rows;
        s->member.shard_count = 0; /* the table still shows who it was; the seat is free */
        s->member.rows = 0;
        s->known = false;
        break;
    case SKALD_EVENT_JOINED:
        if (change.worker >= c->told) c->told = change.worker + 1;
        break;
    case SKALD_EVENT_WITHDRAWN:
        give_shard(c, s, change.shard);
        skald_leases_told(c, change.worker, change.shard);
        break;
    case SKALD_EVENT_LEASED:
        take_shard(c, s, change.shard);
        break;
    default:
        break;
    }
    return true;
}
