/* HDF5 as a source: parts and blocks are ranges of rows. */
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "data/h5_file.h"
#include "data/parallel.h"
#include "data/source.h"
#include "data/stats.h"

struct h5_source {
    h5_file file;
    uint64_t part_rows;
    uint32_t block_rows;
};

enum { RUN_BYTES = 8 << 20 }; /* read at once: large enough for the disk, small enough for the cache */

static uint64_t rows_of_bytes(const h5_file *f, uint64_t bytes) {
    uint64_t row = f->layout == SKALD_DENSE ? 4ull * f->dim : 8 * (f->ptr[f->n] / f->n + 1);
    return bytes / row ? bytes / row : 1;
}

/* ---- scan ----------------------------------------------------------------------------------------- */

typedef struct scan_worker {
    data_stats stats;
    h5_rows rows;
} scan_worker;

typedef struct scan {
    struct h5_source *h5;
    uint32_t first;
    scan_worker *workers;
} scan;

static skald_status scan_part(void *context, int worker, size_t task) {
    scan *sc = context;
    scan_worker *w = &sc->workers[worker];
    const struct h5_source *h5 = sc->h5;
    const h5_file *f = &h5->file;
    h5_rows *r = &w->rows;
    uint32_t part = sc->first + (uint32_t)task;
    uint64_t first = part * h5->part_rows, count = skald_min_size(h5->part_rows, f->n - first);
    TRY(h5_file_read(f, first, count, r));
    if (f->dim > w->stats.m.dim) {
        TRY(stats_reserve(&w->stats, f->dim));
        w->stats.m.dim = f->dim;
    }
    for (uint64_t at = 0; at < count; at += h5->block_rows) {
        uint32_t rows = (uint32_t)skald_min_size(h5->block_rows, count - at);
        for (uint64_t i = at; i < at + rows; i++) {
            if (f->layout == SKALD_DENSE)
                stats_row(&w->stats, NULL, r->x + i * f->dim, f->dim);
            else
                stats_row(&w->stats, r->idx + r->ptr[i], r->val + r->ptr[i], r->ptr[i + 1] - r->ptr[i]);
            TRY(stats_label(&w->stats, r->y[i], r->weight[i]));
        }
        TRY(stats_block(&w->stats, part, first + at, 0, rows, h5_rows_hash(f, r, at, rows)));
    }
    stats_part_end(&w->stats);
    return SKALD_OK;
}

static skald_status h5_scan(skald_source *s, uint32_t first, uint32_t count, skald_manifest *out) {
    scan sc = {.h5 = s->h5, .first = first};
    sc.workers = calloc((size_t)s->options.threads, sizeof *sc.workers);
    if (!sc.workers) return skald_fail(SKALD_ENOMEM, "%s: out of memory", s->path);
    skald_status st = data_parallel(s->options.threads, count, scan_part, &sc);
    for (int k = 0; k < s->options.threads; k++) {
        data_stats *w = &sc.workers[k].stats;
        w->m.layout = s->h5->file.layout;
        w->m.shuffled = s->h5->file.shuffled;
        w->m.dim_limit = s->options.dim;
        w->m.zero_based = true;
        if (st == SKALD_OK && w->m.parts_merged) st = skald_manifest_merge(out, &w->m);
        stats_free(w);
        h5_rows_free(&sc.workers[k].rows);
    }
    free(sc.workers);
    return st;
}

/* ---- read ----------------------------------------------------------------------------------------- */

/* Neighbouring blocks that are read in one go. */
typedef struct run {
    uint64_t first_block, blocks;
    uint64_t first, count; /* rows of the file */
    size_t row;            /* of the output */
    size_t at, entries;    /* CSR: place in the output, and how many came */
} run;

typedef struct reading {
    skald_source *source;
    const skald_transform *t;
    const skald_block *blocks;
    skald_rows *out;
    run *runs;
    h5_rows *workers;
    uint64_t *hashes; /* one a block */
} reading;

static void place_dense(const reading *rd, const h5_file *f, const h5_rows *r, uint64_t i, size_t row) {
    float *x = rd->out->x + row * rd->out->stride;
    if (f->layout == SKALD_DENSE) {
        memcpy(x, r->x + i * f->dim, f->dim * sizeof *x);
        for (uint32_t j = f->dim; j < rd->t->dim; j++) x[j] = 0;
    } else {
        memset(x, 0, rd->out->stride * sizeof *x);
        for (uint64_t k = r->ptr[i]; k < r->ptr[i + 1]; k++) x[r->idx[k]] = r->val[k];
    }
    dense_row_finish(rd->t, x, rd->out->stride);
}

static size_t place_sparse(const reading *rd, const h5_rows *r, uint64_t i, size_t at) {
    const skald_transform *t = rd->t;
    for (uint64_t k = r->ptr[i]; k < r->ptr[i + 1]; k++, at++) {
        rd->out->idx[at] = r->idx[k];
        rd->out->val[at] = t->scale ? (float)(r->val[k] * t->scale[r->idx[k]]) : r->val[k];
    }
    if (t->intercept) {
        rd->out->idx[at] = t->dim;
        rd->out->val[at++] = 1;
    }
    return at;
}

static skald_status read_run(void *context, int worker, size_t task) {
    reading *rd = context;
    run *span = &rd->runs[task];
    skald_source *s = rd->source;
    const h5_file *f = &s->h5->file;
    h5_rows *r = &rd->workers[worker];
    skald_rows *out = rd->out;
    uint32_t hint = 0;
    TRY(h5_file_read(f, span->first, span->count, r));
    for (uint64_t k = 0, at = 0; k < span->blocks; at += rd->blocks[span->first_block + k].rows, k++)
        rd->hashes[span->first_block + k] = h5_rows_hash(f, r, at, rd->blocks[span->first_block + k].rows);
    size_t at = span->at;
    for (uint64_t i = 0; i < span->count; i++) {
        size_t row = span->row + i;
        double target, label_weight;
        if (!label_map(rd->t, r->y[i], &hint, &target, &label_weight))
            return skald_fail(SKALD_EDATA, "%s: dataset '%s': label %.17g of row %llu is not among the %u known labels",
                              s->path, f->y_name, r->y[i], (unsigned long long)(span->first + i), rd->t->label_count);
        out->y[row] = target;
        out->s[row] = row_weight(s, rd->t, span->first + i, r->weight[i], label_weight);
        out->origin[row] = r->origin[i];
        if (out->layout == SKALD_DENSE) {
            place_dense(rd, f, r, i, row);
            continue;
        }
        size_t next = place_sparse(rd, r, i, at);
        out->ptr[row + 1] = next - at; /* a length for now */
        at = next;
    }
    span->entries = at - span->at;
    return SKALD_OK;
}

/* Joins blocks that follow each other in the file. Returns the number of runs. */
static skald_status make_runs(reading *rd, uint64_t count, size_t *runs, size_t *rows, size_t *entries) {
    const skald_source *s = rd->source;
    const h5_file *f = &s->h5->file;
    uint64_t most = rows_of_bytes(f, RUN_BYTES);
    run *last = NULL;
    for (uint64_t k = 0; k < count; k++) {
        const skald_block *b = &rd->blocks[k];
        if (b->rows == 0 || b->bytes != 0 || b->offset > f->n || b->rows > f->n - b->offset)
            return skald_fail(SKALD_EDATA, "%s: rows from %llu on are not there: the file changed since its scan",
                              s->path, (unsigned long long)b->offset);
        TRY(weights_check(s, rd->t, b->offset, b->rows));
        if (!last || last->first + last->count != b->offset || last->count + b->rows > most) {
            last = &rd->runs[(*runs)++];
            *last = (run){.first_block = k, .first = b->offset, .row = *rows, .at = *entries};
        }
        last->blocks++;
        last->count += b->rows;
        *rows += b->rows;
        if (f->ptr) *entries += f->ptr[b->offset + b->rows] - f->ptr[b->offset];
        if (rd->t->intercept) *entries += b->rows;
    }
    return SKALD_OK;
}

/* Lengths to offsets, and entries moved together where zeros were dropped. */
static void close_gaps(const reading *rd, size_t runs) {
    skald_rows *out = rd->out;
    size_t at = 0;
    for (size_t k = 0; k < runs; k++) {
        const run *span = &rd->runs[k];
        if (span->at != at) {
            memmove(out->idx + at, out->idx + span->at, span->entries * sizeof *out->idx);
            memmove(out->val + at, out->val + span->at, span->entries * sizeof *out->val);
        }
        at += span->entries;
    }
    out->ptr[0] = 0;
    for (size_t i = 0; i < out->n; i++) out->ptr[i + 1] += out->ptr[i];
}

static skald_status h5_read(skald_source *s, const skald_block *blocks, uint64_t count, const skald_transform *t,
                            skald_rows *out, uint64_t *checksum) {
    const h5_file *f = &s->h5->file;
    size_t threads = (size_t)s->options.threads, runs = 0, rows = 0, entries = 0;
    if (f->dim > t->dim)
        return skald_fail(SKALD_EDATA, "%s: %u columns, but there should be %u", s->path, f->dim, t->dim);
    skald_status st = SKALD_OK;
    reading rd = {.source = s, .t = t, .blocks = blocks, .out = out};
    rd.runs = calloc(count ? count : 1, sizeof *rd.runs);
    rd.hashes = calloc(count ? count : 1, sizeof *rd.hashes);
    rd.workers = calloc(threads, sizeof *rd.workers);
    if (!rd.runs || !rd.hashes || !rd.workers) {
        st = skald_fail(SKALD_ENOMEM, "%s: out of memory", s->path);
        goto end;
    }
    TRY_GOTO(st, make_runs(&rd, count, &runs, &rows, &entries), end);
    skald_layout layout = f->layout == SKALD_DENSE || t->force_dense ? SKALD_DENSE : SKALD_CSR;
    TRY_GOTO(st, rows_alloc(out, layout, rows, t->dim + t->intercept, layout == SKALD_CSR ? entries : 0), end);
    TRY_GOTO(st, data_parallel((int)threads, runs, read_run, &rd), end);
    if (layout == SKALD_CSR) close_gaps(&rd, runs);
    if (checksum) {
        *checksum = 0;
        for (uint64_t k = 0; k < count; k++) *checksum = block_checksum(*checksum, &blocks[k], rd.hashes[k]);
    }
end:
    for (size_t k = 0; k < threads && rd.workers; k++) h5_rows_free(&rd.workers[k]);
    free(rd.workers);
    free(rd.hashes);
    free(rd.runs);
    if (st != SKALD_OK) skald_rows_free(out);
    return st;
}

/* ---- open ----------------------------------------------------------------------------------------- */

static void h5_close(skald_source *s) {
    h5_file_close(&s->h5->file);
    free(s->h5);
}

skald_status h5_source_open(skald_source *s) {
    static const source_ops ops = {h5_scan, h5_read, h5_close};
    struct h5_source *h5 = calloc(1, sizeof *h5);
    if (!h5) return skald_fail(SKALD_ENOMEM, "%s: out of memory", s->path);
    skald_status st = h5_file_open(s->path, &h5->file);
    if (st != SKALD_OK) {
        free(h5);
        return st;
    }
    const h5_file *f = &h5->file;
    /* shuffled rows can be dealt in long runs; otherwise blocks are as small as those of text */
    h5->block_rows = 16;
    while (f->shuffled && h5->block_rows < 256 && (uint64_t)h5->block_rows * 8192 <= f->n) h5->block_rows *= 2;
    uint64_t rows = skald_max_size(rows_of_bytes(f, RUN_BYTES), (f->n >> 16) + 1);
    uint64_t unit = f->chunk_rows < (1u << 20) ? f->chunk_rows : 1; /* no chunk in two parts */
    rows = (rows + unit - 1) / unit * unit;
    h5->part_rows = (rows + 15) / 16 * 16;
    s->h5 = h5;
    s->ops = &ops;
    s->describe = f->layout == SKALD_CSR ? "HDF5, sparse" : "HDF5, dense";
    s->parts = (uint32_t)((f->n + h5->part_rows - 1) / h5->part_rows);
    return SKALD_OK;
}
