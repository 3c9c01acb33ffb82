/* Peers of another version, frames over the limits, and strangers: refused, and the others told or left alone. Each
 * test says how it was seen to fail. */
#include "go_between.h"
#include "worker/runner.h"

/* ---- protocol versions --------------------------------------------------------------------------------- */

static bool newer_worker(void *user, bool to_coordinator, altered *a) {
    if (!to_coordinator || a->frame->body_case != SKALD__V1__FRAME__BODY_HELLO) return false;
    a->frame->hello->protocol = SKALD_PROTOCOL + 1;
    return true;
}

static bool newer_coordinator(void *user, bool to_coordinator, altered *a) {
    if (to_coordinator || a->frame->body_case != SKALD__V1__FRAME__BODY_WELCOME) return false;
    a->frame->welcome->protocol = SKALD_PROTOCOL + 1;
    return true;
}

/* Either end refuses the other, both name versions and what to do, and the coordinator goes on waiting for a worker
 * that fits. Seen to fail without the comparison in on_hello, and in on_welcome: the run is trained. */
static void another_protocol_is_refused(void **state) {
    const skald_net_ops *nets[] = {skald_net_inproc(), skald_net_grpc()};
    char words[200];
    for (int k = 0; k < 2; k++) {
        staging s = {.net = nets[k], .setup = small_problem(), .alter = newer_worker, .wait_ns = 5 * SKALD_NS_PER_S};
        stage(&s);
        assert_int_equal(s.status, SKALD_ETIMEOUT);
        says(s.error, "1 of 2 workers came");
        snprintf(words, sizeof words,
                 "worker rogue (skald %s) speaks protocol %u, this coordinator (skald %s) %u: use the same version",
                 SKALD_VERSION, SKALD_PROTOCOL + 1, SKALD_VERSION, SKALD_PROTOCOL);
        says(s.coordinator.text, words);
        says(s.workers[1].error, words);
        unstage(&s);
        unlink(s.setup.data.path);

        staging t = {.net = nets[k], .setup = small_problem(), .alter = newer_coordinator};
        stage(&t);
        snprintf(words, sizeof words,
                 "the coordinator speaks protocol %u, this worker %u: use the same version of skald",
                 SKALD_PROTOCOL + 1, SKALD_PROTOCOL);
        assert_int_equal(t.workers[1].status, SKALD_EVERSION);
        says(t.workers[1].error, words);
        assert_int_equal(t.status, SKALD_ELOST);
        says(t.error, "(rogue) was lost before training began: ");
        says(t.error, words);
        unstage(&t);
        unlink(t.setup.data.path);
    }
}

/* ---- sizes --------------------------------------------------------------------------------------------- */

static setup wide_problem(void) {
    static const toy t = {60, 900, 1, SKALD_LOGISTIC, false, 22};
    setup s = setup_default(toy_write(&t, "wide"));
    s.train.max_seconds = 60;
    return s;
}

static bool swell(void *user, bool to_coordinator, altered *a) {
    if (!to_coordinator || a->frame->body_case != SKALD__V1__FRAME__BODY_RESULT || a->count == 0) return false;
    a->entries[0] = 100000;
    a->vectors[0] = realloc(a->vectors[0], a->entries[0] * sizeof(double));
    memset(a->vectors[0], 0, a->entries[0] * sizeof(double));
    return true;
}

/* A frame over the coordinator's limit, or one that the worker may not send or be sent: the run
 * ends with the peer, the size and the limit, and everybody is told. Seen to fail (a hang: the task is asked for again
 * and again) when the worker only took note of SKALD_ETOOBIG. */
static void over_the_limit_ends_the_run(void **state) {
    const skald_net_ops *nets[] = {skald_net_inproc(), skald_net_grpc()};
    for (int k = 0; k < 2; k++) {
        staging s = {.net = nets[k], .setup = wide_problem(), .coordinator_limit = 100000, .alter = swell};
        stage(&s);
        assert_int_equal(s.status, SKALD_ELOST);
        says(s.error, "(rogue) is gone: ");
        says(s.error, k ? "ipv4:127.0.0.1:" : "inproc:");
        says(s.error, " sent a frame over the limit of 100000 bytes");
        for (int w = 0; w < 2; w++) assert_int_not_equal(s.workers[w].status, SKALD_OK);
        unstage(&s);
        unlink(s.setup.data.path);

        staging t = {.net = nets[k], .setup = wide_problem(), .worker_limit = 14000};
        stage(&t);
        assert_int_equal(t.status, SKALD_ELOST);
        says(t.error, "(rogue)");
        says(t.workers[1].error, "over the limit of 14000");
        assert_int_not_equal(t.workers[1].status, SKALD_OK);
        unstage(&t);
        unlink(t.setup.data.path);
    }
}

/* ---- coordinators ---------------------------------------------------------------------------------------- */

/* A task that asks for more vectors than there can be. */
static bool many_points(void *user, bool to_coordinator, altered *a) {
    if (to_coordinator || a->frame->body_case != SKALD__V1__FRAME__BODY_TASK) return false;
    Skald__V1__Task *t = a->frame->task;
    t->kind = SKALD_TASK_OBJECTIVE;
    t->shard = SKALD_ALL_SHARDS;
    t->points = 1u << 20;
    t->want_gradient = true;
    t->version = t->origin = 0;
    t->has_model = t->has_origin = false;
    a->count = 0;
    return true;
}

static bool huge_model(void *user, bool to_coordinator, altered *a) {
    if (to_coordinator || a->frame->body_case != SKALD__V1__FRAME__BODY_SETUP) return false;
    a->frame->setup->dim = 1u << 30;
    a->count = 0;
    return true;
}

static bool class_beyond(void *user, bool to_coordinator, altered *a) {
    if (to_coordinator || a->frame->body_case != SKALD__V1__FRAME__BODY_SETUP) return false;
    a->frame->setup->loss = SKALD_SOFTMAX; /* with the targets -1 and 1 */
    a->frame->setup->classes = 3;
    a->count = 0;
    return true;
}

static bool same_rows_twice(void *user, bool to_coordinator, altered *a) {
    static double words[2 * SKALD_BLOCK_WORDS]; /* bytes that are words here */
    if (to_coordinator || a->frame->body_case != SKALD__V1__FRAME__BODY_LEASE) return false;
    const uint64_t block[SKALD_BLOCK_WORDS] = {0, 100, 0, 4, 0};
    for (int k = 0; k < 2; k++) memcpy(words + k * SKALD_BLOCK_WORDS, block, sizeof block);
    a->count = 1;
    a->entries[0] = 2 * SKALD_BLOCK_WORDS;
    a->vectors[0] = malloc(sizeof words);
    memcpy(a->vectors[0], words, sizeof words);
    return true;
}

/* The worker says what is wrong, to the coordinator too, and leaves before it takes memory or writes anywhere. Seen to
 * fail: without skald_check_task it writes past the result's vectors and crashes; without the limit of a model's length
 * it takes 16 GiB; without check_targets, and without skald_check_blocks, it goes on. */
static void a_coordinator_is_not_believed(void **state) {
    static const struct {
        alteration alter;
        const char *words;
    } all[] = {{many_points, "task with 1048576 points"},
               {huge_model, "setup of a model of 1073741824 entries: its frames would be over the limit of 1073741824"},
               {class_beyond, "setup with a label of class -1, of 3"},
               {same_rows_twice, "lease whose block 1 overlaps the one before"}};
    for (size_t k = 0; k < SKALD_ARRAY_LENGTH(all); k++) {
        staging s = {.net = skald_net_inproc(), .setup = small_problem(), .alter = all[k].alter};
        stage(&s);
        assert_int_equal(s.workers[1].status, SKALD_EPEER);
        says(s.workers[1].error, all[k].words);
        if (s.status != SKALD_OK) says(s.error, all[k].words); /* others may take its rows over */
        unstage(&s);
        unlink(s.setup.data.path);
    }
}

/* A shard that comes when tasks are under way may be larger than any before. Seen to fail (a write past the end of the
 * lane's rows) with the room taken once. */
static void a_late_shard_finds_room(void **state) {
    skald_runner r;
    skald_lane lane = {0};
    const skald_compute_options options = {.device = "cpu", .threads = 1};
    const skald_objective objective = {.loss = SKALD_SQUARED, .classes = 1};
    assert_int_equal(skald_runner_init(&r, &options, &objective, 1, 1, 2), SKALD_OK);
    double w[1] = {0}, g[1];
    skald_version model = {.id = 1, .count = 1, .dim = 1, .vectors = {w}, .bytes = {.refs = 1}};
    for (uint32_t shard = 0; shard < 2; shard++) {
        const size_t n = shard ? 100000 : 10;
        skald_rows rows = {.layout = SKALD_DENSE, .n = n, .dim = 1, .stride = 16};
        rows.x = aligned_alloc(64, n * 16 * sizeof(float));
        memset(rows.x, 0, n * 16 * sizeof(float));
        rows.y = calloc(n, sizeof *rows.y);
        rows.s = calloc(n, sizeof *rows.s);
        rows.origin = calloc(n, sizeof *rows.origin);
        for (size_t i = 0; i < n; i++) rows.x[16 * i] = rows.s[i] = rows.y[i] = 1;
        assert_int_equal(skald_runner_add(&r, shard, &rows), SKALD_OK);
        if (shard == 0) assert_int_equal(skald_lane_init(&lane, &r), SKALD_OK);
        skald_result out = {.vectors = {g}};
        skald_task t = {.id = 1, .kind = SKALD_TASK_GRADIENT, .shard = shard, .model = &model, .rows = (uint32_t)n};
        skald_runner_run(&r, &lane, &t, &out);
        assert_int_equal(out.status, SKALD_OK);
        assert_int_equal(out.rows, n);
        assert_true(lane.room >= n);
    }
    skald_lane_fini(&lane);
    skald_runner_fini(&r);
}

/* ---- strangers ----------------------------------------------------------------------------------------- */

typedef struct stranger {
    const skald_net_ops *net;
    const char *address;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    skald_net_session *session;
    bool closed;
    skald_status code;
    char reason[300];
} stranger;

static void stranger_open(void *user, skald_net_session *session) {
    skald_bytes *b = skald_bytes_create(40);
    memset(skald_bytes_data(b), 0xff, 40);
    skald_segment segment = {b, b->data, 40};
    skald_net_send(session, &segment, 1);
    skald_bytes_unref(b);
}
static void stranger_frame(void *user, skald_net_session *session, skald_frame *frame) {
    skald_frame_release(frame);
}
static void stranger_close(void *user, skald_net_session *session, skald_status code, const char *reason) {
    stranger *s = user;
    pthread_mutex_lock(&s->lock);
    s->closed = true;
    s->code = code;
    snprintf(s->reason, sizeof s->reason, "%s", reason);
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

static void *stranger_main(void *argument) {
    stranger *s = argument;
    static const skald_net_handlers handlers = {stranger_open, stranger_frame, stranger_close, NULL, NULL};
    static const skald_net_options defaults = {0};
    skald_net_client *client = NULL;
    if (s->net->connect(s->address, &defaults, &handlers, s, SKALD_NS_PER_S, &client) != SKALD_OK) return NULL;
    pthread_mutex_lock(&s->lock);
    while (!s->closed) pthread_cond_wait(&s->changed, &s->lock);
    pthread_mutex_unlock(&s->lock);
    s->net->disconnect(client);
    return NULL;
}

typedef struct visit {
    stranger stranger;
    pthread_t thread;
} visit;

static void visit_begin(skald_crew *crew, void *user) {
    visit *v = user;
    pthread_mutex_init(&v->stranger.lock, NULL);
    pthread_cond_init(&v->stranger.changed, NULL);
    assert_int_equal(pthread_create(&v->thread, NULL, stranger_main, &v->stranger), 0);
}

/* Somebody connects in the middle of a run and sends bytes that are no frame: shown the door, and the run does not
 * notice. Seen to fail with the decoder's status handed up: the run ends. */
static void strangers_are_refused(void **state) {
    visit v = {.stranger = {.net = skald_net_inproc(), .address = "inproc:strange"}};
    setup s = small_problem();
    s.workers = 2;
    s.net = skald_net_inproc();
    s.address = "inproc:strange";
    s.pace_ms[0] = s.pace_ms[1] = 2; /* time to come in */
    skald_outcome out;
    assert_int_equal(train_with(&s, &out, NULL, visit_begin, &v), SKALD_OK);
    pthread_join(v.thread, NULL);
    assert_int_equal(v.stranger.code, SKALD_EPEER);
    assert_true(out.last.relative_gap <= 1e-9);
    assert_true(out.audit_drift < 1e-5);
    skald_outcome_free(&out);
    pthread_mutex_destroy(&v.stranger.lock);
    pthread_cond_destroy(&v.stranger.changed);
    unlink(s.data.path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(another_protocol_is_refused),   cmocka_unit_test(over_the_limit_ends_the_run),
        cmocka_unit_test(a_coordinator_is_not_believed), cmocka_unit_test(a_late_shard_finds_room),
        cmocka_unit_test(strangers_are_refused),
    };
    return cmocka_run_group_tests_name("bad frames", tests, NULL, NULL);
}
