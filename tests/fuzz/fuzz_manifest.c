/* What a worker claims to have seen in its part of the data: unpack, merge with a copy, finish. */
#include <stdint.h>

#include "skald/data.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    skald_manifest one = {0}, all = {0};
    if (skald_manifest_unpack(data, size, &one) == SKALD_OK && one.dim_limit == 0 && /* as the coordinator checks */
        skald_manifest_merge(&all, &one) == SKALD_OK)
        skald_manifest_finish(&all);
    skald_manifest_free(&all);
    skald_manifest_free(&one);
    return 0;
}
