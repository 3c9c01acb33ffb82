/* LIBSVM text, .gz and .xz by their first bytes: open, scan, merge, read. */
#include <string.h>

#include "fuzz_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size >= 4 && memcmp(data, "\211HDF", 4) == 0) return 0; /* fuzz_hdf5's */
    (void)fuzz_data(fuzz_file(data, size));
    return 0;
}
