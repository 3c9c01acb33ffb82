#include "engine/intercepts.h"

#include <math.h>
#include <stddef.h>

static const double THERE = 1e-13, LONGEST = 2;

/* Solves a x = b in place by Cholesky's factors of a (lower triangle, n x n); a pivot next to nothing moves nothing. */
static void solve(size_t n, double *a, double *b) {
    double largest = 0;
    for (size_t i = 0; i < n; i++) largest = fmax(largest, a[i * n + i]);
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j <= i; j++) {
            double sum = a[i * n + j];
            for (size_t k = 0; k < j; k++) sum -= a[i * n + k] * a[j * n + k];
            if (i == j)
                a[i * n + i] = sum > 1e-14 * largest ? sqrt(sum) : INFINITY;
            else
                a[i * n + j] = sum / a[j * n + j];
        }
        double sum = b[i];
        for (size_t k = 0; k < i; k++) sum -= a[i * n + k] * b[k];
        b[i] = sum / a[i * n + i];
    }
    for (size_t i = n; i-- > 0;) {
        double sum = b[i];
        for (size_t k = i + 1; k < n; k++) sum -= a[k * n + i] * b[k];
        b[i] = sum / a[i * n + i];
    }
}

bool skald_intercepts_step(uint32_t classes, const double *moments, double n, double *scratch, double *shift) {
    const size_t C = classes;
    const double *slopes = moments, *curve = moments + C;
    double *const matrix = scratch, *const step = scratch + C * C;
    double most = 0, trace = 0, longest = 0;
    for (size_t c = 0; c < C; c++) most = fmax(most, fabs(slopes[c]) / n);
    if (most < THERE) return true;
    for (size_t i = 0; i < C; i++) trace += curve[i * (i + 1) / 2 + i];
    for (size_t i = 0, k = 0; i < C; i++)
        for (size_t j = 0; j <= i; j++) matrix[i * C + j] = curve[k++] + trace / (double)(C * C);
    for (size_t c = 0; c < C; c++) step[c] = slopes[c];
    solve(C, matrix, step);
    for (size_t c = 0; c < C; c++) longest = fmax(longest, fabs(step[c]));
    const double by = longest > LONGEST ? LONGEST / longest : 1;
    for (size_t c = 0; c < C; c++) shift[c] -= by * step[c];
    return false;
}
