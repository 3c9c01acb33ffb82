#include "data/source.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "data/number.h"

/* ---- weights file --------------------------------------------------------------------------------- */

static skald_status weights_load(skald_source *s, const char *path) {
    data_bytes b;
    TRY(bytes_open(path, &b));
    skald_status st = SKALD_OK;
    if (b.kind == BYTES_HDF5) {
        st = skald_fail(SKALD_EDATA, "%s: weights must be text, one a line", path);
        goto end;
    }
    size_t lines = 1;
    for (size_t k = 0; k < b.size; k++) lines += b.data[k] == '\n';
    s->weights = skald_alloc(lines, sizeof *s->weights);
    if (!s->weights) {
        st = SKALD_ENOMEM;
        goto end;
    }
    const char *p = b.data, *stop = b.data + b.size;
    for (unsigned long long line = 1; p < stop; line++) {
        const char *found = memchr(p, '\n', (size_t)(stop - p)), *end = found ? found : stop, *next = end + 1;
        double v;
        while (end > p && (end[-1] == '\r' || end[-1] == ' ' || end[-1] == '\t')) end--;
        while (p < end && (*p == ' ' || *p == '\t')) p++;
        if (p < end && *p != '#') {
            int shown = (int)skald_min_size((size_t)(end - p), 32);
            if (number_parse_double(p, &v) != end || !(v >= 0) || v > 3.4e38) {
                st = skald_fail(SKALD_EDATA, "%s:%llu: '%.*s' is not a weight (a finite number from 0 up)", path, line,
                                shown, p);
                goto end;
            }
            s->weights[s->weight_count++] = v;
        }
        p = next;
    }
end:
    bytes_close(&b);
    return st;
}

skald_status weights_check(const skald_source *s, const skald_transform *t, uint64_t first, uint64_t count) {
    if (!s->weights) return SKALD_OK;
    if (t->rows && t->rows != s->weight_count)
        return skald_fail(SKALD_EDATA, "%s: %llu rows, but the weights file has %llu weights", s->path,
                          (unsigned long long)t->rows, (unsigned long long)s->weight_count);
    if (count > s->weight_count || first > s->weight_count - count)
        return skald_fail(SKALD_EDATA, "%s: row %llu has no weight: the weights file has only %llu", s->path,
                          (unsigned long long)(first + count), (unsigned long long)s->weight_count);
    return SKALD_OK;
}

double row_weight(const skald_source *s, const skald_transform *t, uint64_t row, double stored, double label_weight) {
    return (s->weights ? s->weights[row] : stored) * label_weight * t->weight_scale;
}

/* ---- rows ----------------------------------------------------------------------------------------- */

skald_status rows_alloc(skald_rows *r, skald_layout layout, size_t n, uint32_t dim, size_t nonzeros) {
    *r = (skald_rows){.layout = layout, .n = n, .dim = dim};
    r->y = skald_alloc(n, sizeof *r->y);
    r->s = skald_alloc(n, sizeof *r->s);
    r->origin = skald_alloc(n, sizeof *r->origin);
    bool good = r->y && r->s && r->origin;
    if (good && layout == SKALD_DENSE) {
        r->stride = ((size_t)dim + 15) / 16 * 16;
        if (r->stride && n > SIZE_MAX / sizeof(float) / r->stride) n = SIZE_MAX / sizeof(float); /* refused below */
        r->x = skald_alloc(n * r->stride, sizeof *r->x);
        good = r->x;
    } else if (good) {
        r->ptr = skald_zalloc(n + 1, sizeof *r->ptr);
        r->idx = skald_alloc(nonzeros, sizeof *r->idx);
        r->val = skald_alloc(nonzeros, sizeof *r->val);
        good = r->ptr && r->idx && r->val;
    }
    if (good) return SKALD_OK;
    skald_rows_free(r);
    return SKALD_ENOMEM;
}

bool label_map(const skald_transform *t, double value, uint32_t *hint, double *target, double *weight) {
    *target = value;
    *weight = 1;
    if (t->label_count == 0) return true;
    for (uint32_t k = 0; k < t->label_count; k++) {
        uint32_t at = (k + *hint) % t->label_count;
        if (t->label_values[at] != value) continue;
        *hint = at;
        *target = t->label_targets[at];
        if (t->label_weights) *weight = t->label_weights[at];
        return true;
    }
    *target = NAN;
    return t->keep_all_rows;
}

void dense_row_finish(const skald_transform *t, float *x, size_t stride) {
    uint32_t d = t->dim;
    if (t->shift && t->scale)
        for (uint32_t j = 0; j < d; j++) x[j] = (float)((x[j] - t->shift[j]) * t->scale[j]);
    else if (t->shift)
        for (uint32_t j = 0; j < d; j++) x[j] = (float)(x[j] - t->shift[j]);
    else if (t->scale)
        for (uint32_t j = 0; j < d; j++) x[j] = (float)(x[j] * t->scale[j]);
    size_t k = d;
    if (t->intercept) x[k++] = 1;
    for (; k < stride; k++) x[k] = 0;
}

/* ---- the source ----------------------------------------------------------------------------------- */

skald_status skald_source_open(const char *path, const skald_source_options *options, skald_source **out) {
    *out = NULL;
    if (options->threads < 1 || options->threads > 4096)
        return skald_fail(SKALD_EINVAL, "reading %s with %d threads: use 1 to 4096", path, options->threads);
    if (options->index_base < -1 || options->index_base > 1)
        return skald_fail(SKALD_EINVAL, "index base %d: use 0, 1 or -1 (auto)", options->index_base);
    if (options->dim > INT32_MAX) return skald_fail(SKALD_EINVAL, "%u columns: at most 2147483647", options->dim);
    skald_source *s = calloc(1, sizeof *s);
    if (!s) return skald_fail(SKALD_ENOMEM, "%s: out of memory", path);
    s->bytes.fd = -1;
    s->options = *options;
    s->options.weights_path = NULL;
    s->path = strdup(path);
    skald_status st = s->path ? SKALD_OK : skald_fail(SKALD_ENOMEM, "%s: out of memory", path);
    if (st == SKALD_OK) st = bytes_open(path, &s->bytes);
    if (st == SKALD_OK) st = s->bytes.kind == BYTES_HDF5 ? h5_source_open(s) : text_source_open(s);
    if (st == SKALD_OK && options->weights_path) st = weights_load(s, options->weights_path);
    if (st != SKALD_OK) {
        skald_source_close(s);
        return st;
    }
    *out = s;
    return SKALD_OK;
}

void skald_source_close(skald_source *source) {
    if (!source) return;
    if (source->ops)
        source->ops->close(source);
    else
        bytes_close(&source->bytes);
    free(source->weights);
    free(source->path);
    free(source);
}

uint32_t skald_source_parts(const skald_source *source) {
    return source->parts;
}

const char *skald_source_describe(const skald_source *source) {
    return source->describe;
}

skald_status skald_source_scan(skald_source *source, uint32_t first, uint32_t count, skald_manifest *out) {
    *out = (skald_manifest){0};
    if (count > source->parts || first > source->parts - count)
        return skald_fail(SKALD_EINVAL, "%s: parts %u to %u of %u asked for", source->path, first, first + count,
                          source->parts);
    skald_status st = source->ops->scan(source, first, count, out);
    if (st != SKALD_OK) skald_manifest_free(out);
    return st;
}

skald_status skald_source_read(skald_source *source, const skald_block *blocks, uint64_t block_count,
                               const skald_transform *transform, skald_rows *out, uint64_t *checksum) {
    *out = (skald_rows){0};
    return source->ops->read(source, blocks, block_count, transform, out, checksum);
}
