#include "engine/certificate.h"

#include <math.h>
#include <stddef.h>

skald_certificate skald_certify(const skald_objective *o, uint32_t dim, double n, const double *w, double loss_sum,
                                const double *g, double eta) {
    const uint32_t d = dim - (o->intercept ? 1 : 0), classes = skald_objective_classes(o);
    double w2 = 0, w1 = 0, bounded = 0;
    for (uint32_t c = 0; c < classes; c++)
        for (const double *wc = w + (size_t)c * dim, *end = wc + d; wc < end; wc++)
            w2 += *wc * *wc, w1 += fabs(*wc), bounded += skald_bounded_value(*wc);
    skald_certificate out = {loss_sum / n + 0.5 * o->l2 * w2 + o->l1 * w1 + o->nonconvex * bounded, INFINITY, NAN};
    if (!g) return out;

    double wg = 0, conjugate = 0, norm2 = 0;
    for (uint32_t c = 0; c < classes; c++) {
        const double *wc = w + (size_t)c * dim, *gc = g + (size_t)c * dim;
        for (uint32_t j = 0; j < d; j++) {
            double gj = gc[j] / n, smooth = gj + skald_smooth_slope(o, wc[j]), soft = skald_soft(gj, o->l1);
            double sub = skald_gradient_entry(wc[j], smooth, o->l1, eta);
            wg += wc[j] * gj;
            conjugate += soft * soft;
            norm2 += sub * sub;
        }
    }
    double feasible = 0;
    for (uint32_t c = 0; o->intercept && c < classes; c++) {
        const size_t last = (size_t)c * dim + d;
        double gb = g[last] / n;
        norm2 += gb * gb;
        /* a residual of rounding size moves F by residual^2 / curvature and U by |b0 residual| */
        feasible = fmax(feasible, fabs(gb));
        wg += fabs(w[last] * gb);
    }
    out.gradient_norm = sqrt(norm2);
    if (o->l2 > 0 && !(o->nonconvex > 0) && feasible < 1e-10) {
        double u = wg + 0.5 * o->l2 * w2 + o->l1 * w1 + conjugate / (2 * o->l2);
        /* near the optimum the terms cancel to rounding: below that U says nothing */
        double floor = 4e-16 * (fabs(wg) + o->l2 * w2 + o->l1 * w1 + fabs(out.objective));
        out.gap = u > floor ? u : floor;
    }
    return out;
}
