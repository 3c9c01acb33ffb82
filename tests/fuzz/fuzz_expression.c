/* Expressions of barriers and policies: parse, evaluate. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/expression.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const skald_name names[] = {{"avail", ""}, {"workers", ""}, {"max_stale", ""}};
    static const double values[] = {3, 4, 7};
    char *text = malloc(size + 1);
    if (size) memcpy(text, data, size);
    text[size] = '\0';
    skald_expression *e;
    if (skald_expression_parse(text, names, 3, &e) == SKALD_OK) {
        volatile double v = skald_expression_value(e, values);
        (void)v;
        skald_expression_free(e);
    }
    free(text);
    return 0;
}
