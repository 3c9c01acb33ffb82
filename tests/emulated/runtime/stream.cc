// Streams: when their operations run. Late: when a thread synchronises, as late as CUDA allows. Eager: at once.
// Sometimes: some of them at every call, by seed.
#include "runtime.h"

#include <pthread.h>
#include <time.h>
#include <unistd.h>

// A stream with an operation that others wait for goes on by itself after this long without a call.
static const double PUSH_SECONDS = 0.005;

double now_seconds() {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

CUstream_st *stream_of(cudaStream_t handle) {
    if (!handle || handle == cudaStreamLegacy) return &rt().devices[current_device]->legacy;
    auto found = rt().streams.find(handle);
    return found == rt().streams.end() || (*found)->destroyed ? nullptr : *found;
}

static std::vector<CUstream_st *> all_streams() {
    std::vector<CUstream_st *> streams(rt().streams.begin(), rt().streams.end());
    for (device *device : rt().devices) streams.push_back(&device->legacy);
    return streams;
}

static bool exists(CUstream_st *stream) {
    for (const device *device : rt().devices)
        if (stream == &device->legacy) return true;
    return rt().streams.count(stream) != 0;
}

static void finish(CUstream_st *stream) {
    mark_ptr mark = stream->queue.front().mark;
    stream->queue.pop_front();
    mark->done = true;
    mark->seconds = now_seconds();
    if (stream->destroyed && stream->queue.empty()) {
        rt().streams.erase(stream);
        delete stream;
    }
}

// Runs one operation of the stream, or of one it waits for. false: nothing could be done now.
static bool drive(CUstream_st *stream) {
    if (stream->busy || stream->queue.empty()) return false;
    operation &head = stream->queue.front();
    for (const mark_ptr &wait : head.waits)
        if (!wait->done) return drive(wait->stream);
    stream->busy = true;
    bool done = !head.run || head.run();
    stream->busy = false;
    if (done) finish(stream);
    return done;
}

// Lets any stream do something, the given one first. Without the lock for a moment if there is nothing to do.
static void drive_any(CUstream_st *first) {
    if (drive(first)) return;
    for (CUstream_st *stream : all_streams())
        if (drive(stream)) return;
    unlock_runtime();
    usleep(50);
    lock_runtime();
}

void run_until(const mark_ptr &mark) {
    while (!mark->done) drive_any(mark->stream);
}

static std::vector<mark_ptr> pending(int device, bool only_blocking) {
    std::vector<mark_ptr> marks;
    for (CUstream_st *stream : rt().streams)
        if (stream->device == device && (stream->blocking || !only_blocking) && stream->last && !stream->last->done)
            marks.push_back(stream->last);
    return marks;
}

void run_device(int device) {
    std::vector<mark_ptr> marks = pending(device, false);
    CUstream_st *legacy = &rt().devices[device]->legacy;
    if (legacy->last) marks.push_back(legacy->last);
    for (const mark_ptr &mark : marks) run_until(mark);
}

void run_sometimes() {
    uint64_t *state = &rt().set.streams_seed;
    for (uint64_t steps = random_next(state) % 4; steps > 0; steps--) {
        std::vector<CUstream_st *> streams = all_streams(); // anew: one that was destroyed may have ended
        drive(streams[random_next(state) % streams.size()]);
    }
}

// Runs what others wait for, when nobody asks: a host function's effect, this process's part of a collective.
static void *push(void *unused) {
    (void)unused;
    for (;;) {
        usleep(2000);
        lock_runtime();
        double now = now_seconds();
        for (CUstream_st *stream : all_streams()) {
            if (!exists(stream)) continue; // it ended meanwhile
            bool due = false;
            for (const operation &op : stream->queue) due = due || (op.pushes && now - op.queued > PUSH_SECONDS);
            while (due && exists(stream) && drive(stream)) {
            }
        }
        unlock_runtime();
    }
    return nullptr;
}

static void start_pushing() {
    static bool started;
    if (started) return;
    started = true;
    pthread_t thread;
    if (pthread_create(&thread, nullptr, push, nullptr) == 0) pthread_detach(thread);
}

cudaError_t enqueue(CUstream_st *stream, operation op, mark_ptr *mark) {
    if (stream->capture) return capture_operation(stream, op.run);
    for (const CUgraph_st *capture : rt().captures)
        for (const CUstream_st *captured : capture->streams)
            if (captured->blocking && stream == &rt().devices[stream->device]->legacy)
                return cudaErrorStreamCaptureImplicit;
    // The legacy stream and the blocking ones follow each other.
    device *device = rt().devices[stream->device];
    if (stream == &device->legacy) {
        for (const mark_ptr &wait : pending(stream->device, true)) op.waits.push_back(wait);
    } else if (stream->blocking && device->legacy.last) {
        op.waits.push_back(device->legacy.last);
    }
    op.mark = std::make_shared<struct mark>();
    op.mark->stream = stream;
    op.queued = now_seconds();
    if (op.pushes) start_pushing();
    mark_ptr queued = stream->last = op.mark;
    if (mark) *mark = queued;
    stream->queue.push_back(std::move(op));
    if (rt().set.streams == SKALD_EMULATED_EAGER)
        while (!queued->done && drive(stream)) {
        }
    return cudaSuccess;
}

// A question makes a stream go on, now and then, or a program that polls would wait forever.
static bool ask(const mark_ptr &mark) {
    if (mark && !mark->done && ++mark->stream->queries % 2 == 0) drive(mark->stream);
    return !mark || mark->done;
}

extern "C" {

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags) {
    CALL(true);
    if (!stream || flags > cudaStreamNonBlocking) return call.done(cudaErrorInvalidValue);
    *stream = new CUstream_st;
    (*stream)->device = current_device;
    (*stream)->blocking = !(flags & cudaStreamNonBlocking);
    rt().streams.insert(*stream);
    return cudaSuccess;
}

cudaError_t cudaStreamCreate(cudaStream_t *stream) {
    return cudaStreamCreateWithFlags(stream, cudaStreamDefault);
}

// Returns at once; what is queued runs when the device is synchronised.
cudaError_t cudaStreamDestroy(cudaStream_t handle) {
    CALL();
    CUstream_st *stream = handle ? stream_of(handle) : nullptr;
    if (!stream || stream->capture || handle == cudaStreamLegacy) return call.done(cudaErrorInvalidResourceHandle);
    stream->destroyed = true;
    if (stream->queue.empty()) {
        rt().streams.erase(stream);
        delete stream;
    }
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
    CALL();
    CUstream_st *stream = stream_of(handle);
    if (!stream) return call.done(cudaErrorInvalidResourceHandle);
    if (stream->capture) {
        stream->capture->invalid = true;
        return call.done(cudaErrorStreamCaptureUnsupported);
    }
    if (stream->last) run_until(mark_ptr(stream->last));
    return cudaSuccess;
}

cudaError_t cudaStreamQuery(cudaStream_t handle) {
    CALL();
    CUstream_st *stream = stream_of(handle);
    if (!stream) return call.done(cudaErrorInvalidResourceHandle);
    if (stream->capture) {
        stream->capture->invalid = true;
        return call.done(cudaErrorStreamCaptureUnsupported);
    }
    return ask(mark_ptr(stream->last)) ? cudaSuccess : call.done(cudaErrorNotReady);
}

cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event, unsigned flags) {
    CALL();
    CUstream_st *stream = stream_of(handle);
    if (!stream || !rt().events.count(event)) return call.done(cudaErrorInvalidResourceHandle);
    if (flags) return call.done(cudaErrorInvalidValue);
    if (stream->capture || event->capture) return call.done(capture_wait(stream, event));
    if (!event->mark || event->mark->done) return cudaSuccess;
    operation op;
    op.waits.push_back(event->mark);
    return call.done(enqueue(stream, std::move(op), nullptr));
}

cudaError_t cudaLaunchHostFunc(cudaStream_t handle, cudaHostFn_t function, void *argument) {
    CALL();
    CUstream_st *stream = stream_of(handle);
    if (!stream) return call.done(cudaErrorInvalidResourceHandle);
    operation op;
    op.reads_anything = op.pushes = true;
    op.run = [function, argument] {
        unlock_runtime(); // it may wait for a lock of the program, whose holder may be in here
        function(argument);
        lock_runtime();
        return true;
    };
    return call.done(enqueue(stream, std::move(op), nullptr));
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags) {
    CALL(true);
    if (!event || flags & ~(unsigned)(cudaEventBlockingSync | cudaEventDisableTiming))
        return call.done(cudaErrorInvalidValue);
    *event = new CUevent_st;
    (*event)->timing = !(flags & cudaEventDisableTiming);
    rt().events.insert(*event);
    return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t *event) {
    return cudaEventCreateWithFlags(event, cudaEventDefault);
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
    CALL();
    if (!rt().events.erase(event)) return call.done(cudaErrorInvalidResourceHandle);
    delete event;
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t handle) {
    CALL();
    CUstream_st *stream = stream_of(handle);
    if (!stream || !rt().events.count(event)) return call.done(cudaErrorInvalidResourceHandle);
    event->capture = stream->capture;
    event->nodes = stream->tail;
    event->mark = nullptr;
    if (stream->capture) return cudaSuccess;
    return call.done(enqueue(stream, operation(), &event->mark));
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    CALL();
    if (!rt().events.count(event)) return call.done(cudaErrorInvalidResourceHandle);
    if (event->capture) return call.done(cudaErrorCapturedEvent);
    if (event->mark) run_until(mark_ptr(event->mark));
    return cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
    CALL();
    if (!rt().events.count(event)) return call.done(cudaErrorInvalidResourceHandle);
    if (event->capture) return call.done(cudaErrorCapturedEvent);
    return ask(mark_ptr(event->mark)) ? cudaSuccess : call.done(cudaErrorNotReady);
}

cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t start, cudaEvent_t end) {
    CALL();
    if (!rt().events.count(start) || !rt().events.count(end)) return call.done(cudaErrorInvalidResourceHandle);
    if (!start->timing || !end->timing || !start->mark || !end->mark) return call.done(cudaErrorInvalidResourceHandle);
    if (!start->mark->done || !end->mark->done) return call.done(cudaErrorNotReady);
    *milliseconds = (float)(1e3 * (end->mark->seconds - start->mark->seconds));
    return cudaSuccess;
}
}
