/* Expressions of barriers and policies: values, precedence, and where the caret stands. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/base.h"
#include "base/expression.h"

static const skald_name names[] = {{"avail", "workers with a free slot"}, {"workers", "all"}, {"max_stale", "worst"}};
static const double values[] = {7, 10, 3};

static double value(const char *text) {
    skald_expression *e = NULL;
    if (skald_expression_parse(text, names, 3, &e) != SKALD_OK) fail_msg("%s: %s", text, skald_error());
    const double v = skald_expression_value(e, values);
    skald_expression_free(e);
    return v;
}

/* Seen to fail: with '-' taken from the right, and with '!' that binds tighter than '<'. */
static void values_are_right(void **state) {
    assert_true(value("1") == 1);
    assert_true(value(" 2+3*4 ") == 14);
    assert_true(value("(2+3)*4") == 20);
    assert_true(value("10-3-2") == 5);
    assert_true(value("16/4/2") == 2);
    assert_true(value("-2*-3") == 6);
    assert_true(value("--2") == 2);
    assert_true(value("avail >= 0.7*workers && max_stale < 16") == 1);
    assert_true(value("avail >= 0.8*workers || max_stale < 2") == 0);
    assert_true(value("!avail < 3") == 1);
    assert_true(value("!(avail == 7)") == 0);
    assert_true(value("1 || 0 && 0") == 1);
    assert_true(value("min(avail, 3) + max(workers, 2*6)") == 15);
    assert_true(value("max_stale!=3") == 0);
    assert_true(value("1e2 <= 100") == 1);
}

/* The message's last line has the caret under `column`. */
static void refused(const char *text, const char *words, int column) {
    skald_expression *e = NULL;
    assert_int_equal(skald_expression_parse(text, names, 3, &e), SKALD_EINVAL);
    assert_null(e);
    if (!strstr(skald_error(), words)) fail_msg("'%s' does not say '%s'", skald_error(), words);
    if (column < 0) return;
    const char *line = strrchr(skald_error(), '\n');
    assert_non_null(line);
    assert_int_equal(strcspn(line + 1, "^"), 2 + column);
}

static void mistakes_are_pointed_at(void **state) {
    refused("", "a number, a name or '(' expected here", 0);
    refused("avail >= 0.7*wokers", "unknown name 'wokers': known are avail, workers, max_stale", 13);
    refused("avail >=", "a number, a name or '(' expected here", 8);
    refused("(avail", "')' expected here", 6);
    refused("avail workers", "an operator or the end expected here", 6);
    refused("avail & 1", "an operator or the end expected here", 6);
    refused("1 < 2 < 3", "an operator or the end expected here", 6);
    refused("min(1)", "',' expected here", 5);
    refused("min", "'(' expected here", 3);
    refused("avail)", "an operator or the end expected here", 5);
    refused(".", "not a number", 0);
    refused("1e999", "not a number", 0);
    refused("avail\t> 1\n", "cannot be printed", -1);
    char deep[200];
    memset(deep, '(', sizeof deep - 1);
    deep[sizeof deep - 1] = 0;
    refused(deep, "more than 32 levels deep", 32);
    memset(deep, '!', sizeof deep - 1);
    refused(deep, "more than 32 levels deep", 32);
    char *longer = malloc(1200);
    memset(longer, '1', 1199);
    longer[1199] = 0;
    refused(longer, "at most 1000", -1);
    free(longer);
}

/* As deep as it may be, with an operand left waiting at every level. */
static void the_deepest_fits_the_stack(void **state) {
    char text[1000] = "";
    for (int k = 0; k < 31; k++) strcat(text, "1||1&&1<1+1*(");
    strcat(text, "1");
    for (int k = 0; k < 31; k++) strcat(text, ")");
    assert_true(value(text) == 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(values_are_right), cmocka_unit_test(mistakes_are_pointed_at),
                                       cmocka_unit_test(the_deepest_fits_the_stack)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
