/* A model as an HDF5 file in memory. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "data/h5_image.h"
#include "data/model_file.h"

/* ---- writing -------------------------------------------------------------------------------------- */

static bool put_model(hid_t file, const void *model) {
    const skald_model *m = model;
    return h5_put_matrix(file, "w", m->w, skald_model_outputs(m), skald_model_columns(m)) &&
           h5_put_vector(file, "label_values", m->label_values, m->label_count) &&
           h5_put_vector(file, "label_targets", m->label_targets, m->label_count) &&
           h5_put_string(file, "loss", skald_loss_name(m->loss)) &&
           h5_put_number(file, "huber_delta", m->huber_delta) && h5_put_number(file, "l2", m->l2) &&
           h5_put_number(file, "l1", m->l1) && h5_put_number(file, "nonconvex", m->nonconvex) &&
           h5_put_number(file, "intercept", m->intercept) && h5_put_number(file, "features", m->features) &&
           h5_put_number(file, "zero_based", m->zero_based) && h5_put_number(file, "scaled", m->scaled) &&
           h5_put_string(file, "version", m->version) && h5_put_string(file, "run_id", m->run_id) &&
           h5_put_string(file, "command", m->command) && h5_put_number(file, "objective", m->objective) &&
           h5_put_number(file, "gap", m->gap) && h5_put_number(file, "passes", m->passes);
}

skald_status model_image_make(const char *path, const skald_model *m, size_t reserve, uint8_t **out, size_t *size) {
    const skald_status st = h5_image_make(put_model, m, reserve, out, size);
    return st == SKALD_OK ? st : skald_context(st, "%s", path);
}

/* ---- reading -------------------------------------------------------------------------------------- */

static bool all_finite(const double *x, uint64_t n) {
    for (uint64_t k = 0; k < n; k++)
        if (!isfinite(x[k])) return false;
    return true;
}

/* What a class was trained as is an index into a row's decision values. */
static bool are_classes(const double *targets, uint64_t n) {
    for (uint64_t k = 0; k < n; k++)
        if (!(targets[k] >= 0 && targets[k] < (double)n)) return false;
    return true;
}

/* NULL, or what is missing or wrong. */
static const char *get_model(hid_t file, void *model) {
    skald_model *m = model;
    double intercept, features, zero_based, scaled;
    uint64_t n = 0, values = 0, targets = 0;
    char *loss = NULL;
    const bool known = h5_get_string(file, "loss", &loss) && skald_loss_parse(loss, &m->loss) == SKALD_OK;
    free(loss);
    if (!known) return "loss";
    if (!h5_get_number(file, "huber_delta", &m->huber_delta) || !h5_get_number(file, "l2", &m->l2) ||
        !h5_get_number(file, "l1", &m->l1))
        return "regularisation";
    if (!h5_get_number(file, "nonconvex", &m->nonconvex)) m->nonconvex = 0; /* older than it */
    if (!h5_get_number(file, "intercept", &intercept) || (intercept != 0 && intercept != 1)) return "intercept";
    if (!h5_get_number(file, "features", &features) || !(features >= 0 && features <= INT32_MAX)) return "features";
    if (!h5_get_number(file, "zero_based", &zero_based) || !h5_get_number(file, "scaled", &scaled)) return "flags";
    m->zero_based = zero_based != 0;
    m->scaled = scaled != 0;
    m->intercept = intercept != 0;
    m->features = (uint32_t)features;
    if (!h5_get_vector(file, "label_values", UINT16_MAX, &m->label_values, &values) ||
        !h5_get_vector(file, "label_targets", UINT16_MAX, &m->label_targets, &targets) || values != targets ||
        !all_finite(m->label_values, values) || !all_finite(m->label_targets, targets))
        return "labels";
    m->label_count = (uint32_t)values;
    m->classes = m->loss == SKALD_SOFTMAX ? m->label_count : 1;
    if (m->loss == SKALD_SOFTMAX && (m->classes < 2 || !are_classes(m->label_targets, targets))) return "labels";
    n = skald_model_outputs(m) * skald_model_columns(m);
    if (!h5_get_vector(file, "w", n, &m->w, &values) || values != n || !all_finite(m->w, n)) return "w";
    if (!h5_get_string(file, "version", &m->version) || !h5_get_string(file, "run_id", &m->run_id) ||
        !h5_get_string(file, "command", &m->command))
        return "provenance";
    if (!h5_get_number(file, "objective", &m->objective) || !h5_get_number(file, "gap", &m->gap) ||
        !h5_get_number(file, "passes", &m->passes))
        return "results";
    return NULL;
}

skald_status model_image_parse(const char *path, const uint8_t *image, size_t size, skald_model *out) {
    skald_model m = {0};
    const char *wrong = h5_image_parse(image, size, get_model, &m);
    if (wrong) {
        skald_model_free(&m);
        return skald_fail(SKALD_EMODEL, "%s: not a model this version can read (%s)", path, wrong);
    }
    *out = m;
    return SKALD_OK;
}
