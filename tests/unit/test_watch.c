/* The guard: when it goes back, and that it does not go back for ever. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "engine/run.h"

enum { DIM = 3, ROWS = 100 };

typedef struct guarded {
    skald_run run;
    skald_problem problem;
    skald_train_options options;
    double w[DIM];
} guarded;

static void open_guard(guarded *g) {
    memset(g, 0, sizeof *g);
    g->problem = (skald_problem){
        .n = ROWS, .dim = DIM, .objective = {.loss = SKALD_LOGISTIC, .l2 = 1e-9, .classes = 1}, .start_loss = log(2)};
    g->run.problem = &g->problem;
    g->run.options = &g->options;
    g->run.work.w = g->w;
    g->run.engine.problem = &g->problem;
    g->run.engine.backoff = 1;
    skald_vectors_host(&g->run.engine.vectors, DIM);
    assert_int_equal(skald_watch_init(&g->run), SKALD_OK);
}

/* A pass whose losses are so on the average, and which ends at a model of that number. */
static void pass(guarded *g, double mean, double model) {
    skald_result r = {.rows = ROWS, .sums[0] = {.loss = mean * ROWS, .rows = ROWS}};
    g->run.engine.passes += 1.01;
    g->w[0] = model;
    skald_watch_loss(&g->run, &r);
    assert_int_equal(skald_watch_commit(&g->run), SKALD_OK);
}

/* Nearly separable data: the loss falls to a fiftieth within a pass, then the model diverges, and the way goes back to
 * where the loss was still high. Seen to fail when that counted as growth over the best: 41 rollbacks, and the end. */
static void goes_back_once(void **state) {
    guarded g;
    open_guard(&g);
    pass(&g, 0.5, 1);
    pass(&g, 0.01, 2);
    assert_int_equal(g.run.rollbacks, 0);
    pass(&g, 5, 3);
    assert_int_equal(g.run.rollbacks, 1);
    assert_true(g.w[0] == 1); /* where the last pass that was well began */
    pass(&g, 0.45, 1.5);
    pass(&g, 0.3, 2);
    assert_int_equal(g.run.rollbacks, 1);
    assert_true(g.run.engine.backoff == 0.5);
    pass(&g, 3, 4); /* it still looks */
    assert_int_equal(g.run.rollbacks, 2);
    assert_true(g.w[0] == 1.5);
    pass(&g, NAN, 5);
    assert_int_equal(g.run.rollbacks, 3);
    skald_watch_fini(&g.run);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(goes_back_once)};
    return cmocka_run_group_tests_name("watch", tests, NULL, NULL);
}
