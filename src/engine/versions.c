#include "engine/versions.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"

typedef struct entry {
    skald_version version;
    skald_versions *pool;
    struct entry *next;
    double *data; /* host: all vectors, one after the other */
    float *narrow;
    double *vectors[SKALD_MAX_POINTS];
} entry;

struct skald_versions {
    pthread_mutex_t mutex; /* releases come from the transport's threads */
    entry *idle;
    size_t out; /* versions not in the idle list, plus one while the pool itself is open */
    uint32_t dim, capacity;
    uint64_t next_id;
    skald_vectors v; /* on_device: else the memory is the host's */
};

static void free_entry(skald_versions *p, entry *e) {
    for (uint32_t k = 0; p->v.on_device && k < p->capacity; k++)
        if (e->vectors[k]) p->v.ops->destroy(&p->v, e->vectors[k]);
    free(e->data);
    free(e->narrow);
    free(e);
}

skald_status skald_versions_create(const skald_vectors *v, uint32_t dim, uint32_t count, skald_versions **out) {
    skald_versions *p = skald_zalloc(1, sizeof *p);
    if (!p) return SKALD_ENOMEM;
    pthread_mutex_init(&p->mutex, NULL);
    p->dim = dim;
    p->capacity = count;
    p->out = 1;
    if (v) p->v = *v;
    *out = p;
    return SKALD_OK;
}

uint64_t skald_versions_number(const skald_versions *p) {
    return p->next_id;
}

void skald_versions_go_on(skald_versions *p, uint64_t number) {
    p->next_id = number;
}

static void free_if_unused(skald_versions *p, size_t out) {
    if (out) return;
    for (entry *e = p->idle, *next; e; e = next) {
        next = e->next;
        free_entry(p, e);
    }
    pthread_mutex_destroy(&p->mutex);
    free(p);
}

static void release(skald_bytes *bytes) {
    entry *e = (entry *)(void *)((char *)bytes - offsetof(skald_version, bytes));
    skald_versions *p = e->pool;
    pthread_mutex_lock(&p->mutex);
    e->next = p->idle;
    p->idle = e;
    size_t out = --p->out;
    pthread_mutex_unlock(&p->mutex);
    free_if_unused(p, out);
}

void skald_versions_destroy(skald_versions *p) {
    if (!p) return;
    pthread_mutex_lock(&p->mutex);
    size_t out = --p->out;
    pthread_mutex_unlock(&p->mutex);
    free_if_unused(p, out);
}

static skald_status fill(skald_versions *p, entry *e) {
    for (uint32_t k = 0; p->v.on_device && k < p->capacity; k++) TRY(p->v.ops->create(&p->v, &e->vectors[k]));
    if (p->v.on_device) return SKALD_OK;
    e->data = skald_alloc((size_t)p->capacity * p->dim, sizeof(double));
    e->narrow = skald_alloc((size_t)p->capacity * p->dim, sizeof(float));
    if (!e->data || !e->narrow) return SKALD_ENOMEM;
    for (uint32_t k = 0; k < p->capacity; k++) e->vectors[k] = e->data + (size_t)k * p->dim;
    return SKALD_OK;
}

static entry *make(skald_versions *p) {
    entry *e = skald_zalloc(1, sizeof *e);
    if (!e) return NULL;
    e->pool = p;
    if (fill(p, e) == SKALD_OK) return e;
    free_entry(p, e);
    return NULL;
}

skald_status skald_versions_reserve(skald_versions *p, uint32_t versions) {
    for (uint32_t k = 0; k < versions; k++) {
        entry *e = make(p);
        if (!e) return SKALD_ENOMEM;
        pthread_mutex_lock(&p->mutex);
        e->next = p->idle;
        p->idle = e;
        pthread_mutex_unlock(&p->mutex);
    }
    return SKALD_OK;
}

skald_version *skald_versions_blank(skald_versions *p, uint64_t id, uint32_t count) {
    pthread_mutex_lock(&p->mutex);
    entry *e = p->idle;
    if (e) p->idle = e->next;
    p->out++;
    pthread_mutex_unlock(&p->mutex);
    if (!e && !(e = make(p))) {
        pthread_mutex_lock(&p->mutex);
        p->out--;
        pthread_mutex_unlock(&p->mutex);
        return NULL;
    }
    skald_version *v = &e->version;
    v->id = id;
    v->commits = 0;
    v->count = count;
    v->dim = p->dim;
    for (uint32_t k = 0; k < SKALD_MAX_POINTS; k++) {
        v->vectors[k] = k < count ? e->vectors[k] : NULL;
        v->narrow[k] = NULL;
    }
    v->bytes.data = (const uint8_t *)e->data;
    v->bytes.size = e->data ? (size_t)count * p->dim * sizeof(double) : 0;
    v->bytes.release = release;
    v->bytes.refs = 1;
    return v;
}

skald_version *skald_versions_publish(skald_versions *p, uint64_t commits, const double *const *vectors,
                                      uint32_t count) {
    skald_version *v = skald_versions_blank(p, ++p->next_id, count); /* published by the owner thread alone */
    if (!v) return NULL;
    v->commits = commits;
    for (uint32_t k = 0; k < count; k++) {
        if (p->v.on_device)
            p->v.ops->copy(&p->v, skald_version_data(v, k), vectors[k]);
        else
            memcpy(skald_version_data(v, k), vectors[k], p->dim * sizeof(double));
    }
    return v;
}

skald_version *skald_versions_lend(skald_versions *p, uint64_t commits, const double *const *vectors, uint32_t count) {
    skald_version *v = skald_versions_blank(p, ++p->next_id, count);
    if (!v) return NULL;
    v->commits = commits;
    for (uint32_t k = 0; k < count; k++) v->vectors[k] = vectors[k];
    v->bytes.data = NULL;
    v->bytes.size = 0;
    return v;
}

skald_version *skald_versions_publish_host(skald_versions *p, uint64_t commits, const double *const *vectors,
                                           uint32_t count) {
    if (!p->v.on_device) return skald_versions_publish(p, commits, vectors, count);
    skald_version *v = skald_versions_blank(p, ++p->next_id, count);
    if (!v) return NULL;
    v->commits = commits;
    for (uint32_t k = 0; k < count; k++)
        if (p->v.ops->write(&p->v, skald_version_data(v, k), vectors[k]) != SKALD_OK) {
            skald_version_unref(v);
            return NULL;
        }
    return v;
}

/* Floats round by 2^-24 at most: that is to be 2^-11 of the way, or less. */
static const double FAR = 0x1p-13;

void skald_versions_narrow(skald_version *v, const skald_version *before) {
    if (!before) return;
    entry *e = (entry *)(void *)v;
    const double *restrict now = v->vectors[0], *restrict then = before->vectors[0];
    double moved[8] = {0}, size[8] = {0};
    for (uint32_t j = 0; j + 8 <= v->dim; j += 8)
        for (uint32_t k = 0; k < 8; k++) {
            const double by = now[j + k] - then[j + k];
            moved[k] += by * by;
            size[k] += now[j + k] * now[j + k];
        }
    for (uint32_t j = v->dim & ~7u; j < v->dim; j++) {
        moved[0] += (now[j] - then[j]) * (now[j] - then[j]);
        size[0] += now[j] * now[j];
    }
    for (uint32_t k = 1; k < 8; k++) moved[0] += moved[k], size[0] += size[k];
    if (!(moved[0] > FAR * FAR * size[0])) return;
    for (uint32_t k = 0; k < v->count; k++) {
        float *restrict to = e->narrow + (size_t)k * v->dim;
        const double *restrict from = v->vectors[k];
        for (uint32_t j = 0; j < v->dim; j++) to[j] = (float)from[j];
        v->narrow[k] = to;
    }
}
