#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "wire/arena.h"
#include "wire/text.h"
#include "wire/varint.h"
#include "wire/wire.h"

/* A place in a frame's bytes. */
typedef struct cursor {
    const skald_frame *frame;
    size_t segment, inside; /* inside < the segment's size, unless at the end */
    size_t offset;          /* from the frame's start */
} cursor;

typedef struct field {
    cursor at; /* of the payload */
    size_t bytes;
} field;

struct skald_wire_env {
    wire_arena arena;
    Skald__V1__Frame *body;
    field vectors[SKALD_WIRE_MAX_VECTORS];
    size_t count;
};

skald_status skald_wire_env_create(skald_wire_env **out) {
    *out = skald_zalloc(1, sizeof **out);
    if (!*out) return SKALD_ENOMEM;
    wire_arena_init(&(*out)->arena);
    return SKALD_OK;
}

void skald_wire_env_destroy(skald_wire_env *env) {
    if (!env) return;
    wire_arena_fini(&env->arena);
    free(env);
}

/* ---- the cursor ---------------------------------------------------------------------------------------- */

static size_t left(const cursor *c) {
    return c->frame->size - c->offset;
}

/* Moves on by `bytes` <= left(c), copying them to dst unless it is NULL. */
static void advance(cursor *c, uint8_t *dst, size_t bytes) {
    while (bytes) {
        const skald_segment *s = &c->frame->segments[c->segment];
        size_t n = skald_min_size(bytes, s->size - c->inside);
        if (dst && n) memcpy(dst, s->data + c->inside, n);
        if (dst) dst += n;
        c->inside += n;
        c->offset += n;
        bytes -= n;
        if (c->inside == s->size) {
            c->segment++;
            c->inside = 0;
        }
    }
}

static bool get_varint(cursor *c, uint64_t *out) {
    uint64_t v = 0;
    for (unsigned shift = 0; shift < 70; shift += 7) {
        if (left(c) == 0) return false;
        uint8_t byte = 0;
        advance(c, &byte, 1);
        if (shift == 63 && byte > 1) return false;
        v |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80)) {
            *out = v;
            return true;
        }
    }
    return false;
}

/* ---- decoding ------------------------------------------------------------------------------------------ */

static skald_status malformed(const cursor *c, const char *what) {
    return skald_fail(SKALD_EPEER, "malformed frame: %s at byte %zu of %zu", what, c->offset, c->frame->size);
}

/* Reads a field's tag and passes over its payload. */
static skald_status next_field(cursor *c, uint64_t *tag, field *payload) {
    uint64_t bytes = 0;
    if (!get_varint(c, tag) || *tag > UINT32_MAX || *tag >> 3 == 0) return malformed(c, "a bad tag");
    payload->at = *c;
    switch (*tag & 7) {
    case 0:
        if (!get_varint(c, &bytes)) return malformed(c, "a bad integer");
        payload->bytes = c->offset - payload->at.offset;
        return SKALD_OK;
    case 1:
        bytes = 8;
        break;
    case 5:
        bytes = 4;
        break;
    case 2:
        if (!get_varint(c, &bytes)) return malformed(c, "a bad length");
        payload->at = *c;
        break;
    default:
        return malformed(c, "an unknown wire type");
    }
    if (bytes > left(c)) return malformed(c, "a field longer than the frame");
    payload->bytes = (size_t)bytes;
    advance(c, NULL, payload->bytes);
    return SKALD_OK;
}

static skald_status check_frame(const skald_frame *frame) {
    size_t total = 0;
    for (size_t k = 0; k < frame->count; k++) total += frame->segments[k].size;
    if (total != frame->size) return skald_fail(SKALD_EINTERNAL, "a frame of %zu bytes says %zu", total, frame->size);
    return SKALD_OK;
}

skald_status skald_wire_open(skald_wire_env *env, const skald_frame *frame) {
    env->body = NULL;
    env->count = 0;
    wire_arena_reset(&env->arena);
    TRY(check_frame(frame));

    /* First where the vectors lie and how much the rest is, then the rest into one piece for protobuf-c. */
    size_t rest = 0;
    cursor c = {.frame = frame};
    while (left(&c)) {
        size_t start = c.offset;
        uint64_t tag = 0;
        field payload;
        TRY(next_field(&c, &tag, &payload));
        if (tag >> 3 != WIRE_VECTOR_FIELD) {
            rest += c.offset - start;
            continue;
        }
        if (tag != WIRE_VECTOR_TAG) return malformed(&c, "vectors of a wrong wire type");
        if (env->count == SKALD_WIRE_MAX_VECTORS) {
            env->count = 0;
            return skald_fail(SKALD_EPEER, "a frame of more than %d vectors", SKALD_WIRE_MAX_VECTORS);
        }
        env->vectors[env->count++] = payload;
    }
    if (rest > SKALD_WIRE_MAX_BODY) {
        env->count = 0;
        return skald_fail(SKALD_EPEER, "a body of %zu bytes is over the limit of %zu", rest, SKALD_WIRE_MAX_BODY);
    }
    uint8_t *gathered = wire_arena_get(&env->arena, rest ? rest : 1);
    if (!gathered) return skald_fail(SKALD_ENOMEM, "out of memory for a body of %zu bytes", rest);
    size_t used = 0;
    c = (cursor){.frame = frame};
    while (used < rest) {
        cursor from = c;
        uint64_t tag = 0;
        field payload;
        TRY(next_field(&c, &tag, &payload));
        if (tag == WIRE_VECTOR_TAG) continue;
        size_t bytes = c.offset - from.offset;
        advance(&from, gathered + used, bytes);
        used += bytes;
    }
    ProtobufCAllocator allocator = wire_arena_allocator(&env->arena);
    env->body = skald__v1__frame__unpack(&allocator, rest, gathered);
    if (!env->body) {
        env->count = 0;
        return skald_fail(SKALD_EPEER, "malformed frame: the body of %zu bytes cannot be decoded", rest);
    }
    wire_tidy(&env->body->base);
    return SKALD_OK;
}

const Skald__V1__Frame *skald_wire_body(const skald_wire_env *env) {
    return env->body;
}

size_t skald_wire_vectors(const skald_wire_env *env) {
    return env->count;
}

size_t skald_wire_vector_bytes(const skald_wire_env *env, size_t k) {
    return k < env->count ? env->vectors[k].bytes : 0;
}

/* ---- reading ------------------------------------------------------------------------------------------- */

static skald_status check_vector(const skald_wire_env *env, size_t k) {
    if (k < env->count) return SKALD_OK;
    return skald_fail(SKALD_EPEER, "vector %zu is missing: the frame has %zu", k, env->count);
}

skald_status skald_wire_read(const skald_wire_env *env, size_t k, size_t offset, void *dst, size_t bytes) {
    TRY(check_vector(env, k));
    const field *v = &env->vectors[k];
    if (offset > v->bytes || bytes > v->bytes - offset)
        return skald_fail(SKALD_EPEER, "vector %zu has %zu bytes where %zu from byte %zu are expected", k, v->bytes,
                          bytes, offset);
    cursor c = v->at;
    advance(&c, NULL, offset);
    advance(&c, dst, bytes);
    return SKALD_OK;
}

static skald_status check_numbers(const skald_wire_env *env, size_t k, size_t count, size_t size, const char *what) {
    TRY(check_vector(env, k));
    size_t have = env->vectors[k].bytes;
    if (count > SIZE_MAX / size || have != count * size)
        return skald_fail(SKALD_EPEER, "vector %zu has %zu bytes where %zu %s (%zu bytes) are expected", k, have, count,
                          what, count * size);
    return SKALD_OK;
}

skald_status skald_wire_doubles(const skald_wire_env *env, size_t k, double *dst, size_t count) {
    TRY(check_numbers(env, k, count, sizeof *dst, "doubles"));
    return skald_wire_read(env, k, 0, dst, count * sizeof *dst);
}

skald_status skald_wire_floats(const skald_wire_env *env, size_t k, double *dst, size_t count) {
    float some[1024];
    TRY(check_numbers(env, k, count, sizeof *some, "floats"));
    cursor c = env->vectors[k].at;
    for (size_t done = 0, n; done < count; done += n) {
        n = skald_min_size(count - done, SKALD_ARRAY_LENGTH(some));
        advance(&c, (uint8_t *)some, n * sizeof *some);
        for (size_t j = 0; j < n; j++) dst[done + j] = (double)some[j];
    }
    return SKALD_OK;
}
