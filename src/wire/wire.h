/* Frames of skald.proto to and from segments: a body packed by protobuf-c and vectors that are never copied into a
 * protobuf buffer. On the wire it is an ordinary `Frame`: the body's bytes, then for each vector {tag and length of
 * field 16}{its bytes, sent from where they lie}. */
#ifndef SKALD_WIRE_WIRE_H
#define SKALD_WIRE_WIRE_H

#include <stddef.h>
#include <stdint.h>

#include "base/pool.h"
#include "skald.pb-c.h"
#include "skald/net.h"

#define SKALD_WIRE_MAX_VECTORS 8              /* a frame */
#define SKALD_WIRE_MAX_BODY ((size_t)1 << 20) /* bytes of a received frame outside its vectors */

/* ---- packing ------------------------------------------------------------------------------------------ */

/* A vector to send: `bytes` at `data`, kept alive by `owner` (NULL only up to 1 KiB: it is copied then). */
typedef struct skald_wire_vector {
    skald_bytes *owner;
    const void *data;
    size_t bytes;
} skald_wire_vector;

/* A packed frame: give segments and count to skald_net_send or skald_net_reply, then release. */
typedef struct skald_wire_message {
    skald_segment segments[SKALD_MAX_SEGMENTS];
    size_t count, bytes;
    skald_bytes *scratch; /* body and headers; the segments' other owners are borrowed from the vectors */
} skald_wire_message;

/* Packs `frame` (without vectors of its own) and n <= SKALD_WIRE_MAX_VECTORS vectors. Body and headers go into a
 * buffer of `pool`, or into one made for the occasion if they do not fit or pool is NULL. SKALD_EINVAL, SKALD_ENOMEM.
 */
skald_status skald_wire_pack(const Skald__V1__Frame *frame, const skald_wire_vector *vectors, size_t n,
                             skald_pool *pool, skald_wire_message *out);
void skald_wire_message_release(skald_wire_message *message);

/* Pack, send or reply (SKALD_OK), release. When packing a reply fails, the caller is answered with the failure. */
skald_status skald_wire_send(skald_net_session *session, const Skald__V1__Frame *frame,
                             const skald_wire_vector *vectors, size_t n, skald_pool *pool);
skald_status skald_wire_reply(skald_net_call *call, const Skald__V1__Frame *frame, const skald_wire_vector *vectors,
                              size_t n, skald_pool *pool);

/* ---- unpacking ---------------------------------------------------------------------------------------- */

/* One thread's decoder. It holds one frame at a time and keeps its memory for the next one, so that decoding
 * allocates nothing once it has seen the largest body. */
typedef struct skald_wire_env skald_wire_env;

skald_status skald_wire_env_create(skald_wire_env **out);
void skald_wire_env_destroy(skald_wire_env *env); /* NULL-safe */

/* Decodes `frame`, which must stay until the vectors have been read (it is the caller's to release). What env held
 * before is gone. SKALD_EPEER when the bytes are no valid Frame or over a limit above; SKALD_ENOMEM. */
skald_status skald_wire_open(skald_wire_env *env, const skald_frame *frame);

/* The body; its strings and arrays are valid until the next open. It has no vectors: those are here. Never NULL
 * after a successful open; body_case is SKALD__V1__FRAME__BODY__NOT_SET when there is none (or one not known). */
const Skald__V1__Frame *skald_wire_body(const skald_wire_env *env);
size_t skald_wire_vectors(const skald_wire_env *env);
size_t skald_wire_vector_bytes(const skald_wire_env *env, size_t k); /* 0 when there is no vector k */

/* Copies bytes [offset, offset + bytes) of vector k out. SKALD_EPEER when the vector is not there or shorter. */
skald_status skald_wire_read(const skald_wire_env *env, size_t k, size_t offset, void *dst, size_t bytes);
/* Copies out a vector of exactly `count` doubles. SKALD_EPEER, with both sizes, when it is of another length. */
skald_status skald_wire_doubles(const skald_wire_env *env, size_t k, double *dst, size_t count);
/* The same, of a vector of exactly `count` floats. */
skald_status skald_wire_floats(const skald_wire_env *env, size_t k, double *dst, size_t count);

#endif
