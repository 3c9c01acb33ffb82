/* One incarnation of a worker: what it holds between a welcome and being given up. A worker that the coordinator has
 * given up starts again with nothing: rows, history and results of an earlier life are of no use to anybody. */
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "worker/worker_state.h"

skald_status skald_life_begin(skald_worker *w) {
    return skald_worker_start_lanes(w);
}

void skald_life_end(skald_worker *w) {
    skald_worker_stop_lanes(w);
    skald_outbox_fini(w);
    w->next_seq = 0;
    skald_shelf_clear(&w->shelf);
    skald_keep_end(w);
    skald_versions_destroy(w->versions);
    skald_pool_destroy(w->vectors);
    skald_pool_destroy(w->narrow);
    w->versions = NULL;
    w->vectors = w->narrow = NULL;
    for (uint32_t k = 0; w->carries && k < w->shard_count; k++) free(w->carries[k]);
    free(w->carries);
    w->carries = NULL;
    skald_runner_fini(&w->runner);
    for (uint32_t k = 0; w->read && k < w->shard_count; k++) skald_rows_free(&w->read[k]);
    free(w->read);
    free(w->shift);
    free(w->scale);
    free(w->labels);
    free(w->lane_of);
    w->read = NULL;
    w->shift = w->scale = w->labels = NULL;
    w->lane_of = NULL;
    w->shard_count = 0;
    skald_stragglers_free(&w->straggle.models);
    skald_source_close(w->source);
    w->source = NULL;
    memset(w->seen, 0, sizeof w->seen);
    w->set_up = false;
    atomic_store(&w->begun, false);
    w->incarnation = 0;
}
