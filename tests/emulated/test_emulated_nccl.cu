// The emulated NCCL, between processes and between threads: every collective, dead peers, abort and shrink.
#include "harness.h"
#include "nccl/nccl.h"

#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

// Opened as the program opens NCCL, not linked.
#define NCCL(name) name##_
#define DECLARE(name) static decltype(&name) name##_
DECLARE(ncclGetUniqueId);
DECLARE(ncclCommInitRankConfig);
DECLARE(ncclCommGetAsyncError);
DECLARE(ncclCommAbort);
DECLARE(ncclCommDestroy);
DECLARE(ncclCommFinalize);
DECLARE(ncclCommShrink);
DECLARE(ncclCommCount);
DECLARE(ncclCommUserRank);
DECLARE(ncclAllReduce);
DECLARE(ncclReduce);
DECLARE(ncclBroadcast);
DECLARE(ncclAllGather);
DECLARE(ncclReduceScatter);
DECLARE(ncclGroupStart);
DECLARE(ncclGroupEnd);

static void open_library(void) {
    void *library = dlopen(SKALD_NCCL, RTLD_NOW | RTLD_LOCAL);
    if (!library) fail_msg("%s", dlerror());
#define FIND(name) name##_ = reinterpret_cast<decltype(&name)>(dlsym(library, #name)), assert_non_null(name##_)
    FIND(ncclGetUniqueId), FIND(ncclCommInitRankConfig), FIND(ncclCommGetAsyncError), FIND(ncclCommAbort);
    FIND(ncclCommDestroy), FIND(ncclCommFinalize), FIND(ncclCommShrink), FIND(ncclCommCount);
    FIND(ncclCommUserRank), FIND(ncclAllReduce), FIND(ncclReduce), FIND(ncclBroadcast), FIND(ncclAllGather);
    FIND(ncclReduceScatter), FIND(ncclGroupStart), FIND(ncclGroupEnd);
}

// In a child process a failed check is an exit status: cmocka's would go on in a copy of the parent.
#define REQUIRE(condition)                                                                                             \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                            \
            _exit(1);                                                                                                  \
        }                                                                                                              \
    } while (0)

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static ncclResult_t settle(ncclComm_t comm) {
    ncclResult_t result = ncclInProgress;
    double start = seconds();
    while (result == ncclInProgress && seconds() - start < 20) {
        REQUIRE(NCCL(ncclCommGetAsyncError)(comm, &result) == ncclSuccess);
        usleep(100);
    }
    return result;
}

static ncclComm_t join(const ncclUniqueId *id, int ranks, int rank, int blocking) {
    struct {
        ncclConfig_t head;
        char rest[80];
    } config = {};
    config.head = {sizeof config, 0xcafebeef, 22809, blocking};
    ncclComm_t comm;
    ncclResult_t result = NCCL(ncclCommInitRankConfig)(&comm, ranks, *id, rank, &config.head);
    REQUIRE(result == (blocking ? ncclSuccess : ncclInProgress));
    REQUIRE(blocking || settle(comm) == ncclSuccess);
    return comm;
}

// Everything a rank does, with values that tell ranks and places apart. Sizes around the size of a chunk.
static void collectives(ncclComm_t comm, int ranks, int rank, int count) {
    size_t bytes = (size_t)count * sizeof(double) * (size_t)ranks;
    double *host = (double *)malloc(bytes), *device, *out;
    cudaStream_t stream;
    REQUIRE(!cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    REQUIRE(!cudaMalloc((void **)&device, bytes) && !cudaMalloc((void **)&out, bytes));
    for (int i = 0; i < count * ranks; i++) host[i] = i % 1000 + 1000.0 * rank + 0.1;
    REQUIRE(!cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, stream));
    double ranks_sum = 1000.0 * ranks * (ranks - 1) / 2;
    const auto fetch = [&](size_t from_bytes) {
        REQUIRE(settle(comm) == ncclSuccess);
        REQUIRE(!cudaMemcpyAsync(host, out, from_bytes, cudaMemcpyDeviceToHost, stream));
    };
    size_t one = (size_t)count * sizeof(double);
    REQUIRE(NCCL(ncclAllReduce)(device, out, (size_t)count, ncclFloat64, ncclSum, comm, stream) <= ncclInProgress);
    fetch(one);
    for (int i = 0; i < count; i++) REQUIRE(fabs(host[i] - (ranks * (i % 1000 + 0.1) + ranks_sum)) < 1e-6);
    REQUIRE(!NCCL(ncclAllReduce)(device, out, (size_t)count, ncclFloat64, ncclMax, comm, stream));
    fetch(one);
    for (int i = 0; i < count; i++) REQUIRE(host[i] == i % 1000 + 1000.0 * (ranks - 1) + 0.1);
    REQUIRE(!NCCL(ncclBroadcast)(device, out, (size_t)count, ncclFloat64, ranks - 1, comm, stream));
    fetch(one);
    for (int i = 0; i < count; i++) REQUIRE(host[i] == i % 1000 + 1000.0 * (ranks - 1) + 0.1);
    REQUIRE(!NCCL(ncclReduce)(device, out, (size_t)count, ncclFloat64, ncclMin, 0, comm, stream));
    fetch(one);
    for (int i = 0; i < count; i++) REQUIRE(host[i] == i % 1000 + (rank ? 1000.0 * (ranks - 1) : 0) + 0.1);
    REQUIRE(!NCCL(ncclAllGather)(device, out, (size_t)count, ncclFloat64, comm, stream));
    fetch(bytes);
    for (int r = 0; r < ranks; r++)
        for (int i = 0; i < count; i++) REQUIRE(host[r * count + i] == i % 1000 + 1000.0 * r + 0.1);
    REQUIRE(!NCCL(ncclReduceScatter)(device, out, (size_t)count, ncclFloat64, ncclSum, comm, stream));
    fetch(one);
    for (int i = 0; i < count; i++)
        REQUIRE(fabs(host[i] - (ranks * ((rank * count + i) % 1000 + 0.1) + ranks_sum)) < 1e-6);
    REQUIRE(!cudaFree(device) && !cudaFree(out) && !cudaStreamDestroy(stream));
    free(host);
}

static int run_rank(const ncclUniqueId *id, int ranks, int rank, int blocking) {
    ncclComm_t comm = join(id, ranks, rank, blocking);
    int number;
    REQUIRE(!NCCL(ncclCommCount)(comm, &number) && number == ranks);
    REQUIRE(!NCCL(ncclCommUserRank)(comm, &number) && number == rank);
    collectives(comm, ranks, rank, 7);
    collectives(comm, ranks, rank, 200000);
    ncclResult_t result = NCCL(ncclCommFinalize)(comm);
    REQUIRE(result == (blocking ? ncclSuccess : ncclInProgress) && settle(comm) == ncclSuccess);
    REQUIRE(!NCCL(ncclCommDestroy)(comm));
    return 0;
}

static void expect_exit(pid_t child, int status) {
    int got;
    assert_int_equal(waitpid(child, &got, 0), child);
    assert_true(status < 0 ? WIFSIGNALED(got) : WIFEXITED(got) && WEXITSTATUS(got) == status);
}

static void test_processes(void **state) {
    enum { RANKS = 3 };
    for (int blocking = 0; blocking < 2; blocking++) {
        ncclUniqueId id;
        pid_t children[RANKS];
        assert_int_equal(NCCL(ncclGetUniqueId)(&id), ncclSuccess);
        for (int rank = 0; rank < RANKS; rank++)
            if ((children[rank] = fork()) == 0) _exit(run_rank(&id, RANKS, rank, blocking));
        for (int rank = 0; rank < RANKS; rank++) expect_exit(children[rank], 0);
    }
}

// A rank is killed in the middle; the others see it, abort or shrink, and go on without it.
static int survive(const ncclUniqueId *id, int ranks, int rank, int victim, int flags) {
    ncclComm_t comm = join(id, ranks, rank, 0), next;
    collectives(comm, ranks, rank, 100);
    if (rank == victim) raise(SIGKILL);
    double *device, host[10] = {0};
    cudaStream_t stream;
    REQUIRE(!cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    REQUIRE(!cudaMalloc((void **)&device, sizeof host));
    REQUIRE(!cudaMemcpyAsync(device, host, sizeof host, cudaMemcpyHostToDevice, stream));
    double start = seconds();
    ncclResult_t result = NCCL(ncclAllReduce)(device, device, 10, ncclFloat64, ncclSum, comm, stream);
    REQUIRE(result == ncclSuccess || result == ncclRemoteError);
    while (cudaStreamQuery(stream) == cudaErrorNotReady && result != ncclRemoteError) {
        REQUIRE(!NCCL(ncclCommGetAsyncError)(comm, &result));
        REQUIRE(seconds() - start < 10);
        usleep(100);
    }
    REQUIRE(result == ncclRemoteError);
    if (flags) {
        REQUIRE(NCCL(ncclCommShrink)(comm, &victim, 1, &next, NULL, NCCL_SHRINK_ABORT) == ncclInProgress);
        REQUIRE(!NCCL(ncclCommAbort)(comm));
        REQUIRE(!cudaStreamSynchronize(stream));
        REQUIRE(settle(next) == ncclSuccess);
        int now = rank - (rank > victim), number;
        REQUIRE(!NCCL(ncclCommUserRank)(next, &number) && number == now);
        collectives(next, ranks - 1, now, 1000);
        REQUIRE(!NCCL(ncclCommDestroy)(next));
    } else {
        REQUIRE(!NCCL(ncclCommAbort)(comm));
        REQUIRE(!cudaStreamSynchronize(stream));
    }
    REQUIRE(!cudaFree(device) && !cudaStreamDestroy(stream));
    return 0;
}

static void test_killed(void **state) {
    enum { RANKS = 3 };
    for (int victim = 0; victim < RANKS; victim++) {
        ncclUniqueId id;
        pid_t children[RANKS];
        assert_int_equal(NCCL(ncclGetUniqueId)(&id), ncclSuccess);
        for (int rank = 0; rank < RANKS; rank++)
            if ((children[rank] = fork()) == 0) _exit(survive(&id, RANKS, rank, victim, victim != 1));
        // the killed one stays a zombie until the others are done
        for (int i = 1; i <= RANKS; i++) {
            int rank = (victim + i) % RANKS;
            expect_exit(children[rank], rank == victim ? -1 : 0);
        }
    }
}

// Where nobody notices a dead peer, a collective hangs until it is aborted.
static int hang(const ncclUniqueId *id, int rank) {
    setenv("SKALD_EMULATED_NCCL", "silent", 1);
    ncclComm_t comm = join(id, 2, rank, 0);
    collectives(comm, 2, rank, 10);
    if (rank == 1) raise(SIGKILL);
    double *device;
    REQUIRE(!cudaMalloc((void **)&device, 80));
    REQUIRE(!NCCL(ncclAllReduce)(device, device, 10, ncclFloat64, ncclSum, comm, NULL));
    for (double start = seconds(); seconds() - start < 0.5; usleep(1000)) {
        ncclResult_t result;
        REQUIRE(cudaStreamQuery(NULL) == cudaErrorNotReady);
        REQUIRE(!NCCL(ncclCommGetAsyncError)(comm, &result) && result == ncclSuccess);
    }
    REQUIRE(!NCCL(ncclCommAbort)(comm) && !cudaStreamSynchronize(NULL) && !cudaFree(device));
    return 0;
}

static void test_silent(void **state) {
    ncclUniqueId id;
    pid_t children[2];
    assert_int_equal(NCCL(ncclGetUniqueId)(&id), ncclSuccess);
    for (int rank = 0; rank < 2; rank++)
        if ((children[rank] = fork()) == 0) _exit(hang(&id, rank));
    expect_exit(children[0], 0);
    expect_exit(children[1], -1);
}

// A rank that never comes: the one that waits is told when it dies before.
static void test_killed_at_start(void **state) {
    ncclUniqueId id;
    assert_int_equal(NCCL(ncclGetUniqueId)(&id), ncclSuccess);
    pid_t waiting, killed;
    if ((killed = fork()) == 0) {
        ncclConfig_t config = {sizeof config, 0xcafebeef, 22809, 0};
        ncclComm_t comm;
        REQUIRE(NCCL(ncclCommInitRankConfig)(&comm, 3, id, 1, &config) == ncclInProgress);
        raise(SIGKILL);
    }
    if ((waiting = fork()) == 0) {
        ncclConfig_t config = {sizeof config, 0xcafebeef, 22809, 0};
        ncclComm_t comm;
        REQUIRE(NCCL(ncclCommInitRankConfig)(&comm, 3, id, 0, &config) == ncclInProgress);
        REQUIRE(settle(comm) == ncclRemoteError);
        REQUIRE(!NCCL(ncclCommAbort)(comm));
        _exit(0);
    }
    expect_exit(waiting, 0);
    expect_exit(killed, -1);
}

struct thread_rank {
    ncclUniqueId id;
    int ranks, rank, same_device;
    int result;
};

static void *thread_main(void *argument) {
    struct thread_rank *mine = (struct thread_rank *)argument;
    REQUIRE(!cudaSetDevice(mine->rank));
    mine->result = run_rank(&mine->id, mine->ranks, mine->rank, mine->rank % 2);
    return NULL;
}

static int run_threads(void) {
    enum { RANKS = 3 };
    struct thread_rank ranks[RANKS];
    pthread_t threads[RANKS];
    setenv("SKALD_EMULATED_DEVICES", "3", 1);
    REQUIRE(NCCL(ncclGetUniqueId)(&ranks[0].id) == ncclSuccess);
    for (int i = 0; i < RANKS; i++) {
        ranks[i] = {ranks[0].id, RANKS, i, 0, -1};
        REQUIRE(pthread_create(&threads[i], NULL, thread_main, &ranks[i]) == 0);
    }
    for (int i = 0; i < RANKS; i++) {
        pthread_join(threads[i], NULL);
        REQUIRE(ranks[i].result == 0);
    }
    return 0;
}

static void test_threads(void **state) {
    pid_t child = fork();
    if (child == 0) _exit(run_threads());
    expect_exit(child, 0);
}

// Ranks that do not agree on a collective are told.
static void test_disagreement(void **state) {
    ncclUniqueId id;
    pid_t children[2];
    assert_int_equal(NCCL(ncclGetUniqueId)(&id), ncclSuccess);
    for (int rank = 0; rank < 2; rank++) {
        if ((children[rank] = fork()) != 0) continue;
        if (!freopen("/dev/null", "w", stderr)) _exit(1);
        ncclComm_t comm = join(&id, 2, rank, 1);
        double *device;
        REQUIRE(!cudaMalloc((void **)&device, 80));
        NCCL(ncclAllReduce)(device, device, rank ? 9 : 10, ncclFloat64, ncclSum, comm, NULL);
        cudaDeviceSynchronize();
        _exit(0);
    }
    // One finds out and aborts; the other finds out too, or hangs as it would.
    int status = 0, other;
    pid_t first = 0;
    for (int waited = 0; first == 0 && waited < 20000; waited++) {
        for (int rank = 0; rank < 2 && first == 0; rank++) first = waitpid(children[rank], &status, WNOHANG);
        usleep(1000);
    }
    assert_true(first > 0);
    pid_t second = children[first == children[0]];
    kill(second, SIGKILL);
    assert_int_equal(waitpid(second, &other, 0), second);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

static int setup(void **state) {
    open_library();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_processes), cmocka_unit_test(test_killed),  cmocka_unit_test(test_killed_at_start),
        cmocka_unit_test(test_silent),    cmocka_unit_test(test_threads), cmocka_unit_test(test_disagreement),
    };
    return cmocka_run_group_tests_name("the emulated NCCL", tests, setup, NULL);
}
