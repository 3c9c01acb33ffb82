/* The gRPC adapter's server, in parts: its sessions, its calls, and what holds them (grpc_server.c). One completion
 * queue, one thread that polls it. */
#ifndef SKALD_NET_GRPC_SERVER_H
#define SKALD_NET_GRPC_SERVER_H

#include "net/grpc.h"
#include "net/grpc_security.h"
#include "net/grpc_stream.h"

typedef enum net_slot_kind {
    NET_SLOT_SESSION,
    NET_SLOT_STATUS,
    NET_SLOT_FETCH,
    NET_SLOT_DRAIN,
    NET_SLOT_HEALTH,
    NET_SLOT_OTHER,
    NET_SLOT_KINDS
} net_slot_kind;
#define NET_SLOTS_A_KIND 8 /* calls taken at the same time; more wait in the core */

/* A standing request for the next call of one kind. */
typedef struct net_slot {
    net_tag tag;
    skald_net_server *server;
    net_slot_kind kind;
    grpc_call *call;
    gpr_timespec deadline;
    grpc_metadata_array metadata;
    grpc_call_details details;
    grpc_byte_buffer *payload;
} net_slot;

struct skald_net_server {
    grpc_server *core;
    grpc_completion_queue *queue;
    void *methods[NET_SLOT_OTHER];
    net_slot slots[NET_SLOT_KINDS * NET_SLOTS_A_KIND];
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
    net_stream *streams;   /* open sessions */
    uint32_t stream_count; /* until their on_close has returned */
    uint32_t open_count;   /* until their on_close is called: what the limit counts */
    size_t calls;          /* unary ones the core still holds for the application */
    bool draining, down;
};

/* grpc_server_sessions.c: takes the call as a session, or refuses it aloud. */
void net_server_session(skald_net_server *server, grpc_call *call, const char *identity);

/* grpc_server_calls.c: asks the core for the next call of the slot's kind, and deals with it when it comes; forever. */
void net_server_request(net_slot *slot);
/* There is no room: told to the caller and to the application. Lets the call go. */
void net_server_no_room(skald_net_server *server, grpc_call *call, const char *identity, const char *reason);

#endif
