/* What both adapters share: the head of a session and of a call, and frames that are recycled. */
#ifndef SKALD_NET_SESSION_H
#define SKALD_NET_SESSION_H

#include <pthread.h>

#include "skald/net.h"

#define NET_MAX_FRAME_BYTES ((size_t)1 << 30)
#define NET_KEEPALIVE_NS 10000000000ll
#define NET_MAX_SESSIONS 4096u
#define NET_COPY_BYTES 1024 /* segments up to here are copied, longer ones referenced */
#define NET_MAX_CALLS 64u
#define NET_MAX_REQUEST_BYTES ((size_t)64 << 10) /* of a unary call */
#define NET_REASON_BYTES SKALD_NET_REASON

typedef struct net_session_ops {
    skald_status (*send)(skald_net_session *session, const skald_segment *segments, size_t count);
    size_t (*pending)(const skald_net_session *session);
    void (*close)(skald_net_session *session, skald_status code, const char *reason);
    void (*destroy)(skald_net_session *session); /* the last reference went */
} net_session_ops;

struct skald_net_session {
    const net_session_ops *ops;
    int refs;       /* atomic */
    void *user;     /* atomic */
    char *peer;     /* malloc'd, freed with the session */
    char *identity; /* the same, or NULL */
};

void net_session_init(skald_net_session *session, const net_session_ops *ops);

enum { NET_PEER_BYTES = 128, NET_IDENTITY_BYTES = 128 };

struct skald_net_call {
    char peer[NET_PEER_BYTES], identity[NET_IDENTITY_BYTES]; /* "": not known */
    void (*reply)(skald_net_call *call, skald_status code, const char *reason, const skald_segment *segments,
                  size_t count);
};

/* Fills in the defaults. SKALD_EINVAL when a value is out of range. */
skald_status net_options_resolve(const skald_net_options *given, skald_net_options *out);
/* Checks what is to be sent against the limit; *bytes: their sum. A long segment needs an owner. */
skald_status net_segments_check(const skald_segment *segments, size_t count, size_t limit, size_t *bytes);

/* ---- frames --------------------------------------------------------------------------------------- */

/* Frames in use keep their recycler alive, so they may outlive the server or client that made them. */
typedef struct net_frames net_frames;

typedef struct net_frame {
    skald_frame base; /* first: a skald_frame * from here is a net_frame * */
    /* Who wants to know that it has been released, on whatever thread; NULL: nobody. */
    void (*released)(void *owner, size_t bytes);
    void *owner;
    net_frames *frames;
    struct net_frame *next; /* for whoever holds the frame; the recycler, when idle */
    skald_segment *segments;
    size_t capacity;
    /* What the segments point into; dropped by the recycler's `drop`. */
    void *payload;
    skald_bytes *owners[SKALD_MAX_SEGMENTS + 1];
    size_t owner_count;
} net_frame;

/* `drop` lets go of what a released frame points into; `fini` (may be NULL) runs when the recycler goes. */
net_frames *net_frames_create(void (*drop)(net_frame *frame), void (*fini)(void));
void net_frames_unref(net_frames *frames);
/* A frame with room for `segments`, no owners, count and size 0. NULL when out of memory. */
net_frame *net_frames_get(net_frames *frames, size_t segments);

#endif
