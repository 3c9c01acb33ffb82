/* A trained linear model, and its files.
 *
 * The model works on rows as they are in the data file: whatever scaling was used to train is folded into w, so
 * that predict needs no transform: z = sum_j w[j] x_j (+ w[features] with an intercept). Softmax has one such vector a
 * class, one behind the other, and as many decision values. */
#ifndef SKALD_MODEL_H
#define SKALD_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "skald/objective.h"
#include "skald/storage.h"

typedef struct skald_model {
    skald_loss loss;
    double huber_delta, l2, l1, nonconvex;
    uint32_t classes;  /* vectors in w: C for softmax, else 1 (or 0) */
    bool intercept;    /* each vector has a constant at its end */
    uint32_t features; /* columns of the data */
    bool zero_based;   /* LIBSVM indices of the training data began at 0 */
    bool scaled;       /* features were scaled to train: the regulariser weighed other numbers than w */
    double *w;         /* classes x (features + intercept); owned */
    /* Classification: what the file calls a class, and the y it was trained as (-1, +1; softmax: 0 .. C-1), ascending
     * by value. Regression: none. Owned. */
    uint32_t label_count;
    double *label_values, *label_targets;
    /* where it comes from; owned, NULL is "" */
    char *version, *run_id, *command;
    double objective, gap, passes; /* at the end of training; NaN if not known */
} skald_model;

void skald_model_free(skald_model *m); /* zeroes the struct */

static inline uint32_t skald_model_outputs(const skald_model *m) { /* decision values a row */
    return m->classes > 1 ? m->classes : 1;
}
static inline uint64_t skald_model_columns(const skald_model *m) { /* entries of each of w's vectors */
    return (uint64_t)m->features + m->intercept;
}

/* Sets features, intercept and w from trained vectors of features (+ 1) entries (as many as m->classes says), on rows
 * (x_j - shift_j) * scale_j; shift and scale may be NULL. With a shift the model gets a constant even when it
 * was trained without an intercept. SKALD_ENOMEM. */
skald_status skald_model_set_weights(skald_model *m, uint32_t features, bool intercept, const double *w,
                                     const double *shift, const double *scale);

/* HDF5 behind a 512-byte header with length and checksum, so that damage is found before anything is
 * believed; other HDF5 tools read the file as it is. Written atomically. storage NULL: the file system.
 * Save: SKALD_EIO, SKALD_ENUMERIC (a weight is not finite). Load: SKALD_EMODEL naming the file for anything
 * that is not an intact Skald model. */
skald_status skald_model_save(skald_storage *storage, const char *path, const skald_model *m);
skald_status skald_model_load(skald_storage *storage, const char *path, skald_model *out);

/* liblinear's text format: its own `predict` gives the same labels. More than two classes go as its solver MCSVM_CS,
 * which predicts the largest decision value and, rightly, refuses to make probabilities of them. */
skald_status skald_model_export_liblinear(skald_storage *storage, const char *path, const skald_model *m);

/* The label of a row's decision values: the class value for classification, z itself for regression. */
double skald_model_label(const skald_model *m, const double *z);

#endif
