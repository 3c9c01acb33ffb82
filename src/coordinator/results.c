/* Results in: decoded, each taken once. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/state.h"

static void ack(skald_coordinator *c, skald_session_state *s, uint64_t seq, const char *refusal) {
    if (!refusal && s->ack_count < SKALD_ARRAY_LENGTH(s->acks)) { /* rides with the next task */
        s->acks[s->ack_count++] = seq;
        return;
    }
    Skald__V1__Frame frame = SKALD__V1__FRAME__INIT;
    Skald__V1__Ack m = SKALD__V1__ACK__INIT;
    m.seqs = &seq;
    m.n_seqs = 1;
    m.refused = refusal != NULL;
    if (refusal) m.reason = (char *)refusal;
    frame.body_case = SKALD__V1__FRAME__BODY_ACK;
    frame.ack = &m;
    skald_coordinator_send(c, s, &frame, NULL, 0);
}

/* (worker, incarnation, seq): has this result been here before? Remembers it. */
static bool seen(skald_session_state *s, uint64_t seq) {
    if (seq > s->seq_high) {
        uint64_t by = seq - s->seq_high;
        s->seq_mask = by < 64 ? s->seq_mask << by : 0;
        s->seq_mask |= 1;
        s->seq_high = seq;
        return false;
    }
    uint64_t back = s->seq_high - seq;
    if (back >= 64) return true;
    if (s->seq_mask >> back & 1) return true;
    s->seq_mask |= 1ull << back;
    return false;
}

static skald_result_slot *take_slot(skald_coordinator *c) {
    skald_result_slot *slot = c->idle;
    if (slot) {
        c->idle = slot->next;
    } else {
        slot = skald_alloc(1, sizeof *slot +
                                  SKALD_MAX_POINTS * (size_t)skald_problem_length(&c->problem) * sizeof(double));
        if (!slot) return NULL;
    }
    memset(&slot->result, 0, sizeof slot->result);
    return slot;
}

static bool all_finite(const double *x, size_t n) {
    double acc[8] = {0}; /* 0 x NaN and 0 x infinity are NaN */
    size_t j = 0;
    for (; j + 8 <= n; j += 8)
        for (int k = 0; k < 8; k++) acc[k] += x[j + (size_t)k] * 0;
    for (; j < n; j++) acc[0] += x[j] * 0;
    double sum = 0;
    for (int k = 0; k < 8; k++) sum += acc[k];
    return sum == 0;
}

/* Times are only shown: what cannot be one is none. */
static int64_t time_of(int64_t ns) {
    return ns >= 0 && ns < INT64_MAX / 4 ? ns : 0;
}

static skald_status read_sample(skald_coordinator *c, const skald_task *t, skald_rows *out) {
    const size_t size = skald_wire_vector_bytes(c->env, 0);
    uint8_t *bytes = skald_alloc(size ? size : 1, 1);
    if (!bytes) return SKALD_ENOMEM;
    skald_status st = skald_wire_read(c->env, 0, 0, bytes, size);
    if (st == SKALD_OK) st = skald_rows_unpack(bytes, size, c->problem.dim, t->rows, out);
    free(bytes);
    TRY(st);
    if (out->n != t->rows ||
        (out->layout == SKALD_DENSE) != c->problem.dense) /* none would be asked for again for ever */
        return skald_fail(SKALD_EPEER, "a sample of %zu %s rows instead of %u", out->n,
                          out->layout == SKALD_DENSE ? "dense" : "sparse", t->rows);
    return SKALD_OK;
}

/* Who does not say where its parts are, does not know. */
static skald_status read_parts(const Skald__V1__Result *m, skald_part_taken *parts) {
    const bool told = m->n_parts || m->n_part_losses;
    if (told && (m->n_parts != SKALD_SHARD_PARTS || m->n_part_losses != SKALD_SHARD_PARTS ||
                 !all_finite(m->part_losses, SKALD_SHARD_PARTS)))
        return skald_fail(SKALD_EPEER, "an anchor of a shard of %zu parts, %zu losses", m->n_parts, m->n_part_losses);
    for (uint32_t q = 0; q < SKALD_SHARD_PARTS; q++)
        parts[q] =
            told ? (skald_part_taken){m->parts[q], m->part_losses[q]} : (skald_part_taken){SKALD_VERSION_UNKNOWN, 0};
    return SKALD_OK;
}

/* Fills r from a message that nobody has reason to trust. */
static skald_status decode(skald_coordinator *c, const skald_session_state *s, const skald_task *t,
                           const Skald__V1__Result *m, skald_result_slot *slot) {
    skald_result *r = &slot->result;
    const size_t dim = skald_problem_length(&c->problem);
    if (m->kind != (uint32_t)t->kind || m->shard != t->shard)
        return skald_fail(SKALD_EPEER, "answers a %s task with something else", skald_task_kind_name(t->kind));
    const uint64_t version = t->model ? t->model->id : 0;
    if (m->version != version)
        return skald_fail(SKALD_EPEER, "from version %llu instead of %llu", (unsigned long long)m->version,
                          (unsigned long long)version);
    if (m->status >= SKALD_AGAIN &&
        m->status != SKALD_EINTERNAL) /* these are no failures: nobody would answer for it */
        return skald_fail(SKALD_EPEER, "status %u in a result", m->status);
    if (m->status != SKALD_OK) return SKALD_OK;
    uint32_t count = skald_task_vectors(t);
    const bool samples = t->kind == SKALD_TASK_SAMPLE; /* its rows ride where vectors do */
    if (skald_wire_vectors(c->env) != count + samples)
        return skald_fail(SKALD_EPEER, "%zu vectors instead of %u", skald_wire_vectors(c->env), count + samples);
    uint64_t limit = t->shard == SKALD_ALL_SHARDS            ? s->member.rows
                     : samples || skald_task_trains(t->kind) ? t->rows
                                                             : c->problem.shards[t->shard].rows;
    if (m->rows > limit || (skald_task_trains(t->kind) && m->rows == 0))
        return skald_fail(SKALD_EPEER, "%u rows in a result for a task of %llu", m->rows, (unsigned long long)limit);
    if (t->by_version && t->model && (m->oldest == 0 || m->oldest > t->model->id))
        return skald_fail(SKALD_EPEER, "rows at version %llu after a task at version %llu",
                          (unsigned long long)m->oldest, (unsigned long long)t->model->id);
    r->oldest = m->oldest;
    if (t->kind == SKALD_TASK_ANCHOR) TRY(read_parts(m, r->parts));
    if (samples) TRY(read_sample(c, t, &r->sample));
    for (size_t k = 0; k < m->n_sums && k < SKALD_MAX_POINTS; k++) {
        const Skald__V1__Sums *x = m->sums[k];
        r->sums[k] = (skald_sums){x->loss, x->dphi, x->d2phi, x->correct, x->rows, x->k, x->k2};
        if (!all_finite(&r->sums[k].loss, 7)) return skald_fail(SKALD_EPEER, "a sum is not finite");
        if (x->rows < 0 || x->rows > (double)limit || x->correct < 0 || x->correct > x->rows || x->k < 0 || x->k2 < 0)
            return skald_fail(SKALD_EPEER, "sums over %g rows, %g of them right, for a task of %llu", x->rows,
                              x->correct, (unsigned long long)limit);
    }
    for (uint32_t k = 0; k < count; k++) {
        r->vectors[k] = slot->data + k * dim;
        TRY((m->narrow ? skald_wire_floats : skald_wire_doubles)(c->env, k, r->vectors[k], dim));
        if (!all_finite(r->vectors[k], dim)) return skald_fail(SKALD_EPEER, "a vector is not finite");
    }
    r->count = count;
    return SKALD_OK;
}

skald_status skald_remote_result(skald_coordinator *c, skald_session_state *s, const Skald__V1__Result *m,
                                 skald_result **out) {
    if (m->incarnation != s->incarnation || m->seq == 0) return SKALD_AGAIN;
    if (seen(s, m->seq)) {
        c->duplicates++;
        ack(c, s, m->seq, NULL);
        return SKALD_AGAIN;
    }
    uint32_t k = 0;
    while (k < s->task_count && s->tasks[k].task.id != m->task) k++;
    if (k == s->task_count) { /* never asked for */
        c->refused++;
        ack(c, s, m->seq, "no such task");
        if (++s->unasked > 1000 + 2 * s->answered) {
            skald_door_offence(c, s->session, "results for no task");
            skald_coordinator_lose(c, s, "it sends results for no task, and does not stop");
        }
        return SKALD_AGAIN;
    }
    s->answered++;
    skald_result_slot *slot = take_slot(c);
    if (!slot) return SKALD_ENOMEM;
    skald_result *r = &slot->result;
    /* Out of the list before anything is sent: a send that fails loses the worker with all tasks on the list, which is
     * in the order they were handed out in, in which a session that is taken up again sends them. */
    const skald_outstanding done = s->tasks[k];
    const skald_task *t = &done.task;
    memmove(&s->tasks[k], &s->tasks[k + 1], (--s->task_count - k) * sizeof *s->tasks);
    r->task = t->id;
    r->kind = t->kind;
    r->shard = t->shard;
    r->worker = (uint32_t)(s - c->workers);
    r->rows = m->rows;
    r->wait_ns = time_of(m->wait_ns);
    r->compute_ns = time_of(m->compute_ns);
    r->receive_ns = time_of(m->receive_ns);
    r->delay_ns = time_of(m->delay_ns);
    r->came_ns = time_of(m->arrived_ns);
    r->posted_ns = time_of(m->posted_ns);
    r->arrived_ns = c->frame_ns;
    r->status = (skald_status)m->status;
    snprintf(r->error, sizeof r->error, "%s", m->error);
    if (decode(c, s, t, m, slot) != SKALD_OK) {
        c->refused++;
        r->status = SKALD_EREFUSED;
        r->count = 0;
        snprintf(r->error, sizeof r->error, "%s", skald_error());
        ack(c, s, m->seq, r->error);
    } else {
        ack(c, s, m->seq, NULL);
    }
    if (t->shard != SKALD_ALL_SHARDS && c->leases[t->shard].state == SKALD_LEASE_LEAVING) c->unsettled = true;
    if (s->leaving) c->unsettled = true;
    skald_task_unref(t);
    *out = r;
    return SKALD_OK;
}
