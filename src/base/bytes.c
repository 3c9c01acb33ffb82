#include "skald/bytes.h"

skald_bytes *skald_bytes_ref(skald_bytes *b) {
    if (b) __atomic_fetch_add(&b->refs, 1, __ATOMIC_RELAXED);
    return b;
}

void skald_bytes_unref(skald_bytes *b) {
    if (b && __atomic_sub_fetch(&b->refs, 1, __ATOMIC_ACQ_REL) == 0) b->release(b);
}
