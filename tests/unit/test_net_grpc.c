/* What only the gRPC adapter has, seen from outside through the bare core: health, unknown methods, clients that are
 * not ours, stale unix sockets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>
#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <grpc/support/alloc.h>
#include <grpc/support/time.h>

#include "net_side.h"

typedef struct answer {
    grpc_status_code code;
    uint8_t bytes[64];
    size_t size;
} answer;

/* One unary call with the bare core. */
static answer raw_call(const char *address, const char *method, const void *request, size_t size) {
    answer a;
    memset(&a, 0, sizeof a);
    grpc_init();
    grpc_completion_queue *queue = grpc_completion_queue_create_for_next(NULL);
    grpc_channel_credentials *plain = grpc_insecure_credentials_create();
    grpc_channel *channel = grpc_channel_create(address, plain, NULL);
    grpc_channel_credentials_release(plain);
    gpr_timespec deadline = gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_seconds(20, GPR_TIMESPAN));
    grpc_call *call = grpc_channel_create_call(channel, NULL, GRPC_PROPAGATE_DEFAULTS, queue,
                                               grpc_slice_from_static_string(method), NULL, deadline, NULL);
    grpc_slice slice = grpc_slice_from_copied_buffer(request, size);
    grpc_byte_buffer *sent = grpc_raw_byte_buffer_create(&slice, 1), *received = NULL;
    grpc_slice_unref(slice);
    grpc_metadata_array initial, trailing;
    grpc_metadata_array_init(&initial);
    grpc_metadata_array_init(&trailing);
    grpc_slice details = grpc_empty_slice();
    grpc_op ops[6];
    memset(ops, 0, sizeof ops);
    ops[0].op = GRPC_OP_SEND_INITIAL_METADATA;
    ops[1].op = GRPC_OP_SEND_MESSAGE;
    ops[1].data.send_message.send_message = sent;
    ops[2].op = GRPC_OP_SEND_CLOSE_FROM_CLIENT;
    ops[3].op = GRPC_OP_RECV_INITIAL_METADATA;
    ops[3].data.recv_initial_metadata.recv_initial_metadata = &initial;
    ops[4].op = GRPC_OP_RECV_MESSAGE;
    ops[4].data.recv_message.recv_message = &received;
    ops[5].op = GRPC_OP_RECV_STATUS_ON_CLIENT;
    ops[5].data.recv_status_on_client.trailing_metadata = &trailing;
    ops[5].data.recv_status_on_client.status = &a.code;
    ops[5].data.recv_status_on_client.status_details = &details;
    assert_int_equal(grpc_call_start_batch(call, ops, 6, call, NULL), GRPC_CALL_OK);
    grpc_event event = grpc_completion_queue_next(queue, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
    assert_int_equal(event.type, GRPC_OP_COMPLETE);
    if (received) {
        grpc_byte_buffer_reader reader;
        assert_true(grpc_byte_buffer_reader_init(&reader, received));
        grpc_slice all = grpc_byte_buffer_reader_readall(&reader);
        a.size = GRPC_SLICE_LENGTH(all);
        memcpy(a.bytes, GRPC_SLICE_START_PTR(all), skald_min_size(a.size, sizeof a.bytes));
        grpc_slice_unref(all);
        grpc_byte_buffer_reader_destroy(&reader);
        grpc_byte_buffer_destroy(received);
    }
    grpc_byte_buffer_destroy(sent);
    grpc_metadata_array_destroy(&initial);
    grpc_metadata_array_destroy(&trailing);
    grpc_slice_unref(details);
    grpc_call_unref(call);
    grpc_channel_destroy(channel);
    grpc_completion_queue_shutdown(queue);
    grpc_completion_queue_next(queue, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
    grpc_completion_queue_destroy(queue);
    grpc_shutdown_blocking();
    return a;
}

static skald_net_server *serve(const char *at, side *s, char address[128]) {
    skald_net_server *server = NULL;
    int port = 0;
    side_init(s);
    if (skald_net_grpc()->listen(at, NULL, &side_handlers, side_call, s, &server, &port) != SKALD_OK)
        fail_msg("%s", skald_error());
    if (port)
        snprintf(address, 128, "127.0.0.1:%d", port);
    else
        snprintf(address, 128, "%s", at);
    return server;
}

static void health(void **state) {
    side s;
    char address[128];
    skald_net_server *server = serve("127.0.0.1:0", &s, address);
    answer a = raw_call(address, "/grpc.health.v1.Health/Check", "", 0);
    assert_int_equal(a.code, GRPC_STATUS_OK);
    assert_int_equal(a.size, 2);
    assert_memory_equal(a.bytes, "\x08\x01", 2); /* SERVING */
    a = raw_call(address, "/grpc.health.v1.Health/Check", "\x0a\x14skald.v1.Coordinator", 22);
    assert_int_equal(a.code, GRPC_STATUS_OK);
    assert_memory_equal(a.bytes, "\x08\x01", 2);
    a = raw_call(address, "/grpc.health.v1.Health/Check", "\x0a\x05other", 7);
    assert_int_equal(a.code, GRPC_STATUS_NOT_FOUND);
    a = raw_call(address, "/grpc.health.v1.Health/Check", "\xff\xff\xff", 3);
    assert_int_equal(a.code, GRPC_STATUS_NOT_FOUND);
    a = raw_call(address, "/grpc.health.v1.Health/Watch", "", 0);
    assert_int_equal(a.code, GRPC_STATUS_UNIMPLEMENTED);
    skald_net_grpc()->shutdown(server, SKALD_NS_PER_S);
    side_fini(&s);
}

/* Seen to hang until the deadline without a standing request for calls of no registered method. */
static void unknown_methods(void **state) {
    side s;
    char address[128];
    skald_net_server *server = serve("127.0.0.1:0", &s, address);
    for (int k = 0; k < 20; k++) /* more than there are standing requests */
        assert_int_equal(raw_call(address, "/skald.v1.Coordinator/Nonsense", "garbage", 7).code,
                         GRPC_STATUS_UNIMPLEMENTED);
    skald_net_grpc()->shutdown(server, SKALD_NS_PER_S);
    side_fini(&s);
}

/* A client that treats the stream as a call: one message, end. It is a session that closed in order. */
static void other_clients(void **state) {
    side s;
    char address[128];
    skald_net_server *server = serve("127.0.0.1:0", &s, address);
    assert_int_equal(raw_call(address, "/skald.v1.Coordinator/Session", "frame", 5).code, GRPC_STATUS_OK);
    SIDE_WAIT(&s, closes, 1);
    assert_int_equal(SIDE(&s, count), 1);
    assert_int_equal(SIDE(&s, frames[0].size), 5);
    assert_int_equal(SIDE(&s, code), SKALD_OK);
    /* One that says why. */
    static const uint8_t notice[] = {0xfa, 0x7f, 0x07, 0x08, 0x1e, 0x12, 0x03, 'b', 'a', 'd'};
    raw_call(address, "/skald.v1.Coordinator/Session", notice, sizeof notice);
    SIDE_WAIT(&s, closes, 2);
    assert_int_equal(SIDE(&s, count), 1);
    assert_string_equal(s.reason, "bad");
    assert_int_equal(SIDE(&s, code), SKALD_EPEER);
    /* Something like it is a frame like any other. */
    raw_call(address, "/skald.v1.Coordinator/Session", notice, sizeof notice - 1);
    SIDE_WAIT(&s, closes, 3);
    assert_int_equal(SIDE(&s, count), 2);
    assert_int_equal(SIDE(&s, code), SKALD_OK);
    skald_net_grpc()->shutdown(server, SKALD_NS_PER_S);
    side_fini(&s);
}

/* Bytes that are no HTTP/2 at all do not disturb the server. */
static void garbage_on_the_socket(void **state) {
    side s;
    char address[128], path[64];
    snprintf(path, sizeof path, "unix:/tmp/skald-garbage-%d.sock", (int)getpid());
    skald_net_server *server = serve(path, &s, address);
    struct sockaddr_un where = {.sun_family = AF_UNIX};
    snprintf(where.sun_path, sizeof where.sun_path, "%s", path + 5);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&where, sizeof where), 0);
    char noise[4096];
    for (size_t k = 0; k < sizeof noise; k++) noise[k] = (char)skald_random(1, k);
    ssize_t sent = send(fd, noise, sizeof noise, MSG_NOSIGNAL);
    assert_true(sent > 0);
    while (recv(fd, noise, sizeof noise, 0) > 0) {
    }
    close(fd);
    assert_int_equal(raw_call(address, "/grpc.health.v1.Health/Check", "", 0).code, GRPC_STATUS_OK);
    skald_net_grpc()->shutdown(server, SKALD_NS_PER_S);
    side_fini(&s);
}

/* A socket file nobody listens on is cleared away; one somebody listens on, or a file, is left alone. */
static void stale_sockets(void **state) {
    side s;
    char address[128], at[64], *path = at + 5;
    snprintf(at, sizeof at, "unix:/tmp/skald-stale-%d.sock", (int)getpid());
    struct sockaddr_un where = {.sun_family = AF_UNIX};
    snprintf(where.sun_path, sizeof where.sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&where, sizeof where), 0);
    close(fd); /* as after a crash */
    skald_net_server *server = serve(at, &s, address);
    assert_int_equal(raw_call(address, "/grpc.health.v1.Health/Check", "", 0).code, GRPC_STATUS_OK);
    skald_net_grpc()->shutdown(server, SKALD_NS_PER_S);
    side_fini(&s);

    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fclose(file);
    side_init(&s);
    assert_int_equal(skald_net_grpc()->listen(at, NULL, &side_handlers, side_call, &s, &server, NULL),
                     SKALD_EADDRINUSE);
    struct stat about;
    assert_int_equal(stat(path, &about), 0);
    unlink(path);
    assert_int_equal(
        skald_net_grpc()->listen("unix:/nonexistent/a.sock", NULL, &side_handlers, side_call, &s, &server, NULL),
        SKALD_EIO);
    assert_non_null(strstr(skald_error(), "No such file"));
    assert_int_equal(skald_net_grpc()->listen("192.0.2.1:0", NULL, &side_handlers, side_call, &s, &server, NULL),
                     SKALD_EIO);
    side_fini(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(health),        cmocka_unit_test(unknown_methods),
        cmocka_unit_test(other_clients), cmocka_unit_test(garbage_on_the_socket),
        cmocka_unit_test(stale_sockets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
