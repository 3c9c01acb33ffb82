/* What the gRPC adapter's server and client share. Completion queue tags, channel arguments, bytes, status codes.
 * The C core's rules this is written to (1.51): each batch started gives exactly one event; a stream has at most one
 * SEND_MESSAGE and one RECV_MESSAGE outstanding; a slice's memory is free only when its destroy callback has run, on
 * any thread; sockets move only while some thread is in grpc_completion_queue_next. */
#ifndef SKALD_NET_GRPC_COMMON_H
#define SKALD_NET_GRPC_COMMON_H

#include <grpc/byte_buffer.h>
#include <grpc/grpc.h>
#include <grpc/slice.h>
#include <grpc/support/alloc.h>

#include "net/session.h"

#define GRPC_SESSION_METHOD "/skald.v1.Coordinator/Session"
#define GRPC_STATUS_METHOD "/skald.v1.Coordinator/Status"
#define GRPC_FETCH_METHOD "/skald.v1.Coordinator/FetchModel"
#define GRPC_DRAIN_METHOD "/skald.v1.Coordinator/Drain"
#define GRPC_HEALTH_METHOD "/grpc.health.v1.Health/Check"

/* ---- runtime ------------------------------------------------------------------------------------------- */

/* Every user of the core holds one; the first starts it with all signals blocked, so that its threads never take
 * the application's. */
void net_grpc_ref(void);
void net_grpc_unref(void);

/* Blocks all signals for the calling thread while threads may be started; returns the old mask through *old. */
void net_block_signals(void *old);
void net_restore_signals(const void *old);

/* TLS handshakes that failed in this process, whosever: `heard` runs on one of the core's threads, and must not block.
 */
typedef struct net_ear {
    void (*heard)(void *owner, const char *reason);
    void *owner;
    struct net_ear *next;
} net_ear;
void net_ear_open(net_ear *ear);
void net_ear_close(net_ear *ear); /* once it returns, nothing is heard any more; of one never opened: nothing */

/* ---- completion queue ---------------------------------------------------------------------------------- */

/* A tag is the address of one of these. */
typedef struct net_tag {
    void (*fn)(void *owner, bool ok); /* on the poller thread */
    void *owner;
} net_tag;

/* Starts a batch; false when the core refuses it (no event comes then). */
bool net_batch(grpc_call *call, const grpc_op *ops, size_t count, net_tag *tag);
/* Tells ThreadSanitizer, which does not see into the core, that what happened before a start happens before its
 * event. To be called before anything that takes a tag. */
void net_tag_start(net_tag *tag);
/* Runs one event if there is one by `deadline`. False once the queue is shut down and drained. */
bool net_poll(grpc_completion_queue *queue, gpr_timespec deadline);

/* "Now + ns" on the core's clock; for ever when that is far off. */
gpr_timespec net_deadline(int64_t ns);
/* A thread with all signals blocked. */
skald_status net_thread_start(pthread_t *thread, void *(*run)(void *), void *argument);

/* ---- channel arguments --------------------------------------------------------------------------------- */

#define NET_MAX_ARGS 24
typedef struct net_args {
    grpc_arg list[NET_MAX_ARGS];
    grpc_channel_args args;
} net_args;
void net_args_fill(net_args *args, const skald_net_options *options, bool server);

/* ---- bytes --------------------------------------------------------------------------------------------- */

/* Segments as one message: long ones by reference, runs of short ones copied into one slice. */
grpc_byte_buffer *net_message(const skald_segment *segments, size_t count);
/* A recycler of frames that hold a grpc_byte_buffer. Frames in use keep the core alive. */
net_frames *net_grpc_frames(void);
/* The frame of a received message, which it takes over; NULL when out of memory (the message is gone then). */
net_frame *net_frame_of(net_frames *frames, grpc_byte_buffer *message);

/* ---- status -------------------------------------------------------------------------------------------- */

/* A skald_status travels exactly as trailing metadata "skald-status: 33"; beside it a gRPC code for others to read. */
#define NET_STATUS_KEY "skald-status"
grpc_status_code net_status_to_grpc(skald_status status);
/* What a gRPC code of the library's or of another program's making means; `opened`: the stream was up. */
skald_status net_status_from_grpc(grpc_status_code code, bool opened);
/* The skald-status in the trailing metadata; false when there is none. */
bool net_status_in(const grpc_metadata_array *trailing, skald_status *status);

/* SEND_STATUS_FROM_SERVER with what it points to; keep it until the batch has been started. */
typedef struct net_status_op {
    grpc_metadata metadata;
    grpc_slice details;
} net_status_op;
void net_status_fill(grpc_op *op, net_status_op *store, skald_status status, const char *reason);
void net_status_clear(net_status_op *store);

/* ---- addresses ----------------------------------------------------------------------------------------- */

/* SKALD_EINVAL with the address when it is neither host:port nor unix:/path. */
skald_status net_address_check(const char *address);
/* Before listening on unix:/path: SKALD_EADDRINUSE when somebody listens there; removes a stale socket. */
skald_status net_address_prepare(const char *address);
/* Could it be listened on? */
bool net_address_free(const char *address);
/* Why listening failed (the core does not tell): tries it by hand. Never SKALD_OK. */
skald_status net_address_diagnose(const char *address);

#endif
