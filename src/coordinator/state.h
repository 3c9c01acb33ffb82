/* The coordinator's state; private to src/coordinator. One owner thread; handlers on the I/O thread only
 * push events. */
#ifndef SKALD_COORDINATOR_STATE_H
#define SKALD_COORDINATOR_STATE_H

#include "base/base.h"
#include "base/pool.h"
#include "base/queue.h"
#include "coordinator/guard.h"
#include "engine/shelf.h"
#include "skald/collective.h"
#include "skald/coordinator.h"
#include "skald/worker.h"
#include "wire/wire.h"

/* A worker's way to being ready: each stage but the last is a request that is repeated until answered. */
typedef enum skald_stage {
    SKALD_STAGE_OPENING = 0, /* opens its data file */
    SKALD_STAGE_OPENED,      /* waits for the others */
    SKALD_STAGE_SCANNING,
    SKALD_STAGE_SCANNED,
    SKALD_STAGE_SETUP,
    SKALD_STAGE_LOADING, /* one lease after the other */
    SKALD_STAGE_LOADED,
    SKALD_STAGE_BEGINNING,
    SKALD_STAGE_READY
} skald_stage;

typedef struct skald_outstanding {
    skald_task task; /* holds a reference on its model */
    int64_t sent_ns;
} skald_outstanding;

typedef struct skald_session_state {
    skald_net_session *session;
    skald_member member;
    char collective[64], no_collective[256], card[80]; /* as in Hello */
    uint32_t *shards;
    bool alive, told_lost;
    char lost[300];
    uint64_t incarnation;
    skald_stage stage;
    int64_t asked_ns, seen_ns;
    uint64_t file_bytes; /* of its copy of the data */
    uint32_t parts, scan_first, scan_count, lease_next;
    skald_outstanding *tasks; /* slots x depth + 1 */
    uint32_t task_count, task_capacity;
    skald_shelf shelf;           /* what it keeps */
    uint64_t seq_high, seq_mask; /* results seen: all up to high - 64 count as seen, bit k is high - k */
    uint64_t acks[64];
    uint32_t ack_count;
    uint64_t sent, received;
    uint64_t answered, unasked; /* results for a task it had, and for none */
} skald_session_state;

typedef enum skald_input_kind {
    SKALD_INPUT_FRAME,
    SKALD_INPUT_CLOSE,
    SKALD_INPUT_CALL,
    SKALD_INPUT_REFUSED
} skald_input_kind;

typedef struct skald_input {
    skald_input_kind kind;
    skald_net_session *session; /* frame, close: holds a reference */
    skald_frame *frame;         /* frame, call: owned */
    int64_t arrived_ns;         /* frame: when the I/O thread had it */
    skald_method method;
    skald_net_call *call;
    skald_status code;
    char reason[300];
} skald_input;

typedef struct skald_result_slot {
    skald_result result;
    struct skald_result_slot *next;
    double data[]; /* SKALD_MAX_POINTS x dim */
} skald_result_slot;

struct skald_coordinator {
    skald_crew crew; /* first: the remote crew is the coordinator */
    const skald_net_ops *net;
    const skald_coordinator_options *options;
    skald_net_server *server;
    skald_queue *inputs;
    skald_wire_env *env;
    skald_pool *headers;
    char run[40];
    skald_session_state *workers; /* options->workers */
    uint32_t joined;
    uint64_t next_incarnation;
    skald_manifest manifest;
    skald_problem problem;
    skald_result_slot *idle;
    int64_t repeat_ns, timeout_ns, tick_ns;
    int64_t frame_ns; /* when the frame being dealt with arrived */
    uint64_t duplicates, refused;
    skald_guard *guard;
    bool ready;
};

void skald_coordinator_notice(const skald_coordinator *c, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
skald_session_state *skald_coordinator_find(skald_coordinator *c, const skald_net_session *session);
void skald_coordinator_send(skald_coordinator *c, skald_session_state *s, const Skald__V1__Frame *frame,
                            const skald_wire_vector *vectors, size_t n);
/* A worker is gone, or treated as such. */
void skald_coordinator_lose(skald_coordinator *c, skald_session_state *s, const char *reason);
void skald_input_drop(skald_input *input);

/* door.c. Handlers of the net port: */
void skald_door_refused(void *coordinator, const char *peer, const char *identity, skald_status code,
                        const char *reason);
bool skald_door_admits(void *coordinator, const char *peer, const char *identity, char *reason);
/* On the I/O thread: is this frame to be looked at? */
bool skald_door_passes(skald_coordinator *c, skald_net_session *session, const skald_frame *frame);
/* On the owner thread. The peer did what nobody honest does: it is refused for a while if that happens often. */
void skald_door_offence(skald_coordinator *c, const skald_net_session *session, const char *what);
/* Tells why and shows a session out, once; SKALD_EPEER: that was an offence. Not for a worker of the run: lose it. */
void skald_coordinator_refuse(skald_coordinator *c, skald_net_session *session, skald_status code, const char *reason);
void skald_coordinator_turned_away(const skald_coordinator *c, const char *text); /* SKALD_INPUT_REFUSED */
void skald_coordinator_closed(skald_coordinator *c, const skald_input *in);       /* SKALD_INPUT_CLOSE */

/* gather.c: sends (again) what the worker's stage asks for; a lease. */
void skald_gather_ask(skald_coordinator *c, skald_session_state *s);
void skald_gather_lease(skald_coordinator *c, skald_session_state *s, uint32_t shard);

/* crew.c */
extern const skald_crew_ops skald_remote_crew_ops;
/* Decodes a result frame: SKALD_AGAIN when there is nothing for the engine in it. */
skald_status skald_remote_result(skald_coordinator *c, skald_session_state *s, const Skald__V1__Result *m,
                                 skald_result **out);
/* Makes a REQUEST event of a call; SKALD_AGAIN when it was none, and has been answered. */
skald_status skald_remote_call(skald_coordinator *c, skald_input *in, skald_event *event);
/* As the crew's answer, with the model's memory in `owner`. */
void skald_coordinator_answer_model(skald_coordinator *c, skald_net_call *call, const skald_version *model,
                                    skald_bytes *owner);

/* conduct.c: the crew's `conduct`. */
skald_status skald_remote_conduct(skald_crew *crew, const struct skald_train_options *options,
                                  const struct skald_observer *observer, const atomic_int *stop_flag,
                                  struct skald_outcome *outcome);

#endif
