/* The CUDA backend: the compute port's conformance suite for every storage, the same bits twice, threads, room.
 *
 * Runs on what SKALD_CUDA_PLUGIN names (a real card's plugin), or else on the emulated device. `test_cuda PATTERN` runs
 * those tests alone: the suites ("conforms_*") take long on the emulated device. */
#include <pthread.h>

#include "compute_list.h"

static const char *skip_reason;
static bool emulated;

static skald_status open_cuda(const void *user, const skald_objective *objective, uint32_t dim, skald_compute **out) {
    return skald_compute_open(user, objective, dim, out);
}

#define NEEDS_CARD()                                                                                                   \
    do {                                                                                                               \
        if (skip_reason) skip();                                                                                       \
    } while (0)

/* Rows meet models as f32, in chains of products a thread, and g is added as f32 within a thread: an error of 2^-24
 * each. Seen: at most a fifth of these tolerances. */
static compute_suite suite_of(const skald_compute_options *options) {
    return (compute_suite){
        .open = open_cuda, .user = options, .tolerance = 2e-6, .dots = 5e-7, .loose = 2e-5, .slow = emulated};
}

static void test_devices(void **state) {
    NEEDS_CARD();
    skald_device card;
    char why[256], device[64];
    assert_true(skald_compute_cards(&card, 1, why, NULL) >= 1);
    assert_string_equal(card.spec, "cuda:0");
    assert_true(card.memory_bytes > 0 && card.units > 0 && card.major >= 8);
    OK(skald_compute_describe(&(skald_compute_options){.device = "auto"}, device, why));
    assert_int_equal(strncmp(device, "cuda:0 (", 8), 0);
    assert_string_equal(why, "");
    assert_int_equal(skald_compute_describe(&(skald_compute_options){.device = "cuda:63"}, device, NULL),
                     SKALD_EUNSUPPORTED);
    assert_non_null(strstr(skald_error(), "no such card"));
}

/* Several classes: cuBLAS's products on dense rows, of floats and of bytes; ours on sparse ones. */
static void conforms_softmax(void **state) {
    NEEDS_CARD();
    const skald_compute_options options[2] = {
        {.device = "cuda", .storage = SKALD_STORE_F32},
        {.device = "cuda", .resident = SKALD_RESIDENT_HOST, .deterministic = true}};
    for (int k = 0; k < 2; k++) {
        compute_suite suite = suite_of(&options[k]);
        if (k) suite.values = VALUES_BYTES;
        compute_suite_softmax(&suite, getenv("SKALD_CUBLAS") != NULL);
    }
}

static void conforms_f32(void **state) {
    NEEDS_CARD();
    const skald_compute_options options = {.device = "cuda", .storage = SKALD_STORE_F32};
    const compute_suite suite = suite_of(&options);
    compute_suite_run(&suite);
}

/* Sparse sums in fixed order; rows in host memory. */
static void conforms_deterministic_from_host(void **state) {
    NEEDS_CARD();
    const skald_compute_options options = {.device = "cuda", .resident = SKALD_RESIDENT_HOST, .deterministic = true};
    const compute_suite suite = suite_of(&options);
    compute_suite_run(&suite);
}

static void conforms_bf16(void **state) {
    NEEDS_CARD();
    const skald_compute_options options = {.device = "cuda", .storage = SKALD_STORE_BF16};
    compute_suite suite = suite_of(&options);
    suite.values = VALUES_BF16;
    suite.dense_only = true;
    suite_operations(&suite);
    suite_local(&suite);
}

static void conforms_u8(void **state) {
    NEEDS_CARD();
    const skald_compute_options options = {.device = "cuda", .storage = SKALD_STORE_U8};
    compute_suite suite = suite_of(&options);
    suite.values = VALUES_BYTES;
    suite.dense_only = true;
    suite_operations(&suite);
    suite_local(&suite);
}

/* The long list (compute_list.h). Sparse rows, which f32 has in the deterministic mode, are stored in one way only. */
static void list_of(int storage, int values) {
    const skald_compute_options options = {
        .device = "cuda", .storage = storage, .deterministic = storage == SKALD_STORE_F32};
    compute_suite suite = suite_of(&options);
    suite.values = values;
    compute_list_run(&suite, options.deterministic);
}
static void list_f32(void **state) {
    NEEDS_CARD();
    list_of(SKALD_STORE_F32, VALUES_ANY);
}
static void list_bf16(void **state) {
    NEEDS_CARD();
    list_of(SKALD_STORE_BF16, VALUES_BF16);
}
static void list_u8(void **state) {
    NEEDS_CARD();
    list_of(SKALD_STORE_U8, VALUES_BYTES);
}

static void test_storage(void **state) {
    NEEDS_CARD();
    const skald_objective o = objective_of(SKALD_SQUARED, 0, 0, false);
    const shape s = {SKALD_DENSE, 100, 33, false, 1, 5, 0};
    skald_compute *c;
    skald_shard *shard;
    skald_compute_options options = {.device = "cuda", .storage = SKALD_STORE_U8};
    OK(skald_compute_open(&options, &o, s.dim, &c));
    skald_rows r = make_rows(&(compute_suite){.values = VALUES_ANY}, &s, &o);
    assert_int_equal(c->ops->load(c, &r, &shard), SKALD_EDATA);
    assert_non_null(strstr(skald_error(), "row 0 of the shard, column"));
    assert_null(shard);
    assert_null(r.x);
    c->ops->destroy(c);

    /* bf16: the rows and their facts are the rounded ones */
    options.storage = SKALD_STORE_BF16;
    const compute_suite rounded = {.values = VALUES_BF16};
    double g[2][33], w[33];
    skald_shard_facts facts[2];
    for (size_t j = 0; j < 33; j++) w[j] = 0.1 * skald_normal(2, j);
    for (int k = 0; k < 2; k++) {
        const skald_batch all = {NULL, 0};
        skald_sums sums;
        OK(skald_compute_open(&options, &o, s.dim, &c));
        r = make_rows(k ? &rounded : &(compute_suite){0}, &s, &o);
        OK(c->ops->load(c, &r, &shard));
        OK(c->ops->gradient(c, shard, &all, w, g[k], &sums));
        skald_shard_get_facts(shard, &facts[k]);
        c->ops->unload(c, shard);
        c->ops->destroy(c);
    }
    assert_memory_equal(g[0], g[1], sizeof g[0]);
    assert_memory_equal(&facts[0], &facts[1], sizeof facts[0]);
}

/* ---- the same bits --------------------------------------------------------------------------------- */

typedef struct record {
    double g[5][61], dw[2][61];
    skald_sums sums[8];
    float alpha[700];
} record;

static void run_sequence(skald_compute *c, skald_shard *shard, record *out) {
    const skald_compute_ops *ops = c->ops;
    double w[61], abar[61];
    memset(out, 0, sizeof *out);
    for (size_t j = 0; j < 61; j++) {
        w[j] = 0.1 * skald_normal(1, j);
        abar[j] = 0;
    }
    uint32_t *rows = draw(700, 501, 9);
    const skald_batch all = {NULL, 0}, some = {rows, 501};
    const skald_local l = {true, 12, 0.01, 700}, short_steps = {false, 300, 0.01, 700};
    OK(ops->gradient(c, shard, &all, w, out->g[0], &out->sums[0]));
    OK(ops->saga(c, shard, &some, w, out->g[1], &out->sums[1]));
    OK(ops->local(c, shard, &some, &l, w, abar, out->dw[0], out->g[2], &out->sums[2]));
    OK(ops->local(c, shard, &some, &short_steps, w, NULL, out->dw[1], NULL, &out->sums[3]));
    const double *points[2] = {w, abar};
    double *none[2] = {NULL, out->g[3]};
    OK(ops->objective(c, shard, 2, points, none, true, &out->sums[4]));
    OK(ops->anchor(c, shard, out->g[4]));
    OK(ops->history_get(c, shard, out->alpha));
    free(rows);
}

typedef struct job {
    skald_compute *c;
    skald_shard *shard;
    record out;
} job;

static void *run_job(void *argument) {
    job *j = argument;
    static const float zeros[700];
    for (int k = 0; k < 3; k++) {
        OK(j->c->ops->history_set(j->c, j->shard, zeros));
        run_sequence(j->c, j->shard, &j->out);
    }
    return NULL;
}

/* Bits repeat, run to run and whatever other threads do with other shards: dense, and sparse when asked. */
static void test_bits(void **state) {
    NEEDS_CARD();
    for (int layout = 0; layout < 2; layout++) {
        const shape s = {(skald_layout)layout, 700, 61, true, 0.1, 11, 0};
        const skald_objective o = objective_of(SKALD_LOGISTIC, 1e-3, 0, true);
        const skald_compute_options options = {.device = "cuda", .deterministic = layout == SKALD_CSR};
        record *want = malloc(sizeof *want);
        job *jobs = malloc(3 * sizeof *jobs);
        skald_compute *c;
        OK(skald_compute_open(&options, &o, s.dim, &c));
        for (int k = 0; k < 3; k++) {
            skald_rows r = make_rows(&(compute_suite){0}, &s, &o);
            jobs[k].c = c;
            OK(c->ops->load(c, &r, &jobs[k].shard));
        }
        run_sequence(c, jobs[0].shard, want);
        pthread_t thread[3];
        for (int k = 0; k < 3; k++) assert_int_equal(pthread_create(&thread[k], NULL, run_job, &jobs[k]), 0);
        for (int k = 0; k < 3; k++) pthread_join(thread[k], NULL);
        for (int k = 0; k < 3; k++) {
            assert_memory_equal(want, &jobs[k].out, sizeof *want);
            c->ops->unload(c, jobs[k].shard);
        }
        c->ops->destroy(c);
        free(jobs);
        free(want);
    }
}

/* Local tasks of many lengths, kinds, step sizes and models on one shard: graphs are made, used again with other
 * settings, dropped for others. Each result is that of the same task alone on a shard of its own, and the CPU's. */
static void check_graphs(skald_layout layout, const skald_objective *o) {
    static const struct {
        skald_local local;
        size_t count;
    } tasks[] = {{{true, 1, 0.1, 900}, 200},  {{true, 1, 0.03, 900}, 70},   {{true, 2, 0.1, 900}, 300},
                 {{false, 1, 0.1, 1}, 200},   {{true, 3, 0.1, 900}, 299},   {{true, 1, 0.2, 300}, 300},
                 {{true, 5, 0.1, 900}, 300},  {{true, 1, 0.1, 900}, 31},    {{false, 1, 0.02, 1}, 300},
                 {{true, 2, 0.05, 600}, 299}, {{true, 500, 0.1, 900}, 300}, {{true, 1, 0.1, 900}, 300}};
    const shape s = {layout, 300, 47, true, 0.5, 8, 0};
    const skald_compute_options card = {.device = "cuda", .deterministic = true}, cpu = {.device = "cpu"};
    const compute_suite suite = suite_of(&card), plain = suite_of(&cpu);
    const size_t classes = skald_objective_classes(o), length = classes * s.dim, numbers = classes * s.n;
    problem many = problem_open(&suite, &s, o), host = problem_open(&plain, &s, o);
    double *dw[3], *g[3];
    float *alpha[3];
    for (int k = 0; k < 3; k++) {
        dw[k] = vector(&many, 1, 1);
        g[k] = vector(&many, 1, 1);
        alpha[k] = skald_zalloc(numbers, sizeof *alpha[k]);
    }
    for (size_t t = 0; t < SKALD_ARRAY_LENGTH(tasks); t++) {
        problem alone = problem_open(&suite, &s, o), *each[3] = {&many, &alone, &host};
        const skald_local *l = &tasks[t].local;
        double *w = vector(&many, 10 + t, 0.1), *abar = vector(&many, 30 + t, 0.05);
        uint32_t *rows = draw(s.n, tasks[t].count, t);
        const skald_batch batch = {rows, tasks[t].count};
        skald_sums sums[3];
        OK(many.c->ops->history_get(many.c, many.shard, alpha[0]));
        OK(alone.c->ops->history_set(alone.c, alone.shard, alpha[0]));
        OK(host.c->ops->history_set(host.c, host.shard, alpha[0]));
        for (int k = 0; k < 3; k++) {
            const skald_compute_ops *ops = each[k]->c->ops;
            OK(ops->local(each[k]->c, each[k]->shard, &batch, l, w, l->saga ? abar : NULL, dw[k], l->saga ? g[k] : NULL,
                          &sums[k]));
            OK(ops->history_get(each[k]->c, each[k]->shard, alpha[k]));
        }
        assert_memory_equal(dw[0], dw[1], length * sizeof(double));
        assert_memory_equal(g[0], g[1], length * sizeof(double));
        assert_memory_equal(alpha[0], alpha[1], numbers * sizeof(float));
        assert_memory_equal(&sums[0], &sums[1], sizeof *sums);
        for (size_t j = 0; j < length; j++) {
            check_near(dw[0][j], dw[2][j], loose(&many, 0), "dw");
            check_near(g[0][j], g[2][j], loose(&many, 0), "g");
        }
        for (size_t i = 0; i < numbers; i++)
            check_near((double)alpha[0][i], (double)alpha[2][i], loose(&many, 0), "history");
        check_near(sums[0].loss, sums[2].loss, loose(&many, 0), "loss of local");
        check_near(sums[0].k, sums[2].k, loose(&many, 0), "k");
        free(w);
        free(abar);
        free(rows);
        problem_close(&alone);
    }
    for (int k = 0; k < 3; k++) {
        free(dw[k]);
        free(g[k]);
        free(alpha[k]);
    }
    problem_close(&many);
    problem_close(&host);
}

static void test_graphs(void **state) {
    NEEDS_CARD();
    const skald_objective one = objective_of(SKALD_LOGISTIC, 0.01, 0, true), three = softmax_of(3, 0.01, 0, true);
    check_graphs(SKALD_CSR, &one);
    check_graphs(SKALD_CSR, &three);
    check_graphs(SKALD_DENSE, &three);
}

/* No rows, no steps. */
static void test_empty(void **state) {
    NEEDS_CARD();
    const skald_objective of[2] = {objective_of(SKALD_LOGISTIC, 0.01, 0, false), softmax_of(3, 0.01, 0, false)};
    const skald_compute_options options = {.device = "cuda"};
    const compute_suite suite = suite_of(&options);
    for (int layout = 0; layout < 2; layout++)
        for (int k = 0; k < 2; k++) {
            problem p = problem_open(&suite, &(shape){.layout = (skald_layout)layout, .dim = 5}, &of[k]);
            double *w = vector(&p, 1, 0.1), *dw = vector(&p, 2, 1), *g = vector(&p, 3, 1);
            const skald_local l = {true, 4, 0.1, 10};
            skald_sums sums;
            OK(p.c->ops->local(p.c, p.shard, &(skald_batch){NULL, 0}, &l, w, w, dw, g, &sums));
            for (size_t j = 0; j < 5 * skald_objective_classes(&of[k]); j++) assert_true(dw[j] == 0 && g[j] == 0);
            assert_true(sums.rows == 0 && sums.loss == 0);
            free(w);
            free(dw);
            free(g);
            problem_close(&p);
        }
}

/* In every order of streams: vectors that stay on the card, and intercepts. */
static void test_vectors(void **state) {
    NEEDS_CARD();
    const skald_compute_options options = {.device = "cuda", .storage = SKALD_STORE_F32, .deterministic = true};
    const compute_suite suite = suite_of(&options);
    suite_vectors(&suite);
    suite_intercept(&suite);
}

/* Softmax's kernels, in every order, and for checkers that make everything slow: narrow and wide groups of lanes,
 * atomic sums and ordered ones. */
static void softmax_short(void **state) {
    NEEDS_CARD();
    for (int k = 0; k < 4; k++) {
        const skald_compute_options options = {.device = "cuda", .storage = SKALD_STORE_F32, .deterministic = k & 1};
        const compute_suite suite = suite_of(&options);
        const skald_objective o = softmax_of(k & 1 ? 17 : 3, 0.01, 0.001, true);
        const shape s = {
            .layout = k & 2 ? SKALD_CSR : SKALD_DENSE, .n = 70, .dim = 47, .weighted = true, .scale = 1, .seed = 5};
        problem p = problem_open(&suite, &s, &o);
        uint32_t *rows = draw(p.n, 40, 3);
        check_class_passes(&p, rows, 40, 5);
        check_class_objective(&p, 9, true);
        check_class_local(&p, rows, 40, true, 8, 0.02, 3);
        free(rows);
        problem_close(&p);
    }
}

int main(int argc, char **argv) {
    if (argc > 1) cmocka_set_test_filter(argv[1]);
#ifdef SKALD_EMULATED_PLUGIN
    setenv("SKALD_CUDA_PLUGIN", SKALD_EMULATED_PLUGIN, 0);
    if (strcmp(getenv("SKALD_CUDA_PLUGIN"), SKALD_EMULATED_PLUGIN) == 0)
        setenv("SKALD_CUBLAS", SKALD_EMULATED_CUBLAS, 0);
#endif
    static char why[256];
    if (skald_compute_cards(NULL, 0, why, NULL) == 0) {
        skip_reason = why;
        printf("no card, skipping: %s\n", why);
    }
    skald_device card = {0};
    skald_compute_cards(&card, 1, why, NULL);
    emulated = strstr(card.name, "emulated");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_devices),     cmocka_unit_test(test_storage),
        cmocka_unit_test(test_bits),        cmocka_unit_test(test_graphs),
        cmocka_unit_test(test_empty),       cmocka_unit_test(test_vectors),
        cmocka_unit_test(conforms_f32),     cmocka_unit_test(conforms_deterministic_from_host),
        cmocka_unit_test(conforms_bf16),    cmocka_unit_test(conforms_u8),
        cmocka_unit_test(conforms_softmax), cmocka_unit_test(softmax_short),
        cmocka_unit_test(list_f32),         cmocka_unit_test(list_bf16),
        cmocka_unit_test(list_u8),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
