/* The client's side of unary calls, on the caller's thread. */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/base.h"
#include "net/grpc.h"
#include "net/grpc_security.h"

const skald_net_ops *skald_net_grpc(void) {
    static const skald_net_ops ops = {"grpc",           net_grpc_listen,     net_grpc_shutdown,
                                      net_grpc_connect, net_grpc_disconnect, net_grpc_call};
    return &ops;
}

typedef struct ending {
    bool done;
} ending;

static void on_done(void *owner, bool ok) {
    ((ending *)owner)->done = true;
}

/* The whole call on this thread; *message: the reply, if any. */
static skald_status run_call(grpc_channel *channel, grpc_completion_queue *queue, skald_method method,
                             grpc_byte_buffer *request, grpc_metadata *token, size_t tokens, int64_t wait_ns,
                             char reason[NET_REASON_BYTES], grpc_byte_buffer **message) {
    static const char *const names[SKALD_METHOD_COUNT] = {GRPC_STATUS_METHOD, GRPC_FETCH_METHOD, GRPC_DRAIN_METHOD};
    grpc_call *call = grpc_channel_create_call(channel, NULL, GRPC_PROPAGATE_DEFAULTS, queue,
                                               grpc_slice_from_static_string(names[method]), NULL,
                                               net_deadline(wait_ns > 0 ? wait_ns : NET_NO_WAIT_NS), NULL);
    ending ended = {false};
    net_tag tag = {on_done, &ended};
    grpc_metadata_array initial;
    grpc_metadata_array_init(&initial);
    net_verdict verdict;
    grpc_op ops[6];
    memset(ops, 0, sizeof ops);
    net_start_fill(&ops[0], wait_ns > 0);
    ops[0].data.send_initial_metadata.count = tokens;
    ops[0].data.send_initial_metadata.metadata = token;
    ops[1].op = GRPC_OP_SEND_MESSAGE;
    ops[1].data.send_message.send_message = request;
    ops[2].op = GRPC_OP_SEND_CLOSE_FROM_CLIENT;
    ops[3].op = GRPC_OP_RECV_INITIAL_METADATA;
    ops[3].data.recv_initial_metadata.recv_initial_metadata = &initial;
    ops[4].op = GRPC_OP_RECV_MESSAGE;
    ops[4].data.recv_message.recv_message = message;
    net_verdict_init(&verdict, &ops[5]);
    skald_status st = SKALD_EINTERNAL;
    snprintf(reason, NET_REASON_BYTES, "gRPC refused to start the call");
    if (net_batch(call, ops, 6, &tag)) {
        while (!ended.done) net_poll(queue, gpr_inf_future(GPR_CLOCK_MONOTONIC));
        st = net_verdict_read(&verdict, true, reason);
    }
    if (st == SKALD_OK && !*message) {
        st = SKALD_EPEER;
        snprintf(reason, NET_REASON_BYTES, "an answer without a message");
    }
    net_verdict_fini(&verdict);
    grpc_metadata_array_destroy(&initial);
    grpc_call_unref(call);
    return st;
}

/* A deadline that passes, or a connection refused, does not say whether a server was ever there: the channel does. */
static skald_status explain(grpc_channel *channel, const char *address, skald_status st, const char *reason,
                            int64_t wait_ns) {
    char tls[NET_REASON_BYTES];
    bool connected = grpc_channel_check_connectivity_state(channel, 0) == GRPC_CHANNEL_READY;
    if ((st == SKALD_ETIMEOUT || st == SKALD_ELOST) && !connected && net_channel_no_tls(channel, tls))
        return skald_fail(SKALD_EREFUSED, "%s: %s", address, tls);
    if (st == SKALD_ETIMEOUT && !connected)
        return skald_fail(SKALD_EUNAVAILABLE, "no server at %s within %.3g s", address, (double)wait_ns * 1e-9);
    if (st == SKALD_ETIMEOUT) return skald_fail(st, "%s did not answer within %.3g s", address, (double)wait_ns * 1e-9);
    if (st == SKALD_ELOST && !connected) st = SKALD_EUNAVAILABLE;
    return skald_fail(st, "%s: %s", address, reason);
}

skald_status net_grpc_call(const char *address, const skald_net_options *options, skald_method method,
                           const skald_segment *request, size_t count, int64_t wait_ns, skald_frame **reply) {
    *reply = NULL;
    TRY(net_address_check(address));
    skald_net_options resolved;
    TRY(net_options_resolve(options, &resolved));
    size_t bytes = 0;
    TRY(net_segments_check(request, count, resolved.max_frame_bytes, &bytes));
    if ((unsigned)method >= SKALD_METHOD_COUNT) return skald_fail(SKALD_EINVAL, "no method %d", (int)method);
    net_frames *frames = net_grpc_frames();
    if (!frames) return SKALD_ENOMEM;
    sigset_t old;
    net_block_signals(&old);
    grpc_completion_queue *queue = grpc_completion_queue_create_for_next(NULL);
    grpc_channel *channel = NULL;
    grpc_metadata token;
    size_t tokens = 0;
    skald_status st = net_channel_open(address, &resolved, &channel);
    if (st == SKALD_OK) st = net_token_fill(resolved.security, address, &token, &tokens);
    net_restore_signals(&old); /* while it waits, signals may interrupt it */
    grpc_byte_buffer *sent = net_message(request, count), *message = NULL;
    char reason[NET_REASON_BYTES];
    const bool may_call = st == SKALD_OK;
    if (may_call) st = run_call(channel, queue, method, sent, &token, tokens, wait_ns, reason, &message);
    if (st == SKALD_OK) {
        net_frame *frame = net_frame_of(frames, message);
        if (frame)
            *reply = &frame->base;
        else
            st = SKALD_ENOMEM;
    } else if (may_call) {
        if (message) grpc_byte_buffer_destroy(message);
        st = explain(channel, address, st, reason, wait_ns);
    }
    grpc_byte_buffer_destroy(sent);
    net_token_clear(&token, tokens);
    if (channel) grpc_channel_destroy(channel);
    grpc_completion_queue_shutdown(queue);
    while (net_poll(queue, gpr_inf_future(GPR_CLOCK_MONOTONIC))) {
    }
    grpc_completion_queue_destroy(queue);
    net_frames_unref(frames);
    return st;
}
