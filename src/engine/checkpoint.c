/* The run's state, out of it and into it. What is copied at once is a few vectors; the anchors follow, a shard a commit
 * and each before it changes, so that no commit waits for more than a merge does. */
#include "skald/checkpoint.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "engine/run.h"

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

/* What changes with every commit; the anchors follow. */
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
    skald_checkpoint *c = skald_checkpointer_begin(run->options->checkpointer, run->ledger.dim, run->ledger.count,
                                                   run->ledger.anchors != NULL);
    if (!c) return false;
    copy_state(run, c);
    skald_ledger_copy_begin(&run->ledger, c->anchors);
    return true;
}

void skald_checkpoint_tend(skald_run *run) {
    skald_checkpointer *keeper = run->options->checkpointer;
    if (!keeper) return;
    if (!run->copying && skald_checkpointer_due(keeper, skald_run_now(run), run->engine.passes))
        run->copying = begin_copy(run);
    /* the first one at once: until it is written a death of the coordinator ends the run */
    if (run->copying && skald_ledger_copy(&run->ledger, run->commits > 1 ? 1 : run->ledger.count)) {
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
static void take_shards(skald_run *run, const skald_checkpoint *c, bool same) {
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
        /* parts: nobody knows any more at which models; no step before all are at the one resumed */
        e->refresh = run->parts.parts && e->suspect;
        run->unsettled |= e->suspect || run->parts.parts;
    }
    l->mass = c->mass;
    l->steps = c->steps;
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
    const bool same = same_shards(run, c);
    ((skald_problem *)run->problem)->L = c->L;                   /* the crew's: measured once */
    run->unsettled = run->history && (!same || c->failures > 0); /* failures: A_k may be of a bad model */
    take_shards(run, c, same);
    TRY(take_vectors(run, c));
    run->commits = run->engine.commits = c->commits, run->updates = c->updates, run->merged = c->merged,
    run->refused = c->refused;
    run->next_task = c->next_task;
    skald_versions_go_on(run->versions, c->next_version);
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
