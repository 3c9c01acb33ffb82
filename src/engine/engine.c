/* Dispatch, collect, commit: the engine port over a crew of workers, asynchronous or synchronous. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "engine/run.h"

static skald_run *of(skald_engine *e) {
    return (skald_run *)e;
}

static bool trains(skald_task_kind kind) {
    return kind == SKALD_TASK_GRADIENT || kind == SKALD_TASK_SAGA || kind == SKALD_TASK_LOCAL ||
           kind == SKALD_TASK_DIFFERENCE;
}

/* ---- dispatch -------------------------------------------------------------------------------------- */

skald_status skald_run_publish(skald_run *run) {
    if (run->current && !run->dirty) return SKALD_OK;
    const double *vectors[2] = {run->work.w, run->work.abar};
    skald_version *v =
        skald_versions_publish(run->versions, run->commits, vectors, run->work.local && run->work.history ? 2 : 1);
    if (!v) return SKALD_ENOMEM;
    if (run->work.local && !run->crew->ranks) skald_versions_narrow(v, run->current); /* those send no models */
    skald_version_unref(run->current);
    run->current = v;
    run->dirty = false;
    return SKALD_OK;
}

skald_status skald_run_submit(skald_run *run, uint32_t worker, skald_task *task) {
    task->id = ++run->next_task;
    task->n = run->problem->n;
    task->generation = run->generation;
    if (run->flight_count == run->flight_room) {
        const uint32_t room = run->flight_room ? 2 * run->flight_room : 16;
        skald_flight *grown = realloc(run->flights, room * sizeof *grown);
        if (!grown) return skald_fail(SKALD_ENOMEM, "out of memory");
        run->flights = grown;
        run->flight_room = room;
    }
    run->flights[run->flight_count++] = (skald_flight){.task = task->id,
                                                       .kind = task->kind,
                                                       .worker = worker,
                                                       .shard = task->shard,
                                                       .trains = trains(task->kind),
                                                       .generation = run->generation,
                                                       .epoch = run->epoch,
                                                       .evaluation = run->evaluator.round,
                                                       .commits = task->model ? task->model->commits : run->commits,
                                                       .issued_ns = skald_now_ns(run->clock)};
    run->members[worker].busy++;
    if (trains(task->kind)) {
        run->training++;
        skald_barrier_dealt(run, worker);
    }
    if (task->shard != SKALD_ALL_SHARDS) run->ledger.entries[task->shard].busy++;
    TRY(skald_eviction_issued(run, worker, task));
    return run->crew->ops->submit(run->crew, worker, task);
}

static skald_status submit_training(skald_run *run, uint32_t worker, uint32_t shard) {
    TRY(skald_run_publish(run));
    const skald_work *work = &run->work;
    skald_ledger_entry *e = &run->ledger.entries[shard];
    skald_piece *piece = NULL;
    if (work->origin == SKALD_FROM_PATH && !(piece = skald_path_take(run))) return SKALD_AGAIN;
    uint64_t after = 0; /* its result is not in the model yet: the worker adds it itself */
    for (uint32_t f = 0; f < run->flight_count; f++) {
        const skald_flight *q = &run->flights[f];
        if (q->kind == SKALD_TASK_LOCAL && q->shard == shard && q->generation == run->generation) after = q->task;
    }
    uint64_t left = e->rows - e->position % e->rows; /* a batch never crosses an epoch: no row occurs twice */
    skald_task task = {.kind = work->local     ? SKALD_TASK_LOCAL
                               : work->history ? SKALD_TASK_SAGA
                               : work->origin  ? SKALD_TASK_DIFFERENCE
                                               : SKALD_TASK_GRADIENT,
                       .shard = shard,
                       .model = piece ? piece->to : run->current,
                       .origin = piece          ? piece->from
                                 : work->origin ? run->origin
                                                : NULL,
                       .position = e->position,
                       .rows = (uint32_t)(work->task_rows < left ? work->task_rows : left),
                       .step_rows = work->step_rows,
                       .eta = work->eta,
                       .theta = work->theta,
                       .after = after,
                       .saga = work->history,
                       .by_version = work->history && run->options->history_versions};
    e->position += task.rows;
    TRY(skald_run_submit(run, worker, &task));
    run->flights[run->flight_count - 1].piece = piece;
    return SKALD_OK;
}

/* After a rollback the tables hold gradients of the bad model: one SAGA task over all rows of the shard at
 * the good one puts that right. A lost shard's new table is empty (alpha = 0): the same task fills it, and its result
 * is all of A_k. What the lost table left in the anchor stays there until then, as a delayed gradient. By version: also
 * one over the rows at versions that are to go. */
static skald_status submit_refresh(skald_run *run, uint32_t worker, uint32_t shard) {
    TRY(skald_run_publish(run));
    skald_ledger_entry *e = &run->ledger.entries[shard];
    skald_task task = {.kind = SKALD_TASK_SAGA,
                       .shard = shard,
                       .model = skald_eviction_target(run, worker),
                       .rows = (uint32_t)e->rows,
                       .by_version = run->options->history_versions,
                       .before = e->refresh || e->rebuild ? 0 : e->before};
    e->refresh = false;
    TRY(skald_run_submit(run, worker, &task));
    skald_flight *flight = &run->flights[run->flight_count - 1];
    flight->refresh = true;
    flight->rebuild = e->rebuild; /* which stands until the result is merged: it may get lost again */
    return SKALD_OK;
}

static skald_status submit_full(skald_run *run, uint32_t worker, skald_task *task) {
    TRY(skald_run_submit(run, worker, task));
    skald_flight *flight = &run->flights[run->flight_count - 1];
    flight->full = true; /* of no round, and no barrier's business */
    flight->trains = false;
    run->training--;
    run->full.flights++;
    return SKALD_OK;
}

/* A refused result left the shard's history unknown, or somebody wants an audit: recompute its anchor. */
static bool anchor_task(skald_run *run, uint32_t worker, skald_task *task) {
    if (!run->history) return false;
    const skald_member *m = run->crew->ops->member(run->crew, worker);
    for (uint32_t i = 0; i < m->shard_count; i++) {
        skald_ledger_entry *e = &run->ledger.entries[m->shards[i]];
        if (e->busy || e->rebuild || !(e->suspect || e->audit)) continue;
        *task = (skald_task){.kind = SKALD_TASK_ANCHOR, .shard = m->shards[i]};
        return true;
    }
    return false;
}

/* The barrier: may this worker be given training work now? Asynchronous: as the barrier says. Synchronous: while the
 * round is being dealt, and no full gradient is under way. While an evaluation wants the machine to itself, nobody. */
static bool admitted(skald_run *run, uint32_t worker) {
    if (run->stop || (run->quiesce && skald_evaluator_active(&run->evaluator))) return false;
    if (run->work.task_rows == 0) return false;
    if (run->options->mode == SKALD_ASYNC) return skald_barrier_admits(run, worker);
    return !(run->round_open || run->full.model) && skald_members_complete(run); /* a round has all shards in it */
}

static bool quiet(const skald_run *run) {
    return run->quiesce && skald_evaluator_active(&run->evaluator);
}

uint32_t skald_run_slots(const skald_member *m) {
    return m->slots < m->shard_count ? m->slots : m->shard_count;
}

uint32_t skald_run_depth(const skald_run *run, const skald_member *m) {
    if (run->options->mode == SKALD_SYNC || run->options->local == 0 || run->options->barrier) return 1;
    return run->options->depth ? run->options->depth : m->depth;
}

static skald_status dispatch_to(skald_run *run, uint32_t worker) {
    const skald_member *m = run->crew->ops->member(run->crew, worker);
    uint32_t first = run->flight_count;
    const uint32_t depth = skald_run_depth(run, m);
    while (run->members[worker].busy < skald_run_slots(m) * depth) {
        skald_task task = {0};
        if (anchor_task(run, worker, &task) || skald_evaluator_task(&run->evaluator, worker, &task)) {
            TRY(skald_run_submit(run, worker, &task));
            continue;
        }
        if (!quiet(run) && skald_full_task(run, worker, &task)) {
            TRY(submit_full(run, worker, &task));
            continue;
        }
        uint32_t shard = admitted(run, worker) ? skald_eviction_pick(run, worker, depth) : UINT32_MAX;
        if (shard == UINT32_MAX) break;
        const skald_ledger_entry *e = &run->ledger.entries[shard];
        if (run->mixed && !e->rebuild && (run->mixed = skald_ledger_incomplete(&run->ledger))) break;
        skald_status st = e->refresh || e->rebuild || e->before ? submit_refresh(run, worker, shard)
                                                                : submit_training(run, worker, shard);
        if (st == SKALD_AGAIN) break; /* nothing to do before the model moves */
        TRY(st);
    }
    /* synchronous: sum_k (n_k/n) D_k/r_k, each shard standing for its worker's equal visits to all its shards */
    uint32_t dealt = 0;
    for (uint32_t f = first; f < run->flight_count; f++) dealt += trains(run->flights[f].kind) && !run->flights[f].full;
    for (uint32_t f = first; f < run->flight_count; f++) {
        skald_flight *flight = &run->flights[f];
        if (trains(flight->kind))
            flight->share = (double)run->ledger.entries[flight->shard].rows / run->problem->n * m->shard_count / dealt;
    }
    return SKALD_OK;
}

static skald_status dispatch(skald_engine *engine, const skald_work *work) {
    skald_run *run = of(engine);
    if (!run->current) run->dirty = true;
    run->work = *work;
    TRY(engine->vectors.ops->status(&engine->vectors));
    if (!run->watch.good) TRY(skald_watch_init(run));
    if (run->crew->ranks) TRY(skald_ranks_tend(run));
    if (!skald_evaluator_active(&run->evaluator) && skald_judge_due(run)) TRY(skald_judge_begin(run));
    if (run->options->mode == SKALD_ASYNC || !run->round_open) TRY(skald_full_begin(run));
    skald_barrier_look(run);
    skald_eviction_look(run);
    for (uint32_t k = 0; k < run->size; k++)
        if (run->members[k].alive) TRY(dispatch_to(run, k));
    TRY(skald_barrier_check(run));
    if (run->training) run->round_open = true;
    /* the training clock stands still while only evaluations run */
    int64_t now = skald_now_ns(run->clock);
    const bool trained = run->training || run->full.flights;
    if (!trained && !run->pause_began_ns) run->pause_began_ns = now;
    if (trained && run->pause_began_ns) run->paused_ns += now - run->pause_began_ns, run->pause_began_ns = 0;
    return SKALD_OK;
}

/* ---- collect --------------------------------------------------------------------------------------- */

skald_flight *skald_run_find(skald_run *run, uint64_t task) {
    for (uint32_t f = 0; f < run->flight_count; f++)
        if (run->flights[f].task == task) return &run->flights[f];
    return NULL;
}

void skald_run_land(skald_run *run, skald_flight *flight) {
    run->members[flight->worker].busy--;
    if (flight->shard != SKALD_ALL_SHARDS) run->ledger.entries[flight->shard].busy--;
    if (flight->piece) skald_path_land(run, flight);
    if (flight->full)
        run->full.flights--;
    else if (trains(flight->kind))
        run->training--;
    *flight = run->flights[--run->flight_count];
}

static void count(skald_run *run, const skald_flight *flight, skald_result *r, uint64_t staleness) {
    run->rows += r->rows;
    run->engine.passes = skald_run_passes(run);
    run->ledger.entries[flight->shard].visits++;
    run->merged++;
    run->staleness_sum += staleness;
    if (staleness > run->staleness_max) run->staleness_max = staleness;
    skald_member_state *m = &run->members[flight->worker];
    m->staleness_last = staleness;
    m->staleness_sum += staleness;
    if (staleness > m->staleness_max) m->staleness_max = staleness;
    if (flight->generation == run->generation) skald_watch_loss(run, r);
}

static const double *history_of(const skald_run *run, const skald_result *r) {
    return !run->history ? NULL : r->kind == SKALD_TASK_LOCAL ? r->vectors[1] : r->vectors[0];
}

static void merge_one(skald_run *run, const skald_flight *flight, skald_result *r, skald_merge *m) {
    uint64_t staleness = run->commits - flight->commits;
    uint64_t regular = run->flight_capacity - 1;
    const skald_stale action = skald_stale_action(run, flight, staleness, regular);
    /* a piece of the way is needed however late it is */
    const bool dropped = !flight->piece && (action == SKALD_STALE_FOLD || action == SKALD_STALE_REJECT);
    const double part = action == SKALD_STALE_ADAPT ? skald_stale_part(run, staleness, regular) : 1;
    /* the cap is on the step really made: that of a stale result is shortened, which q makes up for */
    double slack = action == SKALD_STALE_APPLY   ? 1
                   : action == SKALD_STALE_ADAPT ? 1 / fmax(part, 0.01)
                                                 : fmax(1, (1.0 + (double)staleness) / (1.0 + (double)regular));
    double q = run->history || run->options->q_cap < 0
                   ? 1
                   : skald_ledger_bias(&run->ledger, flight->shard, run->options->q_cap * slack);
    *m = (skald_merge){.local = run->work.local,
                       .history = history_of(run, r),
                       .rows = r->rows,
                       .staleness = staleness,
                       .chains = run->engine.parallel,
                       .regular = regular,
                       .bias = q,
                       .weight = q / r->rows, /* the rows really in it */
                       .action = action,
                       .adapted = part,
                       .fold = flight->refresh || flight->generation != run->generation ||
                               (run->work.origin && flight->epoch != run->epoch) || dropped};
    if (flight->piece && !m->fold) m->weight *= skald_path_part(flight->piece);
    *(m->local ? &m->dw : &m->g) = r->vectors[0];
    if (flight->rebuild) {
        memset(run->history_sum, 0, run->ledger.dim * sizeof(double));
        skald_ledger_replace(&run->ledger, flight->shard, m->history, run->history_sum);
        m->history = run->history_sum;
    } else if (m->history) {
        skald_ledger_merge(&run->ledger, flight->shard, m->history);
    }
    if (m->fold) ++*(dropped && action == SKALD_STALE_REJECT ? &run->rejected : &run->folded);
    count(run, flight, r, staleness);
    run->held = r;
}

/* The round is complete: one merge for all of it, summed in the order of dispatch. SKALD_AGAIN: ranks were lost
 * meanwhile, and the round with them. */
static skald_status merge_round(skald_run *run, skald_merge *m) {
    skald_vectors *v = &run->engine.vectors;
    *m = (skald_merge){.weight = 1, .bias = 1, .chains = 1, .local = run->work.local};
    v->ops->zero(v, run->round_g);
    if (run->history) v->ops->zero(v, run->history_sum);
    uint64_t order = 0;
    while (run->training) {
        skald_flight *next = NULL;
        for (uint32_t f = 0; f < run->flight_count; f++) {
            skald_flight *c = &run->flights[f];
            if (c->result && c->task > order && (!next || c->task < next->task)) next = c;
        }
        order = next->task;
        skald_result *r = next->result;
        m->rows += r->rows;
        m->fold |= next->refresh || next->generation != run->generation || run->round_spoilt;
        if (next->piece && !run->round_spoilt) skald_path_part(next->piece);
        next->lost |= run->round_spoilt; /* no step is made of it: a piece of the way is to be covered again */
        if (r->vectors[0]) v->ops->axpy(v, run->round_g, m->local ? next->share : next->share / r->rows, r->vectors[0]);
        const double *h = history_of(run, r);
        if (next->rebuild) {
            skald_ledger_replace(&run->ledger, next->shard, h, run->history_sum);
        } else if (h) {
            skald_ledger_merge(&run->ledger, next->shard, h);
            v->ops->axpy(v, run->history_sum, 1, h);
        }
        count(run, next, r, 0);
        skald_run_land(run, next);
        run->crew->ops->release(run->crew, r);
    }
    *(m->local ? &m->dw : &m->g) = run->round_g;
    m->history = run->history ? run->history_sum : NULL;
    run->round_open = run->round_spoilt = false;
    if (run->crew->ranks) {
        double *vectors[2] = {run->round_g, run->history_sum};
        TRY(run->crew->ranks->reduce(run->crew, vectors, run->history ? 2 : 1));
    }
    if (m->fold) run->folded++;
    return SKALD_OK;
}

void skald_audit_begin(skald_run *run, void *asker) {
    run->audit = (skald_audit){.asker = asker, .outstanding = run->ledger.count};
    for (uint32_t k = 0; !run->crew->ranks && k < run->ledger.count; k++) {
        skald_ledger_entry *e = &run->ledger.entries[k];
        e->audit = !(e->rebuild && run->stop); /* an empty table, that nobody will fill any more */
        run->audit.outstanding -= !e->audit;
    }
}

void skald_audit_finish(skald_run *run) {
    if (run->audit.drift > run->audit_drift) run->audit_drift = run->audit.drift;
    if (!run->audit.asker) return;
    char *json = skald_table_json(run, true);
    run->crew->ops->answer(run->crew, run->audit.asker, json, NULL);
    free(json);
    run->audit.asker = NULL;
}

/* An anchor recomputed from scratch, in stream order: every result of the shard merged before it is in A_k. */
static bool merge_anchor(skald_run *run, const skald_flight *flight, skald_result *r, skald_merge *m) {
    skald_ledger_entry *e = &run->ledger.entries[flight->shard];
    const uint32_t dim = skald_problem_length(run->problem);
    double difference = 0, norm = 0;
    for (uint32_t j = 0; j < dim; j++) {
        double d = r->vectors[0][j] - e->anchor[j];
        difference += d * d;
        norm += r->vectors[0][j] * r->vectors[0][j];
    }
    double drift = norm > 0 ? sqrt(difference / norm) : sqrt(difference);
    bool repair = e->suspect;
    e->suspect = false;
    if (e->audit) {
        e->audit = false;
        if (!repair && drift > run->audit.drift) run->audit.drift = drift;
        if (--run->audit.outstanding == 0) skald_audit_finish(run);
    }
    if (!repair) return false;
    memset(run->history_sum, 0, dim * sizeof(double));
    skald_ledger_replace(&run->ledger, flight->shard, r->vectors[0], run->history_sum);
    *m = (skald_merge){.history = run->history_sum, .fold = true, .local = run->work.local, .chains = 1, .bias = 1};
    m->g = m->dw = run->history_sum;
    run->held = r;
    return true;
}

static skald_status failed(skald_run *run, skald_flight *flight, skald_result *r) {
    const skald_member *member = run->crew->ops->member(run->crew, flight->worker);
    skald_status st = SKALD_AGAIN;
    if (r->status == SKALD_ENUMERIC && trains(flight->kind)) {
        st = flight->generation == run->generation ? skald_watch_rollback(run, r->error) : SKALD_AGAIN;
        if (st == SKALD_OK) st = SKALD_AGAIN;
    } else if (r->status == SKALD_EREFUSED && ++run->members[flight->worker].refused < SKALD_REFUSALS) {
        /* the message was not usable; what the worker did to its history is unknown */
        run->refused++;
        skald_run_notice(run, "result of worker %u (%s) refused: %s", flight->worker, member->name, r->error);
        if (run->history && flight->shard != SKALD_ALL_SHARDS) {
            run->ledger.entries[flight->shard].suspect = true;
            run->ledger.entries[flight->shard].rebuild = false; /* the table may be full: its anchor says */
        }
    } else {
        st = skald_fail(r->status, "worker %u (%s), %s task: %s", flight->worker, member->name,
                        skald_task_kind_name(flight->kind), r->error);
    }
    flight->lost = true;
    if (flight->full && r->status == SKALD_EREFUSED) run->full.asked[flight->shard] = false; /* ask again */
    skald_run_land(run, flight);
    run->crew->ops->release(run->crew, r);
    if (run->options->mode == SKALD_SYNC && !run->training) run->round_open = run->round_spoilt = false;
    return st;
}

static bool round_complete(const skald_run *run) {
    for (uint32_t f = 0; f < run->flight_count; f++)
        if (trains(run->flights[f].kind) && !run->flights[f].full && !run->flights[f].result) return false;
    return run->training > 0;
}

static skald_status on_result(skald_run *run, skald_result *r, skald_merge *m) {
    skald_flight *flight = skald_run_find(run, r->task);
    if (!flight) { /* not asked for: a crew filters duplicates, so this is a stray */
        run->crew->ops->release(run->crew, r);
        return SKALD_AGAIN;
    }
    r->worker = flight->worker;
    skald_table_result(run, flight, r);
    const bool evaluates = flight->kind == SKALD_TASK_OBJECTIVE || flight->kind == SKALD_TASK_SHIFT;
    if (evaluates && flight->evaluation != run->evaluator.round) { /* of one that has begun anew */
        skald_run_land(run, flight);
        run->crew->ops->release(run->crew, r);
        return SKALD_AGAIN;
    }
    if (r->status != SKALD_OK && evaluates && r->status == SKALD_EREFUSED) {
        run->evaluator.asked[flight->worker] = false; /* ask again */
        return failed(run, flight, r);
    }
    if (r->status != SKALD_OK) {
        skald_status st = failed(run, flight, r);
        if (st != SKALD_AGAIN || run->options->mode != SKALD_SYNC || !round_complete(run)) return st;
        return merge_round(run, m); /* the rest of the round has waited for nothing else */
    }
    skald_eviction_landed(run, r);
    if (evaluates) {
        bool done = false;
        skald_run_land(run, flight);
        TRY(skald_evaluator_add(&run->evaluator, run->crew, r, &done));
        if (done) skald_judge_done(run);
        return SKALD_AGAIN;
    }
    if (flight->kind == SKALD_TASK_ANCHOR) {
        bool merge = merge_anchor(run, flight, r, m);
        skald_run_land(run, flight);
        if (merge) return SKALD_OK;
        run->crew->ops->release(run->crew, r);
        return SKALD_AGAIN;
    }
    if (flight->full) {
        bool complete = skald_full_add(run, flight, r, m);
        skald_run_land(run, flight);
        return complete ? SKALD_OK : SKALD_AGAIN;
    }
    if (run->options->mode == SKALD_SYNC) {
        flight->result = r;
        return round_complete(run) ? merge_round(run, m) : SKALD_AGAIN;
    }
    merge_one(run, flight, r, m);
    skald_run_land(run, flight);
    return SKALD_OK;
}

void skald_run_answer(skald_run *run, const skald_event *event) {
    if (event->request == SKALD_REQUEST_MODEL) {
        run->crew->ops->answer(run->crew, event->asker, NULL, run->current);
        return;
    }
    if (event->request == SKALD_REQUEST_AUDIT && run->history && !run->audit.outstanding && !run->stop) {
        skald_audit_begin(run, event->asker);
        return; /* answered when every shard's anchor has come back */
    }
    char *json = skald_table_json(run, false);
    run->crew->ops->answer(run->crew, event->asker, json, NULL);
    free(json);
}

skald_status skald_run_pump(skald_run *run, skald_merge *m) {
    skald_event event = {0};
    TRY(run->crew->ops->next(run->crew, SKALD_NS_PER_S / 20, &event));
    skald_table_progress(run);
    switch (event.kind) {
    case SKALD_EVENT_NONE:
        return SKALD_AGAIN;
    case SKALD_EVENT_RESULT:
        return on_result(run, event.result, m);
    case SKALD_EVENT_LOST:
        if (run->crew->ranks) return skald_ranks_lost(run);
        break;
    case SKALD_EVENT_JOINED:
    case SKALD_EVENT_WITHDRAWN:
    case SKALD_EVENT_LEASED:
        break;
    case SKALD_EVENT_REQUEST:
        skald_run_answer(run, &event);
        return SKALD_AGAIN;
    }
    TRY(skald_members_event(run, &event));
    /* the rest of a round may have waited for nothing but what is lost */
    return run->options->mode == SKALD_SYNC && round_complete(run) ? merge_round(run, m) : SKALD_AGAIN;
}

static skald_status collect(skald_engine *engine, skald_merge *m) {
    skald_run *run = of(engine);
    return skald_run_pump(run, m);
}

static skald_status commit(skald_engine *engine, const skald_merge *m, double step) {
    skald_run *run = of(engine);
    if (run->held) {
        /* without q, which a local step has in it: q would feed back on itself, and weigh by the root of the mass */
        if (!m->fold && !run->history)
            skald_ledger_add_mass(&run->ledger, run->held->shard, m->local ? step / m->bias : step);
        run->crew->ops->release(run->crew, run->held);
        run->held = NULL;
    }
    if (m->full) skald_full_commit(run);
    const bool moved = !(m->fold || (m->full && step == 0));
    if (moved || (run->history && run->work.local)) run->dirty = true; /* what is published: w, and then abar */
    if (!moved) return SKALD_OK;                                       /* the model did not change: the clock stands */
    const bool scaled =
        m->action == SKALD_STALE_ADAPT ? m->adapted < 1 : m->action == SKALD_STALE_SCALE && m->staleness > m->regular;
    if (!m->full) ++*(scaled ? &run->scaled : &run->applied);
    run->commits++;
    run->updates++;
    run->steps[run->commits % SKALD_STEPS_KEPT] = m->action == SKALD_STALE_ADAPT ? (float)m->adapted : 1;
    run->step_used = step;
    return skald_watch_commit(run);
}

static bool over(skald_engine *engine) {
    skald_run *run = of(engine);
    const skald_train_options *o = run->options;
    if (run->stop) return true;
    if (run->stop_flag && *run->stop_flag)
        run->stop = SKALD_STOP_INTERRUPTED;
    else if (o->max_passes > 0 && run->engine.passes >= o->max_passes)
        run->stop = SKALD_STOP_PASSES;
    else if (o->max_updates && run->updates >= o->max_updates)
        run->stop = SKALD_STOP_UPDATES;
    else if (o->max_seconds > 0 && (double)skald_run_now(run) * 1e-9 >= o->max_seconds)
        run->stop = SKALD_STOP_TIME;
    if (run->stop && run->work.w) /* the solver's vectors go with it: keep the last model */
        engine->vectors.ops->copy(&engine->vectors, run->watch.good, run->work.w);
    return run->stop != SKALD_STOP_NONE;
}

static bool finished(skald_engine *engine) {
    if (!over(engine)) return false;
    skald_checkpoint_last(of(engine));
    if (of(engine)->crew->ranks) skald_ranks_finish(of(engine));
    return true;
}

static skald_status commit_and_tell(skald_engine *engine, const skald_merge *m, double step) {
    skald_run *run = of(engine);
    const skald_result *r = run->held;
    const bool aged = m->staleness > m->regular && run->options->stale != SKALD_STALE_APPLY;
    skald_merged merged = {.task = r ? r->task : 0,
                           .how = m->full                             ? "full"
                                  : r && r->kind == SKALD_TASK_ANCHOR ? "repair"
                                  : m->fold                           ? "fold"
                                  : aged                              ? "scale"
                                                                      : "apply",
                           .staleness = m->staleness,
                           .step = m->fold ? 0 : step,
                           .bias = m->bias};
    const skald_status st = commit(engine, m, step);
    if (st == SKALD_OK) skald_checkpoint_tend(run);
    merged.commits = run->commits;
    merged.generation = run->generation;
    if (run->observer && run->observer->merged) run->observer->merged(run->observer->user, &merged);
    return st;
}

const skald_engine_ops skald_crew_engine_ops = {finished, dispatch, collect, commit_and_tell};
