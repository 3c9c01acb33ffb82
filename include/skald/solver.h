/* Solvers: programs over an engine and its vectors. */
#ifndef SKALD_SOLVER_H
#define SKALD_SOLVER_H

#include "skald/train.h"

/* Minibatch SGD, with or without local steps; unbiased under uneven speeds (q_k by step mass). */
skald_status skald_sgd(skald_engine *engine, const skald_train_options *options);
/* SAGA (Defazio, Bach, Lacoste-Julien 2014), asynchronous (ASYNC, Soori et al. 2020), with or without
 * local steps (D-SAGA, De & Goldstein 2016). */
skald_status skald_saga(skald_engine *engine, const skald_train_options *options);
/* SVRG (Johnson & Zhang 2013), asynchronous or synchronous; unbiased as sgd is. */
skald_status skald_svrg(skald_engine *engine, const skald_train_options *options);
/* SYNTHESIS (Liu, Zhang, Liu 2022): path-integrated gradients, for objectives that need not be convex. */
skald_status skald_synthesis(skald_engine *engine, const skald_train_options *options);
/* History Newton: the history together with where it was taken, and steps through the inverse of a sampled Hessian. */
skald_status skald_newton(skald_engine *engine, const skald_train_options *options);

skald_solver skald_solver_of(skald_algo algo);

#endif
