/* The constant that a new run begins with. */
#include <math.h>
#include <stdlib.h>

#include "base/base.h"
#include "skald/problem.h"

typedef struct label_sums {
    double weight, mean, spread; /* sum s_i, mean of y, sum s_i (y_i - mean)^2 */
} label_sums;

/* Two shards' together (Chan, Golub, LeVeque 1979): no square of a large mean is ever subtracted. */
static void merge(label_sums *a, const skald_shard_facts *f) {
    const double weight = a->weight + f->weight_sum, apart = f->mean_y - a->mean;
    if (!(f->weight_sum > 0)) return;
    a->mean += apart * (f->weight_sum / weight);
    a->spread += f->spread_y + apart * apart * (a->weight / weight) * f->weight_sum;
    a->weight = weight;
}

/* Away from 0 and 1, where the log-odds end, by half a row. */
static double share(const skald_problem *p, double v) {
    return fmin(fmax(v, 0.5 / p->n), 1 - 0.5 / p->n);
}

/* b with least mean phi(b, y_i), y_i in {-1, 1} or real, by the mean of y. */
static double constant(const skald_problem *p, double mean) {
    if (p->objective.loss != SKALD_LOGISTIC) return mean;
    const double positives = share(p, (1 + mean) / 2);
    return log(positives / (1 - positives));
}

/* log of each class's share, less their mean: what all of them have in common changes nothing. */
static void class_constants(const skald_problem *p, double *b) {
    const uint32_t classes = p->objective.classes;
    double sum = 0, mean = 0;
    for (uint32_t c = 0; c < classes; c++) sum += p->labels[c].weight_sum * p->transform.label_weights[c];
    if (p->unknown_shares || !(sum > 0)) return;
    for (uint32_t c = 0; c < classes; c++) {
        b[c] = log(share(p, p->labels[c].weight_sum * p->transform.label_weights[c] / sum));
        mean += b[c] / classes;
    }
    for (uint32_t c = 0; c < classes; c++) b[c] -= mean;
}

skald_status skald_problem_start(skald_problem *p) {
    const skald_loss loss = p->objective.loss;
    label_sums y = {0};
    free(p->start);
    p->start = NULL;
    if (p->objective.intercept) {
        p->start = skald_zalloc(skald_objective_classes(&p->objective), sizeof *p->start);
        if (!p->start) return SKALD_ENOMEM;
    }
    if (loss == SKALD_SOFTMAX) {
        p->start_loss = log(p->objective.classes);
        if (p->start) class_constants(p, p->start);
        return SKALD_OK;
    }
    for (uint32_t k = 0; k < p->shard_count; k++) merge(&y, &p->shards[k].facts);
    const double b = p->start ? p->start[0] = constant(p, y.mean) : 0;
    if (skald_loss_is_binary(loss))
        p->start_loss = skald_loss_value(loss, 1, 0, 1);
    else
        p->start_loss = 0.5 * (y.spread / y.weight + (y.mean - b) * (y.mean - b));
    return SKALD_OK;
}
