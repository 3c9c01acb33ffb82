/* The compute port: what a backend (CPU, CUDA) must be able to do.
 *
 * A `skald_compute` is one device. Shards are loaded once and live with their history on the device.
 * Operations are coarse: each is one fused pass over rows. Pointers in arguments are host memory (or see
 * `vectors`), dim entries of double unless said (softmax: dim entries for each class, one after the other); an adapter
 * stages them as it likes. Operations return when their results are in the caller's memory.
 *
 * Threads: create/destroy from one thread. Operations on *distinct* shards may run concurrently from
 * different threads; on one shard the caller serialises. Errors: SKALD_ENUMERIC when a coefficient
 * is not finite, and then the shard's history is untouched; SKALD_ENOMEM; SKALD_EINVAL for arguments out
 * of range (they come from the wire: never trust a row index).
 *
 * Notation as in objective.h; alpha_i is the history scalar of row i (softmax: C of them); B a batch without repeated
 * rows. */
#ifndef SKALD_COMPUTE_H
#define SKALD_COMPUTE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "skald/data.h"
#include "skald/objective.h"
#include "skald/status.h"

struct skald_vectors;
typedef struct skald_compute skald_compute;
typedef struct skald_shard skald_shard; /* rows + history on a device; opaque, belongs to its backend */

/* Rows of a shard: `rows[0..count)`, or all of [0, n) in order when rows is NULL (count ignored). */
typedef struct skald_batch {
    const uint32_t *rows;
    size_t count;
} skald_batch;

/* Sums over rows, accumulated in double. */
typedef struct skald_sums {
    double loss;    /* sum s_i phi(z_i, y_i) */
    double dphi;    /* sum s_i phi'(z_i)  (objective, shift); 0 for softmax */
    double d2phi;   /* sum s_i phi''(z_i) (objective, shift); 0 for softmax */
    double correct; /* rows on the right side (objective); not weighted */
    double rows;    /* rows counted */
    double k, k2;   /* sum k_i, sum k_i^2 of k_i = s_i kappa_i |x_i|^2 (local) */
} skald_sums;

/* H minibatch steps on the worker's own copy of the model (D-SAGA / CentralVR; De & Goldstein 2016), with the
 * history taken at the model that was read, w_0, rather than along the way:
 *   e_i   = phi'(x_i.w_j) - alpha_i (saga) or phi'(x_i.w_j) (sgd);   h_i = phi'(x_i.w_0) - alpha_i;
 *   c_i   = e_i / (1 + (eta/|B_j|) s_i kappa_i |x_i|^2)
 *   w    <- prox_{eta l1}( w - eta (sum_{B_j} s_i c_i x_i / |B_j| + abar + l2 w) )
 *   abar <- abar + sum_{B_j} s_i h_i x_i / n,   alpha_i <- phi'(x_i.w_0)   (saga only)
 * (eta of the intercept's column, and |x_i|^2, as intercept_step of skald_objective says).
 * c_i is the step taken implicitly in the row's own direction, to first order: the gradient at the point the row's
 * term moves to, as the proximal operator of Point-SAGA (Defazio 2016) has it. It keeps rows of great norm or
 * curvature from overshooting, so that eta may be much longer than 1/(3 L_max). kappa_i is phi'' at
 * z = x_i.w_j if m = (eta/|B_j|) s_i |x_i|^2 e_i is at most 1/4 in size, else the slope of phi' between z and z - m.
 * Softmax: c_i = (I + t H_i)^-1 e_i, t = (eta/|B_j|) s_i |x_i|^2, H_i = diag(p) - p p' at p = softmax(z): by
 * Sherman-Morrison with a_c = p_c / (1 + t p_c),  c_c = (e_c + t b p_c) / (1 + t p_c),  b = sum_c a_c e_c / sum_c a_c;
 * kappa_i = min(1 - sum_c p_c^2, 2 max_c p_c (1 - p_c)), which is no less than H_i's largest eigenvalue. Where an entry
 * of m = t e_i is beyond 1/4 in size: c_i = e_i / (1 + t kappa_i), kappa_i = e_i.(p - softmax(z - m)) / (t |e_i|^2),
 * the slope along e_i. A task's history is that of a plain saga task on the same rows, whatever way its steps went.
 * (Taken along the way, the histories of workers keep the differences between their ways, and runs stall: see README.)
 * B_j are consecutive slices of `batch` of `step_rows` rows (the last may be short). State in double. */
typedef struct skald_local {
    bool saga;
    uint32_t step_rows; /* b */
    double eta;
    double n; /* rows of the whole problem */
} skald_local;

typedef struct skald_compute_ops {
    const char *name; /* "cpu", "cuda" */

    /* Takes over the arrays of *rows (and zeroes it) whatever happens. History starts at 0. */
    skald_status (*load)(skald_compute *c, skald_rows *rows, skald_shard **out);
    void (*unload)(skald_compute *c, skald_shard *shard);

    /* g = sum_B s_i phi'(x_i.w, y_i) x_i; sums.loss, .rows. Does not touch the history. */
    skald_status (*gradient)(skald_compute *c, skald_shard *shard, const skald_batch *batch, const double *w, double *g,
                             skald_sums *sums);
    /* g = sum_B s_i (phi'(x_i.w, y_i) - alpha_i) x_i; alpha_i <- phi'. (Defazio et al. 2014) */
    skald_status (*saga)(skald_compute *c, skald_shard *shard, const skald_batch *batch, const double *w, double *g,
                         skald_sums *sums);
    /* dw = w_H - w_0, g = sum over the batch of s_i h_i x_i (sgd: pass NULL); sums.loss at w_0 (sgd: along the
     * way). abar NULL for sgd. All-or-nothing: on
     * SKALD_ENUMERIC the history is as before the call. */
    skald_status (*local)(skald_compute *c, skald_shard *shard, const skald_batch *batch, const skald_local *local,
                          const double *w, const double *abar, double *dw, double *g, skald_sums *sums);
    /* g = sum_B s_i (phi'(x_i.w) - phi'(x_i.u)) x_i, both dots in one read (SVRG; path-integrated). */
    skald_status (*difference)(skald_compute *c, skald_shard *shard, const skald_batch *batch, const double *w,
                               const double *u, double *g, skald_sums *sums);
    /* For each of `points` (<= 2) models w[p]: all sums over the shard, and g[p] = sum s_i phi' x_i when
     * g[p] is not NULL. keep_margins: z_i of every point stay with the shard, in double, for `shift`. (However z comes
     * about, a constant is added to it in double, and g's entry of the intercept is dphi: a shift that makes dphi 0
     * does so in a pass over as many points that are shifted by it.) */
    skald_status (*objective)(skald_compute *c, skald_shard *shard, uint32_t points, const double *const *w,
                              double *const *g, bool keep_margins, skald_sums *sums);
    /* sums of objective with z_i + delta[p] in place of the kept z_i; SKALD_EINVAL if none are kept. */
    skald_status (*shift)(skald_compute *c, skald_shard *shard, uint32_t points, const double *delta, skald_sums *sums);
    /* Softmax, in place of shift: margins z_i + delta[p] (C entries). sums: loss, correct, rows. moments[p] receives
     * sum s_i (p_i - e_y), C entries, then the lower triangle of sum s_i (diag(p_i) - p_i p_i'), row by row; see
     * skald_objective_moments. SKALD_EINVAL as for shift, and for other losses. */
    skald_status (*shift_classes)(skald_compute *c, skald_shard *shard, uint32_t points, const double *const *delta,
                                  double *const *moments, skald_sums *sums);
    /* a = sum_i s_i alpha_i x_i over the whole shard, from scratch: the audit of the history. */
    skald_status (*anchor)(skald_compute *c, skald_shard *shard, double *a);
    /* g = (1/m) sum over the shard's first m rows of s_i (x_i.v) x_i: one power-iteration product. v and g: dim
     * entries, whatever the classes. */
    skald_status (*curvature)(skald_compute *c, skald_shard *shard, size_t m, const double *v, double *g);
    /* Copies rows of the batch out, as loaded (bf16: as rounded), in its order, without origins. *out is made anew. */
    skald_status (*rows)(skald_compute *c, skald_shard *shard, const skald_batch *batch, skald_rows *out);
    /* Copy the history (n x C floats, a row's together) out or in. */
    skald_status (*history_get)(skald_compute *c, skald_shard *shard, float *alpha);
    skald_status (*history_set)(skald_compute *c, skald_shard *shard, const float *alpha);

    /* NULL: there is no memory but the host's. Else *out: vectors (of skald_objective_length entries) in the device's
     * memory, the same at each call. Operations take them in place of the host's, any of them; an operation begins when
     * what was done to them before is done, and is complete when it returns. One thread at a time uses them, and runs
     * the operations that take them; nothing runs beside their making and freeing. They go before the device does. */
    skald_status (*vectors)(skald_compute *c, struct skald_vectors *out);

    void (*destroy)(skald_compute *c);
} skald_compute_ops;

struct skald_compute {
    const skald_compute_ops *ops;
    skald_objective objective;
    uint32_t dim;    /* columns, intercept included */
    char device[64]; /* "cpu (avx512, 2 threads)", for people */
    uint32_t shards; /* of the whole problem, one about as large as the other; for saying how many cards they need */
};

typedef enum skald_storage_kind {
    SKALD_STORE_AUTO = 0,
    SKALD_STORE_F32,
    SKALD_STORE_BF16,
    SKALD_STORE_U8
} skald_storage_kind;
typedef enum skald_resident { SKALD_RESIDENT_AUTO = 0, SKALD_RESIDENT_DEVICE, SKALD_RESIDENT_HOST } skald_resident;

typedef struct skald_compute_options {
    const char *device; /* "auto", "cpu", "cuda", "cuda:1"; NULL: auto, a card if there is one */
    int threads;        /* CPU: threads inside one operation; 0 = 1 */
    const char *isa;    /* NULL = best; "portable", "avx2", "avx512" (tests, bit-comparisons across machines) */
    /* Cards only. How dense rows are kept. auto: u8 if every value is a whole number from 0 to 255, else f32; both are
     * exact. bf16 rounds to 8 bits of mantissa: another problem than the file's, though a near one. */
    skald_storage_kind storage;
    /* Where rows are kept: auto is the card while they fit there, else pinned host memory, read over the bus. */
    skald_resident resident;
    bool deterministic; /* sparse sums in fixed order too: same bits every run, slower. Dense sums always are */
} skald_compute_options;

/* The registry: opens a backend by name. SKALD_EUNSUPPORTED with the reason when it is not there. */
skald_status skald_compute_open(const skald_compute_options *options, const skald_objective *objective, uint32_t dim,
                                skald_compute **out);
/* What skald_compute_open would open, as in skald_compute.device. Same errors about the options. `why` (may be NULL):
 * why auto means the CPU although the CUDA plugin is there; else "". */
skald_status skald_compute_describe(const skald_compute_options *options, char device[64], char why[256]);

/* What makes this process a rank of synchronous runs with others that compute on cards: NULL on the CPU. *index: of the
 * card. */
struct skald_collective_ops;
const struct skald_collective_ops *skald_compute_collective(const skald_compute_options *options, uint32_t *index);

/* A card. */
typedef struct skald_device {
    char spec[16];         /* for skald_compute_options.device: "cuda:1" */
    uint32_t index;        /* the driver's number of it */
    char name[128];        /* "NVIDIA H100 80GB HBM3" */
    uint64_t memory_bytes; /* all of it, in use or not */
    uint32_t units;        /* streaming multiprocessors */
    uint32_t major, minor; /* compute capability */
} skald_device;

enum { SKALD_MAX_CARDS = 64 }; /* others of a machine are left alone */

/* The cards of this machine that can be used, at most `room` written; returns how many there are. `why`: what is wrong
 * with the others, or why there is none; "" else. *plugin (may be NULL): false when that is because there is no CUDA
 * plugin at all. */
uint32_t skald_compute_cards(skald_device *out, uint32_t room, char why[256], bool *plugin);

/* Facts about a loaded shard, for the step size: computed by the backend at load. */
typedef struct skald_shard_facts {
    size_t rows;
    double nonzeros;
    double weight_sum;         /* sum s_i */
    double max_weighted_norm2; /* max s_i |x_i|^2, intercept included as for a step's length: see intercept_step */
    double sum_weighted_norm2;
    double mean_y, spread_y; /* m = sum s_i y_i / sum s_i, and sum s_i (y_i - m)^2 */
} skald_shard_facts;

/* Adds a row's label to weight_sum, mean_y and spread_y, whose digits a large mean does not take (West 1979). */
static inline void skald_shard_facts_label(skald_shard_facts *facts, double s, double y) {
    if (!(s > 0)) return;
    const double apart = y - facts->mean_y;
    facts->weight_sum += s;
    facts->mean_y += apart * (s / facts->weight_sum);
    facts->spread_y += s * apart * (y - facts->mean_y);
}
void skald_shard_get_facts(const skald_shard *shard, skald_shard_facts *out);

/* Every backend's struct for a shard begins with this. */
struct skald_shard {
    skald_shard_facts facts;
};

#endif
