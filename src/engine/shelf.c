#include "engine/shelf.h"

#include <string.h>

bool skald_shelf_name(skald_shelf *s, uint64_t id, skald_version **version) {
    for (uint32_t k = s->count; k-- > 0;) {
        if (s->kept[k].id != id) continue;
        const skald_kept named = s->kept[k];
        memmove(&s->kept[k], &s->kept[k + 1], (s->count - k - 1) * sizeof s->kept[0]);
        s->kept[s->count - 1] = named;
        if (version) *version = named.version;
        return true;
    }
    return false;
}

static void drop_first(skald_shelf *s) {
    skald_version_unref(s->kept[0].version);
    s->bytes -= s->kept[0].bytes;
    memmove(&s->kept[0], &s->kept[1], --s->count * sizeof s->kept[0]);
}

void skald_shelf_put(skald_shelf *s, uint64_t id, uint64_t bytes, skald_version *version) {
    while (s->count && (s->count == SKALD_SHELF_VERSIONS || s->bytes + bytes > s->budget)) drop_first(s);
    s->kept[s->count].id = id;
    s->kept[s->count].bytes = bytes;
    s->kept[s->count++].version = version;
    s->bytes += bytes;
}

void skald_shelf_clear(skald_shelf *s) {
    while (s->count) drop_first(s);
}
