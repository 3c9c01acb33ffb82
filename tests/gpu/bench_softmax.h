/* Softmax of ten classes as a task has it computed: whole operations of the backend by the clock, with cuBLAS's
 * products, the row numbers' way to the card and the sums' way back. Models and gradients lie on the card. */
#ifndef SKALD_TESTS_GPU_BENCH_SOFTMAX_H
#define SKALD_TESTS_GPU_BENCH_SOFTMAX_H

#include "base/base.h"
#include "bench_shard.h"
#include "skald/compute.h"
#include "skald/vectors.h"

typedef struct softmax_bench {
    skald_compute *c;
    skald_shard *shard;
    skald_vectors v;
    double *w[2], *g[2]; /* the card's */
    uint32_t *list[LISTS];
    skald_gpu_kind kind;
    bool listed; /* else all of the shard, in order */
} softmax_bench;

static void run_softmax(void *context, int turn) {
    softmax_bench *b = context;
    const skald_compute_ops *ops = b->c->ops;
    const skald_batch batch = {b->listed ? b->list[turn % LISTS] : NULL, batch_rows};
    skald_sums sums[2];
    skald_status st = SKALD_OK;
    if (b->kind == SKALD_GPU_GRADIENT) st = ops->gradient(b->c, b->shard, &batch, b->w[0], b->g[0], sums);
    if (b->kind == SKALD_GPU_SAGA) st = ops->saga(b->c, b->shard, &batch, b->w[0], b->g[0], sums);
    if (b->kind == SKALD_GPU_DIFFERENCE) st = ops->difference(b->c, b->shard, &batch, b->w[0], b->w[1], b->g[0], sums);
    if (b->kind == SKALD_GPU_OBJECTIVE)
        st = ops->objective(b->c, b->shard, 2, (const double *const *)b->w, b->g, false, sums);
    if (st == SKALD_OK) return;
    fprintf(stderr, "softmax: %s\n", skald_error());
    exit(1);
}

/* Reads: of the copy that is gathered too, once a model and once a gradient. */
static void measure_softmax(softmax_bench *b, skald_gpu_storage storage, uint32_t dim, uint32_t classes) {
    static const char *const names[] = {"gradient", "saga", "difference", "objective of two, with gradients"};
    static const int products[] = {2, 2, 3, 4};
    const double row_bytes = (double)(skald_gpu_stride(dim, storage) * skald_gpu_entry_bytes(storage));
    for (int kind = SKALD_GPU_GRADIENT; kind <= SKALD_GPU_OBJECTIVE; kind++)
        for (int listed = 0; listed < (kind == SKALD_GPU_OBJECTIVE ? 1 : 2); listed++) {
            const bool gather = listed || storage != SKALD_GPU_F32;
            const size_t rows = listed ? batch_rows : shard_rows;
            char what[64], note[64];
            b->kind = (skald_gpu_kind)kind;
            b->listed = listed != 0;
            snprintf(what, sizeof what, "%zu x %u %s, %u classes", rows, dim, storage_name(storage), classes);
            snprintf(note, sizeof note, "%s: whole operation", names[kind]);
            report(what, gather ? "softmax: gather, cuBLAS products" : "softmax: cuBLAS products", listed != 0,
                   products[kind] + gather, seconds_waited(run_softmax, b, calls_each), (double)rows * row_bytes, note);
        }
}

static skald_status load_softmax(softmax_bench *b, skald_gpu_storage storage, uint32_t dim, uint32_t classes) {
    const skald_objective objective = {.loss = SKALD_SOFTMAX, .l2 = 1e-4, .classes = classes};
    const skald_compute_options options = {.device = "cuda:0",
                                           .storage = storage == SKALD_GPU_U8 ? SKALD_STORE_U8 : SKALD_STORE_F32};
    skald_rows r = {.layout = SKALD_DENSE, .n = shard_rows, .dim = dim, .stride = (dim + 15) / 16 * 16};
    TRY(skald_compute_open(&options, &objective, dim, &b->c));
    r.x = skald_zalloc(r.n * r.stride, sizeof *r.x);
    r.y = skald_alloc(r.n, sizeof *r.y);
    r.s = skald_alloc(r.n, sizeof *r.s);
    if (!r.x || !r.y || !r.s) return SKALD_ENOMEM;
    for (size_t i = 0; i < r.n; i++) {
        r.y[i] = (double)(random_bits() % classes);
        r.s[i] = 1;
        for (size_t j = 0; j < dim; j++)
            r.x[i * r.stride + j] = storage == SKALD_GPU_U8 ? (float)(random_bits() & 255) : (float)random_unit();
    }
    TRY(b->c->ops->load(b->c, &r, &b->shard));
    return b->c->ops->vectors(b->c, &b->v);
}

static skald_status make_softmax(softmax_bench *b, skald_gpu_storage storage, uint32_t dim, uint32_t classes) {
    memset(b, 0, sizeof *b);
    TRY(load_softmax(b, storage, dim, classes));
    double *w = host_take((size_t)dim * classes * sizeof *w);
    for (int k = 0; k < 2; k++) {
        for (size_t j = 0; j < (size_t)dim * classes; j++) w[j] = 1e-5 * random_unit();
        TRY(b->v.ops->create(&b->v, &b->w[k]));
        TRY(b->v.ops->create(&b->v, &b->g[k]));
        TRY(b->v.ops->write(&b->v, b->w[k], w));
    }
    for (uint32_t k = 0; k < LISTS; k++) {
        b->list[k] = host_take(batch_rows * sizeof **b->list);
        skald_draw(1, k, shard_rows, 0, batch_rows, b->list[k]);
    }
    return SKALD_OK;
}

static void bench_softmax(skald_gpu_storage storage) {
    enum { DIM = 784, CLASSES = 10 };
    const check_mark before = mark();
    softmax_bench b;
    const skald_status st = make_softmax(&b, storage, DIM, CLASSES);
    if (st == SKALD_OK)
        measure_softmax(&b, storage, DIM, CLASSES);
    else
        leave_out(storage == SKALD_GPU_F32 ? "softmax, f32" : "softmax, u8", skald_error());
    for (int k = 0; k < 2; k++) {
        if (b.w[k]) b.v.ops->destroy(&b.v, b.w[k]);
        if (b.g[k]) b.v.ops->destroy(&b.v, b.g[k]);
    }
    if (b.shard) b.c->ops->unload(b.c, b.shard);
    if (b.c) b.c->ops->destroy(b.c);
    release(before);
}

#endif
