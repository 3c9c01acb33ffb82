/* `skald generate`: rows of a problem, made by all CPUs a batch at a time, written in order. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "data/h5_write.h"
#include "data/parallel.h"
#include "data/problem.h"
#include "data/text_write.h"
#include "skald/data.h"

enum { TASK_ROWS = 32, BATCH_TASKS = 64, SAMPLE_ROWS = 4096, POWER_STEPS = 40 };

/* A batch of rows in memory. */
typedef struct batch {
    const problem_ops *ops;
    const problem *problem;
    const uint64_t *order;         /* row k of the file is row order[k] of the problem; NULL: k */
    uint64_t first, count, stride; /* rows first + k * stride of that order */
    uint32_t *idx;                 /* row_most a row */
    int32_t *q;
    uint32_t *entries;
    int *label;
    uint64_t *origin;
    void **scratch; /* one a worker */
    int threads;
    char *text; /* NULL, or room for each task's lines */
    size_t *text_size;
} batch;

static size_t row_bytes(const problem_ops *ops) {
    return TEXT_LABEL_BYTES + (size_t)ops->row_most * TEXT_ENTRY_BYTES;
}

static void batch_free(batch *b) {
    for (int k = 0; k < b->threads && b->scratch; k++) free(b->scratch[k]);
    free(b->scratch);
    free(b->idx);
    free(b->q);
    free(b->entries);
    free(b->label);
    free(b->origin);
    free(b->text);
    free(b->text_size);
    *b = (batch){0};
}

static skald_status batch_alloc(batch *b, uint64_t rows, bool text) {
    size_t entries = rows * b->ops->row_most;
    b->threads = (int)sysconf(_SC_NPROCESSORS_ONLN);
    if (b->threads < 1) b->threads = 1;
    b->scratch = calloc((size_t)b->threads, sizeof *b->scratch);
    b->q = skald_alloc(entries, sizeof *b->q);
    b->idx = b->ops->dense ? NULL : skald_alloc(entries, sizeof *b->idx);
    b->entries = skald_alloc(rows, sizeof *b->entries);
    b->label = skald_alloc(rows, sizeof *b->label);
    b->origin = skald_alloc(rows, sizeof *b->origin);
    bool good = b->scratch && b->q && (b->idx || b->ops->dense) && b->entries && b->label && b->origin;
    for (int k = 0; good && k < b->threads; k++) good = (b->scratch[k] = skald_alloc(1, b->ops->scratch));
    if (good && text) {
        b->text = skald_alloc(rows, row_bytes(b->ops));
        b->text_size = skald_alloc(rows / TASK_ROWS + 1, sizeof *b->text_size);
        good = b->text && b->text_size;
    }
    if (good) return SKALD_OK;
    batch_free(b);
    return skald_fail(SKALD_ENOMEM, "out of memory for %llu generated rows", (unsigned long long)rows);
}

static uint32_t *row_idx(const batch *b, uint64_t k) {
    return b->idx ? b->idx + k * b->ops->row_most : NULL;
}

static skald_status make_rows(void *context, int worker, size_t task) {
    batch *b = context;
    uint64_t from = task * TASK_ROWS, to = skald_min_size(from + TASK_ROWS, b->count);
    char *start = b->text ? b->text + from * row_bytes(b->ops) : NULL, *end = start;
    for (uint64_t k = from; k < to; k++) {
        uint64_t i = b->first + k * b->stride;
        int32_t *q = b->q + k * b->ops->row_most;
        b->origin[k] = b->order ? b->order[i] : i;
        b->entries[k] = b->ops->row(b->problem, b->origin[k], row_idx(b, k), q, &b->label[k], b->scratch[worker]);
        if (b->text)
            end = text_write_row(end, b->label[k], b->ops->labels_signed, row_idx(b, k), q, b->entries[k],
                                 b->ops->decimals);
    }
    if (b->text) b->text_size[task] = (size_t)(end - start);
    return SKALD_OK;
}

static skald_status batch_make(batch *b, uint64_t first, uint64_t count, uint64_t stride) {
    b->first = first;
    b->count = count;
    b->stride = stride;
    return data_parallel(b->threads, (count + TASK_ROWS - 1) / TASK_ROWS, make_rows, b);
}

static double unit(const problem_ops *ops) {
    double u = 1;
    for (uint32_t k = 0; k < ops->decimals; k++) u *= 10;
    return u;
}

/* ---- report --------------------------------------------------------------------------------------- */

/* Largest eigenvalue of X'X/m on the rows of a batch, by power iteration. */
static skald_status largest_eigenvalue(const batch *b, double *out) {
    uint32_t d = b->ops->dim;
    double *v = skald_alloc(d, sizeof *v), *g = skald_alloc(d, sizeof *g), value = 0, u2 = unit(b->ops);
    if (!v || !g) {
        free(v);
        free(g);
        return SKALD_ENOMEM;
    }
    u2 *= u2;
    for (uint32_t j = 0; j < d; j++) v[j] = 1 / sqrt(d) * (1 + 0.5 * problem_normal(1, j));
    for (int step = 0; step < POWER_STEPS; step++) {
        memset(g, 0, d * sizeof *g);
        for (uint64_t i = 0; i < b->count; i++) {
            const int32_t *q = b->q + i * b->ops->row_most;
            const uint32_t *idx = row_idx(b, i);
            double z = 0;
            for (uint32_t k = 0; k < b->entries[i]; k++) z += q[k] * v[idx ? idx[k] : k];
            for (uint32_t k = 0; k < b->entries[i]; k++) g[idx ? idx[k] : k] += z * q[k];
        }
        double norm2 = 0;
        for (uint32_t j = 0; j < d; j++) norm2 += g[j] * g[j];
        value = sqrt(norm2) / (double)b->count / u2;
        for (uint32_t j = 0; j < d; j++) v[j] = norm2 > 0 ? g[j] / sqrt(norm2) : 0;
    }
    free(v);
    free(g);
    *out = value;
    return SKALD_OK;
}

/* From a sample of rows spread over the file. */
static skald_status make_report(const problem_ops *ops, const problem *p, uint64_t rows,
                                skald_generate_report *report) {
    batch b = {.ops = ops, .problem = p};
    uint64_t sample = skald_min_size(rows, SAMPLE_ROWS);
    TRY(batch_alloc(&b, sample, false));
    skald_status st = batch_make(&b, 0, sample, rows / sample);
    double most = 0, nonzeros = 0, positive = 0, u = unit(ops);
    for (uint64_t i = 0; st == SKALD_OK && i < sample; i++) {
        double norm2 = 0;
        for (uint32_t k = 0; k < b.entries[i]; k++) {
            double v = b.q[i * ops->row_most + k] / u;
            norm2 += v * v;
            nonzeros += v != 0;
        }
        most = norm2 > most ? norm2 : most;
        positive += b.label[i] > 0;
    }
    report->dim = ops->dim;
    report->density = nonzeros / (double)sample / ops->dim;
    report->nonzeros = nonzeros / (double)sample * (double)rows;
    report->positive_share = positive / (double)sample;
    report->L_max_squared = most;
    if (st == SKALD_OK) st = largest_eigenvalue(&b, &report->L_squared);
    batch_free(&b);
    return st;
}

/* ---- output --------------------------------------------------------------------------------------- */

static skald_status write_text(batch *b, uint64_t rows, const char *path) {
    char *tmp = NULL;
    skald_status st = SKALD_OK;
    if (asprintf(&tmp, "%s.tmp", path) < 0) return skald_fail(SKALD_ENOMEM, "%s: out of memory", path);
    FILE *f = fopen(tmp, "wb");
    if (!f) {
        st = skald_fail(SKALD_EIO, "%s: cannot create: %s", tmp, strerror(errno));
        goto end;
    }
    bool good = true;
    for (uint64_t at = 0; st == SKALD_OK && good && at < rows; at += TASK_ROWS * BATCH_TASKS) {
        st = batch_make(b, at, skald_min_size(TASK_ROWS * BATCH_TASKS, rows - at), 1);
        for (uint64_t task = 0; st == SKALD_OK && good && task * TASK_ROWS < b->count; task++)
            good =
                fwrite(b->text + task * TASK_ROWS * row_bytes(b->ops), 1, b->text_size[task], f) == b->text_size[task];
    }
    int err = errno;
    if (fclose(f) != 0 && good) {
        good = false;
        err = errno;
    }
    if (st == SKALD_OK && !good) st = skald_fail(SKALD_EIO, "%s: cannot write: %s", tmp, strerror(err));
    if (st == SKALD_OK && rename(tmp, path) != 0)
        st = skald_fail(SKALD_EIO, "%s: cannot rename %s to it: %s", path, tmp, strerror(errno));
    if (st != SKALD_OK) unlink(tmp);
end:
    free(tmp);
    return st;
}

/* A batch as floats, dense or CSR. */
typedef struct floats {
    float *x;
    uint32_t *idx;
    uint64_t *ptr;
    double *y;
} floats;

static void to_floats(const batch *b, floats *f) {
    double u = unit(b->ops);
    size_t to = 0;
    for (uint64_t i = 0; i < b->count; i++) {
        const int32_t *q = b->q + i * b->ops->row_most;
        f->ptr[i] = to;
        f->y[i] = b->label[i];
        for (uint32_t k = 0; k < b->entries[i]; k++) {
            if (b->idx && q[k] == 0) continue;
            if (b->idx) f->idx[to] = row_idx(b, i)[k];
            f->x[to++] = (float)(q[k] / u);
        }
    }
    f->ptr[b->count] = to;
}

static skald_status write_h5(batch *b, uint64_t rows, const char *path) {
    size_t batch_rows = TASK_ROWS * BATCH_TASKS, room = batch_rows * b->ops->row_most;
    h5_layout layout = {.layout = b->ops->dense ? SKALD_DENSE : SKALD_CSR,
                        .rows = rows,
                        .dim = b->ops->dim,
                        .nonzeros = UINT64_MAX,
                        .shuffled = b->order == NULL}; /* rows are independent draws */
    h5_writer *w = NULL;
    TRY(h5_writer_open(path, &layout, &w));
    floats f = {.x = skald_alloc(room, sizeof *f.x),
                .idx = skald_alloc(b->ops->dense ? 1 : room, sizeof *f.idx),
                .ptr = skald_alloc(batch_rows + 1, sizeof *f.ptr),
                .y = skald_alloc(batch_rows, sizeof *f.y)};
    skald_status st = f.x && f.idx && f.ptr && f.y ? SKALD_OK : SKALD_ENOMEM;
    for (uint64_t at = 0; st == SKALD_OK && at < rows; at += batch_rows) {
        TRY_GOTO(st, batch_make(b, at, skald_min_size(batch_rows, rows - at), 1), end);
        to_floats(b, &f);
        h5_batch out = {
            .count = b->count, .x = f.x, .ptr = f.ptr, .idx = f.idx, .val = f.x, .y = f.y, .origin = b->origin};
        TRY_GOTO(st, h5_writer_append(w, &out), end);
    }
end:
    free(f.x);
    free(f.idx);
    free(f.ptr);
    free(f.y);
    char message[1024];
    snprintf(message, sizeof message, "%s", skald_error());
    skald_status closed = h5_writer_close(w, st == SKALD_OK);
    return st == SKALD_OK ? closed : skald_fail(st, "%s", message);
}

/* ---- the whole ------------------------------------------------------------------------------------ */

/* The problem's rows by label, each label's in order. Makes every row once more, for its label. */
static skald_status order_by_label(batch *b, uint64_t rows, uint64_t **out) {
    enum { LABELS = 11 }; /* -1 .. 9 */
    uint64_t count[LABELS + 1] = {0};
    uint64_t *order = skald_alloc(rows, sizeof *order);
    int8_t *label = skald_alloc(rows, 1);
    skald_status st = order && label ? SKALD_OK : SKALD_ENOMEM;
    char *text = b->text;
    b->text = NULL; /* no lines now */
    for (uint64_t at = 0; st == SKALD_OK && at < rows; at += TASK_ROWS * BATCH_TASKS) {
        st = batch_make(b, at, skald_min_size(TASK_ROWS * BATCH_TASKS, rows - at), 1);
        for (uint64_t k = 0; st == SKALD_OK && k < b->count; k++) {
            label[at + k] = (int8_t)b->label[k];
            count[b->label[k] + 2]++;
        }
    }
    b->text = text;
    for (int k = 0; k < LABELS; k++) count[k + 1] += count[k];
    for (uint64_t i = 0; st == SKALD_OK && i < rows; i++) order[count[label[i] + 1]++] = i;
    free(label);
    if (st != SKALD_OK) {
        free(order);
        order = NULL;
    }
    *out = order;
    return st;
}

static bool has_suffix(const char *path, const char *suffix) {
    size_t n = strlen(path), m = strlen(suffix);
    return n >= m && strcasecmp(path + n - m, suffix) == 0;
}

skald_status skald_generate(const skald_generate_options *options, const char *path, skald_generate_report *report) {
    static const problem_ops *const problems[] = {&problem_epsilon, &problem_mnist8m, &problem_rcv1};
    const problem_ops *ops = NULL;
    for (size_t k = 0; k < SKALD_ARRAY_LENGTH(problems); k++)
        if (strcmp(options->kind, problems[k]->kind) == 0) ops = problems[k];
    if (!ops) return skald_fail(SKALD_EINVAL, "unknown problem '%s': use epsilon, mnist8m or rcv1", options->kind);
    if (options->rows == 0 || options->rows > UINT32_MAX)
        return skald_fail(SKALD_EINVAL, "%llu rows: use 1 to %u", (unsigned long long)options->rows, UINT32_MAX);
    bool h5 = has_suffix(path, ".h5") || has_suffix(path, ".hdf5");
    problem *p = NULL;
    uint64_t *order = NULL;
    TRY(ops->create(options->seed, &p));
    batch b = {.ops = ops, .problem = p};
    skald_status st = batch_alloc(&b, TASK_ROWS * BATCH_TASKS, !h5);
    if (st == SKALD_OK && options->sort_by_label) st = order_by_label(&b, options->rows, &order);
    b.order = order;
    if (st == SKALD_OK) st = h5 ? write_h5(&b, options->rows, path) : write_text(&b, options->rows, path);
    if (st == SKALD_OK && report) st = make_report(ops, p, options->rows, report);
    batch_free(&b);
    free(order);
    ops->destroy(p);
    return st;
}
