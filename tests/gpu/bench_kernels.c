/* How near the kernels come to the card's memory: bytes of the rows of a batch over time, beside a device copy and two
 * cuBLAS gemv of the same run.
 *
 *   bench_kernels [--rows N] [--batch B] [--calls C] [--seconds S] OUTPUT      writes OUTPUT.json and OUTPUT.md
 *
 * Batches are taken in turn from a shard of N rows, so that none is in L2 from the time before. A measurement is the
 * median of several stretches of C launches, timed by events: launches overlap, as in a run. After S seconds no case is
 * begun. */
#include <dlfcn.h>

#include "bench_shard.h"
#include "bench_softmax.h"
#include "gather.h"

/* ---- passes --------------------------------------------------------------------------------------------- */

static void run_pass(void *context, int turn) {
    bench *b = context;
    const size_t slices = shard_rows / batch_rows, from = (size_t)turn % slices * batch_rows;
    b->slice = b->rows;
    b->pass.rows = &b->slice;
    b->pass.list = NULL;
    if (b->listed) {
        b->pass.list = b->list[turn % LISTS];
    } else if (b->rows.layout == SKALD_CSR) {
        b->slice.ptr += from; /* entries stay where they are */
        b->slice.record += from;
    } else {
        b->slice.x = (const char *)b->rows.x + from * b->rows.stride * skald_gpu_entry_bytes(b->rows.storage);
        b->slice.record += from;
    }
    CUDA(skald_gpu_pass_run(&check_device, &b->pass, b->workspace, b->bytes, check_stream));
}

static const char *name_of(const bench *b, skald_gpu_kernel kernel) {
    const skald_gpu_pass pass = {.kind = SKALD_GPU_SAGA, .rows = &b->rows, .count = batch_rows, .kernel = kernel};
    return skald_gpu_pass_name(&check_device, &pass);
}

/* Objectives are taken over all rows of a shard only: neighbours. */
static void measure_pass(bench *b, const char *what, skald_gpu_kind kind, skald_gpu_kernel kernel, bool deterministic,
                         double row_bytes) {
    const check_mark before = mark();
    const bool objective = kind == SKALD_GPU_OBJECTIVE, two = objective || kind == SKALD_GPU_DIFFERENCE;
    const char *note = objective                  ? "objective of two, with gradients"
                       : two                      ? "difference of two"
                       : kernel == SKALD_GPU_AUTO ? "chosen"
                                                  : "";
    b->pass = (skald_gpu_pass){.kind = kind,
                               .loss = SKALD_LOGISTIC,
                               .rows = &b->rows,
                               .count = batch_rows,
                               .points = 2,
                               .w = {b->w, two ? b->u : NULL},
                               .g = {b->g, objective ? b->h : NULL},
                               .sums = b->sums,
                               .deterministic = deterministic,
                               .kernel = kernel};
    const char *name = skald_gpu_pass_name(&check_device, &b->pass);
    if (strcmp(name, "none") == 0) return;
    b->bytes = skald_gpu_pass_workspace(&check_device, &b->pass);
    b->workspace = device_take(b->bytes);
    const int reads = strstr(name, "two readings") || strstr(name, "fixed point") ? 2 : 1;
    for (int listed = 0; listed < (objective ? 1 : 2); listed++) {
        b->listed = listed != 0;
        report(what, name, listed != 0, reads, seconds_of(run_pass, b, calls_each), (double)batch_rows * row_bytes,
               note);
    }
    release(before);
}

/* ---- cuBLAS ---------------------------------------------------------------------------------------------- */

typedef struct blas {
    void *handle;
    int (*set_stream)(void *, cudaStream_t);
    int (*sgemv)(void *, int, int, int, const float *, const float *, int, const float *, int, const float *, float *,
                 int);
    bench *b;
    float *w, *z, *g, *gathered;
} blas;

/* Margins and a gradient by two gemv; the coefficients between them are left out. Rows are columns to cuBLAS. */
static void run_blas(void *context, int turn) {
    blas *l = context;
    const bench *b = l->b;
    const float one = 1, zero = 0, *x = b->rows.x;
    const int dim = (int)b->rows.dim, stride = (int)b->rows.stride, n = (int)batch_rows;
    if (b->listed) {
        CUDA(gather_rows(l->gathered, x, b->list[turn % LISTS], batch_rows, b->rows.stride * 4, check_stream));
        x = l->gathered;
    } else {
        x += (size_t)turn % (shard_rows / batch_rows) * batch_rows * b->rows.stride;
    }
    CUDA(l->sgemv(l->handle, 1, dim, n, &one, x, stride, l->w, 1, &zero, l->z, 1));
    CUDA(l->sgemv(l->handle, 0, dim, n, &one, x, stride, l->z, 1, &zero, l->g, 1));
}

static void measure_blas(bench *b, const char *what) {
    const char *named = getenv("SKALD_CUBLAS");
    void *library = dlopen(named ? named : "libcublas.so.13", RTLD_NOW);
    if (!library && !named) library = dlopen("libcublas.so.12", RTLD_NOW);
    if (!library) {
        leave_out("cuBLAS", dlerror());
        return;
    }
    const check_mark before = mark();
    blas l = {.b = b};
    int (*create)(void **) = NULL;
    *(void **)&create = dlsym(library, "cublasCreate_v2");
    *(void **)&l.set_stream = dlsym(library, "cublasSetStream_v2");
    *(void **)&l.sgemv = dlsym(library, "cublasSgemv_v2");
    if (!create || !l.set_stream || !l.sgemv || create(&l.handle) || l.set_stream(l.handle, check_stream)) {
        leave_out("cuBLAS", "it does not start");
    } else {
        l.w = device_take(b->rows.dim * sizeof(float));
        l.g = device_take(b->rows.dim * sizeof(float));
        l.z = device_take(batch_rows * sizeof(float));
        l.gathered = device_take(batch_rows * b->rows.stride * sizeof(float));
        for (int listed = 0; listed < 2; listed++) {
            b->listed = listed != 0;
            report(what, listed ? "cuBLAS: gather, two sgemv" : "cuBLAS: two sgemv", listed != 0, 2 + listed,
                   seconds_of(run_blas, &l, calls_each), (double)batch_rows * (double)b->rows.stride * 4, "peer");
        }
    }
    release(before);
}

/* ---- local steps ------------------------------------------------------------------------------------------ */

static void run_graph(void *context, int turn) {
    (void)turn;
    CUDA(cudaGraphLaunch(*(cudaGraphExec_t *)context, check_stream));
}

static void measure_local(bench *b, const char *what, uint32_t step_rows, double row_bytes) {
    const check_mark before = mark();
    const uint64_t most = batch_rows < 100u * step_rows ? batch_rows : 100u * step_rows;
    const size_t bytes = b->rows.dim * sizeof(double);
    skald_gpu_local_settings host, *settings = device_take(sizeof host);
    float *norm2 = device_take(shard_rows * sizeof(float));
    CUDA(skald_gpu_norms(&b->rows, 0, shard_rows, norm2, check_stream));
    b->rows.norm2 = norm2;
    skald_gpu_local_set(&host, 1e-4, (double)shard_rows, 1e-4, 0, most);
    to_device(settings, &host, sizeof host);
    double *abar = host_take(bytes);
    const skald_gpu_local local = {.loss = SKALD_LOGISTIC,
                                   .saga = true,
                                   .rows = &b->rows,
                                   .list = b->list[0],
                                   .most = most,
                                   .step_rows = step_rows,
                                   .settings = settings,
                                   .w = b->w,
                                   .abar = device_copy(abar, bytes),
                                   .dw = device_take(bytes),
                                   .g = b->g,
                                   .sums = b->sums};
    void *workspace = device_take(skald_gpu_local_workspace(&local));
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    CUDA(cudaStreamSynchronize(check_stream));
    CUDA(cudaStreamBeginCapture(check_stream, cudaStreamCaptureModeThreadLocal));
    CUDA(skald_gpu_local_begin(&local, workspace, check_stream));
    CUDA(skald_gpu_local_steps(&local, workspace, 0, (uint32_t)((most + step_rows - 1) / step_rows), check_stream));
    CUDA(skald_gpu_local_end(&local, workspace, check_stream));
    CUDA(cudaStreamEndCapture(check_stream, &graph));
    CUDA(cudaGraphInstantiate(&exec, graph, 0));
    const double seconds = seconds_of(run_graph, &exec, 3), steps = (double)((most + step_rows - 1) / step_rows);
    char kernel[64], note[64];
    snprintf(kernel, sizeof kernel, "local steps of %u rows, a graph", step_rows);
    snprintf(note, sizeof note, "%.2f us a step", seconds / steps * 1e6);
    report(what, kernel, true, 2, seconds, (double)most * row_bytes, note);
    CUDA(cudaGraphExecDestroy(exec));
    CUDA(cudaGraphDestroy(graph));
    release(before);
}

/* ---- cases ------------------------------------------------------------------------------------------------- */

static void bench_dense(skald_gpu_storage storage, uint32_t dim) {
    const check_mark before = mark();
    const size_t all[2] = {shard_rows, batch_rows};
    bench b;
    char what[64];
    if (dim > 8192) { /* as many bytes as others */
        batch_rows = (batch_rows + 9) / 10;
        shard_rows = (shard_rows + 9) / 10;
    }
    make_dense(&b, storage, dim);
    snprintf(what, sizeof what, "%zu x %u %s", batch_rows, dim, storage_name(storage));
    const double row_bytes = (double)b.rows.stride * (double)skald_gpu_entry_bytes(storage);
    for (int k = SKALD_GPU_AUTO; k <= SKALD_GPU_TWICE; k++) /* the chosen one once */
        if (k == SKALD_GPU_AUTO || strcmp(name_of(&b, (skald_gpu_kernel)k), name_of(&b, SKALD_GPU_AUTO)) != 0)
            measure_pass(&b, what, SKALD_GPU_SAGA, (skald_gpu_kernel)k, false, row_bytes);
    measure_pass(&b, what, SKALD_GPU_DIFFERENCE, SKALD_GPU_AUTO, false, row_bytes);
    measure_pass(&b, what, SKALD_GPU_OBJECTIVE, SKALD_GPU_AUTO, false, row_bytes);
    if (storage == SKALD_GPU_F32) measure_blas(&b, what);
    if (dim == 2000)
        for (uint32_t rows = 16; rows <= (emulated ? 16u : 1024u); rows *= 4) measure_local(&b, what, rows, row_bytes);
    release(before);
    shard_rows = all[0];
    batch_rows = all[1];
}

static void bench_sparse(uint32_t dim, uint32_t per_row) {
    const check_mark before = mark();
    bench b;
    char what[64];
    make_sparse(&b, dim, per_row);
    snprintf(what, sizeof what, "%zu x %u csr, %u a row", batch_rows, dim, per_row);
    for (int deterministic = 0; deterministic < 2; deterministic++)
        for (int kind = SKALD_GPU_SAGA; kind <= SKALD_GPU_OBJECTIVE; kind++)
            measure_pass(&b, what, (skald_gpu_kind)kind, SKALD_GPU_AUTO, deterministic != 0, 8.0 * per_row);
    for (uint32_t rows = 64; rows <= (emulated ? 64u : 1024u); rows *= 16) measure_local(&b, what, rows, 8.0 * per_row);
    release(before);
}

int main(int argc, char **argv) {
    static const struct {
        uint32_t dim;
        skald_gpu_storage storage;
    } cases[] = {{2000, SKALD_GPU_F32}, {784, SKALD_GPU_F32}, {2000, SKALD_GPU_BF16}, {2000, SKALD_GPU_U8},
                 {784, SKALD_GPU_BF16}, {784, SKALD_GPU_U8},  {20000, SKALD_GPU_F32}, {8192, SKALD_GPU_F32}};
    enum { DENSE = sizeof cases / sizeof *cases, CASES = DENSE + 3 };
    const char *output = NULL;
    double most = 1e9;
    const time_t begin = time(NULL);
    for (int k = 1; k < argc; k++) {
        const char *value = k + 1 < argc ? argv[k + 1] : "";
        if (strcmp(argv[k], "--rows") == 0)
            shard_rows = strtoull(value, NULL, 10), k++;
        else if (strcmp(argv[k], "--batch") == 0)
            batch_rows = strtoull(value, NULL, 10), k++;
        else if (strcmp(argv[k], "--calls") == 0)
            calls_each = atoi(value), k++;
        else if (strcmp(argv[k], "--seconds") == 0)
            most = strtod(value, NULL), k++;
        else
            output = argv[k];
    }
    if (!output || batch_rows < 1 || shard_rows < 2 * batch_rows || calls_each < 1) {
        fprintf(stderr,
                "usage: bench_kernels [--rows N] [--batch B] [--calls C] [--seconds S] OUTPUT   (N at least 2 B)\n");
        return 2;
    }
    const int skip = check_begin();
    if (skip) return skip;
    CUDA(cudaGetDeviceProperties(&card, 0));
    emulated = strstr(card.name, "emulated") != NULL;
    measure_copy();
    printf("%s, device copy %.0f GB/s\n", card.name, copy_bandwidth * 1e-9);
    int done = 0, failed = write_output(output);
    for (; done < CASES && difftime(time(NULL), begin) < most; done++) {
        if (done < DENSE)
            bench_dense(cases[done].storage, cases[done].dim);
        else if (done == DENSE)
            bench_sparse(47236, 74);
        else
            bench_softmax(done == DENSE + 1 ? SKALD_GPU_F32 : SKALD_GPU_U8);
        failed |= write_output(output);
    }
    if (done < CASES) {
        char what[64];
        snprintf(what, sizeof what, "the last %d of %d cases", CASES - done, CASES);
        leave_out(what, "the time was up");
        failed |= write_output(output);
    }
    CUDA(cudaStreamDestroy(check_stream));
    return failed ? 1 : 0;
}
