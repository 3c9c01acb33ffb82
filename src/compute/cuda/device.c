/* Cards: listing them, opening one, and what its errors mean. */
#include "compute/cuda/cuda.h"
#include "compute/cuda/softmax.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "skald/plugin.h"

/* ---- errors --------------------------------------------------------------------------------------- */

/* What the runtime says without a driver or card, in words of use to whoever reads them. */
static const char *advice(int error) {
    switch (error) {
    case cudaErrorInsufficientDriver:
        return "no NVIDIA driver, or one too old for this plugin";
    case cudaErrorStubLibrary:
        return "libcuda is the toolkit's stub, not the driver's";
    case cudaErrorNoDevice:
        return "the driver finds no card";
    default:
        return cudaGetErrorString((cudaError_t)error);
    }
}

static skald_status fail(const char *who, int error, const char *doing) {
    const skald_status st = error == cudaErrorMemoryAllocation ? SKALD_ENOMEM : SKALD_EIO;
    return skald_fail(st, "%s: %s: %s (%s)", who, doing, cudaGetErrorName((cudaError_t)error), advice(error));
}

skald_status cuda_fail(cuda_compute *c, int error, const char *doing) {
    (void)cudaGetLastError(); /* forgets what can be forgotten */
    /* an error that stays has broken the process's context: nothing on this card works any more */
    const int stays = cudaDeviceSynchronize();
    (void)cudaGetLastError();
    const skald_status st = fail(c->spec, error, doing);
    if (stays == cudaSuccess) return st;
    atomic_store(&c->broken, true);
    return skald_context(SKALD_EIO, "the card cannot be used any more, until this process starts anew");
}

skald_status cuda_enter(cuda_compute *c) {
    if (atomic_load(&c->broken))
        return skald_fail(SKALD_EIO, "%s cannot be used any more after an earlier error", c->spec);
    int error = cudaSetDevice((int)c->index); /* of this thread */
    return error == cudaSuccess ? SKALD_OK : cuda_fail(c, error, "choosing the card");
}

/* ---- listing -------------------------------------------------------------------------------------- */

static skald_status describe(int index, skald_device *out) {
    struct cudaDeviceProp p;
    int error = cudaGetDeviceProperties(&p, index);
    if (error != cudaSuccess) return fail("CUDA", error, "asking for a card's properties");
    *out = (skald_device){.index = (uint32_t)index,
                          .memory_bytes = p.totalGlobalMem,
                          .units = (uint32_t)p.multiProcessorCount,
                          .major = (uint32_t)p.major,
                          .minor = (uint32_t)p.minor};
    snprintf(out->spec, sizeof out->spec, "cuda:%d", index);
    snprintf(out->name, sizeof out->name, "%.*s", (int)sizeof out->name - 1, p.name);
    return SKALD_OK;
}

enum { LEAST_MAJOR = 8 }; /* the kernels copy asynchronously into shared memory */

static bool fit(const skald_device *card, char why[256]) {
    if (card->major >= LEAST_MAJOR) return true;
    snprintf(why, 256, "%s (%s) has compute capability %u.%u: %d.0 or more is needed", card->spec, card->name,
             card->major, card->minor, LEAST_MAJOR);
    return false;
}

static skald_status devices(skald_device *out, uint32_t room, uint32_t *count, char why[256]) {
    int found = 0;
    *count = 0;
    why[0] = '\0';
    int error = cudaGetDeviceCount(&found);
    if (error != cudaSuccess) {
        (void)cudaGetLastError();
        fail("CUDA", error, "looking for cards");
        return error == cudaErrorMemoryAllocation ? SKALD_ENOMEM : SKALD_EUNSUPPORTED;
    }
    if (found <= 0) snprintf(why, 256, "the CUDA driver finds no card");
    for (int k = 0; k < found; k++) {
        skald_device card;
        TRY(describe(k, &card));
        if (!fit(&card, why)) continue;
        if (*count < room) out[*count] = card;
        ++*count;
    }
    return SKALD_OK;
}

/* ---- open and destroy ----------------------------------------------------------------------------- */

void cuda_destroy(skald_compute *base) {
    cuda_vectors_close((cuda_compute *)base);
    free(base); /* shards have been unloaded; the card's context stays with the process */
}

static const skald_compute_ops operations = {
    .name = "cuda",
    .load = cuda_load,
    .unload = cuda_unload,
    .gradient = cuda_gradient,
    .saga = cuda_saga,
    .local = cuda_local,
    .difference = cuda_difference,
    .objective = cuda_objective,
    .shift = cuda_shift,
    .anchor = cuda_anchor,
    .curvature = cuda_curvature,
    .rows = cuda_rows,
    .history_get = cuda_history_get,
    .history_set = cuda_history_set,
    .vectors = cuda_vectors_open,
    .destroy = cuda_destroy,
};

static skald_status open_card(uint32_t index, const skald_compute_options *options, const skald_objective *objective,
                              uint32_t dim, skald_compute **out) {
    skald_device card;
    *out = NULL;
    TRY(describe((int)index, &card));
    char why[256];
    if (!fit(&card, why)) return skald_fail(SKALD_EUNSUPPORTED, "%s", why);
    cuda_compute *c = skald_zalloc(1, sizeof *c);
    if (!c) return SKALD_ENOMEM;
    c->base.ops = objective->loss == SKALD_SOFTMAX ? &cuda_softmax_operations : &operations;
    c->base.objective = *objective;
    c->base.dim = dim;
    c->index = index;
    c->storage = options->storage;
    c->resident = options->resident;
    c->deterministic = options->deterministic;
    memcpy(c->spec, card.spec, sizeof c->spec);
    skald_status st = cuda_enter(c);
    if (st == SKALD_OK) {
        const int error = skald_gpu_device_get(&c->gpu);
        if (error != cudaSuccess) st = cuda_fail(c, error, "preparing the kernels");
    }
    if (st != SKALD_OK) {
        cuda_destroy(&c->base);
        return st;
    }
    *out = &c->base;
    return SKALD_OK;
}

extern skald_plugin_entry skald_cuda_plugin __attribute__((visibility("default")));

const skald_compute_plugin *skald_cuda_plugin(uint32_t abi, const skald_plugin_host *host) {
    if (abi != SKALD_PLUGIN_ABI) return NULL;
    static skald_compute_plugin plugin = {SKALD_PLUGIN_ABI, "cuda", devices, open_card, NULL};
    skald_error_share(host->error_buffer);
    plugin.collective = skald_collective_nccl();
    return &plugin;
}
