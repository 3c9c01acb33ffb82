/* What one evaluation says: objective, certified gap, gradient norm. */
#ifndef SKALD_ENGINE_CERTIFICATE_H
#define SKALD_ENGINE_CERTIFICATE_H

#include "skald/objective.h"

typedef struct skald_certificate {
    double objective;     /* F */
    double gap;           /* U >= F - F*; infinity when l2 = 0 or the intercept is not optimal */
    double gradient_norm; /* of skald_gradient_entry; the intercept's with it */
} skald_certificate;

/* An entry of (w - prox(w - eta smooth)) / eta, where `smooth` is the gradient of all but l1: the gradient itself
 * without l1. Unlike the subgradient of least norm it goes to zero as w does: iterates that are averaged (asynchronous
 * merges) come near their zeros without being there. */
static inline double skald_gradient_entry(double w, double smooth, double l1, double eta) {
    double ahead = w - eta * smooth;
    return l1 <= 0 ? smooth : ahead > eta * l1 ? smooth + l1 : ahead < -eta * l1 ? smooth - l1 : w / eta;
}

/* loss_sum = sum s_i phi_i; g = sum s_i phi'_i x_i (as w: dim entries a class, intercept last when there is one).
 *   U = w.g/n + (l2/2)|w|^2 + l1 |w|_1 + |soft(g/n, l1)|^2 / (2 l2)
 * is the Fenchel duality gap at the dual point alpha_i = phi'(z_i); with an intercept that point is
 * feasible only when sum s_i phi'_i = 0, that is when g's last entry (of every class) vanishes. g NULL: F alone. eta:
 * of the proximal step that measures the gradient, 1 / (L + l2). */
skald_certificate skald_certify(const skald_objective *objective, uint32_t dim, double n, const double *w,
                                double loss_sum, const double *g, double eta);

#endif
