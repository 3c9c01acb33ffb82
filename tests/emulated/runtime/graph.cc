// Capture and graphs: nodes with the nodes they follow. A launch runs them in some order that this allows.
#include "runtime.h"

#include <pthread.h>

bool capture_forbids() {
    for (const CUgraph_st *capture : rt().captures)
        if (capture->mode == cudaStreamCaptureModeGlobal ||
            (capture->mode == cudaStreamCaptureModeThreadLocal && capture->thread == pthread_self()))
            return true;
    return false;
}

cudaError_t capture_operation(CUstream_st *stream, std::function<bool()> run) {
    CUgraph_st *graph = stream->capture;
    if (graph->invalid) return cudaErrorStreamCaptureInvalidated;
    graph->nodes.push_back({std::move(run), stream->tail});
    stream->tail = {(int)graph->nodes.size() - 1};
    return cudaSuccess;
}

cudaError_t capture_wait(CUstream_st *stream, CUevent_st *event) {
    if (stream->capture && !event->capture) {
        if (!event->mark || event->mark->done) return cudaSuccess;
        stream->capture->invalid = true;
        return cudaErrorStreamCaptureIsolation;
    }
    if (!rt().captures.count(event->capture)) return cudaErrorInvalidResourceHandle;
    if (stream->capture && stream->capture != event->capture) {
        stream->capture->invalid = event->capture->invalid = true;
        return cudaErrorStreamCaptureMerge;
    }
    stream->capture = event->capture;
    stream->capture->streams.insert(stream);
    stream->tail.insert(stream->tail.end(), event->nodes.begin(), event->nodes.end());
    return cudaSuccess;
}

// Late: the node captured last of those that may run, so that a missing dependency shows.
bool run_graph(const std::vector<graph_node> &nodes) {
    settings &set = rt().set;
    std::vector<bool> done(nodes.size());
    for (size_t left = nodes.size(); left > 0; left--) {
        std::vector<size_t> ready;
        for (size_t i = 0; i < nodes.size(); i++) {
            bool can = !done[i];
            for (int before : nodes[i].after) can = can && done[before];
            if (can) ready.push_back(i);
        }
        size_t chosen = ready.front();
        if (set.streams == SKALD_EMULATED_LATE) chosen = ready.back();
        if (set.streams == SKALD_EMULATED_SOMETIMES) chosen = ready[random_next(&set.streams_seed) % ready.size()];
        if (nodes[chosen].run) nodes[chosen].run();
        done[chosen] = true;
    }
    return true;
}

static bool reaches(const CUgraph_st *graph, const std::vector<int> &from, int node) {
    for (int at : from)
        if (at == node || reaches(graph, graph->nodes[at].after, node)) return true;
    return false;
}

extern "C" {

cudaError_t cudaStreamBeginCapture(cudaStream_t handle, enum cudaStreamCaptureMode mode) {
    CALL();
    CUstream_st *stream = stream_of(handle);
    if (!stream) return call.done(cudaErrorInvalidResourceHandle);
    if (stream == &rt().devices[stream->device]->legacy) return call.done(cudaErrorStreamCaptureUnsupported);
    if (stream->capture) return call.done(cudaErrorIllegalState);
    CUgraph_st *graph = new CUgraph_st;
    graph->origin = stream;
    graph->streams.insert(stream);
    graph->thread = pthread_self();
    graph->mode = mode;
    rt().captures.insert(graph);
    stream->capture = graph;
    stream->tail.clear();
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t *result) {
    CALL();
    CUstream_st *stream = stream_of(handle);
    if (!stream || !result) return call.done(cudaErrorInvalidValue);
    *result = nullptr;
    CUgraph_st *graph = stream->capture;
    if (!graph) return call.done(cudaErrorIllegalState);
    if (graph->origin != stream) return call.done(cudaErrorStreamCaptureUnmatched);
    cudaError_t error = graph->invalid ? cudaErrorStreamCaptureInvalidated : cudaSuccess;
    for (CUstream_st *joined : graph->streams) {
        if (joined != stream)
            for (int node : joined->tail)
                if (!reaches(graph, stream->tail, node) && !error) error = cudaErrorStreamCaptureUnjoined;
    }
    for (CUstream_st *joined : graph->streams) {
        joined->capture = nullptr;
        joined->tail.clear();
    }
    graph->streams.clear();
    rt().captures.erase(graph);
    for (CUevent_st *event : rt().events)
        if (event->capture == graph) event->capture = nullptr;
    if (error) {
        delete graph;
        return call.done(error);
    }
    rt().graphs.insert(graph);
    *result = graph;
    return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t handle, enum cudaStreamCaptureStatus *status) {
    CALL();
    CUstream_st *stream = stream_of(handle);
    if (!stream || !status) return call.done(cudaErrorInvalidValue);
    *status = !stream->capture           ? cudaStreamCaptureStatusNone
              : stream->capture->invalid ? cudaStreamCaptureStatusInvalidated
                                         : cudaStreamCaptureStatusActive;
    return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *executable, cudaGraph_t graph, unsigned long long flags) {
    CALL(true);
    if (!executable || !rt().graphs.count(graph) || flags) return call.done(cudaErrorInvalidValue);
    *executable = new CUgraphExec_st;
    (*executable)->nodes = graph->nodes;
    rt().executables.insert(*executable);
    return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t handle) {
    CALL();
    CUstream_st *stream = stream_of(handle);
    if (!stream || !rt().executables.count(executable)) return call.done(cudaErrorInvalidResourceHandle);
    if (stream->capture) return call.done(cudaErrorStreamCaptureUnsupported);
    auto nodes = std::make_shared<std::vector<graph_node>>(executable->nodes);
    operation op;
    op.reads_anything = true;
    // Launches of one graph follow each other, in whatever streams they are.
    if (executable->last) op.waits.push_back(executable->last);
    op.run = [nodes] { return run_graph(*nodes); };
    return call.done(enqueue(stream, std::move(op), &executable->last));
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
    CALL();
    if (!rt().executables.erase(executable)) return call.done(cudaErrorInvalidValue);
    delete executable;
    return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    CALL();
    if (!rt().graphs.erase(graph)) return call.done(cudaErrorInvalidValue);
    delete graph;
    return cudaSuccess;
}
}
