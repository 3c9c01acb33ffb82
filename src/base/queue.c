#include "base/queue.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/base.h"

struct skald_queue {
    pthread_mutex_t lock;
    pthread_cond_t filled;
    char *ring; /* `capacity` items; the oldest at `head` */
    size_t item_bytes, capacity, head, size;
    bool closed, waiting; /* waiting: the owner sleeps, so that a push to a busy owner costs no system call */
};

skald_status skald_queue_create(size_t item_bytes, size_t capacity, skald_queue **out) {
    *out = NULL;
    if (item_bytes == 0) return skald_fail(SKALD_EINVAL, "queue: items of 0 bytes");
    skald_queue *q = skald_zalloc(1, sizeof *q);
    if (!q) return SKALD_ENOMEM;
    q->item_bytes = item_bytes;
    q->capacity = capacity ? capacity : 64;
    q->ring = skald_alloc(q->capacity, item_bytes);
    if (!q->ring) {
        free(q);
        return SKALD_ENOMEM;
    }
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&q->filled, &attributes);
    pthread_condattr_destroy(&attributes);
    pthread_mutex_init(&q->lock, NULL);
    *out = q;
    return SKALD_OK;
}

void skald_queue_destroy(skald_queue *q) {
    if (!q) return;
    pthread_cond_destroy(&q->filled);
    pthread_mutex_destroy(&q->lock);
    free(q->ring);
    free(q);
}

/* Doubles the ring, oldest item first. */
static skald_status grow(skald_queue *q) {
    char *ring = skald_alloc(q->capacity, 2 * q->item_bytes);
    if (!ring) return SKALD_ENOMEM;
    size_t first = q->capacity - q->head;
    memcpy(ring, q->ring + q->head * q->item_bytes, first * q->item_bytes);
    memcpy(ring + first * q->item_bytes, q->ring, q->head * q->item_bytes);
    free(q->ring);
    q->ring = ring;
    q->head = 0;
    q->capacity *= 2;
    return SKALD_OK;
}

skald_status skald_queue_push(skald_queue *q, const void *item) {
    pthread_mutex_lock(&q->lock);
    skald_status st = SKALD_OK;
    if (q->closed)
        st = skald_fail(SKALD_ELOST, "queue: closed");
    else if (q->size == q->capacity)
        st = grow(q);
    if (st == SKALD_OK) {
        size_t at = (q->head + q->size) % q->capacity;
        memcpy(q->ring + at * q->item_bytes, item, q->item_bytes);
        q->size++;
        if (q->waiting) pthread_cond_signal(&q->filled);
    }
    pthread_mutex_unlock(&q->lock);
    return st;
}

skald_status skald_queue_pop(skald_queue *q, void *item, int64_t timeout_ns) {
    struct timespec until = {0, 0};
    if (timeout_ns > 0) {
        int64_t now = skald_now_ns(skald_clock_system());
        if (__builtin_add_overflow(now, timeout_ns, &now)) now = INT64_MAX;
        until.tv_sec = now / SKALD_NS_PER_S;
        until.tv_nsec = now % SKALD_NS_PER_S;
    }
    pthread_mutex_lock(&q->lock);
    bool late = timeout_ns == 0;
    while (q->size == 0 && !q->closed && !late) {
        q->waiting = true;
        if (timeout_ns < 0)
            pthread_cond_wait(&q->filled, &q->lock);
        else
            late = pthread_cond_timedwait(&q->filled, &q->lock, &until) == ETIMEDOUT;
        q->waiting = false;
    }
    skald_status st = SKALD_OK;
    if (q->size == 0) {
        st = q->closed ? SKALD_ELOST : SKALD_AGAIN;
    } else {
        memcpy(item, q->ring + q->head * q->item_bytes, q->item_bytes);
        q->head = (q->head + 1) % q->capacity;
        q->size--;
    }
    pthread_mutex_unlock(&q->lock);
    return st;
}

void skald_queue_close(skald_queue *q) {
    pthread_mutex_lock(&q->lock);
    q->closed = true;
    pthread_cond_broadcast(&q->filled);
    pthread_mutex_unlock(&q->lock);
}

size_t skald_queue_size(skald_queue *q) {
    pthread_mutex_lock(&q->lock);
    size_t size = q->size;
    pthread_mutex_unlock(&q->lock);
    return size;
}
