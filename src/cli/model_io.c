#include "cli/model_io.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/base.h"
#include "skald/model.h"

/* The command line that is making the model, for whoever finds the file later. */
static char *own_command(void) {
    char text[4096];
    size_t used = 0;
    FILE *file = fopen("/proc/self/cmdline", "re");
    if (file) used = fread(text, 1, sizeof text - 1, file);
    if (file) fclose(file);
    while (used > 0 && text[used - 1] == '\0') used--;
    for (size_t i = 0; i < used; i++)
        if (text[i] == '\0') text[i] = ' ';
    text[used] = '\0';
    return strdup(text);
}

static skald_status make(const skald_problem *p, const double *w, bool zero_based, const skald_evaluation *last,
                         skald_model *m) {
    *m = (skald_model){.loss = p->objective.loss,
                       .huber_delta = p->objective.huber_delta,
                       .l2 = p->objective.l2,
                       .l1 = p->objective.l1,
                       .nonconvex = p->objective.nonconvex,
                       .classes = skald_objective_classes(&p->objective),
                       .zero_based = zero_based,
                       .scaled = p->transform.scale != NULL,
                       .objective = last ? last->objective : NAN,
                       .gap = last ? last->relative_gap : NAN,
                       .passes = last ? last->passes : NAN};
    if (!isfinite(m->gap)) m->gap = NAN;
    TRY(skald_model_set_weights(m, p->features, p->objective.intercept, w, p->transform.shift, p->transform.scale));
    m->version = strdup(SKALD_VERSION);
    m->command = own_command();
    if (p->label_count) {
        m->label_values = skald_zalloc(p->label_count, sizeof *m->label_values);
        m->label_targets = skald_zalloc(p->label_count, sizeof *m->label_targets);
        if (!m->label_values || !m->label_targets) return SKALD_ENOMEM;
        m->label_count = p->label_count;
        for (uint32_t k = 0; k < p->label_count; k++) {
            m->label_values[k] = p->labels[k].value;
            /* ascending by value; of two, the smaller one negative: as it was trained */
            m->label_targets[k] = p->objective.loss == SKALD_SOFTMAX ? (double)k : k ? 1.0 : -1.0;
        }
    }
    return SKALD_OK;
}

skald_status model_save(const char *path, const skald_problem *problem, const double *w, bool zero_based,
                        const skald_evaluation *last) {
    skald_model model;
    skald_status st = make(problem, w, zero_based, last, &model);
    if (st == SKALD_OK) st = skald_model_save(NULL, path, &model);
    skald_model_free(&model);
    return st;
}

skald_status model_export(const char *path, const skald_problem *problem, const double *w) {
    skald_model model;
    skald_status st = make(problem, w, false, NULL, &model);
    if (st == SKALD_OK) st = skald_model_export_liblinear(NULL, path, &model);
    skald_model_free(&model);
    return st;
}

skald_status model_export_path(const char *text, const char **path) {
    static const char format[] = "liblinear:";
    if (strncmp(text, format, sizeof format - 1) == 0)
        *path = text + sizeof format - 1;
    else
        return skald_fail(SKALD_EINVAL, "--export %s: must be liblinear:FILE", text);
    return **path ? SKALD_OK : skald_fail(SKALD_EINVAL, "--export %s: the file's name is missing", text);
}
