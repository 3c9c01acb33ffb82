/* A company: the members of a crew, all in this process. A task is computed the moment it is handed out, with the
 * bits it would have had at its worker; when its result arrives is up to the crew made of the company (a replay: as
 * recorded; a simulation: by a queue of events).
 *
 * It is sound because nothing a worker computes depends on when: a task reads its model and what earlier tasks of the
 * same lane left behind, and those were handed out earlier. Owner thread only. */
#ifndef SKALD_REPLAY_COMPANY_H
#define SKALD_REPLAY_COMPANY_H

#include "skald/clock.h"
#include "skald/crew.h"
#include "worker/chain.h"
#include "worker/local_data.h"

typedef struct skald_company skald_company;

/* members: names, devices, slots, depths and shards, copied; together they hold each shard of data->problem once.
 * most: members there can be at a time, `count` or more. floats: vectors of local tasks are rounded as on the wire.
 * Takes over *data, also on error. SKALD_ENOMEM. */
skald_status skald_company_make(skald_local_data *data, const skald_member *members, uint32_t count, uint32_t most,
                                bool floats, skald_company **out);
void skald_company_free(skald_company *company); /* NULL-safe */

skald_problem *skald_company_problem(skald_company *company);
uint32_t skald_company_size(const skald_company *company); /* numbers given out, those of the lost among them */
skald_member *skald_company_member(const skald_company *company, uint32_t worker);

/* Members come and go, as a crew tells it (skald/crew.h): call these as the event is handed out. What does not fit
 * (a worker that is not there, a shard that is another's) is SKALD_EDATA, with what is wrong. */
skald_status skald_company_join(skald_company *company, uint32_t worker, const skald_member *member); /* no shards */
skald_status skald_company_lose(skald_company *company, uint32_t worker);
skald_status skald_company_withdraw(skald_company *company, uint32_t worker, uint32_t shard);
/* With no history, whatever was left behind. */
skald_status skald_company_lease(skald_company *company, uint32_t worker, uint32_t shard);
/* The first shard that nobody has; UINT32_MAX: there is none. */
uint32_t skald_company_unheld(const skald_company *company);
/* Who is there with the fewest rows; UINT32_MAX: nobody is. */
uint32_t skald_company_heir(const skald_company *company);

/* Which lane of its holder, as many as that has slots, computes a shard's tasks, one after the other. */
uint32_t skald_company_lane(const skald_company *company, uint32_t shard);
/* Computes; a failure of the task is in the result. Give the result back with skald_company_release. */
skald_status skald_company_run(skald_company *company, uint32_t worker, const skald_task *task, skald_result **out);
void skald_company_release(skald_company *company, skald_result *result);

/* What crews made of a company have in common: the first member of each. They add `submit` and `next`, in a table of
 * their own with the functions below. Nobody asks them for anything, and they are not told of the end. */
typedef struct skald_company_crew {
    skald_crew crew;
    skald_clock clock; /* stands at now_ns */
    int64_t now_ns;
    skald_company *company; /* NULL until there is one; freed by who holds the crew */
} skald_company_crew;

uint32_t skald_company_crew_size(const skald_crew *crew);
const skald_member *skald_company_crew_member(const skald_crew *crew, uint32_t worker);
void skald_company_crew_release(skald_crew *crew, skald_result *result);
void skald_company_crew_answer(skald_crew *crew, void *asker, const char *json, skald_version *model);
void skald_company_crew_destroy(skald_crew *crew, skald_status code, const char *reason);
int64_t skald_company_crew_now(skald_clock *clock);

/* Deals shards as a coordinator does: one for everybody first, the rest in proportion to the slots. Fills shards and
 * shard_count of `count` members; the caller frees members[k].shards. */
skald_status skald_company_deal(uint32_t shards, skald_member *members, uint32_t count);

#endif
