/* From what training found to a model file, and to liblinear's format. */
#ifndef SKALD_CLI_MODEL_IO_H
#define SKALD_CLI_MODEL_IO_H

#include "skald/problem.h"
#include "skald/train.h"

/* w: a vector for each class, in the scaled feature space; the scaling is folded back. An old file stays intact on
 * failure. zero_based: indices of LIBSVM text began at 0. last (may be NULL): what is remembered about where the model
 * comes from. */
skald_status model_save(const char *path, const skald_problem *problem, const double *w, bool zero_based,
                        const skald_evaluation *last);
skald_status model_export(const char *path, const skald_problem *problem, const double *w);
/* "liblinear:FILE" -> FILE. SKALD_EINVAL for a format not known. */
skald_status model_export_path(const char *text, const char **path);

#endif
