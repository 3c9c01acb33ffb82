/* OpenBLAS, loaded when first wanted: the program starts, and workers run, without it. Always in one thread, the
 * caller's, so that the same numbers come out and nobody's cores are taken. */
#ifndef SKALD_CURVATURE_BLAS_H
#define SKALD_CURVATURE_BLAS_H

#include <stddef.h>

#include "skald/status.h"

/* CBLAS's numbers. */
enum {
    SKALD_BLAS_ROWS = 101, /* row-major */
    SKALD_BLAS_COLUMNS = 102,
    SKALD_BLAS_PLAIN = 111,
    SKALD_BLAS_TRANSPOSED = 112,
    SKALD_BLAS_LOWER = 122,
    SKALD_BLAS_NONUNIT = 131
};

typedef struct skald_blas {
    void (*dsyrk)(int order, int uplo, int trans, int n, int k, double alpha, const double *a, int lda, double beta,
                  double *c, int ldc);
    void (*ssyrk)(int order, int uplo, int trans, int n, int k, float alpha, const float *a, int lda, float beta,
                  float *c, int ldc);
    void (*dgemm)(int order, int transa, int transb, int m, int n, int k, double alpha, const double *a, int lda,
                  const double *b, int ldb, double beta, double *c, int ldc);
    void (*dsymv)(int order, int uplo, int n, double alpha, const double *a, int lda, const double *x, int incx,
                  double beta, double *y, int incy);
    void (*dtrsv)(int order, int uplo, int trans, int diag, int n, const double *a, int lda, double *x, int incx);
    void (*dtrmv)(int order, int uplo, int trans, int diag, int n, const double *a, int lda, double *x, int incx);
    void (*dpotrf)(const char *uplo, const int *n, double *a, const int *lda, int *info, size_t uplo_length);
    void (*dtrtri)(const char *uplo, const char *diag, const int *n, double *a, const int *lda, int *info,
                   size_t uplo_length, size_t diag_length);
} skald_blas;

/* The table, loaded once for all threads; it stays. Any thread; blocks while it is loaded (10 ms).
 * SKALD_EUNSUPPORTED: not installed; the message names the package. */
skald_status skald_blas_open(const skald_blas **out);

/* The same without memory: tries pairs of names, one library with BLAS, one with LAPACK (NULL: the first has both).
 * *core (may be NULL): what OpenBLAS calls the processor its kernels are for; "" if it says nothing. */
skald_status skald_blas_load(const char *const (*names)[2], size_t count, skald_blas *out, char core[32]);

#endif
