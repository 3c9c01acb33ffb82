/* A metric measured on a thread of its own, while another one is applied. */
#ifndef SKALD_CURVATURE_REMEASURE_H
#define SKALD_CURVATURE_REMEASURE_H

#include <pthread.h>

#include "curvature/metric.h"

typedef struct skald_remeasure {
    skald_metric *metric; /* the caller's; the thread's until finish */
    const skald_rows *rows;
    const double *h, *p;
    bool whole, pending;
    skald_status status;
    char error[300];
    pthread_t thread;
} skald_remeasure;

/* Begins skald_metric_measure on a thread; what is given must stay as it is until finish. Where no thread can be
 * started it measures at once. Does not block else. */
void skald_remeasure_start(skald_remeasure *r, skald_metric *metric, const skald_rows *rows, const double *h,
                           const double *p, bool whole);
/* Waits for what was started; its status, and skald_error. Nothing pending: SKALD_OK. */
skald_status skald_remeasure_finish(skald_remeasure *r);

#endif
