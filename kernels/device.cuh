/* The dialect the kernels are written in: CUDA's vocabulary through one header, so that the same source compiles with
 * nvcc for a card and, as C++17, for the emulated device of the tests (which defines the same names).
 *
 * Everything that is not plain CUDA C++ is here: launches, shared memory, and the few instructions without a name. */
#ifndef SKALD_KERNELS_DEVICE_CUH
#define SKALD_KERNELS_DEVICE_CUH

#include <stddef.h>
#include <stdint.h>

#ifdef SKALD_EMULATED
#include "emulated/device.h"
#define SKALD_HAS_BULK 1

static inline uint4 skald_load_once(const void *p) {
    return *(const uint4 *)p;
}
static inline void skald_forget(unsigned &word) {
    (void)word;
}
static inline void skald_reread(void) {}

#else

#include <cuda_runtime.h>

#define SKALD_SHARED(type, name, count) __shared__ __align__(16) type name[count]
#define SKALD_EXTERN_SHARED(type, name)                                                                                \
    extern __shared__ __align__(128) unsigned char skald_dynamic_shared[];                                             \
    type *name = reinterpret_cast<type *>(skald_dynamic_shared)
#define SKALD_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                                   \
    kernel<<<(grid), (block), (shared_bytes), (stream)>>>(__VA_ARGS__)

/* Bulk copies exist from sm_90 on; kernels that use them have empty bodies elsewhere and are never chosen there. */
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
#define SKALD_HAS_BULK 1
#else
#define SKALD_HAS_BULK 0
#endif

/* 16 bytes that are read once: not kept in L1. Volatile, so that loads are issued where they are written. */
__device__ __forceinline__ uint4 skald_load_once(const void *p) {
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(p));
    return v;
}
/* Hides from the compiler where a word comes from: converted values are then not kept alive between two uses. */
__device__ __forceinline__ void skald_forget(unsigned &word) {
    asm volatile("" : "+r"(word));
}

/* Values read from memory before are read again behind it (by this thread; no other effect). */
__device__ __forceinline__ void skald_reread(void) {
    asm volatile("" ::: "memory");
}

#if SKALD_HAS_BULK
__device__ __forceinline__ void skald_barrier_init(uint64_t *bar, unsigned arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;\n\tfence.mbarrier_init.release.cluster;\n\t"
                 "fence.proxy.async.shared::cta;" ::"r"((unsigned)__cvta_generic_to_shared(bar)),
                 "r"(arrivals)
                 : "memory");
}
/* One thread: announces `bytes` at the barrier (this is its arrival) and starts the copy. Bytes and addresses are
 * multiples of 16. */
__device__ __forceinline__ void skald_bulk_copy(void *shared_dst, const void *global_src, unsigned bytes,
                                                uint64_t *bar) {
    const unsigned b = (unsigned)__cvta_generic_to_shared(bar), to = (unsigned)__cvta_generic_to_shared(shared_dst);
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(b), "r"(bytes) : "memory");
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to),
                 "l"(global_src), "r"(bytes), "r"(b)
                 : "memory");
}
/* Waits until the phase of this parity is over. */
__device__ __forceinline__ void skald_barrier_wait(uint64_t *bar, unsigned parity) {
    const unsigned b = (unsigned)__cvta_generic_to_shared(bar);
    unsigned done;
    do {
        asm volatile("{\n\t.reg .pred p;\n\tmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n\t"
                     "selp.u32 %0, 1, 0, p;\n\t}"
                     : "=r"(done)
                     : "r"(b), "r"(parity)
                     : "memory");
    } while (!done);
}
#endif
#endif /* SKALD_EMULATED */

#endif
