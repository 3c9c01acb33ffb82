#include "base/pool.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/base.h"

/* A buffer's header and its memory are one block; the memory starts at the next multiple of 64. */
typedef struct buffer {
    skald_bytes bytes; /* first: a skald_bytes * from here is a buffer * */
    skald_pool *pool;
    struct buffer *next;
} buffer;

#define HEADER_BYTES 64
_Static_assert(sizeof(buffer) <= HEADER_BYTES, "the header must fit before the data");

struct skald_pool {
    pthread_mutex_t lock;
    buffer *idle;
    size_t buffer_bytes, made, out;
    bool destroyed;
};

static buffer *make(size_t size, void (*release)(skald_bytes *)) {
    if (size > SIZE_MAX - HEADER_BYTES) {
        skald_fail(SKALD_ENOMEM, "a buffer of %zu bytes is too large", size);
        return NULL;
    }
    buffer *b = skald_alloc(1, HEADER_BYTES + size);
    if (!b) return NULL;
    *b = (buffer){.bytes = {(uint8_t *)b + HEADER_BYTES, size, release, 1}};
    return b;
}

static void free_single(skald_bytes *bytes) {
    free(bytes);
}

skald_bytes *skald_bytes_create(size_t size) {
    buffer *b = make(size, free_single);
    return b ? &b->bytes : NULL;
}

skald_status skald_pool_create(size_t buffer_bytes, skald_pool **out) {
    skald_pool *pool = skald_zalloc(1, sizeof *pool);
    *out = pool;
    if (!pool) return SKALD_ENOMEM;
    pool->buffer_bytes = buffer_bytes;
    pthread_mutex_init(&pool->lock, NULL);
    return SKALD_OK;
}

static void free_pool(skald_pool *pool) {
    while (pool->idle) {
        buffer *next = pool->idle->next;
        free(pool->idle);
        pool->idle = next;
    }
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}

void skald_pool_destroy(skald_pool *pool) {
    if (!pool) return;
    pthread_mutex_lock(&pool->lock);
    pool->destroyed = true;
    bool last = pool->out == 0;
    pthread_mutex_unlock(&pool->lock);
    if (last) free_pool(pool);
}

static void give_back(skald_bytes *bytes) {
    buffer *b = (buffer *)bytes;
    skald_pool *pool = b->pool;
    pthread_mutex_lock(&pool->lock);
    b->next = pool->idle;
    pool->idle = b;
    pool->out--;
    bool last = pool->destroyed && pool->out == 0;
    pthread_mutex_unlock(&pool->lock);
    if (last) free_pool(pool);
}

skald_bytes *skald_pool_get(skald_pool *pool) {
    pthread_mutex_lock(&pool->lock);
    buffer *b = pool->idle;
    if (b) {
        pool->idle = b->next;
    } else {
        b = make(pool->buffer_bytes, give_back);
        if (b) pool->made++;
    }
    if (b) pool->out++;
    pthread_mutex_unlock(&pool->lock);
    if (!b) return NULL;
    b->pool = pool;
    b->bytes.size = pool->buffer_bytes;
    b->bytes.refs = 1;
    return &b->bytes;
}

size_t skald_pool_buffer_bytes(const skald_pool *pool) {
    return pool->buffer_bytes;
}

size_t skald_pool_made(skald_pool *pool) {
    pthread_mutex_lock(&pool->lock);
    size_t made = pool->made;
    pthread_mutex_unlock(&pool->lock);
    return made;
}
