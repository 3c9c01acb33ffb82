/* What one evaluation says: objective, certified gap, gradient norm. */
#ifndef SKALD_ENGINE_CERTIFICATE_H
#define SKALD_ENGINE_CERTIFICATE_H

#include "skald/objective.h"

typedef struct skald_certificate {
    double objective;     /* F */
    double gap;           /* U >= F - F*; infinity when l2 = 0 or the intercept is not optimal */
    double gradient_norm; /* of the smooth part plus the l1 subgradient of least norm */
} skald_certificate;

/* loss_sum = sum s_i phi_i; g = sum s_i phi'_i x_i (dim, intercept last when there is one).
 *   U = w.g/n + (l2/2)|w|^2 + l1 |w|_1 + |soft(g/n, l1)|^2 / (2 l2)
 * is the Fenchel duality gap at the dual point alpha_i = phi'(z_i); with an intercept that point is
 * feasible only when sum s_i phi'_i = 0, that is when g's last entry vanishes. g NULL: F alone. */
skald_certificate skald_certify(const skald_objective *objective, uint32_t dim, double n, const double *w,
                                double loss_sum, const double *g);

#endif
