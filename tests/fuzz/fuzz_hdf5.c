/* HDF5 data: open, scan, merge, read. The files are sparse and dense ones with the input's edits; with FUZZ_RAW set
 * they are the input itself, and what is found is in the HDF5 library. */
#include "fuzz_image.h"

enum { KINDS = 2 };

static bool put_shape(hid_t file) {
    const hsize_t two = 2;
    const uint64_t shape[2] = {4, 3};
    const hid_t space = H5Screate_simple(1, &two, NULL);
    const hid_t a = H5Acreate2(file, "shape", H5T_STD_U64LE, space, H5P_DEFAULT, H5P_DEFAULT);
    const bool good = a >= 0 && H5Awrite(a, H5T_NATIVE_UINT64, shape) >= 0;
    H5Aclose(a);
    H5Sclose(space);
    return good;
}

static bool put(hid_t file, const void *kind) {
    const double y[4] = {1, -1, 1, -1}, weight[4] = {1, 2, 1, 0.5},
                 x[12] = {0.5, 0, 1.5, 0.25, -1, 0, 1, 2, 0, 0, -1, 2};
    const uint64_t origin[4] = {3, 1, 0, 2}, indptr[5] = {0, 2, 4, 6, 7}, indices[7] = {0, 2, 1, 2, 0, 1, 2};
    const bool sparse = *(const size_t *)kind == 0;
    return h5_put_vector(file, "y", y, 4) && h5_put_vector(file, "weight", weight, 4) &&
           h5_put_counts(file, "origin", origin, 4) && h5_set_attribute(file, "shuffled", 1) == SKALD_OK &&
           (sparse ? put_shape(file) && h5_put_counts(file, "indptr", indptr, 5) &&
                         h5_put_counts(file, "indices", indices, 7) && h5_put_vector(file, "data", x, 7)
                   : h5_put_matrix(file, "x", x, 4, 3));
}

static char path[64];

static void leave(void) {
    unlink(path);
}

/* HDF5 wants a file that has a name. */
static skald_status read_as_data(const uint8_t *bytes, size_t size) {
    if (!path[0]) {
        snprintf(path, sizeof path, "/dev/shm/skald-fuzz-%d.h5", (int)getpid());
        atexit(leave);
    }
    FILE *file = fopen(path, "w");
    if (!file || fwrite(bytes, 1, size, file) != size || fclose(file) != 0) abort();
    return fuzz_data(path);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static fuzz_image images[KINDS];
    if (!size || getenv("FUZZ_RAW")) {
        (void)read_as_data(data, size);
        return 0;
    }
    const size_t kind = data[0] % KINDS;
    fuzz_input in = {data + 1, size - 1};
    uint8_t *bytes = NULL;
    size_t length = 0;
    if (!images[kind].bytes) {
        if (h5_image_make(put, &kind, 0, &bytes, &length) != SKALD_OK) abort();
        fuzz_image_take(&images[kind], bytes, length);
        images[kind].modest = true; /* what a file says that it has is read, however much */
    }
    bytes = fuzz_image_edit(&images[kind], &in, 0, &length);
    if (read_as_data(bytes, length) != SKALD_OK && size == 1) abort(); /* without an edit it is whole */
    free(bytes);
    return 0;
}
