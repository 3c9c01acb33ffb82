/* One line of LIBSVM text: `label [qid:n] index:value ... [# comment]`. */
#ifndef SKALD_DATA_TEXT_ROW_H
#define SKALD_DATA_TEXT_ROW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What is wrong with a line; `at` points into the text. */
typedef struct row_error {
    const char *at;
    char text[160];
} row_error;

/* Is there a row on the line [p, end)? No: blank, or only a comment. *start is then its first character. */
bool text_row_start(const char *p, const char *end, const char **start);

/* Parses the label at p (from text_row_start); returns what follows it, or NULL and the error. */
const char *text_row_label(const char *p, const char *end, double *label, row_error *error);

/* How to read indices: column = index - base; an index below `lowest` or a column from `limit` on is refused,
 * the latter as being beyond `columns` columns. */
typedef struct row_format {
    uint32_t base, lowest, limit, columns;
} row_format;

typedef struct row_entries {
    uint32_t *idx; /* room for one entry for each ':' on the line */
    float *val;
    size_t count;    /* out: entries, ascending, zeros dropped */
    uint32_t width;  /* out: largest column + 1, zeros counted */
    bool index_zero; /* out: the index 0 was seen */
} row_entries;

/* Parses entries from p to `end` (the line's '\n' or the end of the text). Unsorted rows are sorted. False: the
 * error. */
bool text_row_entries(const char *p, const char *end, const row_format *format, row_entries *out, row_error *error);

#endif
