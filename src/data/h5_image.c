#include "data/h5_image.h"

#include <stdlib.h>
#include <string.h>

#include "base/base.h"

/* ---- writing -------------------------------------------------------------------------------------- */

bool h5_put_matrix(hid_t file, const char *name, const double *x, uint64_t rows, uint64_t n) {
    const hsize_t size[2] = {rows, n};
    hid_t space = rows > 1 ? H5Screate_simple(2, size, NULL) : H5Screate_simple(1, size + 1, NULL);
    hid_t d = H5Dcreate2(file, name, H5T_IEEE_F64LE, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    bool good = d >= 0 && (n == 0 || H5Dwrite(d, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, x) >= 0);
    if (d >= 0) H5Dclose(d);
    H5Sclose(space);
    return good;
}

bool h5_put_vector(hid_t file, const char *name, const double *x, uint64_t n) {
    return h5_put_matrix(file, name, x, 1, n);
}

bool h5_put_number(hid_t file, const char *name, double value) {
    hid_t space = H5Screate(H5S_SCALAR);
    hid_t a = H5Acreate2(file, name, H5T_IEEE_F64LE, space, H5P_DEFAULT, H5P_DEFAULT);
    bool good = a >= 0 && H5Awrite(a, H5T_NATIVE_DOUBLE, &value) >= 0;
    if (a >= 0) H5Aclose(a);
    H5Sclose(space);
    return good;
}

bool h5_put_string(hid_t file, const char *name, const char *value) {
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

static bool put_array(hid_t file, const char *name, hid_t stored, hid_t memory, const void *x, uint64_t n) {
    const hsize_t size = n;
    hid_t space = H5Screate_simple(1, &size, NULL);
    hid_t d = H5Dcreate2(file, name, stored, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    bool good = d >= 0 && (n == 0 || H5Dwrite(d, memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, x) >= 0);
    if (d >= 0) H5Dclose(d);
    H5Sclose(space);
    return good;
}

bool h5_put_counts(hid_t file, const char *name, const uint64_t *x, uint64_t n) {
    return put_array(file, name, H5T_STD_U64LE, H5T_NATIVE_UINT64, x, n);
}

bool h5_put_bytes(hid_t file, const char *name, const uint8_t *x, uint64_t n) {
    return put_array(file, name, H5T_STD_U8LE, H5T_NATIVE_UINT8, x, n);
}

skald_status h5_image_make(bool (*put)(hid_t file, const void *contents), const void *contents, size_t reserve,
                           uint8_t **out, size_t *size) {
    uint8_t *bytes = NULL;
    ssize_t length = -1;
    h5_lock();
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    H5Pset_fapl_core(access, 1 << 20, 0);
    hid_t file = H5Fcreate("image", H5F_ACC_TRUNC, H5P_DEFAULT, access);
    if (file >= 0 && put(file, contents) && H5Fflush(file, H5F_SCOPE_GLOBAL) >= 0) {
        length = H5Fget_file_image(file, NULL, 0);
        bytes = length > 0 ? calloc(reserve + (size_t)length, 1) : NULL;
        if (bytes) length = H5Fget_file_image(file, bytes + reserve, (size_t)length);
    }
    if (file >= 0) H5Fclose(file);
    H5Pclose(access);
    h5_unlock();
    if (!bytes || length <= 0) {
        free(bytes);
        return skald_fail(SKALD_EINTERNAL, "HDF5 does not make the file (out of memory?)");
    }
    *out = bytes;
    *size = reserve + (size_t)length;
    return SKALD_OK;
}

/* ---- reading -------------------------------------------------------------------------------------- */

/* Are all entries of a dataset in the file? One that was never written needs no room there, whatever it claims to have,
 * and so would be as much memory as a few bytes ask for. */
static bool stored(hid_t d, uint64_t entries) {
    hid_t type = H5Dget_type(d);
    const size_t size = type >= 0 ? H5Tget_size(type) : 0;
    if (type >= 0) H5Tclose(type);
    return size && H5Dget_storage_size(d) / size >= entries;
}

bool h5_get_vector(hid_t file, const char *name, uint64_t most, double **x, uint64_t *n) {
    hsize_t dims[2] = {0, 1};
    if (H5Lexists(file, name, H5P_DEFAULT) <= 0) return false;
    hid_t d = H5Dopen2(file, name, H5P_DEFAULT), space = d >= 0 ? H5Dget_space(d) : -1;
    const int rank = space >= 0 ? H5Sget_simple_extent_ndims(space) : 0;
    bool good = (rank == 1 || rank == 2) && H5Sget_simple_extent_dims(space, dims, NULL) == rank &&
                (dims[1] == 0 || dims[0] <= most / dims[1]);
    dims[0] *= dims[1];
    good = good && stored(d, dims[0]);
    *x = good ? malloc((dims[0] ? dims[0] : 1) * sizeof **x) : NULL;
    good = *x && (dims[0] == 0 || H5Dread(d, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, *x) >= 0);
    *n = dims[0];
    if (space >= 0) H5Sclose(space);
    if (d >= 0) H5Dclose(d);
    return good;
}

bool h5_get_number(hid_t file, const char *name, double *value) {
    if (H5Aexists(file, name) <= 0) return false;
    hid_t a = H5Aopen(file, name, H5P_DEFAULT), space = a >= 0 ? H5Aget_space(a) : -1;
    bool good = space >= 0 && H5Sget_simple_extent_npoints(space) == 1 && H5Aread(a, H5T_NATIVE_DOUBLE, value) >= 0;
    if (space >= 0) H5Sclose(space);
    if (a >= 0) H5Aclose(a);
    return good;
}

bool h5_get_string(hid_t file, const char *name, char **value) {
    if (H5Aexists(file, name) <= 0) return false;
    hid_t a = H5Aopen(file, name, H5P_DEFAULT), type = a >= 0 ? H5Aget_type(a) : -1;
    hid_t space = a >= 0 ? H5Aget_space(a) : -1;
    bool good = type >= 0 && space >= 0 && H5Sget_simple_extent_npoints(space) == 1 &&
                H5Tget_class(type) == H5T_STRING && H5Tis_variable_str(type) == 0;
    size_t size = good ? H5Tget_size(type) : 0;
    *value = good ? calloc(size + 1, 1) : NULL;
    good = *value && H5Aread(a, type, *value) >= 0;
    if (space >= 0) H5Sclose(space);
    if (type >= 0) H5Tclose(type);
    if (a >= 0) H5Aclose(a);
    return good;
}

static bool get_array(hid_t file, const char *name, hid_t memory, size_t item, uint64_t most, void **x, uint64_t *n) {
    hsize_t size = 0;
    if (H5Lexists(file, name, H5P_DEFAULT) <= 0) return false;
    hid_t d = H5Dopen2(file, name, H5P_DEFAULT), space = d >= 0 ? H5Dget_space(d) : -1;
    bool good = space >= 0 && H5Sget_simple_extent_ndims(space) == 1 &&
                H5Sget_simple_extent_dims(space, &size, NULL) == 1 && size <= most && stored(d, size);
    *x = good ? malloc(size ? size * item : 1) : NULL;
    good = *x && (size == 0 || H5Dread(d, memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, *x) >= 0);
    *n = size;
    if (space >= 0) H5Sclose(space);
    if (d >= 0) H5Dclose(d);
    return good;
}

bool h5_get_counts(hid_t file, const char *name, uint64_t most, uint64_t **x, uint64_t *n) {
    void *array = NULL;
    const bool good = get_array(file, name, H5T_NATIVE_UINT64, sizeof **x, most, &array, n);
    *x = array;
    return good;
}

bool h5_get_bytes(hid_t file, const char *name, uint64_t most, uint8_t **x, uint64_t *n) {
    void *array = NULL;
    const bool good = get_array(file, name, H5T_NATIVE_UINT8, sizeof **x, most, &array, n);
    *x = array;
    return good;
}

const char *h5_image_parse(const uint8_t *image, size_t size, const char *(*get)(hid_t file, void *contents),
                           void *contents) {
    const char *wrong = "HDF5 contents";
    h5_lock();
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    H5Pset_fapl_core(access, 1 << 20, 0);
    /* HDF5 copies the image */
    hid_t file =
        H5Pset_file_image(access, (void *)(uintptr_t)image, size) >= 0 ? H5Fopen("image", H5F_ACC_RDONLY, access) : -1;
    if (file >= 0) {
        wrong = get(file, contents);
        H5Fclose(file);
    }
    H5Pclose(access);
    h5_unlock();
    return wrong;
}
