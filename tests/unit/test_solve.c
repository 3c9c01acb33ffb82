/* The local engine reaches the optimum that an independent solver finds. */
#include "harness.h"

static void check(setup *s, const char *what, double bound) {
    skald_outcome out;
    skald_status st = train(s, &out);
    if (st != SKALD_OK) print_message("%s: %s\n", what, skald_error());
    assert_int_equal(st, SKALD_OK);
    double e = excess(s, &out);
    print_message("%-40s passes %6.1f  gap %9.2e  excess %9.2e  rollbacks %d  evals %d  (%s)\n", what, out.passes,
                  out.last.relative_gap, e, (int)out.rollbacks, (int)out.evaluations, skald_stop_name(out.stop));
    assert_true(e <= bound);
    assert_true(e >= -1e-9);
    skald_outcome_free(&out);
}

static void saga_every_loss(void **state) {
    const skald_loss losses[] = {SKALD_LOGISTIC, SKALD_SQUARED, SKALD_SQUARED_HINGE, SKALD_HUBER};
    for (int sparse = 0; sparse < 2; sparse++)
        for (int l = 0; l < 4; l++)
            for (int intercept = 0; intercept < 2; intercept++)
                for (int local = 0; local < 2; local++) {
                    toy t = {800, 30, sparse ? 0.15 : 1, losses[l], false, 5};
                    setup s = setup_default(toy_write(&t, "loss"));
                    s.objective.loss = losses[l];
                    s.data.intercept = intercept;
                    s.train.local = local;
                    s.train.max_passes = 400;
                    char what[80];
                    snprintf(what, sizeof what, "%s %s%s %s", sparse ? "csr" : "dense", skald_loss_name(losses[l]),
                             intercept ? "+b" : "", local ? "local" : "plain");
                    check(&s, what, 1e-8);
                    unlink(s.data.path);
                }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(saga_every_loss)};
    return cmocka_run_group_tests_name("solve", tests, NULL, NULL);
}
