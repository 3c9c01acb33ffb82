/* Cards as ranks: the collective port over NCCL. Part of the CUDA plugin.
 *
 * Communicators are non-blocking: what NCCL starts is polled for, with its asynchronous errors, so that a dead peer
 * ends in SKALD_ELOST, by NCCL's word or that of `waiting`. Host stretches go through one pinned buffer and one on the
 * card. One thread a communicator. */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/base.h"
#include "collective/nccl_api.h"
#include "skald/collective.h"

/* ---- the library ----------------------------------------------------------------------------------- */

static struct {
    pthread_once_t once;
    bool there;
    nccl_api api;
    int version;
    char why[400];
} nccl = {.once = PTHREAD_ONCE_INIT};

static void load(void) {
    static const struct {
        const char *name;
        size_t offset;
    } wanted[] = {
#define WANTED(name) {#name, offsetof(nccl_api, name)}
        WANTED(ncclGetVersion),        WANTED(ncclGetUniqueId),  WANTED(ncclCommInitRankConfig),
        WANTED(ncclCommGetAsyncError), WANTED(ncclCommFinalize), WANTED(ncclCommDestroy),
        WANTED(ncclCommAbort),         WANTED(ncclAllReduce),    WANTED(ncclBroadcast),
        WANTED(ncclGroupStart),        WANTED(ncclGroupEnd),     WANTED(ncclGetErrorString),
        WANTED(ncclGetLastError),
#undef WANTED
    };
    const char *named = getenv("SKALD_NCCL"), *name = named && named[0] ? named : "libnccl.so.2";
    void *library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        const char *error = dlerror();
        snprintf(nccl.why, sizeof nccl.why, "has no NCCL: %.300s", error ? error : name);
        return;
    }
    for (size_t k = 0; k < SKALD_ARRAY_LENGTH(wanted); k++) {
        void *symbol = dlsym(library, wanted[k].name);
        if (!symbol) {
            snprintf(nccl.why, sizeof nccl.why, "has a %.200s without %s: 2.14 or later is needed", name,
                     wanted[k].name);
            return;
        }
        memcpy((char *)&nccl.api + wanted[k].offset, &symbol, sizeof symbol);
    }
    nccl.there = nccl.api.ncclGetVersion(&nccl.version) == NCCL_SUCCESS && nccl.version >= NCCL_CONFIG_VERSION;
    if (!nccl.there) snprintf(nccl.why, sizeof nccl.why, "has a %.200s older than 2.14", name);
}

static skald_status ready(void) {
    pthread_once(&nccl.once, load);
    return nccl.there ? SKALD_OK : skald_fail(SKALD_EUNSUPPORTED, "%s", nccl.why);
}

/* Which boot of which machine this is: its name may be another's too. */
static void machine(char out[40]) {
    FILE *f = fopen("/proc/sys/kernel/random/boot_id", "r");
    if (!f || !fgets(out, 40, f)) gethostname(out, 40);
    if (f) fclose(f);
    out[39] = '\0';
    out[strcspn(out, "\n")] = '\0';
}

static skald_status probe(uint32_t device, char version[32], char card[80]) {
    struct cudaDeviceProp p;
    char where[40] = "";
    int domain = 0;
    TRY(ready());
    int error = cudaGetDeviceProperties(&p, (int)device);
    if (error != cudaSuccess)
        return skald_fail(SKALD_EUNSUPPORTED, "cannot use its card: %s", cudaGetErrorString((cudaError_t)error));
    const enum cudaDeviceAttr pci_domain = (enum cudaDeviceAttr)50;
    if (cudaDeviceGetAttribute(&domain, pci_domain, (int)device) != cudaSuccess) (void)cudaGetLastError();
    machine(where);
    snprintf(card, 80, "%s %x:%x", where, domain, p.pciBusID);
    snprintf(version, 32, "%d.%d.%d", nccl.version / 10000, nccl.version / 100 % 100, nccl.version % 100);
    return SKALD_OK;
}

/* ---- errors and waiting ---------------------------------------------------------------------------- */

/* Where the host's stretches are brought to the card. Those outgrown go as the group closes: to free one waits for what
 * is under way on the cards of this process, which may wait for this rank in turn. */
typedef struct stage {
    struct stage *smaller;
    double *host, *device;
    size_t capacity; /* doubles of either */
} stage;

typedef struct member {
    skald_collective base;
    nccl_comm comm;
    cudaStream_t stream; /* options.queue, or its own */
    skald_collective_options options;
    bool broken;
    stage *stage;
} member;

static member *of(skald_collective *c) {
    return (member *)c;
}

/* What NCCL blames on the network, on a peer or on itself is taken for a lost peer: the coordinator knows better. */
static skald_status fail_nccl(member *m, int error, const char *doing) {
    if (m) m->broken = true;
    const char *detail = nccl.api.ncclGetLastError(m ? m->comm : NULL);
    skald_status st = error == NCCL_REMOTE_ERROR || error == NCCL_SYSTEM_ERROR || error == NCCL_INTERNAL_ERROR
                          ? SKALD_ELOST
                          : SKALD_EIO;
    return skald_fail(st, "NCCL, %s: %s%s%.300s", doing, nccl.api.ncclGetErrorString(error),
                      detail && detail[0] ? ": " : "", detail ? detail : "");
}

static skald_status fail_cuda(member *m, int error, const char *doing) {
    (void)cudaGetLastError();
    m->broken = true;
    return skald_fail(error == cudaErrorMemoryAllocation ? SKALD_ENOMEM : SKALD_EIO, "cuda:%u, %s: %s",
                      m->options.device, doing, cudaGetErrorString((cudaError_t)error));
}

#define CUDA_TRY(m, expr, doing)                                                                                       \
    do {                                                                                                               \
        const int cuda_error_ = (int)(expr);                                                                           \
        if (cuda_error_ != cudaSuccess) return fail_cuda((m), cuda_error_, (doing));                                   \
    } while (0)

/* One breath while waiting: quick ones at first, since most operations are short, then sleeps. */
static skald_status breathe(member *m, uint32_t *breaths) {
    enum { QUICK = 2000, EVERY = 20 };
    if (++*breaths > QUICK) {
        const struct timespec t = {0, 100000};
        nanosleep(&t, NULL);
    }
    if (!m->options.waiting || *breaths < QUICK || *breaths % EVERY) return SKALD_OK;
    skald_status st = m->options.waiting(m->options.user);
    if (st != SKALD_OK) m->broken = true;
    return st;
}

/* Until NCCL has done what was asked of it on the host's side. */
static skald_status settle(member *m, int result, const char *doing) {
    uint32_t breaths = 0;
    while (result == NCCL_IN_PROGRESS) {
        int state = NCCL_SUCCESS;
        int asked = nccl.api.ncclCommGetAsyncError(m->comm, &state);
        result = asked == NCCL_SUCCESS ? state : asked;
        if (result == NCCL_IN_PROGRESS) TRY(breathe(m, &breaths));
    }
    return result == NCCL_SUCCESS ? SKALD_OK : fail_nccl(m, result, doing);
}

/* Until the stream is done. */
static skald_status finish(member *m, const char *doing) {
    uint32_t breaths = 0;
    for (;;) {
        int error = cudaStreamQuery(m->stream), state = NCCL_SUCCESS;
        if (error == cudaSuccess) return SKALD_OK;
        (void)cudaGetLastError(); /* cudaErrorNotReady is kept there too */
        if (error != cudaErrorNotReady) return fail_cuda(m, error, doing);
        int asked = nccl.api.ncclCommGetAsyncError(m->comm, &state);
        if (asked != NCCL_SUCCESS || (state != NCCL_SUCCESS && state != NCCL_IN_PROGRESS))
            return fail_nccl(m, asked != NCCL_SUCCESS ? asked : state, doing);
        TRY(breathe(m, &breaths));
    }
}

/* ---- groups ---------------------------------------------------------------------------------------- */

_Static_assert(sizeof(nccl_id) == SKALD_COLLECTIVE_ID, "a group is named by NCCL's id");

static skald_status make_id(uint8_t id[SKALD_COLLECTIVE_ID]) {
    nccl_id name;
    TRY(ready());
    int error = nccl.api.ncclGetUniqueId(&name);
    if (error != NCCL_SUCCESS) return fail_nccl(NULL, error, "making a meeting point");
    memcpy(id, &name, sizeof name);
    return SKALD_OK;
}

/* In order, when all is well; else at once, which also ends what hangs on the card. */
static void close_rank(skald_collective *c) {
    if (!c) return;
    member *m = of(c);
    (void)cudaSetDevice((int)m->options.device);
    m->options.waiting = NULL; /* there is nobody to ask any more */
    if (m->comm) {
        if (!m->broken) {
            int result = nccl.api.ncclCommFinalize(m->comm), state = NCCL_SUCCESS;
            for (uint32_t k = 0; result == NCCL_IN_PROGRESS && k < 1000; k++) { /* a second at most */
                const struct timespec t = {0, 1000000};
                int asked = nccl.api.ncclCommGetAsyncError(m->comm, &state);
                result = asked == NCCL_SUCCESS ? state : asked;
                if (result == NCCL_IN_PROGRESS) nanosleep(&t, NULL);
            }
            m->broken = result != NCCL_SUCCESS;
        }
        (void)(m->broken ? nccl.api.ncclCommAbort : nccl.api.ncclCommDestroy)(m->comm);
    }
    if (m->stream) {
        cudaStreamSynchronize(m->stream);
        if (!m->options.queue) cudaStreamDestroy(m->stream);
    }
    for (stage *s = m->stage, *smaller; s; s = smaller) {
        smaller = s->smaller;
        if (s->device) cudaFree(s->device);
        if (s->host) cudaFreeHost(s->host);
        free(s);
    }
    (void)cudaGetLastError();
    free(m);
}

static skald_status join(member *m, const uint8_t *id) {
    const skald_collective_options *o = &m->options;
    nccl_id name;
    nccl_config config = {sizeof config, (unsigned)NCCL_CONFIG_MAGIC, NCCL_CONFIG_VERSION, 0};
    memcpy(&name, id, sizeof name);
    CUDA_TRY(m, cudaSetDevice((int)o->device), "choosing the card");
    m->stream = o->queue;
    if (!m->stream) CUDA_TRY(m, cudaStreamCreateWithFlags(&m->stream, cudaStreamNonBlocking), "making a stream");
    return settle(m, nccl.api.ncclCommInitRankConfig(&m->comm, (int)o->size, name, (int)o->rank, &config),
                  "joining the group");
}

static const skald_collective_ops operations;

static skald_status open_rank(const uint8_t *id, const skald_collective_options *options, skald_collective **out) {
    TRY(ready());
    if (options->size == 0 || options->rank >= options->size)
        return skald_fail(SKALD_EINVAL, "rank %u of %u", options->rank, options->size);
    member *m = skald_zalloc(1, sizeof *m);
    if (!m) return SKALD_ENOMEM;
    m->base.ops = &operations;
    m->options = *options;
    skald_status st = join(m, id);
    if (st != SKALD_OK) {
        char error[600];
        snprintf(error, sizeof error, "%s", skald_error());
        m->broken = true;
        close_rank(&m->base);
        return skald_fail(st, "%s", error);
    }
    *out = &m->base;
    return SKALD_OK;
}

/* ---- operations ------------------------------------------------------------------------------------ */

enum { ALL = -1 };

static skald_status make_room(member *m, size_t total) {
    const size_t before = m->stage ? m->stage->capacity : 0, capacity = skald_max_size(total, 2 * before);
    if (total <= before) return SKALD_OK;
    stage *s = skald_zalloc(1, sizeof *s);
    if (!s) return SKALD_ENOMEM;
    s->smaller = m->stage;
    s->capacity = capacity;
    m->stage = s;
    CUDA_TRY(m, cudaMalloc((void **)&s->device, capacity * sizeof(double)), "allocating a buffer");
    CUDA_TRY(m, cudaMallocHost((void **)&s->host, capacity * sizeof(double)), "pinning a buffer");
    return SKALD_OK;
}

static int start(member *m, double *d_data, size_t count, int root) {
    return root == ALL ? nccl.api.ncclAllReduce(d_data, d_data, count, NCCL_FLOAT64, NCCL_SUM, m->comm, m->stream)
                       : nccl.api.ncclBroadcast(d_data, d_data, count, NCCL_FLOAT64, root, m->comm, m->stream);
}

static skald_status operate(member *m, const skald_stretch *stretches, uint32_t count, int root) {
    if (m->broken) return skald_fail(SKALD_ELOST, "the group is broken");
    CUDA_TRY(m, cudaSetDevice((int)m->options.device), "choosing the card");
    const char *doing = root == ALL ? "adding up" : "handing round";
    size_t total = 0, at = 0;
    for (uint32_t s = 0; s < count; s++) total += stretches[s].on_device ? 0 : stretches[s].count;
    TRY(make_room(m, total));
    double *const host = m->stage ? m->stage->host : NULL, *const device = m->stage ? m->stage->device : NULL;
    for (uint32_t s = 0; s < count; s++) {
        if (stretches[s].on_device) continue;
        memcpy(host + at, stretches[s].data, stretches[s].count * sizeof(double));
        at += stretches[s].count;
    }
    if (total)
        CUDA_TRY(m, cudaMemcpyAsync(device, host, total * sizeof(double), cudaMemcpyHostToDevice, m->stream),
                 "copying to the card");
    int result = nccl.api.ncclGroupStart();
    for (uint32_t s = 0; s < count && result == NCCL_SUCCESS; s++)
        if (stretches[s].on_device) result = start(m, stretches[s].data, stretches[s].count, root);
    if (total && result == NCCL_SUCCESS) result = start(m, device, total, root); /* host stretches as one */
    int ended = nccl.api.ncclGroupEnd();
    if (result == NCCL_SUCCESS || result == NCCL_IN_PROGRESS) result = ended;
    TRY(settle(m, result, doing));
    if (total)
        CUDA_TRY(m, cudaMemcpyAsync(host, device, total * sizeof(double), cudaMemcpyDeviceToHost, m->stream),
                 "copying from the card");
    TRY(finish(m, doing));
    at = 0;
    for (uint32_t s = 0; s < count; s++) {
        if (stretches[s].on_device) continue;
        memcpy(stretches[s].data, host + at, stretches[s].count * sizeof(double));
        at += stretches[s].count;
    }
    return SKALD_OK;
}

static skald_status sum(skald_collective *c, const skald_stretch *stretches, uint32_t count) {
    return operate(of(c), stretches, count, ALL);
}

static skald_status broadcast(skald_collective *c, const skald_stretch *stretches, uint32_t count, uint32_t root) {
    if (root >= of(c)->options.size) return skald_fail(SKALD_EINVAL, "there is no rank %u", root);
    return operate(of(c), stretches, count, (int)root);
}

static uint32_t rank_of(const skald_collective *c) {
    return ((const member *)c)->options.rank;
}

static uint32_t size_of(const skald_collective *c) {
    return ((const member *)c)->options.size;
}

static const skald_collective_ops operations = {"nccl",    probe,   make_id, open_rank,  sum,
                                                broadcast, rank_of, size_of, close_rank, true};

const skald_collective_ops *skald_collective_nccl(void) {
    return &operations;
}
