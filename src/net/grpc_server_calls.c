/* What comes in at the gRPC server: who may, and where it goes; unary calls. */
#include <stdio.h>
#include <string.h>

#include "base/base.h"
#include "net/grpc_server.h"

void net_server_no_room(skald_net_server *server, grpc_call *call, const char *identity, const char *reason) {
    char *peer = grpc_call_get_peer(call);
    if (server->handlers.on_refused)
        server->handlers.on_refused(server->user, peer ? peer : "", identity[0] ? identity : NULL, SKALD_EREFUSED,
                                    reason);
    gpr_free(peer);
    net_refuse(call, GRPC_STATUS_RESOURCE_EXHAUSTED, SKALD_EREFUSED, reason);
}

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
        net_server_no_room(server, call, identity, reason);
        return;
    }
    net_unary_owner owner = {server, on_call_gone, server->on_call, server->user, server->options.max_frame_bytes};
    net_unary_accept(call, request, server->frames, &owner, method, identity);
}

static void on_request(void *owner, bool ok);

void net_server_request(net_slot *q) {
    skald_net_server *server = q->server;
    grpc_metadata_array_init(&q->metadata);
    q->call = NULL;
    q->payload = NULL;
    q->tag = (net_tag){on_request, q};
    net_tag_start(&q->tag);
    grpc_call_error error;
    if (q->kind == NET_SLOT_OTHER) {
        grpc_call_details_init(&q->details);
        error = grpc_server_request_call(server->core, &q->call, &q->details, &q->metadata, server->queue,
                                         server->queue, &q->tag);
    } else {
        error = grpc_server_request_registered_call(server->core, server->methods[q->kind], &q->call, &q->deadline,
                                                    &q->metadata, q->kind == NET_SLOT_SESSION ? NULL : &q->payload,
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
    static const net_role needed[NET_SLOT_KINDS] = {[NET_SLOT_SESSION] = NET_ROLE_WORKER,
                                                    [NET_SLOT_STATUS] = NET_ROLE_STATUS,
                                                    [NET_SLOT_FETCH] = NET_ROLE_STATUS,
                                                    [NET_SLOT_DRAIN] = NET_ROLE_OPERATOR};
    static const skald_method methods[NET_SLOT_KINDS] = {[NET_SLOT_STATUS] = SKALD_METHOD_STATUS,
                                                         [NET_SLOT_FETCH] = SKALD_METHOD_FETCH_MODEL,
                                                         [NET_SLOT_DRAIN] = SKALD_METHOD_DRAIN};
    net_slot *q = owner;
    skald_net_server *server = q->server;
    grpc_call *call = q->call;
    grpc_byte_buffer *payload = q->payload;
    char identity[NET_IDENTITY_BYTES] = "";
    const bool welcome = !ok || !needed[q->kind] || /* health says nothing that the port does not */
                         admit(server, call, &q->metadata, needed[q->kind], identity);
    grpc_metadata_array_destroy(&q->metadata);
    if (q->kind == NET_SLOT_OTHER) grpc_call_details_destroy(&q->details);
    if (!ok) return;       /* shutting down */
    net_server_request(q); /* first, so that no call waits for what the application does with this one */
    pthread_mutex_lock(&server->lock);
    bool serving = !server->draining;
    pthread_mutex_unlock(&server->lock);
    if (!welcome) {
        if (payload) grpc_byte_buffer_destroy(payload);
        return;
    }
    switch (q->kind) {
    case NET_SLOT_SESSION:
        net_server_session(server, call, identity);
        break;
    case NET_SLOT_HEALTH:
        net_health_answer(call, payload, serving);
        break;
    case NET_SLOT_STATUS:
    case NET_SLOT_FETCH:
    case NET_SLOT_DRAIN:
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
