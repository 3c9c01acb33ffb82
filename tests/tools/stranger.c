/* A peer that means harm, over real sockets: opens a session at ADDRESS, says what KIND names, and prints what it was
 * told. For tests/e2e/hostile.sh.
 *   stranger ADDRESS KIND [CA CERT KEY | CA TOKEN]      (files)
 * Exit code: 0 it was shown out, 1 not within 30 s, 2 it could not even connect. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/base.h"
#include "skald/worker.h"
#include "wire/wire.h"

typedef struct stranger {
    const char *kind;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool opened, closed;
    skald_status code;
    char reason[SKALD_NET_REASON];
} stranger;

static void say(skald_net_session *session, const void *data, size_t size) {
    skald_bytes *b = skald_bytes_create(size ? size : 1);
    if (size) memcpy(skald_bytes_data(b), data, size);
    const skald_segment segment = {b, b->data, size};
    skald_net_send(session, &segment, 1);
    skald_bytes_unref(b);
}

static void hello(skald_net_session *session, const char *name, uint32_t protocol) {
    Skald__V1__Frame frame = SKALD__V1__FRAME__INIT;
    Skald__V1__Hello m = SKALD__V1__HELLO__INIT;
    m.protocol = protocol;
    m.name = (char *)(uintptr_t)name;
    m.device = m.build = (char *)(uintptr_t) "none";
    m.slots = 1;
    frame.body_case = SKALD__V1__FRAME__BODY_HELLO;
    frame.hello = &m;
    skald_wire_send(session, &frame, NULL, 0, NULL);
}

static void result(skald_net_session *session) {
    static const double numbers[4] = {1e300, 1, 2, 3};
    Skald__V1__Frame frame = SKALD__V1__FRAME__INIT;
    Skald__V1__Result m = SKALD__V1__RESULT__INIT;
    m.seq = m.incarnation = m.task = m.version = 1;
    m.kind = 1;
    m.rows = UINT32_MAX;
    frame.body_case = SKALD__V1__FRAME__BODY_RESULT;
    frame.result = &m;
    const skald_wire_vector vector = {NULL, numbers, sizeof numbers};
    skald_wire_send(session, &frame, &vector, 1, NULL);
}

static void heartbeat(skald_net_session *session) {
    Skald__V1__Frame frame = SKALD__V1__FRAME__INIT;
    Skald__V1__Heartbeat m = SKALD__V1__HEARTBEAT__INIT;
    frame.body_case = SKALD__V1__FRAME__BODY_HEARTBEAT;
    frame.heartbeat = &m;
    skald_wire_send(session, &frame, NULL, 0, NULL);
}

static void on_open(void *user, skald_net_session *session) {
    stranger *s = user;
    const char *kind = s->kind;
    uint8_t noise[4096];
    for (size_t k = 0; k < sizeof noise; k++) noise[k] = (uint8_t)(skald_mix64(k) >> 7);
    pthread_mutex_lock(&s->lock);
    s->opened = true;
    pthread_mutex_unlock(&s->lock);
    if (strcmp(kind, "noise") == 0) say(session, noise, sizeof noise);
    if (strcmp(kind, "empty") == 0) say(session, noise, 0);
    if (strcmp(kind, "zeros") == 0) say(session, (uint8_t[64]){0}, 64);
    if (strcmp(kind, "truncated") == 0) say(session, "\x0a\x7f\x08", 3); /* a hello of 127 bytes, two there */
    if (strcmp(kind, "length") == 0)                                     /* a vector of 2^63 bytes */
        say(session, "\x82\x01\xff\xff\xff\xff\xff\xff\xff\xff\x7f", 11);
    if (strcmp(kind, "varint") == 0) say(session, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 12);
    if (strcmp(kind, "type") == 0) say(session, "\x0f", 1); /* wire type 7 */
    if (strcmp(kind, "vectors") == 0) {                     /* hundreds, all empty */
        uint8_t many[1500];
        for (size_t k = 0; k < sizeof many; k += 3) memcpy(many + k, "\x82\x01\x00", 3);
        say(session, many, sizeof many);
    }
    if (strcmp(kind, "unknown") == 0) say(session, "\xd2\x3e\x01x", 4); /* a field nobody knows */
    if (strcmp(kind, "result") == 0) result(session);
    if (strcmp(kind, "heartbeat") == 0) heartbeat(session);
    if (strcmp(kind, "protocol") == 0) hello(session, "stranger", 4000000000u);
    if (strncmp(kind, "name:", 5) == 0) hello(session, kind + 5, SKALD_PROTOCOL);
    if (strcmp(kind, "big") == 0 || strcmp(kind, "huge") == 0) {
        const size_t size = kind[0] == 'b' ? 300000 : 4 << 20;
        uint8_t *much = calloc(size, 1);
        if (much) say(session, much, size);
        free(much);
    }
    if (strcmp(kind, "flood") == 0)
        for (int k = 0; k < 20000; k++) say(session, noise, 64);
}

static void on_frame(void *user, skald_net_session *session, skald_frame *frame) {
    skald_frame_release(frame);
}

static void on_close(void *user, skald_net_session *session, skald_status code, const char *reason) {
    stranger *s = user;
    pthread_mutex_lock(&s->lock);
    s->closed = true;
    s->code = code;
    snprintf(s->reason, sizeof s->reason, "%s", reason);
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

static char *read_text(const char *path) {
    static char texts[4][65536];
    static int next;
    char *text = texts[next++ % 4];
    FILE *f = fopen(path, "r");
    if (!f) exit(2);
    text[fread(text, 1, sizeof texts[0] - 1, f)] = '\0';
    fclose(f);
    return text;
}

/* Asks for the status with a request that is a worker's result. */
static int ask(const char *address, const skald_net_options *options) {
    const skald_segment segment = {NULL, (const uint8_t *)"\x4a\x02\x08\x01", 4};
    skald_frame *reply = NULL;
    skald_status st =
        skald_net_grpc()->call(address, options, SKALD_METHOD_STATUS, &segment, 1, 30 * SKALD_NS_PER_S, &reply);
    if (st == SKALD_OK) {
        skald_frame_release(reply);
        puts("answered");
        return 1;
    }
    printf("%s\n", skald_error());
    return st == SKALD_EUNAVAILABLE ? 2 : 0;
}

int main(int argc, char **argv) {
    if (argc < 3) return 2;
    skald_net_security security = {0};
    if (argc > 3) security.ca = read_text(argv[3]);
    if (argc == 5) security.token = read_text(argv[4]);
    if (argc > 5) {
        security.cert = read_text(argv[4]);
        security.key = read_text(argv[5]);
    }
    const skald_net_options options = {.security = argc > 3 ? &security : NULL};
    if (strcmp(argv[2], "call") == 0) return ask(argv[1], &options);
    const skald_net_handlers handlers = {.on_open = on_open, .on_frame = on_frame, .on_close = on_close};
    stranger s = {.kind = argv[2], .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    skald_net_client *client = NULL;
    if (skald_net_grpc()->connect(argv[1], &options, &handlers, &s, 5 * SKALD_NS_PER_S, &client) != SKALD_OK) return 2;
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 30;
    int late = 0;
    pthread_mutex_lock(&s.lock);
    while (!s.closed && !late) late = pthread_cond_timedwait(&s.changed, &s.lock, &until) != 0;
    printf("%s: %s\n", late ? "not shown out" : skald_status_name(s.code), s.reason);
    const int code = late ? 1 : s.code == SKALD_EUNAVAILABLE ? 2 : 0;
    pthread_mutex_unlock(&s.lock);
    skald_net_grpc()->disconnect(client);
    return code;
}
