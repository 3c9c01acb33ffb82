/* A crew of several members in this process, whose results come in a seeded order (each member's own in turn), and
 * whose tables a test can empty and read. */
#ifndef SKALD_TESTS_TROUPE_H
#define SKALD_TESTS_TROUPE_H

#include "harness.h"
#include "replay/company.h"

enum { TROUPE_WAITING = 256, TROUPE_SHARDS = 64 };

typedef struct troupe {
    skald_crew crew;
    skald_company *company;
    skald_compute *compute;
    skald_shard *shards[TROUPE_SHARDS]; /* the backend's */
    skald_history **histories;          /* the same, by version; NULL: by number, or none yet */
    skald_result *waiting[TROUPE_WAITING];
    uint32_t count;
    uint64_t draws, seed;
} troupe;

static uint32_t troupe_size(const skald_crew *crew) {
    return skald_company_size(((const troupe *)crew)->company);
}

static const skald_member *troupe_member(const skald_crew *crew, uint32_t worker) {
    return skald_company_member(((const troupe *)crew)->company, worker);
}

static skald_status troupe_submit(skald_crew *crew, uint32_t worker, const skald_task *task) {
    troupe *t = (troupe *)crew;
    assert_true(t->count < TROUPE_WAITING);
    skald_status st = skald_company_run(t->company, worker, task, &t->waiting[t->count]);
    if (st == SKALD_OK) t->count++;
    return st;
}

static skald_status troupe_next(skald_crew *crew, int64_t timeout_ns, skald_event *event) {
    troupe *t = (troupe *)crew;
    *event = (skald_event){0};
    if (!t->count) return SKALD_OK;
    const uint32_t drawn = (uint32_t)(skald_mix64(t->seed * 7919 + ++t->draws) % t->count);
    uint32_t first = 0; /* of the member whose turn it is */
    while (t->waiting[first]->worker != t->waiting[drawn]->worker) first++;
    event->kind = SKALD_EVENT_RESULT;
    event->result = t->waiting[first];
    event->result->arrived_ns = skald_now_ns(skald_clock_system());
    memmove(&t->waiting[first], &t->waiting[first + 1], (--t->count - first) * sizeof(skald_result *));
    return SKALD_OK;
}

static void troupe_release(skald_crew *crew, skald_result *result) {
    skald_company_release(((troupe *)crew)->company, result);
}

static void troupe_answer(skald_crew *crew, void *asker, const char *json, skald_version *model) {}

static void troupe_destroy(skald_crew *crew, skald_status code, const char *reason) {
    troupe *t = (troupe *)crew;
    while (t->count) troupe_release(crew, t->waiting[--t->count]);
    skald_company_free(t->company);
    free(t);
}

static troupe *troupe_open(const skald_data_options *data, const skald_objective *objective, uint32_t members,
                           uint64_t seed) {
    static const skald_crew_ops ops = {troupe_size,    troupe_member, troupe_submit,  troupe_next,
                                       troupe_release, troupe_answer, troupe_destroy, NULL};
    const skald_compute_options compute = {.device = "cpu", .threads = 1};
    troupe *t = calloc(1, sizeof *t);
    skald_local_data d;
    skald_member m[16];
    memset(m, 0, sizeof m);
    for (uint32_t k = 0; k < members; k++) {
        snprintf(m[k].name, sizeof m[k].name, "member-%u", k);
        m[k].slots = 1;
        m[k].depth = 2;
    }
    assert_int_equal(skald_local_data_open(data, objective, &compute, members, members, &d), SKALD_OK);
    assert_true(d.problem.shard_count <= TROUPE_SHARDS);
    t->compute = d.runner.compute;
    t->histories = d.runner.histories;
    memcpy(t->shards, d.runner.shards, d.problem.shard_count * sizeof *t->shards);
    assert_int_equal(skald_company_deal(d.problem.shard_count, m, members), SKALD_OK);
    assert_int_equal(skald_company_make(&d, m, members, members, false, &t->company), SKALD_OK);
    for (uint32_t k = 0; k < members; k++) free((void *)(uintptr_t)m[k].shards);
    t->crew.ops = &ops;
    t->crew.problem = skald_company_problem(t->company);
    t->seed = seed;
    return t;
}

/* What a lost holder's successor has: no history. */
__attribute__((unused)) static void troupe_empty(troupe *t, uint32_t shard) {
    skald_history_free(t->histories[shard]);
    t->histories[shard] = NULL;
    const size_t n = (size_t)t->crew.problem->shards[shard].rows * skald_objective_classes(&t->crew.problem->objective);
    float *zeros = calloc(n, sizeof *zeros);
    assert_int_equal(t->compute->ops->history_set(t->compute, t->shards[shard], zeros), SKALD_OK);
    free(zeros);
}

/* |A_k - sum s_i alpha_i x_i| / |A_k|, of a shard with nothing in flight. */
__attribute__((unused)) static double troupe_drift(troupe *t, uint32_t shard, const double *anchor) {
    const uint32_t dim = skald_problem_length(t->crew.problem);
    double *a = calloc(2 * dim, sizeof *a), difference = 0, norm = 0;
    const skald_history_sum to = {a, a + dim, dim};
    assert_int_equal(t->histories[shard] ? skald_history_anchor(t->histories[shard], t->compute, t->shards[shard], &to)
                                         : t->compute->ops->anchor(t->compute, t->shards[shard], a),
                     SKALD_OK);
    for (uint32_t j = 0; j < dim; j++) {
        difference += (a[j] - anchor[j]) * (a[j] - anchor[j]);
        norm += a[j] * a[j];
    }
    free(a);
    return norm > 0 ? sqrt(difference / norm) : sqrt(difference);
}

#endif
