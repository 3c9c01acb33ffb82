// The part of CUDA's runtime interface that Skald uses, for the emulated device: the same names and values as in the
// real header, so that code compiles against either. What a call does beyond CUDA's description is said in
// tests/emulated/README.md.
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CUDART_VERSION 13000
#ifndef CUDARTAPI
#define CUDARTAPI __attribute__((visibility("default")))
#endif
#define CUDART_CB

typedef enum cudaError {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorInitializationError = 3,
    cudaErrorInvalidConfiguration = 9,
    cudaErrorInvalidHostPointer = 16,
    cudaErrorInvalidDevicePointer = 17,
    cudaErrorInvalidMemcpyDirection = 21,
    cudaErrorStubLibrary = 34,
    cudaErrorInsufficientDriver = 35,
    cudaErrorInvalidDeviceFunction = 98,
    cudaErrorNoDevice = 100,
    cudaErrorInvalidDevice = 101,
    cudaErrorNoKernelImageForDevice = 209,
    cudaErrorInvalidResourceHandle = 400,
    cudaErrorIllegalState = 401,
    cudaErrorNotReady = 600,
    cudaErrorIllegalAddress = 700,
    cudaErrorLaunchOutOfResources = 701,
    cudaErrorLaunchTimeout = 702,
    cudaErrorLaunchFailure = 719,
    cudaErrorNotPermitted = 800,
    cudaErrorNotSupported = 801,
    cudaErrorStreamCaptureUnsupported = 900,
    cudaErrorStreamCaptureInvalidated = 901,
    cudaErrorStreamCaptureMerge = 902,
    cudaErrorStreamCaptureUnmatched = 903,
    cudaErrorStreamCaptureUnjoined = 904,
    cudaErrorStreamCaptureIsolation = 905,
    cudaErrorStreamCaptureImplicit = 906,
    cudaErrorCapturedEvent = 907,
    cudaErrorUnknown = 999,
} cudaError_t;

typedef struct CUstream_st *cudaStream_t;
typedef struct CUevent_st *cudaEvent_t;
typedef struct CUgraph_st *cudaGraph_t;
typedef struct CUgraphExec_st *cudaGraphExec_t;

enum cudaMemcpyKind {
    cudaMemcpyHostToHost = 0,
    cudaMemcpyHostToDevice = 1,
    cudaMemcpyDeviceToHost = 2,
    cudaMemcpyDeviceToDevice = 3,
    cudaMemcpyDefault = 4,
};

enum cudaStreamCaptureMode {
    cudaStreamCaptureModeGlobal = 0,
    cudaStreamCaptureModeThreadLocal = 1,
    cudaStreamCaptureModeRelaxed = 2,
};

enum cudaStreamCaptureStatus {
    cudaStreamCaptureStatusNone = 0,
    cudaStreamCaptureStatusActive = 1,
    cudaStreamCaptureStatusInvalidated = 2,
};

enum cudaFuncAttribute {
    cudaFuncAttributeMaxDynamicSharedMemorySize = 8,
    cudaFuncAttributePreferredSharedMemoryCarveout = 9,
};

enum cudaDeviceAttr {
    cudaDevAttrMaxThreadsPerBlock = 1,
    cudaDevAttrMaxSharedMemoryPerBlock = 8,
    cudaDevAttrWarpSize = 10,
    cudaDevAttrClockRate = 13,
    cudaDevAttrMultiProcessorCount = 16,
    cudaDevAttrCanMapHostMemory = 19,
    cudaDevAttrMemoryClockRate = 36,
    cudaDevAttrGlobalMemoryBusWidth = 37,
    cudaDevAttrL2CacheSize = 38,
    cudaDevAttrMaxThreadsPerMultiProcessor = 39,
    cudaDevAttrAsyncEngineCount = 40,
    cudaDevAttrComputeCapabilityMajor = 75,
    cudaDevAttrComputeCapabilityMinor = 76,
    cudaDevAttrMaxSharedMemoryPerMultiprocessor = 81,
    cudaDevAttrMaxSharedMemoryPerBlockOptin = 97,
};

#define cudaHostAllocDefault 0x00
#define cudaHostAllocPortable 0x01
#define cudaHostAllocMapped 0x02
#define cudaHostAllocWriteCombined 0x04
#define cudaStreamDefault 0x00
#define cudaStreamNonBlocking 0x01
#define cudaStreamLegacy ((cudaStream_t)0x1)
#define cudaEventDefault 0x00
#define cudaEventBlockingSync 0x01
#define cudaEventDisableTiming 0x02

struct cudaDeviceProp {
    char name[256];
    size_t totalGlobalMem;
    size_t sharedMemPerBlock;
    int warpSize;
    int maxThreadsPerBlock;
    int major;
    int minor;
    int multiProcessorCount;
    int canMapHostMemory;
    int pciBusID;
    int pciDeviceID;
    int pciDomainID;
    int asyncEngineCount;
    int memoryBusWidth;
    int l2CacheSize;
    int maxThreadsPerMultiProcessor;
    size_t sharedMemPerMultiprocessor;
    size_t sharedMemPerBlockOptin;
};

typedef void(CUDART_CB *cudaHostFn_t)(void *userData);

CUDARTAPI cudaError_t cudaRuntimeGetVersion(int *version);
CUDARTAPI cudaError_t cudaDriverGetVersion(int *version);
CUDARTAPI cudaError_t cudaGetLastError(void);
CUDARTAPI cudaError_t cudaPeekAtLastError(void);
CUDARTAPI const char *cudaGetErrorString(cudaError_t error);
CUDARTAPI const char *cudaGetErrorName(cudaError_t error);

CUDARTAPI cudaError_t cudaGetDeviceCount(int *count);
CUDARTAPI cudaError_t cudaSetDevice(int device);
CUDARTAPI cudaError_t cudaGetDevice(int *device);
CUDARTAPI cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *properties, int device);
CUDARTAPI cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device);
CUDARTAPI cudaError_t cudaDeviceGetPCIBusId(char *text, int bytes, int device);
CUDARTAPI cudaError_t cudaDeviceSynchronize(void);
CUDARTAPI cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total_bytes);

CUDARTAPI cudaError_t cudaMalloc(void **pointer, size_t bytes);
CUDARTAPI cudaError_t cudaFree(void *pointer);
CUDARTAPI cudaError_t cudaMallocHost(void **pointer, size_t bytes);
CUDARTAPI cudaError_t cudaHostAlloc(void **pointer, size_t bytes, unsigned flags);
CUDARTAPI cudaError_t cudaFreeHost(void *pointer);
CUDARTAPI cudaError_t cudaHostGetDevicePointer(void **device, void *host, unsigned flags);
CUDARTAPI cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind);
CUDARTAPI cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind,
                                      cudaStream_t stream);
CUDARTAPI cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width,
                                        size_t height, enum cudaMemcpyKind kind, cudaStream_t stream);
CUDARTAPI cudaError_t cudaMemset(void *to, int byte, size_t bytes);
CUDARTAPI cudaError_t cudaMemsetAsync(void *to, int byte, size_t bytes, cudaStream_t stream);

CUDARTAPI cudaError_t cudaStreamCreate(cudaStream_t *stream);
CUDARTAPI cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags);
CUDARTAPI cudaError_t cudaStreamDestroy(cudaStream_t stream);
CUDARTAPI cudaError_t cudaStreamSynchronize(cudaStream_t stream);
CUDARTAPI cudaError_t cudaStreamQuery(cudaStream_t stream);
CUDARTAPI cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags);
CUDARTAPI cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void *argument);
CUDARTAPI cudaError_t cudaEventCreate(cudaEvent_t *event);
CUDARTAPI cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags);
CUDARTAPI cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
CUDARTAPI cudaError_t cudaEventSynchronize(cudaEvent_t event);
CUDARTAPI cudaError_t cudaEventQuery(cudaEvent_t event);
CUDARTAPI cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t start, cudaEvent_t end);
CUDARTAPI cudaError_t cudaEventDestroy(cudaEvent_t event);

CUDARTAPI cudaError_t cudaFuncSetAttribute(const void *function, enum cudaFuncAttribute attribute, int value);
CUDARTAPI cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, const void *function, int threads,
                                                                    size_t shared);

CUDARTAPI cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode);
CUDARTAPI cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph);
CUDARTAPI cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *status);
// As since CUDA 12: three arguments.
CUDARTAPI cudaError_t cudaGraphInstantiate(cudaGraphExec_t *executable, cudaGraph_t graph, unsigned long long flags);
CUDARTAPI cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream);
CUDARTAPI cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable);
CUDARTAPI cudaError_t cudaGraphDestroy(cudaGraph_t graph);

#ifdef __cplusplus
}
#endif
