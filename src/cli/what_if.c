/* skald what-if: from one run's task times, how long other modes would have taken, and how it would be without the
 * slow worker. The run is simulated with the very data and settings of the log. */
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/settings.h"
#include "replay/simulation.h"
#include "skald/solver.h"

typedef struct values {
    const char *modes, *without;
} values;

/* What a log tells. */
typedef struct past {
    char *data;
    settings s;
    skald_options options;
    uint32_t workers, shards;
    uint32_t *slots; /* by worker: tasks it computed at the same time */
    double *times;   /* workers x SKALD_ROW_QUANTILES, ns */
    char (*names)[64];
    double seconds; /* of training, as it was */
} past;

#define AT(member) offsetof(values, member)

/* clang-format off */
static const skald_option table[] = {
    {"modes", SKALD_OPTION_TEXT, AT(modes), "sync,ssp:4,partial:0.7,async", .value = "MODE,...", .help = "What to try"},
    {"without", SKALD_OPTION_TEXT, AT(without), "slowest", .value = "slowest|none|NAME",
     .help = "The worker to do without; slowest: the one with the longest mean task, if that is half as long again as "
             "the median worker's"},
    {0},
};
/* clang-format on */

/* ---- the log ------------------------------------------------------------------------------------------- */

static skald_status take_config(past *p, const char *path, json_t *start) {
    const char *name;
    json_t *text, *config = json_object_get(start, "config");
    const char *data = json_string_value(json_object_get(start, "data"));
    if (!json_is_object(config) || !data || !(p->data = strdup(data)))
        return skald_fail(SKALD_EDATA, "%s:1: no 'config' and 'data': not the log of a run", path);
    p->shards = (uint32_t)json_integer_value(json_object_get(start, "shards"));
    json_object_foreach(config, name, text) {
        for (size_t i = 0; i < p->options.count; i++) {
            const skald_option *o = &p->options.table[i];
            if (strcmp(o->name, name) != 0 || !json_is_string(text)) continue;
            const char *value = json_string_value(text);
            const bool given = !o->fallback || strcmp(o->fallback, value) != 0;
            TRY(skald_options_set(&p->options, i, value, given ? SKALD_FROM_COMMAND : SKALD_FROM_DEFAULT));
        }
    }
    return SKALD_OK;
}

static skald_status take_times(past *p, const char *path, unsigned number, json_t *end) {
    json_t *rows = json_object_get(end, "workers"), *row;
    size_t i;
    p->seconds = json_number_value(json_object_get(end, "train_seconds"));
    p->workers = (uint32_t)json_array_size(rows);
    if (!p->workers) return skald_fail(SKALD_EDATA, "%s:%u: the run ended without workers", path, number);
    p->times = calloc((size_t)p->workers * SKALD_ROW_QUANTILES, sizeof *p->times);
    p->names = calloc(p->workers, sizeof *p->names);
    p->slots = calloc(p->workers, sizeof *p->slots);
    if (!p->times || !p->names || !p->slots) return skald_fail(SKALD_ENOMEM, "out of memory");
    json_array_foreach(rows, i, row) {
        json_t *occupied = json_object_get(row, "occupied_ms");
        const char *name = json_string_value(json_object_get(row, "name"));
        if (json_array_size(occupied) != SKALD_ROW_QUANTILES || !name)
            return skald_fail(SKALD_EDATA, "%s:%u: no task times ('occupied_ms'): a log of an older skald", path,
                              number);
        if (json_integer_value(json_object_get(row, "tasks")) == 0)
            return skald_fail(SKALD_EDATA, "%s:%u: %s has done no task: nothing is known of its times", path, number,
                              name);
        const json_int_t slots = json_integer_value(json_object_get(row, "slots"));
        if (slots < 1 || slots > 1024) return skald_fail(SKALD_EDATA, "%s:%u: %s: no 'slots'", path, number, name);
        p->slots[i] = (uint32_t)slots;
        snprintf(p->names[i], sizeof p->names[i], "%s", name);
        for (int k = 0; k < SKALD_ROW_QUANTILES; k++)
            p->times[i * SKALD_ROW_QUANTILES + (size_t)k] =
                1e6 * json_number_value(json_array_get(occupied, (size_t)k));
        if (p->times[(i + 1) * SKALD_ROW_QUANTILES - 1] <= 0)
            return skald_fail(SKALD_EDATA, "%s:%u: %s took no time: nothing can be told", path, number, name);
    }
    return SKALD_OK;
}

static skald_status read_past(const char *path, past *p) {
    TRY(skald_options_init(&p->options, train_options, &p->s));
    FILE *file = fopen(path, "re");
    if (!file) return skald_fail(SKALD_EIO, "%s: %s", path, strerror(errno));
    char *line = NULL;
    size_t size = 0;
    skald_status st = SKALD_OK;
    for (unsigned number = 1; st == SKALD_OK && getline(&line, &size, file) > 0; number++) {
        json_error_t e;
        json_t *o = json_loads(line, 0, &e);
        const char *event = json_string_value(json_object_get(o, "event"));
        if (!event)
            st = skald_fail(SKALD_EDATA, "%s:%u: not a line of a run's log%s%s", path, number, o ? "" : ": ",
                            o ? "" : e.text);
        else if (strcmp(event, "start") == 0)
            st = take_config(p, path, o);
        else if (strcmp(event, "end") == 0 && json_object_get(o, "error"))
            st = skald_fail(SKALD_EDATA, "%s:%u: the run failed: its times say nothing", path, number);
        else if (strcmp(event, "end") == 0)
            st = take_times(p, path, number, o);
        json_decref(o);
    }
    free(line);
    fclose(file);
    if (st == SKALD_OK && (!p->data || !p->times))
        st = skald_fail(SKALD_EDATA, "%s: the log has no %s; it is complete when the run has ended", path,
                        p->data ? "'end'" : "'start'");
    return st;
}

static double mean_time(const past *p, uint32_t worker) {
    double sum = 0;
    for (int k = 0; k + 1 < SKALD_ROW_QUANTILES; k++) { /* trapezes: as tasks are drawn from them */
        const double *q = p->times + (size_t)worker * SKALD_ROW_QUANTILES + k;
        sum += 0.5 * (q[0] + q[1]);
    }
    return sum / (SKALD_ROW_QUANTILES - 1);
}

static int ascending(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The worker to do without; UINT32_MAX: none. */
static skald_status find_slow(const past *p, const char *who, uint32_t *out, double *ratio) {
    double *means = calloc(p->workers, sizeof *means);
    if (!means) return skald_fail(SKALD_ENOMEM, "out of memory");
    uint32_t slow = 0;
    for (uint32_t k = 0; k < p->workers; k++)
        if ((means[k] = mean_time(p, k)) > mean_time(p, slow)) slow = k;
    *out = UINT32_MAX;
    for (uint32_t k = 0; k < p->workers; k++)
        if (strcmp(p->names[k], who) == 0) *out = k;
    const bool by_name = *out != UINT32_MAX;
    if (by_name) slow = *out;
    const double mean = means[slow];
    qsort(means, p->workers, sizeof *means, ascending);
    const double median = means[(p->workers - 1) / 2];
    *ratio = median > 0 ? mean / median : 1;
    free(means);
    if (!by_name && strcmp(who, "slowest") == 0 && *ratio >= 1.5 && p->workers > 1) *out = slow;
    if (!by_name && strcmp(who, "slowest") != 0 && strcmp(who, "none") != 0)
        return skald_fail(SKALD_EINVAL, "--without %s: no worker of the run has that name", who);
    if (by_name && p->workers < 2) return skald_fail(SKALD_EINVAL, "--without %s: nobody else is there", who);
    return SKALD_OK;
}

/* ---- the simulations ----------------------------------------------------------------------------------- */

typedef struct answer {
    bool reached;
    double seconds, passes;
} answer;

static skald_status ask(past *p, const char *data, const char *mode, uint32_t without, answer *out) {
    settings s = p->s;
    training t;
    s.mode = mode;
    s.barrier = NULL;
    s.straggler = "none"; /* as measured: delays are in the times */
    const bool paced = s.pace_ms > 0;
    s.pace_ms = 0;
    const uint32_t workers = without == UINT32_MAX ? p->workers : p->workers - 1;
    s.workers = workers;
    skald_status st = settings_resolve(&s, &p->options, data, &t);
    if (st == SKALD_OK && !(t.train.target_gap > 0) && !(t.train.target_gradient > 0) && !t.train.has_target_objective)
        st = skald_fail(SKALD_EINVAL, "the run had no target, so there is no time to one: log a run with --target-gap, "
                                      "--target-gradient or --target-objective");
    if (without == UINT32_MAX) t.data.least_shards = p->shards; /* a resumed run's, too */
    double *times = calloc((size_t)workers * SKALD_ROW_QUANTILES, sizeof *times);
    uint32_t *slots = calloc(workers, sizeof *slots);
    if (st == SKALD_OK && (!times || !slots)) st = skald_fail(SKALD_ENOMEM, "out of memory");
    /* fewer workers have longer tasks each, unless it is the pace that makes them long */
    double all = 0;
    for (uint32_t k = 0; k < p->workers; k++) all += p->slots[k];
    const double longer = paced || without == UINT32_MAX ? 1 : all / (all - p->slots[without]);
    for (uint32_t k = 0, to = 0; st == SKALD_OK && k < p->workers; k++) {
        if (k == without) continue;
        for (size_t q = 0; q < SKALD_ROW_QUANTILES; q++)
            times[to * SKALD_ROW_QUANTILES + q] = longer * p->times[k * SKALD_ROW_QUANTILES + q];
        slots[to++] = p->slots[k];
    }
    const skald_timing timing = {
        .slots = slots, .message_ns = -1, .coordinator_ns = -1, .measured = times, .free_evaluations = true};
    skald_simulation *simulation = NULL;
    skald_outcome outcome = {0};
    t.compute = (skald_compute_options){.device = "cpu", .threads = 1, .isa = s.isa};
    if (st == SKALD_OK) st = skald_simulation_open(&t.data, &t.objective, &t.compute, workers, &timing, &simulation);
    if (st == SKALD_OK) {
        training_choose(&t, skald_simulation_crew(simulation)->problem, workers);
        st = skald_train(skald_simulation_crew(simulation), skald_solver_of(t.train.algo), &t.train,
                         skald_simulation_clock(simulation), NULL, signals_stop_flag(), &outcome);
    }
    *out = (answer){outcome.reached, outcome.last.train_seconds, outcome.passes};
    if (st == SKALD_OK && outcome.stop == SKALD_STOP_INTERRUPTED) st = skald_fail(SKALD_INTERRUPTED, "interrupted");
    skald_outcome_free(&outcome);
    skald_simulation_close(simulation);
    settings_release(&t);
    free(times);
    free(slots);
    return st;
}

static void print_answer(const answer *a) {
    char text[32];
    snprintf(text, sizeof text, a->reached ? "%.3g s" : "> %.3g s", a->seconds);
    printf("  %12s (%5.1f passes)", text, a->passes);
}

static skald_status tell(past *p, const char *data, const values *v) {
    uint32_t slow = UINT32_MAX;
    double ratio = 1;
    TRY(find_slow(p, v->without, &slow, &ratio));
    printf("the run: %u workers, %s, %.3g s of training\n", p->workers, p->s.barrier ? p->s.barrier : p->s.mode,
           p->seconds);
    if (slow != UINT32_MAX)
        printf("%s takes %.1f times as long for a task as the median worker\n", p->names[slow], ratio);
    printf("predicted time to target, from its task times:\n%-14s  %-27s%s%s\n", "mode", "as it was",
           slow != UINT32_MAX ? "  without " : "", slow != UINT32_MAX ? p->names[slow] : "");
    char *modes = strdup(v->modes), *rest = NULL;
    skald_status st = modes ? SKALD_OK : skald_fail(SKALD_ENOMEM, "out of memory");
    for (char *mode = modes ? strtok_r(modes, ",", &rest) : NULL; mode && st == SKALD_OK;
         mode = strtok_r(NULL, ",", &rest)) {
        answer with, without;
        st = ask(p, data, mode, UINT32_MAX, &with);
        if (st == SKALD_OK && slow != UINT32_MAX) st = ask(p, data, mode, slow, &without);
        if (st != SKALD_OK) break;
        printf("%-14s", mode);
        print_answer(&with);
        if (slow != UINT32_MAX) print_answer(&without);
        putchar('\n');
        fflush(stdout);
    }
    free(modes);
    return st;
}

static int run_command(const command *self, int argc, char **argv) {
    values v = {0};
    arguments args;
    past p = {0};
    arguments_parse(self, argc, argv, &v, &args);
    signals_install();
    skald_status st = read_past(args.words[0], &p);
    if (st == SKALD_OK) st = tell(&p, args.word_count > 1 ? args.words[1] : p.data, &v);
    const int code = st == SKALD_OK ? EXIT_DONE : st == SKALD_INTERRUPTED ? EXIT_INTERRUPTED : report_failure(self);
    free(p.data);
    free(p.times);
    free(p.slots);
    free(p.names);
    skald_options_fini(&p.options);
    arguments_free(&args);
    return code;
}

const command command_what_if = {
    .name = "what-if",
    .words = "LOG [DATA]",
    .summary = "from one run's log: how long other modes would have taken",
    .about =
        "Reads how long each worker's tasks took from the log of a run (train --log), and trains again, on a virtual "
        "clock, in other modes: with everybody, and without the slow worker. DATA: where the data are now, if not "
        "where they were. '>': the run's limits came before its target. Evaluations are off the clock.",
    .notes = "For example:\n\n"
             "  skald train --workers 8 --mode sync --target-gap 1e-4 --log run.jsonl train.svm\n"
             "  skald what-if run.jsonl\n\n",
    .table = table,
    .least_words = 1,
    .most_words = 2,
    .run = run_command,
};
