/* The status table: who does what, how fast, how stale. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "engine/run.h"

static void smooth(double *mean, double value, uint64_t seen) {
    double a = seen < 10 ? 1.0 / (double)(seen + 1) : 0.1;
    *mean += a * (value - *mean);
}

void skald_table_result(skald_run *run, const skald_flight *flight, const skald_result *r) {
    skald_member_state *m = &run->members[flight->worker];
    if (flight->kind > SKALD_TASK_LOCAL) return; /* task times of training only: those compare */
    double task = (double)(skald_now_ns(run->clock) - flight->issued_ns);
    smooth(&m->task_ns, task, m->tasks);
    smooth(&m->compute_ns, (double)r->compute_ns, m->tasks);
    smooth(&m->wait_ns, (double)r->wait_ns, m->tasks);
    smooth(&m->network_ns, fmax(0, task - (double)r->compute_ns - (double)r->receive_ns), m->tasks);
    skald_histogram_add(&m->occupied, (double)(r->compute_ns + r->delay_ns));
    m->tasks++;
    m->rows += r->rows;
}

void skald_table_row(const skald_run *run, uint32_t worker, skald_worker_row *row) {
    const skald_member *member = run->crew->ops->member(run->crew, worker);
    const skald_member_state *m = &run->members[worker];
    memset(row, 0, sizeof *row);
    snprintf(row->name, sizeof row->name, "%s", member->name);
    snprintf(row->device, sizeof row->device, "%s", member->device);
    row->alive = m->alive;
    row->shards = member->shard_count;
    row->slots = member->slots;
    row->rows_held = member->rows;
    row->tasks = m->tasks;
    row->rows = m->rows;
    row->staleness_mean = m->tasks ? (double)m->staleness_sum / (double)m->tasks : 0;
    row->staleness_last = m->staleness_last;
    row->staleness_max = m->staleness_max;
    row->task_ms_mean = m->task_ns * 1e-6;
    row->wait_ms_mean = m->wait_ns * 1e-6;
    row->compute_ms_mean = m->compute_ns * 1e-6;
    row->network_ms_mean = m->network_ns * 1e-6;
    for (int k = 0; k < SKALD_ROW_QUANTILES; k++)
        row->occupied_ms[k] = 1e-6 * skald_histogram_quantile(&m->occupied, k / (SKALD_ROW_QUANTILES - 1.0));
    row->bytes_sent = member->bytes_sent;
    row->bytes_received = member->bytes_received;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double skald_table_median(const skald_run *run) {
    double times[4096];
    uint32_t known = 0;
    for (uint32_t k = 0; k < run->size && known < SKALD_ARRAY_LENGTH(times); k++)
        if (run->members[k].tasks) times[known++] = run->members[k].task_ns;
    if (!known) return 0;
    qsort(times, known, sizeof times[0], ascending);
    if (known == 2) return times[0]; /* of two, the other one is the yardstick */
    return known % 2 ? times[known / 2] : 0.5 * (times[known / 2 - 1] + times[known / 2]);
}

uint32_t skald_table_slowest(const skald_run *run, double *ratio) {
    uint32_t slow = UINT32_MAX, known = 0;
    for (uint32_t k = 0; k < run->size; k++) {
        if (!run->members[k].tasks) continue;
        known++;
        if (slow == UINT32_MAX || run->members[k].task_ns > run->members[slow].task_ns) slow = k;
    }
    *ratio = 1;
    if (known < 2) return UINT32_MAX;
    const double median = skald_table_median(run);
    if (median > 0) *ratio = run->members[slow].task_ns / median;
    return *ratio >= 1.5 ? slow : UINT32_MAX;
}

static void fill_progress(const skald_run *run, skald_progress *p) {
    memset(p, 0, sizeof *p);
    p->seconds = (double)skald_run_now(run) * 1e-9;
    p->passes = run->engine.passes;
    p->rows_per_s = run->rows_per_s;
    p->updates_per_s = run->updates_per_s;
    p->estimated_objective = run->watch.estimate;
    p->last_objective = run->evaluations ? run->last.objective : NAN;
    p->last_gap = run->evaluations ? run->last.relative_gap : NAN;
    p->staleness_mean = run->merged ? (double)run->staleness_sum / (double)run->merged : 0;
    p->staleness_max = run->staleness_max;
    p->commits = run->commits;
    p->workers = run->size;
    p->slowest = skald_table_slowest(run, &p->slowest_ratio);
    if (p->slowest != UINT32_MAX)
        snprintf(p->slowest_name, sizeof p->slowest_name, "%s", run->crew->ops->member(run->crew, p->slowest)->name);
}

void skald_table_progress(skald_run *run) {
    int64_t now = skald_run_now(run), since = now - run->progress_ns;
    if (since < SKALD_NS_PER_S / 10) return;
    run->rows_per_s = (run->rows - run->progress_rows) / ((double)since * 1e-9);
    run->updates_per_s = (double)(run->updates - run->progress_updates) / ((double)since * 1e-9);
    run->progress_ns = now;
    run->progress_rows = run->rows;
    run->progress_updates = run->updates;
    if (!run->observer || !run->observer->progress) return;
    skald_progress p;
    fill_progress(run, &p);
    run->observer->progress(run->observer->user, &p);
}

static json_t *number(double x) { /* JSON has no NaN or infinity */
    return isfinite(x) ? json_real(x) : json_null();
}

/* What is being trained: a client that fetches the model learns from here what it is for. */
static json_t *problem_json(const skald_problem *p) {
    json_t *labels = json_array();
    for (uint32_t k = 0; k < p->label_count; k++) json_array_append_new(labels, json_real(p->labels[k].value));
    return json_pack("{s:s,s:f,s:f,s:f,s:b,s:I,s:f,s:b,s:b,s:o}", "loss", skald_loss_name(p->objective.loss),
                     "huber_delta", p->objective.huber_delta, "l2", p->objective.l2, "l1", p->objective.l1, "intercept",
                     (int)p->objective.intercept, "features", (json_int_t)p->features, "rows", p->n, "zero_based",
                     (int)skald_problem_zero_based_text(p), "scaled", (int)(p->transform.scale != NULL), "labels",
                     labels);
}

char *skald_table_json(const skald_run *run, bool audit) {
    skald_progress p;
    fill_progress(run, &p);
    json_t *workers = json_array();
    for (uint32_t k = 0; k < run->size; k++) {
        skald_worker_row r;
        skald_table_row(run, k, &r);
        json_array_append_new(
            workers,
            json_pack("{s:s,s:s,s:b,s:i,s:i,s:I,s:I,s:I,s:I,s:f,s:I,s:f,s:f,s:f,s:f,s:I,s:I}", "name", r.name, "device",
                      r.device, "alive", (int)r.alive, "shards", (int)r.shards, "slots", (int)r.slots, "rows_held",
                      (json_int_t)r.rows_held, "tasks", (json_int_t)r.tasks, "rows", (json_int_t)r.rows,
                      "staleness_last", (json_int_t)r.staleness_last, "staleness_mean", r.staleness_mean,
                      "staleness_max", (json_int_t)r.staleness_max, "task_ms_mean", r.task_ms_mean, "wait_ms_mean",
                      r.wait_ms_mean, "compute_ms_mean", r.compute_ms_mean, "network_ms_mean", r.network_ms_mean,
                      "bytes_sent", (json_int_t)r.bytes_sent, "bytes_received", (json_int_t)r.bytes_received));
    }
    json_t *root = json_pack(
        "{s:s,s:s,s:s,s:I,s:I,s:f,s:f,s:o,s:o,s:o,s:f,s:f,s:f,s:I,s:I,s:I,s:I,s:I,s:o}", "state",
        run->stop ? "stopping" : "training", "mode", skald_mode_name(run->options), "algo",
        run->options->algo == SKALD_SAGA ? "saga" : "sgd", "version", (json_int_t)run->commits, "updates",
        (json_int_t)run->updates, "passes", p.passes, "seconds", p.seconds, "objective", number(p.last_objective),
        "gap", number(p.last_gap), "estimated_objective", number(p.estimated_objective), "rows_per_s", p.rows_per_s,
        "updates_per_s", p.updates_per_s, "staleness_mean", p.staleness_mean, "staleness_max",
        (json_int_t)p.staleness_max, "folded", (json_int_t)run->folded, "rollbacks", (json_int_t)run->rollbacks,
        "refused", (json_int_t)run->refused, "evaluations", (json_int_t)run->evaluations, "workers", workers);
    if (!root) return NULL;
    if (p.slowest != UINT32_MAX)
        json_object_set_new(root, "slowest", json_pack("{s:s,s:f}", "name", p.slowest_name, "ratio", p.slowest_ratio));
    json_object_set_new(root, "problem", problem_json(run->problem));
    if (audit)
        json_object_set_new(root, "audit",
                            json_pack("{s:i,s:f}", "shards", (int)run->ledger.count, "drift", run->audit.drift));
    char *text = json_dumps(root, JSON_COMPACT);
    json_decref(root);
    return text;
}
