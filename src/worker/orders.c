/* What the coordinator sends, decoded: answered here, or handed to the lanes. Control thread. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/base.h"
#include "worker/checks.h"
#include "worker/rank.h"
#include "worker/worker_state.h"

static const int64_t BEAT_NS = 2 * SKALD_NS_PER_S; /* unless the coordinator asks for more */

void skald_order_hello(skald_worker *w) {
    Skald__V1__Frame frame = SKALD__V1__FRAME__INIT;
    Skald__V1__Hello body = SKALD__V1__HELLO__INIT;
    char name[64];
    if (w->options->name) {
        snprintf(name, sizeof name, "%s", w->options->name);
    } else {
        char host[48] = "worker";
        gethostname(host, sizeof host - 1);
        snprintf(name, sizeof name, "%s:%d", host, (int)getpid());
    }
    body.protocol = SKALD_PROTOCOL;
    body.name = name;
    body.device = w->device;
    body.slots = w->options->compute.threads > 1 ? (uint32_t)w->options->compute.threads : 1;
    body.build = (char *)SKALD_VERSION;
    body.collective = w->collective;
    body.no_collective = w->no_collective;
    body.card = w->card;
    body.run = w->run;
    body.term = w->term;
    body.incarnation = w->incarnation;
    skald_held_shards room;
    skald_keep_tell(w, &body, &room);
    frame.body_case = SKALD__V1__FRAME__BODY_HELLO;
    frame.hello = &body;
    skald_worker_greet(w, &frame);
    free(room.shards);
    free(room.checksums);
}

static void take_names(skald_worker *w, const Skald__V1__Welcome *m) {
    w->incarnation = m->incarnation;
    snprintf(w->run, sizeof w->run, "%s", m->run);
    w->term = m->term;
    w->beat_ns = m->heartbeat_ns && m->heartbeat_ns < (uint64_t)BEAT_NS ? (int64_t)m->heartbeat_ns : BEAT_NS;
    w->number = m->worker;
    skald_worker_welcomed(w);
}

static skald_status on_welcome(skald_worker *w, const Skald__V1__Welcome *m, int64_t now) {
    if (w->session) return SKALD_OK; /* a repetition */
    if (m->protocol != SKALD_PROTOCOL)
        return skald_fail(SKALD_EVERSION,
                          "the coordinator speaks protocol %u, this worker %u: use the same version of skald",
                          m->protocol, SKALD_PROTOCOL);
    if (m->resumed && w->incarnation && m->incarnation == w->incarnation) {
        skald_worker_welcomed(w);
        skald_worker_notice(w, "worker %u again: it goes on", w->number);
        skald_shelf_clear(&w->shelf); /* as at the other end: what was on its way may not have come */
        skald_outbox_repeat(w, now, 0);
        return SKALD_OK;
    }
    if (m->kept && w->incarnation && atomic_load(&w->begun) && strcmp(m->run, w->run) == 0) {
        TRY(skald_keep_welcome(w));
        take_names(w, m);
        skald_worker_notice(w, "the coordinator was started again (term %u): it keeps its rows and their history",
                            m->term);
        return SKALD_OK;
    }
    if (w->incarnation) {
        skald_worker_notice(w, "the coordinator had given this worker up: it starts anew");
        skald_life_end(w);
        TRY(skald_life_begin(w));
    }
    const char *path = w->options->data_path ? w->options->data_path : m->data_path;
    if (strlen(path) >= sizeof w->path || strlen(m->weights_path) >= sizeof w->weights)
        return skald_fail(SKALD_EPEER, "path too long");
    snprintf(w->path, sizeof w->path, "%s", path);
    snprintf(w->weights, sizeof w->weights, "%s", m->weights_path);
    take_names(w, m);
    w->index_base = m->index_base;
    w->columns = m->dim;
    skald_worker_notice(w, "joined run %s as worker %u, data %s", m->run, m->worker, w->path);
    return skald_worker_open_source(w, m->index_base, m->dim);
}

static skald_status read_vector(skald_worker *w, size_t *k, size_t n, double **to) {
    *to = skald_alloc(n, sizeof(double));
    if (!*to) return SKALD_ENOMEM;
    return skald_wire_doubles(w->env, (*k)++, *to, n);
}

static skald_status on_setup(skald_worker *w, const Skald__V1__Setup *m) {
    const bool kept = w->rejoined;
    w->rejoined = false;
    if (kept && m->shards != w->shard_count) { /* divided otherwise: the model is all that is of use */
        const uint64_t incarnation = w->incarnation, seen = w->seen_version;
        skald_version *newest = w->newest;
        w->newest = NULL;
        skald_life_end(w);
        w->newest = newest;
        w->seen_version = seen;
        TRY(skald_life_begin(w));
        w->incarnation = incarnation;
        TRY(skald_worker_open_source(w, w->index_base, w->columns));
    } else if (kept) {
        skald_runner_reseed(&w->runner, m->seed);
        w->shelf.budget = m->version_budget;
    }
    if (!w->set_up) {
        const size_t limit = w->options->net.max_frame_bytes;
        TRY(skald_check_setup(m, limit ? limit : (size_t)1 << 30));
        w->objective = (skald_objective){.loss = (skald_loss)m->loss,
                                         .huber_delta = m->huber_delta,
                                         .l2 = m->l2,
                                         .l1 = m->l1,
                                         .intercept = m->intercept,
                                         .intercept_step = m->intercept_step,
                                         .classes = m->classes};
        size_t labels = m->n_label_values, k = 0;
        w->labels = skald_alloc(3 * labels + 1, sizeof(double));
        if (!w->labels) return SKALD_ENOMEM;
        for (size_t i = 0; i < labels; i++) {
            w->labels[i] = m->label_values[i];
            w->labels[labels + i] = m->label_targets[i];
            w->labels[2 * labels + i] = m->n_label_weights ? m->label_weights[i] : 1;
        }
        if (m->has_shift) TRY(read_vector(w, &k, m->dim, &w->shift));
        if (m->has_scale) TRY(read_vector(w, &k, m->dim, &w->scale));
        w->transform = (skald_transform){.dim = m->dim,
                                         .zero_based = m->zero_based,
                                         .intercept = m->intercept,
                                         .force_dense = m->dense,
                                         .shift = w->shift,
                                         .scale = w->scale,
                                         .label_count = (uint32_t)labels,
                                         .label_values = w->labels,
                                         .label_targets = w->labels + labels,
                                         .label_weights = w->labels + 2 * labels,
                                         .weight_scale = 1};
        uint32_t dim = m->dim + (m->intercept ? 1 : 0);
        w->shard_count = m->shards;
        w->read = skald_zalloc(m->shards, sizeof *w->read);
        w->lane_of = skald_zalloc(m->shards, sizeof *w->lane_of);
        w->checksums = skald_zalloc(m->shards, sizeof *w->checksums);
        w->leased = skald_zalloc(m->shards, sizeof *w->leased);
        if (!w->read || !w->lane_of || !w->checksums || !w->leased) return SKALD_ENOMEM;
        TRY(skald_runner_init(&w->runner, &w->options->compute, &w->objective, dim, m->seed, m->shards));
        w->shelf.budget = m->version_budget;
        TRY(skald_versions_create(NULL, w->runner.dim, SKALD_MAX_POINTS, &w->versions));
        TRY(skald_pool_create(SKALD_MAX_POINTS * (size_t)w->runner.dim * sizeof(double), &w->vectors));
        TRY(skald_pool_create(SKALD_MAX_POINTS * (size_t)w->runner.dim * sizeof(float), &w->narrow));
        w->carries = skald_zalloc(m->shards, sizeof *w->carries);
        if (!w->carries) return SKALD_ENOMEM;
        TRY(skald_straggle_init(w, m));
        w->set_up = true;
    }
    Skald__V1__Frame frame = SKALD__V1__FRAME__INIT;
    Skald__V1__Ready reply = SKALD__V1__READY__INIT;
    reply.stage = 1;
    frame.body_case = SKALD__V1__FRAME__BODY_READY;
    frame.ready = &reply;
    skald_worker_send(w, &frame, NULL, 0);
    return SKALD_OK;
}

static skald_status on_lease(skald_worker *w, const Skald__V1__Lease *m) {
    if (!w->set_up) return SKALD_OK;
    skald_job job = {.kind = SKALD_JOB_LEASE, .shard = m->shard, .checksum = m->checksum};
    const size_t unit = SKALD_BLOCK_WORDS * sizeof(uint64_t), bytes = skald_wire_vector_bytes(w->env, 0);
    if (bytes == 0 || bytes % unit) return skald_fail(SKALD_EPEER, "lease without blocks");
    job.block_count = bytes / unit;
    job.blocks = skald_alloc(job.block_count, sizeof *job.blocks);
    uint64_t *words = skald_alloc(1, bytes);
    skald_status st = job.blocks && words ? skald_wire_read(w->env, 0, 0, words, bytes) : SKALD_ENOMEM;
    if (st == SKALD_OK) skald_blocks_from_words(words, job.block_count, job.blocks);
    if (st == SKALD_OK) st = skald_check_blocks(job.blocks, job.block_count);
    if (st == SKALD_OK) st = skald_worker_push(w, &job);
    free(words);
    if (st != SKALD_OK) free(job.blocks);
    return st;
}

/* A version the task names: among those kept, or riding along from vector *at on. NULL (and OK) when neither: the
 * coordinator will send it when it repeats the task. */
static skald_status find_version(skald_worker *w, uint64_t id, uint64_t commits, bool rides, uint32_t count,
                                 bool narrow, size_t *at, skald_version **out) {
    *out = NULL;
    const size_t first = *at;
    if (rides) *at += count;
    if (skald_shelf_name(&w->shelf, id, out) || !rides) return SKALD_OK;
    if (count == 0 || count > SKALD_MAX_POINTS)
        return skald_fail(SKALD_EPEER, "task with a model of %u vectors", count);
    skald_version *v = skald_versions_blank(w->versions, id, count);
    if (!v) return SKALD_ENOMEM;
    for (uint32_t k = 0; k < count; k++) {
        skald_status st =
            (narrow ? skald_wire_floats : skald_wire_doubles)(w->env, first + k, skald_version_data(v, k), v->dim);
        if (st != SKALD_OK) {
            skald_version_unref(v);
            return st;
        }
    }
    v->commits = commits;
    skald_shelf_put(&w->shelf, id, skald_shelf_bytes(count, v->dim), v);
    *out = v;
    return SKALD_OK;
}

static skald_status on_task(skald_worker *w, const Skald__V1__Task *m, int64_t now) {
    TRY(skald_check_task(m));
    for (size_t k = 0; k < m->n_acks; k++) skald_outbox_ack(w, m->acks[k]);
    if (!atomic_load(&w->begun)) return SKALD_OK; /* overtook its begin: it will be repeated */
    for (uint32_t k = 0; k < SKALD_WORKER_SEEN; k++) {
        if (w->seen[k] != m->id) continue;
        if (skald_outbox_has(w, m->id)) skald_outbox_repeat(w, now, 0); /* asked again: say again */
        return SKALD_OK;
    }
    if (atomic_load(&w->waiting) + skald_outbox_count(w) > SKALD_WORKER_WAITING)
        return skald_fail(SKALD_EPEER, "more than %d tasks at a time, or results that nobody acknowledges",
                          SKALD_WORKER_WAITING);
    skald_version *model = NULL, *origin = NULL;
    size_t at = 0;
    if (m->version)
        TRY(find_version(w, m->version, m->commits, m->has_model, m->model_vectors, m->narrow, &at, &model));
    skald_version_ref(model); /* the origin may push it off the shelf */
    skald_status st = SKALD_OK;
    if (m->origin) st = find_version(w, m->origin, 0, m->has_origin, m->origin_vectors, false, &at, &origin);
    if (st != SKALD_OK || (m->version && !model) || (m->origin && !origin)) {
        skald_version_unref(model);
        return st;
    }
    skald_job job = {.kind = SKALD_JOB_TASK,
                     .arrived_ns = now,
                     .task = {.id = m->id,
                              .kind = (skald_task_kind)m->kind,
                              .shard = m->shard,
                              .model = model,
                              .origin = skald_version_ref(origin),
                              .position = m->position,
                              .rows = m->rows,
                              .step_rows = m->step_rows,
                              .eta = m->eta,
                              .after = m->after,
                              .theta = m->theta,
                              .n = m->n,
                              .saga = m->saga,
                              .by_version = m->by_version,
                              .by_part = m->by_part,
                              .before = m->before,
                              .points = m->points,
                              .want_gradient = m->want_gradient,
                              .keep_margins = m->keep_margins}};
    for (size_t k = 0; k < m->n_shift && k < SKALD_MAX_POINTS; k++) job.task.shift[k] = m->shift[k];
    atomic_fetch_add(&w->waiting, 1);
    skald_keep_version(w, &job.task);
    st = skald_worker_push(w, &job);
    if (st != SKALD_OK) {
        atomic_fetch_sub(&w->waiting, 1);
        skald_task_unref(&job.task);
        return st;
    }
    w->seen[w->seen_next] = m->id;
    w->seen_next = (w->seen_next + 1) % SKALD_WORKER_SEEN;
    return SKALD_OK;
}

/* This worker will be the first rank: it names the group. */
static skald_status on_meeting(skald_worker *w) {
    Skald__V1__Frame frame = SKALD__V1__FRAME__INIT;
    Skald__V1__Meeting reply = SKALD__V1__MEETING__INIT;
    uint8_t id[SKALD_COLLECTIVE_ID];
    if (!w->collective[0]) return skald_fail(SKALD_EPEER, "asked to be a rank, which this worker cannot be");
    TRY(w->options->collective->make_id(id));
    reply.id = (ProtobufCBinaryData){sizeof id, id};
    frame.body_case = SKALD__V1__FRAME__BODY_MEETING;
    frame.meeting = &reply;
    skald_worker_send(w, &frame, NULL, 0);
    return SKALD_OK;
}

static skald_status push_or_drop(skald_worker *w, skald_job *job) {
    skald_status st = skald_worker_push(w, job);
    if (st != SKALD_OK) skald_job_drop(job);
    return st;
}

skald_status skald_order_take(skald_worker *w, const Skald__V1__Frame *f, bool *over) {
    const bool first = f->body_case == SKALD__V1__FRAME__BODY_WELCOME || f->body_case == SKALD__V1__FRAME__BODY_GOODBYE;
    if (!w->session && !first) return SKALD_OK; /* it overtook the welcome: it will be repeated */
    switch (f->body_case) {
    case SKALD__V1__FRAME__BODY_WELCOME:
        return on_welcome(w, f->welcome, skald_now_ns(skald_clock_system()));
    case SKALD__V1__FRAME__BODY_SCAN_REQUEST: {
        skald_job job = {.kind = SKALD_JOB_SCAN, .first = f->scan_request->first, .count = f->scan_request->count};
        return skald_worker_push(w, &job);
    }
    case SKALD__V1__FRAME__BODY_SETUP:
        return on_setup(w, f->setup);
    case SKALD__V1__FRAME__BODY_LEASE:
        return on_lease(w, f->lease);
    case SKALD__V1__FRAME__BODY_RELEASE: {
        if (!w->set_up) return SKALD_OK;
        skald_job job = {.kind = SKALD_JOB_RELEASE, .shard = f->release->shard};
        return skald_worker_push(w, &job);
    }
    case SKALD__V1__FRAME__BODY_BEGIN: {
        skald_job job = {.kind = SKALD_JOB_BEGIN, .weight_scale = f->begin->weight_scale};
        return skald_worker_push(w, &job);
    }
    case SKALD__V1__FRAME__BODY_TASK:
        return on_task(w, f->task, skald_now_ns(skald_clock_system()));
    case SKALD__V1__FRAME__BODY_ACK:
        for (size_t k = 0; k < f->ack->n_seqs; k++) skald_outbox_ack(w, f->ack->seqs[k]);
        if (f->ack->refused) skald_worker_notice(w, "the coordinator refused a result: %s", f->ack->reason);
        return SKALD_OK;
    case SKALD__V1__FRAME__BODY_VERSION_REQUEST:
        skald_keep_answer(w);
        return SKALD_OK;
    case SKALD__V1__FRAME__BODY_MEETING:
        return on_meeting(w);
    case SKALD__V1__FRAME__BODY_RANKS: {
        skald_job job = {.kind = SKALD_JOB_RANK};
        TRY(skald_rank_spec_read(w, f->ranks, &job.spec));
        w->ranked = true;
        return push_or_drop(w, &job);
    }
    case SKALD__V1__FRAME__BODY_REGROUP: {
        skald_job job = {.kind = SKALD_JOB_REGROUP};
        TRY(skald_regroup_order_read(w, f->regroup, &job.order));
        return push_or_drop(w, &job);
    }
    case SKALD__V1__FRAME__BODY_ASK: {
        skald_job job = {
            .kind = SKALD_JOB_ASK, .ticket = f->ask->ticket, .request = f->ask->kind, .interrupt = f->ask->stop};
        return push_or_drop(w, &job);
    }
    case SKALD__V1__FRAME__BODY_GOODBYE:
        *over = true;
        return f->goodbye->status ? skald_fail((skald_status)f->goodbye->status, "%s", f->goodbye->reason) : SKALD_OK;
    default:
        return SKALD_OK; /* something newer: not for us */
    }
}
