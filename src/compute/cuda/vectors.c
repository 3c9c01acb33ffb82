/* Vectors in a card's memory: the verbs as kernels in one stream, which a collective takes its turn in. Errors are kept
 * until somebody asks; from then on nothing is done any more. */
#include "skald/vectors.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "compute/cuda/cuda.h"

struct cuda_vectors {
    cuda_compute *c;
    cudaStream_t stream;
    cudaEvent_t event; /* for lanes that wait for the stream */
    void *d_sum;       /* workspace of sums, and behind it the sum */
    double *h_sum;
    double **list; /* those there are */
    size_t count, capacity;
    skald_status status;
    char error[600];
};

static cuda_vectors *of(const skald_vectors *v) {
    return v->context;
}

/* The card is current, and nothing has gone wrong. */
static bool ready(cuda_vectors *x) {
    if (x->status == SKALD_OK && (x->status = cuda_enter(x->c)) != SKALD_OK)
        snprintf(x->error, sizeof x->error, "%s", skald_error());
    return x->status == SKALD_OK;
}

static void note(cuda_vectors *x, int error, const char *doing) {
    if (error == cudaSuccess) return;
    x->status = cuda_fail(x->c, error, doing);
    snprintf(x->error, sizeof x->error, "%s", skald_error());
}

static skald_status status(skald_vectors *v) {
    cuda_vectors *x = of(v);
    return x->status == SKALD_OK ? SKALD_OK : skald_fail(x->status, "%s", x->error);
}

/* ---- memory --------------------------------------------------------------------------------------- */

static skald_status add(cuda_vectors *x, size_t bytes, double **out) {
    if (x->count == x->capacity) {
        const size_t more = 2 * x->capacity + 16;
        double **grown = skald_alloc(more, sizeof *grown);
        if (!grown) return SKALD_ENOMEM;
        if (x->count) memcpy(grown, x->list, x->count * sizeof *grown);
        free(x->list);
        x->list = grown;
        x->capacity = more;
    }
    CUDA_TRY(x->c, cudaMalloc((void **)out, bytes), "allocating a vector on the card");
    x->list[x->count++] = *out;
    return SKALD_OK;
}

static skald_status create(skald_vectors *v, double **out) {
    cuda_vectors *x = of(v);
    const size_t bytes = v->dim * sizeof **out;
    *out = NULL;
    TRY(status(v));
    TRY(cuda_enter(x->c));
    TRY(add(x, bytes, out));
    note(x, cudaMemsetAsync(*out, 0, bytes, x->stream), "clearing a vector");
    return SKALD_OK;
}

static void destroy(skald_vectors *v, double *p) {
    cuda_vectors *x = of(v);
    for (size_t k = 0; k < x->count; k++)
        if (x->list[k] == p) x->list[k] = x->list[--x->count];
    if (!p) return;
    (void)cudaSetDevice((int)x->c->index);
    if (cudaFree(p) != cudaSuccess) (void)cudaGetLastError(); /* waits for what uses it */
}

static skald_status move(skald_vectors *v, double *to, const double *from, enum cudaMemcpyKind kind) {
    cuda_vectors *x = of(v);
    TRY(status(v));
    if (ready(x)) note(x, cudaMemcpyAsync(to, from, v->dim * sizeof *to, kind, x->stream), "copying a vector");
    if (ready(x)) note(x, cudaStreamSynchronize(x->stream), "waiting for a vector");
    return status(v);
}

static skald_status read_out(skald_vectors *v, double *host, const double *from) {
    return move(v, host, from, cudaMemcpyDeviceToHost);
}

static skald_status write_in(skald_vectors *v, double *to, const double *host) {
    return move(v, to, host, cudaMemcpyHostToDevice);
}

static void copy(skald_vectors *v, double *to, const double *from) {
    cuda_vectors *x = of(v);
    if (!ready(x) || to == from) return;
    note(x, cudaMemcpyAsync(to, from, v->dim * sizeof *to, cudaMemcpyDeviceToDevice, x->stream), "copying a vector");
}

static void zero(skald_vectors *v, double *p) {
    cuda_vectors *x = of(v);
    if (ready(x)) note(x, cudaMemsetAsync(p, 0, v->dim * sizeof *p, x->stream), "clearing a vector");
}

/* ---- verbs ---------------------------------------------------------------------------------------- */

static const char UPDATING[] = "updating vectors";

static size_t entries(const skald_vectors *v) {
    return (size_t)v->classes * v->columns;
}

static skald_gpu_regulariser regulariser(const skald_vectors *v, const skald_regulariser *r) {
    return (skald_gpu_regulariser){r->l2, r->l1, r->nonconvex, r->intercept, v->columns, r->intercept_step};
}

static void combine(skald_vectors *v, double *out, double a, const double *p, double b, const double *q) {
    cuda_vectors *x = of(v);
    if (ready(x)) note(x, skald_gpu_combine(v->dim, out, a, p, b, q, x->stream), UPDATING);
}

static void axpy(skald_vectors *v, double *y, double a, const double *p) {
    cuda_vectors *x = of(v);
    if (ready(x)) note(x, skald_gpu_axpy(v->dim, y, a, p, x->stream), UPDATING);
}

static void sgd_update(skald_vectors *v, double *w, const double *g, double a, double eta, const skald_regulariser *r) {
    cuda_vectors *x = of(v);
    const skald_gpu_regulariser reg = regulariser(v, r);
    if (ready(x)) note(x, skald_gpu_sgd_update(entries(v), w, g, a, eta, &reg, x->stream), UPDATING);
}

static void saga_update(skald_vectors *v, double *w, double *abar, const double *g, double a, const double *h,
                        double eta, double n, const skald_regulariser *r) {
    cuda_vectors *x = of(v);
    const skald_gpu_regulariser reg = regulariser(v, r);
    if (ready(x)) note(x, skald_gpu_saga_update(entries(v), w, abar, g, a, h, eta, n, &reg, x->stream), UPDATING);
}

static void local_merge(skald_vectors *v, double *w, double *abar, const double *dw, double theta, const double *h,
                        double n) {
    cuda_vectors *x = of(v);
    if (ready(x)) note(x, skald_gpu_local_merge(v->dim, w, abar, dw, theta, h, n, x->stream), UPDATING);
}

static void proximal_step(skald_vectors *v, double *w, const double *g, double eta, const skald_regulariser *r) {
    sgd_update(v, w, g, 1, eta, r);
}

/* ---- sums ----------------------------------------------------------------------------------------- */

static double *d_sum_of(const cuda_vectors *x) {
    return (double *)(void *)((char *)x->d_sum + SKALD_GPU_SUM_BYTES);
}

/* The sum that has been started, once it is there. */
static double fetch(cuda_vectors *x, int error) {
    note(x, error, "adding up a vector");
    if (ready(x))
        note(x, cudaMemcpyAsync(x->h_sum, d_sum_of(x), sizeof(double), cudaMemcpyDeviceToHost, x->stream),
             "copying a sum");
    if (ready(x)) note(x, cudaStreamSynchronize(x->stream), "waiting for a sum");
    return x->status == SKALD_OK ? *x->h_sum : NAN;
}

static double norm2(skald_vectors *v, const double *p) {
    cuda_vectors *x = of(v);
    return ready(x) ? fetch(x, skald_gpu_norm2(v->dim, p, d_sum_of(x), x->d_sum, x->stream)) : NAN;
}

static double penalty(skald_vectors *v, const double *w, const skald_regulariser *r) {
    cuda_vectors *x = of(v);
    const skald_gpu_regulariser reg = regulariser(v, r);
    return ready(x) ? fetch(x, skald_gpu_penalty(entries(v), w, &reg, d_sum_of(x), x->d_sum, x->stream)) : NAN;
}

static double stationarity(skald_vectors *v, const double *w, const double *g, double eta, const skald_regulariser *r) {
    cuda_vectors *x = of(v);
    const skald_gpu_regulariser reg = regulariser(v, r);
    if (!ready(x)) return NAN;
    return fetch(x, skald_gpu_stationarity(entries(v), w, g, eta, &reg, d_sum_of(x), x->d_sum, x->stream));
}

/* ---- of a device ---------------------------------------------------------------------------------- */

static const skald_vectors_ops operations = {create,       destroy,    copy,        zero,        combine,       axpy,
                                             norm2,        sgd_update, saga_update, local_merge, proximal_step, penalty,
                                             stationarity, read_out,   write_in,    status};

static skald_status open_vectors(cuda_compute *c, cuda_vectors *x) {
    x->c = c;
    TRY(cuda_enter(c));
    CUDA_TRY(c, cudaStreamCreateWithFlags(&x->stream, cudaStreamNonBlocking), "making a stream");
    CUDA_TRY(c, cudaEventCreateWithFlags(&x->event, cudaEventDisableTiming), "making an event");
    CUDA_TRY(c, cudaMalloc(&x->d_sum, SKALD_GPU_SUM_BYTES + sizeof(double)), "allocating workspace on the card");
    CUDA_TRY(c, cudaMallocHost((void **)&x->h_sum, sizeof(double)), "pinning host memory");
    return SKALD_OK;
}

void cuda_vectors_close(cuda_compute *c) {
    cuda_vectors *x = c->vectors;
    if (!x) return;
    c->vectors = NULL;
    (void)cudaSetDevice((int)c->index);
    if (x->stream) cudaStreamSynchronize(x->stream);
    if (x->h_sum) cudaFreeHost(x->h_sum);
    if (x->d_sum) cudaFree(x->d_sum);
    if (x->event) cudaEventDestroy(x->event);
    if (x->stream) cudaStreamDestroy(x->stream);
    (void)cudaGetLastError();
    free(x->list);
    free(x);
}

skald_status cuda_vectors_open(skald_compute *base, skald_vectors *out) {
    cuda_compute *c = (cuda_compute *)base;
    if (!c->vectors) {
        c->vectors = skald_zalloc(1, sizeof *c->vectors);
        if (!c->vectors) return SKALD_ENOMEM;
        const skald_status st = open_vectors(c, c->vectors);
        if (st != SKALD_OK) {
            cuda_vectors_close(c);
            return st;
        }
    }
    *out = (skald_vectors){.ops = &operations,
                           .dim = (uint32_t)skald_objective_length(&base->objective, base->dim),
                           .classes = skald_objective_classes(&base->objective),
                           .columns = base->dim,
                           .on_device = true,
                           .queue = c->vectors->stream,
                           .context = c->vectors};
    return SKALD_OK;
}

bool cuda_is_vector(const cuda_compute *c, const void *p) {
    const cuda_vectors *x = c->vectors;
    for (size_t k = 0; x && p && k < x->count; k++)
        if (x->list[k] == p) return true;
    return false;
}

skald_status cuda_vectors_precede(cuda_compute *c, cudaStream_t stream) {
    cuda_vectors *x = c->vectors;
    if (!x) return SKALD_OK;
    CUDA_TRY(c, cudaEventRecord(x->event, x->stream), "recording an event");
    CUDA_TRY(c, cudaStreamWaitEvent(stream, x->event, 0), "waiting for vectors");
    return SKALD_OK;
}
