/* The manifest on the wire: a fixed header, then arrays whose lengths the header states. Little-endian, as every
 * machine Skald runs on; the magic number would be wrong on another. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "skald/data.h"

#define MAGIC 0x31464d444c414b53ull /* "SKALDMF1" */

typedef struct header {
    uint64_t magic, size, rows, nonzeros, block_count;
    double weight_sum, weight_sum_lo, max_row_norm2, sum_row_norm2, sum_row_norm2_lo, label_min, label_max;
    uint32_t dim, dim_limit, label_count, parts_merged;
    uint8_t layout, zero_based, shuffled, low_words, unused[4];
} header;

/* A block without padding, so that equal manifests have equal bytes. */
typedef struct wire_block {
    uint64_t offset, bytes, first_row, hash;
    uint32_t rows, part;
} wire_block;

_Static_assert(sizeof(header) == 120 && sizeof(wire_block) == 40 && sizeof(skald_label) == 24, "wire format");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the wire format is that of little-endian machines");

static uint64_t labels_stored(uint32_t label_count) {
    return label_count > SKALD_MAX_LABELS ? 0 : label_count;
}

static uint64_t packed_size(const header *h) {
    uint64_t columns = (uint64_t)h->dim * (h->low_words ? 5 : 3) * sizeof(double);
    uint64_t labels = labels_stored(h->label_count) * sizeof(skald_label);
    return sizeof *h + columns + labels + h->block_count * sizeof(wire_block);
}

static void put(uint8_t **p, const void *data, size_t size) {
    if (size) memcpy(*p, data, size);
    *p += size;
}

skald_status skald_manifest_pack(const skald_manifest *m, uint8_t **out, size_t *size) {
    header h = {.magic = MAGIC,
                .rows = m->rows,
                .nonzeros = m->nonzeros,
                .block_count = m->block_count,
                .weight_sum = m->weight_sum,
                .weight_sum_lo = m->weight_sum_lo,
                .max_row_norm2 = m->max_row_norm2,
                .sum_row_norm2 = m->sum_row_norm2,
                .sum_row_norm2_lo = m->sum_row_norm2_lo,
                .label_min = m->label_min,
                .label_max = m->label_max,
                .dim = m->dim,
                .dim_limit = m->dim_limit,
                .label_count = m->label_count,
                .parts_merged = m->parts_merged,
                .layout = (uint8_t)m->layout,
                .zero_based = m->zero_based,
                .shuffled = m->shuffled,
                .low_words = m->col_sum_lo != NULL};
    h.size = packed_size(&h);
    uint8_t *bytes = skald_alloc(h.size, 1), *p = bytes;
    if (!bytes) return SKALD_ENOMEM;
    put(&p, &h, sizeof h);
    put(&p, m->labels, labels_stored(m->label_count) * sizeof *m->labels);
    put(&p, m->col_sum, m->dim * sizeof(double));
    put(&p, m->col_sum2, m->dim * sizeof(double));
    put(&p, m->col_max_abs, m->dim * sizeof(double));
    if (h.low_words) {
        put(&p, m->col_sum_lo, m->dim * sizeof(double));
        put(&p, m->col_sum2_lo, m->dim * sizeof(double));
    }
    for (uint64_t b = 0; b < m->block_count; b++) {
        const skald_block *k = &m->blocks[b];
        wire_block w = {k->offset, k->bytes, k->first_row, k->hash, k->rows, m->part_of_block[b]};
        put(&p, &w, sizeof w);
    }
    *out = bytes;
    *size = h.size;
    return SKALD_OK;
}

static skald_status refuse(const char *what) {
    return skald_fail(SKALD_EPEER, "malformed manifest: %s", what);
}

static skald_status take(const uint8_t **p, void *out, uint64_t count, size_t size) {
    void *copy = malloc(count ? count * size : 1); /* at most as long as the message */
    if (!copy) return skald_fail(SKALD_ENOMEM, "out of memory for a manifest");
    memcpy(copy, *p, count * size);
    memcpy(out, &copy, sizeof copy);
    *p += count * size;
    return SKALD_OK;
}

static skald_status take_blocks(const uint8_t *p, skald_manifest *m) {
    m->blocks = malloc((m->block_count ? m->block_count : 1) * sizeof *m->blocks);
    m->part_of_block = malloc((m->block_count ? m->block_count : 1) * sizeof *m->part_of_block);
    if (!m->blocks || !m->part_of_block) return skald_fail(SKALD_ENOMEM, "out of memory for a manifest");
    for (uint64_t b = 0; b < m->block_count; b++) {
        wire_block w;
        memcpy(&w, p + b * sizeof w, sizeof w);
        m->blocks[b] = (skald_block){w.offset, w.bytes, w.first_row, w.rows, w.hash};
        m->part_of_block[b] = w.part;
    }
    return SKALD_OK;
}

static bool all_finite(const double *x, size_t n, bool non_negative) {
    for (size_t k = 0; k < n; k++)
        if (!isfinite(x[k]) || (non_negative && x[k] < 0)) return false;
    return true;
}

static skald_status check_header(const header *h, size_t size) {
    const double numbers[] = {h->weight_sum,       h->weight_sum_lo, h->max_row_norm2, h->sum_row_norm2,
                              h->sum_row_norm2_lo, h->label_min,     h->label_max};
    if (h->magic != MAGIC) return refuse("not a manifest, or of another version");
    /* bounds first, so that the sizes below cannot overflow */
    if (h->dim > (1u << 31) || h->dim_limit > (1u << 31) || h->block_count > size ||
        h->label_count > SKALD_MAX_LABELS + 1)
        return refuse("counts out of range");
    if (h->layout > SKALD_CSR || h->zero_based > 1 || h->shuffled > 1 || h->low_words > 1) return refuse("flags");
    if (h->size != size || packed_size(h) != size) return refuse("length does not match its contents");
    if (!all_finite(numbers, SKALD_ARRAY_LENGTH(numbers), false)) return refuse("a sum is not finite");
    if (h->rows > UINT64_MAX / 2 || (h->rows > 0) != (h->block_count > 0)) return refuse("rows and blocks disagree");
    if (h->rows > 0 && h->label_count == 0) return refuse("no labels");
    return SKALD_OK;
}

static skald_status check_contents(const skald_manifest *m, bool low_words) {
    uint64_t rows = 0, labelled = 0;
    for (uint64_t b = 0; b < m->block_count; b++) {
        const skald_block *k = &m->blocks[b];
        if (k->rows == 0 || k->offset > UINT64_MAX / 2 || k->bytes > UINT64_MAX / 2) return refuse("a block");
        rows += k->rows;
    }
    if (rows != m->rows) return refuse("blocks do not add up to the rows");
    uint64_t labels = labels_stored(m->label_count);
    for (uint64_t k = 0; k < labels; k++) {
        if (!isfinite(m->labels[k].value) || (k && m->labels[k].value <= m->labels[k - 1].value))
            return refuse("labels out of order");
        if (!isfinite(m->labels[k].weight_sum) || m->labels[k].count > m->rows) return refuse("a label");
        labelled += m->labels[k].count;
    }
    if (labels && labelled != m->rows) return refuse("labels do not add up to the rows");
    if (!all_finite(m->col_sum, m->dim, false) || !all_finite(m->col_sum2, m->dim, true) ||
        !all_finite(m->col_max_abs, m->dim, true) ||
        (low_words && (!all_finite(m->col_sum_lo, m->dim, false) || !all_finite(m->col_sum2_lo, m->dim, false))))
        return refuse("column statistics");
    return SKALD_OK;
}

skald_status skald_manifest_unpack(const uint8_t *bytes, size_t size, skald_manifest *out) {
    header h;
    *out = (skald_manifest){0};
    if (size < sizeof h) return refuse("too short");
    memcpy(&h, bytes, sizeof h);
    TRY(check_header(&h, size));
    skald_manifest m = {.layout = (skald_layout)h.layout,
                        .rows = h.rows,
                        .nonzeros = h.nonzeros,
                        .dim = h.dim,
                        .dim_limit = h.dim_limit,
                        .zero_based = h.zero_based,
                        .shuffled = h.shuffled,
                        .weight_sum = h.weight_sum,
                        .weight_sum_lo = h.weight_sum_lo,
                        .max_row_norm2 = h.max_row_norm2,
                        .sum_row_norm2 = h.sum_row_norm2,
                        .sum_row_norm2_lo = h.sum_row_norm2_lo,
                        .label_count = h.label_count,
                        .label_min = h.label_min,
                        .label_max = h.label_max,
                        .block_count = h.block_count,
                        .parts_merged = h.parts_merged};
    const uint8_t *p = bytes + sizeof h;
    skald_status st = SKALD_OK;
    TRY_GOTO(st, take(&p, &m.labels, labels_stored(h.label_count), sizeof(skald_label)), fail);
    TRY_GOTO(st, take(&p, &m.col_sum, h.dim, sizeof(double)), fail);
    TRY_GOTO(st, take(&p, &m.col_sum2, h.dim, sizeof(double)), fail);
    TRY_GOTO(st, take(&p, &m.col_max_abs, h.dim, sizeof(double)), fail);
    if (h.low_words) {
        TRY_GOTO(st, take(&p, &m.col_sum_lo, h.dim, sizeof(double)), fail);
        TRY_GOTO(st, take(&p, &m.col_sum2_lo, h.dim, sizeof(double)), fail);
    }
    TRY_GOTO(st, take_blocks(p, &m), fail);
    TRY_GOTO(st, check_contents(&m, h.low_words), fail);
    *out = m;
    return SKALD_OK;
fail:
    skald_manifest_free(&m);
    return st;
}
