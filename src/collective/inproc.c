/* Threads of one process as ranks: the collective port without any device, for tests. One lock for everything. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/base.h"
#include "skald/collective.h"

typedef struct group {
    struct group *next;
    uint8_t id[SKALD_COLLECTIVE_ID];
    uint32_t size, joined, refs, arrived;
    bool broken;
    uint64_t done; /* operations */
    const skald_stretch **given;
    double *result; /* of the last operation, its stretches one after the other */
    size_t capacity;
    skald_collective_fault fault;
} group;

typedef struct member {
    skald_collective base;
    group *group;
    uint32_t rank;
    skald_status (*waiting)(void *user);
    void *user;
} member;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static group *groups;
static skald_collective_fault planned[4];
static uint32_t planned_count, planned_next;
static uint64_t names;

static member *of(skald_collective *c) {
    return (member *)c;
}

void skald_collective_inproc_set_faults(const skald_collective_fault *faults, uint32_t count) {
    pthread_mutex_lock(&lock);
    planned_next = 0;
    planned_count = count < SKALD_ARRAY_LENGTH(planned) ? count : (uint32_t)SKALD_ARRAY_LENGTH(planned);
    for (uint32_t k = 0; k < planned_count; k++) planned[k] = faults[k];
    pthread_mutex_unlock(&lock);
}

/* ---- groups; all under the lock -------------------------------------------------------------------- */

static group *find_or_make(const uint8_t *id, uint32_t size) {
    for (group *g = groups; g; g = g->next)
        if (memcmp(g->id, id, sizeof g->id) == 0) return g;
    group *g = skald_zalloc(1, sizeof *g);
    if (!g) return NULL;
    g->given = skald_zalloc(size, sizeof(const skald_stretch *));
    if (!g->given) {
        free(g);
        return NULL;
    }
    memcpy(g->id, id, sizeof g->id);
    g->size = size;
    if (planned_next < planned_count) g->fault = planned[planned_next++];
    g->next = groups;
    groups = g;
    return g;
}

static void leave(group *g) {
    g->broken = true;
    pthread_cond_broadcast(&changed);
    if (--g->refs) return;
    for (group **p = &groups; *p; p = &(*p)->next)
        if (*p == g) {
            *p = g->next;
            break;
        }
    free(g->given);
    free(g->result);
    free(g);
}

/* Lets others have the lock for a moment. */
static skald_status doze(member *m) {
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += 2000000;
    if (until.tv_nsec >= SKALD_NS_PER_S) until.tv_sec++, until.tv_nsec -= SKALD_NS_PER_S;
    pthread_cond_timedwait(&changed, &lock, &until);
    if (!m->waiting) return SKALD_OK;
    pthread_mutex_unlock(&lock);
    skald_status st = m->waiting(m->user);
    pthread_mutex_lock(&lock);
    return st;
}

static skald_status lost(void) {
    return skald_fail(SKALD_ELOST, "a rank is gone");
}

/* Waits until the group is complete; without the group again when it fails. */
static skald_status join(member *m, const uint8_t *id, uint32_t rank, uint32_t size, group **out) {
    group *g = find_or_make(id, size);
    if (!g) return SKALD_ENOMEM;
    g->refs++;
    skald_status st = g->size == size ? SKALD_OK : skald_fail(SKALD_EINVAL, "ranks disagree about their number");
    g->joined++;
    pthread_cond_broadcast(&changed);
    while (st == SKALD_OK && g->joined < g->size) st = g->broken ? lost() : doze(m);
    if (st != SKALD_OK) {
        leave(g);
        return st;
    }
    *out = g;
    m->rank = rank;
    return SKALD_OK;
}

/* ---- operations ------------------------------------------------------------------------------------ */

enum { ALL = -1 };

/* Everybody is here: root's stretches, or the sum of all. */
static skald_status compute(group *g, uint32_t count, int64_t root) {
    size_t total = 0;
    for (uint32_t s = 0; s < count; s++) total += g->given[0][s].count;
    if (total > g->capacity) {
        free(g->result);
        g->capacity = 0;
        g->result = skald_alloc(total, sizeof(double));
        if (!g->result) return SKALD_ENOMEM;
        g->capacity = total;
    }
    double *to = g->result;
    for (uint32_t s = 0; s < count; s++) {
        const size_t n = g->given[0][s].count;
        memcpy(to, g->given[root == ALL ? 0 : root][s].data, n * sizeof *to);
        for (uint32_t r = 1; r < g->size && root == ALL; r++)
            for (size_t j = 0; j < n; j++) to[j] += g->given[r][s].data[j];
        to += n;
    }
    return SKALD_OK;
}

static skald_status operate_locked(member *m, const skald_stretch *stretches, uint32_t count, int64_t root) {
    group *g = m->group;
    const uint64_t mine = g->done + 1;
    if (g->broken) return lost();
    g->given[m->rank] = stretches;
    if (++g->arrived == g->size) {
        TRY(compute(g, count, root));
        g->arrived = 0;
        g->done = mine;
        if (mine == g->fault.at) g->broken = true;
        pthread_cond_broadcast(&changed);
    }
    while (g->done < mine) {
        if (g->broken) return lost();
        TRY(doze(m));
    }
    if (mine == g->fault.at && (m->rank == g->fault.lost || !(g->fault.finish >> m->rank & 1)))
        return m->rank == g->fault.lost ? skald_fail(SKALD_EINTERNAL, "this rank was told to die") : lost();
    const double *from = g->result;
    for (uint32_t s = 0; s < count; s++) {
        memcpy(stretches[s].data, from, stretches[s].count * sizeof *from);
        from += stretches[s].count;
    }
    return SKALD_OK;
}

static skald_status operate(member *m, const skald_stretch *stretches, uint32_t count, int64_t root) {
    pthread_mutex_lock(&lock);
    skald_status st = operate_locked(m, stretches, count, root);
    if (st != SKALD_OK) {
        m->group->broken = true;
        pthread_cond_broadcast(&changed);
    }
    pthread_mutex_unlock(&lock);
    return st;
}

static skald_status sum(skald_collective *c, const skald_stretch *stretches, uint32_t count) {
    return operate(of(c), stretches, count, ALL);
}

static skald_status broadcast(skald_collective *c, const skald_stretch *stretches, uint32_t count, uint32_t root) {
    if (root >= of(c)->group->size) return skald_fail(SKALD_EINVAL, "there is no rank %u", root);
    return operate(of(c), stretches, count, root);
}

static skald_status probe(uint32_t device, char version[32], char card[80]) {
    card[0] = '\0';
    strcpy(version, "threads");
    return SKALD_OK;
}

static skald_status make_id(uint8_t id[SKALD_COLLECTIVE_ID]) {
    memset(id, 0, SKALD_COLLECTIVE_ID);
    pthread_mutex_lock(&lock);
    names++;
    memcpy(id, &names, sizeof names);
    pthread_mutex_unlock(&lock);
    return SKALD_OK;
}

static const skald_collective_ops operations;

static skald_status open_rank(const uint8_t *id, const skald_collective_options *o, skald_collective **out) {
    if (o->size == 0 || o->rank >= o->size) return skald_fail(SKALD_EINVAL, "rank %u of %u", o->rank, o->size);
    member *m = skald_zalloc(1, sizeof *m);
    if (!m) return SKALD_ENOMEM;
    m->base.ops = &operations;
    m->waiting = o->waiting;
    m->user = o->user;
    pthread_mutex_lock(&lock);
    skald_status st = join(m, id, o->rank, o->size, &m->group);
    pthread_mutex_unlock(&lock);
    if (st == SKALD_OK)
        *out = &m->base;
    else
        free(m);
    return st;
}

static uint32_t rank_of(const skald_collective *c) {
    return ((const member *)c)->rank;
}

static uint32_t size_of(const skald_collective *c) {
    return ((const member *)c)->group->size;
}

static void close_rank(skald_collective *c) {
    if (!c) return;
    pthread_mutex_lock(&lock);
    leave(of(c)->group);
    pthread_mutex_unlock(&lock);
    free(c);
}

static const skald_collective_ops operations = {"inproc",  probe,   make_id, open_rank,  sum,
                                                broadcast, rank_of, size_of, close_rank, false};

const skald_collective_ops *skald_collective_inproc(void) {
    return &operations;
}
