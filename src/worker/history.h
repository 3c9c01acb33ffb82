/* History by version: of each row of a shard, which model its gradient was last taken at, rather than a number. For any
 * objective whose gradients can be computed again, not only those whose gradient is a number times the row.
 *
 *   D = sum_B s_i (grad f_i(w) - grad f_i(u_i)),   u_i <- w                   (SAGA; Defazio et al. 2014)
 *   A = sum_i s_i grad f_i(u_i),                   grad f_i(u_i) = 0 while a row has not been visited
 *
 * The rows of a batch are grouped by u_i, and each group is one difference of two models. The versions that rows are at
 * are kept here, by reference; a version nobody is at any more is let go. Two bytes a row, four of scratch.
 * One thread at a time. */
#ifndef SKALD_WORKER_HISTORY_H
#define SKALD_WORKER_HISTORY_H

#include "skald/task.h"

typedef struct skald_history skald_history;

/* For a shard of so many rows, none of them visited. SKALD_ENOMEM. */
skald_status skald_history_create(size_t rows, skald_history **out);
void skald_history_free(skald_history *history); /* NULL-safe */

/* Where sums go: `entries` of vector are written, as many of scratch are used. */
typedef struct skald_history_sum {
    double *vector, *scratch;
    uint64_t entries;
} skald_history_sum;

/* D over the batch at the model's first vector; the batch is then at `model`, of which a reference is kept. sums.loss
 * is at the model. Errors as those of the compute port's `difference`; nothing has then changed. */
skald_status skald_history_saga(skald_history *history, skald_compute *compute, skald_shard *shard,
                                const skald_batch *batch, skald_version *model, const skald_history_sum *to,
                                skald_sums *sums);
/* A, from scratch. */
skald_status skald_history_anchor(skald_history *history, skald_compute *compute, skald_shard *shard,
                                  const skald_history_sum *to);
/* The rows, in order, that are at a version older than that one; room for all. */
size_t skald_history_before(const skald_history *history, uint64_t version, uint32_t *rows);
/* The oldest version that a row is at; 0: none. */
uint64_t skald_history_oldest(const skald_history *history);
/* Versions that rows are at. */
uint32_t skald_history_count(const skald_history *history);

#endif
