// The emulated cuBLAS against loops written from the definition.
#include "harness.h"

#include <dlfcn.h>
#include <vector>

typedef struct cublasContext *handle_t;
enum { OP_N = 0, OP_T = 1, R_32F = 0, R_16BF = 14, COMPUTE_32F = 68, TF32 = 3, INVALID_VALUE = 7 };
static int (*create)(handle_t *), (*destroy)(handle_t), (*set_stream)(handle_t, cudaStream_t),
    (*set_math)(handle_t, int);
static int (*sgemm)(handle_t, int, int, int, int, int, const float *, const float *, int, const float *, int,
                    const float *, float *, int);
static int (*batched)(handle_t, int, int, int, int, int, const float *, const float *, int, long long, const float *,
                      int, long long, const float *, float *, int, long long, int);
static int (*gemm_ex)(handle_t, int, int, int, int, int, const void *, const void *, int, int, const void *, int, int,
                      const void *, void *, int, int, int, int);
static int (*sgemv)(handle_t, int, int, int, const float *, const float *, int, const float *, int, const float *,
                    float *, int);
static int (*dgemv)(handle_t, int, int, int, const double *, const double *, int, const double *, int, const double *,
                    double *, int);

static handle_t handle;
static cudaStream_t stream;

static int setup(void **state) {
    void *library = dlopen(SKALD_CUBLAS, RTLD_NOW | RTLD_LOCAL);
    if (!library) fail_msg("%s", dlerror());
#define FIND(to, name) to = reinterpret_cast<decltype(to)>(dlsym(library, name)), assert_non_null(to)
    FIND(create, "cublasCreate_v2"), FIND(destroy, "cublasDestroy_v2"), FIND(set_stream, "cublasSetStream_v2");
    FIND(set_math, "cublasSetMathMode"), FIND(sgemm, "cublasSgemm_v2"), FIND(batched, "cublasSgemmStridedBatched");
    FIND(gemm_ex, "cublasGemmEx"), FIND(sgemv, "cublasSgemv_v2"), FIND(dgemv, "cublasDgemv_v2");
    CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    assert_int_equal(create(&handle), 0);
    assert_int_equal(set_stream(handle, stream), 0);
    return 0;
}

static int teardown(void **state) {
    assert_int_equal(destroy(handle), 0);
    CHECK(cudaStreamDestroy(stream));
    return skald_emulated_live();
}

template <class T> static T *upload(const std::vector<T> &from) {
    T *device;
    CHECK(cudaMalloc((void **)&device, from.size() * sizeof(T)));
    CHECK(cudaMemcpyAsync(device, from.data(), from.size() * sizeof(T), cudaMemcpyHostToDevice, stream));
    return device;
}

template <class T> static std::vector<T> numbers(size_t count, int seed) {
    std::vector<T> x(count);
    for (size_t i = 0; i < count; i++) x[i] = (T)((int)((i * 37 + (size_t)seed * 11) % 17) - 8) / (T)4;
    return x;
}

enum { M = 5, N = 7, K = 9, LD = 12 };

// op(A)(i, l) with A column-major
template <class T> static double at(const std::vector<T> &a, int op, int row, int column) {
    return (double)a[(size_t)(op ? row * LD + column : column * LD + row)];
}

static void test_gemm(void **state) {
    std::vector<float> a = numbers<float>(LD * LD, 1), b = numbers<float>(LD * LD, 2), c = numbers<float>(LD * LD, 3);
    std::vector<uint16_t> half_a, half_b; // these numbers are exact in bf16
    for (float x : a) half_a.push_back((uint16_t)(__float_as_uint(x) >> 16));
    for (float x : b) half_b.push_back((uint16_t)(__float_as_uint(x) >> 16));
    for (int ops = 0; ops < 8; ops++) {
        int opa = ops & 1, opb = ops >> 1 & 1, bf16 = ops >> 2;
        const float alpha = 2, beta = ops == 3 ? 0.0f : -1.5f;
        std::vector<float> before = c;
        if (beta == 0) before.assign(before.size(), NAN); // not read
        float *da = upload(a), *db = upload(b), *dc = upload(before);
        uint16_t *ha = upload(half_a), *hb = upload(half_b);
        if (bf16)
            assert_int_equal(gemm_ex(handle, opa, opb, M, N, K, &alpha, ha, R_16BF, LD, hb, R_16BF, LD, &beta, dc,
                                     R_32F, LD, COMPUTE_32F, -1),
                             0);
        else
            assert_int_equal(sgemm(handle, opa, opb, M, N, K, &alpha, da, LD, db, LD, &beta, dc, LD), 0);
        std::vector<float> got(c.size());
        CHECK(cudaMemcpyAsync(got.data(), dc, got.size() * sizeof(float), cudaMemcpyDeviceToHost, stream));
        for (int i = 0; i < M; i++)
            for (int j = 0; j < N; j++) {
                double sum = 0;
                for (int l = 0; l < K; l++) sum += at(a, opa, i, l) * at(b, opb, l, j);
                sum = 2 * sum + (beta == 0 ? 0 : (double)beta * at(c, 0, i, j));
                assert_true(fabs(sum - at(got, 0, i, j)) < 1e-5);
            }
        if (beta != 0) assert_true(got[M] == c[M]); // outside the matrix
        for (void *memory : {(void *)da, (void *)db, (void *)dc, (void *)ha, (void *)hb}) CHECK(cudaFree(memory));
    }
    const float one = 1;
    assert_int_equal(sgemm(handle, OP_N, OP_N, M, N, K, &one, &one, M - 1, &one, LD, &one, (float *)&one, LD),
                     INVALID_VALUE);
}

static void test_batched(void **state) {
    enum { BATCH = 3, STRIDE = LD * LD };
    std::vector<float> a = numbers<float>(BATCH * STRIDE, 4), b = numbers<float>(BATCH * STRIDE, 5), c(BATCH * STRIDE);
    const float one = 1, zero = 0;
    float *da = upload(a), *db = upload(b), *dc = upload(c);
    assert_int_equal(
        batched(handle, OP_T, OP_N, M, N, K, &one, da, LD, STRIDE, db, LD, STRIDE, &zero, dc, LD, STRIDE, BATCH), 0);
    CHECK(cudaMemcpyAsync(c.data(), dc, c.size() * sizeof(float), cudaMemcpyDeviceToHost, stream));
    for (int r = 0; r < BATCH; r++)
        for (int i = 0; i < M; i++)
            for (int j = 0; j < N; j++) {
                double sum = 0;
                for (int l = 0; l < K; l++)
                    sum += (double)a[(size_t)(r * STRIDE + i * LD + l)] * (double)b[(size_t)(r * STRIDE + j * LD + l)];
                assert_true(fabs(sum - (double)c[(size_t)(r * STRIDE + j * LD + i)]) < 1e-5);
            }
    for (void *memory : {da, db, dc}) CHECK(cudaFree(memory));
}

template <class T, class Call> static void gemv_as(Call call) {
    std::vector<T> a = numbers<T>(LD * LD, 1), x = numbers<T>(3 * LD, 2), y = numbers<T>(2 * LD, 3);
    for (int op = 0; op < 2; op++) {
        const T alpha = 3, beta = 0.5;
        T *da = upload(a), *dx = upload(x), *dy = upload(y);
        assert_int_equal(call(handle, op, M, N, &alpha, da, LD, dx, 3, &beta, dy, 2), 0);
        std::vector<T> got(y.size());
        CHECK(cudaMemcpyAsync(got.data(), dy, got.size() * sizeof(T), cudaMemcpyDeviceToHost, stream));
        for (int i = 0; i < (op ? N : M); i++) {
            double sum = 0;
            for (int l = 0; l < (op ? M : N); l++) sum += at(a, op, i, l) * (double)x[(size_t)(3 * l)];
            assert_true(fabs(3 * sum + 0.5 * (double)y[(size_t)(2 * i)] - (double)got[(size_t)(2 * i)]) < 1e-5);
            assert_true(got[(size_t)(2 * i + 1)] == y[(size_t)(2 * i + 1)]);
        }
        for (void *memory : {da, dx, dy}) CHECK(cudaFree(memory));
    }
}

static void test_gemv(void **state) {
    gemv_as<float>(sgemv);
    gemv_as<double>(dgemv);
}

// TF32 was asked for: products lose what tensor cores lose.
static void test_tf32(void **state) {
    const float one = 1, zero = 0, fine = 1 + 0x1p-20f;
    std::vector<float> a(1, fine), b(1, 1.0f), c(1, 0.0f);
    float *da = upload(a), *db = upload(b), *dc = upload(c), got[2];
    for (int tf32 = 0; tf32 < 2; tf32++) {
        assert_int_equal(set_math(handle, tf32 ? TF32 : 0), 0);
        assert_int_equal(sgemm(handle, OP_N, OP_N, 1, 1, 1, &one, da, 1, db, 1, &zero, dc, 1), 0);
        CHECK(cudaMemcpyAsync(&got[tf32], dc, sizeof *got, cudaMemcpyDeviceToHost, stream));
    }
    assert_int_equal(set_math(handle, 0), 0);
    assert_true(got[0] == fine && got[1] == 1);
    for (void *memory : {da, db, dc}) CHECK(cudaFree(memory));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_gemm), cmocka_unit_test(test_batched),
                                       cmocka_unit_test(test_gemv), cmocka_unit_test(test_tf32)};
    return cmocka_run_group_tests_name("the emulated cuBLAS", tests, setup, teardown);
}
