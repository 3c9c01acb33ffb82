/* Softmax on a card: its own operations on the same shards.
 *
 *   cublas.c    the library, opened when wanted
 *   softmax.c   memory; passes over rows: sub-batches whose rows are read a second time from the card's L2; the history
 */
#ifndef SKALD_COMPUTE_CUDA_SOFTMAX_H
#define SKALD_COMPUTE_CUDA_SOFTMAX_H

#include "compute/cuda/cublas_api.h"
#include "compute/cuda/cuda.h"
#include "kernels/softmax.h"

/* What a shard has beside what cuda_shard has; lane->dim is classes x columns. */
typedef struct cuda_softmax {
    const cublas_api *cublas;
    cublasHandle_t handle;
    uint32_t classes, columns; /* columns: those of products, without the intercept */
    size_t batch, parts, ld;   /* rows of a sub-batch; sums of it that are f32; floats of a row */
    void *block, *scratch;     /* what the following lie in; n x classes doubles, once moments were asked for */
    float *alpha, *pending;    /* n x classes; by position */
    float *x, *narrow[2], *z[2], *part; /* batch x ld; classes x ld; batch x classes; parts x classes x ld */
    double *slopes, *tally[2], *delta, *moments;
} cuda_softmax;

extern const skald_compute_ops cuda_softmax_operations;

/* After the shard's rows and lane are there. Unload frees all, also after a failure. */
skald_status cuda_softmax_init(cuda_compute *c, cuda_shard *shard);
void cuda_softmax_fini(cuda_shard *shard);
/* Bytes of the card that init takes, margins of an intercept included. */
size_t cuda_softmax_bytes(const skald_objective *objective, size_t n, uint32_t dim);

#endif
