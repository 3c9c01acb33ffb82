#include "http/snapshot.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"

snapshot *snapshot_take(const history *h, const history_lane *lanes, char *status, int64_t now_ns, bool final) {
    enum { LANE = HISTORY_CELLS * HISTORY_LANES };
    snapshot *s = calloc(1, sizeof *s);
    if (!s) {
        free(status);
        return NULL;
    }
    s->refs = 1;
    s->number = h->next;
    s->taken_ns = now_ns;
    s->final = final;
    s->status = status;
    s->history = *h;
    s->lanes = malloc((size_t)h->lanes * LANE + 1);
    s->until = malloc((h->lanes + 1) * sizeof *s->until);
    s->part_s = malloc((size_t)(h->lanes + 1) * SKALD_PARTS * sizeof *s->part_s);
    if (!s->status || !s->lanes || !s->until || !s->part_s) {
        snapshot_unref(s);
        return NULL;
    }
    for (uint32_t k = 0; k < h->lanes; k++) {
        for (uint32_t place = 0; place < HISTORY_CELLS; place++)
            history_cell_text(&lanes[k], place, s->lanes + (size_t)k * LANE + (size_t)place * HISTORY_LANES);
        s->until[k] = lanes[k].until;
        memcpy(s->part_s + (size_t)k * SKALD_PARTS, lanes[k].part_s, sizeof lanes[k].part_s);
    }
    return s;
}

void snapshot_unref(snapshot *s) {
    if (!s || atomic_fetch_sub(&s->refs, 1) != 1) return;
    json_decref(s->parsed);
    free(s->status);
    free(s->lanes);
    free(s->until);
    free(s->part_s);
    free(s);
}

json_t *snapshot_status(snapshot *s) {
    if (!s->parsed) s->parsed = json_loads(s->status, 0, NULL);
    if (!json_is_object(s->parsed)) {
        json_decref(s->parsed);
        s->parsed = json_object();
    }
    return s->parsed;
}

/* ---- /live.json -------------------------------------------------------------------------------------------- */

static json_t *number(double x) { /* JSON has no NaN or infinity */
    return isfinite(x) ? json_real(x) : json_null();
}

/* All but what is long and not on the page; the workers are told apart, without their keys. */
static json_t *short_status(const json_t *status) {
    json_t *out = json_object(), *value;
    const char *key;
    json_object_foreach((json_t *)(uintptr_t)status, key, value) {
        if (strcmp(key, "workers") == 0 || strcmp(key, "shards") == 0 || strcmp(key, "problem") == 0) continue;
        json_object_set(out, key, value);
    }
    const json_t *problem = json_object_get(status, "problem");
    if (problem) {
        static const char *const kept[] = {"loss", "rows", "features", "l2", "l1"};
        json_t *some = json_object();
        for (size_t k = 0; k < SKALD_ARRAY_LENGTH(kept); k++) {
            json_t *one = json_object_get(problem, kept[k]);
            if (one) json_object_set(some, kept[k], one);
        }
        json_object_set_new(out, "problem", some);
    }
    return out;
}

static const char *const columns[] = {
    "name",          "device",         "state",          "cause",           "rows_held",     "shards",
    "tasks",         "staleness_last", "staleness_mean", "staleness_max",   "task_ms_mean",  "task_ms_p50",
    "task_ms_p95",   "wait_ms_mean",   "slowdown",       "receive_ms_mean", "held_ms_mean",  "compute_ms_mean",
    "delay_ms_mean", "send_ms_mean",   "queue_ms_mean",  "bytes_sent",      "bytes_received"};

static void add_workers(json_t *out, const json_t *status) {
    json_t *names = json_array(), *rows = json_array(), *worker;
    size_t k;
    for (size_t c = 0; c < SKALD_ARRAY_LENGTH(columns); c++) json_array_append_new(names, json_string(columns[c]));
    json_array_foreach(json_object_get(status, "workers"), k, worker) {
        json_t *row = json_array();
        for (size_t c = 0; c < SKALD_ARRAY_LENGTH(columns); c++) {
            json_t *value = json_object_get(worker, columns[c]);
            if (value)
                json_array_append(row, value);
            else
                json_array_append_new(row, json_null());
        }
        json_array_append_new(rows, row);
    }
    json_object_set_new(out, "columns", names);
    json_object_set_new(out, "workers", rows);
}

static json_t *points_after(const history_series *s, uint64_t after) {
    json_t *out = json_array();
    for (uint32_t k = 0; k < s->count; k++) {
        if (s->points[k].snapshot <= after) continue;
        json_t *point = json_array();
        for (int j = 0; j + 1 < HISTORY_WIDTH; j++) json_array_append_new(point, number(s->points[k].v[j]));
        json_array_append_new(out, point);
    }
    return out;
}

/* [half second, "ccddnnqq..."]: a cell of every worker, one after the other. */
static json_t *cells_after(const snapshot *s, uint64_t after) {
    const history *h = &s->history;
    json_t *out = json_array();
    char *text = malloc((size_t)h->lanes * HISTORY_LANES + 1);
    for (uint32_t place = 0; text && place < HISTORY_CELLS; place++) {
        if (h->cell[place] < 0 || h->changed[place] <= after) continue;
        for (uint32_t k = 0; k < h->lanes; k++)
            memcpy(text + (size_t)k * HISTORY_LANES, s->lanes + ((size_t)k * HISTORY_CELLS + place) * HISTORY_LANES,
                   HISTORY_LANES);
        json_array_append_new(out,
                              json_pack("[I,s#]", (json_int_t)h->cell[place], text, (int)(h->lanes * HISTORY_LANES)));
    }
    free(text);
    return out;
}

static json_t *counts(const uint64_t *of, uint32_t size) {
    json_t *out = json_array();
    uint32_t used = size;
    while (used && !of[used - 1]) used--;
    for (uint32_t k = 0; k < used; k++) json_array_append_new(out, json_integer((json_int_t)of[k]));
    return out;
}

static json_t *notices_after(const history *h, uint64_t after) {
    json_t *out = json_array();
    const uint64_t kept = h->notice_count < HISTORY_NOTICES ? h->notice_count : HISTORY_NOTICES;
    for (uint64_t k = h->notice_count - kept; k < h->notice_count; k++) {
        const history_notice *n = &h->notices[k % HISTORY_NOTICES];
        /* NULL where the text is not UTF-8 */
        json_t *one = n->snapshot > after ? json_pack("[f,s]", n->seconds, n->text) : NULL;
        if (one) json_array_append_new(out, one);
    }
    return out;
}

char *snapshot_live(snapshot *s, uint64_t after, const char *instance, int64_t now_ns) {
    const json_t *status = snapshot_status(s);
    if (after > s->number) after = 0; /* of another run at this address */
    json_t *out = json_object(), *until = json_array();
    for (uint32_t k = 0; k < s->history.lanes; k++) json_array_append_new(until, json_real(s->until[k]));
    json_object_set_new(out, "instance", json_string(instance));
    json_object_set_new(out, "snapshot", json_integer((json_int_t)s->number));
    json_object_set_new(out, "age_s", json_real((double)(now_ns - s->taken_ns) * 1e-9));
    json_object_set_new(out, "final", json_boolean(s->final));
    json_object_set_new(out, "status", short_status(status));
    add_workers(out, status);
    json_object_set_new(out, "evaluations", points_after(&s->history.evaluations, after));
    json_object_set_new(out, "samples", points_after(&s->history.samples, after));
    json_object_set_new(out, "staleness", counts(s->history.stale, HISTORY_STALE + 1));
    json_object_set_new(out, "notices", notices_after(&s->history, after));
    json_object_set_new(out, "cell_s", json_real(HISTORY_CELL_MS * 1e-3));
    json_object_set_new(out, "cells", cells_after(s, after));
    json_object_set_new(out, "until", until);
    char *text = json_dumps(out, JSON_COMPACT | JSON_REAL_PRECISION(12));
    json_decref(out);
    return text;
}
