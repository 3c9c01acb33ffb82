#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/base.h"
#include "cli/cli.h"

skald_status check_listen_address(const char *address, bool insecure) {
    if (insecure || strncmp(address, "unix:", 5) == 0) return SKALD_OK;
    if (!strchr(address, ':'))
        return skald_fail(SKALD_EINVAL, "--listen %s: an address is HOST:PORT or unix:/PATH, e.g. 127.0.0.1:7700",
                          address);
    if (skald_address_is_local(address)) return SKALD_OK;
    return skald_fail(SKALD_EINVAL,
                      "--listen %s: everyone who reaches this address could read and steer the run, in plain text or "
                      "without being asked "
                      "who they are; give --tls-cert and --tls-key with --tls-ca or --token-file, say --insecure if "
                      "the network is trusted, or listen on 127.0.0.1 or unix:/PATH",
                      address);
}

void raise_file_limit(void) {
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) != 0) return;
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
}

skald_status check_output_path(const char *path) {
    struct stat info;
    if (stat(path, &info) == 0 && S_ISDIR(info.st_mode))
        return skald_fail(SKALD_EIO, "%s: is a directory, not a file", path);
    char *folder = strdup(path);
    if (!folder) return skald_fail(SKALD_ENOMEM, "out of memory");
    char *slash = strrchr(folder, '/');
    const char *name = !slash ? "." : slash == folder ? "/" : folder;
    if (slash) *slash = '\0';
    skald_status st = SKALD_OK;
    if (slash == folder) name = "/";
    if (access(name, W_OK | X_OK) != 0)
        st = skald_fail(SKALD_EIO, "%s: cannot write in %s: %s", path, name, strerror(errno));
    free(folder);
    return st;
}

int usable_cores(void) {
    cpu_set_t set;
    int cores = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    return cores > 0 ? cores : 1;
}
