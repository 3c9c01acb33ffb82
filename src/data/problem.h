/* Synthetic problems: row i is a function of (seed, i) alone. */
#ifndef SKALD_DATA_PROBLEM_H
#define SKALD_DATA_PROBLEM_H

#include <math.h>

#include "base/base.h"
#include "skald/status.h"

typedef struct problem problem;

typedef struct problem_ops {
    const char *kind;
    uint32_t dim;
    uint32_t row_most;  /* entries of the longest row */
    bool dense;         /* rows have all dim entries, in order */
    uint32_t decimals;  /* values are integers / 10^decimals, so that text and HDF5 hold the same */
    bool labels_signed; /* labels are -1 and +1, written with a sign; else class numbers from 0 */
    skald_status (*create)(uint64_t seed, problem **out);
    void (*destroy)(problem *p);
    /* Row i: returns the number of entries in q (integers to be divided by 10^decimals) and idx (NULL if dense, else
     * ascending), and the label. `scratch` is problem_scratch bytes of the calling thread's. Pure. */
    uint32_t (*row)(const problem *p, uint64_t i, uint32_t *idx, int32_t *q, int *label, void *scratch);
    size_t scratch;
} problem_ops;

extern const problem_ops problem_epsilon, problem_mnist8m, problem_rcv1;

/* About N(0,1): the sum of four 16-bit uniforms. Needs no libm, hence the same everywhere, and an eighth of the time of
 * skald_normal. Tails end at 3.46. */
static inline double problem_normal(uint64_t key, uint64_t k) {
    uint64_t r = skald_random(key, k);
    int64_t sum =
        (int64_t)(r & 0xffff) + (int64_t)(r >> 16 & 0xffff) + (int64_t)(r >> 32 & 0xffff) + (int64_t)(r >> 48);
    return (double)(sum - 2 * 65535) * (1.7320508075688772 / 65535.5);
}

/* The key of stream `what` of row i (or of column, class, ... i). */
static inline uint64_t problem_key(uint64_t seed, uint64_t what, uint64_t i) {
    return skald_mix64(skald_mix64(seed + 0x9e3779b97f4a7c15ull * (what + 1)) + i);
}

#endif
