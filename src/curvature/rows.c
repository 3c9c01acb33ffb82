#include "curvature/rows.h"

static double margin(const skald_rows *rows, size_t i, const double *w) {
    double lane[8] = {0}, rest = 0;
    if (rows->layout == SKALD_CSR) {
        for (uint64_t e = rows->ptr[i]; e < rows->ptr[i + 1]; e++) rest += (double)rows->val[e] * w[rows->idx[e]];
        return rest;
    }
    const float *x = rows->x + i * rows->stride;
    size_t j = 0;
    for (; j + 8 <= rows->dim; j += 8)
        for (size_t k = 0; k < 8; k++) lane[k] += (double)x[j + k] * w[j + k];
    for (; j < rows->dim; j++) rest += (double)x[j] * w[j];
    return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7])) + rest;
}

void skald_curvature_margins(const skald_rows *rows, size_t begin, size_t end, uint32_t classes, const double *w,
                             double *z) {
    for (size_t i = begin; i < end; i++)
        for (uint32_t c = 0; c < classes; c++)
            z[(i - begin) * classes + c] = margin(rows, i, w + (size_t)c * rows->dim);
}

static void add(const skald_rows *rows, size_t i, double by, double *g) {
    if (rows->layout == SKALD_CSR) {
        for (uint64_t e = rows->ptr[i]; e < rows->ptr[i + 1]; e++) g[rows->idx[e]] += by * (double)rows->val[e];
        return;
    }
    const float *restrict x = rows->x + i * rows->stride;
    double *restrict to = g;
    for (size_t j = 0; j < rows->dim; j++) to[j] += by * (double)x[j];
}

void skald_curvature_gradient(const skald_rows *rows, uint32_t classes, const double *coefficient, double *g) {
    for (size_t i = 0; i < rows->n; i++)
        for (uint32_t c = 0; c < classes; c++) add(rows, i, coefficient[i * classes + c], g + (size_t)c * rows->dim);
}

void skald_curvature_second(const skald_objective *objective, size_t count, const double *z, const double *y,
                            const double *s, double scale, double *h) {
    for (size_t k = 0; k < count; k++)
        h[k] = scale * (double)s[k] * skald_loss_second(objective->loss, objective->huber_delta, z[k], (double)y[k]);
}

void skald_curvature_softmax(uint32_t classes, size_t count, const double *s, double scale, double *z, double *h) {
    for (size_t k = 0; k < count; k++) {
        skald_softmax(classes, z + k * classes, z + k * classes);
        h[k] = scale * (double)s[k];
    }
}
