#include "skald/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/base.h"

static _Thread_local char own[1024];

static char *own_buffer(void) {
    return own;
}

static char *(*buffer)(void) = own_buffer;

char *skald_error_buffer(void) {
    return buffer();
}

void skald_error_share(char *(*shared)(void)) {
    buffer = shared;
}

skald_status skald_fail(skald_status status, const char *format, ...) {
    va_list args;
    va_start(args, format);
    char text[sizeof own]; /* the arguments may point into the old message */
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    memcpy(buffer(), text, sizeof text);
    return status;
}

skald_status skald_context(skald_status status, const char *format, ...) {
    char old[sizeof own], text[sizeof own];
    memcpy(old, buffer(), sizeof old);
    va_list args;
    va_start(args, format);
    int used = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (used < 0) used = 0;
    if ((size_t)used > sizeof text - 1) used = (int)sizeof text - 1;
    if (used < (int)sizeof text - 3) {
        memcpy(text + used, ": ", 2);
        size_t room = sizeof text - 3 - (size_t)used, length = strnlen(old, room);
        memcpy(text + used + 2, old, length);
        text[used + 2 + (int)length] = '\0';
    }
    memcpy(buffer(), text, sizeof text);
    return status;
}

const char *skald_error(void) {
    return buffer();
}

const char *skald_status_name(skald_status status) {
    switch (status) {
    case SKALD_OK:
        return "ok";
    case SKALD_EINVAL:
        return "invalid argument";
    case SKALD_EDATA:
        return "bad data";
    case SKALD_EMODEL:
        return "bad model";
    case SKALD_ENOMEM:
        return "out of memory";
    case SKALD_EIO:
        return "input/output";
    case SKALD_EADDRINUSE:
        return "address in use";
    case SKALD_EUNAVAILABLE:
        return "unavailable";
    case SKALD_ETIMEOUT:
        return "timeout";
    case SKALD_EUNSUPPORTED:
        return "unsupported";
    case SKALD_EPEER:
        return "protocol error";
    case SKALD_EVERSION:
        return "version mismatch";
    case SKALD_EREFUSED:
        return "refused";
    case SKALD_ELOST:
        return "peer lost";
    case SKALD_ETOOBIG:
        return "message too large";
    case SKALD_ENUMERIC:
        return "not finite";
    case SKALD_EDIVERGED:
        return "diverged";
    case SKALD_AGAIN:
        return "nothing yet";
    case SKALD_INTERRUPTED:
        return "interrupted";
    case SKALD_EINTERNAL:
        return "internal error";
    }
    return "unknown";
}
