/* Synchronous runs whose workers are ranks: they train among themselves; the coordinator brings them together, passes
 * on what they report and what others ask, and deals a lost rank's rows to those that live. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/conduct.h"

enum { ALARMS = 3 };

/* So long after a rank complains, its peers' sessions have closed if they are going to. */
static const int64_t GRACE_NS = 2 * SKALD_NS_PER_S;

void skald_conduct_notice(skald_conduct *x, const char *text) {
    if (x->observer && x->observer->notice) x->observer->notice(x->observer->user, text);
}

void skald_conduct_end(skald_conduct *x, skald_status st, const char *error) {
    if (x->over) return;
    x->over = true;
    x->status = st;
    snprintf(x->error, sizeof x->error, "%s", error ? error : "");
}

/* ---- may they? ------------------------------------------------------------------------------------- */

static skald_status can(const skald_coordinator *c) {
    for (uint32_t k = 0; k < c->told; k++) {
        const skald_session_state *s = &c->workers[k];
        if (!s->collective[0])
            return skald_fail(SKALD_EUNSUPPORTED, "worker %u (%s) %s", k, s->member.name,
                              s->no_collective[0] ? s->no_collective : "cannot be a rank");
        if (strcmp(s->collective, c->workers[0].collective) != 0)
            return skald_fail(SKALD_EUNSUPPORTED, "worker %u (%s) has %s, worker 0 %s", k, s->member.name,
                              s->collective, c->workers[0].collective);
        for (uint32_t i = 0; i < k && s->card[0]; i++)
            if (strcmp(s->card, c->workers[i].card) == 0)
                return skald_fail(SKALD_EUNSUPPORTED, "workers %u (%s) and %u (%s) share a card", i,
                                  c->workers[i].member.name, k, s->member.name);
    }
    return SKALD_OK;
}

/* ---- losses ---------------------------------------------------------------------------------------- */

static void recount(skald_conduct *x) {
    skald_coordinator *c = x->c;
    for (uint32_t k = 0; k < c->told; k++)
        skald_conduct_worker(x, k)->member.rows = skald_conduct_worker(x, k)->member.shard_count = 0;
    for (uint32_t s = 0; s < c->problem.shard_count; s++) {
        skald_session_state *h = skald_conduct_worker(x, x->holder[s]);
        h->shards[h->member.shard_count++] = s;
        h->member.rows += c->problem.shards[s].rows;
    }
}

/* The living worker with the fewest rows. */
static uint32_t heir(const skald_conduct *x) {
    uint32_t best = UINT32_MAX;
    for (uint32_t k = 0; k < x->c->told; k++)
        if (skald_conduct_worker(x, k)->alive && (best == UINT32_MAX || skald_conduct_worker(x, k)->member.rows <
                                                                            skald_conduct_worker(x, best)->member.rows))
            best = k;
    return best;
}

/* Ranks stop, rows of the lost are read by others; then all go on as a new group. */
static skald_status begin_round(skald_conduct *x) {
    skald_coordinator *c = x->c;
    x->round++;
    x->fault_ns = 0;
    x->regrouping = true;
    x->naming = x->named = false;
    while (x->leader < c->told && !skald_conduct_worker(x, x->leader)->alive) x->leader++;
    x->stop_sent = false;
    TRY(skald_conduct_send_regroup(x, false));
    for (uint32_t t = 0; t < SKALD_CONDUCT_TICKETS; t++)
        if (x->tickets[t].call) skald_conduct_send_ask(x, &x->tickets[t], false);
    x->loading = 0;
    for (uint32_t s = 0; s < c->problem.shard_count; s++) {
        if (skald_conduct_worker(x, x->holder[s])->alive) {
            x->loading += c->problem.shards[s].facts.rows == 0; /* under way since an earlier loss */
            continue;
        }
        x->holder[s] = heir(x);
        c->problem.shards[s].facts.rows = 0; /* until it is loaded again */
        x->loading++;
        recount(x);
        skald_ask_lease(c, skald_conduct_worker(x, x->holder[s]), s);
    }
    return SKALD_OK;
}

/* Deals with whoever has died since the last time. */
static skald_status tend_losses(skald_conduct *x) {
    skald_coordinator *c = x->c;
    bool any = false;
    char text[500];
    for (uint32_t k = 0; k < c->told; k++) {
        skald_session_state *s = skald_conduct_worker(x, k);
        if (s->alive || x->lost[k]) continue;
        x->lost[k] = any = true;
        unsigned long long rows = s->member.rows;
        const uint32_t first = heir(x);
        if (x->mode[0])
            return skald_fail(SKALD_ELOST, "worker %u (%s) was lost before training began: %s", k, s->member.name,
                              s->lost);
        if (first == UINT32_MAX)
            return skald_fail(SKALD_ELOST, "worker %u (%s) is gone: %s; %llu rows were with it, so the run ends here",
                              k, s->member.name, s->lost, rows);
        snprintf(text, sizeof text, "worker %u (%s) is gone: %.200s; its %llu rows go to the others", k, s->member.name,
                 s->lost, rows);
        skald_conduct_notice(x, text);
    }
    return any ? begin_round(x) : SKALD_OK;
}

static skald_status on_loaded(skald_conduct *x, uint32_t k, const Skald__V1__Loaded *m) {
    skald_problem *p = &x->c->problem;
    if (m->shard >= p->shard_count || x->holder[m->shard] != k || p->shards[m->shard].facts.rows) return SKALD_OK;
    if (m->error[0] || m->rows != p->shards[m->shard].rows)
        return skald_fail(SKALD_ELOST,
                          "shard %u is missing, %llu rows: worker %u (%s) was to take it over from one that is gone, "
                          "and cannot: %s",
                          m->shard, (unsigned long long)p->shards[m->shard].rows, k,
                          skald_conduct_worker(x, k)->member.name,
                          m->error[0] ? m->error : "it read another number of rows");
    p->shards[m->shard].facts.rows = m->rows;
    x->loading--;
    return SKALD_OK;
}

/* ---- inputs ---------------------------------------------------------------------------------------- */

static skald_status on_frame(skald_conduct *x, skald_input *in) {
    skald_coordinator *c = x->c;
    skald_session_state *s = skald_coordinator_take(c, in);
    if (!s) {
        const bool hello = skald_wire_open(c->env, in->frame) == SKALD_OK &&
                           skald_wire_body(c->env)->body_case == SKALD__V1__FRAME__BODY_HELLO;
        skald_coordinator_refuse(c, in->session, hello ? SKALD_EREFUSED : SKALD_EPEER,
                                 hello ? "training has begun without this worker" : "its first word is no hello");
        return SKALD_OK;
    }
    if (!s->alive) return SKALD_OK;
    if (skald_wire_open(c->env, in->frame) != SKALD_OK) {
        skald_door_offence(c, in->session, skald_error());
        skald_coordinator_lose(c, s, skald_error());
        return SKALD_OK;
    }
    s->seen_ns = skald_now_ns(c->options->clock);
    const Skald__V1__Frame *f = skald_wire_body(c->env);
    const uint32_t k = (uint32_t)(s - c->workers);
    switch (f->body_case) {
    case SKALD__V1__FRAME__BODY_MEETING:
        if (k != x->leader || !x->naming || f->meeting->id.len != sizeof x->id) return SKALD_OK;
        memcpy(x->id, f->meeting->id.data, sizeof x->id);
        x->naming = false;
        x->named = true;
        if (x->begun) return SKALD_OK;
        x->begun = true;
        return skald_conduct_send_ranks(x);
    case SKALD__V1__FRAME__BODY_REPORT:
        if (k == x->leader) skald_conduct_report(x, f->report);
        return SKALD_OK;
    case SKALD__V1__FRAME__BODY_ANSWER:
        if (k == x->leader) skald_conduct_answer(x, f->answer);
        return SKALD_OK;
    case SKALD__V1__FRAME__BODY_LOADED:
        return on_loaded(x, k, f->loaded);
    case SKALD__V1__FRAME__BODY_FAULT:
        if (!x->fault_ns && !x->regrouping) {
            x->fault_ns = skald_now_ns(c->options->clock);
            snprintf(x->fault, sizeof x->fault, "worker %u (%s): %.200s", k, s->member.name, f->fault->error);
        }
        return SKALD_OK;
    case SKALD__V1__FRAME__BODY_DONE:
        return x->begun ? skald_conduct_done(x, s, f->done) : SKALD_OK;
    case SKALD__V1__FRAME__BODY_HEARTBEAT:
        skald_members_judge(c, s, f->heartbeat);
        return SKALD_OK;
    default:
        return SKALD_OK; /* repetitions */
    }
}

static void on_call(skald_conduct *x, skald_input *in) {
    skald_coordinator *c = x->c;
    skald_event event = {0};
    if (skald_remote_call(c, in, &event) != SKALD_OK) return;
    for (uint32_t k = 0; k < SKALD_CONDUCT_TICKETS; k++) {
        if (x->tickets[k].call) continue;
        x->tickets[k] = (skald_conduct_ticket){event.asker, event.request, ++x->next_ticket};
        skald_conduct_send_ask(x, &x->tickets[k], false);
        return;
    }
    skald_net_reply(event.asker, SKALD_EUNAVAILABLE, "too many questions at once", NULL, 0);
}

static skald_status tend(skald_conduct *x, const atomic_int *stop_flag) {
    skald_coordinator *c = x->c;
    const int64_t now = skald_now_ns(c->options->clock);
    for (uint32_t k = 0; k < c->told; k++)
        if (skald_conduct_worker(x, k)->alive && now - skald_conduct_worker(x, k)->seen_ns > c->timeout_ns)
            skald_coordinator_lose(c, skald_conduct_worker(x, k), "no sign of life");
    TRY(tend_losses(x));
    if (x->regrouping && !x->loading && !x->named && !x->naming) skald_conduct_send_meeting(x);
    if (x->regrouping && !x->loading && x->named) {
        x->regrouping = false;
        TRY(skald_conduct_send_regroup(x, true));
    }
    if (x->fault_ns && now - x->fault_ns > GRACE_NS) {
        if (x->mode[0] || ++x->alarms > ALARMS)
            return skald_fail(SKALD_ELOST, "the ranks lost each other, though all of them are alive: %s", x->fault);
        char text[500];
        snprintf(text, sizeof text, "the ranks lost each other: %s; they try again", x->fault);
        skald_conduct_notice(x, text);
        TRY(begin_round(x));
    }
    if (stop_flag && *stop_flag && x->begun && !x->stop_sent) {
        x->stop_sent = true;
        skald_conduct_send_ask(x, NULL, true);
    }
    return SKALD_OK;
}

static skald_status loop(skald_conduct *x, const atomic_int *stop_flag) {
    skald_coordinator *c = x->c;
    skald_conduct_send_meeting(x);
    while (!x->over) {
        skald_input in;
        skald_status st = skald_queue_pop(c->inputs, &in, SKALD_NS_PER_S / 20);
        if (st == SKALD_OK) {
            if (in.kind == SKALD_INPUT_FRAME) st = on_frame(x, &in);
            if (in.kind == SKALD_INPUT_CALL) on_call(x, &in);
            if (in.kind == SKALD_INPUT_REFUSED) skald_coordinator_turned_away(c, in.reason);
            if (in.kind == SKALD_INPUT_CLOSE) skald_coordinator_closed(c, &in);
            skald_input_drop(&in);
            TRY(st);
        }
        if (!x->over) TRY(tend(x, stop_flag));
    }
    return x->status == SKALD_OK ? SKALD_OK : skald_fail(x->status, "%s", x->error);
}

skald_status skald_remote_conduct(skald_crew *crew, const skald_train_options *options, const skald_observer *observer,
                                  const atomic_int *stop_flag, skald_outcome *outcome) {
    skald_conduct x = {.c = (skald_coordinator *)crew, .options = options, .observer = observer, .outcome = outcome};
    const uint32_t shards = x.c->problem.shard_count, workers = x.c->told;
    TRY(can(x.c));
    for (uint32_t k = workers; k < x.c->told; k++)
        skald_coordinator_lose(x.c, &x.c->workers[k], "training has begun without this worker");
    outcome->audit_drift = -1;
    x.holder = skald_zalloc(shards, sizeof *x.holder);
    x.lost = skald_zalloc(workers, sizeof *x.lost);
    skald_status st = x.holder && x.lost ? SKALD_OK : SKALD_ENOMEM;
    if (st == SKALD_OK) {
        for (uint32_t k = 0; k < workers; k++)
            for (uint32_t i = 0; i < skald_conduct_worker(&x, k)->member.shard_count; i++)
                x.holder[skald_conduct_worker(&x, k)->shards[i]] = k;
        snprintf(x.mode, sizeof x.mode, "synchronous over %s: %u rank%s", x.c->workers[0].collective, workers,
                 workers == 1 ? "" : "s");
        st = loop(&x, stop_flag);
    }
    for (uint32_t k = 0; k < SKALD_CONDUCT_TICKETS; k++)
        if (x.tickets[k].call) skald_net_reply(x.tickets[k].call, SKALD_EUNAVAILABLE, "the run has ended", NULL, 0);
    free(x.holder);
    free(x.lost);
    return st;
}
