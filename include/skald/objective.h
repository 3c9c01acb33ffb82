/* The objective: losses and regularisers.
 *
 *   F(w) = (1/n) sum_i s_i phi(x_i.w, y_i) + (l2/2) |w'|^2 + l1 |w'|_1
 *
 * x_i has `dim` entries; with an intercept the last is the constant 1 and w' is w without its last entry
 * (the intercept is never regularised). s_i are the weights, rescaled so that they sum to n. */
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
    SKALD_SOFTMAX        /* -log softmax(z)_y, y a class index; not yet in any backend */
} skald_loss;

typedef struct skald_objective {
    skald_loss loss;
    double huber_delta; /* > 0, for SKALD_HUBER */
    double l2, l1;      /* >= 0 */
    bool intercept;     /* the last entry of each row is the constant 1 and is not regularised */
    uint32_t classes;   /* C: history scalars a row; 1 for all but softmax */
} skald_objective;

/* "squared", "logistic", "squared-hinge", "huber", "softmax". Static. */
const char *skald_loss_name(skald_loss loss);
/* SKALD_EINVAL with the list of names when unknown. */
skald_status skald_loss_parse(const char *name, skald_loss *out);
/* Two classes (mapped to -1, +1)? */
bool skald_loss_is_binary(skald_loss loss);

/* phi(z, y), phi'(z, y), phi''(z, y) (one-sided where it jumps) in double; no overflow for |z| up to 1e4.
 * `delta` is read by huber only. These are the reference that every backend is tested against. */
double skald_loss_value(skald_loss loss, double delta, double z, double y);
double skald_loss_derivative(skald_loss loss, double delta, double z, double y);
double skald_loss_second(skald_loss loss, double delta, double z, double y);
/* max over z of phi''. */
double skald_loss_curvature(skald_loss loss);
/* Is decision value z on the right side for y? (sign for binary losses, false for real ones) */
bool skald_loss_correct(skald_loss loss, double z, double y);

/* Soft threshold: the proximal operator of t|.|. */
static inline double skald_soft(double v, double t) {
    return v > t ? v - t : v < -t ? v + t : 0.0;
}

#endif
