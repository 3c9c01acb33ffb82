/* A model file, as predict opens it: whatever is not byte for byte what was written is refused before HDF5 sees it. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "skald/model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const uint8_t *input;
static size_t input_size;

static skald_status give(skald_storage *self, const char *path, uint8_t **bytes, size_t *size) {
    *bytes = malloc(input_size + 1);
    if (!*bytes) abort();
    memcpy(*bytes, input, input_size);
    *size = input_size;
    return SKALD_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    skald_storage storage = {.read = give};
    skald_model m = {0};
    input = data;
    input_size = size;
    if (size && skald_model_load(&storage, "fuzz", &m) == SKALD_OK) {
        double z[64] = {0};
        if (skald_model_outputs(&m) <= 64) {
            volatile double label = skald_model_label(&m, z);
            (void)label;
        }
    }
    skald_model_free(&m);
    return 0;
}
