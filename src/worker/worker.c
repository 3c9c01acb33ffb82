/* The worker's control thread: joins, takes what the coordinator sends (orders.c), beats, repeats, joins again. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/base.h"
#include "worker/rank.h"
#include "worker/worker_state.h"

/* Work is lost only with its process: what is unanswered is said again after this. */
static const int64_t REPEAT_NS = 5 * SKALD_NS_PER_S;

typedef enum event_kind { EVENT_OPEN, EVENT_FRAME, EVENT_CLOSE } event_kind;
typedef struct event {
    event_kind kind;
    skald_net_session *session;
    skald_frame *frame;
    skald_status code;
    char reason[300];
} event;

void skald_worker_notice(const skald_worker *w, const char *format, ...) {
    if (!w->options->notice) return;
    char text[600];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    w->options->notice(w->options->user, text);
}

static void send_on(skald_worker *w, skald_net_session *s, const Skald__V1__Frame *frame,
                    const skald_wire_vector *vectors, size_t n) {
    skald_status st = skald_wire_send(s, frame, vectors, n, w->headers);
    if (st == SKALD_ETOOBIG) { /* sending it again would not help: the run cannot go on with this worker */
        char reason[300];
        snprintf(reason, sizeof reason, "%s", skald_error());
        skald_net_close(s, st, reason);
    }
}

void skald_worker_send(skald_worker *w, const Skald__V1__Frame *frame, const skald_wire_vector *vectors, size_t n) {
    pthread_mutex_lock(&w->session_mutex);
    skald_net_session *s = w->session ? skald_net_session_ref(w->session) : NULL;
    pthread_mutex_unlock(&w->session_mutex);
    if (!s) return;
    send_on(w, s, frame, vectors, n);
    skald_net_session_unref(s);
}

void skald_worker_greet(skald_worker *w, const Skald__V1__Frame *hello) {
    if (w->opened) send_on(w, w->opened, hello, NULL, 0);
}

void skald_worker_welcomed(skald_worker *w) {
    pthread_mutex_lock(&w->session_mutex);
    w->session = skald_net_session_ref(w->opened);
    pthread_mutex_unlock(&w->session_mutex);
}

/* ---- handlers on the I/O thread: hand over and return ---------------------------------------------- */

static void on_open(void *user, skald_net_session *session) {
    skald_worker *w = user;
    event e = {.kind = EVENT_OPEN, .session = skald_net_session_ref(session)};
    if (skald_queue_push(w->events, &e) != SKALD_OK) skald_net_session_unref(session);
}

static void on_frame(void *user, skald_net_session *session, skald_frame *frame) {
    skald_worker *w = user;
    event e = {.kind = EVENT_FRAME, .frame = frame};
    if (skald_queue_push(w->events, &e) != SKALD_OK) skald_frame_release(frame);
}

static void on_close(void *user, skald_net_session *session, skald_status code, const char *reason) {
    skald_worker *w = user;
    event e = {.kind = EVENT_CLOSE, .code = code};
    snprintf(e.reason, sizeof e.reason, "%s", reason ? reason : "");
    skald_queue_push(w->events, &e);
}

/* Can this worker be a rank of synchronous runs? Else: why not. */
static void describe_collective(skald_worker *w) {
    const skald_collective_ops *c = w->options->collective;
    char version[32] = "";
    if (!c)
        snprintf(w->no_collective, sizeof w->no_collective, "computes on %s", w->device);
    else if (c->probe(w->options->collective_device, version, w->card) != SKALD_OK)
        snprintf(w->no_collective, sizeof w->no_collective, "%.250s", skald_error());
    else
        snprintf(w->collective, sizeof w->collective, "%s %s", c->name, version);
}

static void beat(skald_worker *w, int64_t now) {
    Skald__V1__Frame frame = SKALD__V1__FRAME__INIT;
    Skald__V1__Heartbeat body = SKALD__V1__HEARTBEAT__INIT;
    body.busy_ns = w->busy.busy_ns;
    body.usual_ns = w->busy.usual_ns;
    body.n_busy_ns = body.n_usual_ns = skald_busy_tell(&w->busy, now);
    body.time_ns = (uint64_t)now;
    body.leaving = w->leave_by > 0;
    frame.body_case = SKALD__V1__FRAME__BODY_HEARTBEAT;
    frame.heartbeat = &body;
    skald_worker_send(w, &frame, NULL, 0);
}

static skald_status connect_to(skald_worker *w) {
    static const skald_net_handlers handlers = {on_open, on_frame, on_close, NULL, NULL};
    const skald_worker_options *o = w->options;
    return w->net->connect(o->address, &o->net, &handlers, w, o->wait_ns, &w->client);
}

static void let_go(skald_worker *w) {
    pthread_mutex_lock(&w->session_mutex);
    skald_net_session *session = w->session;
    w->session = NULL;
    pthread_mutex_unlock(&w->session_mutex);
    if (session) skald_net_session_unref(session);
    if (w->opened) skald_net_session_unref(w->opened);
    w->opened = NULL;
}

/* The session has ended. SKALD_AGAIN: it broke off, and another is being opened. */
static skald_status on_end(skald_worker *w, const event *e) {
    if (e->code == SKALD_OK) return SKALD_OK;
    const char *address = w->options->address;
    if (e->code == SKALD_EUNAVAILABLE && !w->opened)
        return skald_fail(e->code,
                          "no coordinator at %s within %.3g s: is it running there? --wait says how long to wait",
                          address, (double)w->options->wait_ns * 1e-9);
    if (e->code != SKALD_ELOST || !w->incarnation || w->ranked)
        return skald_fail(e->code, "coordinator %s: %s", address, e->reason);
    skald_worker_notice(w, "coordinator %s: %s; joining it again (waiting for it up to %.3g s)", address, e->reason,
                        (double)w->options->wait_ns * 1e-9);
    let_go(w);
    w->net->disconnect(w->client);
    w->client = NULL;
    TRY(connect_to(w));
    return SKALD_AGAIN;
}

/* Told to stop: in the middle of a run of the coordinator's it asks to be let go, so that others have its rows before
 * it goes; SKALD_AGAIN while that may still come. */
static skald_status leave(skald_worker *w, int64_t now) {
    const bool can = w->session && atomic_load(&w->begun) && !w->ranked && w->options->leave_ns > 0;
    if (can && !w->leave_by) {
        w->leave_by = now + w->options->leave_ns;
        skald_worker_notice(w, "told to end: others take over its rows (up to %.3g s; once more ends it at once)",
                            (double)w->options->leave_ns * 1e-9);
        beat(w, now);
    }
    return can && now < w->leave_by ? SKALD_AGAIN : skald_fail(SKALD_INTERRUPTED, "interrupted");
}

static skald_status control(skald_worker *w, const atomic_int *stop_flag) {
    const int64_t repeat = w->options->repeat_ns > 0 ? w->options->repeat_ns : REPEAT_NS;
    int64_t beaten = 0, repeated = 0;
    for (;;) {
        if (stop_flag && *stop_flag && leave(w, skald_now_ns(skald_clock_system())) != SKALD_AGAIN)
            return SKALD_INTERRUPTED;
        event e;
        int64_t tick = repeat < SKALD_NS_PER_S / 10 ? repeat : SKALD_NS_PER_S / 10;
        if (w->session && w->beat_ns < tick) tick = w->beat_ns;
        skald_status st = skald_queue_pop(w->events, &e, tick);
        int64_t now = skald_now_ns(skald_clock_system());
        skald_straggle_die(w, now);
        skald_busy_look(&w->busy, now);
        if (w->opened && now - repeated >= repeat) {
            repeated = now;
            if (w->session)
                skald_outbox_repeat(w, now, repeat);
            else
                skald_order_hello(w);
        }
        if (w->session && now - beaten >= w->beat_ns) {
            beaten = now;
            beat(w, now);
        }
        if (st != SKALD_OK) continue;
        switch (e.kind) {
        case EVENT_OPEN:
            w->opened = e.session;
            repeated = now;
            skald_order_hello(w);
            break;
        case EVENT_CLOSE:
            st = on_end(w, &e);
            if (st != SKALD_AGAIN) return st;
            break;
        case EVENT_FRAME: {
            bool over = false;
            st = skald_wire_open(w->env, e.frame);
            if (st == SKALD_OK) st = skald_order_take(w, skald_wire_body(w->env), &over);
            skald_frame_release(e.frame);
            /* At once, whatever its lanes still compute: the coordinator waits for this before it goes. */
            if (over && w->opened) skald_net_close(w->opened, SKALD_OK, "the run is over");
            if (over && st == SKALD_OK && w->leave_by) return skald_fail(SKALD_INTERRUPTED, "interrupted");
            if (over) return st;
            if (st != SKALD_OK) {
                /* tell the other end why before leaving */
                char reason[300];
                snprintf(reason, sizeof reason, "%s", skald_error());
                if (w->opened) skald_net_close(w->opened, st, reason);
                return skald_fail(st, "%s", reason);
            }
        }
        }
    }
}

static void fini(skald_worker *w) {
    event e;
    while (w->events && skald_queue_pop(w->events, &e, 0) == SKALD_OK) {
        if (e.kind == EVENT_FRAME) skald_frame_release(e.frame);
        if (e.kind == EVENT_OPEN) skald_net_session_unref(e.session);
    }
    let_go(w);
    skald_pool_destroy(w->headers);
    skald_wire_env_destroy(w->env);
    skald_queue_destroy(w->events);
    pthread_mutex_destroy(&w->session_mutex);
    pthread_mutex_destroy(&w->outbox_mutex);
    pthread_rwlock_destroy(&w->exclusive);
    free(w);
}

skald_status skald_worker_run(const skald_net_ops *net, const skald_worker_options *options,
                              const atomic_int *stop_flag) {
    skald_worker *w = skald_zalloc(1, sizeof *w);
    if (!w) return SKALD_ENOMEM;
    w->net = net;
    w->options = options;
    pthread_mutex_init(&w->session_mutex, NULL);
    pthread_mutex_init(&w->outbox_mutex, NULL);
    pthread_rwlock_init(&w->exclusive, NULL);
    char reason[1024] = "";
    skald_status st;
    TRY_GOTO(st, skald_queue_create(sizeof(event), 0, &w->events), out);
    TRY_GOTO(st, skald_wire_env_create(&w->env), out);
    TRY_GOTO(st, skald_pool_create(1024, &w->headers), out);
    /* before it promises anything */
    TRY_GOTO(st, skald_compute_describe(&options->compute, w->device, reason), out);
    if (reason[0]) skald_worker_notice(w, "computing on the CPU: %s", reason);
    describe_collective(w);
    TRY_GOTO(st, skald_life_begin(w), out);
    TRY_GOTO(st, connect_to(w), out);
    st = control(w, stop_flag);
out:
    snprintf(reason, sizeof reason, "%s", skald_error());
    skald_worker_stop_lanes(w); /* what they send still finds the session */
    if (w->client) net->disconnect(w->client);
    skald_life_end(w);
    fini(w);
    return st == SKALD_OK ? st : skald_fail(st, "%s", reason);
}
