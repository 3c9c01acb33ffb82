#include "http/history.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double CELL_NS = HISTORY_CELL_MS * 1e6;
static const double SAMPLE_S = 0.5;

void history_init(history *h) {
    memset(h, 0, sizeof *h);
    h->evaluations.skip = h->samples.skip = 1;
    h->next = 1;
    for (int k = 0; k < HISTORY_CELLS; k++) h->cell[k] = -1;
}

static void add_point(history_series *s, uint64_t snapshot, const double v[HISTORY_WIDTH]) {
    if (s->seen++ % s->skip) return;
    if (s->count == HISTORY_POINTS) {
        for (uint32_t k = 0; k < HISTORY_POINTS / 2; k++) s->points[k] = s->points[2 * k];
        s->count = HISTORY_POINTS / 2;
        s->skip *= 2;
    }
    s->points[s->count].snapshot = snapshot;
    memcpy(s->points[s->count++].v, v, HISTORY_WIDTH * sizeof *v);
}

void history_evaluation(history *h, const skald_evaluation *e) {
    const double v[HISTORY_WIDTH] = {e->seconds,         e->passes, e->objective, e->relative_gap, e->gradient_norm,
                                     (double)e->updates, 0};
    add_point(&h->evaluations, h->next, v);
}

/* Rates are means over the sample: those of a tenth of a second jump. */
void history_progress(history *h, const skald_progress *p) {
    const double passed = p->seconds - h->since;
    if (!(passed > 0)) return;
    h->rate_rows += p->rows_per_s * passed;
    h->rate_updates += p->updates_per_s * passed;
    h->since = p->seconds;
    const double length = p->seconds - h->sampled;
    if (length < SAMPLE_S) return;
    const double v[HISTORY_WIDTH] = {p->seconds,
                                     p->passes,
                                     h->rate_rows / length,
                                     h->rate_updates / length,
                                     p->staleness_mean,
                                     p->estimated_objective,
                                     0};
    add_point(&h->samples, h->next, v);
    h->sampled = p->seconds;
    h->rate_rows = h->rate_updates = 0;
}

void history_notice_add(history *h, double seconds, const char *text) {
    history_notice *n = &h->notices[h->notice_count++ % HISTORY_NOTICES];
    n->snapshot = h->next;
    n->seconds = seconds;
    snprintf(n->text, sizeof n->text, "%s", text);
}

static bool grow(history *h, history_lane **lanes, uint32_t worker) {
    if (worker < h->lanes) return true;
    history_lane *more = worker < UINT32_MAX ? realloc(*lanes, (worker + 1) * sizeof **lanes) : NULL;
    if (!more) return false;
    memset(more + h->lanes, 0, (worker + 1 - h->lanes) * sizeof *more);
    *lanes = more;
    h->lanes = worker + 1;
    return true;
}

/* The place of half second `number`, emptied if another one is there; -1: that is too long ago. */
static int place_of(history *h, history_lane *lanes, int64_t number) {
    const int place = (int)(number % HISTORY_CELLS);
    if (number < 0 || h->cell[place] > number) return -1;
    if (h->cell[place] < number) {
        for (uint32_t k = 0; k < h->lanes; k++) memset(lanes[k].cells[place], 0, sizeof lanes[k].cells[place]);
        h->cell[place] = number;
    }
    h->changed[place] = h->next;
    return place;
}

/* Spreads a stretch of time over the cells it covers, the last minute's at most. */
static void spread(history *h, history_lane *lanes, uint32_t worker, int what, double from, double to) {
    from = fmax(from, to - CELL_NS * HISTORY_CELLS);
    for (int64_t number = (int64_t)floor(from / CELL_NS); (double)number * CELL_NS < to; number++) {
        const double begin = fmax(from, (double)number * CELL_NS), end = fmin(to, (double)(number + 1) * CELL_NS);
        const int place = place_of(h, lanes, number);
        if (place >= 0 && end > begin) lanes[worker].cells[place][what] += (float)(end - begin);
    }
}

void history_task(history *h, history_lane **lanes, const skald_task_seen *t) {
    static const int what[SKALD_PARTS] = {
        [SKALD_PART_RECEIVE] = 2, [SKALD_PART_HELD] = -1, /* behind another task, which is shown */
        [SKALD_PART_COMPUTE] = 0, [SKALD_PART_DELAY] = 1, [SKALD_PART_SEND] = 2, [SKALD_PART_QUEUE] = 3};
    const double whole = (double)(t->ended_ns - t->issued_ns);
    if (t->trains) {
        h->stale[t->staleness < HISTORY_STALE ? t->staleness : HISTORY_STALE]++;
        h->stale_sum += (double)t->staleness;
    }
    int slow = 0;
    while (slow < HISTORY_SLOW && whole > ldexp(1e6, slow)) slow++;
    h->slow[slow]++;
    h->slow_sum += whole * 1e-9;
    if (!grow(h, lanes, t->worker)) return;
    history_lane *lane = &(*lanes)[t->worker];
    lane->slots = t->slots ? t->slots : 1;
    lane->until = fmax(lane->until, (double)t->ended_ns * 1e-9);
    double at = (double)t->issued_ns;
    for (int p = 0; p < SKALD_PARTS; p++) {
        const double to = fmin(at + t->part_ns[p], (double)t->ended_ns);
        lane->part_s[p] += t->part_ns[p] * 1e-9;
        if (what[p] >= 0) spread(h, *lanes, t->worker, what[p], at, to);
        at = to;
    }
}

/* Tasks of one slot overlap (one is on its way while another computes): computing is shown before what is on its way,
 * and all of them together fill the cell at most. */
void history_cell_text(const history_lane *lane, uint32_t place, char out[HISTORY_LANES]) {
    int left = 15;
    for (int k = 0; k < HISTORY_LANES; k++) {
        const double share = (double)lane->cells[place][k] / (CELL_NS * (lane->slots ? lane->slots : 1));
        int part = (int)lround(15 * fmin(share, 1));
        if (part > left) part = left;
        left -= part;
        out[k] = "0123456789abcdef"[part];
    }
}
