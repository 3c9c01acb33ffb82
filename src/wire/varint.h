/* Protobuf's base-128 integers and the few facts of its wire format used here. */
#ifndef SKALD_WIRE_VARINT_H
#define SKALD_WIRE_VARINT_H

#include <stddef.h>
#include <stdint.h>

/* Field 16 of Frame, length-delimited. */
#define WIRE_VECTOR_FIELD 16u
#define WIRE_VECTOR_TAG (WIRE_VECTOR_FIELD << 3 | 2u)

static inline size_t wire_varint_bytes(uint64_t v) {
    size_t n = 1;
    while (v >>= 7) n++;
    return n;
}

static inline size_t wire_varint_put(uint8_t *p, uint64_t v) {
    size_t n = 0;
    for (; v >= 0x80; v >>= 7) p[n++] = (uint8_t)(v | 0x80);
    p[n++] = (uint8_t)v;
    return n;
}

#endif
