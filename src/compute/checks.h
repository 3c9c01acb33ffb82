/* What every backend checks of its arguments: rows come from files, indices and numbers from the wire. */
#ifndef SKALD_COMPUTE_CHECKS_H
#define SKALD_COMPUTE_CHECKS_H

#include "skald/compute.h"

/* Layout, dimensions, stride: before anything else reads the rows. */
skald_status compute_check_shape(const skald_compute *c, const skald_rows *rows);
/* Every entry of every row: columns in range and ascending, values and weights finite, padding zero. Fills *facts, and
 * norms[0..n) with |x_i|^2. */
skald_status compute_take_facts(const skald_compute *c, const skald_rows *rows, skald_shard_facts *facts, float *norms);
/* Row numbers below n, not more than n of them. */
skald_status compute_check_batch(size_t n, const skald_batch *batch);
skald_status compute_check_local(const skald_objective *objective, const skald_local *local, const double *abar);
skald_status compute_check_history(size_t n, const float *alpha);

#endif
