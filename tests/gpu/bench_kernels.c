/* How near the kernels come to the card's memory: bytes of the rows of a batch over time, beside a device copy and two
 * cuBLAS gemv of the same run.
 *
 *   bench_kernels [--rows N] [--batch B] OUTPUT      writes OUTPUT.json and OUTPUT.md
 *
 * Batches are taken in turn from a shard of N rows, so that none is in L2 from the time before. A measurement is the
 * median of several stretches of launches, timed by events: launches overlap, as in a run. */
#include <dlfcn.h>
#include <time.h>

#include "gather.h"
#include "problem.h"

#define STRETCHES 7

static size_t shard_rows = 400000, batch_rows = 40000;
static double copy_bandwidth; /* bytes read and written a second */
static FILE *json, *table;
static bool first_line = true;

/* ---- timing -------------------------------------------------------------------------------------------- */

typedef void (*work)(void *context, int turn);

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Seconds a call of `run`, median over stretches. */
static double seconds_of(work run, void *context, int calls) {
    cudaEvent_t begin, end;
    double seconds[STRETCHES];
    int turn = 0;
    CUDA(cudaEventCreateWithFlags(&begin, cudaEventDefault));
    CUDA(cudaEventCreateWithFlags(&end, cudaEventDefault));
    for (int k = 0; k < 3; k++) run(context, turn++);
    for (int s = 0; s < STRETCHES; s++) {
        float ms;
        CUDA(cudaEventRecord(begin, check_stream));
        for (int k = 0; k < calls; k++) run(context, turn++);
        CUDA(cudaEventRecord(end, check_stream));
        CUDA(cudaEventSynchronize(end));
        CUDA(cudaEventElapsedTime(&ms, begin, end));
        seconds[s] = (double)ms * 1e-3 / calls;
    }
    CUDA(cudaEventDestroy(begin));
    CUDA(cudaEventDestroy(end));
    qsort(seconds, STRETCHES, sizeof *seconds, by_value);
    return seconds[STRETCHES / 2];
}

static void report(const char *what, const char *kernel, const char *rows, double seconds, double bytes,
                   const char *note) {
    const double bandwidth = bytes / seconds, share = bandwidth / copy_bandwidth;
    fprintf(json,
            "%s\n    {\"case\": \"%s\", \"kernel\": \"%s\", \"rows\": \"%s\", \"us\": %.3f, \"GBps\": %.2f, "
            "\"share_of_copy\": %.4f, \"note\": \"%s\"}",
            first_line ? "" : ",", what, kernel, rows, seconds * 1e6, bandwidth * 1e-9, share, note);
    fprintf(table, "| %s | %s | %s | %.1f | %.0f | %.1f%% | %s |\n", what, kernel, rows, seconds * 1e6,
            bandwidth * 1e-9, 100 * share, note);
    printf("%-26s %-34s %-10s %9.1f us %8.0f GB/s %6.1f%%  %s\n", what, kernel, rows, seconds * 1e6, bandwidth * 1e-9,
           100 * share, note);
    fflush(stdout);
    first_line = false;
}

/* ---- the card's own copy -------------------------------------------------------------------------------- */

typedef struct copy_case {
    char *from, *to;
    size_t bytes;
} copy_case;

static void run_copy(void *context, int turn) {
    const copy_case *c = context;
    (void)turn;
    CUDA(cudaMemcpyAsync(c->to, c->from, c->bytes, cudaMemcpyDeviceToDevice, check_stream));
}

static void measure_copy(void) {
    const check_mark before = mark();
    copy_case c = {.bytes = batch_rows * 2000 * 4};
    c.from = device_take(c.bytes);
    c.to = device_take(c.bytes);
    copy_bandwidth = 2 * (double)c.bytes / seconds_of(run_copy, &c, 10);
    release(before);
}

/* ---- shards --------------------------------------------------------------------------------------------- */

#define LISTS 8

typedef struct bench {
    skald_gpu_rows rows; /* all of the shard */
    uint32_t *list[LISTS];
    double *w, *g;
    skald_gpu_sums *sums;
    skald_gpu_pass pass;
    skald_gpu_rows slice; /* a batch of neighbours: the shard from some row on */
    bool listed;
    void *workspace;
    size_t bytes;
} bench;

/* Fills device memory with a pattern of random bytes, made once. */
static void fill(void *to, size_t bytes, const void *pattern, size_t pattern_bytes) {
    for (size_t at = 0; at < bytes; at += pattern_bytes) {
        const size_t n = bytes - at < pattern_bytes ? bytes - at : pattern_bytes;
        CUDA(cudaMemcpyAsync((char *)to + at, pattern, n, cudaMemcpyHostToDevice, check_stream));
    }
    CUDA(cudaStreamSynchronize(check_stream));
}

static void make_common(bench *b) {
    const uint32_t dim = b->rows.dim;
    double *w = host_take(dim * sizeof *w);
    float *y = host_take(shard_rows * sizeof *y);
    uint32_t *all = host_take(shard_rows * sizeof *all);
    for (uint32_t j = 0; j < dim; j++) w[j] = 1e-3 * random_unit();
    for (size_t i = 0; i < shard_rows; i++) {
        y[i] = random_bits() & 1 ? 1.0f : -1.0f;
        all[i] = (uint32_t)i;
    }
    for (size_t i = shard_rows - 1; i > 0; i--) {
        const size_t k = (size_t)(random_bits() % (i + 1));
        const uint32_t swap = all[i];
        all[i] = all[k];
        all[k] = swap;
    }
    const size_t apart = (shard_rows - batch_rows) / LISTS;
    for (int k = 0; k < LISTS; k++) b->list[k] = device_copy(all + (size_t)k * apart, batch_rows * sizeof *all);
    b->w = device_copy(w, dim * sizeof *w);
    b->g = device_take(dim * sizeof *w);
    b->sums = device_take(sizeof *b->sums);
    b->rows.n = shard_rows;
    b->rows.record = device_take(shard_rows * sizeof(skald_gpu_record));
    CUDA(skald_gpu_records(device_copy(y, shard_rows * sizeof *y), shard_rows, b->rows.record, check_stream));
}

static void make_dense(bench *b, skald_gpu_storage storage, uint32_t dim) {
    memset(b, 0, sizeof *b);
    b->rows.storage = storage;
    b->rows.dim = dim;
    b->rows.stride = skald_gpu_stride(dim, storage);
    const size_t row = b->rows.stride * skald_gpu_entry_bytes(storage), some = shard_rows < 4096 ? shard_rows : 4096;
    unsigned char *pattern = host_take(some * row);
    for (size_t k = 0; k < some * b->rows.stride; k++) {
        const float v = (float)random_unit();
        uint32_t bits;
        memcpy(&bits, &v, 4);
        if (k % b->rows.stride >= dim) continue; /* padding stays zero */
        if (storage == SKALD_GPU_F32) memcpy(pattern + 4 * k, &bits, 4);
        if (storage == SKALD_GPU_BF16) memcpy(pattern + 2 * k, (char *)&bits + 2, 2);
        if (storage == SKALD_GPU_U8) pattern[k] = (unsigned char)(bits >> 8);
    }
    void *x = device_take(shard_rows * row);
    fill(x, shard_rows * row, pattern, some * row);
    b->rows.x = x;
    make_common(b);
}

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

static void measure_pass(bench *b, const char *what, skald_gpu_kernel kernel, bool deterministic, double row_bytes) {
    const check_mark before = mark();
    b->pass = (skald_gpu_pass){.kind = SKALD_GPU_SAGA,
                               .loss = SKALD_LOGISTIC,
                               .rows = &b->rows,
                               .count = batch_rows,
                               .w = {b->w, NULL},
                               .g = {b->g, NULL},
                               .sums = b->sums,
                               .deterministic = deterministic,
                               .kernel = kernel};
    const char *name = skald_gpu_pass_name(&check_device, &b->pass);
    if (strcmp(name, "none") == 0) return;
    b->bytes = skald_gpu_pass_workspace(&check_device, &b->pass);
    b->workspace = device_take(b->bytes);
    for (int listed = 0; listed < 2; listed++) {
        b->listed = listed != 0;
        report(what, name, listed ? "random" : "neighbours", seconds_of(run_pass, b, 20),
               (double)batch_rows * row_bytes, kernel == SKALD_GPU_AUTO ? "chosen" : "");
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
        printf("cuBLAS: %s\n", dlerror());
        return;
    }
    const check_mark before = mark();
    blas l = {.b = b};
    int (*create)(void **) = NULL;
    *(void **)&create = dlsym(library, "cublasCreate_v2");
    *(void **)&l.set_stream = dlsym(library, "cublasSetStream_v2");
    *(void **)&l.sgemv = dlsym(library, "cublasSgemv_v2");
    if (!create || !l.set_stream || !l.sgemv || create(&l.handle) || l.set_stream(l.handle, check_stream)) {
        printf("cuBLAS does not start\n");
    } else {
        l.w = device_take(b->rows.dim * sizeof(float));
        l.g = device_take(b->rows.dim * sizeof(float));
        l.z = device_take(batch_rows * sizeof(float));
        l.gathered = device_take(batch_rows * b->rows.stride * sizeof(float));
        for (int listed = 0; listed < 2; listed++) {
            b->listed = listed != 0;
            report(what, listed ? "cuBLAS: gather, two sgemv" : "cuBLAS: two sgemv", listed ? "random" : "neighbours",
                   seconds_of(run_blas, &l, 20), (double)batch_rows * (double)b->rows.stride * 4, "peer");
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
    report(what, kernel, "random", seconds, (double)most * row_bytes, note);
    CUDA(cudaGraphExecDestroy(exec));
    CUDA(cudaGraphDestroy(graph));
    release(before);
}

/* ---- cases ------------------------------------------------------------------------------------------------- */

static void bench_dense(skald_gpu_storage storage, uint32_t dim) {
    static const char *const names[] = {"f32", "bf16", "u8"};
    const check_mark before = mark();
    bench b;
    char what[64];
    make_dense(&b, storage, dim);
    snprintf(what, sizeof what, "%zu x %u %s", batch_rows, dim, names[storage]);
    const double row_bytes = (double)b.rows.stride * (double)skald_gpu_entry_bytes(storage);
    for (int k = SKALD_GPU_AUTO; k <= SKALD_GPU_TWICE; k++) /* the chosen one once */
        if (k == SKALD_GPU_AUTO || strcmp(name_of(&b, (skald_gpu_kernel)k), name_of(&b, SKALD_GPU_AUTO)) != 0)
            measure_pass(&b, what, (skald_gpu_kernel)k, false, row_bytes);
    if (storage == SKALD_GPU_F32) measure_blas(&b, what);
    if (dim == 2000)
        for (uint32_t rows = 16; rows <= 1024; rows *= 4) measure_local(&b, what, rows, row_bytes);
    release(before);
}

static void bench_sparse(uint32_t dim, uint32_t per_row) {
    const check_mark before = mark();
    bench b;
    char what[64];
    memset(&b, 0, sizeof b);
    b.rows.layout = SKALD_CSR;
    b.rows.dim = dim;
    uint64_t *ptr = host_take((shard_rows + 1) * sizeof *ptr);
    uint32_t *idx = host_take(shard_rows * per_row * sizeof *idx);
    float *val = host_take(shard_rows * per_row * sizeof *val);
    for (size_t i = 0; i < shard_rows; i++) {
        ptr[i + 1] = (i + 1) * per_row;
        for (uint32_t k = 0; k < per_row; k++) { /* one from each stretch: ascending; the low ones are common words */
            const double u = (random_unit() + 1) / 2, from = pow((double)k / per_row, 3),
                         to = pow((k + 1.0) / per_row, 3);
            const uint32_t low = k + (uint32_t)(from * (dim - per_row)), high = k + (uint32_t)(to * (dim - per_row));
            idx[i * per_row + k] = low + (uint32_t)(u * (high - low));
            val[i * per_row + k] = (float)(0.1 * (random_unit() + 1));
        }
    }
    b.rows.ptr = device_copy(ptr, (shard_rows + 1) * sizeof *ptr);
    b.rows.idx = device_copy(idx, shard_rows * per_row * sizeof *idx);
    b.rows.val = device_copy(val, shard_rows * per_row * sizeof *val);
    make_common(&b);
    float *norm2 = device_take(shard_rows * sizeof(float));
    CUDA(skald_gpu_norms(&b.rows, 0, shard_rows, norm2, check_stream));
    b.rows.norm2 = norm2;
    snprintf(what, sizeof what, "%zu x %u csr, %u a row", batch_rows, dim, per_row);
    measure_pass(&b, what, SKALD_GPU_AUTO, false, 8.0 * per_row);
    measure_pass(&b, what, SKALD_GPU_AUTO, true, 8.0 * per_row);
    for (uint32_t rows = 64; rows <= 1024; rows *= 16) measure_local(&b, what, rows, 8.0 * per_row);
    release(before);
}

int main(int argc, char **argv) {
    const char *output = NULL;
    for (int k = 1; k < argc; k++) {
        if (strcmp(argv[k], "--rows") == 0 && k + 1 < argc)
            shard_rows = strtoull(argv[++k], NULL, 10);
        else if (strcmp(argv[k], "--batch") == 0 && k + 1 < argc)
            batch_rows = strtoull(argv[++k], NULL, 10);
        else
            output = argv[k];
    }
    if (!output || batch_rows < 1 || shard_rows < 2 * batch_rows) {
        fprintf(stderr, "usage: bench_kernels [--rows N] [--batch B] OUTPUT   (N at least 2 B)\n");
        return 2;
    }
    const int skip = check_begin();
    if (skip) return skip;
    char path[4096];
    struct cudaDeviceProp card;
    int runtime = 0, driver = 0;
    CUDA(cudaGetDeviceProperties(&card, 0));
    CUDA(cudaRuntimeGetVersion(&runtime));
    CUDA(cudaDriverGetVersion(&driver));
    snprintf(path, sizeof path, "%s.json", output);
    json = fopen(path, "w");
    snprintf(path, sizeof path, "%s.md", output);
    table = fopen(path, "w");
    if (!json || !table) {
        perror(path);
        return 1;
    }
    measure_copy();
    fprintf(json,
            "{\n  \"card\": \"%s\", \"runtime\": %d, \"driver\": %d, \"time\": %ld, \"shard_rows\": %zu,\n"
            "  \"copy_GBps\": %.2f,\n  \"results\": [",
            card.name, runtime, driver, (long)time(NULL), shard_rows, copy_bandwidth * 1e-9);
    fprintf(table,
            "%s, CUDA %d.%d. Device copy: %.0f GB/s (bytes read and written). Batches from a shard of %zu rows.\n\n"
            "| batch | kernel | rows | us | GB/s | of the copy | |\n| --- | --- | --- | ---: | ---: | ---: | --- |\n",
            card.name, runtime / 1000, runtime % 1000 / 10, copy_bandwidth * 1e-9, shard_rows);
    printf("%s, device copy %.0f GB/s\n", card.name, copy_bandwidth * 1e-9);
    static const uint32_t dims[] = {2000, 784};
    for (int k = 0; k < 2; k++)
        for (int storage = SKALD_GPU_F32; storage <= SKALD_GPU_U8; storage++)
            bench_dense((skald_gpu_storage)storage, dims[k]);
    bench_dense(SKALD_GPU_F32, 8192);
    bench_sparse(47236, 74);
    fprintf(json, "\n  ]\n}\n");
    const bool written = fclose(json) == 0 && fclose(table) == 0;
    CUDA(cudaStreamDestroy(check_stream));
    return written ? 0 : 1;
}
