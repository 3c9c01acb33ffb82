// Tests of the tests: each bug planted here is caught by the mode named beside it, and the same program without the bug
// passes in all. A bug is "caught" if the process dies with the message expected, or computes something else.
#include "harness.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#if defined(__SANITIZE_THREAD__)
enum { TSAN = 1, ASAN = 0 };
#elif defined(__SANITIZE_ADDRESS__)
enum { TSAN = 0, ASAN = 1 };
#else
enum { TSAN = 0, ASAN = 0 };
#endif

enum { BLOCK = 64, GRID = 4, N = BLOCK * GRID };

// --- kernels, with and without their bug -----------------------------------------------------------------------------

// Every thread reads what a thread of another warp wrote.
template <bool BUG> __global__ void barrier(const float *x, float *out) {
    SKALD_SHARED(float, row, BLOCK);
    unsigned i = blockIdx.x * BLOCK + threadIdx.x;
    row[threadIdx.x] = x[i];
    if (!BUG) __syncthreads();
    out[i] = row[BLOCK - 1 - threadIdx.x];
}
// The next round overwrites what others still read.
template <bool BUG> __global__ void second_barrier(const float *x, float *out) {
    SKALD_SHARED(float, row, BLOCK);
    float sum = 0;
    for (int round = 1; round <= 2; round++) {
        row[threadIdx.x] = x[threadIdx.x] * (float)round;
        __syncthreads();
        sum += row[(threadIdx.x + 32) % BLOCK];
        if (!BUG) __syncthreads();
    }
    out[blockIdx.x * BLOCK + threadIdx.x] = sum;
}
template <bool BUG> __global__ void warp_sync(const float *x, float *out) {
    SKALD_SHARED(float, row, BLOCK);
    unsigned i = blockIdx.x * BLOCK + threadIdx.x;
    row[threadIdx.x] = x[i];
    if (!BUG) __syncwarp();
    out[i] = row[threadIdx.x ^ 1];
}
template <bool BUG> __global__ void across_blocks(const float *x, float *out) {
    if (threadIdx.x != 0) return;
    float sum = 0;
    for (int i = 0; i < BLOCK; i++) sum += x[blockIdx.x * BLOCK + i];
    if (BUG)
        out[0] += sum;
    else
        atomicAdd(&out[0], sum);
}
// The last block adds up what the others wrote, which needs a fence.
template <bool BUG> __global__ void fence(const float *x, float *part, unsigned *count, float *out) {
    if (threadIdx.x != 0) return;
    float sum = 0;
    for (int i = 0; i < BLOCK; i++) sum += x[blockIdx.x * BLOCK + i];
    part[blockIdx.x] = sum;
    if (!BUG) __threadfence();
    if (atomicAdd(count, 1u) < GRID - 1) return;
    sum = 0;
    for (int i = 0; i < GRID; i++) sum += part[i];
    out[0] = sum;
}
template <bool BUG> __global__ void overrun(const float *x, float *out) {
    SKALD_SHARED(float, row, BLOCK);
    float *const to = row;
    to[threadIdx.x + (BUG ? 1 : 0)] = x[threadIdx.x];
    __syncthreads();
    out[blockIdx.x * BLOCK + threadIdx.x] = row[threadIdx.x];
}
template <bool BUG> __global__ void divergent(const float *x, float *out) {
    if (BUG && threadIdx.x < 32)
        __syncthreads();
    else
        __syncthreads();
    out[blockIdx.x * BLOCK + threadIdx.x] = x[threadIdx.x];
}
template <bool BUG> __global__ void exited(const float *x, float *out) {
    if (BUG && threadIdx.x == 40) return;
    __syncthreads();
    out[blockIdx.x * BLOCK + threadIdx.x] = x[threadIdx.x];
}
// The tail of a loop leaves lanes out that the mask names.
template <bool BUG> __global__ void mask(const float *x, float *out) {
    float sum = x[threadIdx.x];
    if (!BUG || threadIdx.x % 32 < 20) sum += __shfl_xor_sync(0xffffffffu, sum, 1);
    out[blockIdx.x * BLOCK + threadIdx.x] = sum;
}
template <bool BUG> __global__ void bulk(const float *x, float *out) {
    SKALD_SHARED(float, row, BLOCK);
    SKALD_SHARED(uint64_t, full, 1);
    if (threadIdx.x == 0) skald_barrier_init(full, 1);
    __syncthreads();
    if (threadIdx.x == 0) skald_bulk_copy(row, x, sizeof row, full);
    if (!BUG) skald_barrier_wait(full, 0);
    out[blockIdx.x * BLOCK + threadIdx.x] = row[threadIdx.x];
}
// One row too many: red zone behind the allocation.
template <bool BUG> __global__ void behind(const float *x, float *out) {
    unsigned i = blockIdx.x * BLOCK + threadIdx.x;
    out[i + (BUG && i == N - 1 ? 3 : 0)] = x[i];
}
// A grid-stride loop whose stride is a block short: rows are counted twice.
template <bool BUG> __global__ void twice(const float *x, float *out) {
    float sum = 0;
    for (unsigned i = blockIdx.x * BLOCK + threadIdx.x; i < N; i += (gridDim.x - (BUG ? 1 : 0)) * BLOCK) sum += x[i];
    atomicAdd(&out[0], sum);
}

// --- running one -----------------------------------------------------------------------------------------------------

static float *x, *out, *pinned;
static unsigned *counter;
static cudaStream_t stream;
static float result[N];

static void upload(void) {
    if (cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) || cudaMalloc((void **)&x, N * sizeof(float)) ||
        cudaMalloc((void **)&out, N * sizeof(float)) || cudaMallocHost((void **)&pinned, N * sizeof(float)) ||
        cudaMalloc((void **)&counter, sizeof *counter))
        _exit(3);
    for (int i = 0; i < N; i++) pinned[i] = (float)(i + 1);
    cudaMemcpyAsync(x, pinned, sizeof result, cudaMemcpyHostToDevice, stream);
    cudaMemsetAsync(out, 0, sizeof result, stream);
    cudaMemsetAsync(counter, 0, sizeof *counter, stream);
}

static void download(void) {
    cudaMemcpyAsync(pinned, out, sizeof result, cudaMemcpyDeviceToHost, stream);
    cudaStreamSynchronize(stream);
    memcpy(result, pinned, sizeof result);
}

#define KERNEL(name)                                                                                                   \
    template <bool BUG> static void run_##name(void) {                                                                 \
        upload();                                                                                                      \
        SKALD_LAUNCH((name<BUG>), GRID, BLOCK, 0, stream, x, out);                                                     \
        download();                                                                                                    \
    }
KERNEL(barrier)
KERNEL(second_barrier)
KERNEL(warp_sync)
KERNEL(across_blocks)
KERNEL(overrun)
KERNEL(divergent)
KERNEL(exited)
KERNEL(mask)
KERNEL(bulk)
KERNEL(behind)
KERNEL(twice)

template <bool BUG> static void run_fence(void) {
    float *part;
    upload();
    if (cudaMalloc((void **)&part, GRID * sizeof *part)) _exit(3);
    SKALD_LAUNCH((fence<BUG>), GRID, BLOCK, 0, stream, x, part, counter, out);
    download();
}

template <bool BUG> static void run_stream_sync(void) {
    upload();
    SKALD_LAUNCH((barrier<false>), GRID, BLOCK, 0, stream, x, out);
    cudaMemcpyAsync(pinned, out, sizeof result, cudaMemcpyDeviceToHost, stream);
    if (!BUG) cudaStreamSynchronize(stream);
    memcpy(result, pinned, sizeof result);
}
// A second stream that does not wait for the first.
template <bool BUG> static void run_event(void) {
    cudaStream_t second;
    cudaEvent_t event;
    upload();
    if (cudaStreamCreateWithFlags(&second, cudaStreamNonBlocking) ||
        cudaEventCreateWithFlags(&event, cudaEventDisableTiming))
        _exit(3);
    cudaEventRecord(event, stream);
    if (!BUG) cudaStreamWaitEvent(second, event, 0);
    SKALD_LAUNCH((barrier<false>), GRID, BLOCK, 0, second, x, out);
    cudaMemcpyAsync(pinned + 0, out, sizeof result, cudaMemcpyDeviceToHost, second);
    cudaStreamSynchronize(second);
    memcpy(result, pinned, sizeof result);
}
// The pinned buffer is filled anew while the copy from it may not have run.
template <bool BUG> static void run_reuse(void) {
    upload();
    if (!BUG) cudaStreamSynchronize(stream);
    for (int i = 0; i < N; i++) pinned[i] = 0;
    SKALD_LAUNCH((barrier<false>), GRID, BLOCK, 0, stream, x, out);
    download();
}
template <bool BUG> static void run_host_read(void) {
    upload();
    cudaStreamSynchronize(stream);
    if (BUG)
        memcpy(result, x, sizeof result);
    else
        cudaMemcpy(result, x, sizeof result, cudaMemcpyDeviceToHost);
}
// Freed while a kernel that uses it is queued: CUDA's cudaFree waits, memory pools of one's own do not.
template <bool BUG> static void run_stale_pointer(void) {
    upload();
    if (BUG) cudaFree(x);
    SKALD_LAUNCH((barrier<false>), GRID, BLOCK, 0, stream, x, out);
    download();
}

struct mode {
    const char *streams, *blocks;
};
static const struct mode modes[] = {
    {"late", "forward"}, {"eager", "forward"}, {"late", "reverse"}, {"random:1", "random:1"}, {"random:2", "random:2"},
};
// Under TSan a process with its fibers takes long to make.
enum { MODES = TSAN ? 2 : sizeof modes / sizeof *modes };

struct planted {
    const char *name, *message; // expected on stderr; NULL: the result is wrong
    void (*good)(void), (*bad)(void);
    int tsan_only;
};
#define PLANTED(name, message, ...)                                                                                    \
    { #name, message, run_##name < false>, run_##name < true>, ##__VA_ARGS__ }
static const struct planted all[] = {
    PLANTED(barrier, NULL, 0),
    PLANTED(second_barrier, NULL, 0),
    PLANTED(warp_sync, NULL, 0),
    PLANTED(across_blocks, "data race", 1),
    PLANTED(fence, "data race", 1),
    PLANTED(overrun, ASAN ? "use-after-poison" : "outside its arrays", 0),
    PLANTED(divergent, "divergent __syncthreads", 0),
    PLANTED(exited, "thread 40 has returned", 0),
    PLANTED(mask, "does not take part", 0),
    PLANTED(bulk, NULL, 0),
    PLANTED(behind, ASAN ? "use-after-poison" : "behind the end", 0),
    PLANTED(twice, NULL, 0),
    PLANTED(stream_sync, NULL, 0),
    PLANTED(event, NULL, 0),
    PLANTED(reuse, NULL, 0),
    PLANTED(host_read, "the host touched device memory", 0),
    PLANTED(stale_pointer, ASAN ? "use-after-poison" : NULL, 0),
};

struct outcome {
    int died;
    float result[N];
    char text[1 << 14];
};

// Runs it in a process of its own; what it computed and what it said.
static void run(void (*program)(void), const struct mode *mode, struct outcome *outcome) {
    int said[2], computed[2];
    assert_int_equal(pipe(said), 0);
    assert_int_equal(pipe(computed), 0);
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        dup2(said[1], STDERR_FILENO);
        signal(SIGSEGV, SIG_DFL); // cmocka's would report a failed test
        if (skald_emulated_streams(mode->streams) || skald_emulated_blocks(mode->blocks)) _exit(3);
        program();
        _exit(write(computed[1], result, sizeof result) == sizeof result ? 0 : 3);
    }
    close(said[1]);
    close(computed[1]);
    size_t length = 0;
    ssize_t got;
    char more[512];
    while ((got = read(said[0], more, sizeof more)) > 0) {
        size_t room = sizeof outcome->text - 1 - length, take = (size_t)got < room ? (size_t)got : room;
        memcpy(outcome->text + length, more, take);
        length += take;
    }
    outcome->text[length] = 0;
    memset(outcome->result, 0xff, sizeof outcome->result);
    got = read(computed[0], outcome->result, sizeof outcome->result);
    close(said[0]);
    close(computed[0]);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    outcome->died = !WIFEXITED(status) || WEXITSTATUS(status) != 0;
    assert_true(outcome->died || got == (ssize_t)sizeof outcome->result);
    assert_false(WIFEXITED(status) && WEXITSTATUS(status) == 3);
}

static void test_planted(void **state) {
    static struct outcome right, good, bad;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        int caught = 0;
        run(all[i].good, &modes[1], &right);
        for (int m = 0; m < MODES; m++) {
            run(all[i].good, &modes[m], &good);
            if (good.died)
                fail_msg("%s without its bug, mode %s %s: %s", all[i].name, modes[m].streams, modes[m].blocks,
                         good.text);
            assert_memory_equal(good.result, right.result, sizeof right.result);
            run(all[i].bad, &modes[m], &bad);
            // under TSan a race may be reported first, or instead
            int by_message = bad.died && ((all[i].message && strstr(bad.text, all[i].message)) ||
                                          (TSAN && strstr(bad.text, "ThreadSanitizer")));
            int by_result = !all[i].message && !bad.died && memcmp(bad.result, right.result, sizeof right.result) != 0;
            if (bad.died && !by_message) fail_msg("%s died of something else: %s", all[i].name, bad.text);
            caught += by_message || by_result;
        }
        printf("%-16s caught in %d of %d modes\n", all[i].name, caught, MODES);
        if (TSAN || !all[i].tsan_only) assert_true(caught > 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_planted)};
    return cmocka_run_group_tests_name("planted bugs", tests, NULL, NULL);
}
