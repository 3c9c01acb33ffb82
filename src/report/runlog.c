#include "report/report.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

skald_status skald_runlog_open(skald_runlog *log, const char *path, void (*complain)(void *, const char *),
                               void *user) {
    *log = (skald_runlog){.path = path, .complain = complain, .user = user};
    log->file = fopen(path, "we");
    if (!log->file) return skald_fail(SKALD_EIO, "%s: cannot write the log: %s", path, strerror(errno));
    setvbuf(log->file, NULL, _IOLBF, 0); /* whoever follows the file sees whole lines, at once */
    return SKALD_OK;
}

void skald_runlog_close(skald_runlog *log) {
    if (log->file) fclose(log->file);
    log->file = NULL;
}

/* JSON knows neither infinity nor NaN: null. */
static json_t *real(double value) {
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *whole(double value) {
    return isfinite(value) && fabs(value) < 9e15 ? json_integer((json_int_t)value) : json_null();
}

/* Writes and frees the object. The log is there for people: its loss does not end a training run. */
static void write_line(skald_runlog *log, json_t *object) {
    if (log->file && !log->failed) {
        errno = 0;
        bool ok = json_dumpf(object, log->file, JSON_COMPACT | JSON_REAL_PRECISION(17)) == 0 &&
                  fputc('\n', log->file) != EOF && fflush(log->file) == 0;
        if (!ok) {
            char text[512];
            log->failed = true;
            snprintf(text, sizeof text, "%.300s: cannot write the log: %s; training goes on without it", log->path,
                     errno ? strerror(errno) : "out of memory");
            if (log->complain) log->complain(log->user, text);
        }
    }
    json_decref(object);
}

static json_t *event(const char *name) {
    json_t *object = json_object();
    json_object_set_new(object, "event", json_string(name));
    return object;
}

static json_t *evaluation_json(json_t *o, const skald_evaluation *e) {
    json_object_set_new(o, "passes", real(e->passes));
    json_object_set_new(o, "seconds", real(e->seconds));
    json_object_set_new(o, "train_seconds", real(e->train_seconds));
    json_object_set_new(o, "commits", whole((double)e->commits));
    json_object_set_new(o, "updates", whole((double)e->updates));
    json_object_set_new(o, "objective", real(e->objective));
    json_object_set_new(o, "gap", real(e->gap));
    json_object_set_new(o, "relative_gap", real(e->relative_gap));
    json_object_set_new(o, "gradient_norm", real(e->gradient_norm));
    json_object_set_new(o, "decrement", real(e->decrement));
    json_object_set_new(o, "accuracy", real(e->accuracy));
    json_object_set_new(o, "average", json_boolean(e->average));
    return o;
}

void skald_runlog_start(skald_runlog *log, const skald_options *options, const char *data, const skald_problem *p,
                        const skald_crew *crew, const char *chosen) {
    if (!log->file) return;
    json_t *o = event("start"), *config = json_object(), *workers = json_array();
    json_object_set_new(o, "skald", json_string(SKALD_VERSION));
    json_object_set_new(o, "data", json_string(data));
    json_object_set_new(o, "n", whole(p->n));
    json_object_set_new(o, "dim", whole(p->dim));
    json_object_set_new(o, "nonzeros", whole(p->nonzeros));
    json_object_set_new(o, "dense", json_boolean(p->dense));
    json_object_set_new(o, "shards", whole(p->shard_count));
    json_object_set_new(o, "loss", json_string(skald_loss_name(p->objective.loss)));
    json_object_set_new(o, "l2", real(p->objective.l2));
    json_object_set_new(o, "l1", real(p->objective.l1));
    json_object_set_new(o, "nonconvex", real(p->objective.nonconvex));
    if (p->L > 0) json_object_set_new(o, "L", real(p->L));
    json_object_set_new(o, "L_max", real(p->L_max));
    for (size_t i = 0; i < options->count; i++)
        if (!options->table[i].hidden && options->texts[i])
            json_object_set_new(config, options->table[i].name, json_string(options->texts[i]));
    json_object_set_new(o, "config", config);
    if (chosen) json_object_set_new(o, "chosen", json_string(chosen));
    for (uint32_t k = 0; k < crew->ops->size(crew); k++) {
        const skald_member *m = crew->ops->member(crew, k);
        json_array_append_new(workers,
                              json_pack("{s:s, s:s, s:i, s:i, s:I}", "name", m->name, "device", m->device, "slots",
                                        (int)m->slots, "shards", (int)m->shard_count, "rows", (json_int_t)m->rows));
    }
    json_object_set_new(o, "workers", workers);
    write_line(log, o);
}

void skald_runlog_evaluation(skald_runlog *log, const skald_evaluation *e) {
    if (log->file) write_line(log, evaluation_json(event("evaluation"), e));
}

void skald_runlog_notice(skald_runlog *log, double seconds, const char *text) {
    if (!log->file) return;
    json_t *o = event("notice");
    json_object_set_new(o, "seconds", real(seconds));
    json_object_set_new(o, "text", json_string(text));
    write_line(log, o);
}

static json_t *worker_json(const skald_worker_row *w) {
    json_t *o = json_object();
    json_object_set_new(o, "name", json_string(w->name));
    json_object_set_new(o, "device", json_string(w->device));
    json_object_set_new(o, "alive", json_boolean(w->alive));
    json_object_set_new(o, "state", json_string(w->state));
    json_object_set_new(o, "shards", whole(w->shards));
    json_object_set_new(o, "slots", whole(w->slots));
    json_object_set_new(o, "rows_held", whole((double)w->rows_held));
    json_object_set_new(o, "tasks", whole((double)w->tasks));
    json_object_set_new(o, "rows", whole((double)w->rows));
    json_object_set_new(o, "staleness_last", whole((double)w->staleness_last));
    json_object_set_new(o, "staleness_mean", real(w->staleness_mean));
    json_object_set_new(o, "staleness_max", whole((double)w->staleness_max));
    json_object_set_new(o, "task_ms_mean", real(w->task_ms_mean));
    json_object_set_new(o, "wait_ms_mean", real(w->wait_ms_mean));
    json_object_set_new(o, "waited_s", real(w->waited_s));
    json_object_set_new(o, "network_ms_mean", real(w->network_ms_mean));
    json_t *occupied = json_array();
    for (int k = 0; k < SKALD_ROW_QUANTILES; k++) json_array_append_new(occupied, real(w->occupied_ms[k]));
    json_object_set_new(o, "occupied_ms", occupied);
    for (int p = 0; p < SKALD_PARTS; p++) {
        char key[32];
        snprintf(key, sizeof key, "%s_ms_mean", skald_part_name((skald_part)p));
        json_object_set_new(o, key, real(w->part_ms[p]));
    }
    json_object_set_new(o, "task_ms_p50", real(w->task_ms_p50));
    json_object_set_new(o, "task_ms_p95", real(w->task_ms_p95));
    json_object_set_new(o, "slowdown", real(w->slowdown));
    json_object_set_new(o, "cause", json_string(w->cause));
    json_object_set_new(o, "bytes_sent", whole((double)w->bytes_sent));
    json_object_set_new(o, "bytes_received", whole((double)w->bytes_received));
    json_object_set_new(o, "versions_sent", whole((double)w->versions_sent));
    json_object_set_new(o, "bytes_saved", whole((double)w->bytes_saved));
    json_object_set_new(o, "bytes_summed", whole((double)w->bytes_summed));
    return o;
}

void skald_runlog_end(skald_runlog *log, const skald_problem *p, const skald_outcome *out, const char *error) {
    if (!log->file) return;
    json_t *o = event("end"), *workers = json_array();
    if (error) json_object_set_new(o, "error", json_string(error));
    json_object_set_new(o, "stop", json_string(skald_stop_name(out->stop)));
    json_object_set_new(o, "reached", json_boolean(out->reached));
    json_object_set_new(o, "last", evaluation_json(json_object(), &out->last));
    json_object_set_new(o, "seconds", real(out->seconds));
    json_object_set_new(o, "train_seconds", real(out->train_seconds));
    json_object_set_new(o, "passes", real(out->passes));
    json_object_set_new(o, "rows_per_s", real(out->rows_per_s));
    json_object_set_new(o, "updates", whole((double)out->updates));
    json_object_set_new(o, "commits", whole((double)out->commits));
    json_object_set_new(o, "applied", whole((double)out->applied));
    json_object_set_new(o, "scaled", whole((double)out->scaled));
    json_object_set_new(o, "folded", whole((double)out->folded));
    json_object_set_new(o, "rejected", whole((double)out->rejected));
    json_object_set_new(o, "rollbacks", whole((double)out->rollbacks));
    json_object_set_new(o, "guards", whole((double)out->guards));
    json_object_set_new(o, "evaluations", whole((double)out->evaluations));
    json_object_set_new(o, "full_gradients", whole((double)out->full_gradients));
    json_object_set_new(o, "history_versions", whole((double)out->versions_held));
    json_object_set_new(o, "evictions", whole((double)out->evictions));
    json_object_set_new(o, "duplicates", whole((double)out->duplicates));
    json_object_set_new(o, "staleness_mean", real(out->staleness_mean));
    json_object_set_new(o, "staleness_max", whole((double)out->staleness_max));
    json_object_set_new(o, "step", real(out->step));
    json_object_set_new(o, "theta", real(out->theta));
    json_object_set_new(o, "step_rows", whole(out->step_rows));
    json_object_set_new(o, "task_rows", whole(out->task_rows));
    json_object_set_new(o, "audit_drift", out->audit_drift < 0 ? json_null() : real(out->audit_drift));
    if (p && p->L > 0) json_object_set_new(o, "L", real(p->L));
    if (p) json_object_set_new(o, "L_max", real(p->L_max));
    for (uint32_t k = 0; k < out->worker_count; k++) json_array_append_new(workers, worker_json(&out->workers[k]));
    json_object_set_new(o, "workers", workers);
    write_line(log, o);
}

char *skald_outcome_status(const skald_train_options *options, const skald_problem *problem, const skald_outcome *out) {
    json_t *o = json_object(), *workers = json_array();
    json_object_set_new(o, "state", json_string("ended"));
    json_object_set_new(o, "stop", json_string(skald_stop_name(out->stop)));
    json_object_set_new(o, "reached", json_boolean(out->reached));
    json_object_set_new(o, "mode", json_string(skald_mode_name(options)));
    json_object_set_new(o, "algo", json_string(skald_algo_name(options->algo)));
    if (options->chosen) json_object_set_new(o, "chosen", json_string(options->chosen));
    json_object_set_new(o, "version", whole((double)out->commits));
    json_object_set_new(o, "updates", whole((double)out->updates));
    json_object_set_new(o, "passes", real(out->passes));
    json_object_set_new(o, "seconds", real(out->seconds));
    json_object_set_new(o, "objective", real(out->last.objective));
    json_object_set_new(o, "gap", real(out->last.relative_gap));
    json_object_set_new(o, "rows_per_s", real(out->rows_per_s));
    json_object_set_new(o, "staleness_mean", real(out->staleness_mean));
    json_object_set_new(o, "staleness_max", whole((double)out->staleness_max));
    json_object_set_new(o, "applied", whole((double)out->applied));
    json_object_set_new(o, "scaled", whole((double)out->scaled));
    json_object_set_new(o, "folded", whole((double)out->folded));
    json_object_set_new(o, "rejected", whole((double)out->rejected));
    for (uint32_t k = 0; k < out->worker_count; k++) json_array_append_new(workers, worker_json(&out->workers[k]));
    json_object_set_new(o, "workers", workers);
    char *described = skald_problem_json(problem);
    json_object_set_new(o, "problem", json_loads(described ? described : "", 0, NULL));
    free(described);
    char *text = json_dumps(o, JSON_COMPACT);
    json_decref(o);
    return text;
}
