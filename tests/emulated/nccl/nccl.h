// The part of NCCL's interface that is emulated: the same names, values and layout as in its header.
#pragma once

#include <cuda_runtime_api.h>

extern "C" {

enum ncclResult_t {
    ncclSuccess = 0,
    ncclUnhandledCudaError = 1,
    ncclSystemError = 2,
    ncclInternalError = 3,
    ncclInvalidArgument = 4,
    ncclInvalidUsage = 5,
    ncclRemoteError = 6,
    ncclInProgress = 7,
};
enum ncclRedOp_t { ncclSum = 0, ncclProd = 1, ncclMax = 2, ncclMin = 3, ncclAvg = 4 };
enum ncclDataType_t {
    ncclInt8 = 0,
    ncclUint8 = 1,
    ncclInt32 = 2,
    ncclUint32 = 3,
    ncclInt64 = 4,
    ncclUint64 = 5,
    ncclFloat32 = 7,
    ncclFloat64 = 8,
};
enum { NCCL_SHRINK_DEFAULT = 0, NCCL_SHRINK_ABORT = 1 };

struct ncclUniqueId {
    char internal[128];
};
// The beginning, which all versions share.
struct ncclConfig_t {
    size_t size;
    unsigned magic, version;
    int blocking;
};
typedef struct ncclComm *ncclComm_t;

#define NCCLAPI __attribute__((visibility("default")))
NCCLAPI ncclResult_t ncclGetVersion(int *version);
NCCLAPI ncclResult_t ncclGetUniqueId(ncclUniqueId *id);
NCCLAPI ncclResult_t ncclCommInitRank(ncclComm_t *comm, int ranks, ncclUniqueId id, int rank);
NCCLAPI ncclResult_t ncclCommInitRankConfig(ncclComm_t *comm, int ranks, ncclUniqueId id, int rank,
                                            ncclConfig_t *config);
NCCLAPI ncclResult_t ncclCommFinalize(ncclComm_t comm);
NCCLAPI ncclResult_t ncclCommDestroy(ncclComm_t comm);
NCCLAPI ncclResult_t ncclCommAbort(ncclComm_t comm);
NCCLAPI ncclResult_t ncclCommShrink(ncclComm_t comm, int *excluded, int count, ncclComm_t *result, ncclConfig_t *config,
                                    int flags);
NCCLAPI ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *error);
NCCLAPI ncclResult_t ncclCommCount(const ncclComm_t comm, int *count);
NCCLAPI ncclResult_t ncclCommCuDevice(const ncclComm_t comm, int *device);
NCCLAPI ncclResult_t ncclCommUserRank(const ncclComm_t comm, int *rank);
NCCLAPI const char *ncclGetErrorString(ncclResult_t result);
NCCLAPI const char *ncclGetLastError(ncclComm_t comm);
NCCLAPI ncclResult_t ncclAllReduce(const void *send, void *receive, size_t count, ncclDataType_t type, ncclRedOp_t op,
                                   ncclComm_t comm, cudaStream_t stream);
NCCLAPI ncclResult_t ncclReduce(const void *send, void *receive, size_t count, ncclDataType_t type, ncclRedOp_t op,
                                int root, ncclComm_t comm, cudaStream_t stream);
NCCLAPI ncclResult_t ncclBroadcast(const void *send, void *receive, size_t count, ncclDataType_t type, int root,
                                   ncclComm_t comm, cudaStream_t stream);
NCCLAPI ncclResult_t ncclBcast(void *buffer, size_t count, ncclDataType_t type, int root, ncclComm_t comm,
                               cudaStream_t stream);
NCCLAPI ncclResult_t ncclAllGather(const void *send, void *receive, size_t count, ncclDataType_t type, ncclComm_t comm,
                                   cudaStream_t stream);
NCCLAPI ncclResult_t ncclReduceScatter(const void *send, void *receive, size_t count, ncclDataType_t type,
                                       ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream);
NCCLAPI ncclResult_t ncclGroupStart(void);
NCCLAPI ncclResult_t ncclGroupEnd(void);
}
