#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "report/report.h"

static const char *const titles[SKALD_TOP_KEYS] = {"NUMBER",  "WORKER", "STAT",    "TASKS", "STALE",
                                                   "TASK ms", "P95 ms", "WAIT ms", "xMED"};
static const char letters[] = "#nitsmpwx";

const char *skald_top_title(skald_top_key key) {
    return titles[key];
}

bool skald_top_letter(char letter, skald_top_key *key) {
    const char *at = letter ? strchr(letters, letter) : NULL;
    if (at) *key = (skald_top_key)(at - letters);
    return at;
}

static int by_number(double x, double y) {
    return (x > y) - (x < y);
}

static int compare(const skald_worker_row *x, const skald_worker_row *y, skald_top_key key) {
    switch (key) {
    case SKALD_TOP_NAME: {
        /* worker-10 after worker-9 */
        return strverscmp(x->name, y->name);
    }
    case SKALD_TOP_STATE:
        return strcmp(x->state, y->state);
    case SKALD_TOP_TASKS:
        return by_number((double)x->tasks, (double)y->tasks);
    case SKALD_TOP_STALE:
        return by_number(x->staleness_mean, y->staleness_mean);
    case SKALD_TOP_TASK:
        return by_number(x->task_ms_mean, y->task_ms_mean);
    case SKALD_TOP_P95:
        return by_number(x->task_ms_p95, y->task_ms_p95);
    case SKALD_TOP_WAIT:
        return by_number(x->wait_ms_mean, y->wait_ms_mean);
    case SKALD_TOP_SLOWDOWN:
        return by_number(x->slowdown, y->slowdown);
    case SKALD_TOP_NUMBER:
    case SKALD_TOP_KEYS:
        break;
    }
    return 0;
}

typedef struct order {
    const skald_worker_row *rows;
    skald_top_key key;
    bool down;
} order;

static int by_order(const void *a, const void *b, void *user) {
    const order *o = user;
    const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    const int c = compare(&o->rows[x], &o->rows[y], o->key);
    if (c) return o->down ? -c : c;
    return o->down && o->key == SKALD_TOP_NUMBER ? (x < y) - (x > y) : (x > y) - (x < y);
}

uint32_t skald_top_order(const skald_worker_row *rows, uint32_t count, skald_top_key key, bool down, const char *filter,
                         uint32_t *out) {
    uint32_t kept = 0;
    for (uint32_t k = 0; k < count; k++) {
        const skald_worker_row *w = &rows[k];
        if (!filter || !filter[0] || strcasestr(w->name, filter) || strcasestr(w->device, filter) ||
            strcasestr(w->state, filter) || strcasestr(w->cause, filter))
            out[kept++] = k;
    }
    order o = {rows, key, down};
    qsort_r(out, kept, sizeof *out, by_order, &o);
    return kept;
}
