/* A rank's run: from the coordinator's message to the report of what came out. */
#include "worker/rank.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "skald/solver.h"

/* ---- messages -------------------------------------------------------------------------------------- */

static void read_options(const Skald__V1__TrainOptions *m, skald_train_options *o) {
    *o = (skald_train_options){.mode = SKALD_SYNC,
                               .algo = (skald_algo)m->algo,
                               .step = m->step,
                               .step_decay = m->step_decay,
                               .step_rows = m->step_rows,
                               .task_rows = m->task_rows,
                               .local = m->local,
                               .theta = m->theta,
                               .stale = (skald_stale)m->stale,
                               .max_stale = m->max_stale,
                               .q_cap = m->q_cap,
                               .target_gap = m->target_gap,
                               .target_decrement = m->target_decrement,
                               .target_gradient = m->target_gradient,
                               .max_passes = m->max_passes,
                               .max_seconds = m->max_seconds,
                               .max_updates = m->max_updates,
                               .has_target_objective = m->has_target_objective,
                               .target_objective = m->target_objective,
                               .target_tolerance = m->target_tolerance,
                               .audit = m->audit,
                               .eval_every = m->eval_every};
}

static uint32_t columns_of(const skald_worker *w) {
    return w->transform.dim + (w->objective.intercept ? 1 : 0);
}

skald_status skald_rank_spec_read(const skald_worker *w, const Skald__V1__Ranks *m, skald_rank_spec **out) {
    if (!atomic_load(&w->begun) || !w->collective[0] || m->id.len != SKALD_COLLECTIVE_ID || !m->options ||
        m->n_members == 0 || m->n_members > 1024 || m->worker >= m->n_members || m->n_rows != w->shard_count ||
        m->n_holder != w->shard_count || (m->options->algo > SKALD_SAGA && m->options->algo != SKALD_NEWTON) ||
        m->n_start != (w->objective.intercept ? skald_objective_classes(&w->objective) : 0))
        return skald_fail(SKALD_EPEER, "a message about ranks that makes no sense");
    for (size_t s = 0; s < m->n_holder; s++)
        if (m->holder[s] >= m->n_members || (m->holder[s] == m->worker) != (w->runner.shards[s] != NULL))
            return skald_fail(SKALD_EPEER, "ranks and leases disagree about shard %zu", s);
    const bool newton = m->options->algo == SKALD_NEWTON;
    const size_t columns = columns_of(w);
    skald_rank_spec *s = skald_zalloc(1, sizeof *s);
    if (!s) return SKALD_ENOMEM;
    memcpy(s->id, m->id.data, sizeof s->id);
    s->worker = m->worker;
    s->size = (uint32_t)m->n_members;
    s->shard_count = w->shard_count;
    s->nonzeros = m->nonzeros;
    s->L_max = m->l_max;
    s->start_loss = m->start_loss;
    s->dense = m->dense;
    s->watched = m->watched;
    read_options(m->options, &s->options);
    s->members = skald_zalloc(s->size, sizeof *s->members);
    s->rows = skald_alloc(s->shard_count, sizeof *s->rows);
    s->holder = skald_alloc(s->shard_count, sizeof *s->holder);
    if (m->n_start) s->start = skald_alloc(m->n_start, sizeof *s->start);
    if (newton) s->column_mean2 = skald_alloc(columns, sizeof *s->column_mean2);
    if (!s->members || !s->rows || !s->holder || (m->n_start && !s->start) || (newton && !s->column_mean2)) {
        skald_rank_spec_free(s);
        return SKALD_ENOMEM;
    }
    memcpy(s->rows, m->rows, s->shard_count * sizeof *s->rows);
    memcpy(s->holder, m->holder, s->shard_count * sizeof *s->holder);
    for (size_t c = 0; c < m->n_start; c++) s->start[c] = m->start[c];
    if (s->column_mean2) {
        const skald_status st = skald_wire_doubles(w->env, 0, s->column_mean2, columns);
        if (st != SKALD_OK) {
            skald_rank_spec_free(s);
            return st;
        }
    }
    for (uint32_t k = 0; k < s->size; k++) {
        s->members[k].slots = s->members[k].depth = 1;
        snprintf(s->members[k].name, sizeof s->members[k].name, "%s", m->members[k]->name);
        snprintf(s->members[k].device, sizeof s->members[k].device, "%s", m->members[k]->device);
    }
    *out = s;
    return SKALD_OK;
}

void skald_rank_spec_free(skald_rank_spec *s) {
    if (!s) return;
    free(s->members);
    free(s->rows);
    free(s->holder);
    free(s->start);
    free(s->column_mean2);
    free(s);
}

skald_status skald_regroup_order_read(const skald_worker *w, const Skald__V1__Regroup *m, skald_regroup_order **out) {
    bool go = m->n_holder > 0;
    if ((go && (m->n_holder != w->shard_count || m->id.len != SKALD_COLLECTIVE_ID)) || m->n_lost > 1024)
        return skald_fail(SKALD_EPEER, "a message about lost ranks that makes no sense");
    skald_regroup_order *o = skald_alloc(1, sizeof *o + (m->n_lost + m->n_holder) * sizeof o->words[0]);
    if (!o) return SKALD_ENOMEM;
    *o = (skald_regroup_order){.round = m->round, .go = go, .lost_count = (uint32_t)m->n_lost};
    if (go) memcpy(o->id, m->id.data, sizeof o->id);
    for (size_t k = 0; k < m->n_lost; k++) o->words[k] = m->lost[k];
    for (size_t s = 0; s < m->n_holder; s++) o->words[m->n_lost + s] = m->holder[s];
    *out = o;
    return SKALD_OK;
}

/* ---- reports --------------------------------------------------------------------------------------- */

static void pack_evaluation(const skald_evaluation *e, Skald__V1__Evaluation *m) {
    skald__v1__evaluation__init(m);
    m->passes = e->passes;
    m->seconds = e->seconds;
    m->train_seconds = e->train_seconds;
    m->commits = e->commits;
    m->updates = e->updates;
    m->objective = e->objective;
    m->gap = e->gap;
    m->relative_gap = e->relative_gap;
    m->decrement = e->decrement;
    m->gradient_norm = e->gradient_norm;
    m->accuracy = e->accuracy;
    m->average = e->average;
}

static void report(skald_rank *r, Skald__V1__Report *m) {
    Skald__V1__Frame frame = SKALD__V1__FRAME__INIT;
    if (!skald_rank_leads(r)) return; /* all have the same to say */
    m->l = r->problem.L;
    frame.body_case = SKALD__V1__FRAME__BODY_REPORT;
    frame.report = m;
    skald_worker_send(r->w, &frame, NULL, 0);
}

static void on_evaluation(void *user, const skald_evaluation *e) {
    Skald__V1__Report m = SKALD__V1__REPORT__INIT;
    Skald__V1__Evaluation body;
    pack_evaluation(e, &body);
    m.evaluation = &body;
    report(user, &m);
}

static void report_tasks(skald_rank *r) {
    static const Skald__V1__TaskSeen none = SKALD__V1__TASK_SEEN__INIT;
    Skald__V1__TaskSeen bodies[SKALD_RANK_SEEN], *list[SKALD_RANK_SEEN];
    Skald__V1__Report m = SKALD__V1__REPORT__INIT;
    for (uint32_t k = 0; k < r->seen_count; k++) {
        skald_task_seen *t = &r->seen[k];
        bodies[k] = none;
        bodies[k].worker = t->worker;
        bodies[k].trains = t->trains;
        bodies[k].issued_ns = t->issued_ns;
        bodies[k].ended_ns = t->ended_ns;
        bodies[k].rows = t->rows;
        bodies[k].part_ns = t->part_ns;
        bodies[k].n_part_ns = SKALD_PARTS;
        list[k] = &bodies[k];
    }
    m.tasks = list;
    m.n_tasks = r->seen_count;
    if (r->seen_count) report(r, &m);
    r->seen_count = 0;
}

static void on_task(void *user, const skald_task_seen *t) {
    skald_rank *r = user;
    if (!skald_rank_leads(r)) return;
    r->seen[r->seen_count++] = *t;
    if (r->seen_count == SKALD_RANK_SEEN) report_tasks(r);
}

static bool on_table_due(void *user) {
    skald_rank *r = user;
    const int64_t now = skald_now_ns(skald_clock_system());
    if (!skald_rank_leads(r) || now - r->table_ns < SKALD_NS_PER_S / 2) return false;
    r->table_ns = now;
    return true;
}

static void on_table(void *user, char *json) {
    Skald__V1__Report m = SKALD__V1__REPORT__INIT;
    m.table = json;
    report(user, &m);
    free(json);
}

static void on_progress(void *user, const skald_progress *p) {
    Skald__V1__Report m = SKALD__V1__REPORT__INIT;
    Skald__V1__Progress body = SKALD__V1__PROGRESS__INIT;
    body.seconds = p->seconds;
    body.passes = p->passes;
    body.rows_per_s = p->rows_per_s;
    body.updates_per_s = p->updates_per_s;
    body.estimated_objective = p->estimated_objective;
    body.last_objective = p->last_objective;
    body.last_gap = p->last_gap;
    body.commits = p->commits;
    body.slowest = p->slowest;
    body.slowest_ratio = p->slowest_ratio;
    m.progress = &body;
    report(user, &m);
    report_tasks(user);
}

static void on_notice(void *user, const char *text) {
    Skald__V1__Report m = SKALD__V1__REPORT__INIT;
    m.notice = (char *)text;
    report(user, &m);
}

void skald_rank_report_begin(skald_rank *r) {
    Skald__V1__Report m = SKALD__V1__REPORT__INIT;
    r->begun = true;
    report(r, &m);
}

static void report_done(skald_rank *r, skald_status st, const skald_outcome *o) {
    Skald__V1__Frame frame = SKALD__V1__FRAME__INIT;
    Skald__V1__Done m = SKALD__V1__DONE__INIT;
    Skald__V1__Evaluation last;
    skald_bytes *w = NULL;
    skald_wire_vector vector = {0};
    const size_t bytes = skald_problem_length(&r->problem) * sizeof(double);
    Skald__V1__WorkerRow *rows = skald_zalloc(o->worker_count + 1, sizeof *rows);
    Skald__V1__WorkerRow **list = skald_zalloc(o->worker_count + 1, sizeof(Skald__V1__WorkerRow *));
    m.status = st;
    m.error = (char *)(st == SKALD_OK ? "" : skald_error());
    m.alone = r->alone;
    m.stop = o->stop;
    m.reached = o->reached;
    pack_evaluation(&o->last, &last);
    m.last = &last;
    m.seconds = o->seconds;
    m.train_seconds = o->train_seconds;
    m.passes = o->passes;
    m.rows_per_s = o->rows_per_s;
    m.updates = o->updates;
    m.commits = o->commits;
    m.folded = o->folded;
    m.rollbacks = o->rollbacks;
    m.evaluations = o->evaluations;
    m.step = o->step;
    m.theta = o->theta;
    m.step_rows = o->step_rows;
    m.task_rows = o->task_rows;
    m.audit_drift = o->audit_drift;
    m.l = r->problem.L;
    for (uint32_t k = 0; rows && list && k < o->worker_count; k++) {
        const skald_worker_row *from = &o->workers[k];
        skald__v1__worker_row__init(&rows[k]);
        rows[k].alive = from->alive;
        rows[k].shards = from->shards;
        rows[k].rows_held = from->rows_held;
        rows[k].tasks = from->tasks;
        rows[k].rows = from->rows;
        rows[k].task_ms = from->task_ms_mean;
        rows[k].wait_ms = from->wait_ms_mean;
        rows[k].waited_s = from->waited_s;
        rows[k].network_ms = from->network_ms_mean;
        rows[k].part_ms = (double *)(uintptr_t)from->part_ms;
        rows[k].n_part_ms = SKALD_PARTS;
        rows[k].task_ms_p50 = from->task_ms_p50;
        rows[k].task_ms_p95 = from->task_ms_p95;
        rows[k].slowdown = from->slowdown;
        rows[k].state = (char *)(uintptr_t)from->state;
        rows[k].cause = (char *)(uintptr_t)from->cause;
        rows[k].occupied_ms = (double *)(uintptr_t)from->occupied_ms;
        rows[k].n_occupied_ms = SKALD_ROW_QUANTILES;
        rows[k].bytes_summed = from->bytes_summed;
        list[k] = &rows[k];
        m.workers = list;
        m.n_workers = k + 1;
    }
    if (st == SKALD_OK && o->w && (w = skald_bytes_create(bytes))) {
        memcpy(skald_bytes_data(w), o->w, bytes);
        vector = (skald_wire_vector){w, w->data, bytes};
    }
    frame.body_case = SKALD__V1__FRAME__BODY_DONE;
    frame.done = &m;
    skald_worker_send(r->w, &frame, &vector, w ? 1 : 0);
    skald_bytes_unref(w);
    free(rows);
    free(list);
}

/* ---- the run --------------------------------------------------------------------------------------- */

static int64_t clock_now(skald_clock *self) {
    return ((const skald_rank_clock *)self)->now_ns;
}

/* The problem as this process knows it; the transform's arrays and the labels stay the worker's. */
static skald_status make_problem(skald_rank *r, const skald_rank_spec *spec) {
    const skald_worker *w = r->w;
    skald_problem *p = &r->problem;
    *p = (skald_problem){.objective = w->objective,
                         .dim = columns_of(w),
                         .features = w->transform.dim,
                         .nonzeros = spec->nonzeros,
                         .dense = spec->dense,
                         .weight_scale = w->weight_scale,
                         .L_max = spec->L_max,
                         .start_loss = spec->start_loss,
                         .seed = w->runner.seed,
                         .shard_count = spec->shard_count,
                         .transform = w->transform,
                         .label_count = w->transform.label_count};
    p->shards = skald_zalloc(p->shard_count, sizeof *p->shards);
    p->blocks = skald_alloc(1, sizeof *p->blocks);
    p->labels = skald_zalloc(p->label_count + 1, sizeof *p->labels);
    if (!p->shards || !p->blocks || !p->labels) return SKALD_ENOMEM;
    p->blocks[0] = w->first_block;
    for (uint32_t k = 0; k < p->label_count; k++) p->labels[k].value = w->transform.label_values[k];
    for (uint32_t s = 0; s < p->shard_count; s++) {
        p->shards[s].rows = spec->rows[s];
        p->n += (double)spec->rows[s];
    }
    if (spec->column_mean2) {
        p->column_mean2 = skald_alloc(p->dim, sizeof *p->column_mean2);
        if (!p->column_mean2) return SKALD_ENOMEM;
        memcpy(p->column_mean2, spec->column_mean2, p->dim * sizeof *p->column_mean2);
    }
    if (!spec->start) return SKALD_OK;
    const uint32_t classes = skald_objective_classes(&p->objective);
    p->start = skald_alloc(classes, sizeof *p->start);
    if (!p->start) return SKALD_ENOMEM;
    memcpy(p->start, spec->start, classes * sizeof *p->start);
    return SKALD_OK;
}

static skald_status init(skald_rank *r, const skald_rank_spec *spec) {
    skald_runner *runner = &r->w->runner;
    TRY(make_problem(r, spec));
    r->vectors = &runner->vectors;
    skald_lane_fini(r->lane);
    const bool newton = spec->options.algo == SKALD_NEWTON; /* its linear algebra is the host's: so are its vectors */
    if (r->w->options->collective->on_device && !newton) TRY(skald_runner_to_device(runner));
    TRY(skald_lane_init(r->lane, runner));
    r->crew = (skald_crew){
        .ops = &skald_rank_crew_ops, .problem = &r->problem, .ranks = &skald_rank_ops, .vectors = r->vectors};
    r->me = spec->worker;
    r->size = spec->size;
    r->clock.clock.now_ns = clock_now;
    r->heard_ns = r->idle_ns = skald_now_ns(skald_clock_system());
    r->task_capacity = r->size + r->problem.shard_count;
    r->members = skald_alloc(r->size, sizeof *r->members);
    r->lists = skald_zalloc(r->problem.shard_count, sizeof *r->lists);
    r->holder = skald_alloc(r->problem.shard_count, sizeof *r->holder);
    r->lost = skald_zalloc(r->size, sizeof *r->lost);
    r->tasks = skald_zalloc(r->task_capacity, sizeof *r->tasks);
    r->owners = skald_zalloc(r->task_capacity, sizeof *r->owners);
    r->results = skald_zalloc(r->task_capacity, sizeof *r->results);
    r->sample_bytes = skald_zalloc(r->task_capacity, sizeof *r->sample_bytes);
    r->held = skald_zalloc(SKALD_MAX_POINTS * (size_t)r->task_capacity, sizeof(double *));
    r->spare = skald_zalloc(SKALD_MAX_POINTS * (size_t)r->task_capacity, sizeof(double *));
    r->block = skald_zalloc(SKALD_RANK_SLOT * (size_t)r->task_capacity, sizeof *r->block);
    if (!r->members || !r->lists || !r->holder || !r->lost || !r->tasks || !r->owners || !r->results || !r->held ||
        !r->sample_bytes || !r->spare || !r->block)
        return SKALD_ENOMEM;
    memcpy(r->members, spec->members, r->size * sizeof *r->members);
    for (uint32_t k = 0; newton && k < r->size; k++) r->members[k].slots = r->problem.shard_count;
    memcpy(r->holder, spec->holder, r->problem.shard_count * sizeof *r->holder);
    skald_rank_deal(r);
    for (uint32_t k = 0; r->vectors->on_device && k < SKALD_MAX_POINTS; k++)
        TRY(r->vectors->ops->create(r->vectors, &r->kept_vectors[k]));
    return skald_rank_join(r, spec->id);
}

/* The lane is made anew by whoever needs it, in the host's memory. */
static void free_vectors(skald_rank *r) {
    skald_vectors *v = r->vectors;
    if (!v) return;
    for (uint32_t k = 0; r->held && k < SKALD_MAX_POINTS * r->task_capacity; k++)
        if (r->held[k]) v->ops->destroy(v, r->held[k]);
    while (r->spare_count) v->ops->destroy(v, r->spare[--r->spare_count]);
    for (uint32_t k = 0; k < SKALD_MAX_POINTS; k++)
        if (r->kept_vectors[k]) v->ops->destroy(v, r->kept_vectors[k]);
    skald_lane_fini(r->lane);
    skald_runner_to_host(&r->w->runner);
}

static void fini(skald_rank *r) {
    skald_rank_leave(r);
    for (uint32_t k = 0; r->tasks && k < r->task_count; k++) skald_version_unref(r->tasks[k].model);
    for (uint32_t k = 0; r->results && k < r->task_capacity; k++) skald_rows_free(&r->results[k].sample);
    free_vectors(r);
    free(r->problem.shards);
    free(r->problem.blocks);
    free(r->problem.labels);
    free(r->problem.start);
    free(r->problem.column_mean2);
    free(r->members);
    free(r->lists);
    free(r->holder);
    free(r->lost);
    free(r->tasks);
    free(r->owners);
    free(r->results);
    free(r->held);
    free(r->spare);
    free(r->block);
    free(r->sample_bytes);
    free(r->packed);
    free(r->kept_block);
    free(r->order);
}

bool skald_rank_run(skald_worker *w, const skald_rank_spec *spec, uint32_t number, skald_lane *lane,
                    skald_queue *jobs) {
    skald_rank r = {.w = w, .number = number, .lane = lane, .jobs = jobs};
    skald_outcome outcome = {.audit_drift = -1};
    const skald_observer observer = {.user = &r,
                                     .evaluation = on_evaluation,
                                     .progress = on_progress,
                                     .notice = on_notice,
                                     .task = spec->watched ? on_task : NULL,
                                     .table_due = spec->watched ? on_table_due : NULL,
                                     .table = spec->watched ? on_table : NULL};
    skald_rank_work(&r);
    skald_status st = init(&r, spec);
    if (st == SKALD_OK) {
        skald_worker_notice(w, "rank %u of %u, over %s", r.me, r.size, w->collective);
        st = skald_train(&r.crew, skald_solver_of(spec->options.algo), &spec->options, &r.clock.clock, &observer,
                         &r.stop_flag, &outcome);
    } else {
        r.alone = true;
    }
    if (st != SKALD_OK && r.vectors && r.vectors->ops->status(r.vectors) != SKALD_OK) r.alone = true;
    if (st == SKALD_OK) (void)skald_rank_barrier(&r); /* the outcome stands whoever is lost now */
    if (!r.stopped) report_done(&r, st, &outcome);
    skald_outcome_free(&outcome);
    fini(&r);
    skald_rank_rest(&r);
    return r.stopped;
}
