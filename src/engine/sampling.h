/* Rows brought from their shards because the solver has asked for some (skald_work.sample_rows): each shard gives its
 * share, in tasks of a few megabytes, one at a time a shard. Owner thread. */
#ifndef SKALD_ENGINE_SAMPLING_H
#define SKALD_ENGINE_SAMPLING_H

#include "skald/crew.h"
#include "skald/engine.h"

typedef struct skald_sampling_piece {
    skald_rows rows;
    uint32_t shard;
    uint64_t position; /* in the shard's order of samples */
} skald_sampling_piece;

typedef struct skald_sampling {
    const skald_problem *problem;
    uint64_t wanted;              /* rows */
    uint64_t *came;               /* by shard: rows that are here */
    bool *asked;                  /* by shard: a task is out */
    uint32_t chunk;               /* rows a task */
    uint64_t here;                /* rows */
    skald_sampling_piece *pieces; /* not in `sample` yet */
    size_t piece_count, piece_room;
    uint32_t *shard, *row; /* of each row of the sample */
    skald_sample sample;
} skald_sampling;

skald_status skald_sampling_init(skald_sampling *s, const skald_problem *problem);
void skald_sampling_fini(skald_sampling *s); /* NULL-safe members */
/* No fewer than before. */
void skald_sampling_want(skald_sampling *s, uint64_t rows);
/* The member's next task of this kind; false: none. */
bool skald_sampling_task(skald_sampling *s, const skald_member *member, skald_task *task);
/* Takes the rows of a result; when all are here, s->sample is made of them. */
skald_status skald_sampling_add(skald_sampling *s, uint64_t position, skald_result *result);
/* The task's result will not come: it is asked for again. */
void skald_sampling_lost(skald_sampling *s, uint32_t shard);

#endif
