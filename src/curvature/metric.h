/* A metric: an approximation B of the inverse Hessian of the smooth part of F (include/skald/objective.h), measured on
 * a sample of the rows. For history Newton: w = wbar - B g.
 *
 *   H = sum_i h_i x_i x_i' + R            binary and real losses; h_i = s_i phi''(z_i) / m, say: weight and mean are in
 * it H = sum_i h_i (diag(p_i) - p_i p_i') (x) x_i x_i' + R       softmax; h_i = s_i / m, p_i the row's probabilities B
 * = sigma H^-1, then updated by the L-BFGS pairs (Liu, Nocedal 1989)
 *
 * R is diagonal: l2 + nu, and what `columns` adds; an intercept's entries have nu alone, but at least 1e-8 of their
 * own curvature (1e-12 where the sample is all rows). (Softmax: all intercepts moved by the same amount is a direction
 * without curvature. B is as if it had the mean of theirs: it leaves gradients, which have no part in it, as they are.)
 *
 * nu: the least with d_eff(nu) = tr((H - R) H^-1) <= m/3, where the sample is not all rows and has less than 3 rows a
 * column; m: rows with h > 0, times C - 1 for softmax. 0 elsewhere. sigma = (1 - r)^2 / (1 + r), r = d_eff/m, if
 * `damp`, where the sample is not all rows and nu is 0: it centres the spectrum of H_sample^-1 H_all (Marchenko,
 * Pastur). 1 elsewhere.
 *
 * Vectors have options.length doubles, [class][column], as the solver's; entries behind classes x dim are written as 0.
 *
 * One thread at a time may use a metric (apply too: it has one set of temporaries); different metrics are independent.
 * Measuring is all arithmetic: it blocks for as long as skald_metric_cost says, in the calling thread alone. The same
 * calls give the same bits on one machine. Nothing is allocated once a sample of the same size was measured before.
 *
 * Memory: 8 dim^2 bytes (Cholesky), 8 m^2 and 8 bytes an entry (Woodbury; 4 dense), the rows and 8 C dim^2 up to 256
 * MiB (CG); a first proximal step: up to twice 8 bytes times the square of the columns that matter, at most 4096. */
#ifndef SKALD_CURVATURE_METRIC_H
#define SKALD_CURVATURE_METRIC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "skald/data.h"
#include "skald/status.h"

typedef struct skald_metric skald_metric;

typedef enum skald_metric_kind {
    SKALD_METRIC_PAIRS = 0, /* nothing measured: I / smoothness, or by the newest pair, and the pairs */
    SKALD_METRIC_CHOLESKY,  /* H itself, factorised: dim <= 4096, if rows are more than half of that; softmax:
                              classes x dim <= 160, where steps are proximal 1536 */
    SKALD_METRIC_WOODBURY,  /* more columns, or l2 > 0 and few rows: through the m x m matrix of the rows; m <=
                              8192 */
    SKALD_METRIC_CG         /* softmax: products with H, conjugate gradients */
} skald_metric_kind;

typedef struct skald_metric_options {
    uint32_t dim;          /* columns of the rows, intercept included */
    uint32_t classes;      /* C; 1 for all but softmax */
    uint64_t length;       /* entries of a vector, skald_objective_length; 0: dim x classes */
    bool intercept;        /* the last column is the constant 1 */
    bool proximal;         /* skald_metric_proximal will be called: the metric is made to suit it */
    double l2;             /* >= 0 */
    double smoothness;     /* > 0: B = I / smoothness before anything is known */
    double ridge;          /* nu; < 0: by the rule above */
    bool damp;             /* sigma by the rule above; else 1 */
    uint32_t pairs;        /* how many are kept; 0: none are taken */
    const double *columns; /* NULL, or per column the mean of s x^2 over all rows (copied). Where the sample has less
                              than half of that (a rare column, perhaps in none of its rows), R gets what is missing,
                              times the mean curvature of the sample: without it such a column's B is 1/l2 */
} skald_metric_options;

typedef struct skald_metric_facts {
    skald_metric_kind kind;
    size_t rows;       /* m: of the sample, with h > 0 */
    double effective;  /* d_eff; NaN where nobody needed it (the sample is all rows) */
    double ridge;      /* nu */
    double damping;    /* sigma */
    double lift;       /* relative to the diagonal, added so that H could be factorised; 0: nothing had to be */
    double flops;      /* of the last measure, about */
    uint32_t pairs;    /* held */
    uint64_t products; /* CG: products with H since the last measure */
} skald_metric_facts;

/* Takes no BLAS. Errors: SKALD_EINVAL, SKALD_ENOMEM. */
skald_status skald_metric_create(const skald_metric_options *options, skald_metric **out);
void skald_metric_destroy(skald_metric *metric); /* NULL: nothing */

/* Measures and factorises; the pairs stay (skald_metric_drop_pairs). Reads rows' x (dense or CSR), and s if there are
 * `columns`; nothing of the arguments after it returned. h: rows->n, >= 0. p: softmax: rows->n x classes; NULL
 * elsewhere. whole: the sample is all rows: no nu, no damping, `columns` unread. Errors: SKALD_EUNSUPPORTED (OpenBLAS
 * is missing; or more than 8192 rows where dim > 4096), SKALD_ENUMERIC (x, h or p not finite, h < 0), SKALD_EINVAL
 * (rows of another dim, no rows with h > 0), SKALD_ENOMEM; the metric is then as if nothing had been measured, with its
 * pairs. */
skald_status skald_metric_measure(skald_metric *metric, const skald_rows *rows, const double *h, const double *p,
                                  bool whole);

/* About how many flops a measure of m rows with so many stored entries takes (dense: m x dim), not whole; those of
 * sparse rows counted by their time. For choosing how many and when: 40-60 GFLOP/s a core with AVX-512. */
double skald_metric_cost(const skald_metric_options *options, size_t m, double nonzeros);

/* out = B g; returns g'Bg (the Newton decrement, squared), >= 0. out must not be g. */
double skald_metric_apply(skald_metric *metric, const double *g, double *out);

/* A pair: s, a change of the point; y, of the smooth part's gradient. Refused (false) unless s'y > l2/2 |s|^2 (> 0) and
 * finite, or if options.pairs is 0. After it B y = s holds. */
bool skald_metric_pair(skald_metric *metric, const double *s, const double *y);
void skald_metric_drop_pairs(skald_metric *metric);

/* w = argmin_u g'(u - c) + (u - c)' H (u - c) / (2 sigma) + l1 |u'|_1, u' being u without intercepts; H without pairs.
 * w comes in as where to begin. Zeros are exact. Ends when no entry violates the conditions of a minimum by more than
 * tolerance x l1 (1e-3 is good for a step), or after 200 sweeps; *sweeps (may be NULL): over the columns that matter at
 * the time. With l1 = 0: c - sigma H^-1 g.
 * Errors: SKALD_EUNSUPPORTED (softmax measured as SKALD_METRIC_CG), SKALD_EINVAL (nothing measured). */
skald_status skald_metric_proximal(skald_metric *metric, const double *c, const double *g, double l1, double tolerance,
                                   double *w, uint32_t *sweeps);

skald_metric_facts skald_metric_state(const skald_metric *metric);
const char *skald_metric_kind_name(skald_metric_kind kind); /* "pairs", "cholesky", "woodbury", "cg" */

#endif
