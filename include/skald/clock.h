/* The clock port: engines and solvers take time from here, so that it can be simulated. */
#ifndef SKALD_CLOCK_H
#define SKALD_CLOCK_H

#include <stdint.h>

#define SKALD_NS_PER_S 1000000000ll

typedef struct skald_clock {
    int64_t (*now_ns)(struct skald_clock *self); /* monotonic */
} skald_clock;

skald_clock *skald_clock_system(void); /* static */

static inline int64_t skald_now_ns(skald_clock *clock) {
    return clock->now_ns(clock);
}

#endif
