/* The collective port: a group of processes (ranks, from 0) that add vectors up together, in lockstep.
 *
 * Every rank makes the same calls with the same lengths in the same order. An operation blocks its caller, but never
 * for ever: while it waits it calls `waiting` (see the options) every few milliseconds, and gives up with the status
 * that returns if it is not SKALD_OK. A peer that is gone shows as SKALD_ELOST, sooner or later, or not at all: that
 * `waiting` knows better is what it is for. After any failure the vectors hold anything, and the group is good for
 * nothing but close. An operation that failed at one rank may have succeeded at another; nobody can be more than one
 * operation ahead of anybody.
 *
 * To go on with fewer ranks, those that live close the group and open a new one, with a new name. (NCCL can also shrink
 * a group. But a try that succeeds at one rank and fails at another, because yet another died, leaves the two with
 * different groups to start from, and no way to meet again.)
 *
 * All calls of one rank come from one thread. Adapters: NCCL (src/collective/nccl.c), threads of one process
 * (src/collective/inproc.c). */
#ifndef SKALD_COLLECTIVE_H
#define SKALD_COLLECTIVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "skald/status.h"

typedef struct skald_collective skald_collective;

enum { SKALD_COLLECTIVE_ID = 128 }; /* bytes of a group's name */

/* Doubles to be added up or handed round: in this process's memory, or on the device that the group was opened for. */
typedef struct skald_stretch {
    double *data;
    size_t count;
    bool on_device;
} skald_stretch;

typedef struct skald_collective_options {
    uint32_t rank, size;
    uint32_t device; /* the card's number (NCCL); 0 otherwise */
    void *queue;     /* skald_vectors.queue: operations take their place in it; NULL: in their own */
    skald_status (*waiting)(void *user); /* see above; NULL: waits as long as the adapter does */
    void *user;
} skald_collective_options;

typedef struct skald_collective_ops {
    const char *name; /* "nccl", "inproc": ranks of one group all have the same */
    /* May this process be a rank, on card `device`? version: "2.28.3". card: which one it is, of all machines' ("": it
     * does not matter): one card cannot be two ranks. SKALD_EUNSUPPORTED with the reason, as in "worker 2 (name) has no
     * NCCL". Any thread, no group. */
    skald_status (*probe)(uint32_t device, char version[32], char card[80]);
    /* A name for a new group, never used before. To be made by the process that will be rank 0, which serves as the
     * meeting point from then on. */
    skald_status (*make_id)(uint8_t id[SKALD_COLLECTIVE_ID]);
    /* Joins the group: waits until all `size` ranks have. */
    skald_status (*open)(const uint8_t id[SKALD_COLLECTIVE_ID], const skald_collective_options *options,
                         skald_collective **out);
    /* In place, x <- sum over ranks of x, for all stretches as one operation. Same bits at every rank. */
    skald_status (*sum)(skald_collective *c, const skald_stretch *stretches, uint32_t count);
    /* The stretches of rank `root` go to everybody. */
    skald_status (*broadcast)(skald_collective *c, const skald_stretch *stretches, uint32_t count, uint32_t root);
    uint32_t (*rank)(const skald_collective *c);
    uint32_t (*size)(const skald_collective *c);
    /* Leaves and frees, whatever is under way. Does not wait for the others. NULL-safe. */
    void (*close)(skald_collective *c);
    bool on_device; /* stretches may be on the device */
} skald_collective_ops;

struct skald_collective {
    const skald_collective_ops *ops;
};

/* Cards as ranks, over NCCL, which is opened at the first use: the file that SKALD_NCCL names, else libnccl.so.2. In
 * the CUDA plugin only. */
const skald_collective_ops *skald_collective_nccl(void);

/* Threads of one process as ranks; sums in the order of ranks. */
const skald_collective_ops *skald_collective_inproc(void);

/* For tests: at operation `at` (sums and broadcasts of a group, from 1; 0: never), after everybody has given its part,
 * `lost` dies: its operation fails with SKALD_EINTERNAL, and with SKALD_ELOST those of all ranks but the ones in
 * `finish` (bit r: rank r), which still get their result. */
typedef struct skald_collective_fault {
    uint64_t at;
    uint32_t lost;
    uint32_t finish;
} skald_collective_fault;
/* For the next `count` (at most 4) groups made in this process, one each; later ones have none. */
void skald_collective_inproc_set_faults(const skald_collective_fault *faults, uint32_t count);

#endif
