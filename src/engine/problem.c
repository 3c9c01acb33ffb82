#include "skald/problem.h"

#include <endian.h>
#include <float.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "skald/choose.h"

static void warn(skald_problem *p, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void warn(skald_problem *p, const char *format, ...) {
    size_t used = strlen(p->warnings);
    if (used && used + 2 < sizeof p->warnings) p->warnings[used++] = '\n', p->warnings[used] = 0;
    va_list args;
    va_start(args, format);
    vsnprintf(p->warnings + used, sizeof p->warnings - used, format, args);
    va_end(args);
}

static skald_status map_labels(const skald_manifest *m, const skald_data_options *o, skald_problem *p) {
    const bool many = p->objective.loss == SKALD_SOFTMAX;
    if (!skald_loss_is_classifier(p->objective.loss)) {
        if (o->balanced || o->class_weight_count)
            return skald_fail(SKALD_EINVAL,
                              "class weights need a loss of classes (logistic, squared-hinge, softmax), not %s",
                              skald_loss_name(p->objective.loss));
        return SKALD_OK;
    }
    if (m->label_count == 1)
        return skald_fail(SKALD_EDATA,
                          "%s: every row has the label %g: %s needs two classes (--loss squared fits a "
                          "number)",
                          o->path, m->labels[0].value, skald_loss_name(p->objective.loss));
    if (many && m->label_count > SKALD_MAX_LABELS)
        return skald_fail(
            SKALD_EDATA,
            "%s: more than %d labels (from %g to %g): softmax takes no more; for real targets use squared "
            "or huber",
            o->path, SKALD_MAX_LABELS, m->label_min, m->label_max);
    if (!many && m->label_count != 2)
        return skald_fail(SKALD_EDATA,
                          "%s: more than two labels (%s%u, from %g to %g): %s takes two; softmax takes more, and for "
                          "real targets there are squared and huber",
                          o->path, m->label_count > SKALD_MAX_LABELS ? "over " : "",
                          m->label_count > SKALD_MAX_LABELS ? SKALD_MAX_LABELS : m->label_count, m->label_min,
                          m->label_max, skald_loss_name(p->objective.loss));
    const uint32_t count = m->label_count;
    double *table = skald_zalloc(3 * (size_t)count, sizeof *table);
    p->labels = skald_zalloc(count, sizeof *p->labels);
    if (!table || !p->labels) {
        free(table);
        return SKALD_ENOMEM;
    }
    if (many) p->objective.classes = count;
    p->label_count = count;
    p->unknown_shares = o->source.weights_path;
    memcpy(p->labels, m->labels, count * sizeof *p->labels);
    double *const targets = table + count, *const weights = targets + count;
    p->transform.label_count = count;
    p->transform.label_values = table;
    p->transform.label_targets = targets;
    p->transform.label_weights = weights;
    for (uint32_t k = 0; k < count; k++) {
        table[k] = m->labels[k].value;
        targets[k] = many ? (double)k : k ? 1.0 : -1.0; /* of two, the smaller label is the negative class */
        weights[k] = o->balanced ? (double)m->rows / ((double)count * (double)m->labels[k].count) : 1;
    }
    for (uint32_t c = 0; c < o->class_weight_count; c++) {
        uint32_t k = 0;
        while (k < count && o->class_weight_label[c] != table[k]) k++;
        if (k == count)
            return skald_fail(SKALD_EINVAL, "class weight for label %g, but %s has the labels %g%s%g",
                              o->class_weight_label[c], o->path, table[0], count == 2 ? " and " : " to ",
                              table[count - 1]);
        weights[k] *= o->class_weight[c];
    }
    return SKALD_OK;
}

static void choose_loss(const skald_manifest *m, skald_problem *p) {
    const skald_loss_choice c = skald_choose_loss(m->labels, m->label_count, m->rows);
    p->objective.loss = c.loss;
    snprintf(p->chosen, sizeof p->chosen, "loss %s (%s)", skald_loss_name(c.loss), c.why);
}

/* Blocks of one shard together, in file order. */
static skald_status deal(const skald_manifest *m, const skald_data_options *o, uint32_t workers, uint64_t slots,
                         skald_problem *p) {
    /* see README: a task's rows come from one shard */
    uint64_t wanted = o->shards ? o->shards : slots > o->least_shards ? slots : o->least_shards;
    if (wanted > m->block_count) {
        if (o->shards)
            return skald_fail(SKALD_EINVAL, "%s divides into %llu blocks of rows: --shards %u is too many", o->path,
                              (unsigned long long)m->block_count, o->shards);
        wanted = m->block_count;
    }
    if (wanted < workers)
        return skald_fail(SKALD_EINVAL, "%s has only %llu rows in %llu blocks: too little for %u workers", o->path,
                          (unsigned long long)m->rows, (unsigned long long)m->block_count, workers);
    p->shard_count = (uint32_t)wanted;
    p->shards = skald_zalloc(p->shard_count, sizeof *p->shards);
    p->blocks = skald_alloc(m->block_count, sizeof *p->blocks);
    uint32_t *shard_of = skald_alloc(m->block_count, sizeof *shard_of);
    skald_status st = SKALD_ENOMEM;
    if (!p->shards || !p->blocks || !shard_of) goto out;
    TRY_GOTO(st, skald_deal(m, p->shard_count, o->seed, o->contiguous || m->shuffled, shard_of), out);
    for (uint64_t b = 0; b < m->block_count; b++) p->shards[shard_of[b]].block_count++;
    for (uint32_t k = 1; k < p->shard_count; k++)
        p->shards[k].block_begin = p->shards[k - 1].block_begin + p->shards[k - 1].block_count;
    for (uint32_t k = 0; k < p->shard_count; k++) p->shards[k].block_count = 0;
    for (uint64_t b = 0; b < m->block_count; b++) {
        skald_shard_info *s = &p->shards[shard_of[b]];
        p->blocks[s->block_begin + s->block_count++] = m->blocks[b];
        s->rows += m->blocks[b].rows;
    }
    for (uint32_t k = 0; k < p->shard_count; k++)
        p->shards[k].checksum = skald_blocks_checksum(p->blocks + p->shards[k].block_begin, p->shards[k].block_count);
out:
    free(shard_of);
    return st;
}

static void warn_about_columns(const skald_manifest *m, const skald_data_options *o, skald_problem *p) {
    if (o->scaling == SKALD_SCALE_STANDARD && !p->dense && !o->intercept)
        warn(p, "--scale standard does not centre sparse data, and there is no constant that would take the columns' "
                "means: they are divided by their deviation only");
    if (o->scaling != SKALD_SCALE_NONE) return;
    double low = DBL_MAX, high = 0;
    for (uint32_t j = 0; j < m->dim; j++) {
        double a = m->col_max_abs[j];
        if (a > 0 && a < low) low = a;
        if (a > high) high = a;
    }
    if (high > 1000 * low && high > 100)
        warn(p,
             "columns differ in size by a factor of %.0f (largest value %g): SAGA's step is set by the largest; "
             "consider --scale %s",
             high / low, high, p->dense ? "standard" : "maxabs");
}

/* x^2 of a column as trained, (x - shift) scale, from the sums of x and x^2 as they lie in the file. */
static skald_status column_means(const skald_manifest *m, skald_problem *p) {
    const skald_transform *t = &p->transform;
    const double n = (double)m->rows;
    p->column_mean2 = skald_alloc(p->dim, sizeof *p->column_mean2);
    if (!p->column_mean2) return SKALD_ENOMEM;
    for (uint32_t j = 0; j < p->features; j++) {
        const double shift = t->shift ? t->shift[j] : 0, scale = t->scale ? t->scale[j] : 1;
        const double mean2 = m->col_sum2[j] / n - 2 * shift * m->col_sum[j] / n + shift * shift;
        p->column_mean2[j] = fmax(mean2, 0) * scale * scale;
    }
    if (p->objective.intercept) p->column_mean2[p->features] = 1;
    return SKALD_OK;
}

/* intercept_step: a tenth of the mean |x_i|^2 of the rows as they are trained on. All of it would be best where little
 * but the constant is ill-conditioned, but doubles L_max for everything else; a hundredth is too little (measured: rows
 * of 4000 columns, 72, 116 and 140 passes; softmax on digits, 77, 44 and 120). */
static double intercept_step(const skald_problem *p) {
    double sum = 0;
    for (uint32_t j = 0; j < p->features; j++) sum += p->column_mean2[j];
    return isfinite(sum) && sum > 0 ? 0.1 * sum : 1;
}

skald_status skald_problem_make(const skald_manifest *m, const skald_data_options *o, const skald_objective *objective,
                                uint32_t workers, uint64_t slots, skald_problem *p) {
    memset(p, 0, sizeof *p);
    p->objective = *objective;
    p->objective.intercept = o->intercept;
    if (!p->objective.classes) p->objective.classes = 1;
    if (o->choose_loss) choose_loss(m, p);
    p->features = m->dim; /* a scan with options.dim reports that */
    if (p->features == 0) return skald_fail(SKALD_EDATA, "%s: no row has a feature", o->path);
    p->dim = p->features + (o->intercept ? 1 : 0);
    p->n = (double)m->rows;
    if (p->objective.l2 < 0) p->objective.l2 /= -p->n; /* -k stands for k/n, which nobody knew until now */
    p->dense = skald_manifest_wants_dense(m, 0.25);
    p->seed = o->seed;
    p->weight_scale = 1;
    skald_transform *t = &p->transform;
    t->dim = p->features;
    t->zero_based = m->zero_based;
    t->intercept = o->intercept;
    t->force_dense = p->dense && m->layout == SKALD_CSR;
    t->weight_scale = 1;
    t->rows = m->rows;
    skald_status st = map_labels(m, o, p);
    if (st == SKALD_OK && skald_objective_length(&p->objective, p->dim) > UINT32_MAX)
        st = skald_fail(SKALD_EDATA, "%s: %u columns x %u classes are too many", o->path, p->dim, p->objective.classes);
    if (st == SKALD_OK) {
        double *shift = NULL, *scale = NULL;
        st = skald_scaling_make(o->scaling, m, p->dense, &shift, &scale);
        t->shift = shift;
        t->scale = scale;
    }
    if (st == SKALD_OK) st = column_means(m, p);
    if (st == SKALD_OK && o->intercept) p->objective.intercept_step = intercept_step(p);
    if (st == SKALD_OK) st = deal(m, o, workers, slots, p);
    if (st == SKALD_OK) warn_about_columns(m, o, p);
    if (st != SKALD_OK) skald_problem_free(p);
    return st;
}

void skald_rows_facts(const skald_rows *rows, const skald_objective *objective, skald_shard_facts *out) {
    memset(out, 0, sizeof *out);
    out->rows = rows->n;
    for (size_t i = 0; i < rows->n; i++) {
        double norm2 = skald_objective_norm2_more(objective);
        if (rows->layout == SKALD_DENSE) {
            const float *x = rows->x + i * rows->stride;
            for (uint32_t j = 0; j < rows->dim; j++) norm2 += (double)x[j] * x[j];
            out->nonzeros += rows->dim;
        } else {
            for (uint64_t e = rows->ptr[i]; e < rows->ptr[i + 1]; e++) norm2 += (double)rows->val[e] * rows->val[e];
            out->nonzeros += (double)(rows->ptr[i + 1] - rows->ptr[i]);
        }
        double s = rows->s[i];
        skald_shard_facts_label(out, s, rows->y[i]);
        out->sum_weighted_norm2 += s * norm2;
        if (s * norm2 > out->max_weighted_norm2) out->max_weighted_norm2 = s * norm2;
    }
}

void skald_rows_rescale(skald_rows *rows, double weight_scale) {
    if (weight_scale != 1)
        for (size_t i = 0; i < rows->n; i++) rows->s[i] *= weight_scale;
}

skald_status skald_problem_loaded(skald_problem *p) {
    double weights = 0, max_norm2 = 0, sum_norm2 = 0;
    p->nonzeros = 0;
    for (uint32_t k = 0; k < p->shard_count; k++) weights += p->shards[k].facts.weight_sum;
    if (!(weights > 0)) return skald_fail(SKALD_EDATA, "the weights of all rows are zero");
    /* all weights 1: exactly 1, so that nothing is rounded */
    p->weight_scale = weights == p->n ? 1 : p->n / weights;
    for (uint32_t k = 0; k < p->shard_count; k++) {
        skald_shard_facts *f = &p->shards[k].facts;
        f->weight_sum *= p->weight_scale;
        f->max_weighted_norm2 *= p->weight_scale;
        f->sum_weighted_norm2 *= p->weight_scale;
        f->spread_y *= p->weight_scale;
        p->nonzeros += f->nonzeros;
        sum_norm2 += f->sum_weighted_norm2;
        if (f->max_weighted_norm2 > max_norm2) max_norm2 = f->max_weighted_norm2;
    }
    TRY(skald_problem_start(p));
    p->L_max = skald_loss_curvature(p->objective.loss) * max_norm2;
    if (!(p->L_max > 0)) return skald_fail(SKALD_EDATA, "every row is zero");
    if (!isfinite(p->L_max)) return skald_fail(SKALD_EDATA, "row norms overflow: scale the data (--scale)");
    if (max_norm2 > 100 * sum_norm2 / p->n)
        warn(p,
             "the largest row (weighted, squared) is %.0f times the mean: SAGA's step is set by the largest; look for "
             "outliers, or use --scale",
             max_norm2 * p->n / sum_norm2);
    return SKALD_OK;
}

double skald_problem_loss_at_zero(const skald_problem *p) {
    if (p->objective.loss == SKALD_SOFTMAX) return log(p->objective.classes);
    if (skald_loss_is_binary(p->objective.loss)) return skald_loss_value(p->objective.loss, 1, 0, 1);
    double y2 = 0;
    for (uint32_t k = 0; k < p->shard_count; k++) {
        const skald_shard_facts *f = &p->shards[k].facts;
        y2 += f->spread_y + f->weight_sum * f->mean_y * f->mean_y;
    }
    return 0.5 * y2 / p->n;
}

double skald_problem_label_scale(const skald_problem *p) {
    if (skald_loss_is_classifier(p->objective.loss)) return 1;
    const double all =
        sqrt(2 * skald_problem_loss_at_zero(p)); /* a constant takes most of it, if labels are far from 0 */
    return p->start ? fmax(sqrt(2 * p->start_loss), 1e-12 * all) : all;
}

void skald_problem_free(skald_problem *p) {
    free((void *)p->transform.shift);
    free((void *)p->transform.scale);
    free((void *)p->transform.label_values); /* one table for values, targets, weights */
    free(p->column_mean2);
    free(p->labels);
    free(p->start);
    free(p->shards);
    free(p->blocks);
    memset(p, 0, sizeof *p);
}

void skald_blocks_to_words(const skald_block *b, uint64_t count, uint64_t *words) {
    for (uint64_t k = 0; k < count; k++, words += SKALD_BLOCK_WORDS) {
        const uint64_t fields[SKALD_BLOCK_WORDS] = {b[k].offset, b[k].bytes, b[k].first_row, b[k].rows, b[k].hash};
        for (int f = 0; f < SKALD_BLOCK_WORDS; f++) words[f] = htole64(fields[f]);
    }
}

void skald_blocks_from_words(const uint64_t *words, uint64_t count, skald_block *b) {
    for (uint64_t k = 0; k < count; k++, words += SKALD_BLOCK_WORDS)
        b[k] = (skald_block){.offset = le64toh(words[0]),
                             .bytes = le64toh(words[1]),
                             .first_row = le64toh(words[2]),
                             .rows = (uint32_t)le64toh(words[3]),
                             .hash = le64toh(words[4])};
}
