/* Model versions: published copies of the solver's vectors, recycled when the last reference goes. */
#ifndef SKALD_ENGINE_VERSIONS_H
#define SKALD_ENGINE_VERSIONS_H

#include "skald/task.h"
#include "skald/vectors.h"

typedef struct skald_versions skald_versions;

/* Versions of up to `count` vectors, in the memory of `v`, which is copied (NULL: the host's, of `dim` doubles). */
skald_status skald_versions_create(const skald_vectors *v, uint32_t dim, uint32_t count, skald_versions **out);
/* Makes `versions` of them now: as many as will ever be out at a time, and publishing allocates nothing. */
skald_status skald_versions_reserve(skald_versions *pool, uint32_t versions);
/* The number of the last version; the next ones follow `number`. Owner thread. */
uint64_t skald_versions_number(const skald_versions *pool);
void skald_versions_go_on(skald_versions *pool, uint64_t number);
/* Drops the pool's own reference; versions still out (in a send, say) stay valid and free it at the end. */
void skald_versions_destroy(skald_versions *pool);

/* A fresh version holding copies of the vectors, with one reference. No allocation once as many exist as
 * are ever out at a time. NULL when that fails. The vectors are in the pool's memory, or (_host) in the host's. */
skald_version *skald_versions_publish(skald_versions *pool, uint64_t commits, const double *const *vectors,
                                      uint32_t count);
skald_version *skald_versions_publish_host(skald_versions *pool, uint64_t commits, const double *const *vectors,
                                           uint32_t count);
/* The same, but the vectors are the caller's own, not copies, and the version has no bytes: for tasks that are done
 * before the vectors change, of a crew that neither sends a version nor keeps it. */
skald_version *skald_versions_lend(skald_versions *pool, uint64_t commits, const double *const *vectors,
                                   uint32_t count);

/* On the host: gives a fresh version its `narrow` if the model has moved since `before` (NULL: no) by so much more than
 * floats round it that nobody would tell the difference. */
void skald_versions_narrow(skald_version *v, const skald_version *before);

/* On the host: a version to be filled in by the caller before it is shared: `id` as its publisher numbered it. */
skald_version *skald_versions_blank(skald_versions *pool, uint64_t id, uint32_t count);
/* A vector of a blank version. */
static inline double *skald_version_data(skald_version *v, uint32_t k) {
    return (double *)(uintptr_t)v->vectors[k];
}

#endif
