#include "replay/simulation.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "engine/shelf.h"
#include "replay/company.h"

/* What happens when; ties in the order of their making. */
typedef struct happening {
    int64_t when;
    uint64_t number;
    skald_result *result; /* NULL: `worker` dies */
    uint32_t worker;
} happening;

typedef struct actor {
    int64_t *free_ns; /* by lane: computed, and let go */
    int64_t began_ns; /* its first training task; 0: none yet */
    uint64_t draws;
    bool dead;
    uint64_t sent, received, versions, saved;
    skald_shelf shelf; /* versions it would keep */
} actor;

struct skald_simulation {
    skald_company_crew base; /* first */
    skald_timing timing;
    actor *actors;
    uint32_t size;
    happening *heap;
    uint32_t count, capacity;
    uint64_t made;
    double warm_ns; /* without a pace: what stragglers' delays are relative to */
    uint64_t warm_tasks;
    char reason[64];
    bool orphans; /* a dead actor's shards are to be dealt */
};

static skald_simulation *of(const skald_crew *crew) {
    return (skald_simulation *)(uintptr_t)crew;
}

/* ---- the queue of events: a binary heap ---------------------------------------------------------------- */

static bool before(const happening *a, const happening *b) {
    return a->when < b->when || (a->when == b->when && a->number < b->number);
}

static skald_status push(skald_simulation *s, happening h) {
    if (s->count == s->capacity) {
        const uint32_t capacity = s->capacity ? 2 * s->capacity : 256;
        happening *grown = realloc(s->heap, capacity * sizeof *grown);
        if (!grown) return skald_fail(SKALD_ENOMEM, "out of memory");
        s->heap = grown;
        s->capacity = capacity;
    }
    h.number = ++s->made;
    uint32_t k = s->count++;
    for (; k && before(&h, &s->heap[(k - 1) / 2]); k = (k - 1) / 2) s->heap[k] = s->heap[(k - 1) / 2];
    s->heap[k] = h;
    return SKALD_OK;
}

static happening pop(skald_simulation *s) {
    const happening first = s->heap[0], last = s->heap[--s->count];
    uint32_t k = 0;
    for (uint32_t child; (child = 2 * k + 1) < s->count; k = child) {
        if (child + 1 < s->count && before(&s->heap[child + 1], &s->heap[child])) child++;
        if (!before(&s->heap[child], &last)) break;
        s->heap[k] = s->heap[child];
    }
    s->heap[k] = last;
    return first;
}

/* ---- how long things take ------------------------------------------------------------------------------ */

static double measured(const skald_simulation *s, uint32_t worker, uint64_t draw) {
    const double *q = s->timing.measured + (size_t)worker * SKALD_ROW_QUANTILES;
    const uint64_t seed = skald_company_problem(s->base.company)->seed;
    const double u = skald_uniform(skald_mix64(seed + 0x736b616c64ull + worker), draw) * (SKALD_ROW_QUANTILES - 1);
    const uint32_t k = (uint32_t)u;
    return q[k] + (u - k) * (q[k + 1] - q[k]);
}

static double compute_ns(const skald_simulation *s, uint32_t worker, const skald_task *t, const skald_result *r) {
    if (skald_task_trains(t->kind))
        return s->timing.measured ? measured(s, worker, s->actors[worker].draws) : r->rows * s->timing.row_ns;
    if (s->timing.free_evaluations) return 0;
    double rows = (double)skald_company_member(s->base.company, worker)->rows;
    if (t->kind == SKALD_TASK_CURVATURE || t->kind == SKALD_TASK_SAMPLE) rows = r->rows;
    return rows * s->timing.row_ns * (t->points > 1 ? t->points : 1);
}

/* When a training task that was computed by `done` may leave: as skald_straggle_until. */
static int64_t held_until(skald_simulation *s, uint32_t worker, int64_t start, int64_t done) {
    actor *a = &s->actors[worker];
    const skald_stragglers *models = s->timing.stragglers;
    const uint64_t draw = a->draws++;
    int64_t until = done > start + s->timing.pace_ns ? done : start + s->timing.pace_ns;
    if (!models || !models->count) return until;
    double unit = (double)s->timing.pace_ns;
    if (!s->timing.pace_ns) {
        if (s->warm_tasks < 100ull * s->size) s->warm_ns += (double)(done - start), s->warm_tasks++;
        unit = s->warm_ns / (double)s->warm_tasks;
    }
    const uint64_t seed = skald_company_problem(s->base.company)->seed;
    until += (int64_t)(unit * skald_stragglers_delay(models, seed, worker, s->size, draw));
    return a->began_ns + (int64_t)(1e9 * skald_stragglers_resume(models, worker, (double)(until - a->began_ns) * 1e-9));
}

/* ---- the crew ------------------------------------------------------------------------------------------ */

static const skald_member *member(const skald_crew *crew, uint32_t worker) {
    const skald_simulation *s = of(crew);
    skald_member *m = skald_company_member(s->base.company, worker);
    m->bytes_sent = s->actors[worker].sent;
    m->bytes_received = s->actors[worker].received;
    m->versions_sent = s->actors[worker].versions;
    m->bytes_saved = s->actors[worker].saved;
    return m;
}

/* Counts what a task's version would be on the wire. */
static void name_version(actor *a, const skald_version *v) {
    if (!v) return;
    const uint64_t kept = skald_shelf_bytes(v->count, v->dim), bytes = v->narrow[0] ? kept / 2 : kept;
    if (skald_shelf_name(&a->shelf, v->id, NULL)) {
        a->saved += bytes;
        return;
    }
    skald_shelf_put(&a->shelf, v->id, kept, NULL);
    a->versions++;
    a->sent += bytes;
}

static skald_status begins(skald_simulation *s, uint32_t worker, int64_t start) {
    s->actors[worker].began_ns = start;
    const double death = s->timing.stragglers ? skald_stragglers_death(s->timing.stragglers, worker) : INFINITY;
    return isfinite(death) ? push(s, (happening){.when = start + (int64_t)(1e9 * death), .worker = worker}) : SKALD_OK;
}

static skald_status submit(skald_crew *crew, uint32_t worker, const skald_task *t) {
    skald_simulation *s = of(crew);
    actor *a = &s->actors[worker];
    skald_result *r;
    TRY(skald_company_run(s->base.company, worker, t, &r));
    const int64_t message =
        skald_task_trains(t->kind) || !s->timing.free_evaluations ? (int64_t)s->timing.message_ns : 0;
    const int64_t came = s->base.now_ns + message;
    int64_t start = came, done;
    if (skald_task_trains(t->kind)) {
        int64_t *free_ns = &a->free_ns[skald_company_lane(s->base.company, t->shard)];
        if (*free_ns > start) start = *free_ns;
        r->wait_ns = came > *free_ns ? came - *free_ns : 0;
        if (!a->began_ns) TRY(begins(s, worker, start));
        const int64_t computed = start + (int64_t)compute_ns(s, worker, t, r);
        done = held_until(s, worker, start, computed);
        r->compute_ns = computed - start;
        r->delay_ns = done - computed;
        *free_ns = done;
    } else { /* they measure the run and are none of its work: beside it */
        done = start + (int64_t)compute_ns(s, worker, t, r);
        r->compute_ns = done - start;
    }
    r->receive_ns = start - came;
    r->came_ns = came;
    r->posted_ns = done;
    const uint64_t vector = skald_problem_length(skald_company_problem(s->base.company)) * sizeof(double);
    name_version(a, t->model);
    name_version(a, t->origin);
    a->received += r->count * vector / (t->kind == SKALD_TASK_LOCAL ? 2 : 1);
    if (t->kind == SKALD_TASK_SAMPLE) a->received += skald_rows_packed_size(&r->sample);
    return push(s, (happening){.when = done + message, .result = r, .worker = worker});
}

/* The next shard of the dead goes to the living with the fewest rows, at once; AGAIN: there are no more. */
static skald_status deal_orphan(skald_simulation *s, skald_event *event) {
    skald_company *c = s->base.company;
    const uint32_t shard = skald_company_unheld(c);
    s->orphans = shard != UINT32_MAX;
    if (!s->orphans) return SKALD_AGAIN;
    const uint32_t heir = skald_company_heir(c);
    if (heir == UINT32_MAX) return skald_fail(SKALD_ELOST, "all workers are gone, the last one %s", s->reason);
    *event = (skald_event){.kind = SKALD_EVENT_LEASED, .worker = heir, .shard = shard};
    return skald_company_lease(c, heir, shard);
}

static skald_status next(skald_crew *crew, int64_t timeout_ns, skald_event *event) {
    skald_simulation *s = of(crew);
    memset(event, 0, sizeof *event);
    if (s->orphans) {
        const skald_status st = deal_orphan(s, event);
        if (st != SKALD_AGAIN) return st;
    }
    while (s->count) {
        const int64_t until = s->base.now_ns + timeout_ns;
        if (timeout_ns >= 0 && s->heap[0].when > until) break;
        const happening h = pop(s);
        if (h.when > s->base.now_ns) s->base.now_ns = h.when;
        event->worker = h.worker;
        if (s->actors[h.worker].dead) {
            skald_company_release(s->base.company, h.result);
            continue;
        }
        if (!h.result) {
            s->actors[h.worker].dead = s->orphans = true;
            event->kind = SKALD_EVENT_LOST;
            event->rows = skald_company_member(s->base.company, h.worker)->rows;
            snprintf(s->reason, sizeof s->reason, "killed by --straggler");
            event->reason = s->reason;
            return skald_company_lose(s->base.company, h.worker);
        }
        h.result->arrived_ns = h.when;
        if (skald_task_trains(h.result->kind)) s->base.now_ns += (int64_t)s->timing.coordinator_ns;
        event->kind = SKALD_EVENT_RESULT;
        event->result = h.result;
        return SKALD_OK;
    }
    if (timeout_ns < 0) return skald_fail(SKALD_EINTERNAL, "nothing is left to happen");
    s->base.now_ns += timeout_ns;
    return SKALD_OK;
}

static const skald_crew_ops ops = {
    skald_company_crew_size,    member, submit, next, skald_company_crew_release, skald_company_crew_answer,
    skald_company_crew_destroy, NULL};

/* ---- begin and end ------------------------------------------------------------------------------------- */

/* From the shape of the data: a core's time for a row, and a message's, as task sizes are chosen by
 * (src/solver/schedule.c). The coordinator handles both vectors of a result and of a model. */
static void guess(skald_timing *t, const skald_problem *p) {
    const double classes = skald_objective_classes(&p->objective), length = skald_problem_length(p);
    if (t->row_ns <= 0) t->row_ns = p->dense ? 0.45 * p->dim * classes : 60 + 4.5 * p->nonzeros / p->n * classes;
    if (t->message_ns < 0) t->message_ns = 75e3 + 16 * length;
    if (t->coordinator_ns < 0) t->coordinator_ns = 20e3 + 8 * length;
}

static uint32_t slots_of(const skald_simulation *s, uint32_t worker) {
    return s->timing.slots ? s->timing.slots[worker] : 1;
}

static skald_status make_company(skald_simulation *s, skald_local_data *local, uint32_t workers) {
    skald_member *members = skald_zalloc(workers, sizeof *members);
    if (!members) {
        skald_local_data_close(local);
        return SKALD_ENOMEM;
    }
    for (uint32_t k = 0; k < workers; k++) {
        members[k].slots = slots_of(s, k);
        members[k].depth = 2;
        snprintf(members[k].name, sizeof members[k].name, "worker-%u", k + 1);
        snprintf(members[k].device, sizeof members[k].device, "%s", local->runner.compute->device);
    }
    skald_status st = skald_company_deal(local->problem.shard_count, members, workers);
    if (st == SKALD_OK)
        st = skald_company_make(local, members, workers, workers, true, &s->base.company);
    else
        skald_local_data_close(local);
    for (uint32_t k = 0; k < workers; k++) free((void *)(uintptr_t)members[k].shards);
    free(members);
    return st;
}

skald_status skald_simulation_open(const skald_data_options *data, const skald_objective *objective,
                                   const skald_compute_options *compute, uint32_t workers, const skald_timing *timing,
                                   skald_simulation **out) {
    if (!workers) return skald_fail(SKALD_EINVAL, "--workers: a simulation has 1 or more");
    skald_simulation *s = skald_zalloc(1, sizeof *s);
    if (!s) return SKALD_ENOMEM;
    skald_local_data local;
    s->timing = *timing;
    s->size = workers;
    s->base.now_ns = 1; /* 0 is no time */
    s->actors = skald_zalloc(workers, sizeof *s->actors);
    skald_status st = SKALD_ENOMEM;
    if (!s->actors) goto out;
    uint64_t slots = 0;
    for (uint32_t k = 0; k < workers; k++) {
        if (!(s->actors[k].free_ns = skald_zalloc(slots_of(s, k), sizeof(int64_t)))) goto out;
        slots += slots_of(s, k);
    }
    TRY_GOTO(st, skald_local_data_open(data, objective, compute, workers, slots, &local), out);
    guess(&s->timing, &local.problem);
    for (uint32_t k = 0; k < workers; k++)
        s->actors[k].shelf.budget = skald_shelf_budget(skald_problem_length(&local.problem));
    TRY_GOTO(st, make_company(s, &local, workers), out);
    s->base.crew = (skald_crew){.ops = &ops, .problem = skald_company_problem(s->base.company)};
    s->base.clock.now_ns = skald_company_crew_now;
out:
    if (st == SKALD_OK)
        *out = s;
    else
        skald_simulation_close(s);
    return st;
}

skald_crew *skald_simulation_crew(skald_simulation *s) {
    return &s->base.crew;
}

skald_clock *skald_simulation_clock(skald_simulation *s) {
    return &s->base.clock;
}

const skald_timing *skald_simulation_timing(const skald_simulation *s) {
    return &s->timing;
}

void skald_simulation_close(skald_simulation *s) {
    if (!s) return;
    for (uint32_t k = 0; k < s->count; k++)
        if (s->heap[k].result) skald_company_release(s->base.company, s->heap[k].result);
    skald_company_free(s->base.company);
    for (uint32_t k = 0; s->actors && k < s->size; k++) free(s->actors[k].free_ns);
    free(s->actors);
    free(s->heap);
    free(s);
}
