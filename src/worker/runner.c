#include "worker/runner.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"

skald_status skald_runner_init(skald_runner *r, const skald_compute_options *options, const skald_objective *objective,
                               uint32_t columns, uint64_t seed, uint32_t shard_count) {
    memset(r, 0, sizeof *r);
    const uint64_t length = skald_objective_length(objective, columns);
    if (length > UINT32_MAX) return skald_fail(SKALD_EINVAL, "a model of %llu entries", (unsigned long long)length);
    r->dim = (uint32_t)length;
    r->seed = seed;
    r->shard_count = shard_count;
    r->shards = skald_zalloc(shard_count, sizeof(skald_shard *));
    r->histories = skald_zalloc(shard_count, sizeof(skald_history *));
    r->parts = skald_zalloc((size_t)shard_count * SKALD_SHARD_PARTS, sizeof *r->parts);
    if (!r->shards || !r->histories || !r->parts) return SKALD_ENOMEM;
    TRY(skald_compute_open(options, objective, columns, &r->compute));
    r->compute->shards = shard_count;
    skald_runner_to_host(r);
    return SKALD_OK;
}

void skald_runner_to_host(skald_runner *r) {
    skald_vectors_host(&r->vectors, r->dim);
    r->vectors.classes = skald_objective_classes(&r->compute->objective);
    r->vectors.columns = r->compute->dim;
}

skald_status skald_runner_to_device(skald_runner *r) {
    return r->compute->ops->vectors ? r->compute->ops->vectors(r->compute, &r->vectors) : SKALD_OK;
}

skald_status skald_runner_add(skald_runner *r, uint32_t shard, skald_rows *rows) {
    if (shard >= r->shard_count || r->shards[shard])
        return skald_fail(SKALD_EINVAL, "shard %u is out of range or held already", shard);
    r->max_rows = skald_max_size(r->max_rows, rows->n);
    return r->compute->ops->load(r->compute, rows, &r->shards[shard]);
}

static skald_part_taken *parts_of(const skald_runner *r, uint32_t shard) {
    return r->parts + (size_t)shard * SKALD_SHARD_PARTS;
}

void skald_runner_drop(skald_runner *r, uint32_t shard) {
    if (shard >= r->shard_count || !r->shards[shard]) return;
    r->compute->ops->unload(r->compute, r->shards[shard]);
    r->shards[shard] = NULL;
    skald_history_free(r->histories[shard]);
    r->histories[shard] = NULL;
    memset(parts_of(r, shard), 0, SKALD_SHARD_PARTS * sizeof *r->parts);
}

void skald_runner_reseed(skald_runner *r, uint64_t seed) {
    for (size_t k = 0; seed != r->seed && k < (size_t)r->shard_count * SKALD_SHARD_PARTS; k++)
        if (r->parts[k].version) r->parts[k].version = SKALD_VERSION_UNKNOWN; /* they have other rows now */
    r->seed = seed;
}

void skald_runner_fini(skald_runner *r) {
    for (uint32_t k = 0; r->shards && k < r->shard_count; k++)
        if (r->shards[k]) r->compute->ops->unload(r->compute, r->shards[k]);
    for (uint32_t k = 0; r->histories && k < r->shard_count; k++) skald_history_free(r->histories[k]);
    free(r->shards);
    free(r->histories);
    free(r->parts);
    if (r->compute) r->compute->ops->destroy(r->compute);
    memset(r, 0, sizeof *r);
}

/* A shard may have come since, larger than any before. */
static skald_status fit(skald_lane *lane, size_t rows) {
    if (rows <= lane->room) return SKALD_OK;
    uint32_t *more = skald_alloc(rows, sizeof *more);
    if (!more) return SKALD_ENOMEM;
    free(lane->rows);
    lane->rows = more;
    lane->room = rows;
    return SKALD_OK;
}

skald_status skald_lane_init(skald_lane *lane, const skald_runner *runner) {
    lane->vectors = runner->vectors;
    lane->room = skald_max_size(runner->max_rows, 1);
    lane->rows = skald_alloc(lane->room, sizeof *lane->rows);
    skald_status st = lane->rows ? SKALD_OK : SKALD_ENOMEM;
    for (int p = 0; st == SKALD_OK && p < SKALD_MAX_POINTS; p++)
        st = lane->vectors.ops->create(&lane->vectors, &lane->partial[p]);
    if (st != SKALD_OK) skald_lane_fini(lane);
    return st;
}

void skald_lane_fini(skald_lane *lane) {
    free(lane->rows);
    for (int p = 0; p < SKALD_MAX_POINTS; p++)
        if (lane->partial[p]) lane->vectors.ops->destroy(&lane->vectors, lane->partial[p]);
    memset(lane, 0, sizeof *lane);
}

static uint32_t model_vectors(const skald_runner *r, const skald_task *t) {
    switch (t->kind) {
    case SKALD_TASK_LOCAL:
        return t->saga ? 2 : 1;
    case SKALD_TASK_OBJECTIVE:
        return t->points;
    case SKALD_TASK_SHIFT:
        return r->compute->objective.loss == SKALD_SOFTMAX ? t->points : 0;
    case SKALD_TASK_ANCHOR:
    case SKALD_TASK_SAMPLE:
        return 0;
    default:
        return 1;
    }
}

static bool over_all_shards(skald_task_kind kind) {
    return kind == SKALD_TASK_OBJECTIVE || kind == SKALD_TASK_SHIFT || kind == SKALD_TASK_CURVATURE ||
           kind == SKALD_TASK_ANCHOR;
}

static void add_sums(skald_sums *to, const skald_sums *from) {
    to->loss += from->loss;
    to->dphi += from->dphi;
    to->d2phi += from->d2phi;
    to->correct += from->correct;
    to->rows += from->rows;
}

static skald_status check(const skald_runner *r, const skald_task *t) {
    if (t->kind < SKALD_TASK_GRADIENT || t->kind > SKALD_TASK_SAMPLE)
        return skald_fail(SKALD_EPEER, "task of unknown kind %d", (int)t->kind);
    if (t->points > SKALD_MAX_POINTS) return skald_fail(SKALD_EPEER, "task with %u points", t->points);
    if ((t->kind == SKALD_TASK_OBJECTIVE || t->kind == SKALD_TASK_SHIFT) && t->points == 0)
        return skald_fail(SKALD_EPEER, "%s task without points", skald_task_kind_name(t->kind));
    const uint32_t needed = model_vectors(r, t);
    if (needed && (!t->model || t->model->count < needed || t->model->dim != r->dim))
        return skald_fail(SKALD_EPEER, "%s task needs %u model vectors of %u entries", skald_task_kind_name(t->kind),
                          needed, r->dim);
    if (t->kind == SKALD_TASK_DIFFERENCE && (!t->origin || t->origin->count < 1 || t->origin->dim != r->dim))
        return skald_fail(SKALD_EPEER, "difference task needs an origin of %u entries", r->dim);
    if (t->kind == SKALD_TASK_SHIFT && !needed && t->model) return skald_fail(SKALD_EPEER, "shift task with a model");
    if (t->shard == SKALD_ALL_SHARDS && over_all_shards(t->kind)) return SKALD_OK;
    if (t->shard >= r->shard_count || !r->shards[t->shard])
        return skald_fail(SKALD_EPEER, "task for shard %u, which is not leased to this worker", t->shard);
    if (t->by_part && t->position >= SKALD_SHARD_PARTS)
        return skald_fail(SKALD_EPEER, "task for part %llu of a shard", (unsigned long long)t->position);
    if (!over_all_shards(t->kind) && t->rows == 0) return skald_fail(SKALD_EPEER, "task without rows");
    return SKALD_OK;
}

/* Entries that the backend writes of a result's vectors; the rest are 0. */
static uint64_t entries(const skald_runner *r, skald_task_kind kind) {
    const skald_compute *c = r->compute;
    return kind == SKALD_TASK_CURVATURE ? c->dim
           : kind == SKALD_TASK_SHIFT   ? skald_objective_moments(&c->objective)
                                        : (uint64_t)c->dim * skald_objective_classes(&c->objective);
}

/* A saga task by version, or an anchor of such a history. */
static skald_status run_by_version(skald_runner *r, skald_lane *lane, const skald_task *t, uint32_t k, double *g,
                                   skald_sums *sums) {
    skald_compute *c = r->compute;
    skald_shard *s = r->shards[k];
    const skald_history_sum to = {g, lane->partial[1], entries(r, t->kind)};
    if (!r->histories[k]) TRY(skald_history_create(s->facts.rows, &r->histories[k]));
    if (t->kind == SKALD_TASK_ANCHOR) return skald_history_anchor(r->histories[k], c, s, &to);
    skald_batch batch = {lane->rows, 0};
    batch.count = t->before ? skald_history_before(r->histories[k], t->before, lane->rows)
                            : skald_draw(r->seed, k, s->facts.rows, t->position, t->rows, lane->rows);
    return skald_history_saga(r->histories[k], c, s, &batch, t->model, &to, sums);
}

static skald_status run_sample(skald_runner *r, skald_lane *lane, const skald_task *t, skald_rows *out,
                               skald_sums *sums) {
    skald_compute *c = r->compute;
    skald_shard *s = r->shards[t->shard];
    if (!c->ops->rows) return skald_fail(SKALD_EUNSUPPORTED, "rows of %s cannot be copied out", c->device);
    TRY(fit(lane, s->facts.rows));
    skald_batch batch = {lane->rows, 0};
    batch.count = skald_task_sample(r->seed, t->shard, s->facts.rows, t->position, t->rows, lane->rows);
    if (!batch.count)
        return skald_fail(SKALD_EPEER, "a sample from row %llu of %zu", (unsigned long long)t->position, s->facts.rows);
    sums[0].rows = (double)batch.count;
    return c->ops->rows(c, s, &batch, out);
}

/* One shard's part of a task; vectors overwritten, and to be taken *times times. */
static skald_status run_shard(skald_runner *r, skald_lane *lane, const skald_task *t, uint32_t k,
                              double *const *vectors, skald_sums *sums, double *times) {
    skald_compute *c = r->compute;
    skald_shard *s = r->shards[k];
    const double *const *w = t->model ? t->model->vectors : NULL;
    memset(sums, 0, SKALD_MAX_POINTS * sizeof *sums);
    *times = 1;
    TRY(fit(lane, s->facts.rows));
    switch (t->kind) {
    case SKALD_TASK_OBJECTIVE: {
        double *g[SKALD_MAX_POINTS] = {NULL};
        for (uint32_t p = 0; p < t->points && t->want_gradient; p++) g[p] = vectors[p];
        return c->ops->objective(c, s, t->points, w, g, t->keep_margins, sums);
    }
    case SKALD_TASK_SHIFT:
        if (!w) return c->ops->shift(c, s, t->points, t->shift, sums);
        if (!c->ops->shift_classes)
            return skald_fail(SKALD_EUNSUPPORTED, "intercepts of many classes on %s", c->device);
        return c->ops->shift_classes(c, s, t->points, w, vectors, sums);
    case SKALD_TASK_ANCHOR:
        if (r->histories[k]) return run_by_version(r, lane, t, k, vectors[0], sums);
        return c->ops->anchor(c, s, vectors[0]);
    case SKALD_TASK_CURVATURE: {
        size_t m = skald_min_size(t->rows, s->facts.rows);
        TRY(c->ops->curvature(c, s, m, w[0], vectors[0]));
        sums[0].rows = *times = (double)m; /* the port gives a mean; sums over shards need totals */
        return SKALD_OK;
    }
    case SKALD_TASK_SAGA:
        if (t->by_version) return run_by_version(r, lane, t, k, vectors[0], sums);
        break;
    default:
        break;
    }
    skald_batch batch = {lane->rows, 0};
    batch.count = t->by_part ? skald_task_part(r->seed, k, s->facts.rows, (uint32_t)t->position, lane->rows)
                             : skald_draw(r->seed, k, s->facts.rows, t->position, t->rows, lane->rows);
    if (!batch.count)
        return skald_fail(SKALD_EPEER, "rows from %llu on of a shard of %zu", (unsigned long long)t->position,
                          s->facts.rows);
    switch (t->kind) {
    case SKALD_TASK_GRADIENT:
        return c->ops->gradient(c, s, &batch, w[0], vectors[0], sums);
    case SKALD_TASK_SAGA:
        return c->ops->saga(c, s, &batch, w[0], vectors[0], sums);
    case SKALD_TASK_DIFFERENCE:
        return c->ops->difference(c, s, &batch, w[0], t->origin->vectors[0], vectors[0], sums);
    case SKALD_TASK_LOCAL: {
        skald_local local = {.saga = t->saga, .step_rows = t->step_rows, .eta = t->eta, .n = t->n};
        return c->ops->local(c, s, &batch, &local, w[0], t->saga ? w[1] : NULL, vectors[0], t->saga ? vectors[1] : NULL,
                             sums);
    }
    default:
        return skald_fail(SKALD_EINTERNAL, "task kind %d is not run", (int)t->kind);
    }
}

/* What a training task has done to the history of the shard's parts. */
static void note_parts(skald_runner *r, const skald_task *t, const skald_sums *sums) {
    skald_part_taken *parts = parts_of(r, t->shard);
    const size_t n = r->shards[t->shard]->facts.rows;
    const bool whole = t->kind == SKALD_TASK_SAGA && !t->by_version && sums->rows >= (double)n;
    if (t->by_part) {
        parts[t->position] = (skald_part_taken){t->model->id, sums->loss};
        return;
    }
    for (uint32_t q = 0; q < SKALD_SHARD_PARTS; q++) { /* of a loss over all, each has its share */
        const double share = (double)skald_task_part(r->seed, t->shard, n, q, NULL) / (double)n;
        parts[q] = (skald_part_taken){whole ? t->model->id : SKALD_VERSION_UNKNOWN, share * sums->loss};
    }
}

static skald_status run(skald_runner *r, skald_lane *lane, const skald_task *t, skald_result *out) {
    TRY(check(r, t));
    if (t->kind == SKALD_TASK_SAMPLE) return run_sample(r, lane, t, &out->sample, out->sums);
    skald_vectors *v = &r->vectors;
    const bool all = t->shard == SKALD_ALL_SHARDS, rest = entries(r, t->kind) < r->dim;
    double times;
    out->count = skald_task_vectors(t);
    for (uint32_t p = 0; (all || rest) && p < out->count; p++) v->ops->zero(v, out->vectors[p]);
    if (!all) {
        TRY(run_shard(r, lane, t, t->shard, out->vectors, out->sums, &times));
        if (times != 1) v->ops->combine(v, out->vectors[0], times, out->vectors[0], 0, NULL);
        return SKALD_OK;
    }
    for (uint32_t p = 0; rest && p < out->count; p++) v->ops->zero(v, lane->partial[p]);
    for (uint32_t k = 0; k < r->shard_count; k++) { /* in shard order: the sum's bits are fixed */
        if (!r->shards[k]) continue;
        skald_sums sums[SKALD_MAX_POINTS];
        TRY(run_shard(r, lane, t, k, lane->partial, sums, &times));
        for (uint32_t p = 0; p < SKALD_MAX_POINTS; p++) add_sums(&out->sums[p], &sums[p]);
        for (uint32_t p = 0; p < out->count; p++) v->ops->axpy(v, out->vectors[p], times, lane->partial[p]);
    }
    return SKALD_OK;
}

void skald_runner_run(skald_runner *r, skald_lane *lane, const skald_task *t, skald_result *out) {
    int64_t start = skald_now_ns(skald_clock_system());
    memset(out->sums, 0, sizeof out->sums);
    out->task = t->id;
    out->kind = t->kind;
    out->shard = t->shard;
    out->oldest = 0;
    out->status = run(r, lane, t, out);
    if (out->status == SKALD_OK && t->shard < r->shard_count) {
        if (r->histories[t->shard]) out->oldest = skald_history_oldest(r->histories[t->shard]);
        if (t->kind == SKALD_TASK_SAGA || (t->kind == SKALD_TASK_LOCAL && t->saga)) note_parts(r, t, out->sums);
        if (t->kind == SKALD_TASK_ANCHOR) memcpy(out->parts, parts_of(r, t->shard), sizeof out->parts);
    }
    out->rows = out->status == SKALD_OK ? (uint32_t)out->sums[0].rows : 0;
    out->error[0] = 0;
    if (out->status != SKALD_OK) {
        out->count = 0;
        snprintf(out->error, sizeof out->error, "%s", skald_error());
    }
    out->compute_ns = skald_now_ns(skald_clock_system()) - start;
}
