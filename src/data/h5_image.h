/* HDF5 files in memory: models and checkpoints are made and read as a whole. Numbers and texts are attributes of the
 * root, arrays are datasets. */
#ifndef SKALD_DATA_H5_IMAGE_H
#define SKALD_DATA_H5_IMAGE_H

#include "data/h5.h"

/* The file that `put` fills, `reserve` bytes of zeros in front; malloc'ed. SKALD_EINTERNAL. Takes the HDF5 lock. */
skald_status h5_image_make(bool (*put)(hid_t file, const void *contents), const void *contents, size_t reserve,
                           uint8_t **out, size_t *size);
/* Opens an image for `get`, which returns NULL or what is missing or wrong; so does this. Takes the HDF5 lock. */
const char *h5_image_parse(const uint8_t *image, size_t size, const char *(*get)(hid_t file, void *contents),
                           void *contents);

/* All return false where HDF5 cannot, or the file has something else there. */
bool h5_put_matrix(hid_t file, const char *name, const double *x, uint64_t rows, uint64_t n); /* rows 1: a vector */
bool h5_put_vector(hid_t file, const char *name, const double *x, uint64_t n);
bool h5_put_counts(hid_t file, const char *name, const uint64_t *x, uint64_t n);
bool h5_put_bytes(hid_t file, const char *name, const uint8_t *x, uint64_t n);
bool h5_put_number(hid_t file, const char *name, double value);
bool h5_put_string(hid_t file, const char *name, const char *value); /* NULL: "" */

/* *x is malloc'ed, the caller's to free also where they return false. */
bool h5_get_vector(hid_t file, const char *name, uint64_t most, double **x, uint64_t *n); /* or a matrix of n entries */
bool h5_get_counts(hid_t file, const char *name, uint64_t most, uint64_t **x, uint64_t *n);
bool h5_get_bytes(hid_t file, const char *name, uint64_t most, uint8_t **x, uint64_t *n);
bool h5_get_number(hid_t file, const char *name, double *value);
bool h5_get_string(hid_t file, const char *name, char **value);

#endif
