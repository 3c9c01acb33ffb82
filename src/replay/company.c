#include "replay/company.h"

#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "base/pool.h"

typedef struct seat {
    skald_member member;
    uint32_t *shards;
    skald_runner view;   /* the data's runner, with its own shards alone */
    skald_chain *chains; /* by lane */
    bool there;
} seat;

typedef struct slot {
    skald_result result;
    skald_bytes *bytes; /* its vectors */
    struct slot *next;
} slot;

struct skald_company {
    skald_local_data data;
    uint32_t dim, size, most;
    bool floats;
    seat *seats;       /* most */
    uint32_t *lane_of; /* by shard: of its holder */
    float **carries;   /* by shard */
    float *rounded;    /* SKALD_MAX_POINTS x dim */
    skald_lane lane;
    skald_pool *vectors;
    slot *idle;
    double *model; /* SKALD_MAX_POINTS x dim: the last version that travelled as floats, as it arrives */
    uint64_t model_id;
};

skald_problem *skald_company_problem(skald_company *c) {
    return &c->data.problem;
}

uint32_t skald_company_size(const skald_company *c) {
    return c->size;
}

skald_member *skald_company_member(const skald_company *c, uint32_t worker) {
    return &c->seats[worker].member;
}

static uint32_t slots_of(const seat *s) {
    return s->member.slots ? s->member.slots : 1;
}

static void empty_seat(seat *s) {
    for (uint32_t k = 0; s->chains && k < slots_of(s); k++) skald_chain_fini(&s->chains[k]);
    free(s->chains);
    free(s->shards);
    free(s->view.shards);
    *s = (seat){0};
}

/* Without shards. */
static skald_status fill_seat(skald_company *c, seat *s, const skald_member *m) {
    const uint32_t shards = c->data.problem.shard_count;
    s->member = *m;
    s->member.rows = 0;
    s->member.shard_count = 0;
    s->member.shards = s->shards = skald_zalloc(shards, sizeof *s->shards);
    s->chains = skald_zalloc(slots_of(s), sizeof *s->chains);
    s->view = c->data.runner;
    s->view.shards = skald_zalloc(shards, sizeof(skald_shard *));
    if (!s->shards || !s->chains || !s->view.shards) return SKALD_ENOMEM;
    for (uint32_t k = 0; k < slots_of(s); k++) TRY(skald_chain_init(&s->chains[k], c->dim));
    s->there = true;
    return SKALD_OK;
}

static void take(skald_company *c, seat *s, uint32_t shard) {
    s->shards[s->member.shard_count++] = shard;
    s->member.rows += c->data.problem.shards[shard].rows;
    s->view.shards[shard] = c->data.runner.shards[shard];
}

static void give(skald_company *c, seat *s, uint32_t shard) {
    uint32_t i = 0;
    while (s->shards[i] != shard) i++;
    memmove(&s->shards[i], &s->shards[i + 1], (--s->member.shard_count - i) * sizeof *s->shards);
    s->member.rows -= c->data.problem.shards[shard].rows;
    s->view.shards[shard] = NULL;
}

/* As a worker deals them at first (src/worker/setup.c): in the order of shards. */
static void deal_lanes(skald_company *c, const seat *s) {
    for (uint32_t k = 0, held = 0; k < c->data.problem.shard_count; k++)
        if (s->view.shards[k]) c->lane_of[k] = held++ % slots_of(s);
}

/* And what comes later: that of the fewest shards. */
static uint32_t idlest_lane(const skald_company *c, const seat *s) {
    uint32_t best = 0, fewest = UINT32_MAX;
    for (uint32_t lane = 0; lane < slots_of(s); lane++) {
        uint32_t held = 0;
        for (uint32_t i = 0; i < s->member.shard_count; i++) held += c->lane_of[s->shards[i]] == lane;
        if (held < fewest) best = lane, fewest = held;
    }
    return best;
}

static skald_status forget(skald_company *c, uint32_t shard) {
    skald_compute *compute = c->data.runner.compute;
    float *zeros =
        skald_zalloc((size_t)c->data.problem.shards[shard].rows * skald_objective_classes(&c->data.problem.objective),
                     sizeof *zeros);
    if (!zeros) return SKALD_ENOMEM;
    const skald_status st = compute->ops->history_set(compute, c->data.runner.shards[shard], zeros);
    free(zeros);
    skald_history_free(c->data.runner.histories[shard]);
    c->data.runner.histories[shard] = NULL;
    free(c->carries[shard]);
    c->carries[shard] = NULL;
    return st;
}

/* ---- coming and going ----------------------------------------------------------------------------------- */

static skald_status there(const skald_company *c, uint32_t worker) {
    if (worker < c->size && c->seats[worker].there) return SKALD_OK;
    return skald_fail(SKALD_EDATA, "worker %u, who is not there", worker);
}

static bool holds(const skald_company *c, uint32_t worker, uint32_t shard) {
    return shard < c->data.problem.shard_count && c->seats[worker].view.shards[shard];
}

uint32_t skald_company_unheld(const skald_company *c) {
    for (uint32_t shard = 0; shard < c->data.problem.shard_count; shard++) {
        uint32_t k = 0;
        while (k < c->size && !(c->seats[k].there && holds(c, k, shard))) k++;
        if (k == c->size) return shard;
    }
    return UINT32_MAX;
}

uint32_t skald_company_heir(const skald_company *c) {
    uint32_t heir = UINT32_MAX;
    for (uint32_t k = 0; k < c->size; k++)
        if (c->seats[k].there && (heir == UINT32_MAX || c->seats[k].member.rows < c->seats[heir].member.rows)) heir = k;
    return heir;
}

skald_status skald_company_join(skald_company *c, uint32_t worker, const skald_member *member) {
    if (worker >= c->most) return skald_fail(SKALD_EDATA, "worker %u of %u at most", worker, c->most);
    if (c->seats[worker].there) return skald_fail(SKALD_EDATA, "worker %u, who is there already", worker);
    empty_seat(&c->seats[worker]);
    if (worker >= c->size) c->size = worker + 1;
    return fill_seat(c, &c->seats[worker], member);
}

skald_status skald_company_lose(skald_company *c, uint32_t worker) {
    TRY(there(c, worker));
    seat *s = &c->seats[worker];
    while (s->member.shard_count) give(c, s, s->shards[0]);
    s->there = false; /* the table still shows who it was */
    return SKALD_OK;
}

skald_status skald_company_withdraw(skald_company *c, uint32_t worker, uint32_t shard) {
    TRY(there(c, worker));
    if (!holds(c, worker, shard)) return skald_fail(SKALD_EDATA, "shard %u, which worker %u has not", shard, worker);
    give(c, &c->seats[worker], shard);
    return SKALD_OK;
}

skald_status skald_company_lease(skald_company *c, uint32_t worker, uint32_t shard) {
    TRY(there(c, worker));
    if (shard >= c->data.problem.shard_count) return skald_fail(SKALD_EDATA, "shard %u, which there is not", shard);
    for (uint32_t k = 0; k < c->size; k++)
        if (c->seats[k].there && holds(c, k, shard))
            return skald_fail(SKALD_EDATA, "shard %u, which is worker %u's", shard, k);
    TRY(forget(c, shard));
    c->lane_of[shard] = idlest_lane(c, &c->seats[worker]);
    take(c, &c->seats[worker], shard);
    return SKALD_OK;
}

skald_status skald_company_make(skald_local_data *data, const skald_member *members, uint32_t count, uint32_t most,
                                bool floats, skald_company **out) {
    skald_company *c = skald_zalloc(1, sizeof *c);
    if (!c) {
        skald_local_data_close(data);
        return SKALD_ENOMEM;
    }
    c->data = *data;
    memset(data, 0, sizeof *data);
    const uint32_t shards = c->data.problem.shard_count;
    const size_t dim = c->dim = skald_problem_length(&c->data.problem);
    c->floats = floats;
    c->most = most;
    c->seats = skald_zalloc(most, sizeof *c->seats);
    c->lane_of = skald_zalloc(shards, sizeof *c->lane_of);
    c->carries = skald_zalloc(shards, sizeof(float *));
    c->rounded = skald_alloc(SKALD_MAX_POINTS * dim, sizeof(float));
    c->model = skald_alloc(SKALD_MAX_POINTS * dim, sizeof(double));
    skald_status st = SKALD_ENOMEM;
    if (!c->seats || !c->lane_of || !c->carries || !c->rounded || !c->model) goto out;
    TRY_GOTO(st, skald_pool_create(SKALD_MAX_POINTS * dim * sizeof(double), &c->vectors), out);
    TRY_GOTO(st, skald_lane_init(&c->lane, &c->data.runner), out);
    for (uint32_t k = 0; k < count; k++) {
        TRY_GOTO(st, skald_company_join(c, k, &members[k]), out);
        for (uint32_t i = 0; i < members[k].shard_count; i++) take(c, &c->seats[k], members[k].shards[i]);
        deal_lanes(c, &c->seats[k]);
    }
out:
    if (st == SKALD_OK)
        *out = c;
    else
        skald_company_free(c);
    return st;
}

void skald_company_free(skald_company *c) {
    if (!c) return;
    for (uint32_t k = 0; k < c->size; k++) empty_seat(&c->seats[k]);
    for (slot *s = c->idle, *next; s; s = next) {
        next = s->next;
        free(s);
    }
    for (uint32_t k = 0; c->carries && k < c->data.problem.shard_count; k++) free(c->carries[k]);
    skald_lane_fini(&c->lane);
    skald_pool_destroy(c->vectors);
    free(c->seats);
    free(c->lane_of);
    free(c->carries);
    free(c->rounded);
    free(c->model);
    skald_local_data_close(&c->data);
    free(c);
}

/* The model as it arrives at a worker: as floats if it travelled so. */
static const skald_version *arrived(skald_company *c, const skald_version *v, skald_version *copy) {
    if (!v || !c->floats || !v->narrow[0]) return v;
    *copy = (skald_version){.id = v->id, .commits = v->commits, .count = v->count, .dim = v->dim};
    for (uint32_t k = 0; k < v->count; k++) {
        double *to = c->model + (size_t)k * c->dim;
        for (uint32_t j = 0; c->model_id != v->id && j < v->dim; j++) to[j] = (double)v->narrow[k][j];
        copy->vectors[k] = to;
    }
    c->model_id = v->id;
    return copy;
}

/* What the wire does to a result: rounds it, and carries over what that takes from the history. */
static void travel(skald_company *c, slot *s) {
    skald_result *r = &s->result;
    if (!c->floats || r->status != SKALD_OK) return;
    if (r->kind == SKALD_TASK_ANCHOR) skald_uncarry(r, c->dim, c->data.problem.shard_count, c->carries);
    if (r->kind != SKALD_TASK_LOCAL || !skald_narrow(r, c->dim, &c->carries[r->shard], c->rounded)) return;
    skald_bytes *bytes = skald_pool_get(c->vectors); /* not in place: the chain goes on from what was not rounded */
    if (!bytes) {
        r->status = SKALD_ENOMEM;
        return;
    }
    double *to = (double *)(void *)skald_bytes_data(bytes);
    for (uint32_t k = 0; k < r->count; k++, to += c->dim) {
        const float *from = c->rounded + (size_t)k * c->dim;
        for (uint32_t j = 0; j < c->dim; j++) to[j] = (double)from[j];
        r->vectors[k] = to;
    }
    skald_bytes_unref(s->bytes);
    s->bytes = bytes;
}

uint32_t skald_company_lane(const skald_company *c, uint32_t shard) {
    return shard == SKALD_ALL_SHARDS ? 0 : c->lane_of[shard];
}

skald_status skald_company_run(skald_company *c, uint32_t worker, const skald_task *task, skald_result **out) {
    seat *at = &c->seats[worker];
    slot *s = c->idle;
    if (s)
        c->idle = s->next;
    else if (!(s = skald_alloc(1, sizeof *s)))
        return SKALD_ENOMEM;
    *s = (slot){0};
    const uint32_t count = skald_task_vectors(task);
    if (count && !(s->bytes = skald_pool_get(c->vectors))) {
        skald_company_release(c, &s->result);
        return SKALD_ENOMEM;
    }
    for (uint32_t k = 0; k < count; k++)
        s->result.vectors[k] = (double *)(void *)skald_bytes_data(s->bytes) + (size_t)k * c->dim;
    skald_version copy;
    skald_task t = *task;
    t.model = (skald_version *)(uintptr_t)arrived(c, task->model, &copy);
    skald_chain *chain = &at->chains[skald_company_lane(c, t.shard)];
    skald_chain_run(chain, &at->view, &c->lane, &t, s->bytes, &s->result);
    travel(c, s);
    s->result.worker = worker;
    *out = &s->result;
    return SKALD_OK;
}

void skald_company_release(skald_company *c, skald_result *result) {
    slot *s = (slot *)(void *)((char *)result - offsetof(slot, result));
    skald_bytes_unref(s->bytes);
    s->bytes = NULL;
    skald_rows_free(&result->sample);
    s->next = c->idle;
    c->idle = s;
}

skald_status skald_company_deal(uint32_t shards, skald_member *members, uint32_t count) {
    uint32_t **lists = skald_zalloc(count, sizeof(uint32_t *));
    for (uint32_t k = 0; lists && k < count; k++) {
        members[k].shard_count = 0;
        members[k].shards = lists[k] = skald_zalloc(shards, sizeof(uint32_t));
        if (!lists[k]) {
            free(lists);
            return SKALD_ENOMEM;
        }
    }
    if (!lists) return SKALD_ENOMEM;
    for (uint32_t i = 0; i < shards; i++) {
        uint32_t who = i < count ? i : 0;
        for (uint32_t k = 1; i >= count && k < count; k++)
            if ((uint64_t)(members[k].shard_count + 1) * members[who].slots <
                (uint64_t)(members[who].shard_count + 1) * members[k].slots)
                who = k;
        lists[who][members[who].shard_count++] = i;
    }
    free(lists);
    return SKALD_OK;
}

/* ---- crews ---------------------------------------------------------------------------------------------- */

static skald_company *of(const skald_crew *crew) {
    return ((const skald_company_crew *)crew)->company;
}

uint32_t skald_company_crew_size(const skald_crew *crew) {
    return skald_company_size(of(crew));
}

const skald_member *skald_company_crew_member(const skald_crew *crew, uint32_t worker) {
    return skald_company_member(of(crew), worker);
}

void skald_company_crew_release(skald_crew *crew, skald_result *result) {
    skald_company_release(of(crew), result);
}

void skald_company_crew_answer(skald_crew *crew, void *asker, const char *json, skald_version *model) {}

void skald_company_crew_destroy(skald_crew *crew, skald_status code, const char *reason) {}

int64_t skald_company_crew_now(skald_clock *clock) {
    return ((const skald_company_crew *)(void *)((char *)clock - offsetof(skald_company_crew, clock)))->now_ns;
}
