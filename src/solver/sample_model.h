/* F as a sample of its rows tells it, put right in slope at a point x where F's gradient is known:
 *
 *   M(u) = F_S(u) + (grad F(x) - grad F_S(x)) . u + (l2/2) |u'|^2 + l1 |u'|_1,    F_S the sample's mean loss
 *
 * (the local objective of DANE: Shamir, Srebro, Zhang 2014). It costs no pass to look along a line in it, or to go on
 * in it: where the sample is all rows, M is F. Owner thread; vectors in host memory, of skald_problem_length entries.
 */
#ifndef SKALD_SOLVER_SAMPLE_MODEL_H
#define SKALD_SOLVER_SAMPLE_MODEL_H

#include "skald/engine.h"

typedef struct skald_sample_model {
    const skald_problem *problem;
    const skald_sample *sample;
    double *z, *along;  /* rows x C: margins at the point, and of a direction */
    double *slope;      /* rows x C: coefficients of a gradient */
    size_t room;        /* rows */
    double *correction; /* grad F(x) - grad F_S(x), data terms */
} skald_sample_model;

skald_status skald_sample_model_create(const skald_problem *problem, const skald_sample *sample,
                                       skald_sample_model **out);
void skald_sample_model_destroy(skald_sample_model *m); /* NULL-safe */
/* About x, where the gradient of F's data term is a. SKALD_ENOMEM. */
skald_status skald_sample_model_about(skald_sample_model *m, const double *x, const double *a);
/* Goes to u: margins there, and a = the gradient of M's data term. */
void skald_sample_model_at(skald_sample_model *m, const double *u, double *a);
/* The part t of the way from x against `direction` where M has its minimum on it, roughly: its slope has a tenth of
 * what it was at x left. More than 1 only without l1, and where the direction was made with far more curvature than
 * there is. x is the point of the last call above, g the smooth gradient of M there. */
double skald_sample_model_line(skald_sample_model *m, const double *x, const double *g, const double *direction);

#endif
