/* Messages a second through the net port's gRPC adapter, over a bare echo on the C core, in turns in one run.
 *   bench_net [--rounds N] [--seconds S] [--bare] [BYTES ...]     one line of JSON a size (medians) */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bare_echo.h"
#include "base/base.h"
#include "base/pool.h"
#include "skald/net.h"

#define STREAMS 4
#define OUTSTANDING 2

typedef struct echo {
    skald_bytes *payload;
    uint64_t count; /* atomic */
} echo;

static void send_one(echo *e, skald_net_session *session) {
    skald_segment segment = {e->payload, e->payload->data, e->payload->size};
    skald_net_send(session, &segment, 1);
}

static void on_open_server(void *user, skald_net_session *session) {}
static void on_open_client(void *user, skald_net_session *session) {
    for (int k = 0; k < OUTSTANDING; k++) send_one(user, session);
}
static void on_frame(void *user, skald_net_session *session, skald_frame *frame) {
    echo *e = user;
    skald_frame_release(frame);
    __atomic_fetch_add(&e->count, 1, __ATOMIC_RELAXED);
    send_one(e, session);
}
static void on_close(void *user, skald_net_session *session, skald_status code, const char *reason) {}

static double skald_echo_run(size_t bytes, double seconds) {
    const skald_net_ops *net = skald_net_grpc();
    const skald_net_handlers server_handlers = {on_open_server, on_frame, on_close, NULL, NULL},
                             client_handlers = {on_open_client, on_frame, on_close, NULL, NULL};
    echo server_echo = {skald_bytes_create(bytes), 0}, client_echo = {server_echo.payload, 0};
    memset(skald_bytes_data(server_echo.payload), 0, bytes);
    skald_net_server *server = NULL;
    skald_net_client *clients[STREAMS];
    int port = 0;
    char address[64];
    if (net->listen("127.0.0.1:0", NULL, &server_handlers, NULL, &server_echo, &server, &port) != SKALD_OK) return -1;
    snprintf(address, sizeof address, "127.0.0.1:%d", port);
    for (int k = 0; k < STREAMS; k++)
        if (net->connect(address, NULL, &client_handlers, &client_echo, SKALD_NS_PER_S, &clients[k]) != SKALD_OK)
            return -1;
    usleep((useconds_t)(seconds * 0.2e6));
    int64_t from = skald_now_ns(skald_clock_system());
    uint64_t before = __atomic_load_n(&client_echo.count, __ATOMIC_RELAXED);
    usleep((useconds_t)(seconds * 1e6));
    uint64_t after = __atomic_load_n(&client_echo.count, __ATOMIC_RELAXED);
    double elapsed = (double)(skald_now_ns(skald_clock_system()) - from) * 1e-9;
    for (int k = 0; k < STREAMS; k++) net->disconnect(clients[k]);
    net->shutdown(server, 0);
    skald_bytes_unref(server_echo.payload);
    return (double)(after - before) / elapsed;
}

static int ascending(const void *x, const void *y) {
    double a = *(const double *)x, b = *(const double *)y;
    return (a > b) - (a < b);
}

static double median(double *v, int n) {
    qsort(v, (size_t)n, sizeof *v, ascending);
    return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

int main(int argc, char **argv) {
    enum { MAX_ROUNDS = 99, MAX_SIZES = 16 };
    size_t sizes[MAX_SIZES] = {16 << 10, 378 << 10, 8 << 20}, count = 0;
    int rounds = 5;
    double seconds = 1;
    int bare_only = 0;
    for (int k = 1; k < argc; k++) {
        if (strcmp(argv[k], "--bare") == 0)
            bare_only = 1;
        else if (strcmp(argv[k], "--rounds") == 0 && k + 1 < argc)
            rounds = atoi(argv[++k]);
        else if (strcmp(argv[k], "--seconds") == 0 && k + 1 < argc)
            seconds = atof(argv[++k]);
        else if (count < MAX_SIZES)
            sizes[count++] = (size_t)strtoull(argv[k], NULL, 10);
    }
    if (rounds < 1 || rounds > MAX_ROUNDS || seconds <= 0) return 2;
    if (count == 0) count = 3;
    for (size_t k = 0; k < count; k++) {
        double bare[MAX_ROUNDS], ours[MAX_ROUNDS], ratio[MAX_ROUNDS];
        for (int r = 0; r < rounds; r++) {
            bare_echo_options options = {sizes[k], STREAMS, OUTSTANDING, seconds};
            bare[r] = bare_echo_run(&options);
            if (bare_only) continue;
            ours[r] = skald_echo_run(sizes[k], seconds);
            ratio[r] = ours[r] / bare[r];
        }
        printf("{\"bench\": \"net\", \"payload_bytes\": %zu, \"streams\": %d, \"outstanding\": %d, \"rounds\": %d, "
               "\"bare_per_s\": %.1f",
               sizes[k], STREAMS, OUTSTANDING, rounds, median(bare, rounds));
        if (!bare_only) printf(", \"skald_per_s\": %.1f, \"ratio\": %.3f", median(ours, rounds), median(ratio, rounds));
        printf("}\n");
        fflush(stdout);
    }
    return 0;
}
