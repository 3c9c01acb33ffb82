#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "base/base.h"

/* A name that only looks like such a number ("127.0.0.1.example.org") may lead anywhere. */
bool skald_host_is_loopback(const char *host) {
    struct in_addr four;
    struct in6_addr six;
    if (strcmp(host, "localhost") == 0) return true;
    if (inet_pton(AF_INET, host, &four) == 1) return ntohl(four.s_addr) >> 24 == 127;
    return inet_pton(AF_INET6, host, &six) == 1 && IN6_IS_ADDR_LOOPBACK(&six);
}

bool skald_address_is_local(const char *address) {
    char host[64];
    const char *colon = strrchr(address, ':');
    if (strncmp(address, "unix:", 5) == 0) return true;
    size_t length = colon ? (size_t)(colon - address) : strlen(address);
    if (length > 2 && address[0] == '[' && address[length - 1] == ']') address++, length -= 2;
    if (length >= sizeof host) return false;
    snprintf(host, sizeof host, "%.*s", (int)length, address);
    return skald_host_is_loopback(host);
}
