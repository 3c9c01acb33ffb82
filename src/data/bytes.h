/* A whole file as bytes: mapped, or decompressed into memory. */
#ifndef SKALD_DATA_BYTES_H
#define SKALD_DATA_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "skald/status.h"

typedef enum bytes_kind { BYTES_PLAIN, BYTES_GZIP, BYTES_XZ, BYTES_HDF5 } bytes_kind;

/* `data[0 .. size)` is followed by at least 64 zero bytes, so that a parser may look ahead. */
typedef struct data_bytes {
    const char *data;
    size_t size;
    bytes_kind kind;
    int fd;        /* plain: kept open for bytes_check; else -1 */
    size_t mapped; /* plain: length of the mapping */
} data_bytes;

/* Opens a regular file of at least one byte and finds out what it is. For BYTES_HDF5 nothing is mapped
 * (data NULL). SKALD_EIO unreadable; SKALD_EDATA empty, a directory, damaged, an unknown compression. */
skald_status bytes_open(const char *path, data_bytes *out);
void bytes_close(data_bytes *bytes);
/* Is the mapped file still as long as it was? SKALD_EIO if not. A file that shrinks while it is read still
 * raises SIGBUS: between this check and the read there is a window that only copying would close. */
skald_status bytes_check(const data_bytes *bytes, const char *path);

#endif
