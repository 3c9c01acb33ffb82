/* TLS, tokens, and what a certificate or a token allows: the gRPC adapter's door. See skald_net_security. */
#ifndef SKALD_NET_GRPC_SECURITY_H
#define SKALD_NET_GRPC_SECURITY_H

#include <grpc/grpc_security.h>

#include "net/grpc_common.h"

typedef enum net_role {
    NET_ROLE_WORKER = 1,  /* may hold a session */
    NET_ROLE_STATUS = 2,  /* may ask for status and the model */
    NET_ROLE_OPERATOR = 4 /* may do all */
} net_role;

/* What a server asks of whoever comes. Its own copies. */
typedef struct net_guard {
    bool certificates; /* TLS has verified that each client shows a certificate of the CA */
    char *tokens;      /* as skald_net_security.token; NULL: none is asked for */
    bool probed;       /* calls may come in plain text through skald_net_options.health: none is admitted */
} net_guard;

/* What the credentials of a server or a channel need. SKALD_EINVAL when files that belong together are not there
 * together, a token has no secret, or a PEM is none. Both are released by the caller. */
skald_status net_server_credentials(const skald_net_security *security, grpc_server_credentials **out);
skald_status net_channel_credentials(const skald_net_security *security, grpc_channel_credentials **out);

skald_status net_guard_init(net_guard *guard, const skald_net_security *security);
void net_guard_fini(net_guard *guard);
/* May whoever made this call do what `needed` may? *identity: the certificate's common name, or without one its first
 * DNS name; "" where none is asked for. Else: reason, and SKALD_EREFUSED, or SKALD_EPEER for a token that is none. */
skald_status net_guard_admits(const net_guard *guard, grpc_call *call, const grpc_metadata_array *metadata,
                              net_role needed, char identity[NET_IDENTITY_BYTES], char reason[NET_REASON_BYTES]);

/* The metadata in which a client says its token: `count` becomes 0 or 1. The slices are the caller's to unref. Refuses
 * (SKALD_EINVAL) to say it in plain text beyond this machine. */
skald_status net_token_fill(const skald_net_security *security, const char *address, grpc_metadata *out, size_t *count);
void net_token_clear(grpc_metadata *metadata, size_t count);

#endif
