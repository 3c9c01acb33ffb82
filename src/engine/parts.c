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
    free(p->parts);
    free(p->next);
    memset(p, 0, sizeof *p);
}

uint32_t skald_parts_next(const skald_parts *p, uint32_t shard, const skald_version *version) {
    for (uint32_t k = 0; k < SKALD_SHARD_PARTS; k++) {
        const uint32_t q = (p->next[shard] + k) % SKALD_SHARD_PARTS;
        const skald_parts_item *one = skald_parts_get(p, shard, q);
        if (one->rows && !one->out && (!version || one->at != version)) return q;
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

double skald_parts_taken(skald_parts *p, skald_vectors *v, uint32_t shard, uint32_t part, skald_version *version,
                         double *change, double *loss) {
    const uint32_t first = part == SKALD_ALL_PARTS ? 0 : part;
    const uint32_t end = part == SKALD_ALL_PARTS ? SKALD_SHARD_PARTS : part + 1;
    const double all = *loss;
    double came = 0;
    for (uint32_t q = first; q < end; q++) {
        skald_parts_item *one = skald_parts_get(p, shard, q);
        skald_version *before = one->at;
        if (!one->rows) continue;
        if (before == version) {
            *loss -= one->loss;
            continue;
        }
        if (before)
            v->ops->axpy(v, change, -(double)one->rows / p->n, before->vectors[0]);
        else
            p->seen += one->rows;
        came += one->rows;
        one->at = skald_version_ref(version);
        one->loss = part == SKALD_ALL_PARTS ? 0 : all;
        skald_version_unref(before);
    }
    if (came > 0)
        v->ops->axpy(v, change, came / p->n, version->vectors[0]);
    else
        *loss = 0;
    return came;
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
