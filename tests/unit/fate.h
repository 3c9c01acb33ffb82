/* For tests that strike at a frame on the in-process net: which message it is, and whose session, of workers named w0
 * to w9; those workers, each in a thread, which start anew when they were killed; and the problem that they solve. */
#ifndef SKALD_TESTS_FATE_H
#define SKALD_TESTS_FATE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "harness.h"
#include "wire/wire.h"

typedef struct fate_names {
    char of[4096]; /* by session; 0: not heard */
} fate_names;

/* A frame begins with the tag of its body; -1: a session is closed. */
static int fate_type(const skald_segment *segments) {
    if (!segments) return -1;
    const uint8_t *at = segments[0].data;
    unsigned tag = at[0] & 0x7f;
    if (at[0] & 0x80) tag |= (unsigned)at[1] << 7;
    return (int)(tag >> 3);
}

/* Of a hello: the name is its second field: protocol (08 xx), then 12 length text. */
static void fate_listen(fate_names *names, uint64_t session, const skald_segment *segments) {
    const uint8_t *at = segments[0].data, *end = at + segments[0].size;
    for (; session < sizeof names->of && at + 4 < end; at++)
        if (at[0] == 0x12 && at[1] == 2 && at[2] == 'w') {
            names->of[session] = (char)at[3];
            return;
        }
}

/* The worker's number, or -1. */
static int fate_worker(const fate_names *names, uint64_t session) {
    return session < sizeof names->of && names->of[session] ? names->of[session] - '0' : -1;
}

typedef struct fate_player {
    const char *address;
    int threads;            /* of the worker; 0: one */
    const atomic_int *over; /* the play is */
    bool mortal;            /* who is killed stays dead */
    pthread_t thread;
    char name[16];
    bool entered;
    atomic_int stop, killed, lives; /* lives: lost so far */
} fate_player;

static void *fate_play(void *argument) {
    fate_player *p = argument;
    const skald_worker_options o = {.address = p->address,
                                    .name = p->name,
                                    .compute = {.device = "cpu", .threads = p->threads},
                                    .wait_ns = 10 * SKALD_NS_PER_S,
                                    .repeat_ns = 20000000};
    while (!atomic_load(p->over)) {
        const skald_status st = skald_worker_run(skald_net_inproc(), &o, &p->stop);
        const bool killed = atomic_exchange(&p->killed, 0);
        if (killed ? p->mortal : st != SKALD_ELOST) {
            if (!killed && !atomic_load(p->over)) print_message("%s has ended: %s\n", p->name, skald_error());
            break;
        }
        atomic_store(&p->stop, atomic_load(p->over));
        atomic_fetch_add(&p->lives, 1);
    }
    return NULL;
}

static void fate_enter(fate_player *p, int number, const char *address, const atomic_int *over) {
    p->address = address;
    p->over = over;
    p->entered = true;
    snprintf(p->name, sizeof p->name, "w%d", number);
    assert_int_equal(pthread_create(&p->thread, NULL, fate_play, p), 0);
}

/* Its session is to be cut, too. */
static void fate_kill(fate_player *p) {
    atomic_store(&p->killed, 1);
    atomic_store(&p->stop, 1);
}

/* `over` has been set. Then the coordinator is closed; then they are joined. */
static void fate_end(fate_player *staff, int count) {
    for (int k = 0; k < count; k++) atomic_store(&staff[k].stop, 1);
}

static void fate_join(fate_player *staff, int count) {
    for (int k = 0; k < count; k++)
        if (staff[k].entered) pthread_join(staff[k].thread, NULL);
}

/* Small; a run ends when it is told to. *best: its optimum, if that is 0 yet. */
static setup fate_problem(const char *name, double *best) {
    static const toy t = {240, 8, 1, SKALD_LOGISTIC, false, 41};
    setup s = setup_default(toy_write(&t, name));
    s.objective.l2 = 1e-2;
    s.train.algo = SKALD_SAGA;
    s.train.target_gap = 0;
    s.train.max_passes = 0;
    s.train.max_seconds = 200; /* only a hang takes this long */
    s.train.eval_every = 1;
    s.train.audit = true;
    if (*best == 0) {
        skald_rows rows = {0};
        read_all(&s, &rows);
        double *w = calloc(rows.dim, sizeof *w);
        *best = reference_solve(&rows, &s.objective, w);
        free(w);
        skald_rows_free(&rows);
    }
    return s;
}

#endif
