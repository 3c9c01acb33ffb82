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

typedef struct run {
    cpu_compute *c;
    const cpu_pass *pass;
    double *const *g;
    size_t chunks, chunk_rows, width;
    double *partial[2]; /* chunks x width */
    cpu_tally tally[MAX_CHUNKS];
} run;

/* How many chunks: enough for any number of threads, few enough that clearing and adding their sums costs
 * little beside the rows themselves. */
static size_t chunk_count(const cpu_pass *p, bool with_sums) {
    size_t most = p->count / MIN_CHUNK_ROWS;
    if (with_sums && p->shard->rows.layout == SKALD_CSR) {
        double per_row = p->shard->base.facts.nonzeros / (double)p->shard->rows.n;
        double worth = (double)p->count * per_row / (16.0 * p->shard->rows.dim);
        if (worth < (double)most) most = (size_t)worth;
    }
    return most < 1 ? 1 : most > MAX_CHUNKS ? MAX_CHUNKS : most;
}

static void run_chunk(void *context, size_t k) {
    run *r = context;
    size_t begin = k * r->chunk_rows, end = skald_min_size(begin + r->chunk_rows, r->pass->count);
    double *g[2] = {NULL, NULL};
    for (int o = 0; o < 2; o++)
        if (r->partial[o]) {
            g[o] = r->partial[o] + k * r->width;
            memset(g[o], 0, r->width * sizeof(double));
        }
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
            in += r->width;
            for (size_t j = 0; j < count; j++) out[j] += in[j];
        }
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
    run r = {.c = c, .pass = pass, .g = g, .width = cpu_width(pass->shard)};
    r.chunks = chunk_count(pass, g[0] || g[1]);
    r.chunk_rows = (pass->count + r.chunks - 1) / r.chunks;
    r.chunk_rows = (r.chunk_rows + 7) / 8 * 8;
    r.chunks = pass->count ? (pass->count + r.chunk_rows - 1) / r.chunk_rows : 1;
    cpu_scratch *scratch;
    const size_t bytes = CPU_SCRATCH_BYTES(r.chunks * r.width, double);
    TRY(cpu_scratch_take(c, ((g[0] ? 1u : 0u) + (g[1] ? 1u : 0u)) * bytes, &scratch));
    for (int o = 0; o < 2; o++)
        if (g[o]) r.partial[o] = cpu_scratch_carve(scratch, r.chunks * r.width, sizeof(double));
    cpu_pool_run(c->pool, r.chunks, run_chunk, &r);
    if (g[0] || g[1])
        cpu_pool_run(c->pool, (pass->shard->rows.dim + REDUCE_COLUMNS - 1) / REDUCE_COLUMNS, reduce_columns, &r);
    cpu_scratch_give(c, scratch);
    memset(tally, 0, sizeof *tally);
    for (size_t k = 0; k < r.chunks; k++) add_tally(tally, &r.tally[k]);
    if (!(tally->probe == 0))
        return skald_fail(SKALD_ENUMERIC, "a margin or derivative is not finite: the model has diverged, or the rows "
                                          "hold values too large; use a smaller step, or scale the features");
    return SKALD_OK;
}

const double *cpu_widen(const cpu_shard *shard, const double *v, cpu_scratch *scratch) {
    const size_t dim = shard->rows.dim, width = cpu_width(shard);
    double *copy = cpu_scratch_carve(scratch, width, sizeof *copy);
    memcpy(copy, v, dim * sizeof *copy);
    memset(copy + dim, 0, (width - dim) * sizeof *copy);
    return copy;
}
