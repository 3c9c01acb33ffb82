// The emulated device: what a kernel compiled by the host compiler calls (through device.h), and what the emulated
// runtime calls to run one. Threads of a CUDA block are fibers on the host thread that runs the kernel; blocks run one
// after another. One kernel runs at a time in a process: the runtime's lock sees to it, and the engine keeps its state
// in statics. Whatever a program does wrong is printed with the kernel, block and thread it happened in, and aborts.
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SKALD_EMULATED_EXPORT __attribute__((visibility("default")))

enum {
    SKALD_EMULATED_WARP = 32,
    SKALD_EMULATED_MAX_BLOCK = 1024,
    SKALD_EMULATED_SHARED_DEFAULT = 48 * 1024, // bytes a block may have without cudaFuncSetAttribute
    SKALD_EMULATED_SHARED_OPTIN = 227 * 1024,  // ... and with it
};

struct skald_emulated_index {
    unsigned x, y, z;
};

// Where the running thread is; the engine writes it at every switch.
struct skald_emulated_place {
    struct skald_emulated_index thread, block, block_dim, grid_dim;
};
extern SKALD_EMULATED_EXPORT struct skald_emulated_place skald_emulated_place;

// A launch. `call` runs one thread of the kernel; `arguments` belong to the launch and go with `release`.
struct skald_emulated_kernel {
    const char *name;
    const void *function; // the kernel's address, the key of cudaFuncSetAttribute
    unsigned grid, block;
    size_t shared; // bytes of dynamic shared memory
    void (*call)(const void *arguments);
    void (*release)(void *arguments);
    void *arguments;
};

// --- for device.h, from inside a kernel ------------------------------------------------------------------------------

enum skald_emulated_warp_op {
    SKALD_EMULATED_SYNCWARP,
    SKALD_EMULATED_SHUFFLE, // value, and the lane to read
    SKALD_EMULATED_BALLOT,  // value != 0
};

// Static shared memory of this block: the same address for every thread that asks with the same key.
SKALD_EMULATED_EXPORT void *skald_emulated_shared(const void *key, size_t bytes, size_t align, const char *name);
SKALD_EMULATED_EXPORT void *skald_emulated_shared_dynamic(void);
// __syncthreads
SKALD_EMULATED_EXPORT void skald_emulated_barrier(const char *file, int line);
// Waits for the lanes in mask; returns what the operation gives this lane.
SKALD_EMULATED_EXPORT uint64_t skald_emulated_warp(enum skald_emulated_warp_op op, unsigned mask, uint64_t value,
                                                   unsigned lane, const char *file, int line);
// __threadfence, and what an atomic operation on integers at `address` orders (racecheck only).
SKALD_EMULATED_EXPORT void skald_emulated_fence(void);
SKALD_EMULATED_EXPORT void skald_emulated_atomic(void *address);
// Bulk copies and the barriers in shared memory that count them.
SKALD_EMULATED_EXPORT void skald_emulated_bulk_init(uint64_t *barrier, unsigned arrivals);
SKALD_EMULATED_EXPORT void skald_emulated_bulk_arrive(uint64_t *barrier);
SKALD_EMULATED_EXPORT void skald_emulated_bulk_copy(void *shared, const void *global, unsigned bytes,
                                                    uint64_t *barrier);
SKALD_EMULATED_EXPORT void skald_emulated_bulk_wait(uint64_t *barrier, unsigned parity, const char *file, int line);
// Prints what is wrong, where, and aborts.
SKALD_EMULATED_EXPORT void skald_emulated_fail(const char *format, ...)
    __attribute__((format(printf, 1, 2), noreturn, cold));

// --- for the runtime -------------------------------------------------------------------------------------------------

enum skald_emulated_order { SKALD_EMULATED_FORWARD, SKALD_EMULATED_REVERSE, SKALD_EMULATED_RANDOM };
enum skald_emulated_when { SKALD_EMULATED_LATE, SKALD_EMULATED_EAGER, SKALD_EMULATED_SOMETIMES };

// How blocks, warps and lanes follow each other, and when bulk copies happen; seeds for the random choices.
void skald_emulated_engine_order(enum skald_emulated_order order, uint64_t seed);
void skald_emulated_engine_bulk(enum skald_emulated_when when, uint64_t seed);
// Under TSan: how many launches of a kernel with one shape of grid are checked for races; the rest run faster.
void skald_emulated_engine_races(unsigned launches);
// Runs every block. The caller holds the runtime's lock and has opened device memory.
void skald_emulated_engine_run(const struct skald_emulated_kernel *kernel);
// The kernel that runs now, or NULL; safe in a signal handler.
const struct skald_emulated_kernel *skald_emulated_engine_running(void);
// 1 if address lies in the guard page of a fiber's stack.
int skald_emulated_engine_stack_overflow(const void *address);

// Pseudorandom numbers (splitmix64).
uint64_t random_next(uint64_t *state);

#ifdef __cplusplus
}
#endif
