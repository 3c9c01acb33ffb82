/* The model's way, cut into pieces that tasks cover (SYNTHESIS; Liu, Zhang, Liu 2022).
 *
 * A piece goes from the version that the last one went up to, to the current one. Workers that are free while the model
 * has not moved share a piece: each result counts one part of it, and the parts sum to 1. A piece whose result was lost
 * is given out again. Once a result of a piece has been merged its parts are settled: who is free then waits until the
 * model moves, which that merge has just made it do. */
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "engine/run.h"

/* Each piece is in some task's hands, or is the one to be made: there are never more than tasks, and one. */
static skald_piece *make(skald_path *path) {
    skald_piece **grown = realloc(path->pieces, (path->count + 1) * sizeof *grown);
    if (!grown) return NULL;
    path->pieces = grown;
    skald_piece *piece = skald_zalloc(1, sizeof *piece);
    if (piece) path->pieces[path->count++] = piece;
    return piece;
}

static void drop(skald_path *path, skald_piece *piece) {
    skald_version_unref(piece->from);
    skald_version_unref(piece->to);
    *piece = (skald_piece){0};
    if (path->last == piece) path->last = NULL;
}

void skald_path_fini(skald_run *run) {
    for (uint32_t k = 0; k < run->path.count; k++) {
        drop(&run->path, run->path.pieces[k]);
        free(run->path.pieces[k]);
    }
    free(run->path.pieces);
    skald_version_unref(run->path.covered);
}

void skald_path_restart(skald_run *run) {
    skald_version_unref(run->path.covered);
    run->path.covered = skald_version_ref(run->origin);
    run->path.last = NULL;
    for (uint32_t k = 0; k < run->path.count; k++) { /* results still in flight are dropped as they come */
        run->path.pieces[k]->lost = 0;
        if (!run->path.pieces[k]->open) drop(&run->path, run->path.pieces[k]);
    }
}

/* The bound on delays, the task being considered counted: what a merge finds out about is at most so many steps old. */
static bool within_bound(const skald_run *run) {
    const uint64_t bound = run->options->max_stale ? run->options->max_stale : 8ull * run->flight_capacity;
    uint64_t oldest = run->commits, flying = 1;
    for (uint32_t f = 0; f < run->flight_count; f++) {
        const skald_flight *q = &run->flights[f];
        if (!q->piece || q->epoch != run->epoch) continue;
        flying++;
        if (q->commits < oldest) oldest = q->commits;
    }
    return run->commits - oldest + flying - 1 <= bound;
}

skald_piece *skald_path_take(skald_run *run) {
    skald_path *path = &run->path;
    skald_piece *idle = NULL;
    for (uint32_t k = 0; k < path->count; k++) {
        skald_piece *piece = path->pieces[k];
        if (!piece->from) idle = piece;
        if (!piece->lost) continue;
        piece->lost--;
        piece->open++;
        return piece;
    }
    if (!path->covered || !within_bound(run)) return NULL;
    if (run->current->id != path->covered->id) {
        if (!idle && !(idle = make(path))) return NULL; /* out of memory: later */
        path->last = idle;
        *idle = (skald_piece){.from = path->covered, .to = skald_version_ref(run->current)};
        path->covered = skald_version_ref(run->current);
    }
    if (!path->last || path->last->settled) return NULL;
    path->last->parts++;
    path->last->open++;
    return path->last;
}

double skald_path_part(skald_piece *piece) {
    piece->settled = true;
    return 1.0 / piece->parts;
}

void skald_path_land(skald_run *run, const skald_flight *flight) {
    skald_piece *piece = flight->piece;
    piece->open--;
    /* In rounds, where the other parts have been merged by their own weights, it stays a gap until the next full
     * gradient; unless there was no other. */
    const bool again = run->options->mode == SKALD_ASYNC || !(piece->open || piece->settled);
    if (flight->lost && flight->epoch == run->epoch && again) piece->lost++;
    if (!piece->open && !piece->lost) drop(&run->path, piece);
}
