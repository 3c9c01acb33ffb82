/* Dots of dense rows of any length: a block takes R rows at a time, and its first R threads go from margins to
 * whatever `Terms` makes of them. For rows too long for registers, and for local steps.
 *
 *   uint64_t count(rows)                positions that count, at most rows.count
 *   Terms::facts, ask(rows, row, ...)   what it wants to know of a row (or NO_ROW), asked for before the dots
 *   take(a, rows, row, position, z0, z1, facts, slot)   slot: a row's place in shared memory for the tally */
#ifndef SKALD_KERNELS_TWICE_CUH
#define SKALD_KERNELS_TWICE_CUH

#include "kernels/pass.cuh"

#define DOTS_CHUNKS 4 /* chunks a thread asks for at once, and adds in f32 */

/* z[r][p] of rows row[0..R) (NO_ROW: 0), summed over the block into share: warps x R x P. */
template <class S, int P, int R>
static __device__ __forceinline__ void block_dots(const twice_args &a, const uint32_t *row, double *share) {
    constexpr int E = S::entries;
    const unsigned chunks = (unsigned)(a.row_bytes / 16);
    double z[R][P];
#pragma unroll
    for (int r = 0; r < R; r++) {
#pragma unroll
        for (int p = 0; p < P; p++) z[r][p] = 0;
    }
    for (unsigned at = threadIdx.x; at < chunks; at += DOTS_CHUNKS * blockDim.x) {
        uint4 raw[DOTS_CHUNKS][R];
        float dot[R][P];
#pragma unroll
        for (int u = 0; u < DOTS_CHUNKS; u++) {
            const unsigned chunk = at + u * blockDim.x;
#pragma unroll
            for (int r = 0; r < R; r++) {
                raw[u][r] = nothing();
                if (chunk < chunks && row[r] != NO_ROW)
                    raw[u][r] = skald_load_once(a.x + (size_t)row[r] * a.row_bytes + (size_t)chunk * 16);
            }
        }
#pragma unroll
        for (int r = 0; r < R; r++) {
#pragma unroll
            for (int p = 0; p < P; p++) dot[r][p] = 0;
        }
#pragma unroll
        for (int u = 0; u < DOTS_CHUNKS; u++) {
            const unsigned chunk = at + u * blockDim.x;
            if (chunk >= chunks) break;
#pragma unroll
            for (int q = 0; q < E / 4; q++) {
                float4 w[P];
#pragma unroll
                for (int p = 0; p < P; p++) w[p] = *((const float4 *)a.w[p] + (size_t)chunk * (E / 4) + q);
#pragma unroll
                for (int r = 0; r < R; r++) {
                    float x[E];
                    S::widen(raw[u][r], x); /* what q does not want falls away */
#pragma unroll
                    for (int p = 0; p < P; p++) {
                        dot[r][p] = fmaf(x[4 * q], w[p].x, dot[r][p]);
                        dot[r][p] = fmaf(x[4 * q + 1], w[p].y, dot[r][p]);
                        dot[r][p] = fmaf(x[4 * q + 2], w[p].z, dot[r][p]);
                        dot[r][p] = fmaf(x[4 * q + 3], w[p].w, dot[r][p]);
                    }
                }
            }
        }
#pragma unroll
        for (int r = 0; r < R; r++) {
#pragma unroll
            for (int p = 0; p < P; p++) z[r][p] += (double)dot[r][p];
        }
    }
#pragma unroll
    for (int r = 0; r < R; r++) {
#pragma unroll
        for (int p = 0; p < P; p++) {
            const double sum = lanes_sum(z[r][p], 32);
            if (threadIdx.x % 32 == 0) share[(threadIdx.x / 32 * R + r) * P + p] = sum;
        }
    }
}

template <class S, int P, int R, class Terms>
__global__ void __launch_bounds__(256, R == 1 ? 3 : 2) dots(twice_args a, row_args rows, Terms terms) {
    SKALD_SHARED(double, share, (P > 0 ? 8 * R * P : 1));
    SKALD_SHARED(double, slots, R *TALLY);
    tally_clear(slots, R);
    __syncthreads();
    const int warps = blockDim.x / 32;
    const uint64_t count = terms.count(rows), end = a.offset + a.rows < count ? a.offset + a.rows : count;
    uint64_t at = a.offset + (uint64_t)blockIdx.x * R;
    do { /* once at least: row numbers are on their way before the count is known */
        uint32_t row[R];
#pragma unroll
        for (int r = 0; r < R; r++) {
            row[r] = row_at(rows, at + r);
            if (at + r >= end) row[r] = NO_ROW;
        }
        const uint64_t mine = at + threadIdx.x;
        const uint32_t my_row = threadIdx.x < R && mine < end ? row_at(rows, mine) : NO_ROW;
        const typename Terms::facts facts = terms.ask(rows, my_row, mine);
        if constexpr (P > 0) {
            block_dots<S, P, R>(a, row, share);
            __syncthreads();
        }
        if (my_row != NO_ROW) {
            double z[2] = {0, 0};
            if constexpr (P > 0)
                for (int k = 0; k < warps; k++)
#pragma unroll
                    for (int p = 0; p < P; p++) z[p] += share[(k * R + threadIdx.x) * P + p];
            terms.take(a, rows, my_row, mine, z[0], z[1], facts, slots + threadIdx.x * TALLY);
        }
        __syncthreads(); /* share is written again */
        at += (uint64_t)gridDim.x * R;
    } while (at < end);
    if (rows.tally) tally_write(slots, R, rows.tally, rows.more);
}

#endif
