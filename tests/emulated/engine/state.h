// What the files of the engine share: the block that runs and its threads. One block at a time, so all of it is static.
#pragma once

#include "engine.h"
#include "fiber.h"

enum lane_state { LANE_WARP, LANE_BARRIER, LANE_BULK, LANE_EXITED };

struct lane {
    struct fiber fiber;
    enum lane_state state; // what it last waited for
    int line;              // where
    const char *file;
    enum skald_emulated_warp_op op; // what it waits for in its warp
    unsigned mask;
    void *order; // TSan: what it acquires when it goes on
    uint64_t *bulk;
    unsigned parity;
};

enum { SYNC_OBJECTS = 4 };

// Sets of lanes are a bit a lane.
struct warp {
    unsigned lanes;   // those there are
    unsigned ready;   // ... that could run
    unsigned waiting; // ... at a warp operation
    unsigned exited;
    uint64_t value[SKALD_EMULATED_WARP], result[SKALD_EMULATED_WARP];
    unsigned char source[SKALD_EMULATED_WARP];
    unsigned next_object;
    char objects[SYNC_OBJECTS]; // addresses TSan orders warp operations by, used in turn
};

// Everything that a block uses up. Under TSan there are two, used in turn: two neighbouring blocks then are different
// fibers with nothing that orders them, so a race between blocks shows.
struct pool {
    struct lane lanes[SKALD_EMULATED_MAX_BLOCK];
    struct warp warps[SKALD_EMULATED_MAX_BLOCK / SKALD_EMULATED_WARP];
    unsigned created; // lanes that have a fiber
    char *shared;     // the block's shared memory
    char order;       // TSan: blocks of one pool follow each other, and the host follows both
    char barriers[2]; // TSan: used in turn
};

struct engine {
    const struct skald_emulated_kernel *kernel;
    struct pool *pool;
    struct fiber host;
    unsigned block, current; // block index, thread index
    unsigned warp;           // the one that runs; its lanes take turns:
    unsigned turn, start;    // the next in this round, and who came first
    int down;
    unsigned first_at_barrier;
    unsigned waiting; // lanes at the barrier
    unsigned exited;
    unsigned barrier_count;
    int fenced;   // some thread of this block has passed a __threadfence
    int rescan;   // a barrier opened: begin again with the first warp
    int in_fiber; // a thread of the kernel runs, not the engine
};
extern struct engine engine;

static inline struct lane *lane_current(void) {
    return &engine.pool->lanes[engine.current];
}
static inline struct warp *warp_of(unsigned thread) {
    return &engine.pool->warps[thread / SKALD_EMULATED_WARP];
}

// Leaves the current lane in `state`, comes back when somebody woke it.
void lane_wait(enum lane_state state, const char *file, int line);
void lane_wake(unsigned thread);
const char *lane_describe(unsigned thread, char *text, size_t bytes);

// shared.c. The memory of a pool; at a block's start and end.
void shared_begin(struct pool *pool, size_t dynamic);
void shared_end(void);
int shared_contains(const void *address, size_t bytes);

// bulk.c
void bulk_begin(void);
// Wakes lanes whose phase has ended. late: does the copies they wait for. 1 if any woke.
int bulk_progress(void);
