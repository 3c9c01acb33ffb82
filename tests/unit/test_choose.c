/* What is chosen where the user says nothing: rules without side effects, so each is asked at its edges. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "skald/choose.h"

enum { MOST = 200 };

static skald_label labels[MOST];

/* `count` labels from `first` on, `step` apart, of `each` rows. */
static skald_loss_choice of(uint32_t count, double first, double step, uint64_t each) {
    for (uint32_t k = 0; k < count; k++) labels[k] = (skald_label){.value = first + step * k, .count = each};
    return skald_choose_loss(labels, count, each * count);
}

static void two_labels(void **state) {
    skald_loss_choice c = of(2, -1, 2, 6);
    assert_int_equal(c.loss, SKALD_LOGISTIC);
    assert_string_equal(c.why, "two labels, -1 and 1");
    assert_int_equal(of(2, 0.25, 1.5, 1).loss, SKALD_LOGISTIC); /* any two */
}

/* One label alone: logistic, which says that there is nothing to learn, where squared would fit it in silence. */
static void one_label(void **state) {
    assert_int_equal(of(1, 0, 0, 50).loss, SKALD_LOGISTIC);
}

static void few_whole_numbers(void **state) {
    assert_int_equal(of(3, 0, 1, 50).loss, SKALD_SOFTMAX);  /* iris */
    assert_int_equal(of(3, -1, 1, 50).loss, SKALD_SOFTMAX); /* against, no opinion, for */
    assert_int_equal(of(4, 10, 10, 3).loss, SKALD_SOFTMAX); /* codes */
    assert_int_equal(of(20, 5, 7, 30).loss, SKALD_SOFTMAX);
    assert_int_equal(of(21, 5, 7, 30).loss, SKALD_SQUARED); /* not numbered, and more than a few */
    skald_loss_choice c = of(10, 0, 1, 100);
    assert_true(c.doubtful);
    assert_non_null(strstr(c.why, "10 labels, 0 to 9"));
    assert_non_null(strstr(c.why, "--loss squared")); /* counts, ratings: the way out is said */
}

static void numbered_classes(void **state) {
    assert_int_equal(of(26, 1, 1, 700).loss, SKALD_SOFTMAX);  /* letters */
    assert_int_equal(of(100, 0, 1, 500).loss, SKALD_SOFTMAX); /* CIFAR-100 */
    assert_int_equal(of(101, 0, 1, 500).loss, SKALD_SQUARED);
    assert_int_equal(of(89, 1922, 1, 5000).loss, SKALD_SQUARED); /* years */
    assert_int_equal(of(90, 2, 1, 5000).loss, SKALD_SQUARED);    /* begins elsewhere */
    of(90, 1, 1, 1000);                                          /* ages: numbered, but the old are few */
    labels[89].count = 3;
    assert_int_equal(skald_choose_loss(labels, 90, 89003).loss, SKALD_SQUARED);
    labels[40].value = 40.5;
    assert_int_equal(skald_choose_loss(labels, 90, 89003).loss, SKALD_SQUARED);
}

static void real_targets(void **state) {
    assert_int_equal(of(3, 0, 0.5, 100).loss, SKALD_SQUARED);
    assert_int_equal(of(3, 0, 100000, 100).loss, SKALD_SQUARED); /* prices */
    assert_int_equal(of(9, 1, 1, 2).loss, SKALD_SQUARED);        /* nine values in eighteen rows */
    assert_int_equal(skald_choose_loss(NULL, SKALD_MAX_LABELS + 1, 100000).loss, SKALD_SQUARED);
}

static skald_facts dense(double rows, uint32_t dim) {
    return (skald_facts){.rows = rows,
                         .dim = dim,
                         .dense = true,
                         .nonzeros = rows * dim,
                         .classes = 1,
                         .l2 = 1 / rows,
                         .L_max = 1,
                         .workers = 1};
}

static void who_computes(void **state) {
    skald_facts f = dense(200, 700);
    assert_int_equal(skald_choose_workers(&f, 64, 0, 200).workers, 0);
    assert_int_equal(skald_choose_workers(&f, 64, 2, 200).workers, 0);
    f = dense(1e6, 784);
    assert_int_equal(skald_choose_workers(&f, 64, 0, 5000).workers, 64);
    assert_int_equal(skald_choose_workers(&f, 64, 2, 5000).workers, 2); /* a worker a card */
    assert_int_equal(skald_choose_workers(&f, 64, 0, 12).workers, 12);  /* no more than can be dealt to */
    assert_int_equal(skald_choose_workers(&f, 1, 0, 5000).workers, 0);  /* one core: itself */
    assert_int_equal(skald_choose_workers(&f, 1, 1, 5000).workers, 1);
    f = dense(100000, 784);
    assert_int_equal(skald_choose_workers(&f, 2, 0, 5000).workers, 0);
    f.classes = 10; /* of which a pass is ten times the work */
    assert_int_equal(skald_choose_workers(&f, 2, 0, 5000).workers, 2);
}

static void algorithm(void **state) {
    skald_facts f = dense(1000, 30);
    skald_algo_choice c = skald_choose_algo(&f);
    assert_int_equal(c.algo, SKALD_SAGA);
    assert_string_equal(c.why, "well conditioned: L_max/l2 is 1 n");
    f.L_max = 1e6;
    assert_non_null(strstr(skald_choose_algo(&f).why, "badly conditioned"));
    assert_int_equal(skald_choose_algo(&f).algo, SKALD_NEWTON);
    f.l2 = 0; /* nothing tells how many steps it would take */
    assert_int_equal(skald_choose_algo(&f).algo, SKALD_NEWTON);
    f.stochastic = true;
    assert_int_equal(skald_choose_algo(&f).algo, SKALD_SAGA);
    f.nonconvex = true;
    assert_int_equal(skald_choose_algo(&f).algo, SKALD_SYNTHESIS);
    f = dense(400000, 2000); /* what SAGA solves in eight passes */
    assert_int_equal(skald_choose_algo(&f).algo, SKALD_SAGA);
    f.classes = 1000; /* curvature of which would take hours */
    f.L_max = 1e6;
    assert_int_equal(skald_choose_algo(&f).algo, SKALD_SAGA);
}

/* However small or large, a number of passes that ends some time, and no fewer than before. */
static void how_long(void **state) {
    skald_facts f = dense(12, 3);
    assert_true(skald_choose_passes(&f) == 1e5);
    f = dense(20000, 50);
    assert_true(skald_choose_passes(&f) == 1e5);
    f = dense(400000, 2000); /* 0.36 s a pass */
    assert_true(skald_choose_passes(&f) == 300);
    f = dense(1e9, 2000);
    assert_true(skald_choose_passes(&f) == 100);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_labels),       cmocka_unit_test(one_label),    cmocka_unit_test(few_whole_numbers),
        cmocka_unit_test(numbered_classes), cmocka_unit_test(real_targets), cmocka_unit_test(who_computes),
        cmocka_unit_test(algorithm),        cmocka_unit_test(how_long),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
