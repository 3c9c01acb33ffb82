/* HDF5 data: open, scan, merge, read. */
#include "fuzz_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    return fuzz_data(data, size);
}
