/* The event queue and the buffer pool. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/base.h"
#include "base/pool.h"
#include "base/queue.h"

typedef struct item {
    uint32_t producer, number;
    char rest[5]; /* a size that is no power of two */
} item;

/* Seen to fail with `grow` copying the ring from 0 instead of from its head. */
static void grows_and_keeps_order(void **state) {
    skald_queue *q = NULL;
    assert_int_equal(skald_queue_create(sizeof(item), 5, &q), SKALD_OK);
    item x = {0};
    uint32_t in = 0, out = 0;
    for (int round = 0; round < 200; round++) { /* 3 in, 2 out: grows with the head anywhere */
        for (int k = 0; k < 3; k++) {
            x.number = in++;
            assert_int_equal(skald_queue_push(q, &x), SKALD_OK);
        }
        for (int k = 0; k < 2; k++) {
            assert_int_equal(skald_queue_pop(q, &x, 0), SKALD_OK);
            assert_int_equal(x.number, out++);
        }
    }
    assert_int_equal(skald_queue_size(q), 200);
    skald_queue_close(q);
    assert_int_equal(skald_queue_push(q, &x), SKALD_ELOST);
    while (skald_queue_pop(q, &x, -1) == SKALD_OK) assert_int_equal(x.number, out++);
    assert_int_equal(out, in);
    assert_int_equal(skald_queue_pop(q, &x, 0), SKALD_ELOST);
    skald_queue_destroy(q);
}

static void empty_times_out(void **state) {
    skald_queue *q = NULL;
    item x;
    assert_int_equal(skald_queue_create(sizeof(item), 0, &q), SKALD_OK);
    assert_int_equal(skald_queue_pop(q, &x, 0), SKALD_AGAIN);
    int64_t before = skald_now_ns(skald_clock_system());
    assert_int_equal(skald_queue_pop(q, &x, 20000000), SKALD_AGAIN);
    assert_true(skald_now_ns(skald_clock_system()) - before >= 20000000);
    skald_queue_destroy(q);
    assert_int_equal(skald_queue_create(0, 0, &q), SKALD_EINVAL);
    skald_queue_destroy(NULL);
}

enum { PRODUCERS = 4, EACH = 20000 };
typedef struct producer {
    skald_queue *queue;
    uint32_t id;
} producer;

static void *produce(void *argument) {
    producer *p = argument;
    item x = {.producer = p->id};
    for (uint32_t k = 0; k < EACH; k++) {
        x.number = k;
        if (skald_queue_push(p->queue, &x) != SKALD_OK) return p;
    }
    return NULL;
}

/* Every item once, each producer's in its order, the owner asleep or awake. Seen to hang with the signal left out. */
static void many_producers(void **state) {
    skald_queue *q = NULL;
    assert_int_equal(skald_queue_create(sizeof(item), 8, &q), SKALD_OK);
    pthread_t threads[PRODUCERS];
    producer producers[PRODUCERS];
    for (uint32_t k = 0; k < PRODUCERS; k++) {
        producers[k] = (producer){q, k};
        pthread_create(&threads[k], NULL, produce, &producers[k]);
    }
    uint32_t next[PRODUCERS] = {0};
    for (int n = 0; n < PRODUCERS * EACH; n++) {
        item x;
        assert_int_equal(skald_queue_pop(q, &x, n % 3 ? -1 : 60 * SKALD_NS_PER_S), SKALD_OK);
        assert_true(x.producer < PRODUCERS);
        assert_int_equal(x.number, next[x.producer]++);
    }
    for (int k = 0; k < PRODUCERS; k++) {
        void *failed = NULL;
        pthread_join(threads[k], &failed);
        assert_null(failed);
    }
    skald_queue_destroy(q);
}

static void *close_it(void *queue) {
    skald_queue_close(queue);
    return NULL;
}

static void close_wakes_the_owner(void **state) {
    skald_queue *q = NULL;
    assert_int_equal(skald_queue_create(sizeof(item), 8, &q), SKALD_OK);
    pthread_t thread;
    pthread_create(&thread, NULL, close_it, q);
    item x;
    assert_int_equal(skald_queue_pop(q, &x, -1), SKALD_ELOST);
    pthread_join(thread, NULL);
    skald_queue_destroy(q);
}

static void *give_back(void *bytes) {
    skald_bytes_unref(bytes);
    return NULL;
}

static void pool_recycles(void **state) {
    skald_pool *pool = NULL;
    assert_int_equal(skald_pool_create(1000, &pool), SKALD_OK);
    assert_int_equal(skald_pool_buffer_bytes(pool), 1000);
    for (int round = 0; round < 100; round++) {
        skald_bytes *a = skald_pool_get(pool), *b = skald_pool_get(pool);
        assert_int_equal(a->size, 1000);
        assert_int_equal((uintptr_t)a->data % 64, 0);
        memset(skald_bytes_data(a), 1, 1000);
        memset(skald_bytes_data(b), 2, 1000);
        a->size = 10; /* the next holder sees the full size again */
        skald_bytes_ref(a);
        skald_bytes_unref(a);
        assert_int_equal(a->data[9], 1);
        pthread_t thread;
        pthread_create(&thread, NULL, give_back, a);
        skald_bytes_unref(b);
        pthread_join(thread, NULL);
    }
    assert_int_equal(skald_pool_made(pool), 2);
    /* A buffer may outlive the pool. */
    skald_bytes *last = skald_pool_get(pool);
    skald_pool_destroy(pool);
    memset(skald_bytes_data(last), 3, 1000);
    skald_bytes_unref(last);
    skald_bytes_unref(NULL);
    skald_pool_destroy(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(grows_and_keeps_order), cmocka_unit_test(empty_times_out), cmocka_unit_test(many_producers),
        cmocka_unit_test(close_wakes_the_owner), cmocka_unit_test(pool_recycles),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
