/* Synchronous runs of ranks: whole workers and a coordinator in one process. */
#include "hang.h"
#include "harness.h"

#include "curvature/metric.h"
#include "skald/collective.h"

static setup ranks_setup(const char *path, uint32_t workers) {
    setup s = setup_default(path);
    s.workers = workers;
    s.net = skald_net_inproc();
    s.address = "inproc:ranks";
    s.collective = skald_collective_inproc();
    s.train.mode = SKALD_SYNC;
    s.train.max_passes = 400;
    return s;
}

static double reference(const setup *s) {
    skald_rows rows = {0};
    read_all(s, &rows);
    double *w = calloc(rows.dim, sizeof *w);
    double best = reference_solve(&rows, &s->objective, w);
    free(w);
    skald_rows_free(&rows);
    return best;
}

static char notices[4096];

static void on_notice(void *user, const char *text) {
    size_t used = strlen(notices);
    snprintf(notices + used, sizeof notices - used, "%s\n", text);
    if (strstr(text, "is gone")) hang_noticed();
}

static const skald_observer listener = {.notice = on_notice};

/* What the coordinator knows of the columns is what every rank measures by. */
static const skald_problem *whole_problem;
static atomic_int informed;

static void note_problem(skald_crew *crew, void *user) {
    whole_problem = crew->problem;
}

static void run_ranks(const setup *s, skald_outcome *out) {
    notices[0] = '\0';
    skald_status st = train_with(s, out, &listener, note_problem, NULL);
    whole_problem = NULL; /* it is gone */
    if (st != SKALD_OK) print_message("%s\n%s", skald_error(), notices);
    assert_int_equal(st, SKALD_OK);
}

static const toy easy = {.n = 600, .d = 20, .density = 1, .loss = SKALD_LOGISTIC, .seed = 3};

static void reaches_the_optimum(void **state) {
    const char *path = toy_write(&easy, "ranks");
    for (int variant = 0; variant < 4; variant++)
        for (uint32_t workers = 1; workers <= 3; workers++) {
            setup s = ranks_setup(path, workers);
            s.train.local = variant % 2;
            s.data.intercept = s.objective.intercept = variant == 1;
            s.objective.l1 = variant == 3 ? 1e-3 : 0;
            if (variant == 2) s.train.max_passes = 3000;
            s.train.audit = true;
            skald_outcome out;
            run_ranks(&s, &out);
            double gap = out.last.objective / reference(&s) - 1;
            print_message("%u ranks, %s%s: gap %.1e (certified %.1e) in %.1f passes, drift %.1e\n", workers,
                          s.train.local ? "local" : "plain", s.objective.l1 > 0 ? " l1" : "", gap,
                          out.last.relative_gap, out.passes, out.audit_drift);
            assert_int_equal(out.stop, SKALD_STOP_GAP);
            assert_true(out.reached);
            assert_true(fabs(gap) <= 1.1e-9);
            assert_true(out.audit_drift >= 0 && out.audit_drift < 1e-9);
            assert_non_null(strstr(notices, "synchronous over inproc threads"));
            assert_int_equal(out.worker_count, workers);
            skald_outcome_free(&out);
        }
    unlink(path);
}

/* The numbers do not depend on how the sums travel: ranks in lockstep and the coordinator's merges agree, and a second
 * run has the same bits. */
static void same_as_through_the_coordinator(void **state) {
    const char *path = toy_write(&easy, "ranks-same");
    for (int algo = SKALD_SGD; algo <= SKALD_SAGA; algo++)
        for (int local = 0; local < 2; local++) {
            setup s = ranks_setup(path, 3);
            s.train.algo = (skald_algo)algo;
            s.train.local = local;
            s.train.target_gap = 0;
            s.train.max_passes = 8;
            s.train.eval_every = 2;
            skald_outcome a, b, plain;
            run_ranks(&s, &a);
            run_ranks(&s, &b);
            s.collective = NULL;
            run_ranks(&s, &plain);
            assert_non_null(strstr(notices, "synchronous through the coordinator: worker 0 (w"));
            assert_memory_equal(a.w, b.w, 20 * sizeof(double));
            assert_true(a.updates == plain.updates && a.commits == plain.commits && a.passes == plain.passes);
            assert_true(a.evaluations == plain.evaluations);
            /* local tasks travel to and from the coordinator as floats */
            const double tolerance = local ? 1e-6 : 1e-12;
            for (int j = 0; j < 20; j++) assert_true(fabs(a.w[j] - plain.w[j]) <= tolerance * (1 + fabs(plain.w[j])));
            skald_outcome_free(&a);
            skald_outcome_free(&b);
            skald_outcome_free(&plain);
        }
    unlink(path);
}

/* Several classes: longer vectors, and Newton steps on all intercepts together, whose moments are added up too. */
typedef struct overheard {
    atomic_ullong bytes[2], frames[2]; /* to workers, from them */
} overheard;

static skald_net_fate overhear(void *user, uint64_t session, bool from_client, const skald_segment *segments,
                               size_t count) {
    overheard *o = user;
    for (size_t k = 0; k < count; k++) o->bytes[from_client] += segments[k].size;
    o->frames[from_client] += count > 0;
    return SKALD_FATE_PASS;
}

/* What is counted as sent and received is every byte of every message, through the coordinator and of ranks alike, but
 * for the last words, after the count; and ranks' sums. Seen to fail: with vectors alone. */
static void every_message_is_counted(void **state) {
    const char *path = toy_write(&easy, "ranks-bytes");
    for (int how = 0; how < 3; how++) { /* ranks; synchronous; asynchronous */
        setup s = ranks_setup(path, 3);
        if (how) s.collective = NULL;
        if (how == 2) s.train.mode = SKALD_ASYNC;
        s.train.target_gap = 0;
        s.train.max_passes = 30;
        overheard o = {0};
        const skald_net_faults faults = {.fate = overhear, .user = &o};
        skald_net_inproc_set_faults(&faults);
        skald_outcome out;
        run_ranks(&s, &out);
        skald_net_inproc_set_faults(NULL);
        uint64_t counted[2] = {0};
        for (uint32_t k = 0; k < 3; k++) {
            counted[0] += out.workers[k].bytes_sent;
            counted[1] += out.workers[k].bytes_received;
            if (how) assert_int_equal(out.workers[k].bytes_summed, 0);
            if (!how) assert_true(out.workers[k].bytes_summed >= out.updates * 20 * sizeof(double));
        }
        for (int way = 0; way < 2; way++) {
            const uint64_t all = o.bytes[way], frames = o.frames[way];
            print_message("%d, %s: %llu of %llu bytes, %llu messages\n", how, way ? "received" : "sent",
                          (unsigned long long)counted[way], (unsigned long long)all, (unsigned long long)frames);
            assert_true(counted[way] <= all && all - counted[way] < (way ? 3072 : 512));
        }
        skald_outcome_free(&out);
    }
    unlink(path);
}

static void softmax(void **state) {
    char path[64];
    snprintf(path, sizeof path, "/tmp/skald-test-%d-classes.svm", (int)getpid());
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    for (uint64_t i = 0; i < 300; i++) {
        const int y = (int)(skald_random(1, i) % 3);
        fprintf(f, "%d", y);
        for (uint64_t j = 0; j < 6; j++)
            fprintf(f, " %d:%.6f", (int)j + 1, 0.4 * skald_normal(i + 2, j) + (j % 3 == (uint64_t)y ? 0.5 : 0));
        fprintf(f, "\n");
    }
    fclose(f);
    setup s = ranks_setup(path, 3);
    s.objective.loss = SKALD_SOFTMAX;
    s.objective.classes = 0;
    s.data.intercept = s.objective.intercept = true;
    s.train.audit = true;
    skald_outcome ranks, newton, plain;
    run_ranks(&s, &ranks);
    assert_non_null(strstr(notices, "synchronous over inproc"));
    s.train.algo = SKALD_NEWTON;
    run_ranks(&s, &newton);
    assert_non_null(strstr(notices, "synchronous over inproc"));
    s.train.algo = SKALD_SAGA;
    s.collective = NULL;
    run_ranks(&s, &plain);
    print_message("softmax: F %.12g over ranks, %.12g through the coordinator\n", ranks.last.objective,
                  plain.last.objective);
    assert_int_equal(ranks.stop, SKALD_STOP_GAP);
    assert_true(fabs(ranks.last.objective / plain.last.objective - 1) <= 2e-9);
    assert_true(ranks.audit_drift < 1e-9);
    assert_true(fabs(newton.last.objective / plain.last.objective - 1) <= 2e-9 && newton.stop == SKALD_STOP_GAP);
    assert_true(newton.audit_drift < 1e-9);
    skald_outcome_free(&ranks);
    skald_outcome_free(&newton);
    skald_outcome_free(&plain);
    unlink(path);
}

/* A rank dies at its `at`th operation; of the others those in `finish` have still got the result. They go on with all
 * the rows, from the same point. */
static void survives_a_loss(void **state) {
    const char *path = toy_write(&easy, "ranks-loss");
    setup s = ranks_setup(path, 3);
    double best = reference(&s);
    static const uint64_t at[] = {30, 31, 32, 33, 34, 47, 200, 201};
    for (int sgd = 0; sgd < 2; sgd++)
        for (size_t k = 0; k < SKALD_ARRAY_LENGTH(at); k++)
            for (uint32_t lost = 0; lost < 3; lost++) {
                const skald_collective_fault fault = {at[k], lost, (uint32_t)(k + lost) % 8};
                skald_outcome out;
                s.train.algo = sgd ? SKALD_SGD : SKALD_SAGA;
                s.train.audit = !sgd;
                s.train.target_gap = sgd ? 1e-2 : 1e-9;
                skald_collective_inproc_set_faults(&fault, 1);
                run_ranks(&s, &out);
                double gap = out.last.objective / best - 1;
                if (out.stop != SKALD_STOP_GAP || gap > 1e-2)
                    print_message("op %d, rank %u lost: gap %.1e, %.1f passes\n%s", (int)at[k], lost, gap, out.passes,
                                  notices);
                assert_non_null(strstr(notices, "rows go to the others"));
                assert_int_equal(out.stop, SKALD_STOP_GAP);
                assert_true(gap <= (sgd ? 1.1e-2 : 1.1e-9));
                assert_true(sgd || out.audit_drift < 1e-9);
                assert_false(out.workers[lost].alive);
                uint64_t rows = 0;
                for (uint32_t r = 0; r < 3; r++) rows += out.workers[r].rows_held;
                assert_int_equal(rows, easy.n);
                skald_outcome_free(&out);
            }
    skald_collective_inproc_set_faults(NULL, 0);
    unlink(path);
}

/* Another rank dies while the rest of four find together again: at the first, second, ... operation of the new group,
 * of which the first tells who is behind, and the second may be the result that some have missed. */
static void survives_two_losses(void **state) {
    const char *path = toy_write(&easy, "ranks-losses");
    setup s = ranks_setup(path, 4);
    double best = reference(&s);
    s.train.audit = true;
    for (uint64_t first = 40; first < 43; first++)
        for (uint64_t second = 1; second < 7; second++)
            for (uint32_t finish = 0; finish < 8; finish += 3) {
                const skald_collective_fault faults[2] = {{first, (uint32_t)(first + second) % 4, finish},
                                                          {second, (uint32_t)second % 3, 7 - finish}};
                skald_outcome out;
                skald_collective_inproc_set_faults(faults, 2);
                run_ranks(&s, &out);
                double gap = out.last.objective / best - 1;
                uint32_t alive = 0;
                uint64_t rows = 0;
                for (uint32_t r = 0; r < 4; r++) alive += out.workers[r].alive, rows += out.workers[r].rows_held;
                if (alive != 2 || !(gap <= 1.1e-9))
                    print_message("ops %d, %d, finish %u: gap %.1e\n%s", (int)first, (int)second, finish, gap, notices);
                assert_int_equal(alive, 2);
                assert_int_equal(rows, easy.n);
                assert_int_equal(out.stop, SKALD_STOP_GAP);
                assert_true(gap <= 1.1e-9 && out.audit_drift < 1e-9);
                skald_outcome_free(&out);
            }
    skald_collective_inproc_set_faults(NULL, 0);
    unlink(path);
}

/* A rank whose device hangs is lost; the others, who wait for it, are not, and go on with all the rows. Seen to fail
 * (the run stands still) when silence alone counts, and when waiting counts as computing. */
static void survives_a_hang(void **state) {
    const char *path = toy_write(&easy, "ranks-hang");
    setup s = ranks_setup(path, 3);
    s.train.audit = true;
    s.overdue_ns = SKALD_NS_PER_S / 2;
    const double best = reference(&s);
    for (int tasks = 30; tasks < 33; tasks++) {
        skald_outcome out;
        hang_plan(tasks);
        run_ranks(&s, &out);
        hang_over();
        uint32_t alive = 0;
        uint64_t rows = 0;
        for (uint32_t r = 0; r < 3; r++) alive += out.workers[r].alive, rows += out.workers[r].rows_held;
        if (alive != 2 || !strstr(notices, "is gone: it is alive, but its task does not end")) fail_msg("%s", notices);
        assert_int_equal(alive, 2);
        assert_int_equal(rows, easy.n);
        assert_int_equal(out.stop, SKALD_STOP_GAP);
        assert_true(out.last.objective / best - 1 <= 1.1e-9 && out.audit_drift < 1e-9);
        skald_outcome_free(&out);
    }
    unlink(path);
}

/* Nor is one that waits on purpose. Seen to fail (it is lost) with the pace counted. */
static void a_slow_rank_does_not_hang(void **state) {
    const char *path = toy_write(&easy, "ranks-slow");
    setup s = ranks_setup(path, 2);
    skald_outcome out;
    s.overdue_ns = SKALD_NS_PER_S;
    s.pace_ms[1] = 4000;
    s.train.max_updates = 3;
    run_ranks(&s, &out);
    assert_int_equal(out.stop, SKALD_STOP_UPDATES);
    assert_true(out.workers[0].alive && out.workers[1].alive);
    skald_outcome_free(&out);
    unlink(path);
}

/* Limits and interrupts come from one rank's clock and flags: nobody waits for one that has stopped. */
static void stops_in_order(void **state) {
    const char *path = toy_write(&easy, "ranks-stop");
    setup s = ranks_setup(path, 3);
    skald_outcome out;
    s.train.target_gap = 0;
    s.train.max_passes = 0;
    s.train.max_seconds = 0.2;
    run_ranks(&s, &out);
    assert_int_equal(out.stop, SKALD_STOP_TIME);
    skald_outcome_free(&out);
    s.train.max_seconds = 0;
    s.train.max_updates = 17;
    run_ranks(&s, &out);
    assert_int_equal(out.stop, SKALD_STOP_UPDATES);
    assert_int_equal(out.updates, 17);
    skald_outcome_free(&out);
    atomic_int stop = 1;
    s.stop_flag = &stop;
    s.train.max_updates = 0;
    notices[0] = '\0';
    skald_status st = train_with(&s, &out, &listener, NULL, NULL);
    assert_true(st == SKALD_INTERRUPTED || (st == SKALD_OK && out.stop == SKALD_STOP_INTERRUPTED));
    skald_outcome_free(&out);
    unlink(path);
}

/* ---- history Newton ---------------------------------------------------------------------------------- */

/* Every rank's linear algebra is another: its first is right, the next ones' off by more and more. (Of a machine with
 * another BLAS that would be the last bits.) */
static pthread_mutex_t algebra_lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
    const skald_metric *of[16];
    int count;
    atomic_bool none;   /* it is not installed */
    atomic_int slow_ms; /* the next measure takes so long */
} algebra;

static int algebra_of(const skald_metric *metric) {
    int k = 0;
    pthread_mutex_lock(&algebra_lock);
    while (k < algebra.count && algebra.of[k] != metric) k++;
    if (k == algebra.count && k < 16) algebra.of[algebra.count++] = metric;
    pthread_mutex_unlock(&algebra_lock);
    return k;
}

double __real_skald_metric_apply(skald_metric *metric, const double *g, double *out);
double __wrap_skald_metric_apply(skald_metric *metric, const double *g, double *out);

double __wrap_skald_metric_apply(skald_metric *metric, const double *g, double *out) {
    const double promise = __real_skald_metric_apply(metric, g, out);
    const double off = 1 + 0.01 * algebra_of(metric);
    out[0] *= off;
    return promise * off;
}

skald_status __real_skald_metric_measure(skald_metric *metric, const skald_rows *rows, const double *h, const double *p,
                                         bool whole);
skald_status __wrap_skald_metric_measure(skald_metric *metric, const skald_rows *rows, const double *h, const double *p,
                                         bool whole);

skald_status __wrap_skald_metric_measure(skald_metric *metric, const skald_rows *rows, const double *h, const double *p,
                                         bool whole) {
    const int slow_ms = atomic_exchange(&algebra.slow_ms, 0);
    const struct timespec nap = {slow_ms / 1000, slow_ms % 1000 * 1000000};
    if (slow_ms) nanosleep(&nap, NULL);
    if (atomic_load(&algebra.none)) return skald_fail(SKALD_EUNSUPPORTED, "OpenBLAS is not installed");
    return __real_skald_metric_measure(metric, rows, h, p, whole);
}

skald_status __real_skald_metric_create(const skald_metric_options *options, skald_metric **out);
skald_status __wrap_skald_metric_create(const skald_metric_options *options, skald_metric **out);

skald_status __wrap_skald_metric_create(const skald_metric_options *options, skald_metric **out) {
    const skald_problem *p = whole_problem;
    if (p && options->columns && memcmp(options->columns, p->column_mean2, p->dim * sizeof(double)) == 0)
        atomic_fetch_add(&informed, 1);
    return __real_skald_metric_create(options, out);
}

static setup newton_ranks(const char *path, uint32_t workers) {
    setup s = ranks_setup(path, workers);
    s.train.algo = SKALD_NEWTON;
    s.train.audit = true;
    s.train.max_passes = 60;
    return s;
}

/* The numbers of every loss, with and without a constant, and l1. Seen to fail: without the decision handed round; with
 * no columns sent. */
static void newton_reaches_the_optimum(void **state) {
    static const skald_loss losses[] = {SKALD_LOGISTIC, SKALD_SQUARED, SKALD_HUBER, SKALD_SQUARED_HINGE};
    for (int sparse = 0; sparse < 2; sparse++)
        for (size_t l = 0; l < SKALD_ARRAY_LENGTH(losses); l++)
            for (int variant = 0; variant < 3; variant++) {
                const toy t = {600, 20, sparse ? 0.3 : 1, losses[l], true, 3};
                setup s = newton_ranks(toy_write(&t, "newton"), (uint32_t)variant + 1);
                s.objective.loss = losses[l];
                s.objective.l1 = variant == 2 ? 1e-3 : 0;
                s.data.intercept = s.objective.intercept = variant == 1;
                skald_outcome out;
                algebra.count = 0;
                atomic_store(&informed, 0);
                run_ranks(&s, &out);
                assert_int_equal(atomic_load(&informed), 2 * s.workers); /* two metrics each */
                assert_non_null(strstr(notices, "synchronous over inproc threads"));
                const double gap = excess(&s, &out);
                print_message("%s, %s, %d: gap %.1e (certified %.1e) in %.1f passes, drift %.1e\n",
                              skald_loss_name(losses[l]), sparse ? "sparse" : "dense", variant, gap,
                              out.last.relative_gap, out.passes, out.audit_drift);
                assert_int_equal(out.stop, SKALD_STOP_GAP);
                assert_true(fabs(gap) <= 1.1e-9 && out.passes < 30);
                assert_true(out.audit_drift >= 0 && out.audit_drift < 1e-9);
                skald_outcome_free(&out);
                unlink(s.data.path);
            }
}

/* A decrement ends it where no gap can. */
static void newton_stops_by_its_decrement(void **state) {
    setup s = newton_ranks(toy_write(&easy, "newton-free"), 3);
    s.objective.l2 = 0;
    s.train.target_gap = 0;
    s.train.target_decrement = 1e-9;
    skald_outcome out;
    algebra.count = 0;
    run_ranks(&s, &out);
    assert_non_null(strstr(notices, "synchronous over inproc threads"));
    assert_int_equal(out.stop, SKALD_STOP_DECREMENT);
    assert_true(out.last.decrement <= 1e-9 && fabs(excess(&s, &out)) <= 2e-9);
    skald_outcome_free(&out);
    unlink(s.data.path);
}

/* The rank that decides has no BLAS: it is named, and nobody waits for it. Seen to fail (the run begins anew through
 * the coordinator, whose workers are ranks) with its status passed on. */
static void newton_without_algebra(void **state) {
    setup s = newton_ranks(toy_write(&easy, "newton-bare"), 3);
    skald_outcome out;
    atomic_store(&algebra.none, true);
    notices[0] = '\0';
    assert_int_equal(train_with(&s, &out, &listener, NULL, NULL), SKALD_EREFUSED);
    assert_non_null(strstr(skald_error(), "worker 0 (w"));
    assert_non_null(strstr(skald_error(), "): OpenBLAS is not installed"));
    assert_null(strstr(notices, "through the coordinator"));
    atomic_store(&algebra.none, false);
    skald_outcome_free(&out);
    unlink(s.data.path);
}

/* Linear algebra that takes long is no hang. Seen to fail (the rank is lost) with its time counted as a task's. */
static void newton_may_think(void **state) {
    setup s = newton_ranks(toy_write(&easy, "newton-slow"), 2);
    skald_outcome out;
    s.overdue_ns = 5 * SKALD_NS_PER_S; /* no other task is late, however busy the machine */
    atomic_store(&algebra.slow_ms, 9000);
    algebra.count = 0;
    run_ranks(&s, &out);
    assert_int_equal(out.stop, SKALD_STOP_GAP);
    if (!out.workers[0].alive || !out.workers[1].alive) fail_msg("%s", notices);
    assert_int_equal(atomic_load(&algebra.slow_ms), 0);
    skald_outcome_free(&out);
    unlink(s.data.path);
}

/* A rank dies at every operation there is, the first one among them, whose place the next one takes. */
static void newton_survives_a_loss(void **state) {
    setup s = newton_ranks(toy_write(&easy, "newton-loss"), 3);
    const double best = reference(&s);
    uint64_t at = 1;
    s.data.shards = 7;
    for (bool died = true; died; at++) {
        died = false;
        for (uint32_t lost = 0; lost < 3; lost++) {
            const skald_collective_fault fault = {at, lost, (uint32_t)(at + lost) % 8};
            skald_outcome out;
            algebra.count = 0;
            skald_collective_inproc_set_faults(&fault, 1);
            run_ranks(&s, &out);
            died |= strstr(notices, "rows go to the others") != NULL;
            const double gap = out.last.objective / best - 1;
            uint64_t rows = 0;
            for (uint32_t r = 0; r < 3; r++) rows += out.workers[r].rows_held;
            if (out.stop != SKALD_STOP_GAP || !(fabs(gap) <= 1.1e-9) || rows != (uint64_t)easy.n)
                fail_msg("op %d, rank %u lost: gap %.1e, %.1f passes\n%s", (int)at, lost, gap, out.passes, notices);
            if (out.audit_drift > 1e-9) fail_msg("op %d, rank %u lost: drift %.1e", (int)at, lost, out.audit_drift);
            skald_outcome_free(&out);
        }
    }
    print_message("%d operations\n", (int)at);
    assert_true(at > 10);
    skald_collective_inproc_set_faults(NULL, 0);
    unlink(s.data.path);
}

/* Too large to be its own sample: many rounds, in each of which one rank decides; then that rank dies, or another. Seen
 * to fail: with every rank deciding for itself; with what the parts were at, or wbar, kept over a loss. */
static void newton_of_a_sample(void **state) {
    static const toy large = {.n = 9000, .d = 4200, .density = 0.002, .loss = SKALD_LOGISTIC, .seed = 5};
    setup s = newton_ranks(toy_write(&large, "newton-large"), 3);
    s.objective.l2 = 1e-3;
    for (uint32_t lost = 0; lost < 2; lost++) {
        const skald_collective_fault fault = {14 + lost, lost, 4};
        skald_outcome out;
        algebra.count = 0;
        skald_collective_inproc_set_faults(&fault, 1);
        run_ranks(&s, &out);
        const double gap = excess(&s, &out);
        print_message("rank %u lost: gap %.1e (certified %.1e), %d updates in %.1f passes, %.1fs, drift %.1e\n", lost,
                      gap, out.last.relative_gap, (int)out.updates, out.passes, out.seconds, out.audit_drift);
        assert_non_null(strstr(notices, "rows go to the others"));
        assert_int_equal(out.stop, SKALD_STOP_GAP);
        assert_true(fabs(gap) <= 1.1e-9 && out.audit_drift < 1e-9);
        assert_true(out.updates >= 5);
        skald_outcome_free(&out);
    }
    skald_collective_inproc_set_faults(NULL, 0);
    unlink(s.data.path);
}

int main(int argc, char **argv) {
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reaches_the_optimum),
        cmocka_unit_test(same_as_through_the_coordinator),
        cmocka_unit_test(every_message_is_counted),
        cmocka_unit_test(softmax),
        cmocka_unit_test(survives_a_loss),
        cmocka_unit_test(survives_two_losses),
        cmocka_unit_test(survives_a_hang),
        cmocka_unit_test(a_slow_rank_does_not_hang),
        cmocka_unit_test(stops_in_order),
        cmocka_unit_test(newton_reaches_the_optimum),
        cmocka_unit_test(newton_stops_by_its_decrement),
        cmocka_unit_test(newton_survives_a_loss),
        cmocka_unit_test(newton_without_algebra),
        cmocka_unit_test(newton_may_think),
        cmocka_unit_test(newton_of_a_sample),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
