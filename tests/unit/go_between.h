/* A go-between that sits on the wire between a real coordinator and a real worker and alters what passes; and a run of
 * two workers, the second behind it. For tests of peers that mean harm. */
#ifndef SKALD_TESTS_GO_BETWEEN_H
#define SKALD_TESTS_GO_BETWEEN_H

#include "harness.h"
#include "wire/wire.h"

/* ---- the go-between ---------------------------------------------------------------------------------- */

typedef struct altered {
    Skald__V1__Frame *frame;
    double *vectors[SKALD_MAX_POINTS];
    size_t entries[SKALD_MAX_POINTS], count;
    bool besides; /* the altered frame follows the original */
} altered;

/* Alters a frame on its way (towards the coordinator or back); false: let it pass as it is. */
typedef bool (*alteration)(void *user, bool to_coordinator, altered *a);

typedef struct go_between {
    const skald_net_ops *net;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    skald_net_session *coordinator, *worker;
    bool open; /* towards the coordinator */
    skald_net_server *server;
    skald_net_client *client;
    skald_wire_env *env[2];
    alteration alter;
    void *user;
    char address[64]; /* where the worker finds it */
} go_between;

static void pass_on(go_between *g, skald_net_session *to, skald_frame *frame, bool to_coordinator) {
    assert_int_equal(skald_wire_open(g->env[to_coordinator], frame), SKALD_OK);
    skald_wire_env *env = g->env[to_coordinator];
    Skald__V1__Frame body = *skald_wire_body(env);
    altered a = {.frame = &body, .count = skald_wire_vectors(env)};
    bool results = body.body_case == SKALD__V1__FRAME__BODY_RESULT &&
                   body.result->kind != SKALD_TASK_SAMPLE; /* whose rows are bytes, and are passed on or left out */
    const bool narrow = results && body.result->narrow;    /* altered ones go on as doubles */
    for (size_t k = 0; k < a.count && results; k++) {
        a.entries[k] = skald_wire_vector_bytes(env, k) / (narrow ? sizeof(float) : sizeof(double));
        a.vectors[k] = malloc((a.entries[k] + 1) * sizeof(double)); /* one may be added */
        assert_int_equal((narrow ? skald_wire_floats : skald_wire_doubles)(env, k, a.vectors[k], a.entries[k]),
                         SKALD_OK);
    }
    if (narrow) body.result->narrow = false;
    bool alters = g->alter && g->alter(g->user, to_coordinator, &a);
    if (!alters || a.besides) {
        skald_bytes *copy = skald_bytes_create(frame->size ? frame->size : 1);
        size_t at = 0;
        for (size_t k = 0; k < frame->count; at += frame->segments[k++].size)
            if (frame->segments[k].size)
                memcpy(skald_bytes_data(copy) + at, frame->segments[k].data, frame->segments[k].size);
        skald_segment all = {copy, copy->data, frame->size};
        skald_net_send(to, &all, 1);
        skald_bytes_unref(copy);
    }
    if (alters) {
        skald_wire_vector vectors[SKALD_MAX_POINTS];
        for (size_t k = 0; k < a.count; k++) {
            skald_bytes *bytes = skald_bytes_create(a.entries[k] * sizeof(double));
            memcpy(skald_bytes_data(bytes), a.vectors[k], a.entries[k] * sizeof(double));
            vectors[k] = (skald_wire_vector){bytes, bytes->data, a.entries[k] * sizeof(double)};
        }
        skald_wire_send(to, &body, vectors, a.count, NULL);
        for (size_t k = 0; k < a.count; k++) skald_bytes_unref(vectors[k].owner);
    }
    for (size_t k = 0; k < SKALD_MAX_POINTS; k++) free(a.vectors[k]);
    skald_frame_release(frame);
}

/* The session on that side, with a reference; NULL when it is not there. */
static skald_net_session *side_of(go_between *g, bool coordinator) {
    pthread_mutex_lock(&g->lock);
    skald_net_session *s = coordinator ? g->coordinator : g->worker;
    if (s) skald_net_session_ref(s);
    pthread_mutex_unlock(&g->lock);
    return s;
}

static void between_open(go_between *g, skald_net_session *session, bool coordinator) {
    pthread_mutex_lock(&g->lock);
    *(coordinator ? &g->coordinator : &g->worker) = skald_net_session_ref(session);
    pthread_cond_broadcast(&g->changed);
    pthread_mutex_unlock(&g->lock);
}

static void between_frame(go_between *g, skald_frame *frame, bool to_coordinator) {
    skald_net_session *to = side_of(g, to_coordinator);
    if (to)
        pass_on(g, to, frame, to_coordinator);
    else
        skald_frame_release(frame);
    if (to) skald_net_session_unref(to);
}

static void between_close(go_between *g, skald_status code, const char *reason, bool to_coordinator) {
    skald_net_session *to = side_of(g, to_coordinator);
    if (!to) return;
    skald_net_close(to, code, reason);
    skald_net_session_unref(to);
}

static void coordinator_open(void *user, skald_net_session *s) {
    between_open(user, s, true);
}
static void coordinator_frame(void *user, skald_net_session *s, skald_frame *f) {
    between_frame(user, f, false);
}
static void coordinator_close(void *user, skald_net_session *s, skald_status code, const char *reason) {
    between_close(user, code, reason, false);
}
static void worker_open(void *user, skald_net_session *s) {
    between_open(user, s, false);
}
static void worker_frame(void *user, skald_net_session *s, skald_frame *f) {
    between_frame(user, f, true);
}
static void worker_close(void *user, skald_net_session *s, skald_status code, const char *reason) {
    between_close(user, code, reason, true);
}

static void between_start(go_between *g, const skald_net_ops *net, const char *coordinator, alteration alter,
                          void *user) {
    static const skald_net_handlers up = {coordinator_open, coordinator_frame, coordinator_close, NULL, NULL};
    static const skald_net_handlers down = {worker_open, worker_frame, worker_close, NULL, NULL};
    static const skald_net_options defaults = {0};
    memset(g, 0, sizeof *g);
    g->net = net;
    g->alter = alter;
    g->user = user;
    pthread_mutex_init(&g->lock, NULL);
    pthread_cond_init(&g->changed, NULL);
    for (int k = 0; k < 2; k++) assert_int_equal(skald_wire_env_create(&g->env[k]), SKALD_OK);
    assert_int_equal(net->connect(coordinator, &defaults, &up, g, 10 * SKALD_NS_PER_S, &g->client), SKALD_OK);
    pthread_mutex_lock(&g->lock);
    while (!g->coordinator) pthread_cond_wait(&g->changed, &g->lock);
    pthread_mutex_unlock(&g->lock);
    int port = 0;
    const char *listen = net == skald_net_inproc() ? "inproc:between" : "127.0.0.1:0";
    assert_int_equal(net->listen(listen, &defaults, &down, NULL, g, &g->server, &port), SKALD_OK);
    if (port)
        snprintf(g->address, sizeof g->address, "127.0.0.1:%d", port);
    else
        snprintf(g->address, sizeof g->address, "%s", listen);
}

static void between_stop(go_between *g) {
    g->net->disconnect(g->client);
    g->net->shutdown(g->server, 0);
    skald_net_session_unref(g->coordinator);
    if (g->worker) skald_net_session_unref(g->worker);
    for (int k = 0; k < 2; k++) skald_wire_env_destroy(g->env[k]);
    pthread_mutex_destroy(&g->lock);
    pthread_cond_destroy(&g->changed);
}

/* ---- a run of two workers, the second behind the go-between ------------------------------------------ */

typedef struct notes {
    pthread_mutex_t lock;
    char text[32768]; /* the first that fit */
} notes;

static void note(void *user, const char *text) {
    notes *n = user;
    pthread_mutex_lock(&n->lock);
    size_t used = strlen(n->text);
    snprintf(n->text + used, sizeof n->text - used, "%s\n", text);
    pthread_mutex_unlock(&n->lock);
}

typedef struct staging {
    const skald_net_ops *net;
    setup setup;
    alteration alter;
    void *user;
    size_t coordinator_limit, worker_limit; /* bytes a frame; 0: default */
    int64_t wait_ns;                        /* the coordinator's */
    bool goes_on;                           /* without whoever is lost */
    /* what came of it */
    skald_status status;
    char error[1024];
    skald_outcome outcome;
    notes coordinator, engine, rogue; /* what each said */
    worker_thread workers[2];
} staging;

static void stage(staging *s) {
    notes *all[] = {&s->coordinator, &s->engine, &s->rogue};
    for (int k = 0; k < 3; k++) pthread_mutex_init(&all[k]->lock, NULL);
    const bool grpc = s->net == skald_net_grpc();
    skald_coordinator_options o = {.address = grpc ? "127.0.0.1:0" : "inproc:bad",
                                   .workers = 2,
                                   .wait_ns = s->wait_ns ? s->wait_ns : 20 * SKALD_NS_PER_S,
                                   .data = s->setup.data,
                                   .objective = s->setup.objective,
                                   .net = {.max_frame_bytes = s->coordinator_limit},
                                   .clock = skald_clock_system(),
                                   .repeat_ns = SKALD_NS_PER_S,
                                   .on_loss = s->goes_on ? SKALD_LOSS_REASSIGN : SKALD_LOSS_STOP,
                                   .notice = note,
                                   .user = &s->coordinator};
    skald_coordinator *c = NULL;
    int port = 0;
    assert_int_equal(skald_coordinator_listen(s->net, &o, &c, &port), SKALD_OK);
    char address[64];
    snprintf(address, sizeof address, port ? "127.0.0.1:%d" : "inproc:bad", port);
    go_between g;
    between_start(&g, s->net, address, s->alter, s->user);
    static const char *const names[] = {"honest", "rogue"};
    for (int k = 0; k < 2; k++) {
        worker_thread *w = &s->workers[k];
        w->net = s->net;
        w->options = (skald_worker_options){.address = k ? g.address : address,
                                            .name = names[k],
                                            .compute = {.device = "cpu", .threads = 1},
                                            .wait_ns = 10 * SKALD_NS_PER_S,
                                            .net = {.max_frame_bytes = k ? s->worker_limit : 0},
                                            .repeat_ns = SKALD_NS_PER_S,
                                            .notice = k ? note : NULL,
                                            .user = &s->rogue};
        assert_int_equal(pthread_create(&w->thread, NULL, worker_main, w), 0);
    }
    skald_crew *crew = NULL;
    skald_observer observer = {.user = &s->engine, .notice = note};
    s->status = skald_coordinator_gather(c, NULL, &crew);
    if (s->status == SKALD_OK)
        s->status = skald_train(crew, skald_solver_of(s->setup.train.algo), &s->setup.train, skald_clock_system(),
                                &observer, NULL, &s->outcome);
    snprintf(s->error, sizeof s->error, "%s", s->status == SKALD_OK ? "" : skald_error());
    skald_coordinator_close(c, s->status, s->error);
    for (int k = 0; k < 2; k++) pthread_join(s->workers[k].thread, NULL);
    between_stop(&g);
    for (int k = 0; k < 3; k++) pthread_mutex_destroy(&all[k]->lock);
}

static void unstage(staging *s) {
    skald_outcome_free(&s->outcome);
}

static void says(const char *text, const char *words) {
    if (!strstr(text, words)) fail_msg("'%s' does not say '%s'", text, words);
}

static setup small_problem(void) {
    static const toy t = {400, 12, 1, SKALD_LOGISTIC, false, 21};
    setup s = setup_default(toy_write(&t, "bad"));
    s.data.shards = 4;
    s.train.audit = true;
    s.train.max_passes = 400;
    s.train.max_seconds = 60; /* only a hang takes this long */
    return s;
}

#endif
