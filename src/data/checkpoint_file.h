/* The checkpoint's HDF5 image: shared by save and load. */
#ifndef SKALD_DATA_CHECKPOINT_FILE_H
#define SKALD_DATA_CHECKPOINT_FILE_H

#include "skald/checkpoint.h"

/* The checkpoint as an HDF5 file in memory, `reserve` bytes of zeros in front; malloc'ed. */
skald_status checkpoint_image_make(const skald_checkpoint *c, size_t reserve, uint8_t **out, size_t *size);
/* And back; every length is checked. NULL, or what is missing or wrong; *out is to be freed either way. */
const char *checkpoint_image_parse(const uint8_t *image, size_t size, skald_checkpoint *out);

#endif
