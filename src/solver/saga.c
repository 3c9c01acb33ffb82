/* SAGA (Defazio, Bach, Lacoste-Julien 2014), asynchronous as in ASYNC (Soori et al. 2020).
 *
 *   plain:  w <- prox( w - eta (D/r + abar + l2 w) ),  abar <- abar + D/n
 *   local:  w <- w + theta dw,                         abar <- abar + D/n
 *
 * D = sum over the batch of s_i (phi'(x_i.w_v) - alpha_i) x_i, read at version v, or the sum of the D's of a
 * local run of steps (D-SAGA, De & Goldstein 2016). The minimiser is the fixed point whatever the speeds. */
#include "skald/solver.h"
#include "solver/schedule.h"

skald_status skald_saga(skald_engine *e, const skald_train_options *options) {
    skald_vectors *v = &e->vectors;
    const skald_problem *p = e->problem;
    const skald_regulariser reg = skald_engine_regulariser(e);
    skald_schedule s = skald_schedule_make(e, options, true);
    double *w = NULL, *abar = NULL;
    skald_status st;
    TRY_GOTO(st, v->ops->create(v, &w), out);
    TRY_GOTO(st, v->ops->create(v, &abar), out);
    skald_begin(e, w, abar, NULL);

    while (!skald_finished(e)) {
        if (s.parallel != e->parallel) s = skald_schedule_make(e, options, true); /* workers came or went */
        double eta = skald_schedule_eta(&s, e), step;
        skald_work work = {.history = true,
                           .local = s.local,
                           .task_rows = s.task_rows,
                           .step_rows = s.step_rows,
                           .eta = eta,
                           .theta = s.theta / e->parallel,
                           .w = w,
                           .abar = abar};
        skald_merge m;
        TRY_GOTO(st, skald_dispatch(e, &work), out);
        st = skald_collect(e, &m);
        if (st == SKALD_AGAIN) continue;
        if (st != SKALD_OK) goto out;
        if (m.local) {
            step = skald_schedule_theta(&s, &m);
            v->ops->local_merge(v, w, abar, m.dw, step, m.history, p->n);
        } else {
            step = eta * skald_schedule_damping(&s, &m);
            v->ops->saga_update(v, w, abar, m.g, m.weight, m.history, step, p->n, &reg);
        }
        TRY_GOTO(st, skald_commit(e, &m, step), out);
    }
    st = SKALD_OK;
out:
    v->ops->destroy(v, abar);
    v->ops->destroy(v, w);
    return st;
}
