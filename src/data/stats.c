#include "data/stats.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/base.h"

/* A larger copy of an array; the new end is zero and, for large arrays, not touched until used. */
static void *grown(void *old, size_t have, size_t want, size_t size) {
    void *p = calloc(want, size);
    if (!p) return NULL;
    if (have) memcpy(p, old, have * size);
    free(old);
    return p;
}

skald_status stats_reserve(data_stats *s, uint32_t dim) {
    if (dim <= s->capacity) return SKALD_OK;
    size_t want = skald_max_size(dim, skald_min_size(2 * (size_t)s->capacity, INT32_MAX));
    if (want < 1024) want = 1024;
    /* calloc gives address space freely; what a model this wide needs must also fit the machine */
    size_t bytes = want * (5 * sizeof(double) + sizeof(stats_column) + sizeof(uint32_t));
    size_t memory = (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE);
    if (bytes > memory)
        return skald_fail(SKALD_ENOMEM, "statistics of %u columns need %zu MB, more than this machine has", dim,
                          bytes >> 20);
    size_t have = s->m.dim;
    double **const arrays[] = {&s->m.col_sum, &s->m.col_sum2, &s->m.col_max_abs, &s->m.col_sum_lo, &s->m.col_sum2_lo};
    for (size_t k = 0; k < SKALD_ARRAY_LENGTH(arrays); k++) {
        double *p = grown(*arrays[k], have, want, sizeof(double));
        if (!p) goto fail;
        *arrays[k] = p;
    }
    stats_column *columns = grown(s->columns, s->capacity, want, sizeof *columns);
    if (!columns) goto fail;
    s->columns = columns;
    uint32_t *touched = grown(s->touched, s->touched_count, want, sizeof *touched);
    if (!touched) goto fail;
    s->touched = touched;
    s->capacity = (uint32_t)want;
    return SKALD_OK;
fail:
    return skald_fail(SKALD_ENOMEM, "out of memory for the statistics of %u columns", dim);
}

void stats_row(data_stats *s, const uint32_t *idx, const float *val, size_t count) {
    double norm2 = 0;
    size_t nonzeros = 0;
    for (size_t k = 0; k < count; k++) {
        uint32_t j = idx ? idx[k] : (uint32_t)k;
        double v = val[k], v2 = v * v;
        float a = fabsf(val[k]);
        stats_column *c = &s->columns[j];
        if (c->max_abs == 0) {
            if (a == 0) continue;
            s->touched[s->touched_count++] = j;
        }
        nonzeros += a != 0;
        c->sum += v;
        c->sum2 += v2;
        c->max_abs = a > c->max_abs ? a : c->max_abs;
        norm2 += v2;
    }
    s->m.nonzeros += nonzeros;
    s->m.rows++;
    s->part_norm2 += norm2;
    if (norm2 > s->m.max_row_norm2) s->m.max_row_norm2 = norm2;
}

skald_status labels_add(skald_manifest *m, double value, uint64_t count, double weight, uint32_t *hint) {
    if (m->label_count > SKALD_MAX_LABELS) return SKALD_OK;
    uint32_t at = *hint;
    if (at >= m->label_count || m->labels[at].value != value) {
        uint32_t high = m->label_count;
        for (at = 0; at < high;) {
            uint32_t middle = (at + high) / 2;
            if (m->labels[middle].value < value)
                at = middle + 1;
            else
                high = middle;
        }
        if (at == m->label_count || m->labels[at].value != value) {
            if (m->label_count == SKALD_MAX_LABELS) { /* real targets */
                free(m->labels);
                m->labels = NULL;
                m->label_count = SKALD_MAX_LABELS + 1;
                return SKALD_OK;
            }
            skald_label *labels = realloc(m->labels, (m->label_count + 1) * sizeof *labels);
            if (!labels) return skald_fail(SKALD_ENOMEM, "out of memory for labels");
            memmove(labels + at + 1, labels + at, (m->label_count - at) * sizeof *labels);
            labels[at] = (skald_label){.value = value};
            m->labels = labels;
            m->label_count++;
        }
        *hint = at;
    }
    m->labels[at].count += count;
    m->labels[at].weight_sum += weight;
    return SKALD_OK;
}

skald_status stats_label(data_stats *s, double value, double weight) {
    skald_manifest *m = &s->m;
    value += 0.0; /* -0 is 0 */
    if (m->rows == 1) m->label_min = m->label_max = value;
    if (value < m->label_min) m->label_min = value;
    if (value > m->label_max) m->label_max = value;
    s->part_rows++;
    sum_add(&m->weight_sum, &m->weight_sum_lo, weight);
    return labels_add(m, value, 1, weight, &s->last_label);
}

skald_status stats_block(data_stats *s, uint32_t part, uint64_t offset, uint64_t bytes, uint32_t rows, uint64_t hash) {
    skald_manifest *m = &s->m;
    if (m->block_count == s->block_capacity) {
        size_t capacity = s->block_capacity ? 2 * s->block_capacity : 256;
        skald_block *blocks = realloc(m->blocks, capacity * sizeof *blocks);
        if (blocks) m->blocks = blocks;
        uint32_t *parts = realloc(m->part_of_block, capacity * sizeof *parts);
        if (parts) m->part_of_block = parts;
        if (!blocks || !parts) return skald_fail(SKALD_ENOMEM, "out of memory for the list of blocks");
        s->block_capacity = capacity;
    }
    m->part_of_block[m->block_count] = part;
    m->blocks[m->block_count++] = (skald_block){offset, bytes, s->part_rows - rows, rows, hash};
    return SKALD_OK;
}

void stats_part_end(data_stats *s) {
    skald_manifest *m = &s->m;
    for (uint32_t k = 0; k < s->touched_count; k++) {
        uint32_t j = s->touched[k];
        stats_column *c = &s->columns[j];
        sum_add(&m->col_sum[j], &m->col_sum_lo[j], c->sum);
        sum_add(&m->col_sum2[j], &m->col_sum2_lo[j], c->sum2);
        if (c->max_abs > m->col_max_abs[j]) m->col_max_abs[j] = c->max_abs;
        *c = (stats_column){0};
    }
    sum_add(&m->sum_row_norm2, &m->sum_row_norm2_lo, s->part_norm2);
    s->touched_count = 0;
    s->part_norm2 = 0;
    s->part_rows = 0;
    m->parts_merged++;
}

void stats_free(data_stats *s) {
    skald_manifest_free(&s->m);
    free(s->columns);
    free(s->touched);
    *s = (data_stats){0};
}
