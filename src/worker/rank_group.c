/* A rank's group: operations over all ranks, what comes from the coordinator meanwhile, and how the ranks that live
 * find together again after a loss. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "worker/rank.h"

/* ---- jobs from the control thread ------------------------------------------------------------------ */

static void on_ask(skald_rank *r, const skald_job *job) {
    r->stop_asked |= job->interrupt;
    if (!job->ticket) return;
    if (job->request == SKALD_REQUEST_AUDIT && !r->audit_ticket) {
        r->audit_asked = true; /* rides in the next exchange */
        r->audit_ticket = job->ticket;
    } else if (r->ask_count < SKALD_RANK_ASKS) {
        r->asks[r->ask_count++] = (skald_rank_ask){job->ticket, (skald_request_kind)job->request};
    }
}

/* The latest order counts. */
static void on_regroup(skald_rank *r, skald_job *job) {
    free(r->order);
    r->order = job->order;
    job->order = NULL;
}

skald_status skald_rank_take_jobs(skald_rank *r) {
    skald_job job;
    while (!r->stopped && !r->order && skald_queue_pop(r->jobs, &job, 0) == SKALD_OK) {
        if (job.kind == SKALD_JOB_STOP) r->stopped = true;
        if (job.kind == SKALD_JOB_ASK) on_ask(r, &job);
        if (job.kind == SKALD_JOB_REGROUP) on_regroup(r, &job);
        skald_job_drop(&job);
    }
    if (r->stopped) return skald_fail(SKALD_INTERRUPTED, "the run is over");
    return r->order ? skald_fail(SKALD_ELOST, "the coordinator has lost a rank") : SKALD_OK;
}

static skald_status waiting(void *rank) {
    return skald_rank_take_jobs(rank);
}

/* Vectors' steps take less than a task. */
void skald_rank_work(skald_rank *r) {
    skald_busy_begin(&r->w->busy, r->number, 0);
}

void skald_rank_rest(skald_rank *r) {
    skald_busy_end(&r->w->busy, r->number, false);
}

enum { ALL = UINT32_MAX }; /* in place of a root: the sum of all */

static skald_status operate(skald_rank *r, const skald_stretch *stretches, uint32_t count, uint32_t root) {
    const skald_collective_ops *ops = r->group->ops;
    skald_rank_rest(r);
    const skald_status st =
        root == ALL ? ops->sum(r->group, stretches, count) : ops->broadcast(r->group, stretches, count, root);
    skald_rank_work(r);
    return st;
}

/* ---- losses ---------------------------------------------------------------------------------------- */

/* Until the coordinator says how to go on; rows of the lost are loaded meanwhile. */
static skald_status await_order(skald_rank *r) {
    while (!(r->order && r->order->go)) {
        skald_job job;
        skald_status st = skald_queue_pop(r->jobs, &job, -1);
        if (st != SKALD_OK) return st;
        if (job.kind == SKALD_JOB_STOP) r->stopped = true;
        if (job.kind == SKALD_JOB_ASK) on_ask(r, &job);
        if (job.kind == SKALD_JOB_REGROUP) on_regroup(r, &job);
        if (job.kind == SKALD_JOB_LEASE) skald_worker_lease(r->w, &job);
        skald_job_drop(&job);
        if (r->stopped) return skald_fail(SKALD_INTERRUPTED, "the run is over");
    }
    return SKALD_OK;
}

static size_t on_host(const skald_stretch *stretches, uint32_t count) {
    size_t total = 0;
    for (uint32_t s = 0; s < count; s++) total += stretches[s].on_device ? 0 : stretches[s].count;
    return total;
}

/* Stretches on the device are vectors. */
static void keep(skald_rank *r, const skald_stretch *stretches, uint32_t count) {
    skald_vectors *v = r->vectors;
    double *to = r->kept_block;
    for (uint32_t k = 0; k < r->size; k++)
        for (uint32_t s = 0; s < count && !r->lost[k]; s++)
            r->members[k].bytes_summed += stretches[s].count * sizeof(double);
    r->kept_count = count;
    for (uint32_t s = 0; s < count; s++) {
        r->kept[s] = stretches[s];
        r->kept[s].data = stretches[s].on_device ? r->kept_vectors[s] : to;
        if (stretches[s].on_device) {
            v->ops->copy(v, r->kept[s].data, stretches[s].data);
            continue;
        }
        memcpy(to, stretches[s].data, stretches[s].count * sizeof *to);
        to += stretches[s].count;
    }
    r->done++;
}

/* The first operation of a new group: who has done how many? Who is behind gets the result it missed into
 * `stretches`. */
static skald_status compare(skald_rank *r, const skald_stretch *stretches, uint32_t count, bool *late) {
    double *counts = r->block;
    memset(counts, 0, r->size * sizeof *counts);
    counts[r->me] = (double)r->done + 1;
    const skald_stretch all = {counts, r->size, false};
    TRY(operate(r, &all, 1, ALL));
    double most = 0, least = INFINITY;
    uint32_t root = 0, rank = 0;
    for (uint32_t k = 0; k < r->size; k++) {
        if (counts[k] <= 0) continue;
        if (counts[k] > most) most = counts[k], root = rank;
        least = fmin(least, counts[k]);
        rank++;
    }
    if (most - least > 1) return skald_fail(SKALD_EINTERNAL, "ranks have lost step with each other");
    if (most <= least) return SKALD_OK;
    if (counts[r->me] < most) {
        TRY(operate(r, stretches, count, root));
        keep(r, stretches, count);
        *late = true;
        return SKALD_OK;
    }
    return operate(r, r->kept, r->kept_count, root);
}

void skald_rank_leave(skald_rank *r) {
    if (r->group) r->group->ops->close(r->group);
    r->group = NULL;
}

skald_status skald_rank_join(skald_rank *r, const uint8_t *id) {
    skald_collective_options options = {
        .device = r->w->options->collective_device, .queue = r->vectors->queue, .waiting = waiting, .user = r};
    for (uint32_t k = 0; k < r->size; k++) {
        options.rank += k < r->me && !r->lost[k];
        options.size += !r->lost[k];
    }
    skald_rank_rest(r);
    const skald_status st = r->w->options->collective->open(id, &options, &r->group);
    skald_rank_work(r);
    return st;
}

/* One try to go on as ordered. */
static skald_status follow_order(skald_rank *r, const skald_stretch *stretches, uint32_t count, bool *late) {
    skald_regroup_order *order = r->order;
    uint8_t id[SKALD_COLLECTIVE_ID];
    r->order = NULL; /* a newer one interrupts what follows */
    const uint32_t *holder = order->words + order->lost_count;
    bool sane = true;
    for (uint32_t i = 0; i < order->lost_count; i++) {
        const uint32_t k = order->words[i];
        if (k < r->size && k != r->me)
            r->lost[k] = true;
        else
            sane = false;
    }
    for (uint32_t s = 0; s < r->problem.shard_count; s++) {
        sane &= holder[s] < r->size && (holder[s] == r->me) == (r->w->runner.shards[s] != NULL);
        r->holder[s] = holder[s];
    }
    memcpy(id, order->id, sizeof id);
    free(order);
    if (!sane) return skald_fail(SKALD_EPEER, "a message about lost ranks that makes no sense");
    TRY(skald_rank_join(r, id));
    return compare(r, stretches, count, late);
}

static void complain(skald_rank *r) {
    Skald__V1__Frame frame = SKALD__V1__FRAME__INIT;
    Skald__V1__Fault fault = SKALD__V1__FAULT__INIT;
    fault.error = (char *)skald_error();
    frame.body_case = SKALD__V1__FRAME__BODY_FAULT;
    frame.fault = &fault;
    skald_worker_send(r->w, &frame, NULL, 0);
}

/* An operation failed. Goes on with the ranks that live, in a new group; *late: it had succeeded elsewhere, and its
 * result is in `stretches` now. */
static skald_status recover(skald_rank *r, const skald_stretch *stretches, uint32_t count, bool *late) {
    skald_status st;
    do {
        if (!r->order) complain(r); /* the coordinator does not know */
        skald_rank_leave(r);        /* first of all: what hangs on the card would hold up the loading of rows */
        skald_rank_rest(r);
        st = await_order(r);
        skald_rank_work(r);
        TRY(st);
        st = follow_order(r, stretches, count, late);
    } while (st == SKALD_ELOST);
    TRY(st);
    r->losing = true;
    return SKALD_OK;
}

/* Room for what keep() copies; what is kept until then stays. */
static skald_status make_room(skald_rank *r, size_t total) {
    if (total <= r->kept_capacity) return SKALD_OK;
    double *grown = skald_alloc(total, sizeof *grown);
    if (!grown) return SKALD_ENOMEM;
    if (r->kept_block) memcpy(grown, r->kept_block, r->kept_capacity * sizeof *grown);
    for (uint32_t s = 0; s < r->kept_count; s++)
        if (!r->kept[s].on_device) r->kept[s].data = grown + (r->kept[s].data - r->kept_block);
    free(r->kept_block);
    r->kept_block = grown;
    r->kept_capacity = total;
    return SKALD_OK;
}

static skald_status together(skald_rank *r, const skald_stretch *stretches, uint32_t count, uint32_t root) {
    if (r->losing) return SKALD_AGAIN;
    TRY(make_room(r, on_host(stretches, count)));
    skald_status st = skald_rank_take_jobs(r);
    if (st == SKALD_OK) st = operate(r, stretches, count, root);
    if (st == SKALD_OK) {
        keep(r, stretches, count);
        return SKALD_OK;
    }
    bool late = false;
    if (st == SKALD_ELOST) {
        st = recover(r, stretches, count, &late);
        if (st == SKALD_OK) return late ? SKALD_OK : SKALD_AGAIN;
    }
    r->alone = true;
    skald_rank_leave(r); /* what hangs on the card would hold up whoever frees vectors */
    return st;
}

skald_status skald_rank_combine(skald_rank *r, const skald_stretch *stretches, uint32_t count) {
    return together(r, stretches, count, ALL);
}

skald_status skald_rank_hand_round(skald_rank *r, const skald_stretch *stretches, uint32_t count, uint32_t from) {
    uint32_t root = 0;
    for (uint32_t k = 0; k < from; k++) root += !r->lost[k];
    return together(r, stretches, count, root);
}

static skald_status reduce(skald_crew *crew, double *const *vectors, uint32_t count) {
    skald_rank *r = (skald_rank *)crew;
    skald_stretch stretches[SKALD_MAX_POINTS];
    for (uint32_t k = 0; k < count; k++)
        stretches[k] = (skald_stretch){vectors[k], r->vectors->dim, r->vectors->on_device};
    return skald_rank_combine(r, stretches, count);
}

static bool decides(const skald_crew *crew) {
    return skald_rank_leads((const skald_rank *)crew);
}

static skald_status agree(skald_crew *crew, double *vector, double *numbers, uint32_t count) {
    skald_rank *r = (skald_rank *)crew;
    uint32_t first = 0;
    while (r->lost[first]) first++;
    const skald_stretch stretches[] = {{numbers, count, false}, {vector, r->vectors->dim, r->vectors->on_device}};
    return skald_rank_hand_round(r, stretches, vector ? 2 : 1, first);
}

static void aside(skald_crew *crew, bool begins) {
    (begins ? skald_rank_rest : skald_rank_work)((skald_rank *)crew);
}

skald_status skald_rank_barrier(skald_rank *r) {
    r->losing = false;
    r->block[0] = 0;
    const skald_stretch one = {r->block, 1, false};
    skald_status st = skald_rank_combine(r, &one, 1);
    return st == SKALD_AGAIN ? SKALD_OK : st;
}

const skald_ranks_ops skald_rank_ops = {reduce, decides, agree, aside};
