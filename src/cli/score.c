#include "cli/score.h"

#include <stdlib.h>
#include <string.h>

#include "base/base.h"

/* Rows read at a time: enough to keep the reader's threads busy, little enough to stay out of the way. */
static const size_t CHUNK_BYTES = (size_t)64 << 20;

static skald_status scan(skald_source *source, const char *path, skald_manifest *out) {
    TRY(skald_source_scan(source, 0, skald_source_parts(source), out));
    skald_status st = skald_manifest_finish(out);
    return st == SKALD_OK ? st : skald_context(st, "%s", path);
}

static double decision_value(const skald_rows *rows, const skald_model *m, const double *w, size_t i) {
    double sum = m->intercept ? w[m->features] : 0;
    if (rows->layout == SKALD_DENSE) {
        const float *x = rows->x + i * rows->stride;
        for (uint32_t j = 0; j < rows->dim; j++) sum += w[j] * (double)x[j];
    } else {
        for (uint64_t e = rows->ptr[i]; e < rows->ptr[i + 1]; e++) sum += w[rows->idx[e]] * (double)rows->val[e];
    }
    return sum;
}

static void decision_values(const skald_rows *rows, const skald_model *m, double *z) {
    const uint32_t outputs = skald_model_outputs(m);
    for (size_t i = 0; i < rows->n; i++)
        for (uint32_t c = 0; c < outputs; c++) *z++ = decision_value(rows, m, m->w + c * skald_model_columns(m), i);
}

static skald_status score_blocks(skald_source *source, const skald_manifest *manifest, const skald_model *model,
                                 const score_options *options, score_chunk chunk, void *user) {
    bool labels = options->want_labels && model->label_count > 0;
    skald_transform transform = {.dim = model->features,
                                 .zero_based = manifest->zero_based,
                                 .keep_all_rows = !options->want_labels,
                                 .label_count = labels ? model->label_count : 0,
                                 .label_values = labels ? model->label_values : NULL,
                                 .label_targets = labels ? model->label_targets : NULL,
                                 .weight_scale = 1,
                                 .rows = manifest->rows};
    double row_bytes = manifest->layout == SKALD_DENSE ? 4.0 * model->features
                                                       : 12.0 * (double)manifest->nonzeros / (double)manifest->rows;
    for (uint64_t first = 0, count; first < manifest->block_count; first += count) {
        double bytes = 0;
        for (count = 0; first + count < manifest->block_count && (count == 0 || bytes < (double)CHUNK_BYTES); count++)
            bytes += (row_bytes + 32) * manifest->blocks[first + count].rows;
        skald_rows rows = {0};
        TRY(skald_source_read(source, manifest->blocks + first, count, &transform, &rows, NULL));
        double *z = skald_alloc(rows.n * skald_model_outputs(model) + 1, sizeof *z);
        skald_status st = z ? SKALD_OK : SKALD_ENOMEM;
        if (st == SKALD_OK) {
            decision_values(&rows, model, z);
            st = chunk(user, &rows, z);
        }
        free(z);
        skald_rows_free(&rows);
        TRY(st);
    }
    return SKALD_OK;
}

skald_status score_file(const char *path, const char *model_path, const skald_model *model,
                        const score_options *options, score_chunk chunk, void *user) {
    skald_source_options how = {
        .weights_path = options->weights_path, .index_base = options->index_base, .threads = options->threads};
    /* a file without an index 0 may still count from 0, as the one the model comes from did */
    if (how.index_base < 0 && model->zero_based) how.index_base = 0;
    skald_source *source = NULL;
    skald_manifest manifest = {0};
    skald_status st;
    TRY(skald_source_open(path, &how, &source));
    TRY_GOTO(st, scan(source, path, &manifest), out);
    if (manifest.dim > model->features) {
        st = skald_fail(SKALD_EMODEL, "%s has %u columns, but the model %s knows %u: not the data it was trained for",
                        path, manifest.dim, model_path, model->features);
        goto out;
    }
    if (options->want_labels)
        for (uint32_t k = 0; model->label_count && k < manifest.label_count && k < SKALD_MAX_LABELS; k++) {
            bool known = false;
            for (uint32_t j = 0; j < model->label_count; j++)
                known |= manifest.labels[k].value == model->label_values[j];
            if (known) continue;
            st = skald_fail(SKALD_EMODEL, "%s has rows with the label %g, but the model %s knows the labels %g%s%g",
                            path, manifest.labels[k].value, model_path, model->label_values[0],
                            model->label_count > 2 ? " to " : " and ", model->label_values[model->label_count - 1]);
            goto out;
        }
    st = score_blocks(source, &manifest, model, options, chunk, user);
out:
    skald_manifest_free(&manifest);
    skald_source_close(source);
    return st;
}
