/* A simulated crew: workers that compute really, here, and whose time is a queue of events. The engine and solver above
 * it are those of any run; only the clock is not the machine's. Deterministic: the same options give the same run, to
 * the bit. */
#ifndef SKALD_REPLAY_SIMULATION_H
#define SKALD_REPLAY_SIMULATION_H

#include "base/straggler.h"
#include "skald/train.h"

typedef struct skald_simulation skald_simulation;

/* How long things take. A task of r rows computes for r x row_ns, or as measured; then it is held back as a worker that
 * plays a straggler holds it (src/worker/straggle.c), and evaluations are not. */
typedef struct skald_timing {
    const uint32_t *slots;              /* by worker: tasks it computes at the same time; NULL: one each */
    double row_ns;                      /* a row; 0: guessed from the shape of the data */
    double message_ns;                  /* a message between coordinator and worker, either way; < 0: guessed */
    double coordinator_ns;              /* what the coordinator does for a result, one after the other; < 0: guessed */
    int64_t pace_ns;                    /* training tasks take at least that long */
    const skald_stragglers *stragglers; /* may be NULL */
    /* measured task times instead of row_ns, pace and stragglers: workers x SKALD_ROW_QUANTILES, ns at even steps
     * from the 0 to the 100% quantile; NULL: none */
    const double *measured;
    bool free_evaluations; /* they cost no time: off the clock */
} skald_timing;

/* `workers` workers, called worker-1, ...; each holds two tasks a slot, as over a net. SKALD_EINVAL, or as opening the
 * data fails. The timing's arrays must outlive the simulation. */
skald_status skald_simulation_open(const skald_data_options *data, const skald_objective *objective,
                                   const skald_compute_options *compute, uint32_t workers, const skald_timing *timing,
                                   skald_simulation **out);
skald_crew *skald_simulation_crew(skald_simulation *simulation);
skald_clock *skald_simulation_clock(skald_simulation *simulation);
const skald_timing *skald_simulation_timing(const skald_simulation *simulation); /* guesses filled in */
void skald_simulation_close(skald_simulation *simulation);                       /* NULL-safe */

#endif
