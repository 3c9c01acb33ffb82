/* Vector verbs on host memory: each one pass, no branches inside, so that they run at the speed of memory.
 *
 * No operation is fused or reordered (norm2 has eight fixed partial sums): the bits are the same on every
 * instruction set, and the coordinator's model does not depend on the machine. */
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "skald/objective.h"
#include "skald/vectors.h"

#if defined(__x86_64__) && defined(__gnu_linux__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define WIDE __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define WIDE
#endif

/* soft(v, t) without branches; t >= 0. */
static inline double soft(double v, double t) {
    double low = v < -t ? -t : v;
    return v - (low > t ? t : low);
}

static skald_status create(skald_vectors *v, double **out) {
    *out = skald_zalloc(v->dim, sizeof **out);
    return *out ? SKALD_OK : SKALD_ENOMEM;
}

static void destroy(skald_vectors *v, double *x) {
    (void)v;
    free(x);
}

static void copy(skald_vectors *v, double *to, const double *from) {
    memmove(to, from, v->dim * sizeof *to);
}

WIDE static void axpy_n(size_t n, double *y, double a, const double *x) {
    for (size_t j = 0; j < n; j++) y[j] += a * x[j];
}

static void axpy(skald_vectors *v, double *y, double a, const double *x) {
    axpy_n(v->dim, y, a, x);
}

WIDE static double norm2_n(size_t n, const double *x) {
    double sum[16] = {0};
    size_t j = 0;
    for (; j + 16 <= n; j += 16)
        for (int k = 0; k < 16; k++) sum[k] += x[j + k] * x[j + k];
    double total = 0;
    for (int k = 0; k < 16; k++) total += sum[k];
    for (; j < n; j++) total += x[j] * x[j];
    return total;
}

static double norm2(skald_vectors *v, const double *x) {
    return norm2_n(v->dim, x);
}

WIDE static void sgd_n(size_t n, double *w, const double *g, double a, double eta, double l2, double l1) {
    const double t = eta * l1;
    for (size_t j = 0; j < n; j++) w[j] = soft(w[j] - eta * (a * g[j] + l2 * w[j]), t);
}

WIDE static void sgd_nonconvex_n(size_t n, double *w, const double *g, double a, double eta, double l2, double l1,
                                 double nonconvex) {
    const double t = eta * l1;
    for (size_t j = 0; j < n; j++)
        w[j] = soft(w[j] - eta * (a * g[j] + l2 * w[j] + nonconvex * skald_bounded_slope(w[j])), t);
}

static void sgd_update(skald_vectors *v, double *w, const double *g, double a, double eta, const skald_regulariser *r) {
    const size_t n = v->columns - r->intercept;
    for (uint32_t c = 0; c < v->classes; c++, w += v->columns, g += v->columns) {
        if (r->nonconvex > 0)
            sgd_nonconvex_n(n, w, g, a, eta, r->l2, r->l1, r->nonconvex);
        else
            sgd_n(n, w, g, a, eta, r->l2, r->l1);
        sgd_n(r->intercept, w + n, g + n, a, eta, 0, 0);
    }
}

WIDE static void saga_n(size_t n, double *w, double *abar, const double *g, double a, const double *h, double eta,
                        double inv_n, double l2, double l1) {
    const double t = eta * l1;
    for (size_t j = 0; j < n; j++) {
        double gj = g[j], hj = h[j], bj = abar[j];
        w[j] = soft(w[j] - eta * (a * gj + bj + l2 * w[j]), t);
        abar[j] = bj + hj * inv_n;
    }
}

static void saga_update(skald_vectors *v, double *w, double *abar, const double *g, double a, const double *h,
                        double eta, double n, const skald_regulariser *r) {
    const size_t m = v->columns - r->intercept;
    for (uint32_t c = 0; c < v->classes; c++) {
        const size_t at = (size_t)c * v->columns, last = at + m;
        saga_n(m, w + at, abar + at, g + at, a, h + at, eta, 1 / n, r->l2, r->l1);
        saga_n(r->intercept, w + last, abar + last, g + last, a, h + last, eta, 1 / n, 0, 0);
    }
}

WIDE static void merge_n(size_t n, double *w, double *abar, const double *dw, double theta, const double *h,
                         double inv_n) {
    for (size_t j = 0; j < n; j++) {
        w[j] += theta * dw[j];
        abar[j] += h[j] * inv_n;
    }
}

static void local_merge(skald_vectors *v, double *w, double *abar, const double *dw, double theta, const double *h,
                        double n) {
    if (h)
        merge_n(v->dim, w, abar, dw, theta, h, 1 / n);
    else
        axpy_n(v->dim, w, theta, dw);
}

static void proximal_step(skald_vectors *v, double *w, const double *g, double eta, const skald_regulariser *r) {
    sgd_update(v, w, g, 1, eta, r);
}

static const skald_vectors_ops operations = {create,     destroy,     copy,        axpy,         norm2,
                                             sgd_update, saga_update, local_merge, proximal_step};

void skald_vectors_host(skald_vectors *out, uint32_t dim) {
    out->ops = &operations;
    out->dim = out->columns = dim;
    out->classes = 1;
}
