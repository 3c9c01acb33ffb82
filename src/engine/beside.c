/* Arithmetic that takes long, on a thread of its own, while the owner thread goes on answering. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/base.h"
#include "engine/run.h"

#define LOOK_NS (SKALD_NS_PER_S / 50) /* between looks at the limits; less is over before anybody notices */

typedef struct job {
    skald_status (*work)(void *user, const atomic_bool *stop);
    void *user;
    atomic_bool stop;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool done;
    skald_status status;
    char error[400];
} job;

static void *run_job(void *argument) {
    job *j = argument;
    const skald_status st = j->work(j->user, &j->stop);
    if (st != SKALD_OK) snprintf(j->error, sizeof j->error, "%s", skald_error()); /* this thread's */
    pthread_mutex_lock(&j->lock);
    j->status = st;
    j->done = true;
    pthread_cond_signal(&j->changed);
    pthread_mutex_unlock(&j->lock);
    return NULL;
}

static bool wait_for(job *j, int64_t ns) {
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += ns;
    if (until.tv_nsec >= SKALD_NS_PER_S) until.tv_sec++, until.tv_nsec -= SKALD_NS_PER_S;
    pthread_mutex_lock(&j->lock);
    while (!j->done && pthread_cond_timedwait(&j->changed, &j->lock, &until) != ETIMEDOUT) {
    }
    const bool done = j->done;
    pthread_mutex_unlock(&j->lock);
    return done;
}

bool skald_run_next_held(skald_run *run, skald_event *event) {
    skald_ahead *a = &run->ahead;
    if (a->first == a->count) return false;
    *event = a->events[a->first++];
    if (a->first == a->count) a->first = a->count = 0;
    return true;
}

void skald_run_drop_held(skald_run *run) {
    skald_event event;
    while (skald_run_next_held(run, &event))
        if (event.kind == SKALD_EVENT_RESULT) run->crew->ops->release(run->crew, event.result);
    free(run->ahead.events);
    run->ahead = (skald_ahead){0};
}

static skald_status hold(skald_run *run, const skald_event *event) {
    skald_ahead *a = &run->ahead;
    if (a->count == a->room) {
        const size_t room = a->room ? 2 * a->room : 16;
        skald_event *grown = realloc(a->events, room * sizeof *grown);
        if (!grown) return skald_fail(SKALD_ENOMEM, "out of memory for %zu events", room);
        a->events = grown;
        a->room = room;
    }
    a->events[a->count++] = *event;
    return SKALD_OK;
}

/* Members are what the last event says: after a change of them nothing more is asked for. */
static bool may_ask(const skald_run *run) {
    const skald_ahead *a = &run->ahead;
    return run->crew->live && (a->first == a->count || a->events[a->count - 1].kind == SKALD_EVENT_RESULT);
}

/* Answers who asks; what else comes is for later. */
static skald_status attend(skald_run *run) {
    while (may_ask(run)) {
        skald_event event = {0};
        TRY(run->crew->ops->next(run->crew, 0, &event));
        if (event.kind == SKALD_EVENT_NONE) break;
        if (event.kind == SKALD_EVENT_REQUEST)
            skald_run_answer(run, &event);
        else
            TRY(hold(run, &event));
    }
    return SKALD_OK;
}

skald_status skald_run_beside(skald_engine *engine, skald_status (*work)(void *user, const atomic_bool *stop),
                              void *user) {
    skald_run *run = (skald_run *)engine;
    job j = {.work = work, .user = user};
    pthread_t thread;
    pthread_mutex_init(&j.lock, NULL);
    pthread_cond_init(&j.changed, NULL);
    skald_status st = SKALD_OK;
    const skald_ranks_ops *ranks = run->crew->ranks;
    if (ranks) ranks->aside(run->crew, true);
    if (pthread_create(&thread, NULL, run_job, &j) != 0) {
        run_job(&j);
    } else {
        while (!wait_for(&j, LOOK_NS)) {
            if (skald_run_stop_reason(run) != SKALD_STOP_NONE) atomic_store(&j.stop, true);
            if (st == SKALD_OK) st = attend(run);
        }
        pthread_join(thread, NULL);
    }
    if (ranks) ranks->aside(run->crew, false);
    pthread_cond_destroy(&j.changed);
    pthread_mutex_destroy(&j.lock);
    TRY(st);
    return j.status == SKALD_OK ? SKALD_OK : skald_fail(j.status, "%s", j.error);
}
