/* A shard onto the card: how its rows are stored, where they lie, and whether they fit. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "compute/checks.h"
#include "compute/cuda/softmax.h"

enum { STAGE_BYTES = 4 << 20, STAGES = 2 };

/* Rows on their way: two pieces of pinned memory and of the card's, used in turn, so that filling one goes on beside
 * the copy of the other. */
typedef struct staging {
    cuda_compute *c;
    cudaStream_t stream;
    size_t bytes; /* of a piece */
    void *host[STAGES], *device[STAGES];
    cudaEvent_t done[STAGES];
    int turn;
} staging;

/* ---- storage -------------------------------------------------------------------------------------- */

static float round_bf16(float v) {
    uint32_t bits;
    if (!isfinite(v)) return v; /* refused later */
    memcpy(&bits, &v, sizeof bits);
    bits = (bits + 0x7fff + ((bits >> 16) & 1)) & 0xffff0000u; /* to nearest, ties to even */
    memcpy(&v, &bits, sizeof v);
    return v;
}

static bool is_byte(float v) {
    return v >= 0 && v <= 255 && v == floorf(v);
}

/* Is every value a whole number from 0 to 255? If not, *row and *column say where. */
static bool all_bytes(const skald_rows *rows, size_t *row, size_t *column) {
    for (size_t i = 0; i < rows->n; i++)
        for (size_t j = 0; j < rows->dim; j++)
            if (!is_byte(rows->x[i * rows->stride + j])) {
                *row = i;
                *column = j;
                return false;
            }
    return true;
}

/* Chooses, and for bf16 rounds the rows, so that facts and norms are those of the rows as stored. */
static skald_status choose_storage(const cuda_compute *c, skald_rows *rows, skald_gpu_storage *out) {
    size_t row, column;
    *out = SKALD_GPU_F32;
    if (rows->layout != SKALD_DENSE || c->storage == SKALD_STORE_F32) return SKALD_OK;
    if (c->storage == SKALD_STORE_BF16) {
        *out = SKALD_GPU_BF16;
        for (size_t k = 0; k < rows->n * rows->stride; k++) rows->x[k] = round_bf16(rows->x[k]);
        return SKALD_OK;
    }
    if (all_bytes(rows, &row, &column)) {
        *out = SKALD_GPU_U8;
    } else if (c->storage == SKALD_STORE_U8) {
        return skald_fail(SKALD_EDATA,
                          "row %zu of the shard, column %zu: %g is no whole number from 0 to 255, which --storage u8 "
                          "needs; use auto, bf16 or f32",
                          row, column, (double)rows->x[row * rows->stride + column]);
    }
    return SKALD_OK;
}

/* ---- room ----------------------------------------------------------------------------------------- */

static size_t rows_bytes(const skald_rows *rows, const skald_gpu_rows *r) {
    if (rows->layout == SKALD_DENSE) return rows->n * r->stride * skald_gpu_entry_bytes(r->storage);
    return (rows->n + 1) * sizeof *rows->ptr + rows->ptr[rows->n] * (sizeof *rows->idx + sizeof *rows->val);
}

/* Beside the rows: records, weights, norms, margins, the lane, pieces for loading. */
static size_t side_bytes(const cuda_compute *c, size_t n, size_t dim, size_t workspace, size_t stage) {
    const size_t margins = c->base.objective.intercept ? 2 * sizeof(double) : 0;
    return n * (sizeof(skald_gpu_record) + sizeof(double) + sizeof(float) + margins) +
           cuda_lane_bytes(n, dim, workspace) + STAGES * stage;
}

/* Decides where the rows go; side: with what loading takes for a while. */
static skald_status find_room(cuda_compute *c, size_t rows, size_t side, size_t loading, bool *on_host) {
    size_t free_bytes = 0, total = 0;
    CUDA_TRY(c, cudaMemGetInfo(&free_bytes, &total), "asking for the card's memory");
    const size_t reserve = total / 64; /* graphs, workspace of local steps, what fragments cost */
    const size_t usable = free_bytes > reserve ? free_bytes - reserve : 0;
    *on_host = c->resident == SKALD_RESIDENT_HOST;
    if (!*on_host && rows + side <= usable) return SKALD_OK;
    if (c->resident != SKALD_RESIDENT_DEVICE && side <= usable) {
        *on_host = true;
        return SKALD_OK;
    }
    /* all shards, over empty cards like this one */
    const double need = (double)(rows + side - loading) * (c->base.shards ? c->base.shards : 1);
    const double room = (double)atomic_load(&c->held) + (double)usable - (double)loading;
    return skald_fail(
        SKALD_ENOMEM,
        "a shard that takes %.3g GB does not fit into the %.3g GB free on %s: the rows of all shards need %.0f "
        "cards of this size, a worker each%s",
        (double)(rows + side) * 1e-9, (double)usable * 1e-9, c->spec, room > 0 ? ceil(need / room) : 2,
        side <= usable ? "; or --resident host, which reads them from host memory" : "");
}

/* ---- copying -------------------------------------------------------------------------------------- */

static skald_status staging_init(cuda_compute *c, cudaStream_t stream, size_t bytes, staging *s) {
    *s = (staging){.c = c, .stream = stream, .bytes = bytes};
    for (int k = 0; k < STAGES; k++) {
        CUDA_TRY(c, cudaMallocHost(&s->host[k], bytes), "pinning host memory");
        CUDA_TRY(c, cudaMalloc(&s->device[k], bytes), "allocating room for loading");
        CUDA_TRY(c, cudaEventCreateWithFlags(&s->done[k], cudaEventDisableTiming), "making an event");
    }
    return SKALD_OK;
}

static void staging_fini(staging *s) {
    if (!s->bytes) return;
    cudaStreamSynchronize(s->stream); /* whatever came before */
    for (int k = 0; k < STAGES; k++) {
        if (s->done[k]) cudaEventDestroy(s->done[k]);
        if (s->device[k]) cudaFree(s->device[k]);
        if (s->host[k]) cudaFreeHost(s->host[k]);
    }
    (void)cudaGetLastError();
}

/* Waits until piece s->turn may be filled again. */
static skald_status next_piece(staging *s) {
    s->turn = (s->turn + 1) % STAGES;
    CUDA_TRY(s->c, cudaEventSynchronize(s->done[s->turn]), "loading rows");
    return SKALD_OK;
}

static skald_status piece_used(staging *s) {
    CUDA_TRY(s->c, cudaEventRecord(s->done[s->turn], s->stream), "loading rows");
    return SKALD_OK;
}

/* `to`: on the card, or pinned host memory when on_host. */
static skald_status copy_array(staging *s, void *to, const void *from, size_t bytes, bool on_host) {
    if (on_host) {
        memcpy(to, from, bytes);
        return SKALD_OK;
    }
    for (size_t at = 0; at < bytes; at += s->bytes) {
        const size_t piece = skald_min_size(s->bytes, bytes - at);
        TRY(next_piece(s));
        memcpy(s->host[s->turn], (const char *)from + at, piece);
        CUDA_TRY(s->c, cudaMemcpyAsync((char *)to + at, s->host[s->turn], piece, cudaMemcpyHostToDevice, s->stream),
                 "copying rows to the card");
        TRY(piece_used(s));
    }
    return SKALD_OK;
}

/* Rows travel as f32 and are packed on the card, which also writes them to host memory if they are to stay there. */
static skald_status copy_dense(staging *s, const skald_rows *rows, const skald_gpu_rows *r) {
    const size_t row_bytes = rows->stride * sizeof *rows->x, most = s->bytes / row_bytes;
    for (size_t i = 0; i < rows->n; i += most) {
        const size_t count = skald_min_size(most, rows->n - i);
        TRY(next_piece(s));
        memcpy(s->host[s->turn], rows->x + i * rows->stride, count * row_bytes);
        CUDA_TRY(
            s->c,
            cudaMemcpyAsync(s->device[s->turn], s->host[s->turn], count * row_bytes, cudaMemcpyHostToDevice, s->stream),
            "copying rows to the card");
        char *to = (char *)(uintptr_t)r->x + i * r->stride * skald_gpu_entry_bytes(r->storage);
        CUDA_TRY(s->c,
                 skald_gpu_pack(s->device[s->turn], rows->stride, count, r->dim, r->storage, NULL, to, r->stride, NULL,
                                s->stream),
                 "storing rows on the card");
        TRY(piece_used(s));
    }
    return SKALD_OK;
}

/* ---- shards --------------------------------------------------------------------------------------- */

static skald_status own(cuda_compute *c, cuda_shard *shard, size_t bytes, void *out) {
    void *p = NULL;
    CUDA_TRY(c, cudaMalloc(&p, skald_max_size(bytes, 1)), "allocating memory of the card");
    shard->owned[shard->owned_count++] = p;
    memcpy(out, &p, sizeof p);
    return SKALD_OK;
}

/* Memory for an array of rows: *card is where kernels find it, *fill where copy_array puts it. */
static skald_status own_rows(cuda_compute *c, cuda_shard *shard, size_t bytes, void *card, void **fill) {
    void *p = NULL, *seen = NULL;
    if (!shard->on_host) {
        TRY(own(c, shard, bytes, &p));
        seen = p;
    } else {
        CUDA_TRY(c, cudaHostAlloc(&p, skald_max_size(bytes, 1), cudaHostAllocMapped | cudaHostAllocPortable),
                 "pinning host memory for rows");
        shard->pinned[shard->pinned_count++] = p;
        CUDA_TRY(c, cudaHostGetDevicePointer(&seen, p, 0), "mapping host memory");
    }
    *fill = p;
    memcpy(card, &seen, sizeof seen);
    return SKALD_OK;
}

static skald_status fill_rows(staging *s, cuda_shard *shard, const skald_rows *rows) {
    skald_gpu_rows *r = &shard->rows;
    const bool host = shard->on_host;
    void *fill;
    if (rows->layout == SKALD_DENSE) {
        TRY(own_rows(s->c, shard, rows_bytes(rows, r), &r->x, &fill));
        return copy_dense(s, rows, r);
    }
    const size_t n = rows->n, entries = rows->ptr[n];
    TRY(own_rows(s->c, shard, (n + 1) * sizeof *rows->ptr, &r->ptr, &fill));
    TRY(copy_array(s, fill, rows->ptr, (n + 1) * sizeof *rows->ptr, host));
    TRY(own_rows(s->c, shard, entries * sizeof *rows->idx, &r->idx, &fill));
    TRY(copy_array(s, fill, rows->idx, entries * sizeof *rows->idx, host));
    TRY(own_rows(s->c, shard, entries * sizeof *rows->val, &r->val, &fill));
    return copy_array(s, fill, rows->val, entries * sizeof *rows->val, host);
}

/* Weights (none if all are 1), norms, and records with no history. */
static skald_status fill_side(staging *s, cuda_shard *shard, const skald_rows *rows, const float *norms) {
    skald_gpu_rows *r = &shard->rows;
    const size_t n = rows->n;
    bool ones = true;
    double *weights = NULL;
    float *p = NULL;
    for (size_t i = 0; i < n && ones; i++) ones = rows->s[i] == 1;
    if (!ones) {
        TRY(own(s->c, shard, n * sizeof *weights, &weights));
        TRY(copy_array(s, weights, rows->s, n * sizeof *weights, false));
        r->s = weights;
    }
    TRY(own(s->c, shard, n * sizeof *p, &p));
    TRY(copy_array(s, p, norms, n * sizeof *p, false));
    r->norm2 = p;
    TRY(own(s->c, shard, n * sizeof *r->record, &r->record));
    skald_gpu_record *records = skald_zalloc(n, sizeof *records);
    if (!records) return SKALD_ENOMEM;
    for (size_t i = 0; i < n; i++) records[i].y = rows->y[i];
    const skald_status st = copy_array(s, r->record, records, n * sizeof *records, false);
    free(records);
    return st;
}

static skald_status fill(cuda_compute *c, cuda_shard *shard, skald_rows *rows, float *norms) {
    skald_gpu_rows *r = &shard->rows;
    TRY(compute_check_shape(&c->base, rows));
    TRY(choose_storage(c, rows, &r->storage));
    TRY(compute_take_facts(&c->base, rows, &shard->base.facts, norms));
    r->layout = rows->layout;
    r->dim = rows->dim;
    r->n = rows->n;
    if (rows->layout == SKALD_DENSE) r->stride = skald_gpu_stride(rows->dim, r->storage);
    TRY(cuda_enter(c));
    const size_t workspace =
        skald_max_size(skald_gpu_pass_workspace_most(&c->gpu, r, rows->n), skald_gpu_shift_workspace());
    const size_t stage = skald_max_size(STAGE_BYTES, rows->stride * sizeof *rows->x);
    const bool softmax = c->base.objective.loss == SKALD_SOFTMAX;
    const size_t entries = (size_t)rows->dim * skald_objective_classes(&c->base.objective);
    const size_t bytes = rows_bytes(rows, r),
                 more = softmax ? cuda_softmax_bytes(&c->base.objective, rows->n, rows->dim) : 0;
    const size_t side = side_bytes(c, rows->n, entries, workspace, stage) + more;
    TRY(find_room(c, bytes, side, STAGES * stage, &shard->on_host));
    TRY(cuda_lane_init(c, &shard->lane, rows->n, entries, workspace));
    if (softmax) TRY(cuda_softmax_init(c, shard));
    staging s = {0};
    skald_status st = staging_init(c, shard->lane.stream, stage, &s);
    if (st == SKALD_OK) st = fill_rows(&s, shard, rows);
    if (st == SKALD_OK) st = fill_side(&s, shard, rows, norms);
    if (st == SKALD_OK) {
        const int error = cudaStreamSynchronize(s.stream);
        if (error != cudaSuccess) st = cuda_fail(c, error, "loading rows");
    }
    staging_fini(&s);
    if (st != SKALD_OK) return st;
    shard->held = (shard->on_host ? 0 : bytes) + side - STAGES * stage;
    atomic_fetch_add(&c->held, shard->held);
    return SKALD_OK;
}

void cuda_unload(skald_compute *base, skald_shard *base_shard) {
    cuda_compute *c = (cuda_compute *)base;
    cuda_shard *shard = (cuda_shard *)base_shard;
    if (!shard) return;
    cudaSetDevice((int)c->index); /* on a broken card nothing below does anything, and nothing can be done about it */
    cuda_local_drop(shard);
    cudaStreamSynchronize(shard->lane.stream);
    cuda_softmax_fini(shard);
    cuda_lane_fini(&shard->lane); /* waits for the kernels */
    for (int k = 0; k < shard->owned_count; k++) cudaFree(shard->owned[k]);
    for (int k = 0; k < shard->pinned_count; k++) cudaFreeHost(shard->pinned[k]);
    for (int p = 0; p < 2; p++)
        if (shard->margin[p]) cudaFree(shard->margin[p]);
    atomic_fetch_sub(&c->held, shard->held);
    (void)cudaGetLastError();
    free(shard);
}

skald_status cuda_load(skald_compute *base, skald_rows *rows, skald_shard **out) {
    cuda_compute *c = (cuda_compute *)base;
    cuda_shard *shard = skald_zalloc(1, sizeof *shard);
    float *norms = skald_alloc(skald_max_size(rows->n, 1), sizeof *norms);
    *out = NULL;
    skald_status st = shard && norms ? fill(c, shard, rows, norms) : SKALD_ENOMEM;
    free(norms);
    skald_rows_free(rows);
    if (st == SKALD_OK)
        *out = &shard->base;
    else
        cuda_unload(base, &shard->base);
    return st;
}
