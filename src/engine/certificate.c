#include "engine/certificate.h"

#include <math.h>

skald_certificate skald_certify(const skald_objective *o, uint32_t dim, double n, const double *w, double loss_sum,
                                const double *g, double eta) {
    uint32_t d = dim - (o->intercept ? 1 : 0);
    double w2 = 0, w1 = 0;
    for (uint32_t j = 0; j < d; j++) w2 += w[j] * w[j], w1 += fabs(w[j]);
    skald_certificate c = {loss_sum / n + 0.5 * o->l2 * w2 + o->l1 * w1, INFINITY, NAN};
    if (!g) return c;

    double wg = 0, conjugate = 0, norm2 = 0;
    for (uint32_t j = 0; j < d; j++) {
        double gj = g[j] / n, smooth = gj + o->l2 * w[j], soft = skald_soft(gj, o->l1);
        double sub = skald_gradient_entry(w[j], smooth, o->l1, eta);
        wg += w[j] * gj;
        conjugate += soft * soft;
        norm2 += sub * sub;
    }
    double feasible = 0;
    if (o->intercept) {
        double gb = g[d] / n;
        norm2 += gb * gb;
        /* a residual of rounding size moves F by residual^2 / curvature and U by |b0 residual| */
        feasible = fabs(gb);
        wg += fabs(w[d] * gb);
    }
    c.gradient_norm = sqrt(norm2);
    if (o->l2 > 0 && feasible < 1e-10) {
        double u = wg + 0.5 * o->l2 * w2 + o->l1 * w1 + conjugate / (2 * o->l2);
        /* near the optimum the terms cancel to rounding: below that U says nothing */
        double floor = 4e-16 * (fabs(wg) + o->l2 * w2 + o->l1 * w1 + fabs(c.objective));
        c.gap = u > floor ? u : floor;
    }
    return c;
}
