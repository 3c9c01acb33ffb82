/* Checkpoint files: round trip, damage of every kind, the previous one, full disks, slow ones. Each test says how it
 * was seen to fail. */
#include "data_fixture.h"

#include <errno.h>
#include <hdf5.h>
#include <pthread.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "skald/checkpoint.h"
#include "skald/model.h"

/* Something different in every field. */
static skald_checkpoint make(uint64_t length, uint64_t shards, bool history) {
    skald_checkpoint c;
    assert_ok(skald_checkpoint_make(length, shards, history, &c));
    const size_t numbers = offsetof(skald_checkpoint, huber_delta), arrays = offsetof(skald_checkpoint, w);
    for (size_t at = offsetof(skald_checkpoint, classes); at < numbers; at += 8)
        memcpy((char *)&c + at, &(uint64_t){at + 1}, 8);
    for (size_t at = numbers; at < arrays; at += 8) memcpy((char *)&c + at, &(double){1 / (double)at}, 8);
    for (size_t at = offsetof(skald_checkpoint, commits); at < offsetof(skald_checkpoint, passes); at += 8)
        memcpy((char *)&c + at, &(uint64_t){at + 1}, 8);
    c.eval_commits = 5, c.eval_updates = 6;
    snprintf(c.run, sizeof c.run, "20261121-120000-abcd");
    snprintf(c.algo, sizeof c.algo, "saga");
    snprintf(c.loss, sizeof c.loss, "softmax");
    c.term = 3, c.data = UINT64_MAX - 1, c.length = length, c.shard_count = shards, c.rows = 0;
    c.gap = INFINITY, c.accuracy = NAN;
    double *const vectors[] = {c.w, c.good, c.candidate, c.sum, c.average};
    for (uint64_t k = 0; k < 5; k++)
        for (uint64_t j = 0; j < length; j++) vectors[k][j] = skald_normal(k, j);
    for (uint64_t k = 0; k < shards; k++) {
        c.shards[k] = (skald_checkpoint_shard){10 + k, UINT64_MAX - k, 100 * k + 7, k, 0.5 + (double)k};
        c.rows += 10 + k;
        for (uint64_t j = 0; history && j < length; j++) c.anchors[k * length + j] = skald_normal(9 + k, j);
    }
    c.manifest_bytes = 33;
    c.manifest = malloc(33);
    memset(c.manifest, 0x5a, 33);
    return c;
}

/* As newton's: parts at three models, one at none. */
static skald_checkpoint make_newton(uint64_t length, uint64_t shards) {
    skald_checkpoint c = make(length, shards, true);
    assert_ok(skald_checkpoint_fit(&c, 8 * shards, 3));
    for (uint64_t k = 0; k < 3; k++) {
        c.versions[k] = (skald_checkpoint_version){c.next_version - 20 + 7 * k, c.commits - 4 + 2 * k};
        for (uint64_t j = 0; j < length; j++) c.models[k * length + j] = skald_normal(77 + k, j);
    }
    for (uint64_t k = 0; k < 8 * shards; k++)
        c.parts[k] = (skald_checkpoint_part){k % 4 ? c.versions[k % 4 - 1].number : 0, 0.1 * (double)k};
    for (uint64_t k = 0; k < SKALD_CHECKPOINT_NUMBERS; k++) c.solver[k] = 1 + (double)k;
    return c;
}

static void assert_equal(const skald_checkpoint *a, const skald_checkpoint *b) {
    const size_t bytes = a->length * sizeof(double);
    assert_memory_equal(a, b, offsetof(skald_checkpoint, w)); /* bit by bit: a NaN too */
    assert_memory_equal(a->w, b->w, bytes);
    assert_memory_equal(a->good, b->good, bytes);
    assert_memory_equal(a->candidate, b->candidate, bytes);
    assert_memory_equal(a->sum, b->sum, bytes);
    assert_memory_equal(a->average, b->average, bytes);
    assert_memory_equal(a->shards, b->shards, a->shard_count * sizeof *a->shards);
    assert_int_equal(!a->anchors, !b->anchors);
    if (a->anchors) assert_memory_equal(a->anchors, b->anchors, a->shard_count * bytes);
    assert_int_equal(a->manifest_bytes, b->manifest_bytes);
    assert_memory_equal(a->manifest, b->manifest, a->manifest_bytes);
    assert_memory_equal(a->solver, b->solver, sizeof a->solver);
    assert_true(a->part_count == b->part_count && a->version_count == b->version_count);
    if (!a->part_count) return;
    assert_memory_equal(a->parts, b->parts, a->part_count * sizeof *a->parts);
    assert_memory_equal(a->versions, b->versions, a->version_count * sizeof *a->versions);
    assert_memory_equal(a->models, b->models, a->version_count * bytes);
}

/* Seen to fail: with a field left out of the table of fields. */
static void test_round_trip(void **state) {
    const char *path = fixture_path("run.ck");
    for (int k = 0; k < 6; k++) {
        const uint64_t length = k & 1 ? 1 : 300, shards = k & 1 ? 1 : 7;
        skald_checkpoint c = k < 4 ? make(length, shards, k & 2) : make_newton(length, shards), r;
        assert_ok(skald_checkpoint_save(NULL, path, &c));
        assert_ok(skald_checkpoint_load(NULL, path, &r));
        assert_equal(&c, &r);
        char run[40];
        uint64_t term = 0;
        assert_true(skald_checkpoint_peek(NULL, path, run, &term));
        assert_string_equal(run, c.run);
        assert_int_equal(term, 3);
        skald_checkpoint_free(&c);
        skald_checkpoint_free(&r);
    }
    hid_t f = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT); /* any HDF5 tool, header or not */
    assert_true(f >= 0 && H5Lexists(f, "w", H5P_DEFAULT) > 0);
    H5Fclose(f);
}

/* A file that is only in memory. */
typedef struct memory {
    skald_storage storage;
    const uint8_t *bytes;
    size_t size;
} memory;

static skald_status memory_read(skald_storage *self, const char *path, uint8_t **bytes, size_t *size) {
    const memory *m = (const memory *)self;
    *bytes = malloc(m->size + 1); /* as long as it says, for ASan */
    memcpy(*bytes, m->bytes, m->size);
    *size = m->size;
    return SKALD_OK;
}

/* Every length but the whole one, every byte: refused by name, and never believed. Seen to fail with the hash compared
 * in its first half only, and with the header not hashed (a changed run or term was taken). */
static void test_damage_refused(void **state) {
    const char *path = fixture_path("run.ck");
    skald_checkpoint c = make_newton(20, 2), r;
    uint8_t *bytes;
    size_t size;
    assert_ok(skald_checkpoint_save(NULL, path, &c));
    assert_ok(skald_storage_posix()->read(NULL, path, &bytes, &size));
    memory m = {.storage = {.read = memory_read}, .bytes = bytes};
    for (m.size = 0; m.size < size; m.size++)
        assert_fails(skald_checkpoint_load(&m.storage, "cut.ck", &r), SKALD_EMODEL, "cut.ck: ");
    for (size_t k = 0; k < size; k++)
        for (int bit = 0; bit < 8; bit += 7) {
            bytes[k] ^= (uint8_t)(1 << bit);
            assert_fails(skald_checkpoint_load(&m.storage, "bad.ck", &r), SKALD_EMODEL, "bad.ck: ");
            bytes[k] ^= (uint8_t)(1 << bit);
        }
    m.size = size - 1;
    assert_fails(skald_checkpoint_load(&m.storage, "cut.ck", &r), SKALD_EMODEL, "cut.ck: the checkpoint is damaged");
    m.size = 100;
    assert_fails(skald_checkpoint_load(&m.storage, "cut.ck", &r), SKALD_EMODEL, "cut short");
    print_message("%zu lengths and %zu flipped bits refused\n", size, 2 * size);
    free(bytes);
    skald_checkpoint_free(&c);
}

static void test_foreign_refused(void **state) {
    skald_checkpoint r;
    skald_model m = {.loss = SKALD_LOGISTIC, .version = NULL};
    assert_ok(skald_model_set_weights(&m, 3, false, (double[]){1, 2, 3}, NULL, NULL));
    assert_ok(skald_model_save(NULL, fixture_path("m.h5"), &m));
    skald_model_free(&m);
    assert_fails(skald_checkpoint_load(NULL, fixture_path("m.h5"), &r), SKALD_EMODEL,
                 "m.h5: is not a Skald checkpoint");
    assert_fails(skald_checkpoint_load(NULL, fixture_text("t", "1 1:1\n"), &r), SKALD_EMODEL, "is not a Skald checkp");
    assert_fails(skald_checkpoint_load(NULL, "/nonexistent", &r), SKALD_EIO, "/nonexistent: cannot open");
    assert_fails(skald_checkpoint_load(NULL, fixture_dir, &r), SKALD_EIO, "not a regular file");
    /* whole by its checksum, and wrong all the same */
    const char *path = fixture_path("odd.ck");
    static const struct {
        size_t offset;
        double value;
        const char *named;
    } wrong[] = {{offsetof(skald_checkpoint, backoff), 0, "(backoff)"},
                 {offsetof(skald_checkpoint, backoff), 2, "(backoff)"},
                 {offsetof(skald_checkpoint, l2), NAN, "(l2)"},
                 {offsetof(skald_checkpoint, L), -1, "(state)"},
                 {offsetof(skald_checkpoint, seconds), 1e300, "(state)"}};
    for (size_t k = 0; k < SKALD_ARRAY_LENGTH(wrong); k++) {
        skald_checkpoint c = make(5, 2, true);
        memcpy((char *)&c + wrong[k].offset, &wrong[k].value, sizeof(double));
        assert_ok(skald_checkpoint_save(NULL, path, &c));
        assert_fails(skald_checkpoint_load(NULL, path, &r), SKALD_EMODEL, wrong[k].named);
        skald_checkpoint_free(&c);
    }
    skald_checkpoint c = make(5, 2, true);
    c.rows++; /* shards do not add up */
    assert_ok(skald_checkpoint_save(NULL, path, &c));
    assert_fails(skald_checkpoint_load(NULL, path, &r), SKALD_EMODEL, "(shards)");
    c.rows--, c.term = 0;
    assert_ok(skald_checkpoint_save(NULL, path, &c));
    assert_fails(skald_checkpoint_load(NULL, path, &r), SKALD_EMODEL, "(term)");
    c.term = 1, c.anchors[3] = INFINITY;
    assert_ok(skald_checkpoint_save(NULL, path, &c));
    assert_fails(skald_checkpoint_load(NULL, path, &r), SKALD_EMODEL, "(anchors)");
    skald_checkpoint_free(&c);
}

/* Room is kept where it is enough, and what does not fit goes. */
static void test_room_for_parts(void **state) {
    skald_checkpoint c = make_newton(6, 2);
    const double *models = c.models;
    assert_ok(skald_checkpoint_fit(&c, 16, 2));
    assert_true(c.models == models && c.version_count == 2 && c.version_room == 3 && c.part_count == 16);
    assert_ok(skald_checkpoint_fit(&c, 0, 0));
    assert_true(!c.parts && c.version_count == 0 && c.part_count == 0);
    assert_ok(skald_checkpoint_fit(&c, 16, 5));
    memset(c.parts, 0, 16 * sizeof *c.parts);
    assert_true(c.version_count == 5 && c.version_room == 5);
    c.models[29] = 1; /* the last */
    assert_fails(skald_checkpoint_fit(&c, 16, UINT64_MAX / 8), SKALD_ENOMEM, "");
    assert_true(!c.parts && !c.versions && !c.models && c.part_count == 0 && c.version_count == 0);
    skald_checkpoint_free(&c);
}

/* Whole by its checksum, and its parts are at models that cannot be. Seen to fail: with a part's number not looked for;
 * with numbers that need not ascend; with models not looked at. */
static void test_impossible_parts_refused(void **state) {
    const char *path = fixture_path("parts.ck");
    for (int k = 0; k < 11; k++) {
        skald_checkpoint c = make_newton(5, 2), r;
        const char *named = k < 4 ? "(parts)" : k < 9 ? "(versions)" : k < 10 ? "(models)" : "(solver)";
        if (k == 0) c.parts[3].version = c.versions[2].number + 1; /* that is not there */
        if (k == 1) c.parts[15].version = UINT64_MAX;
        if (k == 2) c.parts[0].loss = NAN;
        if (k == 3) c.part_count = 0;
        if (k == 4) c.versions[1].number = c.versions[0].number;
        if (k == 5) c.versions[0].number = 0;
        if (k == 6) c.versions[2].number = c.next_version + 1; /* that was never published */
        if (k == 7) c.versions[2].commits = c.commits + 1;
        if (k == 8) assert_ok(skald_checkpoint_fit(&c, 16, 129)); /* more than parts could be at */
        for (uint64_t v = 0; k == 8 && v < 129; v++)
            c.versions[v] = (skald_checkpoint_version){v + 1, 0}, memset(c.models + 5 * v, 0, 40);
        if (k == 9) c.models[14] = INFINITY;
        if (k == 10) c.solver[7] = NAN;
        assert_ok(skald_checkpoint_save(NULL, path, &c));
        assert_fails(skald_checkpoint_load(NULL, path, &r), SKALD_EMODEL, named);
        assert_null(r.models);
        skald_checkpoint_free(&c);
    }
}

/* The one before is kept, and offered when the newer one is not whole. Seen to fail with write_atomic. */
static void test_previous_kept_and_offered(void **state) {
    char path[160], previous[164];
    snprintf(path, sizeof path, "%s", fixture_path("kept.ck"));
    snprintf(previous, sizeof previous, "%s.1", path);
    skald_checkpoint r;
    for (uint64_t k = 1; k <= 3; k++) {
        skald_checkpoint c = make(20, 2, true);
        c.term = k;
        assert_ok(skald_checkpoint_save(NULL, path, &c));
        skald_checkpoint_free(&c);
        assert_ok(skald_checkpoint_load(NULL, path, &r));
        assert_int_equal(r.term, k);
        skald_checkpoint_free(&r);
        if (k == 1) {
            assert_int_equal(access(previous, F_OK), -1);
            continue;
        }
        assert_ok(skald_checkpoint_load(NULL, previous, &r));
        assert_int_equal(r.term, k - 1);
        skald_checkpoint_free(&r);
    }
    assert_int_equal(truncate(path, 700), 0);
    assert_fails(skald_checkpoint_open(NULL, path, &r), SKALD_EMODEL, "kept.ck: the checkpoint is damaged");
    assert_non_null(strstr(skald_error(), "kept.ck.1 --checkpoint"));
    assert_int_equal(unlink(path), 0);
    assert_fails(skald_checkpoint_open(NULL, path, &r), SKALD_EIO, "the one before it is whole");
    assert_int_equal(truncate(previous, 0), 0);
    assert_fails(skald_checkpoint_open(NULL, path, &r), SKALD_EIO, "cannot open");
    assert_null(strstr(skald_error(), "whole"));
    /* nothing else is replaced */
    skald_checkpoint c = make(20, 2, true);
    assert_fails(skald_checkpoint_save(NULL, fixture_dir, &c), SKALD_EIO, "not a regular file");
    assert_fails(skald_checkpoint_save(NULL, "/dev/null", &c), SKALD_EIO, "/dev/null: is not a regular file");
    assert_fails(skald_checkpoint_save(NULL, "/nonexistent/c", &c), SKALD_EIO, "/nonexistent/c: cannot create");
    skald_checkpoint_free(&c);
}

/* A disk that is full in the middle of a write, and one that may only be read. Seen to fail with keep() before the
 * write, which left the name empty. */
static void test_full_disk(void **state) {
    char dir[160], path[180], previous[184];
    snprintf(dir, sizeof dir, "%s", fixture_path("tiny"));
    snprintf(path, sizeof path, "%s/run.ck", dir);
    snprintf(previous, sizeof previous, "%s.1", path);
    assert_int_equal(mkdir(dir, 0755), 0);
    if (mount("tmpfs", dir, "tmpfs", 0, "size=160k") != 0) {
        print_message("skipped: cannot mount a small file system here (%s)\n", strerror(errno));
        skip();
    }
    skald_checkpoint small = make(100, 2, true), large = make(30000, 2, true), r = {0};
    skald_status first = skald_checkpoint_save(NULL, path, &small);
    skald_status second = skald_checkpoint_save(NULL, path, &large);
    char message[1024], message2[1024];
    snprintf(message, sizeof message, "%s", skald_error());
    skald_status third = skald_checkpoint_load(NULL, path, &r);
    skald_status none = access(previous, F_OK) == 0 ? SKALD_EINTERNAL : SKALD_OK;
    mount("tmpfs", dir, "tmpfs", MS_REMOUNT | MS_RDONLY, NULL);
    skald_status fourth = skald_checkpoint_save(NULL, path, &small);
    snprintf(message2, sizeof message2, "%s", skald_error());
    umount(dir);
    assert_int_equal(first, SKALD_OK);
    assert_int_equal(second, SKALD_EIO);
    assert_non_null(strstr(message, path));
    assert_non_null(strstr(message, "No space left on device"));
    assert_int_equal(third, SKALD_OK);
    assert_int_equal(none, SKALD_OK);
    assert_equal(&small, &r);
    assert_int_equal(fourth, SKALD_EIO);
    assert_non_null(strstr(message2, "Read-only file system"));
    skald_checkpoint_free(&small);
    skald_checkpoint_free(&large);
    skald_checkpoint_free(&r);
}

/* ---- the thread that writes ------------------------------------------------------------------------ */

/* Storage that waits, or fails, when told to. */
typedef struct odd_storage {
    skald_storage storage;
    pthread_mutex_t mutex;
    bool slow, full;
    int begun, written;
} odd_storage;

static skald_status odd_write(skald_storage *self, const char *path, const char *previous, const void *bytes,
                              size_t size) {
    odd_storage *s = (odd_storage *)self;
    pthread_mutex_lock(&s->mutex);
    s->begun++;
    while (s->slow) {
        pthread_mutex_unlock(&s->mutex);
        usleep(1000);
        pthread_mutex_lock(&s->mutex);
    }
    const bool full = s->full;
    if (!full) s->written++;
    pthread_mutex_unlock(&s->mutex);
    return full ? skald_fail(SKALD_EIO, "%s: cannot write: No space left on device", path) : SKALD_OK;
}

static void set(odd_storage *s, bool slow, bool full) {
    pthread_mutex_lock(&s->mutex);
    s->slow = slow;
    s->full = full;
    pthread_mutex_unlock(&s->mutex);
}

static void await(odd_storage *s, const int *what, int count) {
    int n = 0;
    for (int tries = 0; tries < 30000 && n < count; tries++) {
        pthread_mutex_lock(&s->mutex);
        n = *what;
        pthread_mutex_unlock(&s->mutex);
        usleep(1000);
    }
    assert_int_equal(n, count);
}

static void fill_one(skald_checkpointer *k) {
    skald_checkpoint *c = skald_checkpointer_begin(k, 10, 2, false, 0, 0), from = make(10, 2, false);
    assert_non_null(c);
    assert_string_equal(c->run, "r");
    assert_int_equal(c->term, 5);
    memcpy(c->w, from.w, 10 * sizeof(double));
    skald_checkpoint_free(&from);
    skald_checkpointer_give(k);
}

static void await_news(skald_checkpointer *k, const char *text) {
    char news[900] = "";
    for (int tries = 0; tries < 30000 && !skald_checkpointer_news(k, news, sizeof news); tries++) usleep(1000);
    if (!strstr(news, text)) print_message("'%s' is not in '%s'\n", text, news);
    assert_non_null(strstr(news, text));
}

/* By time and passes; one at a time; a failure is told once, its end too; nothing waits for slow storage but the end.
 */
static void test_writer(void **state) {
    odd_storage s = {.storage = {.write_keeping = odd_write}, .mutex = PTHREAD_MUTEX_INITIALIZER};
    const skald_checkpointer_options o = {
        .storage = &s.storage, .path = "x.ck", .every_ns = 100, .every_passes = 2, .run = "r", .term = 5};
    skald_checkpointer *k = NULL;
    char news[900];
    assert_ok(skald_checkpointer_open(&o, &k));
    assert_false(skald_checkpointer_due(k, 1000, 50)); /* where it begins, or goes on */
    assert_false(skald_checkpointer_due(k, 1099, 51.9));
    assert_true(skald_checkpointer_due(k, 1100, 51.9));
    assert_false(skald_checkpointer_due(k, 1101, 53.8));
    assert_true(skald_checkpointer_due(k, 1102, 54));
    fill_one(k);
    await(&s, &s.written, 1);
    assert_false(skald_checkpointer_news(k, news, sizeof news));

    set(&s, true, false); /* slow: the next one waits, and that is told once */
    fill_one(k);
    await(&s, &s.begun, 2);
    assert_false(skald_checkpointer_due(k, 5000, 60));
    await_news(k, "x.ck: the storage is slow");
    assert_false(skald_checkpointer_due(k, 6000, 60));
    assert_false(skald_checkpointer_news(k, news, sizeof news));
    fill_one(k); /* the last one does not wait for its turn; nor does one that overtakes it */
    fill_one(k);
    set(&s, false, false);
    await(&s, &s.written, 3);

    set(&s, false, true);
    fill_one(k);
    await_news(k, "no checkpoint: x.ck: cannot write: No space left on device; the last one is as it was");
    assert_true(skald_checkpointer_due(k, 9000, 60)); /* tried again */
    fill_one(k);
    await(&s, &s.begun, 5);
    usleep(20000);
    assert_false(skald_checkpointer_news(k, news, sizeof news)); /* once */
    set(&s, false, false);
    fill_one(k);
    await_news(k, "checkpoints are written again: x.ck");
    set(&s, false, true);
    fill_one(k);
    assert_fails(skald_checkpointer_close(k), SKALD_EIO, "no checkpoint: x.ck: cannot write");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),      cmocka_unit_test(test_damage_refused),
        cmocka_unit_test(test_room_for_parts),  cmocka_unit_test(test_impossible_parts_refused),
        cmocka_unit_test(test_foreign_refused), cmocka_unit_test(test_previous_kept_and_offered),
        cmocka_unit_test(test_full_disk),       cmocka_unit_test(test_writer)};
    return cmocka_run_group_tests_name("checkpoint", tests, fixture_setup, fixture_teardown);
}
