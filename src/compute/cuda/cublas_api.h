/* cuBLAS, as far as it is used: opened when the first shard of a softmax problem is loaded, so that nothing else needs
 * it. Names and types are those of cublas_v2.h, declared here because the toolkit may not be there. Matrices are
 * column-major, scalars in host memory. */
#ifndef SKALD_COMPUTE_CUDA_CUBLAS_API_H
#define SKALD_COMPUTE_CUDA_CUBLAS_API_H

#include <cuda_runtime_api.h>

#include "skald/status.h"

typedef struct cublasContext *cublasHandle_t;
enum { CUBLAS_OP_N = 0, CUBLAS_OP_T = 1 };

typedef struct cublas_api {
    int (*create)(cublasHandle_t *handle);
    int (*destroy)(cublasHandle_t handle);
    int (*set_stream)(cublasHandle_t handle, cudaStream_t stream);
    const char *(*status)(int status);
    /* c = alpha op(a) op(b) + beta c: m x n, k inside. In f32 throughout: its default math uses no shorter numbers. */
    int (*sgemm)(cublasHandle_t handle, int op_a, int op_b, int m, int n, int k, const float *alpha, const float *a,
                 int lda, const float *b, int ldb, const float *beta, float *c, int ldc);
    int (*sgemm_batched)(cublasHandle_t handle, int op_a, int op_b, int m, int n, int k, const float *alpha,
                         const float *a, int lda, long long stride_a, const float *b, int ldb, long long stride_b,
                         const float *beta, float *c, int ldc, long long stride_c, int count);
} cublas_api;

/* The same for the whole process; any thread. SKALD_CUBLAS names a library to open in place of libcublas.so.13 or .12.
 * SKALD_EUNSUPPORTED, saying why. */
skald_status cuda_cublas(const cublas_api **out);

#endif
