/* The net port: sessions between workers and the coordinator, carrying frames; and small unary calls.
 *
 * A frame is one message of skald.proto's `Frame`. It travels as refcounted bytes: outgoing frames are a
 * short list of segments (packed header, then vectors sent from where they lie); incoming frames are
 * segments as they came off the wire, which may cut a double in half.
 *
 * Threads: handlers run on the adapter's I/O thread and must not block: they hand over and return. All
 * other calls may be made from any thread, including from inside a handler; shutdown, disconnect and call block and may
 * not be called there. Within a session frames arrive in the order sent (unless the in-process adapter was told to
 * reorder). */
#ifndef SKALD_NET_H
#define SKALD_NET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "skald/bytes.h"
#include "skald/status.h"

/* ---- frames ------------------------------------------------------------------------------------- */

/* One segment of an outgoing frame: `owner` is kept alive until the transport is done with the memory. */
typedef struct skald_segment {
    skald_bytes *owner;
    const uint8_t *data;
    size_t size;
} skald_segment;

#define SKALD_MAX_SEGMENTS 16

/* An incoming frame: segments valid until skald_frame_release. `impl` belongs to the adapter. */
typedef struct skald_frame {
    const skald_segment *segments; /* owner is NULL here */
    size_t count, size;            /* segments, total bytes */
    void *impl;
    void (*release)(struct skald_frame *frame); /* any thread; frees the frame itself too */
} skald_frame;

static inline void skald_frame_release(skald_frame *frame) {
    if (frame) frame->release(frame);
}

/* ---- sessions ------------------------------------------------------------------------------------- */

typedef struct skald_net_session skald_net_session;

/* Queues a frame. Takes a reference on each segment's owner for as long as needed; does not block; never
 * copies a segment larger than 1 KiB. SKALD_ELOST when the session is closed, SKALD_ETOOBIG over the limit. */
skald_status skald_net_send(skald_net_session *session, const skald_segment *segments, size_t count);
/* Frames queued and not yet handed to the network. */
size_t skald_net_pending(const skald_net_session *session);
/* Ends the session after what is queued has been sent. The peer sees code + reason. on_close still comes. */
void skald_net_close(skald_net_session *session, skald_status code, const char *reason);
/* Sessions are refcounted: the adapter holds one until after on_close; whoever keeps the pointer holds one. */
skald_net_session *skald_net_session_ref(skald_net_session *session);
void skald_net_session_unref(skald_net_session *session);
const char *skald_net_peer(const skald_net_session *session); /* "ipv4:127.0.0.1:40312" */
/* Who the peer has proved to be: the common name of its certificate; NULL when it showed none. */
const char *skald_net_identity(const skald_net_session *session);
void *skald_net_user(const skald_net_session *session);
void skald_net_set_user(skald_net_session *session, void *user);

typedef struct skald_net_handlers {
    /* A session is there (server: a worker connected; client: the stream is up). */
    void (*on_open)(void *user, skald_net_session *session);
    /* The handler owns the frame from here on. */
    void (*on_frame)(void *user, skald_net_session *session, skald_frame *frame);
    /* Exactly once a session that was opened; `code` SKALD_OK when closed in order, else why. For a client
     * that never got through: called without on_open, SKALD_EUNAVAILABLE. It no longer counts against max_sessions. */
    void (*on_close)(void *user, skald_net_session *session, skald_status code, const char *reason);
    /* Server, may be NULL: somebody was turned away at the door; peer "ipv4:..." or "" where it is not known, identity
     * as skald_net_identity. code: SKALD_EPEER for what nobody honest says (a token that is none), else SKALD_EREFUSED.
     */
    void (*on_refused)(void *user, const char *peer, const char *identity, skald_status code, const char *reason);
    /* Server, may be NULL: may this peer, whose credentials are in order, have a session or ask anything? False: why
     * not, in `reason` (SKALD_NET_REASON bytes). */
    bool (*admits)(void *user, const char *peer, const char *identity, char *reason);
} skald_net_handlers;

enum { SKALD_NET_REASON = 512 }; /* bytes of a reason, its end included; longer ones are cut */

/* ---- unary calls ---------------------------------------------------------------------------------- */

typedef enum skald_method {
    SKALD_METHOD_STATUS = 0,
    SKALD_METHOD_FETCH_MODEL,
    SKALD_METHOD_DRAIN,
    SKALD_METHOD_COUNT
} skald_method;

typedef struct skald_net_call skald_net_call; /* a call waiting for its answer */

/* Answers (any thread, once): segments as for send when code is SKALD_OK, else the reason. Frees the call. */
void skald_net_reply(skald_net_call *call, skald_status code, const char *reason, const skald_segment *segments,
                     size_t count);
/* Who asks, as skald_net_peer and skald_net_identity; until the answer. */
const char *skald_net_call_peer(const skald_net_call *call);
const char *skald_net_call_identity(const skald_net_call *call);
/* Server side: the handler owns `request` and `call`. */
typedef void (*skald_net_on_call)(void *user, skald_method method, skald_frame *request, skald_net_call *call);

/* ---- server and client ---------------------------------------------------------------------------- */

/* Who may speak. PEM texts and secrets, not paths; NULL: none. Without cert and ca there is no TLS.
 *   server  cert, key: its own (TLS). ca: every client must show a certificate of theirs, and what it may do is in that
 *           certificate's URI names: skald:worker may hold a session, skald:status may ask, skald:operator may do all.
 *           token: lines "SECRET" or "ROLE SECRET", ROLE worker, status or operator; a client must say one of them.
 *   client  ca: whom to believe (TLS). cert, key: what to show. token: what to say. Never said in plain text beyond
 * this machine: SKALD_EINVAL. Read during listen, connect and call, not kept. */
typedef struct skald_net_security {
    const char *ca, *cert, *key, *token;
} skald_net_security;

typedef struct skald_net_options {
    const skald_net_security *security; /* NULL: plain text, everybody */
    const char *health;                 /* server with TLS: an address where health, and nothing else, is answered in
                                         * plain text, for probes that cannot speak TLS; NULL: nowhere */
    size_t max_frame_bytes;             /* 0: 1 GiB */
    int64_t keepalive_ns;               /* 0: 10 s */
    /* server: */
    uint32_t max_sessions; /* 0: 4096 */
    uint32_t max_calls;    /* unary calls that wait for their answers; 0: 64 */
    int64_t hello_ns;      /* a peer that is connected and says nothing for so long is let go of; 0: no limit */
} skald_net_options;

typedef struct skald_net_server skald_net_server;
typedef struct skald_net_client skald_net_client;

typedef struct skald_net_ops {
    const char *name; /* "grpc", "inproc" */
    /* Listens on "host:port", "host:0" (a free port), or "unix:/path". SKALD_EADDRINUSE, SKALD_EIO.
     * *port (may be NULL) receives the bound port, 0 for unix. Health answers SERVING from here on. */
    skald_status (*listen)(const char *address, const skald_net_options *options, const skald_net_handlers *handlers,
                           skald_net_on_call on_call, void *user, skald_net_server **out, int *port);
    /* Health NOT_SERVING, sessions closed (SKALD_OK, "shutting down") after queued frames went out or
     * `grace_ns` passed, then everything freed. Blocks; when it returns no handler runs any more. */
    void (*shutdown)(skald_net_server *server, int64_t grace_ns);

    /* Opens one session to `address`; returns at once. If the server is not there, retries until `wait_ns`
     * has passed (on_close SKALD_EUNAVAILABLE then). */
    skald_status (*connect)(const char *address, const skald_net_options *options, const skald_net_handlers *handlers,
                            void *user, int64_t wait_ns, skald_net_client **out);
    /* Closes the session if still open, waits for on_close, frees. Blocks. */
    void (*disconnect)(skald_net_client *client);

    /* A unary call; blocks up to wait_ns (which covers waiting for a server to appear). On SKALD_OK *reply
     * is the caller's. The server's refusal comes back as its code and reason. */
    skald_status (*call)(const char *address, const skald_net_options *options, skald_method method,
                         const skald_segment *request, size_t count, int64_t wait_ns, skald_frame **reply);
} skald_net_ops;

/* The gRPC adapter (src/net/grpc). */
const skald_net_ops *skald_net_grpc(void);

/* The in-process adapter: addresses are "inproc:name". Faults apply to frames of sessions in both
 * directions, drawn from `seed`: probabilities in [0,1]; reordering swaps a frame with its successor;
 * a delayed frame keeps its place unless reordered. Set before listen/connect; process-wide. */
typedef enum skald_net_fate { SKALD_FATE_PASS = 0, SKALD_FATE_DROP, SKALD_FATE_CUT } skald_net_fate;
typedef struct skald_net_faults {
    uint64_t seed;
    double drop, duplicate, reorder, delay;
    int64_t delay_max_ns;
    /* May be NULL: what becomes of a frame, before any of the above; cut: it is lost, and the session breaks off
     * (SKALD_ELOST at both ends). A session that one end closes is no frame (segments NULL, count 0); cut: the other
     * end is not told why, as if a process had died. `session` counts them from when the faults were set. On the
     * sender's thread; calls nothing of the net port. */
    skald_net_fate (*fate)(void *user, uint64_t session, bool from_client, const skald_segment *segments, size_t count);
    void *user;
} skald_net_faults;
const skald_net_ops *skald_net_inproc(void);
void skald_net_inproc_set_faults(const skald_net_faults *faults); /* NULL: none */

#endif
