/* Who is slow, and why: the part of its tasks' time that exceeds the median worker's most. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "engine/run.h"

static const uint64_t ENOUGH = 10;                  /* tasks, to judge by */
static const int64_t SETTLED_NS = SKALD_NS_PER_S;   /* it must have been so for so long */
static const int64_t QUIET_NS = 5 * SKALD_NS_PER_S; /* between words about one worker */
static const double RECOVERED = 0.8;                /* of the ratio: below, a slow worker is one no more */

static const char *const causes[SKALD_PARTS] = {"receiving", "queued behind its own tasks",
                                                "computing", "delayed on purpose",
                                                "sending",   "queued at the coordinator"};

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Of part p, over the workers that have done something. */
static double median_part(const skald_run *run, int p) {
    double times[4096];
    uint32_t known = 0;
    for (uint32_t k = 0; k < run->size && known < SKALD_ARRAY_LENGTH(times); k++)
        if (run->members[k].alive && run->members[k].tasks) times[known++] = run->members[k].part_ns[p];
    if (!known) return 0;
    qsort(times, known, sizeof times[0], ascending);
    return known == 2 ? times[0] : times[known / 2];
}

static skald_part cause_of(const skald_member_state *m, const double *median) {
    skald_part worst = SKALD_PART_COMPUTE;
    double most = 0;
    for (int p = 0; p < SKALD_PARTS; p++) {
        /* waiting behind its own tasks follows from what makes those long: only half a cause */
        const double excess = (m->part_ns[p] - median[p]) * (p == SKALD_PART_HELD ? 0.5 : 1);
        if (excess > most) most = excess, worst = (skald_part)p;
    }
    return worst;
}

void skald_slow_fill(const skald_run *run, skald_worker_row *rows) {
    const double all = skald_table_median(run);
    double median[SKALD_PARTS] = {0};
    for (int p = 0; p < SKALD_PARTS; p++) median[p] = median_part(run, p);
    for (uint32_t k = 0; k < run->size; k++) {
        const skald_member_state *m = &run->members[k];
        rows[k].slowdown = all > 0 && m->tasks ? m->task_ns / all : 1;
        if (rows[k].slowdown < run->options->slow_ratio || m->tasks < ENOUGH) continue;
        snprintf(rows[k].cause, sizeof rows[k].cause, "%s", causes[cause_of(m, median)]);
    }
}

char *skald_slow_text(uint32_t worker, const skald_worker_row *row, char *out, size_t size) {
    snprintf(out, size, "worker %u (%s, %s): %.1fx the median, %s", worker, row->name, row->device, row->slowdown,
             row->cause);
    return out;
}

static void tell(skald_run *run, uint32_t worker, double ratio, skald_part cause) {
    const skald_member *member = run->crew->ops->member(run->crew, worker);
    skald_worker_row row = {.slowdown = ratio};
    char text[300];
    snprintf(row.name, sizeof row.name, "%s", member->name);
    snprintf(row.device, sizeof row.device, "%s", member->device);
    snprintf(row.cause, sizeof row.cause, "%s", causes[cause]);
    skald_run_notice(run, "slow: %s", skald_slow_text(worker, &row, text, sizeof text));
}

void skald_slow_watch(skald_run *run) {
    const double all = skald_table_median(run);
    const int64_t now = skald_run_now(run);
    if (!(all > 0) || run->size < 2) return;
    double median[SKALD_PARTS] = {0};
    for (int p = 0; p < SKALD_PARTS; p++) median[p] = median_part(run, p);
    for (uint32_t k = 0; k < run->size; k++) {
        skald_member_state *m = &run->members[k];
        const double ratio = m->task_ns / all, limit = run->options->slow_ratio;
        if (!m->alive || m->tasks < ENOUGH) continue;
        if (ratio < limit * (m->told_ns ? RECOVERED : 1)) {
            if (m->told_ns) skald_run_notice(run, "worker %u is slow no more: %.1fx the median", k, ratio);
            m->slow_since = m->told_ns = 0;
            continue;
        }
        const skald_part cause = cause_of(m, median);
        if (!m->slow_since) m->slow_since = now;
        if (m->told_ns ? (int)cause != m->told_cause && now - m->told_ns >= QUIET_NS
                       : now - m->slow_since >= SETTLED_NS) {
            tell(run, k, ratio, cause);
            m->told_ns = now;
            m->told_cause = cause;
        }
    }
}
