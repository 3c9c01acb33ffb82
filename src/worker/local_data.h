/* All the data in this process: scanned, dealt and loaded as a coordinator and its workers would. */
#ifndef SKALD_WORKER_LOCAL_DATA_H
#define SKALD_WORKER_LOCAL_DATA_H

#include "worker/runner.h"

typedef struct skald_local_data {
    skald_problem problem;
    skald_runner runner; /* holds every shard */
} skald_local_data;

/* Opens data->path and scans it whole. On error *source is NULL and *manifest empty; else the caller closes and frees.
 */
skald_status skald_local_data_scan(const skald_data_options *data, skald_source **source, skald_manifest *manifest);
/* Deals as for `workers` workers with `slots` slots together (see skald_problem_make). On error *out is empty. */
skald_status skald_local_data_open(const skald_data_options *data, const skald_objective *objective,
                                   const skald_compute_options *compute, uint32_t workers, uint64_t slots,
                                   skald_local_data *out);
void skald_local_data_close(skald_local_data *data);

#endif
