/* Addresses, and finding out by hand why one cannot be listened on: the C core only says that it cannot. */
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "net/grpc_common.h"

static const char *unix_path(const char *address) {
    return strncmp(address, "unix:", 5) == 0 ? address + 5 : NULL;
}

/* Splits "host:port" or "[v6]:port"; false when it is neither. */
static bool split(const char *address, char host[256], char port[8]) {
    const char *colon = strrchr(address, ':');
    if (!colon || colon == address) return false;
    const char *from = address, *to = colon;
    if (*from == '[' && to[-1] == ']') {
        from++;
        to--;
    } else if (memchr(from, ':', (size_t)(to - from))) {
        return false;
    }
    size_t host_bytes = (size_t)(to - from), port_bytes = strlen(colon + 1);
    if (host_bytes == 0 || host_bytes > 255 || port_bytes == 0 || port_bytes > 5) return false;
    if (strspn(colon + 1, "0123456789") != port_bytes || atoi(colon + 1) > 65535) return false;
    memcpy(host, from, host_bytes);
    host[host_bytes] = '\0';
    memcpy(port, colon + 1, port_bytes + 1);
    return true;
}

skald_status net_address_check(const char *address) {
    char host[256], port[8];
    const char *path = unix_path(address);
    if (path) {
        if (*path == '\0' || strlen(path) >= sizeof((struct sockaddr_un *)0)->sun_path)
            return skald_fail(SKALD_EINVAL, "address '%s': the path must have 1 to %zu characters", address,
                              sizeof((struct sockaddr_un *)0)->sun_path - 1);
        return SKALD_OK;
    }
    if (!split(address, host, port))
        return skald_fail(SKALD_EINVAL, "address '%s': expected host:port, [ipv6]:port or unix:/path", address);
    return SKALD_OK;
}

skald_status net_address_prepare(const char *address) {
    const char *path = unix_path(address);
    struct stat about;
    if (!path || lstat(path, &about) != 0) return SKALD_OK;
    if (!S_ISSOCK(about.st_mode))
        return skald_fail(SKALD_EADDRINUSE, "cannot listen on %s: a file that is no socket is there", address);
    struct sockaddr_un where = {.sun_family = AF_UNIX};
    memcpy(where.sun_path, path, strlen(path) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return skald_fail(SKALD_EIO, "cannot make a socket: %s", strerror(errno));
    /* Only a refused connection says that nobody listens: a full backlog (EAGAIN) does not. */
    int error = connect(fd, (struct sockaddr *)&where, sizeof where) == 0 ? 0 : errno;
    close(fd);
    if (error != ECONNREFUSED)
        return skald_fail(SKALD_EADDRINUSE, "cannot listen on %s: somebody listens there already", address);
    if (unlink(path) != 0 && errno != ENOENT)
        return skald_fail(SKALD_EIO, "cannot remove the stale socket %s: %s", path, strerror(errno));
    return SKALD_OK;
}

/* errno of binding and listening, 0 when it works. */
static int try_listen(const struct sockaddr *where, socklen_t size, int family) {
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    if (fd < 0) return errno;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    int error = bind(fd, where, size) == 0 && listen(fd, 1) == 0 ? 0 : errno;
    close(fd);
    return error;
}

static skald_status say(const char *address, int error) {
    if (error == EADDRINUSE)
        return skald_fail(SKALD_EADDRINUSE,
                          "cannot listen on %s: the address is in use; take another (port 0: any free one)", address);
    return skald_fail(SKALD_EIO, "cannot listen on %s: %s", address, error ? strerror(error) : "gRPC gives no reason");
}

/* 0 when it could be listened on, else errno; *resolver: what getaddrinfo says, 0 mostly. */
static int why_not(const char *address, int *resolver) {
    const char *path = unix_path(address);
    *resolver = 0;
    if (path) {
        struct sockaddr_un where = {.sun_family = AF_UNIX};
        memcpy(where.sun_path, path, strlen(path) + 1);
        int error = try_listen((struct sockaddr *)&where, sizeof where, AF_UNIX);
        if (error == 0) unlink(path);
        return error;
    }
    char host[256], port[8];
    if (!split(address, host, port)) return EINVAL;
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *found = NULL;
    *resolver = getaddrinfo(host, port, &hints, &found);
    if (*resolver) return EINVAL;
    int error = 0;
    for (struct addrinfo *a = found; a && !error; a = a->ai_next)
        error = try_listen(a->ai_addr, a->ai_addrlen, a->ai_family);
    freeaddrinfo(found);
    return error;
}

bool net_address_free(const char *address) {
    int resolver;
    return why_not(address, &resolver) == 0;
}

skald_status net_address_diagnose(const char *address) {
    TRY(net_address_check(address));
    int resolver, error = why_not(address, &resolver);
    if (resolver) return skald_fail(SKALD_EIO, "cannot listen on %s: %s", address, gai_strerror(resolver));
    return say(address, error);
}
