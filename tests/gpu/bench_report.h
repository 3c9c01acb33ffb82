/* What the kernels' benchmark measures and says: time by events, bandwidth over that of a copy of the same run, and
 * whether the goals are met. Files are written whole after each case: whatever ends the program, they can be read.
 *
 * On the emulated device every figure is marked as such, and no goal is met or missed. */
#ifndef SKALD_TESTS_GPU_BENCH_REPORT_H
#define SKALD_TESTS_GPU_BENCH_REPORT_H

#include <time.h>

#include "check.h"

#define STRETCHES 7
#define MOST_RESULTS 256

static size_t shard_rows = 400000, batch_rows = 40000;
static int calls_each = 20;   /* of a stretch */
static double copy_bandwidth; /* bytes read and written a second */
static struct cudaDeviceProp card;
static bool emulated;

/* ---- timing -------------------------------------------------------------------------------------------- */

typedef void (*work)(void *context, int turn);

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double seconds[STRETCHES]) {
    qsort(seconds, STRETCHES, sizeof *seconds, by_value);
    return seconds[STRETCHES / 2];
}

/* Seconds a call of `run`, median over stretches. */
static double seconds_of(work run, void *context, int calls) {
    cudaEvent_t begin, end;
    double seconds[STRETCHES];
    int turn = 0;
    CUDA(cudaEventCreateWithFlags(&begin, cudaEventDefault));
    CUDA(cudaEventCreateWithFlags(&end, cudaEventDefault));
    for (int k = 0; k < 3; k++) run(context, turn++);
    for (int s = 0; s < STRETCHES; s++) {
        float ms;
        CUDA(cudaEventRecord(begin, check_stream));
        for (int k = 0; k < calls; k++) run(context, turn++);
        CUDA(cudaEventRecord(end, check_stream));
        CUDA(cudaEventSynchronize(end));
        CUDA(cudaEventElapsedTime(&ms, begin, end));
        seconds[s] = fmax((double)ms * 1e-3 / calls, 1e-9); /* the emulated clock may stand still */
    }
    CUDA(cudaEventDestroy(begin));
    CUDA(cudaEventDestroy(end));
    return median(seconds);
}

/* The same by the clock, of what returns when it is done. */
static double seconds_waited(work run, void *context, int calls) {
    double seconds[STRETCHES];
    int turn = 0;
    for (int k = 0; k < 3; k++) run(context, turn++);
    for (int s = 0; s < STRETCHES; s++) {
        struct timespec begin, end;
        clock_gettime(CLOCK_MONOTONIC, &begin);
        for (int k = 0; k < calls; k++) run(context, turn++);
        clock_gettime(CLOCK_MONOTONIC, &end);
        seconds[s] = (double)(end.tv_sec - begin.tv_sec) + 1e-9 * (double)(end.tv_nsec - begin.tv_nsec);
        seconds[s] /= calls;
    }
    return median(seconds);
}

/* ---- results ------------------------------------------------------------------------------------------- */

typedef struct result {
    char what[64], kernel[64], note[64]; /* note: "chosen", "peer", ... */
    bool random;                         /* rows; else neighbours */
    int reads;                           /* of a row; the bandwidth counts one */
    double seconds, bandwidth;           /* of the rows' bytes */
} result;

static result results[MOST_RESULTS];
static int result_count;
static char left_out[1024]; /* what has not been measured, and why */

static void leave_out(const char *what, const char *why) {
    char text[256];
    const size_t used = strlen(left_out);
    snprintf(text, sizeof text, "%s: %s", what, why);
    for (char *c = text; *c; c++) /* for JSON and the table */
        if (*c == '"' || *c == '\\' || *c == '|' || *c == '\n') *c = ' ';
    if (strstr(left_out, text)) return;
    printf("left out: %s\n", text);
    snprintf(left_out + used, sizeof left_out - used, "%s%s", used ? "; " : "", text);
}

static void report(const char *what, const char *kernel, bool random, int reads, double seconds, double bytes,
                   const char *note) {
    result *r = &results[result_count < MOST_RESULTS - 1 ? result_count++ : result_count];
    snprintf(r->what, sizeof r->what, "%s", what);
    snprintf(r->kernel, sizeof r->kernel, "%s", kernel);
    snprintf(r->note, sizeof r->note, "%s", note);
    r->random = random;
    r->reads = reads;
    r->seconds = seconds;
    r->bandwidth = bytes / seconds;
    printf("%-34s %-34s %-10s reads %d %9.1f us %8.0f GB/s %6.1f%%  %s%s\n", what, kernel,
           random ? "random" : "neighbours", reads, seconds * 1e6, r->bandwidth * 1e-9,
           100 * r->bandwidth / copy_bandwidth, note, emulated ? " (emulated: no measurement)" : "");
    fflush(stdout);
}

static const result *find_result(const char *what, bool random, const char *note) {
    for (int k = 0; k < result_count; k++)
        if (strcmp(results[k].what, what) == 0 && results[k].random == random && strcmp(results[k].note, note) == 0)
            return &results[k];
    return NULL;
}

/* ---- goals --------------------------------------------------------------------------------------------- */

typedef struct goal {
    uint32_t dim;
    const char *storage;
    bool random, over_peer; /* wanted: a share of the copy; over_peer: times as fast as cuBLAS */
    double wanted;
} goal;

static const goal goals[] = {
    {2000, "f32", false, false, 0.85}, {2000, "f32", true, false, 0.85}, {2000, "bf16", false, false, 0.75},
    {2000, "bf16", true, false, 0.75}, {2000, "u8", false, false, 0.75}, {2000, "u8", true, false, 0.75},
    {784, "f32", false, false, 0.75},  {784, "f32", true, false, 0.75},  {784, "bf16", false, false, 0.75},
    {784, "bf16", true, false, 0.75},  {784, "u8", false, false, 0.75},  {784, "u8", true, false, 0.75},
    {2000, "f32", false, true, 1.8},   {2000, "f32", true, true, 3},
};
#define GOALS ((int)(sizeof goals / sizeof *goals))

/* What was got, and the verdict. */
static const char *judge(const goal *g, double *got) {
    char what[64];
    snprintf(what, sizeof what, "%zu x %u %s", batch_rows, g->dim, g->storage);
    const result *ours = find_result(what, g->random, "chosen"), *peer = find_result(what, g->random, "peer");
    *got = 0;
    if (!ours || (g->over_peer && !peer)) return "not measured";
    *got = g->over_peer ? peer->seconds / ours->seconds : ours->bandwidth / copy_bandwidth;
    return emulated ? "emulated" : *got >= g->wanted ? "met" : "missed";
}

static void write_goals(FILE *json, FILE *table) {
    fprintf(json, "],\n  \"goals\": [");
    fprintf(table, "\n| goal | rows | wanted | got | |\n| --- | --- | ---: | ---: | --- |\n");
    for (int k = 0; k < GOALS; k++) {
        const goal *g = &goals[k];
        double got;
        const char *verdict = judge(g, &got), *of = g->over_peer ? "times two cuBLAS gemv" : "of the copy";
        const char *rows = g->random ? "random" : "neighbours";
        fprintf(json,
                "%s\n    {\"goal\": \"%zu x %u %s, %s\", \"rows\": \"%s\", \"wanted\": %g, \"got\": %.4f, "
                "\"verdict\": \"%s\"}",
                k ? "," : "", batch_rows, g->dim, g->storage, of, rows, g->wanted, got, verdict);
        fprintf(table, "| %zu x %u %s, %s | %s | %g | %.3g%s | %s |\n", batch_rows, g->dim, g->storage, of, rows,
                g->wanted, got, emulated ? " (emulated)" : "", verdict);
    }
}

/* OUTPUT.json and OUTPUT.md; 0: written. */
static int write_output(const char *output) {
    const char *mark = emulated ? " (emulated)" : "";
    char path[4096];
    int runtime = 0, driver = 0;
    CUDA(cudaRuntimeGetVersion(&runtime));
    CUDA(cudaDriverGetVersion(&driver));
    snprintf(path, sizeof path, "%s.json", output);
    FILE *json = fopen(path, "w");
    snprintf(path, sizeof path, "%s.md", output);
    FILE *table = fopen(path, "w");
    if (!json || !table) {
        perror(path);
        return 1;
    }
    fprintf(json,
            "{\n  \"card\": \"%s\", \"emulated\": %s, \"runtime\": %d, \"driver\": %d, \"time\": %ld, "
            "\"shard_rows\": %zu,\n  \"copy_GBps\": %.2f,\n  \"results\": [",
            card.name, emulated ? "true" : "false", runtime, driver, (long)time(NULL), shard_rows,
            copy_bandwidth * 1e-9);
    fprintf(table,
            "%s%s, CUDA %d.%d. Device copy: %.0f GB/s%s (bytes read and written). Batches from a shard of %zu "
            "rows (20000 columns: a tenth of both). GB/s count each row once; reads: how often a kernel reads it, "
            "again from L2 if it is still there. Softmax: by the clock, with what goes to the card and back.\n\n"
            "| batch | kernel | rows | reads | us | GB/s | of the copy | |\n"
            "| --- | --- | --- | ---: | ---: | ---: | ---: | --- |\n",
            emulated ? "**Emulated: no figure here is a measurement.** " : "", card.name, runtime / 1000,
            runtime % 1000 / 10, copy_bandwidth * 1e-9, mark, shard_rows);
    for (int k = 0; k < result_count; k++) {
        const result *r = &results[k];
        const char *rows = r->random ? "random" : "neighbours";
        const double share = r->bandwidth / copy_bandwidth;
        fprintf(json,
                "%s\n    {\"case\": \"%s\", \"kernel\": \"%s\", \"rows\": \"%s\", \"reads\": %d, \"emulated\": %s, "
                "\"us\": %.3f, "
                "\"GBps\": %.2f, \"share_of_copy\": %.4f, \"note\": \"%s\"}",
                k ? "," : "", r->what, r->kernel, rows, r->reads, emulated ? "true" : "false", r->seconds * 1e6,
                r->bandwidth * 1e-9, share, r->note);
        fprintf(table, "| %s | %s | %s | %d | %.1f%s | %.0f%s | %.1f%%%s | %s |\n", r->what, r->kernel, rows, r->reads,
                r->seconds * 1e6, mark, r->bandwidth * 1e-9, mark, 100 * share, mark, r->note);
    }
    if (left_out[0]) fprintf(table, "\nLeft out: %s.\n", left_out);
    write_goals(json, table);
    fprintf(json, "\n  ],\n  \"left_out\": \"%s\"\n}\n", left_out);
    return (fclose(json) != 0) + (fclose(table) != 0);
}

/* ---- the card's own copy -------------------------------------------------------------------------------- */

typedef struct copy_case {
    char *from, *to;
    size_t bytes;
} copy_case;

static void run_copy(void *context, int turn) {
    const copy_case *c = context;
    (void)turn;
    CUDA(cudaMemcpyAsync(c->to, c->from, c->bytes, cudaMemcpyDeviceToDevice, check_stream));
}

static void measure_copy(void) {
    const check_mark before = mark();
    copy_case c = {.bytes = batch_rows * 2000 * 4};
    c.from = device_take(c.bytes);
    c.to = device_take(c.bytes);
    copy_bandwidth = 2 * (double)c.bytes / seconds_of(run_copy, &c, 10);
    release(before);
}

#endif
