/* A whole solve over rows in memory, without gRPC or a data library: logistic regression with l2 = 1/n and SAGA's local
 * steps by the local engine (on the CPU: on all cores, a shard each, as a worker has them), or by the collective engine
 * with one rank over NCCL, which adds up vectors on the card in the solver's own stream.
 *
 *   solve generate ROWS DIM FOLDER                           rows like epsilon's (the first DIM columns, at most 2000),
 *                                                            as FOLDER/x.f32, y.f32 and shape, for others to read too
 *   solve DEVICE ENGINE GAP SECONDS FOLDER OUTPUT.json       DEVICE: cuda or cpu; ENGINE: local or ranks
 *
 * Exit: 0 the relative gap was reached; 77 what was asked for is not here; 1 else. */
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "base/queue.h"
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
void skald_checkpoint_fini(skald_run *run) {}

enum { MOST_THREADS = 256 };

static int usable_cores(void) {
    cpu_set_t set;
    const int cores = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    return cores < 1 ? 1 : cores > MOST_THREADS ? MOST_THREADS : cores;
}

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
    const int threads = usable_cores();
    pthread_t thread[MOST_THREADS];
    maker makers[MOST_THREADS];
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

/* A task, and its result. */
typedef struct piece {
    skald_result result; /* first: what is given back */
    skald_task task;
    double *vectors[SKALD_MAX_POINTS];
    struct piece *next, *spare;
} piece;

struct solo;
typedef struct runner_lane {
    struct solo *crew;
    skald_lane lane;
    skald_queue *jobs; /* of piece *; NULL: the end */
    pthread_t thread;
} runner_lane;

typedef struct solo {
    skald_crew crew; /* first */
    skald_problem problem;
    skald_runner runner;
    skald_member member;
    skald_collective *group; /* NULL: the local engine */
    runner_lane lanes[MOST_THREADS];
    uint32_t lane_count, running; /* running: threads; none if there is but one lane, which is the caller's */
    pthread_rwlock_t exclusive;   /* tasks over all shards */
    skald_queue *done;            /* of piece * */
    piece *pieces, *spare;        /* all there are; those that are free */
    uint32_t *shards;
} solo;

static void run_piece(runner_lane *l, piece *p) {
    solo *c = l->crew;
    if (p->task.shard == SKALD_ALL_SHARDS)
        pthread_rwlock_wrlock(&c->exclusive);
    else
        pthread_rwlock_rdlock(&c->exclusive);
    memset(&p->result, 0, sizeof p->result);
    for (uint32_t k = 0; k < SKALD_MAX_POINTS; k++) p->result.vectors[k] = p->vectors[k];
    skald_runner_run(&c->runner, &l->lane, &p->task, &p->result);
    p->result.arrived_ns = skald_now_ns(skald_clock_system());
    skald_task_unref(&p->task);
    pthread_rwlock_unlock(&c->exclusive);
}

static void *run_lane(void *argument) {
    runner_lane *l = argument;
    piece *p;
    while (skald_queue_pop(l->jobs, &p, -1) == SKALD_OK && p) {
        run_piece(l, p);
        skald_queue_push(l->crew->done, &p);
    }
    return NULL;
}

static uint32_t crew_size(const skald_crew *crew) {
    (void)crew;
    return 1;
}
static const skald_member *crew_member(const skald_crew *crew, uint32_t worker) {
    (void)worker;
    return &((const solo *)crew)->member;
}

static skald_status make_piece(solo *c) {
    skald_vectors *v = &c->runner.vectors;
    piece *p = skald_zalloc(1, sizeof *p);
    if (!p) return SKALD_ENOMEM;
    p->next = c->pieces;
    c->pieces = p;
    for (uint32_t k = 0; k < SKALD_MAX_POINTS; k++) TRY(v->ops->create(v, &p->vectors[k]));
    c->spare = p;
    return SKALD_OK;
}
static skald_status crew_submit(skald_crew *crew, uint32_t worker, const skald_task *task) {
    solo *c = (solo *)crew;
    (void)worker;
    if (!c->spare) TRY(make_piece(c));
    piece *p = c->spare;
    c->spare = p->spare;
    p->task = *task;
    skald_task_ref(&p->task);
    const uint32_t k = task->shard == SKALD_ALL_SHARDS ? 0 : task->shard % c->lane_count;
    return skald_queue_push(c->lanes[k].jobs, &p);
}

/* What ranks tell each other of a task besides vectors goes through the host's memory. */
static skald_status exchange(solo *c, skald_result *r) {
    const skald_stretch sums = {(double *)(void *)r->sums, sizeof r->sums / (sizeof(double)), false};
    return c->group->ops->sum(c->group, &sums, 1);
}
static skald_status crew_next(skald_crew *crew, int64_t timeout_ns, skald_event *event) {
    solo *c = (solo *)crew;
    piece *p;
    memset(event, 0, sizeof *event);
    skald_status st = skald_queue_pop(c->running ? c->done : c->lanes[0].jobs, &p, c->running ? timeout_ns : 0);
    if (st == SKALD_AGAIN) return SKALD_OK;
    TRY(st);
    if (!c->running) run_piece(&c->lanes[0], p);
    if (c->group) TRY(exchange(c, &p->result));
    event->kind = SKALD_EVENT_RESULT;
    event->result = &p->result;
    return SKALD_OK;
}
static void crew_release(skald_crew *crew, skald_result *result) {
    solo *c = (solo *)crew;
    piece *p = (piece *)result;
    p->spare = c->spare;
    c->spare = p;
}
static void crew_answer(skald_crew *crew, void *asker, const char *json, skald_version *model) {
    (void)crew;
    (void)asker;
    (void)json;
    (void)model;
}

static void stop_lanes(solo *c) {
    piece *p = NULL;
    for (uint32_t k = 0; k < c->running; k++) skald_queue_push(c->lanes[k].jobs, &p);
    for (uint32_t k = 0; k < c->running; k++) pthread_join(c->lanes[k].thread, NULL);
    for (uint32_t k = 0; k < c->lane_count; k++) {
        while (skald_queue_pop(c->lanes[k].jobs, &p, 0) == SKALD_OK) skald_task_unref(&p->task);
        skald_queue_destroy(c->lanes[k].jobs);
        skald_lane_fini(&c->lanes[k].lane);
    }
    skald_queue_destroy(c->done);
}
/* The group first, which may hang on the card; then vectors, which go before the card does. */
static void crew_destroy(skald_crew *crew, skald_status code, const char *reason) {
    solo *c = (solo *)crew;
    skald_vectors *v = &c->runner.vectors;
    (void)code;
    (void)reason;
    if (c->group) c->group->ops->close(c->group);
    stop_lanes(c);
    for (piece *p; (p = c->pieces);) {
        c->pieces = p->next;
        for (uint32_t k = 0; k < SKALD_MAX_POINTS; k++)
            if (p->vectors[k]) v->ops->destroy(v, p->vectors[k]);
        free(p);
    }
    skald_runner_fini(&c->runner);
    skald_problem_free(&c->problem);
    free(c->shards);
}
static const skald_crew_ops crew_ops = {crew_size,    crew_member, crew_submit,  crew_next,
                                        crew_release, crew_answer, crew_destroy, NULL};

static skald_status crew_reduce(skald_crew *crew, double *const *vectors, uint32_t count) {
    solo *c = (solo *)crew;
    const skald_vectors *v = &c->runner.vectors;
    skald_stretch stretches[SKALD_MAX_POINTS];
    for (uint32_t k = 0; k < count; k++) stretches[k] = (skald_stretch){vectors[k], v->dim, v->on_device};
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
        fseeko(y, (off_t)(begin * sizeof(float)), SEEK_SET) != 0)
        return skald_fail(SKALD_EIO, "x.f32 or y.f32 is too short");
    for (uint64_t i = 0; i < n; i++) {
        float label;
        if (fread(&label, sizeof label, 1, y) != 1) return skald_fail(SKALD_EIO, "y.f32 is too short");
        r->y[i] = (double)label;
        r->s[i] = 1;
        if (fread(r->x + i * r->stride, sizeof(float), dim, x) != dim)
            return skald_fail(SKALD_EIO, "x.f32 is too short");
    }
    return SKALD_OK;
}

/* A shard a thread, as skald train has it. */
static skald_status load(solo *c, const char *folder, const skald_compute_options *options) {
    const uint32_t shards = (uint32_t)options->threads;
    char path[4096];
    unsigned long long n = 0;
    skald_problem *p = &c->problem;
    skald_rows rows[MOST_THREADS];
    snprintf(path, sizeof path, "%s/shape", folder);
    FILE *f = fopen(path, "r");
    const bool shaped = f && fscanf(f, "%llu %u", &n, &p->dim) == 2 && n >= shards;
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
    p->shard_count = shards;
    p->shards = skald_zalloc(shards, sizeof *p->shards);
    c->shards = skald_zalloc(shards, sizeof *c->shards);
    if (!p->shards || !c->shards) return SKALD_ENOMEM;
    for (uint32_t k = 0; k < shards; k++) {
        const uint64_t begin = n * k / shards, end = n * (k + 1) / shards;
        TRY(read_rows(x, y, begin, end - begin, p->dim, &rows[k]));
        p->shards[k].rows = end - begin;
        c->shards[k] = k;
        skald_rows_facts(&rows[k], &p->objective, &p->shards[k].facts);
    }
    fclose(x);
    fclose(y);
    TRY(skald_problem_loaded(p));
    TRY(skald_runner_init(&c->runner, options, &p->objective, p->dim, p->seed, shards));
    for (uint32_t k = 0; k < shards; k++) TRY(skald_runner_add(&c->runner, k, &rows[k]));
    snprintf(c->member.name, sizeof c->member.name, "this process");
    snprintf(c->member.device, sizeof c->member.device, "%s", c->runner.compute->device);
    c->member.slots = (uint32_t)options->threads;
    c->member.depth = 1;
    c->member.shards = c->shards;
    c->member.shard_count = shards;
    c->member.rows = n;
    c->crew.ops = &crew_ops;
    c->crew.problem = p;
    return SKALD_OK;
}

/* Where vectors lie is settled before. */
static skald_status start_lanes(solo *c) {
    const uint32_t wanted = c->member.slots;
    pthread_rwlock_init(&c->exclusive, NULL);
    TRY(skald_queue_create(sizeof(piece *), 0, &c->done));
    for (; c->lane_count < wanted; c->lane_count++) {
        runner_lane *l = &c->lanes[c->lane_count];
        l->crew = c;
        TRY(skald_queue_create(sizeof(piece *), 0, &l->jobs));
        TRY(skald_lane_init(&l->lane, &c->runner));
    }
    for (; wanted > 1 && c->running < wanted; c->running++)
        if (pthread_create(&c->lanes[c->running].thread, NULL, run_lane, &c->lanes[c->running]) != 0)
            return skald_fail(SKALD_ENOMEM, "cannot start a thread");
    return SKALD_OK;
}

/* One rank, as a worker is one: every sum goes through the library all the same. */
static skald_status join_alone(solo *c, const skald_compute_options *options, char version[32]) {
    uint32_t card_index;
    const skald_collective_ops *ops = skald_compute_collective(options, &card_index);
    uint8_t id[SKALD_COLLECTIVE_ID];
    char card[80];
    if (!ops) return skald_fail(SKALD_EUNSUPPORTED, "no NCCL adapter for this device");
    TRY(ops->probe(card_index, version, card));
    if (ops->on_device) TRY(skald_runner_to_device(&c->runner));
    TRY(ops->make_id(id));
    const skald_collective_options group = {.size = 1, .device = card_index, .queue = c->runner.vectors.queue};
    TRY(ops->open(id, &group, &c->group));
    c->crew.ranks = &ranks_ops;
    c->crew.vectors = &c->runner.vectors;
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
    const skald_compute_options options = {.device = argv[1],
                                           .threads = strcmp(argv[1], "cpu") == 0 ? usable_cores() : 1};
    static solo c;
    char version[32] = "";
    skald_outcome out;
    memset(&out, 0, sizeof out);
    const int64_t begin = skald_now_ns(skald_clock_system());
    skald_status st = load(&c, argv[5], &options);
    if (st == SKALD_OK && ranks) st = join_alone(&c, &options, version);
    if (st == SKALD_OK) st = start_lanes(&c);
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
            "{\"device\": \"%s\", \"engine\": \"%s%s%s\", \"rows\": %.0f, \"dim\": %u, \"load_s\": %.3f, "
            "\"seconds\": %.4f, \"passes\": %.2f, \"objective\": %.17g, \"bound\": %.17g, \"relative_gap\": %.4g, "
            "\"reached\": %s}\n",
            c.member.device, ranks ? "collective, one rank over nccl " : "local", version,
            c.runner.vectors.on_device ? ", vectors on the card" : "", c.problem.n, c.problem.dim, loaded, out.seconds,
            out.passes, out.last.objective, out.last.objective - out.last.gap, out.last.relative_gap,
            st == SKALD_OK && out.reached ? "true" : "false");
    fclose(json);
    printf("%s: %s after %.3f s, %.1f passes: objective %.10g, relative gap %.3g\n", c.member.device,
           skald_stop_name(out.stop), out.seconds, out.passes, out.last.objective, out.last.relative_gap);
    const bool reached = st == SKALD_OK && out.reached;
    skald_outcome_free(&out);
    crew_destroy(&c.crew, st, NULL);
    return reached ? 0 : 1;
}
