/* A little harness for programs that test kernels on a card or on the emulated device: it needs neither cmocka nor the
 * rest of Skald. A program calls check_begin (which skips, with the reason, where there is no device), its tests,
 * and returns check_end(). */
#ifndef SKALD_TESTS_GPU_CHECK_H
#define SKALD_TESTS_GPU_CHECK_H

#include <cuda_runtime_api.h>
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/kernels.h"

#define CHECK_SKIPPED 77 /* ctest's usual exit code for it */

static int check_failures, check_count;
static char check_where[256]; /* the case at hand, for messages */

static inline void check_that(bool good, const char *file, int line, const char *format, ...) {
    check_count++;
    if (good) return;
    if (++check_failures > 20) return; /* one bug makes many */
    va_list list;
    va_start(list, format);
    fprintf(stderr, "%s:%d: %s: ", file, line, check_where);
    vfprintf(stderr, format, list);
    fputc('\n', stderr);
    va_end(list);
}
#define CHECK(good, ...) check_that(good, __FILE__, __LINE__, __VA_ARGS__)
#define CUDA(call)                                                                                                     \
    do {                                                                                                               \
        const int error_ = (int)(call);                                                                                \
        if (error_ != 0) {                                                                                             \
            fprintf(stderr, "%s:%d: %s: %s: %s\n", __FILE__, __LINE__, check_where, #call,                             \
                    cudaGetErrorString((cudaError_t)error_));                                                          \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)
#define CASE(...) snprintf(check_where, sizeof check_where, __VA_ARGS__)

static cudaStream_t check_stream;
static skald_gpu_device check_device;

static inline int check_begin(void) {
    int devices = 0;
    const cudaError_t error = cudaGetDeviceCount(&devices);
    if (error != cudaSuccess || devices == 0) {
        printf("skipped: no device: %s\n", error == cudaSuccess ? "none found" : cudaGetErrorString(error));
        return CHECK_SKIPPED;
    }
    CUDA(cudaSetDevice(0));
    CUDA(skald_gpu_device_get(&check_device));
    CUDA(cudaStreamCreateWithFlags(&check_stream, cudaStreamNonBlocking));
    return 0;
}

static inline int check_end(const char *name) {
    CUDA(cudaStreamDestroy(check_stream));
    printf("%s: %d checks, %d failures\n", name, check_count, check_failures);
    return check_failures != 0;
}

/* ---- memory, released in the order of a stack -------------------------------------------------------- */

static void *check_device_memory[256], *check_host_memory[256];
static int check_device_used, check_host_used;

static inline void *host_take(size_t bytes) {
    void *p = calloc(1, bytes ? bytes : 1);
    if (!p || check_host_used == 256) abort();
    return check_host_memory[check_host_used++] = p;
}
/* Filled with bytes that make a NaN, so that what is read unwritten shows. */
static inline void *device_take(size_t bytes) {
    void *p = NULL;
    if (check_device_used == 256) abort();
    CUDA(cudaMalloc(&p, bytes ? bytes : 1));
    CUDA(cudaMemsetAsync(p, 0xff, bytes ? bytes : 1, check_stream));
    return check_device_memory[check_device_used++] = p;
}
static inline void to_device(void *to, const void *from, size_t bytes) {
    if (bytes) CUDA(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, check_stream));
    CUDA(cudaStreamSynchronize(check_stream));
}
static inline void *device_copy(const void *from, size_t bytes) {
    void *p = device_take(bytes);
    to_device(p, from, bytes);
    return p;
}
static inline void to_host(void *to, const void *from, size_t bytes) {
    if (bytes) CUDA(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, check_stream));
    CUDA(cudaStreamSynchronize(check_stream));
}
typedef struct check_mark {
    int device, host;
} check_mark;
static inline check_mark mark(void) {
    const check_mark m = {check_device_used, check_host_used};
    return m;
}
/* Releases what was taken since. */
static inline void release(check_mark m) {
    CUDA(cudaStreamSynchronize(check_stream));
    while (check_device_used > m.device) CUDA(cudaFree(check_device_memory[--check_device_used]));
    while (check_host_used > m.host) free(check_host_memory[--check_host_used]);
}

/* ---- numbers ------------------------------------------------------------------------------------------- */

static uint64_t check_seed = 1;
static inline uint64_t random_bits(void) { /* splitmix64 */
    uint64_t z = check_seed += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}
/* Uniform in [-1, 1). */
static inline double random_unit(void) {
    return (double)(random_bits() >> 11) * 0x1p-52 - 1.0;
}

#endif
