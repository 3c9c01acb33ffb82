#include "data/number.h"

#include <math.h>
#include <stdlib.h>

const uint64_t number_power_u64[9] = {1, 10, 100, 1000, 10000, 100000, 1000000, 10000000, 100000000};

#define TEN_UP(s) 1e##s##0, 1e##s##1, 1e##s##2, 1e##s##3, 1e##s##4, 1e##s##5, 1e##s##6, 1e##s##7, 1e##s##8, 1e##s##9
#define TEN_DOWN(s)                                                                                                    \
    1e-##s##9, 1e-##s##8, 1e-##s##7, 1e-##s##6, 1e-##s##5, 1e-##s##4, 1e-##s##3, 1e-##s##2, 1e-##s##1, 1e-##s##0
const double number_power_f64[2 * NUMBER_POWER_MAX + 1] = {
    1e-60,     TEN_DOWN(5), TEN_DOWN(4), TEN_DOWN(3), TEN_DOWN(2), TEN_DOWN(1), 1e-9, 1e-8,
    1e-7,      1e-6,        1e-5,        1e-4,        1e-3,        1e-2,        1e-1, TEN_UP(0),
    TEN_UP(1), TEN_UP(2),   TEN_UP(3),   TEN_UP(4),   TEN_UP(5),   1e60};

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

/* End of a plain decimal number, or NULL. */
static const char *scan_number(const char *p) {
    if (*p == '-' || *p == '+') p++;
    const char *digits = p;
    while (is_digit(*p)) p++;
    int count = p > digits;
    if (*p == '.') {
        const char *fraction = ++p;
        while (is_digit(*p)) p++;
        count |= p > fraction;
    }
    if (!count) return NULL;
    if (*p == 'e' || *p == 'E') {
        p++;
        if (*p == '-' || *p == '+') p++;
        if (!is_digit(*p)) return NULL;
        while (is_digit(*p)) p++;
    }
    return p;
}

/* strtof and strtod read the decimal point of the locale: Skald never leaves the "C" locale. */
const char *number_slow_float(const char *p, float *out) {
    const char *end = scan_number(p);
    char *stop = NULL;
    if (!end) return NULL;
    *out = strtof(p, &stop);
    return stop == end && isfinite(*out) ? end : NULL;
}

const char *number_parse_double(const char *p, double *out) {
    bool negative = *p == '-';
    uint64_t value;
    unsigned n = number_digits8(p + negative, &value);
    const char *end = p + negative + n;
    if (n > 0 && n < 8 && *end != '.' && (*end | 0x20) != 'e') { /* a small integer, as labels are */
        *out = negative ? -(double)value : (double)value;
        return end;
    }
    end = scan_number(p);
    char *stop = NULL;
    if (!end) return NULL;
    *out = strtod(p, &stop);
    return stop == end && isfinite(*out) ? end : NULL;
}
