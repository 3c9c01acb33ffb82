/* Results merged a second by the real coordinator and solver over loopback TCP, with four workers that compute nothing,
 * beside a bare gRPC echo of the same sizes; in turns, one run, medians.
 *
 *   bench_coordinator [--rounds N (5)] [--seconds S (1)] [--json FILE] [DIM ...] (2000 47236 1000000)
 *
 * A worker here speaks the whole protocol and answers each task from its I/O thread with vectors that are always the
 * same; it keeps two tasks, as a worker does and as each of the echo's clients has two messages outstanding. `plain` is
 * SAGA with one vector a way (w out, the gradient difference back), `local` with two (w and abar; dw and D), against
 * echoes of one and of two vectors of doubles.
 *
 * Allocations by our code are counted by standing in for malloc: a call counts as ours when it comes from this program,
 * to which all of Skald is linked, and not from a shared library. */
#include <jansson.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "bare_echo.h"
#include "base/base.h"
#include "base/pool.h"
#include "skald/coordinator.h"
#include "skald/solver.h"
#include "skald/worker.h"
#include "wire/wire.h"

enum { WORKERS = 4, OUTSTANDING = 2, ROWS = 16384, MAX_ROUNDS = 99 };

/* ---- counting allocations -------------------------------------------------------------------------------------------
 */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__GLIBC__)
#define COUNTED false
static atomic_ulong ours;
#else
#define COUNTED true
static atomic_ulong ours;
extern char __executable_start, etext;
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *p, size_t size);
void *__libc_memalign(size_t alignment, size_t size);
#define EXPORTED __attribute__((visibility("default")))
#define COUNT()                                                                                                        \
    do {                                                                                                               \
        const char *caller = __builtin_return_address(0);                                                              \
        if (caller >= &__executable_start && caller < &etext)                                                          \
            atomic_fetch_add_explicit(&ours, 1, memory_order_relaxed);                                                 \
    } while (0)
EXPORTED void *malloc(size_t size) {
    COUNT();
    return __libc_malloc(size);
}
EXPORTED void *calloc(size_t count, size_t size) {
    COUNT();
    return __libc_calloc(count, size);
}
EXPORTED void *realloc(void *p, size_t size) {
    COUNT();
    return __libc_realloc(p, size);
}
EXPORTED void *aligned_alloc(size_t alignment, size_t size) {
    COUNT();
    return __libc_memalign(alignment, size);
}
EXPORTED int posix_memalign(void **out, size_t alignment, size_t size) {
    COUNT();
    *out = __libc_memalign(alignment, size);
    return *out ? 0 : 12; /* ENOMEM */
}
#endif

/* ---- a worker that computes nothing ---------------------------------------------------------------------------------
 */

typedef struct thin {
    const char *path;
    skald_net_client *client;
    skald_wire_env *env;
    skald_pool *headers;
    skald_source *source;
    skald_bytes *vectors; /* SKALD_MAX_POINTS, all it ever sends */
    uint32_t dim, slots, index;
    uint64_t incarnation, seq;
    atomic_ulong answered;
} thin;

static void die(const char *what) {
    fprintf(stderr, "bench_coordinator: %s: %s\n", what, skald_error());
    exit(1);
}

static void reply(thin *t, skald_net_session *session, const Skald__V1__Frame *frame, const skald_wire_vector *v,
                  size_t n) {
    skald_status st = skald_wire_send(session, frame, v, n, t->headers);
    if (st != SKALD_OK && st != SKALD_ELOST) die("worker");
}

static void on_open(void *user, skald_net_session *session) {
    thin *t = user;
    char name[16];
    snprintf(name, sizeof name, "thin-%u", t->index);
    Skald__V1__Frame frame = SKALD__V1__FRAME__INIT;
    Skald__V1__Hello m = SKALD__V1__HELLO__INIT;
    m.protocol = SKALD_PROTOCOL;
    m.name = name;
    m.device = (char *)"nothing";
    m.slots = t->slots;
    m.build = (char *)SKALD_VERSION;
    frame.body_case = SKALD__V1__FRAME__BODY_HELLO;
    frame.hello = &m;
    reply(t, session, &frame, NULL, 0);
}

static void on_scan(thin *t, skald_net_session *session, const Skald__V1__ScanRequest *asked) {
    Skald__V1__Frame frame = SKALD__V1__FRAME__INIT;
    Skald__V1__ScanReply m = SKALD__V1__SCAN_REPLY__INIT;
    const skald_source_options options = {.index_base = -1, .threads = 1};
    skald_manifest manifest = {0};
    skald_wire_vector vector = {0};
    uint8_t *packed = NULL;
    struct stat info;
    if (!t->source && skald_source_open(t->path, &options, &t->source) != SKALD_OK) die("data");
    if (stat(t->path, &info) != 0) die("data");
    m.first = asked->first;
    m.count = asked->count;
    m.parts = skald_source_parts(t->source);
    m.file_bytes = (uint64_t)info.st_size;
    m.description = (char *)skald_source_describe(t->source);
    if (asked->count) {
        if (skald_source_scan(t->source, asked->first, asked->count, &manifest) != SKALD_OK ||
            skald_manifest_pack(&manifest, &packed, &vector.bytes) != SKALD_OK)
            die("scan");
        vector.owner = skald_bytes_create(vector.bytes);
        memcpy(skald_bytes_data(vector.owner), packed, vector.bytes);
        vector.data = vector.owner->data;
    }
    frame.body_case = SKALD__V1__FRAME__BODY_SCAN_REPLY;
    frame.scan_reply = &m;
    reply(t, session, &frame, &vector, asked->count ? 1 : 0);
    skald_bytes_unref(vector.owner);
    free(packed);
    skald_manifest_free(&manifest);
}

static void on_setup(thin *t, skald_net_session *session, const Skald__V1__Setup *m) {
    if (!t->vectors) {
        t->dim = m->dim + (m->intercept ? 1 : 0);
        t->vectors = skald_bytes_create(SKALD_MAX_POINTS * (size_t)t->dim * sizeof(double));
        double *x = (double *)(void *)skald_bytes_data(t->vectors);
        for (size_t j = 0; j < SKALD_MAX_POINTS * (size_t)t->dim; j++) x[j] = j % 2 ? 1e-9 : -1e-9;
    }
    Skald__V1__Frame frame = SKALD__V1__FRAME__INIT;
    Skald__V1__Ready ready = SKALD__V1__READY__INIT;
    ready.stage = 1;
    frame.body_case = SKALD__V1__FRAME__BODY_READY;
    frame.ready = &ready;
    reply(t, session, &frame, NULL, 0);
}

static void on_lease(thin *t, skald_net_session *session, const Skald__V1__Lease *m) {
    Skald__V1__Frame frame = SKALD__V1__FRAME__INIT;
    Skald__V1__Loaded loaded = SKALD__V1__LOADED__INIT;
    loaded.shard = m->shard;
    loaded.rows = m->rows;
    loaded.nonzeros = loaded.weight_sum = loaded.sum_weighted_norm2 = loaded.spread_y = (double)m->rows;
    loaded.max_weighted_norm2 = 1;
    frame.body_case = SKALD__V1__FRAME__BODY_LOADED;
    frame.loaded = &loaded;
    reply(t, session, &frame, NULL, 0);
}

static void on_begin(thin *t, skald_net_session *session) {
    Skald__V1__Frame frame = SKALD__V1__FRAME__INIT;
    Skald__V1__Ready ready = SKALD__V1__READY__INIT;
    ready.stage = 2;
    frame.body_case = SKALD__V1__FRAME__BODY_READY;
    frame.ready = &ready;
    reply(t, session, &frame, NULL, 0);
}

static void on_task(thin *t, skald_net_session *session, const Skald__V1__Task *m) {
    Skald__V1__Frame frame = SKALD__V1__FRAME__INIT;
    Skald__V1__Result r = SKALD__V1__RESULT__INIT;
    Skald__V1__Sums sums[SKALD_MAX_POINTS] = {SKALD__V1__SUMS__INIT, SKALD__V1__SUMS__INIT};
    Skald__V1__Sums *list[SKALD_MAX_POINTS] = {&sums[0], &sums[1]};
    const bool trains = skald_task_trains((skald_task_kind)m->kind);
    const skald_task task = {
        .kind = (skald_task_kind)m->kind, .saga = m->saga, .points = m->points, .want_gradient = m->want_gradient};
    r.rows = trains ? m->rows : 1;
    for (int p = 0; p < SKALD_MAX_POINTS; p++) {
        sums[p].loss = 0.5 * r.rows;
        sums[p].rows = r.rows;
    }
    r.seq = ++t->seq;
    r.incarnation = t->incarnation;
    r.task = m->id;
    r.kind = m->kind;
    r.shard = m->shard;
    r.version = m->version;
    r.n_sums = SKALD_MAX_POINTS;
    r.sums = list;
    frame.body_case = SKALD__V1__FRAME__BODY_RESULT;
    frame.result = &r;
    skald_wire_vector vectors[SKALD_MAX_POINTS];
    const size_t bytes = t->dim * sizeof(double);
    uint32_t count = skald_task_vectors(&task);
    for (uint32_t k = 0; k < count; k++)
        vectors[k] = (skald_wire_vector){t->vectors, t->vectors->data + k * bytes, bytes};
    reply(t, session, &frame, vectors, count);
    if (trains) atomic_fetch_add_explicit(&t->answered, 1, memory_order_relaxed);
}

static void on_frame(void *user, skald_net_session *session, skald_frame *in) {
    thin *t = user;
    if (skald_wire_open(t->env, in) != SKALD_OK) die("frame");
    const Skald__V1__Frame *f = skald_wire_body(t->env);
    switch (f->body_case) {
    case SKALD__V1__FRAME__BODY_WELCOME:
        t->incarnation = f->welcome->incarnation;
        break;
    case SKALD__V1__FRAME__BODY_SCAN_REQUEST:
        on_scan(t, session, f->scan_request);
        break;
    case SKALD__V1__FRAME__BODY_SETUP:
        on_setup(t, session, f->setup);
        break;
    case SKALD__V1__FRAME__BODY_LEASE:
        on_lease(t, session, f->lease);
        break;
    case SKALD__V1__FRAME__BODY_BEGIN:
        on_begin(t, session);
        break;
    case SKALD__V1__FRAME__BODY_TASK:
        on_task(t, session, f->task);
        break;
    default:
        break;
    }
    skald_frame_release(in);
}

static void on_close(void *user, skald_net_session *session, skald_status code, const char *reason) {}

/* ---- one run --------------------------------------------------------------------------------------------------------
 */

typedef struct window {
    thin *workers;
    double seconds;
    atomic_int over;
    double rate, allocations; /* out: results a second, allocations a result */
} window;

static uint64_t answered(const window *w) {
    uint64_t sum = 0;
    for (int k = 0; k < WORKERS; k++) sum += atomic_load_explicit(&w->workers[k].answered, memory_order_relaxed);
    return sum;
}

static double now(void) {
    return (double)skald_now_ns(skald_clock_system()) * 1e-9;
}

/* Waits until the training is on its way and has touched all of its memory, looks at it for a while, and ends it. */
static void *watch(void *argument) {
    window *w = argument;
    while (answered(w) < 8 * WORKERS * OUTSTANDING) usleep(1000);
    usleep((useconds_t)(w->seconds * 0.2e6));
    double from = now();
    uint64_t results = answered(w), allocations = atomic_load(&ours);
    usleep((useconds_t)(w->seconds * 1e6));
    results = answered(w) - results;
    allocations = atomic_load(&ours) - allocations;
    w->rate = (double)results / (now() - from);
    w->allocations = results ? (double)allocations / (double)results : -1;
    atomic_store(&w->over, 1);
    return NULL;
}

static void write_data(const char *path, uint32_t dim) {
    FILE *f = fopen(path, "w");
    if (!f) die(path);
    for (int i = 0; i < ROWS; i++) fprintf(f, "%d 1:0.5 %u:0.5\n", i % 2 ? 1 : -1, dim);
    if (fclose(f) != 0) die(path);
}

static void run(uint32_t dim, bool local, double seconds, double *rate, double *allocations) {
    static const skald_net_handlers handlers = {on_open, on_frame, on_close, NULL, NULL};
    const skald_net_ops *net = skald_net_grpc();
    char path[64], address[64];
    snprintf(path, sizeof path, "/tmp/skald-bench-%d.svm", (int)getpid());
    write_data(path, dim);
    const skald_coordinator_options options = {
        .address = "127.0.0.1:0",
        .workers = WORKERS,
        .data = {.path = path, .source = {.index_base = -1, .threads = 1}, .shards = WORKERS * OUTSTANDING, .seed = 1},
        .objective = {.loss = SKALD_LOGISTIC, .l2 = 1e-3, .classes = 1},
        .clock = skald_clock_system(),
        .repeat_ns = 60 * SKALD_NS_PER_S};
    skald_coordinator *coordinator = NULL;
    skald_crew *crew = NULL;
    int port = 0;
    if (skald_coordinator_listen(net, &options, &coordinator, &port) != SKALD_OK) die("listen");
    snprintf(address, sizeof address, "127.0.0.1:%d", port);
    thin *workers = skald_zalloc(WORKERS, sizeof *workers);
    for (uint32_t k = 0; k < WORKERS; k++) {
        thin *t = &workers[k];
        t->path = path;
        t->index = k;
        t->slots = local ? 1 : OUTSTANDING; /* a slot holds two local tasks, one plain one */
        if (skald_wire_env_create(&t->env) != SKALD_OK || skald_pool_create(1024, &t->headers) != SKALD_OK)
            die("memory");
        if (net->connect(address, NULL, &handlers, t, SKALD_NS_PER_S, &t->client) != SKALD_OK) die("connect");
    }
    if (skald_coordinator_gather(coordinator, NULL, &crew) != SKALD_OK) die("gather");

    window w = {.workers = workers, .seconds = seconds};
    pthread_t thread;
    pthread_create(&thread, NULL, watch, &w);
    const skald_train_options train = {.mode = SKALD_ASYNC,
                                       .algo = SKALD_SAGA,
                                       .step = 1e-3,
                                       .step_rows = 16,
                                       .task_rows = 64,
                                       .local = local,
                                       .theta = 1,
                                       .max_seconds = 60 + 2 * seconds,
                                       .eval_every = -1};
    skald_outcome outcome;
    if (skald_train(crew, skald_solver_of(SKALD_SAGA), &train, skald_clock_system(), NULL, &w.over, &outcome) !=
        SKALD_OK)
        die("train");
    pthread_join(thread, NULL);
    if (outcome.updates == 0 || outcome.folded || outcome.rollbacks) die("a run without plain updates");
    skald_outcome_free(&outcome);
    for (int k = 0; k < WORKERS; k++) net->disconnect(workers[k].client);
    skald_coordinator_close(coordinator, SKALD_OK, "measured");
    for (int k = 0; k < WORKERS; k++) {
        skald_bytes_unref(workers[k].vectors);
        skald_source_close(workers[k].source);
        skald_pool_destroy(workers[k].headers);
        skald_wire_env_destroy(workers[k].env);
    }
    free(workers);
    unlink(path);
    *rate = w.rate;
    *allocations = w.allocations;
}

/* ---- all of them ----------------------------------------------------------------------------------------------------
 */

static int ascending(const void *x, const void *y) {
    double a = *(const double *)x, b = *(const double *)y;
    return (a > b) - (a < b);
}

static double median(double *v, int n) {
    qsort(v, (size_t)n, sizeof *v, ascending);
    return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

static void report(json_t *lines, const char *name, double value, const char *unit, double goal, bool at_most) {
    json_t *line = json_pack("{s:s, s:f, s:s}", "name", name, "value", value, "unit", unit);
    if (goal >= 0) {
        json_object_set_new(line, "goal", json_real(goal));
        json_object_set_new(line, "met", json_boolean(at_most ? value <= goal : value >= goal));
        if (at_most) json_object_set_new(line, "at_most", json_true());
    }
    json_array_append_new(lines, line);
    printf("%-52s %12.3f %s", name, value, unit);
    if (goal >= 0)
        printf("  (goal %s %g: %s)", at_most ? "<=" : ">=", goal,
               (at_most ? value <= goal : value >= goal) ? "met" : "MISSED");
    printf("\n");
    fflush(stdout);
}

static void measure(json_t *lines, uint32_t dim, bool local, int rounds, double seconds) {
    double echo[MAX_ROUNDS], merged[MAX_ROUNDS], ratio[MAX_ROUNDS], allocations[MAX_ROUNDS];
    const char *kind = local ? "local" : "plain";
    char name[128];
    for (int r = 0; r < rounds; r++) {
        const bare_echo_options o = {(local ? 2 : 1) * (size_t)dim * sizeof(double), WORKERS, OUTSTANDING, seconds};
        echo[r] = bare_echo_run(&o);
        run(dim, local, seconds, &merged[r], &allocations[r]);
        ratio[r] = merged[r] / echo[r];
    }
    snprintf(name, sizeof name, "d %u, %s: bare echo", dim, kind);
    report(lines, name, median(echo, rounds), "/s", -1, false);
    snprintf(name, sizeof name, "d %u, %s: results merged", dim, kind);
    report(lines, name, median(merged, rounds), "/s", -1, false);
    snprintf(name, sizeof name, "d %u, %s: merged / echoed", dim, kind);
    report(lines, name, median(ratio, rounds), "", 0.5, false);
    if (!COUNTED) return;
    median(allocations, rounds); /* sorted */
    snprintf(name, sizeof name, "d %u, %s: our allocations a result, worst round", dim, kind);
    report(lines, name, allocations[rounds - 1], "", 0, true);
}

int main(int argc, char **argv) {
    uint32_t dims[16] = {2000, 47236, 1000000};
    int rounds = 5, count = 0;
    double seconds = 1;
    const char *path = NULL, *only = NULL;
    for (int k = 1; k < argc; k++) {
        bool more = k + 1 < argc;
        if (strcmp(argv[k], "--rounds") == 0 && more)
            rounds = atoi(argv[++k]);
        else if (strcmp(argv[k], "--seconds") == 0 && more)
            seconds = atof(argv[++k]);
        else if (strcmp(argv[k], "--json") == 0 && more)
            path = argv[++k];
        else if (strcmp(argv[k], "plain") == 0 || strcmp(argv[k], "local") == 0)
            only = argv[k];
        else if (count < 16)
            dims[count++] = (uint32_t)strtoul(argv[k], NULL, 10);
    }
    if (rounds < 1 || rounds > MAX_ROUNDS || !(seconds > 0)) return 2;
    if (count == 0) count = 3;
    json_t *lines = json_array();
    for (int k = 0; k < count; k++)
        for (int local = 0; local < 2; local++)
            if (!only || !strcmp(only, local ? "local" : "plain")) measure(lines, dims[k], local, rounds, seconds);
    json_t *all =
        json_pack("{s:s, s:i, s:f, s:o}", "bench", "coordinator", "rounds", rounds, "seconds", seconds, "lines", lines);
    int failed = path ? json_dump_file(all, path, JSON_INDENT(1)) : 0;
    if (failed) fprintf(stderr, "bench_coordinator: cannot write %s\n", path);
    json_decref(all);
    return failed ? 1 : 0;
}
