/* Storage: how Skald reads and writes whole small files (models, checkpoints).
 *
 * A port, so that tests can fill the disk and a simulation can do without one. Blocking; any thread. */
#ifndef SKALD_STORAGE_H
#define SKALD_STORAGE_H

#include <stddef.h>
#include <stdint.h>

#include "skald/status.h"

typedef struct skald_storage {
    /* Afterwards `path` holds either all of the new bytes, safe on disk, or what it held before (on any failure:
     * SKALD_EIO with path and reason). */
    skald_status (*write_atomic)(struct skald_storage *self, const char *path, const void *bytes, size_t size);
    /* The whole file; *bytes is malloc'ed. SKALD_EIO. */
    skald_status (*read)(struct skald_storage *self, const char *path, uint8_t **bytes, size_t *size);
    /* As write_atomic, for regular files, and what `path` held before is at `previous` then; at any moment one of the
     * two is whole. One process at a time: SKALD_EIO if another is at it. */
    skald_status (*write_keeping)(struct skald_storage *self, const char *path, const char *previous, const void *bytes,
                                  size_t size);
} skald_storage;

/* The file system: a temporary file beside `path`, fsync, rename, fsync of the directory. Something that is no
 * regular file (/dev/stdout, a pipe) is written straight. */
skald_storage *skald_storage_posix(void);

#endif
