/* Local steps: scratch, outputs, and the history put back when a step fails. */
#include "compute/cpu.h"

#include <string.h>

#include "base/base.h"
#include "compute/checks.h"

static void prepare_dense(cpu_local *l, const double *w, const double *abar, cpu_scratch *scratch) {
    const uint32_t classes = l->shard->classes;
    const size_t width = cpu_width(l->shard), room = cpu_room(l->shard, classes);
    l->w = cpu_widen(l->shard, classes, w, scratch);
    l->w0 = cpu_widen(l->shard, classes, w, scratch);
    l->sum = cpu_scratch_carve(scratch, width, sizeof *l->sum);
    l->taken = cpu_scratch_carve(scratch, width, sizeof *l->taken);
    if (!l->saga) return;
    l->a = cpu_widen(l->shard, classes, abar, scratch);
    l->d = cpu_scratch_carve(scratch, room, sizeof *l->d);
    memset(l->d, 0, room * sizeof *l->d);
}

static void prepare_csr(cpu_local *l, size_t steps, const double *w, const double *abar, cpu_scratch *scratch) {
    const size_t dim = l->shard->rows.dim, C = l->shard->classes, lanes = cpu_lanes(C);
    if (C > 1) {
        l->class_columns = cpu_scratch_carve(scratch, dim * 4 * lanes, sizeof(double));
        memset(l->class_columns, 0, dim * 4 * lanes * sizeof(double));
        for (size_t c = 0; c < C; c++)
            for (size_t j = 0; j < dim; j++) {
                double *at = l->class_columns + j * 4 * lanes + c;
                at[0] = at[3 * lanes] = w[c * dim + j];
                at[2 * lanes] = l->saga ? abar[c * dim + j] : 0;
            }
    } else {
        l->columns = cpu_scratch_carve(scratch, dim, sizeof *l->columns);
        for (size_t j = 0; j < dim; j++)
            l->columns[j] = (cpu_column){.u = w[j], .d = 0, .a = l->saga ? abar[j] : 0, .w0 = w[j]};
    }
    l->scale = 1;
    l->slope = 0;
    if (!(l->objective->l1 > 0)) return;
    l->last = cpu_scratch_carve(scratch, dim, sizeof *l->last);
    memset(l->last, 0, dim * sizeof *l->last);
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

static void finish_csr_classes(const cpu_local *l, double *dw, double *g) {
    const size_t dim = l->shard->rows.dim, C = l->shard->classes, lanes = cpu_lanes(C);
    for (size_t c = 0; c < C; c++)
        for (size_t j = 0; j < dim; j++) {
            const double *at = l->class_columns + j * 4 * lanes + c;
            dw[c * dim + j] = at[0] - at[3 * lanes];
            if (g) g[c * dim + j] = at[lanes];
        }
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
    cpu_scratch *scratch;
    size_t bytes = 2 * CPU_SCRATCH_BYTES(count + 8, double) + CPU_SCRATCH_BYTES(13 * room, double);
    const size_t vector = cpu_room(shard, shard->classes), many = shard->classes > 1;
    const size_t doubles = many ? cpu_softmax_step_doubles(shard->classes, room) : 0;
    bytes += dense ? 4 * CPU_SCRATCH_BYTES(vector, double) + 2 * CPU_SCRATCH_BYTES(width, double) +
                         CPU_SCRATCH_BYTES(2 * room, const float *)
                   : CPU_SCRATCH_BYTES(vector, cpu_column) + CPU_SCRATCH_BYTES(width, uint32_t) +
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
        prepare_csr(&l, steps, w, abar, scratch);
    }

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
        else if (many)
            finish_csr_classes(&l, dw, g);
        else
            finish_csr(&l, dw, g);
    }
    cpu_scratch_give(c, scratch);
    return st;
}
