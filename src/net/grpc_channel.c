/* What a client's sessions and calls share. */
#include <grpc/grpc_security.h>
#include <string.h>

#include "base/base.h"
#include "net/grpc.h"

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
    if (net_status_in(&v->trailing, &code)) return code;
    return net_status_from_grpc(v->code, opened);
}

grpc_channel *net_channel_open(const char *address, const skald_net_options *options) {
    net_args args;
    net_args_fill(&args, options, false);
    grpc_channel_credentials *plain = grpc_insecure_credentials_create();
    grpc_channel *channel = grpc_channel_create(address, plain, &args.args);
    grpc_channel_credentials_release(plain);
    return channel;
}

void net_start_fill(grpc_op *op, bool wait) {
    op->op = GRPC_OP_SEND_INITIAL_METADATA;
    op->flags = GRPC_INITIAL_METADATA_WAIT_FOR_READY_EXPLICITLY_SET | (wait ? GRPC_INITIAL_METADATA_WAIT_FOR_READY : 0);
}
