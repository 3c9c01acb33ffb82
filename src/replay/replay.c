#include "replay/replay.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "replay/company.h"

struct skald_replay {
    skald_company_crew base; /* first */
    skald_record *record;
    skald_replay_options options;
    atomic_int stop;
    bool beyond;                  /* the record broke off: results come in the order of their tasks */
    skald_status failed;          /* a merge was not the recorded one: told at the next chance */
    char why[1024], reason[1024]; /* reason: of the loss last told */
    skald_result **pending;       /* computed, not delivered; in the order of their tasks */
    uint32_t pending_count, pending_capacity;
};

static skald_replay *of(const skald_crew *crew) {
    return (skald_replay *)(uintptr_t)crew;
}

static skald_status differs(const skald_replay *r, const char *format, ...) __attribute__((format(printf, 2, 3)));
static skald_status differs(const skald_replay *r, const char *format, ...) {
    char text[400];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return skald_fail(SKALD_EDATA, "%s:%u: %s: the record was edited, or written by another skald (%s; this is %s)",
                      r->record->path, r->record->line.number, text, r->record->version, SKALD_VERSION);
}

static skald_status breaks_off(const skald_replay *r) {
    return skald_fail(SKALD_EDATA,
                      "%s:%u: the record breaks off before the run ends; --partial replays as far as it goes",
                      r->record->path, r->record->line.number);
}

static const char *kind_name(skald_record_kind kind) {
    static const char *const names[] = {"a task",       "a result",  "a merge",      "a timeout",    "an audit",
                                        "an interrupt", "a loss",    "a new worker", "a withdrawal", "a lease",
                                        "the end",      "a failure", "nothing more"};
    return names[kind];
}

/* ---- the crew ------------------------------------------------------------------------------------------ */

static bool same(double a, double b) {
    return memcmp(&a, &b, sizeof a) == 0;
}

/* Is this the task that comes next on record? */
static skald_status check_task(const skald_replay *r, uint32_t worker, const skald_task *t) {
    const skald_record_line *l = &r->record->line;
    const int64_t shard = t->shard == SKALD_ALL_SHARDS ? SKALD_RECORD_ALL : (int64_t)t->shard;
    const uint64_t version = t->model ? t->model->id : 0, origin = t->origin ? t->origin->id : 0;
    if (l->kind == SKALD_RECORD_BROKEN) return breaks_off(r);
    if (l->kind != SKALD_RECORD_TASK)
        return differs(r, "here comes %s, but the run hands a %s task to worker %u", kind_name(l->kind),
                       skald_task_kind_name(t->kind), worker);
    if (l->id != t->id || l->worker != worker || strcmp(l->what, skald_task_kind_name(t->kind)) != 0 ||
        l->shard != shard || l->at != t->position || l->rows != t->rows || l->b != t->step_rows ||
        l->after != t->after || l->version != version || l->origin != origin || l->before != t->before ||
        l->generation != t->generation)
        return differs(
            r,
            "a %s task %" PRIu64 " for worker %u, shard %" PRId64 " at %" PRIu64 ", %u rows, model %" PRIu64
            " from %" PRIu64 " before %" PRIu64 "; the run hands out %s %" PRIu64 " for worker %u, shard %" PRId64
            " at %" PRIu64 ", %u rows, model %" PRIu64 " from %" PRIu64 " before %" PRIu64,
            l->what, l->id, l->worker, l->shard, l->at, l->rows, l->version, l->origin, l->before,
            skald_task_kind_name(t->kind), t->id, worker, shard, t->position, t->rows, version, origin, t->before);
    if (!r->options.anyway && (!same(l->eta, t->eta) || !same(l->theta, t->theta)))
        return differs(r, "task %" PRIu64 " with eta %.17g and theta %.17g; the run comes to %.17g and %.17g", l->id,
                       l->eta, l->theta, t->eta, t->theta);
    return SKALD_OK;
}

static void go_beyond(skald_replay *r) {
    r->beyond = true;
    r->stop = 1;
}

static skald_status submit(skald_crew *crew, uint32_t worker, const skald_task *t) {
    skald_replay *r = of(crew);
    if (!r->beyond) {
        if (r->failed != SKALD_OK) return skald_fail(r->failed, "%s", r->why);
        if (r->record->line.kind == SKALD_RECORD_BROKEN && r->options.partial)
            go_beyond(r);
        else
            TRY(check_task(r, worker, t));
    }
    if (r->pending_count == r->pending_capacity) {
        const uint32_t capacity = r->pending_capacity ? 2 * r->pending_capacity : 64;
        skald_result **grown = realloc(r->pending, capacity * sizeof *grown);
        if (!grown) return skald_fail(SKALD_ENOMEM, "out of memory");
        r->pending = grown;
        r->pending_capacity = capacity;
    }
    TRY(skald_company_run(r->base.company, worker, t, &r->pending[r->pending_count]));
    r->pending_count++;
    return r->beyond ? SKALD_OK : skald_record_next(r->record);
}

static skald_result *take(skald_replay *r, uint32_t k) {
    skald_result *x = r->pending[k];
    memmove(r->pending + k, r->pending + k + 1, (--r->pending_count - k) * sizeof *r->pending);
    return x;
}

static skald_status deliver(skald_replay *r, skald_event *event) {
    const skald_record_line *l = &r->record->line;
    uint32_t k = 0;
    while (k < r->pending_count && r->pending[k]->task != l->id) k++;
    if (k == r->pending_count) return differs(r, "a result of task %" PRIu64 ", which is not out", l->id);
    skald_result *x = take(r, k);
    event->kind = SKALD_EVENT_RESULT;
    event->worker = x->worker;
    event->result = x;
    x->arrived_ns = l->arrived;
    x->wait_ns = l->wait;
    x->receive_ns = l->receive;
    x->compute_ns = l->compute;
    x->delay_ns = l->delay;
    x->came_ns = l->came;
    x->posted_ns = l->posted;
    if (skald_blames_worker((skald_status)l->status)) { /* computed, and spoilt there or on its way */
        x->status = (skald_status)l->status;
        x->count = 0;
        snprintf(x->error, sizeof x->error, "%.199s", l->text);
    } else if (l->status != (int)x->status && !r->options.anyway) {
        *event = (skald_event){0};
        r->pending[r->pending_count++] = x; /* freed with the rest */
        return differs(r, "task %" PRIu64 " came to '%s'; here it comes to '%s'", l->id,
                       l->status ? l->text : "a result", x->status != SKALD_OK ? x->error : "a result");
    }
    return SKALD_OK;
}

/* What was on its way from it will not come. */
static void drop_pending(skald_replay *r, uint32_t worker) {
    for (uint32_t k = r->pending_count; k-- > 0;)
        if (r->pending[k]->worker == worker) skald_company_release(r->base.company, take(r, k));
}

/* Why this run cannot be done again from here on; NULL: it can. */
static const char *hindrance(const skald_replay *r) {
    const skald_record_line *l = &r->record->line;
    char isa[32] = "";
    if (l->kind != SKALD_RECORD_JOINED || r->options.anyway) return NULL;
    return skald_record_isa(l->device, isa) && strcmp(isa, r->record->isa) == 0 ? NULL : "joins with another device";
}

static skald_status move_members(skald_replay *r, skald_event *event) {
    const skald_record_line *l = &r->record->line;
    skald_company *c = r->base.company;
    const char *const why = hindrance(r);
    if (why && r->options.partial) {
        go_beyond(r);
        return SKALD_OK;
    }
    if (why)
        return skald_fail(SKALD_EUNSUPPORTED,
                          "%s:%u: here worker %u %s, which is not done again; --partial replays as far as this",
                          r->record->path, l->number, l->worker, why);
    skald_member member = {.slots = l->slots, .depth = l->depth};
    skald_status st = SKALD_OK;
    *event = (skald_event){.worker = l->worker, .shard = (uint32_t)l->shard};
    switch (l->kind) {
    case SKALD_RECORD_LOST:
        event->kind = SKALD_EVENT_LOST;
        snprintf(r->reason, sizeof r->reason, "%s", l->text);
        event->reason = r->reason;
        event->rows = l->worker < skald_company_size(c) ? skald_company_member(c, l->worker)->rows : 0;
        drop_pending(r, l->worker);
        st = skald_company_lose(c, l->worker);
        break;
    case SKALD_RECORD_JOINED:
        event->kind = SKALD_EVENT_JOINED;
        snprintf(member.name, sizeof member.name, "%.63s", l->text);
        snprintf(member.device, sizeof member.device, "%s", l->device);
        st = skald_company_join(c, l->worker, &member);
        break;
    case SKALD_RECORD_WITHDRAWN:
        event->kind = SKALD_EVENT_WITHDRAWN;
        st = skald_company_withdraw(c, l->worker, event->shard);
        break;
    default:
        event->kind = SKALD_EVENT_LEASED;
        st = skald_company_lease(c, l->worker, event->shard);
    }
    if (st != SKALD_EDATA) return st;
    char text[200];
    snprintf(text, sizeof text, "%.199s", skald_error());
    return differs(r, "%s of %s", kind_name(l->kind), text);
}

static skald_status next(skald_crew *crew, int64_t timeout_ns, skald_event *event) {
    skald_replay *r = of(crew);
    const skald_record_line *l = &r->record->line;
    memset(event, 0, sizeof *event);
    if (r->beyond) {
        const uint32_t orphan = skald_company_unheld(r->base.company), heir = skald_company_heir(r->base.company);
        if (orphan != UINT32_MAX && heir == UINT32_MAX)
            return skald_fail(SKALD_EDATA, "%s:%u: the record breaks off where nobody is there", r->record->path,
                              l->number);
        if (orphan != UINT32_MAX) { /* else the last evaluation would wait for it */
            *event = (skald_event){SKALD_EVENT_LEASED, .worker = heir, .shard = orphan};
            return skald_company_lease(r->base.company, heir, orphan);
        }
        if (r->pending_count) *event = (skald_event){SKALD_EVENT_RESULT, .result = take(r, 0)};
        if (event->result) event->worker = event->result->worker;
        return SKALD_OK;
    }
    if (r->failed != SKALD_OK) return skald_fail(r->failed, "%s", r->why);
    if (l->kind >= SKALD_RECORD_TICK && l->kind <= SKALD_RECORD_LEASED) r->base.now_ns = l->t;
    switch (l->kind) {
    case SKALD_RECORD_RESULT:
        r->base.now_ns = l->t;
        TRY(deliver(r, event));
        break;
    case SKALD_RECORD_TICK:
        break;
    case SKALD_RECORD_INTERRUPT:
        r->stop = 1;
        break;
    case SKALD_RECORD_AUDIT:
        *event = (skald_event){.kind = SKALD_EVENT_REQUEST, .request = SKALD_REQUEST_AUDIT, .asker = r};
        break;
    case SKALD_RECORD_LOST:
    case SKALD_RECORD_JOINED:
    case SKALD_RECORD_WITHDRAWN:
    case SKALD_RECORD_LEASED:
        TRY(move_members(r, event));
        if (r->beyond) return SKALD_OK;
        break;
    case SKALD_RECORD_FAILED:
        return skald_fail(SKALD_EDATA, "%s:%u: the recorded run failed here: %s", r->record->path, l->number, l->text);
    case SKALD_RECORD_BROKEN:
        if (!r->options.partial) return breaks_off(r);
        go_beyond(r);
        return SKALD_OK;
    default:
        return differs(r, "here comes %s, but the run waits for a result", kind_name(l->kind));
    }
    const skald_status st = skald_record_next(r->record);
    if (st != SKALD_OK && event->result)
        skald_company_release(r->base.company, event->result); /* it will not be seen */
    return st;
}

/* That it is gone is in the record. */
static void expel(skald_crew *crew, uint32_t worker, const char *reason) {}

static const skald_crew_ops ops = {
    skald_company_crew_size,   skald_company_crew_member,  submit, next, skald_company_crew_release,
    skald_company_crew_answer, skald_company_crew_destroy, expel};

void skald_replay_merged(skald_replay *r, const skald_merged *m) {
    const skald_record_line *l = &r->record->line;
    if (r->beyond || r->failed != SKALD_OK) return;
    if (l->kind == SKALD_RECORD_BROKEN && r->options.partial) return;
    skald_status st = SKALD_OK;
    if (l->kind != SKALD_RECORD_MERGE)
        st = l->kind == SKALD_RECORD_BROKEN
                 ? breaks_off(r)
                 : differs(r, "here comes %s, but the run merges task %" PRIu64, kind_name(l->kind), m->task);
    else if (l->id != m->task || strcmp(l->what, m->how) != 0 || l->stale != m->staleness || l->commits != m->commits ||
             l->generation != m->generation ||
             (!r->options.anyway && (!same(l->step, m->step) || !same(l->q, m->bias))))
        st = differs(r,
                     "merge of task %" PRIu64 ": %s, step %.17g, stale %" PRIu64 "; the run comes to task %" PRIu64
                     ": %s, step %.17g, stale %" PRIu64,
                     l->id, l->what, l->step, l->stale, m->task, m->how, m->step, m->staleness);
    else
        st = skald_record_next(r->record);
    if (st == SKALD_OK) return;
    r->failed = st;
    snprintf(r->why, sizeof r->why, "%s", skald_error());
}

/* ---- begin and end ------------------------------------------------------------------------------------- */

static skald_status check_data(const skald_replay *r, const skald_problem *p, const char *path) {
    const skald_record *record = r->record;
    if (p->n != record->n || p->shard_count != record->shard_count || skald_problem_length(p) != record->length)
        return skald_fail(SKALD_EDATA,
                          "%s: %.0f rows, a model of %u entries, %u shards; recorded in %s were %.0f, %u, %u", path,
                          p->n, skald_problem_length(p), p->shard_count, record->path, record->n, record->length,
                          record->shard_count);
    for (uint32_t k = 0; k < p->shard_count && !r->options.anyway; k++)
        if (p->shards[k].checksum != record->checksums[k])
            return skald_fail(
                SKALD_EDATA,
                "%s: not the data recorded in %s: shard %u differs; --anyway replays the same order on them", path,
                record->path, k);
    return SKALD_OK;
}

skald_status skald_replay_open(skald_record *record, const skald_data_options *data, const skald_objective *objective,
                               const skald_replay_options *options, skald_replay **out) {
    skald_replay *r = skald_zalloc(1, sizeof *r);
    if (!r) return SKALD_ENOMEM;
    r->base.crew.ops = &ops;
    r->base.clock.now_ns = skald_company_crew_now;
    r->record = record;
    r->options = *options;
    skald_local_data local = {0};
    skald_compute_options compute = {.device = "cpu", .threads = 1, .isa = record->isa};
    uint64_t slots = 0;
    for (uint32_t k = 0; k < record->member_count; k++) slots += record->members[k].slots;
    skald_status st = skald_local_data_open(data, objective, &compute, record->member_count, slots, &local);
    const bool lacks = st == SKALD_EUNSUPPORTED || (st == SKALD_EINVAL && strstr(skald_error(), "instruction set"));
    if (lacks && options->anyway) {
        compute.isa = NULL;
        st = skald_local_data_open(data, objective, &compute, record->member_count, slots, &local);
    } else if (lacks) {
        skald_fail(SKALD_EUNSUPPORTED,
                   "%s was recorded with %s, which this machine lacks; --anyway replays the same order with other "
                   "bits",
                   record->path, record->isa);
    }
    if (st == SKALD_OK && (st = check_data(r, &local.problem, data->path)) != SKALD_OK) skald_local_data_close(&local);
    if (st == SKALD_OK)
        st = skald_company_make(&local, record->members, record->member_count, record->most, record->floats,
                                &r->base.company);
    if (st != SKALD_OK) {
        free(r);
        return st;
    }
    r->base.crew.problem = skald_company_problem(r->base.company);
    r->base.crew.most = record->most;
    *out = r;
    return SKALD_OK;
}

skald_crew *skald_replay_crew(skald_replay *r) {
    return &r->base.crew;
}

skald_clock *skald_replay_clock(skald_replay *r) {
    return &r->base.clock;
}

const atomic_int *skald_replay_stop(skald_replay *r) {
    return &r->stop;
}

skald_status skald_replay_finish(skald_replay *r, const skald_outcome *outcome, bool *is_same) {
    const skald_record_line *l = &r->record->line;
    *is_same = false;
    if (r->failed != SKALD_OK) return skald_fail(r->failed, "%s", r->why);
    if (r->beyond) return SKALD_OK;
    if (l->kind == SKALD_RECORD_BROKEN) return r->options.partial ? SKALD_OK : breaks_off(r);
    if (l->kind != SKALD_RECORD_END) return differs(r, "here comes %s, but the run is over", kind_name(l->kind));
    *is_same = l->model == skald_model_hash(outcome->w, r->record->length);
    if (*is_same || r->options.anyway) return SKALD_OK;
    return differs(r, "the model at the end has other bits than the recorded one");
}

void skald_replay_close(skald_replay *r) {
    if (!r) return;
    for (uint32_t k = 0; k < r->pending_count; k++) skald_company_release(r->base.company, r->pending[k]);
    skald_company_free(r->base.company);
    free(r->pending);
    free(r);
}
