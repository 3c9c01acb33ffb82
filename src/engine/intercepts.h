/* The intercepts of C classes, minimised over by Newton's method while everything else stands still. */
#ifndef SKALD_ENGINE_INTERCEPTS_H
#define SKALD_ENGINE_INTERCEPTS_H

#include <stdbool.h>
#include <stdint.h>

/* One step: `moments` as skald_compute_ops.shift_classes sums them over all rows (C slopes, the lower triangle of the
 * curvature), n rows. Adds the step to shift[0..C) and returns false, or true when the slopes are 0 to rounding.
 * scratch: C (C + 1) doubles. The curvature is singular along (1, ..., 1), where the objective is flat: the step has
 * mean 0. Steps are bounded, as far from the minimum the curvature may be next to nothing. */
bool skald_intercepts_step(uint32_t classes, const double *moments, double n, double *scratch, double *shift);

#endif
