/* The gRPC adapter's server: one completion queue, one thread that polls it. */
#include <grpc/grpc_security.h>
#include <grpc/support/time.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/base.h"
#include "net/grpc.h"
#include "net/grpc_security.h"
#include "net/grpc_stream.h"

typedef enum slot_kind {
    SLOT_SESSION,
    SLOT_STATUS,
    SLOT_FETCH,
    SLOT_DRAIN,
    SLOT_HEALTH,
    SLOT_OTHER,
    SLOT_KINDS
} slot_kind;
#define SLOTS_A_KIND 8 /* calls taken at the same time; more wait in the core */

/* A standing request for the next call of one kind. */
typedef struct slot {
    net_tag tag;
    skald_net_server *server;
    slot_kind kind;
    grpc_call *call;
    gpr_timespec deadline;
    grpc_metadata_array metadata;
    grpc_call_details details;
    grpc_byte_buffer *payload;
} slot;

struct skald_net_server {
    grpc_server *core;
    grpc_completion_queue *queue;
    void *methods[SLOT_OTHER];
    slot slots[SLOT_KINDS * SLOTS_A_KIND];
    net_frames *frames;
    skald_net_handlers handlers;
    skald_net_on_call on_call;
    void *user;
    skald_net_options options;
    net_guard guard;
    net_ear ear;
    pthread_t thread;
    net_tag down_tag;

    pthread_mutex_t lock;
    pthread_cond_t changed;
    net_stream *streams; /* open sessions */
    uint32_t stream_count;
    size_t calls; /* unary ones the core still holds for the application */
    bool draining, down;
};

/* ---- sessions ------------------------------------------------------------------------------------------ */

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

static const net_stream_side server_side = {start_close, on_half_close, on_frame, why, remove_stream};

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

/* No room: told to both. */
static void no_room(skald_net_server *server, grpc_call *call, const char *identity, const char *reason) {
    char *peer = grpc_call_get_peer(call);
    if (server->handlers.on_refused)
        server->handlers.on_refused(server->user, peer ? peer : "", identity[0] ? identity : NULL, SKALD_EREFUSED,
                                    reason);
    gpr_free(peer);
    net_refuse(call, GRPC_STATUS_RESOURCE_EXHAUSTED, SKALD_EREFUSED, reason);
}

static void accept_session(skald_net_server *server, grpc_call *call, const char *identity) {
    char reason[128] = "";
    net_stream *s = net_stream_create(&server_side, server, call, sizeof(server_stream));
    pthread_mutex_lock(&server->lock);
    if (!s)
        snprintf(reason, sizeof reason, "out of memory");
    else if (server->draining)
        snprintf(reason, sizeof reason, "shutting down");
    else if (server->stream_count >= server->options.max_sessions)
        snprintf(reason, sizeof reason, "%u sessions are open, which is the limit", server->stream_count);
    if (!reason[0]) {
        s->next = server->streams;
        if (s->next) s->next->previous = s;
        server->streams = s;
        server->stream_count++;
    }
    pthread_mutex_unlock(&server->lock);
    if (reason[0]) {
        if (s) skald_net_session_unref(&s->base);
        no_room(server, call, identity, reason);
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
        remove_stream(s);
        skald_net_session_unref(&s->base);
        grpc_call_cancel(call, NULL);
        grpc_call_unref(call);
        return;
    }
    if (!greet(s)) net_stream_cancel(s, GRPC_STATUS_INTERNAL, "cannot greet");
    net_stream_open(s);
}

/* ---- calls ---------------------------------------------------------------------------------------------- */

static void on_call_gone(void *owner) {
    skald_net_server *server = owner;
    pthread_mutex_lock(&server->lock);
    server->calls--;
    pthread_cond_broadcast(&server->changed);
    pthread_mutex_unlock(&server->lock);
}

static void accept_call(skald_net_server *server, grpc_call *call, grpc_byte_buffer *request, skald_method method,
                        const char *identity) {
    char reason[128] = "";
    const size_t bytes = request ? grpc_byte_buffer_length(request) : 0;
    pthread_mutex_lock(&server->lock);
    if (bytes > NET_MAX_REQUEST_BYTES)
        snprintf(reason, sizeof reason, "a request of %zu bytes is over the limit of %zu", bytes,
                 NET_MAX_REQUEST_BYTES);
    else if (server->calls >= server->options.max_calls)
        snprintf(reason, sizeof reason, "%zu calls wait for their answers, which is the limit", server->calls);
    else
        server->calls++;
    pthread_mutex_unlock(&server->lock);
    if (reason[0]) {
        if (request) grpc_byte_buffer_destroy(request);
        no_room(server, call, identity, reason);
        return;
    }
    net_unary_owner owner = {server, on_call_gone, server->on_call, server->user, server->options.max_frame_bytes};
    net_unary_accept(call, request, server->frames, &owner, method, identity);
}

/* ---- calls coming in ----------------------------------------------------------------------------------- */

static void request_call(slot *q) {
    skald_net_server *server = q->server;
    grpc_metadata_array_init(&q->metadata);
    q->call = NULL;
    q->payload = NULL;
    net_tag_start(&q->tag);
    grpc_call_error error;
    if (q->kind == SLOT_OTHER) {
        grpc_call_details_init(&q->details);
        error = grpc_server_request_call(server->core, &q->call, &q->details, &q->metadata, server->queue,
                                         server->queue, &q->tag);
    } else {
        error = grpc_server_request_registered_call(server->core, server->methods[q->kind], &q->call, &q->deadline,
                                                    &q->metadata, q->kind == SLOT_SESSION ? NULL : &q->payload,
                                                    server->queue, server->queue, &q->tag);
    }
    if (error != GRPC_CALL_OK) grpc_metadata_array_destroy(&q->metadata);
}

/* May it come in? Else it is told why not, and so is the application; the call is gone then. */
static bool admit(skald_net_server *server, grpc_call *call, const grpc_metadata_array *metadata, net_role needed,
                  char identity[NET_IDENTITY_BYTES]) {
    const skald_net_handlers *h = &server->handlers;
    char reason[NET_REASON_BYTES], *peer = grpc_call_get_peer(call);
    const char *from = peer ? peer : "";
    skald_status code = net_guard_admits(&server->guard, call, metadata, needed, identity, reason);
    const char *who = identity[0] ? identity : NULL;
    if (code != SKALD_OK && h->on_refused) h->on_refused(server->user, from, who, code, reason);
    if (code == SKALD_OK && h->admits && !h->admits(server->user, from, who, reason)) code = SKALD_EREFUSED;
    gpr_free(peer);
    if (code != SKALD_OK) net_refuse(call, GRPC_STATUS_PERMISSION_DENIED, SKALD_EREFUSED, reason);
    return code == SKALD_OK;
}

static void on_request(void *owner, bool ok) {
    static const net_role needed[SLOT_KINDS] = {[SLOT_SESSION] = NET_ROLE_WORKER,
                                                [SLOT_STATUS] = NET_ROLE_STATUS,
                                                [SLOT_FETCH] = NET_ROLE_STATUS,
                                                [SLOT_DRAIN] = NET_ROLE_OPERATOR};
    static const skald_method methods[SLOT_KINDS] = {[SLOT_STATUS] = SKALD_METHOD_STATUS,
                                                     [SLOT_FETCH] = SKALD_METHOD_FETCH_MODEL,
                                                     [SLOT_DRAIN] = SKALD_METHOD_DRAIN};
    slot *q = owner;
    skald_net_server *server = q->server;
    grpc_call *call = q->call;
    grpc_byte_buffer *payload = q->payload;
    char identity[NET_IDENTITY_BYTES] = "";
    const bool welcome = !ok || !needed[q->kind] || /* health says nothing that the port does not */
                         admit(server, call, &q->metadata, needed[q->kind], identity);
    grpc_metadata_array_destroy(&q->metadata);
    if (q->kind == SLOT_OTHER) grpc_call_details_destroy(&q->details);
    if (!ok) return; /* shutting down */
    request_call(q); /* first, so that no call waits for what the application does with this one */
    pthread_mutex_lock(&server->lock);
    bool serving = !server->draining;
    pthread_mutex_unlock(&server->lock);
    if (!welcome) {
        if (payload) grpc_byte_buffer_destroy(payload);
        return;
    }
    switch (q->kind) {
    case SLOT_SESSION:
        accept_session(server, call, identity);
        break;
    case SLOT_HEALTH:
        net_health_answer(call, payload, serving);
        break;
    case SLOT_STATUS:
    case SLOT_FETCH:
    case SLOT_DRAIN:
        if (server->on_call) {
            accept_call(server, call, payload, methods[q->kind], identity);
            break;
        }
        if (payload) grpc_byte_buffer_destroy(payload);
        net_refuse(call, GRPC_STATUS_UNIMPLEMENTED, SKALD_EUNSUPPORTED, "this server answers no calls");
        break;
    default:
        net_refuse(call, GRPC_STATUS_UNIMPLEMENTED, SKALD_EUNSUPPORTED, "no such method; this is a Skald coordinator");
    }
}

/* ---- the server ---------------------------------------------------------------------------------------- */

static void on_down(void *owner, bool ok) {
    skald_net_server *server = owner;
    pthread_mutex_lock(&server->lock);
    server->down = true;
    pthread_cond_broadcast(&server->changed);
    pthread_mutex_unlock(&server->lock);
}

/* Lets go of sessions that were opened and say nothing; when to look again. */
static int64_t end_silent(skald_net_server *server, int64_t now) {
    const int64_t bound = server->options.hello_ns;
    char reason[128];
    snprintf(reason, sizeof reason, "said nothing for %.3g s after it connected", (double)bound * 1e-9);
    for (;;) { /* one at a time: closing may call back */
        net_stream *found = NULL;
        pthread_mutex_lock(&server->lock);
        for (net_stream *s = server->streams; s && !found; s = s->next)
            if (net_stream_silent(s, now - bound)) found = s;
        if (found) skald_net_session_ref(&found->base);
        pthread_mutex_unlock(&server->lock);
        if (!found) return now + bound / 4;
        net_stream_close(found, SKALD_ETIMEOUT, reason, true);
        skald_net_session_unref(&found->base);
    }
}

static void *poll_server(void *argument) {
    skald_net_server *server = argument;
    const bool watch = server->options.hello_ns > 0;
    int64_t look = 0;
    for (;;) {
        const int64_t now = watch ? skald_now_ns(skald_clock_system()) : 0;
        if (watch && now >= look) look = end_silent(server, now);
        if (!net_poll(server->queue, watch ? net_deadline(look - now) : gpr_inf_future(GPR_CLOCK_MONOTONIC)))
            return NULL;
    }
}

static void on_handshake_failed(void *owner, const char *reason) {
    skald_net_server *server = owner;
    char text[NET_REASON_BYTES];
    snprintf(text, sizeof text, "no TLS connection: %s", reason);
    server->handlers.on_refused(server->user, "", NULL, SKALD_EREFUSED, text);
}

static void free_server(skald_net_server *server) {
    net_ear_close(&server->ear);
    if (server->core) grpc_server_destroy(server->core);
    if (server->queue) grpc_completion_queue_destroy(server->queue);
    net_frames_unref(server->frames);
    net_guard_fini(&server->guard);
    pthread_cond_destroy(&server->changed);
    pthread_mutex_destroy(&server->lock);
    free(server);
}

static void open_core(skald_net_server *server) {
    static const char *const names[SLOT_OTHER] = {GRPC_SESSION_METHOD, GRPC_STATUS_METHOD, GRPC_FETCH_METHOD,
                                                  GRPC_DRAIN_METHOD, GRPC_HEALTH_METHOD};
    net_args args;
    net_args_fill(&args, &server->options, true);
    server->core = grpc_server_create(&args.args, NULL);
    server->queue = grpc_completion_queue_create_for_next(NULL);
    grpc_server_register_completion_queue(server->core, server->queue, NULL);
    for (int k = 0; k < SLOT_OTHER; k++)
        server->methods[k] = grpc_server_register_method(
            server->core, names[k], NULL,
            k == SLOT_SESSION ? GRPC_SRM_PAYLOAD_NONE : GRPC_SRM_PAYLOAD_READ_INITIAL_BYTE_BUFFER, 0);
}

static void shut_core(skald_net_server *server) {
    server->down_tag = (net_tag){on_down, server};
    net_tag_start(&server->down_tag);
    grpc_server_shutdown_and_notify(server->core, server->queue, &server->down_tag);
}

static void drain(skald_net_server *server) {
    grpc_completion_queue_shutdown(server->queue);
    while (net_poll(server->queue, gpr_inf_future(GPR_CLOCK_MONOTONIC))) {
    }
}

static skald_status bind_health(skald_net_server *server, bool encrypted) {
    const char *address = server->options.health;
    server->options.health = NULL; /* the caller's again */
    if (!address) return SKALD_OK;
    if (!encrypted) return skald_fail(SKALD_EINVAL, "without TLS health is answered where all else is: no %s", address);
    TRY(net_address_check(address));
    TRY(net_address_prepare(address));
    grpc_server_credentials *plain = grpc_insecure_server_credentials_create();
    const int port = grpc_server_add_http2_port(server->core, address, plain);
    grpc_server_credentials_release(plain);
    server->guard.probed = true;
    return port ? SKALD_OK : net_address_diagnose(address);
}

static skald_status bind_core(skald_net_server *server, const char *address, int *port) {
    TRY(net_address_prepare(address));
    grpc_server_credentials *credentials;
    TRY(net_server_credentials(server->options.security, &credentials));
    *port = grpc_server_add_http2_port(server->core, address, credentials);
    grpc_server_credentials_release(credentials);
    const skald_net_security *security = server->options.security;
    server->options.security = NULL; /* the caller's again */
    if (!*port && security && security->cert && net_address_free(address))
        return skald_fail(SKALD_EINVAL, "the TLS certificate, its key or the CA cannot be used");
    return *port ? SKALD_OK : net_address_diagnose(address);
}

skald_status net_grpc_listen(const char *address, const skald_net_options *options, const skald_net_handlers *handlers,
                             skald_net_on_call on_call, void *user, skald_net_server **out, int *port) {
    *out = NULL;
    if (port) *port = 0;
    TRY(net_address_check(address));
    skald_net_server *server = skald_zalloc(1, sizeof *server);
    if (!server) return SKALD_ENOMEM;
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&server->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    pthread_mutex_init(&server->lock, NULL);
    server->handlers = *handlers;
    server->on_call = on_call;
    server->user = user;
    skald_status st = net_options_resolve(options, &server->options);
    if (st == SKALD_OK) st = net_guard_init(&server->guard, server->options.security);
    if (st == SKALD_OK && !(server->frames = net_grpc_frames())) st = SKALD_ENOMEM;
    if (st != SKALD_OK) {
        free_server(server);
        return st;
    }
    sigset_t old;
    net_block_signals(&old);
    open_core(server);
    int bound = 0;
    const bool encrypted = server->options.security && server->options.security->cert;
    st = bind_core(server, address, &bound);
    if (st == SKALD_OK) st = bind_health(server, encrypted);
    if (st == SKALD_OK) {
        grpc_server_start(server->core);
        for (size_t k = 0; k < SKALD_ARRAY_LENGTH(server->slots); k++) {
            slot *q = &server->slots[k];
            q->server = server;
            q->kind = (slot_kind)(k % SLOT_KINDS);
            q->tag = (net_tag){on_request, q};
            request_call(q);
        }
        *out = server; /* before the first handler runs */
        server->ear = (net_ear){on_handshake_failed, server, NULL};
        if (encrypted && server->handlers.on_refused) net_ear_open(&server->ear);
        if (port) *port = strncmp(address, "unix:", 5) == 0 ? 0 : bound;
        st = net_thread_start(&server->thread, poll_server, server);
    }
    if (st != SKALD_OK) {
        *out = NULL;
        shut_core(server);
        drain(server);
        free_server(server);
    }
    net_restore_signals(&old);
    return st;
}

/* Every open session, each with a reference; malloc'd. */
static net_stream **open_streams(skald_net_server *server, size_t *count) {
    pthread_mutex_lock(&server->lock);
    server->draining = true;
    *count = 0;
    net_stream **list = malloc((server->stream_count + 1) * sizeof(net_stream *));
    for (net_stream *s = server->streams; s && list; s = s->next) {
        skald_net_session_ref(&s->base);
        list[(*count)++] = s;
    }
    pthread_mutex_unlock(&server->lock);
    return list;
}

void net_grpc_shutdown(skald_net_server *server, int64_t grace_ns) {
    int64_t until = skald_now_ns(skald_clock_system());
    if (__builtin_add_overflow(until, grace_ns, &until)) until = INT64_MAX;
    size_t count = 0;
    net_stream **streams = open_streams(server, &count);
    for (size_t k = 0; k < count; k++) {
        skald_net_close(&streams[k]->base, SKALD_OK, "shutting down");
        skald_net_session_unref(&streams[k]->base);
    }
    free(streams);
    shut_core(server);
    struct timespec deadline = {until / SKALD_NS_PER_S, until % SKALD_NS_PER_S};
    pthread_mutex_lock(&server->lock);
    bool late = false;
    while (!server->down && !late) late = pthread_cond_timedwait(&server->changed, &server->lock, &deadline) != 0;
    pthread_mutex_unlock(&server->lock);
    if (late) grpc_server_cancel_all_calls(server->core);
    /* The core's word is not enough: a thread on its way to start a batch must have started it before the queue is
     * drained, or the core aborts. */
    pthread_mutex_lock(&server->lock);
    while (!server->down || server->stream_count || server->calls) pthread_cond_wait(&server->changed, &server->lock);
    pthread_mutex_unlock(&server->lock);
    grpc_completion_queue_shutdown(server->queue);
    pthread_join(server->thread, NULL);
    free_server(server);
}
