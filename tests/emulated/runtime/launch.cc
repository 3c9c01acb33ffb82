// What goes into streams: kernels, copies, fills, and what the emulated libraries bring.
#include "runtime.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

// So that a full fiber stack can still be reported.
static void want_signal_stack() {
    static thread_local bool done;
    if (done) return;
    done = true;
    stack_t stack;
    if (sigaltstack(nullptr, &stack) || !(stack.ss_flags & SS_DISABLE)) return;
    stack = {};
    stack.ss_size = 64 * 1024;
    static thread_local struct owner {
        void *memory = nullptr;
        ~owner() {
            stack_t none = {};
            none.ss_flags = SS_DISABLE;
            if (memory) sigaltstack(&none, nullptr);
            free(memory);
        }
    } owner;
    owner.memory = stack.ss_sp = malloc(stack.ss_size);
    if (stack.ss_sp) sigaltstack(&stack, nullptr);
}

struct kernel_owner {
    skald_emulated_kernel kernel;
    explicit kernel_owner(const skald_emulated_kernel &from) : kernel(from) {}
    ~kernel_owner() {
        kernel.release(kernel.arguments);
    }
    kernel_owner(const kernel_owner &) = delete;
    kernel_owner &operator=(const kernel_owner &) = delete;
};

static cudaError_t launch(const std::shared_ptr<kernel_owner> &owner, CUstream_st *stream) {
    const skald_emulated_kernel &kernel = owner->kernel;
    if (!stream) return cudaErrorInvalidResourceHandle;
    if (stream->device != current_device) return cudaErrorInvalidResourceHandle;
    if (!kernel.grid || kernel.grid > 0x7fffffff || !kernel.block || kernel.block > SKALD_EMULATED_MAX_BLOCK)
        return cudaErrorInvalidConfiguration;
    auto limit = rt().dynamic.find(kernel.function);
    if (kernel.shared > (limit == rt().dynamic.end() ? (size_t)SKALD_EMULATED_SHARED_DEFAULT : limit->second))
        return cudaErrorInvalidValue;
    operation op;
    int device = stream->device;
    op.run = [owner, device] {
        want_signal_stack();
        device_open(device);
        skald_emulated_engine_run(&owner->kernel);
        check_red_zones(device, owner->kernel.name);
        device_close(device);
        return true;
    };
    return enqueue(stream, std::move(op), nullptr);
}

static void copy_now(void *to, const void *from, size_t bytes) {
    int devices[2] = {device_of(to, bytes), device_of(from, bytes)};
    for (int device : devices)
        if (device >= 0) device_open(device);
    memmove(to, from, bytes);
    for (int device : devices)
        if (device >= 0) device_close(device);
}

// Whether something queued may still read this pinned memory.
static bool host_read_queued(const char *from, size_t bytes) {
    std::vector<const CUstream_st *> streams(rt().streams.begin(), rt().streams.end());
    for (const device *device : rt().devices) streams.push_back(&device->legacy);
    for (const CUstream_st *stream : streams)
        for (const operation &op : stream->queue)
            if (op.reads_anything ||
                (op.host_read && op.host_read < from + bytes && from < op.host_read + op.host_bytes))
                return true;
    return false;
}

static cudaError_t copy(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, CUstream_st *stream,
                        bool wait) {
    if (!stream) return cudaErrorInvalidResourceHandle;
    if (!bytes) return cudaSuccess;
    if (!to || !from) return cudaErrorInvalidValue;
    int target = device_of(to, bytes), source = device_of(from, bytes);
    if ((target < 0 && device_owns(to)) || (source < 0 && device_owns(from))) return cudaErrorInvalidValue;
    if (kind < cudaMemcpyHostToHost || kind > cudaMemcpyDefault) return cudaErrorInvalidMemcpyDirection;
    bool to_device = target >= 0, from_device = source >= 0;
    if (kind != cudaMemcpyDefault) {
        if (to_device != (kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice))
            return cudaErrorInvalidValue;
        if (from_device != (kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice))
            return cudaErrorInvalidValue;
    }
    operation op;
    unsigned flags = 0;
    bool pinned_from = !from_device && is_pinned(from, bytes, nullptr);
    bool pinned_to = !to_device && is_pinned(to, bytes, &flags);
    if (!from_device && !pinned_from && !stream->capture) {
        // pageable: read now
        auto staged = std::make_shared<std::vector<char>>((const char *)from, (const char *)from + bytes);
        op.run = [to, staged] {
            copy_now(to, staged->data(), staged->size());
            return true;
        };
    } else {
        op.run = [to, from, bytes] {
            copy_now(to, from, bytes);
            return true;
        };
    }
    if (pinned_from) op.host_read = (const char *)from, op.host_bytes = bytes;
    // A host that reads too early shall see NaN, not what an earlier copy left there.
    if (pinned_to && from_device && !(flags & cudaHostAllocMapped) && !stream->capture &&
        rt().set.streams == SKALD_EMULATED_LATE && !host_read_queued((const char *)to, bytes))
        memset(to, 0xff, bytes);
    bool capturing = stream->capture != nullptr;
    mark_ptr mark;
    cudaError_t error = enqueue(stream, std::move(op), &mark);
    if (error || capturing) return error;
    rt().copies[(to_device ? 1 : 0) + (from_device ? 2 : 0)][bytes]++;
    if ((!to_device && !pinned_to) || (wait && !(to_device && from_device) && !(to_device && !pinned_from)))
        run_until(mark);
    return cudaSuccess;
}

static cudaError_t fill(void *to, int byte, size_t bytes, CUstream_st *stream) {
    if (!stream) return cudaErrorInvalidResourceHandle;
    if (!bytes) return cudaSuccess;
    int device = device_of(to, bytes);
    if (device < 0 && !is_pinned(to, bytes, nullptr)) return cudaErrorInvalidValue;
    operation op;
    op.run = [to, byte, bytes, device] {
        if (device >= 0) device_open(device);
        memset(to, byte, bytes);
        if (device >= 0) device_close(device);
        return true;
    };
    return enqueue(stream, std::move(op), nullptr);
}

extern "C" {

void skald_emulated_launch(const struct skald_emulated_kernel *kernel, cudaStream_t stream) {
    api_call call;
    auto owner = std::make_shared<kernel_owner>(*kernel); // let go under the lock
    call.done(call.failed ? call.failed : launch(owner, stream_of(stream)));
}

cudaError_t skald_emulated_enqueue(cudaStream_t handle, int (*run)(void *), void (*release)(void *), void *state,
                                   int pushes) {
    api_call call;
    std::shared_ptr<void> owner(state, release);
    if (call.failed) return call.done(call.failed);
    CUstream_st *stream = stream_of(handle);
    if (!stream) return call.done(cudaErrorInvalidResourceHandle);
    if (stream->capture && pushes) return call.done(cudaErrorStreamCaptureUnsupported);
    operation op;
    op.pushes = pushes;
    op.run = [run, owner] {
        for (size_t i = 0; i < rt().devices.size(); i++) device_open((int)i);
        int done = run(owner.get());
        for (size_t i = 0; i < rt().devices.size(); i++) device_close((int)i);
        return done != 0;
    };
    return call.done(enqueue(stream, std::move(op), nullptr));
}

cudaError_t cudaFuncSetAttribute(const void *function, enum cudaFuncAttribute attribute, int value) {
    CALL();
    if (attribute == cudaFuncAttributePreferredSharedMemoryCarveout) return cudaSuccess;
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize || !function || value < 0 ||
        value > SKALD_EMULATED_SHARED_OPTIN)
        return call.done(cudaErrorInvalidValue);
    rt().dynamic[function] = (size_t)value;
    return cudaSuccess;
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, const void *function, int threads,
                                                          size_t shared) {
    CALL();
    if (!blocks || !function || threads <= 0) return call.done(cudaErrorInvalidValue);
    int warps = (threads + SKALD_EMULATED_WARP - 1) / SKALD_EMULATED_WARP;
    int by_threads = threads > SKALD_EMULATED_MAX_BLOCK ? 0 : 64 / warps;
    int by_shared = (int)((SKALD_EMULATED_SHARED_OPTIN + 1024) / (shared + 1024));
    *blocks = by_threads < by_shared ? by_threads : by_shared;
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t stream) {
    CALL();
    return call.done(copy(to, from, bytes, kind, stream_of(stream), false));
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind) {
    CALL();
    if (capture_forbids()) return call.done(cudaErrorStreamCaptureImplicit);
    return call.done(copy(to, from, bytes, kind, stream_of(nullptr), true));
}

cudaError_t cudaMemsetAsync(void *to, int byte, size_t bytes, cudaStream_t stream) {
    CALL();
    return call.done(fill(to, byte, bytes, stream_of(stream)));
}

cudaError_t cudaMemset(void *to, int byte, size_t bytes) {
    CALL();
    if (capture_forbids()) return call.done(cudaErrorStreamCaptureImplicit);
    return call.done(fill(to, byte, bytes, stream_of(nullptr)));
}
}
