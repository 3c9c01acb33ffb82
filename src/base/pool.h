/* Memory for bytes that are sent: buffers that come back when the last reference goes. */
#ifndef SKALD_BASE_POOL_H
#define SKALD_BASE_POOL_H

#include <stddef.h>
#include <stdint.h>

#include "skald/bytes.h"
#include "skald/status.h"

/* Buffers of one size, 64-byte aligned. After the largest number in use at once has been reached, getting one
 * allocates nothing. Any thread. */
typedef struct skald_pool skald_pool;

skald_status skald_pool_create(size_t buffer_bytes, skald_pool **out);
/* Buffers still referenced stay valid; the memory goes with the last of them. NULL-safe. */
void skald_pool_destroy(skald_pool *pool);
/* A buffer with one reference and `size` = buffer_bytes (the holder may lower it); skald_bytes_unref gives it back.
 * NULL when out of memory. */
skald_bytes *skald_pool_get(skald_pool *pool);
size_t skald_pool_buffer_bytes(const skald_pool *pool);
/* Buffers made so far: what tests look at to see that nothing is allocated any more. */
size_t skald_pool_made(skald_pool *pool);

/* A single buffer, freed with its last reference. NULL when out of memory. */
skald_bytes *skald_bytes_create(size_t size);
/* The writable memory of a buffer from here that has not been shared yet. */
static inline uint8_t *skald_bytes_data(skald_bytes *b) {
    return (uint8_t *)(uintptr_t)b->data;
}

#endif
