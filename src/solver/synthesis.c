/* SYNTHESIS (Liu, Zhang, Liu 2022): path-integrated gradients, semi-asynchronous, for objectives that need not be
 * convex.
 *
 *   G = (1/n) sum_i grad f_i(w)                                   every q steps, over all rows
 *   G <- G + (q_k/r) sum_B (grad f_i(w_v) - grad f_i(w_u))        for each piece (u, v] of the way of w, once
 *   w <- prox( w - eta (G + grad of the regulariser at w) )       after each of them
 *
 * Pieces are given out as workers become free and come back in any order; G lacks those that are out. |B| and q are
 * about the root of n, so that full gradients cost about as much as the rest. */
#include <math.h>

#include "skald/solver.h"
#include "solver/schedule.h"

skald_status skald_synthesis(skald_engine *e, const skald_train_options *options) {
    skald_vectors *v = &e->vectors;
    const skald_problem *p = e->problem;
    const skald_regulariser reg = skald_engine_regulariser(e);
    skald_schedule s = skald_schedule_path(e, options);
    double *w = NULL, *G = NULL;
    uint64_t steps = 0, q = (uint64_t)ceil(options->epoch > 0 ? options->epoch * p->n / s.task_rows : sqrt(p->n));
    bool known = false; /* is there a G? */
    uint32_t generation = e->generation;
    skald_status st;
    TRY_GOTO(st, v->ops->create(v, &w), out);
    TRY_GOTO(st, v->ops->create(v, &G), out);
    skald_begin(e, w, NULL, NULL);

    while (!skald_finished(e)) {
        if (s.parallel != e->parallel) s = skald_schedule_path(e, options); /* workers came or went */
        if (generation != e->generation) known = false, generation = e->generation;
        const bool full = !known || steps >= q;
        double step = 0;
        skald_work work = {.task_rows = full ? 0 : s.task_rows,
                           .step_rows = s.step_rows,
                           .w = w,
                           .origin = SKALD_FROM_PATH,
                           .full = full};
        skald_merge m;
        TRY_GOTO(st, skald_dispatch(e, &work), out);
        st = skald_collect(e, &m);
        if (st == SKALD_AGAIN) continue;
        if (st != SKALD_OK) goto out;
        if (m.full) {
            v->ops->copy(v, G, m.g);
            steps = 0;
            known = true;
        } else if (!m.fold) {
            v->ops->axpy(v, G, m.weight, m.g);
        }
        if (!m.fold) {
            step = skald_schedule_eta(&s, e);
            v->ops->proximal_step(v, w, G, step, &reg);
            steps++;
        }
        TRY_GOTO(st, skald_commit(e, &m, step), out);
    }
    st = SKALD_OK;
out:
    v->ops->destroy(v, G);
    v->ops->destroy(v, w);
    return st;
}
