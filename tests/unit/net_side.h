/* One side of a session as tests see it: a recorder of everything the handlers were told. */
#ifndef NET_SIDE_H
#define NET_SIDE_H

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/base.h"
#include "base/pool.h"
#include "skald/net.h"

#define SIDE_WAIT_S 60 /* only a hang takes this long */

typedef struct side_frame {
    size_t size;
    uint64_t hash;
    uint32_t first; /* its first four bytes */
} side_frame;

typedef struct side {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    skald_net_session *session;      /* the last opened, with a reference */
    int opens, closes, out_of_order; /* out_of_order: a frame or close without on_open, or after on_close */
    skald_status code;
    char reason[512];
    side_frame *frames;
    size_t count, capacity, max_segments;
    skald_net_call *call; /* the last one asked and not answered */
    int calls;
    /* what to do: */
    bool echo;        /* send every frame back */
    bool keep;        /* hold on to the last frame */
    bool forget_open; /* a client that may be told of its end without an opening */
    skald_frame *kept;
    skald_status send_on_open; /* what sending one frame in on_open gave; set greet */
    bool greet;
    useconds_t linger_us; /* on_close returns this much later */
} side;

static inline void side_init(side *s) {
    memset(s, 0, sizeof *s);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->changed, NULL);
}

static inline void side_fini(side *s) {
    skald_frame_release(s->kept);
    skald_net_session_unref(s->session);
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->changed);
    free(s->frames);
}

static inline void side_open(void *user, skald_net_session *session) {
    side *s = user;
    pthread_mutex_lock(&s->lock);
    s->opens++;
    skald_net_session_unref(s->session);
    s->session = skald_net_session_ref(session);
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
    if (s->greet) {
        skald_segment segment = {NULL, (const uint8_t *)"hi", 2};
        s->send_on_open = skald_net_send(session, &segment, 1);
    }
}

static inline void side_frame_in(void *user, skald_net_session *session, skald_frame *frame) {
    side *s = user;
    skald_bytes *copy = skald_bytes_create(frame->size ? frame->size : 1);
    size_t at = 0;
    for (size_t k = 0; k < frame->count; k++) {
        if (frame->segments[k].size)
            memcpy(skald_bytes_data(copy) + at, frame->segments[k].data, frame->segments[k].size);
        at += frame->segments[k].size;
    }
    side_frame seen = {frame->size, skald_hash(copy->data, frame->size, 1), 0};
    memcpy(&seen.first, copy->data, frame->size < 4 ? frame->size : 4);
    if (s->echo) {
        skald_segment segment = {copy, copy->data, frame->size};
        skald_net_send(session, &segment, 1);
    }
    skald_bytes_unref(copy);
    pthread_mutex_lock(&s->lock);
    if (at != frame->size || s->opens == 0 || s->closes >= s->opens) s->out_of_order++;
    if (frame->count > s->max_segments) s->max_segments = frame->count;
    if (s->count == s->capacity) {
        s->capacity = s->capacity ? 2 * s->capacity : 64;
        s->frames = realloc(s->frames, s->capacity * sizeof *s->frames);
    }
    s->frames[s->count++] = seen;
    skald_frame *old = frame;
    if (s->keep) {
        old = s->kept;
        s->kept = frame;
    }
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
    skald_frame_release(old);
}

static inline void side_close(void *user, skald_net_session *session, skald_status code, const char *reason) {
    side *s = user;
    pthread_mutex_lock(&s->lock);
    s->closes++;
    if (s->closes > s->opens && !s->forget_open) s->out_of_order++;
    s->code = code;
    snprintf(s->reason, sizeof s->reason, "%s", reason);
    const useconds_t linger_us = s->linger_us;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
    if (linger_us) usleep(linger_us);
}

static inline void side_call(void *user, skald_method method, skald_frame *request, skald_net_call *call) {
    side *s = user;
    side_frame seen = {request->size, 0, (uint32_t)method};
    skald_frame_release(request);
    pthread_mutex_lock(&s->lock);
    s->calls++;
    s->call = call;
    if (s->count == s->capacity) {
        s->capacity = s->capacity ? 2 * s->capacity : 64;
        s->frames = realloc(s->frames, s->capacity * sizeof *s->frames);
    }
    s->frames[s->count++] = seen;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

static const skald_net_handlers side_handlers = {side_open, side_frame_in, side_close, NULL, NULL};

/* A field under the lock: also what follows the read is then ordered after it, which TSan cannot see through gRPC. */
#define SIDE(s, field)                                                                                                 \
    (__extension__({                                                                                                   \
        pthread_mutex_lock(&(s)->lock);                                                                                \
        __typeof__((s)->field) value_ = (s)->field;                                                                    \
        pthread_mutex_unlock(&(s)->lock);                                                                              \
        value_;                                                                                                        \
    }))

/* Waits until *what (under the lock) reaches n; what it is by then. */
#define SIDE_WAIT(s, what, n)                                                                                          \
    do {                                                                                                               \
        struct timespec until_;                                                                                        \
        clock_gettime(CLOCK_REALTIME, &until_);                                                                        \
        until_.tv_sec += SIDE_WAIT_S;                                                                                  \
        pthread_mutex_lock(&(s)->lock);                                                                                \
        int late_ = 0;                                                                                                 \
        while ((s)->what < (n) && !late_) late_ = pthread_cond_timedwait(&(s)->changed, &(s)->lock, &until_);          \
        pthread_mutex_unlock(&(s)->lock);                                                                              \
        if (late_) fail_msg("waited for %s of " #s " to reach %s", #what, #n);                                         \
    } while (0)

#endif
