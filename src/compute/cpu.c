/* The CPU backend: shards, argument checks, the table of operations. */
#include "compute/cpu.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "compute/checks.h"

/* ---- scratch -------------------------------------------------------------------------------------- */

skald_status cpu_scratch_take(cpu_compute *c, size_t bytes, cpu_scratch **out) {
    pthread_mutex_lock(&c->lock);
    cpu_scratch *s = c->scratch;
    if (s) c->scratch = s->next;
    pthread_mutex_unlock(&c->lock);
    if (!s) s = skald_zalloc(1, sizeof *s);
    if (!s) return SKALD_ENOMEM;
    if (s->size < bytes) {
        free(s->bytes);
        s->size = 0;
        s->bytes = skald_alloc(bytes, 1);
        if (!s->bytes) {
            free(s);
            return SKALD_ENOMEM;
        }
        s->size = bytes;
    }
    s->used = 0;
    *out = s;
    return SKALD_OK;
}

void *cpu_scratch_carve(cpu_scratch *s, size_t count, size_t size) {
    void *p = s->bytes + s->used;
    s->used += (count * size + 63) / 64 * 64;
    return p;
}

void cpu_scratch_give(cpu_compute *c, cpu_scratch *s) {
    pthread_mutex_lock(&c->lock);
    s->next = c->scratch;
    c->scratch = s;
    pthread_mutex_unlock(&c->lock);
}

/* ---- shards --------------------------------------------------------------------------------------- */

static void unload(skald_compute *c, skald_shard *base) {
    (void)c;
    cpu_shard *shard = (cpu_shard *)base;
    if (!shard) return;
    skald_rows_free(&shard->rows);
    free(shard->alpha);
    free(shard->norm2);
    free(shard->pending);
    free(shard->margin[0]);
    free(shard->margin[1]);
    free(shard);
}

static skald_status load(skald_compute *c, skald_rows *rows, skald_shard **out) {
    skald_status st;
    *out = NULL;
    cpu_shard *shard = skald_zalloc(1, sizeof *shard);
    if (!shard) {
        skald_rows_free(rows);
        return SKALD_ENOMEM;
    }
    shard->rows = *rows;
    memset(rows, 0, sizeof *rows);
    TRY_GOTO(st, compute_check_shape(c, &shard->rows), failed);
    shard->classes = skald_objective_classes(&c->objective);
    const size_t entries = shard->rows.n * shard->classes;
    shard->alpha = skald_zalloc(entries, sizeof(float));
    shard->norm2 = skald_alloc(shard->rows.n, sizeof(float));
    shard->pending = skald_alloc(entries, sizeof(float));
    if (!shard->alpha || !shard->norm2 || !shard->pending) {
        st = SKALD_ENOMEM;
        goto failed;
    }
    TRY_GOTO(st, compute_take_facts(c, &shard->rows, &shard->base.facts, shard->norm2), failed);
    *out = &shard->base;
    return SKALD_OK;
failed:
    unload(c, &shard->base);
    return st;
}

/* ---- operations ----------------------------------------------------------------------------------- */

typedef struct gathering {
    const cpu_columns *columns;
    size_t classes, dim;
    const double *from;
    double *to;
} gathering;

static void gather_block(void *context, size_t block) {
    const gathering *g = context;
    const size_t begin = block * CPU_COLUMN_BLOCK, end = skald_min_size(begin + CPU_COLUMN_BLOCK, g->columns->count);
    cpu_columns_gather(g->columns, g->classes, g->dim, g->from, begin, end, cpu_lanes(g->classes), g->to);
}

/* A pass of several classes over sparse rows, with w[0..points) over the slots of the batch. */
static skald_status run_slots(cpu_compute *c, cpu_shard *shard, cpu_pass *pass, double *const g[2], cpu_tally *tally) {
    const size_t entries = cpu_columns_entries(shard, pass->rows, pass->count);
    const size_t most = cpu_columns_most(shard, entries) * cpu_lanes(pass->classes);
    const size_t bytes = cpu_columns_bytes(shard, pass->count, entries);
    cpu_scratch *scratch;
    TRY(cpu_scratch_take(c, bytes + pass->points * CPU_SCRATCH_BYTES(most, double), &scratch));
    const cpu_columns columns = cpu_columns_find(shard, pass->rows, pass->count, entries, scratch);
    for (uint32_t p = 0; p < pass->points; p++) {
        double *w = cpu_scratch_carve(scratch, columns.count * cpu_lanes(pass->classes), sizeof *w);
        gathering to = {&columns, pass->classes, shard->rows.dim, pass->w[p], w};
        cpu_pool_run(c->pool, cpu_column_blocks(columns.count), gather_block, &to);
        pass->w[p] = w;
    }
    pass->columns = &columns;
    skald_status st = cpu_pass_run(c, pass, g, tally);
    cpu_scratch_give(c, scratch);
    return st;
}

/* A pass with w[0..points) as the kernels see them; the rest of *pass as the caller filled it in. */
static skald_status run_pass(cpu_compute *c, cpu_shard *shard, const skald_batch *batch, cpu_pass *pass,
                             double *const g[2], cpu_tally *tally) {
    static const skald_batch all = {0};
    if (!batch) batch = &all;
    TRY(compute_check_batch(shard->rows.n, batch));
    pass->shard = shard;
    pass->objective = &c->base.objective;
    pass->rows = batch->rows;
    if (batch->rows)
        pass->count = batch->count;
    else if (!pass->count)
        pass->count = shard->rows.n;
    pass->classes = pass->kind == CPU_CURVATURE ? 1 : shard->classes;
    if (pass->classes > 1 && shard->rows.layout == SKALD_CSR) return run_slots(c, shard, pass, g, tally);
    cpu_scratch *scratch;
    const size_t room = cpu_width(shard) * pass->classes;
    TRY(cpu_scratch_take(c, pass->points * CPU_SCRATCH_BYTES(room, double), &scratch));
    if (room != shard->rows.dim)
        for (uint32_t p = 0; p < pass->points; p++) pass->w[p] = cpu_widen(shard, pass->classes, pass->w[p], scratch);
    skald_status st = cpu_pass_run(c, pass, g, tally);
    cpu_scratch_give(c, scratch);
    return st;
}

static skald_status gradient(skald_compute *c, skald_shard *shard, const skald_batch *batch, const double *w, double *g,
                             skald_sums *sums) {
    cpu_tally tally;
    cpu_pass pass = {.kind = CPU_GRADIENT, .points = 1, .w = {w}};
    TRY(run_pass((cpu_compute *)c, (cpu_shard *)shard, batch, &pass, (double *[2]){g, NULL}, &tally));
    *sums = tally.sums[0];
    return SKALD_OK;
}

static skald_status saga(skald_compute *c, skald_shard *base, const skald_batch *batch, const double *w, double *g,
                         skald_sums *sums) {
    cpu_tally tally;
    cpu_shard *shard = (cpu_shard *)base;
    cpu_pass pass = {.kind = CPU_SAGA, .points = 1, .w = {w}, .pending = shard->pending};
    TRY(run_pass((cpu_compute *)c, shard, batch, &pass, (double *[2]){g, NULL}, &tally));
    const size_t C = shard->classes;
    for (size_t k = 0; k < pass.count; k++)
        memcpy(shard->alpha + (pass.rows ? pass.rows[k] : k) * C, shard->pending + k * C, C * sizeof(float));
    *sums = tally.sums[0];
    return SKALD_OK;
}

static skald_status local(skald_compute *c, skald_shard *shard, const skald_batch *batch, const skald_local *spec,
                          const double *w, const double *abar, double *dw, double *g, skald_sums *sums) {
    TRY(compute_check_batch(((cpu_shard *)shard)->rows.n, batch));
    return cpu_local_run((cpu_compute *)c, (cpu_shard *)shard, batch, spec, w, abar, dw, g, sums);
}

static skald_status difference(skald_compute *c, skald_shard *shard, const skald_batch *batch, const double *w,
                               const double *u, double *g, skald_sums *sums) {
    cpu_tally tally;
    cpu_pass pass = {.kind = CPU_DIFFERENCE, .points = 2, .w = {w, u}};
    TRY(run_pass((cpu_compute *)c, (cpu_shard *)shard, batch, &pass, (double *[2]){g, NULL}, &tally));
    *sums = tally.sums[0];
    return SKALD_OK;
}

static skald_status keep_room(cpu_shard *shard, uint32_t points) {
    for (uint32_t p = 0; p < points; p++)
        if (!shard->margin[p] && !(shard->margin[p] = skald_alloc(shard->rows.n * shard->classes, sizeof(double))))
            return SKALD_ENOMEM;
    return SKALD_OK;
}

static skald_status objective(skald_compute *c, skald_shard *base, uint32_t points, const double *const *w,
                              double *const *g, bool keep_margins, skald_sums *sums) {
    cpu_shard *shard = (cpu_shard *)base;
    if (points < 1 || points > 2) return skald_fail(SKALD_EINVAL, "objective at %u points: 1 or 2", points);
    cpu_pass pass = {.kind = CPU_OBJECTIVE, .points = points, .w = {w[0], points > 1 ? w[1] : NULL}};
    if (keep_margins) {
        TRY(keep_room(shard, points));
        for (uint32_t p = 0; p < points; p++) pass.margin[p] = shard->margin[p];
        shard->margins = 0;
    }
    double *const out[2] = {g ? g[0] : NULL, g && points > 1 ? g[1] : NULL};
    cpu_tally tally;
    TRY(run_pass((cpu_compute *)c, shard, NULL, &pass, out, &tally));
    if (keep_margins) shard->margins = points;
    memcpy(sums, tally.sums, points * sizeof *sums);
    return SKALD_OK;
}

static skald_status check_shift(const cpu_shard *shard, uint32_t points, bool classes) {
    if (classes != (shard->classes > 1)) return skald_fail(SKALD_EINVAL, "a shift of %u classes", shard->classes);
    if (points < 1 || points > shard->margins)
        return skald_fail(SKALD_EINVAL, "shift at %u points: %u are kept", points, shard->margins);
    return SKALD_OK;
}

static skald_status shift(skald_compute *c, skald_shard *base, uint32_t points, const double *delta, skald_sums *sums) {
    const cpu_compute *cpu = (cpu_compute *)c;
    const cpu_shard *shard = (cpu_shard *)base;
    TRY(check_shift(shard, points, false));
    for (uint32_t p = 0; p < points; p++) {
        sums[p] = (skald_sums){0};
        cpu->kernels->losses(&c->objective, &shard->rows, NULL, shard->margin[p], delta[p], 0, shard->rows.n, &sums[p]);
        if (!isfinite(sums[p].dphi))
            return skald_fail(SKALD_ENUMERIC, "a derivative is not finite at a shift of %g", delta[p]);
    }
    return SKALD_OK;
}

static skald_status shift_classes(skald_compute *base, skald_shard *base_shard, uint32_t points,
                                  const double *const *delta, double *const *moments, skald_sums *sums) {
    cpu_compute *c = (cpu_compute *)base;
    const cpu_shard *shard = (cpu_shard *)base_shard;
    const size_t C = shard->classes, doubles = cpu_softmax_doubles(C);
    TRY(check_shift(shard, points, true));
    cpu_scratch *scratch;
    TRY(cpu_scratch_take(c, CPU_SCRATCH_BYTES(doubles, double), &scratch));
    double *tile = cpu_scratch_carve(scratch, doubles, sizeof *tile), probe = 0;
    for (uint32_t p = 0; p < points; p++) {
        sums[p] = (skald_sums){0};
        memset(moments[p], 0, skald_objective_moments(&base->objective) * sizeof **moments);
        c->kernels->softmax_shift(&shard->rows, C, shard->margin[p], delta[p], moments[p], tile, &sums[p]);
        for (size_t k = 0; k < C; k++) probe += 0 * moments[p][k];
    }
    cpu_scratch_give(c, scratch);
    return probe == 0 ? SKALD_OK : skald_fail(SKALD_ENUMERIC, "a derivative is not finite at these shifts");
}

static skald_status anchor(skald_compute *c, skald_shard *shard, double *a) {
    cpu_tally tally;
    cpu_pass pass = {.kind = CPU_ANCHOR};
    return run_pass((cpu_compute *)c, (cpu_shard *)shard, NULL, &pass, (double *[2]){a, NULL}, &tally);
}

static skald_status curvature(skald_compute *c, skald_shard *base, size_t m, const double *v, double *g) {
    cpu_shard *shard = (cpu_shard *)base;
    if (m < 1 || m > shard->rows.n) return skald_fail(SKALD_EINVAL, "curvature over %zu of %zu rows", m, shard->rows.n);
    cpu_tally tally;
    cpu_pass pass = {.kind = CPU_CURVATURE, .points = 1, .w = {v}, .count = m};
    TRY(run_pass((cpu_compute *)c, shard, NULL, &pass, (double *[2]){g, NULL}, &tally));
    for (size_t j = 0; j < shard->rows.dim; j++) g[j] /= (double)m;
    return SKALD_OK;
}

static skald_status rows(skald_compute *c, skald_shard *base, const skald_batch *batch, skald_rows *out) {
    (void)c;
    const cpu_shard *shard = (cpu_shard *)base;
    TRY(compute_check_batch(shard->rows.n, batch));
    return batch->rows ? skald_rows_select(&shard->rows, batch->rows, batch->count, out)
                       : skald_rows_join(&shard->rows, 1, out);
}

static skald_status history_get(skald_compute *c, skald_shard *base, float *alpha) {
    (void)c;
    const cpu_shard *shard = (cpu_shard *)base;
    memcpy(alpha, shard->alpha, shard->rows.n * shard->classes * sizeof *alpha);
    return SKALD_OK;
}

static skald_status history_set(skald_compute *c, skald_shard *base, const float *alpha) {
    (void)c;
    cpu_shard *shard = (cpu_shard *)base;
    const size_t entries = shard->rows.n * shard->classes;
    TRY(compute_check_history(entries, alpha));
    memcpy(shard->alpha, alpha, entries * sizeof *alpha);
    return SKALD_OK;
}

/* ---- open and destroy ----------------------------------------------------------------------------- */

static void destroy(skald_compute *base) {
    cpu_compute *c = (cpu_compute *)base;
    if (!c) return;
    cpu_pool_destroy(c->pool);
    for (cpu_scratch *s = c->scratch; s;) {
        cpu_scratch *next = s->next;
        free(s->bytes);
        free(s);
        s = next;
    }
    pthread_mutex_destroy(&c->lock);
    free(c);
}

static const skald_compute_ops operations = {
    .name = "cpu",
    .load = load,
    .unload = unload,
    .gradient = gradient,
    .saga = saga,
    .local = local,
    .difference = difference,
    .objective = objective,
    .shift = shift,
    .shift_classes = shift_classes,
    .anchor = anchor,
    .curvature = curvature,
    .rows = rows,
    .history_get = history_get,
    .history_set = history_set,
    .destroy = destroy,
};

/* The kernels for `isa`, or the best this machine runs when NULL. */
static skald_status choose(const char *isa, const cpu_kernels **out) {
    const cpu_kernels *known[3] = {&cpu_kernels_portable};
    bool here[3] = {true};
    size_t count = 1;
#if defined(__x86_64__)
    __builtin_cpu_init();
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    known[count] = &cpu_kernels_avx2;
    here[count++] = avx2;
    known[count] = &cpu_kernels_avx512;
    here[count++] = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                    __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw");
#endif
    for (size_t k = count; k-- > 0;) {
        if (isa ? strcmp(isa, known[k]->name) != 0 : !here[k]) continue;
        if (!here[k]) return skald_fail(SKALD_EUNSUPPORTED, "this machine's CPU has no %s; use portable", isa);
        *out = known[k];
        return SKALD_OK;
    }
    if (strcmp(isa, "avx2") == 0 || strcmp(isa, "avx512") == 0)
        return skald_fail(SKALD_EUNSUPPORTED, "this build has no %s kernels; use portable", isa);
    return skald_fail(SKALD_EINVAL, "unknown instruction set '%s': use portable, avx2 or avx512", isa);
}

skald_status cpu_describe(int threads, const char *isa, char device[64]) {
    const cpu_kernels *kernels = NULL;
    TRY(choose(isa, &kernels));
    snprintf(device, 64, "cpu (%s, %d thread%s)", kernels->name, threads, threads == 1 ? "" : "s");
    return SKALD_OK;
}

skald_status cpu_open(int threads, const char *isa, const skald_objective *objective_, uint32_t dim,
                      skald_compute **out) {
    const cpu_kernels *kernels = NULL;
    *out = NULL;
    TRY(choose(isa, &kernels));
    cpu_compute *c = skald_zalloc(1, sizeof *c);
    if (!c) return SKALD_ENOMEM;
    c->base.ops = &operations;
    c->base.objective = *objective_;
    c->base.dim = dim;
    c->kernels = kernels;
    pthread_mutex_init(&c->lock, NULL);
    skald_status st = cpu_describe(threads, isa, c->base.device);
    if (st == SKALD_OK) st = cpu_pool_create(threads, &c->pool);
    if (st != SKALD_OK) {
        destroy(&c->base);
        return st;
    }
    *out = &c->base;
    return SKALD_OK;
}
