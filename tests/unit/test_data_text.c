/* LIBSVM text: numbers, lines, blocks, parts, and every way a file can be wrong. */
#include "data_fixture.h"

#include "data/number.h"

/* ---- numbers -------------------------------------------------------------------------------------- */

static void check_number(const char *text) {
    char padded[128] = {0};
    snprintf(padded, sizeof padded, "%s", text);
    float got = -7, want = strtof(padded, NULL);
    const char *end = number_parse_float(padded, &got);
    if (!end) fail_msg("'%s' refused", text);
    assert_int_equal(end - padded, strlen(text));
    if (memcmp(&got, &want, 4) != 0) fail_msg("'%s': %.9g, nearest is %.9g", text, got, want);
}

/* The fear: a float one unit off, which no other test would notice. Seen to fail with the check for midpoints
 * taken out of number_parse_float (1.0000000596046448). */
static void test_numbers_nearest_float(void **state) {
    const char *const cases[] = {"0",
                                 "-0",
                                 "1",
                                 "-1",
                                 "+1",
                                 "0.5",
                                 ".5",
                                 "5.",
                                 "1e5",
                                 "1E-5",
                                 "1.5e+3",
                                 "12345678",
                                 "123456789.125",
                                 "0.1",
                                 "0.2",
                                 "0.3",
                                 "16777217",
                                 "16777217.0000001",
                                 "16777216.9999999",
                                 "16777219",
                                 "1.00000005960464477539062500",
                                 "1.000000059604644775390625",
                                 "1.0000000596046447",
                                 "1.0000000596046448",
                                 "1.00000017881393432617187",
                                 "1.00000017881393432617188",
                                 "1.00000017881393432617189",
                                 "0.000000000000000000000000000000000000000012345",
                                 "1.17549435e-38",
                                 "1.17549429e-38",
                                 "1e-45",
                                 "7e-46",
                                 "1e-60",
                                 "3.4028234e38",
                                 "3.4028235e38",
                                 "0.0e5",
                                 "0.00000000000000000000000000000000",
                                 "123456.789012345678901234567890",
                                 "9007199254740993",
                                 "99999999999999999999",
                                 "0.30000001192092896",
                                 "4611686018427387904.5",
                                 "1234567.4611686018427387904",
                                 "1e0005",
                                 "1e-0005"};
    for (size_t k = 0; k < SKALD_ARRAY_LENGTH(cases); k++) check_number(cases[k]);
    char text[64];
    for (uint64_t k = 0; k < 200000; k++) {
        uint64_t r = skald_random(1, k);
        uint32_t bits = (uint32_t)r;
        float f;
        memcpy(&f, &bits, 4);
        if (!isfinite(f)) continue;
        switch (k % 6) {
        case 0:
            snprintf(text, sizeof text, "%.9g", f);
            break;
        case 1:
            snprintf(text, sizeof text, "%.*g", (int)(r >> 60) + 3, f);
            break;
        case 2: /* midpoints of neighbouring floats, exactly and nearly */
            snprintf(text, sizeof text, "%.*g", (int)(r >> 61) + 15, ((double)f + nextafterf(f, 1e30f)) / 2);
            break;
        case 3:
            snprintf(text, sizeof text, "%.*f", (int)(r >> 60) + 1, skald_uniform(2, k) * 1000 - 500);
            break;
        case 4:
            snprintf(text, sizeof text, "%.16g", skald_normal(3, k));
            break;
        default:
            snprintf(text, sizeof text, "%d.%0*d", (int)(r % 300), 1 + (int)((r >> 32) % 9), (int)(r >> 40) % 100000);
        }
        if (isfinite(strtof(text, NULL))) check_number(text);
    }
}

static void test_numbers_refused(void **state) {
    const char *const cases[] = {"",     "-",  "+",   ".",    "-.",      "e5", "nan", "inf",
                                 "-inf", "1e", "1e+", "1e99", "-3.5e38", "x",  "--1"};
    for (size_t k = 0; k < SKALD_ARRAY_LENGTH(cases); k++) {
        char padded[128] = {0};
        float f;
        snprintf(padded, sizeof padded, "%s", cases[k]);
        const char *end = number_parse_float(padded, &f);
        if (end) fail_msg("'%s' accepted", cases[k]);
    }
}

/* ---- lines ---------------------------------------------------------------------------------------- */

static void test_lines(void **state) {
    skald_manifest m;
    skald_rows r;
    const char *path = fixture_text("lines", "# a comment\n"
                                             "+1 1:0.5 3:-2 # more\r\n"
                                             "\n"
                                             "  \t \r\n"
                                             "-1\t7:1e1\t2:0 5:4 3:1\n" /* unsorted, and a zero */
                                             "1 qid:3 2:2\n"
                                             "-1\r\n" /* no features */
                                             "1#c\n"
                                             "-1 1:1  2:2 \n"
                                             "2.5 4:1"); /* no newline */
    fixture_load(path, 2, false, &m, &r);
    assert_int_equal(m.rows, 7);
    assert_int_equal(m.dim, 7);
    assert_int_equal(m.nonzeros, 9);
    assert_false(m.zero_based);
    assert_int_equal(m.label_count, 3);
    assert_true(m.labels[0].value == -1 && m.labels[0].count == 3);
    assert_true(m.labels[2].value == 2.5 && m.labels[2].count == 1 && m.labels[2].weight_sum == 1);
    assert_true(m.label_min == -1 && m.label_max == 2.5);
    assert_true(m.max_row_norm2 == 117 && m.sum_row_norm2 == 4.25 + 117 + 4 + 5 + 1);
    assert_true(m.col_sum[2] == -1 && m.col_sum2[2] == 5 && m.col_max_abs[2] == 2);
    assert_true(m.col_sum[0] == 1.5 && m.col_max_abs[6] == 10);
    const uint64_t ptr[] = {0, 2, 5, 6, 6, 6, 8, 9};
    const uint32_t idx[] = {0, 2, 2, 4, 6, 1, 0, 1, 3};
    const float val[] = {0.5f, -2, 1, 4, 10, 2, 1, 2, 1};
    const double y[] = {1, -1, 1, -1, 1, -1, 2.5};
    assert_memory_equal(r.ptr, ptr, sizeof ptr);
    assert_memory_equal(r.idx, idx, sizeof idx);
    assert_memory_equal(r.val, val, sizeof val);
    assert_memory_equal(r.y, y, sizeof y);
    for (uint64_t i = 0; i < 7; i++) assert_true(r.origin[i] == i && r.s[i] == 1);
    skald_rows_free(&r);
    skald_manifest_free(&m);
}

static skald_status load_status(const char *path, const skald_source_options *o) {
    skald_source *s;
    skald_manifest m = {0};
    skald_status st = skald_source_open(path, o, &s);
    if (st != SKALD_OK) return st;
    st = skald_source_scan(s, 0, skald_source_parts(s), &m);
    if (st == SKALD_OK) st = skald_manifest_finish(&m);
    skald_manifest_free(&m);
    skald_source_close(s);
    return st;
}

static void test_refused_lines(void **state) {
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"1 1:2\nx 1:2\n", ":2: label 'x' is not a number"},
        {"1 1:2\n\n# c\nnan 1:2\n", ":4: label 'nan' is not finite"},
        {"1,2 1:2\n", ":1: label '1,2': several labels a row are not supported"},
        {"1:2 2:3\n", ":1: the row has no label (it starts with '1:2')"},
        {"1 1:2 1:3\n", ":1: index 1 occurs twice"},
        {"1 4:2 2:3 4:1\n", ":1: index 4 occurs twice"},
        {"1 1:nan\n", ":1: value 'nan' of index 1 is not finite"},
        {"1 1:1\n1 1:-Inf\n", ":2: value '-Inf' of index 1 is not finite"},
        {"1 1:1e39\n", ":1: value '1e39' of index 1 does not fit a 32-bit float"},
        {"1 1:\n", ":1: value '' of index 1 is not a number"},
        {"1 1:a\n", ":1: value 'a' of index 1 is not a number"},
        {"1 1:1.5x\n", ":1: 'x' where a blank or the end of the line should be"},
        {"1 1:0x10\n", ":1: 'x10' where"},
        {"1 1:1 2\n", ":1: '2' is not index:value"},
        {"1 1:1 a:2\n", ":1: 'a:2' is not index:value"},
        {"1 1:1 qid:x\n", ":1: 'qid:x' is not index:value"},
        {"1 -1:1\n", ":1: negative index in '-1:1'"},
        {"1 2147483648:1\n", ":1: index in '2147483648:1' is larger than 2147483647"},
        {"1 99999999999999999999999:1\n", ":1: index in '99999999999999999999999:1' is larger"},
        {"1 123456789\n", ":1: '123456789' is not index:value"},
        {"1 1:1 \x01\x02:3\n", ":1: '?"
                               "?:3' is not index:value"},
    };
    skald_source_options o = {.index_base = -1, .threads = 2};
    for (size_t k = 0; k < SKALD_ARRAY_LENGTH(cases); k++) {
        const char *path = fixture_text("bad", cases[k].text);
        char want[300];
        snprintf(want, sizeof want, "%s%s", path, cases[k].message);
        assert_fails(load_status(path, &o), SKALD_EDATA, want);
    }
}

static void test_index_base_and_dim(void **state) {
    skald_source_options o = {.index_base = 1, .threads = 1};
    const char *zero = fixture_text("zero", "1 0:1 2:1\n-1 1:1\n"), *one = fixture_text("one", "1 1:1 3:1\n-1 2:1\n");
    assert_fails(load_status(zero, &o), SKALD_EDATA, "zero:1: index 0 in data whose indices start at 1");
    const int bases[] = {-1, 0, 1};
    for (size_t k = 0; k < 3; k++) {
        skald_manifest m;
        skald_source *s;
        o = (skald_source_options){.index_base = bases[k], .threads = 1, .dim = 5};
        assert_ok(skald_source_open(one, &o, &s));
        fixture_scan(s, &m);
        assert_int_equal(m.dim, 5);
        assert_int_equal(m.zero_based, bases[k] == 0);
        assert_true(m.col_sum[bases[k] == 0 ? 1 : 0] == 1 && m.col_sum[4] == 0);
        skald_manifest_free(&m);
        skald_source_close(s);
    }
    o = (skald_source_options){.index_base = -1, .threads = 1, .dim = 2};
    assert_fails(load_status(one, &o), SKALD_EDATA, "");
    assert_fails(load_status(zero, &o), SKALD_EDATA, "beyond the 2 columns");
    o.dim = 1;
    assert_fails(load_status(one, &o), SKALD_EDATA, "one:1: index 3 is beyond the 1 columns there should be");
}

static void test_refused_files(void **state) {
    skald_source_options o = {.index_base = -1, .threads = 1};
    skald_source *s;
    assert_fails(skald_source_open("/nonexistent/x", &o, &s), SKALD_EIO, "/nonexistent/x: cannot open: No such file");
    assert_fails(skald_source_open(fixture_dir, &o, &s), SKALD_EDATA, "is a directory");
    assert_fails(skald_source_open("/dev/null", &o, &s), SKALD_EDATA, "/dev/null: is a pipe or device");
    assert_fails(skald_source_open(fixture_text("empty", ""), &o, &s), SKALD_EDATA, "empty: the file is empty");
    assert_fails(load_status(fixture_text("comments", "# a\n\n#b"), &o), SKALD_EDATA, "there are no rows");
    assert_fails(skald_source_open(fixture_bytes("binary", "1 1:2\0\1\2", 8), &o, &s), SKALD_EDATA,
                 "binary: neither LIBSVM text");
    assert_fails(skald_source_open(fixture_text("bz", "BZh91AY"), &o, &s), SKALD_EDATA, "compressed with bzip2");
    o.threads = 0;
    assert_fails(skald_source_open(fixture_text("ok", "1 1:1\n"), &o, &s), SKALD_EINVAL, "0 threads");
}

/* ---- large files: parts, threads, a naive reader -------------------------------------------------- */

enum { BIG_ROWS = 30000 };

/* About 9 MB with awkward lines: three parts. */
static const char *big_file(void) {
    const char *path = fixture_path("big");
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    for (uint64_t i = 0; i < BIG_ROWS; i++) {
        if (i % 1000 == 7) fprintf(f, "# comment %d with 1:2\n\n", (int)i);
        fprintf(f, "%d", (int)(skald_random(5, i) % 3) - 1);
        uint32_t j = 0;
        for (uint64_t k = 0; k < 20 + i % 7; k++) {
            uint64_t r = skald_random(i, k);
            j += 1 + (uint32_t)(r % 60);
            if (k % 13 == 5)
                fprintf(f, " %u:0", j);
            else
                fprintf(f, " %u:%.*g", j, (int)(r >> 60) + 1, skald_normal(i, k));
        }
        fputs(i % 5 ? "\n" : " \r\n", f);
    }
    fclose(f);
    return path;
}

/* Reads the file the slow way: fgets, strtoul, strtof. Row i is compared with r. */
static void compare_naively(const char *path, const skald_rows *r) {
    static char line[65536];
    FILE *f = fopen(path, "r");
    size_t i = 0;
    while (fgets(line, sizeof line, f)) {
        if (line[0] == '#' || line[0] == '\n') continue;
        char *p = line;
        assert_true(r->y[i] == strtod(p, &p));
        uint64_t at = r->layout == SKALD_CSR ? r->ptr[i] : 0;
        size_t nonzero = 0;
        while (*p == ' ' && p[1] >= '0') {
            uint32_t j = (uint32_t)strtoul(p, &p, 10) - 1;
            float v = strtof(p + 1, &p);
            if (r->layout == SKALD_DENSE) {
                assert_memory_equal(&r->x[i * r->stride + j], &v, 4);
                nonzero += v != 0;
            } else if (v != 0) {
                assert_true(at < r->ptr[i + 1] && r->idx[at] == j);
                assert_memory_equal(&r->val[at], &v, 4);
                at++;
            }
        }
        if (r->layout == SKALD_CSR) {
            assert_true(at == r->ptr[i + 1]);
        } else {
            for (size_t j = 0; j < r->stride; j++) nonzero -= r->x[i * r->stride + j] != 0;
            assert_int_equal(nonzero, 0);
        }
        i++;
    }
    fclose(f);
    assert_int_equal(i, r->n);
}

static void test_read_equals_naive(void **state) {
    skald_manifest m;
    skald_rows r;
    const char *path = big_file();
    for (int dense = 0; dense < 2; dense++) {
        fixture_load(path, dense ? 1 : 3, dense, &m, &r);
        assert_int_equal(m.rows, BIG_ROWS);
        compare_naively(path, &r);
        skald_rows_free(&r);
        skald_manifest_free(&m);
    }
}

static void assert_manifests_equal(const skald_manifest *a, const skald_manifest *b) {
    uint8_t *p, *q;
    size_t p_size, q_size;
    assert_ok(skald_manifest_pack(a, &p, &p_size));
    assert_ok(skald_manifest_pack(b, &q, &q_size));
    assert_int_equal(p_size, q_size);
    assert_memory_equal(p, q, p_size);
    free(p);
    free(q);
}

/* Whoever scans which parts, in whatever order they are merged: the same manifest, to the bit. Seen to fail
 * when sum_add forgets the low word. */
static void test_scan_any_split(void **state) {
    skald_manifest whole, merged, part;
    const char *path = big_file();
    skald_source *s = fixture_open(path, 1), *s3 = fixture_open(path, 3);
    uint32_t parts = skald_source_parts(s);
    assert_true(parts >= 2);
    fixture_scan(s, &whole);
    for (int backwards = 0; backwards < 2; backwards++) {
        memset(&merged, 0, sizeof merged);
        for (uint32_t k = 0; k < parts; k++) {
            assert_ok(skald_source_scan(s, backwards ? parts - 1 - k : k, 1, &part));
            assert_ok(skald_manifest_merge(&merged, &part));
            skald_manifest_free(&part);
        }
        assert_int_equal(merged.parts_merged, parts);
        assert_ok(skald_manifest_finish(&merged));
        assert_manifests_equal(&whole, &merged);
        skald_manifest_free(&merged);
    }
    fixture_scan(s3, &merged);
    assert_manifests_equal(&whole, &merged);
    skald_manifest_free(&merged);
    skald_manifest_free(&whole);
    /* the same part twice */
    memset(&merged, 0, sizeof merged);
    assert_ok(skald_source_scan(s, 0, 1, &part));
    assert_ok(skald_manifest_merge(&merged, &part));
    assert_ok(skald_manifest_merge(&merged, &part));
    assert_fails(skald_manifest_finish(&merged), SKALD_EDATA, "scanned twice");
    skald_manifest_free(&part);
    skald_manifest_free(&merged);
    assert_fails(skald_source_scan(s, parts, 1, &part), SKALD_EINVAL, "parts");
    skald_source_close(s);
    skald_source_close(s3);
}

/* Rows come out in the order of the blocks asked for, with their labels mapped, weighted and scaled. */
static void test_read_some_blocks(void **state) {
    skald_manifest m;
    skald_rows all, some;
    const char *path = big_file();
    skald_source *s = fixture_open(path, 2);
    fixture_scan(s, &m);
    skald_transform t = fixture_transform(&m);
    assert_ok(skald_source_read(s, m.blocks, m.block_count, &t, &all, NULL));
    const double values[] = {-1, 0, 1}, targets[] = {-1, 5, 1}, weights[] = {2, 3, 4};
    double *scale = malloc(m.dim * sizeof *scale);
    for (uint32_t j = 0; j < m.dim; j++) scale[j] = 1 + j;
    t.label_count = 3;
    t.label_values = values;
    t.label_targets = targets;
    t.label_weights = weights;
    t.weight_scale = 0.5;
    t.intercept = true;
    t.scale = scale;
    skald_block blocks[] = {m.blocks[m.block_count - 1], m.blocks[3], m.blocks[700]};
    for (int dense = 0; dense < 2; dense++) {
        t.force_dense = dense;
        assert_ok(skald_source_read(s, blocks, 3, &t, &some, NULL));
        assert_int_equal(some.dim, m.dim + 1);
        size_t row = 0;
        for (int b = 0; b < 3; b++) {
            for (uint32_t k = 0; k < blocks[b].rows; k++, row++) {
                uint64_t i = blocks[b].first_row + k;
                assert_true(some.origin[row] == i);
                assert_true(some.y[row] == (all.y[i] == 0 ? 5 : all.y[i]));
                assert_true(some.s[row] == 0.5 * (all.y[i] + 3));
                uint64_t n = all.ptr[i + 1] - all.ptr[i];
                if (!dense) assert_int_equal(some.ptr[row + 1] - some.ptr[row], n + 1);
                for (uint64_t e = 0; e < n; e++) {
                    uint32_t j = all.idx[all.ptr[i] + e];
                    float v = (float)(all.val[all.ptr[i] + e] * scale[j]);
                    if (!dense) assert_int_equal(some.idx[some.ptr[row] + e], j);
                    assert_true(v == (dense ? some.x[row * some.stride + j] : some.val[some.ptr[row] + e]));
                }
                assert_true((dense ? some.x[row * some.stride + m.dim] : some.val[some.ptr[row + 1] - 1]) == 1);
            }
        }
        assert_int_equal(row, some.n);
        skald_rows_free(&some);
    }
    /* a label nobody knows: refused with its line, or kept for prediction */
    t.label_count = 2;
    assert_fails(skald_source_read(s, m.blocks, 4, &t, &some, NULL), SKALD_EDATA, "label 1 is not among the 2 known");
    t.keep_all_rows = true;
    assert_ok(skald_source_read(s, m.blocks, 4, &t, &some, NULL));
    int unknown = 0;
    for (size_t i = 0; i < some.n; i++) unknown += isnan(some.y[i]) != 0;
    assert_true(unknown > 0 && unknown < 64);
    skald_rows_free(&some);
    /* fewer columns than the file has */
    t.dim = 30;
    assert_fails(skald_source_read(s, m.blocks, 4, &t, &some, NULL), SKALD_EDATA, "is beyond the 30 columns");
    free(scale);
    skald_rows_free(&all);
    skald_manifest_free(&m);
    skald_source_close(s);
}

/* Blocks come from the wire, and files change. */
static void test_read_refuses(void **state) {
    skald_manifest m;
    skald_rows r;
    skald_source *s = fixture_open(fixture_text("small", "1 1:1\n2 2:2\n3 3:3\n"), 1);
    fixture_scan(s, &m);
    skald_transform t = fixture_transform(&m);
    const skald_block good = m.blocks[0];
    const skald_block bad[] = {
        {.offset = 1, .bytes = good.bytes - 1, .rows = 3},
        {.offset = 0, .bytes = good.bytes + 1, .rows = 3},
        {.offset = UINT64_MAX, .bytes = 2, .rows = 1},
        {.offset = 0, .bytes = UINT64_MAX, .rows = 3},
        {.offset = 0, .bytes = good.bytes, .rows = 2},
        {.offset = 0, .bytes = good.bytes, .rows = 4},
        {.offset = 0, .bytes = good.bytes, .rows = UINT32_MAX},
        {.offset = 0, .bytes = good.bytes - 1, .rows = 3},
        {.offset = 0, .bytes = 0, .rows = 0},
    };
    for (size_t k = 0; k < SKALD_ARRAY_LENGTH(bad); k++)
        assert_fails(skald_source_read(s, &bad[k], 1, &t, &r, NULL), SKALD_EDATA, "the file changed since its scan");
    uint64_t sum = 0;
    fixture_text("small", "1 1:1\n2 2:9\n3 3:3\n");
    assert_ok(skald_source_read(s, m.blocks, 1, &t, &r, &sum));
    assert_true(sum != skald_blocks_checksum(m.blocks, 1));
    skald_rows_free(&r);
    assert_int_equal(truncate(fixture_path("small"), 5), 0);
    assert_fails(skald_source_read(s, m.blocks, 1, &t, &r, NULL), SKALD_EIO, "small: has shrunk from 18 to 5 bytes");
    skald_manifest_free(&m);
    assert_fails(skald_source_scan(s, 0, 1, &m), SKALD_EIO, "has shrunk");
    skald_source_close(s);
}

/* ---- weights -------------------------------------------------------------------------------------- */

static void test_weights(void **state) {
    skald_manifest m;
    skald_rows r;
    skald_source *s;
    const char *path = fixture_text("data", "1 1:1\n2 2:2\n3 3:3\n");
    skald_source_options o = {.index_base = -1, .threads = 1};
    o.weights_path = fixture_text("weights", "0.5\n 0 \r\n3e0");
    assert_ok(skald_source_open(path, &o, &s));
    fixture_scan(s, &m);
    assert_true(m.weight_sum == 3); /* external weights are not the scan's */
    skald_transform t = fixture_transform(&m);
    t.weight_scale = 2;
    t.rows = 3;
    assert_ok(skald_source_read(s, m.blocks, 1, &t, &r, NULL));
    assert_true(r.s[0] == 1 && r.s[1] == 0 && r.s[2] == 6);
    skald_rows_free(&r);
    skald_source_close(s);
    o.weights_path = fixture_text("weights", "1\n1\n");
    assert_ok(skald_source_open(path, &o, &s));
    assert_fails(skald_source_read(s, m.blocks, 1, &t, &r, NULL), SKALD_EDATA, "3 rows, but the weights file has 2");
    t.rows = 0;
    assert_fails(skald_source_read(s, m.blocks, 1, &t, &r, NULL), SKALD_EDATA, "row 3 has no weight");
    skald_source_close(s);
    const char *const bad[] = {"1\n-1\n", "1\nnan\n", "1\ninf\n", "1\n1 2\n", "1\nx\n", "1\n1e300\n"};
    for (size_t k = 0; k < SKALD_ARRAY_LENGTH(bad); k++) {
        o.weights_path = fixture_text("weights", bad[k]);
        assert_fails(skald_source_open(path, &o, &s), SKALD_EDATA, "weights:2: '");
    }
    o.weights_path = "/nonexistent";
    assert_fails(skald_source_open(path, &o, &s), SKALD_EIO, "/nonexistent");
    skald_manifest_free(&m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbers_nearest_float),
        cmocka_unit_test(test_numbers_refused),
        cmocka_unit_test(test_lines),
        cmocka_unit_test(test_refused_lines),
        cmocka_unit_test(test_index_base_and_dim),
        cmocka_unit_test(test_refused_files),
        cmocka_unit_test(test_read_equals_naive),
        cmocka_unit_test(test_scan_any_split),
        cmocka_unit_test(test_read_some_blocks),
        cmocka_unit_test(test_read_refuses),
        cmocka_unit_test(test_weights),
    };
    return cmocka_run_group_tests(tests, fixture_setup, fixture_teardown);
}
