#include "curvature/blas.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/base.h"

/* Nothing may be lost from the environment that other threads read meanwhile: they find the old array or one that has
 * everything of it, and neither is ever freed. (setenv would move what they read.) */
static void *load_with(const char *name, char *const settings[], size_t count) {
    static char **kept[8]; /* reachable: for a leak checker */
    static size_t arrays;
    char **const before = environ;
    size_t n = 0;
    while (before && before[n]) n++;
    char **during = arrays < SKALD_ARRAY_LENGTH(kept) ? malloc((n + count + 1) * sizeof *during) : NULL;
    if (!during) return dlopen(name, RTLD_NOW | RTLD_LOCAL);
    kept[arrays++] = during;
    memcpy(during, settings, count * sizeof *during);
    if (n) memcpy(during + count, before, n * sizeof *during);
    during[count + n] = NULL;
    environ = during;
    void *library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    environ = before;
    return library;
}

static void core_of(void *library, char core[32]) {
    char *(*name)(void) = NULL;
    void *symbol = dlsym(library, "openblas_get_corename");
    memcpy(&name, &symbol, sizeof name);
    core[0] = 0;
    if (name) strncat(core, name(), 31);
}

/* A processor that is newer than the library gets the kernels of 2004 ("Prescott", SSE3: a fifth of the speed). */
static char *better_core(const char *core) {
#ifdef __x86_64__
    static char avx512[] = "OPENBLAS_CORETYPE=SkylakeX", avx2[] = "OPENBLAS_CORETYPE=Haswell";
    if (strcmp(core, "Prescott") != 0 || getenv("OPENBLAS_CORETYPE")) return NULL;
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl"))
        return avx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return avx2;
#endif
    return NULL;
}

/* One thread from the start: the library would otherwise begin one a core, which spin for a while. */
static void *load_library(const char *name, char core[32]) {
    static char alone[] = "OPENBLAS_NUM_THREADS=1";
    char *settings[2] = {alone, NULL};
    void *library = load_with(name, settings, 1);
    if (!library) return NULL;
    core_of(library, core);
    settings[1] = better_core(core);
    if (settings[1]) {
        dlclose(library);
        library = load_with(name, settings, 2);
        if (!library) return NULL;
        core_of(library, core);
    }
    void (*threads)(int) = NULL;
    void *symbol = dlsym(library, "openblas_set_num_threads");
    memcpy(&threads, &symbol, sizeof threads);
    if (threads) threads(1);
    return library;
}

static bool fill(void *blas, void *lapack, skald_blas *out) {
    const struct {
        void *library;
        const char *name;
        void *to;
    } wanted[] = {{blas, "cblas_dsyrk", &out->dsyrk}, {blas, "cblas_ssyrk", &out->ssyrk},
                  {blas, "cblas_dgemm", &out->dgemm}, {blas, "cblas_dsymv", &out->dsymv},
                  {blas, "cblas_dtrsv", &out->dtrsv}, {blas, "cblas_dtrmv", &out->dtrmv},
                  {lapack, "dpotrf_", &out->dpotrf},  {lapack, "dtrtri_", &out->dtrtri}};
    for (size_t k = 0; k < SKALD_ARRAY_LENGTH(wanted); k++) {
        void *symbol = dlsym(wanted[k].library, wanted[k].name);
        if (!symbol) return false;
        memcpy(wanted[k].to, &symbol, sizeof symbol);
    }
    return true;
}

skald_status skald_blas_load(const char *const (*names)[2], size_t count, skald_blas *out, char core[32]) {
    char ignored[32];
    for (size_t k = 0; k < count; k++) {
        void *blas = load_library(names[k][0], core ? core : ignored);
        if (!blas) continue;
        void *lapack = names[k][1] ? dlopen(names[k][1], RTLD_NOW | RTLD_LOCAL) : blas;
        if (lapack && fill(blas, lapack, out)) return SKALD_OK;
        if (lapack && lapack != blas) dlclose(lapack);
        dlclose(blas);
    }
    return skald_fail(SKALD_EUNSUPPORTED, "OpenBLAS is not installed (Debian: libopenblas0)");
}

static pthread_once_t once = PTHREAD_ONCE_INIT;
static skald_blas table;
static skald_status found;
static char why[256];

static void open_once(void) {
    static const char *const names[][2] = {
        {"libopenblas.so.0", NULL}, {"libopenblas.so", NULL}, {"libblas.so.3", "liblapack.so.3"}};
    found = skald_blas_load(names, SKALD_ARRAY_LENGTH(names), &table, NULL);
    if (found != SKALD_OK) strncat(why, skald_error(), sizeof why - 1);
}

skald_status skald_blas_open(const skald_blas **out) {
    pthread_once(&once, open_once);
    if (found != SKALD_OK) return skald_fail(found, "%s", why);
    *out = &table;
    return SKALD_OK;
}
