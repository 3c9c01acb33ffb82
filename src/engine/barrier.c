/* Who may be given work: the look at the run that barriers decide by, expressions and presets. */
#include "skald/barrier.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "base/expression.h"
#include "engine/run.h"

static const skald_name names[] = {{"workers", "workers that are there"},
                                   {"avail", "workers with a free slot"},
                                   {"busy", "workers with a task"},
                                   {"in_flight", "tasks handed out and not merged"},
                                   {"max_stale", "bound of the staleness of every task in flight"},
                                   {"updates", "results merged"},
                                   {"passes", "rows processed / n"},
                                   {"worker", "number of the worker"},
                                   {"tasks", "tasks it has completed"},
                                   {"lead", "tasks it would be ahead of the slowest"},
                                   {"staleness", "of its last result"},
                                   {"mean_staleness", "of its results"},
                                   {"time", "its mean task time, s"},
                                   {"slowdown", "its time over the median"},
                                   {"waiting", "its mean time between tasks, s"}};

struct skald_barrier_rule {
    skald_expression *expression;
};

skald_status skald_barrier_parse(const char *text, skald_barrier_rule **out) {
    skald_barrier_rule *rule = skald_zalloc(1, sizeof *rule);
    if (!rule) return SKALD_ENOMEM;
    skald_status st = skald_expression_parse(text, names, SKALD_ARRAY_LENGTH(names), &rule->expression);
    if (st == SKALD_OK)
        *out = rule;
    else
        free(rule);
    return st;
}

void skald_barrier_free(skald_barrier_rule *rule) {
    if (rule) skald_expression_free(rule->expression);
    free(rule);
}

bool skald_barrier_by_rule(void *user, const skald_overview *all, const skald_worker_view *one) {
    const double values[] = {
        all->workers,           all->avail,          all->busy,   all->in_flight,     (double)all->max_stale,
        (double)all->updates,   all->passes,         one->worker, (double)one->tasks, (double)one->lead,
        (double)one->staleness, one->mean_staleness, one->time,   one->slowdown,      one->waiting};
    _Static_assert(SKALD_ARRAY_LENGTH(values) == SKALD_ARRAY_LENGTH(names), "a value for each name");
    const double value = skald_expression_value(((skald_barrier_rule *)user)->expression, values);
    return value != 0 && !isnan(value);
}

skald_status skald_barrier_preset(const char *mode, bool *sync, char *expression, size_t size) {
    char *end = NULL;
    *sync = strcmp(mode, "sync") == 0;
    expression[0] = '\0';
    if (*sync || strcmp(mode, "async") == 0) return SKALD_OK;
    if (strncmp(mode, "ssp:", 4) == 0) {
        const double bound = strtod(mode + 4, &end);
        if (end == mode + 4 || *end || !(bound >= 1 && bound <= 1e9) || bound != floor(bound))
            return skald_fail(SKALD_EINVAL,
                              "--mode %s: the lead of ssp:S is a whole number of tasks from 1, e.g. ssp:4", mode);
        snprintf(expression, size, "lead <= %.0f", bound);
        return SKALD_OK;
    }
    if (strncmp(mode, "partial:", 8) == 0) {
        const double share = strtod(mode + 8, &end);
        if (end == mode + 8 || *end || !(share > 0 && share <= 1))
            return skald_fail(SKALD_EINVAL,
                              "--mode %s: partial:B waits for a share of the workers above 0 up to 1, e.g. partial:0.7",
                              mode);
        snprintf(expression, size, "avail >= %.17g*workers", share * (1 - 1e-12)); /* 0.7 x 10 is 7 */
        return SKALD_OK;
    }
    return skald_fail(SKALD_EINVAL, "--mode %s: must be async, sync, ssp:S or partial:B", mode);
}

const char *skald_mode_name(const skald_train_options *o) {
    return o->mode_name ? o->mode_name : o->mode == SKALD_SYNC ? "sync" : o->barrier ? "barrier" : "async";
}

bool skald_barrier_rounds(void *user, const skald_overview *all, const skald_worker_view *one) {
    return all->busy == 0;
}

/* ---- the look ------------------------------------------------------------------------------------------ */

static uint64_t slots_of(const skald_run *run, uint32_t worker) {
    return skald_run_slots(run->crew->ops->member(run->crew, worker));
}

/* What changes with each task handed out. */
static void look_again(skald_run *run) {
    uint64_t oldest = run->commits;
    for (uint32_t f = 0; f < run->flight_count; f++) {
        const skald_flight *q = &run->flights[f];
        if (q->trains && q->commits < oldest) oldest = q->commits;
    }
    run->overview.in_flight = run->training;
    run->overview.max_stale = run->commits + run->training + 1 - oldest;
}

/* In rounds: has it done its part, and waits for the others? */
static bool waits_for_others(const skald_run *run, const skald_member *m) {
    for (uint32_t i = 0; i < m->shard_count; i++)
        if (!run->ledger.entries[m->shards[i]].rests) return false;
    return true;
}

void skald_barrier_look(skald_run *run) {
    run->refused_tasks = 0;
    if (!run->options->barrier) return;
    uint64_t slowest = UINT64_MAX, slowest_of_all = UINT64_MAX;
    skald_overview *all = &run->overview;
    *all = (skald_overview){.version = run->commits,
                            .updates = run->updates,
                            .passes = run->engine.passes,
                            .time = skald_table_median(run)};
    all->time *= 1e-9;
    for (uint32_t k = 0; k < run->size; k++) run->members[k].training = 0;
    for (uint32_t f = 0; f < run->flight_count; f++)
        if (run->flights[f].trains) run->members[run->flights[f].worker].training++;
    for (uint32_t k = 0; k < run->size; k++) {
        const skald_member_state *m = &run->members[k];
        if (!m->alive) continue;
        const skald_member *member = run->crew->ops->member(run->crew, k);
        const uint64_t slots = skald_run_slots(member);
        if (!slots) continue; /* no rows, no part in it */
        all->workers++;
        all->avail += m->busy < slots * skald_run_depth(run, member);
        all->busy += m->training > 0;
        const uint64_t laps = skald_members_laps(run, k);
        slowest_of_all = laps < slowest_of_all ? laps : slowest_of_all;
        if (laps < slowest && (m->training || !waits_for_others(run, member))) slowest = laps;
    }
    run->slowest_tasks = slowest < UINT64_MAX ? slowest : slowest_of_all;
    look_again(run);
}

bool skald_barrier_admits(skald_run *run, uint32_t worker) {
    if (!run->options->barrier) return true;
    const skald_member_state *m = &run->members[worker];
    const uint64_t slots = slots_of(run, worker);
    const uint64_t ahead = m->laps + (m->tasks - m->lapped + m->training + 1 + slots - 1) / slots;
    const double time = m->tasks ? m->task_ns * 1e-9 : 0;
    const skald_worker_view one = {.worker = worker,
                                   .tasks = m->tasks,
                                   .lead = ahead - run->slowest_tasks,
                                   .staleness = m->staleness_last,
                                   .mean_staleness = m->tasks ? (double)m->staleness_sum / (double)m->tasks : 0,
                                   .time = time,
                                   .slowdown = time > 0 && run->overview.time > 0 ? time / run->overview.time : 1,
                                   .waiting = m->wait_ns * 1e-9};
    if (run->options->barrier(run->options->barrier_user, &run->overview, &one)) return true;
    run->refused_tasks++;
    return false;
}

void skald_barrier_dealt(skald_run *run, uint32_t worker) {
    if (!run->options->barrier) return;
    run->members[worker].training++;
    look_again(run);
}

skald_status skald_barrier_check(skald_run *run) {
    if (!run->refused_tasks) return SKALD_OK;
    const skald_overview *all = &run->overview;
    if (!run->flight_count && !run->stop && skald_members_complete(run))
        return skald_fail(SKALD_EINVAL,
                          "--mode or --barrier: %s admits nobody while nothing is in flight, and would wait for ever "
                          "(%u workers, avail %u, max_stale %llu, updates %llu)",
                          run->options->barrier_text ? run->options->barrier_text : "the barrier", all->workers,
                          all->avail, (unsigned long long)all->max_stale, (unsigned long long)all->updates);
    if (run->options->mode == SKALD_ASYNC && run->commits == 0 && !run->told_fewer) {
        run->told_fewer = true;
        skald_run_notice(run, "the barrier (%s) lets %u tasks run at a time where %u could",
                         run->options->barrier_text ? run->options->barrier_text : "in C", run->training,
                         run->flight_capacity);
    }
    return SKALD_OK;
}
