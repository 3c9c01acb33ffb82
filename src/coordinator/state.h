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
    int64_t sent_ns; /* the last time */
} skald_outstanding;

/* A seat: what the coordinator knows of the worker with this number. Once that one is lost and the engine has been
 * told, the seat is free for another. */
typedef struct skald_session_state {
    skald_net_session *session;                        /* NULL: broken, or lost */
    skald_member member;                               /* as the engine has been told: see changes.c */
    char collective[64], no_collective[256], card[80]; /* as in Hello */
    uint32_t *shards;
    bool alive;
    bool known;   /* the engine has been told, or is about to be, that it is there */
    bool leaving; /* all it has goes to others, then it goes */
    char lost[300];
    bool broke;  /* before training: it went without a word, and another may take its place */
    bool vacant; /* the place of such a one */
    uint64_t incarnation;
    skald_stage stage;
    int64_t asked_ns, seen_ns, broken_ns; /* broken: its session closed then, and it may come back; 0: no */
    bool local;                           /* its session is within this machine */
    uint64_t file_bytes;                  /* of its copy of the data */
    uint32_t parts, scan_first, scan_count, lease_next;
    skald_outstanding *tasks; /* slots x depth + 1 */
    uint32_t task_count, task_capacity;
    skald_shelf shelf;           /* what it keeps */
    uint64_t seq_high, seq_mask; /* results seen: all up to high - 64 count as seen, bit k is high - k */
    uint64_t acks[64];
    uint32_t ack_count;
    uint64_t answered, unasked; /* results for a task it had, and for none */
    struct skald_held *held;    /* what it has of an earlier term: legacy.c */
    uint32_t held_count, held_of;
    uint64_t newest, newest_commits, newest_checksum;
    skald_net_call *drain; /* who asked for it to leave; NULL: nobody */
} skald_session_state;

/* Where a shard is. The engine learns of HELD and LEAVING by events. */
typedef enum skald_lease_state {
    SKALD_LEASE_FREE = 0, /* nobody has it */
    SKALD_LEASE_LOADING,  /* the holder has been asked to load it */
    SKALD_LEASE_HELD,
    SKALD_LEASE_LEAVING,  /* no more tasks on it; the holder finishes those it has */
    SKALD_LEASE_RELEASING /* the holder has been asked to drop it */
} skald_lease_state;

typedef struct skald_lease {
    skald_lease_state state;
    uint32_t holder;
    bool told;        /* leaving: the engine knows */
    bool moving;      /* free: its holder gave it up, and lives */
    int64_t asked_ns; /* loading, releasing */
} skald_lease;

/* A shard that a worker says it has, with its table. */
typedef struct skald_held {
    uint32_t shard;
    uint64_t checksum;
} skald_held;

/* What the engine has still to be told about the members, in order. */
typedef struct skald_change {
    skald_event_kind kind;
    uint32_t worker, shard;
    char reason[300];
} skald_change;

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
    uint32_t term;
    skald_session_state *workers; /* crew.most seats */
    uint32_t joined;              /* seats that are or were taken */
    uint32_t told;                /* those that the engine knows of */
    uint64_t next_incarnation;
    uint32_t parts; /* of the data, and their size: as the first workers have them */
    uint64_t file_bytes;
    skald_manifest manifest;
    skald_problem problem;
    skald_lease *leases; /* by shard */
    skald_change *changes;
    uint32_t change_count, change_capacity;
    bool overflow;
    bool over;               /* the workers have been dismissed */
    uint32_t *loads;         /* by seat: shards, while they are dealt */
    char change_reason[300]; /* of the event handed out last */
    int64_t alone_ns;        /* since when nobody is there; 0: somebody is */
    bool unsettled;          /* members or leases have changed: leases are to be looked at */
    skald_result_slot *idle;
    int64_t repeat_ns, timeout_ns, tick_ns, ticked_ns;
    int64_t frame_ns; /* when the frame being dealt with arrived */
    uint64_t duplicates, refused;
    skald_legacy legacy;
    uint32_t expected; /* workers that the run begins with */
    int64_t came_ns;   /* when the last one came */
    uint32_t asked;    /* whom for its model; UINT32_MAX: nobody */
    int64_t asked_ns;  /* when */
    skald_guard *guard;
    bool ready;
};

void skald_coordinator_notice(const skald_coordinator *c, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
skald_session_state *skald_coordinator_find(skald_coordinator *c, const skald_net_session *session);
/* As find, for a frame that is taken from it: counted. */
skald_session_state *skald_coordinator_take(skald_coordinator *c, const skald_input *in);
void skald_coordinator_send(skald_coordinator *c, skald_session_state *s, const Skald__V1__Frame *frame,
                            const skald_wire_vector *vectors, size_t n);
/* A worker is gone, or treated as such. */
void skald_coordinator_lose(skald_coordinator *c, skald_session_state *s, const char *reason);
/* The same, and it is told not to come back. */
void skald_coordinator_expel(skald_coordinator *c, skald_session_state *s, const char *reason);
void skald_input_drop(skald_input *input);

/* requests.c: sends (again) what the worker's stage asks for; its welcome; a lease; that it is to be given up. */
void skald_ask_welcome(skald_coordinator *c, skald_session_state *s, bool resumed);
void skald_ask_stage(skald_coordinator *c, skald_session_state *s);
void skald_ask_lease(skald_coordinator *c, skald_session_state *s, uint32_t shard);
void skald_ask_release(skald_coordinator *c, skald_session_state *s, uint32_t shard);
void skald_ask_to_go(skald_coordinator *c, skald_session_state *s, const char *reason);

/* gather.c: an answer of a worker that is on its way to being ready; failures are its own. */
skald_status skald_gather_answer(skald_coordinator *c, skald_session_state *s, const Skald__V1__Frame *frame);

/* legacy.c: what workers have from earlier starts of the run. */
void skald_legacy_hear(skald_coordinator *c, skald_session_state *s, const Skald__V1__Hello *hello);
/* Deals the shards whose tables are live to those who have them. */
skald_status skald_legacy_deal(skald_coordinator *c);
/* Asks for the newest model, if it is newer than the checkpoint's. False: the answer is still to come. */
bool skald_legacy_settled(skald_coordinator *c);
skald_status skald_legacy_answer(skald_coordinator *c, skald_session_state *s, const Skald__V1__VersionReply *m);
void skald_legacy_free(skald_coordinator *c);

/* members.c: workers come, break off, come back, go. */
/* How many workers the run begins with, as far as they are there. */
static inline uint32_t skald_coordinator_founders(const skald_coordinator *c) {
    return c->joined < c->expected ? c->joined : c->expected;
}
void skald_members_clear(skald_session_state *s); /* of what it has of somebody who is gone */
void skald_members_hello(skald_coordinator *c, skald_net_session *session, const Skald__V1__Hello *hello);
void skald_members_beat(skald_coordinator *c, skald_session_state *s, const Skald__V1__Heartbeat *beat);
void skald_members_close(skald_coordinator *c, skald_session_state *s, const skald_input *in);
void skald_members_drain(skald_coordinator *c, skald_input *in); /* a call of that method; answered later */
void skald_members_left(skald_coordinator *c);                   /* who is to leave and has nothing left to do goes */
/* Its device hangs: it is lost if what it computes takes far too long. */
void skald_members_judge(skald_coordinator *c, skald_session_state *s, const Skald__V1__Heartbeat *beat);
/* Time passes: who is silent or broken for too long is lost; what is unanswered is asked again. */
void skald_members_tick(skald_coordinator *c, int64_t now_ns);

/* changes.c: what the engine is told. Noted in the order in which it happened; `member` follows as it is handed out. */
void skald_changes_note(skald_coordinator *c, skald_event_kind kind, uint32_t worker, uint32_t shard,
                        const char *reason);
bool skald_changes_next(skald_coordinator *c, skald_event *event);

/* leases.c */
skald_status skald_leases_init(skald_coordinator *c); /* as the first workers hold the shards */
void skald_leases_lose(skald_coordinator *c, uint32_t worker);
void skald_leases_vacate(skald_coordinator *c, uint32_t worker); /* what it holds is to go to others */
void skald_leases_loaded(skald_coordinator *c, skald_session_state *s, const Skald__V1__Loaded *loaded);
void skald_leases_told(skald_coordinator *c, uint32_t worker, uint32_t shard); /* the engine knows that it leaves */
bool skald_leases_any(const skald_coordinator *c, uint32_t worker);
/* Deals what is free, moves what is leaving and has come to rest, evens out. */
void skald_leases_tend(skald_coordinator *c, int64_t now_ns);
/* door.c. Handlers of the net port: */
void skald_door_refused(void *coordinator, const char *peer, const char *identity, skald_status code,
                        const char *reason);
bool skald_door_admits(void *coordinator, const char *peer, const char *identity, char *reason);
/* The session's seat, or the last it had; NULL: it never had one. */
skald_session_state *skald_door_seat(const skald_net_session *session);
/* On the I/O thread: is this frame to be looked at? */
bool skald_door_passes(skald_coordinator *c, skald_net_session *session, const skald_frame *frame);
/* On the owner thread. The peer did what nobody honest does: it is refused for a while if that happens often. */
void skald_door_offence(skald_coordinator *c, const skald_net_session *session, const char *what);
/* Tells why and shows a session out, once; SKALD_EPEER: that was an offence. Not for a worker of the run: lose it. */
void skald_coordinator_refuse(skald_coordinator *c, skald_net_session *session, skald_status code, const char *reason);
void skald_coordinator_turned_away(const skald_coordinator *c, const char *text); /* SKALD_INPUT_REFUSED */
void skald_coordinator_closed(skald_coordinator *c, const skald_input *in);       /* SKALD_INPUT_CLOSE */

/* crew.c */
extern const skald_crew_ops skald_remote_crew_ops;
/* Decodes a result frame: SKALD_AGAIN when there is nothing for the engine in it. */
skald_status skald_remote_result(skald_coordinator *c, skald_session_state *s, const Skald__V1__Result *m,
                                 skald_result **out);
/* Makes a REQUEST event of a call; SKALD_AGAIN when it was none, and has been answered. */
skald_status skald_remote_call(skald_coordinator *c, skald_input *in, skald_event *event);
/* Sends a task (again: with all its vectors). */
void skald_remote_send_task(skald_coordinator *c, skald_session_state *s, skald_outstanding *o, bool again);
/* As the crew's answer, with the model's memory in `owner`. */
void skald_coordinator_answer_model(skald_coordinator *c, skald_net_call *call, const skald_version *model,
                                    skald_bytes *owner);

/* conduct.c: the crew's `conduct`. */
skald_status skald_remote_conduct(skald_crew *crew, const struct skald_train_options *options,
                                  const struct skald_observer *observer, const atomic_int *stop_flag,
                                  struct skald_outcome *outcome);

#endif
