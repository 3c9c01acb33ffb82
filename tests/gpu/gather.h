/* What a library without a fused kernel does first with random rows. Device pointers; 16 bytes a thread at a time. */
#ifndef SKALD_TESTS_GPU_GATHER_H
#define SKALD_TESTS_GPU_GATHER_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif
/* to row k = from row list[k]; returns a cudaError_t */
int gather_rows(void *to, const void *from, const uint32_t *list, uint64_t count, size_t row_bytes,
                skald_gpu_stream stream);
#ifdef __cplusplus
}
#endif

#endif
