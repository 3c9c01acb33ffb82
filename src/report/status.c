#include "report/report.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Missing or null: `otherwise`. Counts and reals alike. */
static double number(const json_t *object, const char *key, double otherwise) {
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : otherwise;
}

static uint64_t count_of(const json_t *object, const char *key) {
    double value = number(object, key, 0);
    return value > 0 && value < 1e19 ? (uint64_t)value : 0;
}

/* Text of a peer: cut to size, control characters out, since it is going to a terminal. */
static void text(const json_t *object, const char *key, char *out, size_t size) {
    const char *value = json_string_value(json_object_get(object, key));
    snprintf(out, size, "%s", value ? value : "?");
    for (char *c = out; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f) *c = '?';
}

static void parse_worker(const json_t *o, skald_worker_row *w) {
    text(o, "name", w->name, sizeof w->name);
    text(o, "device", w->device, sizeof w->device);
    w->alive = json_is_true(json_object_get(o, "alive"));
    w->shards = (uint32_t)count_of(o, "shards");
    w->slots = (uint32_t)count_of(o, "slots");
    w->rows_held = count_of(o, "rows_held");
    w->tasks = count_of(o, "tasks");
    w->rows = count_of(o, "rows");
    w->staleness_last = count_of(o, "staleness_last");
    w->staleness_mean = number(o, "staleness_mean", 0);
    w->staleness_max = count_of(o, "staleness_max");
    w->task_ms_mean = number(o, "task_ms_mean", 0);
    w->wait_ms_mean = number(o, "wait_ms_mean", 0);
    w->waited_s = number(o, "waited_s", 0);
    text(o, "state", w->state, sizeof w->state);
    text(o, "cause", w->cause, sizeof w->cause);
    if (strcmp(w->cause, "?") == 0) w->cause[0] = '\0';
    for (int p = 0; p < SKALD_PARTS; p++) {
        char key[32];
        snprintf(key, sizeof key, "%s_ms_mean", skald_part_name((skald_part)p));
        w->part_ms[p] = number(o, key, 0);
    }
    w->task_ms_p50 = number(o, "task_ms_p50", 0);
    w->task_ms_p95 = number(o, "task_ms_p95", 0);
    w->slowdown = number(o, "slowdown", 1);
    w->network_ms_mean = number(o, "network_ms_mean", 0);
    w->bytes_sent = count_of(o, "bytes_sent");
    w->bytes_received = count_of(o, "bytes_received");
}

static void parse_progress(const json_t *o, const skald_status_view *v, skald_progress *p) {
    p->seconds = number(o, "seconds", 0);
    p->passes = number(o, "passes", 0);
    p->rows_per_s = number(o, "rows_per_s", 0);
    p->updates_per_s = number(o, "updates_per_s", 0);
    p->estimated_objective = number(o, "estimated_objective", NAN);
    p->last_objective = number(o, "objective", NAN);
    p->last_gap = number(o, "gap", NAN);
    p->workers = v->worker_count;
    p->slowest = UINT32_MAX;
    p->staleness_mean = number(o, "staleness_mean", 0);
    p->staleness_max = count_of(o, "staleness_max");
    const json_t *slowest = json_object_get(o, "slowest");
    if (json_is_object(slowest)) {
        p->slowest = 0; /* which one does not matter here, its name does */
        p->slowest_ratio = number(slowest, "ratio", 1);
        text(slowest, "name", p->slowest_name, sizeof p->slowest_name);
    }
}

static void parse_problem(const json_t *o, skald_status_view *v) {
    const char *loss = json_string_value(json_object_get(o, "loss"));
    const json_t *labels = json_object_get(o, "labels");
    size_t count = json_array_size(labels);
    if (!loss || skald_loss_parse(loss, &v->objective.loss) != SKALD_OK) return;
    const bool many = v->objective.loss == SKALD_SOFTMAX;
    if (many ? count < 2 || count > SKALD_MAX_LABELS : count > 2) return;
    v->labels = calloc(count + 1, sizeof *v->labels);
    v->has_problem = v->labels != NULL;
    if (!v->has_problem) return;
    v->objective.huber_delta = number(o, "huber_delta", 1);
    v->objective.l2 = number(o, "l2", 0);
    v->objective.l1 = number(o, "l1", 0);
    v->objective.nonconvex = number(o, "nonconvex", 0);
    v->objective.intercept = json_is_true(json_object_get(o, "intercept"));
    v->objective.classes = many ? (uint32_t)count : 1;
    v->features = (uint32_t)count_of(o, "features");
    v->rows = number(o, "rows", 0);
    v->scaled = json_is_true(json_object_get(o, "scaled"));
    v->zero_based = json_is_true(json_object_get(o, "zero_based"));
    v->label_count = (uint32_t)count;
    for (size_t k = 0; k < count; k++) v->labels[k] = json_number_value(json_array_get(labels, k));
}

skald_status skald_status_parse(const char *json, skald_status_view *out) {
    memset(out, 0, sizeof *out);
    json_error_t error;
    json_t *o = json_loads(json, JSON_REJECT_DUPLICATES, &error);
    if (!json_is_object(o)) {
        json_decref(o);
        return skald_fail(SKALD_EPEER, "the coordinator's status is not a JSON object: %s", error.text);
    }
    text(o, "run", out->run, sizeof out->run);
    text(o, "state", out->state, sizeof out->state);
    text(o, "mode", out->mode, sizeof out->mode);
    text(o, "algo", out->algo, sizeof out->algo);
    out->ended = strcmp(out->state, "ended") == 0;
    out->reached = json_is_true(json_object_get(o, "reached"));
    out->joined = count_of(o, "joined");
    out->wanted = count_of(o, "wanted");
    out->term = count_of(o, "term");
    out->version = count_of(o, "version");
    out->updates = count_of(o, "updates");
    out->available = count_of(o, "available");
    out->in_flight = count_of(o, "in_flight");
    out->applied = count_of(o, "applied");
    out->shortened = count_of(o, "scaled");
    out->folded = count_of(o, "folded");
    out->rejected = count_of(o, "rejected");
    out->coverage = number(o, "coverage", NAN);

    const json_t *workers = json_object_get(o, "workers"), *audit = json_object_get(o, "audit");
    size_t count = json_array_size(workers);
    skald_status st = SKALD_OK;
    if (count) out->workers = calloc(count, sizeof *out->workers);
    if (count && !out->workers)
        st = skald_fail(SKALD_ENOMEM, "out of memory");
    else
        out->worker_count = (uint32_t)count;
    for (size_t k = 0; k < out->worker_count; k++) parse_worker(json_array_get(workers, k), &out->workers[k]);
    parse_progress(o, out, &out->progress);
    if (json_is_object(audit)) {
        out->audited = true;
        out->audit_shards = (uint32_t)count_of(audit, "shards");
        out->audit_drift = number(audit, "drift", NAN);
    }
    if (st == SKALD_OK) parse_problem(json_object_get(o, "problem"), out);
    json_decref(o);
    return st;
}

void skald_status_view_free(skald_status_view *view) {
    free(view->workers);
    free(view->labels);
    memset(view, 0, sizeof *view);
}
