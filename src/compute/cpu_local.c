/* Local steps: scratch, outputs, and the history put back when a step fails. */
#include "compute/cpu.h"

#include <string.h>

#include "base/base.h"
#include "compute/checks.h"

static void prepare_dense(cpu_local *l, const double *w, const double *abar, cpu_scratch *scratch) {
    const uint32_t classes = l->shard->classes;
    const size_t width = cpu_width(l->shard), room = width * classes;
    l->w = cpu_widen(l->shard, classes, w, scratch);
    l->w0 = cpu_widen(l->shard, classes, w, scratch);
    l->sum = cpu_scratch_carve(scratch, width, sizeof *l->sum);
    l->taken = cpu_scratch_carve(scratch, width, sizeof *l->taken);
    if (!l->saga) return;
    l->a = cpu_widen(l->shard, classes, abar, scratch);
    l->d = cpu_scratch_carve(scratch, room, sizeof *l->d);
    memset(l->d, 0, room * sizeof *l->d);
}

/* What both ends of a task on sparse rows with several classes share. */
typedef struct classes_task {
    cpu_compute *c;
    cpu_local *l;
    const double *w, *abar;
    double *dw, *g;
} classes_task;

static void prepare_block(void *context, size_t block) {
    const classes_task *t = context;
    const size_t begin = block * CPU_COLUMN_BLOCK, end = skald_min_size(begin + CPU_COLUMN_BLOCK, t->l->touched->count);
    t->c->kernels->softmax_begin(t->l, begin, end, t->w, t->l->saga ? t->abar : NULL);
}

/* Columns of four classes that are finished at a time: two outputs of them stay in L2. */
#define FINISH_COLUMNS 4096
static size_t finish_stretches(size_t dim) {
    return (dim + FINISH_COLUMNS - 1) / FINISH_COLUMNS;
}

/* Four classes at a time: a stretch of each is written in one go, and the slots' entries of it while it is in L2. */
static void finish_block(void *context, size_t block) {
    const classes_task *t = context;
    const cpu_columns *k = t->l->touched;
    const size_t C = t->l->shard->classes, dim = t->l->shard->rows.dim;
    const size_t stretches = finish_stretches(dim), c = block / stretches * 4, some = skald_min_size(4, C - c);
    const size_t first = block % stretches * FINISH_COLUMNS, count = skald_min_size(FINISH_COLUMNS, dim - first);
    const size_t begin = cpu_columns_slot(k, first), end = cpu_columns_slot(k, first + count);
    for (size_t i = 0; i < some && end - begin < count; i++) {
        const size_t at = (c + i) * dim + first;
        t->c->kernels->softmax_rest(t->l, count, t->w + at, t->l->saga ? t->abar + at : NULL, t->dw + at);
        if (t->g) memset(t->g + at, 0, count * sizeof *t->g);
    }
    t->c->kernels->softmax_end(t->l, c, begin, end, t->dw, t->g);
}

static void prepare_csr(cpu_local *l, size_t steps, const double *w, const double *abar, cpu_scratch *scratch) {
    const size_t dim = l->shard->rows.dim, slots = l->touched ? l->touched->count : dim;
    if (l->touched) {
        l->class_columns = cpu_scratch_carve(scratch, slots * cpu_quads(l->shard->classes), CPU_QUAD * sizeof(double));
    } else {
        l->columns = cpu_scratch_carve(scratch, dim, sizeof *l->columns);
        for (size_t j = 0; j < dim; j++)
            l->columns[j] = (cpu_column){.u = w[j], .d = 0, .a = l->saga ? abar[j] : 0, .w0 = w[j]};
    }
    l->scale = 1;
    l->slope = 0;
    if (!(l->objective->l1 > 0)) return;
    l->last = cpu_scratch_carve(scratch, slots, sizeof *l->last);
    memset(l->last, 0, slots * sizeof *l->last);
    cpu_skip *skip = cpu_scratch_carve(scratch, steps + 1, sizeof *skip);
    const double q = 1 - l->eta * l->objective->l2;
    skip[0] = (cpu_skip){1, 0};
    for (size_t m = 0; m < steps; m++) skip[m + 1] = (cpu_skip){skip[m].q * q, skip[m].s + l->eta * skip[m].q};
    l->skip = skip;
}

static void finish_dense(const cpu_local *l, const double *w, double *dw, double *g) {
    const size_t dim = l->shard->rows.dim, width = cpu_width(l->shard), classes = l->shard->classes;
    for (size_t c = 0; c < classes; c++, w += dim, dw += dim) {
        const double *at = l->w + c * width;
        for (size_t j = 0; j < dim; j++) dw[j] = at[j] - w[j];
        if (g && l->saga) memcpy(g + c * dim, l->d + c * width, dim * sizeof *g);
    }
    if (g && !l->saga) memset(g, 0, classes * dim * sizeof *g);
}

static void finish_csr(const cpu_local *l, double *dw, double *g) {
    const size_t dim = l->shard->rows.dim;
    const double scale = l->scale, slope = l->slope, inv_n = l->inv_n;
    const cpu_column *c = l->columns;
    for (size_t j = 0; j < dim; j++) dw[j] = scale * (c[j].u - slope * (c[j].a + inv_n * c[j].d)) - c[j].w0;
    if (!g) return;
    for (size_t j = 0; j < dim; j++) g[j] = c[j].d;
}

skald_status cpu_local_run(cpu_compute *c, cpu_shard *shard, const skald_batch *batch, const skald_local *local,
                           const double *w, const double *abar, double *dw, double *g, skald_sums *sums) {
    TRY(compute_check_local(&c->base.objective, local, abar));
    const bool dense = shard->rows.layout == SKALD_DENSE;
    const size_t count = batch->rows ? batch->count : shard->rows.n, width = cpu_width(shard);
    const size_t b = skald_max_size(1, skald_min_size(local->step_rows, count));
    const size_t steps = (count + b - 1) / b, room = (b + 7) / 8 * 8;
    cpu_local l = {.objective = &c->base.objective,
                   .shard = shard,
                   .rows = batch->rows,
                   .count = count,
                   .step_rows = b,
                   .saga = local->saga,
                   .eta = local->eta,
                   .inv_n = local->saga ? 1 / local->n : 0};
    classes_task task = {c, &l, w, abar, dw, g};
    cpu_columns columns = {0};
    cpu_scratch *scratch;
    size_t bytes = 2 * CPU_SCRATCH_BYTES(count + 8, double) + CPU_SCRATCH_BYTES(13 * room, double);
    const bool many = shard->classes > 1, slots = many && !dense;
    const size_t doubles = many ? cpu_softmax_step_doubles(shard->classes, room) : 0;
    const size_t entries = slots ? cpu_columns_entries(shard, batch->rows, count) : 0;
    const size_t most = slots ? cpu_columns_most(shard, entries) : width;
    const size_t vector = cpu_room(shard, shard->classes, most);
    if (slots) bytes += cpu_columns_bytes(shard, count, entries);
    bytes += dense ? 4 * CPU_SCRATCH_BYTES(vector, double) + 2 * CPU_SCRATCH_BYTES(width, double) +
                         CPU_SCRATCH_BYTES(2 * room, const float *)
                   : CPU_SCRATCH_BYTES(vector, cpu_column) + CPU_SCRATCH_BYTES(most, uint32_t) +
                         CPU_SCRATCH_BYTES(steps + 1, cpu_skip);
    bytes += CPU_SCRATCH_BYTES(doubles, double);
    TRY(cpu_scratch_take(c, bytes, &scratch));
    l.z = cpu_scratch_carve(scratch, count + 8, sizeof *l.z);
    l.z0 = cpu_scratch_carve(scratch, count + 8, sizeof *l.z0);
    l.tile = cpu_scratch_carve(scratch, 13 * room, sizeof *l.tile);
    memset(l.z, 0, (count + 8) * sizeof *l.z);
    memset(l.z0, 0, (count + 8) * sizeof *l.z0);
    memset(l.tile, 0, 13 * room * sizeof *l.tile);
    if (many) {
        l.classes_tile = cpu_scratch_carve(scratch, doubles, sizeof(double));
        memset(l.classes_tile, 0, doubles * sizeof(double));
    }
    if (dense) {
        l.x = cpu_scratch_carve(scratch, 2 * room, sizeof *l.x);
        prepare_dense(&l, w, abar, scratch);
    } else {
        if (slots) {
            columns = cpu_columns_find(shard, batch->rows, count, entries, scratch);
            l.touched = &columns;
        }
        prepare_csr(&l, steps, w, abar, scratch);
    }
    if (slots) cpu_pool_run(c->pool, cpu_column_blocks(columns.count), prepare_block, &task);

    c->kernels->local(&l);

    skald_status st = SKALD_OK;
    if (!(l.probe == 0)) {
        const size_t C = shard->classes;
        for (size_t k = l.undo; k-- > 0;)
            memcpy(shard->alpha + (l.rows ? l.rows[k] : k) * C, shard->pending + k * C, C * sizeof(float));
        st = skald_fail(SKALD_ENUMERIC, "local steps diverged: a derivative is not finite; use a smaller step");
    } else {
        memset(sums, 0, sizeof *sums);
        if (!many) c->kernels->losses(l.objective, &shard->rows, l.rows, l.saga ? l.z0 : l.z, 0, 0, count, sums);
        *sums = (skald_sums){.loss = many ? l.loss : sums->loss, .rows = (double)count, .k = l.k, .k2 = l.k2};
        if (dense)
            finish_dense(&l, w, dw, g);
        else if (slots)
            cpu_pool_run(c->pool, cpu_quads(shard->classes) * finish_stretches(shard->rows.dim), finish_block, &task);
        else
            finish_csr(&l, dw, g);
    }
    cpu_scratch_give(c, scratch);
    return st;
}
