#include "compute/cuda/cublas_api.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static cublas_api api;
static char why[256];

static bool find(void *library, const char *name, void *to) {
    void *symbol = dlsym(library, name);
    memcpy(to, &symbol, sizeof symbol);
    if (!symbol) snprintf(why, sizeof why, "it has no %s", name);
    return symbol != NULL;
}

static void open_once(void) {
    const char *named = getenv("SKALD_CUBLAS");
    const char *const names[] = {named ? named : "libcublas.so.13", named ? NULL : "libcublas.so.12"};
    void *library = NULL;
    for (int k = 0; k < 2 && !library && names[k]; k++) library = dlopen(names[k], RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        snprintf(why, sizeof why, "%.200s", dlerror());
        return;
    }
    if (!find(library, "cublasCreate_v2", &api.create) || !find(library, "cublasDestroy_v2", &api.destroy) ||
        !find(library, "cublasSetStream_v2", &api.set_stream) || !find(library, "cublasGetStatusString", &api.status) ||
        !find(library, "cublasSgemm_v2", &api.sgemm) || !find(library, "cublasSgemmStridedBatched", &api.sgemm_batched))
        memset(&api, 0, sizeof api);
}

skald_status cuda_cublas(const cublas_api **out) {
    pthread_once(&once, open_once);
    *out = &api;
    if (api.create) return SKALD_OK;
    return skald_fail(SKALD_EUNSUPPORTED, "softmax on a card needs cuBLAS (%s): install it, or use --device cpu", why);
}
