/* A model as an HDF5 file in memory. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "data/h5.h"
#include "data/model_file.h"

/* ---- writing -------------------------------------------------------------------------------------- */

/* rows > 1: a matrix of rows x n. */
static bool put_matrix(hid_t file, const char *name, const double *x, uint64_t rows, uint64_t n) {
    const hsize_t size[2] = {rows, n};
    hid_t space = rows > 1 ? H5Screate_simple(2, size, NULL) : H5Screate_simple(1, size + 1, NULL);
    hid_t d = H5Dcreate2(file, name, H5T_IEEE_F64LE, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    bool good = d >= 0 && (n == 0 || H5Dwrite(d, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, x) >= 0);
    if (d >= 0) H5Dclose(d);
    H5Sclose(space);
    return good;
}

static bool put_vector(hid_t file, const char *name, const double *x, uint64_t n) {
    return put_matrix(file, name, x, 1, n);
}

static bool put_number(hid_t file, const char *name, double value) {
    hid_t space = H5Screate(H5S_SCALAR);
    hid_t a = H5Acreate2(file, name, H5T_IEEE_F64LE, space, H5P_DEFAULT, H5P_DEFAULT);
    bool good = a >= 0 && H5Awrite(a, H5T_NATIVE_DOUBLE, &value) >= 0;
    if (a >= 0) H5Aclose(a);
    H5Sclose(space);
    return good;
}

static bool put_string(hid_t file, const char *name, const char *value) {
    if (!value) value = "";
    hid_t space = H5Screate(H5S_SCALAR), type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, strlen(value) + 1);
    hid_t a = H5Acreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    bool good = a >= 0 && H5Awrite(a, type, value) >= 0;
    if (a >= 0) H5Aclose(a);
    H5Tclose(type);
    H5Sclose(space);
    return good;
}

static bool put_model(hid_t file, const skald_model *m) {
    return put_matrix(file, "w", m->w, skald_model_outputs(m), skald_model_columns(m)) &&
           put_vector(file, "label_values", m->label_values, m->label_count) &&
           put_vector(file, "label_targets", m->label_targets, m->label_count) &&
           put_string(file, "loss", skald_loss_name(m->loss)) && put_number(file, "huber_delta", m->huber_delta) &&
           put_number(file, "l2", m->l2) && put_number(file, "l1", m->l1) &&
           put_number(file, "nonconvex", m->nonconvex) && put_number(file, "intercept", m->intercept) &&
           put_number(file, "features", m->features) && put_number(file, "zero_based", m->zero_based) &&
           put_number(file, "scaled", m->scaled) && put_string(file, "version", m->version) &&
           put_string(file, "run_id", m->run_id) && put_string(file, "command", m->command) &&
           put_number(file, "objective", m->objective) && put_number(file, "gap", m->gap) &&
           put_number(file, "passes", m->passes);
}

skald_status model_image_make(const char *path, const skald_model *m, size_t reserve, uint8_t **out, size_t *size) {
    uint8_t *bytes = NULL;
    ssize_t length = -1;
    h5_lock();
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    H5Pset_fapl_core(access, 1 << 20, 0);
    hid_t file = H5Fcreate("model", H5F_ACC_TRUNC, H5P_DEFAULT, access);
    if (file >= 0 && put_model(file, m) && H5Fflush(file, H5F_SCOPE_GLOBAL) >= 0) {
        length = H5Fget_file_image(file, NULL, 0);
        bytes = length > 0 ? calloc(reserve + (size_t)length, 1) : NULL;
        if (bytes) length = H5Fget_file_image(file, bytes + reserve, (size_t)length);
    }
    if (file >= 0) H5Fclose(file);
    H5Pclose(access);
    h5_unlock();
    if (!bytes || length <= 0) {
        free(bytes);
        return skald_fail(SKALD_EINTERNAL, "%s: HDF5 does not make the model file", path);
    }
    *out = bytes;
    *size = reserve + (size_t)length;
    return SKALD_OK;
}

/* ---- reading -------------------------------------------------------------------------------------- */

/* A vector of doubles of at most `most` entries, or a matrix of that many. */
static bool get_vector(hid_t file, const char *name, uint64_t most, double **x, uint64_t *n) {
    hsize_t dims[2] = {0, 1};
    if (H5Lexists(file, name, H5P_DEFAULT) <= 0) return false;
    hid_t d = H5Dopen2(file, name, H5P_DEFAULT), space = d >= 0 ? H5Dget_space(d) : -1;
    const int rank = space >= 0 ? H5Sget_simple_extent_ndims(space) : 0;
    bool good = (rank == 1 || rank == 2) && H5Sget_simple_extent_dims(space, dims, NULL) == rank &&
                (dims[1] == 0 || dims[0] <= most / dims[1]);
    dims[0] *= dims[1];
    *x = good ? malloc((dims[0] ? dims[0] : 1) * sizeof **x) : NULL;
    good = *x && (dims[0] == 0 || H5Dread(d, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, *x) >= 0);
    *n = dims[0];
    if (space >= 0) H5Sclose(space);
    if (d >= 0) H5Dclose(d);
    return good;
}

static bool get_number(hid_t file, const char *name, double *value) {
    if (H5Aexists(file, name) <= 0) return false;
    hid_t a = H5Aopen(file, name, H5P_DEFAULT), space = a >= 0 ? H5Aget_space(a) : -1;
    bool good = space >= 0 && H5Sget_simple_extent_npoints(space) == 1 && H5Aread(a, H5T_NATIVE_DOUBLE, value) >= 0;
    if (space >= 0) H5Sclose(space);
    if (a >= 0) H5Aclose(a);
    return good;
}

static bool get_string(hid_t file, const char *name, char **value) {
    if (H5Aexists(file, name) <= 0) return false;
    hid_t a = H5Aopen(file, name, H5P_DEFAULT), type = a >= 0 ? H5Aget_type(a) : -1;
    bool good = type >= 0 && H5Tget_class(type) == H5T_STRING && H5Tis_variable_str(type) == 0;
    size_t size = good ? H5Tget_size(type) : 0;
    *value = good ? calloc(size + 1, 1) : NULL;
    good = *value && H5Aread(a, type, *value) >= 0;
    if (type >= 0) H5Tclose(type);
    if (a >= 0) H5Aclose(a);
    return good;
}

static bool all_finite(const double *x, uint64_t n) {
    for (uint64_t k = 0; k < n; k++)
        if (!isfinite(x[k])) return false;
    return true;
}

/* NULL, or what is missing or wrong. */
static const char *get_model(hid_t file, skald_model *m) {
    double intercept, features, zero_based, scaled;
    uint64_t n = 0, values = 0, targets = 0;
    char *loss = NULL;
    if (!get_string(file, "loss", &loss)) return "loss";
    skald_status st = skald_loss_parse(loss, &m->loss);
    free(loss);
    if (st != SKALD_OK) return "loss";
    if (!get_number(file, "huber_delta", &m->huber_delta) || !get_number(file, "l2", &m->l2) ||
        !get_number(file, "l1", &m->l1))
        return "regularisation";
    if (!get_number(file, "nonconvex", &m->nonconvex)) m->nonconvex = 0; /* older than it */
    if (!get_number(file, "intercept", &intercept) || (intercept != 0 && intercept != 1)) return "intercept";
    if (!get_number(file, "features", &features) || !(features >= 0 && features <= INT32_MAX)) return "features";
    if (!get_number(file, "zero_based", &zero_based) || !get_number(file, "scaled", &scaled)) return "flags";
    m->zero_based = zero_based != 0;
    m->scaled = scaled != 0;
    m->intercept = intercept != 0;
    m->features = (uint32_t)features;
    if (!get_vector(file, "label_values", UINT16_MAX, &m->label_values, &values) ||
        !get_vector(file, "label_targets", UINT16_MAX, &m->label_targets, &targets) || values != targets ||
        !all_finite(m->label_values, values) || !all_finite(m->label_targets, targets))
        return "labels";
    m->label_count = (uint32_t)values;
    m->classes = m->loss == SKALD_SOFTMAX ? m->label_count : 1;
    if (m->loss == SKALD_SOFTMAX && m->classes < 2) return "labels";
    n = skald_model_outputs(m) * skald_model_columns(m);
    if (!get_vector(file, "w", n, &m->w, &values) || values != n || !all_finite(m->w, n)) return "w";
    if (!get_string(file, "version", &m->version) || !get_string(file, "run_id", &m->run_id) ||
        !get_string(file, "command", &m->command))
        return "provenance";
    if (!get_number(file, "objective", &m->objective) || !get_number(file, "gap", &m->gap) ||
        !get_number(file, "passes", &m->passes))
        return "results";
    return NULL;
}

skald_status model_image_parse(const char *path, const uint8_t *image, size_t size, skald_model *out) {
    skald_model m = {0};
    const char *wrong = "HDF5 contents";
    h5_lock();
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    H5Pset_fapl_core(access, 1 << 20, 0);
    /* HDF5 copies the image */
    hid_t file =
        H5Pset_file_image(access, (void *)(uintptr_t)image, size) >= 0 ? H5Fopen("model", H5F_ACC_RDONLY, access) : -1;
    if (file >= 0) {
        wrong = get_model(file, &m);
        H5Fclose(file);
    }
    H5Pclose(access);
    h5_unlock();
    if (wrong) {
        skald_model_free(&m);
        return skald_fail(SKALD_EMODEL, "%s: not a model this version can read (%s)", path, wrong);
    }
    *out = m;
    return SKALD_OK;
}
