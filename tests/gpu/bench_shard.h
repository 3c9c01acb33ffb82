/* Shards of random rows on the card, for the kernels' benchmark. */
#ifndef SKALD_TESTS_GPU_BENCH_SHARD_H
#define SKALD_TESTS_GPU_BENCH_SHARD_H

#include "bench_report.h"

#define LISTS 8

typedef struct bench {
    skald_gpu_rows rows; /* all of the shard */
    uint32_t *list[LISTS];
    double *w, *u, *g, *h; /* two models, two gradients */
    skald_gpu_sums *sums;  /* two */
    skald_gpu_pass pass;
    skald_gpu_rows slice; /* a batch of neighbours: the shard from some row on */
    bool listed;
    void *workspace;
    size_t bytes;
} bench;

static const char *storage_name(skald_gpu_storage storage) {
    static const char *const names[] = {"f32", "bf16", "u8"};
    return names[storage];
}

/* Fills device memory with a pattern of random bytes, made once. */
static void fill(void *to, size_t bytes, const void *pattern, size_t pattern_bytes) {
    for (size_t at = 0; at < bytes; at += pattern_bytes) {
        const size_t n = bytes - at < pattern_bytes ? bytes - at : pattern_bytes;
        CUDA(cudaMemcpyAsync((char *)to + at, pattern, n, cudaMemcpyHostToDevice, check_stream));
    }
    CUDA(cudaStreamSynchronize(check_stream));
}

static void make_common(bench *b) {
    const uint32_t dim = b->rows.dim;
    double *w = host_take(dim * sizeof *w);
    skald_gpu_record *record = host_take(shard_rows * sizeof *record);
    uint32_t *all = host_take(shard_rows * sizeof *all);
    for (uint32_t j = 0; j < dim; j++) w[j] = 1e-3 * random_unit();
    for (size_t i = 0; i < shard_rows; i++) {
        record[i] = (skald_gpu_record){.y = random_bits() & 1 ? 1.0 : -1.0};
        all[i] = (uint32_t)i;
    }
    for (size_t i = shard_rows - 1; i > 0; i--) {
        const size_t k = (size_t)(random_bits() % (i + 1));
        const uint32_t swap = all[i];
        all[i] = all[k];
        all[k] = swap;
    }
    const size_t apart = (shard_rows - batch_rows) / LISTS;
    for (int k = 0; k < LISTS; k++) b->list[k] = device_copy(all + (size_t)k * apart, batch_rows * sizeof *all);
    b->w = device_copy(w, dim * sizeof *w);
    for (uint32_t j = 0; j < dim; j++) w[j] += 1e-4 * random_unit();
    b->u = device_copy(w, dim * sizeof *w);
    b->g = device_take(dim * sizeof *w);
    b->h = device_take(dim * sizeof *w);
    b->sums = device_take(2 * sizeof *b->sums);
    b->rows.n = shard_rows;
    b->rows.record = device_copy(record, shard_rows * sizeof *record);
}

static void make_dense(bench *b, skald_gpu_storage storage, uint32_t dim) {
    memset(b, 0, sizeof *b);
    b->rows.storage = storage;
    b->rows.dim = dim;
    b->rows.stride = skald_gpu_stride(dim, storage);
    const size_t row = b->rows.stride * skald_gpu_entry_bytes(storage), some = shard_rows < 4096 ? shard_rows : 4096;
    unsigned char *pattern = host_take(some * row);
    for (size_t k = 0; k < some * b->rows.stride; k++) {
        const float v = (float)random_unit();
        uint32_t bits;
        memcpy(&bits, &v, 4);
        if (k % b->rows.stride >= dim) continue; /* padding stays zero */
        if (storage == SKALD_GPU_F32) memcpy(pattern + 4 * k, &bits, 4);
        if (storage == SKALD_GPU_BF16) memcpy(pattern + 2 * k, (char *)&bits + 2, 2);
        if (storage == SKALD_GPU_U8) pattern[k] = (unsigned char)(bits >> 8);
    }
    void *x = device_take(shard_rows * row);
    fill(x, shard_rows * row, pattern, some * row);
    b->rows.x = x;
    make_common(b);
}

static void make_sparse(bench *b, uint32_t dim, uint32_t per_row) {
    memset(b, 0, sizeof *b);
    b->rows.layout = SKALD_CSR;
    b->rows.dim = dim;
    uint64_t *ptr = host_take((shard_rows + 1) * sizeof *ptr);
    uint32_t *idx = host_take(shard_rows * per_row * sizeof *idx);
    float *val = host_take(shard_rows * per_row * sizeof *val);
    for (size_t i = 0; i < shard_rows; i++) {
        ptr[i + 1] = (i + 1) * per_row;
        for (uint32_t k = 0; k < per_row; k++) { /* one from each stretch: ascending; the low ones are common words */
            const double u = (random_unit() + 1) / 2, from = pow((double)k / per_row, 3),
                         to = pow((k + 1.0) / per_row, 3);
            const uint32_t low = k + (uint32_t)(from * (dim - per_row)), high = k + (uint32_t)(to * (dim - per_row));
            idx[i * per_row + k] = low + (uint32_t)(u * (high - low));
            val[i * per_row + k] = (float)(0.1 * (random_unit() + 1));
        }
    }
    b->rows.ptr = device_copy(ptr, (shard_rows + 1) * sizeof *ptr);
    b->rows.idx = device_copy(idx, shard_rows * per_row * sizeof *idx);
    b->rows.val = device_copy(val, shard_rows * per_row * sizeof *val);
    make_common(b);
    float *norm2 = device_take(shard_rows * sizeof(float));
    CUDA(skald_gpu_norms(&b->rows, 0, shard_rows, norm2, check_stream));
    b->rows.norm2 = norm2;
}

#endif
