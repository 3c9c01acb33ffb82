#include "curvature/gram.h"

#include <math.h>
#include <stdlib.h>

#include "base/base.h"
#include "curvature/room.h"

enum { BLOCK = 128, NARROW_BLOCK = 512 };

void skald_gram_free(skald_gram *g) {
    free(g->block);
    free(g->narrow);
    free(g->tile);
    free(g->scale);
    *g = (skald_gram){0};
}

double skald_gram_cost(skald_layout layout, double rows, double dim, double nonzeros) {
    const double dense = rows * dim * dim;
    if (layout == SKALD_DENSE || rows < 1) return dense;
    return fmin(dense, SKALD_GRAM_SCATTER * nonzeros * nonzeros / rows);
}

/* Row i times `root`, as doubles, zeros and all. */
static void widen(const skald_rows *rows, size_t i, double root, double *out) {
    if (rows->layout == SKALD_DENSE) {
        const float *x = rows->x + i * rows->stride;
        for (size_t j = 0; j < rows->dim; j++) out[j] = root * (double)x[j];
        return;
    }
    for (size_t j = 0; j < rows->dim; j++) out[j] = 0;
    for (uint64_t e = rows->ptr[i]; e < rows->ptr[i + 1]; e++) out[rows->idx[e]] = root * (double)rows->val[e];
}

static skald_status by_blocks(skald_gram *g, const skald_blas *blas, const skald_rows *rows, const double *weight,
                              double sign, double *into, size_t lda) {
    const size_t d = rows->dim;
    TRY(skald_room((void **)&g->block, &g->block_room, BLOCK * d, sizeof *g->block));
    for (size_t i = 0; i < rows->n;) {
        int filled = 0;
        for (; i < rows->n && filled < BLOCK; i++)
            if (weight[i] > 0) widen(rows, i, sqrt(weight[i]), g->block + (size_t)filled++ * d);
        if (filled)
            blas->dsyrk(SKALD_BLAS_ROWS, SKALD_BLAS_LOWER, SKALD_BLAS_TRANSPOSED, (int)d, filled, sign, g->block,
                        (int)d, 1, into, (int)lda);
    }
    return SKALD_OK;
}

static void by_entries(const skald_rows *rows, const double *weight, double sign, double *into, size_t lda) {
    for (size_t i = 0; i < rows->n; i++) {
        if (!(weight[i] > 0)) continue;
        const uint64_t first = rows->ptr[i];
        for (uint64_t a = first; a < rows->ptr[i + 1]; a++) {
            double *const row = into + rows->idx[a] * lda;
            const double x = sign * weight[i] * (double)rows->val[a];
            for (uint64_t b = first; b <= a; b++) row[rows->idx[b]] += x * (double)rows->val[b];
        }
    }
}

skald_status skald_gram_add(skald_gram *g, const skald_blas *blas, const skald_rows *rows, const double *weight,
                            double sign, double *into, size_t lda) {
    if (rows->layout == SKALD_CSR) {
        double pairs = 0;
        for (size_t i = 0; i < rows->n; i++)
            pairs += (double)(rows->ptr[i + 1] - rows->ptr[i]) * (double)(rows->ptr[i + 1] - rows->ptr[i]);
        if (SKALD_GRAM_SCATTER * pairs < (double)rows->n * (double)rows->dim * (double)rows->dim) {
            by_entries(rows, weight, sign, into, lda);
            return SKALD_OK;
        }
    }
    return by_blocks(g, blas, rows, weight, sign, into, lda);
}

static void column_scales(const skald_rows *rows, const double *weight, double *scale) {
    for (size_t j = 0; j < rows->dim; j++) scale[j] = 0;
    for (size_t i = 0; i < rows->n; i++) {
        if (!(weight[i] > 0)) continue;
        const float *x = rows->x + i * rows->stride;
        for (size_t j = 0; j < rows->dim; j++) scale[j] += weight[i] * (double)x[j] * (double)x[j];
    }
    for (size_t j = 0; j < rows->dim; j++) scale[j] = sqrt(scale[j]);
}

skald_status skald_gram_add_single(skald_gram *g, const skald_blas *blas, const skald_rows *rows, const double *weight,
                                   double *into, size_t lda) {
    const size_t d = rows->dim;
    TRY(skald_room((void **)&g->narrow, &g->narrow_room, NARROW_BLOCK * d, sizeof *g->narrow));
    TRY(skald_room((void **)&g->tile, &g->tile_room, d * d, sizeof *g->tile));
    TRY(skald_room((void **)&g->scale, &g->scale_room, 2 * d, sizeof *g->scale));
    double *const scale = g->scale, *const inverse = g->scale + d;
    column_scales(rows, weight, scale);
    for (size_t j = 0; j < d; j++) inverse[j] = scale[j] > 0 ? 1 / scale[j] : 0;
    for (size_t i = 0; i < rows->n;) {
        int filled = 0;
        for (; i < rows->n && filled < NARROW_BLOCK; i++) {
            if (!(weight[i] > 0)) continue;
            const float *x = rows->x + i * rows->stride;
            float *const out = g->narrow + (size_t)filled++ * d;
            const double root = sqrt(weight[i]);
            for (size_t j = 0; j < d; j++) out[j] = (float)(root * inverse[j] * (double)x[j]);
        }
        if (!filled) break;
        blas->ssyrk(SKALD_BLAS_ROWS, SKALD_BLAS_LOWER, SKALD_BLAS_TRANSPOSED, (int)d, filled, 1, g->narrow, (int)d, 0,
                    g->tile, (int)d);
        for (size_t j = 0; j < d; j++)
            for (size_t k = 0; k <= j; k++) into[j * lda + k] += scale[j] * scale[k] * (double)g->tile[j * d + k];
    }
    return SKALD_OK;
}
