/* The generated problems have the shape and the conditioning they promise. */
#include "data_fixture.h"

static skald_generate_report generate(const char *kind, uint64_t rows, uint64_t seed, bool sorted, const char *name) {
    skald_generate_options o = {.kind = kind, .rows = rows, .seed = seed, .sort_by_label = sorted};
    skald_generate_report r = {0};
    assert_ok(skald_generate(&o, fixture_path(name), &r));
    return r;
}

static void assert_between(double low, double x, double high) {
    if (!(x >= low && x <= high)) fail_msg("%g is not between %g and %g", x, low, high);
}

/* Text and HDF5 hold the same rows; a longer file begins with the shorter one; another seed is another problem. */
static void check_same(const char *kind, bool dense) {
    skald_manifest mt, mh, ml;
    skald_rows t, h, l;
    generate(kind, 200, 3, false, "p");
    generate(kind, 200, 3, false, "p.h5");
    generate(kind, 2100, 3, false, "longer.h5");
    fixture_load(fixture_path("p"), 1, dense, &mt, &t);
    fixture_load(fixture_path("p.h5"), 1, dense, &mh, &h);
    fixture_load(fixture_path("longer.h5"), 1, dense, &ml, &l);
    assert_true(mh.shuffled);
    size_t width = skald_min_size(t.dim, h.dim);
    for (size_t i = 0; i < 200; i++) {
        assert_true(t.y[i] == h.y[i] && h.y[i] == l.y[i] && h.origin[i] == i);
        if (dense) {
            assert_memory_equal(t.x + i * t.stride, h.x + i * h.stride, width * 4);
            assert_memory_equal(h.x + i * h.stride, l.x + i * l.stride, width * 4);
            continue;
        }
        uint64_t n = h.ptr[i + 1] - h.ptr[i];
        assert_true(n == t.ptr[i + 1] - t.ptr[i] && n == l.ptr[i + 1] - l.ptr[i]);
        assert_memory_equal(t.idx + t.ptr[i], h.idx + h.ptr[i], n * 4);
        assert_memory_equal(t.val + t.ptr[i], h.val + h.ptr[i], n * 4);
        assert_memory_equal(l.idx + l.ptr[i], h.idx + h.ptr[i], n * 4);
        assert_memory_equal(l.val + l.ptr[i], h.val + h.ptr[i], n * 4);
    }
    skald_rows_free(&t);
    skald_rows_free(&h);
    skald_manifest_free(&mt);
    skald_manifest_free(&mh);
    generate(kind, 200, 4, false, "p.h5");
    fixture_load(fixture_path("p.h5"), 1, dense, &mh, &h);
    assert_memory_not_equal(h.y, l.y, 200 * sizeof *h.y);
    skald_rows_free(&h);
    skald_rows_free(&l);
    skald_manifest_free(&mh);
    skald_manifest_free(&ml);
}

static void test_same_rows(void **state) {
    check_same("epsilon", true);
    check_same("mnist8m", false);
    check_same("rcv1", false);
}

static void load_manifest(const char *name, skald_manifest *m) {
    skald_source *s = fixture_open(fixture_path(name), 2);
    fixture_scan(s, m);
    skald_source_close(s);
}

static void test_epsilon(void **state) {
    skald_manifest m;
    skald_generate_report r = generate("epsilon", 3000, 1, false, "e.h5");
    load_manifest("e.h5", &m);
    assert_int_equal(m.dim, 2000);
    assert_between(0.999, m.max_row_norm2, 1.001);
    assert_between(0.999, m.sum_row_norm2 / 3000, 1.001);
    assert_between(0.999, r.L_max_squared, 1.001);
    assert_between(0.08, r.L_squared, 0.11); /* real: about 0.09 */
    assert_between(0.45, r.positive_share, 0.55);
    assert_between(0.45, (double)m.labels[1].count / 3000, 0.55);
    for (uint32_t j = 0; j < m.dim; j++) assert_between(-3, m.col_sum[j] / sqrt(m.col_sum2[j]) / 2, 3);
    skald_manifest_free(&m);
}

static void test_mnist8m(void **state) {
    skald_manifest m;
    skald_generate_report r = generate("mnist8m", 4000, 1, false, "m.h5");
    load_manifest("m.h5", &m);
    assert_int_equal(m.dim, 784);
    assert_int_equal(m.label_count, 10);
    for (int k = 0; k < 10; k++) assert_between(320, (double)m.labels[k].count, 480);
    assert_between(0.18, (double)m.nonzeros / 4000 / 784, 0.25);
    assert_between(0.40, r.L_squared / (m.sum_row_norm2 / 4000), 0.48); /* real: 0.40 to 0.45 of the trace */
    double border = 0;
    for (uint32_t j = 0; j < 784; j++) {
        assert_true(m.col_sum[j] >= 0 && m.col_max_abs[j] <= 255 && m.col_max_abs[j] == floor(m.col_max_abs[j]));
        if (j % 28 == 0 || j % 28 == 27 || j < 28 || j >= 756) border += m.col_sum[j];
    }
    double all = 0;
    for (uint32_t j = 0; j < 784; j++) all += m.col_sum[j];
    assert_true(border < 0.01 * all);
    assert_true(m.col_max_abs[14 * 28 + 14] == 255);
    skald_manifest_free(&m);
}

static void test_rcv1(void **state) {
    skald_manifest m;
    skald_generate_report r = generate("rcv1", 6000, 1, false, "r.h5");
    load_manifest("r.h5", &m);
    assert_int_equal(m.dim, 47236);
    assert_between(70, (double)m.nonzeros / 6000, 78);
    assert_between(0.999, m.sum_row_norm2 / 6000, 1.001);
    assert_between(0.018, r.L_squared, 0.05);
    assert_between(0.50, (double)m.labels[1].count / 6000, 0.56);
    assert_between(0.50, r.positive_share, 0.56);
    uint32_t used = 0;
    for (uint32_t j = 0; j < m.dim; j++) used += m.col_max_abs[j] > 0;
    assert_between(20000, used, 47236);
    skald_manifest_free(&m);
}

static void test_sorted(void **state) {
    skald_manifest a, b;
    skald_rows rows;
    generate("mnist8m", 3000, 1, false, "a.h5");
    generate("mnist8m", 3000, 1, true, "b.h5");
    load_manifest("a.h5", &a);
    fixture_load(fixture_path("b.h5"), 1, false, &b, &rows);
    assert_false(b.shuffled);
    for (size_t i = 1; i < rows.n; i++) {
        assert_true(rows.y[i] >= rows.y[i - 1]);
        if (rows.y[i] == rows.y[i - 1]) assert_true(rows.origin[i] > rows.origin[i - 1]);
    }
    assert_int_equal(a.nonzeros, b.nonzeros);
    for (int k = 0; k < 10; k++) assert_int_equal(a.labels[k].count, b.labels[k].count);
    for (uint32_t j = 0; j < 784; j++) assert_true(a.col_sum[j] == b.col_sum[j]); /* integers: exact */
    skald_rows_free(&rows);
    skald_manifest_free(&a);
    skald_manifest_free(&b);
}

static void test_refused(void **state) {
    skald_generate_options o = {.kind = "iris", .rows = 10};
    assert_fails(skald_generate(&o, fixture_path("x"), NULL), SKALD_EINVAL,
                 "unknown problem 'iris': use epsilon, mnist8m or rcv1");
    o.kind = "rcv1";
    assert_fails(skald_generate(&o, "/nonexistent/x", NULL), SKALD_EIO, "/nonexistent/x.tmp: cannot create");
    assert_fails(skald_generate(&o, "/nonexistent/x.h5", NULL), SKALD_EIO, "/nonexistent/x.h5.tmp: cannot create");
    o.rows = 0;
    assert_fails(skald_generate(&o, fixture_path("x"), NULL), SKALD_EINVAL, "0 rows");
    o.rows = 1;
    skald_generate_report r;
    assert_ok(skald_generate(&o, fixture_path("one"), &r));
    assert_int_equal(symlink("/dev/full", fixture_path("full.tmp")), 0);
    assert_fails(skald_generate(&o, fixture_path("full"), NULL), SKALD_EIO, "No space left");
#ifndef __SANITIZE_ADDRESS__ /* HDF5 1.10 itself leaks a buffer of a file it could not close */
    assert_int_equal(symlink("/dev/full", fixture_path("full.h5.tmp")), 0);
    assert_int_equal(skald_generate(&o, fixture_path("full.h5"), NULL), SKALD_EIO);
    assert_int_equal(access(fixture_path("full.h5"), F_OK), -1);
#endif
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_rows), cmocka_unit_test(test_epsilon), cmocka_unit_test(test_mnist8m),
        cmocka_unit_test(test_rcv1),      cmocka_unit_test(test_sorted),  cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, fixture_setup, fixture_teardown);
}
