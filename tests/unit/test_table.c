/* The status table: who is slow and why, and that a task's time is accounted for. */
#include "harness.h"

#include "engine/run.h"

enum { CREW = 5 };

static uint32_t crew_size(const skald_crew *crew) {
    return CREW;
}

static const skald_member *crew_member(const skald_crew *crew, uint32_t worker) {
    static skald_member m = {.device = "cpu", .slots = 1, .depth = 1};
    snprintf(m.name, sizeof m.name, "node%u", worker);
    return &m;
}

/* Whatever part of its tasks is longer than the others' is the cause; waiting behind its own long tasks is not. */
static void causes(void **state) {
    static const char *const want[SKALD_PARTS] = {"receiving",  "queued behind", "computing",
                                                  "on purpose", "sending",       "queued at the coordinator"};
    static const skald_crew_ops ops = {.size = crew_size, .member = crew_member};
    skald_crew crew = {.ops = &ops};
    skald_train_options options = {.slow_ratio = 2};
    for (int slow = 0; slow < SKALD_PARTS; slow++) {
        skald_member_state members[CREW] = {{0}};
        skald_run run = {.crew = &crew, .options = &options, .members = members, .size = CREW};
        for (int k = 0; k < CREW; k++) {
            members[k].alive = true;
            members[k].tasks = 20;
            for (int p = 0; p < SKALD_PARTS; p++) members[k].part_ns[p] = 1e6;
            if (k == 3) members[k].part_ns[slow] = 20e6;
            if (k == 3) members[k].part_ns[SKALD_PART_HELD] = 21e6;
            for (int p = 0; p < SKALD_PARTS; p++) members[k].task_ns += members[k].part_ns[p];
        }
        skald_worker_row rows[CREW];
        skald_table_rows(&run, rows);
        for (int k = 0; k < CREW; k++) assert_true((rows[k].cause[0] != 0) == (k == 3));
        if (!strstr(rows[3].cause, want[slow])) fail_msg("'%s', not '%s'", rows[3].cause, want[slow]);
        assert_true(fabs(rows[3].slowdown - members[3].task_ns / 6e6) < 1e-9);
        char text[200];
        skald_slow_text(3, &rows[3], text, sizeof text);
        assert_non_null(strstr(text, "worker 3 (node3, cpu): "));
        options.slow_ratio = 20; /* the threshold is the user's */
        skald_table_rows(&run, rows);
        assert_int_equal(rows[3].cause[0], 0);
        options.slow_ratio = 2;
    }
}

static void count_slow(void *user, const char *text) {
    if (strstr(text, "slow: worker 0 (") && strstr(text, "x the median, delayed on purpose")) ++*(int *)user;
}

/* A real run with a worker that waits: it is named once while it runs and in the table; the parts of its time add up,
 * its delay is what was injected, and the others' is their pace. Seen to fail: with notices at each look. */
static void a_slow_worker_is_named(void **state) {
    static const toy t = {600, 20, 1, SKALD_LOGISTIC, false, 25};
    setup s = setup_default(toy_write(&t, "table"));
    s.workers = 4;
    s.net = skald_net_inproc();
    s.address = "inproc:table";
    s.pace_all_ms = 3;
    s.straggler = "cds:4";
    s.train.target_gap = 0;
    s.train.max_passes = 0;
    s.train.max_seconds = 1.6;
    int named = 0;
    const skald_observer observer = {.user = &named, .notice = count_slow};
    skald_outcome out;
    assert_int_equal(train_with(&s, &out, &observer, NULL, NULL), SKALD_OK);
    assert_int_equal(named, 1);
    for (uint32_t k = 0; k < 4; k++) {
        const skald_worker_row *r = &out.workers[k];
        double sum = 0;
        for (int p = 0; p < SKALD_PARTS; p++) {
            assert_true(r->part_ms[p] >= 0);
            sum += r->part_ms[p];
        }
        print_message("%s: %.2f ms, parts %.2f, delay %.2f, p50 %.2f, p95 %.2f, %s\n", r->name, r->task_ms_mean, sum,
                      r->part_ms[SKALD_PART_DELAY], r->task_ms_p50, r->task_ms_p95, r->cause);
        assert_true(fabs(sum - r->task_ms_mean) < 0.02 * r->task_ms_mean);
        assert_true(r->task_ms_p50 > 0 && r->task_ms_p50 <= r->task_ms_p95);
        if (k == 0) assert_true(r->part_ms[SKALD_PART_DELAY] > 13 && r->part_ms[SKALD_PART_DELAY] < 30);
        if (k == 0) assert_string_equal(r->cause, "delayed on purpose");
    }
    skald_outcome_free(&out);
    unlink(s.data.path);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(causes), cmocka_unit_test(a_slow_worker_is_named)};
    return cmocka_run_group_tests_name("table", tests, NULL, NULL);
}
