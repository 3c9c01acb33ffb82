/* The manifest as bytes, dealing, scaling. */
#include "data_fixture.h"

static void scan_small(skald_manifest *m, bool finish) {
    char text[4000] = "";
    for (int i = 0; i < 40; i++) snprintf(text + strlen(text), 100, "%d 1:%d 3:0.5 %d:-2\n", i % 3, i % 5, 4 + i % 4);
    skald_source *s = fixture_open(fixture_text("small", text), 1);
    assert_ok(skald_source_scan(s, 0, 1, m));
    if (finish) assert_ok(skald_manifest_finish(m));
    skald_source_close(s);
}

/* Whatever comes over the network: every truncation is refused, and no changed byte crashes or yields a manifest
 * that contradicts itself. Seen to fail (ASan: read past the end) when check_header skips the size check. */
static void test_pack_unpack(void **state) {
    for (int finish = 0; finish < 2; finish++) {
        skald_manifest m, r;
        uint8_t *bytes, *again;
        size_t size, again_size;
        scan_small(&m, finish);
        assert_ok(skald_manifest_pack(&m, &bytes, &size));
        assert_ok(skald_manifest_unpack(bytes, size, &r));
        assert_true(r.rows == 40 && r.dim == m.dim && r.label_count == 3 && r.block_count == 3);
        assert_int_equal(r.col_sum_lo != NULL, !finish);
        assert_ok(skald_manifest_pack(&r, &again, &again_size));
        assert_int_equal(size, again_size);
        assert_memory_equal(bytes, again, size);
        if (!finish) assert_ok(skald_manifest_finish(&r));
        skald_manifest_free(&r);
        free(again);
        for (size_t k = 0; k < size; k++) {
            uint8_t *cut = malloc(k ? k : 1); /* its own allocation, so that ASan sees its end */
            memcpy(cut, bytes, k);
            assert_fails(skald_manifest_unpack(cut, k, &r), SKALD_EPEER, "malformed manifest");
            free(cut);
        }
        uint8_t *longer = calloc(size + 8, 1);
        memcpy(longer, bytes, size);
        assert_fails(skald_manifest_unpack(longer, size + 8, &r), SKALD_EPEER, "malformed manifest: length");
        free(longer);
        for (size_t k = 0; k < size; k++) {
            for (int v = 0; v < 3; v++) {
                uint8_t old = bytes[k];
                bytes[k] = v == 0 ? old ^ 1 : v == 1 ? 0xff : old ^ 0x80;
                if (skald_manifest_unpack(bytes, size, &r) == SKALD_OK) {
                    skald_manifest sum = {0};
                    bool small = r.dim_limit < 1000000; /* a larger one only takes time */
                    if (skald_manifest_merge(&sum, &r) == SKALD_OK && small) (void)skald_manifest_finish(&sum);
                    skald_manifest_free(&sum);
                    skald_manifest_free(&r);
                }
                bytes[k] = old;
            }
        }
        free(bytes);
        skald_manifest_free(&m);
    }
}

static void test_real_targets(void **state) {
    skald_manifest m, a = {0}, r;
    FILE *f = fopen(fixture_path("real"), "w");
    for (int i = 0; i < 5000; i++) fprintf(f, "%.6f 1:1\n", skald_normal(1, (uint64_t)i));
    fclose(f);
    skald_source *s = fixture_open(fixture_path("real"), 2);
    assert_ok(skald_source_scan(s, 0, skald_source_parts(s), &m));
    skald_source_close(s);
    assert_true(m.label_count == SKALD_MAX_LABELS + 1 && m.labels == NULL);
    assert_true(m.label_min < -3 && m.label_max > 3);
    uint8_t *bytes;
    size_t size;
    assert_ok(skald_manifest_pack(&m, &bytes, &size));
    assert_ok(skald_manifest_unpack(bytes, size, &r));
    assert_ok(skald_manifest_merge(&a, &r));
    assert_ok(skald_manifest_finish(&a));
    assert_true(a.label_count == SKALD_MAX_LABELS + 1 && a.label_min == m.label_min);
    free(bytes);
    skald_manifest_free(&m);
    skald_manifest_free(&r);
    skald_manifest_free(&a);
}

static void test_merge_refuses(void **state) {
    skald_manifest a = {0}, m, dense = {.layout = SKALD_DENSE, .parts_merged = 1, .rows = 1};
    scan_small(&m, false);
    assert_ok(skald_manifest_merge(&a, &m));
    assert_fails(skald_manifest_merge(&a, &dense), SKALD_EDATA, "different files");
    skald_manifest_free(&a);
    skald_manifest_free(&m);
}

/* Blocks of a few sizes; every shard gets its share. */
static void test_deal(void **state) {
    enum { BLOCKS = 1000 };
    static skald_block blocks[BLOCKS];
    static uint32_t shard[BLOCKS], again[BLOCKS];
    skald_manifest m = {.blocks = blocks, .block_count = BLOCKS};
    for (int b = 0; b < BLOCKS; b++) {
        blocks[b].rows = b % 10 == 9 ? 1 + (uint32_t)b % 16 : 16;
        m.rows += blocks[b].rows;
    }
    const uint32_t counts[] = {1, 2, 7, 64, 333, 999, 1000};
    for (int contiguous = 0; contiguous < 2; contiguous++)
        for (size_t k = 0; k < SKALD_ARRAY_LENGTH(counts); k++) {
            uint32_t shards = counts[k], largest = 0, smallest = UINT32_MAX, last = 0;
            uint32_t *rows = calloc(shards, sizeof *rows);
            assert_ok(skald_deal(&m, shards, 5, contiguous, shard));
            assert_ok(skald_deal(&m, shards, 5, contiguous, again));
            assert_memory_equal(shard, again, sizeof shard);
            for (int b = 0; b < BLOCKS; b++) {
                assert_true(shard[b] < shards);
                if (contiguous) assert_true(shard[b] >= last && shard[b] <= last + 1);
                last = shard[b];
                rows[shard[b]] += blocks[b].rows;
            }
            for (uint32_t j = 0; j < shards; j++) {
                assert_true(rows[j] > 0);
                if (rows[j] > largest) largest = rows[j];
                if (rows[j] < smallest) smallest = rows[j];
            }
            if (shards <= 64) assert_true(largest - smallest <= 48);
            free(rows);
        }
    assert_ok(skald_deal(&m, 64, 5, false, shard));
    assert_ok(skald_deal(&m, 64, 6, false, again));
    assert_memory_not_equal(shard, again, sizeof shard);
    int neighbours = 0; /* mixed: neighbours in the file rarely share a shard */
    for (int b = 1; b < BLOCKS; b++) neighbours += shard[b] == shard[b - 1];
    assert_true(neighbours < 60);
    assert_fails(skald_deal(&m, 1001, 5, false, shard), SKALD_EINVAL, "1001 shards of");
    assert_fails(skald_deal(&m, 0, 5, false, shard), SKALD_EINVAL, "0 shards");
}

static void test_scaling(void **state) {
    skald_manifest m;
    skald_rows r;
    double *shift, *scale;
    const char *path = fixture_text("scale", "1 1:1 2:5 3:-8\n1 1:3 2:5\n1 1:5 2:5 3:4\n1 1:7 2:5 5:2\n");
    skald_source *s = fixture_open(path, 1);
    fixture_scan(s, &m);
    assert_false(skald_manifest_wants_dense(&m, 0.55));
    assert_true(skald_manifest_wants_dense(&m, 0.5));
    assert_ok(skald_scaling_make(SKALD_SCALE_NONE, &m, true, &shift, &scale));
    assert_true(!shift && !scale);
    skald_transform t = fixture_transform(&m);
    /* sparse: divided by the deviation over all rows, zeros counted, and nothing that was zero is filled */
    assert_ok(skald_scaling_make(SKALD_SCALE_STANDARD, &m, false, &shift, &scale));
    assert_null(shift);
    assert_true(fabs(scale[2] - 1 / sqrt(19)) < 1e-15 && scale[1] == 1); /* -8, 0, 4, 0: mean -1 */
    t.scale = scale;
    assert_ok(skald_source_read(s, m.blocks, 1, &t, &r, NULL));
    assert_true(r.ptr[4] == m.nonzeros && fabs(r.val[2] + 8 / sqrt(19)) < 1e-6);
    skald_rows_free(&r);
    free(scale);
    assert_ok(skald_scaling_make(SKALD_SCALE_MAXABS, &m, false, &shift, &scale));
    assert_null(shift);
    t.scale = scale;
    assert_ok(skald_source_read(s, m.blocks, 1, &t, &r, NULL));
    assert_true(r.val[2] == -1 && r.val[1] == 1 && r.val[0] == 1.0f / 7);
    skald_rows_free(&r);
    free(scale);
    assert_ok(skald_scaling_make(SKALD_SCALE_STANDARD, &m, true, &shift, &scale));
    assert_true(shift[0] == 4 && fabs(scale[0] - 1 / sqrt(5)) < 1e-15);
    assert_true(shift[1] == 5 && scale[1] == 1 && shift[3] == 0 && scale[3] == 1); /* constant, empty */
    t = fixture_transform(&m);
    t.force_dense = true;
    t.intercept = true;
    t.shift = shift;
    t.scale = scale;
    assert_ok(skald_source_read(s, m.blocks, 1, &t, &r, NULL));
    for (uint32_t j = 0; j < 5; j++) {
        double sum = 0, sum2 = 0;
        for (size_t i = 0; i < 4; i++) {
            sum += r.x[i * r.stride + j];
            sum2 += r.x[i * r.stride + j] * r.x[i * r.stride + j];
        }
        assert_true(fabs(sum) < 1e-6 && fabs(sum2 - (j == 1 || j == 3 ? 0 : 4)) < 1e-5);
    }
    assert_true(r.x[5] == 1 && r.x[6] == 0);
    skald_rows_free(&r);
    free(shift);
    free(scale);
    skald_manifest_free(&m);
    skald_source_close(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pack_unpack), cmocka_unit_test(test_real_targets), cmocka_unit_test(test_merge_refuses),
        cmocka_unit_test(test_deal),        cmocka_unit_test(test_scaling),
    };
    return cmocka_run_group_tests(tests, fixture_setup, fixture_teardown);
}
