// A fiber: a stack and a place to go on from. Switching costs some nanoseconds and tells the sanitizers, if the process
// has any. The engine is built without instrumentation, so it looks for them at run time, by weak symbols.
#pragma once

#include <stddef.h>
#include <stdint.h>

struct fiber {
    void *stack_pointer;
    char *stack; // lowest usable address; a guard page lies below. For the host's own stack: as ASan wants it.
    size_t stack_bytes;
    void *tsan;    // TSan's fiber
    void *fake;    // ASan's fake stack while the fiber is away
    void *context; // ucontext_t, on machines without the switch written by hand
    void (*entry)(void *);
    void *argument;
};

// Makes a fiber that will run entry(argument), which must never return.
void fiber_create(struct fiber *fiber, void (*entry)(void *), void *argument);
// Makes `host` stand for the calling thread, so that fibers can switch back to it.
void fiber_adopt_host(struct fiber *host);
// TSan's view of the following switches: 1, fibers are threads; 0, all of them are the calling thread.
void fiber_apart(int apart);
// Leaves `from`, which runs now, for `to`; returns when somebody switches to `from` again.
void fiber_switch(struct fiber *from, struct fiber *to);
// 1 if address lies in a guard page of this fiber's stack.
int fiber_guards(const struct fiber *fiber, const void *address);

// Sanitizers, if present; nothing otherwise. The ordering calls act on the fiber that runs.
int sanitizer_is_tsan(void);
void sanitizer_acquire(void *object);
void sanitizer_release(void *object);
void sanitizer_reads(const void *address, size_t bytes);
void sanitizer_writes(void *address, size_t bytes);
void sanitizer_poison(const void *address, size_t bytes, int poisoned);

// Plain loops the sanitizers do not see (memset and memcpy are intercepted even where code is not instrumented).
void unseen_fill(void *to, unsigned char byte, size_t bytes);
void unseen_copy(void *to, const void *from, size_t bytes);
