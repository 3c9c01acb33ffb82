/* The curvature that newton.c steps by: which rows are sampled, when they are measured anew, what a step is.
 *
 * H = (1/m) sum over the sample of s_i phi''(z_i) x_i x_i' + l2, z_i at the model that the row's history is at: of the
 * same age as the gradient, which is what makes late results harmless. The coordinator knows these models, so that rows
 * travel once and their curvature never. Owner thread. */
#ifndef SKALD_SOLVER_HESSIAN_H
#define SKALD_SOLVER_HESSIAN_H

#include "skald/engine.h"

typedef struct skald_hessian skald_hessian;

skald_status skald_hessian_create(skald_engine *engine, skald_hessian **out);
void skald_hessian_destroy(skald_hessian *h); /* NULL-safe */

/* out = a + l2 x: F's smooth gradient at x, whose data term's is a. */
void skald_hessian_gradient(const skald_problem *problem, const double *a, const double *x, double *out);
/* Rows that the sample is to have, for skald_work.sample_rows. */
uint64_t skald_hessian_sample(const skald_hessian *h);
/* As large a sample as a run had that goes on, if that is affordable. */
void skald_hessian_ask(skald_hessian *h, double rows);
bool skald_hessian_known(const skald_hessian *h); /* has it been measured? */
/* Measures the sample if there is a reason: at first, by schedule, because it has grown or was forgotten; rows without
 * history are taken at w. Learns a pair from the last call's and this one's point x and the data term's gradient a
 * there (NULL: not known well enough). */
skald_status skald_hessian_tend(skald_hessian *h, const double *w, const double *x, const double *a);
/* A larger sample, if that is affordable. */
void skald_hessian_grow(skald_hessian *h);
/* Pairs go, and the next tend measures. */
void skald_hessian_forget(skald_hessian *h);
/* u = about where the sample's model of F (sample_model.h) about x, the data term's gradient a there, has its minimum:
 * as far as steps within the sample are worth their cost. direction = x - u, *promise as below (of the first step);
 * *left: what the last one promised. F: its value at x. */
skald_status skald_hessian_minimise(skald_hessian *h, double F, const double *x, const double *a, double *direction,
                                    double *promise, double *left);
/* What H may be too large by: 1 but for losses whose flat rows are counted as if they were not. */
double skald_hessian_excess(const skald_hessian *h);
/* The part of a step from x against `direction` that the sample's model of F about x can bear, or should have (over 1);
 * 1 where looking costs too much. */
skald_status skald_hessian_line(skald_hessian *h, const double *x, const double *a, const double *g,
                                const double *direction, double *t);
/* direction = B g; with l1: x - the minimum of the quadratic model about x plus l1, looked for from `w` on. *promise:
 * what a full step lowers that model by, times two (without l1 g'Bg, the Newton decrement squared). `tolerance`, with
 * l1: of the minimum's conditions, relative. */
skald_status skald_hessian_direction(skald_hessian *h, const double *x, const double *g, const double *w,
                                     double tolerance, double *direction, double *promise);

#endif
