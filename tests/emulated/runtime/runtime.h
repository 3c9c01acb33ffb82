// The emulated runtime, inside: streams are queues of operations that run in whichever thread makes them go on (a
// synchronisation, a query, or at once), all under one lock. Nothing here is freed at exit: threads may still be in it.
#pragma once

extern "C" {
#include "../engine/engine.h"
#include "../engine/fiber.h"
}
#include "../external.h"

#include <cuda_runtime_api.h>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

// Where an operation of a stream is done; events and waits hold on to it.
struct mark {
    CUstream_st *stream = nullptr;
    bool done = false;
    double seconds = 0;
};
typedef std::shared_ptr<mark> mark_ptr;

struct operation {
    std::function<bool()> run; // false: cannot be done yet (waits for another process or thread)
    std::vector<mark_ptr> waits;
    mark_ptr mark;
    const char *host_read = nullptr; // pinned memory that is read when it runs
    size_t host_bytes = 0;
    bool reads_anything = false; // a host function, a graph: may read any pinned memory
    bool pushes = false;         // somebody waits for it without asking the runtime
    double queued = 0;
};

struct graph_node {
    std::function<bool()> run;
    std::vector<int> after;
};

struct CUgraph_st {
    std::vector<graph_node> nodes;
    CUstream_st *origin = nullptr;
    std::set<CUstream_st *> streams;
    unsigned long thread = 0;
    enum cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
    bool invalid = false;
};

struct CUgraphExec_st {
    std::vector<graph_node> nodes;
    mark_ptr last;
};

struct CUstream_st {
    int device = 0;
    bool blocking = true, destroyed = false;
    bool busy = false; // its head runs without the lock
    std::deque<operation> queue;
    mark_ptr last;
    unsigned queries = 0;
    CUgraph_st *capture = nullptr; // and the nodes that the next one follows
    std::vector<int> tail;
};

struct CUevent_st {
    bool timing = true;
    mark_ptr mark;
    CUgraph_st *capture = nullptr;
    std::vector<int> nodes;
};

struct device {
    char *base = nullptr;
    size_t reserved = 0, high = 0, used = 0;
    std::map<char *, size_t> blocks;
    CUstream_st legacy;
    int open = 0;
};

struct settings {
    enum skald_emulated_when streams = SKALD_EMULATED_LATE;
    uint64_t streams_seed = 0;
    int devices = 1, processors = 4, capability = 90;
    size_t memory = (size_t)4 << 30;
    long fail = 0; // the call that fails; fail_on: and all after it
    bool fail_on = false;
};

struct runtime {
    settings set;
    std::vector<device *> devices;
    std::set<CUstream_st *> streams; // live and destroyed ones with work
    std::set<CUevent_st *> events;
    std::set<CUgraph_st *> graphs;
    std::set<CUgraphExec_st *> executables;
    std::map<char *, std::pair<size_t, unsigned>> pinned; // bytes, flags
    std::map<const void *, size_t> dynamic;               // cudaFuncSetAttribute
    std::set<CUgraph_st *> captures;
    long calls = 0;
    std::map<size_t, long> copies[4]; // by cudaMemcpyKind and bytes
};
runtime &rt();

extern thread_local int current_device;

// One call of the interface: takes the lock, counts, injects the failure asked for, lets streams run in random mode.
class api_call {
  public:
    explicit api_call(bool allocates = false);
    ~api_call();
    // Sets the thread's last error too.
    cudaError_t done(cudaError_t error);
    cudaError_t failed = cudaSuccess;
};
#define CALL(...)                                                                                                      \
    api_call call{__VA_ARGS__};                                                                                        \
    if (call.failed) return call.done(call.failed)

void lock_runtime();
void unlock_runtime();
void start_runtime(); // settings and devices, once; under the lock
bool parse_when(const char *text, enum skald_emulated_when *when, uint64_t *seed);
void set_last_error(cudaError_t error);

// memory.cc
void device_create(device *device);
bool device_owns(const void *pointer);            // lies in some device's address range
int device_of(const void *pointer, size_t bytes); // whose allocation holds all of it, or -1
bool is_pinned(const void *pointer, size_t bytes, unsigned *flags);
void device_open(int device); // lets the host touch it; nests
void device_close(int device);
void check_red_zones(int device, const char *kernel);
void install_fault_handler();

// stream.cc
CUstream_st *stream_of(cudaStream_t handle); // NULL: not a stream
// Queues (or captures); in eager mode runs. `op` has everything but its mark.
cudaError_t enqueue(CUstream_st *stream, operation op, mark_ptr *mark);
void run_until(const mark_ptr &mark);
void run_device(int device);
void run_sometimes();
double now_seconds();
bool capture_forbids(); // this thread may not make unsafe calls while something is captured

// graph.cc
cudaError_t capture_operation(CUstream_st *stream, std::function<bool()> run);
cudaError_t capture_wait(CUstream_st *stream, CUevent_st *event);
bool run_graph(const std::vector<graph_node> &nodes);
