/* Workers come, break off, come back, and go.
 *
 * A worker is one incarnation of a seat. While the coordinator holds it, a broken session may be taken up again: what
 * was not acknowledged is sent again at both ends, and nothing else has changed. Once it is given up, whoever comes in
 * its name is new. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/state.h"

static uint32_t number(const skald_coordinator *c, const skald_session_state *s) {
    return (uint32_t)(s - c->workers);
}

/* ---- coming ---------------------------------------------------------------------------------------------- */

/* A worker is called as its certificate says, or NAME:something, as HOST:PID is. */
static bool entitled(const char *identity, const char *name) {
    if (!identity) return true;
    const size_t n = strlen(identity);
    return strncmp(identity, name, n) == 0 && (name[n] == '\0' || name[n] == ':');
}

static bool within_this_machine(const skald_net_session *session) {
    const char *peer = skald_net_peer(session);
    return strncmp(peer, "unix:", 5) == 0 || strncmp(peer, "ipv4:127.", 9) == 0 ||
           strncmp(peer, "ipv6:%5B::1", 11) == 0 || strncmp(peer, "ipv6:[::1]", 10) == 0 ||
           strncmp(peer, "inproc:", 7) == 0;
}

static void attach(skald_coordinator *c, skald_session_state *s, skald_net_session *session) {
    s->session = skald_net_session_ref(session);
    skald_net_set_user(session, s);
    s->local = within_this_machine(session);
    s->broken_ns = 0;
    s->seen_ns = skald_now_ns(c->options->clock);
}

static void detach(skald_session_state *s, skald_status code, const char *reason) {
    if (!s->session) return;
    skald_net_close(s->session, code, reason);
    skald_net_session_unref(s->session);
    s->session = NULL;
}

/* It was here before, and is held: it goes on. */
static void resume(skald_coordinator *c, skald_session_state *s, skald_net_session *session) {
    detach(s, SKALD_ELOST, "another session of this worker has taken over");
    attach(c, s, session);
    skald_coordinator_notice(c, "worker %u (%s) is back", number(c, s), s->member.name);
    skald_shelf_clear(&s->shelf); /* as at the worker: what was on its way may not have come */
    skald_ask_welcome(c, s, true);
    skald_ask_stage(c, s);
    for (uint32_t t = 0; t < s->task_count; t++) skald_remote_send_task(c, s, &s->tasks[t], true);
    c->unsettled = true;
}

/* The first seat that nobody has, and that the engine does not think of as taken. */
static skald_session_state *free_seat(skald_coordinator *c) {
    for (uint32_t k = 0; k < c->crew.most; k++)
        if (!c->workers[k].alive && !c->workers[k].known) return &c->workers[k];
    return NULL;
}

void skald_members_clear(skald_session_state *s) {
    free(s->tasks);
    free(s->shards);
    free(s->held);
    *s = (skald_session_state){0};
}

/* A new worker with the name of one whose session broke: that process is gone. */
static void bury(skald_coordinator *c, const char *name) {
    for (uint32_t k = 0; k < c->joined; k++) {
        skald_session_state *s = &c->workers[k];
        if (s->alive && s->broken_ns && strcmp(s->member.name, name) == 0)
            skald_coordinator_lose(c, s, "it was started again");
    }
}

static skald_status admit(skald_coordinator *c, skald_net_session *session, const Skald__V1__Hello *m) {
    const uint32_t slots = m->slots < 1 ? 1 : m->slots > 1024 ? 1024 : m->slots, depth = 2;
    skald_session_state *s = free_seat(c);
    if (!s)
        return skald_fail(SKALD_EREFUSED, "the run has its %u workers already (--workers, --max-workers)",
                          c->crew.most);
    skald_members_clear(s);
    s->tasks = skald_zalloc(slots * depth + 1, sizeof *s->tasks);
    s->task_capacity = slots * depth + 1;
    if (c->ready) s->shards = skald_zalloc(c->problem.shard_count, sizeof *s->shards);
    if (!s->tasks || (c->ready && !s->shards)) return skald_fail(SKALD_ENOMEM, "out of memory");
    if (number(c, s) >= c->joined) c->joined = number(c, s) + 1;
    attach(c, s, session);
    s->alive = true;
    c->came_ns = skald_now_ns(c->options->clock);
    s->incarnation = ++c->next_incarnation;
    snprintf(s->member.name, sizeof s->member.name, "%s", m->name);
    snprintf(s->member.device, sizeof s->member.device, "%s", m->device);
    snprintf(s->collective, sizeof s->collective, "%s", m->collective);
    snprintf(s->no_collective, sizeof s->no_collective, "%s", m->no_collective);
    snprintf(s->card, sizeof s->card, "%s", m->card);
    s->member.slots = slots;
    s->member.depth = depth;
    s->member.shards = s->shards;
    skald_legacy_hear(c, s, m);
    if (!c->ready && number(c, s) < c->expected)
        skald_coordinator_notice(c, "worker %u of %u joined: %s (%s, %s)", number(c, s) + 1, c->expected,
                                 s->member.name, s->member.device, skald_net_peer(session));
    else
        skald_coordinator_notice(c, "worker %u comes: %s (%s, %s)", number(c, s), s->member.name, s->member.device,
                                 skald_net_peer(session));
    skald_ask_welcome(c, s, false);
    skald_ask_stage(c, s);
    return SKALD_OK;
}

void skald_members_hello(skald_coordinator *c, skald_net_session *session, const Skald__V1__Hello *m) {
    char reason[300];
    if (c->over) {
        skald_net_close(session, SKALD_OK, "the run is over");
        return;
    }
    skald_session_state *s = skald_coordinator_find(c, session);
    if (s) { /* a repetition: its welcome was lost */
        skald_ask_welcome(c, s, m->incarnation == s->incarnation);
        return;
    }
    if (m->protocol != SKALD_PROTOCOL) {
        snprintf(reason, sizeof reason,
                 "worker %.60s (skald %.20s) speaks protocol %u, this coordinator (skald %s) %u: use the same version",
                 m->name, m->build, m->protocol, SKALD_VERSION, SKALD_PROTOCOL);
        skald_coordinator_refuse(c, session, SKALD_EVERSION, reason);
        return;
    }
    if (!entitled(skald_net_identity(session), m->name)) {
        snprintf(reason, sizeof reason, "a worker with the certificate of '%.100s' calls itself '%.60s'",
                 skald_net_identity(session), m->name);
        skald_coordinator_refuse(c, session, SKALD_EPEER, reason);
        return;
    }
    for (uint32_t k = 0; m->incarnation && k < c->joined; k++) {
        s = &c->workers[k];
        if (!s->alive || s->incarnation != m->incarnation || m->term != c->term || strcmp(m->run, c->run) != 0 ||
            strcmp(m->name, s->member.name) != 0)
            continue;
        resume(c, s, session);
        return;
    }
    if (!m->incarnation) bury(c, m->name);
    skald_status st = admit(c, session, m);
    if (st != SKALD_OK) {
        snprintf(reason, sizeof reason, "%s", skald_error());
        skald_coordinator_refuse(c, session, st, reason);
    }
}

/* ---- going ----------------------------------------------------------------------------------------------- */

static void answer_drain(skald_coordinator *c, skald_session_state *s, const char *refusal) {
    if (!s->drain) return;
    if (refusal) {
        skald_net_reply(s->drain, SKALD_ELOST, refusal, NULL, 0);
    } else {
        char json[200], name[64];
        snprintf(name, sizeof name, "%s", s->member.name);
        for (char *p = name; *p; p++)
            if (*p == '"' || *p == '\\' || (unsigned char)*p < 0x20) *p = '?';
        snprintf(json, sizeof json, "{\"worker\":%u,\"name\":\"%s\",\"state\":\"left\"}", number(c, s), name);
        c->crew.ops->answer(&c->crew, s->drain, json, NULL);
    }
    s->drain = NULL;
}

void skald_coordinator_lose(skald_coordinator *c, skald_session_state *s, const char *reason) {
    if (!s->alive) return;
    s->alive = false;
    snprintf(s->lost, sizeof s->lost, "%s", reason);
    for (uint32_t k = 0; k < s->task_count; k++) skald_task_unref(&s->tasks[k].task);
    s->task_count = 0;
    detach(s, SKALD_ELOST, s->lost);
    answer_drain(c, s, s->lost);
    skald_leases_lose(c, number(c, s));
    if (s->known) skald_changes_note(c, SKALD_EVENT_LOST, number(c, s), 0, s->lost);
    c->unsettled = true;
}

void skald_coordinator_expel(skald_coordinator *c, skald_session_state *s, const char *reason) {
    detach(s, SKALD_EREFUSED, reason);
    skald_coordinator_lose(c, s, reason);
}

void skald_members_close(skald_coordinator *c, skald_session_state *s, const skald_input *in) {
    if (c->over) return; /* sent home: nothing is lost */
    const int64_t asked = c->options->reconnect_grace_ns;
    const int64_t grace = asked ? asked : s->local ? -1 : 10 * SKALD_NS_PER_S;
    /* a last word, or a process that is dead, will not be followed by a new session of the same worker */
    if (in->code != SKALD_ELOST || grace < 0 || !c->ready) {
        s->broke = in->code == SKALD_ELOST;
        skald_coordinator_lose(c, s, in->reason);
        return;
    }
    detach(s, SKALD_ELOST, in->reason);
    s->broken_ns = skald_now_ns(c->options->clock);
    skald_coordinator_notice(c, "worker %u (%s): the connection broke (%s); it may come back within %.3g s",
                             number(c, s), s->member.name, in->reason, (double)grace * 1e-9);
}

static skald_session_state *named(skald_coordinator *c, const char *worker) {
    char *end = NULL;
    const unsigned long k = strtoul(worker, &end, 10);
    if (*worker && !*end && k < c->joined && c->workers[k].alive) return &c->workers[k];
    for (uint32_t i = 0; i < c->joined; i++)
        if (c->workers[i].alive && strcmp(c->workers[i].member.name, worker) == 0) return &c->workers[i];
    return NULL;
}

static uint32_t staying(const skald_coordinator *c) {
    uint32_t count = 0;
    for (uint32_t k = 0; k < c->joined; k++)
        count += c->workers[k].alive && c->workers[k].stage == SKALD_STAGE_READY && !c->workers[k].leaving;
    return count;
}

static void let_leave(skald_coordinator *c, skald_session_state *s) {
    skald_coordinator_notice(c, "worker %u (%s) is to leave: its %llu rows go to others", number(c, s), s->member.name,
                             (unsigned long long)s->member.rows);
    s->leaving = true;
    skald_leases_vacate(c, number(c, s));
}

void skald_members_drain(skald_coordinator *c, skald_input *in) {
    char reason[300] = "";
    const Skald__V1__Frame *f = skald_wire_open(c->env, in->frame) == SKALD_OK ? skald_wire_body(c->env) : NULL;
    const bool asked = f && f->body_case == SKALD__V1__FRAME__BODY_DRAIN_REQUEST;
    skald_session_state *s = asked ? named(c, f->drain_request->worker) : NULL;
    if (!asked)
        snprintf(reason, sizeof reason, "not a request of this method");
    else if (!s)
        snprintf(reason, sizeof reason, "there is no worker '%.60s'; 'skald status' lists them",
                 f->drain_request->worker);
    else if (s->stage != SKALD_STAGE_READY)
        snprintf(reason, sizeof reason, "worker '%.60s' is still on its way in", s->member.name);
    else if (s->leaving)
        snprintf(reason, sizeof reason, "worker '%.60s' is leaving already", s->member.name);
    else if (staying(c) == 1)
        snprintf(reason, sizeof reason, "worker '%.60s' is the only one: nobody could take over its rows",
                 s->member.name);
    if (reason[0]) {
        skald_net_reply(in->call, SKALD_EREFUSED, reason, NULL, 0);
    } else {
        s->drain = in->call;
        let_leave(c, s);
    }
    in->call = NULL;
}

void skald_members_left(skald_coordinator *c) {
    for (uint32_t k = 0; k < c->joined; k++) {
        skald_session_state *s = &c->workers[k];
        if (!s->alive || !s->leaving || s->task_count || s->broken_ns || skald_leases_any(c, k)) continue;
        skald_ask_to_go(c, s, "drained");
        answer_drain(c, s, NULL);
        skald_coordinator_lose(c, s, "drained");
    }
}

/* ---- signs of life --------------------------------------------------------------------------------------- */

void skald_members_beat(skald_coordinator *c, skald_session_state *s, const Skald__V1__Heartbeat *m) {
    if (m->leaving && !s->leaving && s->stage == SKALD_STAGE_READY) {
        if (staying(c) > 1) {
            let_leave(c, s);
        } else { /* nobody could take over */
            skald_ask_to_go(c, s, "told to end");
            skald_coordinator_lose(c, s, "it was told to end");
            return;
        }
    }
    skald_members_judge(c, s, m);
}

void skald_members_judge(skald_coordinator *c, skald_session_state *s, const Skald__V1__Heartbeat *m) {
    const double least = (double)(c->options->overdue_ns > 0 ? c->options->overdue_ns : 30 * SKALD_NS_PER_S);
    char reason[200];
    for (size_t k = 0; s->alive && k < m->n_busy_ns && k < m->n_usual_ns; k++) {
        const double usual = m->usual_ns[k] ? (double)m->usual_ns[k] : least;
        if ((double)m->busy_ns[k] <= fmax(least, 20 * usual)) continue;
        snprintf(reason, sizeof reason, "it is alive, but its task does not end: nothing done for %.3g s",
                 (double)m->busy_ns[k] * 1e-9);
        skald_coordinator_lose(c, s, reason);
    }
}

static void watch(skald_coordinator *c, skald_session_state *s, int64_t now_ns) {
    char reason[200];
    const int64_t asked = c->options->reconnect_grace_ns, grace = asked > 0 ? asked : 10 * SKALD_NS_PER_S;
    if (s->broken_ns && now_ns - s->broken_ns > grace) {
        snprintf(reason, sizeof reason, "its connection broke, and it did not come back within %.3g s",
                 (double)grace * 1e-9);
        skald_coordinator_lose(c, s, reason);
    } else if (now_ns - s->seen_ns > c->timeout_ns) {
        snprintf(reason, sizeof reason, "no sign of life for %.3g s", (double)(now_ns - s->seen_ns) * 1e-9);
        skald_coordinator_lose(c, s, reason);
    }
}

void skald_members_tick(skald_coordinator *c, int64_t now_ns) {
    /* this process was stopped itself, or busy: nobody could be heard meanwhile */
    const int64_t gap = c->ticked_ns ? now_ns - c->ticked_ns : 0;
    const int64_t deaf = gap > c->timeout_ns / 4 ? gap : 0;
    c->ticked_ns = now_ns;
    bool anybody = false;
    for (uint32_t k = 0; k < c->joined; k++) {
        skald_session_state *s = &c->workers[k];
        if (!s->alive) continue;
        s->seen_ns += deaf;
        if (s->broken_ns) s->broken_ns += deaf;
        watch(c, s, now_ns);
        if (!s->alive) continue;
        anybody = true;
        if (!s->session) continue;
        if (now_ns - s->asked_ns >= c->repeat_ns) skald_ask_stage(c, s);
        for (uint32_t t = 0; t < s->task_count; t++)
            if (now_ns - s->tasks[t].sent_ns >= c->repeat_ns) skald_remote_send_task(c, s, &s->tasks[t], true);
    }
    if (anybody)
        c->alone_ns = 0;
    else if (!c->alone_ns)
        c->alone_ns = now_ns;
}
