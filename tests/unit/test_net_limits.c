/* What a peer over real sockets may not do to a server: fill its memory, hold sessions without a word, ask without end.
 * Each test says how it was seen to fail. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "net_side.h"

enum { MOST = 4096 };

/* A side that keeps whatever comes. */
typedef struct hoarder {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    skald_frame *frames[MOST];
    skald_net_call *calls[8];
    int count, call_count, refusals, asked;
    char refusal[SKALD_NET_REASON];
    bool shut; /* nobody is admitted */
} hoarder;

static void hoard_open(void *user, skald_net_session *session) {}
static void hoard_close(void *user, skald_net_session *session, skald_status code, const char *reason) {}
static void hoard_frame(void *user, skald_net_session *session, skald_frame *frame) {
    hoarder *h = user;
    pthread_mutex_lock(&h->lock);
    assert_true(h->count < MOST);
    h->frames[h->count++] = frame;
    pthread_cond_broadcast(&h->changed);
    pthread_mutex_unlock(&h->lock);
}
static void hoard_call(void *user, skald_method method, skald_frame *request, skald_net_call *call) {
    hoarder *h = user;
    skald_frame_release(request);
    pthread_mutex_lock(&h->lock);
    h->calls[h->call_count++] = call;
    pthread_cond_broadcast(&h->changed);
    pthread_mutex_unlock(&h->lock);
}
static void hoard_refused(void *user, const char *peer, const char *identity, skald_status code, const char *reason) {
    hoarder *h = user;
    pthread_mutex_lock(&h->lock);
    h->refusals++;
    snprintf(h->refusal, sizeof h->refusal, "%s", reason);
    pthread_mutex_unlock(&h->lock);
}
static bool hoard_admits(void *user, const char *peer, const char *identity, char *reason) {
    hoarder *h = user;
    pthread_mutex_lock(&h->lock);
    h->asked++;
    const bool shut = h->shut;
    pthread_mutex_unlock(&h->lock);
    if (shut) snprintf(reason, SKALD_NET_REASON, "not %.100s", peer);
    return !shut;
}

typedef struct scene {
    hoarder h;
    side client_side;
    skald_net_server *server;
    skald_net_client *client;
    char address[64];
} scene;

static void scene_open(scene *s, const skald_net_options *options) {
    static const skald_net_handlers handlers = {hoard_open, hoard_frame, hoard_close, hoard_refused, hoard_admits};
    memset(&s->h, 0, sizeof s->h);
    pthread_mutex_init(&s->h.lock, NULL);
    pthread_cond_init(&s->h.changed, NULL);
    side_init(&s->client_side);
    s->client = NULL;
    int port = 0;
    assert_int_equal(skald_net_grpc()->listen("127.0.0.1:0", options, &handlers, hoard_call, &s->h, &s->server, &port),
                     SKALD_OK);
    snprintf(s->address, sizeof s->address, "127.0.0.1:%d", port);
}

static void scene_connect(scene *s) {
    static const skald_net_options defaults = {0};
    assert_int_equal(skald_net_grpc()->connect(s->address, &defaults, &side_handlers, &s->client_side,
                                               30 * SKALD_NS_PER_S, &s->client),
                     SKALD_OK);
}

static void scene_close(scene *s) {
    if (s->client) skald_net_grpc()->disconnect(s->client);
    skald_net_grpc()->shutdown(s->server, 0);
    for (int k = 0; k < s->h.count; k++) skald_frame_release(s->h.frames[k]);
    pthread_mutex_destroy(&s->h.lock);
    pthread_cond_destroy(&s->h.changed);
    side_fini(&s->client_side);
}

static skald_status send_one(scene *s, uint32_t k) {
    const skald_segment segment = {NULL, (const uint8_t *)&k, sizeof k};
    return skald_net_send(s->client_side.session, &segment, 1);
}

/* 256 frames that nobody looks at, and no more are taken from the network; all the others come when there is room, in
 * order. Seen to fail without the pause (2000 come at once), and with one that nobody ends (256 for ever). */
static void frames_wait_outside(void **state) {
    scene s;
    scene_open(&s, NULL);
    scene_connect(&s);
    SIDE_WAIT(&s.client_side, opens, 1);
    enum { N = 2000, ROOM = 256 };
    for (uint32_t k = 0; k < N; k++) assert_int_equal(send_one(&s, k), SKALD_OK);
    SIDE_WAIT(&s.h, count, ROOM);
    usleep(300000); /* more would have come */
    assert_int_equal(SIDE(&s.h, count), ROOM);
    int released = 0;
    while (released < N) {
        SIDE_WAIT(&s.h, count, released + 1);
        pthread_mutex_lock(&s.h.lock);
        skald_frame *frame = s.h.frames[released];
        s.h.frames[released] = NULL;
        pthread_mutex_unlock(&s.h.lock);
        uint32_t number = 0;
        size_t at = 0;
        assert_int_equal(frame->size, sizeof number);
        for (size_t k = 0; k < frame->count; at += frame->segments[k++].size)
            memcpy((char *)&number + at, frame->segments[k].data, frame->segments[k].size);
        assert_int_equal(number, released);
        skald_frame_release(frame);
        released++;
    }
    scene_close(&s);
}

/* Frames may be released when their session, and its server, are gone. Seen to fail (ASan) without the session's
 * reference. */
static void frames_outlive_their_server(void **state) {
    scene s;
    scene_open(&s, NULL);
    scene_connect(&s);
    SIDE_WAIT(&s.client_side, opens, 1);
    for (uint32_t k = 0; k < 300; k++) assert_int_equal(send_one(&s, k), SKALD_OK);
    SIDE_WAIT(&s.h, count, 256);
    scene_close(&s); /* releases them last */
}

/* Who does not read fills no queue without end. Seen to fail without the limit: every send succeeds. */
static void sends_are_not_queued_without_end(void **state) {
    scene s;
    scene_open(&s, NULL);
    scene_connect(&s);
    SIDE_WAIT(&s.client_side, opens, 1);
    skald_status st = SKALD_OK;
    uint32_t sent = 0;
    for (; st == SKALD_OK && sent < 300000; sent++) st = send_one(&s, sent);
    assert_int_equal(st, SKALD_ETOOBIG);
    assert_non_null(strstr(skald_error(), " does not read: 65536 frames wait for it"));
    scene_close(&s);
}

/* Seen to fail without end_silent (a hang), and without `heard`: both sessions end. */
static void silence_ends_a_session(void **state) {
    scene s;
    const skald_net_options options = {.hello_ns = SKALD_NS_PER_S / 2};
    scene_open(&s, &options);
    s.client_side.greet = true; /* it speaks */
    scene_connect(&s);
    SIDE_WAIT(&s.h, count, 1);
    side silent;
    side_init(&silent);
    skald_net_client *client = NULL;
    assert_int_equal(skald_net_grpc()->connect(s.address, NULL, &side_handlers, &silent, 30 * SKALD_NS_PER_S, &client),
                     SKALD_OK);
    SIDE_WAIT(&silent, closes, 1);
    assert_int_equal(silent.code, SKALD_ETIMEOUT);
    assert_string_equal(silent.reason, "said nothing for 0.5 s after it connected");
    skald_net_grpc()->disconnect(client);
    side_fini(&silent);
    usleep(700000);
    assert_int_equal(SIDE(&s.client_side, closes), 0);
    scene_close(&s);
}

typedef struct asker {
    pthread_t thread;
    const char *address;
    skald_status status;
} asker;

static void *ask(void *argument) {
    asker *a = argument;
    const skald_segment request = {NULL, (const uint8_t *)"?", 1};
    skald_frame *reply = NULL;
    a->status = skald_net_grpc()->call(a->address, NULL, SKALD_METHOD_STATUS, &request, 1, 60 * SKALD_NS_PER_S, &reply);
    skald_frame_release(reply);
    return NULL;
}

/* Seen to fail without the limits: the third call waits with the others, and the long request is handed over. */
static void questions_are_limited(void **state) {
    scene s;
    const skald_net_options options = {.max_calls = 2};
    scene_open(&s, &options);
    asker two[2] = {{.address = s.address}, {.address = s.address}};
    for (int k = 0; k < 2; k++) assert_int_equal(pthread_create(&two[k].thread, NULL, ask, &two[k]), 0);
    SIDE_WAIT(&s.h, call_count, 2);
    skald_segment request = {NULL, (const uint8_t *)"?", 1};
    skald_frame *reply = NULL;
    assert_int_equal(
        skald_net_grpc()->call(s.address, NULL, SKALD_METHOD_STATUS, &request, 1, 60 * SKALD_NS_PER_S, &reply),
        SKALD_EREFUSED);
    assert_non_null(strstr(skald_error(), "2 calls wait for their answers, which is the limit"));
    assert_int_equal(SIDE(&s.h, refusals), 1);
    for (int k = 0; k < 2; k++) {
        assert_non_null(strstr(skald_net_call_peer(s.h.calls[k]), "127.0.0.1:"));
        skald_net_reply(s.h.calls[k], SKALD_OK, NULL, &request, 1);
    }
    for (int k = 0; k < 2; k++) {
        pthread_join(two[k].thread, NULL);
        assert_int_equal(two[k].status, SKALD_OK);
    }
    skald_bytes *much = skald_bytes_create(100000);
    request = (skald_segment){much, much->data, 100000};
    assert_int_equal(
        skald_net_grpc()->call(s.address, NULL, SKALD_METHOD_STATUS, &request, 1, 60 * SKALD_NS_PER_S, &reply),
        SKALD_EREFUSED);
    assert_non_null(strstr(skald_error(), "a request of 100000 bytes is over the limit of 65536"));
    skald_bytes_unref(much);
    scene_close(&s);
}

/* The application has the last word, with sessions and with questions. Seen to fail with `admits` not asked. */
static void the_application_admits(void **state) {
    scene s;
    scene_open(&s, NULL);
    pthread_mutex_lock(&s.h.lock);
    s.h.shut = true;
    pthread_mutex_unlock(&s.h.lock);
    s.client_side.forget_open = true;
    scene_connect(&s);
    SIDE_WAIT(&s.client_side, closes, 1);
    assert_int_equal(s.client_side.code, SKALD_EREFUSED);
    assert_non_null(strstr(s.client_side.reason, "not ipv4:127.0.0.1:"));
    const skald_segment request = {NULL, (const uint8_t *)"?", 1};
    skald_frame *reply = NULL;
    assert_int_equal(
        skald_net_grpc()->call(s.address, NULL, SKALD_METHOD_STATUS, &request, 1, 60 * SKALD_NS_PER_S, &reply),
        SKALD_EREFUSED);
    assert_int_equal(SIDE(&s.h, asked), 2);
    assert_int_equal(SIDE(&s.h, call_count), 0);
    scene_close(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_wait_outside),    cmocka_unit_test(frames_outlive_their_server),
        cmocka_unit_test(silence_ends_a_session), cmocka_unit_test(sends_are_not_queued_without_end),
        cmocka_unit_test(questions_are_limited),  cmocka_unit_test(the_application_admits),
    };
    return cmocka_run_group_tests_name("net limits", tests, NULL, NULL);
}
