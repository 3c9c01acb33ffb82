/* The remote crew: tasks out, results in, each merged exactly once. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/state.h"

static skald_coordinator *of(skald_crew *crew) {
    return (skald_coordinator *)crew;
}

static uint32_t size(const skald_crew *crew) {
    return ((const skald_coordinator *)crew)->told;
}

static const skald_member *member(const skald_crew *crew, uint32_t worker) {
    return &((const skald_coordinator *)crew)->workers[worker].member;
}

/* ---- tasks ----------------------------------------------------------------------------------------- */

/* Names a version to the worker; its vectors ride along if it lacks them, or asks for the task again. */
static bool name_version(skald_session_state *s, skald_version *v, bool again, bool narrow, skald_wire_vector *vectors,
                         size_t *n) {
    const uint64_t bytes = skald_shelf_bytes(v->count, v->dim);
    const bool kept = skald_shelf_name(&s->shelf, v->id, NULL);
    if (!kept) skald_shelf_put(&s->shelf, v->id, bytes, NULL);
    if (kept && !again) {
        s->member.bytes_saved += narrow ? bytes / 2 : bytes;
        return false;
    }
    s->member.versions_sent++;
    for (uint32_t k = 0; k < v->count; k++)
        vectors[(*n)++] = narrow ? (skald_wire_vector){&v->bytes, v->narrow[k], v->dim * sizeof(float)}
                                 : (skald_wire_vector){&v->bytes, v->vectors[k], v->dim * sizeof(double)};
    return true;
}

void skald_remote_send_task(skald_coordinator *c, skald_session_state *s, skald_outstanding *o, bool again) {
    const skald_task *t = &o->task;
    Skald__V1__Frame frame = SKALD__V1__FRAME__INIT;
    Skald__V1__Task m = SKALD__V1__TASK__INIT;
    skald_wire_vector vectors[2 * SKALD_MAX_POINTS];
    size_t n = 0;
    m.id = t->id;
    m.kind = t->kind;
    m.shard = t->shard;
    m.position = t->position;
    m.rows = t->rows;
    m.step_rows = t->step_rows;
    m.eta = t->eta;
    m.after = t->after;
    m.theta = t->theta;
    m.n = t->n;
    m.saga = t->saga;
    m.by_version = t->by_version;
    m.by_part = t->by_part;
    m.before = t->before;
    m.points = t->points;
    m.want_gradient = t->want_gradient;
    m.keep_margins = t->keep_margins;
    m.shift = (double *)t->shift;
    m.n_shift = t->kind == SKALD_TASK_SHIFT ? t->points : 0;
    m.acks = s->acks;
    m.n_acks = s->ack_count;
    if (t->model) {
        m.version = t->model->id;
        m.commits = t->model->commits;
        m.model_vectors = t->model->count;
        m.has_model = name_version(s, t->model, again, t->model->narrow[0], vectors, &n);
        m.narrow = m.has_model && t->model->narrow[0];
    }
    if (t->origin) {
        m.origin = t->origin->id;
        m.origin_vectors = t->origin->count;
        m.has_origin = name_version(s, t->origin, again, false, vectors, &n);
    }
    frame.body_case = SKALD__V1__FRAME__BODY_TASK;
    frame.task = &m;
    o->sent_ns = skald_now_ns(c->options->clock);
    if (s->session) s->ack_count = 0;
    skald_coordinator_send(c, s, &frame, vectors, n);
}

static skald_status submit(skald_crew *crew, uint32_t worker, const skald_task *task) {
    skald_coordinator *c = of(crew);
    skald_session_state *s = &c->workers[worker];
    if (!s->alive) return SKALD_OK; /* its loss is on the way */
    if (s->task_count == s->task_capacity) return skald_fail(SKALD_EINTERNAL, "too many tasks for worker %u", worker);
    skald_outstanding *o = &s->tasks[s->task_count++];
    *o = (skald_outstanding){.task = *task};
    skald_task_ref(&o->task);
    skald_remote_send_task(c, s, o, false);
    return SKALD_OK;
}

static void flush_acks(skald_coordinator *c) {
    for (uint32_t k = 0; k < c->joined; k++) {
        skald_session_state *s = &c->workers[k];
        if (!s->ack_count || !s->session) continue;
        Skald__V1__Frame frame = SKALD__V1__FRAME__INIT;
        Skald__V1__Ack m = SKALD__V1__ACK__INIT;
        m.seqs = s->acks;
        m.n_seqs = s->ack_count;
        frame.body_case = SKALD__V1__FRAME__BODY_ACK;
        frame.ack = &m;
        s->ack_count = 0;
        skald_coordinator_send(c, s, &frame, NULL, 0);
    }
}

static void release(skald_crew *crew, skald_result *result) {
    skald_coordinator *c = of(crew);
    skald_result_slot *slot = (skald_result_slot *)(void *)((char *)result - offsetof(skald_result_slot, result));
    skald_rows_free(&result->sample);
    slot->next = c->idle;
    c->idle = slot;
}

/* ---- events ---------------------------------------------------------------------------------------- */

static skald_status on_frame(skald_coordinator *c, skald_input *in, skald_event *event) {
    c->frame_ns = in->arrived_ns;
    skald_session_state *s = skald_coordinator_take(c, in);
    skald_status st = skald_wire_open(c->env, in->frame);
    if (st != SKALD_OK) {
        if (s) skald_door_offence(c, in->session, skald_error());
        if (s)
            skald_coordinator_lose(c, s, skald_error());
        else
            skald_coordinator_refuse(c, in->session, SKALD_EPEER, skald_error());
        return SKALD_AGAIN;
    }
    const Skald__V1__Frame *f = skald_wire_body(c->env);
    if (f->body_case == SKALD__V1__FRAME__BODY_HELLO) {
        skald_members_hello(c, in->session, f->hello);
        if (!s) skald_coordinator_take(c, in); /* it has a seat now */
        return SKALD_AGAIN;
    }
    if (!s) { /* given up: it joins anew, or goes on if its hello is on its way in another session */
        if (!skald_door_seat(in->session))
            skald_coordinator_refuse(c, in->session, SKALD_EPEER, "its first word is no hello");
        else
            skald_net_close(in->session, SKALD_ELOST, "this session was given up");
        return SKALD_AGAIN;
    }
    s->seen_ns = skald_now_ns(c->options->clock);
    switch (f->body_case) {
    case SKALD__V1__FRAME__BODY_RESULT:
        TRY(skald_remote_result(c, s, f->result, &event->result));
        event->kind = SKALD_EVENT_RESULT;
        event->worker = event->result->worker;
        return SKALD_OK;
    case SKALD__V1__FRAME__BODY_HEARTBEAT:
        skald_members_beat(c, s, f->heartbeat);
        return SKALD_AGAIN;
    case SKALD__V1__FRAME__BODY_LOADED:
        if (s->stage == SKALD_STAGE_READY) skald_leases_loaded(c, s, f->loaded);
        return SKALD_AGAIN;
    default:
        if (skald_gather_answer(c, s, f) != SKALD_OK) skald_coordinator_lose(c, s, skald_error());
        return SKALD_AGAIN;
    }
}

skald_status skald_remote_call(skald_coordinator *c, skald_input *in, skald_event *event) {
    skald_status st = skald_wire_open(c->env, in->frame);
    const Skald__V1__Frame *f = st == SKALD_OK ? skald_wire_body(c->env) : NULL;
    bool wants_status = in->method == SKALD_METHOD_STATUS;
    if (in->method == SKALD_METHOD_DRAIN) { /* of ranks, or before there is anything to drain */
        skald_net_reply(in->call, SKALD_EREFUSED, "no worker can leave this run", NULL, 0);
        in->call = NULL;
        return SKALD_AGAIN;
    }
    if (!f || f->body_case !=
                  (wants_status ? SKALD__V1__FRAME__BODY_STATUS_REQUEST : SKALD__V1__FRAME__BODY_FETCH_MODEL_REQUEST)) {
        skald_door_refused(c, skald_net_call_peer(in->call), skald_net_call_identity(in->call), SKALD_EPEER,
                           "not a request of this method");
        skald_net_reply(in->call, SKALD_EPEER, "not a request of this method", NULL, 0);
        in->call = NULL;
        return SKALD_AGAIN;
    }
    event->kind = SKALD_EVENT_REQUEST;
    event->request = !wants_status              ? SKALD_REQUEST_MODEL
                     : f->status_request->audit ? SKALD_REQUEST_AUDIT
                                                : SKALD_REQUEST_STATUS;
    event->newer_than = wants_status ? 0 : f->fetch_model_request->newer_than;
    event->asker = in->call;
    in->call = NULL;
    return SKALD_OK;
}

/* What has to be told before anything else: members that came or went. */
static skald_status change(skald_coordinator *c, skald_event *event) {
    const int64_t now = skald_now_ns(c->options->clock);
    const skald_coordinator_options *o = c->options;
    if (c->over) { /* nobody is waited for any more */
        c->tick_ns = now + SKALD_NS_PER_S;
        return SKALD_AGAIN;
    }
    if (now >= c->tick_ns) {
        c->tick_ns = now + (c->repeat_ns < SKALD_NS_PER_S / 5 ? c->repeat_ns : SKALD_NS_PER_S / 5);
        skald_members_tick(c, now);
        c->unsettled = true; /* leases are asked for again */
    }
    if (c->unsettled) skald_leases_tend(c, now);
    if (c->overflow) return skald_fail(SKALD_EINTERNAL, "too many changes of members at once");
    if (c->alone_ns && o->alone_ns >= 0 && now - c->alone_ns >= o->alone_ns && !c->change_count)
        return skald_fail(SKALD_ELOST, "all workers are gone; the last one: %s", c->change_reason);
    if (!skald_changes_next(c, event)) return SKALD_AGAIN;
    const skald_session_state *s = &c->workers[event->worker];
    if (event->kind == SKALD_EVENT_LOST && o->on_loss == SKALD_LOSS_STOP && !s->leaving)
        return skald_fail(SKALD_ELOST, "worker %u (%s) is gone: %s; %llu rows were with it, so the run ends here",
                          event->worker, s->member.name, event->reason, (unsigned long long)event->rows);
    return SKALD_OK;
}

static skald_status next(skald_crew *crew, int64_t timeout_ns, skald_event *event) {
    skald_coordinator *c = of(crew);
    int64_t until = timeout_ns < 0 ? INT64_MAX : skald_now_ns(c->options->clock) + timeout_ns;
    for (;;) {
        memset(event, 0, sizeof *event);
        skald_input in;
        skald_status st = change(c, event);
        if (st != SKALD_AGAIN) return st;
        st = skald_queue_pop(c->inputs, &in, 0);
        if (st == SKALD_AGAIN) {
            flush_acks(c); /* nobody takes them along: send them before going to sleep */
            int64_t left = until - skald_now_ns(c->options->clock);
            int64_t step = c->tick_ns - skald_now_ns(c->options->clock);
            if (left <= 0) return SKALD_OK;
            st = skald_queue_pop(c->inputs, &in, left < step ? left : step > 0 ? step : 1);
        }
        if (st == SKALD_AGAIN) continue;
        TRY(st);
        switch (in.kind) {
        case SKALD_INPUT_FRAME:
            st = on_frame(c, &in, event);
            break;
        case SKALD_INPUT_CALL:
            st = SKALD_AGAIN;
            if (in.method == SKALD_METHOD_DRAIN)
                skald_members_drain(c, &in);
            else
                st = skald_remote_call(c, &in, event);
            break;
        case SKALD_INPUT_REFUSED:
            skald_coordinator_turned_away(c, in.reason);
            st = SKALD_AGAIN;
            break;
        case SKALD_INPUT_CLOSE:
            skald_coordinator_closed(c, &in);
            st = SKALD_AGAIN;
            break;
        }
        skald_input_drop(&in);
        if (st != SKALD_AGAIN) return st;
    }
}

void skald_coordinator_answer_model(skald_coordinator *c, skald_net_call *call, const skald_version *model,
                                    skald_bytes *owner) {
    Skald__V1__Frame frame = SKALD__V1__FRAME__INIT;
    Skald__V1__Model m = SKALD__V1__MODEL__INIT;
    m.version = model->commits;
    m.term = c->term;
    m.run = c->run;
    m.dim = model->dim;
    m.intercept = c->problem.objective.intercept;
    frame.body_case = SKALD__V1__FRAME__BODY_MODEL;
    frame.model = &m;
    skald_wire_vector vector = {owner, model->vectors[0], model->dim * sizeof(double)};
    skald_wire_reply(call, &frame, &vector, 1, c->headers);
}

static void answer(skald_crew *crew, void *asker, const char *json, skald_version *model) {
    skald_coordinator *c = of(crew);
    Skald__V1__Frame frame = SKALD__V1__FRAME__INIT;
    Skald__V1__StatusReply status = SKALD__V1__STATUS_REPLY__INIT;
    if (json) {
        status.json = (char *)json;
        frame.body_case = SKALD__V1__FRAME__BODY_STATUS_REPLY;
        frame.status_reply = &status;
        skald_wire_reply(asker, &frame, NULL, 0, c->headers);
        return;
    }
    if (!model) {
        skald_net_reply(asker, SKALD_EUNAVAILABLE, "there is no model yet", NULL, 0);
        return;
    }
    skald_coordinator_answer_model(c, asker, model, &model->bytes);
}

static void destroy(skald_crew *crew, skald_status code, const char *reason) {
    skald_coordinator_close(of(crew), code, reason);
}

static void expel(skald_crew *crew, uint32_t worker, const char *reason) {
    skald_coordinator_expel(of(crew), &of(crew)->workers[worker], reason);
}

const skald_crew_ops skald_remote_crew_ops = {size, member, submit, next, release, answer, destroy, expel};
