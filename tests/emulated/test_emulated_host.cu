// The emulated runtime: streams and events in every mode, graphs, memory, limits, failures.
#include "harness.h"

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

static const char *const modes[] = {"late", "eager", "random:1", "random:2", "random:3"};
enum { MODES = sizeof modes / sizeof *modes, N = 500 };

__global__ void scale(float *x, float factor, int n) {
    int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (i < n) x[i] *= factor;
}
__global__ void add(float *x, const float *y, int n) {
    int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (i < n) x[i] += y[i];
}
__global__ void big_shared(float *out) {
    SKALD_EXTERN_SHARED(float, memory);
    memory[threadIdx.x] = 1;
    out[threadIdx.x] = memory[threadIdx.x];
}

struct fixture {
    cudaStream_t one, two;
    cudaEvent_t event;
    float *x, *y, *pinned;
};

static void begin(struct fixture *f) {
    CHECK(cudaStreamCreateWithFlags(&f->one, cudaStreamNonBlocking));
    CHECK(cudaStreamCreateWithFlags(&f->two, cudaStreamNonBlocking));
    CHECK(cudaEventCreateWithFlags(&f->event, cudaEventDisableTiming));
    CHECK(cudaMalloc((void **)&f->x, N * sizeof(float)));
    CHECK(cudaMalloc((void **)&f->y, N * sizeof(float)));
    CHECK(cudaMallocHost((void **)&f->pinned, N * sizeof(float)));
}

static void end(struct fixture *f) {
    CHECK(cudaStreamDestroy(f->one));
    CHECK(cudaStreamDestroy(f->two));
    CHECK(cudaEventDestroy(f->event));
    CHECK(cudaFree(f->x));
    CHECK(cudaFree(f->y));
    CHECK(cudaFreeHost(f->pinned));
    assert_int_equal(skald_emulated_live(), 0);
}

// Two streams, joined by an event.
static void test_streams(void **state) {
    for (int m = 0; m < MODES; m++) {
        struct fixture f;
        float host[N];
        assert_int_equal(skald_emulated_streams(modes[m]), 0);
        begin(&f);
        for (int i = 0; i < N; i++) host[i] = f.pinned[i] = (float)i;
        CHECK(cudaMemcpyAsync(f.x, f.pinned, sizeof host, cudaMemcpyHostToDevice, f.one));
        SKALD_LAUNCH(scale, 4, 128, 0, f.one, f.x, 3.0f, N);
        CHECK(cudaEventRecord(f.event, f.one));
        CHECK(cudaMemcpyAsync(f.y, host, sizeof host, cudaMemcpyHostToDevice, f.two));
        for (int i = 0; i < N; i++) host[i] = -1; // pageable memory is free again at once
        CHECK(cudaStreamWaitEvent(f.two, f.event, 0));
        SKALD_LAUNCH(add, 4, 128, 0, f.two, f.x, f.y, N);
        CHECK(cudaMemcpyAsync(f.pinned, f.x, sizeof host, cudaMemcpyDeviceToHost, f.two));
        CHECK(cudaGetLastError());
        CHECK(cudaStreamSynchronize(f.two));
        for (int i = 0; i < N; i++) assert_true(f.pinned[i] == (float)(4 * i));
        CHECK(cudaEventQuery(f.event));
        end(&f);
    }
}

// Who only asks gets there too.
static void test_queries(void **state) {
    for (int m = 0; m < MODES; m++) {
        struct fixture f;
        int asked = 0;
        cudaError_t status;
        assert_int_equal(skald_emulated_streams(modes[m]), 0);
        begin(&f);
        CHECK(cudaEventQuery(f.event)); // never recorded
        CHECK(cudaMemsetAsync(f.x, 0, N * sizeof(float), f.one));
        for (int i = 0; i < 5; i++) SKALD_LAUNCH(scale, 4, 128, 0, f.one, f.x, 2.0f, N);
        CHECK(cudaEventRecord(f.event, f.one));
        while ((status = cudaEventQuery(f.event)) == cudaErrorNotReady) asked++;
        CHECK(status);
        CHECK(cudaStreamQuery(f.one));
        assert_true(m > 0 || asked > 5);
        assert_int_equal(cudaGetLastError(), asked ? cudaErrorNotReady : cudaSuccess);
        end(&f);
    }
}

static void set_flag(void *flag) {
    __atomic_store_n((int *)flag, 1, __ATOMIC_RELEASE);
}

// A host function runs even if the program only waits for what it does.
static void test_host_function(void **state) {
    for (int m = 0; m < MODES; m++) {
        struct fixture f;
        int flag = 0;
        assert_int_equal(skald_emulated_streams(modes[m]), 0);
        begin(&f);
        CHECK(cudaMemsetAsync(f.x, 0, N * sizeof(float), f.one));
        CHECK(cudaLaunchHostFunc(f.one, set_flag, &flag));
        for (int i = 0; i < 10000 && !__atomic_load_n(&flag, __ATOMIC_ACQUIRE); i++) usleep(1000);
        assert_int_equal(flag, 1);
        end(&f);
    }
}

// The default stream waits for blocking streams, and they for it; others do not.
static void test_default_stream(void **state) {
    struct fixture f;
    cudaStream_t blocking;
    float host[N];
    assert_int_equal(skald_emulated_streams("late"), 0);
    begin(&f);
    CHECK(cudaStreamCreate(&blocking));
    CHECK(cudaMemsetAsync(f.x, 0, sizeof host, blocking));
    CHECK(cudaMemset(f.y, 0, sizeof host));
    CHECK(cudaMemcpy(host, f.x, sizeof host, cudaMemcpyDeviceToHost));
    for (int i = 0; i < N; i++) assert_true(host[i] == 0);
    CHECK(cudaMemset(f.x, 0x40, sizeof host));
    SKALD_LAUNCH(scale, 4, 128, 0, blocking, f.x, 0.0f, N);
    CHECK(cudaStreamSynchronize(blocking));
    CHECK(cudaMemcpy(host, f.x, sizeof host, cudaMemcpyDeviceToHost));
    for (int i = 0; i < N; i++) assert_true(host[i] == 0);
    // not synchronised with a stream that does not block: the memory is as it was
    CHECK(cudaMemsetAsync(f.x, 0x40, sizeof host, f.one));
    CHECK(cudaMemcpy(host, f.x, sizeof host, cudaMemcpyDeviceToHost));
    for (int i = 0; i < N; i++) assert_true(host[i] == 0);
    CHECK(cudaDeviceSynchronize());
    CHECK(cudaStreamDestroy(blocking));
    end(&f);
}

static void test_graphs(void **state) {
    for (int m = 0; m < MODES; m++) {
        struct fixture f;
        cudaGraph_t graph;
        cudaGraphExec_t executable;
        assert_int_equal(skald_emulated_streams(modes[m]), 0);
        begin(&f);
        for (int i = 0; i < N; i++) f.pinned[i] = 1;
        CHECK(cudaMemcpyAsync(f.x, f.pinned, N * sizeof(float), cudaMemcpyHostToDevice, f.one));
        CHECK(cudaMemsetAsync(f.y, 0, N * sizeof(float), f.one));
        CHECK(cudaStreamSynchronize(f.one));
        // x = 2 x on one branch, y = y + y (0) on the other, then x = x + y
        CHECK(cudaStreamBeginCapture(f.one, cudaStreamCaptureModeGlobal));
        CHECK(cudaEventRecord(f.event, f.one));
        CHECK(cudaStreamWaitEvent(f.two, f.event, 0));
        SKALD_LAUNCH(scale, 4, 128, 0, f.one, f.x, 2.0f, N);
        SKALD_LAUNCH(add, 4, 128, 0, f.two, f.y, f.y, N);
        CHECK(cudaEventRecord(f.event, f.two));
        CHECK(cudaStreamWaitEvent(f.one, f.event, 0));
        SKALD_LAUNCH(add, 4, 128, 0, f.one, f.x, f.y, N);
        void *no;
        assert_int_equal(cudaMalloc(&no, 10), cudaErrorStreamCaptureUnsupported);
        CHECK(cudaStreamEndCapture(f.one, &graph));
        CHECK(cudaGraphInstantiate(&executable, graph, 0));
        CHECK(cudaGraphDestroy(graph));
        for (int i = 0; i < 3; i++) CHECK(cudaGraphLaunch(executable, i % 2 ? f.two : f.one));
        CHECK(cudaDeviceSynchronize());
        CHECK(cudaMemcpyAsync(f.pinned, f.x, N * sizeof(float), cudaMemcpyDeviceToHost, f.one));
        CHECK(cudaStreamSynchronize(f.one));
        for (int i = 0; i < N; i++) assert_true(f.pinned[i] == 8);
        CHECK(cudaGraphExecDestroy(executable));
        assert_int_equal(cudaGetLastError(), cudaErrorStreamCaptureUnsupported);
        end(&f);
    }
}

static void test_capture_errors(void **state) {
    struct fixture f;
    cudaGraph_t graph;
    begin(&f);
    CHECK(cudaStreamBeginCapture(f.one, cudaStreamCaptureModeRelaxed));
    assert_int_equal(cudaStreamSynchronize(f.one), cudaErrorStreamCaptureUnsupported);
    assert_int_equal(cudaStreamEndCapture(f.one, &graph), cudaErrorStreamCaptureInvalidated);
    // a branch that is not joined
    CHECK(cudaStreamBeginCapture(f.one, cudaStreamCaptureModeRelaxed));
    CHECK(cudaEventRecord(f.event, f.one));
    CHECK(cudaStreamWaitEvent(f.two, f.event, 0));
    SKALD_LAUNCH(scale, 4, 128, 0, f.two, f.x, 2.0f, N);
    assert_int_equal(cudaEventSynchronize(f.event), cudaErrorCapturedEvent);
    assert_int_equal(cudaStreamEndCapture(f.one, &graph), cudaErrorStreamCaptureUnjoined);
    assert_null(graph);
    cudaGetLastError();
    end(&f);
}

static void test_limits(void **state) {
    float *x;
    CHECK(cudaMalloc((void **)&x, 1024 * sizeof *x));
    SKALD_LAUNCH(scale, 1, 1025, 0, NULL, x, 1.0f, 1);
    assert_int_equal(cudaPeekAtLastError(), cudaErrorInvalidConfiguration);
    assert_int_equal(cudaGetLastError(), cudaErrorInvalidConfiguration);
    CHECK(cudaGetLastError());
    SKALD_LAUNCH(scale, 0, 32, 0, NULL, x, 1.0f, 1);
    assert_int_equal(cudaGetLastError(), cudaErrorInvalidConfiguration);
    SKALD_LAUNCH(big_shared, 1, 64, 100 * 1024, NULL, x);
    assert_int_equal(cudaGetLastError(), cudaErrorInvalidValue);
    CHECK(cudaFuncSetAttribute(big_shared, cudaFuncAttributeMaxDynamicSharedMemorySize, 100 * 1024));
    SKALD_LAUNCH(big_shared, 1, 64, 100 * 1024, NULL, x);
    CHECK(cudaGetLastError());
    assert_int_equal(cudaFuncSetAttribute(big_shared, cudaFuncAttributeMaxDynamicSharedMemorySize, 300 * 1024),
                     cudaErrorInvalidValue);
    int blocks;
    CHECK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, big_shared, 256, 100 * 1024));
    assert_int_equal(blocks, 2);
    CHECK(cudaFree(x));
    cudaGetLastError();
    assert_int_equal(skald_emulated_live(), 0);
}

static void test_memory(void **state) {
    size_t free_bytes, total;
    float *x, *huge, *mapped, *seen, host[4];
    CHECK(cudaMemGetInfo(&free_bytes, &total));
    assert_int_equal(free_bytes, total);
    CHECK(cudaMalloc((void **)&x, 1000));
    assert_int_equal(cudaMalloc((void **)&huge, total), cudaErrorMemoryAllocation);
    assert_null(huge);
    assert_int_equal(cudaGetLastError(), cudaErrorMemoryAllocation);
    CHECK(cudaMemGetInfo(&free_bytes, &total));
    assert_int_equal(total - free_bytes, 1000);
    CHECK(cudaMemcpy(host, x, sizeof host, cudaMemcpyDeviceToHost));
    assert_true(isnan(host[0])); // fresh memory
    assert_int_equal(cudaMemcpy(host, x + 249, sizeof host, cudaMemcpyDeviceToHost), cudaErrorInvalidValue);
    assert_int_equal(cudaMemcpy(x, host, sizeof host, cudaMemcpyDeviceToHost), cudaErrorInvalidValue);
    assert_int_equal(cudaMemcpy(x, host, sizeof host, cudaMemcpyDeviceToDevice), cudaErrorInvalidValue);
    assert_int_equal(cudaFree(x + 1), cudaErrorInvalidValue);
    assert_int_equal(cudaFree(host), cudaErrorInvalidValue);
    CHECK(cudaFree(x));
    assert_int_equal(cudaFree(x), cudaErrorInvalidValue);
    CHECK(cudaHostAlloc((void **)&mapped, 1000, cudaHostAllocMapped));
    CHECK(cudaHostGetDevicePointer((void **)&seen, mapped, 0));
    mapped[0] = 2;
    SKALD_LAUNCH(scale, 1, 32, 0, NULL, seen, 3.0f, 1);
    CHECK(cudaDeviceSynchronize());
    assert_true(mapped[0] == 6);
    CHECK(cudaFreeHost(mapped));
    cudaGetLastError();
    assert_int_equal(skald_emulated_live(), 0);
}

// Each call can be made to fail, and a program that checks gets out of it without a leak.
static cudaError_t program(void) {
    struct fixture f = {};
    cudaGetLastError(); // what an earlier call left
    cudaError_t error = cudaStreamCreateWithFlags(&f.one, cudaStreamNonBlocking);
    if (!error) error = cudaMalloc((void **)&f.x, N * sizeof(float));
    if (!error) error = cudaMemsetAsync(f.x, 0, N * sizeof(float), f.one);
    if (!error) SKALD_LAUNCH(scale, 4, 128, 0, f.one, f.x, 2.0f, N), error = cudaGetLastError();
    if (!error) error = cudaStreamSynchronize(f.one);
    skald_emulated_fail_at(0);
    if (f.x) CHECK(cudaFree(f.x));
    if (f.one) CHECK(cudaStreamDestroy(f.one));
    return error;
}

static void test_failures(void **state) {
    for (int n = 1; n <= 5; n++) {
        skald_emulated_fail_at(n);
        assert_int_equal(program(), n <= 2 ? cudaErrorMemoryAllocation : cudaErrorLaunchFailure);
        assert_int_equal(skald_emulated_live(), 0);
    }
    skald_emulated_fail_at(6);
    assert_int_equal(program(), cudaSuccess);
    cudaGetLastError();
}

// Threads with a stream each.
static void *worker(void *argument) {
    struct fixture f;
    begin(&f);
    for (int round = 0; round < 20; round++) {
        float value = (float)(intptr_t)argument + (float)round;
        for (int i = 0; i < N; i++) f.pinned[i] = value;
        CHECK(cudaMemcpyAsync(f.x, f.pinned, N * sizeof(float), cudaMemcpyHostToDevice, f.one));
        SKALD_LAUNCH(scale, 4, 128, 0, f.one, f.x, 2.0f, N);
        CHECK(cudaMemcpyAsync(f.pinned, f.x, N * sizeof(float), cudaMemcpyDeviceToHost, f.one));
        CHECK(cudaStreamSynchronize(f.one));
        for (int i = 0; i < N; i++)
            if (f.pinned[i] != 2 * value) return argument;
    }
    CHECK(cudaStreamDestroy(f.one));
    CHECK(cudaStreamDestroy(f.two));
    CHECK(cudaEventDestroy(f.event));
    CHECK(cudaFree(f.x));
    CHECK(cudaFree(f.y));
    CHECK(cudaFreeHost(f.pinned));
    return NULL;
}

static void test_threads(void **state) {
    for (int m = 0; m < MODES; m++) {
        pthread_t threads[3];
        assert_int_equal(skald_emulated_streams(modes[m]), 0);
        for (intptr_t i = 0; i < 3; i++)
            assert_int_equal(pthread_create(&threads[i], NULL, worker, (void *)(i + 1)), 0);
        for (int i = 0; i < 3; i++) {
            void *bad;
            assert_int_equal(pthread_join(threads[i], &bad), 0);
            assert_null(bad);
        }
        assert_int_equal(skald_emulated_live(), 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_streams),        cmocka_unit_test(test_queries), cmocka_unit_test(test_host_function),
        cmocka_unit_test(test_default_stream), cmocka_unit_test(test_graphs),  cmocka_unit_test(test_capture_errors),
        cmocka_unit_test(test_limits),         cmocka_unit_test(test_memory),  cmocka_unit_test(test_failures),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests_name("the emulated runtime", tests, NULL, NULL);
}
