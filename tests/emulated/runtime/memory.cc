// Device memory: one address range a device, which the host cannot touch but while a kernel or a copy runs. Allocations
// have red zones around them, checked after every kernel. Fresh memory is poisoned: 0xff bytes, NaN as any kind of
// float.
#include "runtime.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum : size_t { ALIGN = 256, RED = 256, HUGE = (size_t)2 << 20 };
enum : unsigned char { POISON = 0xff, RED_BYTE = 0xfd };

static size_t up(size_t bytes, size_t to) {
    return (bytes + to - 1) / to * to;
}

void device_create(device *device) {
    device->reserved = up(rt().set.memory + rt().set.memory / 4, HUGE) + 32 * HUGE;
    void *memory =
        mmap(nullptr, device->reserved + HUGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        perror("skald emulated device: address space for device memory");
        abort();
    }
    device->base = (char *)up((size_t)memory, HUGE);
}

static void protect(const device *device, size_t from, size_t to, int how) {
    if (to > from && mprotect(device->base + from, to - from, how)) {
        perror("skald emulated device: mprotect");
        abort();
    }
}

void device_open(int index) {
    device *device = rt().devices[index];
    if (device->open++ == 0) protect(device, 0, device->high, PROT_READ | PROT_WRITE);
}

void device_close(int index) {
    device *device = rt().devices[index];
    if (--device->open == 0) protect(device, 0, device->high, PROT_NONE);
}

bool device_owns(const void *pointer) {
    for (const device *device : rt().devices)
        if ((const char *)pointer >= device->base && (const char *)pointer < device->base + device->reserved)
            return true;
    return false;
}

int device_of(const void *pointer, size_t bytes) {
    for (size_t i = 0; i < rt().devices.size(); i++) {
        const auto &blocks = rt().devices[i]->blocks;
        auto block = blocks.upper_bound((char *)(uintptr_t)pointer);
        if (block == blocks.begin()) continue;
        --block;
        if ((const char *)pointer + bytes <= block->first + block->second) return (int)i;
    }
    return -1;
}

bool is_pinned(const void *pointer, size_t bytes, unsigned *flags) {
    const auto &pinned = rt().pinned;
    auto block = pinned.upper_bound((char *)(uintptr_t)pointer);
    if (block == pinned.begin()) return false;
    --block;
    if (flags) *flags = block->second.second;
    return (const char *)pointer + bytes <= block->first + block->second.first;
}

// The red zone behind a block reaches from its last byte to the next boundary and a zone's length beyond.
static size_t behind(size_t bytes) {
    return up(bytes, ALIGN) + RED - bytes;
}

// First gap that holds the block with a zone on either side.
static size_t find_gap(const device *device, size_t bytes) {
    size_t at = RED;
    for (const auto &block : device->blocks) {
        size_t begin = (size_t)(block.first - device->base);
        if (begin >= at + bytes + behind(bytes)) break;
        at = begin + block.second + behind(block.second);
    }
    return at;
}

static void *allocate(device *device, size_t bytes) {
    size_t offset = find_gap(device, bytes), end = offset + bytes + behind(bytes);
    if (device->used + bytes > rt().set.memory || end > device->reserved) return nullptr;
    char *block = device->base + offset;
    if (end > device->high) {
        size_t high = up(end, HUGE);
        madvise(device->base + device->high, high - device->high, MADV_HUGEPAGE);
        if (device->open) protect(device, device->high, high, PROT_READ | PROT_WRITE);
        device->high = high;
    }
    device->blocks[block] = bytes;
    device->used += bytes;
    device_open(device->legacy.device);
    sanitizer_poison(block - RED, RED, 0);
    sanitizer_poison(block, bytes + behind(bytes), 0);
    memset(block - RED, RED_BYTE, RED);
    memset(block, POISON, bytes);
    memset(block + bytes, RED_BYTE, behind(bytes));
    sanitizer_poison(block - RED, RED, 1);
    sanitizer_poison(block + bytes, behind(bytes), 1);
    device_close(device->legacy.device);
    return block;
}

__attribute__((no_sanitize("address", "thread"))) static ptrdiff_t spoiled(const char *zone, size_t bytes) {
    for (size_t i = 0; i < bytes; i++)
        if ((unsigned char)((const volatile char *)zone)[i] != RED_BYTE) return (ptrdiff_t)i;
    return -1;
}

void check_red_zones(int index, const char *kernel) {
    for (const auto &block : rt().devices[index]->blocks) {
        ptrdiff_t before = spoiled(block.first - RED, RED);
        ptrdiff_t after = spoiled(block.first + block.second, behind(block.second));
        if (before < 0 && after < 0) continue;
        if (before >= 0)
            skald_emulated_fail("%s wrote %td bytes before the beginning of an allocation of %zu bytes", kernel,
                                (ptrdiff_t)RED - before, block.second);
        skald_emulated_fail("%s wrote %td bytes behind the end of an allocation of %zu bytes", kernel, after,
                            block.second);
    }
}

// --- faults ----------------------------------------------------------------------------------------------------------

static struct sigaction before;

static void on_fault(int signal, siginfo_t *info, void *context) {
    char text[400];
    int length = 0;
    const void *address = info->si_addr;
    const struct skald_emulated_kernel *kernel = skald_emulated_engine_running();
    if (skald_emulated_engine_stack_overflow(address))
        length =
            snprintf(text, sizeof text, "skald emulated device: kernel %s, block %u, thread %u: its stack is full\n",
                     kernel->name, skald_emulated_place.block.x, skald_emulated_place.thread.x);
    else if (device_owns(address) && !kernel)
        length = snprintf(text, sizeof text, "skald emulated device: the host touched device memory at %p\n", address);
    else if (kernel)
        length = snprintf(text, sizeof text,
                          "skald emulated device: kernel %s, block %u, thread %u: a fault at %p, which is %s\n",
                          kernel->name, skald_emulated_place.block.x, skald_emulated_place.thread.x, address,
                          device_owns(address) ? "device memory that is not allocated" : "no device memory");
    if (length > 0 && write(STDERR_FILENO, text, (size_t)length) < 0) abort();
    sigaction(signal, &before, nullptr); // happens again, to whoever was there before
}

void install_fault_handler() {
    struct sigaction action = {};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigaction(SIGSEGV, &action, &before);
}

// --- the interface ---------------------------------------------------------------------------------------------------

extern "C" {

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total_bytes) {
    CALL();
    *total_bytes = rt().set.memory;
    *free_bytes = rt().set.memory - rt().devices[current_device]->used;
    return cudaSuccess;
}

cudaError_t cudaMalloc(void **pointer, size_t bytes) {
    CALL(true);
    if (capture_forbids()) return call.done(cudaErrorStreamCaptureUnsupported);
    if (!pointer) return call.done(cudaErrorInvalidValue);
    *pointer = nullptr;
    if (bytes && !(*pointer = allocate(rt().devices[current_device], bytes)))
        return call.done(cudaErrorMemoryAllocation);
    return cudaSuccess;
}

cudaError_t cudaFree(void *pointer) {
    CALL();
    if (!pointer) return cudaSuccess;
    if (capture_forbids()) return call.done(cudaErrorStreamCaptureUnsupported);
    int index = device_of(pointer, 1);
    if (index < 0) return call.done(cudaErrorInvalidValue);
    device *device = rt().devices[index];
    auto block = device->blocks.find((char *)pointer);
    if (block == device->blocks.end()) return call.done(cudaErrorInvalidValue);
    run_device(index);
    size_t bytes = block->second;
    device_open(index);
    memset(pointer, POISON, bytes);
    if (bytes >= 8 * HUGE) {
        char *from = (char *)up((size_t)pointer, HUGE), *to = (char *)(((size_t)pointer + bytes) / HUGE * HUGE);
        if (to > from) madvise(from, (size_t)(to - from), MADV_DONTNEED);
    }
    device_close(index);
    sanitizer_poison(pointer, bytes, 1);
    device->used -= bytes;
    device->blocks.erase(block);
    return cudaSuccess;
}

cudaError_t cudaHostAlloc(void **pointer, size_t bytes, unsigned flags) {
    CALL(true);
    if (capture_forbids()) return call.done(cudaErrorStreamCaptureUnsupported);
    if (!pointer) return call.done(cudaErrorInvalidValue);
    *pointer = nullptr;
    if (!bytes) return cudaSuccess;
    if (posix_memalign(pointer, 4096, bytes)) return call.done(cudaErrorMemoryAllocation);
    memset(*pointer, POISON, bytes);
    rt().pinned[(char *)*pointer] = {bytes, flags};
    return cudaSuccess;
}

cudaError_t cudaMallocHost(void **pointer, size_t bytes) {
    return cudaHostAlloc(pointer, bytes, cudaHostAllocDefault);
}

cudaError_t cudaFreeHost(void *pointer) {
    CALL();
    if (!pointer) return cudaSuccess;
    if (capture_forbids()) return call.done(cudaErrorStreamCaptureUnsupported);
    auto block = rt().pinned.find((char *)pointer);
    if (block == rt().pinned.end()) return call.done(cudaErrorInvalidValue);
    for (size_t i = 0; i < rt().devices.size(); i++) run_device((int)i);
    rt().pinned.erase(block);
    free(pointer);
    return cudaSuccess;
}

cudaError_t cudaHostGetDevicePointer(void **device, void *host, unsigned flags) {
    CALL();
    if (!is_pinned(host, 1, nullptr) || flags) return call.done(cudaErrorInvalidValue);
    *device = host; // one address space
    return cudaSuccess;
}
}
