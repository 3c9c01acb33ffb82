/* History by version: which versions of the model the tables of the workers may be at.
 *
 * A worker keeps as many as `history_versions`. When that many are in use, the older half is to go: the shards with
 * rows at one of them are asked to take those rows' gradients anew, at the newest version the worker has, so that
 * nothing travels and none is added. Such a result corrects the anchor, with no step. Until it is back, the worker is
 * given no task that would bring another version.
 *
 * What the rows are at is known from the workers, who tell the oldest with each result. In between, every version that
 * was handed out since counts as in use: the rows of one leave it over a whole pass, and the last of them late. */
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "engine/run.h"

void skald_eviction_fini(skald_run *run) {
    for (uint32_t k = 0; run->members && k < run->size; k++) skald_eviction_leave(run, k);
}

void skald_eviction_leave(skald_run *run, uint32_t worker) {
    free(run->members[worker].held);
    skald_version_unref(run->members[worker].newest);
}

/* Forgets what no row of the worker's can be at. */
static void prune(skald_run *run, uint32_t worker) {
    skald_member_state *s = &run->members[worker];
    const skald_member *m = run->crew->ops->member(run->crew, worker);
    uint64_t oldest = UINT64_MAX;
    for (uint32_t i = 0; i < m->shard_count; i++) {
        const uint64_t at = run->ledger.entries[m->shards[i]].oldest;
        if (at && at < oldest) oldest = at;
    }
    uint32_t gone = 0;
    while (gone < s->held_count && s->held[gone] < oldest) gone++;
    if (!gone) return;
    s->held_count -= gone;
    memmove(s->held, s->held + gone, s->held_count * sizeof *s->held);
}

void skald_eviction_look(skald_run *run) {
    const uint32_t most = run->options->history_versions;
    const bool rounds = run->options->mode == SKALD_SYNC;
    bool full = false;
    if (!most || (rounds && run->training)) return;
    for (uint32_t k = 0; k < run->size; k++) {
        prune(run, k);
        full |= rounds && run->members[k].held_count >= most; /* all make room in one round, which makes no step */
    }
    for (uint32_t k = 0; k < run->size; k++) {
        const skald_member_state *s = &run->members[k];
        const skald_member *m = run->crew->ops->member(run->crew, k);
        const bool evicts = s->held_count && (full || s->held_count >= most);
        const uint64_t before = evicts ? s->held[s->held_count / 2] : 0;
        for (uint32_t i = 0; i < m->shard_count; i++) {
            skald_ledger_entry *e = &run->ledger.entries[m->shards[i]];
            e->before = e->oldest && e->oldest < before ? before : 0;
        }
    }
}

static bool holds(const skald_member_state *s, const skald_version *newest) {
    return s->held_count && s->held[s->held_count - 1] == newest->id;
}

/* May a task at the current model be given, as far as versions go? */
static bool room(const skald_run *run, uint32_t worker) {
    const skald_member_state *s = &run->members[worker];
    const bool has = !run->dirty && run->current && holds(s, run->current);
    return has || s->held_count < run->options->history_versions;
}

uint32_t skald_eviction_pick(const skald_run *run, uint32_t worker, uint32_t depth) {
    const skald_member *m = run->crew->ops->member(run->crew, worker);
    if (!run->options->history_versions) return skald_ledger_pick(&run->ledger, m, depth);
    for (uint32_t i = 0; i < m->shard_count; i++) {
        const skald_ledger_entry *e = &run->ledger.entries[m->shards[i]];
        if ((e->refresh || e->rebuild || e->before) && !e->busy) return m->shards[i];
    }
    return room(run, worker) ? skald_ledger_pick(&run->ledger, m, depth) : UINT32_MAX;
}

skald_version *skald_eviction_target(const skald_run *run, uint32_t worker) {
    const skald_member_state *s = &run->members[worker];
    return s->newest && s->newest_generation == run->generation ? s->newest : run->current;
}

skald_status skald_eviction_issued(skald_run *run, uint32_t worker, const skald_task *t) {
    skald_member_state *s = &run->members[worker];
    if (!t->by_version) return SKALD_OK;
    skald_ledger_entry *e = &run->ledger.entries[t->shard];
    if (!e->oldest) e->oldest = t->model->id;
    run->evictions += t->before > 0;
    e->before = 0;
    if (holds(s, t->model)) return SKALD_OK;
    if (s->held_count == s->held_capacity) { /* more than history_versions only by rollbacks, one each */
        const uint32_t capacity = s->held_capacity ? 2 * s->held_capacity : 64;
        uint64_t *grown = realloc(s->held, capacity * sizeof *grown);
        if (!grown) return skald_fail(SKALD_ENOMEM, "out of memory");
        s->held = grown;
        s->held_capacity = capacity;
    }
    s->held[s->held_count++] = t->model->id;
    if (s->held_count > run->versions_held) run->versions_held = s->held_count;
    skald_version *old = s->newest; /* perhaps the same, of which this is the last reference */
    s->newest = skald_version_ref(t->model);
    skald_version_unref(old);
    s->newest_generation = run->generation;
    return SKALD_OK;
}

void skald_eviction_landed(skald_run *run, const skald_result *r) {
    if (r->oldest && r->shard < run->ledger.count) run->ledger.entries[r->shard].oldest = r->oldest;
}
