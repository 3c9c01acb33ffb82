/* What is behind skald_source: one of two readers. */
#ifndef SKALD_DATA_SOURCE_H
#define SKALD_DATA_SOURCE_H

#include "data/bytes.h"
#include "skald/data.h"

typedef struct source_ops {
    skald_status (*scan)(skald_source *s, uint32_t first, uint32_t count, skald_manifest *out);
    skald_status (*read)(skald_source *s, const skald_block *blocks, uint64_t count, const skald_transform *t,
                         skald_rows *out, uint64_t *checksum);
    void (*close)(skald_source *s);
} source_ops;

struct skald_source {
    const source_ops *ops;
    char *path;
    const char *describe;
    skald_source_options options; /* weights_path is the caller's: not kept */
    uint32_t parts;
    double *weights; /* one a row of the file, or NULL */
    uint64_t weight_count;
    data_bytes bytes; /* text */
    struct h5_source *h5;
};

/* Fill in ops, describe, parts; `s->bytes` (text) or `s->path` is open. */
skald_status text_source_open(skald_source *s);
skald_status h5_source_open(skald_source *s);

/* Allocates rows of `nonzeros` (CSR) or n x stride (dense, not zeroed). */
skald_status rows_alloc(skald_rows *r, skald_layout layout, size_t n, uint32_t dim, size_t nonzeros);
/* What a label in the file becomes; `hint` remembers the last hit. False: not among the transform's labels. */
bool label_map(const skald_transform *t, double value, uint32_t *hint, double *target, double *weight);
/* The weight of row `row` of the file, times what the transform adds; `stored` is the file's own. */
double row_weight(const skald_source *s, const skald_transform *t, uint64_t row, double stored, double label_weight);
/* Rows first .. first+count-1 have a weight? And does the weights file fit `t->rows`? SKALD_EDATA. */
skald_status weights_check(const skald_source *s, const skald_transform *t, uint64_t first, uint64_t count);
/* Folds the hash of a block as read into a checksum of many. */
uint64_t block_checksum(uint64_t checksum, const skald_block *block, uint64_t hash);
/* Applies shift and scale to a dense row of t->dim entries, sets the constant column and zeroes the padding. */
void dense_row_finish(const skald_transform *t, float *x, size_t stride);

#endif
