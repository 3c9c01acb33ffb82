/* A session within the process: two ends, what travels between them, and what goes wrong on the way. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "net/inproc.h"

/* A frame that waits to be overtaken is let go after this long: its successor may never come. */
#define REORDER_WAIT_NS 5000000

typedef struct inproc_session {
    skald_net_session base; /* first */
    struct pair *pair;
    inproc_node *home;
    struct inproc_session *other;
    /* under the pair's lock: */
    bool ended;
    uint64_t sent;       /* frames, for drawing faults */
    int64_t last_at;     /* when the last frame sent arrives: none arrives earlier */
    size_t travelling;   /* sent, not yet arrived */
    net_frame *held;     /* waits to be overtaken */
    uint64_t held_index; /* which frame that is */
} inproc_session;

typedef struct pair {
    pthread_mutex_t lock;
    inproc_session ends[2]; /* client, server */
    skald_net_faults faults;
    uint64_t key, number;
    inproc_session *closer; /* who closed it, and why; the first one counts */
    skald_status code;
    char reason[NET_REASON_BYTES];
    int refs; /* atomic: the two ends and every event */
} pair;

static int64_t now_ns(void) {
    return skald_now_ns(skald_clock_system());
}

static void pair_unref(pair *p) {
    if (__atomic_sub_fetch(&p->refs, 1, __ATOMIC_ACQ_REL) != 0) return;
    for (int k = 0; k < 2; k++) {
        if (p->ends[k].held) skald_frame_release(&p->ends[k].held->base);
        free(p->ends[k].base.peer);
        inproc_node_unref(p->ends[k].home);
    }
    pthread_mutex_destroy(&p->lock);
    free(p);
}

static pair *pair_ref(pair *p) {
    __atomic_fetch_add(&p->refs, 1, __ATOMIC_RELAXED);
    return p;
}

/* ---- frames ------------------------------------------------------------------------------------------ */

static void drop_nothing(net_frame *frame) { /* the owners are all there is */
}

net_frames *inproc_frames_create(void) {
    return net_frames_create(drop_nothing, NULL);
}

enum { MAX_CUTS = 32 }; /* pieces of a segment */

/* Received frames are cut at odd places, as a network cuts them. */
static void add_cut(net_frame *frame, const uint8_t *data, size_t size, size_t grain, uint64_t key, uint64_t *draw) {
    for (int cuts = 1; size; cuts++) {
        size_t take = 1 + (size_t)(skald_uniform(key, (*draw)++) * (double)(2 * grain));
        take = cuts == MAX_CUTS ? size : skald_min_size(take, size);
        frame->segments[frame->base.count++] = (skald_segment){NULL, data, take};
        frame->base.size += take;
        data += take;
        size -= take;
        grain += grain / 2; /* so that it ends soon, whatever the size */
    }
}

net_frame *inproc_frame(net_frames *frames, skald_pool *pool, const skald_segment *segments, size_t count,
                        uint64_t key) {
    net_frame *frame = net_frames_get(frames, MAX_CUTS * count);
    if (!frame) return NULL;
    skald_bytes *small = NULL;
    size_t used = 0;
    uint64_t draw = 0;
    for (size_t k = 0; k < count; k++) {
        const uint8_t *data = segments[k].data;
        if (segments[k].size == 0) continue;
        if (segments[k].size <= NET_COPY_BYTES) {
            if (!small) {
                small = skald_pool_get(pool);
                if (!small) goto fail;
                frame->owners[frame->owner_count++] = small;
            }
            memcpy(skald_bytes_data(small) + used, data, segments[k].size);
            data = small->data + used;
            used += segments[k].size;
        } else {
            frame->owners[frame->owner_count++] = skald_bytes_ref(segments[k].owner);
        }
        add_cut(frame, data, segments[k].size, 1 + segments[k].size / 24, key, &draw);
    }
    return frame;
fail:
    skald_frame_release(&frame->base);
    return NULL;
}

/* The same frame once more. */
static net_frame *copy_frame(const net_frame *frame) {
    net_frame *copy = net_frames_get(frame->frames, frame->base.count);
    if (!copy) return NULL;
    if (frame->base.count) memcpy(copy->segments, frame->segments, frame->base.count * sizeof *frame->segments);
    copy->base.count = frame->base.count;
    copy->base.size = frame->base.size;
    for (size_t k = 0; k < frame->owner_count; k++) copy->owners[k] = skald_bytes_ref(frame->owners[k]);
    copy->owner_count = frame->owner_count;
    return copy;
}

/* ---- arriving, on the receiving node's thread -------------------------------------------------------- */

static void open_here(void *a, void *b, bool live) {
    inproc_session *s = a;
    if (live) s->home->handlers.on_open(s->home->user, &s->base);
    pair_unref(s->pair);
}

static void remove_from_home(inproc_session *s) {
    inproc_node *node = s->home;
    pthread_mutex_lock(&node->lock);
    for (size_t k = 0; k < node->session_count; k++) {
        if (node->sessions[k] != s) continue;
        node->sessions[k] = node->sessions[--node->session_count];
        if (node->session_count == 0) pthread_cond_broadcast(&node->idle);
        break;
    }
    pthread_mutex_unlock(&node->lock);
}

/* Who hears of an end may count on the room that it makes. */
static void make_room(inproc_node *node) {
    pthread_mutex_lock(&node->lock);
    node->open_count--;
    pthread_mutex_unlock(&node->lock);
}

static void end_here(void *a, void *b, bool live) {
    inproc_session *s = a;
    pair *p = s->pair;
    pthread_mutex_lock(&p->lock);
    s->ended = true;
    pthread_mutex_unlock(&p->lock);
    make_room(s->home);
    if (live) s->home->handlers.on_close(s->home->user, &s->base, p->code, p->reason);
    remove_from_home(s);
    skald_net_session_unref(&s->base);
    pair_unref(p);
}

static void arrive(void *a, void *b, bool live) {
    inproc_session *s = a;
    pair *p = s->pair;
    net_frame *frame = b;
    pthread_mutex_lock(&p->lock);
    s->other->travelling--;
    live = live && !s->ended;
    pthread_mutex_unlock(&p->lock);
    size_t limit = s->home->options.max_frame_bytes;
    if (live && frame->base.size > limit) {
        char reason[NET_REASON_BYTES];
        snprintf(reason, sizeof reason, "%s sent a frame over the limit of %zu bytes", skald_net_peer(&s->base), limit);
        skald_net_close(&s->base, SKALD_ETOOBIG, reason);
        live = false;
    }
    if (live)
        s->home->handlers.on_frame(s->home->user, &s->base, &frame->base);
    else
        skald_frame_release(&frame->base);
    pair_unref(p);
}

/* ---- sending ----------------------------------------------------------------------------------------- */

static double chance(const pair *p, const inproc_session *s, uint64_t index, uint64_t which) {
    uint64_t key = skald_random(p->key, (uint64_t)(s - p->ends));
    return skald_uniform(key, 8 * index + which);
}

/* With the pair's lock held. A frame nobody will read is let go silently: the session is about to end. */
static void dispatch(inproc_session *s, net_frame *frame, uint64_t index) {
    pair *p = s->pair;
    int64_t now = now_ns(), at = now;
    if (p->faults.delay > 0 && chance(p, s, index, 1) < p->faults.delay)
        at += (int64_t)(chance(p, s, index, 2) * (double)p->faults.delay_max_ns);
    if (at < s->last_at) at = s->last_at;
    s->last_at = at;
    pair_ref(p);
    s->travelling++;
    if (inproc_node_post(s->other->home, at, arrive, s->other, frame) == SKALD_OK) return;
    s->travelling--;
    skald_frame_release(&frame->base);
    __atomic_fetch_sub(&p->refs, 1, __ATOMIC_RELEASE); /* the sender holds its own */
}

static void release_held(inproc_session *s) {
    net_frame *held = s->held;
    s->held = NULL;
    if (held) dispatch(s, held, s->held_index);
}

static void overdue(void *a, void *b, bool live) {
    inproc_session *s = a;
    pair *p = s->pair;
    pthread_mutex_lock(&p->lock);
    if (live && s->held && s->held_index == (uint64_t)(uintptr_t)b) release_held(s);
    pthread_mutex_unlock(&p->lock);
    pair_unref(p);
}

/* Both ends hear of it when what was sent before has arrived. */
static skald_net_fate fate_of(const inproc_session *s, const skald_segment *segments, size_t count) {
    const pair *p = s->pair;
    return p->faults.fate ? p->faults.fate(p->faults.user, p->number, s == p->ends, segments, count) : SKALD_FATE_PASS;
}

static void close_locked(inproc_session *s, skald_status code, const char *reason) {
    pair *p = s->pair;
    if (p->closer) return;
    release_held(s);
    p->closer = s;
    p->code = code;
    snprintf(p->reason, sizeof p->reason, "%s", reason);
    int64_t at = now_ns();
    if (at < s->last_at) at = s->last_at;
    for (int k = 0; k < 2; k++) {
        pair_ref(p);
        if (inproc_node_post(p->ends[k].home, at, end_here, &p->ends[k], NULL) != SKALD_OK)
            __atomic_fetch_sub(&p->refs, 1, __ATOMIC_RELEASE);
    }
}

static void close_session(skald_net_session *session, skald_status code, const char *reason) {
    inproc_session *s = (inproc_session *)session;
    pthread_mutex_lock(&s->pair->lock);
    if (fate_of(s, NULL, 0) == SKALD_FATE_CUT)
        close_locked(s, SKALD_ELOST, "the connection broke");
    else
        close_locked(s, code, reason);
    pthread_mutex_unlock(&s->pair->lock);
}

static skald_status send_frame(skald_net_session *session, const skald_segment *segments, size_t count) {
    inproc_session *s = (inproc_session *)session;
    pair *p = s->pair;
    size_t bytes = 0;
    TRY(net_segments_check(segments, count, s->home->options.max_frame_bytes, &bytes));
    uint64_t cut = skald_random(p->key ^ 0x5ca1d, __atomic_load_n(&s->sent, __ATOMIC_RELAXED));
    net_frame *frame = inproc_frame(s->other->home->frames, s->other->home->small, segments, count, cut);
    if (!frame) return SKALD_ENOMEM;

    pthread_mutex_lock(&p->lock);
    if (p->closer == s || s->ended || s->other->ended) {
        pthread_mutex_unlock(&p->lock);
        skald_frame_release(&frame->base);
        return skald_fail(SKALD_ELOST, "the session with %s is closed", skald_net_peer(session));
    }
    uint64_t index = s->sent;
    __atomic_store_n(&s->sent, index + 1, __ATOMIC_RELAXED);
    const skald_net_fate fate = fate_of(s, segments, count);
    if (fate != SKALD_FATE_PASS || chance(p, s, index, 0) < p->faults.drop) {
        skald_frame_release(&frame->base);
        if (fate == SKALD_FATE_CUT) close_locked(s, SKALD_ELOST, "the connection broke");
    } else if (!s->held && chance(p, s, index, 3) < p->faults.reorder) {
        s->held = frame;
        s->held_index = index;
        pair_ref(p);
        if (inproc_node_post(s->other->home, now_ns() + REORDER_WAIT_NS, overdue, s, (void *)(uintptr_t)index) !=
            SKALD_OK) {
            release_held(s);
            __atomic_fetch_sub(&p->refs, 1, __ATOMIC_RELEASE);
        }
    } else {
        net_frame *twin = chance(p, s, index, 4) < p->faults.duplicate ? copy_frame(frame) : NULL;
        dispatch(s, frame, index);
        if (twin) dispatch(s, twin, index);
        release_held(s);
    }
    pthread_mutex_unlock(&p->lock);
    return SKALD_OK;
}

static size_t pending(const skald_net_session *session) {
    inproc_session *s = (inproc_session *)(uintptr_t)session;
    pthread_mutex_lock(&s->pair->lock);
    size_t n = s->travelling + (s->held != NULL);
    pthread_mutex_unlock(&s->pair->lock);
    return n;
}

static void destroy(skald_net_session *session) {
    pair_unref(((inproc_session *)session)->pair);
}

static const net_session_ops session_ops = {send_frame, pending, close_session, destroy};

/* ---- opening ----------------------------------------------------------------------------------------- */

static skald_status add_to_home(inproc_session *s, uint32_t limit) {
    inproc_node *node = s->home;
    skald_status st = SKALD_OK;
    pthread_mutex_lock(&node->lock);
    if (node->stopped) {
        st = skald_fail(SKALD_EREFUSED, "shutting down");
    } else if (limit && node->open_count >= limit) {
        st = skald_fail(SKALD_EREFUSED, "%u sessions are open, which is the limit", limit);
    } else if (node->session_count == node->session_capacity) {
        size_t capacity = node->session_capacity ? 2 * node->session_capacity : 16;
        inproc_session **sessions = realloc(node->sessions, capacity * sizeof *sessions);
        if (sessions) {
            node->sessions = sessions;
            node->session_capacity = capacity;
        } else {
            st = skald_fail(SKALD_ENOMEM, "out of memory for %zu sessions", capacity);
        }
    }
    if (st == SKALD_OK) {
        node->sessions[node->session_count++] = s;
        node->open_count++;
    }
    pthread_mutex_unlock(&node->lock);
    return st;
}

skald_status inproc_pair_open(inproc_node *client, inproc_node *server, const char *address) {
    uint64_t number = 0;
    pair *p = skald_zalloc(1, sizeof *p);
    if (!p) return SKALD_ENOMEM;
    pthread_mutex_init(&p->lock, NULL);
    p->faults = inproc_faults(&number);
    p->number = number;
    p->key = skald_random(p->faults.seed, number);
    p->refs = 2;
    inproc_node *homes[2] = {client, server};
    for (int k = 0; k < 2; k++) {
        inproc_session *s = &p->ends[k];
        net_session_init(&s->base, &session_ops);
        s->pair = p;
        s->other = &p->ends[1 - k];
        s->home = homes[k];
        __atomic_fetch_add(&homes[k]->refs, 1, __ATOMIC_RELAXED);
    }
    p->ends[0].base.peer = strdup(address);
    if (asprintf(&p->ends[1].base.peer, "inproc:client-%llu", (unsigned long long)number) < 0)
        p->ends[1].base.peer = NULL;

    skald_status st = add_to_home(&p->ends[1], server->options.max_sessions);
    if (st == SKALD_OK) {
        st = add_to_home(&p->ends[0], 0);
        if (st != SKALD_OK) {
            make_room(server);
            remove_from_home(&p->ends[1]);
        }
    }
    if (st != SKALD_OK) {
        p->refs = 1;
        pair_unref(p);
        return st;
    }
    /* Both before either's handler can send: a frame never comes before the session is open. */
    pthread_mutex_lock(&p->lock);
    pair_ref(p);
    int64_t now = now_ns();
    bool posted[2] = {false, false};
    for (int k = 0; k < 2; k++) {
        pair_ref(p);
        posted[k] = inproc_node_post(homes[k], now, open_here, &p->ends[k], NULL) == SKALD_OK;
        if (!posted[k]) __atomic_fetch_sub(&p->refs, 1, __ATOMIC_RELEASE);
    }
    pthread_mutex_unlock(&p->lock);
    if (!posted[0] || !posted[1]) close_session(&p->ends[0].base, SKALD_ELOST, "the server is shutting down");
    for (int k = 0; k < 2; k++) {
        if (posted[k]) continue;
        make_room(homes[k]);
        remove_from_home(&p->ends[k]);
        skald_net_session_unref(&p->ends[k].base);
    }
    pair_unref(p);
    return SKALD_OK;
}
