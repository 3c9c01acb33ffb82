#include "report/report.h"

#include <math.h>
#include <string.h>

void skald_worker_table(FILE *out, const skald_worker_row *rows, uint32_t count) {
    size_t name = 6, device = 6;
    for (uint32_t k = 0; k < count; k++) {
        if (strlen(rows[k].name) > name) name = strlen(rows[k].name);
        if (strlen(rows[k].device) > device) device = strlen(rows[k].device);
    }
    fprintf(out, "%-*s  %-*s  state    shards      rows     tasks  stale last/mean/max   MB out    MB in\n", (int)name,
            "worker", (int)device, "device");
    for (uint32_t k = 0; k < count; k++) {
        const skald_worker_row *w = &rows[k];
        fprintf(out, "%-*s  %-*s  %-7s  %6u  %8llu  %8llu  %6llu %6.1f %5llu  %7.2f  %7.2f\n", (int)name, w->name,
                (int)device, w->device, w->state, w->shards, (unsigned long long)w->rows_held,
                (unsigned long long)w->tasks, (unsigned long long)w->staleness_last, w->staleness_mean,
                (unsigned long long)w->staleness_max, (double)w->bytes_sent / 1e6, (double)w->bytes_received / 1e6);
    }
    fprintf(out, "%-*s  task ms     p50     p95  of it recv   held   comp  delay   send  queue    wait  x med\n",
            (int)name, "worker");
    for (uint32_t k = 0; k < count; k++) {
        const skald_worker_row *w = &rows[k];
        fprintf(out, "%-*s %8.2f %7.2f %7.2f      ", (int)name, w->name, w->task_ms_mean, w->task_ms_p50,
                w->task_ms_p95);
        for (int p = 0; p < SKALD_PARTS; p++) fprintf(out, " %6.2f", w->part_ms[p]);
        fprintf(out, " %7.2f  %5.1f\n", w->wait_ms_mean, w->slowdown);
    }
}

void skald_top_line(const skald_worker_row *w, size_t width, char *out, size_t size) {
    if (width + 1 < size) size = width + 1;
    int used = 0;
    if (!w) {
        used = snprintf(out, size, "%-12s %-4s %7s %9s %8s %8s %7s %5s", "WORKER", "STAT", "TASKS", "STALE/MAX",
                        "TASK ms", "P95 ms", "WAIT ms", "xMED");
        if (width < 120 || used < 0 || (size_t)used >= size) return;
        snprintf(out + used, size - (size_t)used, " %7s %7s %7s %7s %7s %7s  %s", "RECV", "HELD", "COMP", "DELAY",
                 "SEND", "QUEUE", "DEVICE");
        return;
    }
    char stale[32];
    snprintf(stale, sizeof stale, "%.1f/%llu", w->staleness_mean, (unsigned long long)w->staleness_max);
    used = snprintf(out, size, "%-12.12s %-4.4s %7llu %9s %8.2f %8.2f %7.2f %5.1f", w->name, w->state,
                    (unsigned long long)w->tasks, stale, w->task_ms_mean, w->task_ms_p95, w->wait_ms_mean, w->slowdown);
    for (int p = 0; p < SKALD_PARTS && width >= 120 && used > 0 && (size_t)used < size; p++)
        used += snprintf(out + used, size - (size_t)used, " %7.2f", w->part_ms[p]);
    if (used > 0 && (size_t)used < size && (w->cause[0] || width >= 120))
        snprintf(out + used, size - (size_t)used, "  %s", w->cause[0] ? w->cause : w->device);
}

void skald_slow_list(FILE *out, const skald_worker_row *rows, uint32_t count, uint32_t most) {
    uint32_t slow = 0;
    char text[300];
    for (uint32_t k = 0; k < count; k++)
        if (rows[k].cause[0] && slow++ < most)
            fprintf(out, "slow           %s\n", skald_slow_text(k, &rows[k], text, sizeof text));
    if (slow > most) fprintf(out, "slow           and %u more\n", slow - most);
}

void skald_summary_print(FILE *out, const skald_outcome *o) {
    char rate[32];
    const skald_evaluation *e = &o->last;
    fprintf(out, "%s%s after %.2f passes, %.2f s (%.2f s without evaluations), %llu updates\n",
            skald_stop_name(o->stop), o->reached ? "" : " before the target", o->passes, o->seconds, o->train_seconds,
            (unsigned long long)o->updates);
    fprintf(out, "objective      %.12g%s\n", e->objective, e->average ? "  (average iterate)" : "");
    if (isfinite(e->gap)) fprintf(out, "gap at most    %.3e  (relative %.3e)\n", e->gap, e->relative_gap);
    if (isfinite(e->decrement)) fprintf(out, "decrement      %.3e  (about (F - F*) / F, by curvature)\n", e->decrement);
    fprintf(out, "gradient norm  %.3e\n", e->gradient_norm);
    if (isfinite(e->accuracy)) fprintf(out, "accuracy       %.4f  (training rows)\n", e->accuracy);
    fprintf(out, "speed          %s rows/s; staleness mean %.1f, max %llu\n",
            skald_count_format(o->rows_per_s, rate, sizeof rate), o->staleness_mean,
            (unsigned long long)o->staleness_max);
    fprintf(out, "step           %.4g, %u rows a step, %u rows a message", o->step, o->step_rows, o->task_rows);
    if (o->rollbacks) fprintf(out, "; rolled back %llu times", (unsigned long long)o->rollbacks);
    if (o->guards) fprintf(out, "; held back %llu times", (unsigned long long)o->guards);
    if (o->full_gradients) fprintf(out, "; %llu full gradients", (unsigned long long)o->full_gradients);
    if (o->versions_held)
        fprintf(out, "; history at %u versions a worker, %llu evictions", o->versions_held,
                (unsigned long long)o->evictions);
    if (o->audit_drift >= 0) fprintf(out, "; history audited, drift %.1e", o->audit_drift);
    fputc('\n', out);
    if (o->scaled + o->folded + o->rejected)
        fprintf(out, "results        %llu applied, %llu scaled, %llu %s, %llu rejected\n",
                (unsigned long long)o->applied, (unsigned long long)o->scaled, (unsigned long long)o->folded,
                o->full_gradients ? "dropped" : "folded", (unsigned long long)o->rejected);
    uint64_t versions = 0, saved = 0, summed = 0;
    for (uint32_t k = 0; k < o->worker_count; k++) {
        versions += o->workers[k].versions_sent, saved += o->workers[k].bytes_saved;
        if (o->workers[k].bytes_summed > summed) summed = o->workers[k].bytes_summed;
    }
    if (versions)
        fprintf(out, "versions       %llu sent; %.1f MB not sent again\n", (unsigned long long)versions,
                (double)saved / 1e6);
    if (summed) fprintf(out, "sums           %.2f MB of each rank\n", (double)summed / 1e6);
    skald_slow_list(out, o->workers, o->worker_count, 4);
    fputc('\n', out);
    skald_worker_table(out, o->workers, o->worker_count);
    fflush(out);
}

void skald_status_print(FILE *out, const skald_status_view *v) {
    const skald_progress *p = &v->progress;
    char rows[32], updates[32];
    if (strcmp(v->state, "gathering") == 0) {
        fprintf(out, "gathering: %llu of %llu workers are there\n", (unsigned long long)v->joined,
                (unsigned long long)v->wanted);
        for (uint32_t k = 0; k < v->worker_count; k++)
            fprintf(out, "  %s  %s\n", v->workers[k].name, v->workers[k].device);
        return;
    }
    fprintf(out, "%s: %s, %s, version %llu\n", v->state, v->algo, v->mode, (unsigned long long)v->version);
    fprintf(out, "%.2f passes in %.1f s; %s rows/s, %s updates/s\n", p->passes, p->seconds,
            skald_count_format(p->rows_per_s, rows, sizeof rows),
            skald_count_format(p->updates_per_s, updates, sizeof updates));
    if (isfinite(p->last_objective)) fprintf(out, "objective %.10g", p->last_objective);
    if (isfinite(p->last_gap)) fprintf(out, ", gap %.2e", p->last_gap);
    if (isfinite(p->last_objective)) fputc('\n', out);
    if (v->audited)
        fprintf(out, "audit of the history: %u shards, largest drift %.2e\n", v->audit_shards, v->audit_drift);
    fprintf(out,
            "%u workers, %llu available, %llu tasks in flight; staleness mean %.1f, max %llu\n"
            "results: %llu applied, %llu scaled, %llu folded, %llu rejected",
            v->worker_count, (unsigned long long)v->available, (unsigned long long)v->in_flight, p->staleness_mean,
            (unsigned long long)p->staleness_max, (unsigned long long)v->applied, (unsigned long long)v->shortened,
            (unsigned long long)v->folded, (unsigned long long)v->rejected);
    if (isfinite(v->coverage)) fprintf(out, "; %.0f%% of the rows visited", 100 * v->coverage);
    fputc('\n', out);
    skald_slow_list(out, v->workers, v->worker_count, 8);
    fputc('\n', out);
    skald_worker_table(out, v->workers, v->worker_count);
    fflush(out);
}
