// Operations of a warp: they happen when every lane in the mask has arrived.
#include "state.h"

// Does the operation for all lanes in the mask: what each gets is fixed now, so that no lane sees the next one's
// values.
static void complete(unsigned base, unsigned mask, enum skald_emulated_warp_op op) {
    struct warp *warp = warp_of(base);
    uint64_t ballot = 0;
    if (op == SKALD_EMULATED_SYNCWARP) return;
    if (op == SKALD_EMULATED_BALLOT)
        for (unsigned i = 0; i < SKALD_EMULATED_WARP; i++)
            if (mask >> i & 1 && warp->value[i]) ballot |= 1u << i;
    for (unsigned i = 0; i < SKALD_EMULATED_WARP; i++) {
        if (!(mask >> i & 1)) continue;
        if (op == SKALD_EMULATED_SHUFFLE) {
            unsigned source = warp->source[i];
            if (!(mask >> source & 1))
                skald_emulated_fail("a shuffle reads lane %u, which is not in its mask %08x (line %d)", source, mask,
                                    engine.pool->lanes[base + i].line);
            warp->result[i] = warp->value[source];
        } else {
            warp->result[i] = ballot;
        }
    }
}

uint64_t skald_emulated_warp(enum skald_emulated_warp_op op, unsigned mask, uint64_t value, unsigned source,
                             const char *file, int line) {
    unsigned self = engine.current % SKALD_EMULATED_WARP, base = engine.current - self;
    struct warp *warp = warp_of(engine.current);
    struct lane *lanes = &engine.pool->lanes[base], *lane = &lanes[self];
    if (!(mask >> self & 1))
        skald_emulated_fail("the mask %08x lacks the lane itself, %u, at line %d", mask, self, line);
    // lanes a short last warp does not have count as returned
    unsigned gone = warp->exited | ~warp->lanes;
    if (mask & gone)
        skald_emulated_fail(
            "the mask %08x names a lane that does not take part: it has returned or does not exist (%08x), at line %d",
            mask, mask & gone, line);
    lane->op = op;
    lane->mask = mask;
    lane->line = line;
    warp->value[self] = value;
    warp->source[self] = (unsigned char)source;
    lane->order = NULL;
    // Not all here yet: nothing to compare, but what orders memory.
    int missing = (mask & ~(warp->waiting | 1u << self)) != 0;
    for (unsigned i = 0; i < SKALD_EMULATED_WARP && (!missing || op == SKALD_EMULATED_SYNCWARP); i++) {
        if (!(mask >> i & 1) || i == self) continue;
        const struct lane *with = &lanes[i];
        if (!(warp->waiting >> i & 1) || with->mask != mask || with->op != op)
            missing = 1;
        else if (with->order)
            lane->order = with->order;
    }
    // Only __syncwarp orders memory; shuffles and votes do not.
    if (op == SKALD_EMULATED_SYNCWARP) {
        if (!lane->order) lane->order = &warp->objects[warp->next_object++ % SYNC_OBJECTS];
        sanitizer_release(lane->order);
    }
    if (missing) {
        warp->waiting |= 1u << self;
        lane_wait(LANE_WARP, file, line);
    } else {
        complete(base, mask, op);
        warp->waiting &= ~mask;
        warp->ready |= mask;
    }
    if (op == SKALD_EMULATED_SYNCWARP) sanitizer_acquire(lane->order);
    return warp->result[self];
}
