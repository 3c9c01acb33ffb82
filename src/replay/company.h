/* A company: the members of a crew, all in this process. A task is computed the moment it is handed out, with the
 * bits it would have had at its worker; when its result arrives is up to the crew made of the company (a replay: as
 * recorded; a simulation: by a queue of events).
 *
 * It is sound because nothing a worker computes depends on when: a task reads its model and what earlier tasks of the
 * same lane left behind, and those were handed out earlier. Owner thread only. */
#ifndef SKALD_REPLAY_COMPANY_H
#define SKALD_REPLAY_COMPANY_H

#include "skald/crew.h"
#include "worker/chain.h"
#include "worker/local_data.h"

typedef struct skald_company skald_company;

/* members: names, devices, slots, depths and shards, copied; together they hold each shard of data->problem once.
 * floats: vectors of local tasks are rounded as on the wire. Takes over *data, also on error. SKALD_ENOMEM. */
skald_status skald_company_make(skald_local_data *data, const skald_member *members, uint32_t count, bool floats,
                                skald_company **out);
void skald_company_free(skald_company *company); /* NULL-safe */

skald_problem *skald_company_problem(skald_company *company);
uint32_t skald_company_size(const skald_company *company);
skald_member *skald_company_member(const skald_company *company, uint32_t worker);

/* The shard is another member's from here on, with no history. */
skald_status skald_company_move(skald_company *company, uint32_t shard, uint32_t to);

/* Computes; a failure of the task is in the result. Give the result back with skald_company_release. */
skald_status skald_company_run(skald_company *company, uint32_t worker, const skald_task *task, skald_result **out);
void skald_company_release(skald_company *company, skald_result *result);

/* Deals shards as a coordinator does: one for everybody first, the rest in proportion to the slots. Fills shards and
 * shard_count of `count` members; the caller frees members[k].shards. */
skald_status skald_company_deal(uint32_t shards, skald_member *members, uint32_t count);

#endif
