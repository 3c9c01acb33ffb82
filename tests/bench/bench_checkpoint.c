/* What checkpoints cost: rows processed a second with them and without, in turns within one run.
 *
 *   bench_checkpoint [--rounds N (5)] [--seconds S (2)] [--json FILE]
 *
 * A coordinator and four workers in this process train on rcv1-shaped data, real files on disk. In every other stretch
 * of S seconds a checkpoint is begun every half second, far more often than anybody asks for, so that the difference
 * can be seen at all; from the median over the rounds follows what one checkpoint costs, and the share at the default
 * of one a minute. */
#include <jansson.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/base.h"
#include "engine/run.h"
#include "skald/checkpoint.h"
#include "skald/coordinator.h"
#include "skald/solver.h"
#include "skald/worker.h"

enum { WORKERS = 4, MAX_ROUNDS = 99 };
static const double OFTEN = 0.5, DEFAULT = 60; /* seconds */

typedef struct turns {
    skald_run *run;
    skald_checkpointer *checkpointer;
    int64_t length_ns, since_ns, since_cpu_ns;
    double since_rows, speed[2][MAX_ROUNDS], by_cpu[2][MAX_ROUNDS]; /* rows a second; rows a second of processor time */
    int turn, rounds;
    atomic_int stop;
} turns;

static turns *bench;

static skald_status solver(skald_engine *e, const skald_train_options *options) {
    bench->run = (skald_run *)e;
    return skald_saga(e, options);
}

/* Of all threads: the writer's too, and other programs' not. */
static int64_t cpu_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return t.tv_sec * SKALD_NS_PER_S + t.tv_nsec;
}

static void on_merged(void *user, const skald_merged *m) {
    turns *t = user;
    const int64_t now = skald_now_ns(skald_clock_system());
    if (t->run->engine.passes < 2 || t->run->copying) return; /* warm; whole checkpoints */
    if (t->since_ns && now - t->since_ns < t->length_ns) return;
    const int64_t cpu = cpu_ns();
    if (t->since_ns && t->turn >= 0 && t->turn < 2 * t->rounds) {
        const double rows = (t->run->rows - t->since_rows) * 1e9;
        t->speed[t->turn & 1][t->turn / 2] = rows / (double)(now - t->since_ns);
        t->by_cpu[t->turn & 1][t->turn / 2] = rows / (double)(cpu - t->since_cpu_ns);
    }
    if (t->since_ns) t->turn++;
    if (t->turn >= 2 * t->rounds) t->stop = 1;
    ((skald_train_options *)(uintptr_t)t->run->options)->checkpointer = t->turn & 1 ? t->checkpointer : NULL;
    t->since_ns = now;
    t->since_cpu_ns = cpu;
    t->since_rows = t->run->rows;
}

static void *work(void *argument) {
    skald_worker_run(skald_net_inproc(), argument, NULL);
    return NULL;
}

static int ascending(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void report(json_t *lines, const char *name, double value, const char *unit, double goal) {
    json_t *line = json_pack("{s:s, s:f, s:s}", "name", name, "value", value, "unit", unit);
    if (goal > 0) {
        json_object_set_new(line, "goal", json_real(goal));
        json_object_set_new(line, "met", json_boolean(value <= goal));
        json_object_set_new(line, "at_most", json_true());
    }
    json_array_append_new(lines, line);
    printf("%-60s %10.4g %s\n", name, value, unit);
}

static skald_status train(turns *t, const char *data, const char *path) {
    const skald_checkpointer_options keep = {
        .path = path, .every_ns = (int64_t)(OFTEN * 1e9), .run = "bench", .term = 1};
    const skald_coordinator_options o = {.address = "inproc:bench",
                                         .workers = WORKERS,
                                         .data = {.path = data, .source = {.index_base = -1, .threads = 1}, .seed = 1},
                                         .objective = {.loss = SKALD_LOGISTIC, .l2 = 1e-5, .classes = 1},
                                         .clock = skald_clock_system()};
    const skald_train_options options = {
        .algo = SKALD_SAGA, .local = -1, .step_decay = -1, .eval_every = -1, .max_passes = 1e9};
    const skald_observer observer = {.user = t, .merged = on_merged};
    skald_worker_options workers[WORKERS];
    pthread_t threads[WORKERS];
    skald_coordinator *c = NULL;
    skald_crew *crew = NULL;
    skald_outcome out = {0};
    char error[1000] = "";
    TRY(skald_checkpointer_open(&keep, &t->checkpointer));
    TRY(skald_coordinator_listen(skald_net_inproc(), &o, &c, NULL));
    for (int k = 0; k < WORKERS; k++) {
        workers[k] = (skald_worker_options){.address = "inproc:bench",
                                            .name = (const char *[]){"a", "b", "c", "d"}[k],
                                            .compute = {.device = "cpu", .threads = 1},
                                            .wait_ns = 10 * SKALD_NS_PER_S};
        pthread_create(&threads[k], NULL, work, &workers[k]);
    }
    skald_status st = skald_coordinator_gather(c, NULL, &crew);
    if (st == SKALD_OK) st = skald_train(crew, solver, &options, skald_clock_system(), &observer, &t->stop, &out);
    snprintf(error, sizeof error, "%s", skald_error());
    skald_coordinator_close(c, st, "done");
    for (int k = 0; k < WORKERS; k++) pthread_join(threads[k], NULL);
    skald_outcome_free(&out);
    return st == SKALD_OK ? skald_checkpointer_close(t->checkpointer) : skald_fail(st, "%s", error);
}

static double median_ratio(const turns *t, double speed[2][MAX_ROUNDS]) {
    double ratio[MAX_ROUNDS];
    for (int k = 0; k < t->rounds; k++) ratio[k] = speed[1][k] / speed[0][k];
    qsort(ratio, (size_t)t->rounds, sizeof *ratio, ascending);
    return ratio[t->rounds / 2];
}

int main(int argc, char **argv) {
    turns t = {.rounds = 5, .turn = -1, .length_ns = 2 * SKALD_NS_PER_S};
    const char *json = NULL;
    for (int k = 1; k + 1 < argc; k += 2) {
        if (strcmp(argv[k], "--rounds") == 0)
            t.rounds = atoi(argv[k + 1]);
        else if (strcmp(argv[k], "--seconds") == 0)
            t.length_ns = (int64_t)(atof(argv[k + 1]) * 1e9);
        else if (strcmp(argv[k], "--json") == 0)
            json = argv[k + 1];
    }
    if (t.rounds < 1 || t.rounds > MAX_ROUNDS) return 2;
    char folder[] = "/tmp/bench-checkpoint-XXXXXX", data[80], path[80], previous[90];
    if (!mkdtemp(folder)) return 1;
    snprintf(data, sizeof data, "%s/data.svm", folder);
    snprintf(path, sizeof path, "%s/run.ck", folder);
    snprintf(previous, sizeof previous, "%s.1", path);
    const skald_generate_options what = {.kind = "rcv1", .rows = 20000, .seed = 1};
    skald_generate_report made;
    bench = &t;
    skald_status st = skald_generate(&what, data, &made);
    if (st == SKALD_OK) st = train(&t, data, path);
    if (st != SKALD_OK) fprintf(stderr, "bench_checkpoint: %s\n", skald_error());
    struct stat info = {0};
    stat(path, &info);
    unlink(previous);
    unlink(path);
    unlink(data);
    rmdir(folder);
    if (st != SKALD_OK) return 1;
    const double wall = median_ratio(&t, t.speed), cpu = median_ratio(&t, t.by_cpu);
    const double lost = fmax(0, 1 - fmin(wall, cpu)); /* at one every OFTEN seconds */
    json_t *lines = json_array();
    report(lines, "size of a checkpoint", (double)info.st_size * 1e-6, "MB", 0);
    report(lines, "rows a second, one checkpoint every 0.5 s / none", wall, "x", 0);
    report(lines, "rows a second of processor time, the same", cpu, "x", 0);
    report(lines, "what a checkpoint costs, by the worse of the two", lost * OFTEN * 1e3, "ms of training", 0);
    report(lines, "share of throughput at the default, one a minute", lost * OFTEN / DEFAULT * 100, "%", 2);
    json_t *all = json_pack("{s:s, s:i, s:o}", "bench", "checkpoint", "rounds", t.rounds, "lines", lines);
    const int failed = json ? json_dump_file(all, json, JSON_INDENT(1)) : 0;
    json_decref(all);
    return failed ? 1 : 0;
}
