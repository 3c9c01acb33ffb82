/* The proximal operator of t |.|, without branches; t >= 0. */
#ifndef SKALD_KERNELS_STEP_CUH
#define SKALD_KERNELS_STEP_CUH

#include "kernels/device.cuh"

static __device__ __forceinline__ double soft(double v, double t) {
    const double low = v < -t ? -t : v;
    return v - (low > t ? t : low);
}

#endif
