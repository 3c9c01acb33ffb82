/* The run's state, out of it and into it. What is copied at once is a few vectors; the anchors follow, a shard a commit
 * and each before it changes, so that no commit waits for more than a merge does. */
#include "skald/checkpoint.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "engine/run.h"

static const uint64_t PUBLISHED_SINCE = (uint64_t)1 << 32; /* a checkpoint: fewer than that */

/* Whatever the shards are: of all blocks, in any order. */
static uint64_t hash_data(const skald_problem *p) {
    uint64_t hash = 0;
    for (uint32_t k = 0; k < p->shard_count; k++)
        for (uint64_t b = 0; b < p->shards[k].block_count; b++) {
            const skald_block *block = &p->blocks[p->shards[k].block_begin + b];
            hash += skald_mix64(block->hash ^ skald_mix64(block->first_row ^ skald_mix64(block->rows)));
        }
    return hash;
}

static double sum_of(const double *x, uint32_t n) {
    double sum = 0;
    for (uint32_t j = 0; x && j < n; j++) sum += x[j];
    return sum;
}

static void identify(const skald_run *run, skald_checkpoint *c) {
    const skald_problem *p = run->problem;
    snprintf(c->algo, sizeof c->algo, "%s", skald_algo_name(run->options->algo));
    snprintf(c->loss, sizeof c->loss, "%s", skald_loss_name(p->objective.loss));
    c->classes = skald_objective_classes(&p->objective);
    c->intercept = p->objective.intercept;
    c->rows = (uint64_t)p->n;
    c->length = skald_problem_length(p);
    c->seed = p->seed;
    c->data = run->data;
    c->huber_delta = p->objective.huber_delta;
    c->l2 = p->objective.l2;
    c->l1 = p->objective.l1;
    c->nonconvex = p->objective.nonconvex;
    c->weight_scale = p->weight_scale;
    c->shift = sum_of(p->transform.shift, p->features);
    c->scale = sum_of(p->transform.scale, p->features);
    c->L = p->L;
}

static uint64_t part_count(const skald_run *run) {
    return run->parts.parts ? (uint64_t)run->parts.shards * SKALD_SHARD_PARTS : 0;
}

skald_status skald_checkpoint_init(skald_run *run) {
    if (!run->options->checkpointer && !run->options->resume) return SKALD_OK;
    run->data = hash_data(run->problem);
    if (!run->options->checkpointer || !run->crew->manifest) return SKALD_OK;
    uint8_t *packed = NULL;
    size_t size = 0;
    TRY(skald_manifest_pack(run->crew->manifest, &packed, &size));
    skald_checkpointer_manifest(run->options->checkpointer, packed, size);
    return SKALD_OK;
}

/* ---- out ------------------------------------------------------------------------------------------- */

static int by_number(const void *a, const void *b) {
    const uint64_t x = (*(skald_version *const *)a)->id, y = (*(skald_version *const *)b)->id;
    return (x > y) - (x < y);
}

static void let_go(skald_run *run) {
    while (run->models.done < run->models.count) skald_version_unref(run->models.held[run->models.done++]);
}

void skald_checkpoint_fini(skald_run *run) {
    let_go(run);
    free(run->models.held);
}

static bool make_room(skald_run *run) {
    const uint64_t wanted = part_count(run) + run->flight_count;
    if (wanted <= run->models.room) return true;
    skald_version **more = realloc(run->models.held, 2 * wanted * sizeof *more);
    if (more) run->models.held = more, run->models.room = 2 * wanted;
    return more;
}

/* The models that parts are at, and will be when the tasks in flight are done, each once: they do not change while they
 * are held. None while history is put right: it is then at others than the parts say. */
static void hold_models(skald_run *run) {
    uint32_t all = 0, once = 0;
    let_go(run);
    run->models.count = run->models.done = 0;
    if (!run->parts.seen || run->unsettled || !make_room(run)) return;
    skald_version **held = run->models.held;
    for (uint64_t k = 0; k < part_count(run); k++)
        if (run->parts.parts[k].at) held[all++] = run->parts.parts[k].at;
    for (uint32_t f = 0; f < run->flight_count; f++)
        if (run->flights[f].model) held[all++] = run->flights[f].model;
    qsort(held, all, sizeof *held, by_number);
    for (uint32_t k = 0; k < all; k++)
        if (!once || held[k] != held[once - 1]) held[once++] = skald_version_ref(held[k]);
    run->models.count = once;
}

/* At least so many more of them; true when all are there. */
static bool copy_models(skald_run *run, uint32_t most) {
    const size_t length = run->ledger.dim;
    for (; most && run->models.done < run->models.count; most--) {
        skald_version *v = run->models.held[run->models.done];
        memcpy(run->models.to + run->models.done++ * length, v->vectors[0], length * sizeof(double));
        skald_version_unref(v);
    }
    return run->models.done == run->models.count;
}

static void copy_parts(skald_run *run, skald_checkpoint *c) {
    run->models.to = c->models;
    for (uint64_t k = 0; k < c->version_count; k++)
        c->versions[k] = (skald_checkpoint_version){run->models.held[k]->id, run->models.held[k]->commits};
    for (uint64_t k = 0; k < c->part_count; k++) {
        const skald_parts_item *one = &run->parts.parts[k];
        c->parts[k] = (skald_checkpoint_part){one->at ? one->at->id : 0, one->loss};
    }
    _Static_assert((int)SKALD_CHECKPOINT_NUMBERS == (int)SKALD_SOLVER_NUMBERS, "all of them are kept");
    memcpy(c->solver, run->engine.numbers, sizeof c->solver);
}

/* What changes with every commit; the anchors and the parts' models follow. */
static void copy_state(const skald_run *run, skald_checkpoint *c) {
    const skald_watch *w = &run->watch;
    const skald_evaluation *last = &run->last;
    const size_t bytes = (size_t)c->length * sizeof(double);
    identify(run, c);
    c->commits = run->commits, c->updates = run->updates, c->merged = run->merged, c->refused = run->refused;
    c->next_task = run->next_task, c->next_version = skald_versions_number(run->versions);
    c->generation = run->generation, c->rollbacks = run->rollbacks, c->full_gradients = run->epoch;
    c->applied = run->applied, c->scaled = run->scaled, c->folded = run->folded, c->rejected = run->rejected;
    c->staleness_sum = run->staleness_sum, c->staleness_max = run->staleness_max;
    c->evaluations = run->evaluations, c->evaluated_rows = run->evaluator.rows;
    c->passes = run->engine.passes, c->processed = run->rows;
    c->seconds = (double)skald_run_now(run) * 1e-9, c->paused_seconds = (double)run->paused_ns * 1e-9;
    c->backoff = run->engine.backoff, c->step = run->step_used;
    c->mass = run->ledger.mass, c->steps = run->ledger.steps;
    c->window_loss = w->window_loss, c->window_rows = w->window_rows, c->window_begin = w->window_begin;
    c->estimate = w->estimate, c->best = w->best, c->k = w->k, c->k2 = w->k2, c->failures = w->failures;
    c->sum_count = w->sum_count, c->average_begin = w->average_begin, c->has_average = w->has_average;
    /* an evaluation that is under way will be begun again */
    c->last_passes = skald_evaluator_active(&run->evaluator) ? last->passes : run->last_eval_passes;
    c->estimate_checked = run->estimate_checked, c->eval_estimate = run->eval_estimate;
    c->calibration = run->calibration, c->bound = run->bound, c->drift = run->audit_drift;
    c->objective = last->objective, c->gap = last->gap, c->relative_gap = last->relative_gap;
    c->gradient_norm = last->gradient_norm, c->accuracy = last->accuracy, c->eval_passes = last->passes;
    c->eval_seconds = last->seconds, c->eval_train_seconds = last->train_seconds;
    c->eval_commits = last->commits, c->eval_updates = last->updates;
    memcpy(c->w, run->work.w, bytes);
    memcpy(c->good, w->good, bytes);
    memcpy(c->candidate, w->candidate, bytes);
    memcpy(c->sum, w->sum, bytes);
    memcpy(c->average, w->average, bytes);
    for (uint32_t k = 0; k < run->ledger.count; k++) {
        const skald_ledger_entry *e = &run->ledger.entries[k];
        c->shards[k] = (skald_checkpoint_shard){.rows = e->rows,
                                                .checksum = run->problem->shards[k].checksum,
                                                .position = e->position,
                                                .visits = e->visits,
                                                .mass = e->mass};
    }
}

static bool begin_copy(skald_run *run) {
    hold_models(run);
    const uint32_t models = run->models.count;
    skald_checkpoint *c = skald_checkpointer_begin(run->options->checkpointer, run->ledger.dim, run->ledger.count,
                                                   run->ledger.anchors != NULL, models ? part_count(run) : 0, models);
    if (!c) {
        let_go(run);
        return false;
    }
    copy_state(run, c);
    copy_parts(run, c);
    skald_ledger_copy_begin(&run->ledger, c->anchors);
    return true;
}

void skald_checkpoint_tend(skald_run *run) {
    skald_checkpointer *keeper = run->options->checkpointer;
    if (!keeper) return;
    if (!run->copying && skald_checkpointer_due(keeper, skald_run_now(run), run->engine.passes))
        run->copying = begin_copy(run);
    /* the first one at once: until it is written a death of the coordinator ends the run */
    const bool at_once = run->commits <= 1;
    const bool anchors = run->copying && skald_ledger_copy(&run->ledger, at_once ? run->ledger.count : 1);
    if (run->copying && copy_models(run, at_once ? UINT32_MAX : 1) && anchors) {
        skald_checkpointer_give(keeper);
        run->copying = false;
    }
    char text[900];
    if (skald_checkpointer_news(keeper, text, sizeof text)) skald_run_notice(run, "%s", text);
}

void skald_checkpoint_last(skald_run *run) {
    if (!run->options->checkpointer || !run->work.w) return;
    run->copying = false; /* what was being copied is older */
    if (!begin_copy(run)) return;
    skald_ledger_copy(&run->ledger, run->ledger.count);
    copy_models(run, UINT32_MAX);
    skald_checkpointer_give(run->options->checkpointer);
}

/* ---- in -------------------------------------------------------------------------------------------- */

static skald_status other(const skald_run *run, const char *what, double there, double here) {
    return skald_fail(SKALD_EMODEL, "%s: a checkpoint of another problem: %s %.17g there, %.17g here",
                      run->options->resume_path, what, there, here);
}

static bool near(double a, double b) { /* sums that may have been added up in another order */
    return fabs(a - b) <= 1e-9 * (fabs(a) + fabs(b));
}

static skald_status check(const skald_run *run, const skald_checkpoint *c) {
    const char *path = run->options->resume_path;
    skald_checkpoint now = {0};
    identify(run, &now);
    if (c->rows != now.rows) return other(run, "rows of data", (double)c->rows, (double)now.rows);
    if (c->data != now.data)
        return skald_fail(SKALD_EMODEL, "%s: a checkpoint of other data, though of as many rows", path);
    if (strcmp(c->algo, now.algo) != 0)
        return skald_fail(SKALD_EMODEL, "%s: a checkpoint of another run: --algo %s there, %s here", path, c->algo,
                          now.algo);
    if (strcmp(c->loss, now.loss) != 0)
        return skald_fail(SKALD_EMODEL, "%s: a checkpoint of another problem: --loss %s there, %s here", path, c->loss,
                          now.loss);
    if (c->l2 != now.l2) return other(run, "--l2", c->l2, now.l2);
    if (c->l1 != now.l1) return other(run, "--l1", c->l1, now.l1);
    if (c->nonconvex != now.nonconvex) return other(run, "--nonconvex", c->nonconvex, now.nonconvex);
    if (c->huber_delta != now.huber_delta) return other(run, "--huber-delta", c->huber_delta, now.huber_delta);
    if (c->intercept != now.intercept) return other(run, "--intercept", (double)c->intercept, (double)now.intercept);
    if (c->classes != now.classes) return other(run, "classes", (double)c->classes, (double)now.classes);
    if (c->length != now.length) return other(run, "entries of the model", (double)c->length, (double)now.length);
    if (!near(c->weight_scale, now.weight_scale)) return other(run, "weights", c->weight_scale, now.weight_scale);
    if (!near(c->shift, now.shift)) return other(run, "--scale", c->shift, now.shift);
    if (!near(c->scale, now.scale)) return other(run, "--scale", c->scale, now.scale);
    if (run->history && !c->anchors) return skald_fail(SKALD_EMODEL, "%s: it has no history", path);
    if (c->part_count && c->part_count != c->shard_count * SKALD_SHARD_PARTS)
        return skald_fail(SKALD_EMODEL, "%s: %llu shards in %llu parts, not in %d each", path,
                          (unsigned long long)c->shard_count, (unsigned long long)c->part_count, SKALD_SHARD_PARTS);
    return SKALD_OK;
}

static bool same_shards(const skald_run *run, const skald_checkpoint *c) {
    bool same = c->shard_count == run->ledger.count;
    for (uint32_t k = 0; same && k < run->ledger.count; k++)
        same = c->shards[k].checksum == run->problem->shards[k].checksum &&
               c->shards[k].rows == run->ledger.entries[k].rows;
    return same;
}

/* Each shard as it was. Or they have been dealt anew: then each has its share of all, which keeps the sum, and so abar,
 * and is put right as the tables are rebuilt; in between abar is of some rows twice and of others not at all. */
static void take_shards(skald_run *run, const skald_checkpoint *c, bool same, bool parts) {
    skald_ledger *l = &run->ledger;
    const bool *kept = run->crew->legacy ? run->crew->legacy->kept : NULL;
    double drawn = 0;
    for (uint64_t k = 0; k < c->shard_count; k++) drawn += (double)c->shards[k].position / run->problem->n;
    if (run->history && !same) {
        double *restrict all = run->history_sum;
        memset(all, 0, l->dim * sizeof(double));
        for (uint64_t k = 0; k < c->shard_count; k++)
            for (uint32_t j = 0; j < l->dim; j++) all[j] += c->anchors[k * l->dim + j];
    }
    for (uint32_t k = 0; k < l->count; k++) {
        skald_ledger_entry *e = &l->entries[k];
        const double share = (double)e->rows / l->n;
        e->position = same ? c->shards[k].position : (uint64_t)(drawn * (double)e->rows);
        e->visits = same ? c->shards[k].visits : 0;
        e->mass = same ? c->shards[k].mass : c->mass * share;
        if (!run->history) continue;
        if (same) memcpy(e->anchor, c->anchors + (size_t)k * l->dim, l->dim * sizeof(double));
        for (uint32_t j = 0; !same && j < l->dim; j++) e->anchor[j] = share * run->history_sum[j];
        e->suspect = kept && kept[k]; /* its holder's table has gone on: A_k is taken from it */
        e->rebuild = !e->suspect;
        /* nobody knows any more at which models the parts are: no step before all are at the one resumed */
        const bool lost = run->parts.parts && !parts;
        e->refresh = lost && e->suspect;
        run->unsettled |= e->suspect || lost;
    }
    l->mass = c->mass;
    l->steps = c->steps;
}

static skald_status know_model(skald_run *run, uint64_t number, uint64_t commits, const double *w) {
    skald_version *v = skald_versions_blank(run->versions, number, 1);
    if (!v) return SKALD_ENOMEM;
    v->commits = commits;
    memcpy(skald_version_data(v, 0), w, run->ledger.dim * sizeof(double));
    return skald_parts_know(&run->parts, v);
}

/* Has the checkpoint the points that its history belongs to? After a rollback they are of a bad model; of shards or
 * parts dealt otherwise they are no use. */
static bool has_parts(const skald_run *run, const skald_checkpoint *c, bool same) {
    return run->parts.parts && c->part_count && same && c->seed == run->problem->seed && c->failures == 0;
}

/* Parts are where the checkpoint has them: so they belong to its A_k. What the tables that live on have taken since
 * shows as these tell (skald_parts_recall); the newest model, at least, is here for that. */
static skald_status take_parts(skald_run *run, const skald_checkpoint *c) {
    const skald_legacy *legacy = run->crew->legacy;
    const bool newer = legacy && legacy->w;
    const size_t length = run->ledger.dim;
    for (uint64_t k = 0; k < c->version_count; k++)
        TRY(know_model(run, c->versions[k].number, c->versions[k].commits, c->models + k * length));
    if (newer) TRY(know_model(run, legacy->number, legacy->commits, legacy->w));
    for (uint64_t k = 0; k < c->part_count; k++)
        skald_parts_resume(&run->parts, (uint32_t)(k / SKALD_SHARD_PARTS), k % SKALD_SHARD_PARTS,
                           (skald_part_taken){c->parts[k].version, c->parts[k].loss});
    run->start_wbar = skald_zalloc(length, sizeof(double));
    if (!run->start_wbar) return SKALD_ENOMEM;
    for (uint32_t k = 0; k < run->ledger.count; k++)
        skald_parts_add(&run->parts, k, 1 / run->problem->n, run->ledger.dim, run->start_wbar);
    run->engine.start_wbar = run->start_wbar;
    run->engine.seen = run->parts.seen;
    /* the model itself: parts that are at it are where rounds want them */
    skald_version *last = run->parts.known_count ? run->parts.known[run->parts.known_count - 1] : NULL;
    const bool current = last && last->commits == (newer ? legacy->commits : c->commits) &&
                         memcmp(last->vectors[0], run->start_w, length * sizeof(double)) == 0;
    if (current) run->current = skald_version_ref(last);
    run->engine.fresh = skald_parts_fresh(&run->parts, run->current);
    return SKALD_OK;
}

static skald_status take_vectors(skald_run *run, const skald_checkpoint *c) {
    const uint32_t dim = run->ledger.dim;
    const size_t bytes = dim * sizeof(double);
    skald_watch *w = &run->watch;
    run->start_w = skald_alloc(dim, sizeof(double));
    run->start_abar = skald_zalloc(dim, sizeof(double));
    if (!run->start_w || !run->start_abar) return SKALD_ENOMEM;
    const skald_legacy *legacy = run->crew->legacy;
    memcpy(run->start_w, legacy && legacy->w ? legacy->w : c->w, bytes);
    for (uint32_t k = 0; run->history && k < run->ledger.count; k++)
        for (uint32_t j = 0; j < dim; j++) run->start_abar[j] += run->ledger.entries[k].anchor[j];
    for (uint32_t j = 0; j < dim; j++) run->start_abar[j] /= run->problem->n;
    run->engine.start_w = run->start_w;
    run->engine.start_abar = run->history ? run->start_abar : NULL;
    run->work.w = run->start_w; /* until the solver has its own */
    TRY(skald_watch_init(run));
    memcpy(w->good, c->good, bytes);
    memcpy(w->candidate, c->candidate, bytes);
    memcpy(w->sum, c->sum, bytes);
    memcpy(w->average, c->average, bytes);
    return SKALD_OK;
}

/* The workers may be further than the checkpoint. Numbers of versions are never given twice: tables may be at them. */
static void take_legacy(skald_run *run) {
    const skald_legacy *l = run->crew->legacy;
    const bool newer = l && l->w;
    if (l && l->version > skald_versions_number(run->versions)) skald_versions_go_on(run->versions, l->version);
    if (newer) run->commits = run->engine.commits = l->commits;
    run->resumed_version = run->commits;
    skald_run_notice(run, "resumed at version %llu (from %s%s)", (unsigned long long)run->commits,
                     newer ? "worker " : "the checkpoint", newer ? l->name : "");
}

static const char *state_of_history(const skald_run *run) {
    bool rebuilt = false, kept = false;
    for (uint32_t k = 0; k < run->ledger.count; k++)
        rebuilt |= run->ledger.entries[k].rebuild, kept |= run->ledger.entries[k].suspect;
    return !run->history ? ""
           : !kept       ? "; the history is rebuilt"
           : rebuilt     ? "; the history is the workers', the rest is rebuilt"
                         : "; the history is the workers'";
}

skald_status skald_checkpoint_resume(skald_run *run) {
    const skald_checkpoint *c = run->options->resume;
    skald_watch *w = &run->watch;
    TRY(check(run, c));
    const bool same = same_shards(run, c), parts = has_parts(run, c, same);
    ((skald_problem *)run->problem)->L = c->L;                   /* the crew's: measured once */
    run->unsettled = run->history && (!same || c->failures > 0); /* failures: A_k may be of a bad model */
    take_shards(run, c, same, parts);
    TRY(take_vectors(run, c));
    if (parts) TRY(take_parts(run, c));
    memcpy(run->engine.numbers, c->solver, sizeof c->solver);
    run->commits = run->engine.commits = c->commits, run->updates = c->updates, run->merged = c->merged,
    run->refused = c->refused;
    run->next_task = c->next_task;
    /* parts: a table may be at a model that was published since, by a coordinator nobody here remembers */
    skald_versions_go_on(run->versions, c->next_version + (run->parts.parts ? PUBLISHED_SINCE : 0));
    take_legacy(run);
    run->generation = run->engine.generation = (uint32_t)c->generation;
    run->rollbacks = c->rollbacks, run->epoch = (uint32_t)c->full_gradients;
    run->applied = c->applied, run->scaled = c->scaled, run->folded = c->folded, run->rejected = c->rejected;
    run->staleness_sum = c->staleness_sum, run->staleness_max = c->staleness_max;
    run->evaluations = c->evaluations, run->evaluator.rows = c->evaluated_rows;
    run->rows = run->progress_rows = c->processed;
    run->engine.passes = skald_run_passes(run);
    run->begin_ns -= (int64_t)(c->seconds * 1e9), run->paused_ns = (int64_t)(c->paused_seconds * 1e9);
    run->progress_ns = skald_run_now(run), run->progress_updates = run->updates;
    run->engine.backoff = c->backoff, run->step_used = c->step;
    w->window_loss = c->window_loss, w->window_rows = c->window_rows, w->window_begin = c->window_begin;
    w->estimate = c->estimate, w->best = c->best, w->k = c->k, w->k2 = c->k2, w->failures = (uint32_t)c->failures;
    w->sum_count = c->sum_count, w->average_begin = c->average_begin, w->has_average = c->has_average != 0;
    run->engine.smoothness = w->k > 0 ? w->k2 / w->k : 0;
    run->last_eval_passes = c->last_passes, run->estimate_checked = c->estimate_checked;
    run->eval_estimate = c->eval_estimate, run->calibration = c->calibration, run->bound = c->bound;
    run->audit_drift = c->drift;
    run->last = (skald_evaluation){.passes = c->eval_passes,
                                   .seconds = c->eval_seconds,
                                   .train_seconds = c->eval_train_seconds,
                                   .commits = c->eval_commits,
                                   .updates = c->eval_updates,
                                   .objective = c->objective,
                                   .gap = c->gap,
                                   .relative_gap = c->relative_gap,
                                   .gradient_norm = c->gradient_norm,
                                   .accuracy = c->accuracy};
    skald_run_notice(run, "going on with run %s after %.1f passes, %llu updates%s%s", c->run, run->engine.passes,
                     (unsigned long long)run->updates, same ? "" : "; the data are dealt in other shards",
                     state_of_history(run));
    return SKALD_OK;
}
