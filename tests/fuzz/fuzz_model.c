/* A model file, as predict and evaluate open and use it. Input that begins with an S is the file; else the file is a
 * model's own with the input's edits and the right checksum. */
#include <inttypes.h>

#include "cli/score.h"
#include "fuzz_image.h"
#include "skald/model.h"

enum { HEADER = 512, KINDS = 3 };

static const char text[] = "1 1:0.5 3:1.5\n2 2:0.25 3:-1\n3 1:1 2:2\n1 1:-1 3:2\n";

/* Two classes, three, and a regression. */
static void prepare(size_t kind, fuzz_image *image) {
    double w[12] = {0.5, -1, 2, 0.25, 1, 1, -1}, values[] = {1, 2, 3}, binary[] = {-1, 1}, many[] = {0, 1, 2};
    const skald_model m = {.loss = (skald_loss[]){SKALD_LOGISTIC, SKALD_SOFTMAX, SKALD_SQUARED}[kind],
                           .huber_delta = 1,
                           .l2 = 1e-3,
                           .classes = kind == 1 ? 3 : 1,
                           .intercept = true,
                           .features = 3,
                           .w = w,
                           .label_count = (uint32_t[]){2, 3, 0}[kind],
                           .label_values = values,
                           .label_targets = kind ? many : binary};
    if (skald_model_save(&fuzz_storage, "fuzz", &m) != SKALD_OK) abort();
    uint8_t *bytes = malloc(fuzz_stored_size - HEADER);
    if (!bytes) abort();
    memcpy(bytes, fuzz_stored + HEADER, fuzz_stored_size - HEADER);
    fuzz_image_take(image, bytes, fuzz_stored_size - HEADER);
}

static void store_edited(const uint8_t *data, size_t size) {
    static fuzz_image images[KINDS];
    fuzz_input in = {data + 1, size - 1};
    fuzz_image *image = &images[data[0] % KINDS];
    if (!image->bytes) prepare(data[0] % KINDS, image);
    size_t bytes = 0;
    uint8_t *file = fuzz_image_edit(image, &in, HEADER, &bytes);
    snprintf((char *)file, HEADER, "SKALD MODEL 1\nbytes %zu\nhash %016" PRIx64 "\n", bytes - HEADER,
             skald_hash(file + HEADER, bytes - HEADER, 0));
    fuzz_store(file, bytes);
    free(file);
}

static skald_status use(void *user, const skald_rows *rows, const double *z) {
    const skald_model *m = user;
    static volatile double used; /* so that it is computed */
    double sum = 0;
    for (size_t i = 0; i < rows->n; i++) {
        const double *zi = z + i * skald_model_outputs(m);
        sum += skald_model_label(m, zi);
        sum += m->loss == SKALD_SOFTMAX ? skald_softmax_value(m->classes, zi, (uint32_t)rows->y[i])
                                        : skald_loss_value(m->loss, m->huber_delta, zi[0], rows->y[i]);
    }
    used = sum;
    (void)used;
    return SKALD_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    skald_model m = {0}, again = {0};
    if (size && data[0] != 'S')
        store_edited(data, size);
    else
        fuzz_store(data, size);
    const bool whole = size == 1 && data[0] != 'S';
    if (skald_model_load(&fuzz_storage, "fuzz", &m) == SKALD_OK) {
        const char *path = fuzz_file((const uint8_t *)text, sizeof text - 1);
        for (int labels = 0; labels < 2; labels++) { /* predict, evaluate */
            const score_options options = {.index_base = -1, .threads = 1, .want_labels = labels};
            (void)score_file(path, "fuzz", &m, &options, use, &m);
        }
        (void)skald_model_export_liblinear(&fuzz_storage, "fuzz", &m);
        if (skald_model_save(&fuzz_storage, "fuzz", &m) != SKALD_OK ||
            skald_model_load(&fuzz_storage, "fuzz", &again) != SKALD_OK)
            abort(); /* what was read can be written and read */
        skald_model_free(&again);
    } else if (whole) {
        abort(); /* without an edit it is */
    }
    skald_model_free(&m);
    return 0;
}
