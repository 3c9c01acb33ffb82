/* Durations by size: how often each was seen, to within a tenth, and any quantile of them. */
#ifndef SKALD_BASE_HISTOGRAM_H
#define SKALD_BASE_HISTOGRAM_H

#include <stdint.h>

enum { SKALD_HISTOGRAM_BUCKETS = 256, SKALD_HISTOGRAM_PER_OCTAVE = 8 };

/* Bucket k: from 2^((k-1)/8) to 2^(k/8) microseconds; the first takes all that is shorter, the last what is longer. */
typedef struct skald_histogram {
    uint64_t count;
    uint32_t buckets[SKALD_HISTOGRAM_BUCKETS];
} skald_histogram;

void skald_histogram_add(skald_histogram *h, double ns);
/* q from 0 to 1: ns, interpolated within its bucket; 0 when empty. */
double skald_histogram_quantile(const skald_histogram *h, double q);

#endif
