/* Sorting the entries of a sparse row. */
#ifndef SKALD_DATA_ENTRIES_H
#define SKALD_DATA_ENTRIES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Sorts entries by index, in place. False: an index occurs twice (*twice), the order is then unspecified. */
bool entries_sort(uint32_t *idx, float *val, size_t n, uint32_t *twice);

#endif
