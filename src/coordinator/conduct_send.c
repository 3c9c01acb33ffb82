/* Messages to ranks. */
#include <stdlib.h>
#include <string.h>

#include "coordinator/conduct.h"

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
    m->target_decrement = o->target_decrement;
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

/* What only newton needs to know of the columns; *out NULL: it is not newton. */
static skald_status pack_columns(const skald_conduct *x, skald_wire_vector *out) {
    const skald_problem *p = &x->c->problem;
    const size_t bytes = p->dim * sizeof *p->column_mean2;
    *out = (skald_wire_vector){0};
    if (x->options->algo != SKALD_NEWTON) return SKALD_OK;
    skald_bytes *b = skald_bytes_create(bytes);
    if (!b) return SKALD_ENOMEM;
    memcpy(skald_bytes_data(b), p->column_mean2, bytes);
    *out = (skald_wire_vector){b, b->data, bytes};
    return SKALD_OK;
}

/* Everybody learns who is who; training begins. */
skald_status skald_conduct_send_ranks(skald_conduct *x) {
    skald_coordinator *c = x->c;
    const skald_problem *p = &c->problem;
    Skald__V1__Frame frame = SKALD__V1__FRAME__INIT;
    Skald__V1__Ranks m = SKALD__V1__RANKS__INIT;
    Skald__V1__TrainOptions options;
    Skald__V1__RankMember *members = skald_zalloc(c->told, sizeof *members);
    Skald__V1__RankMember **list = skald_zalloc(c->told, sizeof(Skald__V1__RankMember *));
    uint64_t *rows = skald_alloc(p->shard_count, sizeof *rows);
    skald_wire_vector columns = {0};
    skald_status st = members && list && rows ? pack_columns(x, &columns) : SKALD_ENOMEM;
    pack_options(x->options, &options);
    for (uint32_t k = 0; st == SKALD_OK && k < c->told; k++) {
        skald__v1__rank_member__init(&members[k]);
        members[k].name = c->workers[k].member.name;
        members[k].device = c->workers[k].member.device;
        list[k] = &members[k];
    }
    for (uint32_t s = 0; st == SKALD_OK && s < p->shard_count; s++) rows[s] = p->shards[s].rows;
    m.start = p->start;
    m.n_start = p->start ? skald_objective_classes(&p->objective) : 0;
    m.start_loss = p->start_loss;
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
    m.watched = x->observer && x->observer->task;
    frame.body_case = SKALD__V1__FRAME__BODY_RANKS;
    frame.ranks = &m;
    for (uint32_t k = 0; st == SKALD_OK && k < c->told; k++) {
        m.worker = k;
        skald_coordinator_send(c, skald_conduct_worker(x, k), &frame, &columns, columns.owner ? 1 : 0);
    }
    skald_bytes_unref(columns.owner);
    free(members);
    free(list);
    free(rows);
    return st;
}

void skald_conduct_send_meeting(skald_conduct *x) {
    Skald__V1__Frame frame = SKALD__V1__FRAME__INIT;
    Skald__V1__Meeting m = SKALD__V1__MEETING__INIT;
    frame.body_case = SKALD__V1__FRAME__BODY_MEETING;
    frame.meeting = &m;
    x->naming = true;
    x->named = false;
    skald_coordinator_send(x->c, skald_conduct_worker(x, x->leader), &frame, NULL, 0);
}

void skald_conduct_send_ask(skald_conduct *x, const skald_conduct_ticket *t, bool stop) {
    Skald__V1__Frame frame = SKALD__V1__FRAME__INIT;
    Skald__V1__Ask m = SKALD__V1__ASK__INIT;
    m.ticket = t ? t->id : 0;
    m.kind = t ? t->request : 0;
    m.stop = stop;
    frame.body_case = SKALD__V1__FRAME__BODY_ASK;
    frame.ask = &m;
    skald_coordinator_send(x->c, skald_conduct_worker(x, x->leader), &frame, NULL, 0);
}

skald_status skald_conduct_send_regroup(skald_conduct *x, bool go) {
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
    for (uint32_t k = 0; k < c->told; k++) skald_coordinator_send(c, skald_conduct_worker(x, k), &frame, NULL, 0);
    free(lost);
    return SKALD_OK;
}
