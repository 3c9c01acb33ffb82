/* The conformance suite's long list: every number of columns with a tail or without, every layout and loss, batches of
 * 1, 31 and 4096 rows, SGD and SAGA, in one pass and in local steps; and the same bits twice. Minutes on an emulated
 * device, so tests run it when asked to (`ctest -C full -L full`); the suite has the same code paths on fewer rows. */
#ifndef COMPUTE_LIST_H
#define COMPUTE_LIST_H

#include "compute_suite_softmax.h"

enum { LIST_ROWS = 4200, LIST_DISTINCT = 61 /* meets no power of two: a row read for another shows */ };

/* What operations leave behind, to be compared with what they leave the next time. */
typedef struct list_bits {
    double *out[6];
    skald_sums sums[4];
    float *alpha;
} list_bits;

static inline void list_run_bits(problem *p, const uint32_t *rows, size_t count, list_bits *b) {
    const skald_compute_ops *ops = p->c->ops;
    const size_t classes = skald_objective_classes(&p->o), length = p->dim * classes;
    const skald_batch batch = {rows, count}, few = {rows, count < 62 ? count : 62};
    const skald_local saga = {true, 31, 0.02, LIST_ROWS}, sgd = {false, 31, 0.02, LIST_ROWS};
    double *w = vector(p, 3, 0.1), *abar = vector(p, 4, 0.05);
    memset(b, 0, sizeof *b);
    for (int k = 0; k < 6; k++) b->out[k] = skald_zalloc(length, sizeof(double));
    b->alpha = skald_zalloc(p->n * classes, sizeof *b->alpha);
    OK(ops->history_set(p->c, p->shard, b->alpha));
    OK(ops->gradient(p->c, p->shard, &batch, w, b->out[0], &b->sums[0]));
    OK(ops->saga(p->c, p->shard, &batch, w, b->out[1], &b->sums[1]));
    OK(ops->local(p->c, p->shard, &few, &saga, w, abar, b->out[2], b->out[3], &b->sums[2]));
    OK(ops->local(p->c, p->shard, &few, &sgd, w, NULL, b->out[4], NULL, &b->sums[3]));
    OK(ops->anchor(p->c, p->shard, b->out[5]));
    OK(ops->history_get(p->c, p->shard, b->alpha));
    free(w);
    free(abar);
}

static inline void list_check_bits(problem *p, const uint32_t *rows, size_t count) {
    static const char *const what[] = {"gradient",        "saga",  "dw of local saga", "g of local saga",
                                       "dw of local sgd", "anchor"};
    const size_t classes = skald_objective_classes(&p->o);
    list_bits b[2];
    for (int k = 0; k < 2; k++) list_run_bits(p, rows, count, &b[k]);
    for (int k = 0; k < 6; k++) {
        if (memcmp(b[0].out[k], b[1].out[k], p->dim * classes * sizeof(double)) != 0)
            fail_msg("%s: other bits the second time", what[k]);
        free(b[0].out[k]);
        free(b[1].out[k]);
    }
    assert_memory_equal(b[0].sums, b[1].sums, sizeof b->sums);
    assert_memory_equal(b[0].alpha, b[1].alpha, p->n * classes * sizeof(float));
    free(b[0].alpha);
    free(b[1].alpha);
}

static inline void list_case(const compute_suite *suite, skald_layout layout, uint32_t dim, skald_loss loss,
                             bool same_bits) {
    static const size_t batches[] = {4096, 31, 1};
    const bool classes = loss == SKALD_SOFTMAX, intercept = dim > 1 && loss % 2 == 0;
    const skald_objective o = classes ? softmax_of(3, 0.01, 0, intercept) : objective_of(loss, 0.01, 0.001, intercept);
    const shape s = {.layout = layout,
                     .n = LIST_ROWS,
                     .dim = dim,
                     .weighted = loss != SKALD_SQUARED,
                     .scale = 1,
                     .seed = dim + (uint64_t)loss,
                     .distinct = LIST_DISTINCT};
    problem p = problem_open(suite, &s, &o);
    for (size_t b = 0; b < SKALD_ARRAY_LENGTH(batches); b++) {
        /* local steps of so many rows: two whole ones, or one, and a short one */
        const uint32_t step_rows = (uint32_t)batches[b];
        const size_t steps_count = step_rows > 1000 ? step_rows + 4 : 2 * step_rows + 3;
        uint32_t *rows = draw(p.n, steps_count > batches[b] ? steps_count : batches[b], b);
        (classes ? check_class_passes : check_passes)(&p, rows, batches[b], b);
        for (int saga = 0; saga < 2; saga++)
            if (classes)
                check_class_local(&p, rows, steps_count, saga, step_rows, 0.02, b);
            else
                check_local(&p, rows, steps_count, saga, step_rows, b);
        if (b == 0) (classes ? check_class_objective : check_objective_op)(&p, 9, true);
        if (b == 0 && same_bits) list_check_bits(&p, rows, batches[b]);
        if (b == 0 && same_bits) { /* the history as the reference has it */
            memset(p.alpha, 0, p.n * skald_objective_classes(&o) * sizeof *p.alpha);
            float *zeros = skald_zalloc(p.n * skald_objective_classes(&o), sizeof *zeros);
            OK(p.c->ops->history_set(p.c, p.shard, zeros));
            free(zeros);
        }
        free(rows);
    }
    problem_close(&p);
}

/* sparse_bits: sums over sparse rows are to repeat too. SKALD_LIST_DIM: that number of columns only. */
static inline void compute_list_run(const compute_suite *suite, bool sparse_bits) {
    static const uint32_t dims[] = {1, 3, 784, 2000, 2001, 8192, 20000};
    const char *only = getenv("SKALD_LIST_DIM");
    for (size_t d = 0; d < SKALD_ARRAY_LENGTH(dims); d++)
        for (int layout = 0; layout < 2; layout++)
            for (int loss = SKALD_SQUARED; loss <= SKALD_SOFTMAX; loss++) {
                if (only && (uint32_t)atoi(only) != dims[d]) continue;
                list_case(suite, (skald_layout)layout, dims[d], (skald_loss)loss, layout == SKALD_DENSE || sparse_bits);
            }
}

#endif
