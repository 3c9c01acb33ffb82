/* Staleness policies: what becomes of a result when it is merged (asynchronous modes). */
#ifndef SKALD_STALE_H
#define SKALD_STALE_H

#include <stddef.h>
#include <stdint.h>

#include "skald/status.h"

typedef enum skald_stale {
    SKALD_STALE_SCALE =
        0,              /* staleness beyond that of regular running shortens the step: (1 + regular)/(1 + staleness) */
    SKALD_STALE_APPLY,  /* the full step */
    SKALD_STALE_FOLD,   /* no step, only the history */
    SKALD_STALE_REJECT, /* dropped; with a history, folded: no finite result of it is lost */
    SKALD_STALE_ADAPT   /* what the steps since it was read leave of a budget of 1 + regular full steps, at most one
                         * (after the delay-adaptive rule of Wu et al. 2022) */
} skald_stale;
const char *skald_stale_name(skald_stale stale);

typedef struct skald_stale_view {
    uint64_t staleness, regular; /* of regular running: tasks that can be in flight, less one */
    uint32_t workers, worker;
    uint64_t updates;
    double passes, slowdown; /* of the worker's mean task time over the median */
} skald_stale_view;

/* Rules by which results are dealt with; NULL: a preset suffices. */
typedef struct skald_stale_rules skald_stale_rules;

/* A preset's name (*preset; *rules NULL), or rules separated by commas, 'ACTION if EXPRESSION', the last perhaps a bare
 * ACTION: the first that holds decides, and scale where none does. Names are those of the view. SKALD_EINVAL with a
 * caret under a mistake; SKALD_ENOMEM. */
skald_status skald_stale_parse(const char *text, skald_stale *preset, skald_stale_rules **rules);
void skald_stale_free(skald_stale_rules *rules); /* NULL-safe */
skald_stale skald_stale_decide(const skald_stale_rules *rules, const skald_stale_view *view);

#endif
