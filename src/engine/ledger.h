/* The ledger of shards: who holds which, how far its draws have come, its part of the anchor. */
#ifndef SKALD_ENGINE_LEDGER_H
#define SKALD_ENGINE_LEDGER_H

#include "skald/crew.h"

typedef struct skald_ledger_entry {
    uint64_t rows;
    uint64_t position; /* rows drawn so far */
    uint64_t visits;   /* results merged */
    double mass;       /* step mass: sum of the steps its results were applied with */
    double *anchor;    /* A_k = sum s_i alpha_i x_i as of the last merged result; NULL without history */
    uint32_t busy;     /* tasks on it in flight */
    bool suspect;      /* a result was refused: its anchor has to be recomputed */
    bool refresh;      /* after a rollback: its history is to be retaken at the good model, with no step */
    bool rebuild;      /* its table is empty: a SAGA task over all rows replaces A_k */
    uint64_t oldest;   /* history by version: the oldest that a row is at; 0: none yet, or another history */
    uint64_t before;   /* rows at older versions than that are to be taken anew; 0: none are */
    bool rests;        /* by parts: nothing of it is to be taken before a result comes or the model moves */
    bool audit;        /* an anchor is to be compared because somebody asked */
} skald_ledger_entry;

typedef struct skald_ledger {
    uint32_t count, dim; /* dim: entries of an anchor */
    double n, mass;
    uint64_t steps; /* that the mass is the sum of */
    skald_ledger_entry *entries;
    double *anchors; /* count x dim */
    /* A copy being made, a shard at a time; what has not been copied yet is before it changes. */
    double *copy; /* count x dim, the caller's; NULL: none */
    bool *copied;
    uint32_t copies; /* shards that have been */
} skald_ledger;

skald_status skald_ledger_init(skald_ledger *ledger, const skald_problem *problem, bool history);
void skald_ledger_fini(skald_ledger *ledger);

/* Of the member's shards with fewer than `depth` tasks in flight, the one with the fewest, and of those the one
 * whose draws have come least far (ties: first in its list); UINT32_MAX when there is none. A shard that is to
 * be refreshed, rebuilt, repaired or audited first comes to rest; one of the first two then goes before others. One
 * that rests is not picked. */
uint32_t skald_ledger_pick(const skald_ledger *ledger, const skald_member *member, uint32_t depth);

/* Is A_k anything but 0, the sum of an empty table? It says so itself: results are counted from the checkpoint on, and
 * tables that lived on, or shards dealt anew, have an A_k before their first. */
bool skald_ledger_begun(const skald_ledger *ledger, uint32_t shard);
/* A_k += D, if anchors are kept. */
void skald_ledger_merge(skald_ledger *ledger, uint32_t shard, const double *history);
/* change += A - A_k, A_k = A: a rebuilt table's sum takes the place of the lost one's, which was kept till now. */
void skald_ledger_replace(skald_ledger *ledger, uint32_t shard, const double *anchor, double *change);

bool skald_ledger_incomplete(const skald_ledger *ledger); /* is there a shard whose A_k is to be put right? */
/* Begins a copy of all anchors as they are now; each further call of skald_ledger_copy does at least `shards` more of
 * them, and is true when all are in `to`. Nothing to copy: true at once. */
void skald_ledger_copy_begin(skald_ledger *ledger, double *to);
bool skald_ledger_copy(skald_ledger *ledger, uint32_t shards);

/* q_k = (n_k/n) / (the shard's share of the step mass), at most `cap`: what keeps SGD unbiased under
 * uneven speeds. A prior of one mean step a shard tempers the first visits, and fades. */
double skald_ledger_bias(const skald_ledger *ledger, uint32_t shard, double cap);
void skald_ledger_add_mass(skald_ledger *ledger, uint32_t shard, double step);

#endif
