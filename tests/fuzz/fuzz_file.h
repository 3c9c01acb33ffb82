/* What fuzz targets that read files share: the input as a file of memory, and data files from opening to rows. */
#ifndef SKALD_FUZZ_FILE_H
#define SKALD_FUZZ_FILE_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "skald/data.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The path of a file that holds the input, until the next call. */
static inline const char *fuzz_file(const uint8_t *data, size_t size) {
    static int file = -1;
    static char path[64];
    if (file < 0) file = memfd_create("fuzz", MFD_CLOEXEC);
    if (ftruncate(file, 0) != 0 || pwrite(file, data, size, 0) != (ssize_t)size) abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    return path;
}

/* Opens, scans, merges and reads a file as data. */
static inline skald_status fuzz_data(const char *path) {
    const skald_source_options options = {.index_base = -1, .dim = 1 << 12, .threads = 1};
    skald_source *source = NULL;
    skald_manifest part = {0}, all = {0};
    skald_status st = skald_source_open(path, &options, &source);
    if (st == SKALD_OK) st = skald_source_scan(source, 0, skald_source_parts(source), &part);
    if (st == SKALD_OK) st = skald_manifest_merge(&all, &part);
    if (st == SKALD_OK) st = skald_manifest_finish(&all);
    if (st == SKALD_OK && all.dim < 1 << 12) {
        const skald_transform transform = {.dim = all.dim, .zero_based = all.zero_based, .weight_scale = 1};
        skald_rows rows = {0};
        uint64_t checksum = 0;
        st = skald_source_read(source, all.blocks, all.block_count, &transform, &rows, &checksum);
        if (st == SKALD_OK) skald_rows_free(&rows);
    }
    skald_manifest_free(&part);
    skald_manifest_free(&all);
    skald_source_close(source);
    return st;
}

#endif
