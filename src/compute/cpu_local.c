/* Local steps: scratch, outputs, and the history put back when a step fails. */
#include "compute/cpu.h"

#include <string.h>

#include "base/base.h"
#include "compute/checks.h"

static void prepare_dense(cpu_local *l, const double *w, const double *abar, cpu_scratch *scratch) {
    l->w = (double *)cpu_widen(l->shard, w, scratch);
    const size_t width = cpu_width(l->shard);
    l->w0 = cpu_widen(l->shard, w, scratch);
    l->sum = cpu_scratch_carve(scratch, width, sizeof *l->sum);
    l->taken = cpu_scratch_carve(scratch, width, sizeof *l->taken);
    if (!l->saga) return;
    l->a = (double *)cpu_widen(l->shard, abar, scratch);
    l->d = cpu_scratch_carve(scratch, width, sizeof *l->d);
    memset(l->d, 0, width * sizeof *l->d);
}

static void prepare_csr(cpu_local *l, size_t steps, const double *w, const double *abar, cpu_scratch *scratch) {
    const size_t dim = l->shard->rows.dim;
    l->columns = cpu_scratch_carve(scratch, dim, sizeof *l->columns);
    for (size_t j = 0; j < dim; j++)
        l->columns[j] = (cpu_column){.u = w[j], .d = 0, .a = l->saga ? abar[j] : 0, .w0 = w[j]};
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
    const size_t dim = l->shard->rows.dim;
    for (size_t j = 0; j < dim; j++) dw[j] = l->w[j] - w[j];
    if (!g) return;
    if (l->saga)
        memcpy(g, l->d, dim * sizeof *g);
    else
        memset(g, 0, dim * sizeof *g);
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
    bytes += dense ? 6 * CPU_SCRATCH_BYTES(width, double) + CPU_SCRATCH_BYTES(2 * room, const float *)
                   : CPU_SCRATCH_BYTES(width, cpu_column) + CPU_SCRATCH_BYTES(width, uint32_t) +
                         CPU_SCRATCH_BYTES(steps + 1, cpu_skip);
    TRY(cpu_scratch_take(c, bytes, &scratch));
    l.z = cpu_scratch_carve(scratch, count + 8, sizeof *l.z);
    l.z0 = cpu_scratch_carve(scratch, count + 8, sizeof *l.z0);
    l.tile = cpu_scratch_carve(scratch, 13 * room, sizeof *l.tile);
    memset(l.z, 0, (count + 8) * sizeof *l.z);
    memset(l.z0, 0, (count + 8) * sizeof *l.z0);
    memset(l.tile, 0, 13 * room * sizeof *l.tile);
    if (dense) {
        l.x = cpu_scratch_carve(scratch, 2 * room, sizeof *l.x);
        prepare_dense(&l, w, abar, scratch);
    } else {
        prepare_csr(&l, steps, w, abar, scratch);
    }

    c->kernels->local(&l);

    skald_status st = SKALD_OK;
    if (!(l.probe == 0)) {
        for (size_t k = l.undo; k-- > 0;) shard->alpha[l.rows ? l.rows[k] : k] = shard->pending[k];
        st = skald_fail(SKALD_ENUMERIC, "local steps diverged: a derivative is not finite; use a smaller step");
    } else {
        memset(sums, 0, sizeof *sums);
        c->kernels->losses(l.objective, &shard->rows, l.rows, l.saga ? l.z0 : l.z, 0, 0, count, sums);
        *sums = (skald_sums){.loss = sums->loss, .rows = sums->rows, .k = l.k, .k2 = l.k2};
        if (dense)
            finish_dense(&l, w, dw, g);
        else
            finish_csr(&l, dw, g);
    }
    cpu_scratch_give(c, scratch);
    return st;
}
