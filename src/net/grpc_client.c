/* The gRPC adapter's client: one session on a channel of its own, one thread that polls it. */
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

#define DISCONNECT_NS 2000000000ll /* what is queued has this long to go out, and the server to say goodbye */

struct skald_net_client {
    grpc_channel *channel;
    grpc_completion_queue *queue;
    net_frames *frames;
    skald_net_handlers handlers;
    void *user;
    skald_net_options options;
    char *address;
    int64_t wait_ns;
    gpr_timespec until; /* to connect */
    pthread_t thread;
    net_stream *stream;           /* a reference of the client's */
    grpc_metadata_array greeting; /* the server's initial metadata */
    grpc_metadata token;          /* said with the session */
    size_t tokens;                /* 0 or 1 of it */
    grpc_byte_buffer *last;       /* the message that says why the client closes */
    net_verdict verdict;
    bool settled; /* on the poller: opened, or never to open */

    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool opened, ended;
};

static bool start_close(net_stream *s) {
    skald_net_client *client = s->owner;
    uint8_t notice[NET_NOTICE_BYTES];
    size_t size = net_notice_write(notice, s->code, s->reason);
    skald_segment segment = {NULL, notice, size};
    client->last = net_message(&segment, 1);
    grpc_op ops[2];
    memset(ops, 0, sizeof ops);
    ops[0].op = GRPC_OP_SEND_MESSAGE;
    ops[0].data.send_message.send_message = client->last;
    ops[1].op = GRPC_OP_SEND_CLOSE_FROM_CLIENT;
    return net_batch(s->call, ops, 2, &s->close_tag);
}

static void on_half_close(net_stream *s) { /* the status comes next */
}

static skald_status why(net_stream *s, char reason[NET_REASON_BYTES]) {
    skald_net_client *client = s->owner;
    skald_status code = net_verdict_read(&client->verdict, s->opened, reason);
    bool own = s->closing ? code == SKALD_OK : s->code != SKALD_OK; /* closed here, or a frame could not be taken */
    if (!own) return code;
    snprintf(reason, NET_REASON_BYTES, "%s", s->reason);
    return s->code;
}

static void on_end(net_stream *s) {
    skald_net_client *client = s->owner;
    grpc_completion_queue_shutdown(client->queue);
    pthread_mutex_lock(&client->lock);
    client->ended = true;
    pthread_cond_broadcast(&client->changed);
    pthread_mutex_unlock(&client->lock);
}

static const net_stream_side client_side = {start_close, on_half_close, NULL, NULL, why, on_end};

static void on_started(void *owner, bool ok) {
    net_stream *s = owner;
    skald_net_client *client = s->owner;
    bool greeted = false;
    for (size_t k = 0; ok && k < client->greeting.count; k++)
        greeted = greeted || grpc_slice_str_cmp(client->greeting.metadata[k].key, NET_SESSION_KEY) == 0;
    client->settled = true;
    if (greeted) {
        char *peer = grpc_call_get_peer(s->call);
        if (peer && peer[0]) {
            free(s->base.peer);
            s->base.peer = strdup(peer);
        }
        gpr_free(peer);
        pthread_mutex_lock(&client->lock);
        client->opened = true;
        pthread_mutex_unlock(&client->lock);
        net_stream_open(s);
    } /* else the status, which comes on its own, says why */
    net_stream_leave(s);
}

static void on_verdict(void *owner, bool ok) {
    net_stream_over(owner);
    net_stream_leave(owner);
}

static void *poll_client(void *argument) {
    skald_net_client *client = argument;
    gpr_timespec never = gpr_inf_future(GPR_CLOCK_MONOTONIC);
    while (net_poll(client->queue, client->settled ? never : client->until)) {
        if (client->settled || gpr_time_cmp(gpr_now(GPR_CLOCK_MONOTONIC), client->until) < 0) continue;
        char reason[NET_REASON_BYTES];
        client->settled = true;
        if (net_channel_no_tls(client->channel, reason)) {
            net_stream_blame(client->stream, SKALD_EREFUSED, reason);
        } else {
            snprintf(reason, sizeof reason, "no server at %.300s within %.3g s", client->address,
                     (double)client->wait_ns * 1e-9);
        }
        net_stream_cancel(client->stream, GRPC_STATUS_UNAVAILABLE, reason);
    }
    return NULL;
}

static void free_client(skald_net_client *client) {
    if (client->stream) {
        skald_net_session_unref(&client->stream->base);
        net_verdict_fini(&client->verdict);
        grpc_metadata_array_destroy(&client->greeting);
    }
    net_token_clear(&client->token, client->tokens);
    if (client->last) grpc_byte_buffer_destroy(client->last);
    if (client->channel) grpc_channel_destroy(client->channel);
    if (client->queue) grpc_completion_queue_destroy(client->queue);
    net_frames_unref(client->frames);
    pthread_cond_destroy(&client->changed);
    pthread_mutex_destroy(&client->lock);
    free(client->address);
    free(client);
}

/* Asks for the session; everything after this happens on the poller's thread. */
static skald_status start_session(skald_net_client *client) {
    grpc_call *call = grpc_channel_create_call(client->channel, NULL, GRPC_PROPAGATE_DEFAULTS, client->queue,
                                               grpc_slice_from_static_string(GRPC_SESSION_METHOD), NULL,
                                               gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
    net_stream *s = net_stream_create(&client_side, client, call, sizeof *s);
    if (!s) {
        grpc_call_unref(call);
        return SKALD_ENOMEM;
    }
    s->handlers = &client->handlers;
    s->user = client->user;
    s->frames = client->frames;
    s->limit = client->options.max_frame_bytes;
    s->base.peer = strdup(client->address);
    s->end_tag = (net_tag){on_verdict, s};
    s->start_tag = (net_tag){on_started, s};
    client->stream = s;
    skald_net_session_ref(&s->base);
    grpc_metadata_array_init(&client->greeting);

    grpc_op ops[2];
    memset(ops, 0, sizeof ops);
    net_verdict_init(&client->verdict, &ops[0]);
    bool started = net_stream_batch(s, ops, 1, &s->end_tag);
    memset(ops, 0, sizeof ops);
    net_start_fill(&ops[0], client->wait_ns > 0);
    ops[0].data.send_initial_metadata.count = client->tokens;
    ops[0].data.send_initial_metadata.metadata = &client->token;
    ops[1].op = GRPC_OP_RECV_INITIAL_METADATA;
    ops[1].data.recv_initial_metadata.recv_initial_metadata = &client->greeting;
    if (started && !net_stream_batch(s, ops, 2, &s->start_tag)) net_stream_cancel(s, GRPC_STATUS_INTERNAL, "no start");
    if (started) return SKALD_OK;
    grpc_call_unref(call); /* not expected of the core */
    skald_net_session_unref(&s->base);
    return skald_fail(SKALD_EINTERNAL, "gRPC refused to start a session with %s", client->address);
}

skald_status net_grpc_connect(const char *address, const skald_net_options *options, const skald_net_handlers *handlers,
                              void *user, int64_t wait_ns, skald_net_client **out) {
    *out = NULL;
    TRY(net_address_check(address));
    skald_net_client *client = skald_zalloc(1, sizeof *client);
    if (!client) return SKALD_ENOMEM;
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&client->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    pthread_mutex_init(&client->lock, NULL);
    client->handlers = *handlers;
    client->user = user;
    client->wait_ns = wait_ns;
    client->address = strdup(address);
    skald_status st = net_options_resolve(options, &client->options);
    if (st == SKALD_OK && (!client->address || !(client->frames = net_grpc_frames()))) st = SKALD_ENOMEM;
    if (st != SKALD_OK) {
        free_client(client);
        return st;
    }
    sigset_t old;
    net_block_signals(&old);
    client->until = net_deadline(wait_ns > 0 ? wait_ns : NET_NO_WAIT_NS);
    client->queue = grpc_completion_queue_create_for_next(NULL);
    st = net_channel_open(address, &client->options, &client->channel);
    if (st == SKALD_OK) st = net_token_fill(client->options.security, address, &client->token, &client->tokens);
    client->options.security = NULL; /* the caller's again */
    if (st == SKALD_OK) st = start_session(client);
    if (st == SKALD_OK) {
        *out = client; /* before the first handler runs */
        st = net_thread_start(&client->thread, poll_client, client);
        if (st != SKALD_OK) {
            *out = NULL;
            net_stream_cancel(client->stream, GRPC_STATUS_CANCELLED, "cannot start a thread");
            poll_client(client);
        }
    } else {
        grpc_completion_queue_shutdown(client->queue);
        poll_client(client);
    }
    if (st != SKALD_OK) free_client(client);
    net_restore_signals(&old);
    return st;
}

void net_grpc_disconnect(skald_net_client *client) {
    pthread_mutex_lock(&client->lock);
    bool opened = client->opened;
    pthread_mutex_unlock(&client->lock);
    if (opened)
        skald_net_close(&client->stream->base, SKALD_OK, "disconnected");
    else
        net_stream_cancel(client->stream, GRPC_STATUS_UNAVAILABLE, "disconnected while waiting for the server");
    int64_t until = skald_now_ns(skald_clock_system()) + DISCONNECT_NS;
    struct timespec deadline = {until / SKALD_NS_PER_S, until % SKALD_NS_PER_S};
    bool late = false;
    pthread_mutex_lock(&client->lock);
    while (!client->ended && !late) late = pthread_cond_timedwait(&client->changed, &client->lock, &deadline) != 0;
    pthread_mutex_unlock(&client->lock);
    if (late) net_stream_cancel(client->stream, GRPC_STATUS_CANCELLED, "the server did not answer the goodbye");
    pthread_join(client->thread, NULL);
    free_client(client);
}
