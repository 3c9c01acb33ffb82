/* Sparse rows with several classes: which columns a batch touches, and their way between the port's [class][column] and
 * the kernels' [slot][class]. A task of few rows then costs what its rows' columns do, not what the model does. */
#include <string.h>

#include "base/base.h"
#include "compute/cpu.h"

/* Batches of more entries than this times the columns touch nearly all of them: they are taken as they lie. (By Zipf's
 * law, four times as many touch six columns in ten.) */
#define WORTH 8

size_t cpu_columns_entries(const cpu_shard *shard, const uint32_t *rows, size_t count) {
    const uint64_t *ptr = shard->rows.ptr;
    const uint64_t most = WORTH * (uint64_t)shard->rows.dim;
    uint64_t entries = 0;
    if (!rows) return 0;
    for (size_t k = 0; k < count && entries <= most; k++) entries += ptr[rows[k] + 1] - ptr[rows[k]];
    return entries <= most ? (size_t)entries : 0;
}

size_t cpu_columns_most(const cpu_shard *shard, size_t entries) {
    const size_t dim = shard->rows.dim, part = dim / 16 + 1;
    return entries ? skald_min_size(dim, (entries / part + 1) * part) : dim; /* in parts: scratch seldom grows */
}

size_t cpu_columns_bytes(const cpu_shard *shard, size_t count, size_t entries) {
    const size_t dim = shard->rows.dim;
    if (!entries) return 0;
    return 2 * CPU_SCRATCH_BYTES(dim, uint32_t) + CPU_SCRATCH_BYTES(count + 1, uint64_t) +
           CPU_SCRATCH_BYTES(entries, uint32_t) + CPU_SCRATCH_BYTES(entries, float);
}

/* Rows come in random order from memory: they are asked for some rows ahead. */
#define AHEAD 8
static void ask_row(const skald_rows *data, size_t i) {
    for (uint64_t e = data->ptr[i]; e < data->ptr[i + 1]; e += 16) {
        __builtin_prefetch(data->idx + e, 0, 2);
        __builtin_prefetch(data->val + e, 0, 2);
    }
}

cpu_columns cpu_columns_find(const cpu_shard *shard, const uint32_t *rows, size_t count, size_t entries,
                             cpu_scratch *scratch) {
    const skald_rows *data = &shard->rows;
    const size_t dim = data->dim;
    if (!entries)
        return (cpu_columns){.count = dim, .rows = rows, .ptr = data->ptr, .idx = data->idx, .val = data->val};
    uint32_t *slot = cpu_scratch_carve(scratch, dim, sizeof *slot);
    uint32_t *column = cpu_scratch_carve(scratch, dim, sizeof *column);
    uint64_t *ptr = cpu_scratch_carve(scratch, count + 1, sizeof *ptr);
    uint32_t *idx = cpu_scratch_carve(scratch, entries, sizeof *idx);
    float *val = cpu_scratch_carve(scratch, entries, sizeof *val);
    memset(slot, 0, dim * sizeof *slot);
    ptr[0] = 0;
    for (size_t k = 0; k < count; k++) {
        if (k + AHEAD < count) ask_row(data, rows[k + AHEAD]);
        const uint64_t begin = data->ptr[rows[k]], size = data->ptr[rows[k] + 1] - begin;
        memcpy(idx + ptr[k], data->idx + begin, size * sizeof *idx);
        memcpy(val + ptr[k], data->val + begin, size * sizeof *val);
        ptr[k + 1] = ptr[k] + size;
        for (uint64_t e = ptr[k]; e < ptr[k + 1]; e++) slot[idx[e]] = 1;
    }
    size_t slots = 0;
    for (size_t j = 0; j < dim; j++) {
        const uint32_t touched = slot[j];
        column[slots] = (uint32_t)j; /* stays if touched */
        slot[j] = (uint32_t)slots;
        slots += touched;
    }
    for (uint64_t e = 0; e < ptr[count]; e++) idx[e] = slot[idx[e]];
    return (cpu_columns){.count = slots, .column = column, .ptr = ptr, .idx = idx, .val = val};
}

size_t cpu_columns_slot(const cpu_columns *k, size_t column) {
    size_t low = 0, high = k->count;
    if (!k->column) return skald_min_size(column, high);
    while (low < high) {
        const size_t mid = low + (high - low) / 2;
        if (k->column[mid] < column)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

/* Eight classes at a time: whole lines on the side of the slots, eight streams on that of the columns. */
void cpu_columns_gather(const cpu_columns *k, size_t classes, size_t dim, const double *v, size_t begin, size_t end,
                        size_t stride, double *to) {
    for (size_t c = 0; c < classes; c += 8) {
        const double *const from = v + c * dim;
        const size_t some = skald_min_size(8, classes - c);
        for (size_t slot = begin; slot < end; slot++) {
            const double *at = from + (k->column ? k->column[slot] : slot);
            double *const out = to + slot * stride + c;
            if (some == 8)
                for (size_t i = 0; i < 8; i++) out[i] = at[i * dim];
            else
                for (size_t i = 0; i < 8; i++) out[i] = i < some ? at[i * dim] : 0;
        }
    }
}

void cpu_columns_scatter(const cpu_columns *k, size_t classes, size_t dim, const double *from, size_t begin, size_t end,
                         size_t stride, double *v) {
    for (size_t c = 0; c < classes; c += 8) {
        double *const to = v + c * dim;
        const size_t some = skald_min_size(8, classes - c);
        for (size_t slot = begin; slot < end; slot++) {
            double *const at = to + (k->column ? k->column[slot] : slot);
            const double *in = from + slot * stride + c;
            if (some == 8)
                for (size_t i = 0; i < 8; i++) at[i * dim] = in[i];
            else
                for (size_t i = 0; i < some; i++) at[i * dim] = in[i];
        }
    }
}
