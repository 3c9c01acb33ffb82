/* A checkpoint, as --resume opens it, and as a header is looked at: whatever is not byte for byte what was written is
 * refused before HDF5 sees it. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "skald/checkpoint.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const uint8_t *input;
static size_t input_size;

static skald_status give(skald_storage *self, const char *path, uint8_t **bytes, size_t *size) {
    *bytes = malloc(input_size ? input_size : 1); /* no longer than it says */
    if (!*bytes) abort();
    if (input_size) memcpy(*bytes, input, input_size);
    *size = input_size;
    return SKALD_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    skald_storage storage = {NULL, give, NULL};
    skald_checkpoint c = {0};
    char run[40] = "";
    uint64_t term = 0;
    input = data;
    input_size = size;
    if (skald_checkpoint_peek(&storage, "fuzz", run, &term) && strlen(run) >= sizeof run) abort();
    if (skald_checkpoint_open(&storage, "fuzz", &c) == SKALD_OK && (!c.w || !c.shards || !c.length)) abort();
    skald_checkpoint_free(&c);
    return 0;
}
