#include "base/straggler.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"

typedef struct trace_row {
    uint32_t worker; /* UINT32_MAX: all others */
    size_t first, count;
} trace_row;

typedef struct skald_trace {
    trace_row *rows;
    size_t row_count;
    double *factors;
    size_t count, capacity;
} skald_trace;

static void free_trace(skald_trace *t) {
    if (!t) return;
    free(t->rows);
    free(t->factors);
    free(t);
}

/* ---- traces ------------------------------------------------------------------------------------------ */

static skald_status add_factor(skald_trace *t, double factor) {
    if (t->count == t->capacity) {
        const size_t capacity = t->capacity ? 2 * t->capacity : 64;
        double *grown = realloc(t->factors, capacity * sizeof *grown);
        if (!grown) return skald_fail(SKALD_ENOMEM, "out of memory for a trace of %zu delays", t->count);
        t->factors = grown;
        t->capacity = capacity;
    }
    t->factors[t->count++] = factor;
    return SKALD_OK;
}

static skald_status add_line(skald_trace *t, const char *path, unsigned number, char *line) {
    static const char blank[] = " \t\r\n";
    line[strcspn(line, "#")] = '\0';
    char *rest = NULL, *end = NULL, *word = strtok_r(line, blank, &rest);
    if (!word) return SKALD_OK;
    trace_row row = {.worker = UINT32_MAX, .first = t->count};
    if (strcmp(word, "*") != 0) {
        const unsigned long worker = strtoul(word, &end, 10);
        if (*end || word[0] < '0' || word[0] > '9' || worker >= UINT32_MAX)
            return skald_fail(SKALD_EDATA, "%s:%u: a line begins with a worker's number from 0, or *; not '%.40s'",
                              path, number, word);
        row.worker = (uint32_t)worker;
    }
    for (size_t k = 0; k < t->row_count; k++)
        if (t->rows[k].worker == row.worker)
            return skald_fail(SKALD_EDATA, "%s:%u: worker %.40s has a line already", path, number, word);
    while ((word = strtok_r(NULL, blank, &rest))) {
        const double factor = strtod(word, &end);
        if (*end || !isfinite(factor) || factor < 0)
            return skald_fail(SKALD_EDATA, "%s:%u: a delay is a number of mean task times, 0 or more; not '%.40s'",
                              path, number, word);
        TRY(add_factor(t, factor));
    }
    row.count = t->count - row.first;
    if (!row.count) return skald_fail(SKALD_EDATA, "%s:%u: a worker without delays", path, number);
    trace_row *grown = realloc(t->rows, (t->row_count + 1) * sizeof *grown);
    if (!grown) return skald_fail(SKALD_ENOMEM, "out of memory for a trace");
    t->rows = grown;
    t->rows[t->row_count++] = row;
    return SKALD_OK;
}

static skald_status read_trace(const char *path, skald_trace **out) {
    FILE *file = fopen(path, "re");
    if (!file) return skald_fail(SKALD_EIO, "--straggler trace:%s: %s", path, strerror(errno));
    skald_trace *t = skald_zalloc(1, sizeof *t);
    skald_status st = t ? SKALD_OK : SKALD_ENOMEM;
    char *line = NULL;
    size_t size = 0;
    for (unsigned number = 1; st == SKALD_OK && getline(&line, &size, file) >= 0; number++)
        st = add_line(t, path, number, line);
    if (st == SKALD_OK && ferror(file)) st = skald_fail(SKALD_EIO, "--straggler trace:%s: %s", path, strerror(errno));
    if (st == SKALD_OK && !t->row_count) st = skald_fail(SKALD_EDATA, "%s:1: a trace without workers", path);
    free(line);
    fclose(file);
    if (st == SKALD_OK)
        *out = t;
    else
        free_trace(t);
    return st;
}

static double trace_delay(const skald_trace *t, uint32_t worker, uint64_t draw) {
    const trace_row *row = NULL;
    for (size_t k = 0; k < t->row_count; k++) {
        if (t->rows[k].worker == worker) row = &t->rows[k];
        if (t->rows[k].worker == UINT32_MAX && !row) row = &t->rows[k];
    }
    return row ? t->factors[row->first + draw % row->count] : 0;
}

/* ---- reading what the user wrote ------------------------------------------------------------------------ */

static bool parse_number(const char **at, char stop, double *out) {
    char *end;
    if (!(**at >= '0' && **at <= '9') && **at != '.') return false;
    *out = strtod(*at, &end);
    if (end == *at || !isfinite(*out) || (*end && *end != stop)) return false;
    *at = *end ? end + 1 : end;
    return true;
}

static skald_status parse_one(const char *word, skald_straggler *out) {
    const char *at = strchr(word, ':');
    const size_t length = at ? (size_t)(at - word) : strlen(word);
    const char *value = at ? at + 1 : NULL;
    double worker;
    *out = (skald_straggler){.for_s = 1};
    if (length == 3 && strncmp(word, "pcs", 3) == 0 && !value) {
        out->kind = SKALD_STRAGGLER_PCS;
        return SKALD_OK;
    }
    if (length == 3 && strncmp(word, "cds", 3) == 0 && value) {
        out->kind = SKALD_STRAGGLER_CDS;
        if (parse_number(&value, '\0', &out->amount)) return SKALD_OK;
        return skald_fail(SKALD_EINVAL, "--straggler %s: a controlled delay is cds:C, C mean task times, e.g. cds:1.0",
                          word);
    }
    if (length == 5 && strncmp(word, "trace", 5) == 0 && value && *value) {
        out->kind = SKALD_STRAGGLER_TRACE;
        return read_trace(value, &out->trace);
    }
    const bool pause = length == 5 && strncmp(word, "pause", 5) == 0;
    if (value && (pause || (length == 4 && strncmp(word, "kill", 4) == 0))) {
        out->kind = pause ? SKALD_STRAGGLER_PAUSE : SKALD_STRAGGLER_KILL;
        bool ok = parse_number(&value, '@', &worker) && worker < UINT32_MAX && worker == floor(worker) &&
                  value[-1] == '@' && parse_number(&value, pause ? '+' : '\0', &out->at_s);
        if (ok && value[-1] == '+') ok = parse_number(&value, '\0', &out->for_s);
        if (ok) out->worker = (uint32_t)worker;
        if (ok) return SKALD_OK;
        return skald_fail(SKALD_EINVAL, "--straggler %s: must be %s, a worker's number from 0 and seconds, e.g. %s",
                          word, pause ? "pause:W@T+D" : "kill:W@T", pause ? "pause:2@1.5+3" : "kill:2@1.5");
    }
    return skald_fail(SKALD_EINVAL,
                      "--straggler %s: must be cds:C, pcs, trace:FILE, pause:W@T+D or kill:W@T, or several with commas "
                      "between",
                      word);
}

skald_status skald_stragglers_parse(const char *text, skald_stragglers *out) {
    *out = (skald_stragglers){0};
    if (!text || strcmp(text, "none") == 0) return SKALD_OK;
    char *copy = strdup(text);
    if (!copy) return skald_fail(SKALD_ENOMEM, "out of memory");
    skald_status st = SKALD_OK;
    for (char *word = copy, *next; word && st == SKALD_OK; word = next) {
        next = strchr(word, ',');
        if (next) *next++ = '\0';
        if (out->count == SKALD_STRAGGLERS)
            st = skald_fail(SKALD_EINVAL, "--straggler: at most %d models at a time", SKALD_STRAGGLERS);
        else
            st = parse_one(word, &out->list[out->count]);
        if (st == SKALD_OK) out->count++;
    }
    free(copy);
    if (st != SKALD_OK) skald_stragglers_free(out);
    return st;
}

void skald_stragglers_free(skald_stragglers *s) {
    for (uint32_t k = 0; s && k < s->count; k++) free_trace(s->list[k].trace);
    if (s) s->count = 0;
}

/* ---- delays ------------------------------------------------------------------------------------------- */

static double production(uint64_t seed, uint32_t worker, uint32_t workers, uint64_t draw) {
    const double slow = round(workers / 4.0), mild = round(0.8 * slow);
    const double rank = (double)skald_permute(skald_mix64(seed ^ 0x706373ull), workers,
                                              worker % workers); /* who joins later takes after one of them */
    if (rank >= slow) return 0;
    const double u = skald_uniform(skald_mix64(seed + 0x9e3779b97f4a7c15ull * (worker + 1ull)), draw);
    return rank < mild ? 1.5 + u : 2.5 + 7.5 * u;
}

double skald_stragglers_delay(const skald_stragglers *s, uint64_t seed, uint32_t worker, uint32_t workers,
                              uint64_t draw) {
    double delay = 0;
    for (uint32_t k = 0; k < s->count; k++) {
        const skald_straggler *m = &s->list[k];
        if (m->kind == SKALD_STRAGGLER_CDS && worker == 0) delay += m->amount;
        if (m->kind == SKALD_STRAGGLER_PCS) delay += production(seed, worker, workers, draw);
        if (m->kind == SKALD_STRAGGLER_TRACE) delay += trace_delay(m->trace, worker, draw);
    }
    return delay;
}

double skald_stragglers_resume(const skald_stragglers *s, uint32_t worker, double now_s) {
    double when = now_s;
    for (uint32_t k = 0; k < s->count; k++) {
        const skald_straggler *m = &s->list[k];
        if (m->kind == SKALD_STRAGGLER_PAUSE && m->worker == worker && now_s >= m->at_s)
            when = fmax(when, m->at_s + m->for_s);
    }
    return when;
}

double skald_stragglers_death(const skald_stragglers *s, uint32_t worker) {
    double when = INFINITY;
    for (uint32_t k = 0; k < s->count; k++) {
        const skald_straggler *m = &s->list[k];
        if (m->kind == SKALD_STRAGGLER_KILL && m->worker == worker) when = fmin(when, m->at_s);
    }
    return when;
}
