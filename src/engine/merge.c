/* What results do: the ledger's sums, and the merge that the solver is given. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "engine/run.h"

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

/* A_k is what was rebuilt. While the result waited for the rest of its round the shard may have changed hands: its
 * table is empty again. */
static void merge_rebuilt(skald_run *run, const skald_flight *flight, const double *anchor) {
    skald_ledger_replace(&run->ledger, flight->shard, anchor, run->history_sum);
    run->ledger.entries[flight->shard].rebuild = run->holders[flight->shard] != flight->worker;
}

/* What the shard's history is at from now on, and of the model as it is now. */
static void taken(skald_run *run, const skald_flight *flight, const skald_result *r) {
    if (!flight->model) return;
    double loss = r->sums[0].loss;
    const double came = skald_parts_taken(&run->parts, &run->engine.vectors, flight->shard, flight->part, flight->model,
                                          run->moved, &loss);
    run->engine.seen = run->parts.seen;
    if (flight->commits != run->commits || flight->generation != run->generation) return;
    run->engine.fresh.rows += came;
    run->engine.fresh.loss += loss; /* what came twice is once in it */
}

/* All of the shard, unless the model has been set back since. */
static void refreshed(skald_run *run, const skald_flight *flight) {
    if (flight->refresh && flight->part == SKALD_ALL_PARTS && flight->generation == run->generation)
        run->ledger.entries[flight->shard].refresh = false;
}

void skald_merge_one(skald_run *run, const skald_flight *flight, skald_result *r, skald_merge *m) {
    uint64_t staleness = run->commits - flight->commits;
    uint64_t regular = run->flight_capacity - 1;
    const skald_stale action = skald_stale_action(run, flight, staleness, regular);
    const bool dropped = action == SKALD_STALE_FOLD || action == SKALD_STALE_REJECT;
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
    if (run->moved) {
        run->engine.vectors.ops->zero(&run->engine.vectors, run->moved);
        taken(run, flight, r);
        m->moved = run->moved;
    }
    if (flight->rebuild) {
        memset(run->history_sum, 0, run->ledger.dim * sizeof(double));
        merge_rebuilt(run, flight, m->history);
        m->history = run->history_sum;
    } else if (m->history) {
        skald_ledger_merge(&run->ledger, flight->shard, m->history);
    }
    refreshed(run, flight);
    count(run, flight, r, staleness);
    run->held = r;
}

/* The round is complete: one merge for all of it, summed in the order of dispatch. SKALD_AGAIN: ranks were lost
 * meanwhile, and the round with them. */
skald_status skald_merge_round(skald_run *run, skald_merge *m) {
    skald_vectors *v = &run->engine.vectors;
    *m = (skald_merge){.weight = 1, .bias = 1, .chains = 1, .local = run->work.local};
    v->ops->zero(v, run->round_g);
    if (run->history) v->ops->zero(v, run->history_sum);
    if (run->moved) v->ops->zero(v, run->moved);
    m->moved = run->moved;
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
            merge_rebuilt(run, next, h);
        } else if (h) {
            skald_ledger_merge(&run->ledger, next->shard, h);
            v->ops->axpy(v, run->history_sum, 1, h);
        }
        refreshed(run, next);
        taken(run, next, r);
        count(run, next, r, 0);
        skald_run_land(run, next);
        run->crew->ops->release(run->crew, r);
    }
    *(m->local ? &m->dw : &m->g) = run->round_g;
    m->history = run->history ? run->history_sum : NULL;
    run->round_spoilt = false;
    if (run->crew->ranks) {
        double *vectors[2] = {run->round_g, run->history_sum};
        const bool steps = !run->parts.parts; /* newton's come of the history alone */
        TRY(run->crew->ranks->reduce(run->crew, vectors + !steps, run->history && steps ? 2 : 1));
    }
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

double skald_audit_points(const skald_run *run) {
    const uint32_t dim = run->ledger.dim;
    double *mean = skald_zalloc(dim, sizeof *mean), difference = 0, norm = 0;
    for (uint32_t k = 0; mean && k < run->ledger.count; k++)
        skald_parts_add(&run->parts, k, 1 / run->problem->n, dim, mean);
    for (uint32_t j = 0; mean && j < dim; j++) {
        const double d = run->work.wbar[j] - mean[j];
        difference += d * d;
        norm += mean[j] * mean[j];
    }
    if (!mean) difference = INFINITY; /* out of memory: not shown to be right */
    free(mean);
    return norm > 0 ? sqrt(difference / norm) : sqrt(difference);
}

void skald_audit_finish(skald_run *run) {
    if (run->parts.parts && !run->stop) run->audit.drift = fmax(run->audit.drift, skald_audit_points(run));
    if (run->audit.drift > run->audit_drift) run->audit_drift = run->audit.drift;
    if (!run->audit.asker) return;
    char *json = skald_table_json(run, true);
    run->crew->ops->answer(run->crew, run->audit.asker, json, NULL);
    free(json);
    run->audit.asker = NULL;
}

/* A table that lived on in a run that goes on: which models its parts are at, it knows itself. */
static void recall(skald_run *run, const skald_result *r) {
    if (!run->parts.known_count) return;
    skald_parts_recall(&run->parts, &run->engine.vectors, r->shard, r->parts, run->moved);
    run->engine.seen = run->parts.seen;
    run->engine.fresh = skald_parts_fresh(&run->parts, run->dirty ? NULL : run->current);
    run->unsettled |= run->parts.stale > 0;
}

/* An anchor recomputed from scratch, in stream order: every result of the shard merged before it is in A_k. */
bool skald_merge_anchor(skald_run *run, const skald_flight *flight, skald_result *r, skald_merge *m) {
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
    if (run->parts.parts && !repair && !skald_parts_agree(&run->parts, flight->shard, r->parts)) drift += 1;
    e->suspect = false;
    if (e->audit) {
        e->audit = false;
        if (!repair && drift > run->audit.drift) run->audit.drift = drift;
        if (--run->audit.outstanding == 0) skald_audit_finish(run);
    }
    if (!repair) return false;
    memset(run->history_sum, 0, dim * sizeof(double));
    skald_ledger_replace(&run->ledger, flight->shard, r->vectors[0], run->history_sum);
    if (run->moved) {
        run->engine.vectors.ops->zero(&run->engine.vectors, run->moved);
        recall(run, r);
    }
    *m = (skald_merge){.history = run->history_sum,
                       .moved = run->moved,
                       .fold = true,
                       .local = run->work.local,
                       .chains = 1,
                       .bias = 1};
    m->g = m->dw = run->history_sum;
    run->held = r;
    return true;
}
