/* What the fuzz targets of the two ends of a session share: a net that brings the input's frames and takes what is
 * answered. The input is frames, each after its length in two bytes. */
#ifndef SKALD_FUZZ_SESSION_H
#define SKALD_FUZZ_SESSION_H

#include <string.h>

#include "fuzz_file.h"
#include "net/session.h"

#define FUZZ_FRAMES 256

/* Four rows; every target trains on them. */
static inline const char *fuzz_rows(void) {
    static const char rows[] = "1 1:0.5 3:1.5\n-1 2:0.25 3:-1\n1 1:1 2:2\n-1 1:-1 3:2\n";
    static char path[64];
    if (!path[0]) snprintf(path, sizeof path, "%s", fuzz_file((const uint8_t *)rows, sizeof rows - 1));
    return path;
}

static skald_status fuzz_send(skald_net_session *session, const skald_segment *segments, size_t count) {
    return SKALD_OK;
}
static size_t fuzz_pending(const skald_net_session *session) {
    return 0;
}
static void fuzz_close(skald_net_session *session, skald_status code, const char *reason) {}
static void fuzz_destroy(skald_net_session *session) {
    free(session);
}

static inline skald_net_session *fuzz_session(void) {
    static const net_session_ops ops = {fuzz_send, fuzz_pending, fuzz_close, fuzz_destroy};
    skald_net_session *s = calloc(1, sizeof *s);
    if (!s) abort();
    net_session_init(s, &ops);
    return s;
}

typedef struct fuzz_frame {
    skald_frame base; /* first */
    skald_segment segment;
    uint8_t bytes[]; /* an allocation of its own: to read past a frame is to be found out */
} fuzz_frame;

static unsigned fuzz_left; /* frames that nobody has looked at yet */

static void fuzz_release(skald_frame *frame) {
    fuzz_left--;
    free(frame);
}

static inline void fuzz_bring(const uint8_t *data, size_t size, const skald_net_handlers *h, void *user,
                              skald_net_session *session) {
    for (int k = 0; k < FUZZ_FRAMES && size >= 2; k++) {
        size_t length = (size_t)data[0] | (size_t)data[1] << 8;
        if (length > size - 2) length = size - 2;
        fuzz_frame *f = malloc(sizeof *f + length);
        if (!f) abort();
        memcpy(f->bytes, data + 2, length);
        f->segment = (skald_segment){NULL, f->bytes, length};
        f->base = (skald_frame){&f->segment, 1, length, NULL, fuzz_release};
        fuzz_left++;
        h->on_frame(user, session, &f->base);
        data += 2 + length;
        size -= 2 + length;
    }
}

#endif
