/* The README's examples work: taken from it when the build is configured, compiled and run here. */
#include "harness.h"
#include "readme/solver.inc"

/* SAG arrives at the optimum, alone, with three uneven workers, and in rounds. */
static void solver(void **state) {
    for (int how = 0; how < 3; how++) {
        toy t = {600, 15, 1, SKALD_LOGISTIC, false, 41};
        setup s = setup_default(toy_write(&t, "sag"));
        s.workers = how ? 3 : 0;
        s.net = skald_net_inproc();
        s.address = "inproc:readme";
        s.pace_ms[1] = how == 1 ? 2 : 0;
        s.train.mode = how == 2 ? SKALD_SYNC : SKALD_ASYNC;
        s.train.algo = SKALD_SAGA; /* its tasks are saga's */
        s.train.local = 0;
        s.train.target_gap = 1e-8;
        s.train.max_passes = 2000;
        skald_outcome out;
        skald_status st = train_solver(&s, sag, &out, NULL);
        if (st != SKALD_OK) print_message("%s\n", skald_error());
        assert_int_equal(st, SKALD_OK);
        skald_rows rows = {0};
        read_all(&s, &rows);
        double *w = calloc(rows.dim, sizeof *w);
        const double best = reference_solve(&rows, &s.objective, w);
        print_message("sag %d: %.1f passes, gap %.1e\n", how, out.passes, out.last.relative_gap);
        assert_true(out.reached && out.updates > 0);
        assert_true(reference_objective(&rows, &s.objective, out.w, NULL) <= best * (1 + 1e-8));
        free(w);
        skald_rows_free(&rows);
        skald_outcome_free(&out);
        unlink(s.data.path);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(solver)};
    return cmocka_run_group_tests_name("readme", tests, NULL, NULL);
}
