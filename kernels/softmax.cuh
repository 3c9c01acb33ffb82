/* Softmax of one row by a group of lanes, each with every width-th class. */
#ifndef SKALD_KERNELS_SOFTMAX_CUH
#define SKALD_KERNELS_SOFTMAX_CUH

#include "kernels/softmax.h"
#include "kernels/terms.cuh"

#define GROUP_THREADS 256

/* Lanes a row: the power of two that holds the classes, a warp at most. */
static inline int group_width(uint32_t classes) {
    int width = 2;
    while (width < 32 && width < (int)classes) width *= 2;
    return width;
}

typedef struct row_softmax {
    double top, inverse, rest, loss; /* p_c = exp(z_c - top) inverse; rest = 1 - p_y */
    int which;                       /* the largest's class, the first of several */
    bool good;
} row_softmax;

/* margin(c) for c < classes. All lanes of the warp call it. */
template <class F>
static __device__ __forceinline__ row_softmax softmax_of(uint32_t classes, int lane, int width, uint32_t y, F margin) {
    row_softmax s;
    double own = -1e308, others = 0, mine = 0, wrong = 0;
    s.top = -1e308;
    s.which = 0x7fffffff;
    for (uint32_t c = lane; c < classes; c += width) {
        const double z = margin(c);
        if (!finite_f64(z)) wrong = 1;
        if (z > s.top) s.top = z, s.which = (int)c;
        if (c == y) own = z;
    }
    for (int k = width / 2; k > 0; k /= 2) {
        const double top = __shfl_xor_sync(0xffffffffu, s.top, k), o = __shfl_xor_sync(0xffffffffu, own, k);
        const int which = __shfl_xor_sync(0xffffffffu, s.which, k);
        if (top > s.top || (top == s.top && which < s.which)) s.top = top, s.which = which;
        if (o > own) own = o;
    }
    for (uint32_t c = lane; c < classes; c += width) {
        const double e = exp(margin(c) - s.top);
        if (c == y)
            mine = e;
        else
            others += e;
    }
    others = lanes_sum(others, width);
    mine = lanes_sum(mine, width);
    s.good = lanes_sum(wrong, width) == 0;
    s.inverse = 1.0 / (others + mine);
    s.rest = others * s.inverse;
    s.loss = own == s.top ? log1p(others) : s.top - own + log(others + mine);
    return s;
}

static __device__ __forceinline__ double softmax_slope(const row_softmax &s, double z, bool own) {
    return own ? -s.rest : exp(z - s.top) * s.inverse;
}

#endif
