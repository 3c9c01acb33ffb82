/* Models of slow workers, to be injected on purpose (after ASYNC, Soori et al. 2020, section 6): how much longer than
 * usual a task takes. Pure functions of (model, seed, worker, task): a worker that waits and a simulation agree. */
#ifndef SKALD_BASE_STRAGGLER_H
#define SKALD_BASE_STRAGGLER_H

#include <stdbool.h>
#include <stdint.h>

#include "skald/status.h"

enum { SKALD_STRAGGLERS = 8 }; /* models at a time; their delays add up */

typedef enum skald_straggler_kind {
    SKALD_STRAGGLER_CDS = 1, /* controlled delay: worker 0 is late by `amount` */
    SKALD_STRAGGLER_PCS,     /* production cluster: a quarter of the workers, see skald_straggler_delay */
    SKALD_STRAGGLER_TRACE,   /* as recorded */
    SKALD_STRAGGLER_PAUSE,   /* `worker` does nothing from at_s for for_s seconds */
    SKALD_STRAGGLER_KILL     /* `worker` dies at at_s */
} skald_straggler_kind;

typedef struct skald_straggler {
    skald_straggler_kind kind;
    double amount;      /* cds */
    uint32_t worker;    /* pause, kill */
    double at_s, for_s; /* since its training began */
    struct skald_trace *trace;
} skald_straggler;

typedef struct skald_stragglers {
    skald_straggler list[SKALD_STRAGGLERS];
    uint32_t count;
} skald_stragglers;

/* Models separated by commas: cds:C, pcs, trace:FILE, pause:W@T+D (T alone: for a second), kill:W@T. C >= 0 is in mean
 * task times, T and D are seconds, W counts from 0. NULL or "none": no model. SKALD_EINVAL says what may stand where;
 * SKALD_EIO, SKALD_EDATA with file:line for a trace; SKALD_ENOMEM. Free with skald_stragglers_free.
 *
 * A trace is text, a line a worker: its number (or *: every worker without a line of its own), then the extra delay of
 * its first, second, ... task in mean task times; after the last it starts again. # begins a comment. */
skald_status skald_stragglers_parse(const char *text, skald_stragglers *out);
void skald_stragglers_free(skald_stragglers *s); /* NULL-safe, idempotent */

/* What task number `draw` (from 0) of worker w of `workers` takes longer than usual, in mean task times, >= 0. pcs: the
 * nearest to a quarter of the workers, by `seed`; four fifths of those by U(1.5, 2.5), the others by U(2.5, 10), anew
 * each task (of 32: 6 and 2). */
double skald_stragglers_delay(const skald_stragglers *s, uint64_t seed, uint32_t worker, uint32_t workers,
                              uint64_t draw);
/* When worker w, at second `now_s` of its training, may go on: now_s, or the end of its pause. */
double skald_stragglers_resume(const skald_stragglers *s, uint32_t worker, double now_s);
/* The second at which worker w dies; infinity: it does not. */
double skald_stragglers_death(const skald_stragglers *s, uint32_t worker);

#endif
