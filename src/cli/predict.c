/* skald predict: a line a row, from a model. */
#include <errno.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/score.h"

typedef struct values {
    const char *model, *output;
    int type, index_base;
    int64_t threads;
} values;

enum { TYPE_LABEL, TYPE_PROBABILITY, TYPE_DECISION };

#define AT(member) offsetof(values, member)

/* clang-format off */
static const skald_option table[] = {
    {"model", SKALD_OPTION_TEXT, AT(model), .value = "FILE", .help = "The model, as 'skald train --model' wrote it"},
    {"output", SKALD_OPTION_TEXT, AT(output), "-", .value = "FILE", .help = "Where to write; -: standard output"},
    {"type", SKALD_OPTION_CHOICE, AT(type), "label", .words = "label|probability|decision", .value = "WHAT",
     .help = "label; probability of the larger label (logistic models) or of each, in ascending order (softmax); or "
             "decision, the value x.w itself, of each label (softmax)"},
    {"index-base", SKALD_OPTION_CHOICE, AT(index_base), "auto", .words = "auto|0|1",
     .help = "First index of LIBSVM text; auto: 0 if an index 0 occurs"},
    {"threads", SKALD_OPTION_INT, AT(threads), "cores", 1, 1024, "cores=0", .help = "Threads that read"},
    {0},
};
/* clang-format on */

typedef struct writer {
    const values *v;
    const skald_model *model;
    FILE *out;
    const char *name;
    double *p; /* a row's probabilities, several classes */
} writer;

static skald_status write_failed(const writer *w) {
    return skald_fail(SKALD_EIO, "%s: cannot write: %s", w->name, strerror(errno));
}

static skald_status write_chunk(void *user, const skald_rows *rows, const double *z) {
    writer *w = user;
    const uint32_t outputs = skald_model_outputs(w->model);
    for (size_t i = 0; i < rows->n; i++, z += outputs) {
        if (w->v->type == TYPE_LABEL) {
            if (fprintf(w->out, "%.9g\n", skald_model_label(w->model, z)) < 0) return write_failed(w);
            continue;
        }
        const bool decision = w->v->type == TYPE_DECISION;
        if (!decision && outputs > 1) skald_softmax(outputs, z, w->p);
        for (uint32_t c = 0; c < outputs; c++) {
            const double value = decision ? z[c] : outputs > 1 ? w->p[c] : 1 / (1 + exp(-z[c]));
            if (fprintf(w->out, "%.9g%c", value, c + 1 < outputs ? ' ' : '\n') < 0) return write_failed(w);
        }
    }
    return SKALD_OK;
}

static skald_status predict(const values *v, const char *data) {
    skald_model model = {0};
    TRY(skald_model_load(NULL, v->model, &model));
    writer w = {.v = v, .model = &model, .out = stdout, .name = "standard output"};
    skald_status st = SKALD_OK;
    w.p = malloc(skald_model_outputs(&model) * sizeof *w.p);
    if (!w.p) {
        st = skald_fail(SKALD_ENOMEM, "out of memory");
    } else if (v->type == TYPE_PROBABILITY && model.loss != SKALD_LOGISTIC && model.loss != SKALD_SOFTMAX) {
        st = skald_fail(SKALD_EINVAL,
                        "%s: probabilities need a logistic or softmax model; this one was trained with %s loss",
                        v->model, skald_loss_name(model.loss));
    } else if (strcmp(v->output, "-") != 0) {
        w.name = v->output;
        w.out = fopen(v->output, "we");
        if (!w.out) st = write_failed(&w);
    }
    score_options options = {.index_base = v->index_base - 1, .threads = v->threads ? (int)v->threads : usable_cores()};
    if (st == SKALD_OK) st = score_file(data, v->model, &model, &options, write_chunk, &w);
    if (w.out && w.out != stdout && fclose(w.out) != 0 && st == SKALD_OK) st = write_failed(&w);
    free(w.p);
    skald_model_free(&model);
    return st;
}

static int run(const command *self, int argc, char **argv) {
    values v = {0};
    arguments args;
    arguments_parse(self, argc, argv, &v, &args);
    if (!v.model) arguments_error(self, "--model FILE is missing");
    skald_status st = predict(&v, args.words[0]);
    arguments_free(&args);
    return st == SKALD_OK ? EXIT_DONE : report_failure(self);
}

const command command_predict = {
    .name = "predict",
    .words = "DATA",
    .summary = "write labels, probabilities or decision values of a data file's rows",
    .about = "Writes a line for each row of DATA, in the file's order. The labels in DATA are not looked at.",
    .notes = "For example:\n\n"
             "  skald predict --model model.h5 --output labels.txt test.svm\n"
             "  skald predict --model model.h5 --type probability test.svm | head\n\n",
    .table = table,
    .least_words = 1,
    .most_words = 1,
    .run = run,
};
