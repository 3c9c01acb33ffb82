/* The CUDA backend, host half. Kernels are behind kernels/kernels.h.
 *
 *   device.c   cards: listing, opening, what errors mean; the plugin's entry
 *   load.c     a shard onto the card, or into pinned host memory
 *   lane.c     what an operation runs on: streams, staging, results; upload, download, failure
 *   ops.c      one pass over rows an operation
 *   local.c    local steps, as CUDA graphs
 *   rows.c     copies of rows
 *   vectors.c  vectors that stay on the card
 *   softmax.h  several classes
 *
 * Threads and streams: a shard has a lane of its own, with two streams, so operations on distinct shards share nothing
 * and run at once on the card. Nothing here locks.
 *
 * Memory: everything an operation needs is allocated when its shard is loaded, but for margins (at the first
 * `objective` that keeps them), the workspace of local steps (at the first `local` of a longer step) and their graphs,
 * and a piece of a few megabytes while `rows` copies some.
 *
 * Failures: SKALD_EIO with the name and text of CUDA's error and what was being done. An error that stays (an illegal
 * access, a lost card) makes the card unusable; each later operation says so. The history is written by the last
 * kernel of an operation. What comes after it (results coming back) is tried twice, and if it fails for good then the
 * history of that shard is in doubt: operations that would build on it are refused. */
#ifndef SKALD_COMPUTE_CUDA_H
#define SKALD_COMPUTE_CUDA_H

#include <cuda_runtime_api.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/kernels.h"
#include "skald/compute.h"

typedef struct cuda_vectors cuda_vectors;

typedef struct cuda_compute {
    skald_compute base; /* first */
    uint32_t index;
    char spec[16]; /* "cuda:0" */
    skald_gpu_device gpu;
    skald_storage_kind storage;
    skald_resident resident;
    bool deterministic;
    cuda_vectors *vectors; /* NULL: nobody has asked for any */
    atomic_bool broken;    /* an error that stays was seen */
    atomic_size_t held;    /* bytes of the card that its shards take, about */
} cuda_compute;

/* Sets skald_error from a CUDA error, forgets what can be forgotten; see above. Returns SKALD_ENOMEM or SKALD_EIO. */
skald_status cuda_fail(cuda_compute *c, int error, const char *doing);
/* Makes the card current for this thread. Each operation begins with it. */
skald_status cuda_enter(cuda_compute *c);

#define CUDA_TRY(c, expr, doing)                                                                                       \
    do {                                                                                                               \
        const int cuda_error_ = (int)(expr);                                                                           \
        if (cuda_error_ != cudaSuccess) return cuda_fail((c), cuda_error_, (doing));                                   \
    } while (0)

/* ---- vectors.c ------------------------------------------------------------------------------------ */

skald_status cuda_vectors_open(skald_compute *c, struct skald_vectors *out);
void cuda_vectors_close(cuda_compute *c);
bool cuda_is_vector(const cuda_compute *c, const void *p); /* else host memory */
/* What `stream` is given from here on comes behind what was done to vectors until now. */
skald_status cuda_vectors_precede(cuda_compute *c, cudaStream_t stream);
/* Which way memory goes to, or comes from, the caller's vector. */
static inline enum cudaMemcpyKind cuda_to(const cuda_compute *c, const void *vector) {
    return cuda_is_vector(c, vector) ? cudaMemcpyDeviceToDevice : cudaMemcpyDeviceToHost;
}

/* ---- lanes ---------------------------------------------------------------------------------------- */

/* What comes back from the card in one copy; vectors follow. */
typedef struct cuda_results {
    skald_gpu_sums sums[2];
    double pad[16]; /* vectors begin at 256 bytes */
} cuda_results;

typedef struct cuda_lane {
    cudaStream_t stream; /* kernels, and copies they wait for */
    cudaStream_t copy;   /* copies that kernels of `stream` run beside */
    cudaEvent_t copied;
    size_t rows, dim, width; /* room for row numbers; entries of a vector, and from one vector to the next */
    /* pinned host memory */
    double *h_vector[2];
    uint32_t *h_list;
    cuda_results *h_results;
    skald_gpu_local_settings *h_settings;
    /* device memory */
    double *d_vector[2];
    uint32_t *d_list; /* also holds n floats of history on their way */
    cuda_results *d_results;
    double *d_out[2]; /* behind d_results */
    skald_gpu_local_settings *d_settings;
    void *d_workspace; /* of passes */
    size_t workspace_bytes;
    void *host_block, *device_block; /* what the above lie in */
} cuda_lane;

/* Room for `rows` row numbers. *device_bytes (may be NULL): what it takes of the card. */
size_t cuda_lane_bytes(size_t rows, size_t dim, size_t workspace_bytes);
skald_status cuda_lane_init(cuda_compute *c, cuda_lane *lane, size_t rows, size_t dim, size_t workspace_bytes);
void cuda_lane_fini(cuda_lane *lane);

/* A vector of the caller's, wherever it is, to d_vector[which], or the beginning of one to anywhere on the card; in the
 * order of the lane's stream. */
skald_status cuda_upload_vector(cuda_compute *c, cuda_lane *lane, int which, const double *v);
skald_status cuda_upload(cuda_compute *c, cuda_lane *lane, double *to, const double *from, size_t bytes);
/* In the order of `stream` (lane->stream or lane->copy). */
skald_status cuda_upload_list(cuda_compute *c, cuda_lane *lane, const uint32_t *rows, size_t count,
                              cudaStream_t stream);
/* Waits for the lane's stream, with a second try: for when the history has changed already. A cudaError_t. */
int cuda_wait(cuda_lane *lane);
/* After the kernels: waits, copies d_out[] to out[] (NULL: not wanted). SKALD_ENUMERIC if a sum is bad. */
skald_status cuda_download(cuda_compute *c, cuda_lane *lane, uint32_t points, double *const out[2],
                           skald_gpu_sums sums[2]);
/* Waits for what a failed operation left in flight; then nothing touches the staging buffers. Returns st. */
skald_status cuda_settle(cuda_lane *lane, skald_status st);

/* ---- shards --------------------------------------------------------------------------------------- */

typedef struct cuda_graphs { /* of one kind of task */
    bool saga;
    uint32_t step_rows;
    size_t count;
    cudaGraphExec_t *exec; /* [k]: CUDA_GRAPH_STEPS steps from k*CUDA_GRAPH_STEPS on; NULL: not made yet */
    uint64_t touched;      /* shard->clock at its last use */
} cuda_graphs;

enum { CUDA_GRAPH_STEPS = 64, CUDA_GRAPH_KINDS = 4 };

typedef struct cuda_shard {
    skald_shard base; /* first: see skald_shard */
    skald_gpu_rows rows;
    bool on_host;    /* x, or ptr, idx, val, are pinned host memory as the card sees it */
    void *pinned[3]; /* that memory */
    void *owned[8];  /* device memory of rows and what goes with them */
    int pinned_count, owned_count;
    size_t held;       /* bytes of the card, about */
    double *margin[2]; /* n each, once kept by `objective`; NULL before */
    uint32_t margins;  /* points kept: 0, 1, 2 */
    bool doubtful;     /* the history may be half of an operation ahead of what was reported */
    cuda_lane lane;
    void *local_workspace;
    size_t local_bytes;
    cuda_graphs graphs[CUDA_GRAPH_KINDS];
    uint64_t clock;
    struct cuda_softmax *softmax; /* NULL: one class */
} cuda_shard;

/* Refused when the card is broken or, with `history`, when the history is in doubt. Makes the card current, and lets
 * the shard's stream wait for what is being done to vectors. */
skald_status cuda_begin(cuda_compute *c, const cuda_shard *shard, bool history);
/* Drops all graphs and the workspace of local steps. */
void cuda_local_drop(cuda_shard *shard);

/* ---- operations of skald_compute_ops ---------------------------------------------------------------- */

void cuda_destroy(skald_compute *c);
skald_status cuda_load(skald_compute *c, skald_rows *rows, skald_shard **out);
void cuda_unload(skald_compute *c, skald_shard *shard);
skald_status cuda_gradient(skald_compute *c, skald_shard *shard, const skald_batch *batch, const double *w, double *g,
                           skald_sums *sums);
skald_status cuda_saga(skald_compute *c, skald_shard *shard, const skald_batch *batch, const double *w, double *g,
                       skald_sums *sums);
skald_status cuda_local(skald_compute *c, skald_shard *shard, const skald_batch *batch, const skald_local *local,
                        const double *w, const double *abar, double *dw, double *g, skald_sums *sums);
skald_status cuda_difference(skald_compute *c, skald_shard *shard, const skald_batch *batch, const double *w,
                             const double *u, double *g, skald_sums *sums);
skald_status cuda_objective(skald_compute *c, skald_shard *shard, uint32_t points, const double *const *w,
                            double *const *g, bool keep_margins, skald_sums *sums);
skald_status cuda_shift(skald_compute *c, skald_shard *shard, uint32_t points, const double *delta, skald_sums *sums);
skald_status cuda_anchor(skald_compute *c, skald_shard *shard, double *a);
skald_status cuda_curvature(skald_compute *c, skald_shard *shard, size_t m, const double *v, double *g);
skald_status cuda_rows(skald_compute *c, skald_shard *shard, const skald_batch *batch, skald_rows *out);
skald_status cuda_history_get(skald_compute *c, skald_shard *shard, float *alpha);
skald_status cuda_history_set(skald_compute *c, skald_shard *shard, const float *alpha);

#endif
