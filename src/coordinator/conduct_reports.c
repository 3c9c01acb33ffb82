/* What ranks report: progress, evaluations, the end; and their answers to those who ask the coordinator. */
#include <stdio.h>
#include <string.h>

#include "coordinator/conduct.h"

static skald_evaluation unpack_evaluation(const Skald__V1__Evaluation *m) {
    return (skald_evaluation){.passes = m->passes,
                              .seconds = m->seconds,
                              .train_seconds = m->train_seconds,
                              .commits = m->commits,
                              .updates = m->updates,
                              .objective = m->objective,
                              .gap = m->gap,
                              .relative_gap = m->relative_gap,
                              .decrement = m->decrement,
                              .gradient_norm = m->gradient_norm,
                              .accuracy = m->accuracy,
                              .average = m->average};
}

static void learn_L(skald_conduct *x, double L) {
    if (!(L > 0)) return;
    x->c->problem.L = L;
    if (x->mode[0]) skald_conduct_notice(x, x->mode);
    x->mode[0] = '\0';
}

static void see_task(const skald_conduct *x, const Skald__V1__TaskSeen *m) {
    const skald_observer *o = x->observer;
    if (m->worker >= x->c->told || m->n_part_ns != SKALD_PARTS || m->issued_ns < 0 || m->ended_ns < m->issued_ns)
        return;
    skald_task_seen t = {.worker = m->worker,
                         .slots = 1,
                         .trains = m->trains,
                         .issued_ns = m->issued_ns,
                         .ended_ns = m->ended_ns,
                         .rows = m->rows};
    for (int p = 0; p < SKALD_PARTS; p++)
        if (!((t.part_ns[p] = m->part_ns[p]) >= 0 && t.part_ns[p] <= (double)(m->ended_ns - m->issued_ns))) return;
    o->task(o->user, &t);
}

void skald_conduct_report(skald_conduct *x, const Skald__V1__Report *m) {
    const skald_observer *o = x->observer;
    learn_L(x, m->l);
    if (m->notice[0]) skald_conduct_notice(x, m->notice);
    if (m->evaluation && o && o->evaluation) {
        skald_evaluation e = unpack_evaluation(m->evaluation);
        x->alarms = 0; /* they got along until here */
        o->evaluation(o->user, &e);
    }
    for (size_t k = 0; o && o->task && k < m->n_tasks; k++) see_task(x, m->tasks[k]);
    if (m->table[0] && o && o->table && o->table_due(o->user)) o->table(o->user, strdup(m->table));
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
            snprintf(p.slowest_name, sizeof p.slowest_name, "%s", skald_conduct_worker(x, p.slowest)->member.name);
        o->progress(o->user, &p);
    }
}

static skald_status fill(skald_conduct *x, const Skald__V1__Done *m) {
    skald_coordinator *c = x->c;
    skald_outcome *o = x->outcome;
    if (!m->last || m->n_workers != c->told || m->stop > SKALD_STOP_DECREMENT)
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
                                           .network_ms_mean = q->network_ms,
                                           .task_ms_p50 = q->task_ms_p50,
                                           .task_ms_p95 = q->task_ms_p95,
                                           .slowdown = q->slowdown,
                                           .bytes_sent = member->bytes_sent,
                                           .bytes_received = member->bytes_received,
                                           .bytes_summed = q->bytes_summed};
        for (size_t p = 0; p < SKALD_PARTS && p < q->n_part_ms; p++) o->workers[k].part_ms[p] = q->part_ms[p];
        for (size_t p = 0; p < SKALD_ROW_QUANTILES && p < q->n_occupied_ms; p++)
            o->workers[k].occupied_ms[p] = q->occupied_ms[p];
        snprintf(o->workers[k].state, sizeof o->workers[k].state, "%s", q->state);
        snprintf(o->workers[k].cause, sizeof o->workers[k].cause, "%s", q->cause);
        snprintf(o->workers[k].name, sizeof o->workers[k].name, "%s", member->name);
        snprintf(o->workers[k].device, sizeof o->workers[k].device, "%s", member->device);
    }
    return skald_wire_doubles(c->env, 0, o->w, skald_problem_length(&c->problem));
}

skald_status skald_conduct_done(skald_conduct *x, skald_session_state *s, const Skald__V1__Done *m) {
    learn_L(x, m->l);
    if (m->status == SKALD_OK) {
        skald_outcome_free(x->outcome);
        TRY(fill(x, m));
        skald_conduct_end(x, SKALD_OK, NULL);
    } else if (m->alone) {
        skald_coordinator_lose(x->c, s, m->error);
    } else if (m->status == SKALD_EUNSUPPORTED) {
        char text[400]; /* a library is missing there; ranks there can be, and are: that status would deny it */
        snprintf(text, sizeof text, "worker %u (%s): %s", (uint32_t)(s - x->c->workers), s->member.name, m->error);
        skald_conduct_end(x, SKALD_EREFUSED, text);
    } else {
        skald_conduct_end(x, (skald_status)m->status, m->error);
    }
    return SKALD_OK;
}

void skald_conduct_answer(skald_conduct *x, const Skald__V1__Answer *m) {
    skald_coordinator *c = x->c;
    skald_conduct_ticket *t = NULL;
    for (uint32_t k = 0; k < SKALD_CONDUCT_TICKETS; k++)
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
