/* Files and sources for the tests of src/data. */
#ifndef SKALD_TESTS_DATA_FIXTURE_H
#define SKALD_TESTS_DATA_FIXTURE_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/base.h"
#include "skald/data.h"

#define assert_ok(expr)                                                                                                \
    do {                                                                                                               \
        skald_status assert_status_ = (expr);                                                                          \
        if (assert_status_ != SKALD_OK)                                                                                \
            fail_msg("%s: %s: %s", #expr, skald_status_name(assert_status_), skald_error());                           \
    } while (0)

/* The message must contain `text`. */
#define assert_fails(expr, status, text)                                                                               \
    do {                                                                                                               \
        assert_int_equal((expr), (status));                                                                            \
        if (!strstr(skald_error(), (text))) fail_msg("message '%s' lacks '%s'", skald_error(), (text));                \
    } while (0)

static char fixture_dir[64];

static inline int fixture_setup(void **state) {
    strcpy(fixture_dir, "/tmp/skald-test-XXXXXX");
    return mkdtemp(fixture_dir) ? 0 : -1;
}

static inline int fixture_teardown(void **state) {
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", fixture_dir);
    return system(command);
}

/* The path of a file in the test's directory; valid until four more calls. */
static inline const char *fixture_path(const char *name) {
    static char paths[4][160];
    static int next;
    char *p = paths[next++ % 4];
    snprintf(p, sizeof paths[0], "%s/%s", fixture_dir, name);
    return p;
}

static inline const char *fixture_bytes(const char *name, const void *data, size_t size) {
    const char *path = fixture_path(name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, size, f), size);
    fclose(f);
    return path;
}

static inline const char *fixture_text(const char *name, const char *text) {
    return fixture_bytes(name, text, strlen(text));
}

static inline skald_source *fixture_open(const char *path, int threads) {
    skald_source_options o = {.index_base = -1, .threads = threads};
    skald_source *s = NULL;
    assert_ok(skald_source_open(path, &o, &s));
    return s;
}

static inline void fixture_scan(skald_source *s, skald_manifest *m) {
    assert_ok(skald_source_scan(s, 0, skald_source_parts(s), m));
    assert_ok(skald_manifest_finish(m));
}

/* Labels as they are, weight 1. */
static inline skald_transform fixture_transform(const skald_manifest *m) {
    return (skald_transform){.dim = m->dim, .zero_based = m->zero_based, .weight_scale = 1};
}

/* Opens, scans and reads the whole file. */
static inline void fixture_load(const char *path, int threads, bool dense, skald_manifest *m, skald_rows *rows) {
    skald_source *s = fixture_open(path, threads);
    fixture_scan(s, m);
    skald_transform t = fixture_transform(m);
    t.force_dense = dense;
    uint64_t checksum = 0;
    assert_ok(skald_source_read(s, m->blocks, m->block_count, &t, rows, &checksum));
    assert_true(checksum == skald_blocks_checksum(m->blocks, m->block_count));
    assert_int_equal(rows->n, m->rows);
    skald_source_close(s);
}

static inline void assert_rows_equal(const skald_rows *a, const skald_rows *b) {
    assert_int_equal(a->layout, b->layout);
    assert_int_equal(a->n, b->n);
    assert_int_equal(a->dim, b->dim);
    assert_memory_equal(a->y, b->y, a->n * sizeof *a->y);
    assert_memory_equal(a->s, b->s, a->n * sizeof *a->s);
    assert_memory_equal(a->origin, b->origin, a->n * sizeof *a->origin);
    if (a->layout == SKALD_DENSE) {
        assert_int_equal(a->stride, b->stride);
        assert_memory_equal(a->x, b->x, a->n * a->stride * sizeof *a->x);
        return;
    }
    assert_memory_equal(a->ptr, b->ptr, (a->n + 1) * sizeof *a->ptr);
    if (a->ptr[a->n]) {
        assert_memory_equal(a->idx, b->idx, a->ptr[a->n] * sizeof *a->idx);
        assert_memory_equal(a->val, b->val, a->ptr[a->n] * sizeof *a->val);
    }
}

#endif
