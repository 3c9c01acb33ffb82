/* What a scan gathers, row by row: shared by the text and the HDF5 reader. */
#ifndef SKALD_DATA_STATS_H
#define SKALD_DATA_STATS_H

#include "skald/data.h"

/* Statistics of one column within the current part. */
typedef struct stats_column {
    double sum, sum2;
    float max_abs; /* 0: not touched in this part */
} stats_column;

/* One thread's accumulator. Sums are formed part by part in row order, and only whole parts are added up (with
 * the low word kept), so that the result does not depend on who scanned which part. */
typedef struct data_stats {
    skald_manifest m;
    stats_column *columns; /* of the current part */
    uint32_t capacity;     /* columns there is room for, here and in m.col_* */
    uint32_t *touched;     /* dirty entries of `columns` */
    uint32_t touched_count;
    double part_norm2;
    uint64_t part_rows;
    size_t block_capacity;
    uint32_t last_label; /* most rows have the label of a recent one */
} data_stats;

/* A running sum in two words. */
static inline void sum_add(double *hi, double *lo, double x) {
    double s = *hi + x, back = s - *hi;
    *lo += (*hi - (s - back)) + (x - back);
    *hi = s;
}

/* Room for columns [0, dim). SKALD_ENOMEM. */
skald_status stats_reserve(data_stats *s, uint32_t dim);
/* One row's entries (idx < reserved, ascending). idx NULL: dense, entries 0 .. count-1. Values are not zero unless
 * dense. */
void stats_row(data_stats *s, const uint32_t *idx, const float *val, size_t count);
/* The label of the row last given to stats_row. */
skald_status stats_label(data_stats *s, double value, double weight);
/* Appends a block of the current part; first_row is filled in. */
skald_status stats_block(data_stats *s, uint32_t part, uint64_t offset, uint64_t bytes, uint32_t rows, uint64_t hash);
/* After the last row of a part. */
void stats_part_end(data_stats *s);
/* Frees everything, m included. */
void stats_free(data_stats *s);

/* Adds (count, weight) to the label's entry of a manifest; past SKALD_MAX_LABELS the table is dropped. */
skald_status labels_add(skald_manifest *m, double value, uint64_t count, double weight, uint32_t *hint);

#endif
