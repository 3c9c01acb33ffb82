#include "data/parallel.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct loop {
    data_task run;
    void *context;
    size_t tasks;
    atomic_size_t next;
    atomic_bool failed;
    pthread_mutex_t lock; /* the fields below */
    size_t failed_task;
    skald_status status;
    char message[1024];
} loop;

typedef struct seat {
    loop *loop;
    int worker;
} seat;

static void *work(void *arg) {
    seat *s = arg;
    loop *l = s->loop;
    while (!atomic_load(&l->failed)) {
        size_t task = atomic_fetch_add(&l->next, 1);
        if (task >= l->tasks) break;
        skald_status st = l->run(l->context, s->worker, task);
        if (st == SKALD_OK) continue;
        atomic_store(&l->failed, true);
        pthread_mutex_lock(&l->lock);
        if (l->status == SKALD_OK || task < l->failed_task) {
            l->failed_task = task;
            l->status = st;
            snprintf(l->message, sizeof l->message, "%s", skald_error());
        }
        pthread_mutex_unlock(&l->lock);
    }
    return NULL;
}

skald_status data_parallel(int threads, size_t tasks, data_task run, void *context) {
    loop l = {.run = run, .context = context, .tasks = tasks};
    pthread_mutex_init(&l.lock, NULL);
    if (threads < 1) threads = 1;
    if ((size_t)threads > tasks) threads = tasks ? (int)tasks : 1;
    pthread_t *ids = calloc((size_t)threads, sizeof *ids);
    seat *seats = calloc((size_t)threads, sizeof *seats);
    int started = 1;
    if (ids && seats) {
        for (; started < threads; started++) {
            seats[started] = (seat){&l, started};
            if (pthread_create(&ids[started], NULL, work, &seats[started]) != 0) break; /* fewer will do */
        }
    }
    seat own = {&l, 0};
    work(&own);
    for (int k = 1; k < started; k++) pthread_join(ids[k], NULL);
    free(ids);
    free(seats);
    pthread_mutex_destroy(&l.lock);
    if (l.status != SKALD_OK) return skald_fail(l.status, "%s", l.message);
    return SKALD_OK;
}
