/* The gRPC server's sessions: streams that workers opened. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "net/grpc_server.h"

/* A server's stream and what its batches point to. */
typedef struct server_stream {
    net_stream base; /* first */
    int cancelled;
} server_stream;

static void remove_stream(net_stream *s) {
    skald_net_server *server = s->owner;
    pthread_mutex_lock(&server->lock);
    if (s->previous) s->previous->next = s->next;
    if (s->next) s->next->previous = s->previous;
    if (server->streams == s) server->streams = s->next;
    server->stream_count--;
    pthread_cond_broadcast(&server->changed);
    pthread_mutex_unlock(&server->lock);
}

/* Who hears of an end may count on the room that it makes. */
static void make_room(net_stream *s) {
    skald_net_server *server = s->owner;
    pthread_mutex_lock(&server->lock);
    server->open_count--;
    pthread_mutex_unlock(&server->lock);
}

static bool start_close(net_stream *s) {
    grpc_op op = {0};
    net_status_op status;
    net_status_fill(&op, &status, s->code, s->reason);
    bool started = net_batch(s->call, &op, 1, &s->close_tag);
    net_status_clear(&status);
    return started;
}

static void on_half_close(net_stream *s) {
    net_stream_close(s, SKALD_OK, "closed by the client", true);
}

static bool on_frame(net_stream *s, const skald_frame *frame) {
    skald_status code;
    char reason[NET_REASON_BYTES];
    if (!net_notice_read(frame, &code, reason)) return false;
    net_stream_close(s, code, reason, true);
    return true;
}

static skald_status why(net_stream *s, char reason[NET_REASON_BYTES]) {
    bool told = s->closing && s->closed;
    skald_status code = told || s->code != SKALD_OK ? s->code : SKALD_ELOST;
    snprintf(reason, NET_REASON_BYTES, "%s",
             told || s->code != SKALD_OK ? s->reason : "the client went away without a word");
    return code;
}

static const net_stream_side server_side = {start_close, on_half_close, on_frame, make_room, why, remove_stream};

static void on_call_closed(void *owner, bool ok) {
    net_stream_over(owner);
    net_stream_leave(owner);
}

static void on_greeted(void *owner, bool ok) {
    net_stream_leave(owner);
}

/* The client opens its session when it sees this: a refusal has no such mark. */
static bool greet(net_stream *s) {
    grpc_metadata mark;
    memset(&mark, 0, sizeof mark);
    mark.key = grpc_slice_from_static_string(NET_SESSION_KEY);
    mark.value = grpc_slice_from_static_string("1");
    grpc_op op = {.op = GRPC_OP_SEND_INITIAL_METADATA};
    op.data.send_initial_metadata.count = 1;
    op.data.send_initial_metadata.metadata = &mark;
    return net_stream_batch(s, &op, 1, &s->start_tag);
}

void net_server_session(skald_net_server *server, grpc_call *call, const char *identity) {
    char reason[128] = "";
    net_stream *s = net_stream_create(&server_side, server, call, sizeof(server_stream));
    pthread_mutex_lock(&server->lock);
    if (!s)
        snprintf(reason, sizeof reason, "out of memory");
    else if (server->draining)
        snprintf(reason, sizeof reason, "shutting down");
    else if (server->open_count >= server->options.max_sessions)
        snprintf(reason, sizeof reason, "%u sessions are open, which is the limit", server->open_count);
    if (!reason[0]) {
        s->next = server->streams;
        if (s->next) s->next->previous = s;
        server->streams = s;
        server->stream_count++;
        server->open_count++;
    }
    pthread_mutex_unlock(&server->lock);
    if (reason[0]) {
        if (s) skald_net_session_unref(&s->base);
        net_server_no_room(server, call, identity, reason);
        return;
    }
    s->handlers = &server->handlers;
    s->user = server->user;
    s->frames = server->frames;
    s->limit = server->options.max_frame_bytes;
    char *peer = grpc_call_get_peer(call);
    s->base.peer = peer ? strdup(peer) : NULL;
    gpr_free(peer);
    s->base.identity = identity[0] ? strdup(identity) : NULL;
    s->opened_ns = skald_now_ns(skald_clock_system());
    s->end_tag = (net_tag){on_call_closed, s};
    s->start_tag = (net_tag){on_greeted, s};
    grpc_op op = {.op = GRPC_OP_RECV_CLOSE_ON_SERVER};
    op.data.recv_close_on_server.cancelled = &((server_stream *)s)->cancelled;
    if (!net_stream_batch(s, &op, 1, &s->end_tag)) { /* not expected of the core */
        make_room(s);
        remove_stream(s);
        skald_net_session_unref(&s->base);
        grpc_call_cancel(call, NULL);
        grpc_call_unref(call);
        return;
    }
    if (!greet(s)) net_stream_cancel(s, GRPC_STATUS_INTERNAL, "cannot greet");
    net_stream_open(s);
}
