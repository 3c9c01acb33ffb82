/* The versions a worker keeps. The coordinator counts along: at both ends the same rule is applied to the same tasks in
 * the same order, so that it knows, without asking, what a task must carry.
 *
 * The rule: a task's versions are named one after the other, its model, then its origin. Naming one makes it the most
 * recently named; one that is not there is put there; then the least recently named go, but never the newest, until the
 * rest is within the budget. (If a message is lost or repeated the ends may differ: a worker that lacks a version lets
 * the task lie, and the coordinator repeats it with all its vectors.)
 * Owned by one thread. */
#ifndef SKALD_ENGINE_SHELF_H
#define SKALD_ENGINE_SHELF_H

#include "skald/task.h"

enum { SKALD_SHELF_VERSIONS = 64 }; /* at most, however small they are */

typedef struct skald_kept {
    uint64_t id, bytes;
    skald_version *version; /* NULL at the coordinator */
} skald_kept;

typedef struct skald_shelf {
    uint64_t budget, bytes;
    uint32_t count;
    skald_kept kept[SKALD_SHELF_VERSIONS]; /* least recently named first */
} skald_shelf;

/* The budget unless somebody asks for another: four versions of two vectors. */
static inline uint64_t skald_shelf_budget(uint32_t dim) {
    return 8ull * dim * sizeof(double);
}
/* What a version counts for: its vectors as doubles, however they travelled. */
static inline uint64_t skald_shelf_bytes(uint32_t vectors, uint32_t dim) {
    return (uint64_t)vectors * dim * sizeof(double);
}

/* Is it there? Then it is now the most recently named, and *version (may be NULL) receives it, not referenced. */
bool skald_shelf_name(skald_shelf *shelf, uint64_t id, skald_version **version);
/* Puts one there that is not; takes over the reference on `version` (may be NULL). */
void skald_shelf_put(skald_shelf *shelf, uint64_t id, uint64_t bytes, skald_version *version);
void skald_shelf_clear(skald_shelf *shelf);

#endif
