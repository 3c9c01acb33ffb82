#include "curvature/remeasure.h"

#include <stdio.h>

static void *run(void *argument) {
    skald_remeasure *r = argument;
    r->status = skald_metric_measure(r->metric, r->rows, r->h, r->p, r->whole);
    r->error[0] = 0;
    if (r->status != SKALD_OK) snprintf(r->error, sizeof r->error, "%s", skald_error()); /* this thread's */
    return NULL;
}

void skald_remeasure_start(skald_remeasure *r, skald_metric *metric, const skald_rows *rows, const double *h,
                           const double *p, bool whole) {
    *r = (skald_remeasure){.metric = metric, .rows = rows, .h = h, .p = p, .whole = whole};
    r->pending = pthread_create(&r->thread, NULL, run, r) == 0;
    if (!r->pending) run(r);
}

skald_status skald_remeasure_finish(skald_remeasure *r) {
    if (r->pending) pthread_join(r->thread, NULL);
    r->pending = false;
    return r->status == SKALD_OK ? SKALD_OK : skald_fail(r->status, "%s", r->error);
}
