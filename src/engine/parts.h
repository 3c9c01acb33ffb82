/* Parts of shards (skald_task_part): at which model the history of each was last taken.
 *
 * With the gradient's history A_k goes the point it belongs to: wbar = sum over parts of (rows/n) model, the invariant
 * that an audit compares. Versions that some part is at are kept alive by a reference here. Owner thread. */
#ifndef SKALD_ENGINE_PARTS_H
#define SKALD_ENGINE_PARTS_H

#include "skald/engine.h"

#define SKALD_ALL_PARTS SKALD_SHARD_PARTS /* in place of a part: all of the shard's */

typedef struct skald_parts_item {
    skald_version *at; /* NULL: never taken, the history is 0 */
    double loss;       /* sum s_i phi_i over it, at `at`; of parts taken together each has a share of theirs */
    uint32_t rows;
    bool out;   /* a task of it is in flight: no other is given out, for they may be done in any order */
    bool stale; /* of a run that goes on: its history is at a model that nobody has any more, and not at `at` */
} skald_parts_item;

typedef struct skald_parts {
    uint32_t shards;
    uint64_t seed;
    double n;
    double seen;             /* rows of parts that are at some model */
    uint8_t *next;           /* by shard: the part whose turn it is */
    skald_parts_item *parts; /* shards x SKALD_SHARD_PARTS; NULL: this run has none */
    uint32_t stale, lost;    /* parts that are; that have ever been */
    skald_version **known;   /* a run that goes on: what parts may be at, by ascending number; references */
    uint32_t known_count, known_room;
} skald_parts;

skald_status skald_parts_init(skald_parts *p, const skald_problem *problem);
void skald_parts_fini(skald_parts *p); /* NULL-safe members */
static inline skald_parts_item *skald_parts_get(const skald_parts *p, uint32_t shard, uint32_t part) {
    return &p->parts[(size_t)shard * SKALD_SHARD_PARTS + part];
}
/* The part whose turn it is, of those that are not out, nor at `version` already (NULL: whatever they are at), and
 * while any parts are stale of these; SKALD_ALL_PARTS: there is none. */
uint32_t skald_parts_next(const skald_parts *p, uint32_t shard, const skald_version *version);
/* It was handed out, and the one after it has its turn. Landed: that task is done or lost. */
void skald_parts_take(skald_parts *p, uint32_t shard, uint32_t part);
void skald_parts_landed(skald_parts *p, uint32_t shard, uint32_t part);
/* The history of a part, or of SKALD_ALL_PARTS, is at `version` from now on. change += (rows/n) (version - what they
 * were at before), in the memory of v. Returns the rows that were at another one. *loss: sum s_i
 * phi_i at `version`, in over all of those rows, out over the ones that were at another. */
double skald_parts_taken(skald_parts *p, skald_vectors *v, uint32_t shard, uint32_t part, skald_version *version,
                         double *change, double *loss);
/* The histories are there still, but it is not known at what. */
void skald_parts_forget(skald_parts *p);
const skald_version *skald_parts_at(const skald_parts *p, uint32_t shard, uint64_t row); /* NULL: none yet */
/* When the oldest of the versions was published (commits); 0 before every part is at one. */
uint64_t skald_parts_oldest(const skald_parts *p);
/* Rows of a shard that are at some model. */
uint64_t skald_parts_seen(const skald_parts *p, uint32_t shard);
/* mean += sum over the shard's parts of factor x rows x model. Host memory. */
void skald_parts_add(const skald_parts *p, uint32_t shard, double factor, uint32_t dim, double *mean);
/* The rows whose history is at `version` (NULL: none), and their loss. */
skald_fresh skald_parts_fresh(const skald_parts *p, const skald_version *version);

/* ---- a run that goes on ---------------------------------------------------------------------------- */

/* Parts may be at `version`, whose reference is taken over: numbers ascend, one that does not is not taken. */
skald_status skald_parts_know(skald_parts *p, skald_version *version);
skald_version *skald_parts_known(const skald_parts *p, uint64_t number); /* NULL: nobody has it */
/* As the checkpoint has them, before anything was taken. Its number has to be known, or 0. */
void skald_parts_resume(skald_parts *p, uint32_t shard, uint32_t part, skald_part_taken at);
/* As the shard's holder has them: those at what is not known are stale from now on. change: as above. */
void skald_parts_recall(skald_parts *p, skald_vectors *v, uint32_t shard, const skald_part_taken *told, double *change);
/* Are the parts where their holder has them, as far as either knows? For an audit. */
bool skald_parts_agree(const skald_parts *p, uint32_t shard, const skald_part_taken *told);
/* All is put right: versions that no part is at are let go. */
void skald_parts_settled(skald_parts *p);

#endif
