/* Steps far too long: the model is set back, all histories are retaken at the good one, and no step is made before the
 * last has been: a slow worker's part of the anchor is of the bad model till then. */
#include "troupe.h"

#include "skald/barrier.h"

static setup far_too_long(const char *path) {
    setup s = setup_default(path);
    s.workers = 3;
    s.net = skald_net_inproc();
    s.address = "inproc:rollback";
    s.objective.loss = SKALD_SQUARED;
    s.objective.l2 = 1e-2;
    s.train.local = false;
    s.train.target_gap = 1e-8;
    s.train.max_passes = 3000;
    s.train.audit = true;
    s.train.step = 2000;
    return s;
}

/* As troupe_next, but one member has its turn once in sixteen. */
static skald_status slow_next(skald_crew *crew, int64_t timeout_ns, skald_event *event) {
    troupe *t = (troupe *)crew;
    bool others = false;
    for (uint32_t k = 0; k < t->count; k++) others |= t->waiting[k]->worker != 1;
    for (;;) { /* looks at the draw that comes */
        const uint32_t drawn = t->count ? (uint32_t)(skald_mix64(t->seed * 7919 + t->draws + 1) % t->count) : 0;
        if (!others || t->waiting[drawn]->worker != 1 || skald_mix64(t->draws) % 16 == 0) break;
        t->draws++;
    }
    return troupe_next(crew, timeout_ns, event);
}

/* Whatever the order. Seen to fail with steps in between: 15 rollbacks, and once in CI 41 and the end. */
static void no_step_on_a_bad_anchor(void **state) {
    toy t = {600, 15, 1, SKALD_SQUARED, false, 8};
    const char *path = toy_write(&t, "rollback");
    uint64_t most = 0;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        setup s = far_too_long(path);
        s.data.shards = 4;
        s.train.history_versions = seed % 2 ? 5 : 0;
        troupe *crew = troupe_open(&s.data, &s.objective, 4, seed);
        skald_crew_ops ops = *crew->crew.ops;
        ops.next = slow_next;
        crew->crew.ops = &ops;
        skald_outcome out;
        if (skald_train(&crew->crew, skald_saga, &s.train, skald_clock_system(), NULL, NULL, &out) != SKALD_OK)
            fail_msg("seed %d: %s", (int)seed, skald_error());
        assert_true(out.rollbacks >= 6 && out.last.relative_gap <= 1e-8);
        if (out.rollbacks > most) most = out.rollbacks;
        skald_outcome_free(&out);
        crew->crew.ops->destroy(&crew->crew, SKALD_OK, "done");
    }
    print_message("at most %d rollbacks\n", (int)most);
    assert_true(most <= 12);
    unlink(path);
}

/* Over the net, with barriers, whose leads do not hold back who has an anchor to put right. */
static void arrives(void **state) {
    toy t = {600, 15, 1, SKALD_SQUARED, false, 8};
    const char *path = toy_write(&t, "rollback");
    for (int versions = 0; versions <= 5; versions += 5)
        for (int k = 0; k < 3; k++) {
            setup s = far_too_long(path);
            s.train.history_versions = (uint32_t)versions;
            s.pace_ms[1] = 5;
            s.data.shards = 5;
            skald_barrier_rule *rule = NULL;
            bool sync;
            char text[128];
            assert_int_equal(skald_barrier_preset((const char *[]){"async", "sync", "ssp:1"}[k], &sync, text, 128),
                             SKALD_OK);
            s.train.mode = sync ? SKALD_SYNC : SKALD_ASYNC;
            if (*text) {
                assert_int_equal(skald_barrier_parse(text, &rule), SKALD_OK);
                s.train.barrier = skald_barrier_by_rule;
                s.train.barrier_user = rule;
                s.train.barrier_text = text;
            }
            skald_outcome out;
            skald_status st = train(&s, &out);
            if (st != SKALD_OK) fail_msg("%s", skald_error());
            print_message("%d versions, %s: %d rollbacks, %.0f passes, held %u, drift %.1e\n", versions,
                          *text ? text : "async", (int)out.rollbacks, out.passes, out.versions_held, out.audit_drift);
            assert_true(out.rollbacks >= 6 && out.rollbacks <= 12 && out.last.relative_gap <= 1e-8);
            /* numbers a thousand times the optimum's have been added and taken off again */
            assert_true(out.audit_drift < 1e-8);
            assert_true(!versions || out.versions_held <= 5 + out.rollbacks);
            skald_outcome_free(&out);
            skald_barrier_free(rule);
        }
    unlink(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(no_step_on_a_bad_anchor), cmocka_unit_test(arrives)};
    return cmocka_run_group_tests_name("rollback", tests, NULL, NULL);
}
