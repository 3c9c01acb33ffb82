/* The option table: precedence, ranges, words, units, suggestions. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/options.h"

typedef struct values {
    int64_t workers, wait, memory;
    double step, l2;
    int mode;
    const char *log;
    bool quiet;
} values;

#define AT(member) offsetof(values, member)

static const skald_option table[] = {
    {"workers", SKALD_OPTION_INT, AT(workers), "2", 0, 4096, "cores=-1", .help = "Processes"},
    {"wait", SKALD_OPTION_DURATION, AT(wait), "30s", 0, 1e6, .help = "Patience"},
    {"memory", SKALD_OPTION_BYTES, AT(memory), NULL, 1, 1e12, .help = "Memory"},
    {"step", SKALD_OPTION_REAL, AT(step), "auto", SKALD_POSITIVE, INFINITY, "auto=0", .help = "Step"},
    {"l2", SKALD_OPTION_REAL, AT(l2), "1/n", 0, INFINITY, "1/n=-1", .help = "Regulariser"},
    {"mode", SKALD_OPTION_CHOICE, AT(mode), "async", .words = "async|sync", .help = "Mode"},
    {"log", SKALD_OPTION_TEXT, AT(log), .help = "Log"},
    {"quiet", SKALD_OPTION_FLAG, AT(quiet), .help = "Quiet"},
    {0},
};

enum { WORKERS, WAIT, MEMORY, STEP, L2, MODE, LOG, QUIET };

static values v;
static skald_options set;

static int begin(void **state) {
    memset(&v, 0, sizeof v);
    return skald_options_init(&set, table, &v);
}

static int end(void **state) {
    skald_options_fini(&set);
    return 0;
}

static void defaults_are_set(void **state) {
    assert_int_equal(v.workers, 2);
    assert_int_equal(v.wait, 30000000000);
    assert_true(v.step == 0 && v.l2 == -1);
    assert_int_equal(v.mode, 0);
    assert_null(v.log);
    assert_false(skald_options_given(&set, "workers"));
}

/* Seen to fail with a set that keeps what the environment said. */
static void command_line_beats_environment(void **state) {
    setenv("SKALD_WORKERS", "5", 1);
    setenv("SKALD_LOG", "from-environment", 1);
    assert_int_equal(skald_options_environment(&set), SKALD_OK);
    assert_int_equal(v.workers, 5);
    assert_int_equal(skald_options_set(&set, WORKERS, "7", SKALD_FROM_COMMAND), SKALD_OK);
    assert_int_equal(v.workers, 7);
    assert_string_equal(v.log, "from-environment");
    assert_true(skald_options_given(&set, "log"));
    unsetenv("SKALD_WORKERS");
    unsetenv("SKALD_LOG");
}

static void refused(size_t index, const char *text, const char *part) {
    assert_int_equal(skald_options_set(&set, index, text, SKALD_FROM_COMMAND), SKALD_EINVAL);
    if (!strstr(skald_error(), part)) fail_msg("'%s' does not say '%s'", skald_error(), part);
}

/* Seen to fail without the check for finite numbers (inf as a step, another message for nan). */
static void bad_values_name_option_value_and_range(void **state) {
    refused(WORKERS, "-3", "--workers -3: is out of range; may be cores or 0 to 4096");
    refused(WORKERS, "5000", "0 to 4096");
    refused(WORKERS, "2.5", "not a whole number");
    refused(WORKERS, "two", "not a number");
    refused(WORKERS, "", "not a number");
    refused(WORKERS, " 3", "not a number");
    refused(WORKERS, "3x", "not a number");
    refused(WORKERS, "1e99", "out of range");
    refused(STEP, "0", "more than 0");
    refused(STEP, "nan", "not a number");
    refused(STEP, "inf", "not a number");
    refused(L2, "-1", "at least 0");
    refused(WAIT, "5 weeks", "duration");
    refused(WAIT, "-5s", "out of range");
    refused(MEMORY, "3q", "size");
    refused(MODE, "ssp", "may be async|sync");
    refused(MODE, "", "may be async|sync");
    refused(LOG, "", "empty");
    refused(QUIET, "maybe", "neither yes nor no");
    assert_int_equal(v.workers, 2); /* a refused value changes nothing */
    setenv("SKALD_WORKERS", "many", 1);
    assert_int_equal(skald_options_environment(&set), SKALD_EINVAL);
    assert_non_null(strstr(skald_error(), "SKALD_WORKERS many"));
    unsetenv("SKALD_WORKERS");
}

static void units_and_words(void **state) {
    static const struct {
        const char *text;
        int64_t ns;
    } waits[] = {{"250ms", 250000000}, {"5m", 300000000000}, {"2h", 7200000000000}, {"1.5", 1500000000}, {"0", 0}};
    for (size_t i = 0; i < sizeof waits / sizeof *waits; i++) {
        assert_int_equal(skald_options_set(&set, WAIT, waits[i].text, SKALD_FROM_COMMAND), SKALD_OK);
        assert_int_equal(v.wait, waits[i].ns);
    }
    assert_int_equal(skald_options_set(&set, MEMORY, "16M", SKALD_FROM_COMMAND), SKALD_OK);
    assert_int_equal(v.memory, 16 << 20);
    assert_int_equal(skald_options_set(&set, WORKERS, "cores", SKALD_FROM_COMMAND), SKALD_OK);
    assert_int_equal(v.workers, -1);
    assert_int_equal(skald_options_set(&set, L2, "1e-4", SKALD_FROM_COMMAND), SKALD_OK);
    assert_true(v.l2 == 1e-4);
    assert_int_equal(skald_options_set(&set, MODE, "sync", SKALD_FROM_COMMAND), SKALD_OK);
    assert_int_equal(v.mode, 1);
    assert_int_equal(skald_options_set(&set, QUIET, "yes", SKALD_FROM_COMMAND), SKALD_OK);
    assert_true(v.quiet);
    assert_int_equal(skald_options_set(&set, QUIET, "off", SKALD_FROM_COMMAND), SKALD_OK);
    assert_false(v.quiet);
}

static void names_are_found_and_guessed(void **state) {
    assert_int_equal(skald_options_find(&set, "workers", 7), WORKERS);
    assert_int_equal(skald_options_find(&set, "qui", 3), QUIET);
    assert_int_equal(skald_options_find(&set, "w", 1), -1); /* workers, wait */
    assert_int_equal(skald_options_find(&set, "nothing", 7), -1);
    assert_string_equal(skald_options_nearest(&set, "wrokers", 7), "workers");
    assert_string_equal(skald_options_nearest(&set, "quite", 5), "quiet");
    assert_null(skald_options_nearest(&set, "frobnicate", 10));
    assert_int_equal(skald_edit_distance("kitten", 6, "sitting"), 3);
    assert_int_equal(skald_edit_distance("", 0, "abc"), 3);
}

static void dump_tells_value_and_source(void **state) {
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    assert_int_equal(skald_options_set(&set, MODE, "sync", SKALD_FROM_COMMAND), SKALD_OK);
    skald_options_dump(&set, out);
    fclose(out);
    assert_non_null(strstr(text, "sync"));
    assert_non_null(strstr(text, "# command line"));
    assert_non_null(strstr(text, "# default"));
    assert_non_null(strstr(text, "(none)"));
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(defaults_are_set, begin, end),
        cmocka_unit_test_setup_teardown(command_line_beats_environment, begin, end),
        cmocka_unit_test_setup_teardown(bad_values_name_option_value_and_range, begin, end),
        cmocka_unit_test_setup_teardown(units_and_words, begin, end),
        cmocka_unit_test_setup_teardown(names_are_found_and_guessed, begin, end),
        cmocka_unit_test_setup_teardown(dump_tells_value_and_source, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
