// Shared memory of a block: poisoned with 0xff bytes (NaN as a float, a double or a bf16) when the block begins, with
// red zones between arrays that are checked when it ends and that ASan sees at once.
#include "state.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

enum { RED = 128, RED_BYTE = 0xfd, MAX_ARRAYS = 64, ARENA = 4 * SKALD_EMULATED_SHARED_OPTIN };

struct array {
    const void *key;
    const char *name;
    size_t offset, bytes;
};

static struct array arrays[MAX_ARRAYS]; // [0] is the dynamic one
static unsigned count;
static size_t used;  // of the arena
static size_t asked; // bytes the kernel asked for, without red zones
static size_t high;  // what of the arena this kernel may have written

static void red_zone(char *arena) {
    unseen_fill(arena + used, RED_BYTE, RED);
    sanitizer_poison(arena + used, RED, 1);
    used += RED;
}

static char *place(char *arena, const void *key, const char *name, size_t bytes, size_t align) {
    if (align < 16) align = 16;
    if (count == MAX_ARRAYS) skald_emulated_fail("more than %d shared arrays", MAX_ARRAYS);
    used = (used + align - 1) / align * align;
    asked = (asked + align - 1) / align * align + bytes;
    if (asked > SKALD_EMULATED_SHARED_OPTIN)
        skald_emulated_fail("shared memory: %zu bytes, a block has %d", asked, SKALD_EMULATED_SHARED_OPTIN);
    arrays[count++] = (struct array){key, name, used, bytes};
    char *memory = arena + used;
    sanitizer_poison(memory, bytes, 0);
    unseen_fill(memory, 0xff, bytes);
    used += bytes;
    red_zone(arena);
    if (used > high) high = used;
    return memory;
}

void shared_begin(struct pool *pool, size_t dynamic) {
    if (!pool->shared) {
        pool->shared = mmap(NULL, ARENA, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (pool->shared == MAP_FAILED) {
            perror("skald emulated device: shared memory");
            abort();
        }
    }
    sanitizer_poison(pool->shared, high, 0);
    count = 0;
    used = asked = high = 0;
    red_zone(pool->shared);
    place(pool->shared, NULL, "dynamic shared memory", dynamic, 128);
}

void *skald_emulated_shared_dynamic(void) {
    return engine.pool->shared + arrays[0].offset;
}

void *skald_emulated_shared(const void *key, size_t bytes, size_t align, const char *name) {
    for (unsigned i = 1; i < count; i++)
        if (arrays[i].key == key) return engine.pool->shared + arrays[i].offset;
    char *memory = place(engine.pool->shared, key, name, bytes, align);
    if (asked - arrays[0].bytes > SKALD_EMULATED_SHARED_DEFAULT)
        skald_emulated_fail("static shared memory: %zu bytes with %s, the limit is %d", asked - arrays[0].bytes, name,
                            SKALD_EMULATED_SHARED_DEFAULT);
    return memory;
}

int shared_contains(const void *address, size_t bytes) {
    uintptr_t at = (uintptr_t)address;
    for (unsigned i = 0; i < count; i++) {
        uintptr_t begin = (uintptr_t)engine.pool->shared + arrays[i].offset;
        if (at >= begin && at + bytes <= begin + arrays[i].bytes) return 1;
    }
    return 0;
}

__attribute__((no_sanitize_address)) static void check(const char *zone, const char *before, const char *after) {
    for (const unsigned char *at = (const unsigned char *)zone; at < (const unsigned char *)zone + RED; at++)
        if (*at != RED_BYTE)
            skald_emulated_fail("shared memory was written outside its arrays: %td bytes behind the end of %s, %td "
                                "before %s",
                                at - (const unsigned char *)zone, before, (const unsigned char *)zone + RED - at,
                                after);
}

void shared_end(void) {
    char *arena = engine.pool->shared;
    check(arena, "nothing", arrays[0].name);
    for (unsigned i = 0; i < count; i++)
        check(arena + arrays[i].offset + arrays[i].bytes, arrays[i].name,
              i + 1 < count ? arrays[i + 1].name : "nothing");
    sanitizer_poison(arena, used, 0);
}
