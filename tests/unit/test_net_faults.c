/* The in-process adapter's faults, which the rest of the system is tested under. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "net_side.h"

enum { FRAMES = 400 };

/* The server's thread waits in on_open until everything has been sent, so that no frame held back to be overtaken
 * gets tired of waiting because this machine was slow. */
static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;

static void open_gated(void *user, skald_net_session *session) {
    pthread_mutex_lock(&gate);
    pthread_mutex_unlock(&gate);
    side_open(user, session);
}
static const skald_net_handlers gated = {open_gated, side_frame_in, side_close, NULL, NULL};

/* Sends FRAMES numbered frames from client to server under `faults`; what arrived, in the order it did. */
static size_t arrivals(const skald_net_faults *faults, uint32_t *numbers, size_t room) {
    const skald_net_ops *net = skald_net_inproc();
    skald_net_inproc_set_faults(faults);
    side server_side, client_side;
    side_init(&server_side);
    side_init(&client_side);
    skald_net_server *server = NULL;
    skald_net_client *client = NULL;
    assert_int_equal(net->listen("inproc:faults", NULL, &gated, side_call, &server_side, &server, NULL), SKALD_OK);
    pthread_mutex_lock(&gate);
    assert_int_equal(net->connect("inproc:faults", NULL, &side_handlers, &client_side, SKALD_NS_PER_S, &client),
                     SKALD_OK);
    SIDE_WAIT(&client_side, opens, 1);
    for (uint32_t k = 0; k < FRAMES; k++) {
        skald_segment segment = {NULL, (const uint8_t *)&k, sizeof k};
        assert_int_equal(skald_net_send(client_side.session, &segment, 1), SKALD_OK);
    }
    skald_net_close(client_side.session, SKALD_OK, "done"); /* comes after everything that was not dropped */
    pthread_mutex_unlock(&gate);
    SIDE_WAIT(&server_side, closes, 1);
    assert_string_equal(server_side.reason, "done");
    assert_int_equal(server_side.out_of_order, 0);
    size_t count = server_side.count;
    assert_true(count <= room);
    for (size_t k = 0; k < count; k++) {
        assert_int_equal(server_side.frames[k].size, sizeof(uint32_t));
        numbers[k] = server_side.frames[k].first;
    }
    net->disconnect(client);
    net->shutdown(server, SKALD_NS_PER_S);
    side_fini(&server_side);
    side_fini(&client_side);
    skald_net_inproc_set_faults(NULL);
    return count;
}

static void none_unless_asked(void **state) {
    uint32_t numbers[FRAMES];
    assert_int_equal(arrivals(NULL, numbers, FRAMES), FRAMES);
    for (uint32_t k = 0; k < FRAMES; k++) assert_int_equal(numbers[k], k);
}

/* Seen to fail with faults drawn from a clock. */
static void same_seed_same_faults(void **state) {
    skald_net_faults faults = {
        .seed = 7, .drop = 0.1, .duplicate = 0.1, .reorder = 0.2, .delay = 0.1, .delay_max_ns = 100000};
    uint32_t first[2 * FRAMES], again[2 * FRAMES], other[2 * FRAMES];
    size_t n = arrivals(&faults, first, 2 * FRAMES);
    assert_int_equal(arrivals(&faults, again, 2 * FRAMES), n);
    assert_memory_equal(first, again, n * sizeof *first);
    faults.seed = 8;
    size_t m = arrivals(&faults, other, 2 * FRAMES);
    assert_true(m != n || memcmp(first, other, n * sizeof *first) != 0);
}

static void each_fault_is_itself(void **state) {
    uint32_t numbers[2 * FRAMES];
    skald_net_faults drop = {.seed = 1, .drop = 0.25};
    size_t n = arrivals(&drop, numbers, 2 * FRAMES);
    assert_in_range(n, FRAMES * 6 / 10, FRAMES * 9 / 10);
    for (size_t k = 1; k < n; k++) assert_true(numbers[k] > numbers[k - 1]);

    skald_net_faults duplicate = {.seed = 1, .duplicate = 0.25};
    n = arrivals(&duplicate, numbers, 2 * FRAMES);
    assert_in_range(n, FRAMES * 11 / 10, FRAMES * 14 / 10);
    for (size_t k = 1; k < n; k++) assert_true(numbers[k] == numbers[k - 1] || numbers[k] == numbers[k - 1] + 1);

    skald_net_faults reorder = {.seed = 1, .reorder = 0.25};
    n = arrivals(&reorder, numbers, 2 * FRAMES);
    assert_int_equal(n, FRAMES);
    size_t moved = 0;
    for (uint32_t k = 0; k < n; k++) {
        assert_true(numbers[k] + 1 >= k && numbers[k] <= k + 1); /* swapped with a neighbour, no more */
        moved += numbers[k] != k;
    }
    assert_in_range(moved, FRAMES / 5, FRAMES * 7 / 10);

    skald_net_faults delay = {.seed = 1, .delay = 0.5, .delay_max_ns = 1000000};
    n = arrivals(&delay, numbers, 2 * FRAMES);
    assert_int_equal(n, FRAMES);
    for (uint32_t k = 0; k < n; k++) assert_int_equal(numbers[k], k);

    skald_net_faults everything = {.seed = 1, .drop = 1};
    assert_int_equal(arrivals(&everything, numbers, 2 * FRAMES), 0);
}

/* A frame held back to be overtaken comes even when nothing follows it. */
static void reordering_never_loses_the_last(void **state) {
    const skald_net_ops *net = skald_net_inproc();
    skald_net_faults faults = {.seed = 1, .reorder = 1};
    skald_net_inproc_set_faults(&faults);
    side server_side, client_side;
    side_init(&server_side);
    side_init(&client_side);
    skald_net_server *server = NULL;
    skald_net_client *client = NULL;
    assert_int_equal(net->listen("inproc:last", NULL, &side_handlers, side_call, &server_side, &server, NULL),
                     SKALD_OK);
    assert_int_equal(net->connect("inproc:last", NULL, &side_handlers, &client_side, SKALD_NS_PER_S, &client),
                     SKALD_OK);
    SIDE_WAIT(&client_side, opens, 1);
    for (size_t k = 1; k <= 3; k++) {
        skald_segment segment = {NULL, (const uint8_t *)"x", 1};
        assert_int_equal(skald_net_send(client_side.session, &segment, 1), SKALD_OK);
        SIDE_WAIT(&server_side, count, k);
    }
    net->disconnect(client);
    net->shutdown(server, SKALD_NS_PER_S);
    side_fini(&server_side);
    side_fini(&client_side);
    skald_net_inproc_set_faults(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(none_unless_asked),
        cmocka_unit_test(same_seed_same_faults),
        cmocka_unit_test(each_fault_is_itself),
        cmocka_unit_test(reordering_never_loses_the_last),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
