#include "worker/checks.h"

#include <math.h>

#include "base/base.h"
#include "skald/objective.h"
#include "skald/task.h"

static bool all_finite(const double *x, size_t n) {
    for (size_t k = 0; k < n; k++)
        if (!isfinite(x[k])) return false;
    return true;
}

/* Softmax: a target is a class, by which vectors are indexed. */
static skald_status check_targets(const Skald__V1__Setup *m) {
    if (m->loss != SKALD_SOFTMAX) return SKALD_OK;
    if (m->classes < 2 || m->n_label_targets == 0)
        return skald_fail(SKALD_EPEER, "setup of softmax with %u classes and %zu labels", m->classes,
                          m->n_label_targets);
    for (size_t k = 0; k < m->n_label_targets; k++) {
        const double t = m->label_targets[k];
        if (!(t >= 0 && t < m->classes && t == floor(t)))
            return skald_fail(SKALD_EPEER, "setup with a label of class %g, of %u", t, m->classes);
    }
    return SKALD_OK;
}

skald_status skald_check_setup(const Skald__V1__Setup *m, size_t limit) {
    if (m->loss > SKALD_SOFTMAX || m->dim == 0 || m->dim > INT32_MAX || m->shards == 0 || m->shards > (1u << 24))
        return skald_fail(SKALD_EPEER, "setup out of range");
    if (m->n_label_targets != m->n_label_values || (m->n_label_weights && m->n_label_weights != m->n_label_values))
        return skald_fail(SKALD_EPEER, "setup with mismatched labels");
    const double numbers[] = {m->huber_delta, m->l2, m->l1, m->rows, m->weight_scale, m->intercept_step};
    if (!all_finite(numbers, SKALD_ARRAY_LENGTH(numbers)) || !all_finite(m->label_values, m->n_label_values) ||
        !all_finite(m->label_targets, m->n_label_targets) || !all_finite(m->label_weights, m->n_label_weights))
        return skald_fail(SKALD_EPEER, "setup with a number that is not finite");
    TRY(check_targets(m));
    const skald_objective objective = {.loss = (skald_loss)m->loss, .intercept = m->intercept, .classes = m->classes};
    const uint64_t entries = skald_objective_length(&objective, m->dim + (m->intercept ? 1 : 0));
    if (entries > limit / (SKALD_MAX_POINTS * sizeof(double)))
        return skald_fail(SKALD_EPEER,
                          "setup of a model of %llu entries: its frames would be over the limit of %zu bytes",
                          (unsigned long long)entries, limit);
    return SKALD_OK;
}

skald_status skald_check_task(const Skald__V1__Task *m) {
    const double numbers[] = {m->eta, m->theta, m->n};
    if (m->kind < SKALD_TASK_GRADIENT || m->kind > SKALD_TASK_SAMPLE)
        return skald_fail(SKALD_EPEER, "task of unknown kind %u", m->kind);
    if (m->points > SKALD_MAX_POINTS) return skald_fail(SKALD_EPEER, "task with %u points", m->points);
    if (!all_finite(numbers, SKALD_ARRAY_LENGTH(numbers)) || !all_finite(m->shift, m->n_shift))
        return skald_fail(SKALD_EPEER, "task with a number that is not finite");
    return SKALD_OK;
}

skald_status skald_check_blocks(const skald_block *blocks, uint64_t count) {
    uint64_t reached = 0;
    for (uint64_t k = 0; k < count; k++) {
        const skald_block *b = &blocks[k];
        const uint64_t size = b->bytes ? b->bytes : b->rows; /* HDF5 counts in rows */
        if (b->rows == 0 || b->offset < reached || size > UINT64_MAX - b->offset)
            return skald_fail(SKALD_EPEER, "lease whose block %llu overlaps the one before, or is empty",
                              (unsigned long long)k);
        reached = b->offset + size;
    }
    return SKALD_OK;
}
