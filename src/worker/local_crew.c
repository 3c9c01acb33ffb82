/* The local crew: one member, this process. Tasks run in order when the next event is asked for. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "skald/worker.h"
#include "worker/runner.h"

typedef struct local_crew {
    skald_crew crew;
    skald_problem problem;
    skald_member member;
    uint32_t *shards;
    skald_runner runner;
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
        r->vectors[k] = c->vectors + (size_t)k * skald_problem_length(&c->problem);
    skald_runner_run(&c->runner, &c->lane, &c->task, r);
    r->arrived_ns = skald_now_ns(skald_clock_system());
    skald_task_unref(&c->task);
    c->has_task = false;
    event->kind = SKALD_EVENT_RESULT;
    event->result = r;
    return SKALD_OK;
}

static void release(skald_crew *crew, skald_result *result) {}

static void answer(skald_crew *crew, void *asker, const char *json, skald_version *model) {}

static void destroy(skald_crew *crew, skald_status code, const char *reason) {
    local_crew *c = (local_crew *)crew;
    if (c->has_task) skald_task_unref(&c->task);
    skald_lane_fini(&c->lane);
    skald_runner_fini(&c->runner);
    skald_problem_free(&c->problem);
    free(c->shards);
    free(c->vectors);
    free(c);
}

static const skald_crew_ops ops = {size, member, submit, next, release, answer, destroy};

static skald_status read_shards(local_crew *c, skald_source *source, skald_rows *rows) {
    skald_problem *p = &c->problem;
    for (uint32_t k = 0; k < p->shard_count; k++) {
        uint64_t checksum;
        TRY(skald_source_read(source, p->blocks + p->shards[k].block_begin, p->shards[k].block_count, &p->transform,
                              &rows[k], &checksum));
        if (checksum != p->shards[k].checksum)
            return skald_fail(SKALD_EDATA, "the data file changed while it was read");
        skald_rows_facts(&rows[k], &p->shards[k].facts);
        c->shards[k] = k;
        c->member.rows += rows[k].n;
    }
    TRY(skald_problem_loaded(p));
    for (uint32_t k = 0; k < p->shard_count; k++) {
        skald_rows_rescale(&rows[k], p->weight_scale);
        TRY(skald_runner_add(&c->runner, k, &rows[k]));
    }
    return skald_lane_init(&c->lane, &c->runner);
}

skald_status skald_crew_local_open(const skald_data_options *data, const skald_objective *objective,
                                   const skald_compute_options *compute, skald_crew **out) {
    local_crew *c = skald_zalloc(1, sizeof *c);
    if (!c) return SKALD_ENOMEM;
    skald_source *source = NULL;
    skald_manifest manifest = {0};
    skald_rows *rows = NULL;
    skald_problem *p = &c->problem;
    skald_status st;
    TRY_GOTO(st, skald_source_open(data->path, &data->source, &source), out);
    TRY_GOTO(st, skald_source_scan(source, 0, skald_source_parts(source), &manifest), out);
    st = skald_manifest_finish(&manifest);
    if (st != SKALD_OK) {
        skald_context(st, "%s", data->path);
        goto out;
    }
    TRY_GOTO(st, skald_problem_make(&manifest, data, objective, 1, 1, p), out);
    rows = skald_zalloc(p->shard_count, sizeof *rows);
    c->shards = skald_zalloc(p->shard_count, sizeof *c->shards);
    c->vectors = skald_zalloc(SKALD_MAX_POINTS * (size_t)skald_problem_length(p), sizeof *c->vectors);
    st = SKALD_ENOMEM;
    if (!rows || !c->shards || !c->vectors) goto out;
    TRY_GOTO(st, skald_runner_init(&c->runner, compute, &p->objective, p->dim, p->seed, p->shard_count), out);
    TRY_GOTO(st, read_shards(c, source, rows), out);
    snprintf(c->member.name, sizeof c->member.name, "this process");
    snprintf(c->member.device, sizeof c->member.device, "%s", c->runner.compute->device);
    c->member.slots = c->member.depth = 1;
    c->member.shards = c->shards;
    c->member.shard_count = p->shard_count;
    c->crew.ops = &ops;
    c->crew.problem = p;
out:
    for (uint32_t k = 0; rows && k < p->shard_count; k++) skald_rows_free(&rows[k]);
    free(rows);
    skald_manifest_free(&manifest);
    skald_source_close(source);
    if (st == SKALD_OK)
        *out = &c->crew;
    else
        destroy(&c->crew, st, NULL);
    return st;
}
