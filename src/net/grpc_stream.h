/* A session over gRPC, as far as server and client are alike: the send queue, receiving, closing, ending.
 *
 * Who may touch what: sends and closes come from any thread and take the lock; batches are started without it. The
 * core's call lives until the last tag has come back; `in_flight` counts them. One of them, the side's own tag for
 * the end of the call, is there from the start, so the others never bring the count to zero early. */
#ifndef SKALD_NET_GRPC_STREAM_H
#define SKALD_NET_GRPC_STREAM_H

#include "net/grpc_common.h"

/* In the server's initial metadata when it takes a session, so that a refusal is never taken for an opening. */
#define NET_SESSION_KEY "skald-session"

typedef struct net_stream net_stream;

typedef struct net_stream_side {
    /* The queue is empty and the session is to end: tell the peer stream->code and reason, by a batch with
     * stream->close_tag. */
    bool (*start_close)(net_stream *stream);
    /* The peer will send no more (a clean end of its half). */
    void (*on_half_close)(net_stream *stream);
    /* A frame came; true when the side has dealt with it itself. NULL: never. */
    bool (*on_frame)(net_stream *stream, const skald_frame *frame);
    /* All tags are back, on_close is next: the session does not count any more. NULL: nothing to do. */
    void (*on_over)(net_stream *stream);
    /* What does the end mean? Writes code and reason. */
    skald_status (*why)(net_stream *stream, char reason[NET_REASON_BYTES]);
    /* The call has been let go and on_close has run; the stream may live on in other hands. */
    void (*on_end)(net_stream *stream);
} net_stream_side;

struct net_stream {
    skald_net_session base; /* first */
    const net_stream_side *side;
    void *owner;                        /* the server or client; not after on_end */
    const skald_net_handlers *handlers; /* the owner's */
    void *user;                         /* for the handlers */
    net_frames *frames;                 /* the owner's */
    size_t limit;                       /* of a frame */
    net_stream *previous, *next;        /* the owner's */
    net_tag end_tag, start_tag;         /* for the side's batches */
    net_tag send_tag, recv_tag, close_tag;
    grpc_byte_buffer *received, *sending;

    pthread_mutex_t lock;
    grpc_call *call;          /* NULL after the end */
    grpc_byte_buffer **queue; /* a ring; the oldest at `head` */
    size_t head, size, capacity;
    int in_flight;
    bool ready;              /* batches may be started */
    bool opened;             /* on_open has been called: on_close must be */
    bool closing;            /* closed from this side: code and reason */
    bool close_started;      /* ... and the peer is being told */
    bool closed;             /* ... and has been told */
    bool over;               /* the call has ended: nothing may be started any more */
    bool heard;              /* a frame came */
    int64_t opened_ns;       /* the server's: since when it may speak */
    size_t held, held_bytes; /* frames received that nobody has released yet */
    bool paused;             /* too many of those: receiving goes on when some have been released */
    skald_status code;       /* why it ends; the first reason counts */
    char reason[NET_REASON_BYTES];
};

/* While so many received frames, or bytes of them, have not been released, no more are taken from the network: a peer
 * that sends faster than anybody looks at it waits, and its frames take no memory here. */
#define NET_HELD_FRAMES 256
#define NET_HELD_BYTES ((size_t)64 << 20)
/* So many frames wait for a peer that does not read them; the next one is refused. */
#define NET_QUEUED_FRAMES 65536

/* A stream with one reference, for `call`, which it takes over when it opens. `bytes`: of the side's struct, which
 * begins with a net_stream. NULL when out of memory. */
net_stream *net_stream_create(const net_stream_side *side, void *owner, grpc_call *call, size_t bytes);
/* Starts one of the side's batches. */
bool net_stream_batch(net_stream *stream, const grpc_op *ops, size_t count, net_tag *tag);
/* A tag of the side's has come back. When it was the last, the stream ends: it must not be touched after this. */
void net_stream_leave(net_stream *stream);
/* The session is open: calls on_open, sends, receives. */
void net_stream_open(net_stream *stream);
/* The call has ended (RECV_CLOSE or RECV_STATUS came): drops what is queued. */
void net_stream_over(net_stream *stream);
/* Remembers why, if nothing was remembered before. */
void net_stream_blame(net_stream *stream, skald_status code, const char *reason);
/* Closes from this side; `drop`: without sending what is queued. */
void net_stream_close(net_stream *stream, skald_status code, const char *reason, bool drop);
/* Has it been open since before `since_ns`, without a frame from the peer, and is it not closed yet? */
bool net_stream_silent(net_stream *stream, int64_t since_ns);
/* Ends the call at once; its tags come back. */
void net_stream_cancel(net_stream *stream, grpc_status_code code, const char *reason);

/* ---- a client's word on why it closes ------------------------------------------------------------------ */

/* gRPC lets only servers give a status, so a client's last message is Goodbye{status, reason} as field 2047 of the
 * Frame, which nothing else uses. */
#define NET_NOTICE_BYTES (NET_REASON_BYTES + 32)
size_t net_notice_write(uint8_t out[NET_NOTICE_BYTES], skald_status code, const char *reason);
bool net_notice_read(const skald_frame *frame, skald_status *code, char reason[NET_REASON_BYTES]);

#endif
