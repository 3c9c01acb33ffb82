#include "fiber.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

// Otherwise ucontext, which asks the kernel at every switch.
#if defined(__x86_64__) && !defined(SKALD_FIBER_UCONTEXT)
#define SWITCH_BY_HAND 1
#else
#define SWITCH_BY_HAND 0
#endif

#define WEAK __attribute__((weak))
WEAK void *__tsan_create_fiber(unsigned flags);
WEAK void *__tsan_get_current_fiber(void);
WEAK void __tsan_switch_to_fiber(void *fiber, unsigned flags);
WEAK void __tsan_acquire(void *object);
WEAK void __tsan_release(void *object);
WEAK void __tsan_read_range(void *address, unsigned long bytes);
WEAK void __tsan_write_range(void *address, unsigned long bytes);
WEAK void __sanitizer_start_switch_fiber(void **fake, const void *bottom, size_t bytes);
WEAK void __sanitizer_finish_switch_fiber(void *fake, const void **bottom, size_t *bytes);
WEAK void __asan_poison_memory_region(const volatile void *address, size_t bytes);
WEAK void __asan_unpoison_memory_region(const volatile void *address, size_t bytes);

static int apart;
static int sanitized; // some sanitizer wants to know of switches
enum { NO_SYNC = 1 }; // TSan: a switch does not order the two fibers

// Instrumented frames are several times as large.
static size_t stack_bytes(void) {
    return __sanitizer_start_switch_fiber || __tsan_create_fiber ? 256 * 1024 : 64 * 1024;
}

#if SWITCH_BY_HAND
// Saves what a called function must keep, swaps stacks, restores. rdi: where to save the old stack, rsi: the new one.
void fiber_swap(void **save, void *stack_pointer);
__asm__(".text\n"
        ".p2align 4\n"
        ".hidden fiber_swap\n"
        ".globl fiber_swap\n"
        ".type fiber_swap,@function\n"
        "fiber_swap:\n"
        "  pushq %rbp\n  pushq %rbx\n  pushq %r12\n  pushq %r13\n  pushq %r14\n  pushq %r15\n"
        "  movq %rsp, (%rdi)\n"
        "  movq %rsi, %rsp\n"
        "  popq %r15\n  popq %r14\n  popq %r13\n  popq %r12\n  popq %rbx\n  popq %rbp\n"
        "  ret\n"
        ".size fiber_swap,.-fiber_swap\n");
#endif

static void begin(struct fiber *fiber) {
    if (__sanitizer_finish_switch_fiber) __sanitizer_finish_switch_fiber(NULL, NULL, NULL);
    fiber->entry(fiber->argument);
    abort();
}

#if SWITCH_BY_HAND
// The first switch to a fiber "returns" here with the fiber in rbx.
__attribute__((used)) static void begin_on_fiber(struct fiber *fiber) {
    begin(fiber);
}
void fiber_trampoline(void);
__asm__(".text\n"
        ".hidden fiber_trampoline\n"
        ".globl fiber_trampoline\n"
        ".type fiber_trampoline,@function\n"
        "fiber_trampoline:\n"
        "  .cfi_startproc\n"
        "  .cfi_undefined rip\n"
        "  movq %rbx, %rdi\n"
        "  call begin_on_fiber\n"
        "  ud2\n"
        "  .cfi_endproc\n"
        ".size fiber_trampoline,.-fiber_trampoline\n");

static void prepare(struct fiber *fiber) {
    // not all at the same place of a page: their tops would fight for a few lines of the cache
    static unsigned colour;
    uint64_t *top = (uint64_t *)(void *)(fiber->stack + fiber->stack_bytes - 64 - 64 * (colour++ % 61));
    *--top = (uint64_t)(uintptr_t)fiber_trampoline;
    *--top = 0;                             // rbp
    *--top = (uint64_t)(uintptr_t)fiber;    // rbx
    for (int i = 0; i < 4; i++) *--top = 0; // r12 to r15
    fiber->stack_pointer = top;
}

static void swap(struct fiber *from, struct fiber *to) {
    fiber_swap(&from->stack_pointer, to->stack_pointer);
}
#else
static void begin_halves(unsigned high, unsigned low) {
    begin((struct fiber *)(((uintptr_t)high << 32) | low));
}

static void prepare(struct fiber *fiber) {
    ucontext_t *context = calloc(1, sizeof *context);
    if (!context) abort();
    getcontext(context);
    context->uc_stack.ss_sp = fiber->stack;
    context->uc_stack.ss_size = fiber->stack_bytes;
    uintptr_t address = (uintptr_t)fiber;
    makecontext(context, (void (*)(void))begin_halves, 2, (unsigned)(address >> 32), (unsigned)address);
    fiber->context = context;
}

static void swap(struct fiber *from, struct fiber *to) {
    swapcontext(from->context, to->context);
}
#endif

void fiber_create(struct fiber *fiber, void (*entry)(void *), void *argument) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE), bytes = stack_bytes();
    char *memory = mmap(NULL, page + bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory, page, PROT_NONE)) {
        perror("skald emulated device: a fiber's stack");
        abort();
    }
    *fiber = (struct fiber){.stack = memory + page, .stack_bytes = bytes, .entry = entry, .argument = argument};
    if (__tsan_create_fiber) fiber->tsan = __tsan_create_fiber(0);
    prepare(fiber);
}

void fiber_adopt_host(struct fiber *host) {
    sanitized = __sanitizer_start_switch_fiber || __tsan_switch_to_fiber;
    if (!host->context && !host->stack_pointer) {
#if !SWITCH_BY_HAND
        host->context = calloc(1, sizeof(ucontext_t));
        if (!host->context) abort();
#endif
    }
    if (__tsan_get_current_fiber) host->tsan = __tsan_get_current_fiber();
    if (__sanitizer_start_switch_fiber) {
        static _Thread_local void *stack;
        static _Thread_local size_t bytes;
        pthread_attr_t attributes;
        if (!stack && pthread_getattr_np(pthread_self(), &attributes) == 0) {
            pthread_attr_getstack(&attributes, &stack, &bytes);
            pthread_attr_destroy(&attributes);
        }
        host->stack = stack;
        host->stack_bytes = bytes;
    }
}

void fiber_apart(int next) {
    apart = next && __tsan_switch_to_fiber;
}

void fiber_switch(struct fiber *from, struct fiber *to) {
    if (__builtin_expect(!sanitized, 1)) {
        swap(from, to);
        return;
    }
    if (__sanitizer_start_switch_fiber) __sanitizer_start_switch_fiber(&from->fake, to->stack, to->stack_bytes);
    if (apart) __tsan_switch_to_fiber(to->tsan, NO_SYNC);
    swap(from, to);
    if (__sanitizer_finish_switch_fiber) __sanitizer_finish_switch_fiber(from->fake, NULL, NULL);
}

int fiber_guards(const struct fiber *fiber, const void *address) {
    uintptr_t at = (uintptr_t)address, stack = (uintptr_t)fiber->stack, page = (uintptr_t)sysconf(_SC_PAGESIZE);
    return stack && at < stack && at >= stack - page;
}

int sanitizer_is_tsan(void) {
    return __tsan_create_fiber != NULL;
}

void sanitizer_acquire(void *object) {
    if (apart) __tsan_acquire(object);
}

void sanitizer_release(void *object) {
    if (apart) __tsan_release(object);
}

void sanitizer_reads(const void *address, size_t bytes) {
    if (apart) __tsan_read_range((void *)(uintptr_t)address, bytes);
}

void sanitizer_writes(void *address, size_t bytes) {
    if (apart) __tsan_write_range(address, bytes);
}

void sanitizer_poison(const void *address, size_t bytes, int poisoned) {
    if (!__asan_poison_memory_region) return;
    if (poisoned)
        __asan_poison_memory_region(address, bytes);
    else
        __asan_unpoison_memory_region(address, bytes);
}

void unseen_fill(void *to, unsigned char byte, size_t bytes) {
#ifdef __x86_64__
    __asm__ volatile("rep stosb" : "+D"(to), "+c"(bytes) : "a"(byte) : "memory");
#else
    for (volatile unsigned char *at = to; bytes; bytes--) *at++ = byte;
#endif
}

void unseen_copy(void *to, const void *from, size_t bytes) {
#ifdef __x86_64__
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(bytes) : : "memory");
#else
    const volatile unsigned char *source = from;
    for (volatile unsigned char *at = to; bytes; bytes--) *at++ = *source++;
#endif
}
