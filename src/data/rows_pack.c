/* Rows as bytes: {layout, rows, columns, entries: u32, u32, u32, u64}, y and s (f64 each), then the values: dense, rows
 * x columns f32 without padding; CSR, the rows' lengths (u32), the columns (u32) and the values (f32) of all entries.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "skald/data.h"

enum { HEAD = 3 * sizeof(uint32_t) + sizeof(uint64_t) };

static uint64_t entries_of(const skald_rows *r) {
    return r->layout == SKALD_DENSE ? (uint64_t)r->n * r->dim : r->ptr[r->n];
}

static size_t size_of(skald_layout layout, size_t rows, uint64_t entries) {
    const size_t values = (size_t)entries * sizeof(float);
    const size_t where = layout == SKALD_CSR ? rows * sizeof(uint32_t) + (size_t)entries * sizeof(uint32_t) : 0;
    return HEAD + 2 * rows * sizeof(double) + where + values;
}

size_t skald_rows_packed_size(const skald_rows *r) {
    return size_of(r->layout, r->n, entries_of(r));
}

static uint8_t *put(uint8_t *to, const void *from, size_t bytes) {
    if (bytes) memcpy(to, from, bytes);
    return to + bytes;
}

static const uint8_t *get(const uint8_t *from, void *to, size_t bytes) {
    if (bytes) memcpy(to, from, bytes);
    return from + bytes;
}

void skald_rows_pack(const skald_rows *r, uint8_t *to) {
    const uint32_t head[3] = {(uint32_t)r->layout, (uint32_t)r->n, r->dim};
    const uint64_t entries = entries_of(r);
    to = put(to, head, sizeof head);
    to = put(to, &entries, sizeof entries);
    for (size_t i = 0; i < r->n; i++) {
        const double y = (double)r->y[i];
        to = put(to, &y, sizeof y);
    }
    for (size_t i = 0; i < r->n; i++) {
        const double s = (double)r->s[i];
        to = put(to, &s, sizeof s);
    }
    for (size_t i = 0; r->layout == SKALD_DENSE && i < r->n; i++)
        to = put(to, r->x + i * r->stride, r->dim * sizeof(float));
    if (r->layout == SKALD_DENSE) return;
    for (size_t i = 0; i < r->n; i++) {
        const uint32_t length = (uint32_t)(r->ptr[i + 1] - r->ptr[i]);
        to = put(to, &length, sizeof length);
    }
    to = put(to, r->idx, (size_t)entries * sizeof *r->idx);
    put(to, r->val, (size_t)entries * sizeof *r->val);
}

static bool all_floats_finite(const float *x, size_t n) {
    float probe = 0; /* 0 x NaN and 0 x infinity are NaN */
    for (size_t k = 0; k < n; k++) probe += x[k] * 0;
    return probe == 0;
}

static skald_status unpack_sparse(const uint8_t *at, uint64_t entries, skald_rows *out) {
    for (size_t i = 0; i < out->n; i++) {
        uint32_t length;
        at = get(at, &length, sizeof length);
        if (length > entries - out->ptr[i]) return skald_fail(SKALD_EPEER, "sampled rows with more entries than told");
        out->ptr[i + 1] = out->ptr[i] + length;
    }
    if (out->ptr[out->n] != entries) return skald_fail(SKALD_EPEER, "sampled rows with fewer entries than told");
    at = get(at, out->idx, (size_t)entries * sizeof *out->idx);
    get(at, out->val, (size_t)entries * sizeof *out->val);
    for (size_t i = 0; i < out->n; i++)
        for (uint64_t e = out->ptr[i]; e < out->ptr[i + 1]; e++)
            if (out->idx[e] >= out->dim || (e > out->ptr[i] && out->idx[e] <= out->idx[e - 1]))
                return skald_fail(SKALD_EPEER, "a sampled row with column %u out of place", out->idx[e]);
    return all_floats_finite(out->val, (size_t)entries) ? SKALD_OK
                                                        : skald_fail(SKALD_EPEER, "a sampled value is not finite");
}

static skald_status unpack(const uint8_t *at, uint64_t entries, skald_rows *out) {
    for (size_t i = 0; i < 2 * out->n; i++) {
        double v;
        at = get(at, &v, sizeof v);
        if (!isfinite(v) || (i >= out->n && v < 0)) return skald_fail(SKALD_EPEER, "a sampled row's label or weight");
        *(i < out->n ? &out->y[i] : &out->s[i - out->n]) = v;
    }
    if (out->layout == SKALD_CSR) return unpack_sparse(at, entries, out);
    for (size_t i = 0; i < out->n; i++) at = get(at, out->x + i * out->stride, out->dim * sizeof(float));
    return all_floats_finite(out->x, out->n * out->stride) ? SKALD_OK
                                                           : skald_fail(SKALD_EPEER, "a sampled value is not finite");
}

skald_status skald_rows_unpack(const uint8_t *bytes, size_t size, uint32_t dim, size_t most, skald_rows *out) {
    uint32_t head[3];
    uint64_t entries;
    *out = (skald_rows){0};
    if (size < HEAD) return skald_fail(SKALD_EPEER, "sampled rows of %zu bytes", size);
    bytes = get(get(bytes, head, sizeof head), &entries, sizeof entries);
    const skald_layout layout = (skald_layout)head[0];
    const size_t n = head[1];
    const uint64_t most_entries = (uint64_t)n * dim;
    if (head[0] > SKALD_CSR || n > most || head[2] != dim || entries > most_entries ||
        (layout == SKALD_DENSE && entries != most_entries) || size != size_of(layout, n, entries))
        return skald_fail(SKALD_EPEER, "%zu bytes that are not up to %zu sampled rows of %u columns", size, most, dim);
    skald_status st = skald_rows_make(layout, n, dim, entries, out);
    if (st == SKALD_OK) st = unpack(bytes, entries, out);
    if (st != SKALD_OK) skald_rows_free(out);
    return st;
}
