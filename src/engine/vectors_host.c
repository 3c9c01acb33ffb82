/* Vector verbs on host memory: each one pass, no branches inside, so that they run at the speed of memory.
 *
 * No operation is fused or reordered (norm2 has eight fixed partial sums): the bits are the same on every
 * instruction set, and the coordinator's model does not depend on the machine. */
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "engine/certificate.h"
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

static void zero(skald_vectors *v, double *x) {
    memset(x, 0, v->dim * sizeof *x);
}

WIDE static void combine_n(size_t n, double *out, double a, const double *x, double b, const double *y) {
    for (size_t j = 0; j < n; j++) out[j] = a * x[j] + b * y[j];
}

WIDE static void scale_n(size_t n, double *out, double a, const double *x) {
    for (size_t j = 0; j < n; j++) out[j] = a * x[j];
}

static void combine(skald_vectors *v, double *out, double a, const double *x, double b, const double *y) {
    if (y)
        combine_n(v->dim, out, a, x, b, y);
    else
        scale_n(v->dim, out, a, x);
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
        sgd_n(r->intercept, w + n, g + n, a, eta * r->intercept_step, 0, 0);
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
        saga_n(r->intercept, w + last, abar + last, g + last, a, h + last, eta * r->intercept_step, 1 / n, 0, 0);
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

static double penalty(skald_vectors *v, const double *w, const skald_regulariser *r) {
    double norm2 = 0, norm1 = 0, bounded = 0;
    for (uint32_t c = 0; c < v->classes; c++, w += v->columns)
        for (uint32_t j = 0; j < v->columns - r->intercept; j++) {
            norm2 += w[j] * w[j];
            norm1 += fabs(w[j]);
            bounded += r->nonconvex > 0 ? skald_bounded_value(w[j]) : 0;
        }
    return 0.5 * r->l2 * norm2 + r->l1 * norm1 + r->nonconvex * bounded;
}

static double stationarity(skald_vectors *v, const double *w, const double *g, double eta, const skald_regulariser *r) {
    const skald_objective o = {.l2 = r->l2, .nonconvex = r->nonconvex};
    double sum = 0;
    for (uint32_t c = 0; c < v->classes; c++, w += v->columns, g += v->columns)
        for (uint32_t j = 0; j < v->columns - r->intercept; j++) {
            const double s = skald_gradient_entry(w[j], g[j] + skald_smooth_slope(&o, w[j]), r->l1, eta);
            sum += s * s;
        }
    return sum;
}

static skald_status read_out(skald_vectors *v, double *host, const double *x) {
    memmove(host, x, v->dim * sizeof *x);
    return SKALD_OK;
}

static skald_status write_in(skald_vectors *v, double *x, const double *host) {
    return read_out(v, x, host);
}

static skald_status status(skald_vectors *v) {
    (void)v;
    return SKALD_OK;
}

static const skald_vectors_ops operations = {create,       destroy,    copy,        zero,        combine,       axpy,
                                             norm2,        sgd_update, saga_update, local_merge, proximal_step, penalty,
                                             stationarity, read_out,   write_in,    status};

void skald_vectors_host(skald_vectors *out, uint32_t dim) {
    *out = (skald_vectors){.ops = &operations, .dim = dim, .classes = 1, .columns = dim};
}
