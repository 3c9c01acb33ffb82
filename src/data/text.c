/* LIBSVM text as a source: parts are byte ranges, blocks are runs of lines. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/base.h"
#include "data/parallel.h"
#include "data/source.h"
#include "data/stats.h"
#include "data/text_row.h"

enum { BLOCK_ROWS = 16 };

/* Parts of 4 MiB; of very large files larger ones, so that there are at most about a thousand. */
static size_t part_bytes(size_t size) {
    size_t least = 4u << 20, share = (size / 1024 + (1u << 20) - 1) >> 20 << 20;
    return skald_max_size(least, share);
}

/* The line is only looked up when there is an error: the number of line ends before it. */
static skald_status fail_line(const skald_source *s, const row_error *error) {
    uint64_t line = 1;
    const char *p = s->bytes.data;
    while ((p = memchr(p, '\n', (size_t)(error->at - p)))) {
        line++;
        p++;
    }
    return skald_fail(SKALD_EDATA, "%s:%llu: %s", s->path, (unsigned long long)line, error->text);
}

static const char *line_end(const char *p, const char *end) {
    const char *found = memchr(p, '\n', (size_t)(end - p));
    return found ? found : end;
}

/* ---- scan ----------------------------------------------------------------------------------------- */

typedef struct scan_worker {
    data_stats stats;
    uint32_t *idx;
    float *val;
    size_t capacity;
} scan_worker;

typedef struct scan {
    skald_source *source;
    uint32_t first;
    row_format format;
    scan_worker *workers;
} scan;

static skald_status scan_line(const scan *sc, scan_worker *w, const char *p, const char *end) {
    row_error error;
    double label;
    size_t room = (size_t)(end - p) / 3 + 1; /* "1:2", and a blank between */
    if (room > w->capacity) {
        free(w->idx);
        free(w->val);
        w->capacity = 2 * room;
        w->idx = malloc(w->capacity * sizeof *w->idx);
        w->val = malloc(w->capacity * sizeof *w->val);
        if (!w->idx || !w->val) {
            w->capacity = 0;
            return skald_fail(SKALD_ENOMEM, "%s: out of memory for a line", sc->source->path);
        }
    }
    row_entries row = {.idx = w->idx, .val = w->val};
    const char *entries = text_row_label(p, end, &label, &error);
    if (!entries || !text_row_entries(entries, end, &sc->format, &row, &error)) return fail_line(sc->source, &error);
    skald_manifest *m = &w->stats.m;
    if (row.width > m->dim) {
        if (row.width > w->stats.capacity && stats_reserve(&w->stats, row.width) != SKALD_OK) {
            strncpy(error.text, skald_error(), sizeof error.text - 1);
            error.text[sizeof error.text - 1] = 0;
            error.at = p;
            fail_line(sc->source, &error);
            return SKALD_ENOMEM;
        }
        m->dim = row.width;
    }
    m->zero_based |= row.index_zero;
    stats_row(&w->stats, row.idx, row.val, row.count);
    return stats_label(&w->stats, label, 1);
}

static skald_status scan_part(void *context, int worker, size_t task) {
    scan *sc = context;
    scan_worker *w = &sc->workers[worker];
    const data_bytes *b = &sc->source->bytes;
    uint32_t part = sc->first + (uint32_t)task;
    size_t step = part_bytes(b->size), first = part * step, last = skald_min_size(first + step, b->size);
    const char *end = b->data + b->size, *stop = b->data + last, *p = b->data + first;
    if (part > 0) { /* a line belongs to the part in which it starts */
        p = line_end(p - 1, end);
        if (p < end) p++;
    }
    const char *block = NULL;
    uint32_t rows = 0;
    while (p < stop) {
        const char *eol = line_end(p, end), *next = eol < end ? eol + 1 : end, *start;
        if (text_row_start(p, eol, &start)) {
            if (rows == 0) block = p;
            TRY(scan_line(sc, w, start, eol));
            rows++;
        }
        if (rows == BLOCK_ROWS || (rows > 0 && next >= stop)) {
            size_t bytes = (size_t)(next - block);
            TRY(stats_block(&w->stats, part, (uint64_t)(block - b->data), bytes, rows, skald_hash(block, bytes, 0)));
            rows = 0;
        }
        p = next;
    }
    stats_part_end(&w->stats);
    return SKALD_OK;
}

static skald_status text_scan(skald_source *s, uint32_t first, uint32_t count, skald_manifest *out) {
    const skald_source_options *o = &s->options;
    skald_status st = bytes_check(&s->bytes, s->path);
    if (st != SKALD_OK) return st;
    scan sc = {.source = s, .first = first};
    /* indices stay as in the file until skald_manifest_finish knows whether a 0 occurs anywhere */
    uint64_t limit = o->dim ? (uint64_t)o->dim + (o->index_base != 0) : (uint64_t)INT32_MAX + 1;
    sc.format = (row_format){.lowest = o->index_base == 1, .limit = (uint32_t)limit, .columns = o->dim};
    sc.workers = calloc((size_t)o->threads, sizeof *sc.workers);
    if (!sc.workers) return skald_fail(SKALD_ENOMEM, "%s: out of memory", s->path);
    if (s->bytes.mapped) {
        size_t step = part_bytes(s->bytes.size), from = first * step;
        madvise((void *)(uintptr_t)(s->bytes.data + from), skald_min_size(count * step, s->bytes.size - from),
                MADV_WILLNEED);
    }
    st = data_parallel(o->threads, count, scan_part, &sc);
    for (int k = 0; k < o->threads; k++) {
        data_stats *w = &sc.workers[k].stats;
        w->m.layout = SKALD_CSR;
        w->m.dim_limit = o->dim;
        if (o->index_base == 0) w->m.zero_based = true;
        if (st == SKALD_OK && w->m.parts_merged) st = skald_manifest_merge(out, &w->m);
        stats_free(w);
        free(sc.workers[k].idx);
        free(sc.workers[k].val);
    }
    free(sc.workers);
    return st;
}

/* ---- read ----------------------------------------------------------------------------------------- */

typedef struct placed_block {
    const skald_block *block;
    uint64_t hash;
    size_t row;        /* of the output */
    size_t at, colons; /* CSR: where its entries go, and how many there can be */
    size_t entries;    /* CSR: how many there were */
    uint32_t hint;     /* of label_map */
} placed_block;

typedef struct reading {
    skald_source *source;
    const skald_transform *t;
    skald_rows *out;
    placed_block *blocks;
    row_format format;
    uint32_t **scratch_idx; /* dense: a row's entries on their way, one buffer a worker */
    float **scratch_val;
    size_t *scratch_capacity;
} reading;

static skald_status changed(const skald_source *s, const skald_block *b) {
    return skald_fail(SKALD_EDATA, "%s: rows at byte %llu are not where they were: the file changed since its scan",
                      s->path, (unsigned long long)b->offset);
}

/* First pass over a block: it must lie on line ends; its hash; how many entries it can have. */
static skald_status measure_block(void *context, int worker, size_t task) {
    reading *r = context;
    placed_block *pb = &r->blocks[task];
    const skald_block *b = pb->block;
    const data_bytes *bytes = &r->source->bytes;
    if (b->bytes == 0 || b->bytes > bytes->size || b->offset > bytes->size - b->bytes) return changed(r->source, b);
    const char *p = bytes->data + b->offset, *end = p + b->bytes;
    if ((b->offset && p[-1] != '\n') || (end < bytes->data + bytes->size && end[-1] != '\n'))
        return changed(r->source, b);
    pb->hash = skald_hash(p, b->bytes, 0);
    size_t colons = 0;
    while (p < end) { /* in runs short enough to count in bytes, which vectorises */
        size_t run = skald_min_size((size_t)(end - p), 255);
        uint8_t n = 0;
        for (size_t k = 0; k < run; k++) n += p[k] == ':';
        colons += n;
        p += run;
    }
    pb->colons = colons;
    return SKALD_OK;
}

static skald_status reserve_scratch(reading *r, int worker, size_t room) {
    if (room <= r->scratch_capacity[worker]) return SKALD_OK;
    free(r->scratch_idx[worker]);
    free(r->scratch_val[worker]);
    r->scratch_idx[worker] = malloc(room * sizeof(uint32_t));
    r->scratch_val[worker] = malloc(room * sizeof(float));
    r->scratch_capacity[worker] = room;
    if (r->scratch_idx[worker] && r->scratch_val[worker]) return SKALD_OK;
    r->scratch_capacity[worker] = 0;
    return skald_fail(SKALD_ENOMEM, "%s: out of memory for a row", r->source->path);
}

static skald_status parse_line(reading *r, placed_block *pb, row_entries *row, const char *p, const char *end, size_t i,
                               uint64_t file_row) {
    const skald_transform *t = r->t;
    skald_rows *out = r->out;
    row_error error;
    double label, target, label_weight;
    const char *entries = text_row_label(p, end, &label, &error);
    if (!entries || !text_row_entries(entries, end, &r->format, row, &error)) return fail_line(r->source, &error);
    if (!label_map(t, label, &pb->hint, &target, &label_weight)) {
        error.at = p;
        snprintf(error.text, sizeof error.text, "label %.17g is not among the %u known labels", label, t->label_count);
        return fail_line(r->source, &error);
    }
    out->y[i] = target;
    out->s[i] = row_weight(r->source, t, file_row, 1, label_weight);
    out->origin[i] = file_row;
    if (out->layout == SKALD_DENSE) {
        float *x = out->x + i * out->stride;
        memset(x, 0, out->stride * sizeof *x);
        for (size_t k = 0; k < row->count; k++) x[row->idx[k]] = row->val[k];
        dense_row_finish(t, x, out->stride);
        return SKALD_OK;
    }
    if (t->scale)
        for (size_t k = 0; k < row->count; k++) row->val[k] = (float)(row->val[k] * t->scale[row->idx[k]]);
    if (t->intercept) {
        row->idx[row->count] = t->dim;
        row->val[row->count++] = 1;
    }
    row->idx += row->count;
    row->val += row->count;
    pb->entries += row->count;
    out->ptr[i + 1] = row->count; /* a length for now */
    return SKALD_OK;
}

static skald_status parse_block(void *context, int worker, size_t task) {
    reading *r = context;
    placed_block *pb = &r->blocks[task];
    const skald_block *b = pb->block;
    const char *p = r->source->bytes.data + b->offset, *end = p + b->bytes;
    row_entries row;
    if (r->out->layout == SKALD_DENSE) {
        TRY(reserve_scratch(r, worker, pb->colons + 1));
        row = (row_entries){.idx = r->scratch_idx[worker], .val = r->scratch_val[worker]};
    } else {
        row = (row_entries){.idx = r->out->idx + pb->at, .val = r->out->val + pb->at};
    }
    uint32_t rows = 0;
    while (p < end) {
        const char *eol = line_end(p, end), *start;
        if (text_row_start(p, eol, &start)) {
            if (rows == b->rows) return changed(r->source, b);
            TRY(parse_line(r, pb, &row, start, eol, pb->row + rows, b->first_row + rows));
            rows++;
        }
        p = eol + 1;
    }
    return rows == b->rows ? SKALD_OK : changed(r->source, b);
}

/* Lengths to offsets, and entries moved together where zeros were dropped. */
static void close_gaps(reading *r, uint64_t count) {
    skald_rows *out = r->out;
    size_t at = 0;
    for (uint64_t k = 0; k < count; k++) {
        placed_block *pb = &r->blocks[k];
        if (pb->at != at) {
            memmove(out->idx + at, out->idx + pb->at, pb->entries * sizeof *out->idx);
            memmove(out->val + at, out->val + pb->at, pb->entries * sizeof *out->val);
        }
        at += pb->entries;
    }
    out->ptr[0] = 0;
    for (size_t i = 0; i < out->n; i++) out->ptr[i + 1] += out->ptr[i];
}

static skald_status text_read(skald_source *s, const skald_block *blocks, uint64_t count, const skald_transform *t,
                              skald_rows *out, uint64_t *checksum) {
    skald_status st = SKALD_OK;
    size_t threads = (size_t)s->options.threads, rows = 0, entries = 0;
    uint32_t base = t->zero_based ? 0 : 1;
    reading r = {.source = s, .t = t, .out = out};
    r.format = (row_format){.base = base, .lowest = base, .limit = t->dim, .columns = t->dim};
    TRY(bytes_check(&s->bytes, s->path));
    r.blocks = calloc(count ? count : 1, sizeof *r.blocks);
    r.scratch_idx = calloc(threads, sizeof *r.scratch_idx);
    r.scratch_val = calloc(threads, sizeof *r.scratch_val);
    r.scratch_capacity = calloc(threads, sizeof *r.scratch_capacity);
    if (!r.blocks || !r.scratch_idx || !r.scratch_val || !r.scratch_capacity) {
        st = skald_fail(SKALD_ENOMEM, "%s: out of memory", s->path);
        goto end;
    }
    for (uint64_t k = 0; k < count; k++) {
        r.blocks[k] = (placed_block){.block = &blocks[k], .row = rows};
        /* a row is at least "1\n": keeps the sum from overflowing and the allocation in proportion */
        if (blocks[k].rows == 0 || blocks[k].rows > blocks[k].bytes) TRY_GOTO(st, changed(s, &blocks[k]), end);
        TRY_GOTO(st, weights_check(s, t, blocks[k].first_row, blocks[k].rows), end);
        rows += blocks[k].rows;
    }
    TRY_GOTO(st, data_parallel((int)threads, count, measure_block, &r), end);
    for (uint64_t k = 0; k < count; k++) {
        r.blocks[k].at = entries;
        entries += r.blocks[k].colons + (t->intercept ? blocks[k].rows : 0);
    }
    TRY_GOTO(st,
             rows_alloc(out, t->force_dense ? SKALD_DENSE : SKALD_CSR, rows, t->dim + t->intercept,
                        t->force_dense ? 0 : entries),
             end);
    TRY_GOTO(st, data_parallel((int)threads, count, parse_block, &r), end);
    if (out->layout == SKALD_CSR) close_gaps(&r, count);
    if (checksum) {
        *checksum = 0;
        for (uint64_t k = 0; k < count; k++) *checksum = block_checksum(*checksum, &blocks[k], r.blocks[k].hash);
    }
end:
    for (size_t k = 0; k < threads && r.scratch_idx && r.scratch_val; k++) {
        free(r.scratch_idx[k]);
        free(r.scratch_val[k]);
    }
    free(r.scratch_idx);
    free(r.scratch_val);
    free(r.scratch_capacity);
    free(r.blocks);
    if (st != SKALD_OK) skald_rows_free(out);
    return st;
}

static void text_close(skald_source *s) {
    bytes_close(&s->bytes);
}

skald_status text_source_open(skald_source *s) {
    static const source_ops ops = {text_scan, text_read, text_close};
    const char *head = s->bytes.data;
    size_t looked_at = skald_min_size(s->bytes.size, 4096);
    if (memchr(head, 0, looked_at))
        return skald_fail(SKALD_EDATA, "%s: neither LIBSVM text (plain, .gz or .xz) nor HDF5", s->path);
    s->ops = &ops;
    s->describe = s->bytes.kind == BYTES_GZIP ? "LIBSVM text, gzip (read whole by every worker)"
                  : s->bytes.kind == BYTES_XZ ? "LIBSVM text, xz (read whole by every worker)"
                                              : "LIBSVM text";
    size_t step = part_bytes(s->bytes.size);
    s->parts = (uint32_t)((s->bytes.size + step - 1) / step);
    return SKALD_OK;
}
