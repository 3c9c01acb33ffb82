#include "engine/sampling.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"

static const double CHUNK_BYTES = 4e6; /* of a task: more would hold up the results behind it */

skald_status skald_sampling_init(skald_sampling *s, const skald_problem *p) {
    *s = (skald_sampling){.problem = p};
    const double row = (p->dense ? 4.0 * p->dim : 8.0 * p->nonzeros / p->n) + 16;
    s->chunk = (uint32_t)fmax(1, fmin(CHUNK_BYTES / row, 1e6));
    s->came = skald_zalloc(p->shard_count, sizeof *s->came);
    s->asked = skald_zalloc(p->shard_count, sizeof *s->asked);
    return s->came && s->asked ? SKALD_OK : SKALD_ENOMEM;
}

static void drop_pieces(skald_sampling *s) {
    for (size_t k = 0; k < s->piece_count; k++) skald_rows_free(&s->pieces[k].rows);
    s->piece_count = 0;
}

void skald_sampling_fini(skald_sampling *s) {
    drop_pieces(s);
    free(s->pieces);
    free(s->came);
    free(s->asked);
    free(s->shard);
    free(s->row);
    skald_rows_free(&s->sample.rows);
    memset(s, 0, sizeof *s);
}

/* Of a shard. */
static uint64_t share(const skald_sampling *s, uint32_t shard) {
    const uint64_t rows = s->problem->shards[shard].rows;
    const double part = ceil((double)s->wanted * (double)rows / s->problem->n);
    return part >= (double)rows ? rows : (uint64_t)part;
}

void skald_sampling_want(skald_sampling *s, uint64_t rows) {
    if (rows <= s->wanted) return;
    s->wanted = rows;
    s->sample.complete = false;
}

bool skald_sampling_task(skald_sampling *s, const skald_member *m, skald_task *task) {
    if (s->sample.complete || !s->wanted) return false;
    for (uint32_t i = 0; i < m->shard_count; i++) {
        const uint32_t k = m->shards[i];
        const uint64_t part = share(s, k);
        if (s->asked[k] || s->came[k] >= part) continue;
        const uint64_t left = part - s->came[k];
        *task = (skald_task){.kind = SKALD_TASK_SAMPLE,
                             .shard = k,
                             .position = s->came[k],
                             .rows = (uint32_t)(left < s->chunk ? left : s->chunk)};
        s->asked[k] = true;
        return true;
    }
    return false;
}

void skald_sampling_lost(skald_sampling *s, uint32_t shard) {
    s->asked[shard] = false;
}

/* Numbers of the piece's rows in their shard. */
static size_t number(skald_sampling *s, const skald_sampling_piece *p, size_t at) {
    for (size_t i = 0; i < p->rows.n; i++) s->shard[at + i] = p->shard;
    return skald_task_sample(s->problem->seed, p->shard, s->problem->shards[p->shard].rows, p->position, p->rows.n,
                             s->row + at);
}

/* The sample as it was, and the pieces that have come since, by shard: the order of their coming does not matter. */
static int by_shard(const void *a, const void *b) {
    const skald_sampling_piece *p = a, *q = b;
    return p->shard != q->shard ? (p->shard < q->shard ? -1 : 1) : p->position < q->position ? -1 : 1;
}

static skald_status assemble(skald_sampling *s) {
    const size_t before = s->sample.rows.n;
    skald_rows *all = skald_alloc(s->piece_count + 1, sizeof *all), joined;
    uint32_t *shard = realloc(s->shard, s->here * sizeof *shard);
    if (shard) s->shard = shard;
    uint32_t *row = realloc(s->row, s->here * sizeof *row);
    if (row) s->row = row;
    if (!all || !shard || !row) {
        free(all);
        return skald_fail(SKALD_ENOMEM, "out of memory for a sample of %llu rows", (unsigned long long)s->here);
    }
    qsort(s->pieces, s->piece_count, sizeof *s->pieces, by_shard);
    size_t count = 0, at = before;
    if (before) all[count++] = s->sample.rows;
    for (size_t k = 0; k < s->piece_count; k++) {
        all[count++] = s->pieces[k].rows;
        at += number(s, &s->pieces[k], at);
    }
    const skald_status st = skald_rows_join(all, count, &joined);
    free(all);
    if (st != SKALD_OK) return st;
    skald_rows_free(&s->sample.rows);
    s->sample = (skald_sample){
        .rows = joined, .shard = s->shard, .row = s->row, .complete = true, .whole = (double)s->here >= s->problem->n};
    drop_pieces(s);
    return SKALD_OK;
}

static bool all_here(const skald_sampling *s) {
    for (uint32_t k = 0; k < s->problem->shard_count; k++)
        if (s->came[k] < share(s, k)) return false;
    return true;
}

skald_status skald_sampling_add(skald_sampling *s, uint64_t position, skald_result *r) {
    if (s->piece_count == s->piece_room) {
        const size_t room = s->piece_room ? 2 * s->piece_room : 64;
        skald_sampling_piece *grown = realloc(s->pieces, room * sizeof *grown);
        if (!grown) return skald_fail(SKALD_ENOMEM, "out of memory");
        s->pieces = grown;
        s->piece_room = room;
    }
    s->asked[r->shard] = false;
    s->came[r->shard] += r->sample.n;
    s->here += r->sample.n;
    s->pieces[s->piece_count++] = (skald_sampling_piece){r->sample, r->shard, position};
    r->sample = (skald_rows){0};
    return all_here(s) ? assemble(s) : SKALD_OK;
}
