/* The state of a worker process; private to src/worker.
 *
 * Threads: the adapter's I/O thread pushes events; the control thread (skald_worker_run's caller) decodes
 * frames, answers, beats and repeats; `lanes` run jobs. Setup jobs have the worker to themselves (write
 * lock), tasks share it (read lock) unless they go over all shards. */
#ifndef SKALD_WORKER_STATE_H
#define SKALD_WORKER_STATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/pool.h"
#include "base/queue.h"
#include "base/straggler.h"
#include "engine/shelf.h"
#include "engine/versions.h"
#include "skald/worker.h"
#include "wire/wire.h"
#include "worker/busy.h"
#include "worker/chain.h"

enum {
    SKALD_WORKER_SEEN = 256,     /* task ids remembered */
    SKALD_WORKER_WAITING = 65536 /* tasks not begun and results not acknowledged: more are too many */
};

typedef enum skald_job_kind {
    SKALD_JOB_SCAN,
    SKALD_JOB_LEASE,
    SKALD_JOB_RELEASE,
    SKALD_JOB_BEGIN,
    SKALD_JOB_TASK,
    SKALD_JOB_RANK, /* the rest of the run: its lane then takes the jobs below itself, and leases */
    SKALD_JOB_REGROUP,
    SKALD_JOB_ASK,
    SKALD_JOB_STOP
} skald_job_kind;

typedef struct skald_job {
    skald_job_kind kind;
    uint32_t first, count; /* scan */
    uint32_t shard;        /* lease, release */
    uint64_t checksum;     /* lease */
    skald_block *blocks;   /* lease: owned */
    uint64_t block_count;
    double weight_scale;               /* begin */
    skald_task task;                   /* task: holds a reference on its model */
    struct skald_rank_spec *spec;      /* rank: owned */
    struct skald_regroup_order *order; /* regroup: owned */
    uint64_t ticket;                   /* ask: of who asks, 0: nobody */
    uint32_t request;                  /* ask: skald_request_kind */
    bool interrupt;                    /* ask: stop in order */
    int64_t arrived_ns;
} skald_job;

/* A result that has not been acknowledged. */
typedef struct skald_unacked {
    uint64_t seq;
    skald_result result;
    uint64_t version;
    skald_bytes *bytes; /* its vectors, one after the other, or its sample; NULL without */
    bool narrow;        /* they are floats */
    int64_t sent_ns;
} skald_unacked;

typedef struct skald_worker {
    const skald_worker_options *options;
    skald_queue *events;
    skald_wire_env *env;
    skald_pool *headers;
    const skald_net_ops *net;
    skald_net_client *client;
    /* The control thread's, NULL before open and after close; and the same from the welcome on, which it sets, under
     * the mutex, for everybody. */
    skald_net_session *opened, *session;
    pthread_mutex_t session_mutex;

    char device[64];
    char collective[64], no_collective[256], card[80]; /* as in Hello */
    uint64_t incarnation;                              /* as the coordinator numbered it; 0: it has not yet */
    char run[64];
    uint32_t term;
    int64_t beat_ns;          /* between signs of life */
    int64_t leave_by;         /* it was told to stop, and goes then at the latest; 0: it was not */
    uint32_t number, workers; /* which of them this one is */
    bool ranked;              /* a rank: its run does not outlive its session */
    skald_source *source;
    char path[4096], weights[4096];
    int index_base; /* of the data, as its welcome says; and columns */
    uint32_t columns;
    double *shift, *scale, *labels;
    skald_transform transform;
    skald_objective objective;
    skald_rows *read; /* by shard, until begin */
    double weight_scale;
    skald_block first_block; /* one of those leased: what kind of file they are from */
    uint32_t shard_count;
    bool set_up;
    atomic_bool begun;
    skald_runner runner;
    skald_versions *versions;
    skald_shelf shelf;   /* versions kept; the coordinator counts along */
    uint64_t *checksums; /* by shard: of those loaded */
    bool *leased;        /* by shard: in this term */
    bool kept;           /* shards are from an earlier term: those without a lease go as training begins; the lanes' */
    bool rejoined;       /* ... and the next setup is the first of this term */
    skald_version *newest; /* model that it was trained with */
    uint64_t seen_version; /* highest number */
    uint64_t seen[SKALD_WORKER_SEEN];
    uint32_t seen_next;
    skald_pool *vectors; /* result vectors: SKALD_MAX_POINTS x dim doubles */
    skald_pool *narrow;  /* the same as floats */
    float **carries;     /* by shard: history computed and not yet reported, dim floats; NULL: none (see narrow.c) */

    pthread_rwlock_t exclusive;
    struct skald_worker_lane *lanes;
    uint32_t lane_count;
    uint32_t *lane_of; /* by shard: tasks on one shard run in order, on one lane */
    skald_busy busy;
    atomic_uint waiting; /* tasks not begun */

    struct { /* slowness on purpose: straggle.c */
        skald_stragglers models;
        uint64_t seed;
        int64_t pace_ns;
        atomic_ullong tasks, warm_tasks; /* of training: begun; measured */
        atomic_llong warm_ns, begin_ns;  /* begin_ns: when the first one came; 0: not yet */
    } straggle;

    pthread_mutex_t outbox_mutex;
    skald_unacked *outbox;
    uint32_t outbox_count, outbox_capacity;
    uint64_t next_seq;
} skald_worker;

void skald_worker_notice(const skald_worker *w, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Sends on the session if it has been welcomed there; any thread. What lanes answer before that was asked in an earlier
 * session, and will be asked again; a hello comes first. A lost session is not an error here: its close comes. */
void skald_worker_send(skald_worker *w, const Skald__V1__Frame *frame, const skald_wire_vector *vectors, size_t n);
void skald_worker_greet(skald_worker *w, const Skald__V1__Frame *hello); /* control thread */
void skald_worker_welcomed(skald_worker *w);                             /* control thread */

/* orders.c. Take: one frame; *over: it was the last, and its status is the run's. */
void skald_order_hello(skald_worker *w);
skald_status skald_order_take(skald_worker *w, const Skald__V1__Frame *frame, bool *over);

/* life.c: one incarnation's state, from its first welcome on. Begin: lanes and all that is not set by the coordinator.
 * End: frees it; waits for what the lanes compute. */
skald_status skald_life_begin(skald_worker *w);
void skald_life_end(skald_worker *w);

/* keep.c: what outlives a coordinator. Room for what a hello tells, the caller's to free. */
typedef struct skald_held_shards {
    uint32_t *shards;
    uint64_t *checksums;
} skald_held_shards;
void skald_keep_version(skald_worker *w, const skald_task *task); /* it names a version */
void skald_keep_tell(skald_worker *w, Skald__V1__Hello *hello, skald_held_shards *room);
skald_status skald_keep_welcome(skald_worker *w); /* a new term: all is dropped but shards, tables, models */
void skald_keep_leased(skald_worker *w);          /* shards without a lease of this term go; has the worker to itself */
void skald_keep_answer(skald_worker *w);          /* to a version request */
void skald_keep_end(skald_worker *w);

/* jobs.c */
skald_status skald_worker_push(skald_worker *w, const skald_job *job);
skald_status skald_worker_start_lanes(skald_worker *w);
void skald_worker_stop_lanes(skald_worker *w);
/* setup.c. Lease: reads its rows; once training has begun also loads them. Each answers the coordinator. */
void skald_worker_scan(skald_worker *w, const skald_job *job);
void skald_worker_lease(skald_worker *w, const skald_job *job);
void skald_worker_begin(skald_worker *w, const skald_job *job);
void skald_worker_release(skald_worker *w, const skald_job *job);
void skald_worker_unload(skald_worker *w, uint32_t shard); /* rows and history */
/* Training tasks take at least options->pace_ms: waits for the rest of it. Returns how long, in nanoseconds. */
int64_t skald_worker_pace(skald_worker *w, const skald_task *task, int64_t start_ns);
/* How many rows a task goes over, for its time. A lane. */
double skald_worker_rows(const skald_worker *w, const skald_task *task);
void skald_job_drop(skald_job *job); /* frees what it owns */
skald_status skald_worker_open_source(skald_worker *w, int index_base, uint32_t dim);

/* straggle.c: slowness on purpose, by waiting. */
skald_status skald_straggle_init(skald_worker *w, const Skald__V1__Setup *setup);
/* A training task began at start_ns and is computed: when its result may leave. Any lane. */
int64_t skald_straggle_until(skald_worker *w, int64_t start_ns, int64_t now_ns);
/* Ends the process by SIGKILL if this is its hour. */
void skald_straggle_die(skald_worker *w, int64_t now_ns);

/* narrow.c: results of local tasks as floats. A buffer of w->narrow in exchange for `bytes`, which keeps its values;
 * NULL when out of memory (nothing has happened). The lane of the shard. */
skald_bytes *skald_worker_narrow(skald_worker *w, const skald_result *r);

/* outbox.c: results are kept until acknowledged and sent again when that takes long. */
void skald_outbox_post(skald_worker *w, const skald_result *result, uint64_t version, skald_bytes *bytes, bool narrow);
void skald_outbox_ack(skald_worker *w, uint64_t seq);
void skald_outbox_repeat(skald_worker *w, int64_t now_ns, int64_t older_than_ns);
bool skald_outbox_has(skald_worker *w, uint64_t task);
uint32_t skald_outbox_count(skald_worker *w);
void skald_outbox_fini(skald_worker *w);

#endif
