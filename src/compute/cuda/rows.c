/* Rows out of a shard again, wherever they lie: gathered on the card, copied in pieces. */
#include <stdlib.h>

#include "base/base.h"
#include "compute/checks.h"
#include "compute/cuda/cuda.h"
#include "kernels/softmax.h"

enum { PIECE_BYTES = 4 << 20 };

typedef struct taking {
    cuda_compute *c;
    cuda_shard *shard;
    cudaStream_t stream;
    const uint32_t *list; /* on the card; NULL: rows in order */
    size_t count;
    void *scratch, *pointers; /* on the card: a piece; CSR: out->ptr */
    skald_rows *out;
} taking;

static skald_status allocate(const taking *t, size_t bytes, void **out) {
    CUDA_TRY(t->c, cudaMalloc(out, bytes), "allocating room for copies of rows");
    return SKALD_OK;
}

/* Waits for what uses it. An error that does not stay is not to leave it behind. */
static void release(void *there) {
    if (!there || cudaFree(there) == cudaSuccess) return;
    (void)cudaGetLastError();
    (void)cudaFree(there);
}

static skald_status fetch(const taking *t, void *to, const void *from, size_t bytes) {
    if (bytes) CUDA_TRY(t->c, cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, t->stream), "copying rows");
    return SKALD_OK;
}

static skald_status wait(const taking *t) {
    CUDA_TRY(t->c, cudaStreamSynchronize(t->stream), "waiting for copies of rows");
    return SKALD_OK;
}

static skald_status take_heads(taking *t, skald_gpu_head *head) {
    const size_t bytes = t->count * sizeof *head;
    void *there = NULL;
    TRY(allocate(t, bytes, &there));
    const int error = skald_gpu_heads(&t->shard->rows, t->list, t->count, there, t->stream);
    skald_status st = error ? cuda_fail(t->c, error, "gathering labels") : fetch(t, head, there, bytes);
    if (st == SKALD_OK) st = wait(t);
    release(there);
    return st;
}

/* Widened on the card, whatever they are stored as. */
static skald_status take_dense(taking *t) {
    const size_t stride = t->out->stride, most = skald_max_size(PIECE_BYTES / (stride * sizeof(float)), 1);
    TRY(allocate(t, most * stride * sizeof(float), &t->scratch));
    for (size_t k = 0; k < t->count; k += most) {
        const size_t rows = skald_min_size(most, t->count - k);
        CUDA_TRY(t->c, skald_gpu_softmax_gather(&t->shard->rows, t->list, k, rows, NULL, t->scratch, stride, t->stream),
                 "gathering rows");
        TRY(fetch(t, t->out->x + k * stride, t->scratch, rows * stride * sizeof(float)));
    }
    return wait(t);
}

/* Rows from the k-th on whose entries fit a piece: one at least. */
static size_t fitting(const uint64_t *ptr, size_t k, size_t count, size_t most) {
    size_t rows = 1;
    while (k + rows < count && ptr[k + rows + 1] - ptr[k] <= most) rows++;
    return rows;
}

static skald_status take_sparse(taking *t) {
    const uint64_t *ptr = t->out->ptr;
    const size_t pointers = (t->count + 1) * sizeof *ptr;
    size_t most = PIECE_BYTES / (sizeof(uint32_t) + sizeof(float));
    for (size_t k = 0; k < t->count; k++) most = skald_max_size(most, ptr[k + 1] - ptr[k]);
    most = skald_min_size(most, skald_max_size(ptr[t->count], 1));
    TRY(allocate(t, pointers, &t->pointers));
    TRY(allocate(t, most * (sizeof(uint32_t) + sizeof(float)), &t->scratch));
    CUDA_TRY(t->c, cudaMemcpyAsync(t->pointers, ptr, pointers, cudaMemcpyHostToDevice, t->stream), "copying rows");
    uint32_t *idx = t->scratch;
    float *val = (float *)(void *)(idx + most);
    for (size_t k = 0, rows; k < t->count; k += rows) {
        rows = fitting(ptr, k, t->count, most);
        const size_t entries = ptr[k + rows] - ptr[k];
        CUDA_TRY(t->c, skald_gpu_entries(&t->shard->rows, t->list, k, rows, t->pointers, idx, val, t->stream),
                 "gathering rows");
        TRY(fetch(t, t->out->idx + ptr[k], idx, entries * sizeof *idx));
        TRY(fetch(t, t->out->val + ptr[k], val, entries * sizeof *val));
    }
    return wait(t);
}

static skald_status take(taking *t, skald_gpu_head *head) {
    const skald_gpu_rows *r = &t->shard->rows;
    uint64_t entries = 0;
    TRY(take_heads(t, head));
    for (size_t k = 0; k < t->count; k++) entries += head[k].entries;
    TRY(skald_rows_make(r->layout, t->count, r->dim, entries, t->out));
    for (size_t k = 0; k < t->count; k++) {
        t->out->y[k] = head[k].y;
        t->out->s[k] = head[k].s;
        if (r->layout == SKALD_CSR) t->out->ptr[k + 1] = t->out->ptr[k] + head[k].entries;
    }
    return r->layout == SKALD_CSR ? take_sparse(t) : take_dense(t);
}

skald_status cuda_rows(skald_compute *base, skald_shard *base_shard, const skald_batch *batch, skald_rows *out) {
    cuda_compute *c = (cuda_compute *)base;
    cuda_shard *shard = (cuda_shard *)base_shard;
    *out = (skald_rows){0};
    TRY(compute_check_batch(shard->rows.n, batch));
    TRY(cuda_begin(c, shard, false));
    const size_t count = batch->rows ? batch->count : shard->rows.n;
    if (!count) return skald_rows_make(shard->rows.layout, 0, shard->rows.dim, 0, out);
    taking t = {.c = c,
                .shard = shard,
                .stream = shard->lane.stream,
                .list = batch->rows ? shard->lane.d_list : NULL,
                .count = count,
                .out = out};
    skald_gpu_head *head = skald_alloc(count, sizeof *head);
    skald_status st = head ? cuda_upload_list(c, &shard->lane, batch->rows, count, t.stream) : SKALD_ENOMEM;
    if (st == SKALD_OK) st = take(&t, head);
    if (st != SKALD_OK) {
        cuda_settle(&shard->lane, st);
        skald_rows_free(out);
    }
    free(head);
    release(t.scratch);
    release(t.pointers);
    return st;
}
