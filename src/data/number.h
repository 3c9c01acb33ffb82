/* Decimal text to numbers, several digits at a time.
 *
 * All functions read up to 8 bytes past the token: the caller's text ends with at least 64 bytes that are no
 * digits (bytes_open sees to it). */
#ifndef SKALD_DATA_NUMBER_H
#define SKALD_DATA_NUMBER_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define NUMBER_POWER_MAX 60
extern const uint64_t number_power_u64[9];                      /* 10^0 .. 10^8 */
extern const double number_power_f64[2 * NUMBER_POWER_MAX + 1]; /* 10^-60 .. 10^60 */

/* Out of line: any number, by strtof/strtod, after checking that it is a plain decimal one (no hex, no "inf",
 * no "nan"). Returns the end of the token, or NULL if it is no number or not finite in the type. */
const char *number_slow_float(const char *p, float *out);
const char *number_parse_double(const char *p, double *out);

static inline uint64_t number_load8(const char *p) {
    uint64_t v;
    memcpy(&v, p, 8);
    return v;
}

/* How many of the 8 characters at p, from the first on, are digits; *value is the number they make. */
static inline unsigned number_digits8(const char *p, uint64_t *value) {
    uint64_t t = number_load8(p) ^ 0x3030303030303030ull; /* digits become 0 .. 9 */
    /* the top bit of each byte that is no digit; a carry only spoils bytes after the first such */
    uint64_t other = ((t + 0x7676767676767676ull) | t) & 0x8080808080808080ull;
    unsigned n = other ? (unsigned)__builtin_ctzll(other) >> 3 : 8;
    t = n ? t << (64 - 8 * n) : 0; /* right-aligned (first character is the low byte): zeros in front */
    t = t * 10 + (t >> 8);         /* pairs, in bytes 0, 2, 4, 6 */
    const uint64_t pairs = 0x000000ff000000ffull;
    /* pair 0 x 10^6 + pair 1 x 10^4 + pair 2 x 100 + pair 3, all added up in the upper half */
    t = (t & pairs) * (100 + (1000000ull << 32)) + ((t >> 16) & pairs) * (1 + (10000ull << 32));
    *value = t >> 32;
    return n;
}

/* The float nearest to the decimal number at p, always. Fast path: mantissa in 64 bits times a power of ten in
 * double is off by less than 2 ulp of double; rounding that to float gives the nearest float unless it
 * lies that close to the midpoint of two floats, and then (one in 10^8) strtof decides. */
static inline const char *number_parse_float(const char *start, float *out) {
    const char *p = start;
    bool negative = *p == '-';
    p += negative;
    uint64_t mantissa, part;
    unsigned n = number_digits8(p, &mantissa), digits = n;
    if (n == 8) return number_slow_float(start, out); /* integers of 8 digits and more */
    p += n;
    int exponent = 0;
    if (*p == '.') {
        p++;
        n = number_digits8(p, &part);
        mantissa = mantissa * number_power_u64[n] + part;
        p += n;
        digits += n;
        exponent = -(int)n;
        while (__builtin_expect(n == 8, 0)) {
            n = number_digits8(p, &part);
            if (__builtin_mul_overflow(mantissa, number_power_u64[n], &mantissa) || mantissa >> 62)
                return number_slow_float(start, out);
            mantissa += part;
            p += n;
            exponent -= (int)n;
        }
    }
    if (digits == 0) return number_slow_float(start, out); /* a '+', or no number */
    if ((*p | 0x20) == 'e') {
        const char *q = p + 1;
        bool down = *q == '-';
        q += down || *q == '+';
        uint64_t e;
        n = number_digits8(q, &e);
        if (n == 0 || n > 4) return number_slow_float(start, out);
        exponent += down ? -(int)e : (int)e;
        p = q + n;
    }
    if (exponent < -NUMBER_POWER_MAX || exponent > NUMBER_POWER_MAX) return number_slow_float(start, out);
    double v = (double)(int64_t)mantissa * number_power_f64[NUMBER_POWER_MAX + exponent];
    uint64_t bits;
    memcpy(&bits, &v, 8);
    const uint64_t smallest = 0x3810000000000000ull, largest = 0x47efffffe0000000ull; /* normal floats, as doubles */
    bool in_range = bits - smallest <= largest - smallest;
    bool near_midpoint = ((bits + 4 - 0x10000000ull) & 0x1fffffffull) < 8;
    if (__builtin_expect(!in_range || near_midpoint, 0)) {
        if (mantissa != 0) return number_slow_float(start, out);
    }
    *out = (float)(negative ? -v : v);
    return p;
}

#endif
