/* The model's HDF5 image: shared by save and load. */
#ifndef SKALD_DATA_MODEL_FILE_H
#define SKALD_DATA_MODEL_FILE_H

#include "skald/model.h"

/* The model as an HDF5 file in memory, `reserve` bytes of zeros in front; malloc'ed. */
skald_status model_image_make(const char *path, const skald_model *m, size_t reserve, uint8_t **out, size_t *size);
/* And back; every length is checked. SKALD_EMODEL naming `path`. */
skald_status model_image_parse(const char *path, const uint8_t *image, size_t size, skald_model *out);

#endif
