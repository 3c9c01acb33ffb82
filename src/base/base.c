#include "base/base.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

void *skald_alloc(size_t count, size_t size) {
    size_t bytes = 0;
    if (__builtin_mul_overflow(count, size, &bytes) || bytes > SIZE_MAX / 2) {
        skald_fail(SKALD_ENOMEM, "allocation of %zu x %zu bytes is too large", count, size);
        return NULL;
    }
    const size_t huge = 2u << 20;
    size_t align = bytes >= huge / 2 ? huge : 64;
    bytes = (bytes + align - 1) / align * align;
    void *p = aligned_alloc(align, bytes ? bytes : align);
    if (!p) {
        skald_fail(SKALD_ENOMEM, "out of memory (%zu bytes)", bytes);
        return NULL;
    }
    if (align == huge) madvise(p, bytes, MADV_HUGEPAGE);
    return p;
}

void *skald_zalloc(size_t count, size_t size) {
    void *p = skald_alloc(count, size);
    if (p) memset(p, 0, count * size);
    return p;
}

static int64_t system_now(skald_clock *self) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * SKALD_NS_PER_S + t.tv_nsec;
}

skald_clock *skald_clock_system(void) {
    static skald_clock clock = {system_now};
    return &clock;
}

/* The finaliser of MurmurHash3 in Stafford's variant 13 (as in SplitMix64). */
uint64_t skald_mix64(uint64_t x) {
    x ^= x >> 30;
    x *= 0xbf58476d1ce4e5b9ull;
    x ^= x >> 27;
    x *= 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

static uint64_t load64(const uint8_t *p) {
    uint64_t v;
    memcpy(&v, p, 8);
    return v;
}

uint64_t skald_hash(const void *data, size_t size, uint64_t seed) {
    const uint8_t *p = data;
    uint64_t lane[4] = {seed ^ 0x243f6a8885a308d3ull, seed ^ 0x13198a2e03707344ull, seed ^ 0xa4093822299f31d0ull,
                        seed ^ 0x082efa98ec4e6c89ull};
    size_t left = size;
    /* four independent multiply chains, so that the multiplier's latency is hidden */
    for (; left >= 32; left -= 32, p += 32) {
        for (int k = 0; k < 4; k++) {
            lane[k] = (lane[k] ^ load64(p + 8 * k)) * 0x9fb21c651e98df25ull;
            lane[k] ^= lane[k] >> 32;
        }
    }
    for (; left >= 8; left -= 8, p += 8) lane[0] = skald_mix64(lane[0] ^ load64(p));
    if (left) {
        uint64_t tail = 0;
        memcpy(&tail, p, left);
        lane[1] = skald_mix64(lane[1] ^ tail);
    }
    uint64_t h = size * 0x9e3779b97f4a7c15ull;
    for (int k = 0; k < 4; k++) h = skald_mix64(h ^ lane[k]);
    return h;
}

double skald_normal(uint64_t key, uint64_t k) {
    double u = 1.0 - skald_uniform(key, 2 * k), v = skald_uniform(key, 2 * k + 1);
    return sqrt(-2.0 * log(u)) * cos(2.0 * M_PI * v);
}

/* A Feistel network on the grid of a x b cells, row by row, the smallest near-square one that holds n: fewer than
 * sqrt(n) + 1 cells lie beyond n, and hardly any walk has a second step. */
typedef struct grid {
    uint64_t key, n, a, b;
} grid;

static grid grid_of(uint64_t key, uint64_t n) {
    uint64_t b = (uint64_t)sqrt((double)n);
    while (b * b < n) b++;
    return (grid){key, n, (n + b - 1) / b, b};
}

/* Below `limit` <= 2^32, by (key, round, x). */
static inline uint64_t below(uint64_t key, uint64_t round, uint64_t x, uint64_t limit) {
    uint64_t h = (x + key + (round << 56)) * 0xbf58476d1ce4e5b9ull;
    h = (h ^ (h >> 32)) * 0x94d049bb133111ebull;
    return ((h >> 32) * limit) >> 32;
}

static inline uint64_t walk(const grid *g, uint64_t row, uint64_t column) {
    for (;;) { /* in fewer than n steps: the cells beyond n are on cycles with cells below it */
        for (uint64_t round = 0; round < 4; round += 2) {
            row += below(g->key, round, column, g->a);
            row -= row >= g->a ? g->a : 0;
            column += below(g->key, round + 1, row, g->b);
            column -= column >= g->b ? g->b : 0;
        }
        const uint64_t x = row * g->b + column;
        if (x < g->n) return x;
    }
}

uint64_t skald_permute(uint64_t key, uint64_t n, uint64_t i) {
    if (n <= 1) return 0;
    const grid g = grid_of(key, n);
    return walk(&g, i / g.b, i % g.b);
}

size_t skald_draw(uint64_t seed, uint32_t shard, size_t n, uint64_t position, size_t count, uint32_t *rows) {
    if (n == 0) return 0;
    uint64_t epoch = position / n, offset = position % n;
    count = skald_min_size(count, n - offset);
    uint64_t key = skald_mix64(seed + 0x9e3779b97f4a7c15ull * (shard + 1)) ^ skald_mix64(epoch + 1);
    const grid g = grid_of(key, n);
    uint64_t row = offset / g.b, column = offset % g.b;
    for (size_t j = 0; j < count; j++) {
        rows[j] = (uint32_t)walk(&g, row, column);
        if (++column == g.b) column = 0, row++;
    }
    return count;
}

void skald_run_id(char out[40]) {
    struct timespec t;
    struct tm tm;
    clock_gettime(CLOCK_REALTIME, &t);
    gmtime_r(&t.tv_sec, &tm);
    const size_t used = strftime(out, 40, "%Y%m%d-%H%M%S", &tm);
    snprintf(out + used, 40 - used, "-%04x",
             (unsigned)(skald_mix64((uint64_t)t.tv_nsec ^ (uint64_t)getpid()) & 0xffff));
}
