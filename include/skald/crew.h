/* The crew port: the workers as the engine sees them, wherever they are.
 *
 * Members come and go. Who has which shard is the crew's to decide, and it tells by events; `size` (the numbers given
 * out so far) and what `member` shows change with these events only. What follows for the mathematics is the engine's.
 *
 * Adapters: remote (src/coordinator: sessions over the net port), local (src/worker: this process).
 * A crew is *ready* when it is handed to the engine: manifest merged, every shard leased and loaded.
 * All calls come from the owner thread. */
#ifndef SKALD_CREW_H
#define SKALD_CREW_H

#include <stdatomic.h>

#include "skald/problem.h"
#include "skald/task.h"
#include "skald/vectors.h"

typedef struct skald_crew skald_crew;

typedef struct skald_member {
    char name[64], device[64];
    uint32_t slots; /* tasks it can compute at the same time */
    uint32_t depth; /* tasks a slot may hold, the running one included: 2 hides the way to and fro */
    uint32_t shard_count;
    const uint32_t *shards; /* owned by the crew */
    uint64_t rows;
    /* messages of every kind, whole, seen from the coordinator; 0 for local; simulated: the vectors in them */
    uint64_t bytes_sent, bytes_received;
    uint64_t versions_sent, bytes_saved; /* with tasks; of versions that tasks named and the worker had */
    uint64_t bytes_summed;               /* of a rank: its part of what was added up over all ranks, or handed round */
} skald_member;

typedef enum skald_event_kind {
    SKALD_EVENT_NONE = 0,  /* the timeout passed */
    SKALD_EVENT_RESULT,    /* result: give it back with release() */
    SKALD_EVENT_LOST,      /* worker: gone, with the tasks and the shards it had; reason */
    SKALD_EVENT_REQUEST,   /* somebody asks for status, an audit or the model: request */
    SKALD_EVENT_JOINED,    /* worker: there, without a shard. Its number may be one that a lost worker had */
    SKALD_EVENT_WITHDRAWN, /* worker, shard: no more tasks on it there; results of those in flight still come */
    SKALD_EVENT_LEASED     /* worker, shard: loaded there; no other worker has it. Its history is all zero */
} skald_event_kind;

typedef enum skald_request_kind { SKALD_REQUEST_STATUS, SKALD_REQUEST_AUDIT, SKALD_REQUEST_MODEL } skald_request_kind;

typedef struct skald_event {
    skald_event_kind kind;
    uint32_t worker, shard;
    uint64_t rows; /* lost: those that were with it */
    skald_result *result;
    const char *reason; /* valid until the next call of next() */
    skald_request_kind request;
    void *asker; /* to be answered with answer() */
    uint64_t newer_than;
} skald_event;

typedef struct skald_crew_ops {
    uint32_t (*size)(const skald_crew *crew);
    const skald_member *(*member)(const skald_crew *crew, uint32_t worker);
    /* Hands a task to a worker (which has a free slot). References the model for as long as needed. Does
     * not block. A vanished worker is not an error: SKALD_EVENT_LOST follows. */
    skald_status (*submit)(skald_crew *crew, uint32_t worker, const skald_task *task);
    /* The next event; waits up to timeout_ns (0: does not wait; < 0: for ever). */
    skald_status (*next)(skald_crew *crew, int64_t timeout_ns, skald_event *event);
    void (*release)(skald_crew *crew, skald_result *result);
    /* Answers a request: json text (status, audit), or a model version; `model` may be NULL. */
    void (*answer)(skald_crew *crew, void *asker, const char *json, skald_version *model);
    /* The training is over: tells the workers, frees everything. */
    void (*destroy)(skald_crew *crew, skald_status code, const char *reason);
    /* Sends a worker away for good, and tells it why; SKALD_EVENT_LOST follows. NULL where nobody can be spared. */
    void (*expel)(skald_crew *crew, uint32_t worker, const char *reason);
} skald_crew_ops;

/* Does a result with this status speak against its worker (its device, its memory, its messages), and not against the
 * data or the model? */
static inline bool skald_blames_worker(skald_status status) {
    return status == SKALD_EIO || status == SKALD_ENOMEM || status == SKALD_EREFUSED;
}

/* What a crew of ranks in lockstep adds: every rank's process runs the engine and the solver on the same numbers, and
 * the crew computes only its own member's part. Results of the others have sums and no vectors. A lost member is not
 * the end: SKALD_EVENT_LOST (worker: UINT32_MAX) says that nothing that was in flight will come, that the lost have no
 * slots any more (perhaps nobody is lost), and that others have their shards. */
typedef struct skald_ranks_ops {
    /* In place: adds up `count` vectors (of `vectors`) over all ranks. SKALD_AGAIN: somebody was lost, the vectors hold
     * anything, SKALD_EVENT_LOST follows. Blocks. */
    skald_status (*reduce)(skald_crew *crew, double *const *vectors, uint32_t count);
    /* Is this the rank whose decisions count, the first that lives? Agree: its vector (one of `vectors`; NULL: none)
     * and numbers go to everybody; SKALD_AGAIN and blocks, as above. */
    bool (*decides)(const skald_crew *crew);
    skald_status (*agree)(skald_crew *crew, double *vector, double *numbers, uint32_t count);
    /* This process's own arithmetic begins, which may take long, or is over: no task hangs meanwhile. */
    void (*aside)(skald_crew *crew, bool begins);
} skald_ranks_ops;

/* What the members have from an earlier start of the run. */
typedef struct skald_legacy {
    bool *kept;       /* by shard: its holder has it since then, with its history; the others' histories are all zero */
    uint64_t version; /* the highest number of a version that was seen by one of them */
    uint64_t commits; /* of w */
    uint64_t number;  /* of w, as a version */
    double *w;        /* the newest model that one of them had, if newer than the checkpoint's; NULL: none is */
    char name[64];    /* who had it */
} skald_legacy;

struct skald_train_options;
struct skald_observer;
struct skald_outcome;

struct skald_crew {
    const skald_crew_ops *ops;
    const skald_problem *problem; /* owned by the crew */
    uint32_t most;                /* members there can be at a time; 0: as many as there are, nobody joins */
    /* What the problem was made of, for checkpoints: owned by the crew; NULL where it is quickly found again. */
    const struct skald_manifest *manifest;
    const skald_legacy *legacy;   /* NULL: they have nothing */
    const skald_ranks_ops *ranks; /* NULL: the engine is in one place, and so are all results */
    /* One member with one slot, which runs its task within `next` and keeps nothing of it: local tasks read the
     * solver's own vectors, of which no copy is made. */
    bool here;
    /* Its members, and who asks, are outside this process, and go on whatever the engine does: `next` should be called
     * even where no result is awaited. */
    bool live;
    /* The memory that models and results are in; the engine keeps its own vectors there too. NULL: the host's. Only of
     * ranks: elsewhere results come from many places, and are looked into. */
    const skald_vectors *vectors;
    /* May be NULL. Synchronous runs: trains with the members' own engines, as skald_train would. SKALD_EUNSUPPORTED,
     * with the reason, when they cannot. */
    skald_status (*conduct)(skald_crew *crew, const struct skald_train_options *options,
                            const struct skald_observer *observer, const atomic_int *stop_flag,
                            struct skald_outcome *outcome);
};

#endif
