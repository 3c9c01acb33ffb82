/* The coordinator's part of a synchronous run of ranks; private to src/coordinator. One owner thread.
 *
 *   conduct.c          who may, the run, losses
 *   conduct_send.c     messages to ranks
 *   conduct_reports.c  what ranks report, and their answers to those who ask */
#ifndef SKALD_COORDINATOR_CONDUCT_H
#define SKALD_COORDINATOR_CONDUCT_H

#include "coordinator/state.h"
#include "skald/train.h"

enum { SKALD_CONDUCT_TICKETS = 64 };

typedef struct skald_conduct_ticket {
    skald_net_call *call; /* NULL: free */
    skald_request_kind request;
    uint64_t id;
} skald_conduct_ticket;

typedef struct skald_conduct {
    skald_coordinator *c;
    const skald_train_options *options;
    const skald_observer *observer;
    skald_outcome *outcome;
    bool over;
    skald_status status; /* once over */
    char error[600];
    char mode[400]; /* to be told once L is known, which the run log's first line has */
    uint8_t id[SKALD_COLLECTIVE_ID];
    bool named, naming;      /* id is the next group's; the leader has been asked for it */
    bool begun;              /* ranks know who they are */
    uint32_t leader;         /* the first living rank */
    uint32_t *holder;        /* by shard */
    bool *lost;              /* by worker: dealt with */
    uint32_t round, loading; /* leases of the lost that are under way */
    bool regrouping, stop_sent;
    int64_t fault_ns; /* a rank complained then, and nobody is known to be lost; 0: not */
    uint32_t alarms;  /* complaints without a loss since the last evaluation */
    char fault[300];
    skald_conduct_ticket tickets[SKALD_CONDUCT_TICKETS];
    uint64_t next_ticket;
} skald_conduct;

static inline skald_session_state *skald_conduct_worker(const skald_conduct *x, uint32_t k) {
    return &x->c->workers[k];
}
void skald_conduct_notice(skald_conduct *x, const char *text);
void skald_conduct_end(skald_conduct *x, skald_status st, const char *error); /* the first one counts */

/* conduct_send.c: everybody learns who is who, and training begins; the first living rank is asked to name a group, or
 * for something (ticket NULL: nothing is to be answered) or to stop; everybody is told who is lost, and (go) how to go
 * on. */
skald_status skald_conduct_send_ranks(skald_conduct *x);
void skald_conduct_send_meeting(skald_conduct *x);
void skald_conduct_send_ask(skald_conduct *x, const skald_conduct_ticket *ticket, bool stop);
skald_status skald_conduct_send_regroup(skald_conduct *x, bool go);

/* conduct_reports.c: what came from a rank. Done: may end the run. */
void skald_conduct_report(skald_conduct *x, const Skald__V1__Report *m);
skald_status skald_conduct_done(skald_conduct *x, skald_session_state *from, const Skald__V1__Done *m);
void skald_conduct_answer(skald_conduct *x, const Skald__V1__Answer *m);

#endif
