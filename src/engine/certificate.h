/* What one evaluation says: objective, certified gap, gradient norm. */
#ifndef SKALD_ENGINE_CERTIFICATE_H
#define SKALD_ENGINE_CERTIFICATE_H

#include "skald/compute.h"
#include "skald/objective.h"

typedef struct skald_certificate {
    double objective;     /* F */
    double gap;           /* >= F - F*, and at most F, as F* >= 0; infinity when nothing can be certified */
    double gradient_norm; /* of skald_gradient_entry; the intercept's with it */
} skald_certificate;

/* An entry of (w - prox(w - eta smooth)) / eta, where `smooth` is the gradient of all but l1: the gradient itself
 * without l1. Unlike the subgradient of least norm it goes to zero as w does: iterates that are averaged (asynchronous
 * merges) come near their zeros without being there. */
static inline double skald_gradient_entry(double w, double smooth, double l1, double eta) {
    double ahead = w - eta * smooth;
    return l1 <= 0 ? smooth : ahead > eta * l1 ? smooth + l1 : ahead < -eta * l1 ? smooth - l1 : w / eta;
}

/* sums: loss, and d2phi (logistic, huber). g = sum s_i phi'_i x_i (as w: dim entries a class, intercept last when there
 * is one); NULL: F alone. eta: of the proximal step that measures the gradient, 1 / (L + l2).
 *
 * The gap is Fenchel's at the dual point t phi'(z_i), t >= 0 being the best for the bound:
 *   F* >= D(t) = t P + t (1 - t) A - |soft(t g/n, l1)|^2 / (2 l2)
 * Without l2 the last term stands for |t g/n| <= l1. P = loss/n - w.g/n is the losses' part at t = 1
 * (-phi*(phi'(z)) = phi - z phi'). That part is concave in t and 0 at t = 0 (inf phi = 0), hence t P; A is what it is
 * known to be above that.
 *
 * Squared and squared hinge: A = loss/n, exact (phi*(a) is a^2/2 and a linear term), for any t >= 0; the others' t
 * <= 1.
 *
 * Logistic: with b = |phi'| and the entropy H, H(t b) - t H(b) >= t (1 - t) (b + b^2/2), as log(1/t) >= 1 - t and the
 * second derivative of -x log x is at most -1. In terms of b (1 - b) = phi'' that is convex (and b > 1/2 has more):
 * A = b + b^2/2 at the b <= 1/2 whose phi'' is the mean.
 *
 * Huber: rows beyond delta, where phi'' = 0, make delta^2/2 each, the others 0 or more. Softmax: A = 0.
 *
 * Without l1 or l2, or with `nonconvex`, nothing is certified.
 *
 * With an intercept the dual points are feasible only where sum s_i phi'_i = 0, that is where g's last entry (of every
 * class) vanishes: where it does to 1e-10 of slope_scale, which is what phi' is of the order of. Else the gap is F. */
skald_certificate skald_certify(const skald_objective *objective, uint32_t dim, double n, const double *w,
                                const skald_sums *sums, const double *g, double eta, double slope_scale);

/* gap as a share of F*: at most gap / (objective - gap) while gap < objective, beyond that infinity (F* may be next to
 * 0). 0 for an objective that is rounding next to at_zero, that of w = 0: rows fitted to all their digits. */
double skald_relative_gap(double gap, double objective, double at_zero);

#endif
