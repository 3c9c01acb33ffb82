#include "worker/chain.h"

#include <stdlib.h>
#include <string.h>

#include "base/base.h"

skald_status skald_chain_init(skald_chain *c, uint32_t dim) {
    *c = (skald_chain){.start = skald_alloc(2 * (size_t)dim, sizeof *c->start)};
    return c->start ? SKALD_OK : SKALD_ENOMEM;
}

void skald_chain_fini(skald_chain *c) {
    skald_bytes_unref(c->last);
    free(c->start);
    *c = (skald_chain){0};
}

/* The model of a task queued behind one whose result it does not contain: w + theta dw, abar + D/n. */
static void go_on(skald_chain *c, const skald_task *t, skald_version *start) {
    const uint32_t dim = t->model->dim;
    const double *dw = (const double *)(const void *)c->last->data, *d = dw + dim;
    /* not its bytes: other lanes count references there */
    *start = (skald_version){.id = t->model->id, .commits = t->model->commits, .count = t->model->count, .dim = dim};
    memcpy(start->vectors, t->model->vectors, sizeof start->vectors);
    for (uint32_t j = 0; j < dim; j++) c->start[j] = t->model->vectors[0][j] + t->theta * dw[j];
    start->vectors[0] = c->start;
    if (!t->saga) return;
    const double inv_n = 1 / t->n;
    for (uint32_t j = 0; j < dim; j++) c->start[dim + j] = t->model->vectors[1][j] + inv_n * d[j];
    start->vectors[1] = c->start + dim;
}

void skald_chain_run(skald_chain *c, skald_runner *runner, skald_lane *lane, const skald_task *t, skald_bytes *bytes,
                     skald_result *r) {
    skald_task begun = *t;
    skald_version start;
    const uint32_t needed = t->saga ? 2 : 1;
    if (t->kind == SKALD_TASK_LOCAL && t->after && t->after == c->task && t->saga == c->saga && t->model &&
        t->model->count >= needed && t->model->dim == runner->dim) {
        go_on(c, t, &start);
        begun.model = &start;
    }
    skald_runner_run(runner, lane, &begun, r);
    if (t->kind != SKALD_TASK_LOCAL) return;
    skald_bytes_unref(c->last);
    c->last = r->status == SKALD_OK ? skald_bytes_ref(bytes) : NULL;
    c->task = r->status == SKALD_OK ? t->id : 0;
    c->saga = t->saga;
}
