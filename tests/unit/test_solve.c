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

/* Sparse columns are divided by their deviation and keep their mean; with a constant the slopes are those of centred
 * data, and the constant what that leaves. */
static void standard_scaling_of_sparse_data(void **state) {
    toy t = {800, 30, 0.15, SKALD_LOGISTIC, false, 5};
    setup s = setup_default(toy_write(&t, "standard"));
    s.data.scaling = SKALD_SCALE_STANDARD;
    s.data.intercept = s.objective.intercept = true;
    s.train.target_gap = 1e-11;
    s.train.max_passes = 2000;
    skald_outcome out;
    must_train(&s, &out);
    skald_rows rows = {0};
    read_all(&s, &rows);
    assert_int_equal(rows.layout, SKALD_CSR);
    const uint32_t d = rows.dim - 1;
    skald_rows centred = {.layout = SKALD_DENSE, .n = rows.n, .dim = rows.dim, .stride = 32, .y = rows.y, .s = rows.s};
    centred.x = calloc(rows.n * centred.stride, sizeof *centred.x);
    double mean[32] = {0}, spread[32] = {0}, w[32], constant = 0;
    for (size_t i = 0; i < rows.n; i++)
        for (uint64_t e = rows.ptr[i]; e < rows.ptr[i + 1]; e++) {
            centred.x[i * centred.stride + rows.idx[e]] = rows.val[e];
            mean[rows.idx[e]] += (double)rows.val[e] / (double)rows.n;
        }
    for (size_t i = 0; i < rows.n; i++)
        for (uint32_t j = 0; j < d; j++) {
            float *x = &centred.x[i * centred.stride + j];
            *x = (float)((double)*x - mean[j]);
            spread[j] += (double)*x * *x / (double)rows.n;
        }
    for (uint32_t j = 0; j < d; j++) assert_true(fabs(spread[j] - 1) < 1e-5);
    reference_solve(&centred, &s.objective, w);
    for (uint32_t j = 0; j < d; j++) {
        assert_true(fabs(out.w[j] - w[j]) < 2e-4);
        constant += w[j] * mean[j];
    }
    assert_true(fabs(out.w[d] - (w[d] - constant)) < 2e-4);
    free(centred.x);
    skald_rows_free(&rows);
    skald_outcome_free(&out);
    unlink(s.data.path);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(saga_every_loss),
                                       cmocka_unit_test(standard_scaling_of_sparse_data)};
    return cmocka_run_group_tests_name("solve", tests, NULL, NULL);
}
