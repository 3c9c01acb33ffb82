/* What every user of the HDF5 library here shares. */
#ifndef SKALD_DATA_H5_H
#define SKALD_DATA_H5_H

#include <hdf5.h>
#include <stdbool.h>
#include <stdint.h>

#include "skald/status.h"

/* The library keeps global state and is built without thread safety on many systems: every call to it is made
 * between these two. The first one also silences its own printing. */
void h5_lock(void);
void h5_unlock(void);

/* An attribute of the file's root, one number. False: not there, or no number. */
bool h5_get_attribute(hid_t object, const char *name, uint64_t *value);
skald_status h5_set_attribute(hid_t object, const char *name, uint64_t value);

#endif
