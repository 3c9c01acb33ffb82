/* The objective: losses and regularisers.
 *
 *   F(w) = (1/n) sum_i s_i phi(x_i.w, y_i) + (l2/2) |w'|^2 + l1 |w'|_1 + nonconvex sum_j w'_j^2 / (1 + w'_j^2)
 *
 * x_i has `dim` entries; with an intercept the last is the constant 1 and w' is w without its last entry
 * (the intercept is never regularised). s_i are the weights, rescaled so that they sum to n.
 *
 * Softmax has C = `classes` vectors, one a class, one behind the other: class c is w[c*dim .. (c+1)*dim), its intercept
 * the last of them (class-major, W[C][dim]: each class is one contiguous vector, as the rows are). z is then C numbers,
 * phi' a vector of C, and a row's history C scalars. */
#ifndef SKALD_OBJECTIVE_H
#define SKALD_OBJECTIVE_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>

#include "skald/status.h"

typedef enum skald_loss {
    SKALD_SQUARED = 0,   /* (z-y)^2/2,             y real                             */
    SKALD_LOGISTIC,      /* log(1 + exp(-yz)),     y in {-1,+1}                       */
    SKALD_SQUARED_HINGE, /* max(0, 1-yz)^2/2,      y in {-1,+1}                       */
    SKALD_HUBER,         /* quadratic inside delta, linear outside; y real            */
    SKALD_SOFTMAX        /* -log softmax(z)_y,     y in {0 .. C-1}                    */
} skald_loss;

typedef struct skald_objective {
    skald_loss loss;
    double huber_delta; /* > 0, for SKALD_HUBER */
    double l2, l1;      /* >= 0 */
    double nonconvex;   /* >= 0; its slopes are the coordinator's business, workers need not know it */
    bool intercept;     /* the last entry of each row is the constant 1 and is not regularised */
    /* Steps on the intercept are so many times as long as on the other columns, and wherever |x_i|^2 is for the length
     * of a step, it is in it for its own 1. So they are those on w and b/c for a column that holds c = its root, as
     * large as rows are: a 1 beside rows of norm 60 is 3600 times worse conditioned. The problem is the same. 0 stands
     * for 1. */
    double intercept_step;
    uint32_t classes; /* C: history scalars a row; 1 (or 0) for all but softmax */
} skald_objective;

static inline double skald_objective_intercept_step(const skald_objective *o) {
    return o->intercept_step > 0 ? o->intercept_step : 1;
}
/* What |x_i|^2 with the intercept's 1 in it is to be raised by where it is for a step's length. */
static inline double skald_objective_norm2_more(const skald_objective *o) {
    return o->intercept ? skald_objective_intercept_step(o) - 1 : 0;
}

/* C, and 1 for all but softmax. */
static inline uint32_t skald_objective_classes(const skald_objective *o) {
    return o->loss == SKALD_SOFTMAX ? o->classes : 1;
}
/* Numbers that describe how the intercepts of C classes bend the objective: C slopes, and the lower triangle of the C x
 * C curvature row by row (see skald_compute_ops.shift_classes). */
static inline uint64_t skald_objective_moments(const skald_objective *o) {
    const uint64_t c = skald_objective_classes(o);
    return c * (c + 3) / 2;
}
/* Entries of a vector of the solver (w, a gradient, ...) for rows of `dim` columns: C x dim. With intercepts of many
 * classes and few columns there are some more behind them, always 0, so that every vector can carry the moments. */
static inline uint64_t skald_objective_length(const skald_objective *o, uint32_t dim) {
    const uint64_t entries = (uint64_t)dim * skald_objective_classes(o), moments = skald_objective_moments(o);
    return o->loss == SKALD_SOFTMAX && o->intercept && moments > entries ? moments : entries;
}

/* "squared", "logistic", "squared-hinge", "huber", "softmax". Static. */
const char *skald_loss_name(skald_loss loss);
/* SKALD_EINVAL with the list of names when unknown. */
skald_status skald_loss_parse(const char *name, skald_loss *out);
/* Two classes (mapped to -1, +1)? */
bool skald_loss_is_binary(skald_loss loss);
/* Classes, two or more, rather than real targets? */
bool skald_loss_is_classifier(skald_loss loss);

/* phi(z, y), phi'(z, y), phi''(z, y) (one-sided where it jumps) in double; no overflow for |z| up to 1e4.
 * `delta` is read by huber only. These are the reference that every backend is tested against. NaN for softmax. */
double skald_loss_value(skald_loss loss, double delta, double z, double y);
double skald_loss_derivative(skald_loss loss, double delta, double z, double y);
double skald_loss_second(skald_loss loss, double delta, double z, double y);
/* max over z of phi''. */
double skald_loss_curvature(skald_loss loss);
/* Is decision value z on the right side for y? (sign for binary losses, false for real ones) */
bool skald_loss_correct(skald_loss loss, double z, double y);

/* Softmax, for z of `classes` entries and class y: the value; p = softmax(z); the class with the largest z (the first
 * of several). No overflow for |z| up to 1e4. */
double skald_softmax_value(uint32_t classes, const double *z, uint32_t y);
void skald_softmax(uint32_t classes, const double *z, double *p); /* p may be z */
uint32_t skald_softmax_class(uint32_t classes, const double *z);

/* v^2 / (1 + v^2), bounded by 1 and not convex, and its slope; the second derivative is between -1/2 and 2. */
static inline double skald_bounded_value(double v) {
    return v * v / (1 + v * v);
}
static inline double skald_bounded_slope(double v) {
    const double q = 1 + v * v;
    return 2 * v / (q * q);
}
/* Slope of the smooth part of the regulariser: l2 and nonconvex. */
static inline double skald_smooth_slope(const skald_objective *o, double v) {
    return o->nonconvex > 0 ? o->l2 * v + o->nonconvex * skald_bounded_slope(v) : o->l2 * v;
}

/* Soft threshold: the proximal operator of t|.|. */
static inline double skald_soft(double v, double t) {
    return v > t ? v - t : v < -t ? v + t : 0.0;
}

#endif
