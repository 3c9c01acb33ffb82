/* The gRPC adapter's server: begins, listens, polls, ends. */
#include <grpc/grpc_security.h>
#include <grpc/support/time.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/base.h"
#include "net/grpc_server.h"

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
    static const char *const names[NET_SLOT_OTHER] = {GRPC_SESSION_METHOD, GRPC_STATUS_METHOD, GRPC_FETCH_METHOD,
                                                      GRPC_DRAIN_METHOD, GRPC_HEALTH_METHOD};
    net_args args;
    net_args_fill(&args, &server->options, true);
    server->core = grpc_server_create(&args.args, NULL);
    server->queue = grpc_completion_queue_create_for_next(NULL);
    grpc_server_register_completion_queue(server->core, server->queue, NULL);
    for (int k = 0; k < NET_SLOT_OTHER; k++)
        server->methods[k] = grpc_server_register_method(
            server->core, names[k], NULL,
            k == NET_SLOT_SESSION ? GRPC_SRM_PAYLOAD_NONE : GRPC_SRM_PAYLOAD_READ_INITIAL_BYTE_BUFFER, 0);
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
            net_slot *q = &server->slots[k];
            q->server = server;
            q->kind = (net_slot_kind)(k % NET_SLOT_KINDS);
            net_server_request(q);
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
