// The few calls of cuBLAS that Skald makes, in plain loops: matrices are column-major, sums are in double. Scalars are
// read from the host at the call; the work is queued in the handle's stream.
#include "../external.h"

#include <stdint.h>
#include <string.h>
#include <vector>

enum cublasStatus_t {
    CUBLAS_STATUS_SUCCESS = 0,
    CUBLAS_STATUS_NOT_INITIALIZED = 1,
    CUBLAS_STATUS_INVALID_VALUE = 7,
    CUBLAS_STATUS_EXECUTION_FAILED = 13,
    CUBLAS_STATUS_NOT_SUPPORTED = 15,
};
enum cublasOperation_t { CUBLAS_OP_N = 0, CUBLAS_OP_T = 1, CUBLAS_OP_C = 2 };
enum cublasMath_t { CUBLAS_DEFAULT_MATH = 0, CUBLAS_PEDANTIC_MATH = 2, CUBLAS_TF32_TENSOR_OP_MATH = 3 };
enum cublasPointerMode_t { CUBLAS_POINTER_MODE_HOST = 0 };
enum cublasComputeType_t {
    CUBLAS_COMPUTE_32F = 68,
    CUBLAS_COMPUTE_32F_PEDANTIC = 69,
    CUBLAS_COMPUTE_32F_FAST_TF32 = 77,
    CUBLAS_COMPUTE_64F = 70
};
enum cudaDataType { CUDA_R_32F = 0, CUDA_R_64F = 1, CUDA_R_16BF = 14 };

struct cublasContext {
    cudaStream_t stream;
    cublasMath_t math;
};
typedef cublasContext *cublasHandle_t;

namespace {

struct matrix {
    const void *at;
    cudaDataType type;
    int leading;
    bool transposed;
    long long stride; // elements between the matrices of a batch
};

struct work {
    int m, n, k, batch;
    double alpha, beta;
    matrix a, b;
    void *c;
    cudaDataType type;
    int leading, step; // step: between the elements of a vector y
    long long stride;
    bool tf32;
};

// What a tensor core sees of an f32: 10 bits of the fraction, to nearest.
float as_tf32(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if ((bits & 0x7f800000u) != 0x7f800000u) bits = (bits + 0x1000u) & ~0x1fffu;
    memcpy(&x, &bits, sizeof x);
    return x;
}

double element(const matrix &from, size_t batch, size_t row, size_t column, bool tf32) {
    size_t at = batch * (size_t)from.stride +
                (from.transposed ? row * (size_t)from.leading + column : column * (size_t)from.leading + row);
    if (from.type == CUDA_R_64F) return static_cast<const double *>(from.at)[at];
    if (from.type == CUDA_R_32F) {
        float x = static_cast<const float *>(from.at)[at];
        return (double)(tf32 ? as_tf32(x) : x);
    }
    uint32_t bits = (uint32_t) static_cast<const uint16_t *>(from.at)[at] << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return (double)x;
}

template <class T> void store(const work &w, size_t batch, size_t column, const double *sums) {
    T *c = static_cast<T *>(w.c) + batch * (size_t)w.stride + column * (size_t)w.leading;
    for (size_t i = 0; i < (size_t)w.m; i++) {
        T *to = c + i * (size_t)w.step;
        *to = (T)(w.alpha * sums[i] + (w.beta == 0 ? 0 : w.beta * (double)*to)); // beta 0: what is there is not read
    }
}

int run(void *state) {
    const work &w = *static_cast<work *>(state);
    size_t m = (size_t)w.m, k = (size_t)w.k;
    std::vector<double> a(m * k), sums(m);
    for (size_t batch = 0; batch < (size_t)w.batch; batch++) {
        for (size_t l = 0; l < k; l++)
            for (size_t i = 0; i < m; i++) a[l * m + i] = element(w.a, batch, i, l, w.tf32);
        for (size_t j = 0; j < (size_t)w.n; j++) {
            for (double &sum : sums) sum = 0;
            for (size_t l = 0; l < k; l++) {
                double b = element(w.b, batch, l, j, w.tf32);
                for (size_t i = 0; i < m; i++) sums[i] += a[l * m + i] * b;
            }
            if (w.type == CUDA_R_64F)
                store<double>(w, batch, j, sums.data());
            else
                store<float>(w, batch, j, sums.data());
        }
    }
    return 1;
}

void release(void *state) {
    delete static_cast<work *>(state);
}

bool fits(const matrix &matrix, int rows, int columns) {
    int least = matrix.transposed ? columns : rows;
    return matrix.leading >= (least > 1 ? least : 1) && (matrix.at || !rows || !columns);
}

cublasStatus_t submit(cublasHandle_t handle, const work &w) {
    if (!handle) return CUBLAS_STATUS_NOT_INITIALIZED;
    if (w.m < 0 || w.n < 0 || w.k < 0 || w.batch < 0 || !fits(w.a, w.m, w.k) || !fits(w.b, w.k, w.n) || w.leading < 1 ||
        (w.step == 1 && w.leading < w.m))
        return CUBLAS_STATUS_INVALID_VALUE;
    if (!w.m || !w.n || !w.batch) return CUBLAS_STATUS_SUCCESS;
    cudaError_t error = skald_emulated_enqueue(handle->stream, run, release, new work(w), 0);
    return error ? CUBLAS_STATUS_EXECUTION_FAILED : CUBLAS_STATUS_SUCCESS;
}

template <class T, cudaDataType TYPE>
cublasStatus_t gemv(cublasHandle_t handle, cublasOperation_t op, int m, int n, const T *alpha, const T *a, int lda,
                    const T *x, int incx, const T *beta, T *y, int incy) {
    // y (rows x 1) = A x: a product with a matrix of one column, whose elements lie incx apart (one row, transposed)
    if (!alpha || !beta || !x || !y || incx < 1 || incy < 1 || lda < m) return CUBLAS_STATUS_INVALID_VALUE;
    bool transposed = op != CUBLAS_OP_N;
    int rows = transposed ? n : m, inner = transposed ? m : n;
    return submit(handle, {rows,
                           1,
                           inner,
                           1,
                           (double)*alpha,
                           (double)*beta,
                           {a, TYPE, lda, transposed, 0},
                           {x, TYPE, incx, true, 0},
                           y,
                           TYPE,
                           rows > 0 ? rows : 1,
                           incy,
                           0,
                           handle && handle->math == CUBLAS_TF32_TENSOR_OP_MATH && TYPE == CUDA_R_32F});
}

} // namespace

#define API extern "C" __attribute__((visibility("default"))) cublasStatus_t

API cublasCreate_v2(cublasHandle_t *handle) {
    int count = 0;
    if (!handle) return CUBLAS_STATUS_INVALID_VALUE;
    if (cudaGetDeviceCount(&count) || !count) return CUBLAS_STATUS_NOT_INITIALIZED;
    *handle = new cublasContext{nullptr, CUBLAS_DEFAULT_MATH};
    return CUBLAS_STATUS_SUCCESS;
}

API cublasDestroy_v2(cublasHandle_t handle) {
    if (!handle) return CUBLAS_STATUS_NOT_INITIALIZED;
    delete handle;
    return CUBLAS_STATUS_SUCCESS;
}

API cublasSetStream_v2(cublasHandle_t handle, cudaStream_t stream) {
    if (!handle) return CUBLAS_STATUS_NOT_INITIALIZED;
    handle->stream = stream;
    return CUBLAS_STATUS_SUCCESS;
}

API cublasSetMathMode(cublasHandle_t handle, cublasMath_t math) {
    if (!handle) return CUBLAS_STATUS_NOT_INITIALIZED;
    handle->math = math;
    return CUBLAS_STATUS_SUCCESS;
}

API cublasSetPointerMode_v2(cublasHandle_t handle, cublasPointerMode_t mode) {
    if (!handle) return CUBLAS_STATUS_NOT_INITIALIZED;
    return mode == CUBLAS_POINTER_MODE_HOST ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

API cublasSetWorkspace_v2(cublasHandle_t handle, void *, size_t) {
    return handle ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_INITIALIZED;
}

API cublasGetVersion_v2(cublasHandle_t, int *version) {
    *version = 130000;
    return CUBLAS_STATUS_SUCCESS;
}

extern "C" __attribute__((visibility("default"))) const char *cublasGetStatusString(cublasStatus_t status) {
    switch (status) {
    case CUBLAS_STATUS_SUCCESS:
        return "success";
    case CUBLAS_STATUS_NOT_INITIALIZED:
        return "the library was not initialized";
    case CUBLAS_STATUS_INVALID_VALUE:
        return "an unsupported value or parameter was passed to the function";
    case CUBLAS_STATUS_EXECUTION_FAILED:
        return "the function failed to launch on the GPU";
    case CUBLAS_STATUS_NOT_SUPPORTED:
        return "the functionality requested is not supported";
    }
    return "unknown status";
}

API cublasSgemmStridedBatched(cublasHandle_t handle, cublasOperation_t opa, cublasOperation_t opb, int m, int n, int k,
                              const float *alpha, const float *a, int lda, long long stride_a, const float *b, int ldb,
                              long long stride_b, const float *beta, float *c, int ldc, long long stride_c, int batch) {
    if (!alpha || !beta || !c) return CUBLAS_STATUS_INVALID_VALUE;
    return submit(handle, {m,
                           n,
                           k,
                           batch,
                           (double)*alpha,
                           (double)*beta,
                           {a, CUDA_R_32F, lda, opa != CUBLAS_OP_N, stride_a},
                           {b, CUDA_R_32F, ldb, opb != CUBLAS_OP_N, stride_b},
                           c,
                           CUDA_R_32F,
                           ldc,
                           1,
                           stride_c,
                           handle && handle->math == CUBLAS_TF32_TENSOR_OP_MATH});
}

API cublasSgemm_v2(cublasHandle_t handle, cublasOperation_t opa, cublasOperation_t opb, int m, int n, int k,
                   const float *alpha, const float *a, int lda, const float *b, int ldb, const float *beta, float *c,
                   int ldc) {
    return cublasSgemmStridedBatched(handle, opa, opb, m, n, k, alpha, a, lda, 0, b, ldb, 0, beta, c, ldc, 0, 1);
}

API cublasDgemm_v2(cublasHandle_t handle, cublasOperation_t opa, cublasOperation_t opb, int m, int n, int k,
                   const double *alpha, const double *a, int lda, const double *b, int ldb, const double *beta,
                   double *c, int ldc) {
    if (!alpha || !beta || !c) return CUBLAS_STATUS_INVALID_VALUE;
    return submit(handle, {m,
                           n,
                           k,
                           1,
                           *alpha,
                           *beta,
                           {a, CUDA_R_64F, lda, opa != CUBLAS_OP_N, 0},
                           {b, CUDA_R_64F, ldb, opb != CUBLAS_OP_N, 0},
                           c,
                           CUDA_R_64F,
                           ldc,
                           1,
                           0,
                           false});
}

// Both inputs f32 or both bf16, the result f32; or all f64.
API cublasGemmEx(cublasHandle_t handle, cublasOperation_t opa, cublasOperation_t opb, int m, int n, int k,
                 const void *alpha, const void *a, cudaDataType type_a, int lda, const void *b, cudaDataType type_b,
                 int ldb, const void *beta, void *c, cudaDataType type_c, int ldc, cublasComputeType_t compute,
                 int algorithm) {
    if (!alpha || !beta || !c) return CUBLAS_STATUS_INVALID_VALUE;
    bool wide = compute == CUBLAS_COMPUTE_64F && type_a == CUDA_R_64F && type_c == CUDA_R_64F;
    bool narrow = (compute == CUBLAS_COMPUTE_32F || compute == CUBLAS_COMPUTE_32F_PEDANTIC ||
                   compute == CUBLAS_COMPUTE_32F_FAST_TF32) &&
                  (type_a == CUDA_R_32F || type_a == CUDA_R_16BF) && type_c == CUDA_R_32F;
    if (type_a != type_b || (!wide && !narrow) || algorithm < -1) return CUBLAS_STATUS_NOT_SUPPORTED;
    double scale_a = wide ? *static_cast<const double *>(alpha) : (double)*static_cast<const float *>(alpha);
    double scale_b = wide ? *static_cast<const double *>(beta) : (double)*static_cast<const float *>(beta);
    bool tf32 = narrow && compute != CUBLAS_COMPUTE_32F_PEDANTIC &&
                (compute == CUBLAS_COMPUTE_32F_FAST_TF32 || (handle && handle->math == CUBLAS_TF32_TENSOR_OP_MATH));
    return submit(handle, {m,
                           n,
                           k,
                           1,
                           scale_a,
                           scale_b,
                           {a, type_a, lda, opa != CUBLAS_OP_N, 0},
                           {b, type_b, ldb, opb != CUBLAS_OP_N, 0},
                           c,
                           type_c,
                           ldc,
                           1,
                           0,
                           tf32});
}

API cublasSgemv_v2(cublasHandle_t handle, cublasOperation_t op, int m, int n, const float *alpha, const float *a,
                   int lda, const float *x, int incx, const float *beta, float *y, int incy) {
    return gemv<float, CUDA_R_32F>(handle, op, m, n, alpha, a, lda, x, incx, beta, y, incy);
}

API cublasDgemv_v2(cublasHandle_t handle, cublasOperation_t op, int m, int n, const double *alpha, const double *a,
                   int lda, const double *x, int incx, const double *beta, double *y, int incy) {
    return gemv<double, CUDA_R_64F>(handle, op, m, n, alpha, a, lda, x, incx, beta, y, incy);
}
