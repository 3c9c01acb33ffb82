/* Results on their way: kept until the coordinator says that they have been merged. */
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "worker/worker_state.h"

static void transmit(skald_worker *w, const skald_unacked *u) {
    Skald__V1__Frame frame = SKALD__V1__FRAME__INIT;
    Skald__V1__Result body = SKALD__V1__RESULT__INIT;
    Skald__V1__Sums sums[SKALD_MAX_POINTS] = {SKALD__V1__SUMS__INIT, SKALD__V1__SUMS__INIT};
    Skald__V1__Sums *list[SKALD_MAX_POINTS] = {&sums[0], &sums[1]};
    const skald_result *r = &u->result;
    for (int p = 0; p < SKALD_MAX_POINTS; p++) {
        sums[p].loss = r->sums[p].loss;
        sums[p].dphi = r->sums[p].dphi;
        sums[p].d2phi = r->sums[p].d2phi;
        sums[p].correct = r->sums[p].correct;
        sums[p].rows = r->sums[p].rows;
        sums[p].k = r->sums[p].k;
        sums[p].k2 = r->sums[p].k2;
    }
    body.seq = u->seq;
    body.incarnation = w->incarnation;
    body.task = r->task;
    body.kind = r->kind;
    body.shard = r->shard;
    body.version = u->version;
    body.status = r->status;
    body.error = (char *)r->error;
    body.rows = r->rows;
    body.n_sums = SKALD_MAX_POINTS;
    body.sums = list;
    body.wait_ns = r->wait_ns;
    body.compute_ns = r->compute_ns;
    body.receive_ns = r->receive_ns;
    body.delay_ns = r->delay_ns;
    body.arrived_ns = r->came_ns;
    body.posted_ns = u->sent_ns;
    body.narrow = u->narrow;
    body.oldest = r->oldest;
    uint64_t parts[SKALD_SHARD_PARTS];
    double losses[SKALD_SHARD_PARTS];
    for (int q = 0; q < SKALD_SHARD_PARTS; q++) parts[q] = r->parts[q].version, losses[q] = r->parts[q].loss;
    if (r->kind == SKALD_TASK_ANCHOR && r->shard != SKALD_ALL_SHARDS) {
        body.n_parts = body.n_part_losses = SKALD_SHARD_PARTS;
        body.parts = parts;
        body.part_losses = losses;
    }
    frame.body_case = SKALD__V1__FRAME__BODY_RESULT;
    frame.result = &body;
    skald_wire_vector vectors[SKALD_MAX_POINTS];
    uint32_t count = r->count;
    size_t bytes = (size_t)w->runner.dim * (u->narrow ? sizeof(float) : sizeof(double));
    for (uint32_t k = 0; k < r->count; k++)
        vectors[k] = (skald_wire_vector){u->bytes, u->bytes->data + k * bytes, bytes};
    if (r->kind == SKALD_TASK_SAMPLE && u->bytes) {
        vectors[0] = (skald_wire_vector){u->bytes, u->bytes->data, u->bytes->size};
        count = 1;
    }
    skald_worker_send(w, &frame, vectors, count);
}

void skald_outbox_post(skald_worker *w, const skald_result *result, uint64_t version, skald_bytes *bytes, bool narrow) {
    pthread_mutex_lock(&w->outbox_mutex);
    if (w->outbox_count == w->outbox_capacity) {
        uint32_t capacity = w->outbox_capacity ? 2 * w->outbox_capacity : 16;
        skald_unacked *grown = realloc(w->outbox, capacity * sizeof *grown);
        if (!grown) { /* dropped: the coordinator asks again, and finds the history changed */
            pthread_mutex_unlock(&w->outbox_mutex);
            skald_worker_notice(w, "out of memory: a result was not kept");
            skald_bytes_unref(bytes);
            return;
        }
        w->outbox = grown;
        w->outbox_capacity = capacity;
    }
    skald_unacked *u = &w->outbox[w->outbox_count++];
    *u = (skald_unacked){.seq = ++w->next_seq,
                         .result = *result,
                         .version = version,
                         .bytes = bytes,
                         .narrow = narrow,
                         .sent_ns = skald_now_ns(skald_clock_system())};
    transmit(w, u); /* under the lock, so that results leave in the order of their numbers */
    pthread_mutex_unlock(&w->outbox_mutex);
}

void skald_outbox_ack(skald_worker *w, uint64_t seq) {
    pthread_mutex_lock(&w->outbox_mutex);
    for (uint32_t k = 0; k < w->outbox_count; k++) {
        if (w->outbox[k].seq != seq) continue;
        skald_bytes_unref(w->outbox[k].bytes);
        memmove(&w->outbox[k], &w->outbox[k + 1], (w->outbox_count - k - 1) * sizeof w->outbox[0]);
        w->outbox_count--;
        break;
    }
    pthread_mutex_unlock(&w->outbox_mutex);
}

void skald_outbox_repeat(skald_worker *w, int64_t now_ns, int64_t older_than_ns) {
    pthread_mutex_lock(&w->outbox_mutex);
    for (uint32_t k = 0; k < w->outbox_count; k++) {
        if (now_ns - w->outbox[k].sent_ns < older_than_ns) continue;
        w->outbox[k].sent_ns = now_ns;
        transmit(w, &w->outbox[k]);
    }
    pthread_mutex_unlock(&w->outbox_mutex);
}

bool skald_outbox_has(skald_worker *w, uint64_t task) {
    bool has = false;
    pthread_mutex_lock(&w->outbox_mutex);
    for (uint32_t k = 0; k < w->outbox_count; k++) has |= w->outbox[k].result.task == task;
    pthread_mutex_unlock(&w->outbox_mutex);
    return has;
}

uint32_t skald_outbox_count(skald_worker *w) {
    pthread_mutex_lock(&w->outbox_mutex);
    const uint32_t count = w->outbox_count;
    pthread_mutex_unlock(&w->outbox_mutex);
    return count;
}

void skald_outbox_fini(skald_worker *w) {
    for (uint32_t k = 0; k < w->outbox_count; k++) skald_bytes_unref(w->outbox[k].bytes);
    free(w->outbox);
    w->outbox = NULL;
    w->outbox_count = w->outbox_capacity = 0;
}
