#include "worker/busy.h"

#include <stdlib.h>

#include "base/base.h"

/* The control thread looks ten times a second. */
static const int64_t GAP_NS = SKALD_NS_PER_S;

void skald_times_add(skald_times *t, double rows, int64_t ns) {
    const uint64_t k = t->count++ % SKALD_TIMES;
    t->last[k].rows = rows;
    t->last[k].ns = ns;
}

static int ascending(const void *a, const void *b) {
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

int64_t skald_times_usual(const skald_times *t, double rows) {
    int64_t sorted[SKALD_TIMES];
    double most = 1;
    const size_t kept = skald_min_size(t->count, SKALD_TIMES);
    for (size_t k = 0; k < kept; k++) {
        sorted[k] = t->last[k].ns;
        if (t->last[k].rows > most) most = t->last[k].rows;
    }
    if (!kept) return 0;
    qsort(sorted, kept, sizeof *sorted, ascending);
    const int64_t p95 = sorted[(kept - 1) * 95 / 100];
    return rows > most ? (int64_t)((double)p95 * (rows / most)) : p95;
}

skald_status skald_busy_init(skald_busy *b, uint32_t lanes) {
    *b = (skald_busy){.mutex = PTHREAD_MUTEX_INITIALIZER, .lane_count = lanes};
    b->lanes = skald_zalloc(lanes, sizeof *b->lanes);
    b->busy_ns = skald_zalloc(lanes, sizeof *b->busy_ns);
    b->usual_ns = skald_zalloc(lanes, sizeof *b->usual_ns);
    return b->lanes && b->busy_ns && b->usual_ns ? SKALD_OK : SKALD_ENOMEM;
}

void skald_busy_fini(skald_busy *b) {
    free(b->lanes);
    free(b->busy_ns);
    free(b->usual_ns);
    *b = (skald_busy){0};
}

void skald_busy_begin(skald_busy *b, uint32_t lane, double rows) {
    pthread_mutex_lock(&b->mutex);
    b->lanes[lane] = (skald_busy_lane){rows, skald_now_ns(skald_clock_system())};
    pthread_mutex_unlock(&b->mutex);
}

void skald_busy_end(skald_busy *b, uint32_t lane, bool typical) {
    pthread_mutex_lock(&b->mutex);
    skald_busy_lane *l = &b->lanes[lane];
    const int64_t ns = skald_now_ns(skald_clock_system()) - l->since_ns;
    if (typical) skald_times_add(&b->times, l->rows, ns > 1 ? ns : 1);
    l->since_ns = 0;
    pthread_mutex_unlock(&b->mutex);
}

void skald_busy_look(skald_busy *b, int64_t now_ns) {
    pthread_mutex_lock(&b->mutex);
    const int64_t gap = b->looked_ns ? now_ns - b->looked_ns : 0;
    b->looked_ns = now_ns;
    for (uint32_t k = 0; gap > GAP_NS && k < b->lane_count; k++) {
        skald_busy_lane *l = &b->lanes[k];
        if (l->since_ns) l->since_ns = l->since_ns + gap < now_ns ? l->since_ns + gap : now_ns;
    }
    pthread_mutex_unlock(&b->mutex);
}

uint32_t skald_busy_tell(skald_busy *b, int64_t now_ns) {
    uint32_t count = 0;
    pthread_mutex_lock(&b->mutex);
    for (uint32_t k = 0; k < b->lane_count; k++) {
        const skald_busy_lane *l = &b->lanes[k];
        if (!l->since_ns) continue;
        b->busy_ns[count] = now_ns > l->since_ns ? (uint64_t)(now_ns - l->since_ns) : 0;
        b->usual_ns[count++] = (uint64_t)skald_times_usual(&b->times, l->rows);
    }
    pthread_mutex_unlock(&b->mutex);
    return count;
}
