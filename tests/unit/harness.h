/* Small problems, an independent reference solver, and ways to train on them: shared by the solver tests. */
#ifndef SKALD_TESTS_HARNESS_H
#define SKALD_TESTS_HARNESS_H

#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/base.h"
#include "replay/replay.h"
#include "skald/coordinator.h"
#include "skald/solver.h"
#include "skald/worker.h"

typedef struct toy {
    int n, d;
    double density;  /* 1: dense */
    skald_loss loss; /* decides the labels */
    bool sorted;     /* all rows of one class first */
    uint64_t seed;
} toy;

/* Writes the problem as LIBSVM text; the path is static. Rows of about unit norm, labels noisy. */
__attribute__((unused)) static const char *toy_write(const toy *t, const char *name) {
    static char path[128];
    snprintf(path, sizeof path, "/tmp/skald-test-%d-%s.svm", (int)getpid(), name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    for (int pass = 0; pass < (t->sorted ? 2 : 1); pass++)
        for (int i = 0; i < t->n; i++) {
            uint64_t key = skald_mix64(t->seed * 1000003 + (uint64_t)i);
            double z = 0, norm = 0;
            double *x = calloc((size_t)t->d, sizeof *x);
            for (int j = 0; j < t->d; j++) {
                if (skald_uniform(key ^ 1, (uint64_t)j) >= t->density) continue;
                x[j] = skald_normal(key ^ 2, (uint64_t)j) / (1 + 0.05 * j) + 0.1;
                norm += x[j] * x[j];
            }
            for (int j = 0; j < t->d; j++) {
                if (norm > 0) x[j] /= sqrt(norm);
                z += x[j] * skald_normal(t->seed ^ 99, (uint64_t)j);
            }
            z += 0.3 * skald_normal(key ^ 3, 0);
            double y = skald_loss_is_binary(t->loss) ? (z > 0 ? 1 : -1) : z + (i % 50 == 0 ? 5 : 0);
            if (!t->sorted || (pass == 0) == (y > 0)) {
                fprintf(f, skald_loss_is_binary(t->loss) ? "%+.0f" : "%.6f", y);
                for (int j = 0; j < t->d; j++)
                    if (x[j] != 0) fprintf(f, " %d:%.6g", j + 1, x[j]);
                fprintf(f, "\n");
            }
            free(x);
        }
    fclose(f);
    return path;
}

/* F at w for the rows as read, in double, one row after the other. g (may be NULL): its smooth gradient. */
static double reference_objective(const skald_rows *r, const skald_objective *o, const double *w, double *g) {
    double loss = 0, reg = 0;
    uint32_t d = r->dim - (o->intercept ? 1 : 0);
    if (g) memset(g, 0, r->dim * sizeof *g);
    for (size_t i = 0; i < r->n; i++) {
        double z = 0;
        if (r->layout == SKALD_DENSE)
            for (uint32_t j = 0; j < r->dim; j++) z += (double)r->x[i * r->stride + j] * w[j];
        else
            for (uint64_t e = r->ptr[i]; e < r->ptr[i + 1]; e++) z += (double)r->val[e] * w[r->idx[e]];
        loss += r->s[i] * skald_loss_value(o->loss, o->huber_delta, z, r->y[i]);
        if (!g) continue;
        double c = r->s[i] * skald_loss_derivative(o->loss, o->huber_delta, z, r->y[i]) / (double)r->n;
        if (r->layout == SKALD_DENSE)
            for (uint32_t j = 0; j < r->dim; j++) g[j] += c * r->x[i * r->stride + j];
        else
            for (uint64_t e = r->ptr[i]; e < r->ptr[i + 1]; e++) g[r->idx[e]] += c * r->val[e];
    }
    for (uint32_t j = 0; j < d; j++) {
        reg += 0.5 * o->l2 * w[j] * w[j] + o->l1 * fabs(w[j]) + o->nonconvex * skald_bounded_value(w[j]);
        if (g) g[j] += skald_smooth_slope(o, w[j]);
    }
    return loss / (double)r->n + reg;
}

/* FISTA with restarts, run until it stands still: knows nothing of Skald but the rows. w: dim. */
__attribute__((unused)) static double reference_solve(const skald_rows *r, const skald_objective *o, double *w) {
    uint32_t dim = r->dim, d = dim - (o->intercept ? 1 : 0);
    double *v = calloc(dim, sizeof *v), *g = calloc(dim, sizeof *g), *next = calloc(dim, sizeof *next);
    double largest = 0;
    for (size_t i = 0; i < r->n; i++) {
        double norm = 0;
        if (r->layout == SKALD_DENSE)
            for (uint32_t j = 0; j < dim; j++) norm += (double)r->x[i * r->stride + j] * r->x[i * r->stride + j];
        else
            for (uint64_t e = r->ptr[i]; e < r->ptr[i + 1]; e++) norm += (double)r->val[e] * r->val[e];
        if (r->s[i] * norm > largest) largest = r->s[i] * norm;
    }
    double L = skald_loss_curvature(o->loss) * largest + o->l2, t = 1;
    memset(w, 0, dim * sizeof *w);
    double f = reference_objective(r, o, w, NULL);
    int still = 0;
    for (int k = 0; k < 200000 && still < 30; k++) {
        reference_objective(r, o, v, g);
        for (uint32_t j = 0; j < dim; j++) {
            double x = v[j] - g[j] / L;
            next[j] = j < d ? skald_soft(x, o->l1 / L) : x;
        }
        double fn = reference_objective(r, o, next, NULL);
        if (fn > f) { /* restart */
            t = 1;
            memcpy(v, w, dim * sizeof *v);
            still++;
            continue;
        }
        still = f - fn < 1e-15 * fabs(f) ? still + 1 : 0;
        double tn = 0.5 * (1 + sqrt(1 + 4 * t * t));
        for (uint32_t j = 0; j < dim; j++) v[j] = next[j] + (t - 1) / tn * (next[j] - w[j]);
        memcpy(w, next, dim * sizeof *w);
        f = fn;
        t = tn;
    }
    free(v);
    free(g);
    free(next);
    return f;
}

typedef struct setup {
    skald_data_options data;
    skald_objective objective;
    skald_train_options train;
    uint32_t workers; /* 0: local crew */
    int threads;
    const skald_net_ops *net;
    const char *address;
    int64_t repeat_ns, overdue_ns;
    int pace_ms[16], pace_all_ms;
    const char *straggler;
    uint64_t version_budget;
    const char *isa;
    const skald_collective_ops *collective; /* of the workers */
    bool cards;                             /* worker k is on card k, and has that card's collective */
    const atomic_int *stop_flag;
    const char *record; /* with workers: keep a record here */
} setup;

static setup setup_default(const char *path) {
    setup s = {.data = {.path = path, .source = {.index_base = -1, .threads = 1}, .seed = 1},
               .objective = {.loss = SKALD_LOGISTIC, .l2 = 1e-3, .huber_delta = 1, .classes = 1},
               .train = {.algo = SKALD_SAGA, .local = -1, .step_decay = -1, .max_passes = 200, .target_gap = 1e-9},
               .threads = 1,
               .repeat_ns = 0};
    return s;
}

typedef struct worker_thread {
    pthread_t thread;
    const skald_net_ops *net;
    skald_worker_options options;
    char name[16], device[16];
    skald_status status;
    char error[600];
} worker_thread;

static void *worker_main(void *argument) {
    worker_thread *w = argument;
    w->status = skald_worker_run(w->net, &w->options, NULL);
    snprintf(w->error, sizeof w->error, "%s", skald_error());
    return NULL;
}

static void harness_merged(void *user, const skald_merged *m) {
    skald_recorder_merged(user, m);
}

/* Trains in between a recorder. */
static skald_status train_on_record(const setup *s, skald_crew *crew, skald_clock *clock, skald_outcome *out) {
    skald_recorder *r = NULL;
    const skald_recording what = {.path = s->record, .command = "train", .data = s->data.path, .floats = true};
    TRY(skald_recorder_open(&what, crew, clock, NULL, &r));
    const skald_observer observer = {.user = r, .merged = harness_merged};
    skald_status st = skald_train(skald_recorder_crew(r), skald_solver_of(s->train.algo), &s->train,
                                  skald_recorder_clock(r), &observer, skald_recorder_stop(r), out);
    char error[600];
    snprintf(error, sizeof error, "%s", skald_error());
    assert_int_equal(skald_recorder_close(r, out, st == SKALD_OK ? NULL : error), SKALD_OK);
    return st == SKALD_OK ? st : skald_fail(st, "%s", error);
}

/* Called with the crew just before training; may be NULL. */
typedef void (*with_crew)(skald_crew *crew, void *user);

/* Trains; fills outcome; problem facts into *problem_n when asked. */
static skald_status train_any(const setup *s, skald_solver solver, skald_outcome *out, const skald_observer *observer,
                              with_crew hook, void *user) {
    if (s->workers == 0) {
        skald_compute_options compute = {.device = "cpu", .threads = s->threads, .isa = s->isa};
        skald_crew *crew = NULL;
        memset(out, 0, sizeof *out);
        TRY(skald_crew_local_open(&s->data, &s->objective, &compute, &crew));
        if (hook) hook(crew, user);
        skald_status st = skald_train(crew, solver, &s->train, skald_clock_system(), observer, NULL, out);
        crew->ops->destroy(crew, SKALD_OK, "done");
        return st;
    }
    skald_coordinator_options o = {.address = s->address,
                                   .workers = s->workers,
                                   .wait_ns = 20 * SKALD_NS_PER_S,
                                   .data = s->data,
                                   .objective = s->objective,
                                   .clock = skald_clock_system(),
                                   .version_budget = s->version_budget,
                                   .repeat_ns = s->repeat_ns,
                                   .overdue_ns = s->overdue_ns,
                                   .straggler = s->straggler,
                                   .pace_ms = s->pace_all_ms};
    skald_coordinator *c = NULL;
    int port = 0;
    memset(out, 0, sizeof *out);
    TRY(skald_coordinator_listen(s->net, &o, &c, &port));
    char address[64];
    if (port)
        snprintf(address, sizeof address, "127.0.0.1:%d", port);
    else
        snprintf(address, sizeof address, "%s", s->address);
    worker_thread workers[16];
    memset(workers, 0, sizeof workers);
    for (uint32_t k = 0; k < s->workers; k++) {
        worker_thread *w = &workers[k];
        w->net = s->net;
        snprintf(w->name, sizeof w->name, "w%u", k);
        w->options = (skald_worker_options){.address = address,
                                            .name = w->name,
                                            .compute = {.device = "cpu", .threads = s->threads, .isa = s->isa},
                                            .wait_ns = 10 * SKALD_NS_PER_S,
                                            .repeat_ns = s->repeat_ns,
                                            .collective = s->collective,
                                            .pace_ms = s->pace_ms[k]};
        if (s->cards) {
            snprintf(w->device, sizeof w->device, "cuda:%u", k);
            w->options.compute.device = w->device;
            w->options.collective = skald_compute_collective(&w->options.compute, &w->options.collective_device);
        }
        assert_int_equal(pthread_create(&w->thread, NULL, worker_main, w), 0);
    }
    skald_crew *crew = NULL;
    skald_status st = skald_coordinator_gather(c, NULL, &crew);
    if (st == SKALD_OK && hook) hook(crew, user);
    if (st == SKALD_OK && s->record)
        st = train_on_record(s, crew, skald_clock_system(), out);
    else if (st == SKALD_OK)
        st = skald_train(crew, solver, &s->train, skald_clock_system(), observer, s->stop_flag, out);
    char reason[600];
    snprintf(reason, sizeof reason, "%s", skald_error());
    skald_coordinator_close(c, st, reason);
    for (uint32_t k = 0; k < s->workers; k++) pthread_join(workers[k].thread, NULL);
    return st == SKALD_OK ? st : skald_fail(st, "%s", reason);
}

static skald_status train_with(const setup *s, skald_outcome *out, const skald_observer *observer, with_crew hook,
                               void *user) {
    return train_any(s, skald_solver_of(s->train.algo), out, observer, hook, user);
}

/* With a solver of the test's own. */
__attribute__((unused)) static skald_status train_solver(const setup *s, skald_solver solver, skald_outcome *out,
                                                         with_crew hook) {
    return train_any(s, solver, out, NULL, hook, NULL);
}

__attribute__((unused)) static skald_status train(const setup *s, skald_outcome *out) {
    return train_with(s, out, NULL, NULL, NULL);
}

/* The rows that the setup trains on, all of them in file order, weights rescaled. */
__attribute__((unused)) static void read_all(const setup *s, skald_rows *rows) {
    skald_source *source = NULL;
    skald_manifest m = {0};
    skald_problem p;
    assert_int_equal(skald_source_open(s->data.path, &s->data.source, &source), SKALD_OK);
    assert_int_equal(skald_source_scan(source, 0, skald_source_parts(source), &m), SKALD_OK);
    assert_int_equal(skald_manifest_finish(&m), SKALD_OK);
    assert_int_equal(skald_problem_make(&m, &s->data, &s->objective, 1, 1, &p), SKALD_OK);
    assert_int_equal(skald_source_read(source, m.blocks, m.block_count, &p.transform, rows, NULL), SKALD_OK);
    double sum = 0;
    for (size_t i = 0; i < rows->n; i++) sum += rows->s[i];
    skald_rows_rescale(rows, (double)rows->n / sum);
    skald_problem_free(&p);
    skald_manifest_free(&m);
    skald_source_close(source);
}

__attribute__((unused)) static void must_train(const setup *s, skald_outcome *out) {
    skald_status st = train(s, out);
    if (st != SKALD_OK) print_message("%s\n", skald_error());
    assert_int_equal(st, SKALD_OK);
}

/* F(outcome) - F_ref relative to F_ref, both by the reference's own arithmetic. */
__attribute__((unused)) static double excess(const setup *s, const skald_outcome *out) {
    skald_rows rows = {0};
    read_all(s, &rows);
    skald_objective o = s->objective;
    o.intercept = s->data.intercept;
    double *w = calloc(rows.dim, sizeof *w);
    double best = reference_solve(&rows, &o, w), got = reference_objective(&rows, &o, out->w, NULL);
    free(w);
    skald_rows_free(&rows);
    return (got - best) / fabs(best);
}

typedef struct replayed {
    skald_status st;
    bool same;
    char error[1024];
    skald_outcome out;
} replayed;

__attribute__((unused)) static void harness_replayed(void *user, const skald_merged *m) {
    skald_replay_merged(user, m);
}

/* Does the run recorded in s->record again. */
__attribute__((unused)) static replayed replay(const setup *s, const skald_replay_options *options) {
    replayed x = {0};
    skald_record record;
    skald_replay *r = NULL;
    x.st = skald_record_open(s->record, &record);
    if (x.st == SKALD_OK) {
        x.st = skald_replay_open(&record, &s->data, &s->objective, options, &r);
        const skald_observer observer = {.user = r, .merged = harness_replayed};
        if (x.st == SKALD_OK)
            x.st = skald_train(skald_replay_crew(r), skald_solver_of(s->train.algo), &s->train, skald_replay_clock(r),
                               &observer, skald_replay_stop(r), &x.out);
        if (x.st == SKALD_OK) x.st = skald_replay_finish(r, &x.out, &x.same);
        snprintf(x.error, sizeof x.error, "%s", skald_error());
        skald_replay_close(r);
        skald_record_close(&record);
    } else {
        snprintf(x.error, sizeof x.error, "%s", skald_error());
    }
    return x;
}

#endif
