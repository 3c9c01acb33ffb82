/* A comparison: what was run, what came of it, and its report. */
#ifndef SKALD_CLI_BENCH_H
#define SKALD_CLI_BENCH_H

#include <stdint.h>
#include <stdio.h>

#include "cli/settings.h"

/* Where a run was when: its gap to F*, known from evaluations. */
typedef struct bench_point {
    double seconds, passes, gap;
} bench_point;

/* Something a worker did, or waited for; seconds since the run's first task. */
typedef struct bench_span {
    uint32_t worker;
    double came, begun, computed, posted;
} bench_span;

enum { BENCH_STALE_MAX = 256 };

/* One run. */
typedef struct bench_run {
    const char *straggler, *algo, *mode;
    int repeat;
    bool reached;
    double to_target, seconds, cpu;               /* cpu: seconds of all processes over seconds x cores */
    double wait_ms, task_ms, updates, passes, mb; /* wait: idle, mean a worker and task; mb: both ways */
    double stale_mean, stale_max;
    bench_point *points;
    int point_count;
    bench_span *spans; /* of the first repeat */
    int span_count;
    uint64_t stale[BENCH_STALE_MAX]; /* merges by staleness; the last: and more */
} bench_run;

/* The repeats of one cell. */
typedef struct bench_cell {
    const char *straggler, *algo, *mode;
    double median, least, most; /* seconds to target */
    double speedup;             /* over the first mode, same straggler and algo; NAN: it did not always get there */
    bool at_least;              /* ... but the first mode did not */
    double wait_ms, updates, mb, cpu; /* medians */
    int reached, runs;
    const bench_run *first;
} bench_cell;

typedef struct bench_baseline {
    char name[64], note[200]; /* note: why it was skipped, or "" */
    double seconds, gap;
} bench_baseline;

typedef struct bench {
    const settings *s;
    const char *data, *folder;
    double optimum; /* F* */
    bool logistic;  /* the loss of the runs: --loss auto is seen by then */
    double n;
    bench_run *runs;
    int run_count;
    bench_cell *cells;
    int cell_count;
    bench_baseline baselines[8];
    int baseline_count;
} bench;

/* Reads a run's log, and its record if there is one (bench_read.c). */
skald_status bench_read(bench *b, bench_run *run, const char *log, const char *record);
/* Solves with others (bench_baseline.c); SKALD_EINVAL names one in the list (NULL: none) that is not known. */
skald_status bench_check_baselines(const char *list);
skald_status bench_baselines(bench *b);
/* Whole SVG documents, nothing where there is nothing to show (bench_plot.c). Gap against time, a line a mode of the
 * cells [first, last) (their first repeats); how stale merges were, in the mode's colour; what each worker did when. */
void bench_plot_gap(FILE *f, const bench *b, int first, int last);
void bench_plot_stale(FILE *f, const bench_cell *cell, int style);
void bench_plot_lanes(FILE *f, const bench *b, const bench_cell *cell);
/* As HTML or SVG wants it: what the user wrote may hold anything. */
void bench_text(FILE *f, const char *s);
/* Writes results.json, index.html and the plots, a file each (bench_report.c). */
skald_status bench_report(const bench *b, const skald_options *options);
/* "12.3 s", "850 ms"; "1.23x", ">= 1.23x", "-". Return out. */
const char *bench_seconds(double seconds, char out[32]);
const char *bench_faster(const bench_cell *cell, char out[32]);

#endif
