// Runs the blocks of a launch. A warp runs ahead until it can go no further, and a lane until it waits: real warps may
// do that, and a fair round robin would hide missing barriers.
#include "state.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct skald_emulated_place skald_emulated_place;
struct engine engine;

static struct pool *pools[2];
static enum skald_emulated_order order;
static uint64_t order_state;
static unsigned race_launches = 4;

uint64_t random_next(uint64_t *state) {
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

void skald_emulated_engine_order(enum skald_emulated_order next, uint64_t seed) {
    order = next;
    order_state = seed;
}

void skald_emulated_engine_races(unsigned launches) {
    race_launches = launches;
}

const struct skald_emulated_kernel *skald_emulated_engine_running(void) {
    return engine.kernel;
}

int skald_emulated_engine_stack_overflow(const void *address) {
    if (!engine.kernel || !engine.pool) return 0;
    return fiber_guards(&lane_current()->fiber, address);
}

void skald_emulated_fail(const char *format, ...) {
    va_list list;
    fputs("skald emulated device: ", stderr);
    if (engine.kernel) fprintf(stderr, "kernel %s, block %u", engine.kernel->name, engine.block);
    if (engine.kernel && engine.in_fiber) fprintf(stderr, ", thread %u", engine.current);
    if (engine.kernel) fputs(": ", stderr);
    va_start(list, format);
    vfprintf(stderr, format, list);
    va_end(list);
    fputc('\n', stderr);
    abort();
}

void skald_emulated_fence(void) {
    engine.fenced = 1;
}

void skald_emulated_atomic(void *address) {
    // An integer atomic publishes what was written before a fence and sees what others published: the last-block
    // pattern. Without a fence TSan reports the reads of the last block.
    sanitizer_acquire(address);
    if (engine.fenced) sanitizer_release(address);
}

// The next lane of the warp that runs, which takes its lanes round by round; -1: none can go on, or a barrier opened.
static int next_lane(void) {
    const struct warp *warp = &engine.pool->warps[engine.warp];
    if (engine.rescan) return -1;
    while (warp->ready) {
        if (order == SKALD_EMULATED_FORWARD) {
            unsigned left = engine.turn < SKALD_EMULATED_WARP ? warp->ready >> engine.turn << engine.turn : 0;
            unsigned lane = (unsigned)__builtin_ctz(left ? left : warp->ready);
            engine.turn = lane + 1;
            return (int)lane;
        }
        unsigned count = (unsigned)__builtin_popcount(warp->lanes);
        while (engine.turn < count) {
            unsigned lane = (engine.start + engine.turn++) % count;
            if (engine.down) lane = count - 1 - lane;
            if (warp->ready >> lane & 1) return (int)lane;
        }
        engine.turn = 0;
        engine.start = order == SKALD_EMULATED_RANDOM ? (unsigned)(random_next(&order_state) % count) : 0;
        engine.down = order == SKALD_EMULATED_REVERSE || (engine.start & 1);
    }
    return -1;
}

// To the next lane of the warp, or back to the engine when there is none.
static void run_on(struct fiber *from) {
    int lane = next_lane();
    engine.in_fiber = lane >= 0;
    if (lane < 0) {
        if (from != &engine.host) fiber_switch(from, &engine.host);
        return;
    }
    engine.current = engine.warp * SKALD_EMULATED_WARP + (unsigned)lane;
    skald_emulated_place.thread.x = engine.current;
    struct fiber *to = &lane_current()->fiber;
    if (to != from) fiber_switch(from, to);
}

void lane_wait(enum lane_state state, const char *file, int line) {
    struct lane *lane = lane_current();
    lane->state = state;
    lane->file = file;
    lane->line = line;
    warp_of(engine.current)->ready &= ~(1u << engine.current % SKALD_EMULATED_WARP);
    run_on(&lane->fiber);
}

void lane_wake(unsigned thread) {
    warp_of(thread)->ready |= 1u << thread % SKALD_EMULATED_WARP;
}

static const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

const char *lane_describe(unsigned thread, char *text, size_t bytes) {
    static const char *const ops[] = {"__syncwarp", "a shuffle", "a vote"};
    const struct lane *lane = &engine.pool->lanes[thread];
    if (warp_of(thread)->ready >> thread % SKALD_EMULATED_WARP & 1) {
        snprintf(text, bytes, "thread %u could run", thread);
        return text;
    }
    switch (lane->state) {
    case LANE_EXITED:
        snprintf(text, bytes, "thread %u has returned", thread);
        break;
    case LANE_WARP:
        snprintf(text, bytes, "thread %u is at %s of lanes %08x at %s:%d", thread, ops[lane->op], lane->mask,
                 base_name(lane->file), lane->line);
        break;
    case LANE_BARRIER:
        snprintf(text, bytes, "thread %u is at __syncthreads at %s:%d", thread, base_name(lane->file), lane->line);
        break;
    case LANE_BULK:
        snprintf(text, bytes, "thread %u waits for a bulk copy at %s:%d", thread, base_name(lane->file), lane->line);
        break;
    }
    return text;
}

static void lane_main(void *argument) {
    unsigned thread = (unsigned)(uintptr_t)argument;
    for (;;) {
        struct pool *pool = engine.pool;
        sanitizer_acquire(&pool->order);
        engine.kernel->call(engine.kernel->arguments);
        sanitizer_release(&pool->order);
        struct warp *warp = warp_of(thread);
        warp->exited |= 1u << (thread % SKALD_EMULATED_WARP);
        engine.exited++;
        lane_wait(LANE_EXITED, NULL, 0);
    }
}

void skald_emulated_barrier(const char *file, int line) {
    if (engine.waiting == 0) engine.first_at_barrier = engine.current;
    const struct lane *first = &engine.pool->lanes[engine.first_at_barrier];
    if (engine.waiting > 0 && (first->line != line || (first->file != file && strcmp(first->file, file)))) {
        char text[200];
        skald_emulated_fail("divergent __syncthreads: this one is at %s:%d, but %s", base_name(file), line,
                            lane_describe(engine.first_at_barrier, text, sizeof text));
    }
    void *object = &engine.pool->barriers[engine.barrier_count % 2];
    sanitizer_release(object);
    if (++engine.waiting == engine.kernel->block) {
        engine.waiting = 0;
        engine.barrier_count++;
        for (unsigned i = 0; i < engine.kernel->block; i += SKALD_EMULATED_WARP) warp_of(i)->ready = warp_of(i)->lanes;
        // goes back to the engine too, which begins again with the first warp
        engine.rescan = 1;
        run_on(&lane_current()->fiber);
    } else {
        lane_wait(LANE_BARRIER, file, line);
    }
    sanitizer_acquire(object);
}

// What is wrong when nothing can run and not all threads have returned.
static void fail_stuck(void) {
    char text[200], other[200];
    unsigned block = engine.kernel->block, shown = block;
    for (unsigned i = 0; i < block; i++) {
        const struct lane *lane = &engine.pool->lanes[i];
        if (lane->state != LANE_WARP) continue;
        shown = i;
        // a lane named in the mask that is elsewhere
        for (unsigned j = 0; j < SKALD_EMULATED_WARP; j++) {
            unsigned peer = i / SKALD_EMULATED_WARP * SKALD_EMULATED_WARP + j;
            if (!(lane->mask >> j & 1) || peer >= block) continue;
            const struct lane *with = &engine.pool->lanes[peer];
            if (with->state == LANE_WARP && with->mask == lane->mask && with->op == lane->op) continue;
            skald_emulated_fail("a mask names a lane that does not take part: %s, but %s",
                                lane_describe(i, text, sizeof text), lane_describe(peer, other, sizeof other));
        }
    }
    for (unsigned i = 0; i < block; i++) {
        if (engine.pool->lanes[i].state != LANE_BARRIER) continue;
        for (unsigned j = 0; j < block; j++)
            if (engine.pool->lanes[j].state != LANE_BARRIER)
                skald_emulated_fail("not all threads reach a barrier: %s, but %s", lane_describe(i, text, sizeof text),
                                    lane_describe(j, other, sizeof other));
    }
    for (unsigned i = 0; i < block && shown == block; i++)
        if (engine.pool->lanes[i].state == LANE_BULK) shown = i;
    skald_emulated_fail("deadlock: %s", lane_describe(shown < block ? shown : 0, text, sizeof text));
}

static int next_warp(unsigned warps) {
    unsigned start = order == SKALD_EMULATED_RANDOM ? (unsigned)(random_next(&order_state) % warps) : 0;
    for (unsigned i = 0; i < warps; i++) {
        unsigned warp = (start + i) % warps;
        if (order == SKALD_EMULATED_REVERSE) warp = warps - 1 - warp;
        if (engine.pool->warps[warp].ready) return (int)warp;
    }
    return -1;
}

static void run_block(unsigned block) {
    const struct skald_emulated_kernel *kernel = engine.kernel;
    unsigned warps = (kernel->block + SKALD_EMULATED_WARP - 1) / SKALD_EMULATED_WARP;
    struct pool *pool = engine.pool;
    engine.block = block;
    engine.waiting = engine.exited = engine.barrier_count = 0;
    engine.fenced = engine.rescan = 0;
    skald_emulated_place.block.x = block;
    shared_begin(pool, kernel->shared);
    bulk_begin();
    for (; pool->created < kernel->block; pool->created++)
        fiber_create(&pool->lanes[pool->created].fiber, lane_main, (void *)(uintptr_t)pool->created);
    for (unsigned i = 0; i < warps; i++) {
        struct warp *warp = &pool->warps[i];
        unsigned left = kernel->block - i * SKALD_EMULATED_WARP;
        warp->lanes = left < SKALD_EMULATED_WARP ? (1u << left) - 1 : ~0u;
        warp->ready = warp->lanes;
        warp->exited = warp->waiting = 0;
    }
    while (engine.exited < kernel->block) {
        int warp = next_warp(warps);
        if (warp >= 0) {
            // until none of its lanes can go on, or a barrier opened
            engine.rescan = 0;
            engine.warp = (unsigned)warp;
            engine.turn = SKALD_EMULATED_WARP; // a new round
            run_on(&engine.host);
        } else if (!bulk_progress()) {
            fail_stuck();
        }
    }
    shared_end();
}

// Whether this launch is checked for races: the first ones of each kernel and shape are. Orders of fibers cost much
// more than what kernels compute.
static int checks_races(const struct skald_emulated_kernel *kernel) {
    enum { SHAPES = 1024 };
    static struct {
        const void *function;
        unsigned grid, block, seen;
    } shapes[SHAPES];
    if (!sanitizer_is_tsan()) return 0;
    uint64_t key = (uintptr_t)kernel->function ^ ((uint64_t)kernel->grid << 32 | kernel->block);
    for (unsigned i = 0, at = (unsigned)(random_next(&key) % SHAPES); i < SHAPES; i++, at = (at + 1) % SHAPES) {
        if (shapes[at].seen == 0) {
            shapes[at].function = kernel->function;
            shapes[at].grid = kernel->grid;
            shapes[at].block = kernel->block;
        }
        if (shapes[at].function == kernel->function && shapes[at].grid == kernel->grid &&
            shapes[at].block == kernel->block)
            return shapes[at].seen++ < race_launches;
    }
    return 1;
}

void skald_emulated_engine_run(const struct skald_emulated_kernel *kernel) {
    for (int i = 0; i < 1 + sanitizer_is_tsan(); i++)
        if (!pools[i] && !(pools[i] = calloc(1, sizeof *pools[i]))) abort();
    if (engine.kernel) skald_emulated_fail("a kernel was started inside another");
    engine.kernel = kernel;
    fiber_adopt_host(&engine.host);
    skald_emulated_place = (struct skald_emulated_place){
        .block_dim = {kernel->block, 1, 1},
        .grid_dim = {kernel->grid, 1, 1},
    };
    int races = checks_races(kernel);
    fiber_apart(1);
    for (int i = 0; i < 2; i++)
        if (pools[i]) sanitizer_release(&pools[i]->order);
    fiber_apart(races);
    // a random order of blocks: a stride without a common factor with their number
    uint64_t start = 0, stride = 1;
    if (order == SKALD_EMULATED_RANDOM && kernel->grid > 1) {
        start = random_next(&order_state) % kernel->grid;
        stride = 1 + random_next(&order_state) % kernel->grid;
        for (uint64_t a = stride, b = kernel->grid; a != 1;) {
            uint64_t rest = b % a;
            b = a, a = rest;
            if (a == 0) a = ++stride, b = kernel->grid;
        }
    }
    for (uint64_t i = 0; i < kernel->grid; i++) {
        uint64_t block = (start + i * stride) % kernel->grid;
        if (order == SKALD_EMULATED_REVERSE) block = kernel->grid - 1 - block;
        engine.pool = pools[races ? i % 2 : 0];
        run_block((unsigned)block);
    }
    fiber_apart(1);
    for (int i = 0; i < 2; i++)
        if (pools[i]) sanitizer_acquire(&pools[i]->order);
    engine.kernel = NULL;
}
