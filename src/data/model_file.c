#include "data/model_file.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"

/* The header: HDF5 looks for its own signature at 0, 512, 1024, ..., and takes what comes before as the user's. */
enum { HEADER = 512 };
static const char header_format[] = "SKALD MODEL 1\nbytes %" PRIu64 "\nhash %016" PRIx64 "\n";

void skald_model_free(skald_model *m) {
    free(m->w);
    free(m->label_values);
    free(m->label_targets);
    free(m->version);
    free(m->run_id);
    free(m->command);
    *m = (skald_model){0};
}

/* z = sum w_j (x_j - shift_j) scale_j + b */
skald_status skald_model_set_weights(skald_model *m, uint32_t features, bool intercept, const double *w,
                                     const double *shift, const double *scale) {
    const uint32_t outputs = skald_model_outputs(m);
    double *folded = skald_alloc(outputs * ((size_t)features + 1), sizeof *folded), *to = folded;
    if (!folded) return SKALD_ENOMEM;
    for (uint32_t c = 0; c < outputs; c++, w += features + (size_t)intercept) {
        double constant = intercept ? w[features] : 0;
        for (uint32_t j = 0; j < features; j++) {
            to[j] = scale ? w[j] * scale[j] : w[j];
            if (shift) constant -= to[j] * shift[j];
        }
        to += features;
        if (intercept || shift) *to++ = constant;
    }
    free(m->w);
    m->w = folded;
    m->features = features;
    m->intercept = intercept || shift;
    return SKALD_OK;
}

double skald_model_label(const skald_model *m, const double *z) {
    if (m->label_count == 0) return z[0];
    if (m->loss == SKALD_SOFTMAX) return m->label_values[skald_softmax_class(m->classes, z)];
    for (uint32_t k = 0; k < m->label_count; k++)
        if ((m->label_targets[k] > 0) == (z[0] >= 0)) return m->label_values[k];
    return m->label_values[0]; /* trained on one class only */
}

static skald_status check(const char *path, const skald_model *m) {
    for (uint64_t j = 0; j < skald_model_outputs(m) * skald_model_columns(m); j++)
        if (!isfinite(m->w[j]))
            return skald_fail(SKALD_ENUMERIC, "%s: not written: weight %" PRIu64 " of the model is not finite", path,
                              j);
    return SKALD_OK;
}

skald_status skald_model_save(skald_storage *storage, const char *path, const skald_model *m) {
    uint8_t *bytes = NULL;
    size_t size = 0;
    if (!storage) storage = skald_storage_posix();
    TRY(check(path, m));
    TRY(model_image_make(path, m, HEADER, &bytes, &size));
    snprintf((char *)bytes, HEADER, header_format, (uint64_t)(size - HEADER),
             skald_hash(bytes + HEADER, size - HEADER, 0));
    skald_status st = storage->write_atomic(storage, path, bytes, size);
    free(bytes);
    return st;
}

skald_status skald_model_load(skald_storage *storage, const char *path, skald_model *out) {
    uint8_t *bytes = NULL;
    size_t size = 0;
    char header[HEADER] = {0};
    *out = (skald_model){0};
    if (!storage) storage = skald_storage_posix();
    TRY(storage->read(storage, path, &bytes, &size));
    skald_status st = SKALD_OK;
    if (size < HEADER || memcmp(bytes, header_format, 12) != 0) {
        st = skald_fail(SKALD_EMODEL, "%s: is not a Skald model", path);
        goto end;
    }
    /* what the header must be, byte for byte, if the rest is whole */
    snprintf(header, HEADER, header_format, (uint64_t)(size - HEADER), skald_hash(bytes + HEADER, size - HEADER, 0));
    if (memcmp(bytes, header, HEADER) != 0) {
        st = memcmp(bytes, header, 14) != 0
                 ? skald_fail(SKALD_EMODEL, "%s: is a model of another version of Skald", path)
                 : skald_fail(SKALD_EMODEL, "%s: the model is damaged (its checksum does not match)", path);
        goto end;
    }
    st = model_image_parse(path, bytes + HEADER, size - HEADER, out);
end:
    free(bytes);
    return st;
}
