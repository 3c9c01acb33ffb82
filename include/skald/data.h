/* Data: files in, rows out.
 *
 * A source is an open data file (LIBSVM text, plain or .gz/.xz, or HDF5). It is cut into *parts*, a
 * function of the file alone, which workers scan in parallel; each part is cut into *blocks* of a few
 * rows, the unit dealt to shards. Scans are merged into the manifest; then every worker reads the blocks
 * of the shards leased to it. All functions block on file I/O; a source may be used by one thread at a
 * time (it uses `threads` of its own inside). */
#ifndef SKALD_DATA_H
#define SKALD_DATA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "skald/status.h"

typedef enum skald_layout { SKALD_DENSE = 0, SKALD_CSR = 1 } skald_layout;

/* Rows in host memory, owned by whoever holds the struct; free with skald_rows_free.
 * Dense: x[i*stride + j], stride a multiple of 16 floats, padding zero, 64-byte aligned.
 * CSR: entries ptr[i] .. ptr[i+1] of (idx, val), idx ascending within a row, no duplicates.
 * With an intercept the loader stores it as column dim-1 (a 1 in every row). */
typedef struct skald_rows {
    skald_layout layout;
    size_t n;         /* rows */
    uint32_t dim;     /* columns, intercept included */
    size_t stride;    /* dense only, in floats */
    float *x;         /* dense: n*stride */
    uint64_t *ptr;    /* CSR: n+1 */
    uint32_t *idx;    /* CSR: ptr[n] */
    float *val;       /* CSR: ptr[n] */
    double *y;        /* n: -1/+1, a real, or a class index, as the transform says */
    double *s;        /* n: sample weight x class weight x transform.weight_scale */
    uint64_t *origin; /* n: row number in the original file, from 0 */
} skald_rows;

void skald_rows_free(skald_rows *rows); /* frees the arrays, zeroes the struct; NULL-safe members */
/* Room for n rows of dim columns (CSR: of `entries` in all; ptr[0] = 0), zeroed, without origins. */
skald_status skald_rows_make(skald_layout layout, size_t n, uint32_t dim, uint64_t entries, skald_rows *out);
/* Copies of some rows (numbers below from->n; without their origins), in the order given. *out is made anew. */
skald_status skald_rows_select(const skald_rows *from, const uint32_t *rows, size_t count, skald_rows *out);
/* All rows of `count` > 0 pieces of the same layout and dim, one piece after the other. *out is made anew. */
skald_status skald_rows_join(const skald_rows *pieces, size_t count, skald_rows *out);
/* To and from bytes for the wire (little-endian, without origins). Pack: `size` says how many bytes skald_rows_pack
 * writes. Unpack trusts nothing: SKALD_EPEER unless the bytes are at most `most` rows of `dim` columns with finite
 * numbers. */
size_t skald_rows_packed_size(const skald_rows *rows);
void skald_rows_pack(const skald_rows *rows, uint8_t *to);
skald_status skald_rows_unpack(const uint8_t *bytes, size_t size, uint32_t dim, size_t most, skald_rows *out);

/* A block: rows that lie together in the file. For text offset/bytes locate it in the (decompressed)
 * file; for HDF5 offset is the first row and bytes is 0. */
typedef struct skald_block {
    uint64_t offset, bytes;
    uint64_t first_row; /* row number in this file; within a part until the manifest makes it global */
    uint32_t rows;
    uint64_t hash; /* of the raw bytes (text) or of the stored values (HDF5) */
} skald_block;

typedef struct skald_label {
    double value;      /* as in the file */
    uint64_t count;    /* rows */
    double weight_sum; /* of the weights stored in the file; rows without one count 1 */
} skald_label;

/* What a scan of one or more parts found; also, after merging all parts, the manifest. Mergeable in any
 * order, and the result depends neither on it nor on how parts were grouped: blocks are ordered by part, and
 * sums over parts carry the low word that rounding left (*_lo, folded in by skald_manifest_finish).
 *
 * Weights: those stored in an HDF5 file are in weight_sum. Those of a --weights file are not: a scan does not
 * know its rows' numbers in the file, so they count 1 here, and skald_source_read puts them into s. The sum of
 * s over all loaded shards is what normalises. */
#define SKALD_MAX_LABELS 1024
typedef struct skald_manifest {
    skald_layout layout;
    uint64_t rows, nonzeros;
    uint32_t dim;         /* columns seen (largest index + 1 after the base is taken off), no intercept */
    uint32_t dim_limit;   /* the source's option `dim`, checked by finish; 0: none */
    bool zero_based;      /* an index 0 was seen */
    bool shuffled;        /* HDF5 that says so: rows are in random order, shards can be contiguous */
    double weight_sum;    /* sample weights, before class weights and rescaling */
    double max_row_norm2; /* max |x_i|^2 */
    double sum_row_norm2; /* sum |x_i|^2 */
    double weight_sum_lo, sum_row_norm2_lo;
    skald_label *labels;  /* ascending by value */
    uint32_t label_count; /* distinct labels; SKALD_MAX_LABELS + 1 means more than that (real targets) */
    double label_min, label_max;
    /* per column, `dim` entries each, zeros of sparse rows counted in n but not stored */
    double *col_sum, *col_sum2, *col_max_abs;
    double *col_sum_lo, *col_sum2_lo; /* NULL once finished */
    skald_block *blocks;              /* ordered by position in the file once all parts are merged */
    uint64_t block_count;
    uint32_t *part_of_block; /* block_count entries: part index, for ordering while merging */
    uint32_t parts_merged;
} skald_manifest;

void skald_manifest_free(skald_manifest *m);
/* Folds `from` into `into` (which may be zeroed). */
skald_status skald_manifest_merge(skald_manifest *into, const skald_manifest *from);
/* After the last merge: sorts blocks, makes first_row global, shifts 1-based files, checks: no rows, more
 * columns than dim_limit, a part scanned twice are SKALD_EDATA. The message has no path: the caller adds it. */
skald_status skald_manifest_finish(skald_manifest *m);
/* Serialise to / from bytes for the wire (little-endian, versioned). *out is malloc'ed. Decoding checks
 * every length and refuses anything inconsistent with SKALD_EPEER. */
skald_status skald_manifest_pack(const skald_manifest *m, uint8_t **out, size_t *size);
skald_status skald_manifest_unpack(const uint8_t *bytes, size_t size, skald_manifest *out);

typedef struct skald_source skald_source;

typedef struct skald_source_options {
    const char *weights_path; /* NULL, or a text file with one finite weight >= 0 a row, read at open; see manifest */
    int index_base;           /* -1 auto (0-based if an index 0 occurs), 0 or 1 */
    uint32_t dim;             /* 0: as seen; else the number of columns (more in the file: refused) */
    int threads;              /* >= 1 */
} skald_source_options;

/* Detects the format by content and suffix. Errors (all naming the path, text ones path:line):
 * SKALD_EIO unreadable, SKALD_EDATA empty or not a known format. */
skald_status skald_source_open(const char *path, const skald_source_options *options, skald_source **out);
void skald_source_close(skald_source *source);
/* Number of parts: fixed by the file alone (compressed files are decompressed whole at open). */
uint32_t skald_source_parts(const skald_source *source);
const char *
skald_source_describe(const skald_source *source); /* "LIBSVM text", "LIBSVM text, gzip (read whole)", ... */
/* Scans parts [first, first+count). Unsorted indices are sorted; comments, blank lines, CRLF and `qid:n` are
 * skipped; NaN/Inf, malformed lines, duplicate indices, labels that are no number: SKALD_EDATA with path:line
 * (HDF5: path, dataset and row). `out` is zeroed first. */
skald_status skald_source_scan(skald_source *source, uint32_t first, uint32_t count, skald_manifest *out);

typedef enum skald_scaling { SKALD_SCALE_NONE = 0, SKALD_SCALE_MAXABS, SKALD_SCALE_STANDARD } skald_scaling;

/* How raw rows become the rows that train. Owned by the caller. */
typedef struct skald_transform {
    uint32_t dim;                /* feature columns, no intercept; indices >= dim are SKALD_EDATA */
    bool zero_based;             /* how to read LIBSVM indices */
    bool intercept;              /* append the constant column */
    bool force_dense;            /* store CSR text as dense rows */
    bool keep_all_rows;          /* prediction: rows with unknown labels keep y = NaN instead of being refused */
    const double *shift;         /* NULL or dim: x_j = (x_j - shift_j) * scale_j (shift only for dense) */
    const double *scale;         /* NULL or dim */
    uint32_t label_count;        /* 0: labels are taken as real numbers */
    const double *label_values;  /* file value ... */
    const double *label_targets; /* ... becomes y */
    const double *label_weights; /* NULL, or the class weight of each label */
    double weight_scale;         /* n / sum of weights */
    uint64_t rows;               /* of the whole file, to check the weights file's length; 0: not checked */
} skald_transform;

/* Reads blocks (any subset, any order; rows come out in that order) into memory. Blocks come from the wire: any
 * that does not fit the file is SKALD_EDATA. Zeros stored in sparse files are dropped. `checksum` (may be
 * NULL) receives the combination of the block hashes as re-read: equal to skald_blocks_checksum(blocks)
 * iff the file is the one that was scanned. */
skald_status skald_source_read(skald_source *source, const skald_block *blocks, uint64_t block_count,
                               const skald_transform *transform, skald_rows *out, uint64_t *checksum);
uint64_t skald_blocks_checksum(const skald_block *blocks, uint64_t block_count);

/* Dense if the layout is dense or the density is above `threshold` (0.25 is a good choice). */
bool skald_manifest_wants_dense(const skald_manifest *m, double threshold);

/* Feature scaling from column statistics: allocates shift (NULL if not needed) and scale, dim each.
 * max-abs: 1/max|x_j|; standard: 1/sd over all rows, zeros counted, and for dense data the mean (of sparse data it
 * would fill the zeros: there a constant, which is not regularised, takes what the means make of it, and the slopes are
 * the same; without a constant they are not, and nothing is centred). Constant or empty columns get scale 1 (standard:
 * shift = mean, so they vanish). */
skald_status skald_scaling_make(skald_scaling kind, const skald_manifest *m, bool dense, double **shift,
                                double **scale);

/* Deals blocks to `shards` shards by a permutation keyed by `seed` (or contiguously), balancing rows.
 * out_shard[b] = shard of block b. Every shard gets at least one block, so shards <= block_count. */
skald_status skald_deal(const skald_manifest *m, uint32_t shards, uint64_t seed, bool contiguous, uint32_t *out_shard);

/* `skald generate`: writes a seeded problem as LIBSVM text or HDF5 (by suffix .h5/.hdf5).
 * kind: "epsilon", "mnist8m", "rcv1". Report (may be NULL) receives L and L_max of the logistic or
 * squared objective without regulariser, for printing. */
typedef struct skald_generate_options {
    const char *kind;
    uint64_t rows, seed;
    bool sort_by_label; /* a file as people have them: all of one class first */
} skald_generate_options;
typedef struct skald_generate_report {
    uint32_t dim;
    double density, L_squared, L_max_squared; /* times the loss's curvature gives L of that loss */
    double positive_share, nonzeros;
} skald_generate_report;
skald_status skald_generate(const skald_generate_options *options, const char *path, skald_generate_report *report);

/* `skald convert`: any readable source to the HDF5 form, rows shuffled by `seed`, original row numbers
 * kept, attribute shuffled = 1 (so that shards are contiguous and load at disk speed). Holds the whole set in
 * memory. Writes path.tmp, then renames. */
skald_status skald_convert(const char *input, const skald_source_options *options, uint64_t seed, const char *output);

#endif
