/* What an operation runs on: streams, staging buffers, results. */
#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "base/base.h"
#include "compute/cuda/cuda.h"

enum { LINE = 256 }; /* blocks of memory begin at multiples of it */

static size_t lines(size_t bytes) {
    return (bytes + LINE - 1) / LINE * LINE;
}

static size_t vector_bytes(size_t dim) {
    return lines(dim * sizeof(double));
}

/* Settings, two vectors in, row numbers, results with two vectors out. */
static size_t staging_bytes(size_t rows, size_t dim) {
    return lines(sizeof(skald_gpu_local_settings)) + 4 * vector_bytes(dim) + lines(rows * sizeof(uint32_t)) +
           sizeof(cuda_results);
}

size_t cuda_lane_bytes(size_t rows, size_t dim, size_t workspace_bytes) {
    return staging_bytes(rows, dim) + lines(workspace_bytes);
}

/* The same parts in the same order on both sides. Returns where the last one ends. */
static char *carve(const cuda_lane *lane, char *at, skald_gpu_local_settings **settings, double *vector[2],
                   uint32_t **list, cuda_results **results) {
    *settings = (skald_gpu_local_settings *)(void *)at;
    at += lines(sizeof **settings);
    for (int k = 0; k < 2; k++, at += vector_bytes(lane->dim)) vector[k] = (double *)(void *)at;
    *list = (uint32_t *)(void *)at;
    at += lines(lane->rows * sizeof **list);
    *results = (cuda_results *)(void *)at;
    return at + sizeof **results + 2 * vector_bytes(lane->dim);
}

skald_status cuda_lane_init(cuda_compute *c, cuda_lane *lane, size_t rows, size_t dim, size_t workspace_bytes) {
    static_assert(sizeof(cuda_results) == LINE, "vectors follow the results on a boundary");
    memset(lane, 0, sizeof *lane);
    lane->rows = rows;
    lane->dim = dim;
    lane->width = vector_bytes(dim) / sizeof(double);
    CUDA_TRY(c, cudaStreamCreateWithFlags(&lane->stream, cudaStreamNonBlocking), "making a stream");
    CUDA_TRY(c, cudaStreamCreateWithFlags(&lane->copy, cudaStreamNonBlocking), "making a stream");
    CUDA_TRY(c, cudaEventCreateWithFlags(&lane->copied, cudaEventDisableTiming), "making an event");
    CUDA_TRY(c, cudaMallocHost(&lane->host_block, staging_bytes(rows, dim)), "pinning host memory");
    CUDA_TRY(c, cudaMalloc(&lane->device_block, cuda_lane_bytes(rows, dim, workspace_bytes)),
             "allocating workspace on the card");
    carve(lane, lane->host_block, &lane->h_settings, lane->h_vector, &lane->h_list, &lane->h_results);
    char *end = carve(lane, lane->device_block, &lane->d_settings, lane->d_vector, &lane->d_list, &lane->d_results);
    for (size_t k = 0; k < 2; k++) lane->d_out[k] = (double *)(void *)(lane->d_results + 1) + k * lane->width;
    lane->d_workspace = end;
    lane->workspace_bytes = workspace_bytes;
    return SKALD_OK;
}

void cuda_lane_fini(cuda_lane *lane) {
    if (lane->stream) cudaStreamSynchronize(lane->stream);
    if (lane->copy) cudaStreamSynchronize(lane->copy);
    if (lane->device_block) cudaFree(lane->device_block);
    if (lane->host_block) cudaFreeHost(lane->host_block);
    if (lane->copied) cudaEventDestroy(lane->copied);
    if (lane->copy) cudaStreamDestroy(lane->copy);
    if (lane->stream) cudaStreamDestroy(lane->stream);
    memset(lane, 0, sizeof *lane);
}

static skald_status upload(cuda_compute *c, const cuda_lane *lane, double *to, const double *from, size_t bytes,
                           double *stage) {
    const bool there = cuda_is_vector(c, from);
    if (!there) memcpy(stage, from, bytes);
    CUDA_TRY(c,
             cudaMemcpyAsync(to, there ? from : stage, bytes, there ? cudaMemcpyDeviceToDevice : cudaMemcpyHostToDevice,
                             lane->stream),
             "copying a model to the card");
    return SKALD_OK;
}

skald_status cuda_upload_vector(cuda_compute *c, cuda_lane *lane, int which, const double *v) {
    return upload(c, lane, lane->d_vector[which], v, lane->dim * sizeof *v, lane->h_vector[which]);
}

skald_status cuda_upload(cuda_compute *c, cuda_lane *lane, double *to, const double *from, size_t bytes) {
    return upload(c, lane, to, from, bytes, lane->h_vector[0]);
}

skald_status cuda_upload_list(cuda_compute *c, cuda_lane *lane, const uint32_t *rows, size_t count,
                              cudaStream_t stream) {
    const size_t bytes = count * sizeof *rows;
    if (!rows || !count) return SKALD_OK;
    memcpy(lane->h_list, rows, bytes);
    CUDA_TRY(c, cudaMemcpyAsync(lane->d_list, lane->h_list, bytes, cudaMemcpyHostToDevice, stream),
             "copying row numbers to the card");
    return SKALD_OK;
}

int cuda_wait(cuda_lane *lane) {
    int error = cudaStreamSynchronize(lane->stream);
    if (error == cudaSuccess) return error;
    (void)cudaGetLastError();
    return cudaStreamSynchronize(lane->stream);
}

/* The copy of the results and the wait for it come after the history may have changed, and an error that does not
 * stay must not leave the two sides apart: both calls get a second try. */
static int fetch(cuda_lane *lane, void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind) {
    int error = cudaMemcpyAsync(to, from, bytes, kind, lane->stream);
    if (error == cudaSuccess) return error;
    (void)cudaGetLastError();
    return cudaMemcpyAsync(to, from, bytes, kind, lane->stream);
}

skald_status cuda_download(cuda_compute *c, cuda_lane *lane, uint32_t points, double *const out[2],
                           skald_gpu_sums sums[2]) {
    const char *doing = "waiting for the results of the card";
    size_t vectors = 0;
    bool stays[2];
    for (size_t k = 0; k < 2; k++) {
        stays[k] = cuda_is_vector(c, out[k]);
        if (out[k] && !stays[k]) vectors = k + 1;
        if (stays[k])
            CUDA_TRY(c, fetch(lane, out[k], lane->d_out[k], lane->dim * sizeof(double), cudaMemcpyDeviceToDevice),
                     doing);
    }
    CUDA_TRY(c,
             fetch(lane, lane->h_results, lane->d_results,
                   sizeof(cuda_results) + vectors * lane->width * sizeof(double), cudaMemcpyDeviceToHost),
             doing);
    CUDA_TRY(c, cuda_wait(lane), doing);
    memcpy(sums, lane->h_results->sums, points * sizeof *sums);
    for (uint32_t p = 0; p < points; p++)
        if (!(sums[p].bad == 0))
            return skald_fail(SKALD_ENUMERIC, "a margin or derivative is not finite: the model has diverged, or the "
                                              "rows hold values too large; use a smaller step, or scale the features");
    for (size_t k = 0; k < vectors; k++)
        if (out[k] && !stays[k])
            memcpy(out[k], (double *)(void *)(lane->h_results + 1) + k * lane->width, lane->dim * sizeof(double));
    return SKALD_OK;
}

skald_status cuda_settle(cuda_lane *lane, skald_status st) {
    cudaStreamSynchronize(lane->copy);
    cudaStreamSynchronize(lane->stream);
    (void)cudaGetLastError();
    return st;
}
