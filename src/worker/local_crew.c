/* The local crew: one member, this process. Tasks run in order when the next event is asked for. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "skald/worker.h"
#include "worker/local_data.h"

typedef struct local_crew {
    skald_crew crew;
    skald_local_data data;
    skald_member member;
    uint32_t *shards;
    skald_lane lane;
    bool has_task;
    skald_task task;
    skald_result result;
    double *vectors;
} local_crew;

static uint32_t size(const skald_crew *crew) {
    return 1;
}

static const skald_member *member(const skald_crew *crew, uint32_t worker) {
    return &((const local_crew *)crew)->member;
}

static skald_status submit(skald_crew *crew, uint32_t worker, const skald_task *task) {
    local_crew *c = (local_crew *)crew;
    if (c->has_task) return skald_fail(SKALD_EINTERNAL, "the local crew has one slot");
    c->task = *task;
    skald_task_ref(&c->task);
    c->has_task = true;
    return SKALD_OK;
}

static skald_status next(skald_crew *crew, int64_t timeout_ns, skald_event *event) {
    local_crew *c = (local_crew *)crew;
    memset(event, 0, sizeof *event);
    if (!c->has_task) return SKALD_OK;
    skald_result *r = &c->result;
    memset(r, 0, sizeof *r);
    for (uint32_t k = 0; k < SKALD_MAX_POINTS; k++)
        r->vectors[k] = c->vectors + (size_t)k * skald_problem_length(&c->data.problem);
    skald_runner_run(&c->data.runner, &c->lane, &c->task, r);
    r->arrived_ns = skald_now_ns(skald_clock_system());
    skald_task_unref(&c->task);
    c->has_task = false;
    event->kind = SKALD_EVENT_RESULT;
    event->result = r;
    return SKALD_OK;
}

static void release(skald_crew *crew, skald_result *result) {
    skald_rows_free(&result->sample);
}

static void answer(skald_crew *crew, void *asker, const char *json, skald_version *model) {}

static void destroy(skald_crew *crew, skald_status code, const char *reason) {
    local_crew *c = (local_crew *)crew;
    if (c->has_task) skald_task_unref(&c->task);
    skald_rows_free(&c->result.sample);
    skald_lane_fini(&c->lane);
    skald_local_data_close(&c->data);
    free(c->shards);
    free(c->vectors);
    free(c);
}

static const skald_crew_ops ops = {size, member, submit, next, release, answer, destroy, NULL};

skald_status skald_crew_local_open(const skald_data_options *data, const skald_objective *objective,
                                   const skald_compute_options *compute, skald_crew **out) {
    local_crew *c = skald_zalloc(1, sizeof *c);
    if (!c) return SKALD_ENOMEM;
    skald_problem *p = &c->data.problem;
    skald_status st;
    TRY_GOTO(st, skald_local_data_open(data, objective, compute, 1, 1, &c->data), out);
    c->shards = skald_zalloc(p->shard_count, sizeof *c->shards);
    c->vectors = skald_zalloc(SKALD_MAX_POINTS * (size_t)skald_problem_length(p), sizeof *c->vectors);
    st = SKALD_ENOMEM;
    if (!c->shards || !c->vectors) goto out;
    TRY_GOTO(st, skald_lane_init(&c->lane, &c->data.runner), out);
    for (uint32_t k = 0; k < p->shard_count; k++) {
        c->shards[k] = k;
        c->member.rows += p->shards[k].rows;
    }
    snprintf(c->member.name, sizeof c->member.name, "this process");
    snprintf(c->member.device, sizeof c->member.device, "%s", c->data.runner.compute->device);
    c->member.slots = c->member.depth = 1;
    c->member.shards = c->shards;
    c->member.shard_count = p->shard_count;
    c->crew.ops = &ops;
    c->crew.here = true;
    c->crew.problem = p;
out:
    if (st == SKALD_OK)
        *out = &c->crew;
    else
        destroy(&c->crew, st, NULL);
    return st;
}
