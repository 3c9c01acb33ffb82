/* HDF5 files that are well-formed whatever the input: the target's own with edits, so that it is Skald's code that is
 * fuzzed and not the library's. An edit is what is edited (a byte), how (a byte), and what that takes; it applies to
 * attributes and datasets of the names that there are. */
#ifndef SKALD_FUZZ_IMAGE_H
#define SKALD_FUZZ_IMAGE_H

#include <string.h>

#include "base/base.h"
#include "data/h5_image.h"
#include "fuzz_file.h"
#include "skald/storage.h"

enum { FUZZ_NAMES = 128, FUZZ_EDITS = 64, FUZZ_WRITTEN = 4096 };

typedef struct fuzz_image {
    uint8_t *bytes; /* the target's own */
    size_t size;
    char names[FUZZ_NAMES][32];
    unsigned count;
    bool modest; /* no edit claims more than it could have written */
} fuzz_image;

typedef struct fuzz_input {
    const uint8_t *at;
    size_t left;
} fuzz_input;

static inline uint64_t fuzz_take(fuzz_input *in, unsigned bytes) { /* 0 past the end */
    uint64_t value = 0;
    for (unsigned k = 0; k < bytes && in->left; k++, in->at++, in->left--) value |= (uint64_t)*in->at << (8 * k);
    return value;
}

static inline hid_t fuzz_open(const uint8_t *bytes, size_t size) {
    const hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    H5Pset_fapl_core(access, 1 << 16, 0);
    H5Pset_file_image(access, (void *)(uintptr_t)bytes, size);
    const hid_t file = H5Fopen("fuzz", H5F_ACC_RDWR, access);
    H5Pclose(access);
    if (file < 0) abort();
    return file;
}

static inline herr_t fuzz_name(fuzz_image *image, const char *name) {
    if (image->count == FUZZ_NAMES || strlen(name) >= sizeof image->names[0]) abort();
    strcpy(image->names[image->count++], name);
    return 0;
}
static inline herr_t fuzz_attribute(hid_t file, const char *name, const H5A_info_t *info, void *image) {
    return fuzz_name(image, name);
}
static inline herr_t fuzz_dataset(hid_t file, const char *name, const H5L_info_t *info, void *image) {
    return fuzz_name(image, name);
}

/* Takes over the bytes of an HDF5 file. */
static inline void fuzz_image_take(fuzz_image *image, uint8_t *bytes, size_t size) {
    *image = (fuzz_image){.bytes = bytes, .size = size};
    h5_lock();
    const hid_t file = fuzz_open(bytes, size);
    H5Aiterate2(file, H5_INDEX_NAME, H5_ITER_INC, NULL, fuzz_attribute, image);
    H5Literate(file, H5_INDEX_NAME, H5_ITER_INC, NULL, fuzz_dataset, image);
    H5Fclose(file);
    h5_unlock();
}

static inline void fuzz_remove(hid_t file, const char *name) {
    if (H5Aexists(file, name) > 0) H5Adelete(file, name);
    if (H5Lexists(file, name, H5P_DEFAULT) > 0) H5Ldelete(file, name, H5P_DEFAULT);
}

/* Eight bytes of the input over one of its elements. */
static inline void fuzz_element(hid_t file, const char *name, fuzz_input *in) {
    const uint64_t index = fuzz_take(in, 2), value = fuzz_take(in, 8);
    if (H5Lexists(file, name, H5P_DEFAULT) <= 0) return;
    const hid_t d = H5Dopen2(file, name, H5P_DEFAULT), space = H5Dget_space(d), type = H5Dget_type(d);
    const uint64_t points = (uint64_t)H5Sget_simple_extent_npoints(space), size = H5Tget_size(type);
    if (points && points <= FUZZ_WRITTEN) {
        uint8_t *all = calloc(points, size);
        if (!all) abort();
        H5Dread(d, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, all);
        memcpy(all + index % points * size, &value, skald_min_size(size, sizeof value));
        H5Dwrite(d, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, all);
        free(all);
    }
    H5Tclose(type);
    H5Sclose(space);
    H5Dclose(d);
}

/* Of any type and shape; as a dataset it may be larger than anything that is written. */
static inline void fuzz_array(hid_t file, const char *name, bool attribute, bool modest, fuzz_input *in) {
    const hid_t types[] = {H5T_IEEE_F64LE, H5T_STD_U64LE, H5T_IEEE_F32LE, H5T_STD_I32LE,
                           H5T_STD_U8LE,   H5T_STD_I64LE, H5T_STD_U16BE,  H5T_C_S1};
    const hid_t type = types[fuzz_take(in, 1) % 8];
    const unsigned rank = fuzz_take(in, 1) % 4, given = fuzz_take(in, 1) % 64;
    const bool claimed = !attribute && !modest && rank && fuzz_take(in, 1) % 4 == 0;
    hsize_t shape[4] = {0};
    uint64_t points = 1;
    for (unsigned k = 0; k < rank; k++) points *= shape[k] = fuzz_take(in, claimed ? 4 : 1);
    const bool written = points && points <= FUZZ_WRITTEN && !claimed;
    uint8_t all[FUZZ_WRITTEN * 8] = {0};
    for (unsigned k = 0; k < given; k++) {
        const uint64_t value = fuzz_take(in, 8);
        memcpy(all + k * H5Tget_size(type), &value, sizeof value);
    }
    const hid_t space = rank ? H5Screate_simple((int)rank, shape, NULL) : H5Screate(given ? H5S_SCALAR : H5S_NULL);
    fuzz_remove(file, name);
    if (attribute) {
        const hid_t a = points <= FUZZ_WRITTEN ? H5Acreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT) : -1;
        if (a >= 0) H5Awrite(a, type, all);
        if (a >= 0) H5Aclose(a);
    } else {
        const hid_t d = H5Dcreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
        if (d >= 0 && written) H5Dwrite(d, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, all);
        if (d >= 0) H5Dclose(d);
    }
    H5Sclose(space);
}

static inline void fuzz_edit(hid_t file, const char *name, bool modest, fuzz_input *in) {
    char text[64] = "";
    double number;
    uint64_t bits;
    switch (fuzz_take(in, 1) % 8) {
    case 0:
        fuzz_remove(file, name);
        break;
    case 1:
        fuzz_remove(file, name);
        h5_set_attribute(file, name, fuzz_take(in, 8));
        break;
    case 2:
        bits = fuzz_take(in, 8);
        memcpy(&number, &bits, sizeof number);
        fuzz_remove(file, name);
        h5_put_number(file, name, number);
        break;
    case 3:
        for (size_t k = 0, length = fuzz_take(in, 1) % sizeof text; k < length; k++) text[k] = (char)fuzz_take(in, 1);
        text[sizeof text - 1] = '\0';
        fuzz_remove(file, name);
        h5_put_string(file, name, text);
        break;
    case 4:
        fuzz_array(file, name, true, modest, in);
        break;
    case 5:
        fuzz_array(file, name, false, modest, in);
        break;
    default:
        fuzz_element(file, name, in);
        break;
    }
}

/* The image as the input edits it, `reserve` bytes in front; free() it. */
static inline uint8_t *fuzz_image_edit(const fuzz_image *image, fuzz_input *in, size_t reserve, size_t *size) {
    h5_lock();
    const hid_t file = fuzz_open(image->bytes, image->size);
    for (unsigned k = 0; k < FUZZ_EDITS && in->left; k++)
        fuzz_edit(file, image->names[fuzz_take(in, 1) % image->count], image->modest, in);
    if (H5Fflush(file, H5F_SCOPE_GLOBAL) < 0) abort();
    const ssize_t length = H5Fget_file_image(file, NULL, 0);
    uint8_t *bytes = length > 0 ? calloc(reserve + (size_t)length, 1) : NULL;
    if (!bytes || H5Fget_file_image(file, bytes + reserve, (size_t)length) != length) abort();
    H5Fclose(file);
    h5_unlock();
    *size = reserve + (size_t)length;
    return bytes;
}

/* A storage of one file, in memory, for targets that load and save. */
static uint8_t *fuzz_stored;
static size_t fuzz_stored_size;

static inline void fuzz_store(const void *bytes, size_t size) {
    free(fuzz_stored);
    fuzz_stored = malloc(size ? size : 1); /* no longer than it says */
    if (!fuzz_stored) abort();
    if (size) memcpy(fuzz_stored, bytes, size);
    fuzz_stored_size = size;
}
static inline skald_status fuzz_storage_write(skald_storage *self, const char *path, const void *bytes, size_t size) {
    fuzz_store(bytes, size);
    return SKALD_OK;
}
static inline skald_status fuzz_storage_keep(skald_storage *self, const char *path, const char *previous,
                                             const void *bytes, size_t size) {
    fuzz_store(bytes, size);
    return SKALD_OK;
}
static inline skald_status fuzz_storage_read(skald_storage *self, const char *path, uint8_t **bytes, size_t *size) {
    *bytes = malloc(fuzz_stored_size ? fuzz_stored_size : 1);
    if (!*bytes) abort();
    if (fuzz_stored_size) memcpy(*bytes, fuzz_stored, fuzz_stored_size);
    *size = fuzz_stored_size;
    return SKALD_OK;
}
static skald_storage fuzz_storage = {fuzz_storage_write, fuzz_storage_read, fuzz_storage_keep};

#endif
