/* A checkpoint as an HDF5 file in memory. */
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "data/checkpoint_file.h"
#include "data/h5_image.h"

enum { MOST_SHARDS = 1 << 20, MOST_PARTS = 64 /* of a shard */ };
static const uint64_t MOST = UINT64_MAX / 4; /* of what is counted: it goes on being counted, and is told as signed */
static const double MOST_SECONDS = 1e9;

/* uint64_t: at most MOST; any. Doubles: finite and not below 0; finite; any. */
typedef enum kind { COUNT, HASH, AMOUNT, FINITE, ANY } kind;

typedef struct field {
    const char *name;
    kind kind;
    size_t offset;
} field;

/* clang-format off */
#define F(member, kind) {#member, kind, offsetof(skald_checkpoint, member)}
static const field fields[] = {
    F(term, COUNT), F(classes, COUNT), F(intercept, COUNT), F(rows, COUNT), F(length, COUNT), F(seed, HASH),
    F(shard_count, COUNT), F(data, HASH), F(huber_delta, FINITE), F(l2, FINITE), F(l1, FINITE), F(nonconvex, FINITE),
    F(weight_scale, FINITE), F(shift, FINITE), F(scale, FINITE), F(L, FINITE), F(commits, COUNT), F(updates, COUNT),
    F(merged, COUNT), F(refused, COUNT), F(next_task, COUNT), F(next_version, COUNT), F(generation, COUNT),
    F(rollbacks, COUNT), F(full_gradients, COUNT), F(applied, COUNT), F(scaled, COUNT), F(folded, COUNT),
    F(rejected, COUNT), F(staleness_sum, COUNT), F(staleness_max, COUNT), F(evaluations, COUNT),
    F(evaluated_rows, COUNT), F(steps, COUNT), F(failures, COUNT), F(has_average, COUNT), F(passes, AMOUNT),
    F(processed, AMOUNT), F(seconds, AMOUNT), F(paused_seconds, AMOUNT), F(backoff, FINITE), F(step, AMOUNT),
    F(mass, AMOUNT), F(window_loss, ANY), F(window_rows, AMOUNT), F(window_begin, FINITE), F(estimate, ANY),
    F(best, AMOUNT), F(k, AMOUNT), F(k2, AMOUNT), F(sum_count, AMOUNT), F(average_begin, FINITE),
    F(last_passes, FINITE), F(estimate_checked, FINITE), F(eval_estimate, ANY), F(calibration, AMOUNT), F(bound, ANY),
    F(drift, ANY), F(objective, ANY), F(gap, ANY), F(relative_gap, ANY), F(gradient_norm, ANY), F(accuracy, ANY),
    F(eval_passes, FINITE), F(eval_seconds, FINITE), F(eval_train_seconds, FINITE), F(eval_commits, COUNT),
    F(eval_updates, COUNT),
};
static const field vectors[] = {F(w, FINITE), F(good, FINITE), F(candidate, FINITE), F(sum, FINITE),
                                F(average, FINITE)};
/* clang-format on */

/* What a shard has, as columns. */
static const struct {
    const char *name;
    size_t offset;
} columns[] = {{"shard_rows", offsetof(skald_checkpoint_shard, rows)},
               {"shard_checksum", offsetof(skald_checkpoint_shard, checksum)},
               {"shard_position", offsetof(skald_checkpoint_shard, position)},
               {"shard_visits", offsetof(skald_checkpoint_shard, visits)}};

static bool is_whole(const field *f) {
    return f->kind == COUNT || f->kind == HASH;
}

static const void *at(const void *base, size_t offset) {
    return (const char *)base + offset;
}

/* ---- writing -------------------------------------------------------------------------------------- */

static bool put_shards(hid_t file, const skald_checkpoint *c) {
    const uint64_t n = c->shard_count;
    uint64_t *counts = malloc((n ? n : 1) * sizeof *counts);
    double *mass = malloc((n ? n : 1) * sizeof *mass);
    bool good = counts && mass;
    for (size_t f = 0; good && f < SKALD_ARRAY_LENGTH(columns); f++) {
        for (uint64_t k = 0; k < n; k++) memcpy(&counts[k], at(&c->shards[k], columns[f].offset), sizeof *counts);
        good = h5_put_counts(file, columns[f].name, counts, n);
    }
    for (uint64_t k = 0; good && k < n; k++) mass[k] = c->shards[k].mass;
    good = good && h5_put_vector(file, "shard_mass", mass, n);
    free(counts);
    free(mass);
    return good;
}

/* As columns, too. */
static bool put_parts(hid_t file, const skald_checkpoint *c) {
    const uint64_t most = c->part_count > c->version_count ? c->part_count : c->version_count;
    uint64_t *counts = malloc((most ? most : 1) * sizeof *counts);
    double *losses = malloc((most ? most : 1) * sizeof *losses);
    bool good = counts && losses;
    for (uint64_t k = 0; good && k < c->part_count; k++) counts[k] = c->parts[k].version, losses[k] = c->parts[k].loss;
    good = good && h5_put_counts(file, "parts", counts, c->part_count) &&
           h5_put_vector(file, "part_losses", losses, c->part_count);
    for (uint64_t k = 0; good && k < c->version_count; k++) counts[k] = c->versions[k].number;
    good = good && h5_put_counts(file, "versions", counts, c->version_count);
    for (uint64_t k = 0; good && k < c->version_count; k++) counts[k] = c->versions[k].commits;
    good = good && h5_put_counts(file, "version_commits", counts, c->version_count) &&
           h5_put_matrix(file, "models", c->models, c->version_count, c->length);
    free(counts);
    free(losses);
    return good;
}

static bool put_checkpoint(hid_t file, const void *contents) {
    const skald_checkpoint *c = contents;
    bool good = h5_put_string(file, "run", c->run) && h5_put_string(file, "algo", c->algo) &&
                h5_put_string(file, "loss", c->loss);
    for (size_t f = 0; good && f < SKALD_ARRAY_LENGTH(fields); f++) {
        uint64_t count;
        double number;
        memcpy(&count, at(c, fields[f].offset), sizeof count);
        memcpy(&number, &count, sizeof number);
        good = is_whole(&fields[f]) ? h5_set_attribute(file, fields[f].name, count) == SKALD_OK
                                    : h5_put_number(file, fields[f].name, number);
    }
    for (size_t f = 0; good && f < SKALD_ARRAY_LENGTH(vectors); f++) {
        const double *x;
        memcpy(&x, at(c, vectors[f].offset), sizeof x);
        good = h5_put_vector(file, vectors[f].name, x, c->length);
    }
    good = good && put_shards(file, c);
    if (good && c->anchors) good = h5_put_matrix(file, "anchors", c->anchors, c->shard_count, c->length);
    if (good && c->version_count) good = put_parts(file, c);
    if (good && c->solver[0] != 0) good = h5_put_vector(file, "solver", c->solver, SKALD_CHECKPOINT_NUMBERS);
    if (good && c->manifest) good = h5_put_bytes(file, "manifest", c->manifest, c->manifest_bytes);
    return good;
}

skald_status checkpoint_image_make(const skald_checkpoint *c, size_t reserve, uint8_t **out, size_t *size) {
    return h5_image_make(put_checkpoint, c, reserve, out, size);
}

/* ---- reading -------------------------------------------------------------------------------------- */

static bool all_finite(const double *x, uint64_t n) {
    for (uint64_t k = 0; k < n; k++)
        if (!isfinite(x[k])) return false;
    return true;
}

static bool get_text(hid_t file, const char *name, char *out, size_t size) {
    char *text = NULL;
    const bool good = h5_get_string(file, name, &text) && text[0] && strlen(text) < size;
    if (good) snprintf(out, size, "%s", text);
    free(text);
    return good;
}

static bool get_field(hid_t file, const field *f, skald_checkpoint *c) {
    uint64_t count = 0;
    double number = 0;
    if (is_whole(f) ? !h5_get_attribute(file, f->name, &count) : !h5_get_number(file, f->name, &number)) return false;
    if (f->kind == COUNT && count > MOST) return false;
    if (f->kind != ANY && !isfinite(number)) return false;
    if (f->kind == AMOUNT && number < 0) return false;
    memcpy((char *)c + f->offset, is_whole(f) ? (const void *)&count : (const void *)&number, sizeof count);
    return true;
}

static bool get_shards(hid_t file, skald_checkpoint *c) {
    uint64_t n = 0, rows = 0, drawn = 0;
    double *mass = NULL;
    c->shards = calloc(c->shard_count, sizeof *c->shards);
    bool good = c->shards != NULL;
    for (size_t f = 0; good && f < SKALD_ARRAY_LENGTH(columns); f++) {
        uint64_t *counts = NULL;
        good = h5_get_counts(file, columns[f].name, c->shard_count, &counts, &n) && n == c->shard_count;
        for (uint64_t k = 0; good && k < n; k++)
            memcpy((char *)&c->shards[k] + columns[f].offset, &counts[k], sizeof *counts);
        free(counts);
    }
    good = good && h5_get_vector(file, "shard_mass", c->shard_count, &mass, &n) && n == c->shard_count &&
           all_finite(mass, n);
    for (uint64_t k = 0; good && k < n; k++) {
        skald_checkpoint_shard *shard = &c->shards[k];
        shard->mass = mass[k];
        good = shard->rows > 0 && shard->rows <= c->rows - rows && shard->position <= MOST - drawn &&
               shard->visits <= MOST && shard->mass >= 0;
        rows += shard->rows;
        drawn += shard->position;
    }
    free(mass);
    return good && rows == c->rows;
}

static bool has(hid_t file, const char *name) {
    return H5Lexists(file, name, H5P_DEFAULT) > 0;
}

static bool is_there(const skald_checkpoint *c, uint64_t number) {
    uint64_t begin = 0, end = c->version_count;
    while (begin < end) {
        const uint64_t middle = begin + (end - begin) / 2;
        if (c->versions[middle].number == number) return true;
        if (c->versions[middle].number < number)
            begin = middle + 1;
        else
            end = middle;
    }
    return false;
}

static bool get_versions(hid_t file, skald_checkpoint *c) {
    uint64_t *numbers = NULL, *commits = NULL, n = 0, m = 0;
    bool good = h5_get_counts(file, "versions", c->shard_count * MOST_PARTS, &numbers, &n) && n &&
                h5_get_counts(file, "version_commits", n, &commits, &m) && m == n &&
                (c->versions = calloc(n, sizeof *c->versions)) != NULL;
    for (uint64_t k = 0; good && k < n; k++) {
        c->versions[k] = (skald_checkpoint_version){numbers[k], commits[k]};
        good = numbers[k] > (k ? numbers[k - 1] : 0) && numbers[k] <= c->next_version && commits[k] <= c->commits;
    }
    free(numbers);
    free(commits);
    c->version_count = c->version_room = good ? n : 0;
    return good;
}

static bool get_parts(hid_t file, skald_checkpoint *c) {
    uint64_t *at = NULL, n = 0, m = 0;
    double *losses = NULL;
    bool good = h5_get_counts(file, "parts", c->shard_count * MOST_PARTS, &at, &n) && n &&
                h5_get_vector(file, "part_losses", n, &losses, &m) && m == n && all_finite(losses, n) &&
                (c->parts = calloc(n, sizeof *c->parts)) != NULL;
    for (uint64_t k = 0; good && k < n; k++) {
        c->parts[k] = (skald_checkpoint_part){at[k], losses[k]};
        good = at[k] == 0 || is_there(c, at[k]);
    }
    free(at);
    free(losses);
    c->part_count = good ? n : 0;
    return good;
}

/* Newton's: none in other runs' files, nor in those of earlier versions of Skald. */
static const char *get_history(hid_t file, skald_checkpoint *c) {
    uint64_t n = 0;
    double *numbers = NULL;
    if (has(file, "solver")) {
        const bool good =
            h5_get_vector(file, "solver", SKALD_CHECKPOINT_NUMBERS, &numbers, &n) && all_finite(numbers, n);
        if (good) memcpy(c->solver, numbers, n * sizeof *numbers);
        free(numbers);
        if (!good) return "solver";
    }
    if (!has(file, "parts") && !has(file, "versions") && !has(file, "models")) return NULL;
    if (!get_versions(file, c)) return "versions";
    const uint64_t all = c->version_count * c->length;
    if (!h5_get_vector(file, "models", all, &c->models, &n) || n != all || !all_finite(c->models, n)) return "models";
    return get_parts(file, c) ? NULL : "parts";
}

static const char *get_checkpoint(hid_t file, void *contents) {
    skald_checkpoint *c = contents;
    uint64_t n = 0;
    if (!get_text(file, "run", c->run, sizeof c->run)) return "run";
    if (!get_text(file, "algo", c->algo, sizeof c->algo)) return "algo";
    if (!get_text(file, "loss", c->loss, sizeof c->loss)) return "loss";
    for (size_t f = 0; f < SKALD_ARRAY_LENGTH(fields); f++)
        if (!get_field(file, &fields[f], c)) return fields[f].name;
    if (c->term == 0 || c->term >= UINT32_MAX) return "term";
    if (c->length == 0 || c->length > UINT32_MAX) return "length";
    if (c->shard_count == 0 || c->shard_count > MOST_SHARDS) return "shard_count";
    if (c->rows == 0) return "rows";
    if (c->generation > UINT32_MAX || c->full_gradients > UINT32_MAX || c->failures > UINT32_MAX) return "counts";
    if (!(c->backoff > 0 && c->backoff <= 1)) return "backoff";
    if (!(c->L > 0) || c->seconds > MOST_SECONDS || c->paused_seconds > MOST_SECONDS) return "state";
    for (size_t f = 0; f < SKALD_ARRAY_LENGTH(vectors); f++) {
        double *x = NULL;
        const bool good = h5_get_vector(file, vectors[f].name, c->length, &x, &n) && n == c->length;
        memcpy((char *)c + vectors[f].offset, &x, sizeof x);
        if (!good || !all_finite(x, n)) return vectors[f].name;
    }
    if (!get_shards(file, c)) return "shards";
    if (has(file, "anchors")) {
        const uint64_t all = c->shard_count * c->length;
        if (!h5_get_vector(file, "anchors", all, &c->anchors, &n) || n != all || !all_finite(c->anchors, n))
            return "anchors";
    }
    if (has(file, "manifest") && !h5_get_bytes(file, "manifest", UINT64_MAX / 2, &c->manifest, &c->manifest_bytes))
        return "manifest";
    return get_history(file, c);
}

const char *checkpoint_image_parse(const uint8_t *image, size_t size, skald_checkpoint *out) {
    return h5_image_parse(image, size, get_checkpoint, out);
}
