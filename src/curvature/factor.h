/* Symmetric positive definite matrices: kept, factorised and solved in one array.
 *
 * a has n rows of lda > n doubles. The lower triangle is the matrix; the upper one, shifted by one column so that both
 * have a diagonal, is its Cholesky factor: half of the memory of two arrays. The matrix is scaled to a unit diagonal
 * before (Jacobi): rows in the raw units of their columns differ by 1e10 and more in it. */
#ifndef SKALD_CURVATURE_FACTOR_H
#define SKALD_CURVATURE_FACTOR_H

#include <stdbool.h>
#include <stddef.h>

#include "curvature/blas.h"
#include "skald/status.h"

typedef struct skald_factor {
    size_t n, lda, room; /* room: doubles allocated for a */
    double *a;           /* entry (j, k), k <= j: a[j * lda + k] */
    double *scale;       /* n: 1/sqrt of the diagonal; 0 where that is 0: the inverse is 0 there too */
    double lift;         /* added to the unit diagonal */
    bool inverted;       /* the factor's inverse stands in its place */
} skald_factor;

/* Room for n rows, contents undefined; sets n and lda. */
skald_status skald_factor_reserve(skald_factor *f, size_t n);
void skald_factor_free(skald_factor *f);
/* Factorises what the lower triangle holds. If rounding leaves no positive pivots, the least lift of 1e-12, 1e-11, ..
 * that does. SKALD_ENUMERIC: not finite, or not positive by far. */
skald_status skald_factor_make(skald_factor *f, const skald_blas *blas);
/* x = A^-1 x, n entries. */
void skald_factor_solve(const skald_factor *f, const skald_blas *blas, double *x);
/* sum_j r_j (A^-1)_jj, r NULL: all 1. Solving goes on as before, through the inverse of the factor. */
double skald_factor_trace(skald_factor *f, const skald_blas *blas, const double *r);

#endif
