#include "data/h5_write.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/base.h"
#include "data/h5.h"

enum { X, IDX, PTR, Y, WEIGHT, ORIGIN, SETS };

struct h5_writer {
    char *path, *tmp;
    h5_layout layout;
    hid_t file, set[SETS];
    uint64_t rows, nonzeros; /* so far */
    int system_error;        /* errno of the failed write, if any */
};

static skald_status fail(h5_writer *w, const char *what) {
    const char *why = w->system_error ? strerror(w->system_error) : "HDF5 refused";
    return skald_fail(SKALD_EIO, "%s: cannot %s: %s", w->path, what, why);
}

/* rows x columns (columns 0: one dimension). rows UINT64_MAX: grows, in chunks of a megabyte. */
static hid_t create(h5_writer *w, const char *name, hid_t type, uint64_t rows, uint64_t columns) {
    hsize_t dims[2] = {rows, columns}, most[2] = {H5S_UNLIMITED, columns}, chunk = 1 << 18;
    hid_t plist = H5Pcreate(H5P_DATASET_CREATE);
    bool grows = rows == UINT64_MAX;
    if (grows) {
        dims[0] = 0;
        H5Pset_chunk(plist, 1, &chunk);
    }
    H5Pset_fill_time(plist, H5D_FILL_TIME_NEVER); /* every value is written once */
    hid_t space = H5Screate_simple(columns ? 2 : 1, dims, grows ? most : NULL);
    hid_t d = H5Dcreate2(w->file, name, type, space, H5P_DEFAULT, plist, H5P_DEFAULT);
    H5Sclose(space);
    H5Pclose(plist);
    return d;
}

static bool create_all(h5_writer *w) {
    const h5_layout *l = &w->layout;
    w->file = H5Fcreate(w->tmp, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    if (w->file < 0) return false;
    bool good;
    if (l->layout == SKALD_DENSE) {
        good = (w->set[X] = create(w, "x", H5T_IEEE_F32LE, l->rows, l->dim)) >= 0;
    } else {
        good = (w->set[X] = create(w, "data", H5T_IEEE_F32LE, l->nonzeros, 0)) >= 0;
        /* signed, as other tools expect of CSR */
        good = good && (w->set[IDX] = create(w, "indices", H5T_STD_I32LE, l->nonzeros, 0)) >= 0;
        good = good && (w->set[PTR] = create(w, "indptr", H5T_STD_I64LE, l->rows + 1, 0)) >= 0;
        hsize_t two = 2;
        uint64_t shape[2] = {l->rows, l->dim};
        hid_t space = H5Screate_simple(1, &two, NULL);
        hid_t a = H5Acreate2(w->file, "shape", H5T_STD_U64LE, space, H5P_DEFAULT, H5P_DEFAULT);
        good = good && a >= 0 && H5Awrite(a, H5T_NATIVE_UINT64, shape) >= 0;
        if (a >= 0) H5Aclose(a);
        H5Sclose(space);
    }
    good = good && (w->set[Y] = create(w, "y", H5T_IEEE_F64LE, l->rows, 0)) >= 0;
    good = good && (w->set[ORIGIN] = create(w, "origin", H5T_STD_U64LE, l->rows, 0)) >= 0;
    if (l->weights) good = good && (w->set[WEIGHT] = create(w, "weight", H5T_IEEE_F32LE, l->rows, 0)) >= 0;
    return good && h5_set_attribute(w->file, "shuffled", l->shuffled) == SKALD_OK;
}

static bool write_range(h5_writer *w, int set, uint64_t first, uint64_t count, uint64_t columns, hid_t type,
                        const void *data) {
    if (count == 0) return true;
    hid_t d = w->set[set];
    hsize_t start[2] = {first, 0}, size[2] = {count, columns ? columns : 1}, flat = count * size[1];
    hsize_t extent = first + count;
    if (w->layout.nonzeros == UINT64_MAX && (set == IDX || (set == X && w->layout.layout == SKALD_CSR)) &&
        H5Dset_extent(d, &extent) < 0)
        return false;
    errno = 0;
    hid_t space = H5Dget_space(d), memory = H5Screate_simple(1, &flat, NULL);
    bool good = H5Sselect_hyperslab(space, H5S_SELECT_SET, start, NULL, size, NULL) >= 0 &&
                H5Dwrite(d, type, memory, space, H5P_DEFAULT, data) >= 0;
    if (!good) w->system_error = errno;
    H5Sclose(memory);
    H5Sclose(space);
    return good;
}

static bool append_all(h5_writer *w, const h5_batch *b) {
    bool good = true;
    if (w->layout.layout == SKALD_DENSE) {
        good = write_range(w, X, w->rows, b->count, w->layout.dim, H5T_NATIVE_FLOAT, b->x);
    } else {
        uint64_t entries = b->ptr[b->count] - b->ptr[0];
        uint64_t *ptr = skald_alloc(b->count + 1, sizeof *ptr);
        if (!ptr) return false;
        for (uint64_t i = 0; i <= b->count; i++) ptr[i] = b->ptr[i] - b->ptr[0] + w->nonzeros;
        good = write_range(w, PTR, w->rows, b->count + 1, 0, H5T_NATIVE_UINT64, ptr);
        free(ptr);
        good = good && write_range(w, X, w->nonzeros, entries, 0, H5T_NATIVE_FLOAT, b->val);
        good = good && write_range(w, IDX, w->nonzeros, entries, 0, H5T_NATIVE_UINT32, b->idx);
        w->nonzeros += entries;
    }
    good = good && write_range(w, Y, w->rows, b->count, 0, H5T_NATIVE_DOUBLE, b->y);
    good = good && write_range(w, ORIGIN, w->rows, b->count, 0, H5T_NATIVE_UINT64, b->origin);
    if (w->layout.weights) good = good && write_range(w, WEIGHT, w->rows, b->count, 0, H5T_NATIVE_FLOAT, b->weight);
    w->rows += b->count;
    return good;
}

static void release(h5_writer *w) {
    free(w->path);
    free(w->tmp);
    free(w);
}

skald_status h5_writer_open(const char *path, const h5_layout *layout, h5_writer **out) {
    h5_writer *w = calloc(1, sizeof *w);
    if (!w) return skald_fail(SKALD_ENOMEM, "%s: out of memory", path);
    w->layout = *layout;
    w->file = -1;
    for (int k = 0; k < SETS; k++) w->set[k] = -1;
    w->path = strdup(path);
    if (!w->path || asprintf(&w->tmp, "%s.tmp", path) < 0) {
        w->tmp = NULL;
        release(w);
        return skald_fail(SKALD_ENOMEM, "%s: out of memory", path);
    }
    /* the plain call says why it cannot be created; HDF5 would not */
    FILE *probe = fopen(w->tmp, "wb");
    if (!probe) {
        skald_status st = skald_fail(SKALD_EIO, "%s: cannot create: %s", w->tmp, strerror(errno));
        release(w);
        return st;
    }
    fclose(probe);
    h5_lock();
    bool good = create_all(w);
    h5_unlock();
    if (!good) {
        skald_status st = fail(w, "create the file");
        h5_writer_close(w, false);
        return st;
    }
    *out = w;
    return SKALD_OK;
}

skald_status h5_writer_append(h5_writer *w, const h5_batch *batch) {
    h5_lock();
    bool good = append_all(w, batch);
    h5_unlock();
    return good ? SKALD_OK : fail(w, "write");
}

skald_status h5_writer_close(h5_writer *w, bool done) {
    skald_status st = SKALD_OK;
    bool good = true;
    h5_lock();
    errno = 0;
    for (int k = 0; k < SETS; k++)
        if (w->set[k] >= 0) good &= H5Dclose(w->set[k]) >= 0;
    if (w->file >= 0) good &= H5Fclose(w->file) >= 0;
    int err = errno;
    h5_unlock();
    if (done && !good) {
        w->system_error = err;
        st = fail(w, "write");
    }
    if (done && st == SKALD_OK && w->rows != w->layout.rows)
        st = skald_fail(SKALD_EINTERNAL, "%s: %llu rows written of %llu", w->path, (unsigned long long)w->rows,
                        (unsigned long long)w->layout.rows);
    if (done && st == SKALD_OK && rename(w->tmp, w->path) != 0)
        st = skald_fail(SKALD_EIO, "%s: cannot rename %s to it: %s", w->path, w->tmp, strerror(errno));
    if (!done || st != SKALD_OK) unlink(w->tmp);
    release(w);
    return st;
}
