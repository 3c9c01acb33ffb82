// Bulk copies from global to shared memory, and the barriers (mbarrier) that count their arrival. A copy's target is
// poisoned when the copy is issued; the copy happens at once, when a thread waits for it, or at random, as set.
#include "state.h"

#include <string.h>

enum { MAX_BARRIERS = 64, MAX_COPIES = 512 };
static const uint64_t MAGIC = 0x6d62617272696572u;

struct barrier {
    uint64_t *word;
    unsigned arrivals, pending; // a phase ends when as many have arrived, and every copy has
    unsigned phase, copies;     // copies that are not done
    char order[2];
};

struct copy {
    void *to;
    const void *from;
    unsigned bytes;
    struct barrier *barrier;
};

static struct barrier barriers[MAX_BARRIERS];
static unsigned barrier_count;
static struct copy copies[MAX_COPIES];
static unsigned copy_count;
static enum skald_emulated_when when = SKALD_EMULATED_LATE;
static uint64_t when_state;

void skald_emulated_engine_bulk(enum skald_emulated_when next, uint64_t seed) {
    when = next;
    when_state = seed;
}

void bulk_begin(void) {
    barrier_count = copy_count = 0;
}

static struct barrier *find(uint64_t *word) {
    for (unsigned i = 0; i < barrier_count; i++) {
        if (barriers[i].word != word) continue;
        if (*(volatile uint64_t *)word != MAGIC) skald_emulated_fail("a barrier in shared memory was overwritten");
        return &barriers[i];
    }
    skald_emulated_fail("a barrier in shared memory that was not initialised");
}

static void settle(struct barrier *barrier) {
    if (barrier->pending || barrier->copies) return;
    barrier->phase++;
    barrier->pending = barrier->arrivals;
}

static void perform(unsigned index) {
    struct copy copy = copies[index];
    copies[index] = copies[--copy_count];
    unseen_copy(copy.to, copy.from, copy.bytes);
    copy.barrier->copies--;
    settle(copy.barrier);
}

static void perform_all(struct barrier *barrier) {
    for (unsigned i = copy_count; i-- > 0;)
        if (!barrier || copies[i].barrier == barrier) perform(i);
}

void skald_emulated_bulk_init(uint64_t *word, unsigned arrivals) {
    if (!shared_contains(word, sizeof *word)) skald_emulated_fail("a barrier must lie in shared memory");
    if (!arrivals) skald_emulated_fail("a barrier for no arrivals");
    sanitizer_writes(word, sizeof *word);
    unsigned i = 0;
    while (i < barrier_count && barriers[i].word != word) i++;
    if (i == MAX_BARRIERS) skald_emulated_fail("more than %d barriers", MAX_BARRIERS);
    if (i == barrier_count) barrier_count++;
    barriers[i] = (struct barrier){.word = word, .arrivals = arrivals, .pending = arrivals};
    unseen_copy(word, &MAGIC, sizeof MAGIC);
}

void skald_emulated_bulk_arrive(uint64_t *word) {
    struct barrier *barrier = find(word);
    if (!barrier->pending) skald_emulated_fail("more arrivals at a barrier than it was initialised for");
    sanitizer_reads(word, sizeof *word);
    sanitizer_release(&barrier->order[barrier->phase & 1]);
    barrier->pending--;
    settle(barrier);
}

void skald_emulated_bulk_copy(void *to, const void *from, unsigned bytes, uint64_t *word) {
    struct barrier *barrier = find(word);
    if (((uintptr_t)to | (uintptr_t)from | bytes) & 15)
        skald_emulated_fail("a bulk copy of %u bytes from %p to %p: not multiples of 16", bytes, from, to);
    if (!shared_contains(to, bytes)) skald_emulated_fail("a bulk copy of %u bytes leaves its shared array", bytes);
    if (copy_count == MAX_COPIES) skald_emulated_fail("more than %d bulk copies at once", MAX_COPIES);
    sanitizer_reads(from, bytes);
    sanitizer_writes(to, bytes);
    unseen_fill(to, 0xff, bytes);
    copies[copy_count++] = (struct copy){to, from, bytes, barrier};
    barrier->copies++;
    skald_emulated_bulk_arrive(word);
    if (when == SKALD_EMULATED_EAGER) perform_all(NULL);
    if (when == SKALD_EMULATED_SOMETIMES && random_next(&when_state) & 1)
        perform((unsigned)(random_next(&when_state) % copy_count));
}

void skald_emulated_bulk_wait(uint64_t *word, unsigned parity, const char *file, int line) {
    struct barrier *barrier = find(word);
    struct lane *lane = lane_current();
    sanitizer_reads(word, sizeof *word);
    while ((barrier->phase & 1) == (parity & 1)) {
        perform_all(barrier);
        if ((barrier->phase & 1) != (parity & 1)) break;
        lane->bulk = word;
        lane->parity = parity & 1;
        lane_wait(LANE_BULK, file, line);
    }
    sanitizer_acquire(&barrier->order[parity & 1]);
}

int bulk_progress(void) {
    int woken = 0;
    for (unsigned i = 0; i < engine.kernel->block; i++) {
        const struct lane *lane = &engine.pool->lanes[i];
        if (lane->state != LANE_BULK) continue;
        struct barrier *barrier = find(lane->bulk);
        perform_all(barrier);
        if ((barrier->phase & 1) == lane->parity) continue;
        lane_wake(i);
        woken = 1;
    }
    return woken;
}
