#include "net/session.h"

#include <limits.h>
#include <stdlib.h>

#include "base/base.h"

/* ---- the port's functions, handed to the adapter ---------------------------------------------------- */

void net_session_init(skald_net_session *session, const net_session_ops *ops) {
    session->ops = ops;
    session->refs = 1;
}

skald_status skald_net_send(skald_net_session *session, const skald_segment *segments, size_t count) {
    return session->ops->send(session, segments, count);
}

size_t skald_net_pending(const skald_net_session *session) {
    return session->ops->pending(session);
}

void skald_net_close(skald_net_session *session, skald_status code, const char *reason) {
    session->ops->close(session, code, reason ? reason : "");
}

skald_net_session *skald_net_session_ref(skald_net_session *session) {
    if (session) __atomic_fetch_add(&session->refs, 1, __ATOMIC_RELAXED);
    return session;
}

void skald_net_session_unref(skald_net_session *session) {
    if (session && __atomic_sub_fetch(&session->refs, 1, __ATOMIC_ACQ_REL) == 0) session->ops->destroy(session);
}

const char *skald_net_peer(const skald_net_session *session) {
    return session->peer ? session->peer : "";
}

const char *skald_net_identity(const skald_net_session *session) {
    return session->identity;
}

void *skald_net_user(const skald_net_session *session) {
    return __atomic_load_n(&session->user, __ATOMIC_ACQUIRE);
}

void skald_net_set_user(skald_net_session *session, void *user) {
    __atomic_store_n(&session->user, user, __ATOMIC_RELEASE);
}

void skald_net_reply(skald_net_call *call, skald_status code, const char *reason, const skald_segment *segments,
                     size_t count) {
    call->reply(call, code, reason ? reason : "", segments, count);
}

const char *skald_net_call_peer(const skald_net_call *call) {
    return call->peer;
}

const char *skald_net_call_identity(const skald_net_call *call) {
    return call->identity[0] ? call->identity : NULL;
}

/* ---- checks ----------------------------------------------------------------------------------------- */

skald_status net_options_resolve(const skald_net_options *given, skald_net_options *out) {
    *out = given ? *given : (skald_net_options){0};
    if (out->max_frame_bytes == 0) out->max_frame_bytes = NET_MAX_FRAME_BYTES;
    if (out->keepalive_ns == 0) out->keepalive_ns = NET_KEEPALIVE_NS;
    if (out->max_sessions == 0) out->max_sessions = NET_MAX_SESSIONS;
    if (out->max_calls == 0) out->max_calls = NET_MAX_CALLS;
    if (out->max_frame_bytes > INT_MAX)
        return skald_fail(SKALD_EINVAL, "frames of up to %zu bytes: the limit can be at most %d", out->max_frame_bytes,
                          INT_MAX);
    if (out->hello_ns < 0 || (out->hello_ns && out->hello_ns < 1000000))
        return skald_fail(SKALD_EINVAL, "%lld ns to say hello in is too short (at least 1 ms)",
                          (long long)out->hello_ns);
    if (out->keepalive_ns < 1000000)
        return skald_fail(SKALD_EINVAL, "a keepalive of %lld ns is too short (at least 1 ms)",
                          (long long)out->keepalive_ns);
    return SKALD_OK;
}

skald_status net_segments_check(const skald_segment *segments, size_t count, size_t limit, size_t *bytes) {
    size_t total = 0;
    if (count > SKALD_MAX_SEGMENTS)
        return skald_fail(SKALD_EINVAL, "a frame of %zu segments (at most %d)", count, SKALD_MAX_SEGMENTS);
    for (size_t k = 0; k < count; k++) {
        if (segments[k].size > NET_COPY_BYTES && !segments[k].owner)
            return skald_fail(SKALD_EINVAL, "segment %zu of %zu bytes has no owner to keep it alive", k,
                              segments[k].size);
        if (__builtin_add_overflow(total, segments[k].size, &total)) total = SIZE_MAX;
    }
    *bytes = total;
    if (total > limit) return skald_fail(SKALD_ETOOBIG, "a frame of %zu bytes is over the limit of %zu", total, limit);
    return SKALD_OK;
}

/* ---- frames ------------------------------------------------------------------------------------------ */

struct net_frames {
    pthread_mutex_t lock;
    net_frame *idle;
    void (*drop)(net_frame *frame);
    void (*fini)(void);
    int refs; /* atomic: the creator and every frame in use */
};

net_frames *net_frames_create(void (*drop)(net_frame *), void (*fini)(void)) {
    net_frames *frames = skald_zalloc(1, sizeof *frames);
    if (!frames) return NULL;
    pthread_mutex_init(&frames->lock, NULL);
    frames->drop = drop;
    frames->fini = fini;
    frames->refs = 1;
    return frames;
}

void net_frames_unref(net_frames *frames) {
    if (!frames || __atomic_sub_fetch(&frames->refs, 1, __ATOMIC_ACQ_REL) != 0) return;
    while (frames->idle) {
        net_frame *next = frames->idle->next;
        free(frames->idle->segments);
        free(frames->idle);
        frames->idle = next;
    }
    if (frames->fini) frames->fini();
    pthread_mutex_destroy(&frames->lock);
    free(frames);
}

static void recycle(skald_frame *base) {
    net_frame *frame = (net_frame *)base;
    net_frames *frames = frame->frames;
    void (*const released)(void *, size_t) = frame->released;
    void *const owner = frame->owner;
    const size_t bytes = base->size;
    frames->drop(frame);
    for (size_t k = 0; k < frame->owner_count; k++) skald_bytes_unref(frame->owners[k]);
    frame->payload = NULL;
    frame->owner_count = 0;
    pthread_mutex_lock(&frames->lock);
    frame->next = frames->idle;
    frames->idle = frame;
    pthread_mutex_unlock(&frames->lock);
    if (released) released(owner, bytes); /* its owner has the frames too */
    net_frames_unref(frames);
}

net_frame *net_frames_get(net_frames *frames, size_t segments) {
    pthread_mutex_lock(&frames->lock);
    net_frame *frame = frames->idle;
    if (frame) frames->idle = frame->next;
    pthread_mutex_unlock(&frames->lock);
    if (!frame) {
        frame = skald_zalloc(1, sizeof *frame);
        if (!frame) return NULL;
        frame->frames = frames;
    }
    __atomic_fetch_add(&frames->refs, 1, __ATOMIC_RELAXED);
    frame->base = (skald_frame){NULL, 0, 0, frame, recycle};
    frame->released = NULL;
    frame->next = NULL;
    frame->payload = NULL;
    frame->owner_count = 0;
    if (segments > frame->capacity) {
        skald_segment *more = skald_alloc(segments + segments / 2, sizeof *more);
        if (!more) {
            recycle(&frame->base);
            return NULL;
        }
        free(frame->segments);
        frame->segments = more;
        frame->capacity = segments + segments / 2;
    }
    frame->base.segments = frame->segments;
    return frame;
}
