#include "solver/hessian.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "curvature/metric.h"
#include "curvature/remeasure.h"
#include "curvature/rows.h"
#include "solver/sample_model.h"

/* Rows whose loss is flat (squared hinge, huber) will not stay so over a whole step: they count this part of what they
 * are at most, all of it before there is a history. */
static const double FLAT = 0.05;
static const double ALL_ENTRIES = 2e7, ALL_FLOPS = 1.5e10; /* a problem up to that large is its own sample */
static const double ILL = 100, MOST_FLOPS = 1e11; /* of a problem so ill-conditioned, and of a sample that has grown */
static const double MOST_BYTES = 512e6;
static const double CHEAP = 1;    /* passes: a measure that costs less is made every pass */
static const double FLOPS = 2e10; /* a second, and bytes a second, about: their ratio is what matters */
static const double BYTES = 1e10;
/* Steps in the model: where it is F, until nothing is left to double precision; else, if they are cheap, until what is
 * left is less than the sample's error. */
static const uint32_t MOST_STEPS = 100, SOME_STEPS = 10;
static const double ALL_THE_WAY = 1e-14, STANDS = 1e-6, PART_OF_THE_WAY = 1e-2;
static const double LITTLE = 1.1e-10, NOTHING = 1e-4;         /* of a column's mean square */
static const double ROUGH = 1e-3, FINER = 1e-3, FINE = 1e-11; /* tolerance of a step with l1, relative */
static const double BESIDE_FLOPS = 1e8, BESIDE_PASSES = 0.25; /* a measure that takes longer than that goes on beside
                                                               * the steps, and takes over so much later */
static const double ROUNDING = 1e-16;                         /* of F: no step can be seen to lower it by that */
static const double WELL_DONE = 0.1; /* a step that leaves less of its promise: the curvature is still good */
static const uint32_t DENSE = 4096, SPARSE_ROWS = 4000, MOST_SPARSE_ROWS = 8192, PAIRS = 10;

struct skald_hessian {
    skald_engine *e;
    const skald_problem *p;
    skald_metric_options options;
    skald_metric *metric, *spare;
    skald_remeasure beside; /* of `spare` */
    bool measuring;
    double adopt;    /* passes at which `spare` takes over: fixed, so that a replay does the same */
    uint64_t rows;   /* asked for */
    size_t measured; /* rows of the sample when it was measured; 0: not yet */
    double due;      /* passes */
    double *h, *z;   /* room for `room` rows */
    size_t room;
    double *x, *a, *dx, *da; /* the pair's older end, and differences */
    double paired;           /* passes when that was; < 0: none */
    uint64_t paired_at;      /* the clock then */
    skald_sample_model *model;
    double *u, *at, *g, *step; /* minimise: the point, gradients there, a step */
};

static uint32_t classes_of(const skald_problem *p) {
    return skald_objective_classes(&p->objective);
}

static double nonzeros(const skald_hessian *h, double rows) {
    return h->p->dense ? rows * h->p->dim : rows * h->p->nonzeros / h->p->n;
}

static double cost(const skald_hessian *h, double rows) {
    return skald_metric_cost(&h->options, (size_t)rows, nonzeros(h, rows));
}

/* In passes over the data. */
static double cost_in_passes(const skald_hessian *h, double rows) {
    const double pass = 4 * nonzeros(h, h->p->n) / BYTES + 50e-6; /* a pass is no less than its eight tasks */
    return cost(h, rows) / FLOPS / pass;
}

static bool affordable(const skald_hessian *h, double rows) {
    const bool fits = h->p->dim <= DENSE || classes_of(h->p) > 1 || rows <= MOST_SPARSE_ROWS;
    return fits && cost(h, rows) <= MOST_FLOPS && 4 * nonzeros(h, rows) <= MOST_BYTES;
}

static bool cheap(const skald_hessian *h) {
    return cost_in_passes(h, (double)h->e->sample->rows.n) < CHEAP;
}

static uint64_t first_sample(const skald_hessian *h) {
    const skald_problem *p = h->p;
    const bool ill = !(p->L_max <= ILL * p->objective.l2 * p->n);
    const bool few = nonzeros(h, p->n) * classes_of(p) <= ALL_ENTRIES;
    const bool small = few && cost(h, p->n) <= (ill ? MOST_FLOPS : ALL_FLOPS);
    if (small && affordable(h, p->n)) return (uint64_t)p->n;
    double rows = p->dim <= DENSE ? (p->n >= 100.0 * p->dim ? 10.0 : 4.0) * p->dim : SPARSE_ROWS;
    if (rows < SPARSE_ROWS) rows = SPARSE_ROWS;
    return (uint64_t)fmin(rows, p->n);
}

/* l1 without l2: so much that few rows of many columns can be measured by the rows' matrix (metric.c: uneven), where
 * that is next to nothing for every column. */
static double little(const skald_problem *p) {
    double least = INFINITY, most = 0;
    for (uint32_t j = 0; j < p->dim; j++) {
        const double x2 = p->column_mean2[j];
        most = fmax(most, x2);
        if (x2 > 0) least = fmin(least, x2);
    }
    return LITTLE * most <= NOTHING * least ? LITTLE * most : 0;
}

skald_status skald_hessian_create(skald_engine *e, skald_hessian **out) {
    const skald_problem *p = e->problem;
    const size_t length = skald_problem_length(p);
    skald_hessian *h = *out = skald_zalloc(1, sizeof *h);
    if (!h) return SKALD_ENOMEM;
    h->e = e;
    h->p = p;
    h->paired = -1;
    const double l2 = fmax(p->objective.l2, p->objective.l1 > 0 ? little(p) : 0);
    h->options = (skald_metric_options){.dim = p->dim,
                                        .classes = classes_of(p),
                                        .length = length,
                                        .intercept = p->objective.intercept,
                                        .proximal = p->objective.l1 > 0,
                                        .l2 = l2,
                                        .smoothness = fmax(p->L_max, p->objective.l2),
                                        .ridge = -1,
                                        .damp = true,
                                        .pairs = p->objective.l1 > 0 ? 0 : PAIRS,
                                        .columns = p->column_mean2};
    double **const vectors[] = {&h->x, &h->a, &h->dx, &h->da, &h->u, &h->at, &h->g, &h->step};
    for (size_t k = 0; k < SKALD_ARRAY_LENGTH(vectors); k++)
        if (!(*vectors[k] = skald_zalloc(length, sizeof(double)))) return SKALD_ENOMEM;
    TRY(skald_metric_create(&h->options, &h->metric));
    TRY(skald_metric_create(&h->options, &h->spare));
    TRY(skald_sample_model_create(p, e->sample, &h->model));
    h->rows = first_sample(h);
    return SKALD_OK;
}

void skald_hessian_destroy(skald_hessian *h) {
    if (!h) return;
    if (h->measuring) (void)skald_remeasure_finish(&h->beside);
    skald_metric_destroy(h->metric);
    skald_metric_destroy(h->spare);
    free(h->h);
    free(h->z);
    free(h->x);
    free(h->a);
    free(h->dx);
    free(h->da);
    free(h->u);
    free(h->at);
    free(h->g);
    free(h->step);
    skald_sample_model_destroy(h->model);
    free(h);
}

uint64_t skald_hessian_sample(const skald_hessian *h) {
    return h->rows;
}

void skald_hessian_ask(skald_hessian *h, double rows) {
    rows = fmin(rows, h->p->n);
    if (rows > (double)h->rows && affordable(h, rows)) h->rows = (uint64_t)rows;
}

bool skald_hessian_known(const skald_hessian *h) {
    return h->measured > 0;
}

void skald_hessian_grow(skald_hessian *h) {
    const double rows = fmin(2.0 * (double)h->rows, h->p->n);
    if (h->e->sample->complete && !h->measuring && affordable(h, rows)) h->rows = (uint64_t)rows;
}

void skald_hessian_forget(skald_hessian *h) {
    skald_metric_drop_pairs(h->metric);
    h->paired = -1;
    h->due = 0;
}

static skald_status fit(skald_hessian *h, size_t rows) {
    if (rows <= h->room) return SKALD_OK;
    double *more_h = skald_alloc(rows, sizeof *more_h), *more_z = skald_alloc(rows * classes_of(h->p), sizeof *more_z);
    if (!more_h || !more_z) {
        free(more_h);
        free(more_z);
        return SKALD_ENOMEM;
    }
    free(h->h);
    free(h->z);
    h->h = more_h;
    h->z = more_z;
    h->room = rows;
    return SKALD_OK;
}

/* What a row's curvature is at most, or would be on the way to where its residual is none. */
static double bending(const skald_objective *o, double z, double y) {
    return o->loss == SKALD_HUBER ? fmin(1, o->huber_delta / fabs(z - y)) : skald_loss_curvature(o->loss);
}

static bool flat(const skald_objective *o) {
    return o->loss == SKALD_HUBER || o->loss == SKALD_SQUARED_HINGE;
}

double skald_hessian_excess(const skald_hessian *h) {
    return flat(&h->p->objective) ? 1 / FLAT : 1;
}

static void lift_flat(skald_hessian *h, const skald_rows *rows, double scale) {
    const skald_objective *o = &h->p->objective;
    const double part = h->measured ? FLAT : 1;
    if (!flat(o)) return;
    for (size_t i = 0; i < rows->n; i++)
        h->h[i] = fmax(h->h[i], part * scale * rows->s[i] * bending(o, h->z[i], rows->y[i]));
}

/* With margins in h->z; curvatures to h->h, and for softmax probabilities in place of margins. */
static void curvatures(skald_hessian *h) {
    const skald_sample *s = h->e->sample;
    const uint32_t C = classes_of(h->p);
    const double scale = 1 / (double)s->rows.n;
    if (C > 1) {
        skald_curvature_softmax(C, s->rows.n, s->rows.s, scale, h->z, h->h);
    } else {
        skald_curvature_second(&h->p->objective, s->rows.n, h->z, s->rows.y, s->rows.s, scale, h->h);
        lift_flat(h, &s->rows, scale);
    }
}

static void measured(skald_hessian *h) {
    const double passes = h->e->passes;
    h->measured = h->e->sample->rows.n;
    h->due = cheap(h) ? passes + 1 : fmax(2 * passes, 1);
}

static const double *shares(const skald_hessian *h) {
    return classes_of(h->p) > 1 ? h->z : NULL;
}

static skald_status measure(skald_hessian *h) {
    const skald_sample *s = h->e->sample;
    curvatures(h);
    const skald_status st = skald_metric_measure(h->metric, &s->rows, h->h, shares(h), s->whole);
    /* no curvature that doubles can tell (every row far on its right side): plain gradient steps, as the metric has it
     * then */
    if (st != SKALD_OK && st != SKALD_ENUMERIC && st != SKALD_EINVAL) return st;
    measured(h);
    return SKALD_OK;
}

static skald_status measure_job(void *user, const atomic_bool *stop) {
    return measure(user);
}

/* Margins at the models that the rows' history is at; at w where there is none. */
static skald_status measure_history(skald_hessian *h, const double *w) {
    const skald_sample *s = h->e->sample;
    const uint32_t C = classes_of(h->p);
    TRY(fit(h, s->rows.n));
    for (size_t i = 0; i < s->rows.n; i++) {
        const double *at = skald_taken_at(h->e, s->shard[i], s->row[i]);
        skald_curvature_margins(&s->rows, i, i + 1, C, at ? at : w, h->z + i * C);
    }
    const bool short_work = cost(h, (double)s->rows.n) < BESIDE_FLOPS;
    if (!h->measured && !short_work) return skald_beside(h->e, measure_job, h);
    if (short_work) return measure(h);
    curvatures(h); /* steps go on by the old one meanwhile */
    skald_remeasure_start(&h->beside, h->spare, &s->rows, h->h, shares(h), s->whole);
    h->measuring = true;
    h->adopt = h->e->passes + BESIDE_PASSES;
    measured(h);
    return SKALD_OK;
}

/* What was measured beside the steps takes over. */
static skald_status adopt(skald_hessian *h) {
    if (!h->measuring) return SKALD_OK;
    h->measuring = false;
    TRY(skald_remeasure_finish(&h->beside));
    skald_metric *const old = h->metric;
    h->metric = h->spare;
    h->spare = old;
    skald_metric_drop_pairs(h->metric); /* those that it had are of long ago */
    return SKALD_OK;
}

static skald_status adopt_job(void *user, const atomic_bool *stop) {
    return adopt(user);
}

/* Between points both of whose gradients are of histories renewed as a whole, and not too old. */
static void learn(skald_hessian *h, const double *x, const double *a) {
    const double passes = h->e->passes;
    const size_t length = skald_problem_length(h->p);
    if (!h->options.pairs || !a || h->e->sample->whole) return;
    if (h->paired >= 0) {
        if (passes - h->paired < 0.5 || skald_oldest(h->e) < h->paired_at) return;
        if (passes - h->paired <= 2) {
            for (size_t j = 0; j < length; j++) {
                h->dx[j] = x[j] - h->x[j];
                h->da[j] = a[j] - h->a[j] + h->p->objective.l2 * h->dx[j];
            }
            for (uint32_t c = 1; h->p->objective.intercept && c <= classes_of(h->p); c++)
                h->da[(size_t)c * h->p->dim - 1] -= h->p->objective.l2 * h->dx[(size_t)c * h->p->dim - 1];
            skald_metric_pair(h->metric, h->dx, h->da);
        }
    }
    memcpy(h->x, x, length * sizeof *x);
    memcpy(h->a, a, length * sizeof *a);
    h->paired = passes;
    h->paired_at = h->e->commits;
}

skald_status skald_hessian_tend(skald_hessian *h, const double *w, const double *x, const double *a) {
    const skald_sample *s = h->e->sample;
    learn(h, x, a);
    if (h->measuring && h->e->passes >= h->adopt) TRY(skald_beside(h->e, adopt_job, h));
    if (h->measuring) return SKALD_OK;
    if (!s->complete || (h->measured == s->rows.n && h->e->passes < h->due)) return SKALD_OK;
    return measure_history(h, w);
}

static double dot(const double *x, const double *y, size_t n) {
    double sum = 0;
    for (size_t j = 0; j < n; j++) sum += x[j] * y[j];
    return sum;
}

skald_status skald_hessian_direction(skald_hessian *h, const double *x, const double *g, const double *w,
                                     double tolerance, double *direction, double *promise) {
    const size_t length = skald_problem_length(h->p);
    const skald_objective *o = &h->p->objective;
    if (!(o->l1 > 0)) {
        *promise = skald_metric_apply(h->metric, g, direction);
        return SKALD_OK;
    }
    memcpy(direction, w, length * sizeof *w);
    TRY(skald_metric_proximal(h->metric, x, g, o->l1, tolerance, direction, NULL));
    double shrunk = 0;
    for (uint32_t j = 0; j < h->p->features; j++) shrunk += fabs(x[j]) - fabs(direction[j]);
    for (size_t j = 0; j < length; j++) direction[j] = x[j] - direction[j];
    *promise = fmax(dot(g, direction, length) + o->l1 * shrunk, 0);
    return SKALD_OK;
}

void skald_hessian_gradient(const skald_problem *p, const double *a, const double *x, double *out) {
    const uint32_t classes = classes_of(p), length = skald_problem_length(p);
    for (uint32_t j = 0; j < length; j++) out[j] = a[j] + p->objective.l2 * x[j];
    for (uint32_t c = 1; p->objective.intercept && c <= classes; c++)
        out[(size_t)c * p->dim - 1] = a[(size_t)c * p->dim - 1]; /* not regularised */
}

/* u <- a step of the model's at u, where the data term's gradient is a. */
static skald_status model_step(skald_hessian *h, const double *a, double tolerance, bool anew, double *promise) {
    const skald_problem *p = h->p;
    const size_t length = skald_problem_length(p);
    const uint32_t C = classes_of(p);
    TRY(fit(h, h->e->sample->rows.n));
    memcpy(h->z, h->model->z, h->e->sample->rows.n * C * sizeof *h->z);
    if (h->measured != h->e->sample->rows.n || anew) TRY(measure(h));
    skald_hessian_gradient(p, a, h->u, h->g);
    TRY(skald_hessian_direction(h, h->u, h->g, h->u, tolerance, h->step, promise));
    const double t = skald_sample_model_line(h->model, h->u, h->g, h->step);
    *promise *= fmax(1, t);
    for (size_t j = 0; j < length; j++) h->u[j] -= t * h->step[j];
    return SKALD_OK;
}

/* What skald_hessian_minimise is asked. */
typedef struct task {
    skald_hessian *h;
    double F;
    const double *x, *a;
    double *promise, *left;
} task;

/* h->u <- the model's minimum. */
static skald_status minimise(void *user, const atomic_bool *stop) {
    const task *t = user;
    skald_hessian *h = t->h;
    const bool whole = h->e->sample->whole;
    const uint32_t most = whole ? MOST_STEPS : cheap(h) ? SOME_STEPS : 1;
    const double enough = whole ? ALL_THE_WAY : PART_OF_THE_WAY;
    const bool often = whole || cheap(h);
    double before = INFINITY, last = INFINITY, tolerance = ROUGH; /* before, last: what the last steps promised */
    TRY(adopt(h));
    TRY(skald_sample_model_about(h->model, t->x, t->a));
    memcpy(h->u, t->x, skald_problem_length(h->p) * sizeof *h->u);
    for (uint32_t k = 0; k < most && !(k && atomic_load(stop)); k++) {
        skald_sample_model_at(h->model, h->u, h->at);
        if (k) tolerance = fmax(fmin(ROUGH * *t->left / *t->promise, FINER * tolerance), FINE);
        /* of all rows, the last curvature shows whether there is anything left to do */
        const bool anew = k ? often && !(before <= WELL_DONE * last) : whole ? false : often || h->e->passes >= h->due;
        TRY(model_step(h, h->at, tolerance, anew, t->left));
        if (k == 0) *t->promise = *t->left;
        const bool fine = !(h->p->objective.l1 > 0) || tolerance <= FINE || !whole;
        const bool stands = k > 2 && *t->left >= before / 2 && *t->left <= STANDS * *t->promise;
        if (fine && (*t->left <= enough * *t->promise || *t->left <= ROUNDING * fabs(t->F) || stands)) break;
        last = before;
        before = *t->left;
    }
    return SKALD_OK;
}

skald_status skald_hessian_minimise(skald_hessian *h, double F, const double *x, const double *a, double *direction,
                                    double *promise, double *left) {
    task t = {.h = h, .F = F, .x = x, .a = a, .promise = promise, .left = left};
    TRY(skald_beside(h->e, minimise, &t));
    for (size_t j = 0; j < skald_problem_length(h->p); j++) direction[j] = x[j] - h->u[j];
    return SKALD_OK;
}

skald_status skald_hessian_line(skald_hessian *h, const double *x, const double *a, const double *g,
                                const double *direction, double *t) {
    *t = 1;
    if (!h->e->sample->complete) return SKALD_OK;
    TRY(skald_sample_model_about(h->model, x, a));
    *t = skald_sample_model_line(h->model, x, g, direction);
    return SKALD_OK;
}
