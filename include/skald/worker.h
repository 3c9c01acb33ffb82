/* A worker: joins a coordinator, scans and loads its share of the data, runs tasks, sends results. */
#ifndef SKALD_WORKER_H
#define SKALD_WORKER_H

#include <stdatomic.h>

#include "skald/collective.h"
#include "skald/crew.h"
#include "skald/net.h"

#define SKALD_PROTOCOL 7u

typedef struct skald_worker_options {
    const char *address;           /* "host:port" or "unix:/path" */
    const char *data_path;         /* NULL: the path the coordinator names */
    const char *name;              /* NULL: host:pid */
    skald_compute_options compute; /* threads = slots: one chain of tasks each */
    int64_t wait_ns;               /* how long to wait for the coordinator */
    int64_t leave_ns;              /* told to stop: how long for others to take over its rows; 0: it goes at once */
    skald_net_options net;
    int64_t repeat_ns;                      /* what is unanswered is sent again after this; 0: 5 s */
    const skald_collective_ops *collective; /* what makes it a rank of synchronous runs; NULL: nothing */
    uint32_t collective_device;             /* the card it computes on */
    int pace_ms;           /* training tasks take at least that long, by waiting; 0: as the coordinator says */
    const char *straggler; /* models of slow workers to play (src/base/straggler.h); NULL: as the coordinator says */
    void (*notice)(void *user, const char *text); /* one line a stage, for the log; may be NULL */
    void *user;
} skald_worker_options;

/* Runs until the coordinator says goodbye (SKALD_OK), *stop_flag becomes non-zero (SKALD_INTERRUPTED), or
 * something fails (SKALD_EREFUSED, SKALD_ELOST, SKALD_EUNAVAILABLE, ...). Blocks. */
skald_status skald_worker_run(const skald_net_ops *net, const skald_worker_options *options,
                              const atomic_int *stop_flag);

/* The local crew: this process computes, one task at a time, in order. The sequential reference. */
skald_status skald_crew_local_open(const skald_data_options *data, const skald_objective *objective,
                                   const skald_compute_options *compute, skald_crew **out);

#endif
