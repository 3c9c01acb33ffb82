/* Writing rows to an HDF5 file, in order, a batch at a time. */
#ifndef SKALD_DATA_H5_WRITE_H
#define SKALD_DATA_H5_WRITE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "skald/data.h"

typedef struct h5_writer h5_writer;

typedef struct h5_layout {
    skald_layout layout;
    uint64_t rows;
    uint32_t dim;
    uint64_t nonzeros; /* CSR: how many there will be, or UINT64_MAX if not known (stored in chunks then) */
    bool weights, shuffled;
} h5_layout;

/* A batch. Dense: x is count x dim. CSR: ptr has count + 1 entries, from any start; row i's entries are idx and
 * val [ptr[i] - ptr[0], ...). weight NULL unless the layout has weights. */
typedef struct h5_batch {
    uint64_t count;
    const float *x;
    const uint64_t *ptr;
    const uint32_t *idx;
    const float *val;
    const double *y;
    const float *weight;
    const uint64_t *origin;
} h5_batch;

/* Writes to `path`.tmp until h5_writer_close renames it. SKALD_EIO with path and reason. */
skald_status h5_writer_open(const char *path, const h5_layout *layout, h5_writer **out);
skald_status h5_writer_append(h5_writer *w, const h5_batch *batch);
/* `done`: flush, check that all rows came, rename. Otherwise, and on failure, the temporary file is removed. */
skald_status h5_writer_close(h5_writer *w, bool done);

#endif
