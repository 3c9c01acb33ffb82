/* The frame codec: our bytes against protobuf-c's own unpack and against bytes written down by hand, every
 * truncation, random damage, vectors cut at every place. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/base.h"
#include "wire/varint.h"
#include "wire/wire.h"

/* ---- helpers ------------------------------------------------------------------------------------------- */

typedef struct cut_frame {
    skald_frame frame;
    skald_segment segments[4096];
} cut_frame;

/* `size` bytes in pieces of `piece` (0: one piece), with empty ones between. */
static const skald_frame *cut(cut_frame *out, const uint8_t *data, size_t size, size_t piece) {
    memset(&out->frame, 0, sizeof out->frame);
    if (piece == 0) piece = size ? size : 1;
    size_t n = 0;
    for (size_t at = 0; at < size; at += piece) {
        assert_true(n + 2 <= SKALD_ARRAY_LENGTH(out->segments));
        out->segments[n++] = (skald_segment){NULL, data + at, skald_min_size(piece, size - at)};
        if (at % 3 == 0) out->segments[n++] = (skald_segment){NULL, NULL, 0};
    }
    out->frame.segments = out->segments;
    out->frame.count = n;
    out->frame.size = size;
    return &out->frame;
}

static uint8_t *flatten(const skald_wire_message *m, size_t *size) {
    size_t total = 0;
    for (size_t k = 0; k < m->count; k++) total += m->segments[k].size;
    assert_int_equal(total, m->bytes);
    uint8_t *bytes = malloc(total ? total : 1), *p = bytes;
    for (size_t k = 0; k < m->count; k++) {
        memcpy(p, m->segments[k].data, m->segments[k].size);
        p += m->segments[k].size;
    }
    *size = total;
    return bytes;
}

static skald_bytes *doubles(size_t n, double first) {
    skald_bytes *b = skald_bytes_create(8 * n);
    for (size_t i = 0; i < n; i++) {
        double v = first + (double)i;
        memcpy(skald_bytes_data(b) + 8 * i, &v, 8);
    }
    return b;
}

/* A result with sums, an error text and three vectors: empty, short, long. */
static uint8_t *sample(size_t *size, skald_pool *pool) {
    Skald__V1__Sums sums[2] = {SKALD__V1__SUMS__INIT, SKALD__V1__SUMS__INIT};
    sums[0].loss = 0.25;
    sums[1].rows = 12;
    Skald__V1__Sums *list[2] = {&sums[0], &sums[1]};
    Skald__V1__Result result = SKALD__V1__RESULT__INIT;
    result.seq = 300;
    result.task = UINT64_MAX;
    result.error = (char *)(uintptr_t) "none";
    result.n_sums = 2;
    result.sums = list;
    Skald__V1__Frame frame = SKALD__V1__FRAME__INIT;
    frame.body_case = SKALD__V1__FRAME__BODY_RESULT;
    frame.result = &result;
    skald_bytes *shorter = doubles(3, 1), *longer = doubles(200, -5);
    skald_wire_vector vectors[3] = {
        {NULL, NULL, 0}, {shorter, shorter->data, shorter->size}, {longer, longer->data, longer->size}};
    skald_wire_message m;
    assert_int_equal(skald_wire_pack(&frame, vectors, 3, pool, &m), SKALD_OK);
    assert_ptr_equal(m.segments[m.count - 1].data, longer->data); /* by reference */
    uint8_t *bytes = flatten(&m, size);
    skald_wire_message_release(&m);
    skald_bytes_unref(shorter);
    skald_bytes_unref(longer);
    return bytes;
}

static void check_sample(const skald_wire_env *env) {
    const Skald__V1__Frame *body = skald_wire_body(env);
    assert_int_equal(body->body_case, SKALD__V1__FRAME__BODY_RESULT);
    assert_int_equal(body->result->seq, 300);
    assert_true(body->result->task == UINT64_MAX);
    assert_string_equal(body->result->error, "none");
    assert_int_equal(body->result->n_sums, 2);
    assert_true(body->result->sums[0]->loss == 0.25 && body->result->sums[1]->rows == 12);
    assert_int_equal(skald_wire_vectors(env), 3);
    double v[200];
    assert_int_equal(skald_wire_doubles(env, 0, v, 0), SKALD_OK);
    assert_int_equal(skald_wire_doubles(env, 1, v, 3), SKALD_OK);
    assert_true(v[0] == 1 && v[2] == 3);
    assert_int_equal(skald_wire_doubles(env, 2, v, 200), SKALD_OK);
    for (int i = 0; i < 200; i++) assert_true(v[i] == -5 + i);
    double halves[400]; /* the same bytes as floats, wherever the frame is cut */
    float expected[400];
    memcpy(expected, v, sizeof expected);
    assert_int_equal(skald_wire_floats(env, 2, halves, 400), SKALD_OK);
    for (int i = 0; i < 400; i++) assert_true(halves[i] == (double)expected[i]);
    assert_int_equal(skald_wire_read(env, 2, 8 * 17, v, 16), SKALD_OK);
    assert_true(v[0] == 12 && v[1] == 13);
}

/* ---- tests --------------------------------------------------------------------------------------------- */

/* Seen to fail with `advance` not stepping over empty segments (endless loop) and with `inside` not reset. */
static void round_trip_cut_anywhere(void **state) {
    size_t size = 0;
    uint8_t *bytes = sample(&size, NULL);
    skald_wire_env *env = NULL;
    assert_int_equal(skald_wire_env_create(&env), SKALD_OK);
    static cut_frame f;
    for (size_t piece = 0; piece < 40; piece++) {
        assert_int_equal(skald_wire_open(env, cut(&f, bytes, size, piece)), SKALD_OK);
        check_sample(env);
    }
    skald_wire_env_destroy(env);
    free(bytes);
}

/* protobuf-c, told the same schema, reads the whole of our bytes alike. */
static void protobuf_reads_it(void **state) {
    size_t size = 0;
    uint8_t *bytes = sample(&size, NULL);
    Skald__V1__Frame *frame = skald__v1__frame__unpack(NULL, size, bytes);
    assert_non_null(frame);
    assert_int_equal(frame->n_vectors, 3);
    assert_int_equal(frame->vectors[0].len, 0);
    assert_int_equal(frame->vectors[1].len, 24);
    assert_int_equal(frame->vectors[2].len, 1600);
    assert_int_equal(frame->result->n_sums, 2);
    /* ... and packs it to the same bytes, but that it sorts by field number, as here. */
    assert_int_equal(skald__v1__frame__get_packed_size(frame), size);
    uint8_t *again = malloc(size);
    skald__v1__frame__pack(frame, again);
    assert_memory_equal(again, bytes, size);
    free(again);
    skald__v1__frame__free_unpacked(frame, NULL);
    free(bytes);
}

/* Written down by hand from the protobuf encoding: goodbye{status: 300, reason: "no"}, vectors "", "abc". */
static const uint8_t golden[] = {0x62, 0x07, 0x08, 0xac, 0x02, 0x12, 0x02, 'n', 'o',
                                 0x82, 0x01, 0x00, 0x82, 0x01, 0x03, 'a',  'b', 'c'};

static void golden_bytes(void **state) {
    Skald__V1__Goodbye goodbye = SKALD__V1__GOODBYE__INIT;
    goodbye.status = 300;
    goodbye.reason = (char *)(uintptr_t) "no";
    Skald__V1__Frame frame = SKALD__V1__FRAME__INIT;
    frame.body_case = SKALD__V1__FRAME__BODY_GOODBYE;
    frame.goodbye = &goodbye;
    skald_wire_vector vectors[2] = {{NULL, NULL, 0}, {NULL, "abc", 3}};
    skald_wire_message m;
    assert_int_equal(skald_wire_pack(&frame, vectors, 2, NULL, &m), SKALD_OK);
    size_t size = 0;
    uint8_t *bytes = flatten(&m, &size);
    assert_int_equal(size, sizeof golden);
    assert_memory_equal(bytes, golden, size);
    free(bytes);
    skald_wire_message_release(&m);

    skald_wire_env *env = NULL;
    assert_int_equal(skald_wire_env_create(&env), SKALD_OK);
    static cut_frame f;
    assert_int_equal(skald_wire_open(env, cut(&f, golden, sizeof golden, 1)), SKALD_OK);
    const Skald__V1__Frame *body = skald_wire_body(env);
    assert_int_equal(body->body_case, SKALD__V1__FRAME__BODY_GOODBYE);
    assert_int_equal(body->goodbye->status, 300);
    assert_string_equal(body->goodbye->reason, "no");
    char text[4] = "";
    assert_int_equal(skald_wire_read(env, 1, 0, text, 3), SKALD_OK);
    assert_string_equal(text, "abc");
    skald_wire_env_destroy(env);
}

/* Fields in another order, repeated bodies (the last one counts) and fields of a later version. */
static void other_writers(void **state) {
    static const uint8_t bytes[] = {0x82, 0x01, 0x01, 'x',                       /* a vector first */
                                    0x5a, 0x02, 0x08, 0x07,                      /* heartbeat{1: 7} */
                                    0xfa, 0x3e, 0x02, 0x01, 0x02,                /* field 1007, bytes */
                                    0xf8, 0x3e, 0x85, 0x01,                      /* field 1007, integer */
                                    0xfd, 0x3e, 1,    2,    3,    4,             /* field 1007, 4 bytes */
                                    0xf9, 0x3e, 1,    2,    3,    4, 5, 6, 7, 8, /* field 1007, 8 bytes */
                                    0x62, 0x02, 0x08, 0x09,                      /* goodbye{status: 9} */
                                    0x82, 0x01, 0x01, 'y'};
    skald_wire_env *env = NULL;
    assert_int_equal(skald_wire_env_create(&env), SKALD_OK);
    static cut_frame f;
    assert_int_equal(skald_wire_open(env, cut(&f, bytes, sizeof bytes, 2)), SKALD_OK);
    assert_int_equal(skald_wire_body(env)->body_case, SKALD__V1__FRAME__BODY_GOODBYE);
    assert_int_equal(skald_wire_body(env)->goodbye->status, 9);
    assert_int_equal(skald_wire_vectors(env), 2);
    char y = 0;
    assert_int_equal(skald_wire_read(env, 1, 0, &y, 1), SKALD_OK);
    assert_int_equal(y, 'y');
    assert_int_equal(skald_wire_open(env, cut(&f, bytes, 0, 0)), SKALD_OK); /* an empty frame is one without a body */
    assert_int_equal(skald_wire_body(env)->body_case, SKALD__V1__FRAME__BODY__NOT_SET);
    skald_wire_env_destroy(env);
}

static void expect_refused(skald_wire_env *env, const uint8_t *bytes, size_t size, const char *text) {
    static cut_frame f;
    assert_int_equal(skald_wire_open(env, cut(&f, bytes, size, 0)), SKALD_EPEER);
    if (!strstr(skald_error(), text)) fail_msg("'%s' does not say '%s'", skald_error(), text);
    assert_int_equal(skald_wire_vectors(env), 0);
}

static void malformed_is_refused(void **state) {
    skald_wire_env *env = NULL;
    assert_int_equal(skald_wire_env_create(&env), SKALD_OK);
#define REFUSED(text, ...)                                                                                             \
    do {                                                                                                               \
        static const uint8_t bytes[] = {__VA_ARGS__};                                                                  \
        expect_refused(env, bytes, sizeof bytes, text);                                                                \
    } while (0)
    REFUSED("a bad tag", 0x00, 0x01);
    REFUSED("a bad tag", 0xff, 0xff, 0xff, 0xff, 0xff, 0x01);
    REFUSED("wire type", 0x53);
    REFUSED("longer than the frame", 0x82, 0x01, 0x02, 'a');
    REFUSED("longer than the frame", 0x82, 0x01, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01);
    REFUSED("a bad length", 0x82, 0x01, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02);
    REFUSED("longer than the frame", 0xfd, 0x3e, 1, 2, 3);
    REFUSED("wrong wire type", 0x80, 0x01, 0x05);
    REFUSED("cannot be decoded", 0x5a, 0x02, 0x08, 0x80);
    REFUSED("more than 8 vectors", 0x82, 0x01, 0, 0x82, 0x01, 0, 0x82, 0x01, 0, 0x82, 0x01, 0, 0x82, 0x01, 0, 0x82,
            0x01, 0, 0x82, 0x01, 0, 0x82, 0x01, 0, 0x82, 0x01, 0);
#undef REFUSED
    /* A body over its limit, and one that would unpack into far more than it is. */
    size_t size = SKALD_WIRE_MAX_BODY + 64;
    uint8_t *big = calloc(1, size);
    uint8_t *p = big + 1;
    big[0] = 0x72; /* status_reply */
    p += wire_varint_put(p, SKALD_WIRE_MAX_BODY);
    expect_refused(env, big, (size_t)(p - big) + SKALD_WIRE_MAX_BODY, "over the limit");
    p = big;
    *p++ = 0x4a; /* result { sums {} sums {} ... } */
    p += wire_varint_put(p, 1000000);
    for (int i = 0; i < 500000; i++, p += 2) p[0] = 0x52, p[1] = 0;
    static cut_frame f;
    skald_status st = skald_wire_open(env, cut(&f, big, (size_t)(p - big), 0));
    assert_true(st == SKALD_OK || st == SKALD_EPEER);
    free(big);
    skald_wire_env_destroy(env);
}

/* Every truncation is either refused or a valid shorter frame, never read beyond its end (ASan watches: the bytes
 * are in a block of exactly that size). */
static void truncated_at_every_byte(void **state) {
    size_t size = 0;
    uint8_t *bytes = sample(&size, NULL);
    skald_wire_env *env = NULL;
    assert_int_equal(skald_wire_env_create(&env), SKALD_OK);
    static cut_frame f;
    size_t accepted = 0;
    for (size_t n = 0; n < size; n++) {
        uint8_t *part = malloc(n ? n : 1);
        memcpy(part, bytes, n);
        skald_status st = skald_wire_open(env, cut(&f, part, n, 1 + n % 7));
        assert_true(st == SKALD_OK || st == SKALD_EPEER);
        accepted += st == SKALD_OK;
        free(part);
    }
    assert_int_equal(accepted, 4); /* at the field boundaries: nothing, the body, and after two of three vectors */
    skald_wire_env_destroy(env);
    free(bytes);
}

static void random_damage(void **state) {
    size_t size = 0;
    uint8_t *bytes = sample(&size, NULL);
    skald_wire_env *env = NULL;
    assert_int_equal(skald_wire_env_create(&env), SKALD_OK);
    static cut_frame f;
    uint8_t *copy = malloc(size);
    uint8_t sink[1700];
    size_t accepted = 0;
    for (uint64_t round = 0; round < 20000; round++) {
        memcpy(copy, bytes, size);
        for (uint64_t hit = 0; hit <= round % 3; hit++) {
            uint64_t r = skald_random(7 + hit, round);
            copy[r % 120 % size] = (uint8_t)(r >> 32); /* where the structure is */
        }
        skald_status st = skald_wire_open(env, cut(&f, copy, size, 1 + round % 11));
        assert_true(st == SKALD_OK || st == SKALD_EPEER);
        if (st != SKALD_OK) continue;
        accepted++;
        for (size_t k = 0; k < skald_wire_vectors(env); k++)
            assert_int_equal(skald_wire_read(env, k, 0, sink, skald_wire_vector_bytes(env, k)), SKALD_OK);
    }
    assert_true(accepted > 100 && accepted < 20000);
    free(copy);
    skald_wire_env_destroy(env);
    free(bytes);
}

static void wrong_sizes_are_named(void **state) {
    size_t size = 0;
    uint8_t *bytes = sample(&size, NULL);
    skald_wire_env *env = NULL;
    assert_int_equal(skald_wire_env_create(&env), SKALD_OK);
    static cut_frame f;
    assert_int_equal(skald_wire_open(env, cut(&f, bytes, size, 5)), SKALD_OK);
    double v[4];
    assert_int_equal(skald_wire_doubles(env, 1, v, 4), SKALD_EPEER);
    assert_non_null(strstr(skald_error(), "24 bytes"));
    assert_non_null(strstr(skald_error(), "32 bytes"));
    assert_int_equal(skald_wire_doubles(env, 1, v, SIZE_MAX / 4), SKALD_EPEER);
    assert_int_equal(skald_wire_doubles(env, 3, v, 0), SKALD_EPEER);
    assert_int_equal(skald_wire_floats(env, 1, v, 3), SKALD_EPEER);
    assert_non_null(strstr(skald_error(), "12 bytes"));
    assert_int_equal(skald_wire_floats(env, 1, v, SIZE_MAX / 2), SKALD_EPEER);
    assert_int_equal(skald_wire_read(env, 1, 17, v, 8), SKALD_EPEER);
    assert_int_equal(skald_wire_read(env, 1, SIZE_MAX, v, 8), SKALD_EPEER);
    assert_int_equal(skald_wire_read(env, 1, 24, v, 0), SKALD_OK);
    skald_wire_env_destroy(env);
    free(bytes);
}

static void packing_checks_its_input(void **state) {
    Skald__V1__Frame frame = SKALD__V1__FRAME__INIT;
    skald_wire_vector vectors[9] = {{NULL, NULL, 0}};
    skald_wire_message m;
    assert_int_equal(skald_wire_pack(&frame, vectors, 9, NULL, &m), SKALD_EINVAL);
    static const uint8_t unowned[2000];
    vectors[0] = (skald_wire_vector){NULL, unowned, sizeof unowned};
    assert_int_equal(skald_wire_pack(&frame, vectors, 1, NULL, &m), SKALD_EINVAL);
    /* Eight long vectors just fit the segments. */
    skald_bytes *b = doubles(200, 0);
    for (int k = 0; k < 8; k++) vectors[k] = (skald_wire_vector){b, b->data, b->size};
    assert_int_equal(skald_wire_pack(&frame, vectors, 8, NULL, &m), SKALD_OK);
    assert_int_equal(m.count, 16);
    skald_wire_message_release(&m);
    skald_bytes_unref(b);
}

/* Packing takes its scratch from the pool each time. Seen to fail with skald_bytes_create in its place. */
static void packing_reuses_memory(void **state) {
    skald_pool *pool = NULL;
    assert_int_equal(skald_pool_create(4096, &pool), SKALD_OK);
    for (int i = 0; i < 100; i++) {
        size_t size = 0;
        free(sample(&size, pool));
    }
    assert_int_equal(skald_pool_made(pool), 1);
    skald_pool_destroy(pool);
}

/* Seen to fail without wire_tidy, with only ASCII looked at, and with paths treated as names. */
static void texts_can_be_shown(void **state) {
    skald_wire_env *env;
    assert_int_equal(skald_wire_env_create(&env), SKALD_OK);
    Skald__V1__Frame frame = SKALD__V1__FRAME__INIT;
    Skald__V1__Hello hello = SKALD__V1__HELLO__INIT;
    Skald__V1__Welcome welcome = SKALD__V1__WELCOME__INIT;
    Skald__V1__Ranks ranks = SKALD__V1__RANKS__INIT;
    Skald__V1__RankMember member = SKALD__V1__RANK_MEMBER__INIT, *members[] = {&member};
    hello.name = (char[]){"a\x1b[2Jb\r\n\x7f"};
    hello.device = (char[]){"gr\xc3\xb6\xc3\x9f, \xe2\x82\xac, \xf0\x9f\x98\x80"}; /* stays */
    hello.build = (char[]){"\xff \xc3 \xc0\xaf \xed\xa0\x80 \xc2\x9b \xf5\x80\x80\x80 \xe2\x82"};
    frame.body_case = SKALD__V1__FRAME__BODY_HELLO;
    frame.hello = &hello;
    skald_wire_message m;
    cut_frame c;
    size_t size;
    uint8_t *bytes;
    assert_int_equal(skald_wire_pack(&frame, NULL, 0, NULL, &m), SKALD_OK);
    bytes = flatten(&m, &size);
    assert_int_equal(skald_wire_open(env, cut(&c, bytes, size, 7)), SKALD_OK);
    assert_string_equal(skald_wire_body(env)->hello->name, "a?[2Jb???");
    assert_string_equal(skald_wire_body(env)->hello->device, hello.device);
    assert_string_equal(skald_wire_body(env)->hello->build, "? ? ?? ??? ?? ???? ??");
    skald_wire_message_release(&m);
    free(bytes);

    welcome.data_path = (char[]){"/data/\xe4\x1b.svm"}; /* names of files may be any bytes */
    welcome.run = (char[]){"\xe4"};
    frame.body_case = SKALD__V1__FRAME__BODY_WELCOME;
    frame.welcome = &welcome;
    assert_int_equal(skald_wire_pack(&frame, NULL, 0, NULL, &m), SKALD_OK);
    bytes = flatten(&m, &size);
    assert_int_equal(skald_wire_open(env, cut(&c, bytes, size, 0)), SKALD_OK);
    assert_string_equal(skald_wire_body(env)->welcome->data_path, "/data/\xe4?.svm");
    assert_string_equal(skald_wire_body(env)->welcome->run, "?");
    skald_wire_message_release(&m);
    free(bytes);

    member.name = (char[]){"\x07"};
    ranks.members = members;
    ranks.n_members = 1;
    frame.body_case = SKALD__V1__FRAME__BODY_RANKS;
    frame.ranks = &ranks;
    assert_int_equal(skald_wire_pack(&frame, NULL, 0, NULL, &m), SKALD_OK);
    bytes = flatten(&m, &size);
    assert_int_equal(skald_wire_open(env, cut(&c, bytes, size, 0)), SKALD_OK);
    assert_string_equal(skald_wire_body(env)->ranks->members[0]->name, "?");
    skald_wire_message_release(&m);
    free(bytes);
    skald_wire_env_destroy(env);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip_cut_anywhere),
        cmocka_unit_test(protobuf_reads_it),
        cmocka_unit_test(golden_bytes),
        cmocka_unit_test(other_writers),
        cmocka_unit_test(malformed_is_refused),
        cmocka_unit_test(truncated_at_every_byte),
        cmocka_unit_test(random_damage),
        cmocka_unit_test(wrong_sizes_are_named),
        cmocka_unit_test(packing_checks_its_input),
        cmocka_unit_test(packing_reuses_memory),
        cmocka_unit_test(texts_can_be_shown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
