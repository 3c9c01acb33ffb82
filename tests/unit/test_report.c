/* The progress line fits, the log is JSON whatever the numbers, the status survives what a peer may send. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "report/report.h"

static skald_progress some_progress(void) {
    skald_progress p = {.seconds = 12.5,
                        .passes = 3.25,
                        .rows_per_s = 1234567,
                        .updates_per_s = 88,
                        .estimated_objective = 0.123456789,
                        .last_objective = 0.2,
                        .last_gap = 1e-5,
                        .staleness_mean = 2.5,
                        .staleness_max = 9,
                        .workers = 4,
                        .slowest = 2,
                        .slowest_ratio = 3.1};
    snprintf(p.slowest_name, sizeof p.slowest_name, "worker-3");
    return p;
}

/* Seen to fail when the gap between fields was not counted. */
static void line_fits_any_width(void **state) {
    skald_progress p = some_progress();
    char line[300];
    for (size_t width = 0; width < 200; width++) {
        size_t length = skald_progress_format(&p, width, line, sizeof line);
        assert_int_equal(length, strlen(line));
        assert_true(length <= width);
    }
    assert_string_equal(line, "pass 3.2  F ~0.1234568  gap 1.0e-05  1.2M rows/s  88 updates/s  stale 2.5/9  "
                              "slowest worker-3 3.1x  12.5 s");
    char tiny[8];
    assert_true(skald_progress_format(&p, 100, tiny, sizeof tiny) < sizeof tiny);
}

/* Only an evaluated objective comes without ~. */
static void estimates_are_marked(void **state) {
    skald_progress p = some_progress();
    char line[300];
    p.estimated_objective = NAN;
    skald_progress_format(&p, 200, line, sizeof line);
    assert_non_null(strstr(line, "F 0.2"));
    assert_null(strchr(line, '~'));
    p.last_objective = p.last_gap = NAN;
    skald_progress_format(&p, 200, line, sizeof line);
    assert_null(strstr(line, "nan"));
}

static void counts(void **state) {
    char out[32];
    assert_string_equal(skald_count_format(0, out, sizeof out), "0");
    assert_string_equal(skald_count_format(999, out, sizeof out), "999");
    assert_string_equal(skald_count_format(1234, out, sizeof out), "1.2k");
    assert_string_equal(skald_count_format(45678, out, sizeof out), "46k");
    assert_string_equal(skald_count_format(1e30, out, sizeof out), "1000000000000000P");
}

static int complaints;
static void complain(void *user, const char *text) {
    complaints++;
    assert_non_null(strstr(text, "cannot write the log"));
}

/* /dev/full takes the open and refuses the write: said once, and nothing else happens. Seen to fail (three
 * complaints) without the `failed` flag. */
static void full_disk_is_said_once(void **state) {
    skald_runlog log;
    skald_evaluation e = {.objective = 1};
    complaints = 0;
    assert_int_equal(skald_runlog_open(&log, "/dev/full", complain, NULL), SKALD_OK);
    for (int i = 0; i < 3; i++) skald_runlog_evaluation(&log, &e);
    assert_int_equal(complaints, 1);
    skald_runlog_close(&log);
    assert_int_equal(skald_runlog_open(&log, "/nowhere/run.jsonl", complain, NULL), SKALD_EIO);
}

static void log_is_json_a_line(void **state) {
    char path[] = "/tmp/skald-test-XXXXXX", line[4096];
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    skald_runlog log;
    skald_worker_row row = {.name = "w \"quoted\"", .device = "cpu", .alive = true, .task_ms_mean = NAN};
    skald_outcome outcome = {
        .stop = SKALD_STOP_GAP, .reached = true, .worker_count = 1, .workers = &row, .audit_drift = -1};
    skald_evaluation e = {.objective = 0.1 + 0.2, .gap = INFINITY, .relative_gap = NAN, .accuracy = NAN};
    assert_int_equal(skald_runlog_open(&log, path, complain, NULL), SKALD_OK);
    skald_runlog_evaluation(&log, &e);
    skald_runlog_notice(&log, 1.5, "a \"notice\"\n");
    skald_runlog_end(&log, NULL, &outcome, "why");
    skald_runlog_close(&log);
    FILE *file = fopen(path, "r");
    int lines = 0;
    while (fgets(line, sizeof line, file)) {
        json_t *o = json_loads(line, 0, NULL);
        assert_non_null(o);
        assert_non_null(json_object_get(o, "event"));
        if (lines == 0) {
            assert_true(json_real_value(json_object_get(o, "objective")) == 0.1 + 0.2); /* every bit */
            assert_true(json_is_null(json_object_get(o, "gap")));
        }
        json_decref(o);
        lines++;
    }
    assert_int_equal(lines, 3);
    fclose(file);
    unlink(path);
}

/* Seen to fail when control characters were let through. */
static void status_round_trip_and_garbage(void **state) {
    skald_worker_row row = {.name = "one", .device = "cpu", .alive = true, .tasks = 7, .staleness_max = 3};
    skald_train_options options = {.mode = SKALD_SYNC, .algo = SKALD_SAGA};
    const skald_problem problem = {.features = 3, .n = 10, .objective = {.loss = SKALD_LOGISTIC, .classes = 1}};
    skald_outcome outcome = {.reached = true, .passes = 2.5, .worker_count = 1, .workers = &row, .audit_drift = -1};
    skald_status_view view;
    char *json = skald_outcome_status(&options, &problem, &outcome);
    assert_int_equal(skald_status_parse(json, &view), SKALD_OK);
    assert_true(view.ended && view.reached && view.worker_count == 1);
    assert_string_equal(view.workers[0].name, "one");
    assert_int_equal(view.workers[0].tasks, 7);
    assert_string_equal(view.mode, "sync");
    free(json);
    skald_status_view_free(&view);

    static const char *const bad[] = {"", "[]", "{", "3", "null", "{\"a\":1,\"a\":2}"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(skald_status_parse(bad[i], &view), SKALD_EPEER);
        skald_status_view_free(&view);
    }
    /* wrong types and hostile text: no crash, no control characters for the terminal */
    assert_int_equal(skald_status_parse("{\"state\":\"\\u001b[2J\",\"passes\":\"x\",\"workers\":[1,{\"tasks\":-4}],"
                                        "\"audit\":[],\"problem\":{\"loss\":\"logistic\",\"labels\":[1,2,3]}}",
                                        &view),
                     SKALD_OK);
    assert_string_equal(view.state, "?[2J");
    assert_int_equal(view.worker_count, 2);
    assert_int_equal(view.workers[1].tasks, 0);
    assert_false(view.has_problem);
    skald_status_view_free(&view);
}

/* Seen to fail when equals were not kept as they joined, and when worker-10 came before worker-9. */
static void top_sorts_and_filters(void **state) {
    skald_worker_row rows[4] = {{.name = "node-10", .state = "busy", .tasks = 5, .slowdown = 1},
                                {.name = "node-9", .state = "dead", .tasks = 7, .slowdown = 3, .cause = "Sending"},
                                {.name = "node-1", .state = "busy", .tasks = 5, .slowdown = 1},
                                {.name = "other", .state = "busy", .tasks = 9, .slowdown = 1, .device = "cuda:1"}};
    static const struct {
        skald_top_key key;
        bool down;
        const char *filter;
        uint32_t count, order[4];
    } cases[] = {{SKALD_TOP_NUMBER, false, NULL, 4, {0, 1, 2, 3}}, {SKALD_TOP_NUMBER, true, "", 4, {3, 2, 1, 0}},
                 {SKALD_TOP_NAME, false, NULL, 4, {2, 1, 0, 3}},   {SKALD_TOP_TASKS, true, NULL, 4, {3, 1, 0, 2}},
                 {SKALD_TOP_TASKS, false, NULL, 4, {0, 2, 1, 3}},  {SKALD_TOP_SLOWDOWN, true, "NODE", 3, {1, 0, 2}},
                 {SKALD_TOP_STATE, false, "busy", 3, {0, 2, 3}},   {SKALD_TOP_NAME, false, "CUDA", 1, {3}},
                 {SKALD_TOP_NAME, false, "sending", 1, {1}},       {SKALD_TOP_NAME, false, "nobody", 0, {0}}};
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        uint32_t order[4] = {0};
        assert_int_equal(skald_top_order(rows, 4, cases[k].key, cases[k].down, cases[k].filter, order), cases[k].count);
        assert_memory_equal(order, cases[k].order, cases[k].count * sizeof *order);
    }
    skald_top_key key = SKALD_TOP_WAIT;
    assert_false(skald_top_letter('q', &key) || skald_top_letter('\0', &key));
    assert_int_equal(key, SKALD_TOP_WAIT);
    assert_true(skald_top_letter('x', &key));
    assert_int_equal(key, SKALD_TOP_SLOWDOWN);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(line_fits_any_width),           cmocka_unit_test(top_sorts_and_filters),
        cmocka_unit_test(estimates_are_marked),          cmocka_unit_test(counts),
        cmocka_unit_test(full_disk_is_said_once),        cmocka_unit_test(log_is_json_a_line),
        cmocka_unit_test(status_round_trip_and_garbage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
