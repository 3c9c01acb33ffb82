/* What of a worker's computing is usual. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/base.h"
#include "worker/busy.h"

/* Tasks as they are, with the small one that ends an epoch; longer ones by their rows. Seen to fail with times by row,
 * of which the small one's is the largest. */
static void usual_times(void **state) {
    const int64_t ms = 1000000;
    skald_times t = {.count = 0};
    assert_int_equal(skald_times_usual(&t, 1000), 0);
    for (int k = 0; k < 3 * SKALD_TIMES; k++) {
        const bool last = k % 10 == 9;
        skald_times_add(&t, last ? 1 : 1000, last ? 5 * ms : 10 * ms);
    }
    assert_int_equal(skald_times_usual(&t, 1), 10 * ms);
    assert_int_equal(skald_times_usual(&t, 1000), 10 * ms);
    assert_int_equal(skald_times_usual(&t, 100000), 1000 * ms);
    skald_times_add(&t, 1000, 1000 * ms); /* one that took long once */
    assert_int_equal(skald_times_usual(&t, 1000), 10 * ms);
    for (int k = 0; k < SKALD_TIMES; k++) skald_times_add(&t, 500, 2 * ms);
    assert_int_equal(skald_times_usual(&t, 500), 2 * ms);
    assert_int_equal(skald_times_usual(&t, 1000), 4 * ms);
}

/* Each lane by itself; time in which nobody looked is none of theirs. Seen to fail with such time counted. */
static void lanes_and_gaps(void **state) {
    skald_busy b;
    assert_int_equal(skald_busy_init(&b, 3), SKALD_OK);
    const int64_t s = SKALD_NS_PER_S, start = skald_now_ns(skald_clock_system());
    skald_busy_look(&b, start);
    skald_busy_begin(&b, 0, 1);
    skald_busy_begin(&b, 2, 1);
    b.lanes[0].since_ns = start;
    b.lanes[2].since_ns = start + s / 2;
    skald_busy_look(&b, start + s);
    assert_int_equal(skald_busy_tell(&b, start + s), 2);
    assert_true(b.busy_ns[0] == (uint64_t)s && b.busy_ns[1] == (uint64_t)s / 2);
    assert_true(b.usual_ns[0] == 0);
    skald_busy_look(&b, start + 50 * s); /* stopped meanwhile */
    assert_int_equal(skald_busy_tell(&b, start + 50 * s), 2);
    assert_true(b.busy_ns[0] == (uint64_t)s && b.busy_ns[1] == (uint64_t)s / 2);
    b.lanes[0].since_ns = start - 3 * s;
    skald_busy_end(&b, 0, true);
    assert_int_equal(skald_busy_tell(&b, start + 51 * s), 1);
    assert_true(b.busy_ns[0] == (uint64_t)(3 * s / 2) && b.usual_ns[0] >= (uint64_t)(3 * s));
    skald_busy_fini(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(usual_times), cmocka_unit_test(lanes_and_gaps)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
