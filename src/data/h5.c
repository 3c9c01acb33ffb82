#include "data/h5.h"

#include <pthread.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

void h5_lock(void) {
    pthread_mutex_lock(&lock);
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
}

void h5_unlock(void) {
    pthread_mutex_unlock(&lock);
}

bool h5_get_attribute(hid_t object, const char *name, uint64_t *value) {
    if (H5Aexists(object, name) <= 0) return false;
    hid_t a = H5Aopen(object, name, H5P_DEFAULT), space = a >= 0 ? H5Aget_space(a) : -1;
    bool good = a >= 0 && H5Sget_simple_extent_npoints(space) == 1 && H5Aread(a, H5T_NATIVE_UINT64, value) >= 0;
    if (space >= 0) H5Sclose(space);
    if (a >= 0) H5Aclose(a);
    return good;
}

skald_status h5_set_attribute(hid_t object, const char *name, uint64_t value) {
    hid_t space = H5Screate(H5S_SCALAR);
    hid_t a = H5Acreate2(object, name, H5T_STD_U64LE, space, H5P_DEFAULT, H5P_DEFAULT);
    bool good = a >= 0 && H5Awrite(a, H5T_NATIVE_UINT64, &value) >= 0;
    if (a >= 0) H5Aclose(a);
    H5Sclose(space);
    return good ? SKALD_OK : skald_fail(SKALD_EIO, "cannot write attribute '%s'", name);
}
