/* The status table: who does what, how fast, how stale. */
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

static double clamp(double x, double most) {
    return fmax(0, fmin(x, most));
}

/* The worker's clock is another one. Of all differences the least were of the quickest ways, there and back, and those
 * are taken to be equally long. */
static void split_network(skald_member_state *m, const skald_flight *flight, const skald_result *r, double *there,
                          double *back) {
    const double network = *there + *back;
    if (!r->came_ns || !r->posted_ns) return;
    const int64_t to = r->came_ns - flight->issued_ns, from = r->arrived_ns - r->posted_ns;
    if (!m->tasks || to < m->least_there) m->least_there = to;
    if (!m->tasks || from < m->least_back) m->least_back = from;
    const int64_t ahead = (m->least_there - m->least_back) / 2;
    *there = clamp((double)(to - ahead), network);
    *back = network - *there; /* packing it is in it */
}

void skald_table_result(skald_run *run, const skald_flight *flight, const skald_result *r) {
    skald_member_state *m = &run->members[flight->worker];
    if (!skald_task_trains(flight->kind)) return; /* task times of training only: those compare */
    const int64_t end = r->ready_ns ? r->ready_ns : skald_now_ns(run->clock); /* waiting for others is no rank's task */
    const double task = (double)(end - flight->issued_ns);
    double part[SKALD_PARTS] = {[SKALD_PART_HELD] = (double)r->receive_ns,
                                [SKALD_PART_COMPUTE] = (double)r->compute_ns,
                                [SKALD_PART_DELAY] = (double)r->delay_ns,
                                [SKALD_PART_QUEUE] = clamp((double)(end - r->arrived_ns), task)};
    double network = task;
    for (int p = 0; p < SKALD_PARTS; p++) network -= part[p];
    part[SKALD_PART_RECEIVE] = part[SKALD_PART_SEND] = fmax(0, network) / 2;
    split_network(m, flight, r, &part[SKALD_PART_RECEIVE], &part[SKALD_PART_SEND]);
    smooth(&m->task_ns, task, m->tasks);
    smooth(&m->wait_ns, (double)r->wait_ns, m->tasks);
    m->waited_ns += r->wait_ns;
    skald_histogram_add(&m->occupied, (double)(r->compute_ns + r->delay_ns));
    for (int p = 0; p < SKALD_PARTS; p++) smooth(&m->part_ns[p], part[p], m->tasks);
    m->recent_ms[m->tasks % SKALD_RECENT] = (float)(task * 1e-6);
    m->tasks++;
    m->rows += r->rows;
    if (!run->observer || !run->observer->task) return;
    skald_task_seen seen = {.worker = flight->worker,
                            .slots = skald_run_slots(run->crew->ops->member(run->crew, flight->worker)),
                            .trains = r->status == SKALD_OK && !flight->full,
                            .issued_ns = flight->issued_ns - run->begin_ns,
                            .ended_ns = end - run->begin_ns,
                            .staleness = run->commits - flight->commits,
                            .rows = r->rows};
    memcpy(seen.part_ns, part, sizeof part);
    run->observer->task(run->observer->user, &seen);
}

const char *skald_part_name(skald_part part) {
    static const char *const names[] = {"receive", "held", "compute", "delay", "send", "queue"};
    return names[part];
}

static int ascending_floats(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void fill_row(const skald_run *run, uint32_t worker, skald_worker_row *row) {
    const skald_member *member = run->crew->ops->member(run->crew, worker);
    const skald_member_state *m = &run->members[worker];
    memset(row, 0, sizeof *row);
    snprintf(row->name, sizeof row->name, "%s", member->name);
    snprintf(row->device, sizeof row->device, "%s", member->device);
    row->alive = m->alive;
    snprintf(row->state, sizeof row->state, "%s", !m->alive ? "dead" : m->busy && !run->stop ? "busy" : "waiting");
    row->shards = member->shard_count;
    row->slots =
        run->engine.lockstep ? 1 : member->slots; /* newton: a rank has a round of tasks, one after the other */
    row->rows_held = member->rows;
    row->tasks = m->tasks;
    row->rows = m->rows;
    row->staleness_mean = m->tasks ? (double)m->staleness_sum / (double)m->tasks : 0;
    row->staleness_last = m->staleness_last;
    row->staleness_max = m->staleness_max;
    row->task_ms_mean = m->task_ns * 1e-6;
    row->wait_ms_mean = m->wait_ns * 1e-6;
    row->waited_s = (double)m->waited_ns * 1e-9;
    for (int k = 0; k < SKALD_ROW_QUANTILES; k++)
        row->occupied_ms[k] = 1e-6 * skald_histogram_quantile(&m->occupied, k / (SKALD_ROW_QUANTILES - 1.0));
    for (int p = 0; p < SKALD_PARTS; p++) row->part_ms[p] = m->part_ns[p] * 1e-6;
    row->network_ms_mean = row->part_ms[SKALD_PART_RECEIVE] + row->part_ms[SKALD_PART_SEND];
    float recent[SKALD_RECENT];
    const size_t kept = skald_min_size(m->tasks, SKALD_RECENT);
    memcpy(recent, m->recent_ms, kept * sizeof *recent);
    qsort(recent, kept, sizeof *recent, ascending_floats);
    if (kept) row->task_ms_p50 = (double)recent[kept / 2];
    if (kept) row->task_ms_p95 = (double)recent[kept * 95 / 100];
    row->bytes_sent = member->bytes_sent;
    row->bytes_received = member->bytes_received;
    row->versions_sent = member->versions_sent;
    row->bytes_saved = member->bytes_saved;
    row->bytes_summed = member->bytes_summed;
}

void skald_table_rows(const skald_run *run, skald_worker_row *rows) {
    for (uint32_t k = 0; k < run->size; k++) fill_row(run, k, &rows[k]);
    skald_slow_fill(run, rows);
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double skald_table_median(const skald_run *run) {
    double times[4096];
    uint32_t known = 0;
    for (uint32_t k = 0; k < run->size && known < SKALD_ARRAY_LENGTH(times); k++)
        if (run->members[k].alive && run->members[k].tasks) times[known++] = run->members[k].task_ns;
    if (!known) return 0;
    qsort(times, known, sizeof times[0], ascending);
    if (known == 2) return times[0]; /* of two, the other one is the yardstick */
    return known % 2 ? times[known / 2] : 0.5 * (times[known / 2 - 1] + times[known / 2]);
}

double skald_table_slowdown(const skald_run *run, uint32_t worker) {
    const double median = skald_table_median(run);
    return median > 0 && run->members[worker].tasks ? run->members[worker].task_ns / median : 1;
}

uint32_t skald_table_slowest(const skald_run *run, double *ratio) {
    uint32_t slow = UINT32_MAX, known = 0;
    for (uint32_t k = 0; k < run->size; k++) {
        if (!run->members[k].alive || !run->members[k].tasks) continue;
        known++;
        if (slow == UINT32_MAX || run->members[k].task_ns > run->members[slow].task_ns) slow = k;
    }
    *ratio = 1;
    if (known < 2) return UINT32_MAX;
    const double median = skald_table_median(run);
    if (median > 0) *ratio = run->members[slow].task_ns / median;
    return *ratio >= run->options->slow_ratio ? slow : UINT32_MAX;
}

void skald_table_fill(const skald_run *run, skald_progress *p) {
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
    for (uint32_t k = 0; k < run->size; k++) p->workers += run->members[k].alive;
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
    skald_slow_watch(run);
    const skald_observer *o = run->observer;
    if (!o) return;
    skald_progress p;
    skald_table_fill(run, &p);
    if (o->progress) o->progress(o->user, &p);
    char *json = o->table && o->table_due(o->user) ? skald_table_json(run, false) : NULL;
    if (json) o->table(o->user, json);
}
