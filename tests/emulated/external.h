// How kernels, and the emulated cuBLAS and NCCL, get into streams of the emulated runtime.
#pragma once

#include "engine/engine.h"

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

// Launches a kernel; takes its arguments over. Errors are left for cudaGetLastError.
SKALD_EMULATED_EXPORT void skald_emulated_launch(const struct skald_emulated_kernel *kernel, cudaStream_t stream);

// Queues run(state) in the stream. It is called with device memory open, perhaps often: 0 means not yet, call again;
// anything else, done. Then release(state). pushes: another process or thread may wait for it, so it goes on even if
// this process makes no call. Returns what a launch would.
SKALD_EMULATED_EXPORT cudaError_t skald_emulated_enqueue(cudaStream_t stream, int (*run)(void *state),
                                                         void (*release)(void *state), void *state, int pushes);

#ifdef __cplusplus
}
#endif
