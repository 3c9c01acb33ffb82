/* Vectors of doubles, without BLAS (pairs work where it is missing). Sums in eight lanes: fast, and always the same. */
#ifndef SKALD_CURVATURE_VECTOR_H
#define SKALD_CURVATURE_VECTOR_H

#include <stddef.h>

static inline double skald_vector_dot(size_t n, const double *a, const double *b) {
    double lane[8] = {0}, rest = 0;
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (size_t k = 0; k < 8; k++) lane[k] += a[i + k] * b[i + k];
    for (; i < n; i++) rest += a[i] * b[i];
    return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7])) + rest;
}
/* y += t x */
static inline void skald_vector_add(size_t n, double t, const double *x, double *y) {
    for (size_t i = 0; i < n; i++) y[i] += t * x[i];
}

#endif
