#include "engine/certificate.h"

#include <math.h>
#include <stddef.h>

/* The lower bound D(t) of certificate.h. */
typedef struct dual {
    const skald_objective *o;
    const double *g; /* of n rows, not the mean */
    uint32_t dim, features, classes;
    double n, losses, excess; /* P and A */
    double furthest;          /* the largest t */
    double largest;           /* of |g| */
} dual;

enum { MOST_STEPS = 50 };
static const double CLOSE = 1e-12; /* D is flat there */

/* |soft(t g/n, l1)|^2, and half its first and second derivative by t. */
typedef struct penalty {
    double value, slope, bend;
} penalty;

static penalty penalty_at(const dual *x, double t) {
    const double l1 = x->o->l1 * x->n, n2 = x->n * x->n;
    double value = 0, slope = 0, bend = 0;
    for (uint32_t c = 0; c < x->classes; c++)
        for (const double *g = x->g + (size_t)c * x->dim, *end = g + x->features; g < end; g++) {
            const double a = fabs(*g), over = t * a - l1;
            if (over > 0) value += over * over, slope += over * a, bend += a * a;
        }
    return (penalty){value / n2, slope / n2, bend / n2};
}

/* F - D(t), at_one being F less the losses' part of D(1): the difference of large terms is left out near t = 1. */
static double gap_at(const dual *x, double t, penalty p, double at_one) {
    const double punished = p.value > 0 ? p.value / (2 * x->o->l2) : 0; /* infinite without l2 */
    return (1 - t) * x->losses + at_one - t * (1 - t) * x->excess + punished;
}

/* Where D is greatest, from `t` to the right of it, by Newton's method on D's slope: that is concave and piecewise
 * linear, so the steps go left and never past its root. Multiplied by l2, which may be tiny. */
static double least_with_l2(const dual *x, double t, double at_one) {
    const double l2 = x->o->l2;
    double least = INFINITY;
    for (int k = 0; k < MOST_STEPS && t > 0; k++) {
        const penalty p = penalty_at(x, t);
        least = fmin(least, gap_at(x, t, p, at_one));
        const double slope = l2 * (x->losses + (1 - 2 * t) * x->excess) - p.slope;
        const double step = slope / (2 * l2 * x->excess + p.bend);
        if (!(-step > CLOSE * t)) break;
        t += step;
    }
    return least;
}

static double least_gap(const dual *x, double at_one) {
    /* D has no greater slope without the penalty: its root then is never left of the true one */
    const double most = x->excess > 0 ? (x->losses + x->excess) / (2 * x->excess) : x->furthest;
    const double top = fmin(most, x->furthest);
    if (!(top > 0)) return INFINITY;
    /* the largest t without a penalty */
    const double largest = x->largest / x->n, free = largest > 0 ? x->o->l1 / largest * (1 - 4e-16) : INFINITY;
    double gap = gap_at(x, fmin(free, top), (penalty){0}, at_one);
    return x->o->l2 > 0 && free < top ? fmin(gap, least_with_l2(x, top, at_one)) : gap;
}

/* A from the mean of b (1 - b): see certificate.h. */
static double logistic_excess(double curvature) {
    const double b = (1 - sqrt(fmax(0, 1 - 4 * curvature))) / 2;
    return b + b * b / 2;
}

static dual dual_make(const skald_objective *o, uint32_t dim, double n, const skald_sums *sums, const double *g,
                      double wg, double largest) {
    const double loss = sums->loss / n;
    dual x = {o, g, dim, dim - (o->intercept ? 1 : 0), skald_objective_classes(o), n, loss - wg, 0, 1, largest};
    switch (o->loss) {
    case SKALD_SQUARED:
    case SKALD_SQUARED_HINGE:
        x.excess = loss;
        if (loss > 0) x.furthest = INFINITY;
        break;
    case SKALD_LOGISTIC:
        x.excess = logistic_excess(sums->d2phi / n);
        break;
    case SKALD_HUBER:
        x.excess = fmax(0, 1 - sums->d2phi / n) * o->huber_delta * o->huber_delta / 2;
        break;
    case SKALD_SOFTMAX:
        break;
    }
    return x;
}

skald_certificate skald_certify(const skald_objective *o, uint32_t dim, double n, const double *w,
                                const skald_sums *sums, const double *g, double eta, double slope_scale) {
    const uint32_t d = dim - (o->intercept ? 1 : 0), classes = skald_objective_classes(o);
    double w2 = 0, w1 = 0, bounded = 0;
    for (uint32_t c = 0; c < classes; c++)
        for (const double *wc = w + (size_t)c * dim, *end = wc + d; wc < end; wc++)
            w2 += *wc * *wc, w1 += fabs(*wc), bounded += skald_bounded_value(*wc);
    const double penalties = 0.5 * o->l2 * w2 + o->l1 * w1;
    skald_certificate out = {sums->loss / n + penalties + o->nonconvex * bounded, INFINITY, NAN};
    if (!g) return out;

    double wg = 0, norm2 = 0, infeasible = 0, largest = 0;
    for (uint32_t c = 0; c < classes; c++) {
        const double *wc = w + (size_t)c * dim, *gc = g + (size_t)c * dim;
        for (uint32_t j = 0; j < d; j++) {
            double gj = gc[j] / n, smooth = gj + skald_smooth_slope(o, wc[j]);
            double sub = skald_gradient_entry(wc[j], smooth, o->l1, eta);
            wg += wc[j] * gj;
            norm2 += sub * sub;
            largest = fmax(largest, fabs(gc[j]));
        }
    }
    for (uint32_t c = 0; o->intercept && c < classes; c++) {
        const size_t last = (size_t)c * dim + d;
        double gb = g[last] / n;
        norm2 += gb * gb;
        /* a residual of rounding size moves F by residual^2 / curvature and the bound by |b0 residual| */
        infeasible = fmax(infeasible, fabs(gb));
        wg += fabs(w[last] * gb);
    }
    out.gradient_norm = sqrt(norm2);
    if (!(o->l2 > 0 || o->l1 > 0) || o->nonconvex > 0) return out;
    out.gap = out.objective;
    if (infeasible <= 1e-10 * slope_scale) {
        const dual x = dual_make(o, dim, n, sums, g, wg, largest);
        const double u = least_gap(&x, wg + penalties);
        /* near the optimum the terms cancel to rounding: below that the bound says nothing */
        const double floor = 4e-16 * (fabs(wg) + 2 * penalties + out.objective);
        out.gap = fmin(out.gap, fmax(u, floor));
    }
    return out;
}

double skald_relative_gap(double gap, double objective, double at_zero) {
    static const double EXACT = 1e-14; /* of a row's digits, whose square is the loss */
    if (gap <= EXACT * EXACT * at_zero) return 0;
    return gap < objective ? gap / (objective - gap) : INFINITY;
}
