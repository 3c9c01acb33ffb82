/* Small problems on the device, with the same rows in double on the host, and naive loops over them. */
#ifndef SKALD_TESTS_GPU_PROBLEM_H
#define SKALD_TESTS_GPU_PROBLEM_H

#include "check.h"

#define HUBER_DELTA 0.7

typedef struct problem {
    skald_loss loss;
    bool intercept; /* the last column is 1 */
    uint32_t dim;
    size_t n;
    double *x; /* n x dim, as the device reads them */
    double *y, *s;
    float *alpha;
    skald_gpu_rows rows; /* device */
} problem;

typedef struct problem_options {
    skald_layout layout;
    skald_gpu_storage storage;
    skald_loss loss;
    uint32_t dim;
    size_t n;
    bool weights, unit, intercept;
    double density; /* CSR */
} problem_options;

static inline double loss_value(skald_loss loss, double z, double y) {
    return skald_loss_value(loss, HUBER_DELTA, z, y);
}
static inline double loss_first(skald_loss loss, double z, double y) {
    return skald_loss_derivative(loss, HUBER_DELTA, z, y);
}
static inline double loss_second(skald_loss loss, double z, double y) {
    return skald_loss_second(loss, HUBER_DELTA, z, y);
}

/* An entry that the storage holds exactly; u is the column's unit. */
static inline float entry_for(const problem_options *o, float u) {
    if (o->layout == SKALD_CSR || o->storage == SKALD_GPU_F32) return (float)random_unit();
    if (o->storage == SKALD_GPU_U8) return (float)(random_bits() % 256) * u;
    const float v = (float)random_unit() * 1.5f;
    uint32_t bits;
    memcpy(&bits, &v, 4);
    bits &= 0xffff0000u;
    float kept;
    memcpy(&kept, &bits, 4);
    return kept * u;
}

static inline void fill_dense(const problem_options *o, problem *p) {
    skald_gpu_rows *r = &p->rows;
    float *unit = NULL, *source = host_take(p->n * p->dim * sizeof(float));
    r->stride = skald_gpu_stride(p->dim, o->storage);
    if (o->unit) {
        unit = host_take(r->stride * sizeof(float));
        for (uint32_t j = 0; j < p->dim; j++) unit[j] = o->storage == SKALD_GPU_U8 ? 1.0f / 256 : j % 2 ? 0.5f : 2.0f;
        if (o->intercept) unit[p->dim - 1] = 1;
        r->unit = device_copy(unit, r->stride * sizeof(float));
    }
    for (size_t i = 0; i < p->n; i++)
        for (uint32_t j = 0; j < p->dim; j++) {
            float v = entry_for(o, unit ? unit[j] : 1);
            if (o->intercept && j == p->dim - 1) v = 1;
            source[i * p->dim + j] = v;
            p->x[i * p->dim + j] = (double)v;
        }
    const size_t bytes = p->n * r->stride * skald_gpu_entry_bytes(o->storage);
    const uint32_t zero = 0;
    uint32_t inexact, *flag = device_copy(&zero, sizeof zero);
    float *device_source = device_copy(source, p->n * p->dim * sizeof(float));
    void *x = device_take(bytes);
    CUDA(skald_gpu_pack(device_source, p->dim, p->n, p->dim, o->storage, r->unit, x, r->stride, flag, check_stream));
    to_host(&inexact, flag, sizeof inexact);
    CHECK(inexact == 0, "entries that the storage holds were changed");
    r->x = x;
}

static inline void fill_sparse(const problem_options *o, problem *p) {
    uint64_t *ptr = host_take((p->n + 1) * sizeof *ptr), most = (uint64_t)p->n * p->dim, k = 0;
    uint32_t *idx = host_take(most * sizeof *idx);
    float *val = host_take(most * sizeof *val);
    for (size_t i = 0; i < p->n; i++) {
        const double density = i % 7 == 3 ? 0 : i % 7 == 5 ? 4 * o->density : o->density; /* empty and long rows */
        for (uint32_t j = 0; j < p->dim; j++) {
            const bool one = o->intercept && j == p->dim - 1;
            if (!one && (random_unit() + 1) / 2 >= density) continue;
            idx[k] = j;
            val[k] = one ? 1 : entry_for(o, 1);
            p->x[i * p->dim + j] = (double)val[k++];
        }
        ptr[i + 1] = k;
    }
    p->rows.ptr = device_copy(ptr, (p->n + 1) * sizeof *ptr);
    p->rows.idx = device_copy(idx, k * sizeof *idx);
    p->rows.val = device_copy(val, k * sizeof *val);
}

static inline void problem_history(const problem *p) {
    float *alpha = device_copy(p->alpha, p->n * sizeof(float));
    CUDA(skald_gpu_history_set(p->rows.record, p->n, alpha, check_stream));
}

static inline void problem_make(const problem_options *o, problem *p) {
    memset(p, 0, sizeof *p);
    p->loss = o->loss;
    p->intercept = o->intercept;
    p->dim = o->dim;
    p->n = o->n;
    p->x = host_take(p->n * p->dim * sizeof(double));
    p->y = host_take(p->n * sizeof(double));
    p->s = host_take(p->n * sizeof(double));
    p->alpha = host_take(p->n * sizeof(float));
    const bool binary = o->loss == SKALD_LOGISTIC || o->loss == SKALD_SQUARED_HINGE;
    for (size_t i = 0; i < p->n; i++) {
        p->y[i] = binary ? (random_bits() & 1 ? 1.0 : -1.0) : random_unit();
        p->s[i] = o->weights ? 1 + 0.5 * random_unit() : 1.0;
        p->alpha[i] = (float)(0.3 * random_unit());
    }
    p->rows.layout = o->layout;
    p->rows.storage = o->storage;
    p->rows.dim = p->dim;
    p->rows.n = p->n;
    if (o->layout == SKALD_DENSE)
        fill_dense(o, p);
    else
        fill_sparse(o, p);
    skald_gpu_record *record = host_take(p->n * sizeof *record);
    for (size_t i = 0; i < p->n; i++) record[i] = (skald_gpu_record){.y = p->y[i]};
    p->rows.record = device_copy(record, p->n * sizeof *record);
    problem_history(p);
    if (o->weights) p->rows.s = device_copy(p->s, p->n * sizeof(double));
    float *norm2 = device_take(p->n * sizeof(float)), *found = host_take(p->n * sizeof(float));
    p->rows.norm2 = norm2;
    CUDA(skald_gpu_norms(&p->rows, 0, p->n, norm2, check_stream));
    to_host(found, norm2, p->n * sizeof(float));
    for (size_t i = 0; i < p->n; i++) {
        double sum = 0;
        for (uint32_t j = 0; j < p->dim; j++) sum += p->x[i * p->dim + j] * p->x[i * p->dim + j];
        CHECK(fabs(sum - (double)found[i]) <= 1e-6 * sum, "|x_%zu|^2 is %g, not %g", i, (double)found[i], sum);
    }
}

/* A model whose margins are of order 1. */
static inline double *problem_model(const problem *p, double size) {
    double *w = host_take(p->dim * sizeof *w), norm2 = 0;
    for (size_t k = 0; k < p->n * p->dim; k++) norm2 += p->x[k] * p->x[k];
    const double by = size / sqrt(norm2 / (double)p->n / p->dim + 1e-30) / sqrt((double)p->dim);
    for (uint32_t j = 0; j < p->dim; j++) w[j] = by * random_unit();
    return w;
}

/* `count` different rows in random order. */
static inline uint32_t *problem_list(const problem *p, size_t count) {
    uint32_t *all = host_take(p->n * sizeof *all);
    for (size_t i = 0; i < p->n; i++) all[i] = (uint32_t)i;
    for (size_t i = 0; i < count; i++) {
        const size_t k = i + (size_t)(random_bits() % (p->n - i));
        const uint32_t swap = all[i];
        all[i] = all[k];
        all[k] = swap;
    }
    return all;
}

static inline double margin(const problem *p, size_t i, const double *w, double *size) {
    double z = 0, sum = 0;
    for (uint32_t j = 0; j < p->dim; j++) {
        z += p->x[i * p->dim + j] * w[j];
        sum += fabs(p->x[i * p->dim + j] * w[j]);
    }
    if (size) *size = sum;
    return z;
}

#endif
