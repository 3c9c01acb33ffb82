#include "segment.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static bool lock_byte(int file, int command, short type, int byte, struct flock *answer) {
    struct flock lock = {};
    lock.l_type = type;
    lock.l_whence = SEEK_SET;
    lock.l_start = byte;
    lock.l_len = 1;
    int status = fcntl(file, command, &lock);
    if (answer) *answer = lock;
    return status == 0;
}

int segment_attach(struct segment *segment, const char *name, int ranks, int rank, int device) {
    size_t header = ((size_t)ranks * sizeof(struct rank_record) + 4095) / 4096 * 4096;
    *segment = {};
    snprintf(segment->name, sizeof segment->name, "%s", name);
    segment->ranks = ranks;
    segment->rank = rank;
    segment->bytes = header + (size_t)ranks * CHUNK;
    // Made by whoever comes first; its bytes are zero, which is how everything begins.
    segment->file = shm_open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (segment->file < 0) return -1;
    void *memory = MAP_FAILED;
    if (lock_byte(segment->file, F_OFD_SETLK, F_WRLCK, rank, nullptr) &&
        ftruncate(segment->file, (off_t)segment->bytes) == 0)
        memory = mmap(nullptr, segment->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, segment->file, 0);
    if (memory == MAP_FAILED) {
        close(segment->file);
        return -1;
    }
    segment->records = static_cast<struct rank_record *>(memory);
    segment->slots = static_cast<char *>(memory) + header;
    struct rank_record *mine = &segment->records[rank];
    mine->pid = (int32_t)getpid();
    mine->device = device;
    __atomic_store_n(&mine->state, (int32_t)RANK_THERE, __ATOMIC_RELEASE);
    if (segment_attached(segment) == ranks) shm_unlink(name); // nobody else will come; it goes with its last user
    return 0;
}

int segment_attached(const struct segment *segment) {
    int attached = 0;
    for (int i = 0; i < segment->ranks; i++)
        attached += __atomic_load_n(&segment->records[i].state, __ATOMIC_ACQUIRE) != RANK_ABSENT;
    return attached;
}

void segment_leave(struct segment *segment, enum rank_state state) {
    __atomic_store_n(&segment->records[segment->rank].state, (int32_t)state, __ATOMIC_RELEASE);
    lock_byte(segment->file, F_OFD_SETLK, F_UNLCK, segment->rank, nullptr);
    if (segment_attached(segment) < segment->ranks) shm_unlink(segment->name);
}

void segment_close(struct segment *segment) {
    munmap(segment->records, segment->bytes);
    close(segment->file);
}

enum rank_state segment_rank(const struct segment *segment, int rank) {
    enum rank_state state = (enum rank_state)__atomic_load_n(&segment->records[rank].state, __ATOMIC_ACQUIRE);
    if (state != RANK_THERE || rank == segment->rank) return state;
    struct flock lock;
    if (!lock_byte(segment->file, F_OFD_GETLK, F_WRLCK, rank, &lock) || lock.l_type != F_UNLCK) return state;
    // Nobody holds it: it died, or left since we looked.
    state = (enum rank_state)__atomic_load_n(&segment->records[rank].state, __ATOMIC_ACQUIRE);
    return state == RANK_THERE ? RANK_ABORTED : state;
}

int segment_dead(const struct segment *segment) {
    for (int i = 0; i < segment->ranks; i++)
        if (segment_rank(segment, i) == RANK_ABORTED) return i;
    return -1;
}

int segment_shares_device(const struct segment *segment) {
    const struct rank_record *records = segment->records;
    for (int i = 0; i < segment->ranks; i++)
        for (int j = 0; j < i; j++)
            if (records[i].pid == records[j].pid && records[i].device == records[j].device) return 1;
    return 0;
}
