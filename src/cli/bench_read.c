/* What a run's log and record say of it. */
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/bench.h"
#include "replay/record.h"
#include "skald/task.h"

enum { MOST_SPANS = 20000 };

static double number(json_t *o, const char *name) {
    return json_number_value(json_object_get(o, name));
}

static skald_status add_point(bench_run *run, bench_point p) {
    bench_point *grown = realloc(run->points, (size_t)(run->point_count + 1) * sizeof *grown);
    if (!grown) return skald_fail(SKALD_ENOMEM, "out of memory");
    run->points = grown;
    run->points[run->point_count++] = p;
    return SKALD_OK;
}

static void read_end(bench_run *run, json_t *o) {
    json_t *w;
    size_t i;
    double tasks = 0;
    run->reached = json_is_true(json_object_get(o, "reached"));
    run->seconds = number(o, "train_seconds");
    run->updates = number(o, "updates");
    run->passes = number(o, "passes");
    run->stale_mean = number(o, "staleness_mean");
    run->stale_max = number(o, "staleness_max");
    json_array_foreach(json_object_get(o, "workers"), i, w) {
        tasks += number(w, "tasks");
        run->wait_ms += 1e3 * number(w, "waited_s");
        run->task_ms += number(w, "tasks") * number(w, "task_ms_mean");
        run->mb += (number(w, "bytes_sent") + number(w, "bytes_received")) * 1e-6;
    }
    if (tasks > 0) run->wait_ms /= tasks, run->task_ms /= tasks;
}

/* When the target was passed: between the last evaluation above it and the first at it, linear in the logarithm. */
static double passed(const bench *b, const bench_run *run) {
    const bench_point *last = NULL;
    for (int k = 0; k < run->point_count; k++) {
        const bench_point *p = &run->points[k];
        if (p->gap <= b->s->gap) {
            if (!last || !(last->gap > b->s->gap) || !(p->gap > 0)) return p->seconds;
            const double share = log(last->gap / b->s->gap) / log(last->gap / p->gap);
            return last->seconds + share * (p->seconds - last->seconds);
        }
        last = p;
    }
    return run->seconds;
}

/* ---- the record ------------------------------------------------------------------------------------------ */

typedef struct handed {
    uint64_t id;
    uint32_t worker;
} handed;

static bool trains(const char *name) {
    skald_task_kind kind = SKALD_TASK_GRADIENT;
    while (skald_task_trains(kind) && strcmp(name, skald_task_kind_name(kind)) != 0) kind++;
    return skald_task_trains(kind);
}

static skald_status read_record(bench_run *run, const char *path) {
    skald_record record;
    TRY(skald_record_open(path, &record));
    handed *out = calloc(65536, sizeof *out); /* by id modulo: tasks out at a time are far fewer */
    run->spans = calloc(MOST_SPANS, sizeof *run->spans);
    skald_status st = out && run->spans ? SKALD_OK : skald_fail(SKALD_ENOMEM, "out of memory");
    int64_t zero = 0;
    while (st == SKALD_OK && record.line.kind != SKALD_RECORD_END && record.line.kind < SKALD_RECORD_FAILED) {
        const skald_record_line *l = &record.line;
        if (l->kind == SKALD_RECORD_TASK && trains(l->what)) out[l->id % 65536] = (handed){l->id, l->worker};
        if (l->kind == SKALD_RECORD_MERGE && strcmp(l->what, "repair") != 0)
            run->stale[l->stale < BENCH_STALE_MAX ? l->stale : BENCH_STALE_MAX - 1]++;
        const handed *h = &out[l->id % 65536];
        if (l->kind == SKALD_RECORD_RESULT && h->id == l->id && run->span_count < MOST_SPANS) {
            if (!zero) zero = l->came;
            const int64_t begun = l->came + l->receive;
            run->spans[run->span_count++] =
                (bench_span){h->worker, 1e-9 * (double)(l->came - zero), 1e-9 * (double)(begun - zero),
                             1e-9 * (double)(begun + l->compute - zero), 1e-9 * (double)(l->posted - zero)};
        }
        st = skald_record_next(&record);
    }
    free(out);
    skald_record_close(&record);
    return st;
}

skald_status bench_read(bench *b, bench_run *run, const char *log, const char *record) {
    FILE *file = fopen(log, "re");
    if (!file) return skald_fail(SKALD_EIO, "%s: %s", log, strerror(errno));
    char *line = NULL;
    size_t size = 0;
    bool ended = false;
    skald_status st = SKALD_OK;
    while (st == SKALD_OK && getline(&line, &size, file) > 0) {
        json_t *o = json_loads(line, 0, NULL);
        const char *event = json_string_value(json_object_get(o, "event"));
        if (event && strcmp(event, "evaluation") == 0) {
            const double objective = number(o, "objective");
            const double gap = b->optimum != 0 ? (objective - b->optimum) / fabs(b->optimum) : objective;
            st = add_point(run, (bench_point){number(o, "train_seconds"), number(o, "passes"), gap});
        }
        if (event && strcmp(event, "start") == 0) {
            const char *loss = json_string_value(json_object_get(o, "loss"));
            b->n = number(o, "n");
            b->logistic = loss && strcmp(loss, "logistic") == 0;
        }
        if (event && strcmp(event, "end") == 0) read_end(run, o), ended = true;
        json_decref(o);
    }
    free(line);
    fclose(file);
    if (st == SKALD_OK && (!ended || !run->point_count)) st = skald_fail(SKALD_EDATA, "%s: the run did not end", log);
    if (st == SKALD_OK) run->to_target = passed(b, run);
    if (st == SKALD_OK && record) st = read_record(run, record);
    return st;
}
