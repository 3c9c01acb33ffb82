#include "curvature/metric.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "curvature/lanczos.h"
#include "curvature/room.h"
#include "curvature/state.h"
#include "curvature/vector.h"

#define INTERCEPT_FLOOR(whole) ((whole) ? 1e-12 : 1e-8) /* of its own curvature: positive, and nothing beside it */
enum { WIDE_DIM = 256, EXACT_DIM = 4096, EXACT_COUPLED = 160, PROXIMAL_COUPLED = 1536 };

/* Are columns so much larger than l2 that those beside them get lost in the rows' matrix? (Not in H, which is
 * factorised with a unit diagonal.) Steps are corrected for it where the sample is all rows; those with l1 are not. */
static bool uneven(const skald_metric_options *o) {
    double largest = 0;
    for (uint32_t j = 0; o->columns && j < o->dim; j++) largest = fmax(largest, o->columns[j]);
    return !o->columns || largest > (o->proximal ? 1e10 : 1e14) * o->l2;
}

/* Of a sample of m rows. */
static skald_metric_kind kind_of(const skald_metric_options *o, size_t m) {
    const uint64_t entries = (uint64_t)o->dim * o->classes;
    if (o->classes > 1)
        return entries <= (o->proximal ? PROXIMAL_COUPLED : EXACT_COUPLED) ? SKALD_METRIC_CHOLESKY : SKALD_METRIC_CG;
    const bool wide = o->dim > WIDE_DIM && m <= o->dim / 2 && o->l2 > 0; /* m x m is the smaller matrix */
    return o->dim <= EXACT_DIM && !(wide && !uneven(o)) ? SKALD_METRIC_CHOLESKY : SKALD_METRIC_WOODBURY;
}

const char *skald_metric_kind_name(skald_metric_kind kind) {
    static const char *const names[] = {"pairs", "cholesky", "woodbury", "cg"};
    return names[kind];
}

static void start(skald_metric *m) {
    m->facts =
        (skald_metric_facts){.kind = SKALD_METRIC_PAIRS, .effective = NAN, .damping = 1, .pairs = m->facts.pairs};
}

static skald_status check(const skald_metric_options *o) {
    const uint64_t entries = (uint64_t)o->dim * o->classes;
    if (entries == 0) return skald_fail(SKALD_EINVAL, "a metric needs columns and classes");
    if (o->length != 0 && o->length < entries)
        return skald_fail(SKALD_EINVAL, "length %llu is less than classes x dim", (unsigned long long)o->length);
    if (!(o->l2 >= 0) || !isfinite(o->l2)) return skald_fail(SKALD_EINVAL, "l2 must be 0 or more");
    if (!(o->smoothness > 0) || !isfinite(o->smoothness)) return skald_fail(SKALD_EINVAL, "smoothness must be > 0");
    return SKALD_OK;
}

static skald_status reserve(skald_metric *m, const skald_metric_options *o) {
    TRY(skald_room((void **)&m->scratch, &m->scratch_room, 4 * m->entries, sizeof *m->scratch));
    m->ridge = skald_zalloc(o->dim, sizeof *m->ridge);
    if (!m->ridge) return SKALD_ENOMEM;
    if (o->columns) {
        m->columns = skald_alloc(o->dim, sizeof *m->columns);
        if (!m->columns) return SKALD_ENOMEM;
        memcpy(m->columns, o->columns, o->dim * sizeof *m->columns);
    }
    if (o->pairs == 0) return SKALD_OK;
    m->s = skald_alloc(2 * m->entries * o->pairs, sizeof *m->s);
    m->rho = skald_alloc(2 * (size_t)o->pairs, sizeof *m->rho);
    if (!m->s || !m->rho) return SKALD_ENOMEM;
    m->y = m->s + m->entries * o->pairs;
    m->alpha = m->rho + o->pairs;
    return SKALD_OK;
}

skald_status skald_metric_create(const skald_metric_options *options, skald_metric **out) {
    TRY(check(options));
    skald_metric *m = skald_zalloc(1, sizeof *m);
    if (!m) return SKALD_ENOMEM;
    m->options = *options;
    m->entries = (size_t)options->dim * options->classes;
    m->length = options->length ? options->length : m->entries;
    start(m);
    const skald_status st = reserve(m, options);
    m->options.columns = m->columns;
    if (st == SKALD_OK)
        *out = m;
    else
        skald_metric_destroy(m);
    return st;
}

void skald_metric_destroy(skald_metric *m) {
    if (!m) return;
    skald_factor_free(&m->factor);
    skald_gram_free(&m->gram);
    skald_woodbury_free(m);
    skald_coupled_free(m);
    skald_active_free(&m->active);
    free(m->scratch);
    free(m->weight);
    free(m->ridge);
    free(m->columns);
    free(m->s);
    free(m->rho);
    free(m);
}

/* ---- rules ------------------------------------------------------------------------------------------- */

double skald_metric_evidence(const skald_metric *m) {
    return (double)m->facts.rows * (m->options.classes > 1 ? m->options.classes - 1 : 1);
}

bool skald_metric_wants_ridge(const skald_metric *m, bool whole) {
    return !whole && m->options.ridge < 0 && m->facts.rows < 3 * (size_t)m->options.dim;
}

skald_status skald_metric_explore(skald_metric *m, bool whole, size_t n,
                                  void (*product)(void *, const double *, double *)) {
    skald_spectrum spectrum;
    skald_lanczos(n, product, m, m->scratch, &spectrum);
    if (!isfinite(spectrum.diagonal[0][0])) return skald_fail(SKALD_ENUMERIC, "the sample's curvature is not finite");
    if (skald_metric_wants_ridge(m, whole))
        m->facts.ridge = skald_spectrum_ridge(&spectrum, m->options.l2, skald_metric_evidence(m) / 3);
    const double c = m->options.l2 + m->facts.ridge;
    m->facts.effective = c > 0 ? skald_spectrum_effective(&spectrum, c) : NAN;
    return SKALD_OK;
}

/* A column that the sample has too little of counts as in all rows. */
static void add_missing(skald_metric *m, const skald_measure *measure) {
    const skald_rows *rows = measure->rows;
    const uint32_t dim = m->options.dim;
    double total = 0;
    for (size_t i = 0; i < rows->n; i++) total += m->weight[i] = (double)rows->s[i];
    if (!(total > 0)) return;
    skald_metric_squares(rows, m->weight, m->scratch);
    for (uint32_t j = 0; j < dim; j++) {
        const double here = m->scratch[j] / total;
        if (here < 0.5 * m->columns[j]) m->ridge[j] += m->curvature * (m->columns[j] - here);
    }
}

void skald_metric_set_ridge(skald_metric *m, const skald_measure *measure, const double *diagonal) {
    const uint32_t dim = m->options.dim;
    for (uint32_t j = 0; j < dim; j++) m->ridge[j] = m->options.l2 + m->facts.ridge;
    if (m->options.intercept)
        m->ridge[dim - 1] = fmax(m->facts.ridge, INTERCEPT_FLOOR(measure->whole) * diagonal[dim - 1]);
    if (m->columns && !measure->whole) add_missing(m, measure);
}

bool skald_metric_damps(const skald_metric *m, bool whole) {
    return m->options.damp && !whole && m->facts.ridge == 0;
}

void skald_metric_damp(skald_metric *m, double effective) {
    m->facts.effective = effective;
    const double r = fmin(effective / skald_metric_evidence(m), 0.9); /* the formula knows r < 1 alone */
    m->facts.damping = (1 - r) * (1 - r) / (1 + r);
}

void skald_metric_squares(const skald_rows *rows, const double *weight, double *out) {
    for (uint32_t j = 0; j < rows->dim; j++) out[j] = 0;
    for (size_t i = 0; i < rows->n; i++) {
        if (!(weight[i] > 0)) continue;
        if (rows->layout == SKALD_DENSE) {
            const float *x = rows->x + i * rows->stride;
            for (uint32_t j = 0; j < rows->dim; j++) out[j] += weight[i] * (double)x[j] * (double)x[j];
        } else
            for (uint64_t e = rows->ptr[i]; e < rows->ptr[i + 1]; e++)
                out[rows->idx[e]] += weight[i] * (double)rows->val[e] * (double)rows->val[e];
    }
}

/* ---- measuring --------------------------------------------------------------------------------------- */

static skald_status look(skald_metric *m, const skald_measure *measure) {
    const size_t n = measure->rows->n, classes = m->options.classes;
    m->curvature = 0;
    for (size_t i = 0; i < n; i++) {
        const double h = measure->h[i];
        if (!isfinite(h) || h < 0) return skald_fail(SKALD_ENUMERIC, "the curvature of a sampled row is %g", h);
        if (!(h > 0)) continue;
        m->facts.rows++;
        double spread = 1;
        for (size_t c = 0; classes > 1 && c < classes; c++)
            spread -= measure->p[i * classes + c] * measure->p[i * classes + c];
        if (!isfinite(spread)) return skald_fail(SKALD_ENUMERIC, "the probabilities of a sampled row are not finite");
        m->curvature += classes > 1 ? h * spread / (double)classes : h;
    }
    if (m->facts.rows == 0) return skald_fail(SKALD_EINVAL, "no row of the sample has any curvature");
    return SKALD_OK;
}

static skald_status measure_kind(skald_metric *m, const skald_measure *measure) {
    const skald_rows *rows = measure->rows;
    const skald_metric_kind kind = kind_of(&m->options, rows->n);
    if (rows->dim != m->options.dim) return skald_fail(SKALD_EINVAL, "the sample has %u columns", rows->dim);
    TRY(look(m, measure));
    TRY(skald_blas_open(&m->blas));
    TRY(skald_room((void **)&m->weight, &m->weight_room, rows->n, sizeof *m->weight));
    TRY(skald_room((void **)&m->scratch, &m->scratch_room, 4 * skald_max_size(m->entries, rows->n),
                   sizeof *m->scratch));
    m->facts.ridge = fmax(m->options.ridge, 0);
    if (kind == SKALD_METRIC_CHOLESKY)
        TRY(skald_exact_measure(m, measure));
    else if (kind == SKALD_METRIC_WOODBURY)
        TRY(skald_woodbury_measure(m, measure));
    else
        TRY(skald_coupled_measure(m, measure));
    const double entries = rows->layout == SKALD_CSR ? (double)rows->ptr[rows->n] : (double)rows->n * rows->dim;
    m->facts.flops = skald_metric_cost(&m->options, m->facts.rows, entries);
    m->facts.kind = kind;
    return SKALD_OK;
}

skald_status skald_metric_measure(skald_metric *m, const skald_rows *rows, const double *h, const double *p,
                                  bool whole) {
    const skald_measure measure = {rows, h, p, whole};
    start(m);
    const skald_status st = measure_kind(m, &measure);
    if (st != SKALD_OK) start(m);
    return st;
}

double skald_metric_cost(const skald_metric_options *o, size_t m, double nonzeros) {
    const double rows = (double)m, d = o->dim, classes = o->classes, n = d * classes;
    const skald_metric_kind kind = kind_of(o, m);
    const bool sparse = nonzeros < rows * d, search = o->ridge < 0 && rows < 3 * d;
    const double gram = skald_gram_cost(sparse ? SKALD_CSR : SKALD_DENSE, rows, d, nonzeros);
    const double entry = sparse ? SKALD_GRAM_SCATTER : 1;
    const double products = SKALD_LANCZOS_STEPS * skald_lanczos_probes(kind == SKALD_METRIC_WOODBURY ? m : (size_t)n);
    switch (kind) {
    case SKALD_METRIC_CHOLESKY: /* a product takes as long as it takes to read the Gram */
        return (classes > 1 ? 0.5 * classes * (classes + 1) : 1) * gram + n * n * n / 3 +
               (search ? 8 * products * n * n : n * n * n / 3);
    case SKALD_METRIC_WOODBURY: /* sparse: measured on columns whose frequencies fall as 1/rank */
        return fmin(rows * rows * d, 0.2 * entry * nonzeros * rows) + rows * rows * rows / 3 +
               (search ? 12 * entry * products * nonzeros : rows * rows * rows / 3);
    default: /* its products are unlike a Gram's: few classes, memory */
        return skald_coupled_blocks(o->dim, o->classes) * (gram + d * d * d / 3) +
               (search || o->damp ? products * 8 * nonzeros * classes : 0);
    }
}

/* ---- B ----------------------------------------------------------------------------------------------- */

void skald_metric_base(skald_metric *m, const double *g, double *out) {
    switch (m->facts.kind) {
    case SKALD_METRIC_CHOLESKY:
        memcpy(out, g, m->entries * sizeof *out);
        skald_factor_solve(&m->factor, m->blas, out);
        break;
    case SKALD_METRIC_WOODBURY:
        skald_woodbury_solve(m, g, out);
        break;
    case SKALD_METRIC_CG:
        skald_coupled_solve(m, g, out);
        break;
    case SKALD_METRIC_PAIRS:
        memcpy(out, g, m->entries * sizeof *out);
        break;
    }
}

/* Of what the kind makes: sigma; or the size of B, if only pairs tell. */
static double base_scale(const skald_metric *m) {
    if (m->facts.kind != SKALD_METRIC_PAIRS) return m->facts.damping;
    if (m->facts.pairs == 0) return 1 / m->options.smoothness;
    const size_t newest = (m->head + m->options.pairs - 1) % m->options.pairs;
    const double *y = m->y + newest * m->entries;
    return 1 / (m->rho[newest] * skald_vector_dot(m->entries, y, y));
}

double skald_metric_apply(skald_metric *m, const double *g, double *out) {
    const size_t n = m->entries, ring = m->options.pairs;
    double *const q = m->scratch;
    memcpy(q, g, n * sizeof *q);
    for (uint32_t k = 1; k <= m->facts.pairs; k++) { /* the newest first */
        const size_t at = (m->head + ring - k) % ring;
        m->alpha[at] = m->rho[at] * skald_vector_dot(n, m->s + at * n, q);
        skald_vector_add(n, -m->alpha[at], m->y + at * n, q);
    }
    skald_metric_base(m, q, out);
    const double scale = base_scale(m);
    for (size_t j = 0; j < n; j++) out[j] *= scale;
    for (uint32_t k = m->facts.pairs; k >= 1; k--) {
        const size_t at = (m->head + ring - k) % ring;
        const double beta = m->rho[at] * skald_vector_dot(n, m->y + at * n, out);
        skald_vector_add(n, m->alpha[at] - beta, m->s + at * n, out);
    }
    memset(out + n, 0, (m->length - n) * sizeof *out);
    return fmax(skald_vector_dot(n, g, out), 0);
}

bool skald_metric_pair(skald_metric *m, const double *s, const double *y) {
    const size_t n = m->entries, ring = m->options.pairs;
    const double sy = skald_vector_dot(n, s, y), ss = skald_vector_dot(n, s, s), yy = skald_vector_dot(n, y, y);
    if (ring == 0 || !isfinite(ss) || !isfinite(yy) || !(sy > 0.5 * m->options.l2 * ss) || !isnormal(1 / sy))
        return false;
    const size_t at = m->head;
    memcpy(m->s + at * n, s, n * sizeof *s);
    memcpy(m->y + at * n, y, n * sizeof *y);
    m->rho[at] = 1 / sy;
    m->head = (uint32_t)((at + 1) % ring);
    if (m->facts.pairs < ring) m->facts.pairs++;
    return true;
}

void skald_metric_drop_pairs(skald_metric *m) {
    m->facts.pairs = 0;
}

skald_metric_facts skald_metric_state(const skald_metric *m) {
    return m->facts;
}
