// What the ranks of an emulated communicator share: a file in shared memory, the same whether they are processes or
// threads. Each rank holds a lock on its byte of the file; the kernel drops it when the process dies, however that
// happens, and that is how the others notice.
#pragma once

#include <stddef.h>
#include <stdint.h>

enum { MAX_RANKS = 64, CHUNK = 1 << 20 };

enum rank_state { RANK_ABSENT, RANK_THERE, RANK_LEFT, RANK_ABORTED };

// What a rank says about the collective it is in, so that ranks that disagree are told.
struct call_shape {
    uint64_t number, count;
    int32_t kind, type, op, root;
};

// One for each rank, written by that rank only; all zero at first. Counters are of chunks.
struct rank_record {
    int32_t state;
    int32_t pid, device;
    uint64_t wrote; // chunks this rank has put into its slot
    uint64_t read;  // chunks it has taken from all slots
    struct call_shape shape;
    char pad[64];
};

struct segment {
    char name[80];
    int file;
    int ranks, rank;
    size_t bytes;
    struct rank_record *records;
    char *slots; // CHUNK bytes a rank
};

// Opens or makes the segment of that name and takes part as `rank`. 0, or -1: no such file can be made, or the rank is
// there already.
int segment_attach(struct segment *segment, const char *name, int ranks, int rank, int device);
// How many ranks have come, alive or not.
int segment_attached(const struct segment *segment);
// Leaves, as RANK_LEFT or RANK_ABORTED; the mapping stays until segment_close.
void segment_leave(struct segment *segment, enum rank_state state);
void segment_close(struct segment *segment);
// The state of a rank; a rank that died without a word counts as aborted.
enum rank_state segment_rank(const struct segment *segment, int rank);
// A rank whose process is gone, or -1.
int segment_dead(const struct segment *segment);
// A pair of ranks on one device of one process: 1.
int segment_shares_device(const struct segment *segment);
