/* Long arithmetic on a thread of its own: who asks meanwhile is answered, and a run that is to end says so to it. */
#include "harness.h"

#include "base/pool.h"
#include "wire/wire.h"

/* What the work does, and what came of it. */
static skald_status (*work)(void *user, const atomic_bool *stop);
static skald_status came;
static atomic_int told;

static skald_status solver(skald_engine *e, const skald_train_options *options) {
    double *w = NULL;
    TRY(e->vectors.ops->create(&e->vectors, &w));
    skald_begin(e, w, NULL, NULL);
    bool done = false;
    skald_status st = SKALD_OK;
    while (st == SKALD_OK && !skald_finished(e)) {
        skald_merge m;
        const skald_work what = {.task_rows = 10, .w = w};
        st = skald_dispatch(e, &what);
        if (st != SKALD_OK) break;
        if (!done) came = skald_beside(e, work, e);
        done = true;
        st = skald_collect(e, &m);
        if (st == SKALD_OK) st = skald_commit(e, &m, 0.1);
        if (st == SKALD_AGAIN) st = SKALD_OK;
    }
    e->vectors.ops->destroy(&e->vectors, w);
    return st;
}

static setup plain(const char *name, uint32_t workers) {
    static const toy t = {300, 8, 1, SKALD_LOGISTIC, false, 3};
    setup s = setup_default(toy_write(&t, name));
    s.train.local = 0;
    s.train.algo = SKALD_SGD;
    s.train.target_gap = 0;
    s.train.max_passes = 3;
    s.workers = workers;
    s.net = skald_net_inproc();
    s.address = "inproc:beside";
    return s;
}

/* Asks for the status and waits for the answer: the owner thread has nobody else to wait for. */
static skald_status ask(void *user, const atomic_bool *stop) {
    Skald__V1__StatusRequest body = SKALD__V1__STATUS_REQUEST__INIT;
    Skald__V1__Frame frame = SKALD__V1__FRAME__INIT;
    frame.body_case = SKALD__V1__FRAME__BODY_STATUS_REQUEST;
    frame.status_request = &body;
    skald_pool *headers = NULL;
    skald_wire_message message;
    skald_frame *reply = NULL;
    TRY(skald_pool_create(1024, &headers));
    skald_status st = skald_wire_pack(&frame, NULL, 0, headers, &message);
    if (st == SKALD_OK)
        st = skald_net_inproc()->call("inproc:beside", NULL, SKALD_METHOD_STATUS, message.segments, message.count,
                                      60 * SKALD_NS_PER_S, &reply);
    skald_wire_message_release(&message);
    skald_frame_release(reply);
    skald_pool_destroy(headers);
    return st;
}

/* With several workers, whose results come meanwhile too. Seen to fail (after a minute) with the work in the owner
 * thread. */
static void who_asks_is_answered(void **state) {
    for (uint32_t workers = 1; workers <= 3; workers += 2) {
        setup s = plain("asked", workers);
        skald_outcome out;
        work = ask;
        came = SKALD_EINTERNAL;
        if (train_solver(&s, solver, &out, NULL) != SKALD_OK) fail_msg("%s", skald_error());
        assert_int_equal(came, SKALD_OK);
        assert_int_equal(out.stop, SKALD_STOP_PASSES);
        assert_true(out.passes >= 3 && out.applied + out.scaled > 0);
        skald_outcome_free(&out);
        unlink(s.data.path);
    }
}

/* Ends when it is told to, and not before. */
static skald_status until_told(void *user, const atomic_bool *stop) {
    atomic_store(&told, 1);
    while (!atomic_load(stop)) usleep(1000);
    return SKALD_OK;
}

static void a_signal_stops_the_work(void **state) {
    setup s = plain("told", 1);
    skald_outcome out;
    work = until_told;
    came = SKALD_EINTERNAL;
    atomic_store(&told, 0);
    s.stop_flag = &told;
    if (train_solver(&s, solver, &out, NULL) != SKALD_OK) fail_msg("%s", skald_error());
    assert_int_equal(came, SKALD_OK);
    assert_int_equal(out.stop, SKALD_STOP_INTERRUPTED);
    skald_outcome_free(&out);
    unlink(s.data.path);
}

static skald_status fails(void *user, const atomic_bool *stop) {
    return skald_fail(SKALD_ENUMERIC, "no curvature in %s", "sight");
}

static void its_error_is_the_callers(void **state) {
    setup s = plain("fails", 0);
    skald_outcome out;
    work = fails;
    came = SKALD_OK;
    if (train_solver(&s, solver, &out, NULL) != SKALD_OK) fail_msg("%s", skald_error());
    assert_int_equal(came, SKALD_ENUMERIC);
    skald_outcome_free(&out);
    unlink(s.data.path);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(who_asks_is_answered),
                                       cmocka_unit_test(a_signal_stops_the_work),
                                       cmocka_unit_test(its_error_is_the_callers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
