#include "curvature/factor.h"

#include <math.h>
#include <stdlib.h>

#include "base/base.h"
#include "curvature/room.h"

#define LEAST_PIVOT 1e-13 /* of a unit diagonal: some hundred roundings */
#define FIRST_LIFT 1e-12
#define LAST_LIFT 1e-5

skald_status skald_factor_reserve(skald_factor *f, size_t n) {
    f->n = n;
    f->lda = (n + 1 + 7) / 8 * 8;
    const size_t wanted = n * f->lda + n;
    TRY(skald_room((void **)&f->a, &f->room, wanted, sizeof *f->a));
    f->scale = f->a + n * f->lda;
    return SKALD_OK;
}

void skald_factor_free(skald_factor *f) {
    free(f->a);
    *f = (skald_factor){0};
}

/* Scaled, transposed into the other triangle; by tiles, one of the two sides is read across. */
static void copy(skald_factor *f) {
    enum { TILE = 32 };
    const size_t n = f->n, lda = f->lda;
    for (size_t bj = 0; bj < n; bj += TILE)
        for (size_t bk = 0; bk <= bj; bk += TILE)
            for (size_t k = bk; k < skald_min_size(bk + TILE, n); k++)
                for (size_t j = skald_max_size(bj, k); j < skald_min_size(bj + TILE, n); j++)
                    f->a[k * lda + 1 + j] = f->a[j * lda + k] * f->scale[j] * f->scale[k];
    for (size_t j = 0; j < n; j++) f->a[j * lda + 1 + j] = 1 + f->lift;
}

static bool try_factor(skald_factor *f, const skald_blas *blas) {
    const int n = (int)f->n, lda = (int)f->lda;
    int info = 0;
    copy(f);
    blas->dpotrf("L", &n, f->a + 1, &lda, &info, 1);
    if (info != 0) return false;
    for (size_t j = 0; j < f->n; j++) {
        const double pivot = f->a[j * f->lda + 1 + j];
        if (!(pivot * pivot >= LEAST_PIVOT)) return false;
    }
    return true;
}

skald_status skald_factor_make(skald_factor *f, const skald_blas *blas) {
    for (size_t j = 0; j < f->n; j++) {
        const double diagonal = f->a[j * f->lda + j];
        if (!isfinite(diagonal) || diagonal < 0) return skald_fail(SKALD_ENUMERIC, "the Hessian is not finite");
        f->scale[j] = diagonal > 0 ? 1 / sqrt(diagonal) : 0;
    }
    f->inverted = false;
    f->lift = 0;
    while (!try_factor(f, blas)) {
        f->lift = f->lift > 0 ? 10 * f->lift : FIRST_LIFT;
        if (f->lift > LAST_LIFT) return skald_fail(SKALD_ENUMERIC, "the Hessian is not positive definite");
    }
    return SKALD_OK;
}

void skald_factor_solve(const skald_factor *f, const skald_blas *blas, double *x) {
    void (*half)(int, int, int, int, int, const double *, int, double *, int) = f->inverted ? blas->dtrmv : blas->dtrsv;
    for (size_t j = 0; j < f->n; j++) x[j] *= f->scale[j];
    half(SKALD_BLAS_COLUMNS, SKALD_BLAS_LOWER, SKALD_BLAS_PLAIN, SKALD_BLAS_NONUNIT, (int)f->n, f->a + 1, (int)f->lda,
         x, 1);
    half(SKALD_BLAS_COLUMNS, SKALD_BLAS_LOWER, SKALD_BLAS_TRANSPOSED, SKALD_BLAS_NONUNIT, (int)f->n, f->a + 1,
         (int)f->lda, x, 1);
    for (size_t j = 0; j < f->n; j++) x[j] *= f->scale[j];
}

double skald_factor_trace(skald_factor *f, const skald_blas *blas, const double *r) {
    const int n = (int)f->n, lda = (int)f->lda;
    int info = 0;
    if (!f->inverted) blas->dtrtri("L", "N", &n, f->a + 1, &lda, &info, 1, 1); /* no pivot is 0 */
    f->inverted = true;
    double sum = 0;
    for (size_t j = 0; j < f->n; j++) { /* column j of the inverse L^-1 is row j here */
        const double *column = f->a + j * f->lda + 1;
        double squares = 0;
        for (size_t k = j; k < f->n; k++) squares += column[k] * column[k];
        sum += (r ? r[j] : 1) * f->scale[j] * f->scale[j] * squares;
    }
    return sum;
}
