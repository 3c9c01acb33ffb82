#include <stdint.h>

#include "base/base.h"

/* Bytes of the UTF-8 character at p; 0: it is none, or a control character (up to U+009F). */
static unsigned character(const uint8_t *p) {
    if (p[0] < 0x80) return p[0] >= 0x20 && p[0] != 0x7f;
    const unsigned n = p[0] >= 0xf0 && p[0] < 0xf5   ? 4
                       : p[0] >= 0xe0 && p[0] < 0xf0 ? 3
                       : p[0] >= 0xc2 && p[0] < 0xe0 ? 2
                                                     : 0;
    uint32_t code = n ? p[0] & (0x7fu >> n) : 0;
    for (unsigned k = 1; k < n; k++) {
        if ((p[k] & 0xc0) != 0x80) return 0; /* the end of the text too */
        code = code << 6 | (p[k] & 0x3fu);
    }
    static const uint32_t least[] = {0, 0, 0xa0, 0x800, 0x10000};
    return n && code >= least[n] && code <= 0x10ffff && (code < 0xd800 || code > 0xdfff) ? n : 0;
}

void skald_printable(char *text, bool any_bytes) {
    for (uint8_t *p = (uint8_t *)text; *p;) {
        unsigned n = character(p);
        if (!n && any_bytes && *p >= 0x80) n = 1;
        if (!n) *p = '?';
        p += n ? n : 1;
    }
}
