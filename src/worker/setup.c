/* From an open file to rows in a backend, and out again. On a lane that has the worker to itself. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/base.h"
#include "worker/worker_state.h"

skald_status skald_worker_open_source(skald_worker *w, int index_base, uint32_t dim) {
    if (w->source) return SKALD_OK;
    skald_source_options o = {.weights_path = w->weights[0] ? w->weights : NULL,
                              .index_base = index_base,
                              .dim = dim,
                              .threads = w->options->compute.threads > 1 ? w->options->compute.threads : 1};
    return skald_source_open(w->path, &o, &w->source);
}

void skald_worker_scan(skald_worker *w, const skald_job *job) {
    Skald__V1__Frame frame = SKALD__V1__FRAME__INIT;
    Skald__V1__ScanReply reply = SKALD__V1__SCAN_REPLY__INIT;
    frame.body_case = SKALD__V1__FRAME__BODY_SCAN_REPLY;
    frame.scan_reply = &reply;
    reply.first = job->first;
    reply.count = job->count;
    skald_manifest manifest = {0};
    uint8_t *packed = NULL;
    size_t size = 0;
    skald_bytes *bytes = NULL;
    skald_status st = w->source ? SKALD_OK : skald_fail(SKALD_EPEER, "no data file is open");
    if (st == SKALD_OK && job->count) {
        st = skald_source_scan(w->source, job->first, job->count, &manifest);
        if (st == SKALD_OK) st = skald_manifest_pack(&manifest, &packed, &size);
        if (st == SKALD_OK && !(bytes = skald_bytes_create(size))) st = SKALD_ENOMEM;
        if (st == SKALD_OK) memcpy(skald_bytes_data(bytes), packed, size);
    }
    if (w->source) {
        struct stat info;
        if (stat(w->path, &info) == 0) reply.file_bytes = (uint64_t)info.st_size;
        reply.parts = skald_source_parts(w->source);
        reply.description = (char *)skald_source_describe(w->source);
    }
    if (st != SKALD_OK) reply.error = (char *)skald_error();
    skald_wire_vector vector = {bytes, bytes ? bytes->data : NULL, size};
    skald_worker_send(w, &frame, &vector, bytes ? 1 : 0);
    skald_bytes_unref(bytes);
    free(packed);
    skald_manifest_free(&manifest);
}

/* That of the fewest shards. */
static uint32_t idlest_lane(const skald_worker *w) {
    uint32_t best = 0, fewest = UINT32_MAX;
    for (uint32_t lane = 0; lane < w->lane_count; lane++) {
        uint32_t held = 0;
        for (uint32_t k = 0; k < w->shard_count; k++) held += w->runner.shards[k] && w->lane_of[k] == lane;
        if (held < fewest) best = lane, fewest = held;
    }
    return best;
}

/* The facts are of the weights as they are in the file; a loaded shard's have been rescaled. */
static void facts_of(const skald_worker *w, uint32_t shard, skald_shard_facts *facts) {
    skald_shard_get_facts(w->runner.shards[shard], facts);
    facts->weight_sum /= w->weight_scale;
    facts->max_weighted_norm2 /= w->weight_scale;
    facts->sum_weighted_norm2 /= w->weight_scale;
    facts->spread_y /= w->weight_scale;
}

void skald_worker_lease(skald_worker *w, const skald_job *job) {
    Skald__V1__Frame frame = SKALD__V1__FRAME__INIT;
    Skald__V1__Loaded reply = SKALD__V1__LOADED__INIT;
    frame.body_case = SKALD__V1__FRAME__BODY_LOADED;
    frame.loaded = &reply;
    reply.shard = job->shard;
    int64_t start = skald_now_ns(skald_clock_system());
    skald_status st = SKALD_OK;
    skald_shard_facts facts = {0};
    if (!w->set_up || !w->source || job->shard >= w->shard_count) {
        st = skald_fail(SKALD_EPEER, "lease of shard %u before setup", job->shard);
    } else if (!atomic_load(&w->begun) || !w->runner.shards[job->shard] || w->checksums[job->shard] != job->checksum) {
        if (w->runner.shards[job->shard]) skald_worker_unload(w, job->shard); /* other rows of that number */
        skald_rows *rows = &w->read[job->shard];
        uint64_t checksum = job->checksum;
        if (!rows->n) /* else it is a repetition */
            st = skald_source_read(w->source, job->blocks, job->block_count, &w->transform, rows, &checksum);
        if (st == SKALD_OK && checksum != job->checksum)
            st = skald_fail(
                SKALD_EDATA,
                "%s: shard %u differs from what was scanned: the file changed, or this worker's copy is another file",
                w->path, job->shard);
        if (st == SKALD_OK) skald_rows_facts(rows, &w->objective, &facts);
        if (st == SKALD_OK && job->block_count) w->first_block = job->blocks[0];
        if (st == SKALD_OK && atomic_load(&w->begun)) { /* another worker's until now */
            w->lane_of[job->shard] = idlest_lane(w);
            skald_rows_rescale(rows, w->weight_scale);
            st = skald_runner_add(&w->runner, job->shard, rows);
        }
        if (st == SKALD_OK) w->checksums[job->shard] = job->checksum;
    } else {
        facts_of(w, job->shard, &facts);
    }
    if (st == SKALD_OK) w->leased[job->shard] = true;
    reply.rows = facts.rows;
    reply.nonzeros = facts.nonzeros;
    reply.weight_sum = facts.weight_sum;
    reply.max_weighted_norm2 = facts.max_weighted_norm2;
    reply.sum_weighted_norm2 = facts.sum_weighted_norm2;
    reply.mean_y = facts.mean_y;
    reply.spread_y = facts.spread_y;
    reply.load_ns = skald_now_ns(skald_clock_system()) - start;
    if (st != SKALD_OK) reply.error = (char *)skald_error();
    skald_worker_send(w, &frame, NULL, 0);
}

void skald_worker_begin(skald_worker *w, const skald_job *job) {
    Skald__V1__Frame frame = SKALD__V1__FRAME__INIT;
    Skald__V1__Ready reply = SKALD__V1__READY__INIT;
    frame.body_case = SKALD__V1__FRAME__BODY_READY;
    frame.ready = &reply;
    reply.stage = 2;
    skald_status st = w->set_up ? SKALD_OK : skald_fail(SKALD_EPEER, "begin before setup");
    uint32_t held = 0;
    if (st == SKALD_OK) skald_keep_leased(w);
    if (st == SKALD_OK && !atomic_load(&w->begun)) {
        w->weight_scale = job->weight_scale;
        for (uint32_t k = 0; k < w->shard_count && st == SKALD_OK; k++) {
            if (!w->read[k].n) continue;
            w->lane_of[k] = held++ % w->lane_count;
            skald_rows_rescale(&w->read[k], job->weight_scale);
            st = skald_runner_add(&w->runner, k, &w->read[k]);
        }
        if (st == SKALD_OK) atomic_store(&w->begun, true);
    }
    if (st != SKALD_OK) reply.error = (char *)skald_error();
    skald_worker_send(w, &frame, NULL, 0);
}

void skald_worker_unload(skald_worker *w, uint32_t shard) {
    skald_runner_drop(&w->runner, shard);
    skald_rows_free(&w->read[shard]);
    free(w->carries[shard]); /* of a history that is gone */
    w->carries[shard] = NULL;
}

void skald_worker_release(skald_worker *w, const skald_job *job) {
    if (!w->set_up || job->shard >= w->shard_count) return;
    skald_worker_unload(w, job->shard);
    Skald__V1__Frame frame = SKALD__V1__FRAME__INIT;
    Skald__V1__Loaded reply = SKALD__V1__LOADED__INIT;
    frame.body_case = SKALD__V1__FRAME__BODY_LOADED;
    frame.loaded = &reply;
    reply.shard = job->shard;
    reply.released = true;
    skald_worker_send(w, &frame, NULL, 0);
}
