/* A recorded run of eight workers of uneven pace, over the real net, is replayed in one process to the same bits; a
 * record that is broken or edited is refused by file and line.
 *
 * Seen to fail: without the carries of skald_narrow in the company, with the chain's start left out (after = 0), and
 * with the model not rounded to floats on its way. */
#include "harness.h"

static char path[128];

typedef struct replayed {
    skald_status st;
    bool same;
    char error[1024];
    skald_outcome out;
} replayed;

static void on_merged(void *user, const skald_merged *m) {
    skald_replay_merged(user, m);
}

static replayed replay(const setup *s, const skald_replay_options *options) {
    replayed x = {0};
    skald_record record;
    skald_replay *r = NULL;
    x.st = skald_record_open(s->record, &record);
    if (x.st == SKALD_OK) {
        x.st = skald_replay_open(&record, &s->data, &s->objective, options, &r);
        const skald_observer observer = {.user = r, .merged = on_merged};
        if (x.st == SKALD_OK)
            x.st = skald_train(skald_replay_crew(r), skald_solver_of(s->train.algo), &s->train, skald_replay_clock(r),
                               &observer, skald_replay_stop(r), &x.out);
        if (x.st == SKALD_OK) x.st = skald_replay_finish(r, &x.out, &x.same);
        snprintf(x.error, sizeof x.error, "%s", skald_error());
        skald_replay_close(r);
        skald_record_close(&record);
    } else {
        snprintf(x.error, sizeof x.error, "%s", skald_error());
    }
    return x;
}

static setup uneven(const toy *t, skald_algo algo) {
    setup s = setup_default(toy_write(t, "replay"));
    snprintf(path, sizeof path, "/tmp/skald-test-%d-replay.record", (int)getpid());
    s.workers = 8;
    s.net = skald_net_grpc();
    s.address = "127.0.0.1:0";
    s.record = path;
    s.train.algo = algo;
    s.train.max_passes = 12;
    s.train.target_gap = algo == SKALD_SAGA ? 1e-12 : 0;
    for (int k = 0; k < 8; k++) s.pace_ms[k] = (int[]){1, 0, 1, 2, 0, 5, 1, 0}[k];
    return s;
}

static char *slurp(size_t *size) {
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    *size = (size_t)ftell(f);
    rewind(f);
    char *text = calloc(*size + 1, 1);
    assert_int_equal(fread(text, 1, *size, f), *size);
    fclose(f);
    return text;
}

static void spill(const char *text, size_t size) {
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, size, f), size);
    fclose(f);
}

static unsigned line_of(const char *text, const char *at) {
    unsigned line = 1;
    for (; text < at; text++) line += *text == '\n';
    return line;
}

static void refused(const setup *s, const char *where, const char *why) {
    replayed x = replay(s, &(skald_replay_options){0});
    assert_int_not_equal(x.st, SKALD_OK);
    if (!strstr(x.error, where) || !strstr(x.error, why)) fail_msg("no '%s' and '%s' in: %s", where, why, x.error);
    skald_outcome_free(&x.out);
}

static void check_same(setup s) {
    skald_outcome out = {0};
    assert_int_equal(train(&s, &out), SKALD_OK);
    assert_true(out.staleness_max > 8); /* it was uneven */
    replayed x = replay(&s, &(skald_replay_options){0});
    if (x.st != SKALD_OK) fail_msg("%s", x.error);
    assert_true(x.same);
    assert_int_equal(x.out.updates, out.updates);
    assert_true(x.out.seconds == out.seconds); /* even the clock is on record */
    assert_memory_equal(x.out.w, out.w, sizeof(double) * (s.objective.intercept ? 41 : 40));
    skald_outcome_free(&x.out);
    skald_outcome_free(&out);
}

static const toy sparse = {.n = 3000, .d = 40, .density = 0.3, .loss = SKALD_LOGISTIC, .seed = 3};
static const toy dense = {.n = 3000, .d = 40, .density = 1, .loss = SKALD_LOGISTIC, .seed = 4};

static void saga_sparse(void **state) {
    check_same(uneven(&sparse, SKALD_SAGA));
}

static void saga_intercept_two_threads(void **state) {
    setup s = uneven(&dense, SKALD_SAGA);
    s.threads = 2;
    s.objective.intercept = s.data.intercept = true;
    s.data.shards = 37;
    check_same(s);
}

static void sgd(void **state) {
    check_same(uneven(&dense, SKALD_SGD));
}

static void sgd_plain_and_sync(void **state) {
    setup s = uneven(&sparse, SKALD_SGD);
    s.train.local = 0;
    s.train.max_passes = 2;
    check_same(s);
    s.train.mode = SKALD_SYNC;
    s.train.local = -1;
    skald_outcome out = {0};
    assert_int_equal(train(&s, &out), SKALD_OK);
    replayed x = replay(&s, &(skald_replay_options){0});
    assert_true(x.st == SKALD_OK && x.same);
    skald_outcome_free(&x.out);
    skald_outcome_free(&out);
}

/* Gradients by differences: full gradients beside other work, dropped results, pieces that are shared. Recorded, too,
 * is what a difference is taken to. */
static void check_differences(setup s, skald_mode mode) {
    s.train.mode = mode;
    skald_outcome out = {0};
    if (train(&s, &out) != SKALD_OK) fail_msg("%s", skald_error());
    assert_true(out.full_gradients >= 2 && out.updates > 20);
    replayed x = replay(&s, &(skald_replay_options){0});
    if (x.st != SKALD_OK) fail_msg("%s", x.error);
    assert_true(x.same && x.out.full_gradients == out.full_gradients && x.out.folded == out.folded);
    assert_memory_equal(x.out.w, out.w, sizeof(double) * 40);
    skald_outcome_free(&x.out);

    size_t size; /* another origin: the same task but for that */
    char *text = slurp(&size), *origin = strstr(text, "\"kind\":\"difference\""), where[64];
    assert_non_null(origin);
    origin = strstr(origin, "\"origin\":") + 9;
    *origin = *origin == '9' ? '8' : (char)(*origin + 1);
    spill(text, size);
    snprintf(where, sizeof where, ".record:%u:", line_of(text, origin));
    refused(&s, where, "the run hands out difference");
    free(text);
    skald_outcome_free(&out);
}

static void svrg(void **state) {
    check_differences(uneven(&dense, SKALD_SVRG), SKALD_ASYNC);
    check_differences(uneven(&sparse, SKALD_SVRG), SKALD_SYNC);
}

static void synthesis(void **state) {
    setup s = uneven(&dense, SKALD_SYNTHESIS);
    s.objective.nonconvex = 1e-2;
    check_differences(s, SKALD_ASYNC);
    check_differences(s, SKALD_SYNC);
}

/* History by version, with so few versions that rows are taken anew all the time. */
static void by_version(void **state) {
    setup s = uneven(&dense, SKALD_SAGA);
    s.train.history_versions = 5;
    for (int mode = 0; mode < 2; mode++) {
        s.train.mode = (skald_mode)mode;
        skald_outcome out = {0};
        if (train(&s, &out) != SKALD_OK) fail_msg("%s", skald_error());
        assert_true(out.evictions > 8);
        replayed x = replay(&s, &(skald_replay_options){0});
        if (x.st != SKALD_OK) fail_msg("%s", x.error);
        assert_true(x.same && x.out.evictions == out.evictions);
        assert_memory_equal(x.out.w, out.w, sizeof(double) * 40);
        skald_outcome_free(&x.out);
        skald_outcome_free(&out);
    }
}

/* A number a row and a version a row are the same algorithm where gradients are numbers times rows: what is recorded
 * with the one is replayed with the other, merge by merge, and differs by the rounding of the numbers, which are floats
 * (see test_history for a reference in doubles). Seen to fail: with a batch's rows left at their old versions every
 * hundredth time. */
static void either_history(void **state) {
    setup s = uneven(&sparse, SKALD_SAGA);
    s.train.local = 0;
    s.train.history_versions = 32768;
    s.train.task_rows = 10;
    skald_outcome out = {0};
    if (train(&s, &out) != SKALD_OK) fail_msg("%s", skald_error());
    assert_true(out.evictions == 0 && out.staleness_max > 8 && out.versions_held > 40);
    s.train.history_versions = 0;
    replayed x = replay(&s, &(skald_replay_options){.anyway = true});
    if (x.st != SKALD_OK) fail_msg("%s", x.error);
    assert_int_equal(x.out.updates, out.updates);
    double difference = 0, norm = 0;
    for (int j = 0; j < 40; j++) {
        difference += (x.out.w[j] - out.w[j]) * (x.out.w[j] - out.w[j]);
        norm += out.w[j] * out.w[j];
    }
    print_message("%d updates of 8 workers, differing by %.1e\n", (int)out.updates, sqrt(difference / norm));
    assert_true(sqrt(difference / norm) < 1e-6);
    skald_outcome_free(&x.out);
    skald_outcome_free(&out);
}

/* A run that diverges: rollbacks, and the history retaken. */
static void rollbacks(void **state) {
    setup s = uneven(&dense, SKALD_SAGA);
    s.objective.loss = SKALD_SQUARED;
    s.train.step = 900;
    s.train.theta = 40;
    s.train.max_passes = 30;
    skald_outcome out = {0};
    if (train(&s, &out) != SKALD_OK) fail_msg("%s", skald_error());
    assert_true(out.rollbacks > 0);
    replayed x = replay(&s, &(skald_replay_options){0});
    if (x.st != SKALD_OK) fail_msg("%s", x.error);
    assert_true(x.same);
    assert_int_equal(x.out.rollbacks, out.rollbacks);
    skald_outcome_free(&x.out);
    skald_outcome_free(&out);
}

/* ---- broken records ------------------------------------------------------------------------------------ */

static void broken(void **state) {
    setup s = uneven(&sparse, SKALD_SAGA);
    skald_outcome out = {0};
    char where[64];
    assert_int_equal(train(&s, &out), SKALD_OK);
    size_t size;
    char *text = slurp(&size);

    /* killed in the middle of a line */
    char *half = text + size / 2;
    while (*half == '\n' || half[-1] == '\n') half++;
    spill(text, (size_t)(half - text));
    snprintf(where, sizeof where, ".record:%u:", line_of(text, half));
    refused(&s, where, "breaks off");
    replayed x = replay(&s, &(skald_replay_options){.partial = true});
    if (x.st != SKALD_OK) fail_msg("%s", x.error);
    assert_true(!x.same && x.out.updates > 0 && x.out.updates < out.updates && x.out.stop == SKALD_STOP_INTERRUPTED);
    skald_outcome_free(&x.out);

    /* two results exchanged; a step; a line that is none; a draw; the last bit of the model */
    char *merge = strstr(half, "{\"do\":\"merge\""), *step = strstr(merge, "\"step\":");
    snprintf(where, sizeof where, ".record:%u:", line_of(text, merge));
    const char digit = step[9];
    step[9] = digit == '7' ? '8' : '7';
    spill(text, size);
    refused(&s, where, "merge of task");
    step[9] = digit;
    merge[2] = 'x';
    spill(text, size);
    refused(&s, where, "\"do\" is none of");
    merge[2] = 'd';
    merge[0] = '[';
    spill(text, size);
    refused(&s, where, "not a line of a record");
    merge[0] = '{';
    char *task = strstr(half, "\"kind\":\"local\"");
    task[8] = 'f';
    spill(text, size);
    snprintf(where, sizeof where, ".record:%u:", line_of(text, task));
    refused(&s, where, "the run hands out local");
    task[8] = 'l';
    char *model = strstr(half, "\"model\":\"");
    model[9] = model[9] == '0' ? '1' : '0';
    spill(text, size);
    snprintf(where, sizeof where, ".record:%u:", line_of(text, model));
    refused(&s, where, "other bits");

    spill("{\"event\":\"start\"}\n", 18);
    refused(&s, ".record:1:", "not a record");
    spill("", 0);
    refused(&s, ".record:1:", "begin with a line");
    free(text);
    skald_outcome_free(&out);
}

static void other_data(void **state) {
    setup s = uneven(&sparse, SKALD_SAGA);
    s.train.max_passes = 2;
    skald_outcome out = {0};
    assert_int_equal(train(&s, &out), SKALD_OK);
    toy t = sparse;
    t.seed++;
    toy_write(&t, "replay");
    replayed x = replay(&s, &(skald_replay_options){0});
    assert_int_equal(x.st, SKALD_EDATA);
    assert_non_null(strstr(x.error, "not the data recorded"));
    skald_outcome_free(&x.out);
    skald_outcome_free(&out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(saga_sparse), cmocka_unit_test(saga_intercept_two_threads),
        cmocka_unit_test(sgd),         cmocka_unit_test(sgd_plain_and_sync),
        cmocka_unit_test(svrg),        cmocka_unit_test(synthesis),
        cmocka_unit_test(by_version),  cmocka_unit_test(either_history),
        cmocka_unit_test(rollbacks),   cmocka_unit_test(broken),
        cmocka_unit_test(other_data),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path);
    return failed;
}
