/* Vector verbs: the solver's own arithmetic, on whatever memory the engine keeps its vectors in.
 *
 * `dim` doubles a vector: `classes` blocks of `columns`, the intercept last in each when there is one (see
 * objective.h; what is behind them stays as it is). Each update is one fused pass. Host and device
 * implement the same table; a solver holds handles and never dereferences them. Single-threaded, do not
 * block, cannot fail on the host; a device error surfaces at the engine's next call. */
#ifndef SKALD_VECTORS_H
#define SKALD_VECTORS_H

#include <stdbool.h>
#include <stdint.h>

#include "skald/status.h"

typedef struct skald_vectors skald_vectors;

typedef struct skald_regulariser {
    double l2, l1;
    bool intercept;   /* leave the last entry of each block alone */
    double nonconvex; /* of sgd_update and proximal_step, which add nonconvex 2 w / (1 + w^2)^2 to l2 w */
} skald_regulariser;

typedef struct skald_vectors_ops {
    skald_status (*create)(skald_vectors *v, double **out); /* zeroed */
    void (*destroy)(skald_vectors *v, double *x);
    void (*copy)(skald_vectors *v, double *to, const double *from);
    void (*axpy)(skald_vectors *v, double *y, double a, const double *x); /* y += a x */
    double (*norm2)(skald_vectors *v, const double *x);                   /* |x|^2 */
    /* w <- prox_{eta l1}(w - eta (a g + l2 w)) */
    void (*sgd_update)(skald_vectors *v, double *w, const double *g, double a, double eta, const skald_regulariser *r);
    /* w <- prox_{eta l1}(w - eta (a g + abar + l2 w)); abar <- abar + h/n   (g == h allowed; n infinite: abar stays) */
    void (*saga_update)(skald_vectors *v, double *w, double *abar, const double *g, double a, const double *h,
                        double eta, double n, const skald_regulariser *r);
    /* w <- w + theta dw; abar <- abar + h/n  (h NULL: sgd) */
    void (*local_merge)(skald_vectors *v, double *w, double *abar, const double *dw, double theta, const double *h,
                        double n);
    /* w <- prox_{eta l1}(w - eta (g + l2 w)): one full proximal step, so that zeros are exact */
    void (*proximal_step)(skald_vectors *v, double *w, const double *g, double eta, const skald_regulariser *r);
} skald_vectors_ops;

struct skald_vectors {
    const skald_vectors_ops *ops;
    uint32_t dim;
    uint32_t classes, columns;
};

/* Host vectors (CPU): one class of `dim` columns, unless the caller then sets classes and columns. */
void skald_vectors_host(skald_vectors *out, uint32_t dim);

#endif
