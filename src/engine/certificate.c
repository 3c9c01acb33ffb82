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
} dual;

/* |soft(t g/n, l1)|^2, and half its first and second derivative by t. */
typedef struct penalty {
    double value, slope, bend;
} penalty;

static penalty penalty_at(const dual *x, double t) {
    const double l1 = x->o->l1;
    penalty p = {0, 0, 0};
    for (uint32_t c = 0; c < x->classes; c++) {
        const double *g = x->g + (size_t)c * x->dim;
        for (uint32_t j = 0; j < x->features; j++) {
            const double a = fabs(g[j]) / x->n, over = t * a - l1;
            if (over > 0) p.value += over * over, p.slope += over * a, p.bend += a * a;
        }
    }
    return p;
}

/* The largest t at which the penalty vanishes. */
static double unpunished(const dual *x) {
    double largest = 0;
    for (uint32_t c = 0; c < x->classes; c++)
        for (uint32_t j = 0; j < x->features; j++) largest = fmax(largest, fabs(x->g[(size_t)c * x->dim + j]));
    return largest > 0 ? x->o->l1 / (largest / x->n) * (1 - 4e-16) : INFINITY;
}

/* t where D's slope vanishes, by Newton's method. The slope is concave and piecewise linear in t: from where it is
 * negative the steps go left, never past the root. Multiplied by l2, which may be tiny. */
static double steepest(const dual *x, double t) {
    const double l2 = x->o->l2;
    for (int k = 0; k < 50 && t > 0; k++) {
        const penalty p = penalty_at(x, t);
        const double slope = l2 * (x->losses + (1 - 2 * t) * x->excess) - p.slope;
        if (!(slope < 0)) break;
        const double step = slope / (2 * l2 * x->excess + p.bend);
        t += step;
        if (-step <= 1e-15 * t) break;
    }
    return fmax(t, 0);
}

/* F - D(t), at_one being F less the losses' part of D(1): the difference of large terms is left out near t = 1. */
static double gap_at(const dual *x, double t, double at_one) {
    const penalty p = penalty_at(x, t);
    const double punished = p.value > 0 ? p.value / (2 * x->o->l2) : 0; /* infinite without l2 */
    return (1 - t) * x->losses + at_one - t * (1 - t) * x->excess + punished;
}

static double least_gap(const dual *x, double at_one) {
    /* D has no greater slope without the penalty: its root then is never left of the true one */
    const double most = x->excess > 0 ? (x->losses + x->excess) / (2 * x->excess) : x->furthest;
    const double top = fmin(most, x->furthest), free = fmin(unpunished(x), top);
    if (!(top > 0)) return INFINITY;
    double gap = gap_at(x, free, at_one);
    if (!(x->o->l2 > 0)) return gap;
    gap = fmin(gap, gap_at(x, steepest(x, top), at_one));
    return fmin(gap, gap_at(x, 1, at_one));
}

static dual dual_make(const skald_objective *o, uint32_t dim, double n, const skald_sums *sums, const double *g,
                      double wg) {
    const double loss = sums->loss / n;
    dual x = {o, g, dim, dim - (o->intercept ? 1 : 0), skald_objective_classes(o), n, loss - wg, 0, 1};
    switch (o->loss) {
    case SKALD_SQUARED:
    case SKALD_SQUARED_HINGE:
        x.excess = loss;
        if (loss > 0) x.furthest = INFINITY;
        break;
    case SKALD_LOGISTIC:
        x.excess = sums->d2phi / n;
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

    double wg = 0, norm2 = 0, infeasible = 0;
    for (uint32_t c = 0; c < classes; c++) {
        const double *wc = w + (size_t)c * dim, *gc = g + (size_t)c * dim;
        for (uint32_t j = 0; j < d; j++) {
            double gj = gc[j] / n, smooth = gj + skald_smooth_slope(o, wc[j]);
            double sub = skald_gradient_entry(wc[j], smooth, o->l1, eta);
            wg += wc[j] * gj;
            norm2 += sub * sub;
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
        const dual x = dual_make(o, dim, n, sums, g, wg);
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
