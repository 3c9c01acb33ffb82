/* Memory handed out front to back and taken back all at once: what protobuf-c unpacks a body into. */
#ifndef SKALD_WIRE_ARENA_H
#define SKALD_WIRE_ARENA_H

#include <protobuf-c/protobuf-c.h>
#include <stddef.h>
#include <stdint.h>

/* A hostile body can ask for many times its size (an empty element is 2 bytes on the wire): not more than this. */
#define WIRE_ARENA_MAX ((size_t)64 << 20)

typedef struct wire_arena {
    uint8_t *block; /* `size` bytes, `used` of them given out */
    size_t size, used;
    struct wire_chunk *extra; /* when the block did not suffice, until the next reset */
    size_t extra_bytes;
} wire_arena;

void wire_arena_init(wire_arena *arena);
void wire_arena_fini(wire_arena *arena);
/* Takes everything back, and sees to it that as much fits into the block next time. */
void wire_arena_reset(wire_arena *arena);
/* 16-byte aligned; NULL when out of memory or over WIRE_ARENA_MAX. */
void *wire_arena_get(wire_arena *arena, size_t bytes);
/* Its `free` does nothing. Valid as long as the arena. */
ProtobufCAllocator wire_arena_allocator(wire_arena *arena);

#endif
