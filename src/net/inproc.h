/* The in-process adapter's parts: a node is one side (a server or a client) with its own I/O thread; a pair
 * is a session's two ends. */
#ifndef SKALD_NET_INPROC_H
#define SKALD_NET_INPROC_H

#include "base/pool.h"
#include "net/session.h"

/* ---- nodes ------------------------------------------------------------------------------------------- */

/* Runs on the node's thread at its time; `live` is false when the node ends first: then it only lets go of what it
 * holds, on whatever thread that is. */
typedef void (*inproc_fn)(void *a, void *b, bool live);

typedef struct inproc_event {
    int64_t at;     /* not before */
    uint64_t order; /* events of one time run in the order posted */
    inproc_fn fn;
    void *a, *b;
} inproc_event;

typedef struct inproc_node {
    skald_net_handlers handlers;
    void *user;
    skald_net_options options;
    net_frames *frames; /* for what this side receives */
    skald_pool *small;  /* what was copied out of short segments */

    pthread_mutex_t lock;
    pthread_cond_t wake, idle; /* idle: the last session ended */
    inproc_event *heap;
    size_t count, capacity;
    uint64_t posted;
    bool stopped, rush;               /* rush: times are ignored, everything is due */
    struct inproc_session **sessions; /* open ones */
    size_t session_count, session_capacity;
    size_t open_count; /* of them, those whose on_close has not been called: what the limit counts */
    pthread_t thread;
    int refs; /* atomic: the owner and every pair */
} inproc_node;

skald_status inproc_node_create(const skald_net_options *options, const skald_net_handlers *handlers, void *user,
                                inproc_node **out);
void inproc_node_unref(inproc_node *node);
/* SKALD_ELOST once stopped, SKALD_ENOMEM: `fn` is not called then. */
skald_status inproc_node_post(inproc_node *node, int64_t at, inproc_fn fn, void *a, void *b);
/* Closes every session (SKALD_OK, `reason`), waits until all have ended (queued frames out, or the grace time over). */
void inproc_node_close_all(inproc_node *node, const char *reason, int64_t grace_ns);
/* Ends the thread. Events that are left are called with live = false. */
void inproc_node_stop(inproc_node *node);

/* ---- sessions ---------------------------------------------------------------------------------------- */

/* Opens a session between the two nodes: on_open on both sides. SKALD_EREFUSED when the server has its fill. */
skald_status inproc_pair_open(inproc_node *client, inproc_node *server, const char *address);
/* A frame to be received out of segments as sent, cut by `key`; short ones are copied into a buffer of `small`
 * (SKALD_MAX_SEGMENTS * NET_COPY_BYTES each). NULL when out of memory. */
net_frame *inproc_frame(net_frames *frames, skald_pool *small, const skald_segment *segments, size_t count,
                        uint64_t key);
/* A recycler for such frames. */
net_frames *inproc_frames_create(void);

/* The faults in force and this session's number among those opened since they were set. */
skald_net_faults inproc_faults(uint64_t *session_number);

#endif
