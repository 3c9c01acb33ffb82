/* Dense passes that read each row once: g[o] = sum_i c_i[o] x_i with c_i from the margins x_i.w[p].
 *
 * A group of T threads takes R rows a round: T = 8 or 32 (groups of a block of 128 threads, no barrier in the loop)
 * or a whole block (one barrier a round). A thread holds K chunks of 16 bytes of each row between the dot and the
 * sum, and its share of the models and of g in registers. The rows of the next round are asked for before those of
 * this one are reduced: from memory into registers, or (RING, sm_90) some rounds ahead by bulk copies into a ring
 * in shared memory. Row numbers are asked for one round before their rows.
 *
 * x:        count rows of row_bytes, a multiple of 32
 * partial:  blocks x width floats for each output, added up in order by `finish`
 * A group sums at most SKALD_GPU_CHAIN_ROWS rows in f32: the grid grows with the batch. */
#ifndef SKALD_KERNELS_FUSED_CUH
#define SKALD_KERNELS_FUSED_CUH

#include "kernels/storage.cuh"
#include "kernels/terms.cuh"

typedef struct fused_args {
    row_args rows;
    const unsigned char *x;
    size_t row_bytes;
    const float *unit;
    uint32_t dim, width; /* columns, without an intercept; entries of a stored row */
    const double *w[2];
    float *partial[2];
    int stages; /* RING */
} fused_args;

/* Threads a block, and blocks that are meant to be on a multiprocessor at once. */
#define RING_BARS 512 /* bytes for the barriers of the rings: 64 of them */
template <int T> struct group {
    static constexpr int block = T <= 32 ? 128 : T;
    static constexpr int groups = T <= 32 ? 128 / T : 1;
    static constexpr int width = T < 32 ? T : 32; /* lanes that share a shuffle */
};

/* The model as f32, times the columns' units, in the order in which threads read it: four entries e of chunk k of
 * thread t at ((k * E/4) + e/4) * T + t. In shared memory, since registers hold rows. */
template <class S, int T, int K>
static __device__ __forceinline__ void share_model(const fused_args &a, const double *w, float4 *share) {
    constexpr int Q = S::entries / 4;
    for (int i = threadIdx.x; i < K * Q * T; i += blockDim.x) {
        const uint32_t j = (uint32_t)((i / (Q * T) * T + i % T) * Q + i / T % Q) * 4;
        float v[4];
#pragma unroll
        for (int e = 0; e < 4; e++) {
            v[e] = 0;
            if (j + e < a.dim) v[e] = (float)(a.unit ? w[j + e] * (double)a.unit[j + e] : w[j + e]);
        }
        share[i] = make_float4(v[0], v[1], v[2], v[3]);
    }
}

/* Bytes of dynamic shared memory before the ring. */
static inline __host__ __device__ size_t model_bytes(int points, uint32_t entries) {
    return (size_t)points * entries * sizeof(float);
}

/* The block's sums: groups in order through shared memory, or as they are. */
template <class S, int T, int K>
static __device__ __forceinline__ void write_share(const fused_args &a, const float *g, int t, int mine, double *add,
                                                   float *partial) {
    float *out = partial + (size_t)blockIdx.x * a.width;
    if constexpr (group<T>::groups == 1) {
        (void)mine;
        (void)add;
#pragma unroll
        for (int k = 0; k < K; k++) {
            const uint32_t j = (uint32_t)(k * T + t) * S::entries;
            if (j < a.width) {
#pragma unroll
                for (int e = 0; e < S::entries; e += 4)
                    *(float4 *)(out + j + e) = make_float4(g[k * S::entries + e], g[k * S::entries + e + 1],
                                                           g[k * S::entries + e + 2], g[k * S::entries + e + 3]);
            }
        }
    } else {
        constexpr int entries = T * K * S::entries;
        for (int turn = 0; turn < group<T>::groups; turn++) {
            if (mine == turn) {
#pragma unroll
                for (int k = 0; k < K; k++) {
#pragma unroll
                    for (int e = 0; e < S::entries; e++) {
                        const int j = e * T * K + k * T + t; /* neighbours in neighbouring banks */
                        add[j] = (turn ? add[j] : 0.0) + (double)g[k * S::entries + e];
                    }
                }
            }
            __syncthreads();
        }
        for (int j = threadIdx.x; j < entries; j += blockDim.x) {
            const uint32_t column = (uint32_t)(j % (T * K)) * S::entries + (uint32_t)(j / (T * K));
            if (column < a.width) out[column] = (float)add[j];
        }
        __syncthreads();
    }
}

template <class S, int T, int K, int R, int P, int O, bool RING, int RESIDENT>
__global__ void __launch_bounds__(group<T>::block, RESIDENT) fused(fused_args a) {
    constexpr int E = S::entries, W = group<T>::width, G = group<T>::groups, WARPS = T / 32;
    constexpr bool KEEP = S::keep && (E == 4 || P == 1); /* else widened a second time: registers */
    SKALD_SHARED(double, slots, G *R *TALLY);
    SKALD_SHARED(double, part, (WARPS > 1 ? 2 * WARPS * R * P : 1));
    SKALD_SHARED(double, add, (G > 1 ? T * K * E : 1));
    const int t = threadIdx.x % T, mine = threadIdx.x / T;
    const int lane = threadIdx.x % W, first = threadIdx.x % 32 / W * W;
    const unsigned chunks = (unsigned)(a.row_bytes / 16);
    SKALD_EXTERN_SHARED(unsigned char, dynamic);
    float4 *const models = (float4 *)dynamic;
    tally_clear(slots, G * R);
    for (int p = 0; p < P; p++) share_model<S, T, K>(a, a.w[p], models + p * (K * E / 4 * T));
    __syncthreads();

    float g[O][K * E];
#pragma unroll
    for (int o = 0; o < O; o++) {
#pragma unroll
        for (int j = 0; j < K * E; j++) g[o][j] = 0;
    }

    const uint64_t jump = (uint64_t)gridDim.x * G * R;
    const uint64_t rounds = (a.rows.count + jump - 1) / jump;
    uint64_t position = ((uint64_t)blockIdx.x * G + mine) * R; /* of the group's first row this round */
    /* Lane r of a group knows row r of this round and of the next. */
    uint32_t row = lane < R ? row_at(a.rows, position + lane) : NO_ROW, row_next = NO_ROW;
    row_facts facts = facts_of(a.rows, row), facts_next = facts;
    uint4 raw[R][K], raw_next[RING ? 1 : R][RING ? 1 : K];
    (void)raw_next;

#if SKALD_HAS_BULK
    const int stages = a.stages;
    unsigned char *const behind = dynamic + model_bytes(P, T * K * E);
    uint64_t *const bars = (uint64_t *)behind + mine * stages;
    unsigned char *const ring = behind + RING_BARS + (size_t)mine * stages * R * a.row_bytes;
#endif
    /* One thread of a group fills a stage with the rows of a round; rows beyond the end are the last one again. It
     * asks for the row numbers of the following round at once. */
    uint32_t ahead[R];
    auto ask_ahead = [&](uint64_t round) {
        const uint64_t from = round * jump + ((uint64_t)blockIdx.x * G + mine) * R;
#pragma unroll
        for (int r = 0; r < R; r++) ahead[r] = row_at(a.rows, from + r < a.rows.count ? from + r : a.rows.count - 1);
    };
    auto fill = [&](uint64_t round) {
#if SKALD_HAS_BULK
        if (t == 0 && round < rounds) {
            const int stage = (int)(round % (unsigned)stages);
#pragma unroll
            for (int r = 0; r < R; r++)
                skald_bulk_copy(ring + ((size_t)stage * R + r) * a.row_bytes, a.x + (size_t)ahead[r] * a.row_bytes,
                                (unsigned)a.row_bytes, bars + stage);
            ask_ahead(round + 1);
        }
#else
        (void)round;
#endif
    };
    auto load = [&](uint32_t lane_row, uint4(*to)[RING ? 1 : K]) {
#pragma unroll
        for (int r = 0; r < R; r++) {
            const uint32_t i = __shfl_sync(0xffffffffu, lane_row, first + r);
            const unsigned char *x = a.x + (size_t)i * a.row_bytes;
#pragma unroll
            for (int k = 0; k < K; k++) {
                const unsigned chunk = (unsigned)(k * T + t);
                to[RING ? 0 : r][RING ? 0 : k] = nothing();
                if (i != NO_ROW && chunk < chunks) to[RING ? 0 : r][RING ? 0 : k] = skald_load_once(x + chunk * 16);
            }
        }
    };

    if constexpr (RING) {
#if SKALD_HAS_BULK
        if (t == 0)
            for (int k = 0; k < stages; k++) skald_barrier_init(bars + k, R);
        __syncthreads();
        if (t == 0) ask_ahead(0);
        for (int k = 0; k < stages - 1; k++) fill((uint64_t)k);
#endif
    } else {
        load(row, raw_next);
    }
    if (lane < R) row_next = row_at(a.rows, position + jump + lane);

    for (uint64_t round = 0; round < rounds; round++, position += jump) {
        if constexpr (RING) {
#if SKALD_HAS_BULK
            const int stage = (int)(round % (unsigned)stages);
            skald_barrier_wait(bars + stage, (unsigned)(round / (unsigned)stages & 1));
            const unsigned char *x = ring + (size_t)stage * R * a.row_bytes;
#pragma unroll
            for (int r = 0; r < R; r++) {
#pragma unroll
                for (int k = 0; k < K; k++) {
                    const unsigned chunk = (unsigned)(k * T + t);
                    raw[r][k] = nothing();
                    if (chunk < chunks) raw[r][k] = *(const uint4 *)(x + r * a.row_bytes + chunk * 16);
                }
            }
            if constexpr (T <= 32) { /* read by all lanes: the stage before this one's turn is free */
                __syncwarp(0xffffffffu);
                fill(round + (unsigned)stages - 1);
            }
#endif
        } else {
#pragma unroll
            for (int r = 0; r < R; r++) {
#pragma unroll
                for (int k = 0; k < K; k++) raw[r][k] = raw_next[RING ? 0 : r][RING ? 0 : k];
            }
            load(row_next, raw_next);
        }
        facts_next = facts_of(a.rows, row_next);
        const uint32_t row_after = lane < R ? row_at(a.rows, position + 2 * jump + lane) : NO_ROW;

        /* margins: z of row r in lane r */
        skald_reread(); /* the model is not to stay in registers */
        float x[KEEP ? R : 1][K * E];
        double z[P];
        double(*sums)[R * P] = (double(*)[R * P])(part + (round & 1) * (WARPS * R * P));
#pragma unroll
        for (int p = 0; p < P; p++) z[p] = 0;
#pragma unroll
        for (int r = 0; r < R; r++) {
            float dot[P];
#pragma unroll
            for (int p = 0; p < P; p++) dot[p] = 0;
#pragma unroll
            for (int k = 0; k < K; k++) {
                float *const xk = x[KEEP ? r : 0] + k * E;
                S::widen(raw[r][k], xk);
#pragma unroll
                for (int p = 0; p < P; p++) {
#pragma unroll
                    for (int q = 0; q < E / 4; q++) {
                        const float4 w = models[((p * K + k) * (E / 4) + q) * T + t];
                        dot[p] = fmaf(xk[4 * q], w.x, dot[p]);
                        dot[p] = fmaf(xk[4 * q + 1], w.y, dot[p]);
                        dot[p] = fmaf(xk[4 * q + 2], w.z, dot[p]);
                        dot[p] = fmaf(xk[4 * q + 3], w.w, dot[p]);
                    }
                }
                if constexpr (!KEEP) forget(raw[r][k]);
            }
#pragma unroll
            for (int p = 0; p < P; p++) {
                const double sum = lanes_sum((double)dot[p], W);
                if constexpr (WARPS > 1) {
                    if (lane == 0) sums[threadIdx.x / 32][r * P + p] = sum;
                } else {
                    if (lane == r) z[p] = sum;
                }
            }
        }
        if constexpr (WARPS > 1) {
            __syncthreads();
            if constexpr (RING) fill(round + (unsigned)a.stages - 1);
            if (lane < R)
                for (int k = 0; k < WARPS; k++)
#pragma unroll
                    for (int p = 0; p < P; p++) z[p] += sums[k][lane * P + p];
        }

        /* coefficients: every warp of a block finds the same ones, the first writes */
        float c[2] = {0, 0};
        if (row != NO_ROW) {
            double *const slot = WARPS <= 1 || threadIdx.x < 32 ? slots + (mine * R + lane) * TALLY : NULL;
            row_terms(a.rows, row, position + lane, z[0], P == 2 ? z[P - 1] : 0.0, facts, c, slot);
        }
#pragma unroll
        for (int r = 0; r < R; r++) {
            float cr[O];
#pragma unroll
            for (int o = 0; o < O; o++) cr[o] = __shfl_sync(0xffffffffu, c[o], first + r);
#pragma unroll
            for (int k = 0; k < K; k++) {
                float *const xk = x[KEEP ? r : 0] + k * E;
                if constexpr (!KEEP) S::widen(raw[r][k], xk);
#pragma unroll
                for (int e = 0; e < E; e++) {
#pragma unroll
                    for (int o = 0; o < O; o++) g[o][k * E + e] = fmaf(cr[o], xk[e], g[o][k * E + e]);
                }
            }
        }
        row = row_next;
        facts = facts_next;
        row_next = row_after;
    }
    __syncthreads();
    tally_write(slots, G * R, a.rows.tally, a.rows.more);
#pragma unroll
    for (int o = 0; o < O; o++) write_share<S, T, K>(a, g[o], t, mine, add, a.partial[o]);
}

#endif
