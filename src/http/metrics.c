/* The status in Prometheus' text format: base units, _total for what only grows, one label a worker. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "http/snapshot.h"

static double get(const json_t *object, const char *key, double otherwise) {
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : otherwise;
}

static const char *text_of(const json_t *object, const char *key) {
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

/* Of a label: \ " and newlines are escaped. */
static void put_label(FILE *f, const char *text) {
    for (; *text; text++) {
        if (*text == '\n')
            fputs("\\n", f);
        else if (*text == '"' || *text == '\\')
            fprintf(f, "\\%c", *text);
        else
            fputc(*text, f);
    }
}

static void put_value(FILE *f, double value) {
    if (isnan(value))
        fputs(" NaN\n", f);
    else if (isinf(value))
        fputs(value > 0 ? " +Inf\n" : " -Inf\n", f);
    else
        fprintf(f, " %.17g\n", value);
}

static void head(FILE *f, const char *name, const char *type, const char *help) {
    fprintf(f, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void one(FILE *f, const char *name, const char *type, const char *help, double value) {
    if (isnan(value)) return; /* not known: absent */
    head(f, name, type, help);
    fputs(name, f);
    put_value(f, value);
}

/* A label's values each with its own count; `pairs` ends with NULL: label value, key of the status. */
static void each(FILE *f, const char *name, const char *type, const char *label, const char *help, const json_t *status,
                 const char *const *pairs) {
    head(f, name, type, help);
    for (; *pairs; pairs += 2) {
        fprintf(f, "%s{%s=\"%s\"}", name, label, pairs[0]);
        put_value(f, get(status, pairs[1], 0));
    }
}

static void histogram(FILE *f, const char *name, const char *help, const uint64_t *counts, uint32_t size, double sum,
                      double (*bound)(uint32_t k)) {
    uint64_t seen = 0;
    uint32_t next = 0;
    head(f, name, "histogram", help);
    for (uint32_t k = 0; !isinf(bound(k)); k++) {
        while (next < size && (double)next <= bound(k)) seen += counts[next++];
        fprintf(f, "%s_bucket{le=\"%g\"} %llu\n", name, bound(k), (unsigned long long)seen);
    }
    while (next <= size) seen += counts[next++];
    fprintf(f, "%s_bucket{le=\"+Inf\"} %llu\n%s_sum", name, (unsigned long long)seen, name);
    put_value(f, sum);
    fprintf(f, "%s_count %llu\n", name, (unsigned long long)seen);
}

/* 0, 1, 2, 4, ... 1023 commits */
static double stale_bound(uint32_t k) {
    return k == 0 ? 0 : k <= 10 ? ldexp(1, (int)k - 1) : k == 11 ? HISTORY_STALE - 1 : INFINITY;
}

static void task_times(FILE *f, const history *h) {
    const char *name = "skald_task_seconds";
    uint64_t seen = 0;
    head(f, name, "histogram", "Time of a training task from hand-out to merge.");
    for (int k = 0; k < HISTORY_SLOW; k++) {
        seen += h->slow[k];
        fprintf(f, "%s_bucket{le=\"%g\"} %llu\n", name, ldexp(1e-3, k), (unsigned long long)seen);
    }
    seen += h->slow[HISTORY_SLOW];
    fprintf(f, "%s_bucket{le=\"+Inf\"} %llu\n%s_sum", name, (unsigned long long)seen, name);
    put_value(f, h->slow_sum);
    fprintf(f, "%s_count %llu\n", name, (unsigned long long)seen);
}

/* ---- the workers --------------------------------------------------------------------------------------------- */

typedef struct people {
    const json_t *workers;
    char (*names)[96]; /* no two alike: a sample must not occur twice */
    size_t count;
} people;

static bool taken(const people *all, size_t before, const char *name) {
    for (size_t k = 0; k < before; k++)
        if (strcmp(all->names[k], name) == 0) return true;
    return false;
}

static bool name_them(people *all, const json_t *workers) {
    all->workers = workers;
    all->count = json_array_size(workers);
    all->names = calloc(all->count + 1, sizeof *all->names);
    for (size_t k = 0; all->names && k < all->count; k++) {
        char *name = all->names[k];
        snprintf(name, sizeof *all->names, "%s", text_of(json_array_get(workers, k), "name"));
        if (taken(all, k, name))
            snprintf(name, sizeof *all->names, "%.60s#%zu", text_of(json_array_get(workers, k), "name"), k);
    }
    return all->names;
}

static void labelled(FILE *f, const char *name, const people *all, size_t k, const char *more, double value) {
    fprintf(f, "%s{worker=\"", name);
    put_label(f, all->names[k]);
    fprintf(f, "\"%s}", more);
    put_value(f, value);
}

static void of_workers(FILE *f, const people *all, const char *name, const char *type, const char *help,
                       const char *key, double unit) {
    head(f, name, type, help);
    for (size_t k = 0; k < all->count; k++)
        labelled(f, name, all, k, "", unit * get(json_array_get(all->workers, k), key, 0));
}

static void workers_metrics(FILE *f, const snapshot *s, const people *all) {
    static const char *const states[] = {"busy", "waiting", "dead"};
    head(f, "skald_workers", "gauge", "Workers by state.");
    for (size_t j = 0; j < SKALD_ARRAY_LENGTH(states); j++) {
        size_t count = 0;
        for (size_t k = 0; k < all->count; k++)
            count += strcmp(text_of(json_array_get(all->workers, k), "state"), states[j]) == 0;
        fprintf(f, "skald_workers{state=\"%s\"} %zu\n", states[j], count);
    }
    head(f, "skald_worker_up", "gauge", "1 while the worker is there.");
    for (size_t k = 0; k < all->count; k++) {
        const json_t *alive = json_object_get(json_array_get(all->workers, k), "alive");
        labelled(f, "skald_worker_up", all, k, "", alive && !json_is_true(alive) ? 0 : 1);
    }
    of_workers(f, all, "skald_worker_rows_held", "gauge", "Rows that the worker holds.", "rows_held", 1);
    of_workers(f, all, "skald_worker_tasks_total", "counter", "Training tasks done.", "tasks", 1);
    of_workers(f, all, "skald_worker_rows_total", "counter", "Rows processed in training.", "rows", 1);
    of_workers(f, all, "skald_worker_sent_bytes_total", "counter", "Messages sent to the worker, whole.", "bytes_sent",
               1);
    of_workers(f, all, "skald_worker_received_bytes_total", "counter", "Messages received from the worker, whole.",
               "bytes_received", 1);
    of_workers(f, all, "skald_worker_waited_seconds_total", "counter", "Time between tasks.", "waited_s", 1);
    of_workers(f, all, "skald_worker_task_mean_seconds", "gauge", "Moving mean time of a task, hand-out to merge.",
               "task_ms_mean", 1e-3);
    of_workers(f, all, "skald_worker_slowdown_ratio", "gauge", "Mean task time over the median worker's.", "slowdown",
               1);
    of_workers(f, all, "skald_worker_staleness_mean_commits", "gauge", "Mean staleness of its results.",
               "staleness_mean", 1);
    head(f, "skald_worker_slow", "gauge", "1 for a worker that stands out as slow, with the cause.");
    for (size_t k = 0; k < all->count; k++) {
        const char *cause = text_of(json_array_get(all->workers, k), "cause");
        char more[80];
        snprintf(more, sizeof more, ",cause=\"%.60s\"", cause); /* one of the engine's own words */
        if (cause[0]) labelled(f, "skald_worker_slow", all, k, more, 1);
    }
    head(f, "skald_worker_task_seconds_total", "counter", "Where the time of its tasks went.");
    for (size_t k = 0; k < all->count && k < s->history.lanes; k++)
        for (int p = 0; p < SKALD_PARTS; p++) {
            char more[40];
            snprintf(more, sizeof more, ",part=\"%s\"", skald_part_name((skald_part)p));
            labelled(f, "skald_worker_task_seconds_total", all, k, more, s->part_s[k * SKALD_PARTS + (size_t)p]);
        }
}

/* ---- the run --------------------------------------------------------------------------------------------------- */

static void run_metrics(FILE *f, const snapshot *s, const json_t *status) {
    static const char *const states[] = {"gathering", "starting", "training", "stopping", "ended", "failed"};
    static const char *const outcomes[] = {"applied", "applied",  "scaled",   "scaled", "folded",
                                           "folded",  "rejected", "rejected", NULL};
    head(f, "skald_build_info", "gauge", "1, with the version.");
    fputs("skald_build_info{version=\"" SKALD_VERSION "\"} 1\n", f);
    head(f, "skald_state", "gauge", "1 for the state that the run is in.");
    for (size_t k = 0; k < SKALD_ARRAY_LENGTH(states); k++)
        fprintf(f, "skald_state{state=\"%s\"} %d\n", states[k], strcmp(text_of(status, "state"), states[k]) == 0);
    one(f, "skald_run_seconds", "gauge", "Time since training began.", get(status, "seconds", NAN));
    one(f, "skald_passes_total", "counter", "Rows processed over rows there are.", get(status, "passes", 0));
    one(f, "skald_commits_total", "counter", "Versions of the model.", get(status, "version", 0));
    one(f, "skald_updates_total", "counter", "Results merged.", get(status, "updates", 0));
    each(f, "skald_results_total", "counter", "outcome", "Results by what became of them.", status, outcomes);
    one(f, "skald_refused_results_total", "counter", "Results that could not be used.", get(status, "refused", 0));
    one(f, "skald_rollbacks_total", "counter", "Times the model went back to a good one.", get(status, "rollbacks", 0));
    one(f, "skald_evaluations_total", "counter", "Passes over the data that only evaluated.",
        get(status, "evaluations", 0));
    one(f, "skald_objective", "gauge", "The objective at the last evaluation.", get(status, "objective", NAN));
    one(f, "skald_estimated_objective", "gauge", "The objective, from the batches since.",
        get(status, "estimated_objective", NAN));
    one(f, "skald_gap_ratio", "gauge", "Certified bound of (F - F*) / F* at the last evaluation.",
        get(status, "gap", NAN));
    one(f, "skald_coverage_ratio", "gauge", "Share of the rows drawn at least once.", get(status, "coverage", NAN));
    one(f, "skald_tasks_in_flight", "gauge", "Tasks handed out and not merged.", get(status, "in_flight", NAN));
    one(f, "skald_workers_available", "gauge", "Workers with a free slot.", get(status, "available", NAN));
    histogram(f, "skald_staleness_commits", "Commits between the version a result is of and its merge.",
              s->history.stale, HISTORY_STALE, s->history.stale_sum, stale_bound);
    task_times(f, &s->history);
}

char *snapshot_metrics(snapshot *s) {
    const json_t *status = snapshot_status(s);
    people all = {0};
    char *text = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&text, &size);
    if (!f) return NULL;
    run_metrics(f, s, status);
    const bool named = name_them(&all, json_object_get(status, "workers"));
    if (named) workers_metrics(f, s, &all);
    free(all.names);
    if (fclose(f) == 0 && named) return text;
    free(text);
    return NULL;
}
