/* What a client's sessions and calls share. */
#include <grpc/grpc_security.h>
#include <stdio.h>
#include <string.h>

#include "base/base.h"
#include "net/grpc.h"
#include "net/grpc_security.h"

void net_verdict_init(net_verdict *v, grpc_op *op) {
    memset(v, 0, sizeof *v);
    grpc_metadata_array_init(&v->trailing);
    v->details = grpc_empty_slice();
    op->op = GRPC_OP_RECV_STATUS_ON_CLIENT;
    op->data.recv_status_on_client.trailing_metadata = &v->trailing;
    op->data.recv_status_on_client.status = &v->code;
    op->data.recv_status_on_client.status_details = &v->details;
    op->data.recv_status_on_client.error_string = &v->error;
}

void net_verdict_fini(net_verdict *v) {
    grpc_metadata_array_destroy(&v->trailing);
    grpc_slice_unref(v->details);
    gpr_free((void *)(uintptr_t)v->error);
}

skald_status net_verdict_read(net_verdict *v, bool opened, char reason[NET_REASON_BYTES]) {
    skald_status code = SKALD_OK;
    size_t size = skald_min_size(GRPC_SLICE_LENGTH(v->details), NET_REASON_BYTES - 1);
    if (size) memcpy(reason, GRPC_SLICE_START_PTR(v->details), size);
    reason[size] = '\0';
    skald_printable(reason, false);
    if (net_status_in(&v->trailing, &code)) return code;
    return net_status_from_grpc(v->code, opened);
}

skald_status net_channel_open(const char *address, const skald_net_options *options, grpc_channel **out) {
    net_args args;
    net_args_fill(&args, options, false);
    grpc_channel_credentials *credentials;
    TRY(net_channel_credentials(options->security, &credentials));
    *out = grpc_channel_create(address, credentials, &args.args);
    grpc_channel_credentials_release(credentials);
    return SKALD_OK;
}

void net_start_fill(grpc_op *op, bool wait) {
    op->op = GRPC_OP_SEND_INITIAL_METADATA;
    op->flags = GRPC_INITIAL_METADATA_WAIT_FOR_READY_EXPLICITLY_SET | (wait ? GRPC_INITIAL_METADATA_WAIT_FOR_READY : 0);
}

static void on_tried(void *owner, bool ok) {
    *(bool *)owner = true;
}

/* The core's words on a channel that does not come up: "failed to connect to all addresses; last error: ..." */
static void complaint(grpc_channel *channel, char reason[NET_REASON_BYTES]) {
    bool done = false;
    net_tag tag = {on_tried, &done};
    grpc_completion_queue *queue = grpc_completion_queue_create_for_next(NULL);
    grpc_call *call = grpc_channel_create_call(channel, NULL, GRPC_PROPAGATE_DEFAULTS, queue,
                                               grpc_slice_from_static_string(GRPC_HEALTH_METHOD), NULL,
                                               net_deadline(1000000000), NULL);
    net_verdict verdict;
    grpc_op ops[2];
    memset(ops, 0, sizeof ops);
    net_start_fill(&ops[0], false);
    net_verdict_init(&verdict, &ops[1]);
    reason[0] = '\0';
    if (net_batch(call, ops, 2, &tag)) {
        while (!done) net_poll(queue, gpr_inf_future(GPR_CLOCK_MONOTONIC));
        if (verdict.code == GRPC_STATUS_UNAVAILABLE) net_verdict_read(&verdict, false, reason);
    }
    net_verdict_fini(&verdict);
    grpc_call_unref(call);
    grpc_completion_queue_shutdown(queue);
    while (net_poll(queue, gpr_inf_future(GPR_CLOCK_MONOTONIC))) {
    }
    grpc_completion_queue_destroy(queue);
}

bool net_channel_no_tls(grpc_channel *channel, char reason[NET_REASON_BYTES]) {
    char said[NET_REASON_BYTES];
    complaint(channel, said);
    const char *why = strstr(said, "handshake failed");
    if (!why && !strstr(said, "Socket closed") && !strstr(said, "Connection reset")) return false;
    why = why ? strchr(why, ':') : NULL;
    if (why)
        snprintf(reason, NET_REASON_BYTES, "no TLS connection: %.300s", why + 2);
    else
        snprintf(reason, NET_REASON_BYTES,
                 "it hangs up at once: it may ask for TLS or a certificate (--tls-ca, --tls-cert, --tls-key), or not "
                 "believe whoever signed the one it was shown; its own log says");
    return true;
}
