/* A recorded run of eight workers of uneven pace, over the real net, is replayed in one process to the same bits; a
 * record that is broken or edited is refused by file and line.
 *
 * Seen to fail: without the carries of skald_narrow in the company, with the chain's start left out (after = 0), and
 * with the model not rounded to floats on its way. */
#include "harness.h"
#include "replay/simulation.h"

static char path[128];

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

/* A limit is reached while nothing comes and nobody can be given anything. Seen to fail (the run on record stops, the
 * replay goes on) with ticks on record only before a task. */
static void time_is_up_in_silence(void **state) {
    setup s = uneven(&sparse, SKALD_SAGA);
    s.workers = 2;
    s.pace_ms[0] = s.pace_ms[1] = 300;
    s.train.target_gap = s.train.max_passes = 0;
    s.train.max_seconds = 0.85;
    skald_outcome out = {0};
    if (train(&s, &out) != SKALD_OK) fail_msg("%s", skald_error());
    assert_int_equal(out.stop, SKALD_STOP_TIME);
    replayed x = replay(&s, &(skald_replay_options){0});
    if (x.st != SKALD_OK) fail_msg("%s", x.error);
    assert_true(x.same && x.out.stop == SKALD_STOP_TIME && x.out.seconds == out.seconds);
    skald_outcome_free(&x.out);
    skald_outcome_free(&out);
}

/* ---- members that come and go: over a net, in test_elastic ----------------------------------------------- */

static skald_status simulate(const setup *s, const skald_timing *timing, uint32_t workers, skald_outcome *out) {
    const skald_compute_options compute = {.device = "cpu", .threads = 1};
    skald_simulation *sim = NULL;
    assert_int_equal(skald_simulation_open(&s->data, &s->objective, &compute, workers, timing, &sim), SKALD_OK);
    const skald_status st = train_on_record(s, skald_simulation_crew(sim), skald_simulation_clock(sim), out);
    skald_simulation_close(sim);
    return st;
}

/* Two of four die. */
static void killed(void **state) {
    static const skald_algo algos[] = {SKALD_SAGA, SKALD_SAGA, SKALD_SVRG, SKALD_SYNTHESIS, SKALD_SGD};
    skald_stragglers kill;
    assert_int_equal(skald_stragglers_parse("kill:2@0.3,kill:0@0.7", &kill), SKALD_OK);
    const skald_timing timing = {.message_ns = -1, .coordinator_ns = -1, .pace_ns = 20000000, .stragglers = &kill};
    for (int mode = 0; mode < 2; mode++)
        for (size_t a = 0; a < SKALD_ARRAY_LENGTH(algos); a++) {
            setup s = uneven(&sparse, algos[a]);
            skald_outcome out = {0};
            s.data.shards = 7;
            s.train.mode = (skald_mode)mode;
            s.train.history_versions = a == 1 ? 6 : 0;
            s.train.max_passes = 40;
            if (simulate(&s, &timing, 4, &out) != SKALD_OK) fail_msg("%s", skald_error());
            assert_true(out.seconds > 0.7 && out.workers[0].rows_held == 0 && out.workers[2].rows_held == 0);
            replayed x = replay(&s, &(skald_replay_options){0});
            if (x.st != SKALD_OK) fail_msg("%s, mode %d: %s", skald_algo_name(algos[a]), mode, x.error);
            assert_true(x.same && x.out.updates == out.updates && x.out.seconds == out.seconds);
            assert_memory_equal(x.out.w, out.w, sizeof(double) * 40);
            skald_outcome_free(&x.out);
            skald_outcome_free(&out);
        }
    skald_stragglers_free(&kill);
}

/* What the record says became of results is what the engine counted, whatever decides it. Seen to fail: with what the
 * preset says rather than the merge (rules, reject). */
static void fates_are_those_counted(void **state) {
    static const struct {
        const char *text;
        skald_algo algo;
    } policies[] = {{"scale", SKALD_SAGA},
                    {"apply", SKALD_SAGA},
                    {"adapt", SKALD_SAGA},
                    {"fold", SKALD_SAGA},
                    {"reject", SKALD_SGD},
                    {"scale if staleness > 1000, apply", SKALD_SAGA},
                    {"apply if worker < 3, scale", SKALD_SAGA},
                    {"reject if staleness > 12, fold if staleness > 9, adapt if staleness > 7, apply", SKALD_SGD}};
    static const char *const words[] = {"apply", "scale", "fold", "reject"};
    skald_stragglers cds;
    assert_int_equal(skald_stragglers_parse("cds:4", &cds), SKALD_OK);
    const skald_timing timing = {.message_ns = -1, .coordinator_ns = -1, .pace_ns = 20000000, .stragglers = &cds};
    uint64_t all[4] = {0};
    for (size_t k = 0; k < SKALD_ARRAY_LENGTH(policies); k++) {
        setup s = uneven(&sparse, policies[k].algo);
        skald_stale_rules *rules = NULL;
        s.train.max_stale = 9;
        assert_int_equal(skald_stale_parse(policies[k].text, &s.train.stale, &rules), SKALD_OK);
        s.train.stale_rules = rules;
        skald_outcome out = {0};
        if (simulate(&s, &timing, 4, &out) != SKALD_OK) fail_msg("%s", skald_error());
        const uint64_t counted[] = {out.applied, out.scaled, out.folded, out.rejected};
        uint64_t recorded[4] = {0};
        skald_record record;
        assert_int_equal(skald_record_open(s.record, &record), SKALD_OK);
        for (; record.line.kind != SKALD_RECORD_END; assert_int_equal(skald_record_next(&record), SKALD_OK))
            for (int i = 0; i < 4; i++)
                recorded[i] += record.line.kind == SKALD_RECORD_MERGE && strcmp(record.line.what, words[i]) == 0;
        skald_record_close(&record);
        for (int i = 0; i < 4; i++) {
            all[i] += counted[i];
            if (recorded[i] != counted[i])
                fail_msg("'%s': %s %d on record, %d counted", policies[k].text, words[i], (int)recorded[i],
                         (int)counted[i]);
        }
        replayed x = replay(&s, &(skald_replay_options){0});
        if (x.st != SKALD_OK) fail_msg("%s: %s", policies[k].text, x.error);
        assert_true(x.same);
        skald_outcome_free(&x.out);
        skald_outcome_free(&out);
        skald_stale_free(rules);
    }
    for (int i = 0; i < 4; i++) assert_true(all[i] > 0);
    skald_stragglers_free(&cds);
}

/* What cannot be: the line is named. */
static void wrong_members(void **state) {
    skald_stragglers kill;
    assert_int_equal(skald_stragglers_parse("kill:1@0.1", &kill), SKALD_OK);
    const skald_timing timing = {.message_ns = -1, .coordinator_ns = -1, .pace_ns = 20000000, .stragglers = &kill};
    setup s = uneven(&sparse, SKALD_SAGA);
    skald_outcome out = {0};
    char where[64];
    if (simulate(&s, &timing, 3, &out) != SKALD_OK) fail_msg("%s", skald_error());
    size_t size;
    char *text = slurp(&size), *lost = strstr(text, "{\"do\":\"lost\""), *end = strchr(lost, '\n');
    char *edited = calloc(size + 200, 1), *at = edited + (lost - text);
    static const struct {
        const char *line, *why;
    } wrong[] = {
        {"{\"do\":\"lost\",\"t\":1,\"worker\":7,\"reason\":\"\"}", "a loss of worker 7, who is not there"},
        {"{\"do\":\"leased\",\"t\":1,\"worker\":1,\"shard\":0}", "a lease of shard 0, which is worker "},
        {"{\"do\":\"leased\",\"t\":1,\"worker\":1,\"shard\":999}", "shard 999, which there is not"},
        {"{\"do\":\"withdrawn\",\"t\":1,\"worker\":1,\"shard\":999}", "which worker 1 has not"},
        {"{\"do\":\"withdrawn\",\"t\":1,\"worker\":-1,\"shard\":0}", "that there cannot be"},
        {"{\"do\":\"joined\",\"t\":1,\"worker\":3,\"name\":\"d\",\"device\":\"cpu (none)\",\"slots\":1,\"depth\":2}",
         "joins with another device"},
        {"{\"do\":\"joined\",\"t\":1,\"worker\":3,\"name\":\"d\",\"device\":\"cpu\",\"slots\":0,\"depth\":2}",
         "that there cannot be"},
        {"{\"do\":\"joined\",\"t\":1,\"worker\":3}", "not a line of a record"},
    };
    snprintf(where, sizeof where, ".record:%u:", line_of(text, lost));
    for (size_t k = 0; k < SKALD_ARRAY_LENGTH(wrong); k++) {
        memcpy(edited, text, (size_t)(lost - text));
        const size_t length = (size_t)sprintf(at, "%s", wrong[k].line);
        memcpy(at + length, end, size - (size_t)(end - text));
        spill(edited, size + length - (size_t)(end - lost));
        refused(&s, where, wrong[k].why);
    }
    free(edited);
    free(text);
    skald_outcome_free(&out);
    skald_stragglers_free(&kill);
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
        cmocka_unit_test(saga_sparse),   cmocka_unit_test(saga_intercept_two_threads),
        cmocka_unit_test(sgd),           cmocka_unit_test(sgd_plain_and_sync),
        cmocka_unit_test(svrg),          cmocka_unit_test(synthesis),
        cmocka_unit_test(by_version),    cmocka_unit_test(either_history),
        cmocka_unit_test(rollbacks),     cmocka_unit_test(broken),
        cmocka_unit_test(other_data),    cmocka_unit_test(time_is_up_in_silence),
        cmocka_unit_test(killed),        cmocka_unit_test(fates_are_those_counted),
        cmocka_unit_test(wrong_members),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path);
    return failed;
}
