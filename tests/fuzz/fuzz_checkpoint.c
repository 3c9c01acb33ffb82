/* A checkpoint, as --resume opens it, and as a header is looked at. Input that begins with an S is the file; else the
 * file is a run's own with the input's edits and the right checksum, and whatever is taken is gone on with: written
 * again, its manifest used, trained from. */
#include <inttypes.h>

#include "fuzz_image.h"
#include "replay/simulation.h"
#include "skald/checkpoint.h"
#include "skald/problem.h"
#include "skald/solver.h"

enum { HEADER = 512, HASH = 24, HASHED_FROM = 41, WORKERS = 2 };

/* What differs between the runs: the first byte of the input chooses. */
static const struct {
    skald_algo algo;
    skald_mode mode;
    int local;
    uint32_t versions;
} runs[] = {{SKALD_SAGA, SKALD_ASYNC, 1, 0},  {SKALD_SAGA, SKALD_SYNC, 0, 0}, {SKALD_SAGA, SKALD_ASYNC, 0, 2},
            {SKALD_SGD, SKALD_ASYNC, 1, 0},   {SKALD_SGD, SKALD_SYNC, 0, 0},  {SKALD_SVRG, SKALD_ASYNC, 0, 0},
            {SKALD_NEWTON, SKALD_ASYNC, 0, 0}};
enum { RUNS = sizeof runs / sizeof *runs };

static uint8_t headers[RUNS][HEADER];
static fuzz_image images[RUNS];

static const char *rows(void) { /* enough for some blocks of them */
    static char path[64];
    if (path[0]) return path;
    FILE *file = fdopen(memfd_create("rows", MFD_CLOEXEC), "w");
    if (!file) abort();
    for (int i = 0; i < 64; i++)
        fprintf(file, "%d 1:%g %d:%g\n", i % 3 ? 1 : -1, 0.1 * (i % 7), 2 + i % 2, 1.0 - i % 5);
    fflush(file);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fileno(file));
    return path;
}

/* Trains on from `c`, or anew into a checkpoint; not from another run's, which is an error like others. */
static skald_status train(size_t which, const skald_checkpoint *c, uint32_t workers, skald_checkpointer *keeper) {
    const skald_data_options data = {
        .path = rows(), .source = {.index_base = -1, .threads = 1}, .intercept = true, .seed = 1, .least_shards = 2};
    const skald_objective objective = {
        .loss = SKALD_LOGISTIC, .l2 = 1e-2, .huber_delta = 1, .classes = 1, .intercept = true};
    const skald_compute_options compute = {.device = "cpu", .threads = 1};
    const skald_timing timing = {.row_ns = 1e3, .message_ns = 1e4, .coordinator_ns = 1e3, .pace_ns = 1000000};
    const skald_train_options options = {.algo = runs[which].algo,
                                         .mode = runs[which].mode,
                                         .local = runs[which].local,
                                         .history_versions = runs[which].versions,
                                         .step_decay = -1,
                                         .max_passes = c ? 6 : 3,
                                         .target_gap = 1e-9,
                                         .audit = true,
                                         .checkpointer = keeper,
                                         .resume = c,
                                         .resume_path = "fuzz"};
    skald_simulation *simulation = NULL;
    skald_outcome outcome = {0};
    if (skald_simulation_open(&data, &objective, &compute, workers, &timing, &simulation) != SKALD_OK) abort();
    skald_crew *crew = skald_simulation_crew(simulation);
    skald_status st = skald_train(crew, skald_solver_of(options.algo), &options, skald_simulation_clock(simulation),
                                  NULL, NULL, &outcome);
    skald_outcome_free(&outcome);
    skald_simulation_close(simulation);
    return st;
}

static skald_status pack_manifest(uint8_t **out, size_t *size) {
    const skald_source_options options = {.index_base = -1, .threads = 1};
    skald_source *source = NULL;
    skald_manifest m = {0};
    TRY(skald_source_open(rows(), &options, &source));
    skald_status st = skald_source_scan(source, 0, skald_source_parts(source), &m);
    if (st == SKALD_OK) st = skald_manifest_finish(&m);
    if (st == SKALD_OK) st = skald_manifest_pack(&m, out, size);
    skald_manifest_free(&m);
    skald_source_close(source);
    return st;
}

static void prepare(size_t which) {
    const skald_checkpointer_options o = {
        .storage = &fuzz_storage, .path = "fuzz", .every_passes = 1, .run = "fuzz", .term = 1};
    skald_checkpointer *keeper = NULL;
    uint8_t *packed = NULL;
    size_t size = 0;
    if (pack_manifest(&packed, &size) != SKALD_OK || skald_checkpointer_open(&o, &keeper) != SKALD_OK) abort();
    skald_checkpointer_manifest(keeper, packed, size);
    if (train(which, NULL, WORKERS, keeper) != SKALD_OK || skald_checkpointer_close(keeper) != SKALD_OK) abort();
    memcpy(headers[which], fuzz_stored, HEADER);
    uint8_t *image = malloc(fuzz_stored_size - HEADER);
    if (!image) abort();
    memcpy(image, fuzz_stored + HEADER, fuzz_stored_size - HEADER);
    fuzz_image_take(&images[which], image, fuzz_stored_size - HEADER);
}

/* As the coordinator does with the manifest of a run that goes on. */
static void deal(const skald_checkpoint *c) {
    const skald_data_options data = {.path = "fuzz", .seed = 1, .least_shards = (uint32_t)c->shard_count};
    const skald_objective objective = {.loss = SKALD_LOGISTIC, .l2 = 1e-2, .huber_delta = 1, .classes = 1};
    skald_manifest m = {0};
    skald_problem problem = {0};
    if (c->manifest && skald_manifest_unpack(c->manifest, c->manifest_bytes, &m) == SKALD_OK && m.dim_limit == 0 &&
        skald_problem_make(&m, &data, &objective, WORKERS, WORKERS, &problem) == SKALD_OK)
        skald_problem_free(&problem);
    skald_manifest_free(&m);
}

static void edited(const uint8_t *data, size_t size) {
    fuzz_input in = {data + 1, size - 1};
    const size_t which = data[0] % RUNS;
    const uint32_t workers = WORKERS + data[0] / RUNS % 2; /* perhaps of other shards */
    if (!images[which].bytes) prepare(which);
    size_t bytes = 0;
    uint8_t *file = fuzz_image_edit(&images[which], &in, HEADER, &bytes);
    memcpy(file, headers[which], HEADER);
    char hash[17];
    snprintf(hash, sizeof hash, "%016" PRIx64, skald_hash(file + HASHED_FROM, bytes - HASHED_FROM, 0));
    memcpy(file + HASH, hash, 16);
    fuzz_store(file, bytes);
    free(file);

    skald_checkpoint c = {0}, again = {0};
    if (skald_checkpoint_open(&fuzz_storage, "fuzz", &c) == SKALD_OK) {
        if (!c.w || !c.shards || !c.length) abort();
        c.term++;
        if (skald_checkpoint_save(&fuzz_storage, "fuzz", &c) == SKALD_OK && c.term < UINT32_MAX &&
            skald_checkpoint_load(&fuzz_storage, "fuzz", &again) != SKALD_OK)
            abort(); /* what was read can be written and read */
        skald_checkpoint_free(&again);
        deal(&c);
        (void)train(which, &c, workers, NULL);
    } else if (size == 1) {
        abort(); /* without an edit it is whole */
    }
    skald_checkpoint_free(&c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    skald_checkpoint c = {0};
    char run[40] = "";
    uint64_t term = 0;
    if (size && data[0] != 'S') {
        edited(data, size);
        return 0;
    }
    fuzz_store(data, size);
    if (skald_checkpoint_peek(&fuzz_storage, "fuzz", run, &term) && strlen(run) >= sizeof run) abort();
    if (skald_checkpoint_open(&fuzz_storage, "fuzz", &c) == SKALD_OK && (!c.w || !c.shards || !c.length)) abort();
    skald_checkpoint_free(&c);
    return 0;
}
