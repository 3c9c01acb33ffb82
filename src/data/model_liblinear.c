/* liblinear's model file: text, documented in its README. */
#include <limits.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "data/model_file.h"

/* Predict only asks whether the solver is a classifier or a regressor, so the nearest of its names does. */
static const char *solver(const skald_model *m) {
    if (m->label_count == 0) return "L2R_L2LOSS_SVR";
    if (m->label_count > 2) return "MCSVM_CS"; /* the largest decision value; its LR would make other probabilities */
    bool l1 = m->l1 > 0 && m->l2 == 0;
    if (m->loss == SKALD_LOGISTIC || m->loss == SKALD_SOFTMAX) return l1 ? "L1R_LR" : "L2R_LR";
    return l1 ? "L1R_L2LOSS_SVC" : "L2R_L2LOSS_SVC";
}

skald_status skald_model_export_liblinear(skald_storage *storage, const char *path, const skald_model *m) {
    char *text = NULL;
    size_t size = 0;
    if (!storage) storage = skald_storage_posix();
    if (m->loss != SKALD_SOFTMAX && m->label_count != 0 && m->label_count != 2)
        return skald_fail(SKALD_EMODEL, "%s: liblinear's format takes a regression or two classes, not %u labels", path,
                          m->label_count);
    for (uint32_t k = 0; k < m->label_count; k++)
        if (fabs(m->label_values[k]) > INT_MAX || m->label_values[k] != (int)m->label_values[k])
            return skald_fail(SKALD_EMODEL, "%s: liblinear's labels are integers, the model has %.17g", path,
                              m->label_values[k]);
    FILE *f = open_memstream(&text, &size);
    if (!f) return skald_fail(SKALD_ENOMEM, "%s: out of memory", path);
    const uint32_t outputs = skald_model_outputs(m);
    const uint64_t columns = skald_model_columns(m);
    fprintf(f, "solver_type %s\nnr_class %u\n", solver(m), outputs > 2 ? outputs : 2);
    if (outputs > 2) {
        fprintf(f, "label");
        for (uint32_t k = 0; k < outputs; k++) fprintf(f, " %d", (int)m->label_values[k]);
        fprintf(f, "\n");
    } else if (m->label_count == 2) { /* a positive decision value is the first one */
        int first = m->label_targets[0] > 0 ? 0 : 1;
        fprintf(f, "label %d %d\n", (int)m->label_values[first], (int)m->label_values[1 - first]);
    }
    fprintf(f, "nr_feature %u\nbias %d\nw\n", m->features, m->intercept ? 1 : -1);
    for (uint64_t j = 0; j < columns; j++) {
        if (outputs == 2) /* softmax of two classes is logistic in the difference */
            fprintf(f, "%.17g ", m->w[columns + j] - m->w[j]);
        else
            for (uint64_t c = 0; c < outputs; c++) fprintf(f, "%.17g ", m->w[c * columns + j]);
        fprintf(f, "\n");
    }
    bool good = !ferror(f);
    good &= fclose(f) == 0;
    skald_status st =
        good ? storage->write_atomic(storage, path, text, size) : skald_fail(SKALD_ENOMEM, "%s: out of memory", path);
    free(text);
    return st;
}
