/* The crew of ranks: own tasks computed, everybody's sums exchanged. */
#include <math.h>
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

/* ---- tasks and results ----------------------------------------------------------------------------- */

static skald_status submit(skald_crew *crew, uint32_t worker, const skald_task *task) {
    skald_rank *r = of(crew);
    if (r->task_count == r->task_capacity) return skald_fail(SKALD_EINTERNAL, "too many tasks for the ranks");
    if (!r->begun && (skald_task_trains(task->kind) || task->kind == SKALD_TASK_SAMPLE)) skald_rank_report_begin(r);
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
    double **held = r->held + SKALD_MAX_POINTS * (size_t)(result - r->results);
    for (uint32_t v = 0; v < SKALD_MAX_POINTS; v++) {
        if (held[v]) r->spare[r->spare_count++] = held[v];
        held[v] = NULL;
    }
    skald_rows_free(&result->sample);
}

/* Vectors for the result of task k. */
static skald_status hold(skald_rank *r, uint32_t k) {
    double **held = r->held + SKALD_MAX_POINTS * (size_t)k;
    for (uint32_t v = 0; v < r->results[k].count; v++) {
        if (r->spare_count)
            held[v] = r->spare[--r->spare_count];
        else
            TRY(r->vectors->ops->create(r->vectors, &held[v]));
        r->results[k].vectors[v] = held[v];
    }
    return SKALD_OK;
}

/* A slot of the block: times and flags are doubles too, an error's text six bytes a double. */
enum { HEAD = 3, TIMES = 5, ERROR_WORDS = 16, SUMS = 7, SUMS_AT = 2 + TIMES };
enum { ERROR_AT = SUMS_AT + SUMS * SKALD_MAX_POINTS, SAMPLE_AT = ERROR_AT + ERROR_WORDS, SLOT };
_Static_assert(HEAD + SLOT <= SKALD_RANK_SLOT,
               "the block has room for a task's slot, and the first one's for the head");
_Static_assert(sizeof(skald_sums) == SUMS * sizeof(double), "sums are doubles, one after the other");

static void write_slot(const skald_result *result, double *slot) {
    slot[0] = result->rows;
    slot[1] = result->status;
    slot[2] = (double)result->wait_ns;
    slot[3] = (double)result->receive_ns;
    slot[4] = (double)result->compute_ns;
    slot[5] = (double)result->delay_ns;
    slot[6] = (double)result->ready_ns;
    if (result->status == SKALD_OK) memcpy(slot + SUMS_AT, result->sums, sizeof result->sums);
    if (result->sample.n) slot[SAMPLE_AT] = (double)skald_rows_packed_size(&result->sample);
    double *words = slot + ERROR_AT;
    for (uint32_t k = 0; k < ERROR_WORDS * 6 && result->error[k]; k++)
        words[k / 6] += ldexp((unsigned char)result->error[k], (int)(8 * (k % 6)));
}

static void read_slot(const double *slot, skald_result *result) {
    result->rows = (uint32_t)slot[0];
    result->status = (skald_status)slot[1];
    result->wait_ns = (int64_t)slot[2];
    result->receive_ns = (int64_t)slot[3];
    result->compute_ns = (int64_t)slot[4];
    result->delay_ns = (int64_t)slot[5];
    result->ready_ns = (int64_t)slot[6];
    memcpy(result->sums, slot + SUMS_AT, sizeof result->sums);
    const double *words = slot + ERROR_AT;
    for (uint32_t k = 0; k < ERROR_WORDS * 6; k++)
        result->error[k] = (char)((uint64_t)words[k / 6] >> 8 * (k % 6) & 0xff);
    result->error[ERROR_WORDS * 6] = '\0';
}

/* A rank has waited since it was ready before: for the others' results, mostly. */
static skald_status compute(skald_rank *r, uint32_t k) {
    skald_result *result = &r->results[k];
    const skald_task *t = &r->tasks[k];
    int64_t start = machine_ns();
    skald_status st = hold(r, k);
    if (st != SKALD_OK) {
        r->alone = true;
        return st;
    }
    skald_busy_begin(&r->w->busy, r->number, skald_worker_rows(r->w, t));
    skald_runner_run(&r->w->runner, r->lane, t, result);
    skald_busy_end(&r->w->busy, r->number, skald_task_trains(t->kind) && result->status == SKALD_OK);
    for (uint32_t v = result->count; v < SKALD_MAX_POINTS; v++) result->vectors[v] = NULL;
    result->wait_ns = start - r->idle_ns;
    result->receive_ns = start - r->heard_ns;
    result->delay_ns = skald_worker_pace(r->w, t, start);
    skald_rank_work(r);
    r->idle_ns = machine_ns();
    result->ready_ns = r->clock.now_ns + r->idle_ns - r->heard_ns; /* durations only: the machines' clocks differ */
    return SKALD_OK;
}

static skald_status make_room(skald_rank *r, size_t doubles) {
    if (doubles <= r->packed_capacity) return SKALD_OK;
    double *more = skald_alloc(doubles, sizeof *more);
    if (!more) return SKALD_ENOMEM;
    free(r->packed);
    r->packed = more;
    r->packed_capacity = doubles;
    return SKALD_OK;
}

/* The rows that task k has sampled. */
static skald_status hand_round_sample(skald_rank *r, uint32_t k) {
    const size_t size = r->sample_bytes[k], doubles = (size + sizeof(double) - 1) / sizeof(double);
    skald_rows *sample = &r->results[k].sample;
    const bool own = r->owners[k] == r->me;
    if (!size) return SKALD_OK;
    const skald_status st = make_room(r, doubles);
    if (st != SKALD_OK) {
        r->alone = true;
        return st;
    }
    r->packed[doubles - 1] = 0;
    if (own) skald_rows_pack(sample, (uint8_t *)r->packed);
    const skald_stretch all = {r->packed, doubles, false};
    TRY(skald_rank_hand_round(r, &all, 1, r->owners[k]));
    return own ? SKALD_OK : skald_rows_unpack((uint8_t *)r->packed, size, r->problem.dim, r->tasks[k].rows, sample);
}

static void drop_results(skald_rank *r) {
    for (uint32_t k = 0; k < r->task_count; k++) release(&r->crew, &r->results[k]);
}

/* Computes what is this rank's and exchanges everybody's sums. */
static skald_status exchange(skald_rank *r) {
    const size_t total = HEAD + (size_t)r->task_count * SLOT;
    const bool leads = skald_rank_leads(r);
    memset(r->block, 0, total * sizeof(double));
    for (uint32_t k = 0; k < r->task_count; k++) {
        skald_result *result = &r->results[k];
        *result = (skald_result){.task = r->tasks[k].id,
                                 .kind = r->tasks[k].kind,
                                 .shard = r->tasks[k].shard,
                                 .worker = r->owners[k],
                                 .count = skald_task_vectors(&r->tasks[k])};
        if (r->owners[k] != r->me) continue;
        TRY(compute(r, k));
        write_slot(result, r->block + HEAD + (size_t)k * SLOT);
    }
    (void)skald_rank_take_jobs(r); /* for the flags; what else there is shows in the operation */
    if (leads) {
        r->block[0] = (double)(r->clock.now_ns + machine_ns() - r->heard_ns);
        r->block[1] = r->stop_asked;
        r->block[2] = r->audit_asked;
    }
    const skald_stretch all = {r->block, total, false};
    skald_status st = skald_rank_combine(r, &all, 1);
    if (st != SKALD_OK) {
        drop_results(r);
        return st;
    }
    r->clock.now_ns = (int64_t)r->block[0];
    r->heard_ns = machine_ns();
    if (r->block[1] > 0) atomic_store(&r->stop_flag, 1);
    r->audit_now = r->block[2] > 0;
    if (leads) r->audit_asked = false;
    for (uint32_t k = 0; k < r->task_count; k++) {
        const double *slot = r->block + HEAD + (size_t)k * SLOT;
        read_slot(slot, &r->results[k]);
        r->sample_bytes[k] = (size_t)slot[SAMPLE_AT];
        if (r->results[k].status != SKALD_OK) r->results[k].count = 0;
        r->results[k].arrived_ns = r->clock.now_ns;
    }
    for (uint32_t k = 0; k < r->task_count && st == SKALD_OK; k++) st = hand_round_sample(r, k);
    if (st != SKALD_OK) {
        drop_results(r);
        return st;
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
    const size_t bytes = r->vectors->dim * sizeof(double);
    skald_bytes *w = model ? skald_bytes_create(bytes) : NULL;
    skald_vectors *v = r->vectors;
    const bool there = w && v->ops->read(v, (double *)(void *)skald_bytes_data(w), model->vectors[0]) == SKALD_OK;
    const skald_wire_vector vector = {w, w ? w->data : NULL, bytes};
    if (there) m.version = model->commits;
    skald_worker_send(r->w, &frame, &vector, there ? 1 : 0);
    skald_bytes_unref(w);
}

static void destroy(skald_crew *crew, skald_status code, const char *reason) {}

const skald_crew_ops skald_rank_crew_ops = {size, member, submit, next, release, answer, destroy, NULL};
