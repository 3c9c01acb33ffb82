/* The coordinator: lets workers in, has the data scanned, leases shards, and is the remote crew. */
#ifndef SKALD_COORDINATOR_H
#define SKALD_COORDINATOR_H

#include <stdatomic.h>

#include "skald/clock.h"
#include "skald/crew.h"
#include "skald/net.h"

typedef struct skald_coordinator skald_coordinator;

/* What becomes of a lost worker's rows: the others have them at once; they wait for a worker to join; the run ends. */
typedef enum skald_on_loss { SKALD_LOSS_REASSIGN = 0, SKALD_LOSS_WAIT, SKALD_LOSS_STOP } skald_on_loss;

typedef struct skald_coordinator_options {
    const char *address; /* where to listen: "127.0.0.1:0", "unix:/path", ... */
    uint32_t workers;    /* how many to wait for before the data are dealt; >= 1 */
    uint32_t most;       /* how many there can be at a time, those that join later too; 0: 2 workers, or workers + 8 */
    int64_t wait_ns;     /* how long to wait for them; 0: for ever */
    skald_data_options data;
    skald_objective objective;
    skald_net_options net;
    skald_clock *clock;
    const char *run;              /* run id; NULL: made up */
    uint64_t version_budget;      /* bytes of versions a worker keeps; 0: skald_shelf_budget */
    int64_t heartbeat_timeout_ns; /* silence after which a worker counts as dead; 0: 30 s */
    int64_t reconnect_grace_ns;   /* how long a worker whose connection broke is waited for; 0: not at all within this
                                   * machine, where a broken connection is a dead process, else 10 s; < 0: not at all */
    int64_t overdue_ns; /* a worker is lost whose task computes for longer than this, and than 20 times what 95% of
                         * its like take; 0: 30 s */
    int64_t alone_ns;   /* how long to go on when the last worker is lost; 0: not at all, < 0: for ever */
    skald_on_loss on_loss;
    uint32_t term;           /* starts of that run, this one counted; 0: 1 */
    const uint8_t *manifest; /* of an earlier start, packed: the data are not scanned again */
    size_t manifest_bytes;
    uint64_t commits; /* of the model at the end of that start: workers may have newer ones */
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
 * crew is ready ends it (SKALD_ELOST) if it said why, or nobody is waited for (alone_ns 0). */
skald_status skald_coordinator_gather(skald_coordinator *coordinator, const atomic_int *stop_flag, skald_crew **crew);
/* Says goodbye to the workers with code and reason: they end, and so does who comes after. Requests still arrive as the
 * crew's events. Once; owner thread. */
void skald_coordinator_dismiss(skald_coordinator *coordinator, skald_status code, const char *reason);
/* Dismisses who is still there, and frees everything, the crew included. */
void skald_coordinator_close(skald_coordinator *coordinator, skald_status code, const char *reason);

#endif
