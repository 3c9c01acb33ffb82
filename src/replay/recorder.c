#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "base/queue.h"
#include "replay/record.h"

enum { CHUNK = 1 << 16, LONGEST_LINE = 4096 };
#define FLUSH_NS (SKALD_NS_PER_S / 2)

typedef struct chunk {
    size_t used;
    char text[CHUNK];
} chunk;

struct skald_recorder {
    skald_crew crew; /* first: the recorder is the crew that the engine sees */
    skald_clock clock;
    skald_crew *inner;
    skald_clock *real;
    const atomic_int *asked; /* may be NULL */
    atomic_int stop;
    int64_t begin_ns, now_ns; /* the clock's; now: of the last event */
    char *path;
    FILE *file;
    chunk *filling;
    int64_t flushed_ns;
    skald_queue *full; /* chunk *: to be written; NULL: the end */
    pthread_t writer;
    int error; /* errno of the first write that failed; the writer's until it is joined */
    bool lost; /* out of memory for a chunk: lines are missing */
};

/* ---- lines to the file -------------------------------------------------------------------------------- */

static void *writer_main(void *argument) {
    skald_recorder *r = argument;
    chunk *c = NULL;
    while (skald_queue_pop(r->full, &c, -1) == SKALD_OK && c) {
        if (!r->error && (fwrite(c->text, 1, c->used, r->file) != c->used || fflush(r->file) != 0))
            r->error = errno ? errno : EIO;
        free(c);
    }
    return NULL;
}

static void hand_over(skald_recorder *r) {
    if (r->filling && r->filling->used && skald_queue_push(r->full, &r->filling) == SKALD_OK) r->filling = NULL;
    r->flushed_ns = skald_now_ns(r->real);
}

static void write_line(skald_recorder *r, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void write_line(skald_recorder *r, const char *format, ...) {
    if (r->filling && CHUNK - r->filling->used < LONGEST_LINE) hand_over(r);
    if (!r->filling && (r->filling = skald_alloc(1, sizeof *r->filling))) r->filling->used = 0;
    if (!r->filling || CHUNK - r->filling->used < LONGEST_LINE) {
        r->lost = true;
        return;
    }
    va_list args;
    va_start(args, format);
    r->filling->used += (size_t)vsnprintf(r->filling->text + r->filling->used, LONGEST_LINE, format, args);
    va_end(args);
    r->filling->text[r->filling->used++] = '\n';
}

/* "text" in quotes, cut to fit; returns out. */
static const char *quoted(const char *text, char out[2048]) {
    size_t used = 0;
    out[used++] = '"';
    for (; *text && used < 2040; text++) {
        const unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\')
            used += (size_t)sprintf(out + used, "\\%c", c);
        else if (c < 0x20 || c > 0x7e)
            out[used++] = '?';
        else
            out[used++] = (char)c;
    }
    out[used++] = '"';
    out[used] = '\0';
    return out;
}

/* ---- the crew, the clock ------------------------------------------------------------------------------- */

static skald_recorder *of(const skald_crew *crew) {
    return (skald_recorder *)(uintptr_t)crew;
}

static int64_t since(const skald_recorder *r, int64_t ns) {
    return ns - r->begin_ns;
}

static uint32_t size(const skald_crew *crew) {
    const skald_crew *inner = of(crew)->inner;
    return inner->ops->size(inner);
}

static const skald_member *member(const skald_crew *crew, uint32_t worker) {
    const skald_crew *inner = of(crew)->inner;
    return inner->ops->member(inner, worker);
}

static skald_status submit(skald_crew *crew, uint32_t worker, const skald_task *t) {
    skald_recorder *r = of(crew);
    write_line(r,
               "{\"do\":\"task\",\"id\":%" PRIu64 ",\"worker\":%u,\"kind\":\"%s\",\"shard\":%lld,\"at\":%" PRIu64
               ",\"rows\":%u,\"b\":%u,\"eta\":%.17g,\"theta\":%.17g,\"after\":%" PRIu64 ",\"version\":%" PRIu64
               ",\"origin\":%" PRIu64 ",\"before\":%" PRIu64 ",\"commits\":%" PRIu64 ",\"generation\":%u}",
               t->id, worker, skald_task_kind_name(t->kind),
               t->shard == SKALD_ALL_SHARDS ? (long long)SKALD_RECORD_ALL : (long long)t->shard, t->position, t->rows,
               t->step_rows, t->eta, t->theta, t->after, t->model ? t->model->id : 0, t->origin ? t->origin->id : 0,
               t->before, t->model ? t->model->commits : 0, t->generation);
    return r->inner->ops->submit(r->inner, worker, t);
}

static void write_result(skald_recorder *r, const skald_result *x) {
    char text[2048], failure[2100] = "";
    if (x->status != SKALD_OK)
        snprintf(failure, sizeof failure, ",\"status\":%d,\"error\":%s", (int)x->status, quoted(x->error, text));
    write_line(r,
               "{\"do\":\"result\",\"t\":%" PRId64 ",\"id\":%" PRIu64 ",\"arrived\":%" PRId64 ",\"wait\":%" PRId64
               ",\"receive\":%" PRId64 ",\"compute\":%" PRId64 ",\"delay\":%" PRId64 ",\"came\":%" PRId64
               ",\"posted\":%" PRId64 "%s}",
               since(r, r->now_ns), x->task, since(r, x->arrived_ns), x->wait_ns, x->receive_ns, x->compute_ns,
               x->delay_ns, x->came_ns, x->posted_ns, failure);
}

static void write_joined(skald_recorder *r, uint32_t worker) {
    const skald_member *m = r->inner->ops->member(r->inner, worker);
    char name[2048], device[2048];
    write_line(
        r, "{\"do\":\"joined\",\"t\":%" PRId64 ",\"worker\":%u,\"name\":%s,\"device\":%s,\"slots\":%u,\"depth\":%u}",
        since(r, r->now_ns), worker, quoted(m->name, name), quoted(m->device, device), m->slots, m->depth);
}

/* What of it the engine can base a decision on; status and models that somebody asks for are not of that kind. */
static void write_event(skald_recorder *r, const skald_event *event) {
    const int64_t t = since(r, r->now_ns);
    char text[2048];
    switch (event->kind) {
    case SKALD_EVENT_NONE: /* a limit may have been reached, though nothing is handed out */
        write_line(r, "{\"do\":\"tick\",\"t\":%" PRId64 "}", t);
        break;
    case SKALD_EVENT_RESULT:
        write_result(r, event->result);
        break;
    case SKALD_EVENT_LOST:
        write_line(r, "{\"do\":\"lost\",\"t\":%" PRId64 ",\"worker\":%u,\"reason\":%s}", t, event->worker,
                   quoted(event->reason ? event->reason : "", text));
        break;
    case SKALD_EVENT_JOINED:
        write_joined(r, event->worker);
        break;
    case SKALD_EVENT_WITHDRAWN:
    case SKALD_EVENT_LEASED:
        write_line(r, "{\"do\":\"%s\",\"t\":%" PRId64 ",\"worker\":%u,\"shard\":%u}",
                   event->kind == SKALD_EVENT_LEASED ? "leased" : "withdrawn", t, event->worker, event->shard);
        break;
    case SKALD_EVENT_REQUEST:
        if (event->request == SKALD_REQUEST_AUDIT) write_line(r, "{\"do\":\"audit\",\"t\":%" PRId64 "}", t);
        break;
    }
}

static skald_status next(skald_crew *crew, int64_t timeout_ns, skald_event *event) {
    skald_recorder *r = of(crew);
    if (r->asked && *r->asked && !r->stop) {
        r->stop = 1;
        memset(event, 0, sizeof *event);
        write_line(r, "{\"do\":\"interrupt\",\"t\":%" PRId64 "}", since(r, r->now_ns));
        return SKALD_OK;
    }
    TRY(r->inner->ops->next(r->inner, timeout_ns, event));
    r->now_ns = skald_now_ns(r->real);
    write_event(r, event);
    if (r->now_ns - r->flushed_ns > FLUSH_NS) hand_over(r);
    return SKALD_OK;
}

static void release(skald_crew *crew, skald_result *result) {
    of(crew)->inner->ops->release(of(crew)->inner, result);
}

static void answer(skald_crew *crew, void *asker, const char *json, skald_version *model) {
    of(crew)->inner->ops->answer(of(crew)->inner, asker, json, model);
}

static void destroy(skald_crew *crew, skald_status code, const char *reason) {
    of(crew)->inner->ops->destroy(of(crew)->inner, code, reason);
}

static void expel(skald_crew *crew, uint32_t worker, const char *reason) {
    of(crew)->inner->ops->expel(of(crew)->inner, worker, reason);
}

static const skald_crew_ops ops = {size, member, submit, next, release, answer, destroy, expel};

static int64_t frozen_now(skald_clock *clock) {
    const skald_recorder *r = (const skald_recorder *)(void *)((char *)clock - offsetof(skald_recorder, clock));
    return r->now_ns;
}

/* ---- the first line and the last ---------------------------------------------------------------------- */

/* Where things are written, and who listens: none of a replay's business. */
static bool left_out(const char *name) {
    static const char *const names[] = {"record", "model", "export", "log",      "progress", "quiet",
                                        "listen", "wait",  "linger", "insecure", "connect"};
    for (size_t k = 0; k < SKALD_ARRAY_LENGTH(names); k++)
        if (strcmp(name, names[k]) == 0) return true;
    return false;
}

bool skald_record_isa(const char *device, char out[32]) {
    const size_t length = strncmp(device, "cpu (", 5) == 0 ? strcspn(device + 5, ",)") : 0;
    if (length == 0 || length >= 32) return false;
    memcpy(out, device + 5, length);
    out[length] = '\0';
    return true;
}

static skald_status first_line(const skald_recording *what, const skald_crew *crew, char **out) {
    const skald_problem *p = crew->problem;
    char isa[32] = "", one[32], text[24];
    json_t *root = json_object(), *options = json_object(), *given = json_array(), *shards = json_array(),
           *workers = json_array();
    skald_status st = SKALD_OK;
    for (size_t i = 0; what->options && i < what->options->count; i++) {
        const char *name = what->options->table[i].name;
        if (left_out(name) || !what->options->texts[i]) continue;
        json_object_set_new(options, name, json_string(what->options->texts[i]));
        if (what->options->sources[i] != SKALD_FROM_DEFAULT) json_array_append_new(given, json_string(name));
    }
    for (uint32_t k = 0; k < p->shard_count; k++) {
        snprintf(text, sizeof text, "%016" PRIx64, p->shards[k].checksum);
        json_array_append_new(shards, json_string(text));
    }
    for (uint32_t k = 0; k < crew->ops->size(crew); k++) {
        const skald_member *m = crew->ops->member(crew, k);
        json_t *held = json_array();
        for (uint32_t i = 0; i < m->shard_count; i++) json_array_append_new(held, json_integer(m->shards[i]));
        if (!skald_record_isa(m->device, one))
            st = skald_fail(SKALD_EUNSUPPORTED, "--record: %s computes on %s; only CPUs can be replayed", m->name,
                            m->device);
        else if (isa[0] && strcmp(isa, one) != 0)
            st = skald_fail(SKALD_EUNSUPPORTED,
                            "--record: workers with different instruction sets (%s, and %s at %s) cannot be replayed; "
                            "give them all --isa %s",
                            isa, one, m->name, strcmp(one, "avx512") == 0 ? isa : one);
        snprintf(isa, sizeof isa, "%s", one);
        json_array_append_new(workers, json_pack("{s:s,s:s,s:i,s:i,s:o}", "name", m->name, "device", m->device, "slots",
                                                 (int)m->slots, "depth", (int)m->depth, "shards", held));
    }
    json_object_set_new(root, "skald_record", json_integer(SKALD_RECORD_VERSION));
    json_object_set_new(root, "version", json_string(SKALD_VERSION));
    json_object_set_new(root, "command", json_string(what->command));
    json_object_set_new(root, "data", json_string(what->data));
    json_object_set_new(root, "options", options);
    json_object_set_new(root, "given", given);
    json_object_set_new(root, "n", json_real(p->n));
    json_object_set_new(root, "length", json_integer(skald_problem_length(p)));
    json_object_set_new(root, "floats", json_boolean(what->floats));
    json_object_set_new(root, "isa", json_string(isa));
    json_object_set_new(root, "most", json_integer(crew->most));
    json_object_set_new(root, "shards", shards);
    json_object_set_new(root, "workers", workers);
    *out = st == SKALD_OK ? json_dumps(root, JSON_COMPACT) : NULL;
    json_decref(root);
    return st != SKALD_OK ? st : *out ? SKALD_OK : skald_fail(SKALD_ENOMEM, "out of memory for a record");
}

static void free_recorder(skald_recorder *r) {
    skald_queue_destroy(r->full);
    if (r->file) fclose(r->file);
    free(r->filling);
    free(r->path);
    free(r);
}

skald_status skald_recorder_open(const skald_recording *what, skald_crew *crew, skald_clock *clock,
                                 const atomic_int *stop_flag, skald_recorder **out) {
    char *line = NULL;
    TRY(first_line(what, crew, &line));
    skald_recorder *r = skald_zalloc(1, sizeof *r);
    skald_status st = r ? SKALD_OK : SKALD_ENOMEM;
    if (st == SKALD_OK && !(r->path = strdup(what->path))) st = skald_fail(SKALD_ENOMEM, "out of memory");
    if (st == SKALD_OK && !(r->file = fopen(what->path, "we")))
        st = skald_fail(SKALD_EIO, "--record %s: cannot write it: %s", what->path, strerror(errno));
    if (st == SKALD_OK && (fputs(line, r->file) == EOF || fputc('\n', r->file) == EOF || fflush(r->file) != 0))
        st = skald_fail(SKALD_EIO, "--record %s: cannot write it: %s", what->path, strerror(errno));
    free(line);
    if (st == SKALD_OK) st = skald_queue_create(sizeof(chunk *), 0, &r->full);
    if (st == SKALD_OK && pthread_create(&r->writer, NULL, writer_main, r) != 0)
        st = skald_fail(SKALD_ENOMEM, "cannot start a thread");
    if (st != SKALD_OK) {
        if (r) free_recorder(r);
        return st;
    }
    r->crew = (skald_crew){.ops = &ops, .problem = crew->problem, .most = crew->most, .manifest = crew->manifest};
    r->clock.now_ns = frozen_now;
    r->inner = crew;
    r->real = clock;
    r->asked = stop_flag;
    r->begin_ns = r->now_ns = r->flushed_ns = skald_now_ns(clock);
    *out = r;
    return SKALD_OK;
}

skald_crew *skald_recorder_crew(skald_recorder *r) {
    return &r->crew;
}

skald_clock *skald_recorder_clock(skald_recorder *r) {
    return &r->clock;
}

const atomic_int *skald_recorder_stop(skald_recorder *r) {
    return &r->stop;
}

void skald_recorder_merged(skald_recorder *r, const skald_merged *m) {
    write_line(r,
               "{\"do\":\"merge\",\"id\":%" PRIu64 ",\"how\":\"%s\",\"stale\":%" PRIu64
               ",\"step\":%.17g,\"q\":%.17g,\"commits\":%" PRIu64 ",\"generation\":%u}",
               m->task, m->how, m->staleness, m->step, m->bias, m->commits, m->generation);
}

uint64_t skald_model_hash(const double *w, uint32_t length) {
    return skald_hash(w, (size_t)length * sizeof *w, 0);
}

skald_status skald_recorder_close(skald_recorder *r, const skald_outcome *outcome, const char *error) {
    if (!r) return SKALD_OK;
    char text[2048];
    if (error || !outcome->w)
        write_line(r, "{\"do\":\"failed\",\"error\":%s}", quoted(error ? error : "no model", text));
    else
        write_line(r, "{\"do\":\"end\",\"stop\":\"%s\",\"updates\":%" PRIu64 ",\"model\":\"%016" PRIx64 "\"}",
                   skald_stop_name(outcome->stop), outcome->updates,
                   skald_model_hash(outcome->w, skald_problem_length(r->crew.problem)));
    hand_over(r);
    chunk *end = NULL;
    if (r->filling || skald_queue_push(r->full, &end) != SKALD_OK) {
        r->lost = true;
        skald_queue_close(r->full);
    }
    pthread_join(r->writer, NULL);
    skald_status st = SKALD_OK;
    if (fclose(r->file) != 0 && !r->error) r->error = errno;
    r->file = NULL;
    if (r->error) st = skald_fail(SKALD_EIO, "--record %s: cannot write it: %s", r->path, strerror(r->error));
    if (r->lost) st = skald_fail(SKALD_ENOMEM, "--record %s: lines are missing: out of memory", r->path);
    free_recorder(r);
    return st;
}
