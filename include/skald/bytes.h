/* Refcounted bytes: what is shared between threads, sends and versions. */
#ifndef SKALD_BYTES_H
#define SKALD_BYTES_H

#include <stddef.h>
#include <stdint.h>

/* A refcounted, immutable-once-shared run of bytes. */
typedef struct skald_bytes {
    const uint8_t *data;
    size_t size;
    void (*release)(struct skald_bytes *self); /* called when the last reference goes, on any thread */
    int refs;                                  /* atomic; use the functions */
} skald_bytes;

skald_bytes *skald_bytes_ref(skald_bytes *b);
void skald_bytes_unref(skald_bytes *b); /* NULL-safe */

#endif
