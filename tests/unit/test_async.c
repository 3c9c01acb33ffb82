/* What asynchrony must not change: where SGD under uneven speeds is on average, and that a run with l1 ends. */
#include "harness.h"

/* Engine operations that pass everything on and keep the sum of the iterates: an observer sees evaluations only. */
static struct {
    const skald_engine_ops *inner;
    const double *w;
    double *sum;
    double from; /* passes before it counts */
    uint64_t count;
} seen;

static bool seen_finished(skald_engine *e) {
    return seen.inner->finished(e);
}

static skald_status seen_dispatch(skald_engine *e, const skald_work *work) {
    seen.w = work->w;
    return seen.inner->dispatch(e, work);
}

static skald_status seen_collect(skald_engine *e, skald_merge *m) {
    return seen.inner->collect(e, m);
}

static skald_status seen_commit(skald_engine *e, const skald_merge *m, double step) {
    if (e->passes >= seen.from) {
        for (uint32_t j = 0; j < e->problem->dim; j++) seen.sum[j] += seen.w[j];
        seen.count++;
    }
    return seen.inner->commit(e, m, step);
}

static skald_status sgd_with_mean(skald_engine *e, const skald_train_options *options) {
    static const skald_engine_ops ops = {
        .finished = seen_finished, .dispatch = seen_dispatch, .collect = seen_collect, .commit = seen_commit};
    seen.inner = e->ops;
    seen.sum = calloc(e->problem->dim, sizeof *seen.sum);
    seen.count = 0;
    e->ops = &ops;
    skald_status st = skald_sgd(e, options);
    e->ops = seen.inner;
    return st;
}

/* A crew of four in simulated time, one shard each: the first takes four times as long. Computed by the local crew at
 * once, handed over when its time has come. The order of merges is the same everywhere, however busy the machine. */
enum { P = 4 };
static const double slowdown[P] = {4, 1, 1, 1};

typedef struct simulated {
    skald_crew crew;
    skald_crew *local;
    skald_member members[P];
    uint32_t shards[P];
    bool busy[P];
    skald_result results[P];
    double *vectors[P], due[P], now;
    uint64_t tasks;
} simulated;

static uint32_t sim_size(const skald_crew *crew) {
    return P;
}

static const skald_member *sim_member(const skald_crew *crew, uint32_t worker) {
    return &((const simulated *)crew)->members[worker];
}

static skald_status sim_submit(skald_crew *crew, uint32_t worker, const skald_task *task) {
    simulated *s = (simulated *)crew;
    skald_event event;
    TRY(s->local->ops->submit(s->local, 0, task));
    TRY(s->local->ops->next(s->local, 0, &event));
    skald_result *r = &s->results[worker];
    *r = *event.result;
    r->worker = worker;
    const uint32_t dim = crew->problem->dim;
    for (int k = 0; k < SKALD_MAX_POINTS; k++) {
        r->vectors[k] = s->vectors[worker] + (size_t)k * dim;
        memcpy(r->vectors[k], event.result->vectors[k], dim * sizeof(double));
    }
    if (task->shard == SKALD_ALL_SHARDS && worker > 0) { /* the first has done it for all */
        memset(r->sums, 0, sizeof r->sums);
        memset(s->vectors[worker], 0, SKALD_MAX_POINTS * (size_t)dim * sizeof(double));
    }
    s->due[worker] = s->now + slowdown[worker] * (0.9 + 0.2 * skald_uniform(5, s->tasks++));
    s->busy[worker] = true;
    return SKALD_OK;
}

static skald_status sim_next(skald_crew *crew, int64_t timeout_ns, skald_event *event) {
    simulated *s = (simulated *)crew;
    int first = -1;
    memset(event, 0, sizeof *event);
    for (int k = 0; k < P; k++)
        if (s->busy[k] && (first < 0 || s->due[k] < s->due[first])) first = k;
    if (first < 0) return SKALD_OK;
    s->now = s->due[first];
    s->busy[first] = false;
    event->kind = SKALD_EVENT_RESULT;
    event->worker = (uint32_t)first;
    event->result = &s->results[first];
    return SKALD_OK;
}

static void sim_release(skald_crew *crew, skald_result *result) {}

static const skald_crew_ops sim_ops = {sim_size, sim_member, sim_submit, sim_next, sim_release, NULL, NULL, NULL};

/* Trains in simulated time; the gap of the mean iterate, relative. */
static double mean_gap(const setup *s) {
    simulated sim = {.crew.ops = &sim_ops};
    skald_compute_options compute = {.device = "cpu", .threads = 1};
    assert_int_equal(skald_crew_local_open(&s->data, &s->objective, &compute, &sim.local), SKALD_OK);
    sim.crew.problem = sim.local->problem;
    const uint32_t dim = sim.crew.problem->dim;
    for (uint32_t k = 0; k < P; k++) {
        sim.shards[k] = k;
        sim.members[k] = (skald_member){.slots = 1, .depth = 1, .shard_count = 1, .shards = &sim.shards[k]};
        sim.vectors[k] = calloc(SKALD_MAX_POINTS * (size_t)dim, sizeof(double));
    }
    seen.from = 0.2 * s->train.max_passes;
    skald_outcome out;
    skald_status st = skald_train(&sim.crew, sgd_with_mean, &s->train, skald_clock_system(), NULL, NULL, &out);
    if (st != SKALD_OK) print_message("%s\n", skald_error());
    assert_int_equal(st, SKALD_OK);

    skald_rows rows = {0};
    read_all(s, &rows);
    double *w = calloc(dim, sizeof *w);
    double best = reference_solve(&rows, &s->objective, w);
    for (uint32_t j = 0; j < dim; j++) seen.sum[j] /= (double)seen.count;
    double gap = reference_objective(&rows, &s->objective, seen.sum, NULL) / best - 1;
    print_message("%s, q_cap %2g: gap of the mean of %d iterates %.1e\n", s->train.local ? "local" : "plain",
                  s->train.q_cap, (int)seen.count, gap);
    assert_int_equal(out.workers[0].tasks * 4 / out.workers[1].tasks, 1);
    free(w);
    free(seen.sum);
    for (int k = 0; k < P; k++) free(sim.vectors[k]);
    skald_rows_free(&rows);
    skald_outcome_free(&out);
    sim.local->ops->destroy(sim.local, SKALD_OK, "done");
    return gap;
}

/* 5. SGD under uneven speeds stays unbiased: rows sorted by label and dealt as they lie, so that each worker has one
 * class only, one worker four times slower, a small constant step. Without q_k the mean is far off, which is the second
 * half of the test. Seen to fail with a prior as large as the mass (2.9e-3), with q_k in the mass of local steps
 * (1.5e-3), with the cap on q_k rather than on the step made (1.7e-4), with merges counted instead of mass (2.5e-3). */
static void sgd_stays_unbiased(void **state) {
    toy t = {800, 6, 1, SKALD_LOGISTIC, true, 12};
    setup s = setup_default(toy_write(&t, "unbiased"));
    s.objective.l2 = 1e-2;
    s.data.contiguous = true;
    s.data.shards = P;
    s.train.algo = SKALD_SGD;
    s.train.task_rows = 25;
    s.train.step = 0.05;
    s.train.step_decay = 0;
    s.train.target_gap = 0;
    s.train.eval_every = -1;
    s.train.max_passes = 2000;
    for (int local = 0; local < 2; local++) {
        s.train.local = local;
        s.train.step_rows = local ? 5 : 0;
        s.train.q_cap = 0;
        assert_true(fabs(mean_gap(&s)) <= 1e-5);
        s.train.q_cap = -1;
        assert_true(mean_gap(&s) >= 1e-3);
    }
    unlink(s.data.path);
}

/* Without l2 only the gradient says when a run with l1 is done. Merged asynchronously, iterates are averages: their
 * zeros are small numbers, and the model delivered has them exact. Seen to fail with the subgradient of least norm,
 * which is l1 at any of them: it went on for ever, at the optimum. */
static void l1_reaches_its_gradient(void **state) {
    toy t = {600, 20, 1, SKALD_LOGISTIC, false, 13};
    for (int local = 0; local < 2; local++) {
        setup s = setup_default(toy_write(&t, "l1"));
        s.workers = 3;
        s.net = skald_net_inproc();
        s.address = "inproc:l1";
        s.objective.l2 = 0;
        s.objective.l1 = 1e-2;
        s.train.local = local;
        s.train.target_gap = 0;
        s.train.target_gradient = 1e-6;
        s.train.max_passes = 2000;
        skald_outcome out;
        assert_int_equal(train(&s, &out), SKALD_OK);
        skald_rows rows = {0};
        read_all(&s, &rows);
        double *w = calloc(rows.dim, sizeof *w);
        double best = reference_solve(&rows, &s.objective, w);
        int zeros = 0;
        for (uint32_t j = 0; j < rows.dim; j++) {
            assert_true((w[j] == 0) == (out.w[j] == 0));
            zeros += w[j] == 0;
        }
        print_message("l1 %s: passes %.1f gradient %.1e zeros %d\n", local ? "local" : "plain", out.passes,
                      out.last.gradient_norm, zeros);
        assert_int_equal(out.stop, SKALD_STOP_GRADIENT);
        assert_true(out.reached && zeros > 2);
        assert_true(reference_objective(&rows, &s.objective, out.w, NULL) <= best * (1 + 1e-8));
        free(w);
        skald_rows_free(&rows);
        skald_outcome_free(&out);
        unlink(s.data.path);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(sgd_stays_unbiased), cmocka_unit_test(l1_reaches_its_gradient)};
    return cmocka_run_group_tests_name("async", tests, NULL, NULL);
}
