/* HDF5 sources, convert, and compressed text. */
#include "data_fixture.h"

#include <hdf5.h>
#include <lzma.h>
#include <zlib.h>

/* ---- making files --------------------------------------------------------------------------------- */

static hid_t h5_new(const char *name) {
    hid_t f = H5Fcreate(fixture_path(name), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(f >= 0);
    return f;
}

/* columns 0: one dimension. chunk > 0: chunked by that many rows and deflated. */
static void h5_put(hid_t f, const char *name, hid_t type, hid_t memory, hsize_t rows, hsize_t columns, hsize_t chunk,
                   const void *data) {
    hsize_t dims[2] = {rows, columns}, c[2] = {chunk, columns};
    hid_t space = H5Screate_simple(columns ? 2 : 1, dims, NULL), plist = H5Pcreate(H5P_DATASET_CREATE);
    if (chunk) {
        H5Pset_chunk(plist, columns ? 2 : 1, c);
        H5Pset_deflate(plist, 1);
    }
    hid_t d = H5Dcreate2(f, name, type, space, H5P_DEFAULT, plist, H5P_DEFAULT);
    assert_true(d >= 0 && H5Dwrite(d, memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0);
    H5Dclose(d);
    H5Pclose(plist);
    H5Sclose(space);
}

static const float small_x[12] = {1, 0, 2, 0, 0, 3, -1, 0, 0, 0, 0, 0.5f};
static const double small_y[4] = {1, -1, 1, -1};

static void check_small(const char *path, float weight2) {
    skald_manifest m;
    skald_rows r;
    fixture_load(path, 2, true, &m, &r);
    assert_int_equal(m.rows, 4);
    assert_int_equal(m.dim, 3);
    assert_int_equal(m.nonzeros, 5);
    assert_true(m.zero_based);
    assert_true(m.weight_sum == 3 + weight2);
    assert_true(m.labels[1].weight_sum == 1 + weight2);
    assert_true(m.col_sum2[2] == 13.25 && m.col_sum[0] == 0 && m.max_row_norm2 == 9);
    for (int i = 0; i < 4; i++) {
        assert_memory_equal(r.x + (size_t)i * r.stride, small_x + 3 * i, 12);
        for (size_t j = 3; j < r.stride; j++) assert_true(r.x[(size_t)i * r.stride + j] == 0);
        assert_true(r.y[i] == small_y[i] && r.s[i] == (i == 2 ? weight2 : 1));
    }
    skald_rows_free(&r);
    skald_manifest_free(&m);
}

/* Every name and type a dense file may come with, and CSR with its indices out of order. */
static void test_forms(void **state) {
    const float weight[] = {1, 1, 2.5f, 1};
    hid_t f = h5_new("dense");
    h5_put(f, "x", H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, 4, 3, 0, small_x);
    h5_put(f, "y", H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, 4, 0, 0, small_y);
    h5_put(f, "weight", H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, 4, 0, 0, weight);
    H5Fclose(f);
    check_small(fixture_path("dense"), 2.5f);
    f = h5_new("double");
    h5_put(f, "X", H5T_IEEE_F64BE, H5T_NATIVE_FLOAT, 4, 3, 2, small_x);
    h5_put(f, "labels", H5T_STD_I8LE, H5T_NATIVE_DOUBLE, 4, 1, 2, small_y);
    H5Fclose(f);
    check_small(fixture_path("double"), 1);
    f = h5_new("csr");
    const double data[] = {2, 1, 3, 0, -1, 0.5};
    const int64_t indices[] = {2, 0, 2, 1, 0, 2}, indptr[] = {0, 2, 4, 5, 6}, shape[] = {4, 3};
    h5_put(f, "data", H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, 6, 0, 0, data);
    h5_put(f, "indices", H5T_STD_I32LE, H5T_NATIVE_INT64, 6, 0, 0, indices);
    h5_put(f, "indptr", H5T_STD_I64LE, H5T_NATIVE_INT64, 5, 0, 0, indptr);
    h5_put(f, "target", H5T_IEEE_F32LE, H5T_NATIVE_DOUBLE, 4, 0, 0, small_y);
    H5Fclose(f);
    check_small(fixture_path("csr"), 1);
    f = H5Fopen(fixture_path("csr"), H5F_ACC_RDWR, H5P_DEFAULT);
    h5_put(f, "shape", H5T_STD_I64LE, H5T_NATIVE_INT64, 2, 0, 0, shape);
    H5Fclose(f);
    check_small(fixture_path("csr"), 1);
    f = h5_new("bytes"); /* pixels, as images come */
    const float pixels[] = {0, 255, 7, 9};
    h5_put(f, "data", H5T_STD_U8LE, H5T_NATIVE_FLOAT, 2, 2, 0, pixels);
    h5_put(f, "label", H5T_STD_U8LE, H5T_NATIVE_DOUBLE, 2, 0, 0, (double[]){7, 3});
    H5Fclose(f);
    skald_manifest m;
    skald_rows r;
    fixture_load(fixture_path("bytes"), 1, false, &m, &r);
    assert_true(r.layout == SKALD_DENSE && r.x[1] == 255 && r.x[r.stride] == 7 && r.y[0] == 7);
    skald_rows_free(&r);
    skald_manifest_free(&m);
}

/* ---- refusals ------------------------------------------------------------------------------------- */

typedef struct parts {
    const float *x;
    const double *y;
    const float *weight;
    hsize_t x_rows, y_rows, weight_rows;
} parts;

static void check_dense(const parts *p, const char *message) {
    hid_t f = h5_new("bad");
    skald_source *s = NULL;
    skald_manifest m = {0};
    skald_source_options o = {.index_base = -1, .threads = 1};
    if (p->x) h5_put(f, "x", H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, p->x_rows, 12 / p->x_rows, 0, p->x);
    if (p->y) h5_put(f, "y", H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, p->y_rows, 0, 0, p->y);
    if (p->weight) h5_put(f, "weight", H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, p->weight_rows, 0, 0, p->weight);
    H5Fclose(f);
    skald_status st = skald_source_open(fixture_path("bad"), &o, &s);
    if (st == SKALD_OK) st = skald_source_scan(s, 0, 1, &m);
    assert_fails(st, SKALD_EDATA, message);
    assert_non_null(strstr(skald_error(), fixture_path("bad")));
    skald_source_close(s);
}

static void check_csr(const double *data, const int64_t *indices, const int64_t *indptr, const int64_t *shape,
                      const char *message) {
    hid_t f = h5_new("bad");
    skald_source *s = NULL;
    skald_manifest m = {0};
    skald_source_options o = {.index_base = -1, .threads = 1};
    if (data) h5_put(f, "data", H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, 4, 0, 0, data);
    if (indices) h5_put(f, "indices", H5T_STD_I64LE, H5T_NATIVE_INT64, 4, 0, 0, indices);
    if (indptr) h5_put(f, "indptr", H5T_STD_I64LE, H5T_NATIVE_INT64, 3, 0, 0, indptr);
    if (shape) h5_put(f, "shape", H5T_STD_I64LE, H5T_NATIVE_INT64, 2, 0, 0, shape);
    h5_put(f, "y", H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, 2, 0, 0, small_y);
    H5Fclose(f);
    skald_status st = skald_source_open(fixture_path("bad"), &o, &s);
    if (st == SKALD_OK) st = skald_source_scan(s, 0, 1, &m);
    assert_fails(st, SKALD_EDATA, message);
    skald_source_close(s);
}

static void test_refusals(void **state) {
    float x[12], w[4] = {1, 1, 1, 1};
    double y[4];
    memcpy(x, small_x, sizeof x);
    memcpy(y, small_y, sizeof y);
    check_dense(&(parts){.y = y, .y_rows = 4}, "no dataset 'x' (dense rows)");
    check_dense(&(parts){.x = x, .x_rows = 4}, "no labels: dataset 'y'");
    check_dense(&(parts){.x = x, .x_rows = 4, .y = y, .y_rows = 3}, "dataset 'y' is 3 x 1, but there are 4 rows");
    check_dense(&(parts){.x = x, .x_rows = 4, .y = y, .y_rows = 4, .weight = w, .weight_rows = 2},
                "dataset 'weight' is 2 x 1, but there are 4 rows");
    w[3] = -1;
    check_dense(&(parts){.x = x, .x_rows = 4, .y = y, .y_rows = 4, .weight = w, .weight_rows = 4},
                "dataset 'weight': the weight of row 3 is -1");
    x[7] = NAN;
    check_dense(&(parts){.x = x, .x_rows = 4, .y = y, .y_rows = 4}, "dataset 'x': value nan in row 2 is not finite");
    x[7] = 0;
    y[1] = INFINITY;
    check_dense(&(parts){.x = x, .x_rows = 4, .y = y, .y_rows = 4}, "dataset 'y': the label of row 1 is not finite");
    const double data[] = {1, 2, 3, 4}, huge[] = {1, 2, 1e39, 4};
    const int64_t idx[] = {0, 1, 0, 1}, twice[] = {0, 1, 1, 1}, far[] = {0, 1, 0, 9}, negative[] = {-1, 1, 0, 1};
    const int64_t ptr[] = {0, 2, 4}, falling[] = {0, 5, 4}, late[] = {1, 2, 4}, early[] = {0, 2, 3},
                  below[] = {0, -2, 4};
    const int64_t shape[] = {2, 2}, wrong[] = {3, 2}, wide[] = {2, 3000000000};
    check_csr(NULL, idx, ptr, shape, "sparse rows need a dataset 'data'");
    check_csr(data, NULL, ptr, shape, "sparse rows need a dataset 'indices'");
    check_csr(data, idx, NULL, shape, "sparse rows need a dataset 'indptr'");
    check_csr(data, idx, falling, shape, "dataset 'indptr' falls from 5 to 4 at row 1");
    check_csr(data, idx, below, shape, "dataset 'indptr' falls from -2 to 4 at row 1");
    check_csr(data, idx, late, shape, "dataset 'indptr' goes from 1 to 4");
    check_csr(data, idx, early, shape, "dataset 'indptr' goes from 0 to 3, but 'data' has 4 entries");
    check_csr(data, idx, ptr, wrong, "'shape' says 3 rows, 'indptr' has 2");
    check_csr(data, idx, ptr, wide, "3000000000 columns: at most 2147483647");
    check_csr(data, twice, ptr, shape, "dataset 'indices': index 1 occurs twice in row 1");
    check_csr(data, far, ptr, shape, "dataset 'indices': row 1 has index 9 of 2 columns");
    check_csr(data, negative, ptr, shape, "dataset 'indices': row 0 has index");
    check_csr(huge, idx, ptr, shape, "dataset 'data': value inf in row 1 is not finite, or too large for a float");
    /* text where numbers should be; a file that is HDF5 only at first sight */
    hid_t f = h5_new("bad"), type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, 4);
    h5_put(f, "x", type, type, 4, 3, 0, "abcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcd");
    H5Tclose(type);
    H5Fclose(f);
    skald_source *s;
    skald_source_options o = {.index_base = -1, .threads = 1};
    assert_fails(skald_source_open(fixture_path("bad"), &o, &s), SKALD_EDATA, "dataset 'x' does not hold numbers");
    const char *stub = fixture_bytes("stub", "\x89HDF\r\n\x1a\n\0\0\0\0", 12);
    assert_fails(skald_source_open(stub, &o, &s), SKALD_EDATA, "stub: is damaged");
}

/* ---- convert -------------------------------------------------------------------------------------- */

enum { ROWS = 3000 };

static const char *sparse_text(void) {
    const char *path = fixture_path("text");
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    for (uint64_t i = 0; i < ROWS; i++) {
        fprintf(f, "%.17g", i % 3 ? 0.1 * (double)(i % 3) : -4.0);
        for (uint32_t j = 1, k = 0; k < 5 + i % 9; k++, j += 1 + (uint32_t)(skald_random(i, k) % 40))
            fprintf(f, " %u:%.6g", j, skald_normal(i, k));
        fputc('\n', f);
    }
    fclose(f);
    return path;
}

/* Rows of b are rows of a in another order: row i of b is row b.origin[i] of a. */
static void assert_permuted(const skald_rows *a, const skald_rows *b, bool moved) {
    uint8_t *seen = calloc(a->n, 1);
    size_t at_home = 0;
    assert_int_equal(a->n, b->n);
    for (size_t i = 0; i < b->n; i++) {
        uint64_t o = b->origin[i];
        assert_true(o < a->n && !seen[o]);
        seen[o] = 1;
        at_home += o == i;
        assert_true(a->y[o] == b->y[i] && a->s[o] == b->s[i]);
        if (a->layout == SKALD_DENSE) {
            assert_memory_equal(a->x + o * a->stride, b->x + i * b->stride, a->stride * sizeof(float));
            continue;
        }
        uint64_t n = a->ptr[o + 1] - a->ptr[o];
        assert_int_equal(n, b->ptr[i + 1] - b->ptr[i]);
        assert_memory_equal(a->idx + a->ptr[o], b->idx + b->ptr[i], n * sizeof(uint32_t));
        assert_memory_equal(a->val + a->ptr[o], b->val + b->ptr[i], n * sizeof(float));
    }
    if (moved) assert_true(at_home < a->n / 100);
    free(seen);
}

static void test_convert(void **state) {
    skald_manifest mt, mh;
    skald_rows a, b, c;
    const char *text = sparse_text();
    char h5[200];
    snprintf(h5, sizeof h5, "%s", fixture_path("out.h5"));
    skald_source_options o = {.index_base = -1, .threads = 2};
    assert_ok(skald_convert(text, &o, 7, h5));
    assert_int_equal(access(fixture_path("out.h5.tmp"), F_OK), -1);
    for (int dense = 0; dense < 2; dense++) {
        fixture_load(text, 1, dense, &mt, &a);
        fixture_load(h5, 2, dense, &mh, &b);
        assert_permuted(&a, &b, true);
        assert_true(mh.shuffled && !mt.shuffled);
        assert_int_equal(mh.dim, mt.dim);
        assert_int_equal(mh.nonzeros, mt.nonzeros);
        assert_int_equal(mh.label_count, 3);
        for (int k = 0; k < 3; k++) assert_true(mh.labels[k].value == mt.labels[k].value); /* 0.1 in double */
        for (uint32_t j = 0; j < mt.dim; j++) {
            assert_true(mh.col_max_abs[j] == mt.col_max_abs[j]);
            assert_true(fabs(mh.col_sum[j] - mt.col_sum[j]) <= 1e-10);
        }
        skald_rows_free(&a);
        skald_rows_free(&b);
        skald_manifest_free(&mt);
        skald_manifest_free(&mh);
    }
    /* again, from HDF5, with weights: origins pass through; the seed decides the order */
    char again[200];
    snprintf(again, sizeof again, "%s", fixture_path("again.h5"));
    FILE *f = fopen(fixture_path("w"), "w");
    for (int i = 0; i < ROWS; i++) fprintf(f, "%d\n", i % 4);
    fclose(f);
    o.weights_path = fixture_path("w");
    assert_ok(skald_convert(text, &o, 8, again));
    fixture_load(again, 1, false, &mh, &b);
    assert_true(mh.weight_sum == ROWS / 4 * 6);
    for (size_t i = 0; i < b.n; i++) assert_true(b.s[i] == (double)(b.origin[i] % 4));
    o.weights_path = NULL;
    assert_ok(skald_convert(again, &o, 9, h5));
    skald_manifest_free(&mh);
    fixture_load(h5, 1, false, &mh, &c);
    for (size_t i = 0; i < c.n; i++) assert_true(c.s[i] == (double)(c.origin[i] % 4));
    assert_memory_not_equal(b.origin, c.origin, ROWS * 8);
    skald_rows_free(&b);
    skald_rows_free(&c);
    skald_manifest_free(&mh);
    /* failures leave nothing behind */
    assert_fails(skald_convert(text, &o, 1, "/nonexistent/out.h5"), SKALD_EIO,
                 "/nonexistent/out.h5.tmp: cannot create");
    fixture_text("broken", "1 1:1\n1 1:x\n");
    assert_fails(skald_convert(fixture_path("broken"), &o, 1, fixture_path("none.h5")), SKALD_EDATA, "broken:2:");
    assert_int_equal(access(fixture_path("none.h5"), F_OK), -1);
    assert_int_equal(access(fixture_path("none.h5.tmp"), F_OK), -1);
}

/* Any subset of blocks in any order: the same rows as in the whole. */
static void test_blocks_any_order(void **state) {
    skald_manifest m;
    skald_rows all, some;
    char h5[200];
    snprintf(h5, sizeof h5, "%s", fixture_path("order.h5"));
    skald_source_options o = {.index_base = -1, .threads = 2};
    assert_ok(skald_convert(sparse_text(), &o, 7, h5));
    skald_source *s = fixture_open(h5, 2);
    fixture_scan(s, &m);
    for (int dense = 0; dense < 2; dense++) {
        skald_transform t = fixture_transform(&m);
        t.force_dense = dense;
        t.intercept = true;
        assert_ok(skald_source_read(s, m.blocks, m.block_count, &t, &all, NULL));
        skald_block blocks[] = {m.blocks[9], m.blocks[2], m.blocks[3], m.blocks[4], m.blocks[0], m.blocks[0]};
        uint64_t sum;
        assert_ok(skald_source_read(s, blocks, 6, &t, &some, &sum));
        assert_true(sum == skald_blocks_checksum(blocks, 6));
        size_t row = 0;
        for (int b = 0; b < 6; b++)
            for (uint32_t k = 0; k < blocks[b].rows; k++, row++) {
                uint64_t i = blocks[b].first_row + k;
                assert_true(some.origin[row] == all.origin[i] && some.y[row] == all.y[i]);
                if (dense) {
                    assert_memory_equal(some.x + row * some.stride, all.x + i * all.stride, all.stride * 4);
                    continue;
                }
                uint64_t n = all.ptr[i + 1] - all.ptr[i];
                assert_int_equal(n, some.ptr[row + 1] - some.ptr[row]);
                assert_memory_equal(some.idx + some.ptr[row], all.idx + all.ptr[i], n * 4);
                assert_memory_equal(some.val + some.ptr[row], all.val + all.ptr[i], n * 4);
                assert_int_equal(some.idx[some.ptr[row + 1] - 1], m.dim);
            }
        assert_int_equal(row, some.n);
        skald_rows_free(&some);
        skald_rows_free(&all);
        const skald_block bad[] = {{.offset = m.rows, .rows = 1},
                                   {.offset = m.rows - 1, .rows = 2},
                                   {.offset = 0, .rows = 0},
                                   {.offset = UINT64_MAX, .rows = 2},
                                   {.offset = 0, .bytes = 5, .rows = 1}};
        for (size_t k = 0; k < SKALD_ARRAY_LENGTH(bad); k++)
            assert_fails(skald_source_read(s, &bad[k], 1, &t, &some, NULL), SKALD_EDATA, "changed since its scan");
    }
    skald_manifest_free(&m);
    skald_source_close(s);
}

/* ---- compressed text ------------------------------------------------------------------------------ */

static size_t read_whole(const char *path, uint8_t **out) {
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    size_t n = (size_t)ftell(f);
    rewind(f);
    *out = malloc(n);
    assert_int_equal(fread(*out, 1, n, f), n);
    fclose(f);
    return n;
}

static size_t gzip(const uint8_t *in, size_t size, uint8_t *out, size_t room) {
    z_stream z = {.next_in = (Bytef *)(uintptr_t)in, .avail_in = (uInt)size, .next_out = out, .avail_out = (uInt)room};
    assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    size_t n = room - z.avail_out;
    deflateEnd(&z);
    return n;
}

static void check_damaged(const uint8_t *packed, size_t n, const char *name) {
    skald_source *s;
    skald_source_options o = {.index_base = -1, .threads = 1};
    char want[100];
    uint8_t *copy = malloc(n + 4);
    for (size_t cut = 8; cut < n; cut += n / 7) {
        const char *path = fixture_bytes(name, packed, cut);
        assert_fails(skald_source_open(path, &o, &s), SKALD_EDATA, path);
        snprintf(want, sizeof want, "the data ends early");
        if (!strstr(skald_error(), want)) fail_msg("cut at %zu: %s", cut, skald_error());
    }
    memcpy(copy, packed, n);
    copy[n / 2] ^= 0x55;
    copy[n / 2 + 1] ^= 0x55;
    assert_fails(skald_source_open(fixture_bytes(name, copy, n), &o, &s), SKALD_EDATA, "damaged near byte");
    memcpy(copy, packed, n);
    memcpy(copy + n, "junk", 4);
    assert_int_equal(skald_source_open(fixture_bytes(name, copy, n + 4), &o, &s), SKALD_EDATA);
    free(copy);
}

static void test_compressed(void **state) {
    skald_manifest mp, mc;
    skald_rows plain, r;
    char text[200], path[200];
    snprintf(text, sizeof text, "%s", sparse_text());
    fixture_load(text, 1, false, &mp, &plain);
    uint8_t *data, *packed = malloc(4 << 20);
    size_t n = read_whole(text, &data), half = n / 2;
    size_t g = gzip(data, half, packed, 2 << 20); /* two members, as pigz and bgzip make */
    g += gzip(data + half, n - half, packed + g, 2 << 20);
    snprintf(path, sizeof path, "%s", fixture_bytes("text.gz", packed, g));
    fixture_load(path, 2, false, &mc, &r);
    assert_rows_equal(&plain, &r);
    skald_rows_free(&r);
    skald_manifest_free(&mc);
    skald_source *s = fixture_open(path, 1);
    assert_string_equal(skald_source_describe(s), "LIBSVM text, gzip (read whole by every worker)");
    skald_source_close(s);
    check_damaged(packed, g, "text.gz");

    size_t x = 0;
    assert_int_equal(lzma_easy_buffer_encode(1, LZMA_CHECK_CRC64, NULL, data, n, packed, &x, 4 << 20), LZMA_OK);
    snprintf(path, sizeof path, "%s", fixture_bytes("text.xz", packed, x));
    fixture_load(path, 2, false, &mc, &r);
    assert_rows_equal(&plain, &r);
    check_damaged(packed, x, "text.xz");
    skald_rows_free(&r);
    skald_manifest_free(&mc);
    /* errors name the line of the decompressed text */
    g = gzip((const uint8_t *)"1 1:1\n1 z\n", 10, packed, 1000);
    s = fixture_open(fixture_bytes("bad.gz", packed, g), 1);
    assert_fails(skald_source_scan(s, 0, 1, &mc), SKALD_EDATA, "bad.gz:2: 'z' is not index:value");
    skald_source_close(s);
    free(data);
    free(packed);
    skald_rows_free(&plain);
    skald_manifest_free(&mp);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forms),      cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_convert),    cmocka_unit_test(test_blocks_any_order),
        cmocka_unit_test(test_compressed),
    };
    return cmocka_run_group_tests(tests, fixture_setup, fixture_teardown);
}
