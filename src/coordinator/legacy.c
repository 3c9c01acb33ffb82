/* What workers have from earlier starts of the run.
 *
 * A coordinator that died and was started again finds its workers waiting, each with its shards and their tables. The
 * tables have gone on since the checkpoint, and with them every result that was on its way, so each shard stays with
 * its holder and its A_k is taken from there. The model goes on from the newest version that any of them was sent, if
 * that is newer than the checkpoint's. Who comes once training has begun has nothing of use: its shards are with
 * others.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/state.h"

static void forget(skald_session_state *s) {
    free(s->held);
    s->held = NULL;
    s->held_count = s->held_of = 0;
    s->newest = s->newest_commits = s->newest_checksum = 0;
}

void skald_legacy_hear(skald_coordinator *c, skald_session_state *s, const Skald__V1__Hello *m) {
    forget(s);
    if (c->ready || !c->options->manifest || !m->incarnation || m->term > c->term || strcmp(m->run, c->run) != 0)
        return;
    if (!m->shards || !m->n_held || m->n_held != m->n_held_checksums) return;
    if (m->newest >> 62 || m->newest_commits >> 62) return; /* no count comes to that: numbers go on from it */
    s->held = skald_alloc(m->n_held, sizeof *s->held);
    if (!s->held) return; /* it begins anew */
    s->held_count = (uint32_t)m->n_held;
    s->held_of = m->shards;
    for (uint32_t k = 0; k < s->held_count; k++) s->held[k] = (skald_held){m->held[k], m->held_checksums[k]};
    s->newest = m->newest;
    s->newest_commits = m->newest_commits;
    s->newest_checksum = m->newest_checksum;
}

static void keep(skald_coordinator *c, skald_session_state *s, const skald_held *h) {
    const skald_problem *p = &c->problem;
    if (h->shard >= p->shard_count || p->shards[h->shard].checksum != h->checksum || c->legacy.kept[h->shard]) return;
    c->legacy.kept[h->shard] = true;
    s->shards[s->member.shard_count++] = h->shard;
    s->member.rows += p->shards[h->shard].rows;
}

skald_status skald_legacy_deal(skald_coordinator *c) {
    if (!c->options->manifest) return SKALD_OK;
    uint32_t kept = 0;
    skald_legacy_free(c);
    c->legacy.kept = skald_zalloc(c->problem.shard_count, sizeof *c->legacy.kept);
    if (!c->legacy.kept) return SKALD_ENOMEM;
    for (uint32_t k = 0; k < skald_coordinator_founders(c); k++) {
        skald_session_state *s = &c->workers[k];
        if (s->newest > c->legacy.version) c->legacy.version = s->newest;
        for (uint32_t i = 0; s->held_of == c->problem.shard_count && i < s->held_count; i++) keep(c, s, &s->held[i]);
        kept += s->member.shard_count;
    }
    if (kept) skald_coordinator_notice(c, "%u of %u shards are with their workers still", kept, c->problem.shard_count);
    return SKALD_OK;
}

/* Who has the newest model that is newer than the checkpoint's. */
static uint32_t newest(const skald_coordinator *c) {
    uint32_t best = UINT32_MAX;
    uint64_t commits = c->options->commits;
    for (uint32_t k = 0; k < skald_coordinator_founders(c); k++) {
        const skald_session_state *s = &c->workers[k];
        if (!s->newest_checksum || s->newest_commits <= commits) continue;
        best = k;
        commits = s->newest_commits;
    }
    return best;
}

bool skald_legacy_settled(skald_coordinator *c) {
    const int64_t now = skald_now_ns(c->options->clock);
    const uint32_t from = c->legacy.w ? UINT32_MAX : newest(c);
    if (from == UINT32_MAX) return true;
    if (from == c->asked && now - c->asked_ns < c->repeat_ns) return false;
    c->asked = from;
    c->asked_ns = now;
    Skald__V1__Frame frame = SKALD__V1__FRAME__INIT;
    Skald__V1__VersionRequest m = SKALD__V1__VERSION_REQUEST__INIT;
    m.version = c->workers[from].newest;
    frame.body_case = SKALD__V1__FRAME__BODY_VERSION_REQUEST;
    frame.version_request = &m;
    skald_coordinator_send(c, &c->workers[from], &frame, NULL, 0);
    return false;
}

static skald_status read_model(const skald_coordinator *c, const skald_session_state *s, double *w, size_t dim) {
    double sum = 0;
    TRY(skald_wire_doubles(c->env, 0, w, dim));
    for (size_t j = 0; j < dim; j++) sum += w[j] * 0;
    if (sum != 0) return skald_fail(SKALD_EPEER, "it is not finite");
    if (skald_hash(w, dim * sizeof *w, 0) != s->newest_checksum) return skald_fail(SKALD_EPEER, "its checksum differs");
    return SKALD_OK;
}

skald_status skald_legacy_answer(skald_coordinator *c, skald_session_state *s, const Skald__V1__VersionReply *m) {
    const size_t dim = skald_problem_length(&c->problem);
    if (c->ready || c->legacy.w || s->stage != SKALD_STAGE_READY || !s->newest_checksum || c->asked != s - c->workers)
        return SKALD_OK; /* a repetition, or never asked for */
    double *w = skald_alloc(dim, sizeof *w);
    if (!w) return SKALD_ENOMEM;
    if (m->commits != s->newest_commits || read_model(c, s, w, dim) != SKALD_OK) {
        skald_coordinator_notice(c, "the model of worker %s is of no use: %s", s->member.name,
                                 m->commits != s->newest_commits ? "it is another version" : skald_error());
        free(w);
        s->newest_checksum = 0; /* the next best one's */
        return SKALD_OK;
    }
    c->legacy.w = w;
    c->legacy.commits = m->commits;
    c->legacy.number = m->version;
    snprintf(c->legacy.name, sizeof c->legacy.name, "%s", s->member.name);
    return SKALD_OK;
}

void skald_legacy_free(skald_coordinator *c) {
    free(c->legacy.kept);
    free(c->legacy.w);
    c->legacy = (skald_legacy){0};
    c->asked = UINT32_MAX;
}
