/* Checkpoint files: the header that tells damage before anything is believed, the previous one, room for the state. */
#include "data/checkpoint_file.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"

/* As a model's (see model_file.c). What follows the hash, the rest of the header included, is hashed. */
enum { HEADER = 512, HASHED_FROM = 41 };
static const char title[] = "SKALD CHECKPOINT 1\n", hash_format[] = "hash %016" PRIx64 "\n",
                  rest_format[] = "bytes %" PRIu64 "\nrun %s\nterm %" PRIu64 "\npasses %.3f\n";

_Static_assert(sizeof title - 1 + 5 + 16 + 1 == HASHED_FROM, "title and hash");

skald_status skald_checkpoint_make(uint64_t length, uint64_t shards, bool history, skald_checkpoint *c) {
    *c = (skald_checkpoint){.length = length, .shard_count = shards};
    double **const vectors[] = {&c->w, &c->good, &c->candidate, &c->sum, &c->average};
    skald_status st = SKALD_OK;
    for (size_t k = 0; k < SKALD_ARRAY_LENGTH(vectors) && st == SKALD_OK; k++)
        if (!(*vectors[k] = skald_zalloc(length, sizeof(double)))) st = SKALD_ENOMEM;
    if (st == SKALD_OK && !(c->shards = skald_zalloc(shards, sizeof *c->shards))) st = SKALD_ENOMEM;
    if (st == SKALD_OK && history && !(c->anchors = skald_zalloc(shards * length, sizeof(double)))) st = SKALD_ENOMEM;
    if (st != SKALD_OK) skald_checkpoint_free(c);
    return st;
}

skald_status skald_checkpoint_fit(skald_checkpoint *c, uint64_t parts, uint64_t versions) {
    const bool anew = parts != c->part_count, more = versions > c->version_room;
    skald_checkpoint_part *p = !anew ? c->parts : parts ? skald_zalloc(parts, sizeof *p) : NULL;
    skald_checkpoint_version *v = more ? skald_zalloc(versions, sizeof *v) : c->versions;
    double *models = more ? skald_alloc(versions, c->length * sizeof *models) : c->models;
    const bool good = (p || !parts) && (v || !versions) && (models || !versions);
    if (anew || !good) free(c->parts);
    if (more || !good) free(c->versions), free(c->models);
    if (!good && anew) free(p);
    if (!good && more) free(v), free(models);
    c->parts = good ? p : NULL;
    c->versions = good ? v : NULL;
    c->models = good ? models : NULL;
    c->part_count = good ? parts : 0;
    c->version_count = good ? versions : 0;
    c->version_room = !good ? 0 : more ? versions : c->version_room;
    return good ? SKALD_OK : SKALD_ENOMEM;
}

void skald_checkpoint_free(skald_checkpoint *c) {
    free(c->parts);
    free(c->versions);
    free(c->models);
    free(c->w);
    free(c->good);
    free(c->candidate);
    free(c->sum);
    free(c->average);
    free(c->shards);
    free(c->anchors);
    free(c->manifest);
    *c = (skald_checkpoint){0};
}

static char *previous_of(const char *path) {
    char *out = NULL;
    return asprintf(&out, "%s.1", path) < 0 ? NULL : out;
}

skald_status skald_checkpoint_save(skald_storage *storage, const char *path, const skald_checkpoint *c) {
    uint8_t *bytes = NULL;
    size_t size = 0;
    if (!storage) storage = skald_storage_posix();
    skald_status st = checkpoint_image_make(c, HEADER, &bytes, &size);
    if (st != SKALD_OK) return skald_context(st, "%s", path);
    snprintf((char *)bytes + HASHED_FROM, HEADER - HASHED_FROM, rest_format, (uint64_t)size, c->run, c->term,
             c->passes);
    char hash[HASHED_FROM];
    snprintf(hash, sizeof hash, hash_format, skald_hash(bytes + HASHED_FROM, size - HASHED_FROM, 0));
    memcpy(bytes, title, sizeof title - 1);
    memcpy(bytes + sizeof title - 1, hash, HASHED_FROM - (sizeof title - 1));
    char *previous = previous_of(path);
    st = previous ? storage->write_keeping(storage, path, previous, bytes, size) : skald_fail(SKALD_ENOMEM, "%s", path);
    free(previous);
    free(bytes);
    return st;
}

skald_status skald_checkpoint_load(skald_storage *storage, const char *path, skald_checkpoint *out) {
    uint8_t *bytes = NULL;
    size_t size = 0;
    char hash[HASHED_FROM];
    const char *wrong;
    *out = (skald_checkpoint){0};
    if (!storage) storage = skald_storage_posix();
    TRY(storage->read(storage, path, &bytes, &size));
    skald_status st = SKALD_OK;
    if (size < HEADER || memcmp(bytes, title, 17) != 0) {
        const bool cut = size && memcmp(bytes, title, size < 17 ? size : 17) == 0;
        st =
            skald_fail(SKALD_EMODEL,
                       cut ? "%s: the checkpoint is damaged (it is cut short)" : "%s: is not a Skald checkpoint", path);
        goto end;
    }
    if (memcmp(bytes, title, sizeof title - 1) != 0) {
        st = skald_fail(SKALD_EMODEL, "%s: is a checkpoint of another version of Skald", path);
        goto end;
    }
    snprintf(hash, sizeof hash, hash_format, skald_hash(bytes + HASHED_FROM, size - HASHED_FROM, 0));
    if (memcmp(bytes + sizeof title - 1, hash, HASHED_FROM - (sizeof title - 1)) != 0) {
        st = skald_fail(SKALD_EMODEL, "%s: the checkpoint is damaged (its checksum does not match)", path);
        goto end;
    }
    wrong = checkpoint_image_parse(bytes + HEADER, size - HEADER, out);
    if (wrong) {
        skald_checkpoint_free(out);
        st = skald_fail(SKALD_EMODEL, "%s: not a checkpoint this version can read (%s)", path, wrong);
    }
end:
    free(bytes);
    return st;
}

skald_status skald_checkpoint_open(skald_storage *storage, const char *path, skald_checkpoint *out) {
    const skald_status st = skald_checkpoint_load(storage, path, out);
    if (st == SKALD_OK) return st;
    char why[600], *previous = previous_of(path);
    snprintf(why, sizeof why, "%s", skald_error());
    skald_checkpoint older = {0};
    if (!previous || skald_checkpoint_load(storage, previous, &older) != SKALD_OK)
        skald_fail(st, "%s", why);
    else
        skald_fail(st, "%s; the one before it is whole, of run %s after %.1f passes: --resume %s --checkpoint %s", why,
                   older.run, older.passes, previous, path);
    skald_checkpoint_free(&older);
    free(previous);
    return st;
}

bool skald_checkpoint_peek(skald_storage *storage, const char *path, char run[40], uint64_t *term) {
    uint8_t *bytes = NULL;
    size_t size = 0;
    char header[HEADER] = "";
    if (!storage) storage = skald_storage_posix();
    if (storage->read(storage, path, &bytes, &size) != SKALD_OK) return false;
    if (size) memcpy(header, bytes, size < HEADER - 1 ? size : HEADER - 1);
    free(bytes);
    return strncmp(header, title, 17) == 0 && strlen(header) > HASHED_FROM &&
           sscanf(header + HASHED_FROM, "bytes %*u run %39s term %" SCNu64, run, term) == 2;
}
