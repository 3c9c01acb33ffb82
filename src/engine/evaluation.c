#include "engine/evaluation.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "engine/intercepts.h"

enum { NEWTON_MAX = 30, MOST_ANEW = 100 };

skald_status skald_evaluator_init(skald_evaluator *ev, const skald_problem *problem, skald_vectors *v,
                                  skald_versions *versions, uint32_t workers) {
    memset(ev, 0, sizeof *ev);
    ev->problem = problem;
    ev->v = v;
    ev->versions = versions;
    ev->workers = ev->expected = workers;
    ev->asked = skald_zalloc(workers, sizeof *ev->asked);
    ev->results = skald_zalloc(workers, sizeof(skald_result *));
    if (!ev->asked || !ev->results) return SKALD_ENOMEM;
    const size_t length = skald_problem_length(problem), classes = problem->objective.classes;
    const bool together = problem->objective.loss == SKALD_SOFTMAX && problem->objective.intercept;
    for (int p = 0; p < SKALD_MAX_POINTS; p++) {
        ev->point[p] = skald_zalloc(length, sizeof(double));
        ev->gradient[p] = skald_zalloc(length, sizeof(double));
        if (!ev->point[p] || !ev->gradient[p]) return SKALD_ENOMEM;
        TRY(v->ops->create(v, &ev->total[p]));
        if (together && !(ev->shifts[p] = skald_zalloc(length, sizeof(double)))) return SKALD_ENOMEM;
    }
    if (together && !(ev->scratch = skald_alloc(classes * (classes + 1), sizeof(double)))) return SKALD_ENOMEM;
    return SKALD_OK;
}

void skald_evaluator_fini(skald_evaluator *ev) {
    skald_version_unref(ev->model);
    skald_version_unref(ev->shifts_model);
    for (int p = 0; p < SKALD_MAX_POINTS; p++) {
        if (ev->total[p]) ev->v->ops->destroy(ev->v, ev->total[p]);
        free(ev->point[p]);
        free(ev->gradient[p]);
        free(ev->shifts[p]);
    }
    free(ev->scratch);
    free(ev->asked);
    free(ev->results);
    memset(ev, 0, sizeof *ev);
}

static skald_status enter(skald_evaluator *ev, skald_phase phase) {
    ev->phase = phase;
    ev->outstanding = ev->expected;
    memset(ev->asked, 0, ev->workers * sizeof *ev->asked);
    const bool final = phase == SKALD_PHASE_FINAL; /* the points again, at the b0 found */
    if (!final && !ev->scratch) return SKALD_OK;
    double **vectors = final ? ev->point : ev->shifts;
    skald_version **held = final ? &ev->model : &ev->shifts_model, *old = *held;
    *held = skald_versions_publish_host(ev->versions, ev->model->commits, (const double *const *)vectors, ev->points);
    skald_version_unref(old);
    return *held ? SKALD_OK : SKALD_ENOMEM;
}

/* At the points as they are in ev->point. */
static skald_status begin(skald_evaluator *ev, uint64_t commits) {
    ev->newton_rounds = 0;
    memset(ev->shift, 0, sizeof ev->shift);
    for (uint32_t p = 0; p < ev->points; p++)
        if (ev->shifts[p]) memset(ev->shifts[p], 0, skald_problem_length(ev->problem) * sizeof(double));
    skald_version_unref(ev->model);
    ev->model = skald_versions_publish_host(ev->versions, commits, (const double *const *)ev->point, ev->points);
    if (!ev->model) return SKALD_ENOMEM;
    ev->phase = ev->problem->objective.intercept ? SKALD_PHASE_MARGINS : SKALD_PHASE_FINAL;
    ev->outstanding = ev->expected;
    ev->round++;
    memset(ev->asked, 0, ev->workers * sizeof *ev->asked);
    return SKALD_OK;
}

skald_status skald_evaluator_begin(skald_evaluator *ev, uint64_t commits, const double *const *points, uint32_t count,
                                   bool gradients) {
    ev->points = count;
    ev->gradients = gradients;
    for (uint32_t p = 0; p < count; p++) TRY(ev->v->ops->read(ev->v, ev->point[p], points[p]));
    return begin(ev, commits);
}

void skald_evaluator_drop(skald_evaluator *ev, skald_crew *crew) {
    for (uint32_t k = 0; ev->results && k < ev->workers; k++) {
        if (ev->results[k]) crew->ops->release(crew, ev->results[k]);
        ev->results[k] = NULL;
    }
}

skald_status skald_evaluator_again(skald_evaluator *ev, uint32_t workers, bool waiting) {
    ev->expected = workers;
    ev->waiting = waiting;
    if (ev->phase == SKALD_PHASE_IDLE) return SKALD_OK;
    return begin(ev, ev->model ? ev->model->commits : 0);
}

bool skald_evaluator_task(skald_evaluator *ev, uint32_t worker, skald_task *t) {
    if (ev->phase == SKALD_PHASE_IDLE || ev->waiting || ev->asked[worker]) return false;
    ev->asked[worker] = true;
    t->shard = SKALD_ALL_SHARDS;
    t->points = ev->points;
    if (ev->phase == SKALD_PHASE_NEWTON) {
        t->kind = SKALD_TASK_SHIFT;
        t->model = ev->shifts_model;
        memcpy(t->shift, ev->shift, sizeof t->shift);
        return true;
    }
    t->kind = SKALD_TASK_OBJECTIVE;
    t->model = ev->model;
    t->keep_margins = ev->phase == SKALD_PHASE_MARGINS;
    t->want_gradient = ev->phase == SKALD_PHASE_FINAL && ev->gradients;
    return true;
}

static skald_status reduce(skald_evaluator *ev, skald_crew *crew) {
    skald_vectors *v = ev->v;
    const bool vectors =
        ev->phase == SKALD_PHASE_FINAL ? ev->gradients : ev->phase == SKALD_PHASE_NEWTON && ev->scratch;
    memset(ev->sums, 0, sizeof ev->sums);
    for (uint32_t p = 0; vectors && p < ev->points; p++) v->ops->zero(v, ev->total[p]);
    for (uint32_t k = 0; k < ev->workers; k++) { /* in worker order, so that the bits do not depend on arrival */
        skald_result *r = ev->results[k];
        if (!r) continue;
        for (uint32_t p = 0; p < ev->points; p++) {
            ev->sums[p].loss += r->sums[p].loss;
            ev->sums[p].dphi += r->sums[p].dphi;
            ev->sums[p].d2phi += r->sums[p].d2phi;
            ev->sums[p].correct += r->sums[p].correct;
            ev->sums[p].rows += r->sums[p].rows;
            if (vectors && p < r->count && r->vectors[p]) v->ops->axpy(v, ev->total[p], 1, r->vectors[p]);
        }
        if (r->kind == SKALD_TASK_OBJECTIVE) ev->rows += (uint64_t)r->sums[0].rows;
        crew->ops->release(crew, r);
        ev->results[k] = NULL;
    }
    if (!vectors) return SKALD_OK;
    if (crew->ranks) TRY(crew->ranks->reduce(crew, ev->total, ev->points));
    for (uint32_t p = 0; p < ev->points; p++) TRY(v->ops->read(v, ev->gradient[p], ev->total[p]));
    return SKALD_OK;
}

/* What phi' is of the order of. */
static double slope_scale(const skald_problem *p) {
    const double labels = skald_problem_label_scale(p);
    return p->objective.loss == SKALD_HUBER ? fmin(labels, p->objective.huber_delta) : labels;
}

/* One Newton step on b0 for every point; true when all are there. */
static bool newton(skald_evaluator *ev) {
    bool there = true;
    const double n = ev->problem->n, scale = slope_scale(ev->problem), labels = skald_problem_label_scale(ev->problem);
    const double longest = ev->problem->objective.loss == SKALD_SQUARED ? INFINITY : 2 * labels;
    if (ev->scratch) { /* the moments come with the shifts only */
        if (ev->phase == SKALD_PHASE_MARGINS) return false;
        for (uint32_t p = 0; p < ev->points; p++)
            there &=
                skald_intercepts_step(ev->problem->objective.classes, ev->gradient[p], n, ev->scratch, ev->shifts[p]);
        return there || ++ev->newton_rounds > NEWTON_MAX;
    }
    for (uint32_t p = 0; p < ev->points; p++) {
        double slope = ev->sums[p].dphi / n, curvature = ev->sums[p].d2phi / n;
        if (fabs(slope) <= 1e-14 * scale) continue;
        there = false;
        /* a flat spot (all hinges inactive) or a saturated logistic: a bounded step instead of a wild one */
        double step = curvature > 1e-12 ? slope / curvature : copysign(labels, slope);
        ev->shift[p] -= fmax(-longest, fmin(step, longest));
    }
    return there || ++ev->newton_rounds > NEWTON_MAX;
}

static void shift_points(skald_evaluator *ev) {
    const size_t dim = ev->problem->dim, classes = skald_objective_classes(&ev->problem->objective);
    for (uint32_t p = 0; p < ev->points; p++)
        for (size_t c = 0; c < classes; c++)
            ev->point[p][c * dim + dim - 1] += ev->scratch ? ev->shifts[p][c] : ev->shift[p];
}

static void certify(skald_evaluator *ev) {
    for (uint32_t p = 0; p < ev->points; p++)
        ev->certificate[p] = skald_certify(&ev->problem->objective, ev->problem->dim, ev->problem->n, ev->point[p],
                                           &ev->sums[p], ev->gradients ? ev->gradient[p] : NULL,
                                           1 / (ev->problem->L + ev->problem->objective.l2), slope_scale(ev->problem));
}

skald_status skald_evaluator_add(skald_evaluator *ev, skald_crew *crew, skald_result *r, bool *done) {
    *done = false;
    const bool over_rows = r->kind == SKALD_TASK_OBJECTIVE;
    ev->results[r->worker] = r;
    if (--ev->outstanding) return SKALD_OK;
    TRY(reduce(ev, crew));
    if (over_rows && ev->sums[0].rows != ev->problem->n) { /* never of a smaller problem */
        if (++ev->anew > MOST_ANEW)
            return skald_fail(SKALD_EPEER, "evaluations are of %.0f rows instead of %.0f, time and again",
                              ev->sums[0].rows, ev->problem->n);
        return skald_evaluator_again(ev, ev->expected, ev->waiting);
    }
    ev->anew = 0;
    switch (ev->phase) {
    case SKALD_PHASE_MARGINS:
    case SKALD_PHASE_NEWTON:
        if (!newton(ev)) return enter(ev, SKALD_PHASE_NEWTON);
        shift_points(ev);
        return enter(ev, SKALD_PHASE_FINAL);
    case SKALD_PHASE_FINAL:
        certify(ev);
        ev->phase = SKALD_PHASE_IDLE;
        *done = true;
        return SKALD_OK;
    case SKALD_PHASE_IDLE:
        break;
    }
    return skald_fail(SKALD_EINTERNAL, "evaluation result in no phase");
}

uint32_t skald_evaluator_best(const skald_evaluator *ev) {
    return ev->points > 1 && ev->certificate[1].objective < ev->certificate[0].objective ? 1 : 0;
}
