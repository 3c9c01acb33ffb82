/* What outlives a coordinator: loaded shards with their tables, and the newest model. A coordinator that is started
 * again and goes on with the same run hears of them in the hello, and may let the worker keep them (proto: Hello,
 * Welcome). Control thread. */
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "worker/worker_state.h"

enum { MOST_HELD = 4096 }; /* in a hello; who has more begins anew */

void skald_keep_version(skald_worker *w, const skald_task *t) {
    skald_version *v = t->model;
    if (v && v->id > w->seen_version) w->seen_version = v->id;
    if (!v || !skald_task_trains(t->kind) || (w->newest && w->newest->commits >= v->commits)) return;
    skald_version_unref(w->newest);
    w->newest = skald_version_ref(v);
}

static size_t model_bytes(const skald_worker *w) {
    return w->newest->dim * sizeof(double);
}

void skald_keep_tell(skald_worker *w, Skald__V1__Hello *m, skald_held_shards *room) {
    *room = (skald_held_shards){0};
    if (!w->incarnation || !atomic_load(&w->begun) || w->ranked) return;
    room->shards = skald_alloc(w->shard_count, sizeof *room->shards);
    room->checksums = skald_alloc(w->shard_count, sizeof *room->checksums);
    if (!room->shards || !room->checksums) return;
    size_t count = 0;
    pthread_rwlock_rdlock(&w->exclusive); /* a lane may be loading one */
    for (uint32_t k = 0; k < w->shard_count; k++) {
        if (!w->runner.shards[k]) continue;
        room->shards[count] = k;
        room->checksums[count++] = w->checksums[k];
    }
    pthread_rwlock_unlock(&w->exclusive);
    if (count > MOST_HELD) return;
    m->shards = w->shard_count;
    m->n_held = m->n_held_checksums = count;
    m->held = room->shards;
    m->held_checksums = room->checksums;
    m->newest = w->seen_version;
    if (!w->newest) return;
    m->newest_commits = w->newest->commits;
    m->newest_checksum = skald_hash(w->newest->vectors[0], model_bytes(w), 0);
}

skald_status skald_keep_welcome(skald_worker *w) {
    skald_worker_stop_lanes(w); /* what was begun is finished: its gradients are in the tables */
    skald_outbox_fini(w);
    w->next_seq = 0;
    skald_shelf_clear(&w->shelf);
    memset(w->seen, 0, sizeof w->seen);
    memset(w->leased, 0, w->shard_count * sizeof *w->leased);
    atomic_store(&w->waiting, 0);
    w->kept = w->rejoined = true;
    return skald_worker_start_lanes(w);
}

void skald_keep_leased(skald_worker *w) {
    for (uint32_t k = 0; w->kept && k < w->shard_count; k++)
        if (!w->leased[k]) skald_worker_unload(w, k);
    w->kept = false;
}

void skald_keep_answer(skald_worker *w) {
    Skald__V1__Frame frame = SKALD__V1__FRAME__INIT;
    Skald__V1__VersionReply m = SKALD__V1__VERSION_REPLY__INIT;
    frame.body_case = SKALD__V1__FRAME__BODY_VERSION_REPLY;
    frame.version_reply = &m;
    skald_wire_vector vector = {0};
    if (w->newest) { /* else it has lost it since it said so: another one's will do */
        m.version = w->newest->id;
        m.commits = w->newest->commits;
        vector = (skald_wire_vector){&w->newest->bytes, w->newest->vectors[0], model_bytes(w)};
    }
    skald_worker_send(w, &frame, &vector, w->newest ? 1 : 0);
}

void skald_keep_end(skald_worker *w) {
    skald_version_unref(w->newest);
    w->newest = NULL;
    w->seen_version = 0;
    free(w->checksums);
    free(w->leased);
    w->checksums = NULL;
    w->leased = NULL;
    w->kept = w->rejoined = false;
}
