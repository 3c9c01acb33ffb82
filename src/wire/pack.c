#include <string.h>

#include "base/base.h"
#include "wire/varint.h"
#include "wire/wire.h"

_Static_assert(SKALD_MAX_SEGMENTS >= 2 * SKALD_WIRE_MAX_VECTORS, "a header and its vector are two segments");

#define INLINE_BYTES 1024 /* shorter vectors travel in the scratch buffer */

static size_t header_bytes(uint64_t size) {
    return wire_varint_bytes(WIRE_VECTOR_TAG) + wire_varint_bytes(size);
}

skald_status skald_wire_pack(const Skald__V1__Frame *frame, const skald_wire_vector *vectors, size_t n,
                             skald_pool *pool, skald_wire_message *out) {
    memset(out, 0, sizeof *out);
    if (n > SKALD_WIRE_MAX_VECTORS)
        return skald_fail(SKALD_EINVAL, "a frame of %zu vectors (at most %d)", n, SKALD_WIRE_MAX_VECTORS);
    if (frame->n_vectors) return skald_fail(SKALD_EINVAL, "vectors are packed apart from the body");
    size_t body = skald__v1__frame__get_packed_size(frame), need = body;
    if (body > SKALD_WIRE_MAX_BODY)
        return skald_fail(SKALD_EINVAL, "a body of %zu bytes is over the limit of %zu", body, SKALD_WIRE_MAX_BODY);
    for (size_t k = 0; k < n; k++) {
        if (vectors[k].bytes > INLINE_BYTES && !vectors[k].owner)
            return skald_fail(SKALD_EINVAL, "vector %zu of %zu bytes has no owner", k, vectors[k].bytes);
        need += header_bytes(vectors[k].bytes) + (vectors[k].bytes <= INLINE_BYTES ? vectors[k].bytes : 0);
    }
    skald_bytes *scratch =
        pool && need <= skald_pool_buffer_bytes(pool) ? skald_pool_get(pool) : skald_bytes_create(need);
    if (!scratch) return SKALD_ENOMEM;

    uint8_t *start = skald_bytes_data(scratch), *p = start;
    p += skald__v1__frame__pack(frame, p);
    for (size_t k = 0; k < n; k++) {
        p += wire_varint_put(p, WIRE_VECTOR_TAG);
        p += wire_varint_put(p, vectors[k].bytes);
        out->bytes += vectors[k].bytes;
        if (vectors[k].bytes <= INLINE_BYTES) {
            if (vectors[k].bytes) memcpy(p, vectors[k].data, vectors[k].bytes);
            p += vectors[k].bytes;
            out->bytes -= vectors[k].bytes;
            continue;
        }
        out->segments[out->count++] = (skald_segment){scratch, start, (size_t)(p - start)};
        out->segments[out->count++] = (skald_segment){vectors[k].owner, vectors[k].data, vectors[k].bytes};
        start = p;
    }
    if (p > start) out->segments[out->count++] = (skald_segment){scratch, start, (size_t)(p - start)};
    out->bytes += need;
    out->scratch = scratch;
    return SKALD_OK;
}

void skald_wire_message_release(skald_wire_message *message) {
    skald_bytes_unref(message->scratch);
    message->scratch = NULL;
    message->count = 0;
}

skald_status skald_wire_send(skald_net_session *session, const Skald__V1__Frame *frame,
                             const skald_wire_vector *vectors, size_t n, skald_pool *pool) {
    skald_wire_message message;
    TRY(skald_wire_pack(frame, vectors, n, pool, &message));
    skald_status st = skald_net_send(session, message.segments, message.count);
    skald_wire_message_release(&message);
    return st;
}

skald_status skald_wire_reply(skald_net_call *call, const Skald__V1__Frame *frame, const skald_wire_vector *vectors,
                              size_t n, skald_pool *pool) {
    skald_wire_message message;
    skald_status st = skald_wire_pack(frame, vectors, n, pool, &message);
    if (st != SKALD_OK) {
        skald_net_reply(call, st, skald_error(), NULL, 0);
        return st;
    }
    skald_net_reply(call, SKALD_OK, NULL, message.segments, message.count);
    skald_wire_message_release(&message);
    return SKALD_OK;
}
