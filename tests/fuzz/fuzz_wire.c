/* Frames as they come off the network: cut anywhere (the first byte says where), decoded, every vector read. */
#include <stdint.h>
#include <stdlib.h>

#include "wire/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void keep(skald_frame *frame) {}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static skald_wire_env *env; /* as a session keeps it */
    static double numbers[1024];
    if (size == 0 || (!env && skald_wire_env_create(&env) != SKALD_OK)) return 0;
    const size_t step = data[0] % 16 + 1u, body = size - 1, pieces = (body + step - 1) / step;
    const size_t count = data[0] < 128 && pieces <= 4096 ? pieces : 1;
    skald_segment *segments = calloc(count, sizeof *segments);
    for (size_t k = 0, at = 0; k < count; k++) {
        size_t n = count == 1 ? body : body - at < step ? body - at : step;
        segments[k] = (skald_segment){NULL, data + 1 + at, n};
        at += n;
    }
    skald_frame frame = {segments, body ? count : 0, body, NULL, keep};
    if (skald_wire_open(env, &frame) == SKALD_OK) {
        for (size_t k = 0; k < skald_wire_vectors(env); k++) {
            const size_t bytes = skald_wire_vector_bytes(env, k);
            if (bytes / sizeof(double) <= 1024) skald_wire_doubles(env, k, numbers, bytes / sizeof(double));
            if (bytes / sizeof(float) <= 1024) skald_wire_floats(env, k, numbers, bytes / sizeof(float));
            skald_wire_read(env, k, bytes / 2, numbers, bytes / 4 < sizeof numbers ? bytes / 4 : 0);
        }
    }
    free(segments);
    return 0;
}
