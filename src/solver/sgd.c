/* Minibatch SGD.
 *
 *   plain:  w <- prox( w - eta (q_k D/r + l2 w) )
 *   local:  w <- w + theta q_k dw
 *
 * D = sum over a batch of shard k of s_i phi'(x_i.w_v) x_i; q_k = (n_k/n) / (shard k's share of the step mass)
 * keeps the mean step unbiased when workers are uneven: by step mass, not by merges, since stale steps are
 * scaled. */
#include "skald/solver.h"
#include "solver/schedule.h"

skald_status skald_sgd(skald_engine *e, const skald_train_options *options) {
    skald_vectors *v = &e->vectors;
    const skald_problem *p = e->problem;
    const skald_regulariser reg = skald_engine_regulariser(e);
    skald_schedule s = skald_schedule_make(e, options, false);
    double *w = NULL;
    skald_status st;
    TRY_GOTO(st, v->ops->create(v, &w), out);
    skald_begin(e, w, NULL, NULL);

    while (!skald_finished(e)) {
        if (s.parallel != e->parallel) s = skald_schedule_make(e, options, false); /* workers came or went */
        double eta = skald_schedule_eta(&s, e), step;
        skald_work work = {.local = s.local,
                           .task_rows = s.task_rows,
                           .step_rows = s.step_rows,
                           .eta = eta,
                           .theta = s.theta / e->parallel,
                           .w = w};
        skald_merge m;
        TRY_GOTO(st, skald_dispatch(e, &work), out);
        st = skald_collect(e, &m);
        if (st == SKALD_AGAIN) continue;
        if (st != SKALD_OK) goto out;
        if (m.local) {
            step = skald_schedule_theta(&s, &m);
            v->ops->local_merge(v, w, NULL, m.dw, step, NULL, p->n);
        } else {
            step = eta * skald_schedule_damping(&s, &m);
            v->ops->sgd_update(v, w, m.g, m.weight, step, &reg);
        }
        TRY_GOTO(st, skald_commit(e, &m, step), out);
    }
    st = SKALD_OK;
out:
    v->ops->destroy(v, w);
    return st;
}
