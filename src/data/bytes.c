#include "data/bytes.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <lzma.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

enum { PADDING = 64, XZ_MEMORY = 1 << 30 }; /* XZ_MEMORY: xz -9 needs 65 MB; a header may ask for 4 GB */

static const struct {
    const char *magic;
    size_t length;
    bytes_kind kind;
    const char *refused; /* a format we only know by name */
} formats[] = {
    {"\x1f\x8b", 2, BYTES_GZIP, NULL},
    {"\xfd"
     "7zXZ",
     6, BYTES_XZ, NULL},
    {"\x89HDF\r\n\x1a\n", 8, BYTES_HDF5, NULL},
    {"BZh", 3, BYTES_PLAIN, "bzip2"},
    {"\x28\xb5\x2f\xfd", 4, BYTES_PLAIN, "zstd"},
    {"PK\x03\x04", 4, BYTES_PLAIN, "zip"},
};

/* ---- growing output of the decompressors ---------------------------------------------------------- */

typedef struct sink {
    uint8_t *data;
    size_t size, capacity;
} sink;

/* Room for at least a megabyte more, beside the padding. */
static skald_status sink_reserve(sink *s, const char *path) {
    const size_t room = 1u << 20;
    if (s->capacity - s->size >= room + PADDING && s->data) return SKALD_OK;
    size_t capacity = s->capacity ? 2 * s->capacity : 16 * room;
    size_t memory = (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE);
    uint8_t *data = capacity <= memory ? realloc(s->data, capacity) : NULL;
    if (!data)
        return skald_fail(SKALD_ENOMEM, "%s: decompressed, it needs more than %zu MB of memory; decompress it on disk",
                          path, capacity >> 20);
    s->data = data;
    s->capacity = capacity;
    return SKALD_OK;
}

static skald_status inflate_gzip(const char *path, const uint8_t *in, size_t size, sink *out) {
    z_stream z = {0};
    if (inflateInit2(&z, 15 + 16) != Z_OK) return skald_fail(SKALD_ENOMEM, "%s: zlib does not start", path);
    skald_status st = SKALD_OK;
    size_t done = 0; /* input handed to zlib: its counters are 32 bits */
    for (;;) {
        TRY_GOTO(st, sink_reserve(out, path), end);
        if (z.avail_in == 0) {
            z.next_in = (Bytef *)(uintptr_t)(in + done);
            z.avail_in = size - done > INT_MAX ? INT_MAX : (uInt)(size - done);
            done += z.avail_in;
        }
        size_t room = out->capacity - out->size - PADDING;
        if (room > INT_MAX) room = INT_MAX;
        z.next_out = out->data + out->size;
        z.avail_out = (uInt)room;
        int rc = inflate(&z, Z_NO_FLUSH);
        out->size += room - z.avail_out;
        if (rc == Z_STREAM_END) { /* end of a member; another may follow */
            size_t at = done - z.avail_in;
            while (at < size && in[at] == 0) at++; /* padding to a tape block, as gzip accepts */
            if (at == size) break;
            done = at;
            z.avail_in = 0;
            if (in[at] != 0x1f || inflateReset(&z) != Z_OK) {
                st = skald_fail(SKALD_EDATA, "%s: gzip: bytes that are no gzip member follow at byte %zu", path, at);
                break;
            }
        } else if (rc == Z_BUF_ERROR || (rc == Z_OK && z.avail_in == 0 && done == size && z.avail_out > 0)) {
            st = skald_fail(SKALD_EDATA, "%s: gzip: the data ends early (truncated?)", path);
            break;
        } else if (rc != Z_OK) {
            st = skald_fail(SKALD_EDATA, "%s: gzip: damaged near byte %zu (%s)", path, done - z.avail_in,
                            z.msg ? z.msg : "bad data");
            break;
        }
    }
end:
    inflateEnd(&z);
    return st;
}

static skald_status decode_xz(const char *path, const uint8_t *in, size_t size, sink *out) {
    lzma_stream z = LZMA_STREAM_INIT;
    if (lzma_stream_decoder(&z, XZ_MEMORY, LZMA_CONCATENATED) != LZMA_OK)
        return skald_fail(SKALD_ENOMEM, "%s: liblzma does not start", path);
    skald_status st = SKALD_OK;
    z.next_in = in;
    z.avail_in = size;
    for (;;) {
        TRY_GOTO(st, sink_reserve(out, path), end);
        size_t room = out->capacity - out->size - PADDING;
        z.next_out = out->data + out->size;
        z.avail_out = room;
        lzma_ret rc = lzma_code(&z, LZMA_FINISH);
        out->size += room - z.avail_out;
        if (rc == LZMA_STREAM_END) break;
        if (rc == LZMA_OK) continue;
        if (rc == LZMA_MEMLIMIT_ERROR)
            st = skald_fail(SKALD_EDATA, "%s: xz: decompressing it would need more than %u MB beside the data", path,
                            (unsigned)(XZ_MEMORY >> 20));
        else if (rc == LZMA_MEM_ERROR)
            st = skald_fail(SKALD_ENOMEM, "%s: xz: out of memory", path);
        else if (rc == LZMA_BUF_ERROR)
            st = skald_fail(SKALD_EDATA, "%s: xz: the data ends early (truncated?)", path);
        else
            st = skald_fail(SKALD_EDATA, "%s: xz: damaged near byte %zu", path, size - z.avail_in);
        break;
    }
end:
    lzma_end(&z);
    return st;
}

/* ---- mapping -------------------------------------------------------------------------------------- */

/* Maps the file over the start of a longer anonymous mapping, so that the bytes behind its end are zeros even
 * when it fills its last page. */
static skald_status map_file(const char *path, data_bytes *b) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    b->mapped = (b->size + page - 1) / page * page + page;
    char *base = mmap(NULL, b->mapped, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED) return skald_fail(SKALD_ENOMEM, "%s: cannot map %zu bytes", path, b->mapped);
    if (mmap(base, b->size, PROT_READ, MAP_PRIVATE | MAP_FIXED, b->fd, 0) == MAP_FAILED) {
        int err = errno;
        munmap(base, b->mapped);
        return skald_fail(SKALD_EIO, "%s: cannot map the file: %s", path, strerror(err));
    }
    b->data = base;
    return SKALD_OK;
}

skald_status bytes_open(const char *path, data_bytes *out) {
    skald_status st = SKALD_OK;
    *out = (data_bytes){.fd = -1};
    data_bytes b = {.fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)}; /* NONBLOCK: a fifo must not hang us */
    if (b.fd < 0) return skald_fail(SKALD_EIO, "%s: cannot open: %s", path, strerror(errno));
    struct stat info;
    char head[16] = {0};
    if (fstat(b.fd, &info) != 0) {
        st = skald_fail(SKALD_EIO, "%s: %s", path, strerror(errno));
        goto fail;
    }
    if (!S_ISREG(info.st_mode)) {
        st = skald_fail(SKALD_EDATA, "%s: is %s, not a file", path,
                        S_ISDIR(info.st_mode) ? "a directory" : "a pipe or device");
        goto fail;
    }
    b.size = (size_t)info.st_size;
    if (b.size == 0) {
        st = skald_fail(SKALD_EDATA, "%s: the file is empty", path);
        goto fail;
    }
    if (pread(b.fd, head, sizeof head, 0) < 0) {
        st = skald_fail(SKALD_EIO, "%s: cannot read: %s", path, strerror(errno));
        goto fail;
    }
    for (size_t k = 0; k < sizeof formats / sizeof formats[0]; k++) {
        if (memcmp(head, formats[k].magic, formats[k].length) != 0) continue;
        if (formats[k].refused) {
            st =
                skald_fail(SKALD_EDATA, "%s: compressed with %s; use .gz, .xz or plain text", path, formats[k].refused);
            goto fail;
        }
        b.kind = formats[k].kind;
    }
    if (b.kind == BYTES_HDF5) {
        close(b.fd);
        b.fd = -1;
        *out = b;
        return SKALD_OK;
    }
    TRY_GOTO(st, map_file(path, &b), fail);
    if (b.kind != BYTES_PLAIN) {
        sink s = {0};
        madvise((void *)(uintptr_t)b.data, b.size, MADV_SEQUENTIAL);
        const uint8_t *in = (const uint8_t *)b.data;
        st = b.kind == BYTES_GZIP ? inflate_gzip(path, in, b.size, &s) : decode_xz(path, in, b.size, &s);
        if (st == SKALD_OK && s.size == 0) st = skald_fail(SKALD_EDATA, "%s: the file is empty, decompressed", path);
        munmap((void *)(uintptr_t)b.data, b.mapped);
        close(b.fd);
        if (st != SKALD_OK) {
            free(s.data);
            return st;
        }
        memset(s.data + s.size, 0, PADDING);
        b = (data_bytes){.data = (char *)s.data, .size = s.size, .kind = b.kind, .fd = -1};
    }
    *out = b;
    return SKALD_OK;
fail:
    close(b.fd);
    return st;
}

void bytes_close(data_bytes *bytes) {
    if (bytes->mapped)
        munmap((void *)(uintptr_t)bytes->data, bytes->mapped);
    else
        free((void *)(uintptr_t)bytes->data);
    if (bytes->fd >= 0) close(bytes->fd);
    *bytes = (data_bytes){.fd = -1};
}

skald_status bytes_check(const data_bytes *bytes, const char *path) {
    struct stat info;
    if (bytes->fd < 0) return SKALD_OK;
    if (fstat(bytes->fd, &info) != 0) return skald_fail(SKALD_EIO, "%s: %s", path, strerror(errno));
    if ((size_t)info.st_size < bytes->size)
        return skald_fail(SKALD_EIO, "%s: has shrunk from %zu to %zu bytes since it was opened", path, bytes->size,
                          (size_t)info.st_size);
    return SKALD_OK;
}
