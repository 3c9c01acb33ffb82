/* SVRG (Johnson & Zhang 2013), asynchronous or in rounds.
 *
 *   G = (1/n) sum_i s_i phi'(x_i.u) x_i                 at a new u every epoch, over all rows
 *   w <- prox( w - eta (q_k D/r + G + l2 w) )           in between
 *
 * D = sum over a batch of shard k of s_i (phi'(x_i.w_v) - phi'(x_i.u)) x_i, read at version v. As in sgd.c, q_k keeps
 * the mean step unbiased when workers are uneven: without it w* is still a fixed point, but the way from one u to the
 * next is that of another objective, of the fast workers' rows above all. Steps go on by the old u and G while new ones
 * are under way; what is then still in flight belongs to the old u, and is dropped. */
#include <math.h>

#include "skald/solver.h"
#include "solver/schedule.h"

skald_status skald_svrg(skald_engine *e, const skald_train_options *options) {
    skald_vectors *v = &e->vectors;
    const skald_regulariser reg = skald_engine_regulariser(e);
    skald_schedule s = skald_schedule_difference(e, options);
    const double epoch = options->epoch > 0 ? options->epoch : 2;
    double *w = NULL, *G = NULL, due = 0;
    bool known = false; /* is there a G? */
    uint32_t generation = e->generation;
    skald_status st;
    TRY_GOTO(st, v->ops->create(v, &w), out);
    TRY_GOTO(st, v->ops->create(v, &G), out);
    skald_begin(e, w, NULL, NULL);

    while (!skald_finished(e)) {
        if (s.parallel != e->parallel) s = skald_schedule_difference(e, options); /* workers came or went */
        if (generation != e->generation) known = false, generation = e->generation;
        double eta = skald_schedule_eta(&s, e), step = 0;
        skald_work work = {.task_rows = known ? s.task_rows : 0,
                           .step_rows = s.step_rows,
                           .w = w,
                           .origin = SKALD_FROM_FULL,
                           .full = !known || e->passes >= due};
        skald_merge m;
        TRY_GOTO(st, skald_dispatch(e, &work), out);
        st = skald_collect(e, &m);
        if (st == SKALD_AGAIN) continue;
        if (st != SKALD_OK) goto out;
        if (m.full) {
            v->ops->copy(v, G, m.g);
            due = e->passes + epoch;
            known = true;
        } else if (!m.fold) {
            step = eta * skald_schedule_damping(&s, &m);
            v->ops->saga_update(v, w, G, m.g, m.weight, m.g, step, INFINITY, &reg);
        }
        TRY_GOTO(st, skald_commit(e, &m, step), out);
    }
    st = SKALD_OK;
out:
    v->ops->destroy(v, G);
    v->ops->destroy(v, w);
    return st;
}
