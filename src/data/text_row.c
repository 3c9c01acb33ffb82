#include "data/text_row.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <strings.h>

#include "data/entries.h"
#include "data/number.h"

/* ---- errors: off the hot path --------------------------------------------------------------------- */

static __attribute__((cold, format(printf, 3, 4))) bool fail_at(row_error *error, const char *at, const char *format,
                                                                ...) {
    va_list args;
    va_start(args, format);
    error->at = at;
    vsnprintf(error->text, sizeof error->text, format, args);
    va_end(args);
    return false;
}

/* The token at p, cut to what a message can hold and show. */
static const char *token(const char *p, const char *end, char out[40]) {
    size_t n = 0;
    while (p < end && !isspace((unsigned char)*p) && n < 32) {
        out[n++] = isprint((unsigned char)*p) ? *p : '?';
        p++;
    }
    out[n] = 0;
    return out;
}

static bool is_blank(char c) {
    return c == ' ' || c == '\t';
}

static bool ends_line(const char *p, const char *end) {
    return p >= end || *p == '#' || (*p == '\r' && p + 1 == end);
}

/* Says whether the token is one of the spellings of NaN and infinity. */
static bool is_nonfinite(const char *p) {
    if (*p == '-' || *p == '+') p++;
    return strncasecmp(p, "nan", 3) == 0 || strncasecmp(p, "inf", 3) == 0;
}

/* ---- label ---------------------------------------------------------------------------------------- */

bool text_row_start(const char *p, const char *end, const char **start) {
    while (p < end && is_blank(*p)) p++;
    *start = p;
    return !ends_line(p, end);
}

const char *text_row_label(const char *p, const char *end, double *label, row_error *error) {
    char shown[40];
    const char *next = number_parse_double(p, label);
    if (next && next <= end && (is_blank(*next) || ends_line(next, end))) return next;
    token(p, end, shown);
    if (is_nonfinite(p))
        fail_at(error, p, "label '%s' is not finite", shown);
    else if (next && *next == ',')
        fail_at(error, p, "label '%s': several labels a row are not supported", shown);
    else if (next && *next == ':')
        fail_at(error, p, "the row has no label (it starts with '%s')", shown);
    else
        fail_at(error, p, "label '%s' is not a number", shown);
    return NULL;
}

/* ---- entries -------------------------------------------------------------------------------------- */

/* What stands where an entry should: end of the line (true, *p = NULL), more blanks or qid (true, *p past
 * them), or something else (false). */
static __attribute__((noinline)) bool between_entries(const char **p, const char *end, row_error *error) {
    char shown[40];
    const char *q = *p;
    if (!is_blank(*q) && !ends_line(q, end))
        return fail_at(error, q, "'%s' where a blank or the end of the line should be", token(q, end, shown));
    while (q < end && is_blank(*q)) q++;
    if (ends_line(q, end)) {
        *p = NULL;
        return true;
    }
    if (isdigit((unsigned char)*q)) {
        *p = q - 1; /* as if exactly one blank had come before */
        return true;
    }
    if (strncmp(q, "qid:", 4) == 0) {
        const char *d = q + 4;
        while (d < end && isdigit((unsigned char)*d)) d++;
        if (d > q + 4 && d <= end && (is_blank(*d) || ends_line(d, end))) {
            *p = d;
            return true;
        }
    }
    if (*q == '-') return fail_at(error, q, "negative index in '%s'", token(q, end, shown));
    return fail_at(error, q, "'%s' is not index:value", token(q, end, shown));
}

/* An index of 8 digits or more, or none at all. */
static __attribute__((noinline)) const char *long_index(const char *p, const char *end, uint64_t *index,
                                                        row_error *error) {
    char shown[40];
    uint64_t v = 0;
    const char *q = p;
    while (isdigit((unsigned char)*q) && v <= INT32_MAX) v = v * 10 + (uint64_t)(*q++ - '0');
    if (v > INT32_MAX) {
        fail_at(error, p, "index in '%s' is larger than 2147483647", token(p, end, shown));
        return NULL;
    }
    if (q == p || *q != ':') {
        fail_at(error, p, "'%s' is not index:value", token(p, end, shown));
        return NULL;
    }
    *index = v;
    return q;
}

static __attribute__((noinline)) bool bad_value(const char *value, const char *end, uint64_t index, row_error *error) {
    char shown[40];
    token(value, end, shown);
    if (is_nonfinite(value))
        return fail_at(error, value, "value '%s' of index %" PRIu64 " is not finite", shown, index);
    double v;
    if (number_parse_double(value, &v)) /* a number, but not a float */
        return fail_at(error, value, "value '%s' of index %" PRIu64 " does not fit a 32-bit float", shown, index);
    return fail_at(error, value, "value '%s' of index %" PRIu64 " is not a number", shown, index);
}

static __attribute__((noinline)) bool bad_index(const char *p, const char *end, uint64_t index,
                                                const row_format *format, row_error *error) {
    if (index < format->lowest) return fail_at(error, p, "index 0 in data whose indices start at 1");
    return fail_at(error, p, "index %" PRIu64 " is beyond the %u columns there should be", index, format->columns);
}

static __attribute__((noinline)) bool sort_row(uint32_t *idx, float *val, size_t n, uint32_t base, const char *at,
                                               row_error *error) {
    uint32_t twice = 0;
    if (entries_sort(idx, val, n, &twice)) return true;
    return fail_at(error, at, "index %u occurs twice", twice + base);
}

bool text_row_entries(const char *p, const char *end, const row_format *format, row_entries *out, row_error *error) {
    const char *row = p;
    const uint32_t base = format->base, lowest = format->lowest, limit = format->limit;
    uint32_t *idx = out->idx;
    float *val = out->val;
    size_t n = 0;
    int64_t previous = -1, widest = -1;
    bool sorted = true, index_zero = false;
    for (;;) {
        uint64_t index;
        unsigned digits = number_digits8(p + 1, &index);
        if (__builtin_expect(*p != ' ' || digits == 0, 0)) {
            if (!between_entries(&p, end, error)) return false;
            if (!p) break;
            digits = number_digits8(p + 1, &index);
            if (digits == 0) continue;
        }
        const char *value = p + 1 + digits;
        if (__builtin_expect(digits == 8 || *value != ':', 0)) {
            value = long_index(p + 1, end, &index, error);
            if (!value) return false;
        }
        float v;
        const char *next = number_parse_float(++value, &v);
        if (__builtin_expect(!next, 0)) return bad_value(value, end, index, error);
        int64_t column = (int64_t)index - base;
        if (__builtin_expect(index < lowest || (uint64_t)column >= limit, 0))
            return bad_index(p + 1, end, index, format, error);
        if (__builtin_expect(column <= previous, 0)) {
            if (column == previous) return fail_at(error, p + 1, "index %" PRIu64 " occurs twice", index);
            sorted = false;
        }
        index_zero |= index == 0;
        widest = column > widest ? column : widest;
        previous = column;
        idx[n] = (uint32_t)column;
        val[n] = v;
        n += v != 0;
        p = next;
    }
    out->count = n;
    out->width = (uint32_t)(widest + 1);
    out->index_zero = index_zero;
    return sorted || sort_row(idx, val, n, base, row, error);
}
