// A communicator, and a collective on its way.
#pragma once

#include "nccl.h"
#include "segment.h"

#include <string>
#include <vector>

enum collective_kind { ALL_REDUCE, REDUCE, BROADCAST, ALL_GATHER, REDUCE_SCATTER };

struct collective {
    ncclComm_t comm;
    call_shape shape;
    const char *send;
    char *receive;
    cudaStream_t stream;
    int device;
    size_t done;      // bytes of the send buffer that are through
    bool wrote, told; // this chunk is in the slot; the shape is in the record
};

// Shared between the caller's threads and whoever runs its streams: what both touch is atomic.
struct ncclComm {
    segment shared;
    int device = 0;
    bool blocking = true;
    int references = 1;  // the handle, and each collective on its way
    int result = 0;      // ncclInProgress, ncclSuccess, or what went wrong for good
    int aborted = 0;     // collectives give up
    int flying = 0;      // collectives given to streams that are not done
    uint64_t issued = 0; // collectives; the next one's number
    uint64_t finished = 0;
    uint64_t chunks = 0;
    bool connected = false, finalizing = false;
    unsigned asked = 0; // polls of what is in progress
    double checked = 0;
    std::vector<collective *> deferred; // by a communicator that does not block: go to streams at a later poll
    int descendants = 0;
    std::string problem;
};

static inline int result_of(ncclComm_t comm) {
    return __atomic_load_n(&comm->result, __ATOMIC_ACQUIRE);
}

size_t type_bytes(ncclDataType_t type); // 0: unknown
// target = target op source, elementwise.
void reduce_into(void *target, const void *source, size_t count, ncclDataType_t type, ncclRedOp_t op);
void divide_by(void *target, size_t count, ncclDataType_t type, int ranks); // for ncclAvg

// Lets a collective go on; 1 when it is through (or given up). Called by the runtime, under its lock.
int collective_run(void *state);
void collective_release(void *state);
void comm_unref(ncclComm_t comm);
// Sets an error for good; the first one stays.
void comm_fail(ncclComm_t comm, ncclResult_t error, const std::string &problem);
// Looks for dead peers, not too often.
void comm_check_peers(ncclComm_t comm);
