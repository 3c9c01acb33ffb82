/* How 16 bytes of a stored row become floats. */
#ifndef SKALD_KERNELS_STORAGE_CUH
#define SKALD_KERNELS_STORAGE_CUH

#include "kernels/device.cuh"

struct stored_f32 {
    static constexpr int entries = 4; /* in 16 bytes */
    static constexpr bool keep = true;
    static __device__ __forceinline__ void widen(uint4 v, float *x) {
        x[0] = __uint_as_float(v.x);
        x[1] = __uint_as_float(v.y);
        x[2] = __uint_as_float(v.z);
        x[3] = __uint_as_float(v.w);
    }
};

/* bf16 is the upper half of an f32. */
struct stored_bf16 {
    static constexpr int entries = 8;
    static constexpr bool keep = false; /* one instruction an entry: cheaper to widen again than to keep */
    static __device__ __forceinline__ void two(unsigned v, float *x) {
        x[0] = __uint_as_float(v << 16);
        x[1] = __uint_as_float(v & 0xffff0000u);
    }
    static __device__ __forceinline__ void widen(uint4 v, float *x) {
        two(v.x, x);
        two(v.y, x + 2);
        two(v.z, x + 4);
        two(v.w, x + 6);
    }
};

/* A byte put into the low bits of 2^23 makes the float 2^23 + q. */
struct stored_u8 {
    static constexpr int entries = 16;
    static constexpr bool keep = true;
    static __device__ __forceinline__ void four(unsigned v, float *x) {
        x[0] = __uint_as_float(0x4b000000u | (v & 0xffu)) - 8388608.0f;
        x[1] = __uint_as_float(0x4b000000u | (v >> 8 & 0xffu)) - 8388608.0f;
        x[2] = __uint_as_float(0x4b000000u | (v >> 16 & 0xffu)) - 8388608.0f;
        x[3] = __uint_as_float(0x4b000000u | v >> 24) - 8388608.0f;
    }
    static __device__ __forceinline__ void widen(uint4 v, float *x) {
        four(v.x, x);
        four(v.y, x + 4);
        four(v.z, x + 8);
        four(v.w, x + 12);
    }
};

static __device__ __forceinline__ void forget(uint4 &v) {
    skald_forget(v.x);
    skald_forget(v.y);
    skald_forget(v.z);
    skald_forget(v.w);
}

static __device__ __forceinline__ uint4 nothing(void) {
    return make_uint4(0, 0, 0, 0);
}

#endif
