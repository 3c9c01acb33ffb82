#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/base.h"
#include "replay/record.h"

enum { MOST_WORKERS = 100000 };

struct skald_record_file {
    FILE *file;
    char *text;
    size_t size;
    unsigned number; /* of the line read last */
};

static skald_status bad(const skald_record *r, const char *why) {
    return skald_fail(SKALD_EDATA, "%s:%u: not a line of a record: %s", r->path, r->file->number, why);
}

/* The next line as an object; *out NULL at the end of the file, or of what was written whole. */
static skald_status read_object(skald_record *r, json_t **out) {
    struct skald_record_file *f = r->file;
    *out = NULL;
    f->number++;
    errno = 0;
    const ssize_t length = getline(&f->text, &f->size, f->file);
    if (length < 0 && ferror(f->file)) return skald_fail(SKALD_EIO, "%s: %s", r->path, strerror(errno));
    if (length <= 0 || f->text[length - 1] != '\n') return SKALD_OK;
    json_error_t e;
    *out = json_loadb(f->text, (size_t)length, JSON_REJECT_DUPLICATES, &e);
    if (!*out) return bad(r, e.text);
    if (json_is_object(*out)) return SKALD_OK;
    json_decref(*out);
    *out = NULL;
    return bad(r, "an object is expected");
}

/* ---- the first line ------------------------------------------------------------------------------------ */

static skald_status read_options(skald_record *r, json_t *options, json_t *given) {
    const char *name;
    json_t *text;
    size_t i;
    const size_t count = json_object_size(options);
    r->names = skald_zalloc(count, sizeof(char *));
    r->texts = skald_zalloc(count, sizeof(char *));
    r->given = skald_zalloc(count, sizeof *r->given);
    if (!r->names || !r->texts || !r->given) return SKALD_ENOMEM;
    json_object_foreach(options, name, text) {
        if (!json_is_string(text)) return bad(r, "options are texts");
        const uint32_t k = r->option_count++;
        r->names[k] = strdup(name);
        r->texts[k] = strdup(json_string_value(text));
        if (!r->names[k] || !r->texts[k]) return skald_fail(SKALD_ENOMEM, "out of memory");
    }
    json_array_foreach(given, i,
                       text) for (uint32_t k = 0; k < r->option_count;
                                  k++) if (json_is_string(text) && strcmp(r->names[k], json_string_value(text)) == 0)
        r->given[k] = true;
    return SKALD_OK;
}

static bool slots_fit(int slots, int depth) {
    return slots >= 1 && slots <= 1024 && depth >= 1 && depth <= 1024;
}

/* The members; every shard is held by one of them. */
static skald_status read_members(skald_record *r, json_t *shards, json_t *workers) {
    r->shard_count = (uint32_t)json_array_size(shards);
    r->member_count = (uint32_t)json_array_size(workers);
    if (!r->shard_count || !r->member_count) return bad(r, "a run has shards and workers");
    r->checksums = skald_zalloc(r->shard_count, sizeof *r->checksums);
    r->members = skald_zalloc(r->member_count, sizeof *r->members);
    r->dealt = skald_zalloc((size_t)r->shard_count, sizeof *r->dealt);
    bool *held = skald_zalloc(r->shard_count, sizeof *held);
    skald_status st = r->checksums && r->members && r->dealt && held ? SKALD_OK : SKALD_ENOMEM;
    for (uint32_t k = 0; st == SKALD_OK && k < r->shard_count; k++) {
        const char *text = json_string_value(json_array_get(shards, k));
        char *end = NULL;
        if (text) r->checksums[k] = strtoull(text, &end, 16);
        if (!text || end == text || *end) st = bad(r, "a shard's checksum is a hexadecimal text");
    }
    uint32_t dealt = 0;
    for (uint32_t k = 0; st == SKALD_OK && k < r->member_count; k++) {
        skald_member *m = &r->members[k];
        const char *name, *device;
        int slots, depth;
        json_t *list, *entry;
        json_error_t e;
        size_t i;
        if (json_unpack_ex(json_array_get(workers, k), &e, 0, "{s:s,s:s,s:i,s:i,s:o}", "name", &name, "device", &device,
                           "slots", &slots, "depth", &depth, "shards", &list) != 0) {
            st = bad(r, e.text);
            break;
        }
        snprintf(m->name, sizeof m->name, "%s", name);
        snprintf(m->device, sizeof m->device, "%s", device);
        if (!slots_fit(slots, depth)) st = bad(r, "a worker has 1 to 1024 slots");
        m->slots = (uint32_t)slots;
        m->depth = (uint32_t)depth;
        m->shards = r->dealt + dealt;
        json_array_foreach(list, i, entry) {
            const json_int_t shard = json_is_integer(entry) ? json_integer_value(entry) : -1;
            if (shard < 0 || shard >= r->shard_count || held[shard]) {
                st = bad(r, "each shard is held by one worker");
                break;
            }
            held[shard] = true;
            r->dealt[dealt++] = (uint32_t)shard;
            m->shard_count++;
        }
    }
    if (st == SKALD_OK && dealt < r->shard_count) st = bad(r, "a shard is held by no worker");
    free(held);
    return st;
}

static skald_status read_header(skald_record *r) {
    json_t *root, *options, *given, *shards, *workers;
    json_error_t e;
    const char *command, *data, *version, *isa;
    int format = 0, length, floats, most;
    if (read_object(r, &root) == SKALD_EIO) return SKALD_EIO;
    if (!root)
        return skald_fail(SKALD_EDATA, "%s:1: not a record: records, which --record writes, begin with a line of JSON",
                          r->path);
    skald_status st = SKALD_OK;
    if (json_unpack(root, "{s:i}", "skald_record", &format) != 0)
        st = skald_fail(SKALD_EDATA,
                        "%s:1: not a record of skald: no \"skald_record\" (records are what --record writes)", r->path);
    else if (format != SKALD_RECORD_VERSION)
        st = skald_fail(SKALD_EDATA, "%s:1: a record of format %d; this skald replays format %d", r->path, format,
                        SKALD_RECORD_VERSION);
    else if (json_unpack_ex(root, &e, 0, "{s:s,s:s,s:s,s:s,s:F,s:i,s:b,s:i,s:o,s:o,s:o,s:o}", "command", &command,
                            "data", &data, "version", &version, "isa", &isa, "n", &r->n, "length", &length, "floats",
                            &floats, "most", &most, "options", &options, "given", &given, "shards", &shards, "workers",
                            &workers) != 0)
        st = bad(r, e.text);
    if (st == SKALD_OK && length < 0) st = bad(r, "a length is from 0 up");
    if (st == SKALD_OK && (most < 0 || most > MOST_WORKERS)) st = bad(r, "a run has 100000 workers at most");
    if (st == SKALD_OK) {
        r->command = strdup(command);
        r->data = strdup(data);
        r->version = strdup(version);
        snprintf(r->isa, sizeof r->isa, "%s", isa);
        r->length = (uint32_t)length;
        r->floats = floats;
        st = r->command && r->data && r->version ? SKALD_OK : skald_fail(SKALD_ENOMEM, "out of memory");
    }
    if (st == SKALD_OK) st = read_options(r, options, given);
    if (st == SKALD_OK) st = read_members(r, shards, workers);
    if (st == SKALD_OK) r->most = (uint32_t)most > r->member_count ? (uint32_t)most : r->member_count;
    json_decref(root);
    return st;
}

/* ---- the others ---------------------------------------------------------------------------------------- */

static const char *const names[] = {"task", "result", "merge",     "tick",   "audit", "interrupt",
                                    "lost", "joined", "withdrawn", "leased", "end",   "failed"};

static skald_status read_task(json_t *o, skald_record_line *l, json_error_t *e) {
    const char *kind;
    json_int_t id, shard, at, after, version, origin, before, commits, worker, rows, b, generation;
    if (json_unpack_ex(o, e, 0, "{s:I,s:I,s:s,s:I,s:I,s:I,s:I,s:F,s:F,s:I,s:I,s:I,s:I,s:I,s:I}", "id", &id, "worker",
                       &worker, "kind", &kind, "shard", &shard, "at", &at, "rows", &rows, "b", &b, "eta", &l->eta,
                       "theta", &l->theta, "after", &after, "version", &version, "origin", &origin, "before", &before,
                       "commits", &commits, "generation", &generation) != 0)
        return SKALD_EDATA;
    snprintf(l->what, sizeof l->what, "%s", kind);
    l->id = (uint64_t)id;
    l->shard = shard;
    l->at = (uint64_t)at;
    l->after = (uint64_t)after;
    l->version = (uint64_t)version;
    l->origin = (uint64_t)origin;
    l->before = (uint64_t)before;
    l->commits = (uint64_t)commits;
    l->worker = (uint32_t)worker;
    l->rows = (uint32_t)rows;
    l->b = (uint32_t)b;
    l->generation = (uint32_t)generation;
    return SKALD_OK;
}

static skald_status read_result(json_t *o, skald_record_line *l, json_error_t *e) {
    const char *error = "";
    json_int_t id, t, arrived, wait, receive, compute, delay, came, posted;
    if (json_unpack_ex(o, e, 0, "{s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s?i,s?s}", "t", &t, "id", &id, "arrived",
                       &arrived, "wait", &wait, "receive", &receive, "compute", &compute, "delay", &delay, "came",
                       &came, "posted", &posted, "status", &l->status, "error", &error) != 0)
        return SKALD_EDATA;
    l->id = (uint64_t)id;
    l->t = t;
    l->arrived = arrived;
    l->wait = wait;
    l->receive = receive;
    l->compute = compute;
    l->delay = delay;
    l->came = came;
    l->posted = posted;
    snprintf(l->text, sizeof l->text, "%s", error);
    return SKALD_OK;
}

static skald_status read_merge(json_t *o, skald_record_line *l, json_error_t *e) {
    const char *how;
    json_int_t id, stale, commits, generation;
    if (json_unpack_ex(o, e, 0, "{s:I,s:s,s:I,s:F,s:F,s:I,s:I}", "id", &id, "how", &how, "stale", &stale, "step",
                       &l->step, "q", &l->q, "commits", &commits, "generation", &generation) != 0)
        return SKALD_EDATA;
    snprintf(l->what, sizeof l->what, "%s", how);
    l->id = (uint64_t)id;
    l->stale = (uint64_t)stale;
    l->commits = (uint64_t)commits;
    l->generation = (uint32_t)generation;
    return SKALD_OK;
}

/* Times alone, and members that come or go. */
static skald_status read_moment(json_t *o, skald_record_line *l, json_error_t *e) {
    const char *text = "", *device = "";
    json_int_t t, worker = 0, shard = 0;
    int slots = 1, depth = 1, failed;
    if (l->kind == SKALD_RECORD_LOST)
        failed = json_unpack_ex(o, e, 0, "{s:I,s:I,s:s}", "t", &t, "worker", &worker, "reason", &text);
    else if (l->kind == SKALD_RECORD_JOINED)
        failed = json_unpack_ex(o, e, 0, "{s:I,s:I,s:s,s:s,s:i,s:i}", "t", &t, "worker", &worker, "name", &text,
                                "device", &device, "slots", &slots, "depth", &depth);
    else if (l->kind == SKALD_RECORD_WITHDRAWN || l->kind == SKALD_RECORD_LEASED)
        failed = json_unpack_ex(o, e, 0, "{s:I,s:I,s:I}", "t", &t, "worker", &worker, "shard", &shard);
    else
        failed = json_unpack_ex(o, e, 0, "{s:I}", "t", &t);
    if (failed) return SKALD_EDATA;
    if (worker < 0 || worker >= MOST_WORKERS || shard < 0 || shard > UINT32_MAX || !slots_fit(slots, depth)) {
        snprintf(e->text, sizeof e->text, "a worker or a shard that there cannot be");
        return SKALD_EDATA;
    }
    l->t = t;
    l->worker = (uint32_t)worker;
    l->shard = shard;
    l->slots = (uint32_t)slots;
    l->depth = (uint32_t)depth;
    snprintf(l->device, sizeof l->device, "%s", device);
    snprintf(l->text, sizeof l->text, "%s", text);
    return SKALD_OK;
}

static skald_status read_end(json_t *o, skald_record_line *l, json_error_t *e) {
    const char *stop = "", *model = "", *error = "";
    json_int_t updates = 0;
    if (l->kind == SKALD_RECORD_FAILED) {
        if (json_unpack_ex(o, e, 0, "{s:s}", "error", &error) != 0) return SKALD_EDATA;
        snprintf(l->text, sizeof l->text, "%s", error);
        return SKALD_OK;
    }
    if (json_unpack_ex(o, e, 0, "{s:s,s:I,s:s}", "stop", &stop, "updates", &updates, "model", &model) != 0)
        return SKALD_EDATA;
    snprintf(l->what, sizeof l->what, "%s", stop);
    l->updates = (uint64_t)updates;
    l->model = strtoull(model, NULL, 16);
    return SKALD_OK;
}

static skald_status read_fields(json_t *o, skald_record_line *l, json_error_t *e) {
    switch (l->kind) {
    case SKALD_RECORD_TASK:
        return read_task(o, l, e);
    case SKALD_RECORD_RESULT:
        return read_result(o, l, e);
    case SKALD_RECORD_MERGE:
        return read_merge(o, l, e);
    case SKALD_RECORD_END:
    case SKALD_RECORD_FAILED:
        return read_end(o, l, e);
    default:
        return read_moment(o, l, e);
    }
}

skald_status skald_record_next(skald_record *r) {
    json_t *o;
    TRY(read_object(r, &o));
    skald_record_line *l = &r->line;
    *l = (skald_record_line){.kind = SKALD_RECORD_BROKEN, .number = r->file->number};
    if (!o) return SKALD_OK;
    const char *what = json_string_value(json_object_get(o, "do"));
    size_t k = 0;
    while (k < SKALD_ARRAY_LENGTH(names) && (!what || strcmp(what, names[k]) != 0)) k++;
    skald_status st;
    json_error_t e;
    if (k == SKALD_ARRAY_LENGTH(names)) {
        st = bad(r, "\"do\" is none of task, result, merge, tick, audit, interrupt, lost, joined, withdrawn, leased, "
                    "end, failed");
    } else {
        l->kind = (skald_record_kind)k;
        st = read_fields(o, l, &e);
        if (st != SKALD_OK) bad(r, e.text);
    }
    json_decref(o);
    return st;
}

skald_status skald_record_open(const char *path, skald_record *r) {
    *r = (skald_record){.path = strdup(path), .file = skald_zalloc(1, sizeof *r->file)};
    skald_status st = r->path && r->file ? SKALD_OK : skald_fail(SKALD_ENOMEM, "out of memory");
    if (st == SKALD_OK && !(r->file->file = fopen(path, "re")))
        st = skald_fail(SKALD_EIO, "%s: %s", path, strerror(errno));
    struct stat about; /* a device may never end */
    if (st == SKALD_OK && (fstat(fileno(r->file->file), &about) != 0 || !S_ISREG(about.st_mode)))
        st = skald_fail(SKALD_EDATA, "%s: is not a file", path);
    if (st == SKALD_OK) st = read_header(r);
    if (st == SKALD_OK) st = skald_record_next(r);
    if (st != SKALD_OK) skald_record_close(r);
    return st;
}

void skald_record_close(skald_record *r) {
    if (r->file) {
        if (r->file->file) fclose(r->file->file);
        free(r->file->text);
        free(r->file);
    }
    for (uint32_t k = 0; k < r->option_count; k++) {
        free(r->names[k]);
        free(r->texts[k]);
    }
    free(r->names);
    free(r->texts);
    free(r->given);
    free(r->checksums);
    free(r->members);
    free(r->dealt);
    free(r->path);
    free(r->command);
    free(r->data);
    free(r->version);
    *r = (skald_record){0};
}

const char *skald_record_option(const skald_record *r, const char *name) {
    for (uint32_t k = 0; k < r->option_count; k++)
        if (strcmp(r->names[k], name) == 0) return r->texts[k];
    return NULL;
}
