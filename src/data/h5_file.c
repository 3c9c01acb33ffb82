#include "data/h5_file.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "data/entries.h"

typedef unsigned long long ull;

/* ---- opening (all under the lock) ----------------------------------------------------------------- */

/* The first of the names (NULL ends them) that is a dataset; *found says which. -1: none. */
static hid_t open_dataset(hid_t file, const char *const *names, const char **found) {
    for (; *names; names++) {
        if (H5Lexists(file, *names, H5P_DEFAULT) <= 0) continue;
        hid_t access = H5Pcreate(H5P_DATASET_ACCESS);
        H5Pset_chunk_cache(access, 12421, 64u << 20, 1.0); /* a row of chunks should fit */
        hid_t d = H5Dopen2(file, *names, access);
        H5Pclose(access);
        if (d < 0) continue;
        *found = *names;
        return d;
    }
    return -1;
}

/* Extent of a dataset of numbers; rank 1 or 2 (columns 1 for rank 1). */
static skald_status dataset_shape(const h5_file *f, hid_t d, const char *name, int *rank, uint64_t *rows,
                                  uint64_t *columns) {
    hsize_t dims[2] = {0, 1};
    hid_t space = H5Dget_space(d), type = H5Dget_type(d);
    H5T_class_t class = H5Tget_class(type);
    *rank = H5Sget_simple_extent_ndims(space);
    if (*rank == 1 || *rank == 2) H5Sget_simple_extent_dims(space, dims, NULL);
    H5Tclose(type);
    H5Sclose(space);
    if (class != H5T_INTEGER && class != H5T_FLOAT)
        return skald_fail(SKALD_EDATA, "%s: dataset '%s' does not hold numbers", f->path, name);
    if (*rank != 1 && *rank != 2)
        return skald_fail(SKALD_EDATA, "%s: dataset '%s' has %d dimensions, not 1 or 2", f->path, name, *rank);
    *rows = dims[0];
    *columns = *rank == 2 ? dims[1] : 1;
    return SKALD_OK;
}

/* A dataset with one number a row (n, or n x 1). */
static skald_status check_column(const h5_file *f, hid_t d, const char *name, uint64_t n) {
    int rank;
    uint64_t rows = 0, columns = 0;
    TRY(dataset_shape(f, d, name, &rank, &rows, &columns));
    if (rank == 2 && rows == 1 && n != 1 && columns == n) /* 1 x n would need another selection */
        return skald_fail(SKALD_EDATA, "%s: dataset '%s' is 1 x %llu: store it as %llu numbers", f->path, name, (ull)n,
                          (ull)n);
    if (columns != 1 || rows != n)
        return skald_fail(SKALD_EDATA, "%s: dataset '%s' is %llu x %llu, but there are %llu rows", f->path, name,
                          (ull)rows, (ull)columns, (ull)n);
    return SKALD_OK;
}

/* Rows [first, first + count) of a dataset with `columns` columns (rank 2) or none (0: rank as stored). */
static skald_status read_range(const h5_file *f, hid_t d, const char *name, uint64_t first, uint64_t count,
                               uint64_t columns, hid_t type, void *out) {
    if (count == 0) return SKALD_OK;
    hid_t space = H5Dget_space(d);
    hsize_t start[2] = {first, 0}, size[2] = {count, columns ? columns : 1}, flat = count * size[1];
    hid_t memory = H5Screate_simple(1, &flat, NULL);
    bool good = space >= 0 && memory >= 0 && H5Sselect_hyperslab(space, H5S_SELECT_SET, start, NULL, size, NULL) >= 0 &&
                H5Dread(d, type, memory, space, H5P_DEFAULT, out) >= 0;
    if (memory >= 0) H5Sclose(memory);
    if (space >= 0) H5Sclose(space);
    if (good) return SKALD_OK;
    return skald_fail(SKALD_EIO, "%s: cannot read rows %llu to %llu of dataset '%s'", f->path, (ull)first,
                      (ull)(first + count), name);
}

/* `shape` as attribute or dataset: {n, d}. Leaves *d alone if there is none. */
static skald_status read_shape(const h5_file *f, uint64_t *d) {
    uint64_t shape[2];
    bool attribute = H5Aexists(f->file, "shape") > 0;
    if (!attribute && H5Lexists(f->file, "shape", H5P_DEFAULT) <= 0) return SKALD_OK;
    hid_t h = attribute ? H5Aopen(f->file, "shape", H5P_DEFAULT) : H5Dopen2(f->file, "shape", H5P_DEFAULT);
    hid_t space = h < 0 ? -1 : attribute ? H5Aget_space(h) : H5Dget_space(h);
    bool good = space >= 0 && H5Sget_simple_extent_npoints(space) == 2 &&
                (attribute ? H5Aread(h, H5T_NATIVE_UINT64, shape)
                           : H5Dread(h, H5T_NATIVE_UINT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, shape)) >= 0;
    if (space >= 0) H5Sclose(space);
    if (h >= 0) attribute ? H5Aclose(h) : H5Dclose(h);
    if (!good) return skald_fail(SKALD_EDATA, "%s: 'shape' is not a pair of numbers", f->path);
    if (shape[0] != f->n)
        return skald_fail(SKALD_EDATA, "%s: 'shape' says %llu rows, 'indptr' has %llu", f->path, (ull)shape[0],
                          (ull)f->n);
    *d = shape[1];
    return SKALD_OK;
}

/* Largest index + 1, for files without a shape. */
static skald_status widest(const h5_file *f, uint64_t entries, uint64_t *d) {
    enum { RUN = 1 << 20 };
    uint64_t *idx = skald_alloc(RUN, sizeof *idx);
    if (!idx) return SKALD_ENOMEM;
    skald_status st = SKALD_OK;
    for (uint64_t k = 0; k < entries && st == SKALD_OK; k += RUN) {
        uint64_t count = entries - k < RUN ? entries - k : RUN;
        st = read_range(f, f->indices, "indices", k, count, 0, H5T_NATIVE_UINT64, idx);
        for (uint64_t j = 0; j < count && st == SKALD_OK; j++)
            if (idx[j] >= *d) *d = idx[j] + 1;
    }
    free(idx);
    return st;
}

static skald_status check_integers(const h5_file *f, hid_t d, const char *name) {
    hid_t type = H5Dget_type(d);
    bool integers = H5Tget_class(type) == H5T_INTEGER;
    H5Tclose(type);
    return integers ? SKALD_OK : skald_fail(SKALD_EDATA, "%s: dataset '%s' does not hold integers", f->path, name);
}

static skald_status open_csr(h5_file *f, uint64_t *d) {
    static const char *const data[] = {"data", NULL}, *const indices[] = {"indices", NULL},
                             *const indptr[] = {"indptr", NULL};
    const char *name;
    int rank;
    uint64_t entries = 0, n1 = 0, columns = 0, count = 0;
    f->layout = SKALD_CSR;
    f->x = open_dataset(f->file, data, &f->x_name);
    f->indices = open_dataset(f->file, indices, &name);
    if (f->x < 0) return skald_fail(SKALD_EDATA, "%s: sparse rows need a dataset 'data'", f->path);
    if (f->indices < 0) return skald_fail(SKALD_EDATA, "%s: sparse rows need a dataset 'indices'", f->path);
    hid_t ptr = open_dataset(f->file, indptr, &name);
    if (ptr < 0) return skald_fail(SKALD_EDATA, "%s: sparse rows need a dataset 'indptr'", f->path);
    skald_status st = SKALD_OK;
    TRY_GOTO(st, dataset_shape(f, f->x, "data", &rank, &entries, &columns), end);
    TRY_GOTO(st, check_column(f, f->indices, "indices", entries), end);
    TRY_GOTO(st, check_integers(f, f->indices, "indices"), end);
    TRY_GOTO(st, check_integers(f, ptr, "indptr"), end);
    TRY_GOTO(st, dataset_shape(f, ptr, "indptr", &rank, &n1, &count), end);
    if (rank != 1 || n1 < 1 || columns != 1) {
        st = skald_fail(SKALD_EDATA, "%s: 'indptr' and 'data' must have one dimension", f->path);
        goto end;
    }
    f->n = n1 - 1;
    f->ptr = skald_alloc(n1, sizeof *f->ptr);
    if (!f->ptr) {
        st = SKALD_ENOMEM;
        goto end;
    }
    TRY_GOTO(st, read_range(f, ptr, "indptr", 0, n1, 0, H5T_NATIVE_INT64, f->ptr), end);
    for (uint64_t i = 0; i < f->n; i++) {
        if (f->ptr[i] <= f->ptr[i + 1]) continue; /* negative ones are huge, and the next one or the end is not */
        st = skald_fail(SKALD_EDATA, "%s: dataset 'indptr' falls from %lld to %lld at row %llu", f->path,
                        (long long)f->ptr[i], (long long)f->ptr[i + 1], (ull)i);
        goto end;
    }
    if (f->ptr[0] != 0 || f->ptr[f->n] != entries) {
        st = skald_fail(SKALD_EDATA, "%s: dataset 'indptr' goes from %llu to %llu, but 'data' has %llu entries",
                        f->path, (ull)f->ptr[0], (ull)f->ptr[f->n], (ull)entries);
        goto end;
    }
    TRY_GOTO(st, read_shape(f, d), end);
    if (*d == 0) TRY_GOTO(st, widest(f, entries, d), end);
end:
    H5Dclose(ptr);
    return st;
}

static skald_status open_dense(h5_file *f, uint64_t *d) {
    static const char *const names[] = {"x", "X", "data", NULL};
    int rank;
    f->layout = SKALD_DENSE;
    f->x = open_dataset(f->file, names, &f->x_name);
    if (f->x < 0)
        return skald_fail(SKALD_EDATA, "%s: no dataset 'x' (dense rows), nor 'data', 'indices' and 'indptr' (sparse)",
                          f->path);
    TRY(dataset_shape(f, f->x, f->x_name, &rank, &f->n, d));
    if (rank != 2) return skald_fail(SKALD_EDATA, "%s: dataset '%s' must be rows x columns", f->path, f->x_name);
    hid_t plist = H5Dget_create_plist(f->x);
    hsize_t chunk[2] = {1, 1};
    if (H5Pget_layout(plist) == H5D_CHUNKED && H5Pget_chunk(plist, 2, chunk) == 2) f->chunk_rows = chunk[0];
    H5Pclose(plist);
    return SKALD_OK;
}

static skald_status open_all(h5_file *f) {
    static const char *const y[] = {"y", "label", "labels", "target", NULL},
                             *const weight[] = {"weight", "weights", "sample_weight", NULL},
                             *const origin[] = {"origin", NULL};
    const char *name;
    uint64_t d = 0, shuffled = 0;
    f->file = H5Fopen(f->path, H5F_ACC_RDONLY, H5P_DEFAULT);
    if (f->file < 0) return skald_fail(SKALD_EDATA, "%s: is damaged: HDF5 cannot open it", f->path);
    bool sparse = H5Lexists(f->file, "indptr", H5P_DEFAULT) > 0 || H5Lexists(f->file, "indices", H5P_DEFAULT) > 0;
    TRY(sparse ? open_csr(f, &d) : open_dense(f, &d));
    if (f->n == 0 || (d == 0 && f->layout == SKALD_DENSE))
        return skald_fail(SKALD_EDATA, "%s: dataset '%s' is empty", f->path, f->x_name);
    if (d > INT32_MAX) return skald_fail(SKALD_EDATA, "%s: %llu columns: at most 2147483647", f->path, (ull)d);
    f->dim = (uint32_t)d;
    f->y = open_dataset(f->file, y, &f->y_name);
    if (f->y < 0)
        return skald_fail(SKALD_EDATA, "%s: no labels: dataset 'y' (or 'label', 'labels', 'target') is missing",
                          f->path);
    TRY(check_column(f, f->y, f->y_name, f->n));
    f->weight = open_dataset(f->file, weight, &f->weight_name);
    if (f->weight >= 0) TRY(check_column(f, f->weight, f->weight_name, f->n));
    f->origin = open_dataset(f->file, origin, &name);
    if (f->origin >= 0) TRY(check_column(f, f->origin, "origin", f->n));
    f->shuffled = h5_get_attribute(f->file, "shuffled", &shuffled) && shuffled;
    return SKALD_OK;
}

skald_status h5_file_open(const char *path, h5_file *out) {
    h5_file f = {
        .path = path, .file = -1, .x = -1, .indices = -1, .y = -1, .weight = -1, .origin = -1, .chunk_rows = 1};
    h5_lock();
    skald_status st = open_all(&f);
    h5_unlock();
    if (st != SKALD_OK)
        h5_file_close(&f);
    else
        *out = f;
    return st;
}

void h5_file_close(h5_file *f) {
    h5_lock();
    const hid_t sets[] = {f->x, f->indices, f->y, f->weight, f->origin};
    for (size_t k = 0; k < SKALD_ARRAY_LENGTH(sets); k++)
        if (sets[k] >= 0) H5Dclose(sets[k]);
    if (f->file >= 0) H5Fclose(f->file);
    h5_unlock();
    free(f->ptr);
    *f = (h5_file){.file = -1, .x = -1, .indices = -1, .y = -1, .weight = -1, .origin = -1};
}

/* ---- rows ----------------------------------------------------------------------------------------- */

void h5_rows_free(h5_rows *rows) {
    free(rows->x);
    free(rows->ptr);
    free(rows->idx);
    free(rows->val);
    free(rows->y);
    free(rows->weight);
    free(rows->origin);
    *rows = (h5_rows){0};
}

static skald_status reserve(const h5_file *f, h5_rows *r, size_t rows, size_t values) {
    if (rows <= r->capacity_rows && values <= r->capacity_values) return SKALD_OK;
    h5_rows_free(r);
    r->y = skald_alloc(rows, sizeof *r->y);
    r->weight = skald_alloc(rows, sizeof *r->weight);
    r->origin = skald_alloc(rows, sizeof *r->origin);
    bool good = r->y && r->weight && r->origin;
    if (good && f->layout == SKALD_DENSE) {
        good = (r->x = skald_alloc(values, sizeof *r->x));
    } else if (good) {
        r->ptr = skald_alloc(rows + 1, sizeof *r->ptr);
        r->idx = skald_alloc(values, sizeof *r->idx);
        r->val = skald_alloc(values, sizeof *r->val);
        good = r->ptr && r->idx && r->val;
    }
    if (!good) {
        h5_rows_free(r);
        return SKALD_ENOMEM;
    }
    r->capacity_rows = rows;
    r->capacity_values = values;
    return SKALD_OK;
}

static skald_status read_all(const h5_file *f, h5_rows *r, uint64_t from, uint64_t entries) {
    if (f->layout == SKALD_DENSE) {
        TRY(read_range(f, f->x, f->x_name, r->first, r->count, f->dim, H5T_NATIVE_FLOAT, r->x));
    } else {
        TRY(read_range(f, f->x, f->x_name, from, entries, 0, H5T_NATIVE_FLOAT, r->val));
        /* signed: an index that does not fit saturates, and as unsigned it is then beyond any dim */
        TRY(read_range(f, f->indices, "indices", from, entries, 0, H5T_NATIVE_INT32, r->idx));
    }
    TRY(read_range(f, f->y, f->y_name, r->first, r->count, 0, H5T_NATIVE_DOUBLE, r->y));
    if (f->weight >= 0)
        TRY(read_range(f, f->weight, f->weight_name, r->first, r->count, 0, H5T_NATIVE_FLOAT, r->weight));
    if (f->origin >= 0) TRY(read_range(f, f->origin, "origin", r->first, r->count, 0, H5T_NATIVE_UINT64, r->origin));
    return SKALD_OK;
}

/* Not finite, or (from doubles) too large for a float. One test a run of values, not one a value. */
static bool all_finite(const float *x, size_t n) {
    float bad = 0;
    for (size_t k = 0; k < n; k++) bad += x[k] * 0; /* 0, or NaN for NaN and infinity */
    return bad == 0;
}

static skald_status check_values(const h5_file *f, const float *x, size_t n, uint64_t row) {
    if (all_finite(x, n)) return SKALD_OK;
    size_t k = 0;
    while (isfinite(x[k])) k++;
    return skald_fail(SKALD_EDATA, "%s: dataset '%s': value %g in row %llu is not finite, or too large for a float",
                      f->path, f->x_name, x[k], (ull)row);
}

/* Sorts, checks and compacts the CSR rows. */
static skald_status clean_rows(const h5_file *f, h5_rows *r) {
    uint64_t from = f->ptr[r->first];
    size_t out = 0;
    r->ptr[0] = 0;
    for (uint64_t i = 0; i < r->count; i++) {
        size_t at = f->ptr[r->first + i] - from, n = f->ptr[r->first + i + 1] - from - at;
        uint32_t *idx = r->idx + at, twice = 0;
        float *val = r->val + at;
        bool sorted = true;
        TRY(check_values(f, val, n, r->first + i));
        for (size_t k = 0; k < n; k++) {
            if (idx[k] >= f->dim)
                return skald_fail(SKALD_EDATA, "%s: dataset 'indices': row %llu has index %u of %u columns", f->path,
                                  (ull)(r->first + i), idx[k], f->dim);
            sorted &= k == 0 || idx[k] > idx[k - 1];
        }
        if (!sorted && !entries_sort(idx, val, n, &twice))
            return skald_fail(SKALD_EDATA, "%s: dataset 'indices': index %u occurs twice in row %llu", f->path, twice,
                              (ull)(r->first + i));
        for (size_t k = 0; k < n; k++) {
            r->idx[out] = idx[k];
            r->val[out] = val[k];
            out += val[k] != 0;
        }
        r->ptr[i + 1] = out;
    }
    return SKALD_OK;
}

skald_status h5_file_read(const h5_file *f, uint64_t first, uint64_t count, h5_rows *r) {
    if (count > f->n || first > f->n - count)
        return skald_fail(SKALD_EDATA, "%s: rows %llu to %llu of %llu: the file changed since its scan", f->path,
                          (ull)first, (ull)(first + count), (ull)f->n);
    uint64_t from = f->ptr ? f->ptr[first] : 0;
    uint64_t values = f->ptr ? f->ptr[first + count] - from : count * f->dim;
    TRY(reserve(f, r, count, values));
    r->first = first;
    r->count = count;
    h5_lock();
    skald_status st = read_all(f, r, from, values);
    h5_unlock();
    TRY(st);
    for (uint64_t i = 0; i < count; i++) {
        if (f->weight < 0) r->weight[i] = 1;
        if (f->origin < 0) r->origin[i] = first + i;
        if (!isfinite(r->y[i]))
            return skald_fail(SKALD_EDATA, "%s: dataset '%s': the label of row %llu is not finite", f->path, f->y_name,
                              (ull)(first + i));
        if (!(r->weight[i] >= 0) || !isfinite(r->weight[i]))
            return skald_fail(SKALD_EDATA,
                              "%s: dataset '%s': the weight of row %llu is %g, not a finite number from 0 up", f->path,
                              f->weight_name, (ull)(first + i), r->weight[i]);
    }
    if (f->layout == SKALD_CSR) return clean_rows(f, r);
    for (uint64_t i = 0; i < count; i++) TRY(check_values(f, r->x + i * f->dim, f->dim, first + i));
    return SKALD_OK;
}

uint64_t h5_rows_hash(const h5_file *f, const h5_rows *r, uint64_t at, uint64_t count) {
    uint64_t h;
    if (f->layout == SKALD_DENSE) {
        h = skald_hash(r->x + at * f->dim, count * f->dim * sizeof *r->x, 0);
    } else {
        uint64_t from = r->ptr[at], n = r->ptr[at + count] - from;
        h = skald_hash(r->idx + from, n * sizeof *r->idx, 0);
        h = skald_hash(r->val + from, n * sizeof *r->val, h);
        for (uint64_t i = at; i < at + count; i++) h = skald_mix64(h + r->ptr[i + 1] - r->ptr[i]);
    }
    h = skald_hash(r->y + at, count * sizeof *r->y, h);
    return skald_hash(r->weight + at, count * sizeof *r->weight, h);
}
