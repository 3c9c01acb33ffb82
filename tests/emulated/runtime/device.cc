// Settings, devices, errors.
#include "runtime.h"

#include "../control.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

thread_local int current_device;
static thread_local cudaError_t last_error;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

runtime &rt() {
    static runtime *only = new runtime;
    return *only;
}

void lock_runtime() {
    pthread_mutex_lock(&lock);
}

void unlock_runtime() {
    pthread_mutex_unlock(&lock);
}

void set_last_error(cudaError_t error) {
    if (error) last_error = error;
}

bool parse_when(const char *text, enum skald_emulated_when *when, uint64_t *seed) {
    static const char random[] = "random:";
    if (!strcmp(text, "late"))
        *when = SKALD_EMULATED_LATE;
    else if (!strcmp(text, "eager"))
        *when = SKALD_EMULATED_EAGER;
    else if (!strncmp(text, random, sizeof random - 1))
        *when = SKALD_EMULATED_SOMETIMES, *seed = strtoull(text + sizeof random - 1, nullptr, 10);
    else
        return false;
    return true;
}

static bool set_streams(const char *text) {
    settings &set = rt().set;
    if (!parse_when(text, &set.streams, &set.streams_seed)) return false;
    skald_emulated_engine_bulk(set.streams, set.streams_seed);
    return true;
}

static bool set_blocks(const char *text) {
    static const char random[] = "random:";
    if (!strcmp(text, "forward"))
        skald_emulated_engine_order(SKALD_EMULATED_FORWARD, 0);
    else if (!strcmp(text, "reverse"))
        skald_emulated_engine_order(SKALD_EMULATED_REVERSE, 0);
    else if (!strncmp(text, random, sizeof random - 1))
        skald_emulated_engine_order(SKALD_EMULATED_RANDOM, strtoull(text + sizeof random - 1, nullptr, 10));
    else
        return false;
    return true;
}

static void read_variable(const char *name, const std::function<bool(const char *)> &use) {
    const char *text = getenv(name);
    if (!text || !*text || use(text)) return;
    fprintf(stderr, "skald emulated device: %s=%s is not understood\n", name, text);
    abort();
}

static bool number(const char *text, long low, long *value) {
    char *end;
    *value = strtol(text, &end, 10);
    return end != text && !*end && *value >= low;
}

void start_runtime() {
    static bool started;
    if (started) return;
    started = true;
    settings &set = rt().set;
    long value;
    read_variable("SKALD_EMULATED_STREAMS", set_streams);
    read_variable("SKALD_EMULATED_BLOCKS", set_blocks);
    read_variable("SKALD_EMULATED_DEVICES", [&](const char *text) {
        bool good = number(text, 0, &value);
        set.devices = (int)value;
        return good;
    });
    read_variable("SKALD_EMULATED_MEMORY", [&](const char *text) {
        bool good = number(text, 1, &value);
        set.memory = (size_t)value;
        return good;
    });
    read_variable("SKALD_EMULATED_CAPABILITY", [&](const char *text) {
        bool good = number(text, 10, &value);
        set.capability = (int)value;
        return good;
    });
    read_variable("SKALD_EMULATED_RACES", [&](const char *text) {
        bool good = number(text, 0, &value);
        skald_emulated_engine_races((unsigned)value);
        return good;
    });
    read_variable("SKALD_EMULATED_FAIL", [&](const char *text) {
        std::string digits(text);
        set.fail_on = digits.back() == '+';
        if (set.fail_on) digits.pop_back();
        return number(digits.c_str(), 0, &set.fail);
    });
    for (int i = 0; i < set.devices; i++) {
        rt().devices.push_back(new device);
        rt().devices[i]->legacy.device = i;
        device_create(rt().devices[i]);
    }
    install_fault_handler();
}

api_call::api_call(bool allocates) {
    lock_runtime();
    start_runtime();
    runtime &r = rt();
    long call = ++r.calls;
    if (r.set.fail && (call == r.set.fail || (r.set.fail_on && call > r.set.fail)))
        failed = allocates ? cudaErrorMemoryAllocation : cudaErrorLaunchFailure;
    else if (r.devices.empty())
        failed = cudaErrorNoDevice;
    else if (r.set.streams == SKALD_EMULATED_SOMETIMES)
        run_sometimes();
}

api_call::~api_call() {
    unlock_runtime();
}

cudaError_t api_call::done(cudaError_t error) {
    set_last_error(error);
    return error;
}

extern "C" {

int skald_emulated_streams(const char *text) {
    lock_runtime();
    start_runtime();
    bool good = set_streams(text);
    unlock_runtime();
    return good ? 0 : -1;
}

int skald_emulated_blocks(const char *text) {
    lock_runtime();
    start_runtime();
    bool good = set_blocks(text);
    unlock_runtime();
    return good ? 0 : -1;
}

void skald_emulated_fail_at(long n) {
    lock_runtime();
    start_runtime();
    rt().set.fail = n ? rt().calls + n : 0;
    rt().set.fail_on = false;
    unlock_runtime();
}

long skald_emulated_calls(void) {
    lock_runtime();
    long calls = rt().calls;
    unlock_runtime();
    return calls;
}

long skald_emulated_copies(int kind, size_t bytes) {
    long count = 0;
    if (kind < 0 || kind > 3) return 0;
    lock_runtime();
    for (const auto &entry : rt().copies[kind])
        if (entry.first >= bytes) count += entry.second;
    unlock_runtime();
    return count;
}

int skald_emulated_live(void) {
    lock_runtime();
    runtime &r = rt();
    size_t live = r.pinned.size() + r.events.size() + r.graphs.size() + r.executables.size();
    for (const device *device : r.devices) live += device->blocks.size();
    for (const CUstream_st *stream : r.streams) live += !stream->destroyed;
    unlock_runtime();
    return (int)live;
}

cudaError_t cudaRuntimeGetVersion(int *version) {
    *version = CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int *version) {
    *version = CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaGetLastError(void) {
    cudaError_t error = last_error;
    last_error = cudaSuccess;
    return error;
}

cudaError_t cudaPeekAtLastError(void) {
    return last_error;
}

static const struct {
    cudaError_t error;
    const char *name, *text;
} errors[] = {
    {cudaSuccess, "cudaSuccess", "no error"},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
    {cudaErrorInvalidConfiguration, "cudaErrorInvalidConfiguration", "invalid configuration argument"},
    {cudaErrorInvalidDevicePointer, "cudaErrorInvalidDevicePointer", "invalid device pointer"},
    {cudaErrorInvalidMemcpyDirection, "cudaErrorInvalidMemcpyDirection", "invalid copy direction for memcpy"},
    {cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {cudaErrorInvalidResourceHandle, "cudaErrorInvalidResourceHandle", "invalid resource handle"},
    {cudaErrorIllegalState, "cudaErrorIllegalState", "the operation cannot be performed in the present state"},
    {cudaErrorNotReady, "cudaErrorNotReady", "device not ready"},
    {cudaErrorLaunchFailure, "cudaErrorLaunchFailure", "unspecified launch failure"},
    {cudaErrorStreamCaptureUnsupported, "cudaErrorStreamCaptureUnsupported",
     "operation not permitted when stream is capturing"},
    {cudaErrorStreamCaptureInvalidated, "cudaErrorStreamCaptureInvalidated",
     "operation failed due to a previous error during capture"},
    {cudaErrorStreamCaptureUnjoined, "cudaErrorStreamCaptureUnjoined", "capturing stream has unjoined work"},
    {cudaErrorStreamCaptureIsolation, "cudaErrorStreamCaptureIsolation",
     "dependency created on uncaptured work in another stream"},
    {cudaErrorStreamCaptureImplicit, "cudaErrorStreamCaptureImplicit",
     "operation would make the legacy stream depend on a capturing blocking stream"},
    {cudaErrorCapturedEvent, "cudaErrorCapturedEvent",
     "operation not permitted on an event last recorded in a capturing stream"},
};

const char *cudaGetErrorString(cudaError_t error) {
    for (const auto &known : errors)
        if (known.error == error) return known.text;
    return "unrecognized error code";
}

const char *cudaGetErrorName(cudaError_t error) {
    for (const auto &known : errors)
        if (known.error == error) return known.name;
    return "unrecognized error code";
}

cudaError_t cudaGetDeviceCount(int *count) {
    CALL(); // leaves *count as it is where there is none
    *count = (int)rt().devices.size();
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
    CALL();
    if (device < 0 || device >= (int)rt().devices.size()) return call.done(cudaErrorInvalidDevice);
    current_device = device;
    return cudaSuccess;
}

cudaError_t cudaGetDevice(int *device) {
    CALL();
    *device = current_device;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *properties, int device) {
    CALL();
    const settings &set = rt().set;
    if (device < 0 || device >= set.devices) return call.done(cudaErrorInvalidDevice);
    *properties = {};
    snprintf(properties->name, sizeof properties->name, "Skald emulated device %d", device);
    properties->totalGlobalMem = set.memory;
    properties->sharedMemPerBlock = SKALD_EMULATED_SHARED_DEFAULT;
    properties->sharedMemPerBlockOptin = SKALD_EMULATED_SHARED_OPTIN;
    properties->sharedMemPerMultiprocessor = SKALD_EMULATED_SHARED_OPTIN + 1024;
    properties->warpSize = SKALD_EMULATED_WARP;
    properties->maxThreadsPerBlock = SKALD_EMULATED_MAX_BLOCK;
    properties->maxThreadsPerMultiProcessor = 2048;
    properties->major = set.capability / 10;
    properties->minor = set.capability % 10;
    properties->multiProcessorCount = set.processors;
    properties->canMapHostMemory = 1;
    properties->pciBusID = device + 1;
    properties->asyncEngineCount = 2;
    properties->memoryBusWidth = 64;
    properties->l2CacheSize = 1 << 20;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device) {
    CALL();
    const settings &set = rt().set;
    if (device < 0 || device >= set.devices) return call.done(cudaErrorInvalidDevice);
    switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock:
        *value = SKALD_EMULATED_MAX_BLOCK;
        break;
    case cudaDevAttrMaxSharedMemoryPerBlock:
        *value = SKALD_EMULATED_SHARED_DEFAULT;
        break;
    case cudaDevAttrWarpSize:
        *value = SKALD_EMULATED_WARP;
        break;
    case cudaDevAttrClockRate:
        *value = 1000000;
        break;
    case cudaDevAttrMultiProcessorCount:
        *value = set.processors;
        break;
    case cudaDevAttrCanMapHostMemory:
        *value = 1;
        break;
    case cudaDevAttrMemoryClockRate:
        *value = 1000000;
        break;
    case cudaDevAttrGlobalMemoryBusWidth:
        *value = 64;
        break;
    case cudaDevAttrL2CacheSize:
        *value = 1 << 20;
        break;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
        *value = 2048;
        break;
    case cudaDevAttrAsyncEngineCount:
        *value = 2;
        break;
    case cudaDevAttrComputeCapabilityMajor:
        *value = set.capability / 10;
        break;
    case cudaDevAttrComputeCapabilityMinor:
        *value = set.capability % 10;
        break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
        *value = SKALD_EMULATED_SHARED_OPTIN + 1024;
        break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
        *value = SKALD_EMULATED_SHARED_OPTIN;
        break;
    default:
        return call.done(cudaErrorInvalidValue);
    }
    return cudaSuccess;
}

cudaError_t cudaDeviceGetPCIBusId(char *text, int bytes, int device) {
    CALL();
    if (device < 0 || device >= rt().set.devices) return call.done(cudaErrorInvalidDevice);
    snprintf(text, (size_t)bytes, "0000:%02x:00.0", device + 1);
    return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize(void) {
    CALL();
    if (capture_forbids()) return call.done(cudaErrorStreamCaptureUnsupported);
    run_device(current_device);
    return cudaSuccess;
}
}
