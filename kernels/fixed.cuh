/* Sums in fixed point: integers, so that they do not depend on the order of additions. */
#ifndef SKALD_KERNELS_FIXED_CUH
#define SKALD_KERNELS_FIXED_CUH

#include "kernels/device.cuh"

/* The power of two that takes `terms` numbers of at most `largest` (its bits; not finite or zero: 1) to a sum below
 * 2^62. Exponents are read from the bits, so nothing is rounded. */
static __device__ __forceinline__ double fixed_scale(unsigned largest, double terms) {
    const float most = __uint_as_float(largest);
    if (!(most > 0 && most <= 3.402823466e38f)) return 1.0;
    int a, b;
    frexp((double)most, &a); /* most < 2^a */
    frexp(terms, &b);
    return ldexp(1.0, 62 - a - b);
}

static __device__ __forceinline__ void fixed_add(long long *to, double term, double scale) {
    atomicAdd((unsigned long long *)to, (unsigned long long)(long long)rint(term * scale));
}

static __device__ __forceinline__ double fixed_value(long long sum, double scale) {
    return (double)sum / scale;
}

#endif
