#include "worker/local_data.h"

#include <stdlib.h>
#include <string.h>

#include "base/base.h"

static skald_status read_shards(skald_local_data *d, skald_source *source, skald_rows *rows) {
    skald_problem *p = &d->problem;
    for (uint32_t k = 0; k < p->shard_count; k++) {
        uint64_t checksum;
        TRY(skald_source_read(source, p->blocks + p->shards[k].block_begin, p->shards[k].block_count, &p->transform,
                              &rows[k], &checksum));
        if (checksum != p->shards[k].checksum)
            return skald_fail(SKALD_EDATA, "the data file changed while it was read");
        skald_rows_facts(&rows[k], &p->objective, &p->shards[k].facts);
    }
    TRY(skald_problem_loaded(p));
    for (uint32_t k = 0; k < p->shard_count; k++) {
        skald_rows_rescale(&rows[k], p->weight_scale);
        TRY(skald_runner_add(&d->runner, k, &rows[k]));
    }
    return SKALD_OK;
}

skald_status skald_local_data_scan(const skald_data_options *data, skald_source **source, skald_manifest *manifest) {
    *manifest = (skald_manifest){0};
    TRY(skald_source_open(data->path, &data->source, source));
    skald_status st = skald_source_scan(*source, 0, skald_source_parts(*source), manifest);
    if (st == SKALD_OK && (st = skald_manifest_finish(manifest)) != SKALD_OK) skald_context(st, "%s", data->path);
    if (st != SKALD_OK) {
        skald_manifest_free(manifest);
        skald_source_close(*source);
        *source = NULL;
    }
    return st;
}

skald_status skald_local_data_open(const skald_data_options *data, const skald_objective *objective,
                                   const skald_compute_options *compute, uint32_t workers, uint64_t slots,
                                   skald_local_data *d) {
    memset(d, 0, sizeof *d);
    skald_source *source = data->opened;
    skald_manifest own = {0};
    const skald_manifest *manifest = data->scanned;
    skald_rows *rows = NULL;
    skald_problem *p = &d->problem;
    skald_status st;
    if (!manifest) {
        TRY_GOTO(st, skald_local_data_scan(data, &source, &own), out);
        manifest = &own;
    }
    TRY_GOTO(st, skald_problem_make(manifest, data, objective, workers, slots, p), out);
    rows = skald_zalloc(p->shard_count, sizeof *rows);
    st = SKALD_ENOMEM;
    if (!rows) goto out;
    TRY_GOTO(st, skald_runner_init(&d->runner, compute, &p->objective, p->dim, p->seed, p->shard_count), out);
    st = read_shards(d, source, rows);
out:
    for (uint32_t k = 0; rows && k < p->shard_count; k++) skald_rows_free(&rows[k]);
    free(rows);
    skald_manifest_free(&own);
    if (source != data->opened) skald_source_close(source);
    if (st != SKALD_OK) skald_local_data_close(d);
    return st;
}

void skald_local_data_close(skald_local_data *d) {
    skald_runner_fini(&d->runner);
    skald_problem_free(&d->problem);
    memset(d, 0, sizeof *d);
}
