#include "net/grpc_stream.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"

/* ---- the queue, under the lock ------------------------------------------------------------------------- */

static bool push(net_stream *s, grpc_byte_buffer *message) {
    if (s->size == s->capacity) {
        size_t capacity = s->capacity ? 2 * s->capacity : 16;
        grpc_byte_buffer **queue = malloc(capacity * sizeof(grpc_byte_buffer *));
        if (!queue) return false;
        for (size_t k = 0; k < s->size; k++) queue[k] = s->queue[(s->head + k) % s->capacity];
        free(s->queue);
        s->queue = queue;
        s->capacity = capacity;
        s->head = 0;
    }
    s->queue[(s->head + s->size++) % s->capacity] = message;
    return true;
}

static grpc_byte_buffer *pop(net_stream *s) {
    grpc_byte_buffer *message = s->queue[s->head];
    s->head = (s->head + 1) % s->capacity;
    s->size--;
    return message;
}

/* Messages are let go without the lock: their owners' release functions may do anything. */
static void drop_queue(net_stream *s) {
    for (;;) {
        pthread_mutex_lock(&s->lock);
        grpc_byte_buffer *message = s->size ? pop(s) : NULL;
        pthread_mutex_unlock(&s->lock);
        if (!message) return;
        grpc_byte_buffer_destroy(message);
    }
}

/* ---- starting and ending ------------------------------------------------------------------------------- */

static void end(net_stream *s) {
    grpc_call *call = s->call;
    pthread_mutex_lock(&s->lock);
    s->call = NULL;
    pthread_mutex_unlock(&s->lock);
    drop_queue(s);
    char reason[NET_REASON_BYTES];
    skald_status code = s->side->why(s, reason);
    grpc_call_unref(call);
    if (s->side->on_over) s->side->on_over(s);
    s->handlers->on_close(s->user, &s->base, code, reason);
    s->side->on_end(s);
    skald_net_session_unref(&s->base);
}

void net_stream_leave(net_stream *s) {
    pthread_mutex_lock(&s->lock);
    bool last = --s->in_flight == 0;
    pthread_mutex_unlock(&s->lock);
    if (last) end(s);
}

static void enter(net_stream *s) {
    pthread_mutex_lock(&s->lock);
    s->in_flight++;
    pthread_mutex_unlock(&s->lock);
}

bool net_stream_batch(net_stream *s, const grpc_op *ops, size_t count, net_tag *tag) {
    enter(s);
    if (net_batch(s->call, ops, count, tag)) return true;
    pthread_mutex_lock(&s->lock);
    s->in_flight--;
    pthread_mutex_unlock(&s->lock);
    return false;
}

void net_stream_over(net_stream *s) {
    pthread_mutex_lock(&s->lock);
    s->over = true;
    pthread_mutex_unlock(&s->lock);
    drop_queue(s);
}

void net_stream_blame(net_stream *s, skald_status code, const char *reason) {
    pthread_mutex_lock(&s->lock);
    if (s->code == SKALD_OK && !s->closing) {
        s->code = code;
        snprintf(s->reason, sizeof s->reason, "%s", reason);
    }
    pthread_mutex_unlock(&s->lock);
}

void net_stream_cancel(net_stream *s, grpc_status_code code, const char *reason) {
    pthread_mutex_lock(&s->lock);
    grpc_call *call = s->call;
    if (call) grpc_call_ref(call);
    pthread_mutex_unlock(&s->lock);
    if (!call) return;
    grpc_call_cancel_with_status(call, code, reason, NULL);
    grpc_call_unref(call);
}

/* ---- sending ------------------------------------------------------------------------------------------- */

/* Starts what can be started: one message, or the close when all messages are out. */
static void pump(net_stream *s) {
    pthread_mutex_lock(&s->lock);
    bool idle = s->ready && !s->over && !s->sending && !s->close_started;
    bool send = idle && s->size > 0, finish = idle && s->size == 0 && s->closing;
    if (send) s->sending = pop(s);
    if (finish) s->close_started = true;
    if (send || finish) s->in_flight++;
    pthread_mutex_unlock(&s->lock);
    if (!send && !finish) return;

    bool started;
    if (send) {
        grpc_op op = {.op = GRPC_OP_SEND_MESSAGE};
        op.data.send_message.send_message = s->sending;
        started = net_batch(s->call, &op, 1, &s->send_tag);
    } else {
        started = s->side->start_close(s);
    }
    if (started) return;
    /* Not expected of the core. There will be no event: end the call, and take the count back last. */
    net_stream_blame(s, SKALD_EINTERNAL, "gRPC refused to send");
    net_stream_cancel(s, GRPC_STATUS_INTERNAL, "cannot send");
    net_stream_leave(s);
}

static void on_sent(void *owner, bool ok) {
    net_stream *s = owner;
    pthread_mutex_lock(&s->lock);
    grpc_byte_buffer *message = s->sending;
    s->sending = NULL;
    pthread_mutex_unlock(&s->lock);
    grpc_byte_buffer_destroy(message);
    if (ok)
        pump(s);
    else
        drop_queue(s); /* the end of the call is on its way */
    net_stream_leave(s);
}

static void on_close_sent(void *owner, bool ok) {
    net_stream *s = owner;
    pthread_mutex_lock(&s->lock);
    s->closed = ok;
    pthread_mutex_unlock(&s->lock);
    net_stream_leave(s);
}

static skald_status send_frame(skald_net_session *session, const skald_segment *segments, size_t count) {
    net_stream *s = (net_stream *)session;
    size_t bytes = 0;
    skald_status st = net_segments_check(segments, count, s->limit, &bytes);
    if (st != SKALD_OK) return skald_context(st, "sending to %s", skald_net_peer(session));
    grpc_byte_buffer *message = net_message(segments, count);
    pthread_mutex_lock(&s->lock);
    if (s->closing || s->over || !s->call)
        st = skald_fail(SKALD_ELOST, "the session with %s is closed", skald_net_peer(session));
    else if (s->size >= NET_QUEUED_FRAMES)
        st = skald_fail(SKALD_ETOOBIG, "%s does not read: %zu frames wait for it", skald_net_peer(session), s->size);
    else if (!push(s, message))
        st = skald_fail(SKALD_ENOMEM, "out of memory for %zu queued frames", s->size);
    pthread_mutex_unlock(&s->lock);
    if (st == SKALD_OK)
        pump(s);
    else
        grpc_byte_buffer_destroy(message);
    return st;
}

static size_t pending(const skald_net_session *session) {
    net_stream *s = (net_stream *)(uintptr_t)session;
    pthread_mutex_lock(&s->lock);
    size_t n = s->size + (s->sending != NULL);
    pthread_mutex_unlock(&s->lock);
    return n;
}

void net_stream_close(net_stream *s, skald_status code, const char *reason, bool drop) {
    pthread_mutex_lock(&s->lock);
    bool first = !s->closing && !s->over && s->call;
    if (first) {
        s->closing = true;
        s->code = code;
        snprintf(s->reason, sizeof s->reason, "%s", reason);
    }
    pthread_mutex_unlock(&s->lock);
    if (!first) return;
    if (drop) drop_queue(s);
    pump(s);
}

bool net_stream_silent(net_stream *s, int64_t since_ns) {
    pthread_mutex_lock(&s->lock);
    const bool silent = !s->heard && !s->closing && !s->over && s->call && s->opened_ns <= since_ns;
    pthread_mutex_unlock(&s->lock);
    return silent;
}

static void close_session(skald_net_session *session, skald_status code, const char *reason) {
    net_stream_close((net_stream *)session, code, reason, false);
}

/* ---- receiving ----------------------------------------------------------------------------------------- */

/* Starts to receive one frame; its tag has been counted. */
static void start_receive(net_stream *s) {
    grpc_op op = {.op = GRPC_OP_RECV_MESSAGE};
    op.data.recv_message.recv_message = &s->received;
    s->received = NULL;
    if (net_batch(s->call, &op, 1, &s->recv_tag)) return;
    net_stream_blame(s, SKALD_EINTERNAL, "gRPC refused to receive");
    net_stream_cancel(s, GRPC_STATUS_INTERNAL, "cannot receive");
    net_stream_leave(s);
}

static void receive(net_stream *s) {
    enter(s);
    start_receive(s);
}

static void on_released(void *owner, size_t bytes);

static bool full(const net_stream *s) {
    return s->held >= NET_HELD_FRAMES || s->held_bytes >= NET_HELD_BYTES;
}

/* Takes account of a frame that is about to be handed over; true when no more may be received for now. */
static bool hold(net_stream *s, net_frame *frame) {
    frame->released = on_released;
    frame->owner = skald_net_session_ref(&s->base);
    pthread_mutex_lock(&s->lock);
    s->heard = true;
    s->held++;
    s->held_bytes += frame->base.size;
    const bool pause = s->paused = full(s);
    pthread_mutex_unlock(&s->lock);
    return pause;
}

/* Any thread. */
static void on_released(void *owner, size_t bytes) {
    net_stream *s = owner;
    pthread_mutex_lock(&s->lock);
    s->held--;
    s->held_bytes -= bytes;
    const bool resume = s->paused && !full(s) && !s->over && s->in_flight > 0;
    if (resume) {
        s->paused = false;
        s->in_flight++;
    }
    pthread_mutex_unlock(&s->lock);
    if (resume) start_receive(s);
    skald_net_session_unref(&s->base);
}

static void on_received(void *owner, bool ok) {
    net_stream *s = owner;
    grpc_byte_buffer *message = s->received;
    s->received = NULL;
    if (!ok) {
        char reason[NET_REASON_BYTES];
        snprintf(reason, sizeof reason, "%s sent a frame over the limit of %zu bytes", skald_net_peer(&s->base),
                 s->limit);
        net_stream_blame(s, SKALD_ETOOBIG, reason);
        if (message) grpc_byte_buffer_destroy(message);
        net_stream_cancel(s, GRPC_STATUS_RESOURCE_EXHAUSTED, reason);
    } else if (!message) {
        /* A dead stream looks like one that ended well: in that case the call's end says the rest. */
        if (!grpc_call_failed_before_recv_message(s->call)) s->side->on_half_close(s);
    } else {
        net_frame *frame = net_frame_of(s->frames, message);
        if (!frame) {
            net_stream_blame(s, SKALD_ENOMEM, "out of memory for a received frame");
            net_stream_cancel(s, GRPC_STATUS_RESOURCE_EXHAUSTED, "out of memory");
        } else {
            const bool pause = hold(s, frame); /* first: it may be released at once */
            if (s->side->on_frame && s->side->on_frame(s, &frame->base))
                skald_frame_release(&frame->base);
            else
                s->handlers->on_frame(s->user, &s->base, &frame->base);
            if (!pause) receive(s);
        }
    }
    net_stream_leave(s);
}

void net_stream_open(net_stream *s) {
    s->opened = true;
    s->handlers->on_open(s->user, &s->base);
    pthread_mutex_lock(&s->lock);
    s->ready = true;
    pthread_mutex_unlock(&s->lock);
    pump(s);
    receive(s);
}

/* ---- making -------------------------------------------------------------------------------------------- */

static void destroy(skald_net_session *session) {
    net_stream *s = (net_stream *)session;
    pthread_mutex_destroy(&s->lock);
    free(s->queue);
    free(s->base.peer);
    free(s->base.identity);
    free(s);
}

net_stream *net_stream_create(const net_stream_side *side, void *owner, grpc_call *call, size_t bytes) {
    static const net_session_ops ops = {send_frame, pending, close_session, destroy};
    net_stream *s = skald_zalloc(1, bytes);
    if (!s) return NULL;
    net_session_init(&s->base, &ops);
    pthread_mutex_init(&s->lock, NULL);
    s->side = side;
    s->owner = owner;
    s->call = call;
    s->send_tag = (net_tag){on_sent, s};
    s->recv_tag = (net_tag){on_received, s};
    s->close_tag = (net_tag){on_close_sent, s};
    return s;
}
