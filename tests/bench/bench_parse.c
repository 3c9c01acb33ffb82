/* LIBSVM text: megabytes a second and core, scan and read, on generated files like rcv1 (short rows of sparse words)
 * and epsilon (long dense rows), cached in memory. Median of 5. One line of JSON and one for people each.
 *
 *   bench_parse [megabytes (220)] [directory (/dev/shm, else /tmp)] [keep]
 *   bench_parse FILE                       one thread, this file */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/base.h"
#include "skald/data.h"

enum { REPEATS = 5 };

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double seconds_since(int64_t start) {
    return (double)(skald_now_ns(skald_clock_system()) - start) / SKALD_NS_PER_S;
}

static void print(const char *kind, const char *what, int threads, double megabytes, double *times) {
    qsort(times, REPEATS, sizeof *times, ascending);
    double rate = megabytes / times[REPEATS / 2] / threads;
    printf("{\"bench\": \"parse\", \"data\": \"%s\", \"op\": \"%s\", \"threads\": %d, \"mb\": %.1f, "
           "\"seconds\": %.4f, \"mb_per_s_per_core\": %.0f}\n",
           kind, what, threads, megabytes, times[REPEATS / 2], rate);
    printf("%-8s %-10s %d thread%s %8.1f MB %8.3f s %8.0f MB/s/core (from %.0f to %.0f)\n", kind, what, threads,
           threads == 1 ? " " : "s", megabytes, times[REPEATS / 2], rate, megabytes / times[REPEATS - 1] / threads,
           megabytes / times[0] / threads);
    fflush(stdout);
}

static skald_status measure(const char *kind, const char *path, int threads) {
    double scan[REPEATS], read[REPEATS], dense[REPEATS];
    struct stat info;
    if (stat(path, &info) != 0) return skald_fail(SKALD_EIO, "%s: gone", path);
    double megabytes = (double)info.st_size / 1e6;
    for (int k = 0; k < REPEATS; k++) {
        skald_source_options o = {.index_base = -1, .threads = threads};
        skald_source *s;
        skald_manifest m;
        skald_rows rows;
        TRY(skald_source_open(path, &o, &s));
        int64_t start = skald_now_ns(skald_clock_system());
        TRY(skald_source_scan(s, 0, skald_source_parts(s), &m));
        TRY(skald_manifest_finish(&m));
        scan[k] = seconds_since(start);
        skald_transform t = {.dim = m.dim, .zero_based = m.zero_based, .weight_scale = 1};
        start = skald_now_ns(skald_clock_system());
        TRY(skald_source_read(s, m.blocks, m.block_count, &t, &rows, NULL));
        read[k] = seconds_since(start);
        skald_rows_free(&rows);
        if (strcmp(kind, "epsilon") == 0) {
            t.force_dense = true;
            start = skald_now_ns(skald_clock_system());
            TRY(skald_source_read(s, m.blocks, m.block_count, &t, &rows, NULL));
            dense[k] = seconds_since(start);
            skald_rows_free(&rows);
        }
        skald_manifest_free(&m);
        skald_source_close(s);
    }
    print(kind, "scan", threads, megabytes, scan);
    print(kind, "read", threads, megabytes, read);
    if (strcmp(kind, "epsilon") == 0) print(kind, "read dense", threads, megabytes, dense);
    return SKALD_OK;
}

int main(int argc, char **argv) {
    if (argc == 2 && access(argv[1], R_OK) == 0) {
        if (measure("file", argv[1], 1) == SKALD_OK) return 0;
        fprintf(stderr, "bench_parse: %s\n", skald_error());
        return 1;
    }
    static const struct {
        const char *kind;
        double row_bytes;
    } sets[] = {{"rcv1", 1090}, {"epsilon", 29900}};
    double megabytes = argc > 1 ? atof(argv[1]) : 220;
    const char *directory = argc > 2 ? argv[2] : access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    int cpus = (int)sysconf(_SC_NPROCESSORS_ONLN);
    for (size_t k = 0; k < SKALD_ARRAY_LENGTH(sets); k++) {
        char path[1000];
        snprintf(path, sizeof path, "%s/skald-bench-%s.txt", directory, sets[k].kind);
        skald_generate_options o = {
            .kind = sets[k].kind, .rows = (uint64_t)(megabytes * 1e6 / sets[k].row_bytes) + 1, .seed = 1};
        skald_status st = skald_generate(&o, path, NULL);
        if (st == SKALD_OK) st = measure(sets[k].kind, path, 1);
        if (st == SKALD_OK && cpus > 1) st = measure(sets[k].kind, path, cpus);
        if (argc <= 3) unlink(path);
        if (st != SKALD_OK) {
            fprintf(stderr, "bench_parse: %s\n", skald_error());
            return 1;
        }
    }
    return 0;
}
