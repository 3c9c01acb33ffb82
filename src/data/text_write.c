#include "data/text_write.h"

static char *put_number(char *to, uint32_t v) {
    char digits[10];
    int n = 0;
    do digits[n++] = (char)('0' + v % 10);
    while (v /= 10);
    while (n) *to++ = digits[--n];
    return to;
}

static char *put_fixed(char *to, int32_t q, uint32_t decimals) {
    static const uint32_t powers[] = {1, 10, 100, 1000, 10000, 100000, 1000000, 10000000, 100000000};
    uint32_t v = q < 0 ? 0u - (uint32_t)q : (uint32_t)q, whole = v / powers[decimals], part = v % powers[decimals];
    if (q < 0) *to++ = '-';
    to = put_number(to, whole);
    if (decimals == 0) return to;
    *to++ = '.';
    for (uint32_t k = decimals; k-- > 0; part /= 10) to[k] = (char)('0' + part % 10);
    return to + decimals;
}

char *text_write_row(char *to, int label, bool sign, const uint32_t *idx, const int32_t *q, uint32_t n,
                     uint32_t decimals) {
    if (label < 0 || sign) *to++ = label < 0 ? '-' : '+';
    to = put_number(to, (uint32_t)(label < 0 ? -label : label));
    for (uint32_t k = 0; k < n; k++) {
        *to++ = ' ';
        to = put_number(to, (idx ? idx[k] : k) + 1);
        *to++ = ':';
        to = put_fixed(to, q[k], decimals);
    }
    *to++ = '\n';
    return to;
}
