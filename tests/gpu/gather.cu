#include "tests/gpu/gather.h"

#include "kernels/device.cuh"

__global__ void __launch_bounds__(256)
    gather(uint4 *to, const uint4 *from, const uint32_t *list, uint64_t count, size_t chunks) {
    for (uint64_t k = blockIdx.x; k < count; k += gridDim.x) {
        const uint4 *row = from + (size_t)list[k] * chunks;
        for (size_t j = threadIdx.x; j < chunks; j += blockDim.x) to[k * chunks + j] = row[j];
    }
}

extern "C" int gather_rows(void *to, const void *from, const uint32_t *list, uint64_t count, size_t row_bytes,
                           skald_gpu_stream stream) {
    const unsigned blocks = count < 65536 ? (unsigned)count : 65536;
    SKALD_LAUNCH(gather, blocks, 256, 0, stream, (uint4 *)to, (const uint4 *)from, list, count, row_bytes / 16);
    return cudaGetLastError();
}
