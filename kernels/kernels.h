/* Launchers of the CUDA kernels: plain C, usable without CUDA's headers.
 *
 * What holds for every function here unless it says otherwise:
 *   - It enqueues kernels on `stream` of the current device and returns at once, without synchronising, allocating or
 *     copying: so all of them may be captured into a CUDA graph. Order is the stream's.
 *   - The value returned is a cudaError_t (0 is success) of the launch: cudaErrorInvalidValue (1) for arguments that
 *     no kernel takes. Numbers that are not finite are no error of this kind: see skald_gpu_sums.bad.
 *   - Pointers inside structs and vector arguments are device memory; the structs themselves are host memory and are
 *     read before the function returns. Vectors are `dim` doubles, intercept last, 16-byte aligned.
 *   - Row numbers are *not* checked: the caller checks them, they come from the wire.
 *   - Work on distinct workspaces and shards may run on different streams at once. A workspace serves one
 *     operation at a time (operations on one stream may share it).
 *   - Bits: dense results repeat from run to run on one model of card. CSR results do with `deterministic`, else their
 *     last bits depend on the order of atomic additions.
 *
 * Formulas are those of include/skald/compute.h and vectors.h; numbers are as there, but rows meet the models in f32:
 * a dot is short f32 chains added in f64; g is f32 sums of at most SKALD_GPU_CHAIN_ROWS rows added in f64 (CSR: f64
 * throughout, or fixed point when deterministic). */
#ifndef SKALD_KERNELS_H
#define SKALD_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "skald/data.h"      /* skald_layout */
#include "skald/objective.h" /* skald_loss */

#ifdef __cplusplus
extern "C" {
#endif

typedef struct CUstream_st *skald_gpu_stream; /* a cudaStream_t */

#define SKALD_GPU_CHAIN_ROWS 1024

/* ---- devices ------------------------------------------------------------------------------------------ */

/* What choices of kernels and grids depend on. */
typedef struct skald_gpu_device {
    int processors;      /* multiprocessors */
    int major, minor;    /* compute capability */
    size_t shared_bytes; /* most shared memory of a block (opt-in) */
    size_t l2_bytes;
} skald_gpu_device;

/* Fills *out for the current device, and raises the shared memory limit of the kernels that need it (once a device
 * and process; before any capture). */
int skald_gpu_device_get(skald_gpu_device *out);

/* ---- rows --------------------------------------------------------------------------------------------- */

typedef enum skald_gpu_storage { SKALD_GPU_F32 = 0, SKALD_GPU_BF16, SKALD_GPU_U8 } skald_gpu_storage;

/* What a row's coefficient is made of beside its margin, in one place: a label (f64: z - y of a real target must not
 * lose its digits), and the history of a problem with one scalar a row. */
typedef struct skald_gpu_record {
    double y;
    float alpha, unused;
} skald_gpu_record;

/* A shard on the device. Arrays 256-byte aligned (as cudaMalloc gives them).
 * Dense: entry (i, j) is unit[j] * stored[i*stride + j]; stride in entries, skald_gpu_stride(dim, storage) or more,
 * a multiple of 32 bytes; padding zero. CSR: values f32, unit and storage are not read.
 * Softmax keeps labels in record.y and its n x classes history elsewhere; the kernels here are for classes <= 1. */
typedef struct skald_gpu_rows {
    skald_layout layout;
    skald_gpu_storage storage;
    uint32_t dim; /* columns, intercept included */
    uint64_t n;   /* rows, below 2^32 */
    size_t stride;
    const void *x;     /* dense: n*stride entries */
    const float *unit; /* dense: NULL (1), or `stride` column factors: u8 pixels in [0,1], an intercept beside bytes */
    const uint64_t *ptr;
    const uint32_t *idx;
    const float *val;
    skald_gpu_record *record; /* n */
    const double *s;          /* n weights, or NULL: all 1 (spares a gather a row) */
    const float *norm2;       /* n: |x_i|^2, or what is to stand for it in a step's length; read by local steps and by
                                 deterministic CSR passes */
} skald_gpu_rows;

/* Bytes an entry takes: 4, 2, 1. */
size_t skald_gpu_entry_bytes(skald_gpu_storage storage);
/* Entries a row takes: dim rounded up to whole 32-byte sectors. */
size_t skald_gpu_stride(uint32_t dim, skald_gpu_storage storage);

/* Rows n x source_stride f32 (device) to stored rows at x (n x stride, padding zeroed): bf16 to nearest even, u8
 * to the nearest of 0..255, both after division by unit (NULL: 1). *inexact (device, may be NULL) is set to 1 if a
 * value changed, else left alone: zero it before. For loading in pieces: x and source point at the piece. */
int skald_gpu_pack(const float *source, size_t source_stride, uint64_t n, uint32_t dim, skald_gpu_storage storage,
                   const float *unit, void *x, size_t stride, uint32_t *inexact, skald_gpu_stream stream);
/* norm2[i] = |x_i|^2 of the rows as stored, added in f64, for rows first .. first+count. */
int skald_gpu_norms(const skald_gpu_rows *rows, uint64_t first, uint64_t count, float *norm2, skald_gpu_stream stream);
/* What a copied row has beside its entries. */
typedef struct skald_gpu_head {
    double y, s;
    uint64_t entries; /* CSR; dense: 0 */
} skald_gpu_head;
/* Of the rows listed (NULL: rows 0 .. count). */
int skald_gpu_heads(const skald_gpu_rows *rows, const uint32_t *list, uint64_t count, skald_gpu_head *head,
                    skald_gpu_stream stream);
/* CSR: the entries of the rows listed at positions first .. first + count, row k's from at[k] - at[first] on. */
int skald_gpu_entries(const skald_gpu_rows *rows, const uint32_t *list, uint64_t first, uint64_t count,
                      const uint64_t *at, uint32_t *idx, float *val, skald_gpu_stream stream);
/* alpha (n floats, device) from or to the records. */
int skald_gpu_history_get(const skald_gpu_record *record, uint64_t n, float *alpha, skald_gpu_stream stream);
int skald_gpu_history_set(skald_gpu_record *record, uint64_t n, const float *alpha, skald_gpu_stream stream);

/* ---- passes ------------------------------------------------------------------------------------------- */

/* Sums of one point, as skald_sums. bad > 0: a margin, a coefficient or a new alpha was not finite (or does not fit a
 * float): SKALD_ENUMERIC. Then the history is as before; g and the other sums hold no meaning. */
typedef struct skald_gpu_sums {
    double loss, dphi, d2phi, correct, rows, k, k2, bad;
} skald_gpu_sums;

typedef enum skald_gpu_kind {
    SKALD_GPU_GRADIENT = 0, /* w[0] -> g[0]; loss */
    SKALD_GPU_SAGA,         /* w[0] -> g[0]; loss; alpha written if nothing is bad */
    SKALD_GPU_DIFFERENCE,   /* w[0], w[1] -> g[0]; loss at w[0] */
    SKALD_GPU_OBJECTIVE,    /* `points` models; all sums a point; g[p] and margin[p] where not NULL */
    SKALD_GPU_ANCHOR,       /* -> g[0] */
    SKALD_GPU_CURVATURE     /* w[0] -> g[0] = (1/count) sum s_i (x_i.w) x_i */
} skald_gpu_kind;

/* Kernels by name, for benchmarks and tests. AUTO chooses by shape and card. */
typedef enum skald_gpu_kernel {
    SKALD_GPU_AUTO = 0,
    SKALD_GPU_LANES, /* dense, dim <= 128: eight lanes a row */
    SKALD_GPU_WARP,  /* dense, dim <= 1024: a warp a row */
    SKALD_GPU_BLOCK, /* dense, dim <= 8192: a block a row, several rows a round */
    SKALD_GPU_RING,  /* dense, dim <= 8192, sm_90: rows through a ring in shared memory, filled by bulk copies */
    SKALD_GPU_TWICE, /* dense, any dim: dots, then sums, in pieces that stay in L2 */
    SKALD_GPU_SPARSE /* CSR: a warp a row */
} skald_gpu_kernel;

typedef struct skald_gpu_pass {
    skald_gpu_kind kind;
    skald_loss loss;
    double huber_delta;
    const skald_gpu_rows *rows; /* host struct */
    const uint32_t *list;       /* `count` row numbers without repeats; NULL: rows 0 .. count */
    uint64_t count;             /* 0 is allowed: zeros come out */
    uint32_t points;            /* OBJECTIVE: 1 or 2; else ignored */
    const double *w[2];
    double *g[2];            /* OBJECTIVE: may be NULL */
    double *margin[2];       /* OBJECTIVE: NULL, or rows->n doubles: receive z by row number */
    skald_gpu_sums *sums;    /* `points` (else 1) of them, device */
    bool intercept;          /* the last column is 1: its share of z, and g's last entry, are f64 throughout */
    bool deterministic;      /* CSR: fixed point sums, a second read of the entries; dense sums always are */
    skald_gpu_kernel kernel; /* AUTO, or what to force: invalid value if the shape does not allow it */
} skald_gpu_pass;

/* Bytes of workspace (256-byte aligned, any contents before) this pass needs. Depends on the device, kind, rows'
 * shape, count, points, which g are there, deterministic, kernel. */
size_t skald_gpu_pass_workspace(const skald_gpu_device *device, const skald_gpu_pass *pass);
/* Enough for every pass over at most `count` of these rows (g of two points included). */
size_t skald_gpu_pass_workspace_most(const skald_gpu_device *device, const skald_gpu_rows *rows, uint64_t count);
int skald_gpu_pass_run(const skald_gpu_device *device, const skald_gpu_pass *pass, void *workspace, size_t bytes,
                       skald_gpu_stream stream);
/* What it runs, for people: "warp a row, f32". Static. */
const char *skald_gpu_pass_name(const skald_gpu_device *device, const skald_gpu_pass *pass);

/* shift of compute.h: sums[p] with margin[p][i] + delta[p] for i < n. workspace: skald_gpu_shift_workspace(). */
size_t skald_gpu_shift_workspace(void);
int skald_gpu_shift(const skald_gpu_rows *rows, skald_loss loss, double huber_delta, uint32_t points,
                    const double *const margin[2], const double delta[2], skald_gpu_sums *sums, void *workspace,
                    skald_gpu_stream stream);

/* ---- local steps -------------------------------------------------------------------------------------- */

/* What changes from task to task, in device memory at a fixed address, so that one captured graph serves all
 * tasks of a shape. Fill it on the host by skald_gpu_local_set and copy it before the task, in stream order. */
typedef struct skald_gpu_local_settings {
    double eta, inv_n, l2, l1;
    uint64_t count;  /* rows of this task; steps beyond them do nothing */
    uint32_t period; /* CSR: steps between two rebases of the scaled coordinates */
    uint32_t unused;
} skald_gpu_local_settings;

/* n: rows of the whole problem (saga). eta > 0, eta * l2 < 1. */
void skald_gpu_local_set(skald_gpu_local_settings *out, double eta, double n, double l2, double l1, uint64_t count);

/* A shape of task: everything here is baked into a captured graph. Steps are those of skald_local in compute.h:
 *   dense: two kernels a step: (1) both dots of each row, then its coefficients; (2) the sums and the update, a
 *          slab of columns a block, rows from L2.
 *   CSR:   the same two, in the scaled coordinates w = Q (u - S (a + d/n)), so that only the columns of the step's
 *          rows are touched (f64 atomics). With l1 or deterministic: sums in fixed point and a third kernel that
 *          updates all columns, O(dim) a step; its bits repeat.
 *   softmax: every column of every class in every step, in f64, by four kernels; vectors are `classes` x dim. */
typedef struct skald_gpu_local {
    skald_loss loss;
    double huber_delta;
    bool saga;             /* else sgd: abar, g not used */
    bool intercept;        /* the last column is not regularised */
    double intercept_step; /* its eta, in the others'; norm2 is to have it in it (both: see skald_objective) */
    bool l1;               /* settings.l1 may be > 0 */
    bool deterministic;
    const skald_gpu_rows *rows;               /* host struct; its arrays are baked in */
    const uint32_t *list;                     /* room for `most` row numbers without repeats; NULL: rows in order */
    uint64_t most;                            /* upper bound of settings.count, >= 1 */
    uint32_t step_rows;                       /* b >= 1 */
    const skald_gpu_local_settings *settings; /* device */
    const double *w, *abar;                   /* in */
    double *dw, *g;                           /* out; may not overlap w, abar */
    skald_gpu_sums *sums;                     /* out: loss (at w; sgd: along the way), rows, k, k2, bad */
    /* softmax */
    uint32_t classes;
    float *alpha, *pending; /* n x classes: the history, and room for what it is to be */
} skald_gpu_local;

size_t skald_gpu_local_workspace(const skald_gpu_local *local);
/* begin, then steps [first, first + count) in order from 0, in as many calls as you like, then end, all with the same
 * struct and workspace on one stream. Steps beyond ceil(settings.count / step_rows) return at once (cost: a launch).
 * The history is written by `end` only, and only when nothing was bad: until then a task may be dropped. */
int skald_gpu_local_begin(const skald_gpu_local *local, void *workspace, skald_gpu_stream stream);
int skald_gpu_local_steps(const skald_gpu_local *local, void *workspace, uint32_t first, uint32_t count,
                          skald_gpu_stream stream);
int skald_gpu_local_end(const skald_gpu_local *local, void *workspace, skald_gpu_stream stream);

/* ---- vectors ------------------------------------------------------------------------------------------ */

/* The verbs of include/skald/vectors.h on device vectors, f64, one fused kernel each. `n`: entries. */
int skald_gpu_axpy(size_t n, double *y, double a, const double *x, skald_gpu_stream stream);
/* out = a x + b y; y may be NULL (then out = a x); out may be x or y. Weighs and adds shards' results. */
int skald_gpu_combine(size_t n, double *out, double a, const double *x, double b, const double *y,
                      skald_gpu_stream stream);
typedef struct skald_gpu_regulariser {
    double l2, l1, nonconvex; /* nonconvex: not of saga_update */
    bool intercept;           /* the last of each `columns` entries is not regularised */
    uint32_t columns;         /* of a class */
    double intercept_step;    /* eta of it, in the others' */
} skald_gpu_regulariser;
/* Sums over a vector, fixed order, to *out (device): |x|^2, and those of the same names in vectors.h. workspace:
 * SKALD_GPU_SUM_BYTES. */
#define SKALD_GPU_SUM_BYTES 1024
int skald_gpu_norm2(size_t n, const double *x, double *out, void *workspace, skald_gpu_stream stream);
int skald_gpu_penalty(size_t n, const double *w, const skald_gpu_regulariser *r, double *out, void *workspace,
                      skald_gpu_stream stream);
int skald_gpu_stationarity(size_t n, const double *w, const double *g, double eta, const skald_gpu_regulariser *r,
                           double *out, void *workspace, skald_gpu_stream stream);
/* proximal_step is sgd_update with a = 1. */
int skald_gpu_sgd_update(size_t n, double *w, const double *g, double a, double eta, const skald_gpu_regulariser *r,
                         skald_gpu_stream stream);
/* g == h allowed. rows: n of the problem. */
int skald_gpu_saga_update(size_t n, double *w, double *abar, const double *g, double a, const double *h, double eta,
                          double rows, const skald_gpu_regulariser *r, skald_gpu_stream stream);
/* h NULL: sgd, abar is not touched. */
int skald_gpu_local_merge(size_t n, double *w, double *abar, const double *dw, double theta, const double *h,
                          double rows, skald_gpu_stream stream);

#ifdef __cplusplus
}
#endif
#endif
