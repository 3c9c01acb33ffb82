/* Sums of weighted outer products of rows, the expensive part of every measure. */
#ifndef SKALD_CURVATURE_GRAM_H
#define SKALD_CURVATURE_GRAM_H

#include <stdbool.h>
#include <stddef.h>

#include "curvature/blas.h"
#include "skald/data.h"

typedef struct skald_gram {
    double *block; /* rows widened, GRAM_BLOCK at a time */
    size_t block_room;
    float *narrow, *tile; /* single precision: some rows and the Gram of these */
    size_t narrow_room, tile_room;
    double *scale;
    size_t scale_room;
} skald_gram;

void skald_gram_free(skald_gram *g);
/* into (d rows of lda, the lower triangle) += sign sum_i weight_i x_i x_i'; sign 1 or -1, weight >= 0. In double. */
skald_status skald_gram_add(skald_gram *g, const skald_blas *blas, const skald_rows *rows, const double *weight,
                            double sign, double *into, size_t lda);
/* The same with products in single precision, 512 rows to a sum of doubles, columns scaled to size 1 before: entry jk
 * is off by about 1e-7 sqrt(G_jj G_kk). Dense rows only; about twice as fast. */
skald_status skald_gram_add_single(skald_gram *g, const skald_blas *blas, const skald_rows *rows, const double *weight,
                                   double *into, size_t lda);
/* Flops, a scattered one of sparse rows counted as the GRAM_SCATTER dense ones that take as long. */
#define SKALD_GRAM_SCATTER 24
double skald_gram_cost(skald_layout layout, double rows, double dim, double nonzeros);

#endif
