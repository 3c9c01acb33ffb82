/* How long what a worker computes has taken so far, and how long that is usual: both ride in the heartbeat, so that a
 * device that hangs is noticed. Computing counts alone, and not what is waited for: delays on purpose, data, ranks. */
#ifndef SKALD_WORKER_BUSY_H
#define SKALD_WORKER_BUSY_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "skald/status.h"

/* The last tasks of training, oldest overwritten. */
enum { SKALD_TIMES = 64 };
typedef struct skald_times {
    struct {
        double rows;
        int64_t ns;
    } last[SKALD_TIMES];
    uint64_t count;
} skald_times;

void skald_times_add(skald_times *times, double rows, int64_t ns);
/* What 95% of them took at most, for more rows than any of them had accordingly more; 0: not known. */
int64_t skald_times_usual(const skald_times *times, double rows);

/* What a lane computes. */
typedef struct skald_busy_lane {
    double rows;
    int64_t since_ns; /* 0: nothing */
} skald_busy_lane;

typedef struct skald_busy {
    pthread_mutex_t mutex;
    skald_times times;
    skald_busy_lane *lanes;
    uint32_t lane_count;
    int64_t looked_ns;
    uint64_t *busy_ns, *usual_ns; /* of the lanes that compute, as last told: the control thread's */
} skald_busy;

skald_status skald_busy_init(skald_busy *b, uint32_t lanes);
void skald_busy_fini(skald_busy *b); /* zeroed is fine */
void skald_busy_begin(skald_busy *b, uint32_t lane, double rows);
/* typical: it counts for what is usual. */
void skald_busy_end(skald_busy *b, uint32_t lane, bool typical);
/* Now and then: when that was long ago the process was stopped, or had no processor, and computed nothing. */
void skald_busy_look(skald_busy *b, int64_t now_ns);
/* Fills in busy_ns and usual_ns: for how long lanes have computed, and what is usual for that. Returns how many do. */
uint32_t skald_busy_tell(skald_busy *b, int64_t now_ns);

#endif
