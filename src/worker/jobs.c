/* What the lanes do: setup (setup.c), and tasks. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/base.h"
#include "worker/rank.h"
#include "worker/worker_state.h"

static skald_clock *system_clock(void) {
    return skald_clock_system();
}

typedef struct skald_worker_lane {
    skald_worker *worker;
    pthread_t thread;
    skald_queue *jobs;
    skald_queue *later; /* jobs that came while a result was held back */
    skald_lane lane;
    skald_chain chain;
} skald_worker_lane;

int64_t skald_worker_pace(skald_worker *w, const skald_task *t, int64_t start_ns) {
    if (!skald_task_trains(t->kind)) return 0;
    const int64_t now = skald_now_ns(system_clock()), until = skald_straggle_until(w, start_ns, now);
    struct timespec when = {until / SKALD_NS_PER_S, until % SKALD_NS_PER_S};
    while (until > 0 && clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &when, NULL) != 0) {
    }
    return until > now ? until - now : 0;
}

double skald_worker_rows(const skald_worker *w, const skald_task *t) {
    const skald_runner *r = &w->runner;
    const double times = t->points > 1 ? t->points : 1;
    if (skald_task_trains(t->kind) && !t->before) return t->rows;
    double rows = 0;
    for (uint32_t k = 0; k < r->shard_count; k++)
        if (r->shards[k] && (t->shard == k || t->shard == SKALD_ALL_SHARDS)) rows += (double)r->shards[k]->facts.rows;
    return rows * times;
}

/* Sampled rows as the bytes that travel. */
static skald_bytes *pack_sample(skald_result *r) {
    skald_bytes *bytes = skald_bytes_create(skald_rows_packed_size(&r->sample));
    if (bytes) {
        skald_rows_pack(&r->sample, skald_bytes_data(bytes));
    } else {
        r->status = SKALD_ENOMEM;
        snprintf(r->error, sizeof r->error, "%s", skald_error());
    }
    skald_rows_free(&r->sample);
    return bytes;
}

/* A task that has been computed and whose result is still to be sent. */
typedef struct computed {
    skald_result result;
    skald_bytes *bytes;
    bool narrow;
    uint64_t version;
    int64_t start_ns;
} computed;

static computed compute(skald_worker_lane *lane, skald_job *job, int64_t idle_since_ns) {
    skald_worker *w = lane->worker;
    skald_task *t = &job->task;
    atomic_fetch_sub(&w->waiting, 1);
    int64_t start_ns = skald_now_ns(system_clock());
    skald_result r = {.came_ns = job->arrived_ns};
    uint32_t count = skald_task_vectors(t);
    skald_bytes *bytes = count ? skald_pool_get(w->vectors) : NULL;
    for (uint32_t k = 0; bytes && k < count; k++)
        r.vectors[k] = (double *)(void *)skald_bytes_data(bytes) + (size_t)k * w->runner.dim;
    if (count && !bytes) {
        r.task = t->id;
        r.kind = t->kind;
        r.shard = t->shard;
        r.status = SKALD_ENOMEM;
        snprintf(r.error, sizeof r.error, "%s", skald_error());
    } else {
        const uint32_t number = (uint32_t)(lane - w->lanes);
        skald_busy_begin(&w->busy, number, skald_worker_rows(w, t));
        skald_chain_run(&lane->chain, &w->runner, &lane->lane, t, bytes, &r);
        skald_busy_end(&w->busy, number, skald_task_trains(t->kind) && r.status == SKALD_OK);
    }
    r.wait_ns = start_ns - (idle_since_ns > job->arrived_ns ? start_ns : idle_since_ns);
    r.receive_ns = start_ns - job->arrived_ns;
    uint64_t version = t->model ? t->model->id : 0;
    skald_task_unref(t);
    skald_bytes *narrow = NULL;
    if (t->kind == SKALD_TASK_LOCAL && r.status == SKALD_OK && (narrow = skald_worker_narrow(w, &r))) {
        skald_bytes_unref(bytes);
        bytes = narrow;
    }
    if (t->kind == SKALD_TASK_SAMPLE && r.status == SKALD_OK) bytes = pack_sample(&r);
    if (t->kind == SKALD_TASK_ANCHOR && r.status == SKALD_OK)
        skald_uncarry(&r, w->runner.dim, w->shard_count, w->carries);
    return (computed){r, bytes, narrow != NULL, version, start_ns};
}

static bool evaluates(const skald_job *job) {
    return job->kind == SKALD_JOB_TASK &&
           (job->task.kind == SKALD_TASK_OBJECTIVE || job->task.kind == SKALD_TASK_SHIFT);
}

static void lock(skald_worker *w, const skald_job *job) {
    if (job->kind != SKALD_JOB_TASK || job->task.shard == SKALD_ALL_SHARDS)
        pthread_rwlock_wrlock(&w->exclusive);
    else
        pthread_rwlock_rdlock(&w->exclusive);
}

static void post(skald_worker *w, computed *c) {
    skald_outbox_post(w, &c->result, c->version, c->bytes, c->narrow);
}

/* Holds the lane until then, as a slower worker would be held. It is no slower at evaluations: those measure the run
 * and are none of its work. */
static void hold(skald_worker_lane *lane, int64_t until_ns) {
    skald_worker *w = lane->worker;
    for (int64_t left; (left = until_ns - skald_now_ns(system_clock())) > 0;) {
        skald_job job;
        if (skald_queue_pop(lane->jobs, &job, left) != SKALD_OK) continue;
        if (!evaluates(&job)) {
            skald_queue_push(lane->later, &job);
            if (job.kind == SKALD_JOB_STOP) return;
            continue;
        }
        lock(w, &job);
        computed c = compute(lane, &job, job.arrived_ns);
        pthread_rwlock_unlock(&w->exclusive);
        post(w, &c);
    }
}

/* Unlocks. */
static void run_task(skald_worker_lane *lane, skald_job *job, int64_t idle_since_ns) {
    skald_worker *w = lane->worker;
    computed c = compute(lane, job, idle_since_ns);
    pthread_rwlock_unlock(&w->exclusive);
    if (skald_task_trains(c.result.kind)) {
        const int64_t now = skald_now_ns(system_clock());
        const int64_t until = skald_straggle_until(w, c.start_ns, now);
        hold(lane, until);
        if (until > now) c.result.delay_ns = skald_now_ns(system_clock()) - now;
    }
    post(w, &c);
}

static skald_status prepare(skald_worker_lane *lane) {
    if (!lane->chain.start) TRY(skald_chain_init(&lane->chain, lane->worker->runner.dim));
    return lane->lane.rows ? SKALD_OK : skald_lane_init(&lane->lane, &lane->worker->runner);
}

static bool next_job(skald_worker_lane *lane, skald_job *job) {
    return skald_queue_pop(lane->later, job, 0) == SKALD_OK || skald_queue_pop(lane->jobs, job, -1) == SKALD_OK;
}

static void *lane_main(void *argument) {
    skald_worker_lane *lane = argument;
    skald_worker *w = lane->worker;
    int64_t idle_since = skald_now_ns(system_clock());
    skald_job job;
    bool stopped = false;
    while (!stopped && next_job(lane, &job) && job.kind != SKALD_JOB_STOP) {
        lock(w, &job);
        switch (job.kind) {
        case SKALD_JOB_SCAN:
            skald_worker_scan(w, &job);
            break;
        case SKALD_JOB_LEASE:
            skald_worker_lease(w, &job);
            break;
        case SKALD_JOB_BEGIN:
            skald_worker_begin(w, &job);
            break;
        case SKALD_JOB_RELEASE:
            skald_worker_release(w, &job);
            break;
        case SKALD_JOB_TASK:
            if (prepare(lane) == SKALD_OK) {
                run_task(lane, &job, idle_since);
                idle_since = skald_now_ns(system_clock());
                continue;
            } else {
                skald_worker_notice(w, "%s", skald_error());
                atomic_fetch_sub(&w->waiting, 1);
                skald_task_unref(&job.task); /* the coordinator asks again */
            }
            break;
        case SKALD_JOB_RANK:
            if (prepare(lane) != SKALD_OK) break;
            stopped = skald_rank_run(w, job.spec, (uint32_t)(lane - w->lanes), &lane->lane, lane->jobs);
            break;
        case SKALD_JOB_REGROUP: /* of a run that this rank has left */
        case SKALD_JOB_ASK:
        case SKALD_JOB_STOP:
            break;
        }
        skald_job_drop(&job);
        pthread_rwlock_unlock(&w->exclusive);
        idle_since = skald_now_ns(system_clock());
    }
    return NULL;
}

void skald_job_drop(skald_job *job) {
    free(job->blocks);
    skald_rank_spec_free(job->spec);
    free(job->order);
    job->blocks = NULL;
    job->spec = NULL;
    job->order = NULL;
}

skald_status skald_worker_push(skald_worker *w, const skald_job *job) {
    uint32_t k = 0;
    if (job->kind == SKALD_JOB_TASK && job->task.shard < w->shard_count) k = w->lane_of[job->task.shard];
    return skald_queue_push(w->lanes[k].jobs, job);
}

skald_status skald_worker_start_lanes(skald_worker *w) {
    uint32_t wanted = w->options->compute.threads > 1 ? (uint32_t)w->options->compute.threads : 1;
    w->lanes = skald_zalloc(wanted, sizeof *w->lanes);
    if (!w->lanes) return SKALD_ENOMEM;
    TRY(skald_busy_init(&w->busy, wanted));
    for (; w->lane_count < wanted; w->lane_count++) {
        skald_worker_lane *lane = &w->lanes[w->lane_count];
        lane->worker = w;
        TRY(skald_queue_create(sizeof(skald_job), 0, &lane->jobs));
        skald_status st = skald_queue_create(sizeof(skald_job), 0, &lane->later);
        if (st != SKALD_OK || pthread_create(&lane->thread, NULL, lane_main, lane) != 0) {
            skald_queue_destroy(lane->jobs);
            skald_queue_destroy(lane->later);
            return skald_fail(SKALD_ENOMEM, "cannot start a thread");
        }
    }
    return SKALD_OK;
}

void skald_worker_stop_lanes(skald_worker *w) {
    const skald_job stop = {.kind = SKALD_JOB_STOP};
    for (uint32_t k = 0; k < w->lane_count; k++) skald_queue_push(w->lanes[k].jobs, &stop);
    for (uint32_t k = 0; k < w->lane_count; k++) {
        skald_worker_lane *lane = &w->lanes[k];
        pthread_join(lane->thread, NULL);
        skald_job job;
        while (skald_queue_pop(lane->later, &job, 0) == SKALD_OK || skald_queue_pop(lane->jobs, &job, 0) == SKALD_OK) {
            if (job.kind == SKALD_JOB_TASK) skald_task_unref(&job.task);
            skald_job_drop(&job);
        }
        skald_queue_destroy(lane->jobs);
        skald_queue_destroy(lane->later);
        skald_lane_fini(&lane->lane);
        skald_chain_fini(&lane->chain);
    }
    skald_busy_fini(&w->busy);
    free(w->lanes);
    w->lanes = NULL;
    w->lane_count = 0;
}
