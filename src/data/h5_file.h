/* An HDF5 file with the rows of a problem: what is in it, and getting at a range of rows. */
#ifndef SKALD_DATA_H5_FILE_H
#define SKALD_DATA_H5_FILE_H

#include "data/h5.h"
#include "skald/data.h"

/* Dense: `x` (also `X`, `data`), n x d. CSR: `data`, `indices`, `indptr` and perhaps `shape` (attribute or dataset).
 * Labels: `y` (also `label`, `labels`, `target`). Perhaps `weight` (also `weights`, `sample_weight`), `origin`, and
 * the attribute `shuffled`. Numbers may be of any integer or floating type. */
typedef struct h5_file {
    const char *path;                          /* the caller's */
    hid_t file, x, indices, y, weight, origin; /* -1: not there; x holds `data` of CSR */
    const char *x_name, *y_name, *weight_name;
    skald_layout layout;
    bool shuffled;
    uint64_t n;
    uint32_t dim;
    uint64_t *ptr;       /* CSR: n + 1, monotone, ptr[n] = entries */
    uint64_t chunk_rows; /* rows that are stored together, at least 1 */
} h5_file;

/* A range of rows in memory, checked: values finite, indices ascending and below dim. Buffers grow as needed and are
 * reused; free with h5_rows_free. */
typedef struct h5_rows {
    uint64_t first, count;
    float *x;      /* dense: count x dim */
    uint64_t *ptr; /* CSR: count + 1, from 0 */
    uint32_t *idx; /* CSR; zeros dropped */
    float *val;
    double *y;
    float *weight;
    uint64_t *origin;
    size_t capacity_rows, capacity_values;
} h5_rows;

/* SKALD_EDATA naming file and dataset when the contents do not fit together, SKALD_EIO when unreadable. */
skald_status h5_file_open(const char *path, h5_file *out);
void h5_file_close(h5_file *f);
/* Any thread; takes the HDF5 lock for the reading itself. */
skald_status h5_file_read(const h5_file *f, uint64_t first, uint64_t count, h5_rows *rows);
void h5_rows_free(h5_rows *rows);
/* Hash of `count` of the rows read, from `at` on, with labels and weights. */
uint64_t h5_rows_hash(const h5_file *f, const h5_rows *rows, uint64_t at, uint64_t count);

#endif
