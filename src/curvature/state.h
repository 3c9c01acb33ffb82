/* What a metric holds; the parts of it that each kind needs. */
#ifndef SKALD_CURVATURE_STATE_H
#define SKALD_CURVATURE_STATE_H

#include "curvature/blas.h"
#include "curvature/factor.h"
#include "curvature/gram.h"
#include "curvature/metric.h"

/* The rows with h > 0 by columns (Woodbury). Sparse: entries start[j] .. start[j+1] of (row, value). Dense: value[j m
 * .. (j+1) m). */
typedef struct skald_columns {
    size_t m, dim;
    bool dense;
    uint64_t *start;
    uint32_t *row;
    float *value;
    double *root;   /* m: sqrt(h) */
    double *change; /* dim: of a step that is corrected */
    size_t start_room, row_room, value_room, root_room, change_room;
} skald_columns;

/* The rows with h > 0 as they are (softmax, CG), and what their curvature is. */
typedef struct skald_coupled {
    skald_rows rows; /* x (stride: dim) or ptr, idx, val; n */
    double *h, *p;
    size_t x_room, ptr_room, idx_room, val_room, h_room, p_room;
    skald_factor *block; /* `blocks` of them: one a class, one for all, or none (then `inverse`) */
    uint32_t blocks;
    double *inverse; /* of the diagonal, entries */
    double *wide, *z;
    size_t inverse_room, wide_room, z_room;
    double *x, *r, *q, *d; /* conjugate gradients, in one piece */
    size_t vectors_room;
} skald_coupled;

/* The columns that matter to a proximal step, in one piece (proximal.c). */
typedef struct skald_active {
    uint32_t *index, *support;
    double *vectors;
    double *square; /* their part of H */
    size_t index_room, support_room, vectors_room, square_room;
    skald_factor newton;
} skald_active;

struct skald_metric {
    skald_metric_options options;
    skald_metric_facts facts;
    const skald_blas *blas;
    size_t entries; /* dim x classes */
    size_t length;
    double *columns;  /* dim, or NULL */
    double *ridge;    /* dim: the diagonal of R, the same for all classes */
    double shift;     /* softmax: what the intercepts' common direction gets for a curvature */
    double curvature; /* sum of h, softmax: of h (1 - |p|^2) / C */
    skald_factor factor;
    skald_gram gram;
    skald_columns sample;
    bool refine; /* Woodbury: steps are corrected until they are exact */
    skald_coupled coupled;
    skald_active active;
    double *weight; /* of rows, while measuring */
    size_t weight_room;
    double *scratch; /* 4 vectors of `entries`, or of m where that is more */
    size_t scratch_room;
    double *s, *y; /* pairs x entries, a ring: the newest is (head - 1) mod pairs */
    double *rho, *alpha;
    uint32_t head;
};

/* One measure: the sample and what is said about it. */
typedef struct skald_measure {
    const skald_rows *rows;
    const double *h, *p;
    bool whole;
} skald_measure;

/* Is nu to be found by the rule? */
bool skald_metric_wants_ridge(const skald_metric *metric, bool whole);
/* facts.effective, and nu if it is wanted, from products with the data's part of H (n x n); user: the metric. */
skald_status skald_metric_explore(skald_metric *metric, bool whole, size_t n,
                                  void (*product)(void *user, const double *v, double *out));
/* m, times C - 1 for softmax: what d_eff is compared with. */
double skald_metric_evidence(const skald_metric *metric);
/* R from facts.ridge and from the diagonal of the data's part (dim entries; softmax: mean over classes). */
void skald_metric_set_ridge(skald_metric *metric, const skald_measure *measure, const double *diagonal);
/* sigma, if it is to be damped, from d_eff. */
void skald_metric_damp(skald_metric *metric, double effective);
bool skald_metric_damps(const skald_metric *metric, bool whole);
/* sum_i weight_i x_ij^2, dim entries. */
void skald_metric_squares(const skald_rows *rows, const double *weight, double *out);

skald_status skald_exact_measure(skald_metric *metric, const skald_measure *measure);

skald_status skald_woodbury_measure(skald_metric *metric, const skald_measure *measure);
void skald_woodbury_solve(skald_metric *metric, const double *g, double *out); /* H^-1 g */
void skald_woodbury_free(skald_metric *metric);
/* out (m) = sqrt(h) o X v; out (dim) = X' (sqrt(h) o t), t becomes that product; X' t of one column, sqrt(h) in t. */
void skald_columns_times(const skald_columns *s, const double *v, double *out);
void skald_columns_transposed(const skald_columns *s, double *t, double *out);
double skald_columns_dot(const skald_columns *s, size_t j, const double *t);

skald_status skald_coupled_measure(skald_metric *metric, const skald_measure *measure);
void skald_coupled_solve(skald_metric *metric, const double *g, double *out); /* H^-1 g */
void skald_coupled_free(skald_metric *metric);
/* Grams that the preconditioner takes: one a class, one, or none. */
uint32_t skald_coupled_blocks(uint32_t dim, uint32_t classes);

/* H^-1 g by whatever kind, without pairs and sigma; entries. */
void skald_metric_base(skald_metric *metric, const double *g, double *out);
void skald_active_free(skald_active *active);

#endif
