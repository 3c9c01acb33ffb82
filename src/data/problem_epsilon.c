/* `epsilon` (Pascal challenge 2008; 400,000 x 2000, dense): columns standardised, then rows of unit length; labels
 * balanced; a linear model is right about 90% of the time; values have 7 decimals in the file.
 *
 * Here: x = H D2 H D1 (sqrt(lambda) * g) / |.|, g normal, D random signs, H the Hadamard transform of 2048 (2000 of its
 * outputs are kept), lambda_k ~ k^-0.95: trace 1 and largest eigenvalue of X'X/n near 0.09, so L is near 0.023 for the
 * logistic loss, and L_max = 0.25. The labels' direction has weight on all of the spectrum (a_k ~ k^-1/2 in
 * whitened coordinates), so that small eigenvalues matter; sign noise leaves 90% to a linear model. */
#include <stdlib.h>

#include "data/problem.h"

enum { DIM = 2000, WIDE = 2048 };

struct problem {
    uint64_t seed;
    double scale[DIM], direction[DIM];
    float sign1[WIDE], sign2[WIDE];
};

static skald_status create(uint64_t seed, problem **out) {
    problem *p = calloc(1, sizeof *p);
    if (!p) return skald_fail(SKALD_ENOMEM, "out of memory");
    double trace = 0, norm2 = 0;
    p->seed = seed;
    for (int k = 0; k < DIM; k++) {
        p->scale[k] = pow(k + 1, -0.475);
        trace += p->scale[k] * p->scale[k];
        p->direction[k] = problem_normal(problem_key(seed, 1, 0), (uint64_t)k) / sqrt(k + 1);
        norm2 += p->direction[k] * p->direction[k];
    }
    for (int k = 0; k < DIM; k++) {
        p->scale[k] /= sqrt(trace);
        p->direction[k] /= sqrt(norm2);
    }
    for (uint64_t k = 0; k < WIDE; k++) {
        p->sign1[k] = skald_random(problem_key(seed, 2, 0), k) & 1 ? 1 : -1;
        p->sign2[k] = skald_random(problem_key(seed, 3, 0), k) & 1 ? 1 : -1;
    }
    *out = p;
    return SKALD_OK;
}

static void destroy(problem *p) {
    free(p);
}

/* Hadamard transform times signs, not normalised. */
static void mix(float *x, const float *sign) {
    for (int k = 0; k < WIDE; k++) x[k] *= sign[k];
    for (int half = WIDE / 2; half >= 1; half /= 2)
        for (int block = 0; block < WIDE; block += 2 * half)
            for (int k = block; k < block + half; k++) {
                float a = x[k], b = x[k + half];
                x[k] = a + b;
                x[k + half] = a - b;
            }
}

static uint32_t row(const problem *p, uint64_t i, uint32_t *idx, int32_t *q, int *label, void *scratch) {
    float *x = scratch;
    uint64_t key = problem_key(p->seed, 10, i);
    double margin = 0.325 * problem_normal(key, DIM); /* 1 - atan(0.325)/pi = 0.9 */
    for (uint64_t k = 0; k < DIM; k++) {
        double g = problem_normal(key, k);
        margin += p->direction[k] * g;
        x[k] = (float)(p->scale[k] * g);
    }
    for (int k = DIM; k < WIDE; k++) x[k] = 0;
    mix(x, p->sign1);
    mix(x, p->sign2);
    double norm2 = 0;
    for (int k = 0; k < DIM; k++) norm2 += (double)x[k] * x[k];
    double scale = 1e7 / sqrt(norm2);
    for (int k = 0; k < DIM; k++) {
        double v = x[k] * scale;
        q[k] = (int32_t)(v + (v < 0 ? -0.5 : 0.5));
    }
    *label = margin > 0 ? 1 : -1;
    return DIM;
}

const problem_ops problem_epsilon = {.kind = "epsilon",
                                     .dim = DIM,
                                     .row_most = DIM,
                                     .dense = true,
                                     .decimals = 7,
                                     .labels_signed = true,
                                     .create = create,
                                     .destroy = destroy,
                                     .row = row,
                                     .scratch = WIDE * sizeof(float)};
