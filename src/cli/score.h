/* Decision values of a data file's rows, a chunk at a time: what predict and evaluate share. */
#ifndef SKALD_CLI_SCORE_H
#define SKALD_CLI_SCORE_H

#include "skald/data.h"
#include "skald/model.h"

typedef struct score_options {
    int index_base; /* -1 auto */
    int threads;
    bool want_labels; /* labels are read through the model's; rows with others are refused */
    const char *weights_path;
} score_options;

/* Called with consecutive chunks in file order: `rows` without an intercept column, z: skald_model_outputs for each. */
typedef skald_status (*score_chunk)(void *user, const skald_rows *rows, const double *z);

/* SKALD_EMODEL when the file does not fit the model, naming both. */
skald_status score_file(const char *path, const char *model_path, const skald_model *model,
                        const score_options *options, score_chunk chunk, void *user);

#endif
