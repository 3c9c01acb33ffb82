/* A trace file of delays, as --straggler trace:FILE reads it; or, when the first byte is not a newline's, the option's
 * own text. What is understood is asked for delays. */
#include <math.h>
#include <string.h>

#include "base/straggler.h"
#include "fuzz_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0) return 0;
    char text[128] = "trace:";
    if (*data == '\n') {
        strcat(text, fuzz_file(data, size));
    } else {
        if (size >= sizeof text || memmem(data, size, "trace:", 6)) return 0; /* of no other files */
        memcpy(text, data, size);
        text[size] = '\0';
    }
    skald_stragglers models;
    if (skald_stragglers_parse(text, &models) != SKALD_OK) return 0;
    for (uint32_t worker = 0; worker < 4; worker++)
        for (uint64_t draw = 0; draw < 8; draw++)
            if (!(skald_stragglers_delay(&models, 7, worker, 4, draw << (8 * draw)) >= 0)) abort();
    if (isnan(skald_stragglers_resume(&models, 1, 2.0)) || isnan(skald_stragglers_death(&models, 1))) abort();
    skald_stragglers_free(&models);
    return 0;
}
