/* Field 2047 of a Frame, a Goodbye: {1: status, 2: reason}. The server reads it off the wire before any decoder. */
#include <string.h>

#include "base/base.h"
#include "net/grpc_stream.h"

#define TAG0 0xfau /* 2047 << 3 | 2, as a varint */
#define TAG1 0x7fu

static size_t put(uint8_t *p, size_t v) {
    size_t n = 0;
    for (; v >= 0x80; v >>= 7) p[n++] = (uint8_t)(v | 0x80);
    p[n++] = (uint8_t)v;
    return n;
}

/* Values here are below 2^14; false for anything longer. */
static bool get(const uint8_t **p, const uint8_t *end, size_t *v) {
    *v = 0;
    for (unsigned shift = 0; shift < 14 && *p < end; shift += 7) {
        uint8_t byte = *(*p)++;
        *v |= (size_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80)) return true;
    }
    return false;
}

size_t net_notice_write(uint8_t out[NET_NOTICE_BYTES], skald_status code, const char *reason) {
    uint8_t inner[NET_NOTICE_BYTES], *p = inner;
    size_t length = strnlen(reason, NET_REASON_BYTES - 1);
    *p++ = 1 << 3;
    p += put(p, (size_t)code);
    *p++ = 2 << 3 | 2;
    p += put(p, length);
    memcpy(p, reason, length);
    p += length;
    size_t bytes = (size_t)(p - inner), n = 2;
    out[0] = TAG0;
    out[1] = TAG1;
    n += put(out + n, bytes);
    memcpy(out + n, inner, bytes);
    return n + bytes;
}

bool net_notice_read(const skald_frame *frame, skald_status *code, char reason[NET_REASON_BYTES]) {
    uint8_t bytes[NET_NOTICE_BYTES];
    size_t size = 0, number = 0, length = 0, inner = 0;
    if (frame->size < 2 || frame->size > sizeof bytes) return false;
    for (size_t k = 0; k < frame->count; k++) {
        if (frame->segments[k].size) memcpy(bytes + size, frame->segments[k].data, frame->segments[k].size);
        size += frame->segments[k].size;
    }
    const uint8_t *p = bytes + 2, *end = bytes + size;
    if (bytes[0] != TAG0 || bytes[1] != TAG1 || !get(&p, end, &inner) || inner != (size_t)(end - p)) return false;
    *code = SKALD_OK;
    reason[0] = '\0';
    while (p < end) {
        uint8_t tag = *p++;
        if (tag == (1 << 3) && get(&p, end, &number)) {
            *code = (skald_status)number;
        } else if (tag == (2 << 3 | 2) && get(&p, end, &length) && length < NET_REASON_BYTES &&
                   length <= (size_t)(end - p)) {
            memcpy(reason, p, length);
            reason[length] = '\0';
            skald_printable(reason, false);
            p += length;
        } else {
            return false;
        }
    }
    return true;
}
