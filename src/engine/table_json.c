/* The status table as JSON: what `skald status` is answered. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "engine/run.h"
#include "skald/checkpoint.h"

static json_t *number(double x) { /* JSON has no NaN or infinity */
    return isfinite(x) ? json_real(x) : json_null();
}

/* What is being trained: a client that fetches the model learns from here what it is for. */
static json_t *problem_json(const skald_problem *p) {
    json_t *labels = json_array();
    for (uint32_t k = 0; k < p->label_count; k++) json_array_append_new(labels, json_real(p->labels[k].value));
    return json_pack("{s:s,s:f,s:f,s:f,s:f,s:b,s:I,s:f,s:b,s:b,s:o}", "loss", skald_loss_name(p->objective.loss),
                     "huber_delta", p->objective.huber_delta, "l2", p->objective.l2, "l1", p->objective.l1, "nonconvex",
                     p->objective.nonconvex, "intercept", (int)p->objective.intercept, "features",
                     (json_int_t)p->features, "rows", p->n, "zero_based", (int)skald_problem_zero_based_text(p),
                     "scaled", (int)(p->transform.scale != NULL), "labels", labels);
}

char *skald_problem_json(const skald_problem *problem) {
    json_t *o = problem_json(problem);
    char *text = o ? json_dumps(o, JSON_COMPACT) : NULL;
    json_decref(o);
    return text;
}

static uint32_t available(const skald_run *run) {
    uint32_t count = 0;
    for (uint32_t k = 0; k < run->size; k++) {
        const skald_member *m = run->crew->ops->member(run->crew, k);
        count += run->members[k].alive && run->members[k].busy < skald_run_slots(m) * skald_run_depth(run, m);
    }
    return count;
}

static json_t *workers_json(const skald_run *run) {
    json_t *workers = json_array();
    skald_worker_row *rows = skald_zalloc(run->size, sizeof *rows);
    if (!rows) return workers;
    skald_table_rows(run, rows);
    for (uint32_t k = 0; k < run->size; k++) {
        const skald_worker_row *r = &rows[k];
        json_t *o = json_pack(
            "{s:s,s:s,s:b,s:s,s:i,s:i,s:I,s:I,s:I,s:I,s:f,s:I,s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:s,s:I,s:I,s:I,s:I,s:I}",
            "name", r->name, "device", r->device, "alive", (int)r->alive, "state", r->state, "shards", (int)r->shards,
            "slots", (int)r->slots, "rows_held", (json_int_t)r->rows_held, "tasks", (json_int_t)r->tasks, "rows",
            (json_int_t)r->rows, "staleness_last", (json_int_t)r->staleness_last, "staleness_mean", r->staleness_mean,
            "staleness_max", (json_int_t)r->staleness_max, "task_ms_mean", r->task_ms_mean, "task_ms_p50",
            r->task_ms_p50, "task_ms_p95", r->task_ms_p95, "wait_ms_mean", r->wait_ms_mean, "waited_s", r->waited_s,
            "network_ms_mean", r->network_ms_mean, "slowdown", r->slowdown, "cause", r->cause, "bytes_sent",
            (json_int_t)r->bytes_sent, "bytes_received", (json_int_t)r->bytes_received, "versions_sent",
            (json_int_t)r->versions_sent, "bytes_saved", (json_int_t)r->bytes_saved, "bytes_summed",
            (json_int_t)r->bytes_summed);
        for (int p = 0; o && p < SKALD_PARTS; p++) {
            char key[32];
            snprintf(key, sizeof key, "%s_ms_mean", skald_part_name((skald_part)p));
            json_object_set_new(o, key, json_real(r->part_ms[p]));
        }
        json_array_append_new(workers, o);
    }
    free(rows);
    return workers;
}

/* Every shard: whose it is, how often it was visited, its passes so far; and the share of all rows drawn at least once.
 */
static json_t *shards_json(const skald_run *run, double *coverage) {
    json_t *shards = json_array();
    *coverage = 0;
    for (uint32_t w = 0; w < run->size; w++) {
        const skald_member *m = run->crew->ops->member(run->crew, w);
        for (uint32_t i = 0; i < m->shard_count; i++) {
            const skald_ledger_entry *e = &run->ledger.entries[m->shards[i]];
            const double passes = (double)e->position / (double)e->rows;
            *coverage += fmin(passes, 1) * (double)e->rows / run->problem->n;
            json_array_append_new(shards,
                                  json_pack("{s:i,s:i,s:I,s:I,s:f,s:f}", "shard", (int)m->shards[i], "worker", (int)w,
                                            "rows", (json_int_t)e->rows, "visits", (json_int_t)e->visits, "passes",
                                            passes, "coverage", fmin(passes, 1)));
        }
    }
    return shards;
}

char *skald_table_json(const skald_run *run, bool audit) {
    skald_progress p;
    skald_table_fill(run, &p);
    json_t *workers = workers_json(run);
    json_t *root = json_pack(
        "{s:s,s:s,s:s,s:I,s:I,s:f,s:f,s:o,s:o,s:o,s:f,s:f,s:f,s:I,s:I,s:I,s:I,s:I,s:o}", "state",
        run->stop ? "stopping" : "training", "mode", skald_mode_name(run->options), "algo",
        skald_algo_name(run->options->algo), "version", (json_int_t)run->commits, "updates", (json_int_t)run->updates,
        "passes", p.passes, "seconds", p.seconds, "objective", number(p.last_objective), "gap", number(p.last_gap),
        "estimated_objective", number(p.estimated_objective), "rows_per_s", p.rows_per_s, "updates_per_s",
        p.updates_per_s, "staleness_mean", p.staleness_mean, "staleness_max", (json_int_t)p.staleness_max, "folded",
        (json_int_t)run->folded, "rollbacks", (json_int_t)run->rollbacks, "refused", (json_int_t)run->refused,
        "evaluations", (json_int_t)run->evaluations, "workers", workers);
    if (!root) return NULL;
    double coverage;
    json_object_set_new(root, "shards", shards_json(run, &coverage));
    json_object_set_new(root, "coverage", json_real(coverage));
    const skald_checkpoint *from = run->options->resume;
    json_object_set_new(root, "term", json_integer(from ? (json_int_t)from->term : 1));
    if (from) json_object_set_new(root, "resumed_version", json_integer((json_int_t)run->resumed_version));
    json_object_set_new(root, "available", json_integer(available(run)));
    json_object_set_new(root, "in_flight", json_integer(run->flight_count));
    json_object_set_new(root, "applied", json_integer((json_int_t)run->applied));
    json_object_set_new(root, "scaled", json_integer((json_int_t)run->scaled));
    json_object_set_new(root, "rejected", json_integer((json_int_t)run->rejected));
    if (p.slowest != UINT32_MAX)
        json_object_set_new(root, "slowest", json_pack("{s:s,s:f}", "name", p.slowest_name, "ratio", p.slowest_ratio));
    if (run->options->chosen) json_object_set_new(root, "chosen", json_string(run->options->chosen));
    json_object_set_new(root, "problem", problem_json(run->problem));
    if (audit)
        json_object_set_new(root, "audit",
                            json_pack("{s:i,s:f}", "shards", (int)run->ledger.count, "drift", run->audit.drift));
    char *text = json_dumps(root, JSON_COMPACT);
    json_decref(root);
    return text;
}
