/* A worker as a rank of a synchronous run: it runs the engine and the solver itself, in lockstep with the other ranks.
 * Private to src/worker.
 *
 * The crew it gives its engine has all ranks as members. Every rank's engine hands out the same tasks; each crew
 * computes its own member's and exchanges the sums of all in one block that is added up (a slot is zero at all ranks
 * but one). With the block ride the first living rank's clock and flags, so that limits, interrupts and audits come at
 * the same point everywhere. Vectors are added up when the engine merges a round (reduce). Sampled rows go from their
 * holder to everybody (hand_round), as does what the first living rank decides (agree).
 *
 * When an operation fails, the ranks wait for the coordinator to say who is lost and who has the rows now, open a new
 * group, and compare how many operations they have done: those that are one behind are given the result they missed.
 * From there all are at the same point again, and the engines are told of the loss. */
#ifndef SKALD_WORKER_RANK_H
#define SKALD_WORKER_RANK_H

#include "skald/collective.h"
#include "skald/train.h"
#include "worker/worker_state.h"

/* What a Ranks message says. */
typedef struct skald_rank_spec {
    uint8_t id[SKALD_COLLECTIVE_ID];
    uint32_t worker, size, shard_count;
    skald_member *members; /* size: names and devices */
    uint64_t *rows;        /* by shard */
    uint32_t *holder;      /* by shard */
    double nonzeros, L_max, start_loss;
    double *start;        /* NULL, or a class's each */
    double *column_mean2; /* newton, else NULL */
    bool dense, watched;
    skald_train_options options;
} skald_rank_spec;

/* Decodes and checks; SKALD_EPEER. NULL-safe to free. */
skald_status skald_rank_spec_read(const skald_worker *w, const Skald__V1__Ranks *m, skald_rank_spec **out);
void skald_rank_spec_free(skald_rank_spec *spec);

/* What a Regroup message says, all of it: who is lost since training began, who holds what. */
typedef struct skald_regroup_order {
    uint32_t round;
    bool go;                         /* id and holder are filled in; else: stop what is under way */
    uint8_t id[SKALD_COLLECTIVE_ID]; /* of the new group */
    uint32_t lost_count;
    uint32_t words[]; /* lost[lost_count], then holder[shard_count] */
} skald_regroup_order;
skald_status skald_regroup_order_read(const skald_worker *w, const Skald__V1__Regroup *m, skald_regroup_order **out);

/* Trains on that lane, and reports to the coordinator. Takes jobs from `jobs` from here on. Returns true if
 * SKALD_JOB_STOP was among them. Never fails: the coordinator is told. */
bool skald_rank_run(skald_worker *w, const skald_rank_spec *spec, uint32_t number, skald_lane *lane, skald_queue *jobs);

/* ---- between rank.c, rank_crew.c and rank_group.c ---------------------------------------------------------------- */

typedef struct skald_rank_ask {
    uint64_t ticket;
    skald_request_kind request;
} skald_rank_ask;

enum { SKALD_RANK_ASKS = 32, SKALD_RANK_SEEN = 256, SKALD_RANK_SLOT = 64 }; /* slot: doubles of the block, a task */

typedef struct skald_rank_clock {
    skald_clock clock; /* first */
    int64_t now_ns;    /* the first living rank's time, as of the last exchange */
} skald_rank_clock;

typedef struct skald_rank {
    skald_crew crew; /* first */
    skald_worker *w;
    uint32_t number; /* of the lane */
    skald_lane *lane;
    skald_queue *jobs;
    skald_collective *group;
    skald_problem problem;
    uint32_t me, size;
    skald_member *members;
    uint32_t *lists;  /* the members' shards, one list after the other */
    uint32_t *holder; /* by shard */
    bool *lost;       /* by member */
    bool losing;      /* a loss has been agreed on: no operations until the engine knows */
    bool begun;       /* the coordinator knows that training has begun */
    bool stopped;     /* SKALD_JOB_STOP came */
    bool alone;       /* the failure is this rank's own */
    skald_regroup_order *order;
    /* tasks given out and not exchanged, of all members; then their results */
    skald_task *tasks;
    uint32_t *owners;
    skald_result *results;
    uint32_t task_count, task_capacity, result_count, result_next;
    /* vectors are the runner's, on the card if they can be; those of own results, SKALD_MAX_POINTS a task, and those
     * that are free */
    skald_vectors *vectors;
    double **held, **spare;
    uint32_t spare_count;
    double *block;        /* what is exchanged */
    size_t *sample_bytes; /* by task: packed, of the rows that it has sampled */
    double *packed;       /* such rows; room for `packed_capacity` */
    size_t packed_capacity;
    /* the last operation, for a rank that missed its result */
    uint64_t done;
    skald_stretch kept[SKALD_MAX_POINTS];
    uint32_t kept_count;
    double *kept_block, *kept_vectors[SKALD_MAX_POINTS]; /* where they lie: on the host, on the device */
    size_t kept_capacity;
    /* time and flags */
    skald_rank_clock clock;
    int64_t heard_ns; /* this machine's clock when `clock` was set */
    int64_t idle_ns;  /* ... when this rank last had something to do */
    atomic_int stop_flag;
    bool stop_asked, audit_asked, audit_now;
    uint64_t audit_ticket;
    skald_rank_ask asks[SKALD_RANK_ASKS];
    uint32_t ask_count;
    /* for who looks at the coordinator's page */
    skald_task_seen seen[SKALD_RANK_SEEN];
    uint32_t seen_count;
    int64_t table_ns; /* this machine's clock at the last table */
} skald_rank;

extern const skald_crew_ops skald_rank_crew_ops;
extern const skald_ranks_ops skald_rank_ops;
/* Takes the jobs that are there, at most until an order to regroup (SKALD_ELOST); leases come after such an order only.
 */
skald_status skald_rank_take_jobs(skald_rank *r);
void skald_rank_leave(skald_rank *r); /* the group it is in, if any, whatever is under way */
/* Joins a group of the living. */
skald_status skald_rank_join(skald_rank *r, const uint8_t *id);
/* This rank has something to do itself, and does not wait: shows in its progress. It is so whenever no function of the
 * group is called, but for delays on purpose. */
void skald_rank_work(skald_rank *r);
void skald_rank_rest(skald_rank *r);
/* Adds up over all ranks. SKALD_AGAIN: ranks were lost, the stretches hold anything. */
skald_status skald_rank_combine(skald_rank *r, const skald_stretch *stretches, uint32_t count);
/* The same, but those of member `from`, who lives, go to everybody. */
skald_status skald_rank_hand_round(skald_rank *r, const skald_stretch *stretches, uint32_t count, uint32_t from);
bool skald_rank_leads(const skald_rank *r); /* the first living rank: it speaks for all */
/* All ranks come here before they leave, so that nobody leaves with a result that another still needs. */
skald_status skald_rank_barrier(skald_rank *r);
void skald_rank_report_begin(skald_rank *r);
/* Sorts shards into the members' lists by `holder`. */
void skald_rank_deal(skald_rank *r);

#endif
