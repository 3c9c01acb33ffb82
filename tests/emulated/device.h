// CUDA's device language for the host compiler, for kernels/device.cuh when SKALD_EMULATED is defined: the words
// Skald's kernels use and no more. A word that is missing here is a compile error, not a silent difference.
#pragma once

#include "engine/engine.h"
#include "external.h"

#include <cuda_runtime_api.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <tuple>
#include <type_traits>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) alignas(n)

#define threadIdx (skald_emulated_place.thread)
#define blockIdx (skald_emulated_place.block)
#define blockDim (skald_emulated_place.block_dim)
#define gridDim (skald_emulated_place.grid_dim)
static constexpr int warpSize = 32;

#define SKALD_SHARED(type, name, count)                                                                                \
    static const char name##_key = 0;                                                                                  \
    type(&name)[count] =                                                                                               \
        *static_cast<type(*)[count]>(skald_emulated_shared(&name##_key, sizeof(type) * (count), alignof(type), #name))
#define SKALD_EXTERN_SHARED(type, name) type *const name = static_cast<type *>(skald_emulated_shared_dynamic())
#define SKALD_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                                   \
    skald_emulated_launch_as(#kernel, kernel, grid, block, shared_bytes, stream, ##__VA_ARGS__)

// --- vectors ---------------------------------------------------------------------------------------------------------

#define SKALD_EMULATED_VECTORS(type, name, align2, align4)                                                             \
    struct alignas(align2) name##2 {                                                                                   \
        type x, y;                                                                                                     \
    };                                                                                                                 \
    struct alignas(align4) name##4 {                                                                                   \
        type x, y, z, w;                                                                                               \
    };                                                                                                                 \
    static inline name##2 make_##name##2(type x, type y) {                                                             \
        return {x, y};                                                                                                 \
    }                                                                                                                  \
    static inline name##4 make_##name##4(type x, type y, type z, type w) {                                             \
        return {x, y, z, w};                                                                                           \
    }
SKALD_EMULATED_VECTORS(float, float, 8, 16)
SKALD_EMULATED_VECTORS(int, int, 8, 16)
SKALD_EMULATED_VECTORS(unsigned, uint, 8, 16)
SKALD_EMULATED_VECTORS(unsigned char, uchar, 2, 4)
SKALD_EMULATED_VECTORS(unsigned short, ushort, 4, 8)
struct alignas(16) double2 {
    double x, y;
};
struct alignas(16) ulonglong2 {
    unsigned long long x, y;
};
static inline double2 make_double2(double x, double y) {
    return {x, y};
}
static inline ulonglong2 make_ulonglong2(unsigned long long x, unsigned long long y) {
    return {x, y};
}

// --- synchronisation and warps ---------------------------------------------------------------------------------------

static inline void __syncthreads(const char *file = __builtin_FILE(), int line = __builtin_LINE()) {
    skald_emulated_barrier(file, line);
}
static inline void __syncwarp(unsigned mask = 0xffffffffu, const char *file = __builtin_FILE(),
                              int line = __builtin_LINE()) {
    skald_emulated_warp(SKALD_EMULATED_SYNCWARP, mask, 0, 0, file, line);
}
static inline void __threadfence() {
    skald_emulated_fence();
}
static inline void __threadfence_block() {}

static inline unsigned skald_emulated_lane() {
    return skald_emulated_place.thread.x % 32;
}

template <class T>
static inline T skald_emulated_shuffle(unsigned mask, T value, unsigned source, const char *file, int line) {
    static_assert(std::is_arithmetic<T>::value && sizeof(T) >= 4 && sizeof(T) <= 8, "what shuffles take");
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof value);
    bits = skald_emulated_warp(SKALD_EMULATED_SHUFFLE, mask, bits, source, file, line);
    memcpy(&value, &bits, sizeof value);
    return value;
}
// Lanes are grouped by width; a source outside the own group means the own value.
template <class T>
static inline T __shfl_sync(unsigned mask, T value, int lane, int width = 32, const char *file = __builtin_FILE(),
                            int line = __builtin_LINE()) {
    unsigned base = skald_emulated_lane() & ~(unsigned)(width - 1);
    return skald_emulated_shuffle(mask, value, base | ((unsigned)lane & (unsigned)(width - 1)), file, line);
}
template <class T>
static inline T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, const char *file = __builtin_FILE(),
                                int line = __builtin_LINE()) {
    unsigned self = skald_emulated_lane(), source = self ^ (unsigned)lanes;
    return skald_emulated_shuffle(
        mask, value, source >= (self & ~(unsigned)(width - 1)) + (unsigned)width ? self : source, file, line);
}
template <class T>
static inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32,
                                 const char *file = __builtin_FILE(), int line = __builtin_LINE()) {
    unsigned self = skald_emulated_lane(), end = (self & ~(unsigned)(width - 1)) + (unsigned)width;
    return skald_emulated_shuffle(mask, value, self + delta < end ? self + delta : self, file, line);
}
template <class T>
static inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32,
                               const char *file = __builtin_FILE(), int line = __builtin_LINE()) {
    unsigned self = skald_emulated_lane(), base = self & ~(unsigned)(width - 1);
    return skald_emulated_shuffle(mask, value, self >= base + delta ? self - delta : self, file, line);
}
static inline unsigned __ballot_sync(unsigned mask, int predicate, const char *file = __builtin_FILE(),
                                     int line = __builtin_LINE()) {
    return (unsigned)skald_emulated_warp(SKALD_EMULATED_BALLOT, mask, predicate != 0, 0, file, line);
}
static inline int __any_sync(unsigned mask, int predicate, const char *file = __builtin_FILE(),
                             int line = __builtin_LINE()) {
    return __ballot_sync(mask, predicate, file, line) != 0;
}
static inline int __all_sync(unsigned mask, int predicate, const char *file = __builtin_FILE(),
                             int line = __builtin_LINE()) {
    return __ballot_sync(mask, predicate, file, line) == mask;
}

// --- bulk copies -----------------------------------------------------------------------------------------------------

static inline void skald_barrier_init(uint64_t *barrier, unsigned arrivals) {
    skald_emulated_bulk_init(barrier, arrivals);
}
static inline void skald_barrier_arrive(uint64_t *barrier) {
    skald_emulated_bulk_arrive(barrier);
}
static inline void skald_bulk_copy(void *shared, const void *global, unsigned bytes, uint64_t *barrier) {
    skald_emulated_bulk_copy(shared, global, bytes, barrier);
}
static inline void skald_barrier_wait(uint64_t *barrier, unsigned parity, const char *file = __builtin_FILE(),
                                      int line = __builtin_LINE()) {
    skald_emulated_bulk_wait(barrier, parity, file, line);
}

// --- atomics ---------------------------------------------------------------------------------------------------------
// Relaxed; what an integer one orders the engine says under TSan. All of them are, as CUDA's, on naturally aligned
// words.

template <class T> static inline void skald_emulated_order(T *address) {
#ifdef __SANITIZE_THREAD__
    if (std::is_integral<T>::value) skald_emulated_atomic(address);
#endif
}
#define SKALD_EMULATED_ATOMIC(name, operation)                                                                         \
    template <class T>                                                                                                 \
    static inline T name(T *address, typename std::enable_if<std::is_integral<T>::value, T>::type value) {             \
        skald_emulated_order(address);                                                                                 \
        T old = __atomic_##operation(address, value, __ATOMIC_RELAXED);                                                \
        skald_emulated_order(address);                                                                                 \
        return old;                                                                                                    \
    }
SKALD_EMULATED_ATOMIC(atomicAdd, fetch_add)
SKALD_EMULATED_ATOMIC(atomicSub, fetch_sub)
SKALD_EMULATED_ATOMIC(atomicOr, fetch_or)
SKALD_EMULATED_ATOMIC(atomicAnd, fetch_and)
SKALD_EMULATED_ATOMIC(atomicExch, exchange_n)

template <class T, class Bits> static inline T skald_emulated_add(T *address, T value) {
    Bits *word = reinterpret_cast<Bits *>(address), old = __atomic_load_n(word, __ATOMIC_RELAXED), next;
    T was, sum;
    do {
        memcpy(&was, &old, sizeof was);
        sum = was + value;
        memcpy(&next, &sum, sizeof next);
    } while (!__atomic_compare_exchange_n(word, &old, next, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    return was;
}
typedef uint32_t __attribute__((may_alias)) skald_emulated_u32;
typedef uint64_t __attribute__((may_alias)) skald_emulated_u64;
static inline float atomicAdd(float *address, float value) {
    return skald_emulated_add<float, skald_emulated_u32>(address, value);
}
static inline double atomicAdd(double *address, double value) {
    return skald_emulated_add<double, skald_emulated_u64>(address, value);
}
template <class T>
static inline T atomicCAS(T *address, typename std::enable_if<std::is_integral<T>::value, T>::type expected,
                          typename std::enable_if<std::is_integral<T>::value, T>::type value) {
    skald_emulated_order(address);
    __atomic_compare_exchange_n(address, &expected, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
    skald_emulated_order(address);
    return expected;
}
template <class T>
static inline T atomicMax(T *address, typename std::enable_if<std::is_integral<T>::value, T>::type value) {
    T old = __atomic_load_n(address, __ATOMIC_RELAXED);
    while (old < value &&
           !__atomic_compare_exchange_n(address, &old, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
    return old;
}
template <class T>
static inline T atomicMin(T *address, typename std::enable_if<std::is_integral<T>::value, T>::type value) {
    T old = __atomic_load_n(address, __ATOMIC_RELAXED);
    while (value < old &&
           !__atomic_compare_exchange_n(address, &old, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
    return old;
}

// --- loads, bits, arithmetic -----------------------------------------------------------------------------------------

template <class T> static inline T __ldg(const T *address) {
    return *address;
}
template <class T> static inline T __ldcs(const T *address) {
    return *address;
}
template <class T> static inline T __ldcg(const T *address) {
    return *address;
}
template <class T> static inline void __stcs(T *address, T value) {
    *address = value;
}
template <class T> static inline void __stcg(T *address, T value) {
    *address = value;
}

template <class To, class From> static inline To skald_emulated_bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "same size");
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}
static inline unsigned __float_as_uint(float x) {
    return skald_emulated_bits<unsigned>(x);
}
static inline float __uint_as_float(unsigned x) {
    return skald_emulated_bits<float>(x);
}
static inline int __float_as_int(float x) {
    return skald_emulated_bits<int>(x);
}
static inline float __int_as_float(int x) {
    return skald_emulated_bits<float>(x);
}
static inline long long __double_as_longlong(double x) {
    return skald_emulated_bits<long long>(x);
}
static inline double __longlong_as_double(long long x) {
    return skald_emulated_bits<double>(x);
}
static inline int __popc(unsigned x) {
    return __builtin_popcount(x);
}
static inline int __clz(int x) {
    return x ? __builtin_clz((unsigned)x) : 32;
}
static inline int __ffs(int x) {
    return __builtin_ffs(x);
}
static inline unsigned __umulhi(unsigned x, unsigned y) {
    return (unsigned)((uint64_t)x * y >> 32);
}
static inline unsigned long long __umul64hi(unsigned long long x, unsigned long long y) {
    return (unsigned long long)((unsigned __int128)x * y >> 64);
}
// A call where the host's instructions are not known to have it. The product is exact in double; the sum is rounded
// twice.
static inline float skald_emulated_fmaf(float x, float y, float z) {
    return (float)((double)x * (double)y + (double)z);
}
#define fmaf skald_emulated_fmaf
static inline float __fmaf_rn(float x, float y, float z) {
    return fmaf(x, y, z);
}
static inline double __fma_rn(double x, double y, double z) {
    return fma(x, y, z);
}
static inline float __fmul_rn(float x, float y) {
    return x * y;
}
static inline float __fadd_rn(float x, float y) {
    return x + y;
}
static inline double __dmul_rn(double x, double y) {
    return x * y;
}
static inline double __dadd_rn(double x, double y) {
    return x + y;
}
static inline float rsqrtf(float x) {
    return 1 / sqrtf(x);
}
static inline double rsqrt(double x) {
    return 1 / sqrt(x);
}
static inline float rsqrt(float x) {
    return 1 / sqrtf(x);
}
// CUDA's fast forms promise less; the exact ones are within what they promise. (glibc declares these names for itself.)
#define __expf expf
#define __logf logf
static inline float __fdividef(float x, float y) {
    return x / y;
}
template <class T> static inline typename std::enable_if<std::is_arithmetic<T>::value, T>::type min(T x, T y) {
    return y < x ? y : x;
}
template <class T> static inline typename std::enable_if<std::is_arithmetic<T>::value, T>::type max(T x, T y) {
    return x < y ? y : x;
}

// --- launching -------------------------------------------------------------------------------------------------------

template <class... P> struct skald_emulated_call {
    void (*kernel)(P...);
    std::tuple<P...> arguments;
    static void run(const void *call) {
        const skald_emulated_call *self = static_cast<const skald_emulated_call *>(call);
        std::apply(self->kernel, self->arguments);
    }
    static void release(void *call) {
        delete static_cast<skald_emulated_call *>(call);
    }
};

// Arguments are copied now, as CUDA does; errors are found by cudaGetLastError.
template <class... P, class... A>
static inline void skald_emulated_launch_as(const char *name, void (*function)(P...), unsigned grid, unsigned block,
                                            size_t shared, cudaStream_t stream, A... arguments) {
    typedef skald_emulated_call<P...> call;
    struct skald_emulated_kernel kernel = {};
    kernel.name = name;
    kernel.function = reinterpret_cast<const void *>(function);
    kernel.grid = grid;
    kernel.block = block;
    kernel.shared = shared;
    kernel.call = call::run;
    kernel.release = call::release;
    kernel.arguments = new call{function, std::tuple<P...>(arguments...)};
    skald_emulated_launch(&kernel, stream);
}

template <class... P>
static inline cudaError_t cudaFuncSetAttribute(void (*function)(P...), enum cudaFuncAttribute attribute, int value) {
    return cudaFuncSetAttribute(reinterpret_cast<const void *>(function), attribute, value);
}
template <class... P>
static inline cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, void (*function)(P...),
                                                                        int threads, size_t shared) {
    return cudaOccupancyMaxActiveBlocksPerMultiprocessor(blocks, reinterpret_cast<const void *>(function), threads,
                                                         shared);
}
