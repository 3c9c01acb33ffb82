// The emulated device does what CUDA says: indices, barriers, warps, atomics, shared memory, bulk copies.
#include "harness.h"

enum { N = 1000, BLOCK = 256 };

__global__ void add(const float *a, const float *b, float *c, int n) {
    int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (i < n) c[i] = a[i] + b[i];
}

static void test_add(void **state) {
    cudaStream_t stream;
    float *a, *b, *c, host[3][N];
    CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    for (int i = 0; i < N; i++) host[0][i] = (float)i, host[1][i] = (float)(2 * i);
    CHECK(cudaMalloc((void **)&a, sizeof host[0]));
    CHECK(cudaMalloc((void **)&b, sizeof host[0]));
    CHECK(cudaMalloc((void **)&c, sizeof host[0]));
    CHECK(cudaMemcpyAsync(a, host[0], sizeof host[0], cudaMemcpyHostToDevice, stream));
    CHECK(cudaMemcpyAsync(b, host[1], sizeof host[1], cudaMemcpyHostToDevice, stream));
    SKALD_LAUNCH(add, (N + BLOCK - 1) / BLOCK, BLOCK, 0, stream, a, b, c, N);
    CHECK(cudaGetLastError());
    CHECK(cudaMemcpyAsync(host[2], c, sizeof host[2], cudaMemcpyDeviceToHost, stream));
    for (int i = 0; i < N; i++) assert_true(host[2][i] == (float)(3 * i));
    CHECK(cudaFree(a));
    CHECK(cudaFree(b));
    CHECK(cudaFree(c));
    CHECK(cudaStreamDestroy(stream));
    assert_int_equal(skald_emulated_live(), 0);
}

// Sum of a block: shuffles in warps, shared memory between them.
template <class T> __global__ void sum(const T *x, int n, T *out) {
    SKALD_SHARED(T, part, 32);
    T mine = 0;
    for (int i = (int)(blockIdx.x * blockDim.x + threadIdx.x); i < n; i += (int)(gridDim.x * blockDim.x)) mine += x[i];
    for (int lanes = 16; lanes > 0; lanes /= 2) mine += __shfl_xor_sync(0xffffffffu, mine, lanes);
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = mine;
    __syncthreads();
    if (threadIdx.x < 32) {
        mine = threadIdx.x < blockDim.x / 32 ? part[threadIdx.x] : T(0);
        for (unsigned lanes = 16; lanes > 0; lanes /= 2) mine += __shfl_down_sync(0xffffffffu, mine, lanes);
        if (threadIdx.x == 0) out[blockIdx.x] = mine;
    }
}

template <class T> static void sum_as(void) {
    enum { GRID = 5 };
    T *x, *out, host[N], sums[GRID], total = 0;
    for (int i = 0; i < N; i++) host[i] = (T)i;
    CHECK(cudaMalloc((void **)&x, sizeof host));
    CHECK(cudaMalloc((void **)&out, sizeof sums));
    CHECK(cudaMemcpy(x, host, sizeof host, cudaMemcpyHostToDevice));
    SKALD_LAUNCH((sum<T>), GRID, BLOCK, 0, NULL, x, N, out);
    CHECK(cudaMemcpy(sums, out, sizeof sums, cudaMemcpyDeviceToHost));
    for (int i = 0; i < GRID; i++) total += sums[i];
    assert_true(total == (T)(N * (N - 1) / 2));
    CHECK(cudaFree(x));
    CHECK(cudaFree(out));
}

static void test_sum(void **state) {
    static const char *const orders[] = {"forward", "reverse", "random:1", "random:2"};
    for (int i = 0; i < 4; i++) {
        assert_int_equal(skald_emulated_blocks(orders[i]), 0);
        sum_as<float>();
        sum_as<double>();
        sum_as<int>();
        sum_as<unsigned>();
    }
    assert_int_equal(skald_emulated_blocks("sideways"), -1);
    assert_int_equal(skald_emulated_blocks("forward"), 0);
}

__global__ void warps(unsigned *out) {
    unsigned lane = threadIdx.x % 32, even = 0x55555555u;
    unsigned *mine = out + threadIdx.x * 8;
    mine[0] = __ballot_sync(0xffffffffu, lane % 3 == 0);
    mine[1] = (unsigned)__any_sync(0xffffffffu, lane == 40);
    mine[2] = __shfl_sync(0xffffffffu, lane * lane, 7);
    mine[3] = __shfl_sync(0xffffffffu, lane, 1, 8);
    mine[4] = __shfl_up_sync(0xffffffffu, lane, 1, 16);
    mine[5] = __shfl_down_sync(0xffffffffu, lane, 5, 16);
    mine[6] = lane % 2 ? 1 : __ballot_sync(even, lane < 16);
    mine[7] = (unsigned)__all_sync(0xffffffffu, lane < 32);
    __syncwarp();
}

static void test_warps(void **state) {
    unsigned *out, host[64 * 8];
    CHECK(cudaMalloc((void **)&out, sizeof host));
    SKALD_LAUNCH(warps, 1, 64, 0, NULL, out);
    CHECK(cudaMemcpy(host, out, sizeof host, cudaMemcpyDeviceToHost));
    for (unsigned i = 0; i < 64; i++) {
        unsigned lane = i % 32, *mine = host + i * 8;
        assert_int_equal(mine[0], 0x49249249u);
        assert_int_equal(mine[1], 0);
        assert_int_equal(mine[2], 49);
        assert_int_equal(mine[3], lane / 8 * 8 + 1);
        assert_int_equal(mine[4], lane % 16 ? lane - 1 : lane);
        assert_int_equal(mine[5], lane % 16 < 11 ? lane + 5 : lane);
        assert_int_equal(mine[6], lane % 2 ? 1 : 0x5555u);
        assert_int_equal(mine[7], 1);
    }
    CHECK(cudaFree(out));
}

// The last block adds up what all wrote.
__global__ void last_block(float *part, unsigned *count, float *out) {
    SKALD_SHARED(int, last, 1);
    if (threadIdx.x == 0) {
        part[blockIdx.x] = (float)blockIdx.x;
        __threadfence();
        last[0] = atomicAdd(count, 1u) == gridDim.x - 1;
    }
    __syncthreads();
    if (!last[0]) return;
    if (threadIdx.x == 0) {
        float sum = 0;
        for (unsigned i = 0; i < gridDim.x; i++) sum += part[i];
        *out = sum;
    }
}

__global__ void atomics(float *f, double *d, int *i, unsigned *u, unsigned long long *l) {
    atomicAdd(f, 1.0f);
    atomicAdd(d, 0.5);
    atomicAdd(i, -1);
    atomicMax(u, threadIdx.x);
    atomicAdd(l, 1ull << 32);
}

static void test_atomics(void **state) {
    struct values {
        float f, sum;
        double d;
        unsigned long long l;
        int i;
        unsigned u, count;
    } * device, host;
    float *part;
    CHECK(cudaMalloc((void **)&device, sizeof *device));
    CHECK(cudaMalloc((void **)&part, 50 * sizeof *part));
    CHECK(cudaMemset(device, 0, sizeof *device));
    SKALD_LAUNCH(atomics, 3, 64, 0, NULL, &device->f, &device->d, &device->i, &device->u, &device->l);
    SKALD_LAUNCH(last_block, 50, 64, 0, NULL, part, &device->count, &device->sum);
    CHECK(cudaMemcpy(&host, device, sizeof host, cudaMemcpyDeviceToHost));
    assert_true(host.f == 192 && host.d == 96 && host.i == -192 && host.u == 63 && host.l == 192ull << 32);
    assert_true(host.sum == 49 * 25 && host.count == 50);
    CHECK(cudaFree(device));
    CHECK(cudaFree(part));
}

// A ring of rows in shared memory, filled by bulk copies.
__global__ void ring(const float *x, int rows, float *out) {
    enum { SLOTS = 3, WIDTH = 64 };
    SKALD_EXTERN_SHARED(float, slots);
    SKALD_SHARED(uint64_t, full, SLOTS);
    if (threadIdx.x == 0)
        for (int s = 0; s < SLOTS; s++) skald_barrier_init(&full[s], 1);
    __syncthreads();
    if (threadIdx.x == 0)
        for (int r = 0; r < SLOTS && r < rows; r++)
            skald_bulk_copy(slots + r * WIDTH, x + r * WIDTH, WIDTH * sizeof(float), &full[r]);
    float sum = 0;
    for (int r = 0; r < rows; r++) {
        int slot = r % SLOTS;
        skald_barrier_wait(&full[slot], (unsigned)(r / SLOTS) & 1);
        sum += slots[slot * WIDTH + (int)threadIdx.x];
        __syncthreads();
        if (threadIdx.x == 0 && r + SLOTS < rows)
            skald_bulk_copy(slots + slot * WIDTH, x + (r + SLOTS) * WIDTH, WIDTH * sizeof(float), &full[slot]);
    }
    out[threadIdx.x] = sum;
}

static void test_bulk(void **state) {
    enum { ROWS = 11, WIDTH = 64 };
    static const char *const modes[] = {"late", "eager", "random:3"};
    float host[ROWS * WIDTH], sums[WIDTH], *x, *out;
    for (int i = 0; i < ROWS * WIDTH; i++) host[i] = (float)i;
    for (int m = 0; m < 3; m++) {
        assert_int_equal(skald_emulated_streams(modes[m]), 0);
        CHECK(cudaMalloc((void **)&x, sizeof host));
        CHECK(cudaMalloc((void **)&out, sizeof sums));
        CHECK(cudaMemcpy(x, host, sizeof host, cudaMemcpyHostToDevice));
        SKALD_LAUNCH(ring, 1, WIDTH, 3 * WIDTH * sizeof(float), NULL, x, ROWS, out);
        CHECK(cudaMemcpy(sums, out, sizeof sums, cudaMemcpyDeviceToHost));
        for (int i = 0; i < WIDTH; i++) assert_true(sums[i] == (float)(ROWS * i + WIDTH * ROWS * (ROWS - 1) / 2));
        CHECK(cudaFree(x));
        CHECK(cudaFree(out));
    }
    assert_int_equal(skald_emulated_streams("late"), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_add),     cmocka_unit_test(test_sum),  cmocka_unit_test(test_warps),
        cmocka_unit_test(test_atomics), cmocka_unit_test(test_bulk),
    };
    return cmocka_run_group_tests_name("the emulated device", tests, NULL, NULL);
}
