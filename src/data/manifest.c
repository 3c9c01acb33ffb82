/* The manifest: merging what workers found, and what follows from it. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "data/source.h"
#include "data/stats.h"

void skald_manifest_free(skald_manifest *m) {
    free(m->labels);
    free(m->col_sum);
    free(m->col_sum2);
    free(m->col_max_abs);
    free(m->col_sum_lo);
    free(m->col_sum2_lo);
    free(m->blocks);
    free(m->part_of_block);
    *m = (skald_manifest){0};
}

/* ---- merge ---------------------------------------------------------------------------------------- */

static skald_status grow_columns(skald_manifest *m, uint32_t dim) {
    double **const arrays[] = {&m->col_sum, &m->col_sum2, &m->col_max_abs, &m->col_sum_lo, &m->col_sum2_lo};
    for (size_t k = 0; k < SKALD_ARRAY_LENGTH(arrays); k++) {
        if (dim <= m->dim && *arrays[k]) continue;
        double *p = calloc(dim ? dim : 1, sizeof *p);
        if (!p) return skald_fail(SKALD_ENOMEM, "out of memory for the statistics of %u columns", dim);
        if (*arrays[k]) memcpy(p, *arrays[k], m->dim * sizeof *p);
        free(*arrays[k]);
        *arrays[k] = p;
    }
    if (dim > m->dim) m->dim = dim;
    return SKALD_OK;
}

static skald_status merge_labels(skald_manifest *into, const skald_manifest *from) {
    uint32_t hint = 0;
    if (from->label_count > SKALD_MAX_LABELS) {
        free(into->labels);
        into->labels = NULL;
        into->label_count = SKALD_MAX_LABELS + 1;
    }
    for (uint32_t k = 0; k < from->label_count && into->label_count <= SKALD_MAX_LABELS; k++)
        TRY(labels_add(into, from->labels[k].value, from->labels[k].count, from->labels[k].weight_sum, &hint));
    return SKALD_OK;
}

skald_status skald_manifest_merge(skald_manifest *into, const skald_manifest *from) {
    if (from->parts_merged == 0 && from->rows == 0) return SKALD_OK;
    if (into->parts_merged == 0) {
        into->layout = from->layout;
        into->dim_limit = from->dim_limit;
        into->shuffled = from->shuffled;
    }
    if (into->layout != from->layout || into->dim_limit != from->dim_limit || into->shuffled != from->shuffled)
        return skald_fail(SKALD_EDATA, "scans of different files, or with different options, cannot be merged");
    TRY(grow_columns(into, from->dim));
    for (uint32_t j = 0; j < from->dim; j++) {
        sum_add(&into->col_sum[j], &into->col_sum_lo[j], from->col_sum[j]);
        sum_add(&into->col_sum2[j], &into->col_sum2_lo[j], from->col_sum2[j]);
        if (from->col_sum_lo) into->col_sum_lo[j] += from->col_sum_lo[j]; /* NULL: a finished manifest */
        if (from->col_sum2_lo) into->col_sum2_lo[j] += from->col_sum2_lo[j];
        if (from->col_max_abs[j] > into->col_max_abs[j]) into->col_max_abs[j] = from->col_max_abs[j];
    }
    if (from->block_count) {
        uint64_t count = into->block_count + from->block_count;
        skald_block *blocks = realloc(into->blocks, count * sizeof *blocks);
        if (blocks) into->blocks = blocks;
        uint32_t *parts = realloc(into->part_of_block, count * sizeof *parts);
        if (parts) into->part_of_block = parts;
        if (!blocks || !parts) return skald_fail(SKALD_ENOMEM, "out of memory for the list of blocks");
        memcpy(blocks + into->block_count, from->blocks, from->block_count * sizeof *blocks);
        memcpy(parts + into->block_count, from->part_of_block, from->block_count * sizeof *parts);
        into->block_count = count;
    }
    TRY(merge_labels(into, from));
    if (from->rows) {
        into->label_min = into->rows ? fmin(into->label_min, from->label_min) : from->label_min;
        into->label_max = into->rows ? fmax(into->label_max, from->label_max) : from->label_max;
    }
    into->rows += from->rows;
    into->nonzeros += from->nonzeros;
    into->zero_based |= from->zero_based;
    into->max_row_norm2 = fmax(into->max_row_norm2, from->max_row_norm2);
    sum_add(&into->weight_sum, &into->weight_sum_lo, from->weight_sum);
    into->weight_sum_lo += from->weight_sum_lo;
    sum_add(&into->sum_row_norm2, &into->sum_row_norm2_lo, from->sum_row_norm2);
    into->sum_row_norm2_lo += from->sum_row_norm2_lo;
    into->parts_merged += from->parts_merged;
    return SKALD_OK;
}

/* ---- finish --------------------------------------------------------------------------------------- */

typedef struct ordered_block {
    uint32_t part;
    skald_block block;
} ordered_block;

static int by_position(const void *a, const void *b) {
    const ordered_block *p = a, *q = b;
    if (p->part != q->part) return p->part < q->part ? -1 : 1;
    return p->block.offset < q->block.offset ? -1 : p->block.offset > q->block.offset;
}

static skald_status order_blocks(skald_manifest *m) {
    ordered_block *o = malloc((m->block_count ? m->block_count : 1) * sizeof *o);
    if (!o) return skald_fail(SKALD_ENOMEM, "out of memory for the list of blocks");
    for (uint64_t b = 0; b < m->block_count; b++) o[b] = (ordered_block){m->part_of_block[b], m->blocks[b]};
    qsort(o, m->block_count, sizeof *o, by_position);
    uint64_t row = 0, reached = 0;
    skald_status st = SKALD_OK;
    for (uint64_t b = 0; b < m->block_count && st == SKALD_OK; b++) {
        if (b && o[b].block.offset < reached)
            st = skald_fail(SKALD_EDATA, "part %u of the data was scanned twice", o[b].part);
        reached = o[b].block.offset + (o[b].block.bytes ? o[b].block.bytes : o[b].block.rows);
        m->part_of_block[b] = o[b].part;
        m->blocks[b] = o[b].block;
        m->blocks[b].first_row = row;
        row += m->blocks[b].rows;
    }
    free(o);
    if (st == SKALD_OK && row != m->rows)
        st = skald_fail(SKALD_EDATA, "blocks hold %llu rows of %llu", (unsigned long long)row,
                        (unsigned long long)m->rows);
    return st;
}

skald_status skald_manifest_finish(skald_manifest *m) {
    if (m->rows == 0) return skald_fail(SKALD_EDATA, "there are no rows (only blank lines and comments, or nothing)");
    TRY(order_blocks(m));
    TRY(grow_columns(m, m->dim));
    for (uint32_t j = 0; j < m->dim; j++) {
        m->col_sum[j] += m->col_sum_lo[j];
        m->col_sum2[j] += m->col_sum2_lo[j];
    }
    free(m->col_sum_lo);
    free(m->col_sum2_lo);
    m->col_sum_lo = m->col_sum2_lo = NULL;
    m->weight_sum += m->weight_sum_lo;
    m->sum_row_norm2 += m->sum_row_norm2_lo;
    m->weight_sum_lo = m->sum_row_norm2_lo = 0;
    if (!m->zero_based && m->dim > 0) { /* column 0 is index 0, which does not exist */
        m->dim--;
        double *const arrays[] = {m->col_sum, m->col_sum2, m->col_max_abs};
        for (size_t k = 0; k < SKALD_ARRAY_LENGTH(arrays); k++)
            memmove(arrays[k], arrays[k] + 1, m->dim * sizeof(double));
    }
    if (m->dim_limit && m->dim > m->dim_limit)
        return skald_fail(SKALD_EDATA, "indices start at 0 and go up to %u, beyond the %u columns there should be",
                          m->dim - 1, m->dim_limit);
    if (m->dim_limit > m->dim) {
        TRY(grow_columns(m, m->dim_limit));
        free(m->col_sum_lo);
        free(m->col_sum2_lo);
        m->col_sum_lo = m->col_sum2_lo = NULL;
    }
    return SKALD_OK;
}

/* ---- what follows --------------------------------------------------------------------------------- */

bool skald_manifest_wants_dense(const skald_manifest *m, double threshold) {
    return m->layout == SKALD_DENSE || (double)m->nonzeros > threshold * (double)m->rows * (double)m->dim;
}

uint64_t block_checksum(uint64_t checksum, const skald_block *block, uint64_t hash) {
    return skald_mix64(checksum * 3 + hash + skald_mix64(block->offset ^ ((uint64_t)block->rows << 48)));
}

uint64_t skald_blocks_checksum(const skald_block *blocks, uint64_t block_count) {
    uint64_t checksum = 0;
    for (uint64_t b = 0; b < block_count; b++) checksum = block_checksum(checksum, &blocks[b], blocks[b].hash);
    return checksum;
}

skald_status skald_scaling_make(skald_scaling kind, const skald_manifest *m, bool dense, double **shift,
                                double **scale) {
    *shift = *scale = NULL;
    if (kind == SKALD_SCALE_NONE) return SKALD_OK;
    *scale = skald_alloc(m->dim, sizeof(double));
    if (!*scale) return SKALD_ENOMEM;
    if (kind == SKALD_SCALE_MAXABS) {
        for (uint32_t j = 0; j < m->dim; j++) (*scale)[j] = m->col_max_abs[j] > 0 ? 1 / m->col_max_abs[j] : 1;
        return SKALD_OK;
    }
    if (dense) *shift = skald_alloc(m->dim, sizeof(double));
    if (dense && !*shift) {
        free(*scale);
        *scale = NULL;
        return SKALD_ENOMEM;
    }
    double n = (double)m->rows;
    for (uint32_t j = 0; j < m->dim; j++) {
        double mean = m->col_sum[j] / n, mean2 = m->col_sum2[j] / n, variance = mean2 - mean * mean;
        if (dense) (*shift)[j] = mean;
        /* below this the difference is rounding, and the column is constant */
        (*scale)[j] = variance > 1e-12 * mean2 ? 1 / sqrt(variance) : 1;
    }
    return SKALD_OK;
}

skald_status skald_deal(const skald_manifest *m, uint32_t shards, uint64_t seed, bool contiguous, uint32_t *out_shard) {
    uint64_t blocks = m->block_count;
    if (shards == 0 || shards > blocks)
        return skald_fail(SKALD_EINVAL, "%u shards of %llu rows in %llu blocks: at least 1, at most one a block",
                          shards, (unsigned long long)m->rows, (unsigned long long)blocks);
    /* walk the blocks in the dealt order, cutting where the row count passes the next share */
    uint64_t rows = 0;
    uint32_t shard = 0;
    for (uint64_t k = 0; k < blocks; k++) {
        uint64_t b = contiguous ? k : skald_permute(seed, blocks, k);
        double middle = (double)rows + 0.5 * m->blocks[b].rows;
        uint64_t want = (uint64_t)(middle * shards / (double)m->rows);
        if (want > shard && k > 0) shard++;                                            /* never skip a shard */
        if (shards - 1 - shard >= blocks - k) shard = shards - (uint32_t)(blocks - k); /* leave one for each */
        if (shard >= shards) shard = shards - 1;
        out_shard[b] = shard;
        rows += m->blocks[b].rows;
    }
    return SKALD_OK;
}
