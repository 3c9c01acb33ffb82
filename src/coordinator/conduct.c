/* Synchronous runs whose workers are ranks: they train among themselves; the coordinator brings them together, passes
 * on what they report and what others ask, and deals a lost rank's rows to those that live. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/state.h"
#include "skald/train.h"

enum { TICKETS = 64, ALARMS = 3 };

/* So long after a rank complains, its peers' sessions have closed if they are going to. */
static const int64_t GRACE_NS = 2 * SKALD_NS_PER_S;

typedef struct ticket {
    skald_net_call *call; /* NULL: free */
    skald_request_kind request;
    uint64_t id;
} ticket;

typedef struct conduct {
    skald_coordinator *c;
    const skald_train_options *options;
    const skald_observer *observer;
    skald_outcome *outcome;
    bool over;
    skald_status status; /* once over */
    char error[600];
    char mode[400]; /* to be told once L is known, which the run log's first line has */
    uint8_t id[SKALD_COLLECTIVE_ID];
    bool named, naming;      /* id is the next group's; the leader has been asked for it */
    bool begun;              /* ranks know who they are */
    uint32_t leader;         /* the first living rank */
    uint32_t *holder;        /* by shard */
    bool *lost;              /* by worker: dealt with */
    uint32_t round, loading; /* leases of the lost that are under way */
    bool regrouping, stop_sent;
    int64_t fault_ns; /* a rank complained then, and nobody is known to be lost; 0: not */
    uint32_t alarms;  /* complaints without a loss */
    char fault[300];
    ticket tickets[TICKETS];
    uint64_t next_ticket;
} conduct;

static skald_session_state *worker(const conduct *x, uint32_t k) {
    return &x->c->workers[k];
}

static void notice(conduct *x, const char *text) {
    if (x->observer && x->observer->notice) x->observer->notice(x->observer->user, text);
}

static void end(conduct *x, skald_status st, const char *error) {
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

/* ---- messages to ranks ----------------------------------------------------------------------------- */

static void pack_options(const skald_train_options *o, Skald__V1__TrainOptions *m) {
    skald__v1__train_options__init(m);
    m->algo = o->algo;
    m->step = o->step;
    m->step_decay = o->step_decay;
    m->step_rows = o->step_rows;
    m->task_rows = o->task_rows;
    m->local = o->local;
    m->theta = o->theta;
    m->stale = o->stale;
    m->max_stale = o->max_stale;
    m->q_cap = o->q_cap;
    m->target_gap = o->target_gap;
    m->target_gradient = o->target_gradient;
    m->max_passes = o->max_passes;
    m->max_seconds = o->max_seconds;
    m->max_updates = o->max_updates;
    m->has_target_objective = o->has_target_objective;
    m->target_objective = o->target_objective;
    m->target_tolerance = o->target_tolerance;
    m->audit = o->audit;
    m->eval_every = o->eval_every;
}

/* Everybody learns who is who; training begins. */
static skald_status send_ranks(conduct *x) {
    skald_coordinator *c = x->c;
    const skald_problem *p = &c->problem;
    Skald__V1__Frame frame = SKALD__V1__FRAME__INIT;
    Skald__V1__Ranks m = SKALD__V1__RANKS__INIT;
    Skald__V1__TrainOptions options;
    Skald__V1__RankMember *members = skald_zalloc(c->told, sizeof *members);
    Skald__V1__RankMember **list = skald_zalloc(c->told, sizeof(Skald__V1__RankMember *));
    uint64_t *rows = skald_alloc(p->shard_count, sizeof *rows);
    skald_status st = members && list && rows ? SKALD_OK : SKALD_ENOMEM;
    pack_options(x->options, &options);
    for (uint32_t k = 0; st == SKALD_OK && k < c->told; k++) {
        skald__v1__rank_member__init(&members[k]);
        members[k].name = c->workers[k].member.name;
        members[k].device = c->workers[k].member.device;
        list[k] = &members[k];
    }
    for (uint32_t s = 0; st == SKALD_OK && s < p->shard_count; s++) {
        rows[s] = p->shards[s].rows;
        m.sum_weighted_y2 += p->shards[s].facts.sum_weighted_y2;
    }
    m.id = (ProtobufCBinaryData){sizeof x->id, x->id};
    m.members = list;
    m.n_members = c->told;
    m.rows = rows;
    m.n_rows = p->shard_count;
    m.holder = x->holder;
    m.n_holder = p->shard_count;
    m.nonzeros = p->nonzeros;
    m.dense = p->dense;
    m.l_max = p->L_max;
    m.options = &options;
    frame.body_case = SKALD__V1__FRAME__BODY_RANKS;
    frame.ranks = &m;
    for (uint32_t k = 0; st == SKALD_OK && k < c->told; k++) {
        m.worker = k;
        skald_coordinator_send(c, worker(x, k), &frame, NULL, 0);
    }
    free(members);
    free(list);
    free(rows);
    return st;
}

static void send_meeting(conduct *x) {
    Skald__V1__Frame frame = SKALD__V1__FRAME__INIT;
    Skald__V1__Meeting m = SKALD__V1__MEETING__INIT;
    frame.body_case = SKALD__V1__FRAME__BODY_MEETING;
    frame.meeting = &m;
    x->naming = true;
    x->named = false;
    skald_coordinator_send(x->c, worker(x, x->leader), &frame, NULL, 0);
}

static void send_ask(conduct *x, const ticket *t, bool stop) {
    Skald__V1__Frame frame = SKALD__V1__FRAME__INIT;
    Skald__V1__Ask m = SKALD__V1__ASK__INIT;
    m.ticket = t ? t->id : 0;
    m.kind = t ? t->request : 0;
    m.stop = stop;
    frame.body_case = SKALD__V1__FRAME__BODY_ASK;
    frame.ask = &m;
    skald_coordinator_send(x->c, worker(x, x->leader), &frame, NULL, 0);
}

static skald_status send_regroup(conduct *x, bool go) {
    skald_coordinator *c = x->c;
    Skald__V1__Frame frame = SKALD__V1__FRAME__INIT;
    Skald__V1__Regroup m = SKALD__V1__REGROUP__INIT;
    uint32_t *lost = skald_alloc(c->told, sizeof *lost);
    if (!lost) return SKALD_ENOMEM;
    for (uint32_t k = 0; k < c->told; k++)
        if (x->lost[k]) lost[m.n_lost++] = k;
    m.lost = lost;
    m.round = x->round;
    m.holder = x->holder;
    if (go) {
        m.n_holder = c->problem.shard_count;
        m.id = (ProtobufCBinaryData){sizeof x->id, x->id};
    }
    frame.body_case = SKALD__V1__FRAME__BODY_REGROUP;
    frame.regroup = &m;
    for (uint32_t k = 0; k < c->told; k++) skald_coordinator_send(c, worker(x, k), &frame, NULL, 0);
    free(lost);
    return SKALD_OK;
}

/* ---- losses ---------------------------------------------------------------------------------------- */

static void recount(conduct *x) {
    skald_coordinator *c = x->c;
    for (uint32_t k = 0; k < c->told; k++) worker(x, k)->member.rows = worker(x, k)->member.shard_count = 0;
    for (uint32_t s = 0; s < c->problem.shard_count; s++) {
        skald_session_state *h = worker(x, x->holder[s]);
        h->shards[h->member.shard_count++] = s;
        h->member.rows += c->problem.shards[s].rows;
    }
}

/* The living worker with the fewest rows. */
static uint32_t heir(const conduct *x) {
    uint32_t best = UINT32_MAX;
    for (uint32_t k = 0; k < x->c->told; k++)
        if (worker(x, k)->alive && (best == UINT32_MAX || worker(x, k)->member.rows < worker(x, best)->member.rows))
            best = k;
    return best;
}

/* Ranks stop, rows of the lost are read by others; then all go on as a new group. */
static skald_status begin_round(conduct *x) {
    skald_coordinator *c = x->c;
    x->round++;
    x->fault_ns = 0;
    x->regrouping = true;
    x->naming = x->named = false;
    while (x->leader < c->told && !worker(x, x->leader)->alive) x->leader++;
    x->stop_sent = false;
    TRY(send_regroup(x, false));
    for (uint32_t t = 0; t < TICKETS; t++)
        if (x->tickets[t].call) send_ask(x, &x->tickets[t], false);
    x->loading = 0;
    for (uint32_t s = 0; s < c->problem.shard_count; s++) {
        if (worker(x, x->holder[s])->alive) {
            x->loading += c->problem.shards[s].facts.rows == 0; /* under way since an earlier loss */
            continue;
        }
        x->holder[s] = heir(x);
        c->problem.shards[s].facts.rows = 0; /* until it is loaded again */
        x->loading++;
        recount(x);
        skald_ask_lease(c, worker(x, x->holder[s]), s);
    }
    return SKALD_OK;
}

/* Deals with whoever has died since the last time. */
static skald_status tend_losses(conduct *x) {
    skald_coordinator *c = x->c;
    bool any = false;
    char text[500];
    for (uint32_t k = 0; k < c->told; k++) {
        skald_session_state *s = worker(x, k);
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
        notice(x, text);
    }
    return any ? begin_round(x) : SKALD_OK;
}

static skald_status on_loaded(conduct *x, uint32_t k, const Skald__V1__Loaded *m) {
    skald_problem *p = &x->c->problem;
    if (m->shard >= p->shard_count || x->holder[m->shard] != k || p->shards[m->shard].facts.rows) return SKALD_OK;
    if (m->error[0] || m->rows != p->shards[m->shard].rows)
        return skald_fail(SKALD_ELOST,
                          "%llu rows are missing: worker %u (%s) was to take them over from one that is "
                          "gone, and cannot: %s",
                          (unsigned long long)p->shards[m->shard].rows, k, worker(x, k)->member.name,
                          m->error[0] ? m->error : "it read another number of rows");
    p->shards[m->shard].facts.rows = m->rows;
    x->loading--;
    return SKALD_OK;
}

/* ---- reports --------------------------------------------------------------------------------------- */

static skald_evaluation unpack_evaluation(const Skald__V1__Evaluation *m) {
    return (skald_evaluation){.passes = m->passes,
                              .seconds = m->seconds,
                              .train_seconds = m->train_seconds,
                              .commits = m->commits,
                              .updates = m->updates,
                              .objective = m->objective,
                              .gap = m->gap,
                              .relative_gap = m->relative_gap,
                              .gradient_norm = m->gradient_norm,
                              .accuracy = m->accuracy,
                              .average = m->average};
}

static void learn_L(conduct *x, double L) {
    if (!(L > 0)) return;
    x->c->problem.L = L;
    if (x->mode[0]) notice(x, x->mode);
    x->mode[0] = '\0';
}

static void on_report(conduct *x, const Skald__V1__Report *m) {
    const skald_observer *o = x->observer;
    learn_L(x, m->l);
    if (m->notice[0]) notice(x, m->notice);
    if (m->evaluation && o && o->evaluation) {
        skald_evaluation e = unpack_evaluation(m->evaluation);
        o->evaluation(o->user, &e);
    }
    if (m->progress && o && o->progress) {
        const Skald__V1__Progress *q = m->progress;
        skald_progress p = {.seconds = q->seconds,
                            .passes = q->passes,
                            .rows_per_s = q->rows_per_s,
                            .updates_per_s = q->updates_per_s,
                            .estimated_objective = q->estimated_objective,
                            .last_objective = q->last_objective,
                            .last_gap = q->last_gap,
                            .commits = q->commits,
                            .workers = x->c->told,
                            .slowest = q->slowest < x->c->told ? q->slowest : UINT32_MAX,
                            .slowest_ratio = q->slowest_ratio};
        if (p.slowest != UINT32_MAX)
            snprintf(p.slowest_name, sizeof p.slowest_name, "%s", worker(x, p.slowest)->member.name);
        o->progress(o->user, &p);
    }
}

static skald_status fill(conduct *x, const Skald__V1__Done *m) {
    skald_coordinator *c = x->c;
    skald_outcome *o = x->outcome;
    if (!m->last || m->n_workers != c->told || m->stop > SKALD_STOP_INTERRUPTED)
        return skald_fail(SKALD_EPEER, "a rank's report of the end makes no sense");
    *o = (skald_outcome){.stop = (skald_stop)m->stop,
                         .reached = m->reached,
                         .last = unpack_evaluation(m->last),
                         .seconds = m->seconds,
                         .train_seconds = m->train_seconds,
                         .passes = m->passes,
                         .rows_per_s = m->rows_per_s,
                         .updates = m->updates,
                         .commits = m->commits,
                         .folded = m->folded,
                         .rollbacks = m->rollbacks,
                         .evaluations = m->evaluations,
                         .step = m->step,
                         .theta = m->theta,
                         .step_rows = m->step_rows,
                         .task_rows = m->task_rows,
                         .audit_drift = m->audit_drift};
    o->workers = skald_zalloc(c->told, sizeof *o->workers);
    o->w = skald_zalloc(skald_problem_length(&c->problem), sizeof *o->w);
    if (!o->workers || !o->w) return SKALD_ENOMEM;
    o->worker_count = c->told;
    for (uint32_t k = 0; k < c->told; k++) {
        const skald_member *member = c->crew.ops->member(&c->crew, k);
        const Skald__V1__WorkerRow *q = m->workers[k];
        o->workers[k] = (skald_worker_row){.alive = q->alive,
                                           .shards = q->shards,
                                           .slots = 1,
                                           .rows_held = q->rows_held,
                                           .tasks = q->tasks,
                                           .rows = q->rows,
                                           .task_ms_mean = q->task_ms,
                                           .wait_ms_mean = q->wait_ms,
                                           .waited_s = q->waited_s,
                                           .compute_ms_mean = q->compute_ms,
                                           .network_ms_mean = q->network_ms,
                                           .bytes_sent = member->bytes_sent,
                                           .bytes_received = member->bytes_received};
        snprintf(o->workers[k].name, sizeof o->workers[k].name, "%s", member->name);
        snprintf(o->workers[k].device, sizeof o->workers[k].device, "%s", member->device);
    }
    return skald_wire_doubles(c->env, 0, o->w, skald_problem_length(&c->problem));
}

static skald_status on_done(conduct *x, skald_session_state *s, const Skald__V1__Done *m) {
    learn_L(x, m->l);
    if (m->status == SKALD_OK) {
        skald_outcome_free(x->outcome);
        TRY(fill(x, m));
        end(x, SKALD_OK, NULL);
    } else if (m->alone) {
        skald_coordinator_lose(x->c, s, m->error);
    } else {
        end(x, (skald_status)m->status, m->error);
    }
    return SKALD_OK;
}

static void on_answer(conduct *x, const Skald__V1__Answer *m) {
    skald_coordinator *c = x->c;
    ticket *t = NULL;
    for (uint32_t k = 0; k < TICKETS; k++)
        if (x->tickets[k].call && x->tickets[k].id == m->ticket) t = &x->tickets[k];
    if (!t) return;
    if (t->request != SKALD_REQUEST_MODEL || skald_wire_vector_bytes(c->env, 0) == 0) {
        c->crew.ops->answer(&c->crew, t->call, t->request == SKALD_REQUEST_MODEL ? NULL : m->json, NULL);
    } else {
        const size_t bytes = skald_problem_length(&c->problem) * sizeof(double);
        skald_bytes *w = skald_bytes_create(bytes);
        skald_version version = {.commits = m->version, .count = 1, .dim = skald_problem_length(&c->problem)};
        if (w && skald_wire_read(c->env, 0, 0, skald_bytes_data(w), bytes) == SKALD_OK) {
            version.vectors[0] = (const double *)(const void *)w->data;
            skald_coordinator_answer_model(c, t->call, &version, w);
        } else {
            c->crew.ops->answer(&c->crew, t->call, NULL, NULL);
        }
        skald_bytes_unref(w);
    }
    t->call = NULL;
}

/* ---- inputs ---------------------------------------------------------------------------------------- */

static skald_status on_frame(conduct *x, skald_input *in) {
    skald_coordinator *c = x->c;
    skald_session_state *s = skald_coordinator_find(c, in->session);
    if (!s) {
        skald_coordinator_refuse(c, in->session, SKALD_EREFUSED, "training has begun without this worker");
        return SKALD_OK;
    }
    if (!s->alive) return SKALD_OK;
    if (skald_wire_open(c->env, in->frame) != SKALD_OK) {
        skald_coordinator_lose(c, s, skald_error());
        return SKALD_OK;
    }
    s->seen_ns = skald_now_ns(c->options->clock);
    s->received += in->frame->size;
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
        return send_ranks(x);
    case SKALD__V1__FRAME__BODY_REPORT:
        if (k == x->leader) on_report(x, f->report);
        return SKALD_OK;
    case SKALD__V1__FRAME__BODY_ANSWER:
        on_answer(x, f->answer);
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
        return on_done(x, s, f->done);
    default:
        return SKALD_OK; /* heartbeats and repetitions */
    }
}

static void on_call(conduct *x, skald_input *in) {
    skald_coordinator *c = x->c;
    skald_event event = {0};
    if (skald_remote_call(c, in, &event) != SKALD_OK) return;
    for (uint32_t k = 0; k < TICKETS; k++) {
        if (x->tickets[k].call) continue;
        x->tickets[k] = (ticket){event.asker, event.request, ++x->next_ticket};
        send_ask(x, &x->tickets[k], false);
        return;
    }
    skald_net_reply(event.asker, SKALD_EUNAVAILABLE, "too many questions at once", NULL, 0);
}

static skald_status tend(conduct *x, const atomic_int *stop_flag) {
    skald_coordinator *c = x->c;
    const int64_t now = skald_now_ns(c->options->clock);
    for (uint32_t k = 0; k < c->told; k++)
        if (worker(x, k)->alive && now - worker(x, k)->seen_ns > c->timeout_ns)
            skald_coordinator_lose(c, worker(x, k), "no sign of life");
    TRY(tend_losses(x));
    if (x->regrouping && !x->loading && !x->named && !x->naming) send_meeting(x);
    if (x->regrouping && !x->loading && x->named) {
        x->regrouping = false;
        TRY(send_regroup(x, true));
    }
    if (x->fault_ns && now - x->fault_ns > GRACE_NS) {
        if (x->mode[0] || ++x->alarms > ALARMS)
            return skald_fail(SKALD_ELOST, "the ranks lost each other, though all of them are alive: %s", x->fault);
        char text[500];
        snprintf(text, sizeof text, "the ranks lost each other: %s; they try again", x->fault);
        notice(x, text);
        TRY(begin_round(x));
    }
    if (stop_flag && *stop_flag && x->begun && !x->stop_sent) {
        x->stop_sent = true;
        send_ask(x, NULL, true);
    }
    return SKALD_OK;
}

static skald_status loop(conduct *x, const atomic_int *stop_flag) {
    skald_coordinator *c = x->c;
    send_meeting(x);
    while (!x->over) {
        skald_input in;
        skald_status st = skald_queue_pop(c->inputs, &in, SKALD_NS_PER_S / 20);
        if (st == SKALD_OK) {
            if (in.kind == SKALD_INPUT_FRAME) st = on_frame(x, &in);
            if (in.kind == SKALD_INPUT_CALL) on_call(x, &in);
            if (in.kind == SKALD_INPUT_CLOSE) {
                skald_session_state *s = skald_coordinator_find(c, in.session);
                if (s) skald_coordinator_lose(c, s, in.reason);
            }
            skald_input_drop(&in);
            TRY(st);
        }
        if (!x->over) TRY(tend(x, stop_flag));
    }
    return x->status == SKALD_OK ? SKALD_OK : skald_fail(x->status, "%s", x->error);
}

skald_status skald_remote_conduct(skald_crew *crew, const skald_train_options *options, const skald_observer *observer,
                                  const atomic_int *stop_flag, skald_outcome *outcome) {
    conduct x = {.c = (skald_coordinator *)crew, .options = options, .observer = observer, .outcome = outcome};
    const uint32_t shards = x.c->problem.shard_count, workers = x.c->told;
    TRY(can(x.c));
    for (uint32_t k = workers; k < x.c->joined; k++)
        skald_coordinator_lose(x.c, &x.c->workers[k], "training has begun without this worker");
    outcome->audit_drift = -1;
    x.holder = skald_zalloc(shards, sizeof *x.holder);
    x.lost = skald_zalloc(workers, sizeof *x.lost);
    skald_status st = x.holder && x.lost ? SKALD_OK : SKALD_ENOMEM;
    if (st == SKALD_OK) {
        for (uint32_t k = 0; k < workers; k++)
            for (uint32_t i = 0; i < worker(&x, k)->member.shard_count; i++) x.holder[worker(&x, k)->shards[i]] = k;
        snprintf(x.mode, sizeof x.mode, "synchronous over %s: %u rank%s", x.c->workers[0].collective, workers,
                 workers == 1 ? "" : "s");
        st = loop(&x, stop_flag);
    }
    for (uint32_t k = 0; k < TICKETS; k++)
        if (x.tickets[k].call) skald_net_reply(x.tickets[k].call, SKALD_EUNAVAILABLE, "the run has ended", NULL, 0);
    free(x.holder);
    free(x.lost);
    return st;
}
