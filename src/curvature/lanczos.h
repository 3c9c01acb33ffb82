/* How many directions of a positive semidefinite matrix matter beside a ridge, d_eff(c) = tr(A (A + c)^-1), for every c
 * from one set of products: Lanczos quadrature from random signs (Golub, Meurant 1994; Ubaru, Chen, Saad 2017). Within
 * some per cent where d_eff is large; from too few steps it comes out above, never below. */
#ifndef SKALD_CURVATURE_LANCZOS_H
#define SKALD_CURVATURE_LANCZOS_H

#include <stddef.h>

#define SKALD_LANCZOS_STEPS 24
#define SKALD_LANCZOS_PROBES 4 /* at most: a large matrix averages by itself */

/* How many vectors skald_lanczos begins with for n entries. */
int skald_lanczos_probes(size_t n);

typedef struct skald_spectrum {
    size_t n;
    int probes, steps[SKALD_LANCZOS_PROBES];
    double diagonal[SKALD_LANCZOS_PROBES][SKALD_LANCZOS_STEPS];
    double squares[SKALD_LANCZOS_PROBES][SKALD_LANCZOS_STEPS]; /* of what stands beside it */
} skald_spectrum;

/* product: out = A v, n entries. scratch: 3 n doubles. */
void skald_lanczos(size_t n, void (*product)(void *user, const double *v, double *out), void *user, double *scratch,
                   skald_spectrum *out);
double skald_spectrum_effective(const skald_spectrum *spectrum, double c); /* c > 0 */
/* The least nu >= 0 with d_eff(l2 + nu) <= limit. */
double skald_spectrum_ridge(const skald_spectrum *spectrum, double l2, double limit);

#endif
