/* The gRPC adapter's operations; see skald_net_ops. */
#ifndef SKALD_NET_GRPC_H
#define SKALD_NET_GRPC_H

#include "net/grpc_common.h"

skald_status net_grpc_listen(const char *address, const skald_net_options *options, const skald_net_handlers *handlers,
                             skald_net_on_call on_call, void *user, skald_net_server **out, int *port);
void net_grpc_shutdown(skald_net_server *server, int64_t grace_ns);
skald_status net_grpc_connect(const char *address, const skald_net_options *options, const skald_net_handlers *handlers,
                              void *user, int64_t wait_ns, skald_net_client **out);
void net_grpc_disconnect(skald_net_client *client);
skald_status net_grpc_call(const char *address, const skald_net_options *options, skald_method method,
                           const skald_segment *request, size_t count, int64_t wait_ns, skald_frame **reply);

/* ---- server: unary calls ------------------------------------------------------------------------------- */

/* Whose calls they are. `gone` is called once for each call when the core has let go of it, on any thread: nothing here
 * is touched for that call afterwards. */
typedef struct net_unary_owner {
    void *owner;
    void (*gone)(void *owner);
    skald_net_on_call on_call;
    void *user;
    size_t limit; /* of a reply */
} net_unary_owner;

/* Takes over call and request: hands the request to on_call, whose answer may come from any thread at any time, also
 * when the client has gone or the server is gone. */
void net_unary_accept(grpc_call *call, grpc_byte_buffer *request, net_frames *frames, const net_unary_owner *owner,
                      skald_method method, const char *identity);
/* grpc.health.v1.Health/Check. */
void net_health_answer(grpc_call *call, grpc_byte_buffer *request, bool serving);
/* Answers with a status and nothing else, and lets the call go. */
void net_refuse(grpc_call *call, grpc_status_code grpc_code, skald_status status, const char *reason);

/* ---- client -------------------------------------------------------------------------------------------- */

#define NET_NO_WAIT_NS 5000000000ll /* one attempt to connect may take this long, when none is to be waited for */

/* SKALD_EINVAL when its security cannot be used. */
skald_status net_channel_open(const char *address, const skald_net_options *options, grpc_channel **out);
/* Is there somebody with whom no TLS connection comes about? By one attempt of at most a second; reason: why. Blocks.
 */
bool net_channel_no_tls(grpc_channel *channel, char reason[NET_REASON_BYTES]);
/* The start of a call; `wait`: for a server to appear. */
void net_start_fill(grpc_op *op, bool wait);

/* How a call ended. */
typedef struct net_verdict {
    grpc_metadata_array trailing;
    grpc_status_code code;
    grpc_slice details;
    const char *error;
} net_verdict;

/* Sets op up to receive it. */
void net_verdict_init(net_verdict *verdict, grpc_op *op);
void net_verdict_fini(net_verdict *verdict);
skald_status net_verdict_read(net_verdict *verdict, bool opened, char reason[NET_REASON_BYTES]);

#endif
