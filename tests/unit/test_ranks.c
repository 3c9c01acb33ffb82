/* Synchronous runs whose ranks are cards (emulated, over emulated NCCL, threads of this process): the solver's vectors
 * stay on them. The optimum is that of host vectors, and no round takes a vector to the host or back. */
#include <dlfcn.h>

#include "harness.h"

#include "skald/collective.h"

static struct {
    long (*copies)(int kind, size_t bytes);
    int (*live)(void);
} emulated;

static int open_emulated(void **state) {
    setenv("SKALD_CUDA_PLUGIN", SKALD_EMULATED_PLUGIN, 1);
    setenv("SKALD_NCCL", SKALD_EMULATED_NCCL, 1);
    setenv("SKALD_CUBLAS", SKALD_EMULATED_CUBLAS, 1);
    setenv("SKALD_EMULATED_DEVICES", "3", 1);
    void *library = dlopen(SKALD_EMULATED_RUNTIME, RTLD_NOW); /* the one that the plugin will get */
    if (!library) fail_msg("%s", dlerror());
    *(void **)&emulated.copies = dlsym(library, "skald_emulated_copies");
    *(void **)&emulated.live = dlsym(library, "skald_emulated_live");
    return emulated.copies && emulated.live ? 0 : -1;
}

static char notices[4096];

static void on_notice(void *user, const char *text) {
    size_t used = strlen(notices);
    snprintf(notices + used, sizeof notices - used, "%s\n", text);
}

static const skald_observer listener = {.notice = on_notice};

static void run(const setup *s, skald_outcome *out) {
    notices[0] = '\0';
    skald_status st = train_with(s, out, &listener, NULL, NULL);
    if (st != SKALD_OK) print_message("%s\n%s", skald_error(), notices);
    assert_int_equal(st, SKALD_OK);
    assert_non_null(strstr(notices, s->cards ? "synchronous over nccl" : "synchronous through the coordinator"));
}

static setup cards_setup(const char *path, uint32_t workers) {
    setup s = setup_default(path);
    s.workers = workers;
    s.cards = true;
    s.net = skald_net_inproc();
    s.address = "inproc:cards";
    s.train.mode = SKALD_SYNC;
    s.train.max_passes = 400;
    s.train.step_rows = 16;
    return s;
}

static const toy sparse = {.n = 300, .d = 700, .density = 0.02, .loss = SKALD_LOGISTIC, .seed = 3};

/* On cards, and on CPUs: the same optimum. */
static void arrives_as_on_cpus(setup *s, const char *what, int variant) {
    skald_outcome cards, plain;
    run(s, &cards);
    s->cards = false;
    run(s, &plain);
    print_message("%s %d: F %.12g on cards, %.12g on CPUs; %.1f passes, %.1f; drift %.1e\n", what, variant,
                  cards.last.objective, plain.last.objective, cards.passes, plain.passes, cards.audit_drift);
    assert_int_equal(cards.stop, SKALD_STOP_GAP);
    assert_true(fabs(cards.last.objective / plain.last.objective - 1) <= 2e-7);
    assert_true(cards.audit_drift >= 0 && cards.audit_drift < 1e-5); /* sums over rows are f32 in part */
    skald_outcome_free(&cards);
    skald_outcome_free(&plain);
}

/* Plain and local steps; intercepts; l1; both algorithms: as on CPUs, through the coordinator. */
static void reaches_the_optimum(void **state) {
    const char *path = toy_write(&sparse, "cards");
    for (int variant = 0; variant < 4; variant++) {
        setup s = cards_setup(path, variant == 3 ? 1 : 3);
        s.train.local = variant != 1;
        s.objective.l2 = 1e-2;
        s.objective.l1 = variant == 2 ? 1e-3 : 0;
        s.data.intercept = s.objective.intercept = variant == 3;
        s.train.target_gap = 1e-7;
        s.train.max_passes = 2000;
        s.train.audit = true;
        arrives_as_on_cpus(&s, "variant", variant);
    }
    unlink(path);
}

/* History Newton: the vectors are the host's, the rows the cards', whose sample everybody gets. */
static void newtons_vectors_are_the_hosts(void **state) {
    const int live = emulated.live();
    for (int variant = 0; variant < 4; variant++) {
        const toy t = {300, variant % 2 ? 700 : 15, variant % 2 ? 0.02 : 1, SKALD_LOGISTIC, true, 3};
        setup s = cards_setup(toy_write(&t, "cards-newton"), 3);
        s.train.algo = SKALD_NEWTON;
        s.data.shards = 6;
        s.objective.l2 = 1e-3;
        s.objective.l1 = variant == 2 ? 1e-3 : 0;
        s.data.intercept = s.objective.intercept = variant == 3;
        s.train.target_gap = 1e-7;
        s.train.audit = true;
        arrives_as_on_cpus(&s, "newton", variant);
        unlink(s.data.path);
    }
    assert_int_equal(emulated.live(), live);
}

/* Every rank sets its model back in the same round, and retakes its history. */
static void goes_back(void **state) {
    const char *path = toy_write(&(toy){.n = 300, .d = 15, .density = 1, .loss = SKALD_SQUARED, .seed = 8}, "back");
    setup s = cards_setup(path, 3);
    s.objective.loss = SKALD_SQUARED;
    s.objective.l2 = 1e-2;
    s.train.local = false;
    s.train.step = 2000;
    s.train.target_gap = 1e-6;
    s.train.max_passes = 3000;
    skald_outcome out;
    run(&s, &out);
    print_message("%d rollbacks, %.0f passes, gap %.1e\n", (int)out.rollbacks, out.passes, out.last.relative_gap);
    assert_true(out.rollbacks >= 6 && out.rollbacks <= 12 && out.stop == SKALD_STOP_GAP);
    skald_outcome_free(&out);
    unlink(path);
}

/* Rounds move no vector between host and card; evaluations do. Nothing is left on the cards. */
static void vectors_stay(void **state) {
    const char *path = toy_write(&sparse, "cards-stay");
    const size_t vector = 700 * sizeof(double); /* a task's row numbers are less than that */
    for (int algo = SKALD_SGD; algo <= SKALD_SAGA; algo++)
        for (int local = 0; local < 2; local++) {
            long up[2], down[2], within[2];
            uint64_t updates[2];
            const int live = emulated.live();
            for (int k = 0; k < 2; k++) {
                setup s = cards_setup(path, 3);
                s.train.algo = (skald_algo)algo;
                s.train.local = local;
                s.train.target_gap = 0;
                s.train.max_passes = 0;
                s.train.eval_every = -1;
                s.train.max_updates = k ? 120 : 40;
                up[k] = -emulated.copies(1, vector);
                down[k] = -emulated.copies(2, vector);
                within[k] = -emulated.copies(3, vector);
                skald_outcome out;
                run(&s, &out);
                updates[k] = out.updates;
                skald_outcome_free(&out);
                up[k] += emulated.copies(1, vector);
                down[k] += emulated.copies(2, vector);
                within[k] += emulated.copies(3, vector);
            }
            print_message("%s, %s: %d and %d rounds: %ld and %ld vectors to cards, %ld and %ld from them, %ld and %ld "
                          "within\n",
                          skald_algo_name((skald_algo)algo), local ? "local" : "plain", (int)updates[0],
                          (int)updates[1], up[0], up[1], down[0], down[1], within[0], within[1]);
            assert_true(updates[0] == 40 && updates[1] == 120);
            assert_true(up[0] > 0 && down[0] > 0); /* it counts */
            assert_int_equal(up[0], up[1]);
            assert_int_equal(down[0], down[1]);
            assert_true(within[1] > within[0]);
            assert_int_equal(emulated.live(), live);
        }
    unlink(path);
}

/* The same bits at every run: rounds are in order, and so is every sum (rows are dense). */
static void same_bits(void **state) {
    static const toy dense = {.n = 120, .d = 9, .density = 1, .loss = SKALD_LOGISTIC, .seed = 5};
    const char *path = toy_write(&dense, "cards-bits");
    setup s = cards_setup(path, 2);
    s.train.target_gap = 0;
    s.train.max_passes = 3;
    skald_outcome a, b;
    run(&s, &a);
    run(&s, &b);
    assert_memory_equal(a.w, b.w, 9 * sizeof(double));
    skald_outcome_free(&a);
    skald_outcome_free(&b);
    unlink(path);
}

/* Several classes with intercepts: longer vectors, and moments in them. */
static void softmax(void **state) {
    char path[64];
    snprintf(path, sizeof path, "/tmp/skald-test-%d-cards.svm", (int)getpid());
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    for (uint64_t i = 0; i < 120; i++) {
        const int y = (int)(skald_random(1, i) % 5);
        fprintf(f, "%d", y);
        for (uint64_t j = 0; j < 3; j++)
            fprintf(f, " %d:%.6f", (int)j + 1, 0.4 * skald_normal(i + 2, j) + (j % 3 == (uint64_t)y ? 0.5 : 0));
        fprintf(f, "\n");
    }
    fclose(f);
    setup s = cards_setup(path, 2);
    s.objective.loss = SKALD_SOFTMAX;
    s.objective.classes = 0;
    s.objective.l2 = 1e-2;
    s.data.intercept = s.objective.intercept = true;
    s.train.target_gap = 1e-7;
    skald_outcome cards, newton, plain;
    run(&s, &cards);
    s.train.algo = SKALD_NEWTON;
    run(&s, &newton);
    s.train.algo = SKALD_SAGA;
    s.cards = false;
    run(&s, &plain);
    print_message("softmax: F %.12g on cards, %.12g on CPUs\n", cards.last.objective, plain.last.objective);
    assert_int_equal(cards.stop, SKALD_STOP_GAP);
    assert_true(fabs(cards.last.objective / plain.last.objective - 1) <= 2e-7);
    assert_int_equal(newton.stop, SKALD_STOP_GAP);
    assert_true(fabs(newton.last.objective / plain.last.objective - 1) <= 2e-7);
    skald_outcome_free(&newton);
    skald_outcome_free(&cards);
    skald_outcome_free(&plain);
    unlink(path);
}

int main(int argc, char **argv) {
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reaches_the_optimum),           cmocka_unit_test(goes_back), cmocka_unit_test(vectors_stay),
        cmocka_unit_test(newtons_vectors_are_the_hosts), cmocka_unit_test(same_bits), cmocka_unit_test(softmax),
    };
    return cmocka_run_group_tests(tests, open_emulated, NULL);
}
