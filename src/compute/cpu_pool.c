/* A few threads that share the pieces of one operation.
 *
 * A job is announced by its number; helpers take pieces from a common counter, so that a slow core takes
 * fewer. Helpers spin for a moment after a job (passes follow one another), then sleep. */
#include "compute/cpu.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "base/base.h"

#define SPIN_NS 30000

struct cpu_pool {
    int helpers;
    pthread_t *threads;
    pthread_mutex_t busy; /* held by the thread whose job runs */
    pthread_mutex_t lock; /* guards sleeping and waking */
    pthread_cond_t wake, idle;
    bool stop;            /* under lock */
    _Atomic uint64_t job; /* number of the current job; written under lock */
    _Atomic int working;  /* helpers that have not yet finished the current job */
    _Atomic size_t next;  /* piece to take */
    size_t count;
    void (*task)(void *context, size_t k);
    void *context;
};

static void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

static void work(cpu_pool *p) {
    size_t k;
    while ((k = atomic_fetch_add_explicit(&p->next, 1, memory_order_relaxed)) < p->count) p->task(p->context, k);
}

/* Spins until *value differs from `old` or a moment has passed. */
static void spin_u64(const _Atomic uint64_t *value, uint64_t old) {
    int64_t end = skald_now_ns(skald_clock_system()) + SPIN_NS;
    do {
        for (int k = 0; k < 64; k++) {
            if (atomic_load_explicit(value, memory_order_acquire) != old) return;
            relax();
        }
    } while (skald_now_ns(skald_clock_system()) < end);
}

static void *helper(void *argument) {
    cpu_pool *p = argument;
    uint64_t seen = 0;
    for (;;) {
        spin_u64(&p->job, seen);
        if (atomic_load_explicit(&p->job, memory_order_acquire) == seen) {
            pthread_mutex_lock(&p->lock);
            while (!p->stop && atomic_load_explicit(&p->job, memory_order_acquire) == seen)
                pthread_cond_wait(&p->wake, &p->lock);
            bool stop = p->stop;
            pthread_mutex_unlock(&p->lock);
            if (stop) return NULL;
        }
        seen++; /* the owner waits for every helper, so none misses a job */
        work(p);
        if (atomic_fetch_sub_explicit(&p->working, 1, memory_order_acq_rel) == 1) {
            pthread_mutex_lock(&p->lock);
            pthread_cond_signal(&p->idle);
            pthread_mutex_unlock(&p->lock);
        }
    }
}

skald_status cpu_pool_create(int threads, cpu_pool **out) {
    *out = NULL;
    cpu_pool *p = skald_zalloc(1, sizeof *p);
    if (!p) return SKALD_ENOMEM;
    pthread_mutex_init(&p->busy, NULL);
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    pthread_cond_init(&p->idle, NULL);
    p->threads = skald_zalloc((size_t)threads, sizeof *p->threads);
    if (!p->threads) {
        cpu_pool_destroy(p);
        return SKALD_ENOMEM;
    }
    while (p->helpers < threads - 1) {
        if (pthread_create(&p->threads[p->helpers], NULL, helper, p) != 0) {
            cpu_pool_destroy(p);
            return skald_fail(SKALD_EUNAVAILABLE, "cannot start %d compute threads; use fewer", threads);
        }
        p->helpers++;
    }
    *out = p;
    return SKALD_OK;
}

void cpu_pool_destroy(cpu_pool *p) {
    if (!p) return;
    pthread_mutex_lock(&p->lock);
    p->stop = true;
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
    for (int k = 0; k < p->helpers; k++) pthread_join(p->threads[k], NULL);
    pthread_cond_destroy(&p->idle);
    pthread_cond_destroy(&p->wake);
    pthread_mutex_destroy(&p->lock);
    pthread_mutex_destroy(&p->busy);
    free(p->threads);
    free(p);
}

void cpu_pool_run(cpu_pool *p, size_t count, void (*task)(void *context, size_t k), void *context) {
    if (p->helpers == 0 || count < 2 || pthread_mutex_trylock(&p->busy) != 0) {
        for (size_t k = 0; k < count; k++) task(context, k);
        return;
    }
    p->count = count;
    p->task = task;
    p->context = context;
    atomic_store_explicit(&p->next, 0, memory_order_relaxed);
    atomic_store_explicit(&p->working, p->helpers, memory_order_relaxed);
    pthread_mutex_lock(&p->lock);
    atomic_fetch_add_explicit(&p->job, 1, memory_order_release);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
    work(p);
    int64_t end = skald_now_ns(skald_clock_system()) + SPIN_NS;
    while (atomic_load_explicit(&p->working, memory_order_acquire) != 0 && skald_now_ns(skald_clock_system()) < end)
        for (int k = 0; k < 64; k++) relax();
    pthread_mutex_lock(&p->lock);
    while (atomic_load_explicit(&p->working, memory_order_acquire) != 0) pthread_cond_wait(&p->idle, &p->lock);
    pthread_mutex_unlock(&p->lock);
    pthread_mutex_unlock(&p->busy);
}
