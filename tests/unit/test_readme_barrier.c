/* The README's example of a barrier, as it stands there: compiled, and run with a straggler. */
#include "harness.h"

#include "readme/barrier.inc"

static void the_barrier_of_the_readme(void **state) {
    static const toy t = {600, 20, 1, SKALD_LOGISTIC, false, 41};
    setup s = setup_default(toy_write(&t, "readme"));
    s.workers = 4;
    s.net = skald_net_inproc();
    s.address = "inproc:readme";
    s.pace_all_ms = 1;
    s.straggler = "cds:3";
    s.train.target_gap = 1e-8;
    use_it(&s.train);
    skald_outcome out;
    if (train(&s, &out) != SKALD_OK) fail_msg("%s", skald_error());
    print_message("%d updates, staleness max %d\n", (int)out.updates, (int)out.staleness_max);
    assert_true(out.last.relative_gap <= 1e-8);
    assert_true(out.staleness_max > 0 && out.staleness_max < 12); /* its bound */
    skald_outcome_free(&out);
    unlink(s.data.path);

    uint64_t bound = 12; /* and its other rules */
    skald_overview all = {.workers = 4, .avail = 1};
    skald_worker_view one = {.slowdown = 1};
    assert_false(patient(&bound, &all, &one));
    one.slowdown = 3;
    assert_true(patient(&bound, &all, &one));
    all.max_stale = 13;
    assert_false(patient(&bound, &all, &one));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_barrier_of_the_readme)};
    return cmocka_run_group_tests_name("readme", tests, NULL, NULL);
}
