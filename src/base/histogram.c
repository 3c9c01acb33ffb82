#include "base/histogram.h"

#include <math.h>

void skald_histogram_add(skald_histogram *h, double ns) {
    const double at = ns > 1000 ? 1 + floor(SKALD_HISTOGRAM_PER_OCTAVE * log2(ns / 1000)) : 0;
    h->buckets[at < SKALD_HISTOGRAM_BUCKETS ? (int)at : SKALD_HISTOGRAM_BUCKETS - 1]++;
    h->count++;
}

static double edge(int bucket) { /* its lower one */
    return bucket <= 0 ? 0 : 1000 * exp2((bucket - 1) / (double)SKALD_HISTOGRAM_PER_OCTAVE);
}

double skald_histogram_quantile(const skald_histogram *h, double q) {
    double left = q * (double)h->count;
    int last = 0;
    for (int k = 0; k < SKALD_HISTOGRAM_BUCKETS; k++) {
        if (!h->buckets[k]) continue;
        last = k;
        if (left <= h->buckets[k]) return edge(k) + (edge(k + 1) - edge(k)) * left / h->buckets[k];
        left -= h->buckets[k];
    }
    return h->count ? edge(last + 1) : 0;
}
