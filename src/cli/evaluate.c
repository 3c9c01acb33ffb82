/* skald evaluate: how good a model is on a data file. */
#include <jansson.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/cli.h"
#include "cli/score.h"

typedef struct values {
    const char *model, *sample_weights;
    int index_base;
    int64_t threads;
    bool json;
} values;

#define AT(member) offsetof(values, member)

/* clang-format off */
static const skald_option table[] = {
    {"model", SKALD_OPTION_TEXT, AT(model), .value = "FILE", .help = "The model, as 'skald train --model' wrote it"},
    {"json", SKALD_OPTION_FLAG, AT(json), .help = "One JSON object instead of lines"},
    {"sample-weights", SKALD_OPTION_TEXT, AT(sample_weights), .value = "FILE", .help = "One weight a row, in text"},
    {"index-base", SKALD_OPTION_CHOICE, AT(index_base), "auto", .words = "auto|0|1",
     .help = "First index of LIBSVM text; auto: 0 if an index 0 occurs"},
    {"threads", SKALD_OPTION_INT, AT(threads), "cores", 1, 1024, "cores=0", .help = "Threads that read"},
    {0},
};
/* clang-format on */

typedef struct totals {
    const skald_model *model;
    double rows, weight, loss, correct, square;
} totals;

static skald_status add_chunk(void *user, const skald_rows *rows, const double *z) {
    totals *t = user;
    const skald_model *m = t->model;
    for (size_t i = 0; i < rows->n; i++) {
        double y = rows->y[i], s = rows->s[i];
        t->weight += s;
        if (m->loss == SKALD_SOFTMAX) {
            const double *zi = z + i * m->classes;
            t->loss += s * skald_softmax_value(m->classes, zi, (uint32_t)y);
            t->correct += skald_softmax_class(m->classes, zi) == (uint32_t)y;
            continue;
        }
        t->loss += s * skald_loss_value(m->loss, m->huber_delta, z[i], y);
        t->correct += skald_loss_correct(m->loss, z[i], y);
        t->square += (z[i] - y) * (z[i] - y);
    }
    t->rows += (double)rows->n;
    return SKALD_OK;
}

static double penalty(const skald_model *m) {
    double norm1 = 0, norm2 = 0, bounded = 0;
    for (uint32_t c = 0; c < skald_model_outputs(m); c++) {
        const double *w = m->w + c * skald_model_columns(m);
        for (uint32_t j = 0; j < m->features; j++) {
            norm1 += fabs(w[j]);
            norm2 += w[j] * w[j];
            bounded += skald_bounded_value(w[j]);
        }
    }
    return 0.5 * m->l2 * norm2 + m->l1 * norm1 + m->nonconvex * bounded;
}

static void print(const values *v, const totals *t) {
    const skald_model *m = t->model;
    bool classes = skald_loss_is_classifier(m->loss);
    double quality = (classes ? t->correct : t->square) / t->rows;
    double loss = t->loss / t->weight, objective = loss + penalty(m);
    if (!v->json) {
        printf("%-18s  %.6g\n", classes ? "accuracy" : "mean squared error", quality);
        printf("%-18s  %.10g\n", "mean loss", loss);
        if (!m->scaled) printf("%-18s  %.10g\n", "objective", objective);
        printf("%-18s  %.0f\n", "rows", t->rows);
        return;
    }
    json_t *o =
        json_pack("{s:s, s:f, s:f, s:I}", "loss", skald_loss_name(m->loss), classes ? "accuracy" : "mean_squared_error",
                  quality, "mean_loss", loss, "rows", (json_int_t)t->rows);
    if (o && !m->scaled) json_object_set_new(o, "objective", json_real(objective));
    char *text = o ? json_dumps(o, JSON_REAL_PRECISION(17)) : NULL;
    puts(text ? text : "{}");
    free(text);
    json_decref(o);
}

static skald_status evaluate(const values *v, const char *data) {
    skald_model model = {0};
    TRY(skald_model_load(NULL, v->model, &model));
    totals t = {.model = &model};
    score_options options = {.index_base = v->index_base - 1,
                             .threads = v->threads ? (int)v->threads : usable_cores(),
                             .want_labels = true,
                             .weights_path = v->sample_weights};
    skald_status st = score_file(data, v->model, &model, &options, add_chunk, &t);
    if (st == SKALD_OK && !(t.weight > 0)) st = skald_fail(SKALD_EDATA, "%s: the weights of all rows are zero", data);
    if (st == SKALD_OK) print(v, &t);
    skald_model_free(&model);
    return st;
}

static int run(const command *self, int argc, char **argv) {
    values v = {0};
    arguments args;
    arguments_parse(self, argc, argv, &v, &args);
    if (!v.model) arguments_error(self, "--model FILE is missing");
    skald_status st = evaluate(&v, args.words[0]);
    arguments_free(&args);
    return st == SKALD_OK ? EXIT_DONE : report_failure(self);
}

const command command_evaluate = {
    .name = "evaluate",
    .words = "DATA",
    .summary = "accuracy or mean squared error, loss and objective of a model on a data file",
    .about =
        "Prints how well the model does on DATA: accuracy (or mean squared error), the mean loss, and the objective, "
        "which adds the model's regulariser (not said for models trained with --scale, which regularises other "
        "weights; "
        "class weights are not counted).",
    .notes = "For example:\n\n  skald evaluate --model model.h5 test.svm\n\n",
    .table = table,
    .least_words = 1,
    .most_words = 1,
    .run = run,
};
