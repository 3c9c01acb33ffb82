/* The invariants of the engine, over real coordinator and worker code in one process. Each test says how it
 * was seen to fail. */
#include "harness.h"

static setup over_net(const char *path, uint32_t workers) {
    setup s = setup_default(path);
    s.workers = workers;
    s.net = skald_net_inproc();
    s.address = "inproc:test";
    s.train.audit = true;
    return s;
}

static void same_bits(const skald_outcome *a, const skald_outcome *b, uint32_t dim) {
    assert_memory_equal(a->w, b->w, dim * sizeof(double));
}

/* 1. One worker, plain tasks in order: the bits of the local engine, whatever the transport. Local tasks travel as
 * floats: the bits of one transport are those of the other.
 * Seen to fail: with plain tasks as floats too; with a worker that draws from another seed. (That bits do not depend on
 * the number of threads: test_compute.) */
static void one_worker_is_the_local_engine(void **state) {
    toy t = {600, 20, 1, SKALD_LOGISTIC, false, 3};
    for (int algo = 0; algo < 2; algo++)
        for (int local = 0; local < 2; local++) {
            setup s = setup_default(toy_write(&t, "one"));
            s.train.algo = (skald_algo)algo;
            s.train.local = local;
            s.train.target_gap = 0;
            s.train.max_passes = 7;
            s.data.shards = 3;
            s.train.depth = 1; /* a queued task starts from a model one result behind */
            skald_outcome a, b, c;
            must_train(&s, &a);
            s.workers = 1;
            s.net = skald_net_inproc();
            s.address = "inproc:one";
            must_train(&s, &b);
            s.net = skald_net_grpc();
            s.address = "127.0.0.1:0";
            must_train(&s, &c);
            if (!local) same_bits(&a, &b, 20);
            same_bits(&b, &c, 20);
            skald_outcome_free(&a);
            skald_outcome_free(&b);
            skald_outcome_free(&c);
            unlink(s.data.path);
        }
}

/* 2 and 3. Frames dropped, delayed, duplicated, reordered: every A_k still equals the sum over the live table,
 * and the optimum is the same. Seen to fail: with a worker that runs a repeated task again (the target is never
 * reached); with every fiftieth result not merged into its A_k (the audit's drift); with what rounding took not carried
 * over, or carried and not taken off the audit (drifts of 6e-8); with `seen` always false and results of no
 * outstanding task taken for one that is (a hundred are refused, and the run ends). See also test_bad_peer,
 * results_are_merged_once. */
static void faults_change_nothing(void **state) {
    toy t = {900, 25, 1, SKALD_LOGISTIC, false, 4};
    for (uint64_t seed = 1; seed <= 6; seed++) {
        skald_net_faults faults = {
            .seed = seed, .drop = 0.03, .duplicate = 0.05, .reorder = 0.05, .delay = 0.1, .delay_max_ns = 3000000};
        setup s = over_net(toy_write(&t, "faults"), 3);
        s.repeat_ns = 20000000;
        s.train.local = seed % 2;
        s.train.mode = seed % 3 == 0 ? SKALD_SYNC : SKALD_ASYNC;
        s.train.max_passes = 300;
        s.train.task_rows = 40; /* many messages */
        skald_net_inproc_set_faults(&faults);
        skald_outcome out;
        must_train(&s, &out);
        skald_net_inproc_set_faults(NULL);
        print_message("faults seed %d: passes %.1f gap %.1e drift %.1e\n", (int)seed, out.passes, out.last.relative_gap,
                      out.audit_drift);
        assert_true(out.last.relative_gap <= 1e-9);
        assert_true(out.audit_drift >= 0 && out.audit_drift < 1e-12);
        skald_outcome_free(&out);
        unlink(s.data.path);
    }
}

/* 4. Results too stale for their step still update the history: with a bound of zero commits and the fold policy
 * nearly every result is folded, the anchors stay exact and the run still converges.
 * Seen to fail: with the merge of A_k skipped when folding (drift 0.6). */
static void too_stale_is_folded(void **state) {
    toy t = {800, 20, 1, SKALD_LOGISTIC, false, 6};
    setup s = over_net(toy_write(&t, "fold"), 4);
    s.train.stale = SKALD_STALE_FOLD;
    s.train.max_stale = 2;
    s.train.max_passes = 400;
    s.pace_ms[0] = 4;
    skald_outcome out;
    must_train(&s, &out);
    print_message("folded %llu of %llu, drift %.1e, gap %.1e\n", (unsigned long long)out.folded,
                  (unsigned long long)(out.folded + out.updates), out.audit_drift, out.last.relative_gap);
    assert_true(out.folded > 0);
    assert_true(out.audit_drift < 1e-5);
    assert_true(out.last.relative_gap <= 1e-9);
    skald_outcome_free(&out);
    unlink(s.data.path);
}

/* Shards of different sizes, batches cut short at every epoch's end, in rounds: the optimum all the same. (That weights
 * use the rows really in a result, 6, is seen exactly in test_merging; SAGA arrives with wrong ones too.) */
static void unequal_shards_sync(void **state) {
    toy t = {330, 10, 1, SKALD_SQUARED, false, 8};
    setup s = over_net(toy_write(&t, "unequal"), 2);
    s.objective.loss = SKALD_SQUARED;
    s.objective.l2 = 1e-2;
    s.data.shards = 5;
    s.data.contiguous = true;
    s.train.mode = SKALD_SYNC;
    s.train.max_passes = 400;
    skald_outcome out;
    must_train(&s, &out);
    assert_true(out.last.relative_gap <= 1e-9);
    assert_true(out.audit_drift < 1e-5);
    assert_int_equal(out.staleness_max, 0);
    skald_outcome_free(&out);
    unlink(s.data.path);
}

/* 9, as far as it goes here. Synchronous runs are reduced in the order of dispatch: same seed, same bits, however
 * the threads fall and whoever is slow. Seen to fail: with results summed as they arrive. */
static void sync_runs_repeat(void **state) {
    toy t = {700, 15, 0.3, SKALD_SQUARED_HINGE, false, 9};
    setup s = over_net(toy_write(&t, "repeat"), 3);
    s.objective.loss = SKALD_SQUARED_HINGE;
    s.train.mode = SKALD_SYNC;
    s.train.target_gap = 0;
    s.train.max_passes = 2; /* not so many that both stand still at the optimum */
    skald_outcome a, b;
    s.pace_ms[0] = 2;
    must_train(&s, &a);
    s.pace_ms[0] = 0;
    s.pace_ms[1] = 2;
    must_train(&s, &b);
    same_bits(&a, &b, 15);
    skald_outcome_free(&a);
    skald_outcome_free(&b);
    unlink(s.data.path);
}

/* Threads are used: every slot has a shard of its own, or slots share what there is. Seen to fail with a
 * shard a worker, whatever its threads. */
static void every_slot_has_a_shard(void **state) {
    toy t = {1200, 20, 1, SKALD_LOGISTIC, false, 11};
    setup s = over_net(toy_write(&t, "slots"), 2);
    s.threads = 3;
    s.train.max_passes = 60;
    skald_outcome out;
    must_train(&s, &out);
    for (int k = 0; k < 2; k++) {
        assert_int_equal(out.workers[k].shards, 3);
        assert_true(out.workers[k].tasks > 0);
    }
    assert_true(out.last.relative_gap <= 1e-9);
    skald_outcome_free(&out);
    s.data.shards = 4; /* fewer than slots */
    must_train(&s, &out);
    assert_int_equal(out.workers[0].shards + out.workers[1].shards, 4);
    assert_true(out.last.relative_gap <= 1e-9);
    skald_outcome_free(&out);
    unlink(s.data.path);
}

/* A dead worker ends the run with an error that names it. */
typedef struct mortal {
    worker_thread *worker;
    const atomic_int *stop;
} mortal;

static void *mortal_main(void *argument) {
    mortal *m = argument;
    m->worker->status = skald_worker_run(m->worker->net, &m->worker->options, m->stop);
    return NULL;
}

static void *kill_main(void *argument) {
    usleep(300000);
    *(atomic_int *)argument = 1;
    return NULL;
}

static void dead_worker_is_named(void **state) {
    toy t = {500, 10, 1, SKALD_LOGISTIC, false, 10};
    setup s = over_net(toy_write(&t, "dead"), 2);
    s.train.target_gap = 0;
    s.train.max_passes = 0;
    s.train.max_seconds = 20;
    skald_coordinator_options o = {.address = "inproc:dead",
                                   .workers = 2,
                                   .wait_ns = 20 * SKALD_NS_PER_S,
                                   .data = s.data,
                                   .objective = s.objective,
                                   .on_loss = SKALD_LOSS_STOP,
                                   .clock = skald_clock_system()};
    skald_coordinator *c = NULL;
    assert_int_equal(skald_coordinator_listen(s.net, &o, &c, NULL), SKALD_OK);
    atomic_int stop = 0;
    worker_thread workers[2];
    memset(workers, 0, sizeof workers);
    skald_worker_options wo = {
        .address = "inproc:dead", .compute = {.device = "cpu", .threads = 1}, .wait_ns = SKALD_NS_PER_S};
    workers[0].net = workers[1].net = s.net;
    workers[0].options = workers[1].options = wo;
    workers[0].options.name = "survivor";
    workers[1].options.name = "victim";
    pthread_create(&workers[0].thread, NULL, worker_main, &workers[0]);
    pthread_t killer, victim;
    mortal m = {&workers[1], &stop};
    pthread_create(&killer, NULL, kill_main, (void *)&stop);
    pthread_create(&victim, NULL, mortal_main, &m);
    skald_crew *crew = NULL;
    skald_status st = skald_coordinator_gather(c, NULL, &crew);
    skald_outcome out;
    if (st == SKALD_OK) {
        st = skald_train(crew, skald_solver_of(SKALD_SAGA), &s.train, skald_clock_system(), NULL, NULL, &out);
        skald_outcome_free(&out);
    }
    assert_int_equal(st, SKALD_ELOST);
    assert_non_null(strstr(skald_error(), "victim"));
    print_message("%s\n", skald_error());
    skald_coordinator_close(c, st, "a worker was lost");
    pthread_join(killer, NULL);
    pthread_join(victim, NULL);
    pthread_join(workers[0].thread, NULL);
    assert_int_equal(workers[0].status, SKALD_ELOST); /* the survivor is told why */
    unlink(s.data.path);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(one_worker_is_the_local_engine),
                                       cmocka_unit_test(faults_change_nothing),
                                       cmocka_unit_test(too_stale_is_folded),
                                       cmocka_unit_test(unequal_shards_sync),
                                       cmocka_unit_test(sync_runs_repeat),
                                       cmocka_unit_test(every_slot_has_a_shard),
                                       cmocka_unit_test(dead_worker_is_named)};
    return cmocka_run_group_tests_name("invariants", tests, NULL, NULL);
}
