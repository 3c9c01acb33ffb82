/* LIBSVM text out: numbers with a fixed number of decimals, written without printf. */
#ifndef SKALD_DATA_TEXT_WRITE_H
#define SKALD_DATA_TEXT_WRITE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Most bytes one entry, and a label with its line end, can take. */
enum { TEXT_ENTRY_BYTES = 26, TEXT_LABEL_BYTES = 16 };

/* Writes `label index:value ...\n` (indices from 1; values q / 10^decimals; idx NULL: 0 .. n-1) and returns the end. */
char *text_write_row(char *to, int label, bool sign, const uint32_t *idx, const int32_t *q, uint32_t n,
                     uint32_t decimals);

#endif
