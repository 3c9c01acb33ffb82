/* What the coordinator asks of a worker. Every request can be repeated: the other end tells. */
#include <stdlib.h>
#include <string.h>

#include "coordinator/state.h"

void skald_ask_welcome(skald_coordinator *c, skald_session_state *s, bool resumed) {
    const skald_source_options *source = &c->options->data.source;
    Skald__V1__Frame frame = SKALD__V1__FRAME__INIT;
    Skald__V1__Welcome m = SKALD__V1__WELCOME__INIT;
    m.protocol = SKALD_PROTOCOL;
    m.worker = (uint32_t)(s - c->workers);
    m.incarnation = s->incarnation;
    m.run = c->run;
    m.term = c->term;
    m.resumed = resumed;
    m.kept = !resumed && s->held_of;
    m.heartbeat_ns = (uint64_t)(c->timeout_ns / 4 < 2 * SKALD_NS_PER_S ? c->timeout_ns / 4 : 2 * SKALD_NS_PER_S);
    m.data_path = (char *)c->options->data.path;
    m.index_base = source->index_base;
    m.dim = source->dim;
    m.weights_path = (char *)(source->weights_path ? source->weights_path : "");
    frame.body_case = SKALD__V1__FRAME__BODY_WELCOME;
    frame.welcome = &m;
    skald_coordinator_send(c, s, &frame, NULL, 0);
}

static void ask_scan(skald_coordinator *c, skald_session_state *s) {
    Skald__V1__Frame frame = SKALD__V1__FRAME__INIT;
    Skald__V1__ScanRequest m = SKALD__V1__SCAN_REQUEST__INIT;
    if (s->stage == SKALD_STAGE_SCANNING) {
        m.first = s->scan_first;
        m.count = s->scan_count;
    }
    frame.body_case = SKALD__V1__FRAME__BODY_SCAN_REQUEST;
    frame.scan_request = &m;
    skald_coordinator_send(c, s, &frame, NULL, 0);
}

static void ask_setup(skald_coordinator *c, skald_session_state *s) {
    const skald_problem *p = &c->problem;
    const skald_transform *t = &p->transform;
    Skald__V1__Frame frame = SKALD__V1__FRAME__INIT;
    Skald__V1__Setup m = SKALD__V1__SETUP__INIT;
    m.loss = p->objective.loss;
    m.huber_delta = p->objective.huber_delta;
    m.l2 = p->objective.l2;
    m.l1 = p->objective.l1;
    m.intercept = p->objective.intercept;
    m.intercept_step = p->objective.intercept_step;
    m.classes = p->objective.classes;
    m.dim = p->features;
    m.zero_based = t->zero_based;
    m.dense = t->force_dense;
    m.rows = p->n;
    m.seed = p->seed;
    m.shards = p->shard_count;
    s->shelf.budget =
        c->options->version_budget ? c->options->version_budget : skald_shelf_budget(skald_problem_length(p));
    m.version_budget = s->shelf.budget;
    m.workers = c->options->workers;
    m.straggler = (char *)(c->options->straggler ? c->options->straggler : "");
    m.pace_ms = (uint32_t)c->options->pace_ms;
    m.n_label_values = m.n_label_targets = m.n_label_weights = t->label_count;
    m.label_values = (double *)t->label_values;
    m.label_targets = (double *)t->label_targets;
    m.label_weights = (double *)t->label_weights;
    m.has_shift = t->shift != NULL;
    m.has_scale = t->scale != NULL;
    frame.body_case = SKALD__V1__FRAME__BODY_SETUP;
    frame.setup = &m;
    size_t bytes = p->features * sizeof(double), n = 0;
    skald_wire_vector vectors[2] = {{0}};
    for (int k = 0; k < 2; k++) {
        const double *from = k ? t->scale : t->shift;
        if (!from) continue;
        skald_bytes *copy = skald_bytes_create(bytes);
        if (!copy) break; /* refused as malformed by the worker, and the run ends with its message */
        memcpy(skald_bytes_data(copy), from, bytes);
        vectors[n++] = (skald_wire_vector){copy, copy->data, bytes};
    }
    skald_coordinator_send(c, s, &frame, vectors, n);
    while (n) skald_bytes_unref(vectors[--n].owner);
}

void skald_ask_lease(skald_coordinator *c, skald_session_state *s, uint32_t shard) {
    const skald_shard_info *info = &c->problem.shards[shard];
    Skald__V1__Frame frame = SKALD__V1__FRAME__INIT;
    Skald__V1__Lease m = SKALD__V1__LEASE__INIT;
    m.shard = shard;
    m.rows = info->rows;
    m.checksum = info->checksum;
    frame.body_case = SKALD__V1__FRAME__BODY_LEASE;
    frame.lease = &m;
    size_t bytes = info->block_count * SKALD_BLOCK_WORDS * sizeof(uint64_t);
    skald_bytes *words = skald_bytes_create(bytes);
    if (!words) return; /* repeated later */
    skald_blocks_to_words(c->problem.blocks + info->block_begin, info->block_count,
                          (uint64_t *)(void *)skald_bytes_data(words));
    skald_wire_vector vector = {words, words->data, bytes};
    skald_coordinator_send(c, s, &frame, &vector, 1);
    skald_bytes_unref(words);
}

static void ask_begin(skald_coordinator *c, skald_session_state *s) {
    Skald__V1__Frame frame = SKALD__V1__FRAME__INIT;
    Skald__V1__Begin m = SKALD__V1__BEGIN__INIT;
    m.weight_scale = c->problem.weight_scale;
    frame.body_case = SKALD__V1__FRAME__BODY_BEGIN;
    frame.begin = &m;
    skald_coordinator_send(c, s, &frame, NULL, 0);
}

void skald_ask_stage(skald_coordinator *c, skald_session_state *s) {
    s->asked_ns = skald_now_ns(c->options->clock);
    switch (s->stage) {
    case SKALD_STAGE_OPENING:
    case SKALD_STAGE_SCANNING:
        ask_scan(c, s);
        break;
    case SKALD_STAGE_SETUP:
        ask_setup(c, s);
        break;
    case SKALD_STAGE_LOADING:
        skald_ask_lease(c, s, s->shards[s->lease_next]);
        break;
    case SKALD_STAGE_BEGINNING:
        ask_begin(c, s);
        break;
    case SKALD_STAGE_OPENED:
    case SKALD_STAGE_SCANNED:
    case SKALD_STAGE_LOADED:
    case SKALD_STAGE_READY:
        break;
    }
}

void skald_ask_release(skald_coordinator *c, skald_session_state *s, uint32_t shard) {
    Skald__V1__Frame frame = SKALD__V1__FRAME__INIT;
    Skald__V1__Release m = SKALD__V1__RELEASE__INIT;
    m.shard = shard;
    frame.body_case = SKALD__V1__FRAME__BODY_RELEASE;
    frame.release = &m;
    skald_coordinator_send(c, s, &frame, NULL, 0);
}

void skald_ask_to_go(skald_coordinator *c, skald_session_state *s, const char *reason) {
    Skald__V1__Frame frame = SKALD__V1__FRAME__INIT;
    Skald__V1__Goodbye m = SKALD__V1__GOODBYE__INIT;
    m.reason = (char *)reason;
    frame.body_case = SKALD__V1__FRAME__BODY_GOODBYE;
    frame.goodbye = &m;
    skald_coordinator_send(c, s, &frame, NULL, 0);
}
