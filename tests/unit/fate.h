/* For tests that strike at a frame on the in-process net: which message it is, and whose session, of workers named w0
 * to w9; and the problem that they solve meanwhile. */
#ifndef SKALD_TESTS_FATE_H
#define SKALD_TESTS_FATE_H

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
