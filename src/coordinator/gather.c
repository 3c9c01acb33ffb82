/* From a hello to a ready crew: workers open and scan the data, the manifest is merged, shards are leased
 * and loaded. Everybody takes the same steps at the same time; each step is one request and one answer. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/state.h"

static skald_status blame(const skald_coordinator *c, const skald_session_state *s, skald_status code,
                          const char *error) {
    return skald_fail(code, "worker %u (%s): %s", (unsigned)(s - c->workers), s->member.name, error);
}

/* The checksums of shards cannot tell a file from its own beginning. */
static skald_status same_file(const skald_coordinator *c, const skald_session_state *s) {
    if (s->parts == c->parts && s->file_bytes == c->file_bytes) return SKALD_OK;
    char text[200];
    snprintf(text, sizeof text, "its data file has %llu bytes, that of %s %llu: not the same file",
             (unsigned long long)s->file_bytes, c->workers[0].member.name, (unsigned long long)c->file_bytes);
    return blame(c, s, SKALD_EDATA, text);
}

/* A worker that the run did not begin with: it is told what there is, and leases come once it is ready. */
static skald_status bring_in(skald_coordinator *c, skald_session_state *s) {
    TRY(same_file(c, s));
    s->stage = SKALD_STAGE_SETUP;
    skald_ask_stage(c, s);
    return SKALD_OK;
}

static skald_status on_scan_reply(skald_coordinator *c, skald_session_state *s, const Skald__V1__ScanReply *m) {
    if (m->error[0]) return blame(c, s, SKALD_EDATA, m->error);
    if (s->stage == SKALD_STAGE_OPENING && m->count == 0) {
        s->parts = m->parts;
        s->file_bytes = m->file_bytes;
        s->stage = SKALD_STAGE_OPENED;
        if (c->ready) return bring_in(c, s);
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
    const double facts[] = {m->nonzeros, m->weight_sum, m->max_weighted_norm2, m->sum_weighted_norm2, m->spread_y};
    for (size_t k = 0; k < SKALD_ARRAY_LENGTH(facts); k++)
        if (!(facts[k] >= 0 && isfinite(facts[k]) && isfinite(m->mean_y)))
            return blame(c, s, SKALD_EPEER, "its shard's sums are no sums: not finite, or negative");
    info->facts = (skald_shard_facts){.rows = m->rows,
                                      .nonzeros = m->nonzeros,
                                      .weight_sum = m->weight_sum,
                                      .max_weighted_norm2 = m->max_weighted_norm2,
                                      .sum_weighted_norm2 = m->sum_weighted_norm2,
                                      .mean_y = m->mean_y,
                                      .spread_y = m->spread_y};
    if (++s->lease_next == s->member.shard_count)
        s->stage = SKALD_STAGE_LOADED;
    else
        skald_ask_stage(c, s);
    return SKALD_OK;
}

static skald_status on_ready(skald_coordinator *c, skald_session_state *s, const Skald__V1__Ready *m) {
    if (m->error[0]) return blame(c, s, SKALD_EUNSUPPORTED, m->error);
    if (m->stage == 1 && s->stage == SKALD_STAGE_SETUP) {
        s->stage = c->ready ? SKALD_STAGE_BEGINNING : s->member.shard_count ? SKALD_STAGE_LOADING : SKALD_STAGE_LOADED;
        skald_ask_stage(c, s);
    } else if (m->stage == 2 && s->stage == SKALD_STAGE_BEGINNING) {
        s->stage = SKALD_STAGE_READY;
        if (!c->ready) return SKALD_OK;
        s->known = true;
        skald_changes_note(c, SKALD_EVENT_JOINED, (uint32_t)(s - c->workers), 0, NULL);
        c->unsettled = true;
    }
    return SKALD_OK;
}

skald_status skald_gather_answer(skald_coordinator *c, skald_session_state *s, const Skald__V1__Frame *f) {
    switch (f->body_case) {
    case SKALD__V1__FRAME__BODY_SCAN_REPLY:
        return on_scan_reply(c, s, f->scan_reply);
    case SKALD__V1__FRAME__BODY_LOADED:
        return on_loaded(c, s, f->loaded);
    case SKALD__V1__FRAME__BODY_READY:
        return on_ready(c, s, f->ready);
    case SKALD__V1__FRAME__BODY_VERSION_REPLY:
        return skald_legacy_answer(c, s, f->version_reply);
    default:
        return SKALD_OK;
    }
}

static bool founds(const skald_coordinator *c, const skald_session_state *s) {
    return s - c->workers < (ptrdiff_t)c->expected;
}

static skald_status on_frame(skald_coordinator *c, skald_input *in) {
    skald_session_state *s = skald_coordinator_take(c, in);
    skald_status st = skald_wire_open(c->env, in->frame);
    if (st != SKALD_OK) {
        skald_coordinator_refuse(c, in->session, SKALD_EPEER, skald_error());
        return SKALD_OK;
    }
    const Skald__V1__Frame *f = skald_wire_body(c->env);
    if (f->body_case == SKALD__V1__FRAME__BODY_HELLO) {
        skald_members_hello(c, in->session, f->hello);
        if (!s) skald_coordinator_take(c, in); /* it has a seat now */
        return SKALD_OK;
    }
    if (!s) {
        if (!skald_door_seat(in->session))
            skald_coordinator_refuse(c, in->session, SKALD_EPEER, "its first word is no hello");
        return SKALD_OK;
    }
    s->seen_ns = skald_now_ns(c->options->clock);
    st = skald_gather_answer(c, s, f);
    if (st == SKALD_OK || founds(c, s)) return st;
    skald_coordinator_lose(c, s, skald_error());
    return SKALD_OK;
}

/* ---- steps taken together -------------------------------------------------------------------------- */

static void vacate(skald_session_state *s) {
    s->vacant = true;
    s->stage = SKALD_STAGE_OPENING;
}

/* Everybody: they come back at once. */
static void send_back(skald_coordinator *c) {
    for (uint32_t k = 0; k < c->joined; k++) {
        skald_coordinator_lose(c, &c->workers[k], "another worker was lost before training began");
        vacate(&c->workers[k]);
    }
}

/* A worker that was to begin with the others is gone, and did not say why: somebody else may take its place. Once it
 * has been told what is whose, the others are sent back: everybody begins anew. */
static void begin_again(skald_coordinator *c, skald_session_state *lost) {
    const bool dealt = lost->stage > SKALD_STAGE_OPENED;
    skald_coordinator_notice(c, "worker %u (%s) was lost before training began: %s; waiting for another",
                             (unsigned)(lost - c->workers), lost->member.name, lost->lost);
    vacate(lost);
    if (!dealt) return;
    send_back(c);
    skald_legacy_free(c);
    skald_problem_free(&c->problem);
    skald_manifest_free(&c->manifest);
}

static void advance_all(skald_coordinator *c, skald_stage stage) {
    for (uint32_t k = 0; k < skald_coordinator_founders(c); k++) {
        c->workers[k].stage = stage;
        skald_ask_stage(c, &c->workers[k]);
    }
}

static skald_status begin_setup(skald_coordinator *c);

/* A manifest from before serves again; the checksums of shards are compared as they are loaded. */
static skald_status begin_known(skald_coordinator *c) {
    skald_manifest known = {0};
    skald_status st = skald_manifest_unpack(c->options->manifest, c->options->manifest_bytes, &known);
    if (st == SKALD_OK && known.dim_limit != c->options->data.source.dim)
        st = skald_fail(SKALD_EMODEL, "the checkpoint is of a run with --dim %u, not %u", known.dim_limit,
                        c->options->data.source.dim);
    if (st != SKALD_OK) {
        skald_manifest_free(&known);
        return st;
    }
    c->manifest = known; /* finished, as it was */
    return begin_setup(c);
}

static skald_status begin_scan(skald_coordinator *c) {
    const uint32_t w = skald_coordinator_founders(c), parts = c->parts = c->workers[0].parts;
    c->file_bytes = c->workers[0].file_bytes;
    for (uint32_t k = 0; k < w; k++) {
        skald_session_state *s = &c->workers[k];
        TRY(same_file(c, s));
        if (c->options->manifest) continue;
        s->scan_first = (uint32_t)((uint64_t)parts * k / w);
        s->scan_count = (uint32_t)((uint64_t)parts * (k + 1) / w) - s->scan_first;
    }
    if (c->options->manifest) return begin_known(c);
    advance_all(c, SKALD_STAGE_SCANNING);
    for (uint32_t k = 0; k < w; k++) /* fewer parts than workers */
        if (c->workers[k].scan_count == 0) c->workers[k].stage = SKALD_STAGE_SCANNED;
    return SKALD_OK;
}

/* One shard for everybody first, the rest in proportion to the slots. */
static skald_session_state *whose(skald_coordinator *c) {
    for (uint32_t k = 0; k < skald_coordinator_founders(c); k++)
        if (!c->workers[k].member.shard_count) return &c->workers[k];
    skald_session_state *best = c->workers;
    for (uint32_t k = 1; k < skald_coordinator_founders(c); k++) {
        skald_session_state *s = &c->workers[k];
        uint64_t one = (uint64_t)(s->member.shard_count + 1) * best->member.slots;
        if (one < (uint64_t)(best->member.shard_count + 1) * s->member.slots) best = s;
    }
    return best;
}

/* From a finished manifest: the problem, who has which shard, and setup of everybody. */
static skald_status begin_setup(skald_coordinator *c) {
    skald_problem *p = &c->problem;
    uint64_t slots = 0;
    for (uint32_t k = 0; k < skald_coordinator_founders(c); k++) slots += c->workers[k].member.slots;
    TRY(skald_problem_make(&c->manifest, &c->options->data, &c->options->objective, skald_coordinator_founders(c),
                           slots, p));
    const uint64_t message = 2ull * skald_problem_length(p) * sizeof(double) + 4096; /* two vectors and a header */
    const uint64_t most = c->options->net.max_frame_bytes ? c->options->net.max_frame_bytes : (uint64_t)1 << 30;
    if (message > most)
        return skald_fail(SKALD_ETOOBIG, "%s: %u columns x %u classes make messages of %llu MB; the limit is %llu MB",
                          c->options->data.path, p->dim, skald_objective_classes(&p->objective),
                          (unsigned long long)(message >> 20), (unsigned long long)(most >> 20));
    skald_coordinator_notice(c, "%.0f rows x %u columns, %s, %u shards", p->n, p->features,
                             p->dense ? "dense" : "sparse", p->shard_count);
    for (uint32_t k = 0; k < skald_coordinator_founders(c); k++) {
        skald_session_state *s = &c->workers[k];
        s->shards = skald_zalloc(p->shard_count, sizeof *s->shards);
        if (!s->shards) return SKALD_ENOMEM;
        s->member.shards = s->shards;
    }
    TRY(skald_legacy_deal(c));
    for (uint32_t i = 0; i < p->shard_count; i++) {
        if (c->legacy.kept && c->legacy.kept[i]) continue;
        skald_session_state *s = whose(c);
        s->shards[s->member.shard_count++] = i;
        s->member.rows += p->shards[i].rows;
    }
    advance_all(c, SKALD_STAGE_SETUP);
    return SKALD_OK;
}

static skald_status finish_scan(skald_coordinator *c) {
    skald_status st = skald_manifest_finish(&c->manifest);
    return st == SKALD_OK ? st : skald_context(st, "%s", c->options->data.path);
}

static bool everybody(const skald_coordinator *c, skald_stage stage) {
    if (skald_coordinator_founders(c) < c->expected) return false;
    for (uint32_t k = 0; k < skald_coordinator_founders(c); k++)
        if (c->workers[k].stage != stage) return false;
    return true;
}

/* The crew is ready. Who came early is brought in now. */
static skald_status begin(skald_coordinator *c) {
    TRY(skald_leases_init(c));
    c->ready = true;
    for (uint32_t k = skald_coordinator_founders(c); k < c->joined; k++) {
        skald_session_state *s = &c->workers[k];
        if (s->alive && s->stage == SKALD_STAGE_OPENED && bring_in(c, s) != SKALD_OK)
            skald_coordinator_lose(c, s, skald_error());
    }
    return SKALD_OK;
}

static skald_status step(skald_coordinator *c) {
    if (everybody(c, SKALD_STAGE_OPENED)) TRY(begin_scan(c));
    if (everybody(c, SKALD_STAGE_SCANNED)) {
        TRY(finish_scan(c));
        TRY(begin_setup(c));
    }
    if (everybody(c, SKALD_STAGE_LOADED)) {
        TRY(skald_problem_loaded(&c->problem));
        advance_all(c, SKALD_STAGE_BEGINNING);
    }
    return everybody(c, SKALD_STAGE_READY) && skald_legacy_settled(c) ? begin(c) : SKALD_OK;
}

static uint32_t present(const skald_coordinator *c) {
    uint32_t count = 0;
    for (uint32_t k = 0; k < skald_coordinator_founders(c); k++) count += c->workers[k].alive;
    return count;
}

static skald_status repeat(skald_coordinator *c) {
    int64_t now = skald_now_ns(c->options->clock);
    for (uint32_t k = 0; k < c->joined; k++) {
        skald_session_state *s = &c->workers[k];
        if (now - s->asked_ns >= c->repeat_ns) skald_ask_stage(c, s);
        if (s->alive && now - s->seen_ns > c->timeout_ns) {
            s->broke = true;
            skald_coordinator_lose(c, s, "no sign of life");
        }
        if (s->alive || s->vacant || !founds(c, s)) continue;
        if (s->broke && c->options->alone_ns)
            begin_again(c, s);
        else
            return skald_fail(SKALD_ELOST, "worker %u (%s) was lost before training began: %s", k, s->member.name,
                              s->lost);
    }
    return SKALD_OK;
}

/* A run that is gone on with waits for who was in it, but not for ever: some may have died with the coordinator. Seats
 * are numbers of workers, without a gap: if there is one, all come anew. */
static void do_with_fewer(skald_coordinator *c) {
    const int64_t now = skald_now_ns(c->options->clock), grace = c->options->reconnect_grace_ns;
    const uint32_t there = present(c);
    if (!c->options->manifest || !there || there == c->expected) return;
    if (now - c->came_ns < 2 * (grace > 0 ? grace : 10 * SKALD_NS_PER_S)) return;
    for (uint32_t k = 0; k < there; k++)
        if (!c->workers[k].alive) {
            send_back(c);
            c->came_ns = now;
            return;
        }
    skald_coordinator_notice(c, "going on with %u of %u workers; the others may join later", there, c->expected);
    while (c->joined > there) skald_members_clear(&c->workers[--c->joined]);
    c->expected = there;
}

/* Who is there, and how many are to come; free() it. */
static char *early_status(const skald_coordinator *c) {
    json_t *workers = json_array();
    for (uint32_t k = 0; k < c->joined; k++) {
        const skald_session_state *s = &c->workers[k];
        if (s->vacant || !s->alive) continue;
        json_array_append_new(workers, json_pack("{s:s,s:s,s:b,s:s}", "name", s->member.name, "device",
                                                 s->member.device, "alive", 1, "state", "waiting"));
    }
    json_t *root = json_pack("{s:s,s:s,s:i,s:i,s:o}", "state", "gathering", "run", c->run, "joined", (int)present(c),
                             "wanted", (int)c->expected, "workers", workers);
    char *text = json_dumps(root, JSON_COMPACT);
    json_decref(root);
    return text;
}

static void answer_early(skald_coordinator *c, skald_input *in) {
    char *json = in->method == SKALD_METHOD_STATUS ? early_status(c) : NULL;
    if (in->method != SKALD_METHOD_STATUS) { /* drain, fetch */
        skald_net_reply(in->call, SKALD_EUNAVAILABLE, "training has not begun", NULL, 0);
    } else if (!json) {
        skald_net_reply(in->call, SKALD_ENOMEM, "out of memory", NULL, 0);
    } else {
        Skald__V1__Frame frame = SKALD__V1__FRAME__INIT;
        Skald__V1__StatusReply reply = SKALD__V1__STATUS_REPLY__INIT;
        reply.json = json;
        frame.body_case = SKALD__V1__FRAME__BODY_STATUS_REPLY;
        frame.status_reply = &reply;
        skald_wire_reply(in->call, &frame, NULL, 0, c->headers);
    }
    free(json);
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
        do_with_fewer(c);
        TRY(step(c));
        if (c->options->wait_ns > 0 && present(c) < c->expected &&
            skald_now_ns(c->options->clock) - begin > c->options->wait_ns)
            return skald_fail(SKALD_ETIMEOUT, "%u of %u workers came to %s within %.3g s (--workers, --wait)",
                              present(c), c->expected, c->options->address, (double)c->options->wait_ns * 1e-9);
    }
    c->crew.problem = &c->problem;
    c->crew.manifest = &c->manifest;
    c->crew.legacy = c->options->manifest ? &c->legacy : NULL;
    *crew = &c->crew;
    return SKALD_OK;
}
