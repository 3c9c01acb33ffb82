/* Listening, events from the I/O thread, saying goodbye. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/state.h"

#define LEAVE_NS (3 * SKALD_NS_PER_S) /* a stopped worker's, or a hung one's: others answer at once */

void skald_coordinator_notice(const skald_coordinator *c, const char *format, ...) {
    if (!c->options->notice) return;
    char text[600];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    c->options->notice(c->options->user, text);
}

/* ---- handlers on the I/O thread: hand over and return ---------------------------------------------- */

static void on_open(void *user, skald_net_session *session) {} /* a session counts from its hello */

static void on_frame(void *user, skald_net_session *session, skald_frame *frame) {
    skald_coordinator *c = user;
    if (!skald_door_passes(c, session, frame)) {
        skald_frame_release(frame);
        return;
    }
    skald_input in = {.kind = SKALD_INPUT_FRAME,
                      .session = skald_net_session_ref(session),
                      .frame = frame,
                      .arrived_ns = skald_now_ns(c->options->clock)};
    if (skald_queue_push(c->inputs, &in) != SKALD_OK) skald_input_drop(&in);
}

static void on_close(void *user, skald_net_session *session, skald_status code, const char *reason) {
    skald_coordinator *c = user;
    skald_input in = {.kind = SKALD_INPUT_CLOSE, .session = skald_net_session_ref(session), .code = code};
    snprintf(in.reason, sizeof in.reason, "%s", reason && *reason ? reason : skald_status_name(code));
    if (skald_queue_push(c->inputs, &in) != SKALD_OK) skald_input_drop(&in);
}

static void on_call(void *user, skald_method method, skald_frame *request, skald_net_call *call) {
    skald_coordinator *c = user;
    skald_input in = {.kind = SKALD_INPUT_CALL, .method = method, .frame = request, .call = call};
    if (skald_queue_push(c->inputs, &in) != SKALD_OK) skald_input_drop(&in);
}

void skald_input_drop(skald_input *in) {
    skald_frame_release(in->frame);
    if (in->session) skald_net_session_unref(in->session);
    if (in->call) skald_net_reply(in->call, SKALD_EUNAVAILABLE, "the coordinator is ending", NULL, 0);
}

/* ---- sessions -------------------------------------------------------------------------------------- */

skald_session_state *skald_coordinator_find(skald_coordinator *c, const skald_net_session *session) {
    skald_session_state *s = skald_door_seat(session); /* set when it was let in */
    return s && s->session == session ? s : NULL;
}

skald_session_state *skald_coordinator_take(skald_coordinator *c, const skald_input *in) {
    skald_session_state *s = skald_coordinator_find(c, in->session);
    if (s) s->member.bytes_received += in->frame->size;
    return s;
}

void skald_coordinator_send(skald_coordinator *c, skald_session_state *s, const Skald__V1__Frame *frame,
                            const skald_wire_vector *vectors, size_t n) {
    if (!s->alive || !s->session) return; /* it is asked again when it comes back */
    skald_wire_message message;
    skald_status st = skald_wire_pack(frame, vectors, n, c->headers, &message);
    if (st == SKALD_OK) st = skald_net_send(s->session, message.segments, message.count);
    if (st == SKALD_OK) s->member.bytes_sent += message.bytes;
    skald_wire_message_release(&message);
    if (st != SKALD_OK && st != SKALD_ELOST) skald_coordinator_lose(c, s, skald_error());
}

/* ---- open and close -------------------------------------------------------------------------------- */

static void make_run_id(skald_coordinator *c) {
    if (c->options->run) {
        snprintf(c->run, sizeof c->run, "%s", c->options->run);
        return;
    }
    skald_run_id(c->run);
}

static void free_all(skald_coordinator *c) {
    skald_input in;
    while (c->inputs && skald_queue_pop(c->inputs, &in, 0) == SKALD_OK) skald_input_drop(&in);
    for (uint32_t k = 0; k < c->joined; k++) {
        skald_session_state *s = &c->workers[k];
        for (uint32_t t = 0; t < s->task_count; t++) skald_task_unref(&s->tasks[t].task);
        if (s->session) skald_net_session_unref(s->session);
        if (s->drain) skald_net_reply(s->drain, SKALD_EUNAVAILABLE, "the coordinator is ending", NULL, 0);
        free(s->tasks);
        free(s->shards);
        free(s->held);
    }
    skald_legacy_free(c);
    free(c->workers);
    free(c->leases);
    free(c->loads);
    free(c->changes);
    for (skald_result_slot *r = c->idle, *next; r; r = next) {
        next = r->next;
        free(r);
    }
    skald_manifest_free(&c->manifest);
    skald_problem_free(&c->problem);
    skald_wire_env_destroy(c->env);
    skald_pool_destroy(c->headers);
    skald_queue_destroy(c->inputs);
    skald_guard_destroy(c->guard);
    free(c);
}

skald_status skald_coordinator_listen(const skald_net_ops *net, const skald_coordinator_options *options,
                                      skald_coordinator **out, int *port) {
    if (options->workers == 0) return skald_fail(SKALD_EINVAL, "a coordinator needs at least one worker");
    if (options->most && options->most < options->workers)
        return skald_fail(SKALD_EINVAL, "--max-workers %u: the run begins with %u (--workers)", options->most,
                          options->workers);
    skald_coordinator *c = skald_zalloc(1, sizeof *c);
    if (!c) return SKALD_ENOMEM;
    c->crew.ops = &skald_remote_crew_ops;
    c->crew.live = true;
    c->crew.conduct = skald_remote_conduct;
    const uint32_t most = 2 * options->workers > options->workers + 8 ? 2 * options->workers : options->workers + 8;
    c->crew.most = options->most ? options->most : most;
    c->net = net;
    c->options = options;
    c->expected = options->workers;
    c->repeat_ns = options->repeat_ns > 0 ? options->repeat_ns : 5 * SKALD_NS_PER_S;
    c->timeout_ns = options->heartbeat_timeout_ns > 0 ? options->heartbeat_timeout_ns : 30 * SKALD_NS_PER_S;
    make_run_id(c);
    c->term = options->term ? options->term : 1;
    c->next_incarnation = (uint64_t)(c->term - 1) << 32; /* never again one that an earlier start gave out */
    static const skald_net_handlers handlers = {on_open, on_frame, on_close, skald_door_refused, skald_door_admits};
    skald_status st = SKALD_ENOMEM;
    c->workers = skald_zalloc(c->crew.most, sizeof *c->workers);
    if (!c->workers) goto fail;
    TRY_GOTO(st, skald_queue_create(sizeof(skald_input), 0, &c->inputs), fail);
    TRY_GOTO(st, skald_wire_env_create(&c->env), fail);
    TRY_GOTO(st, skald_pool_create(1024, &c->headers), fail);
    const skald_guard_options limits = {.offences = options->offences, .refuse_ns = options->refuse_ns};
    TRY_GOTO(st, skald_guard_create(&limits, options->clock, &c->guard), fail);
    TRY_GOTO(st, net->listen(options->address, &options->net, &handlers, on_call, c, &c->server, port), fail);
    *out = c;
    return SKALD_OK;
fail:
    free_all(c);
    return st;
}

void skald_coordinator_dismiss(skald_coordinator *c, skald_status code, const char *reason) {
    if (c->over) return;
    c->over = true;
    Skald__V1__Frame frame = SKALD__V1__FRAME__INIT;
    Skald__V1__Goodbye body = SKALD__V1__GOODBYE__INIT;
    body.status = (uint32_t)code;
    body.reason = (char *)(reason ? reason : "");
    frame.body_case = SKALD__V1__FRAME__BODY_GOODBYE;
    frame.goodbye = &body;
    for (uint32_t k = 0; k < c->joined; k++) skald_coordinator_send(c, &c->workers[k], &frame, NULL, 0);
}

/* A worker that still writes when the connection goes would not read the goodbye that lies before it, and look for a
 * coordinator: so it is the workers who hang up. Not waited for longer than leave_ns. */
static void await_leaving(skald_coordinator *c, int64_t leave_ns) {
    const int64_t until = skald_now_ns(skald_clock_system()) + leave_ns;
    uint32_t open = 0;
    for (uint32_t k = 0; k < c->joined; k++) open += c->workers[k].alive && c->workers[k].session;
    while (open) {
        const int64_t left = until - skald_now_ns(skald_clock_system());
        skald_input in;
        if (left <= 0 || skald_queue_pop(c->inputs, &in, left) != SKALD_OK) return;
        if (in.kind == SKALD_INPUT_CLOSE) {
            const skald_session_state *s = skald_coordinator_find(c, in.session);
            open -= s && s->alive;
        }
        skald_input_drop(&in);
    }
}

void skald_coordinator_close(skald_coordinator *c, skald_status code, const char *reason) {
    if (!c) return;
    skald_coordinator_dismiss(c, code, reason);
    await_leaving(c, LEAVE_NS);
    c->net->shutdown(c->server, SKALD_NS_PER_S);
    free_all(c);
}
