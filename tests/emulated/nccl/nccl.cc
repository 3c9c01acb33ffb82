// NCCL's interface over shared memory.
#include "comm.h"

#include "../external.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

static thread_local int group_depth;
static thread_local std::vector<collective *> group_calls;
static thread_local std::vector<ncclComm_t> group_comms; // that are starting
static thread_local std::string last_problem;

static ncclResult_t refuse(ncclResult_t result, const std::string &problem) {
    last_problem = problem;
    return result;
}

void comm_unref(ncclComm_t comm) {
    if (__atomic_sub_fetch(&comm->references, 1, __ATOMIC_ACQ_REL)) return;
    segment_close(&comm->shared);
    delete comm;
}

// --- starting --------------------------------------------------------------------------------------------------------

// Whether all ranks have come; sets the result when they have.
static void look_for_ranks(ncclComm_t comm) {
    if (result_of(comm) != ncclInProgress) return;
    if (segment_attached(&comm->shared) < comm->shared.ranks) return comm_check_peers(comm);
    if (segment_shares_device(&comm->shared)) return comm_fail(comm, ncclInvalidUsage, "two ranks share a device");
    __atomic_store_n(&comm->result, (int)ncclSuccess, __ATOMIC_RELEASE);
}

static ncclResult_t wait_for_ranks(ncclComm_t comm) {
    while (look_for_ranks(comm), result_of(comm) == ncclInProgress) usleep(200);
    return (ncclResult_t)result_of(comm);
}

static ncclResult_t start(ncclComm_t *result, const std::string &name, int ranks, int rank, int blocking) {
    *result = nullptr;
    int device;
    if (cudaGetDevice(&device)) return refuse(ncclUnhandledCudaError, "no device");
    ncclComm_t comm = new ncclComm;
    if (segment_attach(&comm->shared, name.c_str(), ranks, rank, device)) {
        delete comm;
        return refuse(ncclSystemError, "cannot attach " + name);
    }
    comm->device = device;
    comm->blocking = blocking;
    comm->result = ncclInProgress;
    *result = comm;
    if (!blocking) return ncclInProgress;
    if (group_depth) {
        group_comms.push_back(comm);
        return ncclSuccess;
    }
    return wait_for_ranks(comm);
}

static ncclResult_t read_config(const ncclConfig_t *config, int inherited, int *blocking) {
    *blocking = inherited;
    if (!config) return ncclSuccess;
    if (config->magic != 0xcafebeef) return refuse(ncclInvalidArgument, "the configuration was not initialised");
    if (config->blocking == 0 || config->blocking == 1) *blocking = config->blocking;
    return ncclSuccess;
}

// --- collectives -----------------------------------------------------------------------------------------------------

// A communicator can be used when what was started is done.
static ncclResult_t usable(ncclComm_t comm) {
    if (!comm) return refuse(ncclInvalidArgument, "no communicator");
    int result = result_of(comm);
    if (result == ncclInProgress || !comm->deferred.empty() || comm->finalizing)
        return refuse(ncclInvalidArgument, "the communicator is used before its last call is done");
    return result == ncclSuccess ? ncclSuccess : refuse((ncclResult_t)result, comm->problem);
}

static ncclResult_t issue(collective *call) {
    int before;
    cudaGetDevice(&before);
    cudaSetDevice(call->device);
    ncclComm_t comm = call->comm;
    __atomic_add_fetch(&comm->flying, 1, __ATOMIC_RELEASE);
    cudaError_t error = skald_emulated_enqueue(call->stream, collective_run, collective_release, call, 1);
    if (error) __atomic_sub_fetch(&comm->flying, 1, __ATOMIC_RELEASE);
    cudaSetDevice(before);
    return error ? refuse(ncclUnhandledCudaError, cudaGetErrorString(error)) : ncclSuccess;
}

// The first collective of a communicator that does not block connects in the background: it is in its stream only after
// later polls. Others go at once.
static ncclResult_t submit(collective *call) {
    ncclComm_t comm = call->comm;
    if (comm->blocking || comm->connected) return issue(call);
    comm->deferred.push_back(call);
    comm->asked = 0;
    return ncclInProgress;
}

static ncclResult_t collect(collective_kind kind, const void *send, void *receive, size_t count, ncclDataType_t type,
                            int op, int root, ncclComm_t comm, cudaStream_t stream) {
    ncclResult_t result = usable(comm);
    if (result != ncclSuccess) return result;
    if (!type_bytes(type) || op < ncclSum || op > ncclAvg || root < 0 || root >= comm->shared.ranks)
        return refuse(ncclInvalidArgument, "type, operation or root");
    bool receives = kind != REDUCE || root == comm->shared.rank, sends = kind != BROADCAST || root == comm->shared.rank;
    if (count && ((receives && !receive) || (sends && !send))) return refuse(ncclInvalidArgument, "no buffer");
    collective *call = new collective();
    call->comm = comm;
    call->shape = {comm->issued++, count, kind, type, op, root};
    call->send = static_cast<const char *>(send);
    call->receive = static_cast<char *>(receive);
    call->stream = stream;
    call->device = comm->device;
    __atomic_add_fetch(&comm->references, 1, __ATOMIC_RELAXED);
    if (!group_depth) return submit(call);
    group_calls.push_back(call);
    return ncclSuccess;
}

extern "C" {

ncclResult_t ncclGetVersion(int *version) {
    *version = 22809;
    return ncclSuccess;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id) {
    uint64_t bits[2];
    memset(id, 0, sizeof *id);
    if (getrandom(bits, sizeof bits, 0) != sizeof bits) return refuse(ncclSystemError, "no random numbers");
    snprintf(id->internal, sizeof id->internal, "/skald-nccl-%016llx%016llx", (unsigned long long)bits[0],
             (unsigned long long)bits[1]);
    return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t *comm, int ranks, ncclUniqueId id, int rank, ncclConfig_t *config) {
    int blocking;
    ncclResult_t result = read_config(config, 1, &blocking);
    if (result != ncclSuccess) return result;
    if (!comm || ranks < 1 || ranks > MAX_RANKS || rank < 0 || rank >= ranks)
        return refuse(ncclInvalidArgument, "rank or number of ranks");
    if (strncmp(id.internal, "/skald-nccl-", 12) || strnlen(id.internal, sizeof id.internal) > 48)
        return refuse(ncclInvalidArgument, "not an id of this library");
    return start(comm, id.internal, ranks, rank, blocking);
}

ncclResult_t ncclCommInitRank(ncclComm_t *comm, int ranks, ncclUniqueId id, int rank) {
    return ncclCommInitRankConfig(comm, ranks, id, rank, nullptr);
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *error) {
    if (!comm || !error) return refuse(ncclInvalidArgument, "no communicator");
    if (result_of(comm) == ncclInProgress) {
        if (comm->asked++ > 0) look_for_ranks(comm);
    } else if (result_of(comm) == ncclSuccess) {
        comm_check_peers(comm);
    }
    *error = (ncclResult_t)result_of(comm);
    if (*error != ncclSuccess) return ncclSuccess;
    if (comm->finalizing && __atomic_load_n(&comm->flying, __ATOMIC_ACQUIRE)) *error = ncclInProgress;
    if (comm->deferred.empty()) return ncclSuccess;
    *error = ncclInProgress;
    if (comm->asked++ == 0) return ncclSuccess;
    comm->connected = true;
    std::vector<collective *> calls;
    calls.swap(comm->deferred);
    *error = ncclSuccess;
    for (collective *call : calls) {
        ncclResult_t result = issue(call);
        if (result != ncclSuccess) *error = result;
    }
    return ncclSuccess;
}

// Collectives on their way end by the runtime's own thread, at the latest.
static void flush(ncclComm_t comm) {
    while (__atomic_load_n(&comm->flying, __ATOMIC_ACQUIRE)) {
        int result = result_of(comm);
        if (result != ncclSuccess)
            skald_emulated_fail("NCCL: a communicator with an error (%s) must be aborted; this would hang",
                                comm->problem.c_str());
        usleep(200);
    }
}

static void leave(ncclComm_t comm, rank_state state) {
    for (collective *call : comm->deferred) collective_release(call);
    comm->deferred.clear();
    segment_leave(&comm->shared, state);
    comm_unref(comm);
}

ncclResult_t ncclCommFinalize(ncclComm_t comm) {
    ncclResult_t result = usable(comm);
    if (result != ncclSuccess) return result;
    comm->finalizing = true;
    if (!comm->blocking) return ncclInProgress;
    flush(comm);
    return ncclSuccess;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm) {
    if (!comm) return ncclSuccess;
    flush(comm);
    leave(comm, RANK_LEFT);
    return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t comm) {
    if (!comm) return ncclSuccess;
    __atomic_store_n(&comm->aborted, 1, __ATOMIC_RELEASE);
    leave(comm, RANK_ABORTED);
    return ncclSuccess;
}

ncclResult_t ncclCommShrink(ncclComm_t comm, int *excluded, int count, ncclComm_t *result, ncclConfig_t *config,
                            int flags) {
    if (!comm || !result || count < 1 || !excluded || count >= comm->shared.ranks)
        return refuse(ncclInvalidArgument, "which ranks to exclude");
    int blocking, rank = comm->shared.rank, before = 0;
    ncclResult_t status = read_config(config, comm->blocking, &blocking);
    if (status != ncclSuccess) return status;
    for (int i = 0; i < count; i++) {
        if (excluded[i] < 0 || excluded[i] >= comm->shared.ranks || excluded[i] == rank)
            return refuse(ncclInvalidArgument, "a rank that is not, or the caller, is excluded");
        for (int j = 0; j < i; j++)
            if (excluded[i] == excluded[j]) return refuse(ncclInvalidArgument, "a rank is excluded twice");
        before += excluded[i] < rank;
    }
    if (flags & NCCL_SHRINK_ABORT) {
        __atomic_store_n(&comm->aborted, 1, __ATOMIC_RELEASE);
        for (collective *call : comm->deferred) collective_release(call);
        comm->deferred.clear();
    } else if ((status = usable(comm)) != ncclSuccess) {
        return status;
    }
    std::string name = comm->shared.name + ("." + std::to_string(++comm->descendants));
    return start(result, name, comm->shared.ranks - count, rank - before, blocking);
}

ncclResult_t ncclCommCount(const ncclComm_t comm, int *count) {
    if (!comm || !count) return refuse(ncclInvalidArgument, "no communicator");
    *count = comm->shared.ranks;
    return ncclSuccess;
}

ncclResult_t ncclCommCuDevice(const ncclComm_t comm, int *device) {
    if (!comm || !device) return refuse(ncclInvalidArgument, "no communicator");
    *device = comm->device;
    return ncclSuccess;
}

ncclResult_t ncclCommUserRank(const ncclComm_t comm, int *rank) {
    if (!comm || !rank) return refuse(ncclInvalidArgument, "no communicator");
    *rank = comm->shared.rank;
    return ncclSuccess;
}

const char *ncclGetErrorString(ncclResult_t result) {
    static const char *const texts[] = {"no error",
                                        "unhandled cuda error",
                                        "unhandled system error",
                                        "internal error",
                                        "invalid argument",
                                        "invalid usage",
                                        "remote process exited or there was a network error",
                                        "NCCL operation in progress"};
    return result >= 0 && result <= ncclInProgress ? texts[result] : "unknown result code";
}

const char *ncclGetLastError(ncclComm_t comm) {
    if (comm && result_of(comm) != ncclSuccess && result_of(comm) != ncclInProgress) return comm->problem.c_str();
    return last_problem.c_str();
}

ncclResult_t ncclAllReduce(const void *send, void *receive, size_t count, ncclDataType_t type, ncclRedOp_t op,
                           ncclComm_t comm, cudaStream_t stream) {
    return collect(ALL_REDUCE, send, receive, count, type, op, 0, comm, stream);
}

ncclResult_t ncclReduce(const void *send, void *receive, size_t count, ncclDataType_t type, ncclRedOp_t op, int root,
                        ncclComm_t comm, cudaStream_t stream) {
    return collect(REDUCE, send, receive, count, type, op, root, comm, stream);
}

ncclResult_t ncclBroadcast(const void *send, void *receive, size_t count, ncclDataType_t type, int root,
                           ncclComm_t comm, cudaStream_t stream) {
    return collect(BROADCAST, send, receive, count, type, ncclSum, root, comm, stream);
}

ncclResult_t ncclBcast(void *buffer, size_t count, ncclDataType_t type, int root, ncclComm_t comm,
                       cudaStream_t stream) {
    return ncclBroadcast(buffer, buffer, count, type, root, comm, stream);
}

ncclResult_t ncclAllGather(const void *send, void *receive, size_t count, ncclDataType_t type, ncclComm_t comm,
                           cudaStream_t stream) {
    return collect(ALL_GATHER, send, receive, count, type, ncclSum, 0, comm, stream);
}

ncclResult_t ncclReduceScatter(const void *send, void *receive, size_t count, ncclDataType_t type, ncclRedOp_t op,
                               ncclComm_t comm, cudaStream_t stream) {
    return collect(REDUCE_SCATTER, send, receive, count, type, op, 0, comm, stream);
}

ncclResult_t ncclGroupStart(void) {
    group_depth++;
    return ncclSuccess;
}

ncclResult_t ncclGroupEnd(void) {
    if (!group_depth) return refuse(ncclInvalidUsage, "no group");
    if (--group_depth) return ncclSuccess;
    std::vector<collective *> calls;
    std::vector<ncclComm_t> comms;
    calls.swap(group_calls);
    comms.swap(group_comms);
    ncclResult_t result = ncclSuccess;
    for (ncclComm_t comm : comms) {
        ncclResult_t one = wait_for_ranks(comm);
        if (one != ncclSuccess) result = one;
    }
    for (collective *call : calls) {
        ncclResult_t one = submit(call);
        if (one != ncclSuccess && result == ncclSuccess) result = one;
    }
    return result;
}
}
