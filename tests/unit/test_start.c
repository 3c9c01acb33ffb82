/* Where a run begins: the constant of each loss, on every crew; and targets that are small beside their mean. */
#include <dlfcn.h>

#include "harness.h"

#include "skald/collective.h"

enum { ROWS = 40, SHARDS = 3 };

/* Labels dealt to three shards with uneven weights, as facts. */
static skald_problem facts_of(skald_loss loss, const double *y, const double *s) {
    skald_problem p = {.objective = {.loss = loss, .huber_delta = 1, .intercept = true, .classes = 1},
                       .n = ROWS,
                       .shard_count = SHARDS};
    p.shards = calloc(SHARDS, sizeof *p.shards);
    for (int i = 0; i < ROWS; i++) skald_shard_facts_label(&p.shards[i % SHARDS].facts, s[i], y[i]);
    return p;
}

/* No other constant is better, beside w = 0. */
static void best_beside_nothing(void **state) {
    const skald_loss losses[] = {SKALD_SQUARED, SKALD_LOGISTIC, SKALD_SQUARED_HINGE};
    double y[ROWS], s[ROWS];
    for (int l = 0; l < 3; l++) {
        double slope = 0, weight = 0, loss = 0;
        for (int i = 0; i < ROWS; i++) {
            y[i] = skald_loss_is_binary(losses[l]) ? (i % 5 == 1 ? 1 : -1) : 3 + sin(i);
            s[i] = i % 7 == 3 ? 0 : 0.5 + i % 4;
        }
        skald_problem p = facts_of(losses[l], y, s);
        assert_int_equal(skald_problem_start(&p), SKALD_OK);
        for (int i = 0; i < ROWS; i++) {
            weight += s[i];
            slope += s[i] * skald_loss_derivative(losses[l], 1, p.start[0], y[i]);
            loss += s[i] * skald_loss_value(losses[l], 1, p.start[0], y[i]);
        }
        assert_true(fabs(slope / weight) < 1e-14);
        assert_true(p.start_loss >= loss / weight * (1 - 1e-12));
        skald_problem_free(&p);
    }
}

/* A mean of 1e9 takes no digits from what labels differ by; nor does one class alone end anywhere. */
static void keeps_digits(void **state) {
    double y[ROWS], s[ROWS], loss = 0;
    for (int i = 0; i < ROWS; i++) y[i] = 1e9 + i, s[i] = 1;
    skald_problem p = facts_of(SKALD_SQUARED, y, s);
    assert_int_equal(skald_problem_start(&p), SKALD_OK);
    for (int i = 0; i < ROWS; i++) loss += 0.5 * (i - (ROWS - 1) / 2.0) * (i - (ROWS - 1) / 2.0) / ROWS;
    assert_true(p.start[0] == 1e9 + (ROWS - 1) / 2.0);
    assert_true(fabs(p.start_loss - loss) < 1e-6 * loss);
    skald_problem_free(&p);
    for (int i = 0; i < ROWS; i++) y[i] = 1;
    p = facts_of(SKALD_LOGISTIC, y, s);
    assert_int_equal(skald_problem_start(&p), SKALD_OK);
    assert_true(fabs(p.start[0] - log(2 * ROWS - 1)) < 1e-9);
    p.objective.intercept = false;
    assert_int_equal(skald_problem_start(&p), SKALD_OK);
    assert_null(p.start);
    skald_problem_free(&p);
}

/* log of the shares, class weights in them, around 0. */
static void softmax_shares(void **state) {
    skald_label labels[] = {{1, 10, 10}, {2, 20, 20}, {5, 10, 10}};
    const double weights[] = {1, 1, 3};
    skald_problem p = {.objective = {.loss = SKALD_SOFTMAX, .intercept = true, .classes = 3}, .n = ROWS};
    p.labels = labels;
    p.transform.label_weights = weights;
    assert_int_equal(skald_problem_start(&p), SKALD_OK);
    assert_true(fabs(p.start[1] - p.start[0] - log(2)) < 1e-14 && fabs(p.start[2] - p.start[0] - log(3)) < 1e-14);
    assert_true(fabs(p.start[0] + p.start[1] + p.start[2]) < 1e-14);
    p.unknown_shares = true;
    assert_int_equal(skald_problem_start(&p), SKALD_OK);
    assert_true(p.start[0] == 0 && p.start[1] == 0 && p.start[2] == 0);
    free(p.start);
}

/* y = 1e9 + 3 x1 - 2 x2, which f32 has as one number: labels have to come whole all the way to z - y, and the run to
 * begin where the history's floats can hold what is left. */
static const char *offset_write(void) {
    static char path[128];
    snprintf(path, sizeof path, "/tmp/skald-test-%d-offset.svm", (int)getpid());
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    for (uint64_t i = 0; i < 300; i++) {
        const double a = skald_normal(1, i), b = skald_normal(2, i);
        fprintf(f, "%.17g 1:%.9g 2:%.9g\n", 1e9 + 3 * (double)(float)a - 2 * (double)(float)b, a, b);
    }
    fclose(f);
    return path;
}

static void arrives_at(const setup *s, const char *what, double tolerance) {
    skald_outcome out;
    must_train(s, &out);
    print_message("%-28s %.9f %.9f %.9f, %d updates\n", what, out.w[0], out.w[1], out.w[2] - 1e9, (int)out.updates);
    assert_true(fabs(out.w[0] - 3) < tolerance && fabs(out.w[1] + 2) < tolerance);
    assert_true(fabs(out.w[2] - 1e9) < tolerance);
    skald_outcome_free(&out);
}

static setup offset_setup(void) {
    setup s = setup_default(offset_write());
    s.objective.loss = SKALD_SQUARED;
    s.objective.l2 = 1e-9;
    s.data.intercept = s.objective.intercept = true;
    s.train.target_gap = 0;
    s.train.max_passes = 60;
    return s;
}

static void large_offset(void **state) {
    setup s = offset_setup();
    arrives_at(&s, "this process", 1e-5);
    s.train.local = 0;
    s.train.max_passes = 300;
    arrives_at(&s, "plain tasks", 1e-5);
    s.train.local = -1;
    s.workers = 2;
    s.net = skald_net_inproc();
    s.address = "inproc:offset";
    arrives_at(&s, "two workers", 1e-5);
    s.train.mode = SKALD_SYNC;
    arrives_at(&s, "two workers, rounds", 1e-5);
    const skald_algo algos[] = {SKALD_SVRG, SKALD_SYNTHESIS};
    for (int k = 0; k < 2; k++) {
        s.train.algo = algos[k];
        arrives_at(&s, skald_algo_name(algos[k]), 1e-4);
    }
    unlink(s.data.path);
}

/* As ranks on (emulated) cards, whose rows meet models in f32, but for the constant. */
static void large_offset_ranks(void **state) {
    setenv("SKALD_CUDA_PLUGIN", SKALD_EMULATED_PLUGIN, 1);
    setenv("SKALD_NCCL", SKALD_EMULATED_NCCL, 1);
    setenv("SKALD_CUBLAS", SKALD_EMULATED_CUBLAS, 1);
    setenv("SKALD_EMULATED_DEVICES", "2", 1);
    setup s = offset_setup();
    s.workers = 2;
    s.cards = true;
    s.net = skald_net_inproc();
    s.address = "inproc:offset-cards";
    s.train.mode = SKALD_SYNC;
    arrives_at(&s, "two ranks", 1e-5);
    s.train.local = 0;
    s.train.max_passes = 100;
    arrives_at(&s, "two ranks, plain tasks", 1e-5);
    unlink(s.data.path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(best_beside_nothing), cmocka_unit_test(keeps_digits),       cmocka_unit_test(softmax_shares),
        cmocka_unit_test(large_offset),        cmocka_unit_test(large_offset_ranks),
    };
    return cmocka_run_group_tests_name("start", tests, NULL, NULL);
}
