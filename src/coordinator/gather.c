/* From a hello to a ready crew: workers open and scan the data, the manifest is merged, shards are leased
 * and loaded. Everybody takes the same steps at the same time; each step is one request and one answer. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/state.h"

/* ---- requests -------------------------------------------------------------------------------------- */

static void welcome(skald_coordinator *c, skald_session_state *s) {
    const skald_source_options *source = &c->options->data.source;
    Skald__V1__Frame frame = SKALD__V1__FRAME__INIT;
    Skald__V1__Welcome m = SKALD__V1__WELCOME__INIT;
    m.protocol = SKALD_PROTOCOL;
    m.worker = (uint32_t)(s - c->workers);
    m.incarnation = s->incarnation;
    m.run = c->run;
    m.term = 1;
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

void skald_gather_lease(skald_coordinator *c, skald_session_state *s, uint32_t shard) {
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

void skald_gather_ask(skald_coordinator *c, skald_session_state *s) {
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
        skald_gather_lease(c, s, s->shards[s->lease_next]);
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

/* ---- answers --------------------------------------------------------------------------------------- */

static skald_status blame(const skald_coordinator *c, const skald_session_state *s, skald_status code,
                          const char *error) {
    return skald_fail(code, "worker %u (%s): %s", (unsigned)(s - c->workers), s->member.name, error);
}

/* A worker is called as its certificate says, or NAME:something, as HOST:PID is. */
static bool entitled(const char *identity, const char *name) {
    if (!identity) return true;
    const size_t n = strlen(identity);
    return strncmp(identity, name, n) == 0 && (name[n] == '\0' || name[n] == ':');
}

static void on_hello(skald_coordinator *c, skald_net_session *session, const Skald__V1__Hello *m) {
    char reason[300];
    skald_session_state *s = skald_coordinator_find(c, session);
    if (s) { /* a repetition: its welcome was lost */
        welcome(c, s);
        return;
    }
    if (m->protocol != SKALD_PROTOCOL) {
        snprintf(reason, sizeof reason,
                 "worker %.60s (skald %.20s) speaks protocol %u, this coordinator (skald %s) %u: use the same version",
                 m->name, m->build, m->protocol, SKALD_VERSION, SKALD_PROTOCOL);
        skald_coordinator_refuse(c, session, SKALD_EVERSION, reason);
        return;
    }
    if (c->ready || c->joined == c->options->workers) {
        snprintf(reason, sizeof reason, "the run has its %u workers already", c->options->workers);
        skald_coordinator_refuse(c, session, SKALD_EREFUSED, reason);
        return;
    }
    if (!entitled(skald_net_identity(session), m->name)) {
        snprintf(reason, sizeof reason, "a worker with the certificate of '%.100s' calls itself '%.60s'",
                 skald_net_identity(session), m->name);
        skald_coordinator_refuse(c, session, SKALD_EPEER, reason);
        return;
    }
    uint32_t slots = m->slots < 1 ? 1 : m->slots > 1024 ? 1024 : m->slots;
    const uint32_t depth = 2;
    skald_outstanding *tasks = skald_zalloc(slots * depth + 1, sizeof *tasks);
    if (!tasks) {
        skald_coordinator_refuse(c, session, SKALD_ENOMEM, "out of memory");
        return;
    }
    s = &c->workers[c->joined++];
    s->session = skald_net_session_ref(session);
    s->alive = true;
    s->incarnation = ++c->next_incarnation;
    snprintf(s->member.name, sizeof s->member.name, "%s", m->name);
    snprintf(s->member.device, sizeof s->member.device, "%s", m->device);
    s->member.slots = slots;
    snprintf(s->collective, sizeof s->collective, "%s", m->collective);
    snprintf(s->no_collective, sizeof s->no_collective, "%s", m->no_collective);
    snprintf(s->card, sizeof s->card, "%s", m->card);
    s->tasks = tasks;
    s->task_capacity = slots * depth + 1;
    s->member.depth = depth;
    s->seen_ns = skald_now_ns(c->options->clock);
    skald_coordinator_notice(c, "worker %u of %u joined: %s (%s, %s)", c->joined, c->options->workers, s->member.name,
                             s->member.device, skald_net_peer(session));
    welcome(c, s);
    skald_gather_ask(c, s);
}

static skald_status on_scan_reply(skald_coordinator *c, skald_session_state *s, const Skald__V1__ScanReply *m) {
    if (m->error[0]) return blame(c, s, SKALD_EDATA, m->error);
    if (s->stage == SKALD_STAGE_OPENING && m->count == 0) {
        s->parts = m->parts;
        s->file_bytes = m->file_bytes;
        s->stage = SKALD_STAGE_OPENED;
        if (s == c->workers) skald_coordinator_notice(c, "data: %s, %u parts", m->description, m->parts);
        return SKALD_OK;
    }
    if (s->stage != SKALD_STAGE_SCANNING || m->first != s->scan_first || m->count != s->scan_count) return SKALD_OK;
    size_t bytes = skald_wire_vector_bytes(c->env, 0);
    uint8_t *packed = skald_alloc(skald_max_size(bytes, 1), 1);
    if (!packed) return SKALD_ENOMEM;
    skald_manifest part = {0};
    skald_status st = skald_wire_read(c->env, 0, 0, packed, bytes);
    if (st == SKALD_OK) st = skald_manifest_unpack(packed, bytes, &part);
    if (st == SKALD_OK && part.dim_limit != c->options->data.source.dim) /* memory is taken for so many columns */
        st = skald_fail(SKALD_EPEER, "a manifest of --dim %u, not %u", part.dim_limit, c->options->data.source.dim);
    if (st == SKALD_OK) st = skald_manifest_merge(&c->manifest, &part);
    if (st == SKALD_OK) s->stage = SKALD_STAGE_SCANNED;
    skald_manifest_free(&part);
    free(packed);
    return st == SKALD_OK ? st : skald_context(st, "worker %u (%s), scan", (unsigned)(s - c->workers), s->member.name);
}

static skald_status on_loaded(skald_coordinator *c, skald_session_state *s, const Skald__V1__Loaded *m) {
    if (m->error[0]) return blame(c, s, SKALD_EDATA, m->error);
    if (s->stage != SKALD_STAGE_LOADING || m->shard != s->shards[s->lease_next]) return SKALD_OK; /* a repetition */
    skald_shard_info *info = &c->problem.shards[m->shard];
    if (m->rows != info->rows) return blame(c, s, SKALD_EPEER, "loaded another number of rows than was leased");
    const double facts[] = {m->nonzeros, m->weight_sum, m->max_weighted_norm2, m->sum_weighted_norm2,
                            m->sum_weighted_y2};
    for (size_t k = 0; k < SKALD_ARRAY_LENGTH(facts); k++)
        if (!(facts[k] >= 0 && isfinite(facts[k])))
            return blame(c, s, SKALD_EPEER, "its shard's sums are no sums: not finite, or negative");
    info->facts = (skald_shard_facts){.rows = m->rows,
                                      .nonzeros = m->nonzeros,
                                      .weight_sum = m->weight_sum,
                                      .max_weighted_norm2 = m->max_weighted_norm2,
                                      .sum_weighted_norm2 = m->sum_weighted_norm2,
                                      .sum_weighted_y2 = m->sum_weighted_y2};
    if (++s->lease_next == s->member.shard_count)
        s->stage = SKALD_STAGE_LOADED;
    else
        skald_gather_ask(c, s);
    return SKALD_OK;
}

static skald_status on_ready(skald_coordinator *c, skald_session_state *s, const Skald__V1__Ready *m) {
    if (m->error[0]) return blame(c, s, SKALD_EUNSUPPORTED, m->error);
    if (m->stage == 1 && s->stage == SKALD_STAGE_SETUP) {
        s->stage = s->member.shard_count ? SKALD_STAGE_LOADING : SKALD_STAGE_LOADED;
        skald_gather_ask(c, s);
    } else if (m->stage == 2 && s->stage == SKALD_STAGE_BEGINNING) {
        s->stage = SKALD_STAGE_READY;
    }
    return SKALD_OK;
}

static skald_status on_frame(skald_coordinator *c, skald_input *in) {
    skald_status st = skald_wire_open(c->env, in->frame);
    if (st != SKALD_OK) {
        skald_coordinator_refuse(c, in->session, SKALD_EPEER, skald_error());
        return SKALD_OK;
    }
    const Skald__V1__Frame *f = skald_wire_body(c->env);
    if (f->body_case == SKALD__V1__FRAME__BODY_HELLO) {
        on_hello(c, in->session, f->hello);
        return SKALD_OK;
    }
    skald_session_state *s = skald_coordinator_find(c, in->session);
    if (!s) {
        skald_coordinator_refuse(c, in->session, SKALD_EPEER, "its first word is no hello");
        return SKALD_OK;
    }
    s->seen_ns = skald_now_ns(c->options->clock);
    switch (f->body_case) {
    case SKALD__V1__FRAME__BODY_SCAN_REPLY:
        return on_scan_reply(c, s, f->scan_reply);
    case SKALD__V1__FRAME__BODY_LOADED:
        return on_loaded(c, s, f->loaded);
    case SKALD__V1__FRAME__BODY_READY:
        return on_ready(c, s, f->ready);
    default:
        return SKALD_OK;
    }
}

/* ---- steps taken together -------------------------------------------------------------------------- */

static void advance_all(skald_coordinator *c, skald_stage stage) {
    for (uint32_t k = 0; k < c->joined; k++) {
        c->workers[k].stage = stage;
        skald_gather_ask(c, &c->workers[k]);
    }
}

static skald_status begin_scan(skald_coordinator *c) {
    uint32_t w = c->joined, parts = c->workers[0].parts;
    uint64_t bytes = c->workers[0].file_bytes;
    for (uint32_t k = 0; k < w; k++) {
        skald_session_state *s = &c->workers[k];
        /* the checksums of shards cannot tell a file from its own beginning */
        if (s->parts != parts || s->file_bytes != bytes) {
            char text[200];
            snprintf(text, sizeof text, "its data file has %llu bytes, that of %s %llu: not the same file",
                     (unsigned long long)s->file_bytes, c->workers[0].member.name, (unsigned long long)bytes);
            return blame(c, s, SKALD_EDATA, text);
        }
        s->scan_first = (uint32_t)((uint64_t)parts * k / w);
        s->scan_count = (uint32_t)((uint64_t)parts * (k + 1) / w) - s->scan_first;
    }
    advance_all(c, SKALD_STAGE_SCANNING);
    for (uint32_t k = 0; k < w; k++) /* fewer parts than workers */
        if (c->workers[k].scan_count == 0) c->workers[k].stage = SKALD_STAGE_SCANNED;
    return SKALD_OK;
}

/* One shard for everybody first, the rest in proportion to the slots. */
static skald_session_state *whose(skald_coordinator *c, uint32_t shard) {
    if (shard < c->joined) return &c->workers[shard];
    skald_session_state *best = c->workers;
    for (uint32_t k = 1; k < c->joined; k++) {
        skald_session_state *s = &c->workers[k];
        uint64_t one = (uint64_t)(s->member.shard_count + 1) * best->member.slots;
        if (one < (uint64_t)(best->member.shard_count + 1) * s->member.slots) best = s;
    }
    return best;
}

static skald_status begin_loading(skald_coordinator *c) {
    skald_problem *p = &c->problem;
    skald_status st = skald_manifest_finish(&c->manifest);
    if (st != SKALD_OK) return skald_context(st, "%s", c->options->data.path);
    uint64_t slots = 0;
    for (uint32_t k = 0; k < c->joined; k++) slots += c->workers[k].member.slots;
    TRY(skald_problem_make(&c->manifest, &c->options->data, &c->options->objective, c->joined, slots, p));
    const uint64_t message = 2ull * skald_problem_length(p) * sizeof(double) + 4096; /* two vectors and a header */
    const uint64_t most = c->options->net.max_frame_bytes ? c->options->net.max_frame_bytes : (uint64_t)1 << 30;
    if (message > most)
        return skald_fail(SKALD_ETOOBIG, "%s: %u columns x %u classes make messages of %llu MB; the limit is %llu MB",
                          c->options->data.path, p->dim, skald_objective_classes(&p->objective),
                          (unsigned long long)(message >> 20), (unsigned long long)(most >> 20));
    skald_coordinator_notice(c, "%.0f rows x %u columns, %s, %u shards", p->n, p->features,
                             p->dense ? "dense" : "sparse", p->shard_count);
    for (uint32_t k = 0; k < c->joined; k++) {
        skald_session_state *s = &c->workers[k];
        s->shards = skald_zalloc(p->shard_count, sizeof *s->shards);
        if (!s->shards) return SKALD_ENOMEM;
        s->member.shards = s->shards;
    }
    for (uint32_t i = 0; i < p->shard_count; i++) {
        skald_session_state *s = whose(c, i);
        s->shards[s->member.shard_count++] = i;
        s->member.rows += p->shards[i].rows;
    }
    advance_all(c, SKALD_STAGE_SETUP);
    return SKALD_OK;
}

static bool everybody(const skald_coordinator *c, skald_stage stage) {
    if (c->joined < c->options->workers) return false;
    for (uint32_t k = 0; k < c->joined; k++)
        if (c->workers[k].stage != stage) return false;
    return true;
}

static skald_status step(skald_coordinator *c) {
    if (everybody(c, SKALD_STAGE_OPENED)) TRY(begin_scan(c));
    if (everybody(c, SKALD_STAGE_SCANNED)) TRY(begin_loading(c));
    if (everybody(c, SKALD_STAGE_LOADED)) {
        TRY(skald_problem_loaded(&c->problem));
        advance_all(c, SKALD_STAGE_BEGINNING);
    }
    if (everybody(c, SKALD_STAGE_READY)) c->ready = true;
    return SKALD_OK;
}

static skald_status repeat(skald_coordinator *c) {
    int64_t now = skald_now_ns(c->options->clock);
    for (uint32_t k = 0; k < c->joined; k++) {
        skald_session_state *s = &c->workers[k];
        if (now - s->asked_ns >= c->repeat_ns) skald_gather_ask(c, s);
        if (now - s->seen_ns > c->timeout_ns) skald_coordinator_lose(c, s, "no sign of life");
        if (!s->alive)
            return skald_fail(SKALD_ELOST, "worker %u (%s) was lost before training began: %s", k, s->member.name,
                              s->lost);
    }
    return SKALD_OK;
}

static void answer_early(skald_coordinator *c, skald_input *in) {
    if (in->method != SKALD_METHOD_STATUS) {
        skald_net_reply(in->call, SKALD_EUNAVAILABLE, "training has not begun", NULL, 0);
    } else {
        char json[200];
        snprintf(json, sizeof json,
                 "{\"state\":\"gathering\",\"run\":\"%s\",\"joined\":%u,\"wanted\":%u,\"workers\":[]}", c->run,
                 c->joined, c->options->workers);
        Skald__V1__Frame frame = SKALD__V1__FRAME__INIT;
        Skald__V1__StatusReply reply = SKALD__V1__STATUS_REPLY__INIT;
        reply.json = json;
        frame.body_case = SKALD__V1__FRAME__BODY_STATUS_REPLY;
        frame.status_reply = &reply;
        skald_wire_reply(in->call, &frame, NULL, 0, c->headers);
    }
    in->call = NULL;
}

skald_status skald_coordinator_gather(skald_coordinator *c, const atomic_int *stop_flag, skald_crew **crew) {
    int64_t begin = skald_now_ns(c->options->clock);
    int64_t tick = c->repeat_ns < SKALD_NS_PER_S / 10 ? c->repeat_ns : SKALD_NS_PER_S / 10;
    while (!c->ready) {
        if (stop_flag && *stop_flag) return skald_fail(SKALD_INTERRUPTED, "interrupted while waiting for workers");
        skald_input in;
        skald_status st = skald_queue_pop(c->inputs, &in, tick);
        if (st == SKALD_OK) {
            if (in.kind == SKALD_INPUT_FRAME) st = on_frame(c, &in);
            if (in.kind == SKALD_INPUT_CALL) answer_early(c, &in);
            if (in.kind == SKALD_INPUT_REFUSED) skald_coordinator_turned_away(c, in.reason);
            if (in.kind == SKALD_INPUT_CLOSE) skald_coordinator_closed(c, &in);
            skald_input_drop(&in);
            TRY(st);
        }
        TRY(repeat(c));
        TRY(step(c));
        if (c->options->wait_ns > 0 && c->joined < c->options->workers &&
            skald_now_ns(c->options->clock) - begin > c->options->wait_ns)
            return skald_fail(SKALD_ETIMEOUT, "%u of %u workers came to %s within %.3g s (--workers, --wait)",
                              c->joined, c->options->workers, c->options->address, (double)c->options->wait_ns * 1e-9);
    }
    c->crew.problem = &c->problem;
    *crew = &c->crew;
    return SKALD_OK;
}
