#include "data/entries.h"

/* Restores the heap property (largest index on top) below `at`. Heap sort: in place, no allocation to fail, and no
 * row that makes it slow. */
static void sift(uint32_t *idx, float *val, size_t at, size_t n) {
    uint32_t i = idx[at];
    float v = val[at];
    for (size_t child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && idx[child + 1] > idx[child]) child++;
        if (idx[child] <= i) break;
        idx[at] = idx[child];
        val[at] = val[child];
    }
    idx[at] = i;
    val[at] = v;
}

bool entries_sort(uint32_t *idx, float *val, size_t n, uint32_t *twice) {
    for (size_t k = n / 2; k-- > 0;) sift(idx, val, k, n);
    for (size_t k = n; k-- > 1;) {
        uint32_t i = idx[0];
        float v = val[0];
        idx[0] = idx[k];
        val[0] = val[k];
        idx[k] = i;
        val[k] = v;
        sift(idx, val, 0, k);
    }
    for (size_t k = 1; k < n; k++)
        if (idx[k] == idx[k - 1]) {
            *twice = idx[k];
            return false;
        }
    return true;
}
