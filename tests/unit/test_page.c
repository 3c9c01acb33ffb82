/* The live page: its history stays bounded and whole, its snapshots are read while new ones come, its metrics parse. */
#include <arpa/inet.h>
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "http/http.h"
#include "http/snapshot.h"

static skald_task_seen task_of(uint32_t worker, double from_s, double length_s) {
    skald_task_seen t = {.worker = worker,
                         .slots = 1,
                         .trains = true,
                         .issued_ns = (int64_t)(from_s * 1e9),
                         .ended_ns = (int64_t)((from_s + length_s) * 1e9),
                         .staleness = worker,
                         .rows = 10};
    t.part_ns[SKALD_PART_RECEIVE] = 0.25 * length_s * 1e9;
    t.part_ns[SKALD_PART_COMPUTE] = 0.5 * length_s * 1e9;
    t.part_ns[SKALD_PART_SEND] = 0.25 * length_s * 1e9;
    return t;
}

/* Seen to fail when halving kept the first half of the points in place of every other one. */
static void a_series_is_bounded_and_whole(void **state) {
    static history h;
    history_init(&h);
    for (int k = 0; k < 100000; k++) {
        const skald_evaluation e = {.seconds = k, .passes = 2 * k, .objective = 1.0 / (k + 1)};
        history_evaluation(&h, &e);
        assert_true(h.evaluations.count <= HISTORY_POINTS);
    }
    assert_true(h.evaluations.count >= HISTORY_POINTS / 2);
    assert_true(h.evaluations.points[0].v[0] == 0);
    const double last = h.evaluations.points[h.evaluations.count - 1].v[0];
    assert_true(last > 99000);
    for (uint32_t k = 1; k < h.evaluations.count; k++)
        assert_true(h.evaluations.points[k].v[0] - h.evaluations.points[k - 1].v[0] <=
                    last / (HISTORY_POINTS / 2 - 1) + 1);
}

/* A second of a task: a quarter on the way, half a second of computing, a quarter back, over two cells. */
static void a_task_fills_its_cells(void **state) {
    static history h;
    history_lane *lanes = NULL;
    char text[HISTORY_LANES + 1] = "";
    history_init(&h);
    const skald_task_seen t = task_of(2, 3, 1);
    history_task(&h, &lanes, &t);
    assert_int_equal(h.lanes, 3);
    for (int64_t cell = 6; cell < 8; cell++) {
        assert_int_equal(h.cell[cell], cell);
        history_cell_text(&lanes[2], (uint32_t)cell, text);
        assert_string_equal(text, "8070"); /* fifteenths: half computing, then half on the way */
    }
    assert_int_equal(h.cell[8], -1);
    history_cell_text(&lanes[0], 6, text);
    assert_string_equal(text, "0000");
    /* two minutes later the places hold other half seconds; an old task does not bring the old ones back */
    const skald_task_seen late = task_of(0, 3 + 120, 1), old = task_of(2, 3, 1);
    history_task(&h, &lanes, &late);
    history_task(&h, &lanes, &old);
    assert_int_equal(h.cell[6], 246);
    history_cell_text(&lanes[2], 6, text);
    assert_string_equal(text, "0000");
    /* a task of an hour covers the last minute and no more */
    const skald_task_seen hour = task_of(1, 0, 3600);
    history_task(&h, &lanes, &hour);
    for (int k = 0; k < HISTORY_CELLS; k++) assert_in_range(h.cell[k], 7200 - HISTORY_CELLS, 7200);
    free(lanes);
}

static char *status_text(const char *name) {
    char *out = NULL;
    assert_true(asprintf(&out,
                         "{\"state\":\"training\",\"objective\":null,\"gap\":1e-5,\"applied\":3,\"workers\":["
                         "{\"name\":\"%s\",\"alive\":true,\"state\":\"busy\",\"tasks\":7,\"cause\":\"\"},"
                         "{\"name\":\"%s\",\"alive\":false,\"state\":\"dead\",\"tasks\":9,\"cause\":\"computing\"}]}",
                         name, name) > 0);
    return out;
}

/* What a page that was there all along has been told, piece by piece, is what a late one is told at once. */
static void news_add_up(void **state) {
    static history h;
    history_lane *lanes = NULL;
    history_init(&h);
    json_t *cells = json_object();
    size_t evaluations = 0;
    uint64_t after = 0;
    for (int k = 0; k < 200; k++) {
        const skald_evaluation e = {.seconds = k};
        const skald_task_seen t = task_of((uint32_t)k % 5, 0.3 * k, 0.9);
        history_task(&h, &lanes, &t);
        if (k % 3 == 0) history_evaluation(&h, &e);
        if (k % 7 && k != 199) continue;
        snapshot *s = snapshot_take(&h, lanes, status_text("w"), 0, false);
        h.next++;
        char *text = snapshot_live(s, after, "x", 0);
        json_t *live = json_loads(text, 0, NULL), *cell;
        size_t i;
        assert_non_null(live);
        evaluations += json_array_size(json_object_get(live, "evaluations"));
        json_array_foreach(json_object_get(live, "cells"), i, cell) {
            char key[24];
            snprintf(key, sizeof key, "%lld", (long long)json_integer_value(json_array_get(cell, 0)));
            json_object_set(cells, key, json_array_get(cell, 1));
        }
        after = (uint64_t)json_integer_value(json_object_get(live, "snapshot"));
        if (k == 199) {
            char *whole = snapshot_live(s, 0, "x", 0);
            json_t *all = json_loads(whole, 0, NULL);
            assert_int_equal(json_array_size(json_object_get(all, "evaluations")), evaluations);
            assert_int_equal(json_array_size(json_object_get(all, "cells")), HISTORY_CELLS);
            json_array_foreach(json_object_get(all, "cells"), i, cell) {
                char key[24];
                snprintf(key, sizeof key, "%lld", (long long)json_integer_value(json_array_get(cell, 0)));
                assert_true(json_equal(json_object_get(cells, key), json_array_get(cell, 1)));
            }
            /* a number from another run: all of it */
            char *other = snapshot_live(s, after + 100, "x", 0);
            assert_string_equal(other, whole);
            free(other);
            free(whole);
            json_decref(all);
        }
        json_decref(live);
        free(text);
        snapshot_unref(s);
    }
    json_decref(cells);
    free(lanes);
}

/* Names alike would make a sample occur twice, which Prometheus refuses; quotes and newlines would break the line. */
static void metrics_are_told_apart(void **state) {
    static history h;
    history_init(&h);
    snapshot *s = snapshot_take(&h, NULL, status_text("a\\\"b\\\\c\\n"), 0, false);
    char *text = snapshot_metrics(s);
    assert_non_null(strstr(text, "\nskald_worker_tasks_total{worker=\"a\\\"b\\\\c\\n\"} 7\n"));
    assert_non_null(strstr(text, "\nskald_worker_tasks_total{worker=\"a\\\"b\\\\c\\n#1\"} 9\n"));
    assert_non_null(strstr(text, "skald_worker_slow{worker=\"a\\\"b\\\\c\\n#1\",cause=\"computing\"} 1\n"));
    assert_non_null(strstr(text, "\nskald_workers{state=\"dead\"} 1\n"));
    assert_null(strstr(text, "skald_objective ")); /* not known */
    free(text);
    snapshot_unref(s);
    s = snapshot_take(&h, NULL, strdup("no JSON"), 0, false);
    text = snapshot_metrics(s);
    assert_non_null(strstr(text, "skald_commits_total 0\n"));
    free(text);
    snapshot_unref(s);
}

/* ---- over HTTP ---- */

static int port_of(const char *url) {
    return atoi(strrchr(url, ':') + 1);
}

/* The whole answer to `request`, in `out`; its length. */
static size_t speak(int port, const char *request, size_t length, char *out, size_t size) {
    const struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (const struct sockaddr *)&to, sizeof to), 0);
    size_t used = 0;
    send(fd, request, length, MSG_NOSIGNAL);
    for (ssize_t got; used + 1 < size && (got = recv(fd, out + used, size - 1 - used, 0)) > 0;) used += (size_t)got;
    out[used] = '\0';
    close(fd);
    return used;
}

static void expect_answer(int port, const char *request, const char *begins) {
    static char out[1 << 18];
    speak(port, request, strlen(request), out, sizeof out);
    if (strncmp(out, begins, strlen(begins)) != 0) fail_msg("%s: answered %.300s", request, out);
}

static void strangers_are_refused(void **state) {
    char url[200];
    skald_page *page = NULL;
    assert_int_equal(skald_page_check("0.0.0.0:80", false), SKALD_EINVAL);
    assert_non_null(strstr(skald_error(), "--http-insecure"));
    assert_int_equal(skald_page_check("0.0.0.0:80", true), SKALD_OK);
    for (const char *const *bad = (const char *const[]){"", "x", ":", ":80", "host:", "1:2:3", "70000", "[::1]", NULL};
         *bad; bad++)
        assert_int_equal(skald_page_check(*bad, true), SKALD_EINVAL);
    assert_int_equal(skald_page_check("[::1]:0", false), SKALD_OK);
    assert_int_equal(skald_page_open("0", false, &page, url, sizeof url), SKALD_OK);
    const int port = port_of(url);
#define END "Connection: close\r\n\r\n"
    expect_answer(port, "GET /metrics HTTP/1.1\r\nHost: localhost\r\n" END, "HTTP/1.1 503");
    skald_page_stage(page, "gathering");
    expect_answer(port, "GET /metrics HTTP/1.1\r\nHost: localhost\r\n" END, "HTTP/1.1 200");
    expect_answer(port, "GET / HTTP/1.1\r\nHost: 127.0.0.1:1\r\n" END, "HTTP/1.1 200");
    expect_answer(port, "GET / HTTP/1.1\r\nHost: [::1]:1\r\n" END, "HTTP/1.1 200");
    expect_answer(port, "GET / HTTP/1.1\r\nHost: evil.example\r\n" END, "HTTP/1.1 403");
    expect_answer(port, "GET / HTTP/1.1\r\nHost: 127.evil.example\r\n" END, "HTTP/1.1 403");
    expect_answer(port, "GET / HTTP/1.1\r\nHost: localhost.evil.example\r\n" END, "HTTP/1.1 403");
    expect_answer(port, "HEAD /status.json HTTP/1.1\r\nHost: localhost\r\n" END, "HTTP/1.1 200");
    expect_answer(port, "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc", "HTTP/1.1 405");
    expect_answer(port, "GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc", "HTTP/1.1 400");
    expect_answer(port, "GET /../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n" END, "HTTP/1.1 404");
    expect_answer(port, "GET /live.json?after=-7e9x HTTP/1.1\r\nHost: localhost\r\n" END, "HTTP/1.1 200");
    /* a request larger than there is room for is not read to its end */
    static char large[1 << 20], out[4096];
    memset(large, 'a', sizeof large);
    memcpy(large, "GET /?", 6);
    speak(port, large, sizeof large, out, sizeof out);
    assert_true(out[0] == '\0' || strncmp(out, "HTTP/1.1 4", 10) == 0 || strncmp(out, "HTTP/1.0 4", 10) == 0);
    expect_answer(port, "GET /metrics HTTP/1.1\r\nHost: localhost\r\n" END, "HTTP/1.1 200");
    skald_page_close(page);
}

typedef struct reader {
    int port;
    atomic_bool stop;
    unsigned read;
} reader;

static void *read_on(void *user) {
    static _Thread_local char out[1 << 18];
    static const char *const what[] = {"GET /live.json?after=3 HTTP/1.1\r\nHost: localhost\r\n" END,
                                       "GET /metrics HTTP/1.1\r\nHost: localhost\r\n" END,
                                       "GET /status.json HTTP/1.1\r\nHost: localhost\r\n" END};
    reader *r = user;
    while (!r->stop) {
        speak(r->port, what[r->read % 3], strlen(what[r->read % 3]), out, sizeof out);
        if (strncmp(out, "HTTP/1.1 200", 12) == 0) r->read++;
    }
    return NULL;
}

/* The owner goes on while others read: under TSan this is what sees a snapshot touched after it was put up. */
static void snapshots_come_while_others_read(void **state) {
    char url[200];
    skald_page *page = NULL;
    pthread_t threads[2];
    reader readers[2] = {0};
    assert_int_equal(skald_page_open("127.0.0.1:0", false, &page, url, sizeof url), SKALD_OK);
    skald_page_stage(page, "starting");
    for (int k = 0; k < 2; k++) {
        readers[k].port = port_of(url);
        assert_int_equal(pthread_create(&threads[k], NULL, read_on, &readers[k]), 0);
    }
    for (int k = 0; k < 300; k++) {
        for (int j = 0; j < 20; j++) {
            const skald_task_seen t = task_of((uint32_t)j, 0.1 * k, 0.2);
            skald_page_task(page, &t);
        }
        const skald_progress p = {.seconds = 0.1 * k, .rows_per_s = 5};
        const skald_evaluation e = {.seconds = 0.1 * k};
        skald_page_progress(page, &p);
        skald_page_evaluation(page, &e);
        skald_page_notice(page, "something");
        skald_page_table(page, status_text("w"));
        usleep(1000);
    }
    skald_page_end(page, NULL, "so it goes");
    for (int k = 0; k < 2; k++) {
        readers[k].stop = true;
        pthread_join(threads[k], NULL);
        assert_true(readers[k].read > 3);
    }
    static char out[1 << 18];
    const char *ask = "GET /status.json HTTP/1.1\r\nHost: localhost\r\n" END;
    speak(readers[0].port, ask, strlen(ask), out, sizeof out);
    assert_non_null(strstr(out, "\"failed\""));
    assert_non_null(strstr(out, "so it goes"));
    skald_page_close(page);
}

/* Making snapshots takes a small part of the owner's time: one whose table took long is not followed at once. */
static void dear_snapshots_are_rare(void **state) {
    char url[200];
    skald_page *page = NULL;
    assert_int_equal(skald_page_open("0", false, &page, url, sizeof url), SKALD_OK);
    assert_true(skald_page_due(page));
    usleep(300000); /* the table */
    skald_page_table(page, status_text("w"));
    usleep(1200000); /* more than the second between cheap ones, and far less than fifty times the cost */
    assert_false(skald_page_due(page));
    skald_page_close(page);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_series_is_bounded_and_whole),
                                       cmocka_unit_test(a_task_fills_its_cells),
                                       cmocka_unit_test(news_add_up),
                                       cmocka_unit_test(metrics_are_told_apart),
                                       cmocka_unit_test(strangers_are_refused),
                                       cmocka_unit_test(snapshots_come_while_others_read),
                                       cmocka_unit_test(dear_snapshots_are_rare)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
