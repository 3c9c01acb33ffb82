/* The few words of cmocka that the backend's tests use, for machines with a card and without cmocka: a failed
 * assertion ends its test, as there. */
#ifndef SKALD_TESTS_SMALL_CMOCKA_H
#define SKALD_TESTS_SMALL_CMOCKA_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

struct CMUnitTest {
    const char *name;
    void (*test)(void **state);
};
#define cmocka_unit_test(f)                                                                                            \
    { #f, f }

static jmp_buf small_cmocka_out;
enum { SMALL_FAILED = 1, SMALL_SKIPPED };

__attribute__((format(printf, 3, 4), noreturn, unused)) static void small_cmocka_fail(const char *file, int line,
                                                                                      const char *format, ...) {
    va_list list;
    va_start(list, format);
    fprintf(stderr, "%s:%d: ", file, line);
    vfprintf(stderr, format, list);
    fputc('\n', stderr);
    va_end(list);
    longjmp(small_cmocka_out, SMALL_FAILED);
}

#define SMALL_ASSERT(good, ...)                                                                                        \
    do {                                                                                                               \
        if (!(good)) small_cmocka_fail(__FILE__, __LINE__, __VA_ARGS__);                                               \
    } while (0)
#define fail_msg(...) small_cmocka_fail(__FILE__, __LINE__, __VA_ARGS__)
#define fail() fail_msg("failed")
#define skip() longjmp(small_cmocka_out, SMALL_SKIPPED)
#define assert_true(c) SMALL_ASSERT(c, "%s is false", #c)
#define assert_false(c) SMALL_ASSERT(!(c), "%s is true", #c)
#define assert_null(p) SMALL_ASSERT((p) == NULL, "%s is not NULL", #p)
#define assert_non_null(p) SMALL_ASSERT((p) != NULL, "%s is NULL", #p)
#define assert_int_equal(a, b)                                                                                         \
    do {                                                                                                               \
        const long long a_ = (long long)(a), b_ = (long long)(b);                                                      \
        SMALL_ASSERT(a_ == b_, "%s: %lld != %lld", #a, a_, b_);                                                        \
    } while (0)
#define assert_string_equal(a, b)                                                                                      \
    do {                                                                                                               \
        const char *const a_ = (a), *const b_ = (b);                                                                   \
        SMALL_ASSERT(strcmp(a_, b_) == 0, "\"%s\" != \"%s\"", a_, b_);                                                 \
    } while (0)
#define assert_memory_equal(a, b, n) SMALL_ASSERT(memcmp(a, b, n) == 0, "%s and %s differ", #a, #b)

/* Names, in which one `*` at the end stands for anything. */
static const char *small_cmocka_filter;
#define cmocka_set_test_filter(pattern) ((void)(small_cmocka_filter = (pattern)))
static inline int small_cmocka_wanted(const char *name) {
    const char *f = small_cmocka_filter;
    const size_t length = f ? strlen(f) : 0;
    if (!f) return 1;
    return length && f[length - 1] == '*' ? strncmp(f, name, length - 1) == 0 : strcmp(f, name) == 0;
}

static inline int small_cmocka_run(const struct CMUnitTest *tests, size_t count) {
    volatile int failed = 0;
    volatile size_t skipped = 0, ran = 0;
    for (volatile size_t k = 0; k < count; k++) {
        void *state = NULL;
        if (!small_cmocka_wanted(tests[k].name)) continue;
        ran++;
        printf("[ RUN  ] %s\n", tests[k].name);
        fflush(stdout);
        const int out = setjmp(small_cmocka_out);
        if (out == 0) tests[k].test(&state);
        failed += out == SMALL_FAILED;
        skipped += out == SMALL_SKIPPED;
        printf("[ %s ] %s\n", out == 0 ? "  OK" : out == SMALL_FAILED ? "FAIL" : "SKIP", tests[k].name);
    }
    printf("%d of %zu tests failed, %zu skipped\n", failed, ran, skipped);
    if (ran == 0) fprintf(stderr, "no test is called %s\n", small_cmocka_filter);
    if (ran == 0) return 1;
    return skipped == ran ? 77 : failed; /* ctest's usual code for skipped */
}
#define cmocka_run_group_tests(tests, setup, teardown) small_cmocka_run(tests, sizeof tests / sizeof *tests)

#endif
