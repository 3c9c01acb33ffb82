// How a collective goes: chunk by chunk, every rank puts its part into its slot, waits until all have, takes what it
// needs from all of them in rank order (so that all ranks get the same bits), and says so before slots are written
// again.
#include "comm.h"

#include "../engine/engine.h"

#include <algorithm>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

size_t type_bytes(ncclDataType_t type) {
    switch (type) {
    case ncclInt8:
    case ncclUint8:
        return 1;
    case ncclInt32:
    case ncclUint32:
    case ncclFloat32:
        return 4;
    case ncclInt64:
    case ncclUint64:
    case ncclFloat64:
        return 8;
    }
    return 0;
}

template <class T> static void reduce_as(T *target, const T *source, size_t count, ncclRedOp_t op) {
    for (size_t i = 0; i < count; i++) switch (op) {
        case ncclSum:
        case ncclAvg:
            target[i] = (T)(target[i] + source[i]);
            break;
        case ncclProd:
            target[i] = (T)(target[i] * source[i]);
            break;
        case ncclMax:
            target[i] = source[i] > target[i] ? source[i] : target[i];
            break;
        case ncclMin:
            target[i] = source[i] < target[i] ? source[i] : target[i];
            break;
        }
}

#define FOR_TYPE(type, use)                                                                                            \
    switch (type) {                                                                                                    \
    case ncclInt8:                                                                                                     \
        use(int8_t);                                                                                                   \
        break;                                                                                                         \
    case ncclUint8:                                                                                                    \
        use(uint8_t);                                                                                                  \
        break;                                                                                                         \
    case ncclInt32:                                                                                                    \
        use(int32_t);                                                                                                  \
        break;                                                                                                         \
    case ncclUint32:                                                                                                   \
        use(uint32_t);                                                                                                 \
        break;                                                                                                         \
    case ncclInt64:                                                                                                    \
        use(int64_t);                                                                                                  \
        break;                                                                                                         \
    case ncclUint64:                                                                                                   \
        use(uint64_t);                                                                                                 \
        break;                                                                                                         \
    case ncclFloat32:                                                                                                  \
        use(float);                                                                                                    \
        break;                                                                                                         \
    case ncclFloat64:                                                                                                  \
        use(double);                                                                                                   \
        break;                                                                                                         \
    }

void reduce_into(void *target, const void *source, size_t count, ncclDataType_t type, ncclRedOp_t op) {
#define REDUCE_AS(T) reduce_as(static_cast<T *>(target), static_cast<const T *>(source), count, op)
    FOR_TYPE(type, REDUCE_AS)
}

void divide_by(void *target, size_t count, ncclDataType_t type, int ranks) {
#define DIVIDE_AS(T)                                                                                                   \
    for (size_t i = 0; i < count; i++) static_cast<T *>(target)[i] = (T)(static_cast<T *>(target)[i] / (T)ranks)
    FOR_TYPE(type, DIVIDE_AS)
}

static double now() {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

void comm_fail(ncclComm_t comm, ncclResult_t error, const std::string &problem) {
    int before = result_of(comm);
    if (before != ncclSuccess && before != ncclInProgress) return;
    comm->problem = problem;
    __atomic_store_n(&comm->result, (int)error, __ATOMIC_RELEASE);
}

// As over a network. Between cards of one machine NCCL may not notice at all: SKALD_EMULATED_NCCL=silent.
void comm_check_peers(ncclComm_t comm) {
    static const char *const how = getenv("SKALD_EMULATED_NCCL");
    static const bool silent = how && !strcmp(how, "silent");
    double time = now();
    if (silent || time - comm->checked < 0.02) return;
    comm->checked = time;
    int dead = segment_dead(&comm->shared);
    if (dead >= 0) comm_fail(comm, ncclRemoteError, "rank " + std::to_string(dead) + " is gone");
}

static void check_shapes(const collective *call) {
    const segment &shared = call->comm->shared;
    for (int i = 0; i < shared.ranks; i++) {
        const call_shape &other = shared.records[i].shape, &mine = call->shape;
        if (other.number != mine.number) continue; // it is on, its shape is for the next
        if (other.kind == mine.kind && other.type == mine.type && other.op == mine.op && other.root == mine.root &&
            other.count == mine.count)
            continue;
        skald_emulated_fail(
            "NCCL: ranks %d and %d disagree about collective %llu: kind %d and %d, count %llu and %llu, "
            "type %d and %d, op %d and %d, root %d and %d",
            shared.rank, i, (unsigned long long)mine.number, mine.kind, other.kind, (unsigned long long)mine.count,
            (unsigned long long)other.count, mine.type, other.type, mine.op, other.op, mine.root, other.root);
    }
}

static bool all_reached(const segment &shared, uint64_t rank_record::*counter, uint64_t value) {
    for (int i = 0; i < shared.ranks; i++)
        if (__atomic_load_n(&(shared.records[i].*counter), __ATOMIC_ACQUIRE) < value) return false;
    return true;
}

// Takes this chunk, bytes [done, done + bytes) of every rank's send buffer, out of the slots.
static void take(const collective *call, size_t bytes) {
    const segment &shared = call->comm->shared;
    ncclDataType_t type = (ncclDataType_t)call->shape.type;
    ncclRedOp_t op = (ncclRedOp_t)call->shape.op;
    size_t width = type_bytes(type), from = 0, to = bytes;
    char *target = call->receive + call->done;
    const auto slot = [&](int rank) { return shared.slots + (size_t)rank * CHUNK; };
    switch (call->shape.kind) {
    case ALL_GATHER:
        for (int i = 0; i < shared.ranks; i++) memcpy(target + (size_t)i * call->shape.count * width, slot(i), bytes);
        return;
    case BROADCAST:
        memcpy(target, slot(call->shape.root), bytes);
        return;
    case REDUCE:
        if (call->shape.root != shared.rank) return;
        break;
    case REDUCE_SCATTER: { // the part of the chunk that belongs to this rank
        size_t part = call->shape.count * width, begin = part * (size_t)shared.rank, end = begin + part;
        from = std::min(std::max(begin, call->done), call->done + bytes) - call->done;
        to = std::min(std::max(end, call->done), call->done + bytes) - call->done;
        if (from >= to) return;
        target = call->receive + call->done + from - begin;
        break;
    }
    }
    memcpy(target, slot(0) + from, to - from);
    for (int i = 1; i < shared.ranks; i++) reduce_into(target, slot(i) + from, (to - from) / width, type, op);
    if (op == ncclAvg) divide_by(target, (to - from) / width, type, shared.ranks);
}

static size_t send_bytes(const collective *call) {
    size_t bytes = call->shape.count * type_bytes((ncclDataType_t)call->shape.type);
    return call->shape.kind == REDUCE_SCATTER ? bytes * (size_t)call->comm->shared.ranks : bytes;
}

// One step; false if it must wait for others.
static bool step(collective *call, size_t total) {
    ncclComm_t comm = call->comm;
    segment &shared = comm->shared;
    rank_record *mine = &shared.records[shared.rank];
    size_t bytes = std::min(total - call->done, (size_t)CHUNK);
    uint64_t chunk = comm->chunks;
    if (!call->wrote) {
        if (!all_reached(shared, &rank_record::read, chunk)) return false;
        if (call->shape.kind != BROADCAST || call->shape.root == shared.rank)
            memcpy(shared.slots + (size_t)shared.rank * CHUNK, call->send + call->done, bytes);
        mine->shape = call->shape;
        __atomic_store_n(&mine->wrote, chunk + 1, __ATOMIC_RELEASE);
        call->wrote = true;
    }
    if (!all_reached(shared, &rank_record::wrote, chunk + 1)) return false;
    check_shapes(call);
    take(call, bytes);
    __atomic_store_n(&mine->read, chunk + 1, __ATOMIC_RELEASE);
    comm->chunks = chunk + 1;
    call->done += bytes;
    call->wrote = false;
    return true;
}

static int finish(collective *call) {
    call->comm->finished++;
    __atomic_sub_fetch(&call->comm->flying, 1, __ATOMIC_RELEASE);
    return 1;
}

int collective_run(void *state) {
    collective *call = static_cast<collective *>(state);
    ncclComm_t comm = call->comm;
    size_t total = send_bytes(call);
    if (comm->finished != call->shape.number) return 0; // an earlier one of this communicator, in another stream
    for (int spins = 0; call->done < total;) {
        if (__atomic_load_n(&comm->aborted, __ATOMIC_ACQUIRE)) {
            bool receives = call->shape.kind != REDUCE || call->shape.root == comm->shared.rank;
            if (receives) memset(call->receive, 0xff, call->shape.count * type_bytes((ncclDataType_t)call->shape.type));
            return finish(call);
        }
        // After an error it hangs until it is aborted, as on a device.
        if (result_of(comm) != ncclSuccess) return 0;
        if (step(call, total)) continue;
        if (++spins > 10) {
            comm_check_peers(comm);
            return 0;
        }
        sched_yield();
    }
    return finish(call);
}

void collective_release(void *state) {
    collective *call = static_cast<collective *>(state);
    comm_unref(call->comm);
    delete call;
}
