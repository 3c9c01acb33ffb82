#include "wire/arena.h"

#include <stdlib.h>
#include <string.h>

#include "base/base.h"

typedef struct wire_chunk {
    struct wire_chunk *next;
    void *pad; /* keeps what follows at 16 bytes */
} wire_chunk;

void wire_arena_init(wire_arena *arena) {
    memset(arena, 0, sizeof *arena);
}

static void free_extra(wire_arena *arena) {
    while (arena->extra) {
        wire_chunk *next = arena->extra->next;
        free(arena->extra);
        arena->extra = next;
    }
    arena->extra_bytes = 0;
}

void wire_arena_fini(wire_arena *arena) {
    free_extra(arena);
    free(arena->block);
    wire_arena_init(arena);
}

void wire_arena_reset(wire_arena *arena) {
    if (arena->extra) {
        size_t size = 2 * (arena->used + arena->extra_bytes);
        free_extra(arena);
        free(arena->block);
        arena->block = skald_alloc(1, size);
        arena->size = arena->block ? size : 0;
    }
    arena->used = 0;
}

void *wire_arena_get(wire_arena *arena, size_t bytes) {
    if (bytes > WIRE_ARENA_MAX) return NULL;
    bytes = (bytes + 15) / 16 * 16;
    if (bytes <= arena->size - arena->used) {
        void *p = arena->block + arena->used;
        arena->used += bytes;
        return p;
    }
    if (arena->used + arena->extra_bytes + bytes > WIRE_ARENA_MAX) return NULL;
    wire_chunk *chunk = malloc(sizeof *chunk + bytes);
    if (!chunk) return NULL;
    chunk->next = arena->extra;
    arena->extra = chunk;
    arena->extra_bytes += bytes;
    return chunk + 1;
}

static void *allocate(void *data, size_t bytes) {
    return wire_arena_get(data, bytes);
}

static void keep(void *data, void *pointer) { /* reset takes it back */
}

ProtobufCAllocator wire_arena_allocator(wire_arena *arena) {
    return (ProtobufCAllocator){allocate, keep, arena};
}
