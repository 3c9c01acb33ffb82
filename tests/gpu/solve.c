/* A whole solve over rows in memory, without gRPC or a data library: logistic regression with l2 = 1/n and SAGA's local
 * steps by the local engine, or by the collective engine with one rank over NCCL.
 *
 *   solve generate ROWS DIM FOLDER                           rows like epsilon's (the first DIM columns, at most 2000),
 *                                                            as FOLDER/x.f32, y.f32 and shape, for others to read too
 *   solve DEVICE ENGINE GAP SECONDS FOLDER OUTPUT.json       DEVICE: cuda or cpu; ENGINE: local or ranks
 *
 * Exit: 0 the relative gap was reached; 77 what was asked for is not here; 1 else. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/base.h"
#include "data/problem.h"
#include "engine/run.h"
#include "skald/collective.h"
#include "skald/solver.h"
#include "skald/train.h"
#include "worker/runner.h"

/* In place of src/engine/table_json.c, checkpoint.c and their libraries: nobody asks this crew for its status, or keeps
 * it. */
char *skald_table_json(const skald_run *run, bool audit) {
    (void)run;
    (void)audit;
    return NULL;
}
skald_status skald_checkpoint_init(skald_run *run) {
    return SKALD_OK;
}
skald_status skald_checkpoint_resume(skald_run *run) {
    return SKALD_EUNSUPPORTED;
}
void skald_checkpoint_tend(skald_run *run) {}
void skald_checkpoint_last(skald_run *run) {}

/* ---- rows ---------------------------------------------------------------------------------------------- */

typedef struct maker {
    const problem *p;
    float *x, *y;
    uint64_t begin, end;
    uint32_t dim;
} maker;

static void *make_rows(void *argument) {
    maker *m = argument;
    void *scratch = malloc(problem_epsilon.scratch);
    int32_t q[2000];
    for (uint64_t i = m->begin; i < m->end; i++) {
        float *x = m->x + i * m->dim;
        double norm2 = 0;
        int label;
        problem_epsilon.row(m->p, i, NULL, q, &label, scratch);
        for (uint32_t j = 0; j < m->dim; j++) norm2 += (double)q[j] * q[j];
        for (uint32_t j = 0; j < m->dim; j++) x[j] = (float)(q[j] / sqrt(norm2));
        m->y[i] = (float)label;
    }
    free(scratch);
    return NULL;
}

static int write_file(const char *folder, const char *name, const void *data, size_t bytes) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "w");
    const bool good = f && fwrite(data, 1, bytes, f) == bytes;
    if (f && fclose(f) == 0 && good) return 0;
    perror(path);
    return 1;
}

static int generate(uint64_t rows, uint32_t dim, const char *folder) {
    enum { MOST = 64 };
    const long cores = sysconf(_SC_NPROCESSORS_ONLN);
    const int threads = cores < 1 ? 1 : cores > MOST ? MOST : (int)cores;
    pthread_t thread[MOST];
    maker makers[MOST];
    problem *p;
    float *x = malloc(rows * dim * sizeof *x), *y = malloc(rows * sizeof *y);
    char shape[64];
    if (!x || !y || problem_epsilon.create(1, &p) != SKALD_OK) return 1;
    for (int t = 0; t < threads; t++) {
        makers[t] =
            (maker){p, x, y, rows * (uint64_t)t / (uint64_t)threads, rows * (uint64_t)(t + 1) / (uint64_t)threads, dim};
        if (pthread_create(&thread[t], NULL, make_rows, &makers[t]) != 0) return 1;
    }
    for (int t = 0; t < threads; t++) pthread_join(thread[t], NULL);
    snprintf(shape, sizeof shape, "%llu %u\n", (unsigned long long)rows, dim);
    const int failed = write_file(folder, "x.f32", x, rows * dim * sizeof *x) ||
                       write_file(folder, "y.f32", y, rows * sizeof *y) ||
                       write_file(folder, "shape", shape, strlen(shape));
    problem_epsilon.destroy(p);
    free(x);
    free(y);
    return failed;
}

/* ---- a crew of one ------------------------------------------------------------------------------------- */

typedef struct solo {
    skald_crew crew; /* first */
    skald_problem problem;
    skald_runner runner;
    skald_lane lane;
    skald_member member;
    skald_collective *group; /* NULL: the local engine */
    uint32_t *shards;
    skald_task *tasks; /* given out, in order */
    uint32_t first, count, room;
    skald_result result;
    double *vectors;
} solo;

static uint32_t crew_size(const skald_crew *crew) {
    (void)crew;
    return 1;
}
static const skald_member *crew_member(const skald_crew *crew, uint32_t worker) {
    (void)worker;
    return &((const solo *)crew)->member;
}
static skald_status crew_submit(skald_crew *crew, uint32_t worker, const skald_task *task) {
    solo *c = (solo *)crew;
    (void)worker;
    if (c->count == c->room) return skald_fail(SKALD_EINTERNAL, "more than %u tasks", c->room);
    skald_task *to = &c->tasks[(c->first + c->count++) % c->room];
    *to = *task;
    skald_task_ref(to);
    return SKALD_OK;
}
static skald_status crew_next(skald_crew *crew, int64_t timeout_ns, skald_event *event) {
    solo *c = (solo *)crew;
    skald_result *r = &c->result;
    (void)timeout_ns;
    memset(event, 0, sizeof *event);
    if (c->count == 0) return SKALD_OK;
    memset(r, 0, sizeof *r);
    for (uint32_t k = 0; k < SKALD_MAX_POINTS; k++) r->vectors[k] = c->vectors + (size_t)k * c->runner.dim;
    skald_task *task = &c->tasks[c->first];
    skald_runner_run(&c->runner, &c->lane, task, r);
    r->arrived_ns = skald_now_ns(skald_clock_system());
    skald_task_unref(task);
    c->first = (c->first + 1) % c->room;
    c->count--;
    event->kind = SKALD_EVENT_RESULT;
    event->result = r;
    return SKALD_OK;
}
static void crew_release(skald_crew *crew, skald_result *result) {
    (void)crew;
    (void)result;
}
static void crew_answer(skald_crew *crew, void *asker, const char *json, skald_version *model) {
    (void)crew;
    (void)asker;
    (void)json;
    (void)model;
}
static void crew_destroy(skald_crew *crew, skald_status code, const char *reason) {
    solo *c = (solo *)crew;
    (void)code;
    (void)reason;
    while (c->count > 0) {
        skald_task_unref(&c->tasks[c->first]);
        c->first = (c->first + 1) % c->room;
        c->count--;
    }
    if (c->group) c->group->ops->close(c->group);
    skald_lane_fini(&c->lane);
    skald_runner_fini(&c->runner);
    skald_problem_free(&c->problem);
    free(c->shards);
    free(c->tasks);
    free(c->vectors);
}
static const skald_crew_ops crew_ops = {crew_size,    crew_member, crew_submit, crew_next,
                                        crew_release, crew_answer, crew_destroy, NULL};

static skald_status crew_reduce(skald_crew *crew, double *const *vectors, uint32_t count) {
    solo *c = (solo *)crew;
    skald_stretch stretches[SKALD_MAX_POINTS];
    for (uint32_t k = 0; k < count; k++) stretches[k] = (skald_stretch){vectors[k], c->runner.dim, false};
    return c->group->ops->sum(c->group, stretches, count);
}
static const skald_ranks_ops ranks_ops = {crew_reduce};

/* A shard's rows, from a file to where the backend wants them. */
static skald_status read_rows(FILE *x, FILE *y, uint64_t begin, uint64_t n, uint32_t dim, skald_rows *r) {
    *r = (skald_rows){.layout = SKALD_DENSE, .n = n, .dim = dim, .stride = (dim + 15) / 16 * 16};
    r->x = skald_zalloc(n * r->stride, sizeof *r->x);
    r->y = skald_alloc(n, sizeof *r->y);
    r->s = skald_alloc(n, sizeof *r->s);
    if (!r->x || !r->y || !r->s) return SKALD_ENOMEM;
    if (fseeko(x, (off_t)(begin * dim * sizeof(float)), SEEK_SET) != 0 ||
        fseeko(y, (off_t)(begin * sizeof(float)), SEEK_SET) != 0 || fread(r->y, sizeof(float), n, y) != n)
        return skald_fail(SKALD_EIO, "y.f32 is too short");
    for (uint64_t i = 0; i < n; i++) {
        r->s[i] = 1;
        if (fread(r->x + i * r->stride, sizeof(float), dim, x) != dim)
            return skald_fail(SKALD_EIO, "x.f32 is too short");
    }
    return SKALD_OK;
}

static skald_status load(solo *c, const char *folder, const skald_compute_options *options) {
    enum { SHARDS = 16 };
    char path[4096];
    unsigned long long n = 0;
    skald_problem *p = &c->problem;
    skald_rows rows[SHARDS];
    snprintf(path, sizeof path, "%s/shape", folder);
    FILE *f = fopen(path, "r");
    const bool shaped = f && fscanf(f, "%llu %u", &n, &p->dim) == 2 && n >= SHARDS;
    if (f) fclose(f);
    snprintf(path, sizeof path, "%s/x.f32", folder);
    FILE *x = shaped ? fopen(path, "r") : NULL;
    snprintf(path, sizeof path, "%s/y.f32", folder);
    FILE *y = shaped ? fopen(path, "r") : NULL;
    if (!x || !y) return skald_fail(SKALD_EIO, "%s has not what generate writes", folder);
    p->objective = (skald_objective){.loss = SKALD_LOGISTIC, .huber_delta = 1, .l2 = 1 / (double)n, .classes = 1};
    p->features = p->dim;
    p->n = (double)n;
    p->dense = true;
    p->seed = 1;
    p->shard_count = SHARDS;
    p->shards = skald_zalloc(SHARDS, sizeof *p->shards);
    c->shards = skald_zalloc(SHARDS, sizeof *c->shards);
    if (!p->shards || !c->shards) return SKALD_ENOMEM;
    for (uint64_t k = 0; k < SHARDS; k++) {
        const uint64_t begin = n * k / SHARDS, end = n * (k + 1) / SHARDS;
        TRY(read_rows(x, y, begin, end - begin, p->dim, &rows[k]));
        p->shards[k].rows = end - begin;
        c->shards[k] = (uint32_t)k;
        skald_rows_facts(&rows[k], &p->shards[k].facts);
    }
    fclose(x);
    fclose(y);
    TRY(skald_problem_loaded(p));
    TRY(skald_runner_init(&c->runner, options, &p->objective, p->dim, p->seed, SHARDS));
    for (uint32_t k = 0; k < SHARDS; k++) TRY(skald_runner_add(&c->runner, k, &rows[k]));
    TRY(skald_lane_init(&c->lane, &c->runner));
    c->vectors = skald_zalloc(SKALD_MAX_POINTS * (size_t)c->runner.dim, sizeof *c->vectors);
    c->room = 4 * SHARDS;
    c->tasks = skald_zalloc(c->room, sizeof *c->tasks);
    if (!c->vectors || !c->tasks) return SKALD_ENOMEM;
    snprintf(c->member.name, sizeof c->member.name, "this process");
    snprintf(c->member.device, sizeof c->member.device, "%s", c->runner.compute->device);
    c->member.slots = c->member.depth = 1;
    c->member.shards = c->shards;
    c->member.shard_count = SHARDS;
    c->member.rows = n;
    c->crew.ops = &crew_ops;
    c->crew.problem = p;
    return SKALD_OK;
}

/* One rank: every sum goes through the library all the same. */
static skald_status join_alone(solo *c, const skald_compute_options *options, char version[32]) {
    uint32_t card_index;
    const skald_collective_ops *ops = skald_compute_collective(options, &card_index);
    uint8_t id[SKALD_COLLECTIVE_ID];
    char card[80];
    if (!ops) return skald_fail(SKALD_EUNSUPPORTED, "no NCCL adapter for this device");
    TRY(ops->probe(card_index, version, card));
    TRY(ops->make_id(id));
    TRY(ops->open(id, &(skald_collective_options){.size = 1, .device = card_index}, &c->group));
    c->crew.ranks = &ranks_ops;
    return SKALD_OK;
}

static double seconds_since(int64_t begin) {
    return (double)(skald_now_ns(skald_clock_system()) - begin) * 1e-9;
}

int main(int argc, char **argv) {
    if (argc == 5 && strcmp(argv[1], "generate") == 0) {
        const unsigned long dim = strtoul(argv[3], NULL, 10);
        if (dim >= 1 && dim <= 2000) return generate(strtoull(argv[2], NULL, 10), (uint32_t)dim, argv[4]);
    }
    if (argc != 7) {
        fprintf(stderr, "usage: solve generate ROWS DIM FOLDER\n"
                        "       solve cuda|cpu local|ranks GAP SECONDS FOLDER OUTPUT.json\n");
        return 2;
    }
    const bool ranks = strcmp(argv[2], "ranks") == 0;
    const skald_compute_options options = {.device = argv[1], .threads = 1};
    solo c;
    char version[32] = "";
    skald_outcome out;
    memset(&c, 0, sizeof c);
    memset(&out, 0, sizeof out);
    const int64_t begin = skald_now_ns(skald_clock_system());
    skald_status st = load(&c, argv[5], &options);
    if (st == SKALD_OK && ranks) st = join_alone(&c, &options, version);
    if (st != SKALD_OK) {
        printf("%s\n", skald_error());
        return st == SKALD_EUNSUPPORTED ? 77 : 1;
    }
    const double loaded = seconds_since(begin);
    const skald_train_options train = {.mode = ranks ? SKALD_SYNC : SKALD_ASYNC,
                                       .algo = SKALD_SAGA,
                                       .local = -1,
                                       .step_decay = -1,
                                       .target_gap = strtod(argv[3], NULL),
                                       .max_seconds = strtod(argv[4], NULL)};
    st = skald_train(&c.crew, skald_solver_of(SKALD_SAGA), &train, skald_clock_system(), NULL, NULL, &out);
    if (st != SKALD_OK) printf("%s\n", skald_error());
    FILE *json = fopen(argv[6], "w");
    if (!json) {
        perror(argv[6]);
        return 1;
    }
    fprintf(json,
            "{\"device\": \"%s\", \"engine\": \"%s%s\", \"rows\": %.0f, \"dim\": %u, \"load_s\": %.3f, "
            "\"seconds\": %.4f, \"passes\": %.2f, \"objective\": %.17g, \"bound\": %.17g, \"relative_gap\": %.4g, "
            "\"reached\": %s}\n",
            c.member.device, ranks ? "collective, one rank over nccl " : "local", version, c.problem.n, c.problem.dim,
            loaded, out.seconds, out.passes, out.last.objective, out.last.objective - out.last.gap,
            out.last.relative_gap, st == SKALD_OK && out.reached ? "true" : "false");
    fclose(json);
    printf("%s: %s after %.3f s, %.1f passes: objective %.10g, relative gap %.3g\n", c.member.device,
           skald_stop_name(out.stop), out.seconds, out.passes, out.last.objective, out.last.relative_gap);
    const bool reached = st == SKALD_OK && out.reached;
    skald_outcome_free(&out);
    crew_destroy(&c.crew, st, NULL);
    return reached ? 0 : 1;
}
