#include "compute/plugin.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/base.h"

#define FILE_NAME "libskald_cuda.so"

static struct {
    pthread_once_t once;
    const skald_compute_plugin *plugin;
    bool absent;
    char why[512];
} cuda = {.once = PTHREAD_ONCE_INIT};

/* Where to look: `place` 0 and 1 are folders next to this binary's; 2 is left to the loader. */
static bool candidate(int place, char *out, size_t size) {
    static const char *const beside[] = {"/", "/../lib/"};
    if (place == 2) return snprintf(out, size, "%s", FILE_NAME) > 0;
    char self[4000];
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    if (length <= 0) return false;
    self[length] = '\0';
    char *slash = strrchr(self, '/');
    if (!slash) return false;
    *slash = '\0';
    return snprintf(out, size, "%s%s%s", self, beside[place], FILE_NAME) < (int)size && access(out, F_OK) == 0;
}

static void take(void *library, const char *path) {
    static const skald_plugin_host host = {skald_error_buffer};
    skald_plugin_entry *entry = NULL;
    void *symbol = dlsym(library, SKALD_CUDA_ENTRY);
    memcpy(&entry, &symbol, sizeof entry); /* ISO C has no cast from object to function */
    if (!entry) {
        snprintf(cuda.why, sizeof cuda.why, "%.400s is no plugin of skald", path);
        return;
    }
    cuda.plugin = entry(SKALD_PLUGIN_ABI, &host);
    if (!cuda.plugin || cuda.plugin->abi != SKALD_PLUGIN_ABI) {
        cuda.plugin = NULL;
        snprintf(cuda.why, sizeof cuda.why, "%.400s belongs to another version of skald", path);
    }
}

static void look(void) {
    const char *named = getenv("SKALD_CUDA_PLUGIN");
    char path[4096] = "";
    void *library = NULL;
    if (named && named[0]) {
        snprintf(path, sizeof path, "%s", named);
        library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    }
    for (int place = 0; !(named && named[0]) && place < 3 && !library; place++) {
        if (!candidate(place, path, sizeof path)) continue;
        library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        if (place < 2) break; /* a file that is there and cannot be opened says more than others that are not there */
    }
    if (library) {
        take(library, path);
        return;
    }
    const char *error = dlerror();
    cuda.absent = strcmp(path, FILE_NAME) == 0 && error && strstr(error, "No such file");
    if (cuda.absent)
        snprintf(cuda.why, sizeof cuda.why, "there is no CUDA plugin (%s) beside this binary", FILE_NAME);
    else
        snprintf(cuda.why, sizeof cuda.why, "the CUDA plugin cannot be opened: %.400s", error ? error : path);
}

skald_status compute_plugin_cuda(const skald_compute_plugin **out) {
    pthread_once(&cuda.once, look);
    *out = cuda.plugin;
    return cuda.plugin ? SKALD_OK : skald_fail(SKALD_EUNSUPPORTED, "%s", cuda.why);
}

bool compute_plugin_absent(void) {
    return cuda.absent;
}
