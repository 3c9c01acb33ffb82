/* Small things every layer uses: memory, time, hashing, random draws. */
#ifndef SKALD_BASE_BASE_H
#define SKALD_BASE_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "skald/clock.h"
#include "skald/status.h"

#define SKALD_ARRAY_LENGTH(a) (sizeof(a) / sizeof((a)[0]))

static inline size_t skald_min_size(size_t a, size_t b) {
    return a < b ? a : b;
}
static inline size_t skald_max_size(size_t a, size_t b) {
    return a > b ? a : b;
}

/* ---- memory --------------------------------------------------------------------------------------- */

/* 64-byte aligned; large blocks ask for huge pages. NULL (and skald_error set) when out of memory or when
 * count*size overflows. Free with free(). */
void *skald_alloc(size_t count, size_t size);  /* not zeroed */
void *skald_zalloc(size_t count, size_t size); /* zeroed */

/* A name for a run that begins now: "20261121-211501-7f3a". */
void skald_run_id(char out[40]);

/* ---- addresses ------------------------------------------------------------------------------------ */

/* Does it lead nowhere but to this machine? By its text; names but localhost do not. host: as in "127.0.0.1", "::1";
 * address: "unix:PATH", "HOST:PORT", "[::1]:PORT". */
bool skald_host_is_loopback(const char *host);
bool skald_address_is_local(const char *address);

/* ---- messages in plugins -------------------------------------------------------------------------- */

/* A plugin has its own copy of skald_fail: given the host's buffer (the calling thread's message, 1 KiB) once, before
 * anything fails, it leaves its messages where the host's skald_error finds them. */
char *skald_error_buffer(void);
void skald_error_share(char *(*buffer)(void));

/* Makes a text from outside fit to be shown: control characters, and bytes that are no UTF-8 (unless any_bytes), become
 * question marks. In place; writes nothing when nothing is to be changed. */
void skald_printable(char *text, bool any_bytes);

/* ---- hashing and random numbers ------------------------------------------------------------------- */

/* A strong 64-bit mix of x (bijective). */
uint64_t skald_mix64(uint64_t x);
/* Hash of bytes, several GB/s; not cryptographic; same on every machine. */
uint64_t skald_hash(const void *data, size_t size, uint64_t seed);
/* Counter-based generator: value k of stream `key`. */
static inline uint64_t skald_random(uint64_t key, uint64_t k) {
    return skald_mix64(key ^ skald_mix64(k + 0x9e3779b97f4a7c15ull));
}
static inline double skald_uniform(uint64_t key, uint64_t k) { /* [0, 1) */
    return (double)(skald_random(key, k) >> 11) * 0x1.0p-53;
}
double skald_normal(uint64_t key, uint64_t k); /* N(0,1) */

/* Keyed permutation of [0, n), stateless: image of i. n >= 1. (Feistel network with cycle walking.) */
uint64_t skald_permute(uint64_t key, uint64_t n, uint64_t i);

/* The rows of a shard's batch: rows[j] = permutation keyed by (seed, shard, epoch) of offset + j, where
 * epoch = position / n and offset = position % n. Draws at most up to the end of the epoch, so that no row
 * occurs twice; returns how many. The same on every backend and machine. */
size_t skald_draw(uint64_t seed, uint32_t shard, size_t n, uint64_t position, size_t count, uint32_t *rows);

#endif
