#include "skald/storage.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static int write_all(int fd, const uint8_t *p, size_t size) {
    while (size > 0) {
        ssize_t n = write(fd, p, size);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return errno;
        p += n;
        size -= (size_t)n;
    }
    return 0;
}

static int sync_directory(const char *path) {
    char *copy = strdup(path), *slash = copy ? strrchr(copy, '/') : NULL;
    if (!copy) return ENOMEM;
    if (slash) slash[slash == copy] = 0;
    int fd = open(slash ? copy : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), err = 0;
    free(copy);
    if (fd < 0) return errno;
    if (fsync(fd) != 0 && errno != EINVAL && errno != EROFS) err = errno; /* not every file system can */
    close(fd);
    return err;
}

static skald_status write_device(const char *path, const void *bytes, size_t size) {
    int fd = open(path, O_WRONLY | O_CLOEXEC), err = fd < 0 ? errno : write_all(fd, bytes, size);
    if (fd >= 0 && close(fd) != 0 && !err) err = errno;
    return err ? skald_fail(SKALD_EIO, "%s: cannot write: %s", path, strerror(err)) : SKALD_OK;
}

static skald_status posix_write(skald_storage *self, const char *path, const void *bytes, size_t size) {
    struct stat info;
    int there = stat(path, &info) == 0;
    if (there && S_ISDIR(info.st_mode)) return skald_fail(SKALD_EIO, "%s: is a directory", path);
    if (there && !S_ISREG(info.st_mode)) return write_device(path, bytes, size);
    char *target = there ? realpath(path, NULL) : strdup(path); /* a link stays one */
    char *tmp = NULL;
    int fd = -1, err = 0;
    skald_status st = SKALD_OK;
    if (!target) return skald_fail(SKALD_ENOMEM, "%s: out of memory", path);
    for (int attempt = 0; fd < 0 && attempt < 100; attempt++) {
        free(tmp);
        if (asprintf(&tmp, "%s.%d-%d.tmp", target, (int)getpid(), attempt) < 0) {
            free(target);
            return skald_fail(SKALD_ENOMEM, "%s: out of memory", path);
        }
        fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (fd < 0 && errno != EEXIST) break;
    }
    if (fd < 0) {
        st = skald_fail(SKALD_EIO, "%s: cannot create a file beside it: %s", path, strerror(errno));
        goto end;
    }
    err = write_all(fd, bytes, size);
    if (!err && there && fchmod(fd, info.st_mode & 07777) != 0) err = errno;
    if (!err && fsync(fd) != 0) err = errno;
    if (close(fd) != 0 && !err) err = errno;
    if (!err && rename(tmp, target) != 0) err = errno;
    if (err) {
        unlink(tmp);
        st = skald_fail(SKALD_EIO, "%s: cannot write %zu bytes: %s%s", path, size, strerror(err),
                        there ? "; the old file is as it was" : "");
        goto end;
    }
    err = sync_directory(target);
    if (err) st = skald_fail(SKALD_EIO, "%s: written, but its directory cannot be synced: %s", path, strerror(err));
end:
    free(tmp);
    free(target);
    return st;
}

/* `path` under both names, or, where there are no hard links, under the second. */
static int keep(const char *path, const char *previous) {
    char *tmp = NULL;
    int err = 0;
    if (asprintf(&tmp, "%s.tmp", previous) < 0) return ENOMEM;
    unlink(tmp);
    if (link(path, tmp) != 0)
        err = errno == ENOENT ? 0 : rename(path, previous) != 0 ? errno : 0;
    else if (rename(tmp, previous) != 0)
        err = errno;
    unlink(tmp); /* also when both were names of the same file already: rename does nothing then */
    free(tmp);
    return err;
}

/* The temporary file has one name, so that those of writers that were killed do not pile up. */
static skald_status posix_write_keeping(skald_storage *self, const char *path, const char *previous, const void *bytes,
                                        size_t size) {
    struct stat info;
    char *tmp = NULL;
    skald_status st = SKALD_OK;
    if (stat(path, &info) == 0 && !S_ISREG(info.st_mode))
        return skald_fail(SKALD_EIO, "%s: is not a regular file", path);
    if (asprintf(&tmp, "%s.tmp", path) < 0) return skald_fail(SKALD_ENOMEM, "%s: out of memory", path);
    int fd = open(tmp, O_WRONLY | O_CREAT | O_CLOEXEC, 0666), err = fd < 0 ? errno : 0;
    if (fd < 0) {
        st = skald_fail(SKALD_EIO, "%s: cannot create a file beside it: %s", path, strerror(err));
        goto end;
    }
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        st = skald_fail(SKALD_EIO, "%s: another process is writing it", path);
        close(fd);
        goto end;
    }
    if (ftruncate(fd, 0) != 0) err = errno;
    if (!err) err = write_all(fd, bytes, size);
    if (!err && fsync(fd) != 0) err = errno;
    if (!err) err = keep(path, previous);
    if (!err && rename(tmp, path) != 0) err = errno;
    if (err) {
        unlink(tmp);
        st = skald_fail(SKALD_EIO, "%s: cannot write %zu bytes: %s", path, size, strerror(err));
    }
    close(fd);
    if (!err && (err = sync_directory(path)) != 0)
        st = skald_fail(SKALD_EIO, "%s: written, but its directory cannot be synced: %s", path, strerror(err));
end:
    free(tmp);
    return st;
}

static skald_status posix_read(skald_storage *self, const char *path, uint8_t **bytes, size_t *size) {
    struct stat info;
    uint8_t *data = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return skald_fail(SKALD_EIO, "%s: cannot open: %s", path, strerror(errno));
    skald_status st = SKALD_OK;
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
        st = skald_fail(SKALD_EIO, "%s: is not a regular file", path);
        goto end;
    }
    size_t want = (size_t)info.st_size, have = 0;
    data = malloc(want ? want : 1);
    if (!data) {
        st = skald_fail(SKALD_ENOMEM, "%s: out of memory for %zu bytes", path, want);
        goto end;
    }
    while (have < want) {
        ssize_t n = read(fd, data + have, want - have);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) {
            st = skald_fail(SKALD_EIO, "%s: cannot read: %s", path, n < 0 ? strerror(errno) : "it ends early");
            goto end;
        }
        have += (size_t)n;
    }
    *bytes = data;
    *size = want;
    data = NULL;
end:
    free(data);
    close(fd);
    return st;
}

skald_storage *skald_storage_posix(void) {
    static skald_storage storage = {posix_write, posix_read, posix_write_keeping};
    return &storage;
}
