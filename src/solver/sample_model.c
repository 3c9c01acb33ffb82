#include "solver/sample_model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "curvature/rows.h"

static const double FLAT_ENOUGH = 0.1;            /* of the slope at the beginning */
static const double STEEP = 0.5, FARTHEST = 1024; /* of a step made with too much curvature (flat losses) */
static const int TRIALS = 40;

static uint32_t classes_of(const skald_problem *p) {
    return skald_objective_classes(&p->objective);
}

skald_status skald_sample_model_create(const skald_problem *p, const skald_sample *sample, skald_sample_model **out) {
    skald_sample_model *m = *out = skald_zalloc(1, sizeof *m);
    if (!m) return SKALD_ENOMEM;
    m->problem = p;
    m->sample = sample;
    m->correction = skald_zalloc(skald_problem_length(p), sizeof(double));
    return m->correction ? SKALD_OK : SKALD_ENOMEM;
}

void skald_sample_model_destroy(skald_sample_model *m) {
    if (!m) return;
    free(m->z);
    free(m->along);
    free(m->slope);
    free(m->correction);
    free(m);
}

static skald_status fit(skald_sample_model *m) {
    const size_t rows = m->sample->rows.n, entries = rows * classes_of(m->problem);
    double **const arrays[] = {&m->z, &m->along, &m->slope};
    if (rows <= m->room) return SKALD_OK;
    m->room = 0;
    for (size_t k = 0; k < SKALD_ARRAY_LENGTH(arrays); k++) {
        free(*arrays[k]);
        if (!(*arrays[k] = skald_alloc(entries, sizeof(double)))) return SKALD_ENOMEM;
    }
    m->room = rows;
    return SKALD_OK;
}

/* phi'(z) of row i, C numbers. */
static void derivative(const skald_sample_model *m, size_t i, const double *z, double *out) {
    const skald_objective *o = &m->problem->objective;
    const uint32_t C = classes_of(m->problem);
    const double y = m->sample->rows.y[i];
    if (C == 1) {
        out[0] = skald_loss_derivative(o->loss, o->huber_delta, z[0], y);
        return;
    }
    skald_softmax(C, z, out);
    out[(uint32_t)y] -= 1;
}

static void sample_gradient(skald_sample_model *m, double *a) {
    const skald_rows *rows = &m->sample->rows;
    const uint32_t C = classes_of(m->problem);
    for (size_t i = 0; i < rows->n; i++) {
        derivative(m, i, m->z + i * C, m->slope + i * C);
        for (uint32_t c = 0; c < C; c++) m->slope[i * C + c] *= rows->s[i] / (double)rows->n;
    }
    memset(a, 0, skald_problem_length(m->problem) * sizeof *a);
    skald_curvature_gradient(rows, C, m->slope, a);
}

skald_status skald_sample_model_about(skald_sample_model *m, const double *x, const double *a) {
    TRY(fit(m));
    skald_curvature_margins(&m->sample->rows, 0, m->sample->rows.n, classes_of(m->problem), x, m->z);
    sample_gradient(m, m->correction);
    for (size_t j = 0; j < skald_problem_length(m->problem); j++) /* of all rows there is none: histories are floats */
        m->correction[j] = m->sample->whole ? 0 : a[j] - m->correction[j];
    return SKALD_OK;
}

void skald_sample_model_at(skald_sample_model *m, const double *u, double *a) {
    skald_curvature_margins(&m->sample->rows, 0, m->sample->rows.n, classes_of(m->problem), u, m->z);
    sample_gradient(m, a);
    for (size_t j = 0; j < skald_problem_length(m->problem); j++) a[j] += m->correction[j];
}

/* dM/dt at x - t direction, less what the smooth part has at t = 0. (The slopes there are those of the last gradient.)
 */
static double bend(const skald_sample_model *m, const double *x, const double *direction, double t) {
    const skald_problem *p = m->problem;
    const skald_rows *rows = &m->sample->rows;
    const uint32_t C = classes_of(p);
    double z[SKALD_MAX_LABELS], now[SKALD_MAX_LABELS];
    double sum = 0, ridge = 0, shrink = 0;
    for (size_t i = 0; i < rows->n && t > 0; i++) {
        const double *from = m->z + i * C, *way = m->along + i * C, *then = m->slope + i * C;
        const double weight = rows->s[i] / (double)rows->n;
        for (uint32_t c = 0; c < C; c++) z[c] = from[c] - t * way[c];
        derivative(m, i, z, now);
        for (uint32_t c = 0; c < C; c++) sum -= (weight * now[c] - then[c]) * way[c];
    }
    for (uint32_t c = 0; c < C; c++)
        for (uint32_t j = 0; j < p->features; j++) {
            const double d = direction[(size_t)c * p->dim + j], u = x[(size_t)c * p->dim + j] - t * d;
            ridge += d * d;
            shrink -= u > 0 ? d : u < 0 ? -d : 0;
        }
    return sum + p->objective.l2 * t * ridge + p->objective.l1 * shrink;
}

double skald_sample_model_line(skald_sample_model *m, const double *x, const double *g, const double *direction) {
    const skald_rows *rows = &m->sample->rows;
    double start = 0, low = 0, high = 1;
    skald_curvature_margins(rows, 0, rows->n, classes_of(m->problem), direction, m->along);
    for (size_t j = 0; j < skald_problem_length(m->problem); j++) start -= g[j] * direction[j];
    const double first = start + bend(m, x, direction, 0); /* with l1's part */
    double at_low = first, at_high = start + bend(m, x, direction, 1);
    if (!(first < 0)) return 1;
    while (m->problem->objective.l1 <= 0 && at_high < STEEP * first && high < FARTHEST) {
        low = high, at_low = at_high;
        high *= 2;
        at_high = start + bend(m, x, direction, high);
    }
    if (at_high <= FLAT_ENOUGH * -first) return high;
    double t = 1;
    for (int k = 0; k < TRIALS; k++) { /* regula falsi, and every third time the middle */
        t = k % 3 == 2 ? 0.5 * (low + high) : low + (high - low) * at_low / (at_low - at_high);
        const double at = start + bend(m, x, direction, t);
        if (fabs(at) <= FLAT_ENOUGH * -first) return t;
        if (at < 0)
            low = t, at_low = at;
        else
            high = t, at_high = at;
    }
    return low > 0 ? low : t;
}
