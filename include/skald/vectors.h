/* Vector verbs: the solver's own arithmetic, on whatever memory the engine keeps its vectors in.
 *
 * `dim` doubles a vector: `classes` blocks of `columns`, the intercept last in each when there is one (see
 * objective.h; what is behind them stays as it is). Each update is one fused pass. Host and device
 * implement the same table; a solver holds handles and never dereferences them. Single-threaded; those without a value
 * do not block, cannot fail on the host, and on a device run in the order of calls: an error shows in `status`. No
 * operation is fused or reordered within an entry, so that the bits of updates are the same everywhere; those of sums
 * over a vector are the same on all devices of a kind. */
#ifndef SKALD_VECTORS_H
#define SKALD_VECTORS_H

#include <stdbool.h>
#include <stdint.h>

#include "skald/status.h"

typedef struct skald_vectors skald_vectors;

typedef struct skald_regulariser {
    double l2, l1;
    bool intercept;        /* leave the last entry of each block alone */
    double nonconvex;      /* of sgd_update and proximal_step, which add nonconvex 2 w / (1 + w^2)^2 to l2 w */
    double intercept_step; /* the intercept's eta in the others': see skald_objective */
} skald_regulariser;

typedef struct skald_vectors_ops {
    skald_status (*create)(skald_vectors *v, double **out); /* zeroed */
    void (*destroy)(skald_vectors *v, double *x);
    void (*copy)(skald_vectors *v, double *to, const double *from);
    void (*zero)(skald_vectors *v, double *x);
    /* out = a x + b y; y NULL: a x. out may be x or y. */
    void (*combine)(skald_vectors *v, double *out, double a, const double *x, double b, const double *y);
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
    /* The regulariser's value at w, and |s|^2 for s = (w - prox_{eta l1}(w - eta (g + l2 w))) / eta (without l1: the
     * gradient itself), intercepts apart; with `nonconvex` as in sgd_update. NaN after an error. */
    double (*penalty)(skald_vectors *v, const double *w, const skald_regulariser *r);
    double (*stationarity)(skald_vectors *v, const double *w, const double *g, double eta, const skald_regulariser *r);
    /* To and from the host's memory. Block. */
    skald_status (*read)(skald_vectors *v, double *host, const double *x);
    skald_status (*write)(skald_vectors *v, double *x, const double *host);
    /* The first error of the above since these vectors are there. */
    skald_status (*status)(skald_vectors *v);
} skald_vectors_ops;

struct skald_vectors {
    const skald_vectors_ops *ops;
    uint32_t dim;
    uint32_t classes, columns;
    bool on_device; /* they are not to be dereferenced, and go to a collective as stretches on its device */
    void *queue;    /* on a device: what keeps the order, for others who want their turn in it; else NULL */
    void *context;  /* the adapter's */
};

/* Host vectors (CPU): one class of `dim` columns, unless the caller then sets classes and columns. */
void skald_vectors_host(skald_vectors *out, uint32_t dim);

#endif
