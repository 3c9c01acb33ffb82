/* What Skald uses of NCCL's binary interface, declared here because the library is opened at run time if it is there:
 * neither its header nor the library is needed to build. Values and layouts are those that all versions since 2.14
 * share. */
#ifndef SKALD_COLLECTIVE_NCCL_API_H
#define SKALD_COLLECTIVE_NCCL_API_H

#include <cuda_runtime_api.h>
#include <stddef.h>

typedef struct ncclComm *nccl_comm;

typedef struct nccl_id { /* ncclUniqueId */
    char bytes[128];
} nccl_id;

typedef struct nccl_config { /* the beginning of ncclConfig_t: `size` and `version` say how much of it there is */
    size_t size;
    unsigned magic, version;
    int blocking;
} nccl_config;

enum { NCCL_CONFIG_MAGIC = (int)0xcafebeef, NCCL_CONFIG_VERSION = 21400 };

/* ncclResult_t */
enum {
    NCCL_SUCCESS = 0,
    NCCL_UNHANDLED_CUDA_ERROR = 1,
    NCCL_SYSTEM_ERROR = 2,
    NCCL_INTERNAL_ERROR = 3,
    NCCL_REMOTE_ERROR = 6,
    NCCL_IN_PROGRESS = 7
};
enum { NCCL_FLOAT64 = 8 }; /* ncclDataType_t */
enum { NCCL_SUM = 0 };     /* ncclRedOp_t */

typedef struct nccl_api {
    int (*ncclGetVersion)(int *version);
    int (*ncclGetUniqueId)(nccl_id *id);
    int (*ncclCommInitRankConfig)(nccl_comm *comm, int size, nccl_id id, int rank, nccl_config *config);
    int (*ncclCommGetAsyncError)(nccl_comm comm, int *error);
    int (*ncclCommFinalize)(nccl_comm comm);
    int (*ncclCommDestroy)(nccl_comm comm);
    int (*ncclCommAbort)(nccl_comm comm);
    int (*ncclAllReduce)(const void *from, void *to, size_t count, int type, int operation, nccl_comm comm,
                         cudaStream_t stream);
    int (*ncclBroadcast)(const void *from, void *to, size_t count, int type, int root, nccl_comm comm,
                         cudaStream_t stream);
    int (*ncclGroupStart)(void);
    int (*ncclGroupEnd)(void);
    const char *(*ncclGetErrorString)(int error);
    const char *(*ncclGetLastError)(nccl_comm comm);
} nccl_api;

#endif
