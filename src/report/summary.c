#include "report/report.h"

#include <math.h>
#include <string.h>

void skald_worker_table(FILE *out, const skald_worker_row *rows, uint32_t count) {
    size_t name = 6, device = 6;
    for (uint32_t k = 0; k < count; k++) {
        if (strlen(rows[k].name) > name) name = strlen(rows[k].name);
        if (strlen(rows[k].device) > device) device = strlen(rows[k].device);
    }
    fprintf(out,
            "%-*s  %-*s  state  shards      rows     tasks  stale last/mean/max  task ms (wait+compute+net)   MB out   "
            " MB in\n",
            (int)name, "worker", (int)device, "device");
    for (uint32_t k = 0; k < count; k++) {
        const skald_worker_row *w = &rows[k];
        fprintf(out, "%-*s  %-*s  %-5s  %6u  %8llu  %8llu  %6llu %6.1f %5llu  %7.2f %6.2f %7.2f %5.2f  %7.1f  %7.1f\n",
                (int)name, w->name, (int)device, w->device, w->alive ? "alive" : "dead", w->shards,
                (unsigned long long)w->rows_held, (unsigned long long)w->tasks, (unsigned long long)w->staleness_last,
                w->staleness_mean, (unsigned long long)w->staleness_max, w->task_ms_mean, w->wait_ms_mean,
                w->compute_ms_mean, w->network_ms_mean, (double)w->bytes_sent / 1e6, (double)w->bytes_received / 1e6);
    }
}

void skald_summary_print(FILE *out, const skald_outcome *o) {
    char rate[32];
    const skald_evaluation *e = &o->last;
    fprintf(out, "%s%s after %.2f passes, %.2f s (%.2f s without evaluations), %llu updates\n",
            skald_stop_name(o->stop), o->reached ? "" : " before the target", o->passes, o->seconds, o->train_seconds,
            (unsigned long long)o->updates);
    fprintf(out, "objective      %.12g%s\n", e->objective, e->average ? "  (average iterate)" : "");
    if (isfinite(e->gap)) fprintf(out, "gap at most    %.3e  (relative %.3e)\n", e->gap, e->relative_gap);
    fprintf(out, "gradient norm  %.3e\n", e->gradient_norm);
    if (isfinite(e->accuracy)) fprintf(out, "accuracy       %.4f  (training rows)\n", e->accuracy);
    fprintf(out, "speed          %s rows/s; staleness mean %.1f, max %llu\n",
            skald_count_format(o->rows_per_s, rate, sizeof rate), o->staleness_mean,
            (unsigned long long)o->staleness_max);
    fprintf(out, "step           %.4g, %u rows a step, %u rows a message", o->step, o->step_rows, o->task_rows);
    if (o->rollbacks) fprintf(out, "; rolled back %llu times", (unsigned long long)o->rollbacks);
    if (o->folded)
        fprintf(out, "; %llu %s", (unsigned long long)o->folded,
                o->full_gradients ? "results of an old full gradient dropped" : "late results folded");
    if (o->full_gradients) fprintf(out, "; %llu full gradients", (unsigned long long)o->full_gradients);
    if (o->audit_drift >= 0) fprintf(out, "; history audited, drift %.1e", o->audit_drift);
    uint64_t versions = 0, saved = 0;
    for (uint32_t k = 0; k < o->worker_count; k++)
        versions += o->workers[k].versions_sent, saved += o->workers[k].bytes_saved;
    if (versions)
        fprintf(out, "\nversions       %llu sent; %.1f MB not sent again", (unsigned long long)versions,
                (double)saved / 1e6);
    fputs("\n\n", out);
    skald_worker_table(out, o->workers, o->worker_count);
    fflush(out);
}

void skald_status_print(FILE *out, const skald_status_view *v) {
    const skald_progress *p = &v->progress;
    char rows[32], updates[32];
    fprintf(out, "%s: %s, %s, version %llu\n", v->state, v->algo, v->mode, (unsigned long long)v->version);
    fprintf(out, "%.2f passes in %.1f s; %s rows/s, %s updates/s\n", p->passes, p->seconds,
            skald_count_format(p->rows_per_s, rows, sizeof rows),
            skald_count_format(p->updates_per_s, updates, sizeof updates));
    if (isfinite(p->last_objective)) fprintf(out, "objective %.10g", p->last_objective);
    if (isfinite(p->last_gap)) fprintf(out, ", gap %.2e", p->last_gap);
    if (isfinite(p->last_objective)) fputc('\n', out);
    if (v->audited)
        fprintf(out, "audit of the history: %u shards, largest drift %.2e\n", v->audit_shards, v->audit_drift);
    fputc('\n', out);
    skald_worker_table(out, v->workers, v->worker_count);
    fflush(out);
}
