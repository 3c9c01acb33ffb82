/* The crew of ranks: own tasks computed, everybody's sums exchanged, losses survived. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "worker/rank.h"

static skald_rank *of(skald_crew *crew) {
    return (skald_rank *)crew;
}

static int64_t machine_ns(void) {
    return skald_now_ns(skald_clock_system());
}

bool skald_rank_leads(const skald_rank *r) {
    for (uint32_t k = 0; k < r->me; k++)
        if (!r->lost[k]) return false;
    return true;
}

static uint32_t size(const skald_crew *crew) {
    return ((const skald_rank *)crew)->size;
}

static const skald_member *member(const skald_crew *crew, uint32_t worker) {
    return &((const skald_rank *)crew)->members[worker];
}

void skald_rank_deal(skald_rank *r) {
    uint32_t *next = r->lists;
    for (uint32_t k = 0; k < r->size; k++) {
        skald_member *m = &r->members[k];
        m->shards = next;
        m->shard_count = 0;
        m->rows = 0;
        for (uint32_t s = 0; s < r->problem.shard_count; s++) {
            if (r->holder[s] != k) continue;
            *next++ = s;
            m->shard_count++;
            m->rows += r->problem.shards[s].rows;
        }
    }
}

/* ---- jobs from the control thread ------------------------------------------------------------------ */

static void on_ask(skald_rank *r, const skald_job *job) {
    r->stop_asked |= job->interrupt;
    if (!job->ticket) return;
    if (job->request == SKALD_REQUEST_AUDIT && !r->audit_ticket) {
        r->audit_asked = true; /* rides in the next exchange */
        r->audit_ticket = job->ticket;
    } else if (r->ask_count < SKALD_RANK_ASKS) {
        r->asks[r->ask_count++] = (skald_rank_ask){job->ticket, (skald_request_kind)job->request};
    }
}

/* The latest order counts. */
static void on_regroup(skald_rank *r, skald_job *job) {
    free(r->order);
    r->order = job->order;
    job->order = NULL;
}

/* Takes what is there, at most until an order to regroup. Leases come after such an order only. */
static skald_status take_jobs(skald_rank *r) {
    skald_job job;
    while (!r->stopped && !r->order && skald_queue_pop(r->jobs, &job, 0) == SKALD_OK) {
        if (job.kind == SKALD_JOB_STOP) r->stopped = true;
        if (job.kind == SKALD_JOB_ASK) on_ask(r, &job);
        if (job.kind == SKALD_JOB_REGROUP) on_regroup(r, &job);
        skald_job_drop(&job);
    }
    if (r->stopped) return skald_fail(SKALD_INTERRUPTED, "the run is over");
    return r->order ? skald_fail(SKALD_ELOST, "the coordinator has lost a rank") : SKALD_OK;
}

skald_status skald_rank_waiting(void *rank) {
    return take_jobs(rank);
}

/* ---- losses ---------------------------------------------------------------------------------------- */

/* Until the coordinator says how to go on; rows of the lost are loaded meanwhile. */
static skald_status await_order(skald_rank *r) {
    bool loaded = false;
    while (!(r->order && r->order->go)) {
        skald_job job;
        skald_status st = skald_queue_pop(r->jobs, &job, -1);
        if (st != SKALD_OK) return st;
        if (job.kind == SKALD_JOB_STOP) r->stopped = true;
        if (job.kind == SKALD_JOB_ASK) on_ask(r, &job);
        if (job.kind == SKALD_JOB_REGROUP) on_regroup(r, &job);
        if (job.kind == SKALD_JOB_LEASE) {
            skald_worker_lease(r->w, &job);
            loaded = true;
        }
        skald_job_drop(&job);
        if (r->stopped) return skald_fail(SKALD_INTERRUPTED, "the run is over");
    }
    if (!loaded) return SKALD_OK;
    return skald_lane_fit(r->lane, &r->w->runner); /* its lists are as long as the largest shard */
}

static void keep(skald_rank *r, const skald_stretch *stretches, uint32_t count) {
    double *to = r->kept;
    r->kept_count = count;
    for (uint32_t s = 0; s < count; s++) {
        r->kept_sizes[s] = stretches[s].count;
        memcpy(to, stretches[s].data, stretches[s].count * sizeof *to);
        to += stretches[s].count;
    }
    r->done++;
}

/* The first operation of a new group: who has done how many? Who is behind gets the result it missed into
 * `stretches`. */
static skald_status agree(skald_rank *r, const skald_stretch *stretches, uint32_t count, bool *late) {
    const skald_collective_ops *ops = r->group->ops;
    double *counts = r->block;
    memset(counts, 0, r->size * sizeof *counts);
    counts[r->me] = (double)r->done + 1;
    const skald_stretch all = {counts, r->size, false};
    TRY(ops->sum(r->group, &all, 1));
    double most = 0, least = INFINITY;
    uint32_t root = 0, rank = 0;
    for (uint32_t k = 0; k < r->size; k++) {
        if (counts[k] <= 0) continue;
        if (counts[k] > most) most = counts[k], root = rank;
        least = fmin(least, counts[k]);
        rank++;
    }
    if (most - least > 1) return skald_fail(SKALD_EINTERNAL, "ranks have lost step with each other");
    if (most <= least) return SKALD_OK;
    if (counts[r->me] < most) {
        TRY(ops->broadcast(r->group, stretches, count, root));
        keep(r, stretches, count);
        *late = true;
        return SKALD_OK;
    }
    skald_stretch again[SKALD_MAX_POINTS];
    double *from = r->kept;
    for (uint32_t s = 0; s < r->kept_count; s++) {
        again[s] = (skald_stretch){from, r->kept_sizes[s], false};
        from += r->kept_sizes[s];
    }
    return ops->broadcast(r->group, again, r->kept_count, root);
}

void skald_rank_leave(skald_rank *r) {
    if (r->group) r->group->ops->close(r->group);
    r->group = NULL;
}

skald_status skald_rank_join(skald_rank *r, const uint8_t *id) {
    skald_collective_options options = {
        .device = r->w->options->collective_device, .waiting = skald_rank_waiting, .user = r};
    for (uint32_t k = 0; k < r->size; k++) {
        options.rank += k < r->me && !r->lost[k];
        options.size += !r->lost[k];
    }
    return r->w->options->collective->open(id, &options, &r->group);
}

/* One try to go on as ordered. */
static skald_status follow_order(skald_rank *r, const skald_stretch *stretches, uint32_t count, bool *late) {
    skald_regroup_order *order = r->order;
    uint8_t id[SKALD_COLLECTIVE_ID];
    r->order = NULL; /* a newer one interrupts what follows */
    const uint32_t *holder = order->words + order->lost_count;
    bool sane = true;
    for (uint32_t i = 0; i < order->lost_count; i++) {
        const uint32_t k = order->words[i];
        if (k < r->size && k != r->me)
            r->lost[k] = true;
        else
            sane = false;
    }
    for (uint32_t s = 0; s < r->problem.shard_count; s++) {
        sane &= holder[s] < r->size && (holder[s] == r->me) == (r->w->runner.shards[s] != NULL);
        r->holder[s] = holder[s];
    }
    memcpy(id, order->id, sizeof id);
    free(order);
    if (!sane) return skald_fail(SKALD_EPEER, "a message about lost ranks that makes no sense");
    TRY(skald_rank_join(r, id));
    return agree(r, stretches, count, late);
}

static void complain(skald_rank *r) {
    Skald__V1__Frame frame = SKALD__V1__FRAME__INIT;
    Skald__V1__Fault fault = SKALD__V1__FAULT__INIT;
    fault.error = (char *)skald_error();
    frame.body_case = SKALD__V1__FRAME__BODY_FAULT;
    frame.fault = &fault;
    skald_worker_send(r->w, &frame, NULL, 0);
}

/* An operation failed. Goes on with the ranks that live, in a new group; *late: it had succeeded elsewhere, and its
 * result is in `stretches` now. */
static skald_status recover(skald_rank *r, const skald_stretch *stretches, uint32_t count, bool *late) {
    skald_status st;
    do {
        if (!r->order) complain(r); /* the coordinator does not know */
        skald_rank_leave(r);        /* first of all: what hangs on the card would hold up the loading of rows */
        TRY(await_order(r));
        st = follow_order(r, stretches, count, late);
    } while (st == SKALD_ELOST);
    TRY(st);
    r->losing = true;
    return SKALD_OK;
}

/* Adds up over all ranks. SKALD_AGAIN: ranks were lost, the stretches hold anything. */
static skald_status combine(skald_rank *r, const skald_stretch *stretches, uint32_t count) {
    if (r->losing) return SKALD_AGAIN;
    size_t total = 0;
    for (uint32_t s = 0; s < count; s++) total += stretches[s].count;
    if (total > r->kept_capacity) {
        double *grown = skald_alloc(total, sizeof *grown);
        if (!grown) return SKALD_ENOMEM;
        if (r->kept) memcpy(grown, r->kept, r->kept_capacity * sizeof *grown);
        free(r->kept);
        r->kept = grown;
        r->kept_capacity = total;
    }
    skald_status st = take_jobs(r);
    if (st == SKALD_OK) st = r->group->ops->sum(r->group, stretches, count);
    if (st == SKALD_OK) {
        keep(r, stretches, count);
        return SKALD_OK;
    }
    bool late = false;
    if (st == SKALD_ELOST) {
        st = recover(r, stretches, count, &late);
        if (st == SKALD_OK) return late ? SKALD_OK : SKALD_AGAIN;
    }
    r->alone = true;
    return st;
}

static skald_status reduce(skald_crew *crew, double *const *vectors, uint32_t count) {
    skald_rank *r = of(crew);
    skald_stretch stretches[SKALD_MAX_POINTS];
    for (uint32_t k = 0; k < count; k++) stretches[k] = (skald_stretch){vectors[k], r->w->runner.dim, false};
    return combine(r, stretches, count);
}

skald_status skald_rank_barrier(skald_rank *r) {
    r->losing = false;
    r->block[0] = 0;
    const skald_stretch one = {r->block, 1, false};
    skald_status st = combine(r, &one, 1);
    return st == SKALD_AGAIN ? SKALD_OK : st;
}

/* ---- tasks and results ----------------------------------------------------------------------------- */

static skald_status submit(skald_crew *crew, uint32_t worker, const skald_task *task) {
    skald_rank *r = of(crew);
    if (r->task_count == r->task_capacity) return skald_fail(SKALD_EINTERNAL, "too many tasks for the ranks");
    if (!r->begun && task->kind <= SKALD_TASK_LOCAL) skald_rank_report_begin(r);
    r->owners[r->task_count] = worker;
    r->tasks[r->task_count] = *task;
    skald_version_ref(r->tasks[r->task_count++].model);
    return SKALD_OK;
}

static void drop_tasks(skald_rank *r) {
    for (uint32_t k = 0; k < r->task_count; k++) skald_version_unref(r->tasks[k].model);
    r->task_count = 0;
}

static void release(skald_crew *crew, skald_result *result) {
    skald_rank *r = of(crew);
    size_t k = (size_t)(result - r->results);
    skald_bytes_unref(r->buffers[k]);
    r->buffers[k] = NULL;
}

/* A slot of the block: times and flags are doubles too, an error's text six bytes a double. */
enum { HEAD = 3, ERROR_WORDS = 16, SUMS = 7, SLOT = 5 + SUMS * SKALD_MAX_POINTS + ERROR_WORDS };
_Static_assert(sizeof(skald_sums) == SUMS * sizeof(double), "sums are doubles, one after the other");

static void write_slot(const skald_result *result, double *slot) {
    slot[0] = result->rows;
    slot[1] = result->status;
    slot[2] = (double)result->wait_ns;
    slot[3] = (double)result->compute_ns;
    slot[4] = (double)result->receive_ns;
    if (result->status == SKALD_OK) memcpy(slot + 5, result->sums, sizeof result->sums);
    double *words = slot + 5 + SUMS * SKALD_MAX_POINTS;
    for (uint32_t k = 0; k < ERROR_WORDS * 6 && result->error[k]; k++)
        words[k / 6] += ldexp((unsigned char)result->error[k], (int)(8 * (k % 6)));
}

static void read_slot(const double *slot, skald_result *result) {
    result->rows = (uint32_t)slot[0];
    result->status = (skald_status)slot[1];
    result->wait_ns = (int64_t)slot[2];
    result->compute_ns = (int64_t)slot[3];
    result->receive_ns = (int64_t)slot[4];
    memcpy(result->sums, slot + 5, sizeof result->sums);
    const double *words = slot + 5 + SUMS * SKALD_MAX_POINTS;
    for (uint32_t k = 0; k < ERROR_WORDS * 6; k++)
        result->error[k] = (char)((uint64_t)words[k / 6] >> 8 * (k % 6) & 0xff);
    result->error[ERROR_WORDS * 6] = '\0';
}

static skald_status compute(skald_rank *r, uint32_t k, int64_t idle_since_ns) {
    skald_result *result = &r->results[k];
    const skald_task *t = &r->tasks[k];
    int64_t start = machine_ns();
    if (skald_task_vectors(t)) {
        r->buffers[k] = skald_pool_get(r->w->vectors);
        if (!r->buffers[k]) {
            r->alone = true;
            return SKALD_ENOMEM;
        }
        for (uint32_t v = 0; v < SKALD_MAX_POINTS; v++)
            result->vectors[v] = (double *)(void *)skald_bytes_data(r->buffers[k]) + (size_t)v * r->w->runner.dim;
    }
    skald_runner_run(&r->w->runner, r->lane, t, result);
    for (uint32_t v = result->count; v < SKALD_MAX_POINTS; v++) result->vectors[v] = NULL;
    result->wait_ns = start - idle_since_ns;
    skald_worker_pace(r->w, t, start);
    atomic_fetch_add(&r->w->progress, 1);
    return SKALD_OK;
}

/* Computes what is this rank's and exchanges everybody's sums. */
static skald_status exchange(skald_rank *r) {
    const size_t total = HEAD + (size_t)r->task_count * SLOT;
    const bool leads = skald_rank_leads(r);
    int64_t idle_since = machine_ns();
    memset(r->block, 0, total * sizeof(double));
    for (uint32_t k = 0; k < r->task_count; k++) {
        skald_result *result = &r->results[k];
        *result = (skald_result){.task = r->tasks[k].id,
                                 .kind = r->tasks[k].kind,
                                 .shard = r->tasks[k].shard,
                                 .worker = r->owners[k],
                                 .count = skald_task_vectors(&r->tasks[k])};
        if (r->owners[k] != r->me) continue;
        TRY(compute(r, k, idle_since));
        write_slot(result, r->block + HEAD + (size_t)k * SLOT);
        idle_since = machine_ns();
    }
    (void)take_jobs(r); /* for the flags; what else there is shows in combine */
    if (leads) {
        r->block[0] = (double)(r->clock.now_ns + machine_ns() - r->heard_ns);
        r->block[1] = r->stop_asked;
        r->block[2] = r->audit_asked;
    }
    const skald_stretch all = {r->block, total, false};
    skald_status st = combine(r, &all, 1);
    if (st != SKALD_OK) {
        for (uint32_t k = 0; k < r->task_count; k++) release(&r->crew, &r->results[k]);
        return st;
    }
    r->clock.now_ns = (int64_t)r->block[0];
    r->heard_ns = machine_ns();
    if (r->block[1] > 0) atomic_store(&r->stop_flag, 1);
    r->audit_now = r->block[2] > 0;
    if (leads) r->audit_asked = false;
    for (uint32_t k = 0; k < r->task_count; k++) {
        read_slot(r->block + HEAD + (size_t)k * SLOT, &r->results[k]);
        if (r->results[k].status != SKALD_OK) r->results[k].count = 0;
        r->results[k].arrived_ns = r->clock.now_ns;
    }
    r->result_count = r->task_count;
    r->result_next = 0;
    drop_tasks(r);
    return SKALD_OK;
}

/* ---- events ---------------------------------------------------------------------------------------- */

/* All losses at once, and only now: an engine that is still to get a result from before must not see them in it. */
static void tell_loss(skald_rank *r, skald_event *event) {
    event->kind = SKALD_EVENT_LOST;
    event->worker = UINT32_MAX;
    event->reason = "lost";
    drop_tasks(r);
    r->losing = false;
    for (uint32_t k = 0; k < r->size; k++)
        if (r->lost[k]) r->members[k].slots = 0;
    skald_rank_deal(r);
}

static skald_status next(skald_crew *crew, int64_t timeout_ns, skald_event *event) {
    skald_rank *r = of(crew);
    memset(event, 0, sizeof *event);
    if (r->audit_now) {
        r->audit_now = false;
        *event = (skald_event){.kind = SKALD_EVENT_REQUEST, .request = SKALD_REQUEST_AUDIT};
        event->asker = r->audit_ticket ? &r->audit_ticket : NULL;
        return SKALD_OK;
    }
    if (r->result_next < r->result_count) {
        event->kind = SKALD_EVENT_RESULT;
        event->result = &r->results[r->result_next++];
        event->worker = event->result->worker;
        return SKALD_OK;
    }
    if (r->losing) {
        tell_loss(r, event);
        return SKALD_OK;
    }
    if (r->ask_count) { /* of this process alone: must not change what the engine does */
        skald_rank_ask *a = &r->asks[--r->ask_count];
        *event = (skald_event){.kind = SKALD_EVENT_REQUEST, .request = a->request, .asker = a};
        return SKALD_OK;
    }
    if (!r->task_count) return SKALD_OK;
    skald_status st = exchange(r);
    return st == SKALD_AGAIN ? SKALD_OK : st;
}

static void answer(skald_crew *crew, void *asker, const char *json, skald_version *model) {
    skald_rank *r = of(crew);
    if (!asker) return;
    Skald__V1__Frame frame = SKALD__V1__FRAME__INIT;
    Skald__V1__Answer m = SKALD__V1__ANSWER__INIT;
    const bool audit = asker == &r->audit_ticket;
    m.ticket = audit ? r->audit_ticket : ((const skald_rank_ask *)asker)->ticket;
    if (audit) r->audit_ticket = 0;
    m.json = (char *)(json ? json : "");
    frame.body_case = SKALD__V1__FRAME__BODY_ANSWER;
    frame.answer = &m;
    skald_wire_vector vector = {0};
    if (model) {
        m.version = model->commits;
        vector = (skald_wire_vector){&model->bytes, model->vectors[0], model->dim * sizeof(double)};
    }
    skald_worker_send(r->w, &frame, &vector, model ? 1 : 0);
}

static void destroy(skald_crew *crew, skald_status code, const char *reason) {}

const skald_crew_ops skald_rank_crew_ops = {size, member, submit, next, release, answer, destroy};
const skald_ranks_ops skald_rank_reduce_ops = {reduce};
