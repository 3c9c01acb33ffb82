/* The server's side of unary calls. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "net/grpc.h"

/* A call on its way. Two parties may hold it: the application, until it replies, and the core, while tags are out. The
 * core's call is let go with the last tag, so that a server can shut down while the application still thinks. */
typedef struct unary {
    skald_net_call base; /* first */
    net_tag reply_tag, close_tag;
    grpc_byte_buffer *message; /* the reply */
    net_unary_owner owner;
    int cancelled;
    pthread_mutex_t lock;
    grpc_call *call; /* NULL once let go */
    int tags;        /* out */
    bool over;       /* the client has gone, or has been answered: no batch may be started */
    bool held;       /* by the application */
} unary;

/* With the lock held, which it gives up. */
static void release(unary *u) {
    grpc_call *call = NULL;
    if (u->tags == 0 && (u->over || !u->held)) {
        call = u->call;
        u->call = NULL;
        u->over = true;
    }
    bool last = u->tags == 0 && !u->held;
    const net_unary_owner owner = u->owner; /* u may be freed by its holder from here on */
    pthread_mutex_unlock(&u->lock);
    if (call) {
        grpc_call_unref(call);
        owner.gone(owner.owner);
    }
    if (!last) return;
    if (u->message) grpc_byte_buffer_destroy(u->message);
    pthread_mutex_destroy(&u->lock);
    free(u);
}

static void on_replied(void *owner, bool ok) {
    unary *u = owner;
    pthread_mutex_lock(&u->lock);
    u->tags--;
    release(u);
}

static void on_closed(void *owner, bool ok) {
    unary *u = owner;
    pthread_mutex_lock(&u->lock);
    u->tags--;
    u->over = true;
    release(u);
}

static bool start_reply(unary *u, skald_status code, const char *reason) {
    grpc_op ops[3];
    net_status_op status;
    size_t n = 0;
    memset(ops, 0, sizeof ops);
    ops[n++].op = GRPC_OP_SEND_INITIAL_METADATA;
    if (u->message) {
        ops[n].op = GRPC_OP_SEND_MESSAGE;
        ops[n++].data.send_message.send_message = u->message;
    }
    net_status_fill(&ops[n++], &status, code, reason);
    bool started = net_batch(u->call, ops, n, &u->reply_tag);
    net_status_clear(&status);
    return started;
}

static void reply(skald_net_call *base, skald_status code, const char *reason, const skald_segment *segments,
                  size_t count) {
    unary *u = (unary *)base;
    size_t bytes = 0;
    grpc_byte_buffer *message = NULL;
    if (code == SKALD_OK) {
        code = net_segments_check(segments, count, u->owner.limit, &bytes);
        if (code == SKALD_OK)
            message = net_message(segments, count);
        else
            reason = skald_error();
    }
    pthread_mutex_lock(&u->lock);
    bool answer = !u->over;
    u->message = message;
    if (answer) u->tags++; /* which also keeps the call while the batch is started */
    pthread_mutex_unlock(&u->lock);
    bool started = answer && start_reply(u, code, reason);
    pthread_mutex_lock(&u->lock);
    u->held = false;
    if (answer && !started) u->tags--;
    release(u);
}

void net_unary_accept(grpc_call *call, grpc_byte_buffer *request, net_frames *frames, const net_unary_owner *owner,
                      skald_method method, const char *identity) {
    net_frame *frame = request ? net_frame_of(frames, request) : NULL;
    unary *u = frame ? skald_zalloc(1, sizeof *u) : NULL;
    if (!u) {
        if (frame) skald_frame_release(&frame->base);
        if (request)
            net_refuse(call, GRPC_STATUS_RESOURCE_EXHAUSTED, SKALD_ENOMEM, "out of memory");
        else
            net_refuse(call, GRPC_STATUS_INVALID_ARGUMENT, SKALD_EPEER, "a call without a request");
        owner->gone(owner->owner);
        return;
    }
    pthread_mutex_init(&u->lock, NULL);
    char *peer = grpc_call_get_peer(call);
    snprintf(u->base.peer, sizeof u->base.peer, "%s", peer ? peer : "");
    snprintf(u->base.identity, sizeof u->base.identity, "%s", identity);
    gpr_free(peer);
    u->base.reply = reply;
    u->owner = *owner;
    u->call = call;
    u->held = true;
    u->reply_tag = (net_tag){on_replied, u};
    u->close_tag = (net_tag){on_closed, u};
    grpc_op op = {.op = GRPC_OP_RECV_CLOSE_ON_SERVER};
    op.data.recv_close_on_server.cancelled = &u->cancelled;
    u->tags = 1;
    if (!net_batch(call, &op, 1, &u->close_tag)) { /* not expected of the core */
        u->tags = 0;
        u->over = true;
    }
    owner->on_call(owner->user, method, &frame->base, &u->base);
}

/* ---- answers made here --------------------------------------------------------------------------------- */

typedef struct answer {
    net_tag tag;
    grpc_call *call;
    grpc_byte_buffer *message;
    int cancelled;
} answer;

static void on_answered(void *owner, bool ok) {
    answer *a = owner;
    if (a->message) grpc_byte_buffer_destroy(a->message);
    grpc_call_unref(a->call);
    free(a);
}

/* Takes over call and message (NULL: none). */
static void send_answer(grpc_call *call, grpc_byte_buffer *message, grpc_status_code grpc_code, skald_status status,
                        const char *reason) {
    answer *a = malloc(sizeof *a);
    if (a) {
        *a = (answer){{on_answered, a}, call, message, 0};
        grpc_op ops[4];
        net_status_op store;
        size_t n = 0;
        memset(ops, 0, sizeof ops);
        ops[n++].op = GRPC_OP_SEND_INITIAL_METADATA;
        if (message) {
            ops[n].op = GRPC_OP_SEND_MESSAGE;
            ops[n++].data.send_message.send_message = message;
        }
        net_status_fill(&ops[n], &store, status, reason);
        ops[n++].data.send_status_from_server.status = grpc_code;
        ops[n].op = GRPC_OP_RECV_CLOSE_ON_SERVER;
        ops[n++].data.recv_close_on_server.cancelled = &a->cancelled;
        bool started = net_batch(call, ops, n, &a->tag);
        net_status_clear(&store);
        if (started) return;
        free(a);
    }
    if (message) grpc_byte_buffer_destroy(message);
    grpc_call_cancel(call, NULL);
    grpc_call_unref(call);
}

void net_refuse(grpc_call *call, grpc_status_code grpc_code, skald_status status, const char *reason) {
    send_answer(call, NULL, grpc_code, status, reason);
}

/* HealthCheckRequest is {1: service name}: the server as a whole is "", or asked for by name. */
static bool known_service(grpc_byte_buffer *request) {
    static const char name[] = "skald.v1.Coordinator";
    uint8_t bytes[2 + sizeof name];
    grpc_slice_buffer *slices = &request->data.raw.slice_buffer;
    size_t size = 0;
    if (slices->length == 0) return true;
    if (slices->length >= sizeof bytes) return false;
    for (size_t k = 0; k < slices->count; k++) {
        size_t n = GRPC_SLICE_LENGTH(slices->slices[k]);
        memcpy(bytes + size, GRPC_SLICE_START_PTR(slices->slices[k]), n);
        size += n;
    }
    if (size < 2 || bytes[0] != (1 << 3 | 2) || bytes[1] != size - 2) return false;
    return size == 2 || (size - 2 == sizeof name - 1 && memcmp(bytes + 2, name, size - 2) == 0);
}

void net_health_answer(grpc_call *call, grpc_byte_buffer *request, bool serving) {
    bool known = request && known_service(request);
    if (request) grpc_byte_buffer_destroy(request);
    if (!known) {
        net_refuse(call, GRPC_STATUS_NOT_FOUND, SKALD_EINVAL, "no such service here");
        return;
    }
    const uint8_t response[2] = {1 << 3, serving ? 1 : 2}; /* {1: SERVING or NOT_SERVING} */
    skald_segment segment = {NULL, response, sizeof response};
    send_answer(call, net_message(&segment, 1), GRPC_STATUS_OK, SKALD_OK, "");
}
