/* Who offends too often is refused for a while: by certificate or by host, and for no longer than was said. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "coordinator/guard.h"
#include "skald/net.h"

static int64_t time_ns;
static int64_t now(skald_clock *clock) {
    return time_ns;
}
static skald_clock simulated = {now};

static skald_guard *guard_of(uint32_t offences) {
    skald_guard *g = NULL;
    const skald_guard_options o = {.offences = offences, .refuse_ns = 30 * SKALD_NS_PER_S};
    time_ns = 1000 * SKALD_NS_PER_S;
    assert_int_equal(skald_guard_create(&o, &simulated, &g), SKALD_OK);
    return g;
}

static void offend(skald_guard *g, const char *peer, const char *identity, int times) {
    for (int k = 0; k < times; k++) skald_guard_offence(g, peer, identity, "nonsense");
}

/* Seen to fail with the time not looked at (refused for ever), and with the count not taken back. */
static void refused_for_a_while(void **state) {
    skald_guard *g = guard_of(3);
    char reason[SKALD_NET_REASON] = "";
    offend(g, "ipv4:10.0.0.1:4000", NULL, 2);
    assert_true(skald_guard_admits(g, "ipv4:10.0.0.1:4001", NULL, reason));
    offend(g, "ipv4:10.0.0.1:4002", NULL, 1);
    assert_false(skald_guard_admits(g, "ipv4:10.0.0.1:9999", NULL, reason));
    assert_string_equal(reason, "10.0.0.1 is refused for another 30 s after 3 offences, the last: nonsense");
    assert_true(skald_guard_admits(g, "ipv4:10.0.0.2:4000", NULL, reason));  /* others are not */
    assert_true(skald_guard_admits(g, "ipv4:10.0.0.1:4000", "one", reason)); /* nor is who shows a certificate */
    time_ns += 30 * SKALD_NS_PER_S;
    assert_true(skald_guard_admits(g, "ipv4:10.0.0.1:4001", NULL, reason));
    offend(g, "ipv4:10.0.0.1:4000", NULL, 2); /* a new account */
    assert_true(skald_guard_admits(g, "ipv4:10.0.0.1:4001", NULL, reason));
    offend(g, "ipv4:10.0.0.1:4000", NULL, 1);
    assert_false(skald_guard_admits(g, "ipv4:10.0.0.1:4001", NULL, reason));
    skald_guard_destroy(g);
}

/* An offence now and then is none too many. Seen to fail with offences added up for ever. */
static void rare_offences_are_forgotten(void **state) {
    skald_guard *g = guard_of(3);
    char reason[SKALD_NET_REASON];
    for (int k = 0; k < 20; k++) {
        offend(g, "unix:", NULL, 1);
        assert_true(skald_guard_admits(g, "unix:", NULL, reason));
        time_ns += 16 * SKALD_NS_PER_S;
    }
    skald_guard_destroy(g);
}

/* Seen to fail with names that are the peers' addresses, ports and all. */
static void by_certificate_host_or_network(void **state) {
    static const char *const same[][4] = {
        {"ipv4:10.0.0.1:1", "one", "ipv4:10.9.9.9:2", "one"},
        {"ipv6:[2001:db8:1:2::1]:1", NULL, "ipv6:[2001:db8:1:2:ffff:1:2:3]:7", NULL},
        {"ipv6:%5B2001:db8:1:2::1%5D:1", NULL, "ipv6:[2001:db8:1:2::9]:7", NULL},
        {"unix:/tmp/x", NULL, "unix:/tmp/x", NULL},
    };
    static const char *const others[][4] = {
        {"ipv4:10.0.0.1:1", "one", "ipv4:10.0.0.1:1", "two"},
        {"ipv6:[2001:db8:1:2::1]:1", NULL, "ipv6:[2001:db8:1:3::1]:1", NULL},
        {"ipv4:10.0.0.1:1", NULL, "ipv4:10.0.0.11:1", NULL},
        {"inproc:a", NULL, "inproc:b", NULL},
    };
    char reason[SKALD_NET_REASON];
    for (size_t k = 0; k < 4; k++) {
        skald_guard *g = guard_of(1);
        offend(g, same[k][0], same[k][1], 1);
        if (skald_guard_admits(g, same[k][2], same[k][3], reason)) fail_msg("%s is let in", same[k][2]);
        skald_guard_destroy(g);
        g = guard_of(1);
        offend(g, others[k][0], others[k][1], 1);
        if (!skald_guard_admits(g, others[k][2], others[k][3], reason)) fail_msg("%s: %s", others[k][2], reason);
        skald_guard_destroy(g);
    }
}

/* Memory does not grow with the number of offenders, and a crowd does not free the one that is refused. Seen to fail
 * with the oldest place taken, whoever has it. */
static void a_crowd_does_not_hide_one(void **state) {
    skald_guard *g = guard_of(5);
    char peer[64], reason[SKALD_NET_REASON];
    offend(g, "ipv4:10.0.0.1:1", NULL, 5);
    for (int k = 0; k < 5000; k++) {
        snprintf(peer, sizeof peer, "ipv4:11.%d.%d.1:5", k / 200, k % 200);
        offend(g, peer, NULL, 1);
        time_ns += 1000;
    }
    assert_false(skald_guard_admits(g, "ipv4:10.0.0.1:1", NULL, reason));
    skald_guard_destroy(g);
}

/* Seen to fail without the limit on lines (1001 told), and without the look at what was told (100 told of one). */
static void the_log_is_not_flooded(void **state) {
    skald_guard *g = guard_of(3);
    uint64_t untold = 0;
    char text[64];
    int told = 0;
    for (int k = 0; k < 100; k++) {
        snprintf(text, sizeof text, "ipv4:10.0.0.1:%d: always the same", k);
        told += skald_guard_tells(g, text, &untold);
    }
    assert_int_equal(told, 1);
    for (int k = 0; k < 1000; k++) {
        snprintf(text, sizeof text, "ipv4:10.0.0.1:1: reason %d", k);
        told += skald_guard_tells(g, text, &untold);
    }
    assert_int_equal(told, 32);
    time_ns += 10 * SKALD_NS_PER_S;
    assert_true(skald_guard_tells(g, "ipv4:10.0.0.1:1: always the same", &untold));
    assert_int_equal(untold, 969); /* since the line before */
    skald_guard_destroy(g);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refused_for_a_while),
        cmocka_unit_test(rare_offences_are_forgotten),
        cmocka_unit_test(by_certificate_host_or_network),
        cmocka_unit_test(a_crowd_does_not_hide_one),
        cmocka_unit_test(the_log_is_not_flooded),
    };
    return cmocka_run_group_tests_name("guard", tests, NULL, NULL);
}
