#include "curvature/lanczos.h"

#include <math.h>

#include "base/base.h"
#include "curvature/vector.h"

static int probe(size_t n, uint64_t key, void (*product)(void *, const double *, double *), void *user, double *scratch,
                 double *diagonal, double *squares) {
    double *now = scratch, *before = scratch + n, *next = scratch + 2 * n;
    for (size_t i = 0; i < n; i++) {
        now[i] = (skald_random(key, i) & 1 ? 1 : -1) / sqrt((double)n);
        before[i] = 0;
    }
    double beta = 0;
    for (int k = 0; k < SKALD_LANCZOS_STEPS; k++) {
        product(user, now, next);
        const double alpha = skald_vector_dot(n, now, next);
        skald_vector_add(n, -alpha, now, next);
        skald_vector_add(n, -beta, before, next);
        diagonal[k] = alpha;
        beta = sqrt(skald_vector_dot(n, next, next));
        squares[k] = beta * beta;
        if (!(beta > 1e-12 * diagonal[0])) return k + 1; /* nothing new is left */
        for (size_t i = 0; i < n; i++) next[i] /= beta;
        double *const free_now = before;
        before = now;
        now = next;
        next = free_now;
    }
    return SKALD_LANCZOS_STEPS;
}

int skald_lanczos_probes(size_t n) {
    const size_t wanted = (4096 + n - 1) / n;
    return wanted < SKALD_LANCZOS_PROBES ? (int)wanted : SKALD_LANCZOS_PROBES;
}

void skald_lanczos(size_t n, void (*product)(void *, const double *, double *), void *user, double *scratch,
                   skald_spectrum *out) {
    out->n = n;
    out->probes = skald_lanczos_probes(n);
    for (int p = 0; p < out->probes; p++)
        out->steps[p] = probe(n, (uint64_t)p + 1, product, user, scratch, out->diagonal[p], out->squares[p]);
}

/* n (1 - c (T + c)^-1_11), that entry as a continued fraction. */
double skald_spectrum_effective(const skald_spectrum *s, double c) {
    double sum = 0;
    for (int p = 0; p < s->probes; p++) {
        double tail = 0;
        for (int k = s->steps[p] - 1; k >= 0; k--) {
            const double pivot = s->diagonal[p][k] + c - tail;
            tail = (k > 0 ? s->squares[p][k - 1] : c) / fmax(pivot, c); /* T is semidefinite but for rounding */
        }
        sum += 1 - tail;
    }
    return (double)s->n * sum / s->probes;
}

double skald_spectrum_ridge(const skald_spectrum *s, double l2, double limit) {
    double top = 0; /* of the diagonals: of the size of the largest eigenvalue */
    for (int p = 0; p < s->probes; p++)
        for (int k = 0; k < s->steps[p]; k++) top = fmax(top, s->diagonal[p][k]);
    const double floor = fmax(l2, 1e-14 * top);
    if (!(top > 0) || skald_spectrum_effective(s, floor) <= limit) return floor - l2;
    double low = log(floor), high = log(fmax(top, 2 * floor));
    while (skald_spectrum_effective(s, exp(high)) > limit) high += 1; /* d_eff falls as 1/c from there */
    for (int k = 0; k < 60; k++) {
        const double middle = 0.5 * (low + high);
        *(skald_spectrum_effective(s, exp(middle)) > limit ? &low : &high) = middle;
    }
    return exp(high) - l2;
}
