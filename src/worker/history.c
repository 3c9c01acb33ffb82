#include "worker/history.h"

#include <stdlib.h>
#include <string.h>

#include "base/base.h"

enum { MOST = UINT16_MAX };

typedef struct place {
    skald_version *version; /* NULL: of rows not visited (the first), or free */
    uint32_t rows;          /* that are at it */
    uint32_t begin, end;    /* its group in `sorted` */
} place;

struct skald_history {
    size_t rows;
    uint16_t *at;     /* by row: its place */
    uint32_t *sorted; /* a batch, group by group */
    place *places;
    uint32_t count;
};

skald_status skald_history_create(size_t rows, skald_history **out) {
    skald_history *h = skald_zalloc(1, sizeof *h);
    if (!h) return SKALD_ENOMEM;
    h->rows = rows;
    h->at = skald_zalloc(skald_max_size(rows, 1), sizeof *h->at);
    h->sorted = skald_alloc(skald_max_size(rows, 1), sizeof *h->sorted);
    h->places = calloc(1, sizeof *h->places);
    if (!h->at || !h->sorted || !h->places) {
        skald_history_free(h);
        return skald_fail(SKALD_ENOMEM, "history by version of %zu rows", rows);
    }
    h->count = 1;
    h->places[0].rows = (uint32_t)rows;
    *out = h;
    return SKALD_OK;
}

void skald_history_free(skald_history *h) {
    if (!h) return;
    for (uint32_t p = 1; p < h->count; p++) skald_version_unref(h->places[p].version);
    free(h->at);
    free(h->sorted);
    free(h->places);
    free(h);
}

/* Where the version is, or will be. */
static skald_status find_place(skald_history *h, const skald_version *v, uint32_t *out) {
    uint32_t empty = h->count;
    for (uint32_t p = h->count; p-- > 1;) {
        if (!h->places[p].version) empty = p;
        if (!h->places[p].version || h->places[p].version->id != v->id) continue;
        *out = p;
        return SKALD_OK;
    }
    *out = empty;
    if (empty < h->count) return SKALD_OK;
    if (empty > MOST) return skald_fail(SKALD_EPEER, "rows at more than %d versions of the model", MOST);
    place *grown = realloc(h->places, (h->count + 1) * sizeof *grown);
    if (!grown) return skald_fail(SKALD_ENOMEM, "out of memory");
    h->places = grown;
    h->places[h->count++] = (place){0};
    return SKALD_OK;
}

/* Sorts rows by their places; those of one keep their order. rows NULL: all of them. */
static void group(skald_history *h, const uint32_t *rows, size_t count) {
    for (uint32_t p = 0; p < h->count; p++) h->places[p].end = 0;
    for (size_t k = 0; k < count; k++) h->places[h->at[rows ? rows[k] : k]].end++;
    uint32_t begin = 0;
    for (uint32_t p = 0; p < h->count; p++) {
        place *at = &h->places[p];
        const uint32_t size = at->end;
        at->begin = at->end = begin;
        begin += size;
    }
    for (size_t k = 0; k < count; k++) {
        const uint32_t row = rows ? rows[k] : (uint32_t)k;
        h->sorted[h->places[h->at[row]].end++] = row;
    }
}

/* Sum over the groups: of gradients at w less those at the group's version; w NULL: of gradients at the version. */
static skald_status add_groups(const skald_history *h, skald_compute *c, skald_shard *s, const double *w,
                               const skald_history_sum *to, skald_sums *sums) {
    bool first = true;
    for (uint32_t p = w ? 0 : 1; p < h->count; p++) {
        const place *at = &h->places[p];
        if (at->begin == at->end) continue;
        const skald_batch batch = {h->sorted + at->begin, at->end - at->begin};
        const double *u = p ? at->version->vectors[0] : NULL;
        double *const g = first ? to->vector : to->scratch;
        skald_sums part = {0};
        TRY(w && u ? c->ops->difference(c, s, &batch, w, u, g, &part)
                   : c->ops->gradient(c, s, &batch, w ? w : u, g, &part));
        sums->loss += part.loss;
        sums->rows += part.rows;
        for (uint64_t j = 0; !first && j < to->entries; j++) to->vector[j] += g[j];
        first = false;
    }
    if (first) memset(to->vector, 0, to->entries * sizeof(double));
    return SKALD_OK;
}

skald_status skald_history_saga(skald_history *h, skald_compute *c, skald_shard *s, const skald_batch *batch,
                                skald_version *model, const skald_history_sum *to, skald_sums *sums) {
    for (size_t k = 0; k < batch->count; k++)
        if (batch->rows[k] >= h->rows)
            return skald_fail(SKALD_EINVAL, "row %u of a shard of %zu rows", batch->rows[k], h->rows);
    uint32_t target;
    group(h, batch->rows, batch->count);
    TRY(add_groups(h, c, s, model->vectors[0], to, sums));
    TRY(find_place(h, model, &target));
    if (!h->places[target].version && batch->count) h->places[target].version = skald_version_ref(model);
    for (size_t k = 0; k < batch->count; k++) {
        uint16_t *at = &h->at[batch->rows[k]];
        h->places[*at].rows--;
        *at = (uint16_t)target;
    }
    h->places[target].rows += (uint32_t)batch->count;
    for (uint32_t p = 1; p < h->count; p++)
        if (!h->places[p].rows) {
            skald_version_unref(h->places[p].version);
            h->places[p].version = NULL;
        }
    return SKALD_OK;
}

skald_status skald_history_anchor(skald_history *h, skald_compute *c, skald_shard *s, const skald_history_sum *to) {
    skald_sums sums = {0};
    group(h, NULL, h->rows);
    return add_groups(h, c, s, NULL, to, &sums);
}

size_t skald_history_before(const skald_history *h, uint64_t version, uint32_t *rows) {
    size_t count = 0;
    for (size_t i = 0; i < h->rows; i++) {
        const skald_version *v = h->places[h->at[i]].version;
        if (v && v->id < version) rows[count++] = (uint32_t)i;
    }
    return count;
}

uint64_t skald_history_oldest(const skald_history *h) {
    uint64_t oldest = 0;
    for (uint32_t p = 1; p < h->count; p++) {
        const skald_version *v = h->places[p].version;
        if (v && (!oldest || v->id < oldest)) oldest = v->id;
    }
    return oldest;
}

uint32_t skald_history_count(const skald_history *h) {
    uint32_t count = 0;
    for (uint32_t p = 1; p < h->count; p++) count += h->places[p].version != NULL;
    return count;
}
