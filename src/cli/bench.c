/* skald bench: the same data, seeds, delays and steps in several modes, to the same gap. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/base.h"
#include "cli/bench.h"
#include "cli/cli.h"

extern char **environ;

enum { MOST = 16, MOST_ARGUMENTS = 160 };

/* An argument list under construction; what was printed into it is owned. */
typedef struct command_line {
    char *words[MOST_ARGUMENTS];
    int count;
} command_line;

static void add(command_line *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void add(command_line *c, const char *format, ...) {
    va_list args;
    va_start(args, format);
    if (c->count + 1 < MOST_ARGUMENTS && vasprintf(&c->words[c->count], format, args) >= 0) c->words[++c->count] = NULL;
    va_end(args);
}

static void forget(command_line *c) {
    for (int k = 0; k < c->count; k++) free(c->words[k]);
    c->count = 0;
}

/* ---- child runs ---------------------------------------------------------------------------------------- */

/* Options of the problem, not of how it is solved; and those of the comparison, which it says itself. */
static const char *const of_problem[] = {
    "loss",           "l2",    "l1",         "nonconvex", "intercept", "huber-delta", "class-weight",
    "sample-weights", "scale", "index-base", "dim",       "seed",      "isa"};
static const char *const own[] = {"modes",
                                  "algos",
                                  "stragglers",
                                  "gap",
                                  "repeats",
                                  "workers",
                                  "pace",
                                  "timeout",
                                  "baseline",
                                  "output",
                                  "quiet",
                                  "mode",
                                  "algo",
                                  "target-gap",
                                  "target-objective",
                                  "target-tolerance",
                                  "max-time",
                                  "eval-every",
                                  "eval-beside"};

static bool among(const char *name, const char *const *list, size_t count) {
    for (size_t k = 0; k < count; k++)
        if (strcmp(list[k], name) == 0) return true;
    return false;
}

/* Would `train --algo ALGO` refuse it? */
static bool of_others(const char *name, const char *algo) {
    if (strcmp(name, "epoch") == 0) return strcmp(algo, "svrg") != 0 && strcmp(algo, "synthesis") != 0;
    if (strcmp(name, "stale") == 0) return strcmp(algo, "synthesis") == 0;
    return (strcmp(name, "history") == 0 || strcmp(name, "history-versions") == 0) && strcmp(algo, "saga") != 0;
}

/* Options of train's that were given to bench, as they were given; algo NULL: those of the problem. */
static void add_given(command_line *c, const skald_options *options, const char *algo) {
    for (size_t i = 0; i < options->count; i++) {
        const char *name = options->table[i].name;
        const bool left_out = options->sources[i] == SKALD_FROM_DEFAULT || among(name, own, SKALD_ARRAY_LENGTH(own)) ||
                              (algo ? of_others(name, algo) : !among(name, of_problem, SKALD_ARRAY_LENGTH(of_problem)));
        if (!left_out) add(c, "--%s=%s", options->table[i].name, options->texts[i]);
    }
}

static char **bare_environment(void) {
    size_t count = 0, used = 0;
    while (environ[count]) count++;
    char **out = calloc(count + 1, sizeof *out);
    for (size_t i = 0; out && i < count; i++)
        if (strncmp(environ[i], "SKALD_", 6) != 0) out[used++] = environ[i];
    return out;
}

/* Runs skald with these words; its errors go to `errors`. Exit codes 0 and 3 are fine. */
static skald_status run_skald(command_line *c, const char *errors) {
    pid_t pid;
    int status = 0;
    char **environment = bare_environment();
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 2, errors, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    const int error = posix_spawn(&pid, "/proc/self/exe", &actions, NULL, c->words, environment);
    posix_spawn_file_actions_destroy(&actions);
    free(environment);
    if (error) return skald_fail(SKALD_EIO, "cannot start a run: %s", strerror(error));
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        if (*signals_stop_flag()) kill(pid, SIGINT);
    if (*signals_stop_flag()) return skald_fail(SKALD_INTERRUPTED, "interrupted");
    if (WIFEXITED(status) && (WEXITSTATUS(status) == EXIT_DONE || WEXITSTATUS(status) == EXIT_STOPPED_SHORT))
        return SKALD_OK;
    char words[400] = "", line[400];
    FILE *file = fopen(errors, "re");
    while (file && fgets(line, sizeof line, file))
        if (strncmp(line, "skald train: ", 13) == 0)
            snprintf(words, sizeof words, "%.*s", (int)strcspn(line, "\n") - 13, line + 13);
    if (file) fclose(file);
    return skald_fail(SKALD_EINTERNAL, "a run failed (see %s): %s", errors, words);
}

/* F*, certified to a tenth of a thousandth of what is asked, by this machine's cores without any delay; of an objective
 * that is not convex, F at a stationary point. */
static skald_status find_optimum(bench *b, const skald_options *options) {
    char log[512], errors[512];
    command_line c = {0};
    snprintf(log, sizeof log, "%.400s/optimum.jsonl", b->folder);
    snprintf(errors, sizeof errors, "%.400s/optimum.err", b->folder);
    add(&c, "skald");
    add(&c, "train");
    add_given(&c, options, NULL);
    add(&c, "--workers=0");
    if (b->s->nonconvex > 0) {
        add(&c, "--algo=synthesis");
        add(&c, "--target-gradient=%.17g", fmin(1e-5, b->s->gap * 1e-2));
    } else {
        add(&c, "--algo=saga");
        add(&c, "--target-gap=%.17g", fmin(1e-6, b->s->gap * 1e-3));
    }
    add(&c, "--max-passes=5000");
    add(&c, "--quiet");
    add(&c, "--log=%s", log);
    add(&c, "--");
    add(&c, "%s", b->data);
    skald_status st = run_skald(&c, errors);
    forget(&c);
    if (st != SKALD_OK) return skald_context(st, "looking for F*");
    bench_run found = {0};
    st = bench_read(b, &found, log, NULL);
    if (st == SKALD_OK && !found.reached)
        st = skald_fail(SKALD_EDIVERGED, "F* was not found in 5000 passes: a larger --l2 helps");
    if (st == SKALD_OK) b->optimum = found.points[found.point_count - 1].gap; /* without F*: the objective */
    free(found.points);
    return st;
}

static double processor_seconds(void) {
    struct rusage u;
    getrusage(RUSAGE_CHILDREN, &u);
    return (double)u.ru_utime.tv_sec + (double)u.ru_stime.tv_sec +
           1e-6 * (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

/* What `train` is told for a run, but for its files. */
static void add_run(command_line *c, const bench *b, const skald_options *options, const bench_run *run) {
    add(c, "skald");
    add(c, "train");
    add_given(c, options, run->algo);
    add(c, "--workers=%d", (int)b->s->workers);
    add(c, "--pace=%d", (int)b->s->pace_ms);
    add(c, "--straggler=%s", run->straggler);
    add(c, "--algo=%s", run->algo);
    add(c, "--mode=%s", run->mode);
    add(c, "--target-objective=%.17g", b->optimum);
    add(c, "--target-tolerance=%.17g", b->s->gap);
    add(c, "--max-time=%.6gs", (double)b->s->timeout * 1e-9);
    add(c, "--eval-every=%s",
        b->s->eval_every > 0 ? options->texts[skald_options_find(options, "eval-every", 10)] : "0.5");
    add(c, "--eval-beside=yes");
    add(c, "--quiet=yes");
}

/* Would `train` take it? Better said before the first run than after an hour of others. */
static skald_status check_run(const bench *b, const skald_options *options, const bench_run *run) {
    settings s = {0};
    skald_options given;
    training t = {0};
    command_line c = {0};
    TRY(skald_options_init(&given, train_options, &s));
    add_run(&c, b, options, run);
    skald_status st = SKALD_OK;
    for (int k = 2; st == SKALD_OK && k < c.count; k++) {
        const char *name = c.words[k] + 2;
        const size_t length = strcspn(name, "=");
        const int at = skald_options_find(&given, name, length);
        st = at < 0 ? skald_fail(SKALD_EINTERNAL, "train has no option --%s", name)
                    : skald_options_set(&given, (size_t)at, name + length + 1, SKALD_FROM_COMMAND);
    }
    if (st == SKALD_OK) st = settings_resolve(&s, &given, b->data, &t);
    settings_release(&t);
    skald_options_fini(&given);
    forget(&c);
    return st == SKALD_OK ? st : skald_context(st, "stragglers %s, %s, %s", run->straggler, run->algo, run->mode);
}

static skald_status run_one(bench *b, const skald_options *options, int number, bench_run *run) {
    char log[512], errors[512], record[512];
    command_line c = {0};
    snprintf(log, sizeof log, "%.400s/run-%03d.jsonl", b->folder, number);
    snprintf(errors, sizeof errors, "%.400s/run-%03d.err", b->folder, number);
    snprintf(record, sizeof record, "%.400s/run-%03d.record", b->folder, number);
    add_run(&c, b, options, run);
    add(&c, "--log=%s", log);
    if (run->repeat == 0) add(&c, "--record=%s", record);
    add(&c, "--");
    add(&c, "%s", b->data);
    const double cpu = processor_seconds();
    const int64_t began = skald_now_ns(skald_clock_system());
    skald_status st = run_skald(&c, errors);
    const double wall = (double)(skald_now_ns(skald_clock_system()) - began) * 1e-9;
    run->cpu = (processor_seconds() - cpu) / (wall * usable_cores());
    forget(&c);
    if (st == SKALD_OK) st = bench_read(b, run, log, run->repeat == 0 ? record : NULL);
    return st;
}

/* ---- cells --------------------------------------------------------------------------------------------- */

static int ascending(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, int count) {
    qsort(values, (size_t)count, sizeof *values, ascending);
    return count % 2 ? values[count / 2] : 0.5 * (values[count / 2 - 1] + values[count / 2]);
}

/* One number of each of a cell's runs; their median. */
static double median_of(const bench_run *runs, int count, size_t offset, double *least, double *most) {
    double values[99];
    for (int k = 0; k < count; k++) values[k] = *(const double *)(const void *)((const char *)&runs[k] + offset);
    const double m = median(values, count);
    if (least) *least = values[0];
    if (most) *most = values[count - 1];
    return m;
}

static void fill_cell(const bench *b, bench_cell *cell, const bench_run *runs, int count) {
    *cell = (bench_cell){
        .straggler = runs->straggler, .algo = runs->algo, .mode = runs->mode, .runs = count, .first = runs};
    for (int k = 0; k < count; k++) cell->reached += runs[k].reached;
    cell->median = median_of(runs, count, offsetof(bench_run, to_target), &cell->least, &cell->most);
    cell->wait_ms = median_of(runs, count, offsetof(bench_run, wait_ms), NULL, NULL);
    cell->updates = median_of(runs, count, offsetof(bench_run, updates), NULL, NULL);
    cell->mb = median_of(runs, count, offsetof(bench_run, mb), NULL, NULL);
    cell->cpu = median_of(runs, count, offsetof(bench_run, cpu), NULL, NULL);
    cell->speedup = cell->reached < count ? NAN : 1;
    for (const bench_cell *c = b->cells; c < cell; c++) /* the first mode of the same comparison */
        if (strcmp(c->straggler, cell->straggler) == 0 && strcmp(c->algo, cell->algo) == 0) {
            if (cell->reached == count) cell->speedup = c->median / cell->median;
            cell->at_least = c->reached < c->runs;
            break;
        }
}

const char *bench_seconds(double seconds, char out[32]) {
    if (seconds < 1)
        snprintf(out, 32, "%.3g ms", seconds * 1e3);
    else
        snprintf(out, 32, seconds < 100 ? "%.3g s" : "%.0f s", seconds);
    return out;
}

const char *bench_faster(const bench_cell *cell, char out[32]) {
    if (isnan(cell->speedup))
        snprintf(out, 32, "-");
    else
        snprintf(out, 32, "%s%.2fx", cell->at_least ? ">= " : "", cell->speedup);
    return out;
}

static void print_cell(const bench *b, const bench_cell *c, bool head) {
    char t[32], least[32], most[32], faster[32];
    if (head)
        printf("%-12s %-6s %-12s %10s  %-21s %9s %12s %9s %9s %5s\n", "straggler", "algo", "mode", "to target",
               "least .. most", "speed-up", "wait ms/task", "updates", "MB", "cpu");
    bench_faster(c, faster);
    printf("%-12s %-6s %-12s %s%9s  %9s .. %-8s %9s %12.3g %9.0f %9.1f %4.0f%%%s\n", c->straggler, c->algo, c->mode,
           c->reached < c->runs ? ">" : " ", bench_seconds(c->median, t), bench_seconds(c->least, least),
           bench_seconds(c->most, most), faster, c->wait_ms, c->updates, c->mb, 100 * c->cpu,
           c->reached < c->runs ? "  (not all reached it)" : "");
    fflush(stdout);
}

/* ---- the whole ------------------------------------------------------------------------------------------ */

/* Splits at any of `at`; returns how many, at most MOST. The words point into text, which is cut up. */
static int split(char *text, const char *at, const char *words[MOST]) {
    char *rest = NULL;
    int count = 0;
    for (char *w = strtok_r(text, at, &rest); w && count < MOST; w = strtok_r(NULL, at, &rest)) words[count++] = w;
    return count;
}

/* The lists that were given; the cells are all combinations. */
typedef struct plan {
    char *texts[3];
    const char *modes[MOST], *algos[MOST], *stragglers[MOST];
    int mode_count, algo_count, cells;
} plan;

static bench_run cell_of(const plan *p, int k) {
    return (bench_run){.straggler = p->stragglers[k / (p->mode_count * p->algo_count)],
                       .algo = p->algos[k / p->mode_count % p->algo_count],
                       .mode = p->modes[k % p->mode_count]};
}

static void plan_free(plan *p) {
    for (int k = 0; k < 3; k++) free(p->texts[k]);
}

/* Each cell is one that `train` would take, or SKALD_EINVAL. */
static skald_status plan_make(const bench *b, const skald_options *options, plan *p) {
    *p = (plan){.texts = {strdup(b->s->modes), strdup(b->s->algos), strdup(b->s->stragglers)}};
    if (!p->texts[0] || !p->texts[1] || !p->texts[2]) return skald_fail(SKALD_ENOMEM, "out of memory");
    p->mode_count = split(p->texts[0], ", ", p->modes);
    p->algo_count = split(p->texts[1], ", ", p->algos);
    p->cells = p->mode_count * p->algo_count * split(p->texts[2], " ", p->stragglers);
    if (!p->cells) return skald_fail(SKALD_EINVAL, "--modes, --algos and --stragglers each name one or more");
    TRY(bench_check_baselines(b->s->baselines));
    for (int k = 0; k < p->cells; k++) {
        const bench_run run = cell_of(p, k);
        TRY(check_run(b, options, &run));
    }
    return SKALD_OK;
}

static skald_status run_all(bench *b, const skald_options *options, const plan *p) {
    const int repeats = (int)b->s->repeats;
    skald_status st = SKALD_OK;
    b->runs = calloc((size_t)(p->cells * repeats), sizeof *b->runs);
    b->cells = calloc((size_t)p->cells, sizeof *b->cells);
    if (!b->runs || !b->cells) st = skald_fail(SKALD_ENOMEM, "out of memory");
    if (st == SKALD_OK) st = find_optimum(b, options);
    if (st == SKALD_OK && !b->s->quiet)
        printf("F* = %.12g; to a gap of %g with %d workers, pace %d ms, medians of %d\n", b->optimum, b->s->gap,
               (int)b->s->workers, (int)b->s->pace_ms, repeats);
    for (int k = 0; st == SKALD_OK && k < p->cells; k++) {
        bench_run *first = &b->runs[b->run_count];
        for (int r = 0; st == SKALD_OK && r < repeats; r++) {
            bench_run *run = &b->runs[b->run_count];
            *run = cell_of(p, k);
            run->repeat = r;
            st = run_one(b, options, b->run_count++, run);
        }
        if (st != SKALD_OK) break;
        fill_cell(b, &b->cells[b->cell_count], first, repeats);
        if (!b->s->quiet) print_cell(b, &b->cells[b->cell_count], b->cell_count == 0);
        b->cell_count++;
    }
    if (st == SKALD_OK) st = bench_baselines(b);
    for (int k = 0; st == SKALD_OK && !b->s->quiet && k < b->baseline_count; k++) {
        const bench_baseline *x = &b->baselines[k];
        char t[32];
        if (x->note[0])
            printf("%s: skipped: %s\n", x->name, x->note);
        else
            printf("%s: %s to a gap of %.2g, on this machine's cores, without delays\n", x->name,
                   bench_seconds(x->seconds, t), x->gap);
    }
    if (st == SKALD_OK)
        st = bench_report(b, options);
    else if (b->cell_count > 0) /* what was run by then is not lost */
        (void)bench_report(b, options);
    for (int k = 0; k < b->run_count; k++) {
        free(b->runs[k].points);
        free(b->runs[k].spans);
    }
    free(b->runs);
    free(b->cells);
    return st;
}

static int run_command(const command *self, int argc, char **argv) {
    settings s = {.threads = 1};
    arguments args;
    arguments_parse(self, argc, argv, &s, &args);
    signals_install();
    if (skald_options_given(&args.options, "mode") || skald_options_given(&args.options, "algo"))
        arguments_error(self, "--mode and --algo are --modes and --algos here: lists of what is compared");
    if (s.l2 == 0 && !(s.l1 > 0)) arguments_error(self, "--l2 0: F* is certified only with --l2 or --l1 above 0");
    bench b = {.s = &s, .data = args.words[0], .folder = s.out};
    plan p;
    if (plan_make(&b, &args.options, &p)) arguments_error(self, "%s", skald_error());
    skald_status st = SKALD_OK;
    if (mkdir(s.out, 0777) != 0 && errno != EEXIST)
        st = skald_fail(SKALD_EIO, "--output %s: cannot make the folder: %s", s.out, strerror(errno));
    if (st == SKALD_OK) st = run_all(&b, &args.options, &p);
    if (st == SKALD_OK && !s.quiet) printf("report: %s/index.html\n", s.out);
    const int code = st == SKALD_OK ? EXIT_DONE : st == SKALD_INTERRUPTED ? EXIT_INTERRUPTED : report_failure(self);
    plan_free(&p);
    arguments_free(&args);
    return code;
}

const command command_bench = {
    .name = "bench",
    .words = "DATA",
    .summary = "compare modes, algorithms and stragglers fairly; writes a report",
    .about =
        "Trains on DATA in every combination of --modes, --algos and --stragglers, with the same data, seeds, delays "
        "and rules for steps, each until the objective is within --gap of its minimum. Evaluations are off the clock: "
        "a point of a curve is as old as the model it is of. Options of train go to every run.",
    .notes = "For example:\n\n"
             "  skald bench --workers 32 --pace 100 --modes sync,async --stragglers 'none pcs' --gap 1e-3 train.h5\n\n"
             "Exit codes: 0 done, 1 failed, 2 usage error, 130 interrupted.\n\n",
    .table = bench_options,
    .least_words = 1,
    .most_words = 1,
    .run = run_command,
};
