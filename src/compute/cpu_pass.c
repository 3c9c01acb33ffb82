/* Passes over rows on several threads.
 *
 * The rows of a call are cut into chunks, a function of the call alone; each chunk has its own sums; the
 * sums are added in the order of the chunks. So bits do not depend on the number of threads. */
#include "compute/cpu.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"

#define MAX_CHUNKS 64
#define MIN_CHUNK_ROWS 256
#define REDUCE_COLUMNS 4096
#define MAX_SUMS ((size_t)1 << 23) /* doubles of all chunks' sums together, several classes */

typedef struct run {
    cpu_compute *c;
    const cpu_pass *pass;
    double *const *g;
    size_t chunks, chunk_rows, room; /* room: entries of a sum as the kernels see it */
    double *partial[2];              /* chunks x room */
    double *tiles;                   /* softmax: chunks x cpu_softmax_doubles */
    cpu_tally tally[MAX_CHUNKS];
} run;

static size_t slots_of(const cpu_pass *p) {
    return p->columns ? p->columns->count : p->shard->rows.dim;
}

/* How many chunks: enough for any number of threads, few enough that clearing and adding their sums costs
 * little beside the rows themselves. */
static size_t chunk_count(const cpu_pass *p, bool with_sums) {
    size_t most = p->count / MIN_CHUNK_ROWS;
    const size_t slots = slots_of(p);
    if (with_sums && p->shard->rows.layout == SKALD_CSR) {
        double per_row = p->shard->base.facts.nonzeros / (double)p->shard->rows.n;
        double worth = (double)p->count * per_row / (16.0 * (double)slots);
        if (worth < (double)most) most = (size_t)worth;
    }
    if (with_sums && p->classes > 1) most = skald_min_size(most, MAX_SUMS / cpu_room(p->shard, p->classes, slots));
    return most < 1 ? 1 : most > MAX_CHUNKS ? MAX_CHUNKS : most;
}

static void run_chunk(void *context, size_t k) {
    run *r = context;
    size_t begin = k * r->chunk_rows, end = skald_min_size(begin + r->chunk_rows, r->pass->count);
    double *g[2] = {NULL, NULL};
    for (int o = 0; o < 2; o++)
        if (r->partial[o]) {
            g[o] = r->partial[o] + k * r->room;
            memset(g[o], 0, r->room * sizeof(double));
        }
    const size_t tile = cpu_softmax_doubles(r->pass->classes);
    if (r->pass->classes > 1)
        r->c->kernels->softmax_pass(r->pass, begin, end, g, &r->tally[k], r->tiles + k * tile);
    else
        r->c->kernels->pass(r->pass, begin, end, g, &r->tally[k]);
}

static void reduce_columns(void *context, size_t block) {
    run *r = context;
    const size_t begin = block * REDUCE_COLUMNS;
    const size_t count = skald_min_size(REDUCE_COLUMNS, r->pass->shard->rows.dim - begin);
    for (int o = 0; o < 2; o++) {
        if (!r->partial[o]) continue;
        double *out = r->g[o] + begin;
        const double *in = r->partial[o] + begin;
        memcpy(out, in, count * sizeof *out);
        for (size_t k = 1; k < r->chunks; k++) {
            in += r->room;
            for (size_t j = 0; j < count; j++) out[j] += in[j];
        }
    }
}

static void add_chunks(const run *r, double *sum, size_t count) {
    for (size_t k = 1; k < r->chunks; k++)
        for (size_t j = 0; j < count; j++) sum[j] += sum[k * r->room + j];
}

/* Several classes, dense rows: a block is a class's part of the sum. */
static void reduce_classes(void *context, size_t block) {
    run *r = context;
    const skald_rows *rows = &r->pass->shard->rows;
    for (int o = 0; o < 2; o++) {
        if (!r->partial[o]) continue;
        double *sum = r->partial[o] + block * rows->stride;
        add_chunks(r, sum, rows->dim);
        memcpy(r->g[o] + block * rows->dim, sum, rows->dim * sizeof *sum);
    }
}

/* Several classes, sparse rows: that of some columns. */
static void reduce_slots(void *context, size_t block) {
    run *r = context;
    const cpu_columns *columns = r->pass->columns;
    const size_t C = r->pass->classes, lanes = cpu_lanes(C), dim = r->pass->shard->rows.dim;
    const size_t first = block * CPU_COLUMN_BLOCK, count = skald_min_size(CPU_COLUMN_BLOCK, dim - first);
    const size_t begin = cpu_columns_slot(columns, first), end = cpu_columns_slot(columns, first + count);
    for (int o = 0; o < 2; o++) {
        if (!r->partial[o]) continue;
        add_chunks(r, r->partial[o] + begin * lanes, (end - begin) * lanes);
        for (size_t c = 0; c < C && end - begin < count; c++)
            memset(r->g[o] + c * dim + first, 0, count * sizeof(double));
        cpu_columns_scatter(columns, C, dim, r->partial[o], begin, end, lanes, r->g[o]);
    }
}

static void add_tally(cpu_tally *to, const cpu_tally *from) {
    for (int p = 0; p < 2; p++) {
        to->sums[p].loss += from->sums[p].loss;
        to->sums[p].dphi += from->sums[p].dphi;
        to->sums[p].d2phi += from->sums[p].d2phi;
        to->sums[p].correct += from->sums[p].correct;
        to->sums[p].rows += from->sums[p].rows;
    }
    to->probe += from->probe;
}

skald_status cpu_pass_run(cpu_compute *c, const cpu_pass *pass, double *const g[2], cpu_tally *tally) {
    run r = {.c = c, .pass = pass, .g = g, .room = cpu_room(pass->shard, pass->classes, slots_of(pass))};
    r.chunks = chunk_count(pass, g[0] || g[1]);
    r.chunk_rows = (pass->count + r.chunks - 1) / r.chunks;
    r.chunk_rows = (r.chunk_rows + 7) / 8 * 8;
    r.chunks = pass->count ? (pass->count + r.chunk_rows - 1) / r.chunk_rows : 1;
    cpu_scratch *scratch;
    const size_t bytes = CPU_SCRATCH_BYTES(r.chunks * r.room, double);
    const size_t tiles = pass->classes > 1 ? r.chunks * cpu_softmax_doubles(pass->classes) : 0;
    const size_t outputs = (g[0] ? 1u : 0u) + (g[1] ? 1u : 0u);
    TRY(cpu_scratch_take(c, outputs * bytes + CPU_SCRATCH_BYTES(tiles, double), &scratch));
    for (int o = 0; o < 2; o++)
        if (g[o]) r.partial[o] = cpu_scratch_carve(scratch, r.chunks * r.room, sizeof(double));
    r.tiles = cpu_scratch_carve(scratch, tiles, sizeof(double));
    cpu_pool_run(c->pool, r.chunks, run_chunk, &r);
    const skald_rows *rows = &pass->shard->rows;
    if (outputs && pass->columns)
        cpu_pool_run(c->pool, cpu_column_blocks(rows->dim), reduce_slots, &r);
    else if (outputs && pass->classes > 1)
        cpu_pool_run(c->pool, pass->classes, reduce_classes, &r);
    else if (outputs)
        cpu_pool_run(c->pool, (rows->dim + REDUCE_COLUMNS - 1) / REDUCE_COLUMNS, reduce_columns, &r);
    cpu_scratch_give(c, scratch);
    memset(tally, 0, sizeof *tally);
    for (size_t k = 0; k < r.chunks; k++) add_tally(tally, &r.tally[k]);
    if (!(tally->probe == 0))
        return skald_fail(SKALD_ENUMERIC, "a margin or derivative is not finite: the model has diverged, or the rows "
                                          "hold values too large; use a smaller step, or scale the features");
    return SKALD_OK;
}

double *cpu_widen(const cpu_shard *shard, uint32_t classes, const double *v, cpu_scratch *scratch) {
    const size_t dim = shard->rows.dim, width = cpu_width(shard);
    double *copy = cpu_scratch_carve(scratch, width * classes, sizeof *copy);
    for (size_t c = 0; c < classes; c++) {
        double *to = copy + c * width;
        memcpy(to, v + c * dim, dim * sizeof *to);
        memset(to + dim, 0, (width - dim) * sizeof *to);
    }
    return copy;
}
