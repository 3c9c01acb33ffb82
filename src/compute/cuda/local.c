/* Local steps: begin, hundreds of short steps, end. Steps run as CUDA graphs of CUDA_GRAPH_STEPS each, made at the
 * first task that needs them, because launching their kernels one by one takes longer than they do. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "compute/checks.h"
#include "compute/cuda/softmax.h"

static void drop_graphs(cuda_graphs *k) {
    for (size_t i = 0; k->exec && i < k->count; i++)
        if (k->exec[i]) cudaGraphExecDestroy(k->exec[i]);
    (void)cudaGetLastError();
    free(k->exec);
    *k = (cuda_graphs){0};
}

void cuda_local_drop(cuda_shard *shard) {
    for (int k = 0; k < CUDA_GRAPH_KINDS; k++) drop_graphs(&shard->graphs[k]);
    if (shard->local_workspace && cudaFree(shard->local_workspace) != cudaSuccess) (void)cudaGetLastError();
    shard->local_workspace = NULL;
    shard->local_bytes = 0;
}

/* The kind of task's graphs; the kind longest unused gives way. */
static skald_status find_kind(cuda_shard *shard, const skald_gpu_local *l, cuda_graphs **out) {
    cuda_graphs *oldest = &shard->graphs[0];
    *out = NULL;
    for (int k = 0; k < CUDA_GRAPH_KINDS; k++) {
        cuda_graphs *g = &shard->graphs[k];
        if (g->exec && g->saga == l->saga && g->step_rows == l->step_rows) *out = g;
        if (g->touched < oldest->touched) oldest = g;
    }
    if (!*out) {
        drop_graphs(oldest);
        const uint64_t rows = (uint64_t)l->step_rows * CUDA_GRAPH_STEPS;
        oldest->count = (size_t)((l->most + rows - 1) / rows);
        oldest->exec = calloc(oldest->count, sizeof *oldest->exec);
        if (!oldest->exec) return skald_fail(SKALD_ENOMEM, "out of memory for %zu graphs", oldest->count);
        oldest->saga = l->saga;
        oldest->step_rows = l->step_rows;
        *out = oldest;
    }
    (*out)->touched = ++shard->clock;
    return SKALD_OK;
}

static skald_status make_graph(cuda_compute *c, cuda_shard *shard, const skald_gpu_local *l, size_t k,
                               cudaGraphExec_t *out) {
    cudaGraph_t graph = NULL;
    cudaStream_t stream = shard->lane.stream;
    /* other threads may allocate meanwhile */
    CUDA_TRY(c, cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "beginning a graph");
    const uint32_t first = (uint32_t)k * CUDA_GRAPH_STEPS,
                   all = (uint32_t)((l->most + l->step_rows - 1) / l->step_rows);
    const uint32_t count = all - first < CUDA_GRAPH_STEPS ? all - first : CUDA_GRAPH_STEPS;
    int error = skald_gpu_local_steps(l, shard->local_workspace, first, count, stream);
    int ended = cudaStreamEndCapture(stream, &graph);
    if (ended != cudaSuccess && !graph) cudaStreamEndCapture(stream, &graph); /* must not go on capturing */
    if (error == cudaSuccess) error = ended;
    if (error == cudaSuccess) error = cudaGraphInstantiate(out, graph, 0);
    if (graph && cudaGraphDestroy(graph) != cudaSuccess) (void)cudaGetLastError(); /* or the next launch has it */
    if (error == cudaSuccess) return SKALD_OK;
    *out = NULL;
    return cuda_fail(c, error, "making a graph of local steps");
}

/* Workspace and graphs for a task of `steps` steps. Does nothing from the second task of a kind on. */
static skald_status prepare(cuda_compute *c, cuda_shard *shard, const skald_gpu_local *l, size_t whole,
                            cuda_graphs **kind) {
    const size_t bytes = skald_gpu_local_workspace(l);
    if (bytes > shard->local_bytes) {
        cuda_local_drop(shard); /* graphs have the workspace's address in them */
        CUDA_TRY(c, cudaMalloc(&shard->local_workspace, bytes), "allocating workspace for local steps");
        shard->local_bytes = bytes;
    }
    if (!l->list || whole == 0) return SKALD_OK;
    TRY(find_kind(shard, l, kind));
    for (size_t k = 0; k < whole; k++)
        if (!(*kind)->exec[k]) TRY(make_graph(c, shard, l, k, &(*kind)->exec[k]));
    return SKALD_OK;
}

static skald_status start(cuda_compute *c, cuda_shard *shard, const skald_batch *batch, const skald_gpu_local *l,
                          const double *w, const double *abar) {
    cuda_lane *lane = &shard->lane;
    const uint64_t count = lane->h_settings->count;
    const size_t steps = (size_t)((count + l->step_rows - 1) / l->step_rows);
    /* a graph's surplus steps return at once: for half of its steps it is worth its while */
    const size_t whole = l->list ? (steps + CUDA_GRAPH_STEPS / 2) / CUDA_GRAPH_STEPS : 0;
    cuda_graphs *kind = NULL;
    TRY(prepare(c, shard, l, whole, &kind));
    CUDA_TRY(c,
             cudaMemcpyAsync(lane->d_settings, lane->h_settings, sizeof *lane->h_settings, cudaMemcpyHostToDevice,
                             lane->stream),
             "copying the settings of local steps");
    TRY(cuda_upload_vector(c, lane, 0, w));
    if (l->saga) TRY(cuda_upload_vector(c, lane, 1, abar));
    CUDA_TRY(c, skald_gpu_local_begin(l, shard->local_workspace, lane->stream), "beginning local steps");
    TRY(cuda_upload_list(c, lane, batch->rows, batch->count, lane->copy)); /* travels meanwhile */
    CUDA_TRY(c, cudaEventRecord(lane->copied, lane->copy), "recording an event");
    CUDA_TRY(c, cudaStreamWaitEvent(lane->stream, lane->copied, 0), "waiting for a copy");
    for (size_t k = 0; k < whole; k++)
        CUDA_TRY(c, cudaGraphLaunch(kind->exec[k], lane->stream), "launching local steps");
    const size_t done = whole * CUDA_GRAPH_STEPS;
    if (steps > done)
        CUDA_TRY(
            c, skald_gpu_local_steps(l, shard->local_workspace, (uint32_t)done, (uint32_t)(steps - done), lane->stream),
            "launching local steps");
    CUDA_TRY(c, skald_gpu_local_end(l, shard->local_workspace, lane->stream), "ending local steps");
    return SKALD_OK;
}

skald_status cuda_local(skald_compute *base, skald_shard *base_shard, const skald_batch *batch,
                        const skald_local *local, const double *w, const double *abar, double *dw, double *g,
                        skald_sums *sums) {
    cuda_compute *c = (cuda_compute *)base;
    cuda_shard *shard = (cuda_shard *)base_shard;
    cuda_lane *lane = &shard->lane;
    const skald_objective *o = &base->objective;
    TRY(compute_check_batch(shard->rows.n, batch));
    TRY(compute_check_local(o, local, abar));
    TRY(cuda_begin(c, shard, local->saga));
    const cuda_softmax *m = shard->softmax;
    const uint64_t n = shard->rows.n, count = batch->rows ? batch->count : n;
    const uint64_t longest = skald_max_size(m ? count : n, 1); /* softmax copies a step's rows */
    const skald_gpu_local l = {.loss = o->loss,
                               .huber_delta = o->huber_delta,
                               .saga = local->saga,
                               .intercept = o->intercept,
                               .intercept_step = skald_objective_intercept_step(o),
                               .l1 = o->l1 > 0,
                               .deterministic = c->deterministic,
                               .rows = &shard->rows,
                               .list = batch->rows ? lane->d_list : NULL,
                               .most = skald_max_size(n, 1),
                               .step_rows = (uint32_t)skald_min_size(local->step_rows, longest),
                               .settings = lane->d_settings,
                               .w = lane->d_vector[0],
                               .abar = local->saga ? lane->d_vector[1] : NULL,
                               .dw = lane->d_out[0],
                               .g = local->saga ? lane->d_out[1] : NULL,
                               .sums = lane->d_results->sums,
                               .classes = m ? m->classes : 1,
                               .alpha = m ? m->alpha : NULL,
                               .pending = m ? m->pending : NULL};
    skald_gpu_local_set(lane->h_settings, local->eta, local->saga ? local->n : 1, o->l2, o->l1, count);
    skald_status st = start(c, shard, batch, &l, w, abar);
    if (st != SKALD_OK) return cuda_settle(lane, st);
    skald_gpu_sums got[2];
    st = cuda_download(c, lane, 1, (double *[2]){dw, local->saga ? g : NULL}, got);
    if (st == SKALD_ENUMERIC)
        return skald_fail(st, "local steps diverged: a derivative is not finite; use a smaller step");
    if (st != SKALD_OK) {
        shard->doubtful |= local->saga;
        return cuda_settle(lane, st);
    }
    *sums = (skald_sums){.loss = got[0].loss, .rows = got[0].rows, .k = got[0].k, .k2 = got[0].k2};
    if (!local->saga && g) memset(g, 0, lane->dim * sizeof *g); /* the host's: who keeps vectors here asks for none */
    return SKALD_OK;
}
