/* The coordinator: lets workers in, has the data scanned, leases shards, and is the remote crew. */
#ifndef SKALD_COORDINATOR_H
#define SKALD_COORDINATOR_H

#include <stdatomic.h>

#include "skald/clock.h"
#include "skald/crew.h"
#include "skald/net.h"

typedef struct skald_coordinator skald_coordinator;

typedef struct skald_coordinator_options {
    const char *address; /* where to listen: "127.0.0.1:0", "unix:/path", ... */
    uint32_t workers;    /* how many to wait for before the data are dealt; >= 1 */
    int64_t wait_ns;     /* how long to wait for them; 0: for ever */
    skald_data_options data;
    skald_objective objective;
    skald_net_options net;
    skald_clock *clock;
    const char *run;              /* run id; NULL: made up */
    uint64_t version_budget;      /* bytes of versions a worker keeps; 0: skald_shelf_budget */
    int64_t heartbeat_timeout_ns; /* silence after which a worker counts as dead; 0: 30 s */
    uint32_t
        offences; /* so many of a peer within `refuse_ns` (frames that are none, others' names), and it is refused */
    int64_t refuse_ns;                            /* ... for so long. 0: 5 within a minute */
    int64_t repeat_ns;                            /* what is unanswered is sent again after this; 0: 5 s */
    const char *straggler;                        /* models of slow workers, for them to play; NULL: none */
    int pace_ms;                                  /* training tasks take at least that long, by waiting */
    void (*notice)(void *user, const char *text); /* one line a stage; may be NULL */
    void *user;
} skald_coordinator_options;

/* Starts listening; returns at once. *port receives the bound port (0 for unix sockets). The options'
 * pointers must outlive the coordinator. */
skald_status skald_coordinator_listen(const skald_net_ops *net, const skald_coordinator_options *options,
                                      skald_coordinator **out, int *port);
/* Waits for the workers, merges the manifest, leases and loads the shards; then the crew is ready. Blocks.
 * On failure the workers have been told. *stop_flag non-zero: SKALD_INTERRUPTED. A worker lost before the
 * crew is ready ends it (SKALD_ELOST). */
skald_status skald_coordinator_gather(skald_coordinator *coordinator, const atomic_int *stop_flag, skald_crew **crew);
/* Says goodbye with code and reason and frees everything, the crew included. */
void skald_coordinator_close(skald_coordinator *coordinator, skald_status code, const char *reason);

#endif
