#include "engine/parts.h"

#include <stdlib.h>
#include <string.h>

#include "base/base.h"

skald_status skald_parts_init(skald_parts *p, const skald_problem *problem) {
    *p = (skald_parts){.shards = problem->shard_count, .seed = problem->seed, .n = problem->n};
    p->parts = skald_zalloc((size_t)p->shards * SKALD_SHARD_PARTS, sizeof *p->parts);
    p->next = skald_zalloc(p->shards, sizeof *p->next);
    if (!p->parts || !p->next) return SKALD_ENOMEM;
    for (uint32_t k = 0; k < p->shards; k++)
        for (uint32_t q = 0; q < SKALD_SHARD_PARTS; q++)
            skald_parts_get(p, k, q)->rows = (uint32_t)skald_task_part(p->seed, k, problem->shards[k].rows, q, NULL);
    return SKALD_OK;
}

void skald_parts_fini(skald_parts *p) {
    for (size_t k = 0; p->parts && k < (size_t)p->shards * SKALD_SHARD_PARTS; k++) skald_version_unref(p->parts[k].at);
    skald_parts_settled(p);
    free(p->known);
    free(p->parts);
    free(p->next);
    memset(p, 0, sizeof *p);
}

uint32_t skald_parts_next(const skald_parts *p, uint32_t shard, const skald_version *version) {
    for (uint32_t k = 0; k < SKALD_SHARD_PARTS; k++) {
        const uint32_t q = (p->next[shard] + k) % SKALD_SHARD_PARTS;
        const skald_parts_item *one = skald_parts_get(p, shard, q);
        const bool due = p->stale ? one->stale : !version || one->at != version;
        if (one->rows && !one->out && due) return q;
    }
    return SKALD_ALL_PARTS;
}

void skald_parts_take(skald_parts *p, uint32_t shard, uint32_t part) {
    skald_parts_get(p, shard, part)->out = true;
    p->next[shard] = (uint8_t)((part + 1) % SKALD_SHARD_PARTS);
}

void skald_parts_landed(skald_parts *p, uint32_t shard, uint32_t part) {
    skald_parts_get(p, shard, part)->out = false;
}

/* From one model (NULL: none) to another. */
static void move(skald_parts *p, skald_parts_item *one, skald_version *to) {
    p->seen += (to ? one->rows : 0.0) - (one->at ? one->rows : 0.0);
    p->stale -= one->stale;
    one->stale = false;
    skald_version_ref(to);
    skald_version_unref(one->at);
    one->at = to;
}

double skald_parts_taken(skald_parts *p, skald_vectors *v, uint32_t shard, uint32_t part, skald_version *version,
                         double *change, double *loss) {
    const uint32_t first = part == SKALD_ALL_PARTS ? 0 : part;
    const uint32_t end = part == SKALD_ALL_PARTS ? SKALD_SHARD_PARTS : part + 1;
    bool moved[SKALD_SHARD_PARTS] = {false};
    double came = 0;
    for (uint32_t q = first; q < end; q++) {
        skald_parts_item *one = skald_parts_get(p, shard, q);
        if (!one->rows) continue;
        if (one->at == version && !one->stale) {
            *loss -= one->loss;
            continue;
        }
        if (one->at) v->ops->axpy(v, change, -(double)one->rows / p->n, one->at->vectors[0]);
        came += one->rows;
        moved[q] = true;
        move(p, one, version);
    }
    for (uint32_t q = first; q < end; q++)
        if (moved[q]) skald_parts_get(p, shard, q)->loss = *loss * (skald_parts_get(p, shard, q)->rows / came);
    if (came > 0)
        v->ops->axpy(v, change, came / p->n, version->vectors[0]);
    else
        *loss = 0;
    return came;
}

void skald_parts_forget(skald_parts *p) {
    p->seen = 0;
    for (size_t k = 0; k < (size_t)p->shards * SKALD_SHARD_PARTS; k++) {
        skald_version_unref(p->parts[k].at);
        p->parts[k].at = NULL;
    }
}

const skald_version *skald_parts_at(const skald_parts *p, uint32_t shard, uint64_t row) {
    return skald_parts_get(p, shard, skald_task_part_of(p->seed, shard, row))->at;
}

uint64_t skald_parts_oldest(const skald_parts *p) {
    uint64_t oldest = UINT64_MAX;
    for (size_t k = 0; k < (size_t)p->shards * SKALD_SHARD_PARTS; k++) {
        const skald_parts_item *one = &p->parts[k];
        if (!one->rows) continue;
        if (!one->at) return 0;
        if (one->at->commits < oldest) oldest = one->at->commits;
    }
    return oldest;
}

uint64_t skald_parts_seen(const skald_parts *p, uint32_t shard) {
    uint64_t seen = 0;
    for (uint32_t q = 0; q < SKALD_SHARD_PARTS; q++)
        if (skald_parts_get(p, shard, q)->at) seen += skald_parts_get(p, shard, q)->rows;
    return seen;
}

void skald_parts_add(const skald_parts *p, uint32_t shard, double factor, uint32_t dim, double *mean) {
    for (uint32_t q = 0; q < SKALD_SHARD_PARTS; q++) {
        const skald_parts_item *one = skald_parts_get(p, shard, q);
        const double weight = factor * one->rows;
        for (uint32_t j = 0; one->at && j < dim; j++) mean[j] += weight * one->at->vectors[0][j];
    }
}

skald_fresh skald_parts_fresh(const skald_parts *p, const skald_version *version) {
    skald_fresh fresh = {0};
    for (size_t k = 0; version && k < (size_t)p->shards * SKALD_SHARD_PARTS; k++) {
        const skald_parts_item *one = &p->parts[k];
        if (one->at != version || one->stale) continue;
        fresh.rows += one->rows;
        fresh.loss += one->loss;
    }
    return fresh;
}

/* ---- a run that goes on ---------------------------------------------------------------------------- */

skald_status skald_parts_know(skald_parts *p, skald_version *version) {
    skald_status st = SKALD_OK;
    if (p->known_count == p->known_room) {
        const uint32_t room = p->known_room ? 2 * p->known_room : 16;
        skald_version **grown = realloc(p->known, room * sizeof *grown);
        if (grown)
            p->known = grown, p->known_room = room;
        else
            st = skald_fail(SKALD_ENOMEM, "out of memory");
    }
    if (st == SKALD_OK && (!p->known_count || version->id > p->known[p->known_count - 1]->id))
        p->known[p->known_count++] = version;
    else
        skald_version_unref(version);
    return st;
}

skald_version *skald_parts_known(const skald_parts *p, uint64_t number) {
    for (uint32_t begin = 0, end = p->known_count; begin < end;) {
        const uint32_t middle = begin + (end - begin) / 2;
        if (p->known[middle]->id == number) return p->known[middle];
        if (p->known[middle]->id < number)
            begin = middle + 1;
        else
            end = middle;
    }
    return NULL;
}

void skald_parts_resume(skald_parts *p, uint32_t shard, uint32_t part, skald_part_taken at) {
    skald_parts_item *one = skald_parts_get(p, shard, part);
    if (!one->rows) return;
    move(p, one, skald_parts_known(p, at.version));
    one->loss = at.loss;
}

void skald_parts_recall(skald_parts *p, skald_vectors *v, uint32_t shard, const skald_part_taken *told,
                        double *change) {
    for (uint32_t q = 0; q < SKALD_SHARD_PARTS; q++) {
        skald_parts_item *one = skald_parts_get(p, shard, q);
        skald_version *to = skald_parts_known(p, told[q].version);
        const double share = (double)one->rows / p->n;
        if (!one->rows) continue;
        if (!to && told[q].version) { /* until it is taken anew wbar has it where it was */
            p->stale += !one->stale;
            p->lost += !one->stale;
            one->stale = true;
            continue;
        }
        if (one->at) v->ops->axpy(v, change, -share, one->at->vectors[0]);
        if (to) v->ops->axpy(v, change, share, to->vectors[0]);
        move(p, one, to);
        one->loss = told[q].loss;
    }
}

bool skald_parts_agree(const skald_parts *p, uint32_t shard, const skald_part_taken *told) {
    bool agree = true;
    for (uint32_t q = 0; q < SKALD_SHARD_PARTS; q++) {
        const skald_parts_item *one = skald_parts_get(p, shard, q);
        if (!one->rows || one->stale || told[q].version == SKALD_VERSION_UNKNOWN) continue;
        agree &= told[q].version == (one->at ? one->at->id : 0);
    }
    return agree;
}

void skald_parts_settled(skald_parts *p) {
    for (uint32_t k = 0; k < p->known_count; k++) skald_version_unref(p->known[k]);
    p->known_count = 0;
}
