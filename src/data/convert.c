/* `skald convert`: any source to shuffled HDF5. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "data/h5_write.h"
#include "data/source.h"

/* Gathers rows of the source in shuffled order, a batch at a time. */
typedef struct gather {
    uint64_t count, capacity;
    float *x, *val, *weight;
    uint32_t *idx;
    uint64_t *ptr, *origin;
    double *y;
} gather;

static void gather_free(gather *g) {
    free(g->x);
    free(g->val);
    free(g->weight);
    free(g->idx);
    free(g->ptr);
    free(g->origin);
    free(g->y);
}

static skald_status gather_alloc(gather *g, uint64_t rows) {
    g->capacity = rows;
    g->weight = skald_alloc(rows, sizeof *g->weight);
    g->ptr = skald_zalloc(rows + 1, sizeof *g->ptr);
    g->origin = skald_alloc(rows, sizeof *g->origin);
    g->y = skald_alloc(rows, sizeof *g->y);
    return g->weight && g->ptr && g->origin && g->y ? SKALD_OK : SKALD_ENOMEM;
}

/* Rows order(at) .. order(at + count - 1). */
static skald_status gather_rows(gather *g, const skald_rows *r, uint64_t seed, uint64_t at, uint64_t count) {
    uint64_t entries = 0;
    g->count = count;
    for (uint64_t k = 0; k < count; k++) {
        uint64_t i = skald_permute(seed, r->n, at + k);
        g->y[k] = r->y[i];
        g->weight[k] = r->s[i];
        g->origin[k] = r->origin[i];
        if (r->layout == SKALD_CSR) entries += r->ptr[i + 1] - r->ptr[i];
    }
    free(g->x);
    free(g->idx);
    free(g->val);
    g->x = g->val = NULL;
    g->idx = NULL;
    if (r->layout == SKALD_DENSE) {
        g->x = skald_alloc(count * r->dim, sizeof *g->x);
        if (!g->x) return SKALD_ENOMEM;
        for (uint64_t k = 0; k < count; k++)
            memcpy(g->x + k * r->dim, r->x + skald_permute(seed, r->n, at + k) * r->stride, r->dim * sizeof *g->x);
        return SKALD_OK;
    }
    g->idx = skald_alloc(entries, sizeof *g->idx);
    g->val = skald_alloc(entries, sizeof *g->val);
    if (!g->idx || !g->val) return SKALD_ENOMEM;
    uint64_t to = 0;
    for (uint64_t k = 0; k < count; k++) {
        uint64_t i = skald_permute(seed, r->n, at + k), n = r->ptr[i + 1] - r->ptr[i];
        memcpy(g->idx + to, r->idx + r->ptr[i], n * sizeof *g->idx);
        memcpy(g->val + to, r->val + r->ptr[i], n * sizeof *g->val);
        g->ptr[k] = to;
        to += n;
    }
    g->ptr[count] = to;
    return SKALD_OK;
}

static skald_status write_rows(const skald_rows *r, uint64_t seed, const char *output) {
    h5_layout layout = {.layout = r->layout, .rows = r->n, .dim = r->dim, .shuffled = true};
    if (r->layout == SKALD_CSR) layout.nonzeros = r->ptr[r->n];
    for (size_t i = 0; i < r->n; i++) layout.weights |= r->s[i] != 1;
    uint64_t row_bytes = r->layout == SKALD_DENSE ? 4ull * r->dim + 1 : 8 * (layout.nonzeros / r->n + 1);
    uint64_t step = skald_max_size((16u << 20) / row_bytes, 1);
    h5_writer *w = NULL;
    gather g = {0};
    skald_status st = h5_writer_open(output, &layout, &w);
    if (st == SKALD_OK) st = gather_alloc(&g, skald_min_size(step, r->n));
    for (uint64_t at = 0; st == SKALD_OK && at < r->n; at += step) {
        TRY_GOTO(st, gather_rows(&g, r, seed, at, skald_min_size(step, r->n - at)), end);
        h5_batch b = {g.count, g.x, g.ptr, g.idx, g.val, g.y, g.weight, g.origin};
        TRY_GOTO(st, h5_writer_append(w, &b), end);
    }
end:
    gather_free(&g);
    if (!w) return st;
    char message[1024];
    snprintf(message, sizeof message, "%s", skald_error());
    skald_status closed = h5_writer_close(w, st == SKALD_OK);
    return st == SKALD_OK ? closed : skald_fail(st, "%s", message);
}

skald_status skald_convert(const char *input, const skald_source_options *options, uint64_t seed, const char *output) {
    skald_source *s = NULL;
    skald_manifest m = {0};
    skald_rows rows = {0};
    skald_status st = skald_source_open(input, options, &s);
    TRY_GOTO(st, st, end);
    TRY_GOTO(st, skald_source_scan(s, 0, skald_source_parts(s), &m), end);
    st = skald_manifest_finish(&m);
    if (st != SKALD_OK) {
        skald_context(st, "%s", input);
        goto end;
    }
    skald_transform t = {.dim = m.dim,
                         .zero_based = m.zero_based,
                         .force_dense = skald_manifest_wants_dense(&m, 0.25) && m.dim > 0,
                         .weight_scale = 1,
                         .rows = m.rows};
    TRY_GOTO(st, skald_source_read(s, m.blocks, m.block_count, &t, &rows, NULL), end);
    TRY_GOTO(st, write_rows(&rows, seed, output), end);
end:
    skald_rows_free(&rows);
    skald_manifest_free(&m);
    skald_source_close(s);
    return st;
}
