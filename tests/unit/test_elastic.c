/* Workers that come and go in the middle of a run, over the in-process net: for every message of the protocol and both
 * ends, the connection breaks there, or the worker dies there and is started again; then the same by seed, many at a
 * time, hundreds of times. Afterwards the model is the optimum of an undisturbed run, and every A_k is what its holder
 * has (invariants 2, 3); and each run, done again from its record, ends with the same bits. Seen to fail: with
 * histories, or what rounding took from them, that stay with a shard that is leased, and with another lane for it than
 * its worker's.
 */
#include "fate.h"
#include "hang.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SEEDS = 40 };
#else
enum { SEEDS = 200 };
#endif
enum { STAFF = 4, FIRST = 3 }; /* the run begins with so many; the last joins later */

static char path[128]; /* of the record */

typedef struct stage {
    setup setup;
    skald_recorder *recorder;
    fate_player staff[STAFF];
    fate_names names;
    atomic_int training, over, fired;
    int evaluated; /* since the last fault */
    atomic_int enough;
    char notes[1 << 16];
    const char *await; /* until this has been said; NULL: until the faults have happened */
    int64_t grace_ns, overdue_ns;
    int threads; /* of each worker; 0: one */
    /* one fault: the n-th frame of this type from that end, once training has begun (or among all, of the one that
     * joins later) */
    int type, nth, seen;
    bool from_client, kill, of_late, early; /* early: before the first step, while L is measured */
    /* or many: by chance */
    uint64_t seed, drawn;
    double chance;
    int left;
} stage;

static const int BODY[] = {
    SKALD__V1__FRAME__BODY_HELLO,      SKALD__V1__FRAME__BODY_WELCOME,  SKALD__V1__FRAME__BODY_SCAN_REQUEST,
    SKALD__V1__FRAME__BODY_SCAN_REPLY, SKALD__V1__FRAME__BODY_SETUP,    SKALD__V1__FRAME__BODY_READY,
    SKALD__V1__FRAME__BODY_BEGIN,      SKALD__V1__FRAME__BODY_LEASE,    SKALD__V1__FRAME__BODY_LOADED,
    SKALD__V1__FRAME__BODY_RELEASE,    SKALD__V1__FRAME__BODY_TASK,     SKALD__V1__FRAME__BODY_RESULT,
    SKALD__V1__FRAME__BODY_ACK,        SKALD__V1__FRAME__BODY_HEARTBEAT};

static fate_player *named(stage *s, uint64_t session) {
    const int k = fate_worker(&s->names, session);
    return k >= 0 && k < STAFF ? &s->staff[k] : NULL;
}

static pthread_mutex_t fate_lock = PTHREAD_MUTEX_INITIALIZER;

static bool strikes(stage *s, fate_player *p, int type, bool from_client, bool *kill) {
    if (type < 0) return false;
    if (s->chance > 0) {
        const uint64_t draw = s->drawn++;
        if (!s->left || !atomic_load(&s->training) || skald_uniform(s->seed, 2 * draw) >= s->chance) return false;
        s->left--;
        *kill = skald_uniform(s->seed, 2 * draw + 1) < 0.5;
        return true;
    }
    if (atomic_load(&s->fired) || type != s->type || from_client != s->from_client) return false;
    if (s->of_late ? !p || p != &s->staff[STAFF - 1] : !s->early && !atomic_load(&s->training)) return false;
    *kill = s->kill;
    return s->seen++ == s->nth;
}

static skald_net_fate fate(void *user, uint64_t session, bool from_client, const skald_segment *segments,
                           size_t count) {
    stage *s = user;
    const int type = fate_type(segments);
    bool kill = false;
    pthread_mutex_lock(&fate_lock);
    if (type == SKALD__V1__FRAME__BODY_HELLO && from_client) fate_listen(&s->names, session, segments);
    fate_player *p = named(s, session);
    const bool cut = strikes(s, p, type, from_client, &kill);
    if (cut) {
        atomic_store(&s->fired, 1);
        s->evaluated = 0;
        if (kill && p) fate_kill(p);
    }
    pthread_mutex_unlock(&fate_lock);
    return cut ? SKALD_FATE_CUT : SKALD_FATE_PASS;
}

static void enter(stage *s, int k) {
    s->staff[k].threads = s->threads;
    fate_enter(&s->staff[k], k, "inproc:elastic", &s->over);
}

static void note_all(void *user, const char *text) {
    stage *s = user;
    const size_t used = strlen(s->notes);
    snprintf(s->notes + used, sizeof s->notes - used, "%s\n", text);
}

/* Goes on until something has gone wrong, and three evaluations since then were of the optimum. */
static void on_evaluation(void *user, const skald_evaluation *e) {
    stage *s = user;
    pthread_mutex_lock(&fate_lock);
    const bool happened = s->await        ? strstr(s->notes, s->await) != NULL
                          : s->chance > 0 ? s->left == 0
                                          : atomic_load(&s->fired);
    s->evaluated += happened && e->relative_gap < 1e-10;
    if (s->evaluated >= 3) atomic_store(&s->enough, 1);
    pthread_mutex_unlock(&fate_lock);
    if (!atomic_exchange(&s->training, 1)) enter(s, STAFF - 1);
}

static void on_merged(void *user, const skald_merged *m) {
    skald_recorder_merged(((stage *)user)->recorder, m);
}

static void do_again(stage *s, const skald_outcome *out, const char *what) {
    replayed x = replay(&s->setup, &(skald_replay_options){0});
    if (x.st != SKALD_OK || !x.same) fail_msg("%s, again: %s\n%s", what, x.error, s->notes);
    assert_true(x.out.updates == out->updates && x.out.seconds == out->seconds && x.out.stop == out->stop);
    assert_memory_equal(x.out.w, out->w, 8 * sizeof(double));
    skald_outcome_free(&x.out);
}

static double best, smoothness; /* F*; L as the first run has it */

static void perform(stage *s, const char *what) {
    skald_net_faults faults = {.fate = fate, .user = s};
    if (s->seed % 2) { /* and what a network does to what it does not lose */
        faults.seed = s->seed;
        faults.drop = faults.duplicate = faults.reorder = faults.delay = 0.02;
        faults.delay_max_ns = 3000000;
    }
    skald_coordinator_options o = {.address = "inproc:elastic",
                                   .workers = FIRST,
                                   .wait_ns = 20 * SKALD_NS_PER_S,
                                   .data = s->setup.data,
                                   .objective = s->setup.objective,
                                   .clock = skald_clock_system(),
                                   .repeat_ns = 20000000,
                                   .heartbeat_timeout_ns = 5 * SKALD_NS_PER_S,
                                   .reconnect_grace_ns = s->grace_ns ? s->grace_ns : 300000000,
                                   .overdue_ns = s->overdue_ns,
                                   .straggler = s->setup.straggler,
                                   .alone_ns = 10 * SKALD_NS_PER_S,
                                   .pace_ms = 1,
                                   .notice = note_all,
                                   .user = s};
    skald_coordinator *c = NULL;
    skald_crew *crew = NULL;
    skald_outcome out = {0};
    skald_recorder *recorder = NULL;
    skald_net_inproc_set_faults(&faults);
    assert_int_equal(skald_coordinator_listen(skald_net_inproc(), &o, &c, NULL), SKALD_OK);
    for (int k = 0; k < FIRST; k++) enter(s, k);
    skald_status st = skald_coordinator_gather(c, NULL, &crew);
    const skald_recording what_for = {
        .path = s->setup.record, .command = "train", .data = s->setup.data.path, .floats = true};
    if (st == SKALD_OK) st = skald_recorder_open(&what_for, crew, skald_clock_system(), &s->enough, &recorder);
    const skald_observer observer = {.user = s, .evaluation = on_evaluation, .notice = note_all, .merged = on_merged};
    s->recorder = recorder;
    if (st == SKALD_OK)
        st = skald_train(skald_recorder_crew(recorder), skald_solver_of(s->setup.train.algo), &s->setup.train,
                         skald_recorder_clock(recorder), &observer, skald_recorder_stop(recorder), &out);
    char error[600];
    snprintf(error, sizeof error, "%s", st == SKALD_OK ? "" : skald_error());
    assert_int_equal(skald_recorder_close(recorder, &out, st == SKALD_OK ? NULL : error), SKALD_OK);
    const double L = crew ? crew->problem->L : 0;
    if (smoothness == 0) smoothness = L;
    atomic_store(&s->over, 1);
    hang_over();
    fate_end(s->staff, STAFF);
    skald_coordinator_close(c, st, error);
    fate_join(s->staff, STAFF);
    skald_net_inproc_set_faults(NULL);
    if (st != SKALD_OK) fail_msg("%s: %s\n%s", what, error, s->notes);
    if (out.stop != SKALD_STOP_INTERRUPTED || !atomic_load(&s->enough))
        fail_msg("%s: %s after %.1f passes, gap %g%s\n%s", what, skald_stop_name(out.stop), out.passes,
                 out.last.relative_gap, atomic_load(&s->fired) ? "" : ", and nothing happened", s->notes);
    if (!(fabs(out.last.objective - best) <= 1e-8 * best))
        fail_msg("%s: objective %.17g, not %.17g\n%s", what, out.last.objective, best, s->notes);
    if (!(fabs(L - smoothness) <= 1e-9 * L)) fail_msg("%s: L %.17g, not %.17g\n%s", what, L, smoothness, s->notes);
    const bool history = s->setup.train.algo == SKALD_SAGA || s->setup.train.algo == SKALD_NEWTON;
    if (history && !(out.audit_drift >= 0 && out.audit_drift <= 1e-9))
        fail_msg("%s: drift %g\n%s", what, out.audit_drift, s->notes);
    if (!faults.reorder) do_again(s, &out, what); /* sessions keep the order of tasks, but for such a net */
    skald_outcome_free(&out);
}

static setup problem(skald_algo algo, skald_mode mode) {
    setup s = fate_problem("elastic", &best);
    s.data.shards = STAFF;
    snprintf(path, sizeof path, "/tmp/skald-test-%d-elastic.record", (int)getpid());
    s.record = path;
    s.train.algo = algo;
    s.train.mode = mode;
    return s;
}

/* Every message that the protocol has once training goes on, and all of those on the way in. Seen to fail: without the
 * rebuild of an empty table (the gap stays at 1e-2), and with tasks of the lost that stay in flight. */
static void at_every_message(void **state) {
    int runs = 0;
    for (size_t b = 0; b < SKALD_ARRAY_LENGTH(BODY); b++) {
        const int type = BODY[b];
        const bool from_client = type == SKALD__V1__FRAME__BODY_HELLO || type == SKALD__V1__FRAME__BODY_SCAN_REPLY ||
                                 type == SKALD__V1__FRAME__BODY_READY || type == SKALD__V1__FRAME__BODY_LOADED ||
                                 type == SKALD__V1__FRAME__BODY_RESULT || type == SKALD__V1__FRAME__BODY_HEARTBEAT;
        const bool joining = b < 9;
        const int times =
            type == SKALD__V1__FRAME__BODY_RELEASE || (joining && type != SKALD__V1__FRAME__BODY_READY) ? 1 : 2;
        for (int kill = 0; kill < 2; kill++)
            for (int nth = 0; nth < times; nth++) {
                stage *s = calloc(1, sizeof *s);
                char what[100];
                /* acknowledgements ride with tasks, except where the next task is long in coming */
                const bool rounds = type == SKALD__V1__FRAME__BODY_ACK || runs % 4 == 1;
                s->setup = problem(runs % 3 == 2 ? SKALD_SVRG : SKALD_SAGA, rounds ? SKALD_SYNC : SKALD_ASYNC);
                s->type = type;
                s->from_client = from_client;
                s->kill = kill;
                s->nth = nth;
                s->of_late = joining;
                snprintf(what, sizeof what, "body %d, %s, number %d", type, kill ? "killed" : "cut", nth);
                perform(s, what);
                free(s);
                runs++;
            }
    }
    print_message("%d runs\n", runs);
}

static double undisturbed(const setup *s) {
    setup calm = *s;
    skald_outcome out;
    calm.record = NULL;
    calm.workers = 0;
    calm.train.target_gap = 1e-12;
    must_train(&calm, &out);
    const double objective = out.last.objective;
    skald_outcome_free(&out);
    return objective;
}

/* Several at a time, with messages lost, doubled, late and out of order besides in every other run. SKALD_TEST_SEEDS:
 * how many; SKALD_TEST_SEED: this one. Seen to fail: with shards that move before their last task is done; in
 * synchronous runs, with a shard that moved while its rebuilt history waited for the rest of its round, and was taken
 * for rebuilt.
 */
static void by_seed(void **state) {
    const char *count = getenv("SKALD_TEST_SEEDS"), *only = getenv("SKALD_TEST_SEED");
    const uint64_t first = only ? strtoull(only, NULL, 10) : 1, last = only    ? first
                                                                       : count ? strtoull(count, NULL, 10)
                                                                               : SEEDS;
    int lives = 0;
    for (uint64_t seed = first; seed <= last; seed++) {
        static const skald_algo algos[] = {SKALD_SAGA, SKALD_SAGA, SKALD_SVRG, SKALD_SYNTHESIS};
        stage *s = calloc(1, sizeof *s);
        char what[40];
        s->setup = problem(algos[seed % 4], seed % 3 ? SKALD_ASYNC : SKALD_SYNC);
        s->seed = seed;
        s->chance = 0.02;
        s->setup.train.history_versions = seed % 8 == 4 ? 6 : 0;
        s->threads = 1 + seed / 8 % 2;
        s->left = 6;
        snprintf(what, sizeof what, "seed %d", (int)seed);
        perform(s, what);
        for (int k = 0; k < STAFF; k++) lives += atomic_load(&s->staff[k].lives);
        free(s);
    }
    print_message("%d seeds, %d lives lost\n", (int)(last - first + 1), lives);
}

/* History Newton in its flow, and in rounds (softmax), which wait for all of the history. Seen to fail: a table rebuilt
 * as the last of a round (it is waited for ever); a part given out while a task of it is under way, when that arrived
 * after the later one (the table is at another model than wbar says, and other bits when done again). */
static void newton_by_seed(void **state) {
    const char *only = getenv("SKALD_TEST_SEED");
    const double best_before = best, smoothness_before = smoothness;
    for (int rounds = 0; rounds < 2; rounds++) {
        setup calm = problem(SKALD_NEWTON, SKALD_ASYNC);
        smoothness = 0; /* a bound, where no step depends on it */
        if (rounds) calm.objective.loss = SKALD_SOFTMAX;
        best = undisturbed(&calm);
        for (uint64_t seed = 1; seed <= SEEDS / 4; seed++) {
            static const skald_mode modes[] = {SKALD_ASYNC, SKALD_SYNC, SKALD_ASYNC};
            if (only && strtoull(only, NULL, 10) != seed) continue;
            stage *s = calloc(1, sizeof *s);
            char what[40];
            s->setup = problem(SKALD_NEWTON, modes[seed % 3]);
            s->setup.data.shards = seed % 2 ? STAFF : 2 * STAFF + 1;
            if (rounds) s->setup.objective.loss = SKALD_SOFTMAX;
            s->seed = seed;
            s->chance = 0.02;
            s->threads = 1 + seed / 4 % 2;
            s->left = 6;
            snprintf(what, sizeof what, "%s, seed %d", rounds ? "rounds" : "flow", (int)seed);
            perform(s, what);
            free(s);
        }
    }
    best = best_before;
    smoothness = smoothness_before;
}

static stage *broken_task(int64_t grace_ns) {
    stage *s = calloc(1, sizeof *s);
    s->setup = problem(SKALD_SAGA, SKALD_ASYNC);
    s->type = SKALD__V1__FRAME__BODY_TASK;
    s->nth = 3;
    s->grace_ns = grace_ns;
    return s;
}

/* A session that breaks is taken up again: the worker keeps its rows and its history, nobody takes them over. */
static void who_comes_back_goes_on(void **state) {
    stage *s = broken_task(20 * SKALD_NS_PER_S);
    s->await = ") is back";
    perform(s, "back");
    assert_non_null(strstr(s->notes, ": the connection broke (the connection broke); it may come back within 20 s"));
    assert_null(strstr(s->notes, "is gone"));
    free(s);
}

/* Who was given up is new: no task and no result of its earlier life counts. Seen to fail with rows that it keeps:
 * evaluations are of more rows than there are. */
static void who_was_given_up_is_new(void **state) {
    stage *s = broken_task(-1);
    s->await = "has joined";
    perform(s, "new");
    assert_non_null(strstr(s->notes, ") is gone: the connection broke; "));
    assert_null(strstr(s->notes, "is back"));
    free(s);
}

/* L is measured by all workers before the first step: with one that goes meanwhile it is measured again. Seen to fail
 * (it is waited for) when the others are not asked again. */
static void while_L_is_measured(void **state) {
    for (int k = 0; k < 6; k++) {
        stage *s = calloc(1, sizeof *s);
        s->setup = problem(SKALD_SAGA, SKALD_ASYNC);
        s->type = k < 4 ? SKALD__V1__FRAME__BODY_TASK : SKALD__V1__FRAME__BODY_RESULT;
        s->from_client = k >= 4;
        s->early = true;
        s->kill = k % 2;
        s->nth = k;
        perform(s, "early");
        free(s);
    }
}

/* A worker that lives and whose device hangs is lost as one that is dead, whatever its other lanes do. Seen to fail (it
 * is waited for): without `overdue`; and with several lanes, when what one does spoke for all. */
static void a_device_that_hangs_is_a_loss(void **state) {
    static const struct {
        int threads, task;
        skald_mode mode;
    } runs[] = {{1, 40, SKALD_SYNC},  {1, 40, SKALD_ASYNC}, {2, 40, SKALD_SYNC}, {2, 40, SKALD_ASYNC},
                {2, 41, SKALD_ASYNC}, {2, 42, SKALD_ASYNC}, {2, 43, SKALD_ASYNC}};
    for (size_t k = 0; k < SKALD_ARRAY_LENGTH(runs); k++) {
        stage *s = calloc(1, sizeof *s);
        char what[40];
        s->setup = problem(SKALD_SAGA, runs[k].mode);
        s->setup.data.shards = 2 * STAFF; /* some for each lane */
        s->threads = runs[k].threads;
        s->overdue_ns = SKALD_NS_PER_S / 2;
        s->await = "is gone: it is alive, but its task does not end";
        snprintf(what, sizeof what, "%d lanes, task %d", s->threads, runs[k].task);
        hang_plan(runs[k].task);
        perform(s, what);
        free(s);
    }
}

/* Who waits on purpose computes nothing, and does not hang. Seen to fail (it is lost) with the pause counted. */
static void a_pause_is_no_loss(void **state) {
    stage *s = calloc(1, sizeof *s);
    s->setup = problem(SKALD_SAGA, SKALD_SYNC);
    s->setup.straggler = "pause:1@0.1+6";
    s->overdue_ns = SKALD_NS_PER_S;
    s->await = "has joined";
    perform(s, "pause");
    assert_null(strstr(s->notes, "is gone"));
    free(s);
}

int main(void) {
    const char *only = getenv("SKALD_TEST_ONLY");
    if (only) cmocka_set_test_filter(only);
    const struct CMUnitTest tests[] = {cmocka_unit_test(who_comes_back_goes_on),
                                       cmocka_unit_test(who_was_given_up_is_new),
                                       cmocka_unit_test(while_L_is_measured),
                                       cmocka_unit_test(a_device_that_hangs_is_a_loss),
                                       cmocka_unit_test(a_pause_is_no_loss),
                                       cmocka_unit_test(at_every_message),
                                       cmocka_unit_test(by_seed),
                                       cmocka_unit_test(newton_by_seed)};
    const int failed = cmocka_run_group_tests_name("elastic", tests, NULL, NULL);
    unlink(path);
    return failed;
}
