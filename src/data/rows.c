/* Rows in memory. A file of its own: backends in plugins take rows over and free them. */
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "skald/data.h"

void skald_rows_free(skald_rows *rows) {
    free(rows->x);
    free(rows->ptr);
    free(rows->idx);
    free(rows->val);
    free(rows->y);
    free(rows->s);
    free(rows->origin);
    *rows = (skald_rows){0};
}

static size_t stride_of(uint32_t dim) {
    return ((size_t)dim + 15) / 16 * 16;
}

skald_status skald_rows_make(skald_layout layout, size_t n, uint32_t dim, uint64_t entries, skald_rows *out) {
    *out = (skald_rows){.layout = layout, .n = n, .dim = dim};
    const size_t some = n ? n : 1, values = entries ? (size_t)entries : 1;
    out->y = skald_zalloc(some, sizeof *out->y);
    out->s = skald_zalloc(some, sizeof *out->s);
    bool made = out->y && out->s;
    if (layout == SKALD_DENSE) {
        out->stride = stride_of(dim);
        out->x = skald_zalloc(some * out->stride, sizeof *out->x);
        made &= out->x != NULL;
    } else {
        out->ptr = skald_zalloc(n + 1, sizeof *out->ptr);
        out->idx = skald_zalloc(values, sizeof *out->idx);
        out->val = skald_zalloc(values, sizeof *out->val);
        made &= out->ptr && out->idx && out->val;
    }
    if (!made) skald_rows_free(out);
    return made ? SKALD_OK : SKALD_ENOMEM;
}

/* Row i of `from` as row k of `to`, whose rows before it are filled in. */
static void copy_row(skald_rows *to, size_t k, const skald_rows *from, size_t i) {
    to->y[k] = from->y[i];
    to->s[k] = from->s[i];
    if (from->layout == SKALD_DENSE) {
        memcpy(to->x + k * to->stride, from->x + i * from->stride, from->dim * sizeof *to->x);
        return;
    }
    const uint64_t begin = from->ptr[i], length = from->ptr[i + 1] - begin, at = to->ptr[k];
    memcpy(to->idx + at, from->idx + begin, (size_t)length * sizeof *to->idx);
    memcpy(to->val + at, from->val + begin, (size_t)length * sizeof *to->val);
    to->ptr[k + 1] = at + length;
}

skald_status skald_rows_select(const skald_rows *from, const uint32_t *rows, size_t count, skald_rows *out) {
    uint64_t entries = 0;
    for (size_t k = 0; from->layout == SKALD_CSR && k < count; k++)
        entries += from->ptr[rows[k] + 1] - from->ptr[rows[k]];
    skald_status st = skald_rows_make(from->layout, count, from->dim, entries, out);
    for (size_t k = 0; st == SKALD_OK && k < count; k++) copy_row(out, k, from, rows[k]);
    return st;
}

skald_status skald_rows_join(const skald_rows *pieces, size_t count, skald_rows *out) {
    uint64_t entries = 0;
    size_t n = 0;
    for (size_t p = 0; p < count; p++) {
        n += pieces[p].n;
        if (pieces[p].layout == SKALD_CSR) entries += pieces[p].ptr[pieces[p].n];
    }
    skald_status st = skald_rows_make(pieces[0].layout, n, pieces[0].dim, entries, out);
    if (st != SKALD_OK) return st;
    for (size_t p = 0, k = 0; p < count; p++)
        for (size_t i = 0; i < pieces[p].n; i++) copy_row(out, k++, &pieces[p], i);
    return SKALD_OK;
}
