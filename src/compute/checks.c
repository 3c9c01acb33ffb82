#include "compute/checks.h"

#include <math.h>

skald_status compute_check_shape(const skald_compute *c, const skald_rows *rows) {
    if (rows->dim != c->dim) return skald_fail(SKALD_EINVAL, "rows of %u columns for a model of %u", rows->dim, c->dim);
    if (rows->n > UINT32_MAX) return skald_fail(SKALD_EINVAL, "%zu rows in one shard: too many", rows->n);
    if (rows->layout == SKALD_DENSE && (rows->stride < rows->dim || rows->stride % 16 != 0))
        return skald_fail(SKALD_EINVAL, "dense rows of %u columns with a stride of %zu", rows->dim, rows->stride);
    if (rows->layout != SKALD_DENSE && rows->layout != SKALD_CSR)
        return skald_fail(SKALD_EINVAL, "unknown layout %d", (int)rows->layout);
    return SKALD_OK;
}

static skald_status row_norm2(const skald_rows *rows, bool intercept, size_t i, double *out) {
    double norm2 = 0;
    if (rows->layout == SKALD_DENSE) {
        const float *x = rows->x + i * rows->stride;
        for (size_t j = 0; j < rows->dim; j++) norm2 += (double)x[j] * (double)x[j];
        for (size_t j = rows->dim; j < rows->stride; j++)
            if (x[j] != 0) return skald_fail(SKALD_EINVAL, "row %zu: padding is not zero", i);
    } else {
        const uint64_t begin = rows->ptr[i], end = rows->ptr[i + 1];
        if (end < begin) return skald_fail(SKALD_EINVAL, "row %zu: negative length", i);
        for (uint64_t k = begin; k < end; k++) {
            if (rows->idx[k] >= rows->dim || (k > begin && rows->idx[k] <= rows->idx[k - 1]))
                return skald_fail(SKALD_EINVAL, "row %zu: column %u out of range or order", i, rows->idx[k]);
            norm2 += (double)rows->val[k] * (double)rows->val[k];
        }
        if (intercept && (begin == end || rows->idx[end - 1] != rows->dim - 1))
            return skald_fail(SKALD_EINVAL, "row %zu: the intercept's column is missing", i);
    }
    *out = norm2;
    return SKALD_OK;
}

skald_status compute_take_facts(const skald_compute *c, const skald_rows *rows, skald_shard_facts *facts,
                                float *norms) {
    *facts = (skald_shard_facts){.rows = rows->n};
    facts->nonzeros = rows->layout == SKALD_DENSE ? (double)rows->n * rows->dim : (double)rows->ptr[rows->n];
    for (size_t i = 0; i < rows->n; i++) {
        double norm2 = 0, s = rows->s[i];
        TRY(row_norm2(rows, c->objective.intercept, i, &norm2));
        if (!isfinite(norm2) || !isfinite(s) || s < 0)
            return skald_fail(SKALD_EDATA, "row %zu of the shard: a value or weight is not finite", i);
        const double y = rows->y[i];
        if (c->objective.loss == SKALD_SOFTMAX && !(y >= 0 && y < (double)c->objective.classes && y == floor(y)))
            return skald_fail(SKALD_EDATA, "row %zu of the shard: %g is no class of %u", i, y, c->objective.classes);
        norm2 += skald_objective_norm2_more(&c->objective);
        norms[i] = (float)norm2;
        skald_shard_facts_label(facts, s, y);
        facts->sum_weighted_norm2 += s * norm2;
        if (s * norm2 > facts->max_weighted_norm2) facts->max_weighted_norm2 = s * norm2;
    }
    return SKALD_OK;
}

skald_status compute_check_batch(size_t n, const skald_batch *batch) {
    if (!batch->rows) return SKALD_OK;
    if (batch->count > n) return skald_fail(SKALD_EINVAL, "a batch of %zu rows from a shard of %zu", batch->count, n);
    uint32_t most = 0;
    for (size_t k = 0; k < batch->count; k++) most = batch->rows[k] > most ? batch->rows[k] : most;
    if (batch->count && most >= n) return skald_fail(SKALD_EINVAL, "row %u of a shard of %zu rows", most, n);
    return SKALD_OK;
}

skald_status compute_check_local(const skald_objective *objective, const skald_local *local, const double *abar) {
    if (local->step_rows == 0) return skald_fail(SKALD_EINVAL, "local steps of 0 rows: must be 1 or more");
    if (!(local->eta > 0 && isfinite(local->eta)))
        return skald_fail(SKALD_EINVAL, "local step size %g: must be positive", local->eta);
    if (local->eta * objective->l2 >= 1)
        return skald_fail(SKALD_EINVAL, "local step size %g x l2 %g must be below 1: use a smaller step", local->eta,
                          objective->l2);
    if (local->saga && !(local->n >= 1 && isfinite(local->n)))
        return skald_fail(SKALD_EINVAL, "local steps on a problem of %g rows", local->n);
    if (local->saga && !abar) return skald_fail(SKALD_EINVAL, "local saga steps need the average of the history");
    return SKALD_OK;
}

skald_status compute_check_history(size_t n, const float *alpha) {
    for (size_t i = 0; i < n; i++)
        if (!isfinite(alpha[i])) return skald_fail(SKALD_ENUMERIC, "history of row %zu is not finite", i);
    return SKALD_OK;
}
