#include "engine/ledger.h"

#include <stdlib.h>
#include <string.h>

#include "base/base.h"

skald_status skald_ledger_init(skald_ledger *l, const skald_problem *p, bool history) {
    memset(l, 0, sizeof *l);
    l->count = p->shard_count;
    l->dim = skald_problem_length(p);
    l->n = p->n;
    l->entries = skald_zalloc(l->count, sizeof *l->entries);
    if (!l->entries) return SKALD_ENOMEM;
    for (uint32_t k = 0; k < l->count; k++) l->entries[k].rows = p->shards[k].rows;
    if (history) {
        l->anchors = skald_zalloc((size_t)l->count * l->dim, sizeof(double));
        if (!l->anchors)
            return skald_context(SKALD_ENOMEM, "anchors of %u shards x %u columns (use fewer --shards)", l->count,
                                 l->dim);
        l->copied = skald_zalloc(l->count, sizeof *l->copied);
        if (!l->copied) return SKALD_ENOMEM;
        for (uint32_t k = 0; k < l->count; k++) l->entries[k].anchor = l->anchors + (size_t)k * l->dim;
    }
    return SKALD_OK;
}

void skald_ledger_fini(skald_ledger *l) {
    free(l->anchors);
    free(l->copied);
    free(l->entries);
    memset(l, 0, sizeof *l);
}

uint32_t skald_ledger_pick(const skald_ledger *l, const skald_member *m, uint32_t depth) {
    uint32_t best = UINT32_MAX, fewest = depth;
    double least = 0;
    for (uint32_t i = 0; i < m->shard_count; i++) {
        const skald_ledger_entry *e = &l->entries[m->shards[i]];
        if (e->busy && (e->refresh || e->rebuild || e->before || e->suspect || e->audit)) continue;
        if (e->rebuild || e->refresh) return m->shards[i];
        if (e->rests) continue;
        double epochs = (double)e->position / (double)e->rows;
        if (e->busy < fewest || (e->busy == fewest && e->busy < depth && epochs < least))
            best = m->shards[i], fewest = e->busy, least = epochs;
    }
    return best;
}

bool skald_ledger_incomplete(const skald_ledger *l) {
    bool any = false;
    for (uint32_t k = 0; k < l->count; k++)
        any |= l->entries[k].rebuild || l->entries[k].refresh || l->entries[k].suspect;
    return any;
}

bool skald_ledger_begun(const skald_ledger *l, uint32_t shard) {
    const double *a = l->entries[shard].anchor;
    for (uint32_t j = 0; j < l->dim; j++)
        if (a[j] != 0) return true;
    return false;
}

static void keep(skald_ledger *l, uint32_t shard) {
    if (!l->copy || l->copied[shard]) return;
    memcpy(l->copy + (size_t)shard * l->dim, l->entries[shard].anchor, l->dim * sizeof(double));
    l->copied[shard] = true;
    l->copies++;
}

void skald_ledger_copy_begin(skald_ledger *l, double *to) {
    if (!l->anchors) return;
    l->copy = to;
    l->copies = 0;
    memset(l->copied, 0, l->count * sizeof *l->copied);
}

bool skald_ledger_copy(skald_ledger *l, uint32_t shards) {
    for (uint32_t k = 0; l->copy && k < l->count && shards; k++) {
        if (l->copied[k]) continue;
        keep(l, k);
        shards--;
    }
    if (l->copy && l->copies < l->count) return false;
    l->copy = NULL;
    return true;
}

void skald_ledger_merge(skald_ledger *l, uint32_t shard, const double *history) {
    if (!l->anchors) return;
    keep(l, shard);
    double *restrict a = l->entries[shard].anchor;
    const double *restrict d = history;
    for (uint32_t j = 0; j < l->dim; j++) a[j] += d[j];
}

void skald_ledger_replace(skald_ledger *l, uint32_t shard, const double *anchor, double *change) {
    keep(l, shard);
    double *restrict a = l->entries[shard].anchor, *restrict c = change;
    for (uint32_t j = 0; j < l->dim; j++) {
        c[j] += anchor[j] - a[j];
        a[j] = anchor[j];
    }
    l->entries[shard].rebuild = false;
}

double skald_ledger_bias(const skald_ledger *l, uint32_t shard, double cap) {
    const skald_ledger_entry *e = &l->entries[shard];
    double fair = (double)e->rows / l->n;
    if (l->mass <= 0) return 1;
    double prior = l->mass / (double)l->steps * l->count; /* one mean step a shard */
    double q = fair * (l->mass + prior) / (e->mass + fair * prior);
    return q < cap ? q : cap;
}

void skald_ledger_add_mass(skald_ledger *l, uint32_t shard, double step) {
    l->entries[shard].mass += step;
    l->mass += step;
    l->steps++;
}
