/* The launchers of passes: which kernel, how many blocks, what lies where in the workspace. */
#include "kernels/pass.cuh"

extern "C" size_t skald_gpu_entry_bytes(skald_gpu_storage storage) {
    return storage == SKALD_GPU_F32 ? 4 : storage == SKALD_GPU_BF16 ? 2 : 1;
}

extern "C" size_t skald_gpu_stride(uint32_t dim, skald_gpu_storage storage) {
    const size_t sector = 32 / skald_gpu_entry_bytes(storage);
    return (dim + sector - 1) / sector * sector;
}

static const fused_choice *choices(skald_gpu_storage storage) {
    return storage == SKALD_GPU_F32 ? skald_fused_f32 : storage == SKALD_GPU_BF16 ? skald_fused_bf16 : skald_fused_u8;
}

#define DYNAMIC_KEPT 12288 /* bytes of shared memory left for static arrays and the system */

extern "C" int skald_gpu_device_get(skald_gpu_device *out) {
    struct cudaDeviceProp p;
    int device;
    int error = cudaGetDevice(&device);
    if (error == cudaSuccess) error = cudaGetDeviceProperties(&p, device);
    if (error != cudaSuccess) return error;
    *out = {p.multiProcessorCount, p.major, p.minor, p.sharedMemPerBlockOptin, (size_t)p.l2CacheSize};
    for (int s = 0; s < 3; s++)
        for (int k = 0; k < FUSED_CHOICES; k++)
            for (int v = 0; v < 3; v++) {
                const fused_choice *c = choices((skald_gpu_storage)s) + k;
                if (!c->run[v]) continue;
                const size_t bytes =
                    c->kernel == SKALD_GPU_RING ? out->shared_bytes - DYNAMIC_KEPT : model_bytes(v ? 2 : 1, c->most);
                error = cudaFuncSetAttribute((const void *)c->run[v], cudaFuncAttributeMaxDynamicSharedMemorySize,
                                             (int)bytes);
                if (error != cudaSuccess) return error;
            }
    return cudaSuccess;
}

/* ---- plans --------------------------------------------------------------------------------------------- */

typedef struct plan {
    bool valid;
    skald_gpu_kernel kernel;
    const fused_choice *fused;
    int variant;         /* of fused->run */
    int points, outputs; /* models read, sums made */
    int blocks;          /* of the kernel that makes the tallies */
    int stages;          /* RING */
    size_t shared;
    size_t row_bytes;
    uint64_t piece_rows; /* TWICE: rows whose two readings follow each other */
    int pieces;
    /* the workspace: offsets in bytes */
    size_t tally, pending, partial, model, coefficient, largest, fixed, bytes;
} plan;

static uint64_t divide_up(uint64_t a, uint64_t b) {
    return (a + b - 1) / b;
}
static uint64_t least(uint64_t a, uint64_t b) {
    return a < b ? a : b;
}

static size_t take(plan *p, size_t bytes) {
    const size_t at = p->bytes;
    p->bytes += (bytes + 255) / 256 * 256;
    return at;
}

/* Stages of the ring, 0 if they are too few to be of use. */
static int ring_stages(const skald_gpu_device *d, const fused_choice *c, size_t row_bytes) {
    const size_t room = d->shared_bytes / (size_t)c->resident,
                 needed = DYNAMIC_KEPT + RING_BARS + model_bytes(1, c->most);
    if (d->major < 9 || room <= needed) return 0;
    const uint64_t stages = (room - needed) / ((size_t)(c->groups * c->rows) * row_bytes);
    return stages < 3 ? 0 : (int)least(stages, RING_BARS / 8 / (uint64_t)c->groups);
}

static bool takes(const skald_gpu_device *d, const fused_choice *c, const plan *p, uint32_t width) {
    if (width > c->most || !c->run[p->variant]) return false;
    if (c->kernel == SKALD_GPU_RING) return ring_stages(d, c, p->row_bytes) > 0;
    return model_bytes(p->points, c->most) + DYNAMIC_KEPT <= d->shared_bytes;
}

/* The smallest kernel of a kind that takes the rows. */
static const fused_choice *find(const skald_gpu_device *d, const skald_gpu_rows *rows, const plan *p,
                                skald_gpu_kernel kernel) {
    const fused_choice *c = choices(rows->storage);
    for (int k = 0; k < FUSED_CHOICES; k++)
        if (c[k].kernel == kernel && takes(d, c + k, p, (uint32_t)rows->stride)) return c + k;
    return NULL;
}

/* Bytes among the widest rows leave registers no room for rows in flight, and rows beyond 2048 entries leave a block
 * but one: there the ring. */
static const fused_choice *choose(const skald_gpu_device *d, const skald_gpu_rows *rows, const plan *p) {
    static const skald_gpu_kernel order[] = {SKALD_GPU_LANES, SKALD_GPU_WARP, SKALD_GPU_BLOCK};
    const bool bytes = rows->storage == SKALD_GPU_U8 && rows->stride > 512 && rows->stride <= 1024;
    const fused_choice *c = NULL;
    if (bytes || rows->stride > 2048) c = find(d, rows, p, SKALD_GPU_RING);
    for (int k = 0; !c && k < 3; k++) c = find(d, rows, p, order[k]);
    return c;
}

static void plan_fused(const skald_gpu_device *d, const skald_gpu_pass *pass, plan *p) {
    const fused_choice *c = p->fused;
    const uint64_t resident = (uint64_t)d->processors * (uint64_t)c->resident;
    const uint64_t round = divide_up(pass->count, (uint64_t)(c->groups * c->rows));
    uint64_t blocks = divide_up(pass->count, (uint64_t)SKALD_GPU_CHAIN_ROWS * (uint64_t)c->groups);
    blocks = least(divide_up(blocks, resident) * resident, round);
    p->kernel = c->kernel;
    p->blocks = blocks < 1 ? 1 : (int)blocks;
    p->shared = model_bytes(p->points, c->most);
    if (c->kernel == SKALD_GPU_RING) {
        p->stages = ring_stages(d, c, p->row_bytes);
        p->shared += RING_BARS + (size_t)(p->stages * c->groups * c->rows) * p->row_bytes;
    }
    p->partial = take(p, (size_t)p->outputs * (size_t)p->blocks * pass->rows->stride * sizeof(float));
}

static void plan_twice(const skald_gpu_device *d, const skald_gpu_pass *pass, plan *p) {
    const uint64_t count = pass->count < 1 ? 1 : pass->count;
    const uint64_t slabs = divide_up(p->row_bytes, 16 * 256);
    p->kernel = SKALD_GPU_TWICE;
    p->piece_rows = count;
    if (p->outputs && p->points) { /* else one reading */
        const uint64_t rows = (d->l2_bytes ? d->l2_bytes : (size_t)32 << 20) / 2 / p->row_bytes / 4 * 4;
        p->piece_rows = least(count, rows < 64 ? 64 : rows);
    }
    const uint64_t tile = p->points ? 4 : 128;
    p->blocks = (int)least(divide_up(p->piece_rows, tile), 8 * (uint64_t)d->processors);
    p->pieces = (int)least(divide_up(2 * (uint64_t)d->processors, slabs), divide_up(p->piece_rows, 8));
    p->model = take(p, (size_t)p->points * pass->rows->stride * sizeof(float));
    p->coefficient = take(p, (size_t)p->outputs * p->piece_rows * sizeof(float));
    p->partial = take(p, (size_t)p->outputs * (size_t)p->pieces * pass->rows->stride * sizeof(double));
}

static void plan_sparse(const skald_gpu_device *d, const skald_gpu_pass *pass, plan *p) {
    const uint64_t blocks = least(divide_up(pass->count, 8), 8 * (uint64_t)d->processors);
    p->kernel = SKALD_GPU_SPARSE;
    p->blocks = blocks < 1 ? 1 : (int)blocks;
    p->model = take(p, (size_t)p->points * pass->rows->dim * sizeof(float));
    if (p->outputs && (pass->deterministic || p->points == 0)) {
        p->coefficient = take(p, (size_t)p->outputs * pass->count * sizeof(float));
        p->largest = take(p, 2 * sizeof(unsigned));
        p->fixed = take(p, (size_t)p->outputs * pass->rows->dim * sizeof(long long));
    }
}

static plan plan_of(const skald_gpu_device *d, const skald_gpu_pass *pass) {
    plan p = {};
    const skald_gpu_rows *rows = pass->rows;
    const bool objective = pass->kind == SKALD_GPU_OBJECTIVE;
    p.points = objective ? (int)pass->points : pass->kind == SKALD_GPU_DIFFERENCE ? 2 : pass->kind != SKALD_GPU_ANCHOR;
    p.outputs = objective ? (p.points == 2 && pass->g[1] ? 2 : pass->g[0] != NULL) : 1;
    if (rows->n > 0xffffffffu || pass->count > rows->n || (objective && (p.points < 1 || p.points > 2))) return p;
    if (rows->layout == SKALD_CSR) {
        if (pass->kernel != SKALD_GPU_AUTO && pass->kernel != SKALD_GPU_SPARSE) return p;
        plan_sparse(d, pass, &p);
    } else {
        p.row_bytes = rows->stride * skald_gpu_entry_bytes(rows->storage);
        if (p.row_bytes % 32 != 0 || rows->stride < rows->dim) return p;
        p.variant = p.points == 1 ? 0 : p.outputs;
        if (p.points && p.outputs && pass->kernel != SKALD_GPU_TWICE)
            p.fused = pass->kernel == SKALD_GPU_AUTO ? choose(d, rows, &p) : find(d, rows, &p, pass->kernel);
        if (p.fused)
            plan_fused(d, pass, &p);
        else if (pass->kernel == SKALD_GPU_AUTO || pass->kernel == SKALD_GPU_TWICE)
            plan_twice(d, pass, &p);
        else
            return p;
    }
    p.tally = take(&p, (size_t)p.blocks * TALLY * sizeof(double));
    if (pass->kind == SKALD_GPU_SAGA) p.pending = take(&p, pass->count * sizeof(float));
    p.valid = true;
    return p;
}

extern "C" size_t skald_gpu_pass_workspace(const skald_gpu_device *device, const skald_gpu_pass *pass) {
    return plan_of(device, pass).bytes;
}

extern "C" size_t skald_gpu_pass_workspace_most(const skald_gpu_device *device, const skald_gpu_rows *rows,
                                                uint64_t count) {
    size_t most = 0;
    double *const there = (double *)1; /* only looked at for NULL */
    for (int kind = SKALD_GPU_GRADIENT; kind <= SKALD_GPU_CURVATURE; kind++)
        for (int deterministic = 0; deterministic < 2; deterministic++)
            for (uint32_t points = 1; points <= 2; points++)
                for (int sums = 0; sums < 2; sums++) {
                    skald_gpu_pass pass = {};
                    pass.kind = (skald_gpu_kind)kind;
                    pass.rows = rows;
                    pass.count = count;
                    pass.points = points;
                    pass.deterministic = deterministic != 0;
                    if (sums) pass.g[0] = pass.g[1] = there;
                    const size_t bytes = skald_gpu_pass_workspace(device, &pass);
                    if (bytes > most) most = bytes;
                }
    return most;
}

extern "C" const char *skald_gpu_pass_name(const skald_gpu_device *device, const skald_gpu_pass *pass) {
    static const char *const names[7][3] = {{"none", "none", "none"},
                                            {"lanes a row, f32", "lanes a row, bf16", "lanes a row, u8"},
                                            {"warp a row, f32", "warp a row, bf16", "warp a row, u8"},
                                            {"block a row, f32", "block a row, bf16", "block a row, u8"},
                                            {"ring, f32", "ring, bf16", "ring, u8"},
                                            {"two readings, f32", "two readings, bf16", "two readings, u8"},
                                            {"warp a sparse row, atomic f64", "warp a sparse row, fixed point", ""}};
    const plan p = plan_of(device, pass);
    if (!p.valid) return names[0][0];
    const int column = p.kernel == SKALD_GPU_SPARSE ? (int)pass->deterministic : (int)pass->rows->storage;
    return names[p.kernel][column];
}

/* ---- runs ---------------------------------------------------------------------------------------------- */

#define CUDA_TRY(call)                                                                                                 \
    do {                                                                                                               \
        const int error_ = (call);                                                                                     \
        if (error_ != cudaSuccess) return error_;                                                                      \
    } while (0)

typedef struct run {
    const skald_gpu_pass *pass;
    const plan *p;
    unsigned char *workspace;
    row_args rows;
    finish_args finish;
    skald_gpu_stream stream;
} run;

static int run_fused(run *r) {
    const plan *p = r->p;
    const skald_gpu_rows *rows = r->pass->rows;
    fused_args a = {};
    a.rows = r->rows;
    a.x = (const unsigned char *)rows->x;
    a.row_bytes = p->row_bytes;
    a.unit = rows->unit;
    a.dim = rows->dim - r->pass->intercept;
    a.width = (uint32_t)rows->stride;
    a.stages = p->stages;
    for (int q = 0; q < p->points; q++) a.w[q] = r->pass->w[q];
    for (int o = 0; o < p->outputs; o++) {
        a.partial[o] = (float *)(r->workspace + p->partial) + (size_t)o * (size_t)p->blocks * rows->stride;
        r->finish.partial[o] = a.partial[o];
    }
    r->finish.partials = p->blocks;
    const fused_kernel kernel = p->fused->run[p->variant];
    SKALD_LAUNCH(kernel, (unsigned)p->blocks, (unsigned)p->fused->block, p->shared, r->stream, a);
    return cudaGetLastError();
}

static int run_twice(run *r) {
    const plan *p = r->p;
    const skald_gpu_rows *rows = r->pass->rows;
    const uint32_t width = (uint32_t)rows->stride;
    twice_args a = {};
    a.x = (const unsigned char *)rows->x;
    a.row_bytes = p->row_bytes;
    a.width = width;
    a.pieces = p->pieces;
    for (int q = 0; q < p->points; q++) {
        float *w = (float *)(r->workspace + p->model) + (size_t)q * width;
        CUDA_TRY(skald_twice_model(r->pass->w[q], rows->unit, rows->dim - r->pass->intercept, width, w, r->stream));
        a.w[q] = w;
    }
    for (int o = 0; o < p->outputs; o++) {
        a.coefficient[o] = (float *)(r->workspace + p->coefficient) + (size_t)o * p->piece_rows;
        a.sum[o] = (double *)(r->workspace + p->partial) + (size_t)o * (size_t)p->pieces * width;
        r->finish.partial[o] = a.sum[o];
    }
    r->finish.partials = p->pieces;
    r->finish.wide = true;
    a.rows = p->piece_rows;
    do { /* once at least: an empty batch clears the sums */
        CUDA_TRY(skald_twice_dots(rows->storage, p->points, p->blocks, &a, &r->rows, r->stream));
        if (p->outputs) CUDA_TRY(skald_twice_sums(rows->storage, &a, &r->rows, p->outputs, r->stream));
        a.offset += p->piece_rows;
        a.add = r->rows.more = true;
    } while (a.offset < r->pass->count);
    return cudaSuccess;
}

static int run_sparse(run *r) {
    const plan *p = r->p;
    const skald_gpu_rows *rows = r->pass->rows;
    const bool fixed = r->pass->deterministic;
    sparse_args a = {};
    a.rows = r->rows;
    a.ptr = rows->ptr;
    a.idx = rows->idx;
    a.val = rows->val;
    a.dim = rows->dim;
    a.norm2 = rows->norm2;
    for (int q = 0; q < p->points; q++) {
        float *w = (float *)(r->workspace + p->model) + (size_t)q * rows->dim;
        CUDA_TRY(skald_twice_model(r->pass->w[q], NULL, rows->dim - r->pass->intercept, rows->dim, w, r->stream));
        a.w[q] = w;
    }
    r->finish.outputs = 0; /* no partials: g is there already */
    const bool apart = p->outputs && (fixed || p->points == 0);
    for (int o = 0; o < p->outputs; o++) {
        a.g[o] = r->pass->g[o];
        CUDA_TRY(cudaMemsetAsync(a.g[o], 0, rows->dim * sizeof(double), r->stream));
        if (!apart) continue;
        a.coefficient[o] = (float *)(r->workspace + p->coefficient) + (size_t)o * r->pass->count;
        a.fixed[o] = (long long *)(r->workspace + p->fixed) + (size_t)o * rows->dim;
    }
    if (!apart) return skald_sparse_fused(p->blocks, p->points, &a, r->stream);
    sparse_args first = a;
    first.g[0] = first.g[1] = NULL;
    if (fixed) {
        a.largest = first.largest = (unsigned *)(r->workspace + p->largest);
        CUDA_TRY(cudaMemsetAsync(a.largest, 0, 2 * sizeof(unsigned), r->stream));
        CUDA_TRY(cudaMemsetAsync(a.fixed[0], 0, (size_t)p->outputs * rows->dim * sizeof(long long), r->stream));
    }
    CUDA_TRY(skald_sparse_fused(p->blocks, p->points, &first, r->stream));
    CUDA_TRY(skald_sparse_sums(p->blocks, p->outputs, &a, fixed, r->stream));
    if (!fixed) return cudaSuccess;
    return skald_sparse_unfix(p->outputs, &a, r->stream);
}

/* CURVATURE of sparse rows: the mean is taken here, `finish` does not touch g. */
__global__ void __launch_bounds__(256) scale_by(double *g, uint32_t n, double by) {
    for (uint32_t j = blockIdx.x * blockDim.x + threadIdx.x; j < n; j += gridDim.x * blockDim.x) g[j] *= by;
}

extern "C" int skald_gpu_pass_run(const skald_gpu_device *device, const skald_gpu_pass *pass, void *workspace,
                                  size_t bytes, skald_gpu_stream stream) {
    const plan p = plan_of(device, pass);
    if (!p.valid || bytes < p.bytes || (p.outputs == 2 && !pass->g[0])) return cudaErrorInvalidValue;
    const skald_gpu_rows *rows = pass->rows;
    run r = {};
    r.pass = pass;
    r.p = &p;
    r.workspace = (unsigned char *)workspace;
    r.stream = stream;
    r.rows.kind = pass->kind;
    r.rows.loss = pass->loss;
    r.rows.delta = pass->huber_delta;
    r.rows.list = pass->list;
    r.rows.count = pass->count;
    r.rows.record = rows->record;
    r.rows.s = rows->s;
    r.rows.tally = (double *)(r.workspace + p.tally);
    if (pass->kind == SKALD_GPU_SAGA) r.rows.pending = (float *)(r.workspace + p.pending);
    if (pass->kind == SKALD_GPU_OBJECTIVE)
        for (int q = 0; q < p.points; q++) r.rows.margin[q] = pass->margin[q];
    for (int q = 0; pass->intercept && q < p.points; q++) r.rows.bias[q] = pass->w[q] + rows->dim - 1;
    for (int o = 0; pass->intercept && o < p.outputs; o++) r.finish.last[o] = TALLY_COEFFICIENTS(pass->kind, o);
    r.finish.dim = rows->dim;
    r.finish.width = rows->layout == SKALD_CSR ? rows->dim : (uint32_t)rows->stride;
    r.finish.outputs = p.outputs;
    r.finish.points = pass->kind == SKALD_GPU_OBJECTIVE ? p.points : 1;
    r.finish.unit = rows->layout == SKALD_CSR ? NULL : rows->unit;
    r.finish.scale = pass->kind == SKALD_GPU_CURVATURE && pass->count ? 1.0 / (double)pass->count : 1.0;
    for (int o = 0; o < p.outputs; o++) r.finish.g[o] = pass->g[o];
    r.finish.tally = r.rows.tally;
    r.finish.tallies = p.blocks;
    r.finish.count = pass->count;
    r.finish.sums = pass->sums;
    r.finish.list = pass->list;
    r.finish.pending = r.rows.pending;
    r.finish.record = rows->record;
    if (p.kernel == SKALD_GPU_SPARSE)
        CUDA_TRY(run_sparse(&r));
    else if (p.kernel == SKALD_GPU_TWICE)
        CUDA_TRY(run_twice(&r));
    else
        CUDA_TRY(run_fused(&r));
    CUDA_TRY(skald_finish(&r.finish, stream));
    if (p.kernel == SKALD_GPU_SPARSE && r.finish.scale != 1) {
        const unsigned blocks = (rows->dim + 255) / 256;
        SKALD_LAUNCH(scale_by, blocks < 1024 ? blocks : 1024, 256, 0, stream, pass->g[0], rows->dim, r.finish.scale);
    }
    return cudaGetLastError();
}
