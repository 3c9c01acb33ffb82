/* A node's thread: a heap of events by time. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>

#include "base/base.h"
#include "net/inproc.h"

static bool before(const inproc_event *x, const inproc_event *y) {
    return x->at != y->at ? x->at < y->at : x->order < y->order;
}

static void swap(inproc_event *x, inproc_event *y) {
    inproc_event t = *x;
    *x = *y;
    *y = t;
}

skald_status inproc_node_post(inproc_node *node, int64_t at, inproc_fn fn, void *a, void *b) {
    skald_status st = SKALD_OK;
    pthread_mutex_lock(&node->lock);
    if (node->stopped) st = skald_fail(SKALD_ELOST, "the other side has shut down");
    if (st == SKALD_OK && node->count == node->capacity) {
        size_t capacity = node->capacity ? 2 * node->capacity : 64;
        inproc_event *heap = realloc(node->heap, capacity * sizeof *heap);
        if (heap) {
            node->heap = heap;
            node->capacity = capacity;
        } else {
            st = skald_fail(SKALD_ENOMEM, "out of memory for %zu events", capacity);
        }
    }
    if (st == SKALD_OK) {
        size_t i = node->count++;
        node->heap[i] = (inproc_event){at, node->posted++, fn, a, b};
        for (; i && before(&node->heap[i], &node->heap[(i - 1) / 2]); i = (i - 1) / 2)
            swap(&node->heap[i], &node->heap[(i - 1) / 2]);
        pthread_cond_signal(&node->wake);
    }
    pthread_mutex_unlock(&node->lock);
    return st;
}

static inproc_event take_first(inproc_node *node) {
    inproc_event first = node->heap[0];
    node->heap[0] = node->heap[--node->count];
    for (size_t i = 0;;) {
        size_t least = i;
        for (size_t child = 2 * i + 1; child <= 2 * i + 2 && child < node->count; child++)
            if (before(&node->heap[child], &node->heap[least])) least = child;
        if (least == i) return first;
        swap(&node->heap[i], &node->heap[least]);
        i = least;
    }
}

static struct timespec timespec_of(int64_t ns) {
    return (struct timespec){ns / SKALD_NS_PER_S, ns % SKALD_NS_PER_S};
}

static void *run(void *argument) {
    inproc_node *node = argument;
    pthread_mutex_lock(&node->lock);
    while (!node->stopped) {
        int64_t now = skald_now_ns(skald_clock_system());
        if (node->count == 0) {
            pthread_cond_wait(&node->wake, &node->lock);
        } else if (node->heap[0].at > now && !node->rush) {
            struct timespec until = timespec_of(node->heap[0].at);
            pthread_cond_timedwait(&node->wake, &node->lock, &until);
        } else {
            inproc_event event = take_first(node);
            pthread_mutex_unlock(&node->lock);
            event.fn(event.a, event.b, true);
            pthread_mutex_lock(&node->lock);
        }
    }
    pthread_mutex_unlock(&node->lock);
    return NULL;
}

skald_status inproc_node_create(const skald_net_options *options, const skald_net_handlers *handlers, void *user,
                                inproc_node **out) {
    *out = NULL;
    inproc_node *node = skald_zalloc(1, sizeof *node);
    if (!node) return SKALD_ENOMEM;
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&node->wake, &attributes);
    pthread_cond_init(&node->idle, &attributes);
    pthread_condattr_destroy(&attributes);
    pthread_mutex_init(&node->lock, NULL);
    node->refs = 1;
    node->stopped = true; /* until there is a thread */
    node->handlers = *handlers;
    node->user = user;
    skald_status st = net_options_resolve(options, &node->options);
    if (st != SKALD_OK) goto fail;
    node->frames = inproc_frames_create();
    if (!node->frames) st = SKALD_ENOMEM;
    if (st == SKALD_OK) st = skald_pool_create(SKALD_MAX_SEGMENTS * NET_COPY_BYTES, &node->small);
    if (st != SKALD_OK) goto fail;
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    node->stopped = false;
    if (pthread_create(&node->thread, NULL, run, node) != 0)
        st = skald_fail(SKALD_ENOMEM, "inproc: cannot start a thread");
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (st != SKALD_OK) goto fail;
    *out = node;
    return SKALD_OK;
fail:
    inproc_node_unref(node);
    return st;
}

void inproc_node_unref(inproc_node *node) {
    if (!node || __atomic_sub_fetch(&node->refs, 1, __ATOMIC_ACQ_REL) != 0) return;
    net_frames_unref(node->frames);
    skald_pool_destroy(node->small);
    pthread_cond_destroy(&node->wake);
    pthread_cond_destroy(&node->idle);
    pthread_mutex_destroy(&node->lock);
    free(node->heap);
    free(node->sessions);
    free(node);
}

void inproc_node_close_all(inproc_node *node, const char *reason, int64_t grace_ns) {
    int64_t until = skald_now_ns(skald_clock_system());
    if (__builtin_add_overflow(until, grace_ns, &until)) until = INT64_MAX;
    pthread_mutex_lock(&node->lock);
    size_t count = node->session_count;
    skald_net_session **open = calloc(count ? count : 1, sizeof *open);
    for (size_t k = 0; open && k < count; k++) open[k] = skald_net_session_ref((skald_net_session *)node->sessions[k]);
    pthread_mutex_unlock(&node->lock);
    for (size_t k = 0; open && k < count; k++) {
        skald_net_close(open[k], SKALD_OK, reason);
        skald_net_session_unref(open[k]);
    }
    free(open);

    pthread_mutex_lock(&node->lock);
    while (node->session_count) {
        struct timespec deadline = timespec_of(until);
        if (node->rush) {
            pthread_cond_wait(&node->idle, &node->lock);
        } else if (pthread_cond_timedwait(&node->idle, &node->lock, &deadline) == ETIMEDOUT) {
            node->rush = true;
            pthread_cond_signal(&node->wake);
        }
    }
    pthread_mutex_unlock(&node->lock);
}

void inproc_node_stop(inproc_node *node) {
    pthread_mutex_lock(&node->lock);
    node->stopped = true;
    pthread_cond_signal(&node->wake);
    pthread_mutex_unlock(&node->lock);
    pthread_join(node->thread, NULL);
    while (node->count) {
        inproc_event event = take_first(node);
        event.fn(event.a, event.b, false);
    }
}
