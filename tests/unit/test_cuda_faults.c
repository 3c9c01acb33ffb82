/* The CUDA backend when the runtime fails: every call of every operation made to fail once. Each failure is a clean
 * error or none at all; the history is as before it or as after the operation, as the status says; the same operation
 * then succeeds with the same result; nothing is left behind. On the emulated device only. */
#include <dlfcn.h>

#include "compute_suite.h"

#ifdef SKALD_EMULATED_PLUGIN

enum { N = 150, DIM = 21, CLASSES = 3 };

static struct {
    void (*fail_at)(long n);
    long (*calls)(void);
    int (*live)(void);
} emulated;

static void *symbol(void *library, const char *name) {
    void *found = dlsym(library, name);
    if (!found) fail_msg("the emulated runtime has no %s", name);
    return found;
}

static int setup(void **state) {
    setenv("SKALD_CUDA_PLUGIN", SKALD_EMULATED_PLUGIN, 1);
    setenv("SKALD_CUBLAS", SKALD_EMULATED_CUBLAS, 1);
    void *library = dlopen(SKALD_EMULATED_RUNTIME, RTLD_NOW); /* the one that the plugin will get */
    if (!library) fail_msg("%s", dlerror());
    *(void **)&emulated.fail_at = symbol(library, "skald_emulated_fail_at");
    *(void **)&emulated.calls = symbol(library, "skald_emulated_calls");
    *(void **)&emulated.live = symbol(library, "skald_emulated_live");
    return 0;
}

typedef struct output {
    double v[2][DIM * CLASSES];
    skald_sums sums[2];
    float alpha[N * CLASSES];
} output;

typedef struct subject {
    skald_compute *c;
    skald_shard *shard;
    uint32_t rows[N];
    double w[DIM * CLASSES], u[DIM * CLASSES];
    float before[N * CLASSES];
    skald_vectors v; /* on the card: card[0] = w, card[1] = u, and room for results */
    double *card[4];
} subject;

typedef skald_status operation(subject *s, output *out);

static skald_batch some(const subject *s) {
    return (skald_batch){s->rows, N - 7};
}
static skald_status gradient(subject *s, output *out) {
    const skald_batch b = some(s);
    return s->c->ops->gradient(s->c, s->shard, &b, s->w, out->v[0], out->sums);
}
static skald_status saga(subject *s, output *out) {
    const skald_batch b = some(s);
    return s->c->ops->saga(s->c, s->shard, &b, s->w, out->v[0], out->sums);
}
static skald_status difference(subject *s, output *out) {
    const skald_batch b = some(s);
    return s->c->ops->difference(s->c, s->shard, &b, s->w, s->u, out->v[0], out->sums);
}
static skald_status local_saga(subject *s, output *out) { /* two graphs and some steps */
    const skald_batch b = some(s);
    const skald_local l = {true, 1, 0.01, N};
    return s->c->ops->local(s->c, s->shard, &b, &l, s->w, s->u, out->v[0], out->v[1], out->sums);
}
static skald_status local_sgd(subject *s, output *out) { /* no graphs */
    const skald_batch b = some(s);
    const skald_local l = {false, 16, 0.01, N};
    return s->c->ops->local(s->c, s->shard, &b, &l, s->w, NULL, out->v[0], NULL, out->sums);
}
static skald_status objective(subject *s, output *out) {
    const double *points[2] = {s->w, s->u};
    double *g[2] = {out->v[0], out->v[1]};
    return s->c->ops->objective(s->c, s->shard, 2, points, g, true, out->sums);
}
static skald_status shift(subject *s, output *out) {
    const double *points[1] = {s->w}, delta[1] = {0.5};
    double *none[1] = {NULL};
    TRY(s->c->ops->objective(s->c, s->shard, 1, points, none, true, out->sums));
    if (s->c->objective.loss == SKALD_SOFTMAX) {
        const double *moved[1] = {s->u};
        double *moments[1] = {out->v[0]};
        return s->c->ops->shift_classes(s->c, s->shard, 1, moved, moments, out->sums);
    }
    return s->c->ops->shift(s->c, s->shard, 1, delta, out->sums);
}
static skald_status anchor(subject *s, output *out) {
    return s->c->ops->anchor(s->c, s->shard, out->v[0]);
}
static skald_status curvature(subject *s, output *out) {
    return s->c->ops->curvature(s->c, s->shard, N, s->w, out->v[0]);
}
static skald_status rows(subject *s, output *out) {
    const skald_batch b = some(s);
    skald_rows r;
    const skald_status st = s->c->ops->rows(s->c, s->shard, &b, &r);
    for (size_t k = 0; st == SKALD_OK && k < r.n; k++) {
        const size_t stride = r.stride;
        out->alpha[k] = (float)(r.y[k] + r.s[k]);
        for (size_t j = 0; r.x && j < DIM; j++) out->v[0][j] += (double)r.x[k * stride + j];
        for (uint64_t e = r.ptr ? r.ptr[k] : 0; r.ptr && e < r.ptr[k + 1]; e++) out->v[0][r.idx[e]] += (double)r.val[e];
    }
    if (st == SKALD_OK) skald_rows_free(&r);
    return st;
}
static skald_status history_get(subject *s, output *out) {
    float alpha[N * CLASSES];
    return s->c->ops->history_get(s->c, s->shard, alpha);
}
static skald_status history_set(subject *s, output *out) {
    float alpha[N * CLASSES];
    for (size_t i = 0; i < N * CLASSES; i++) alpha[i] = 0.5f;
    return s->c->ops->history_set(s->c, s->shard, alpha);
}

/* The same on vectors that stay on the card. */
static skald_status saga_there(subject *s, output *out) {
    const skald_batch b = some(s);
    return s->c->ops->saga(s->c, s->shard, &b, s->card[0], s->card[2], out->sums);
}
static skald_status local_there(subject *s, output *out) {
    const skald_batch b = some(s);
    const skald_local l = {true, 1, 0.01, N};
    return s->c->ops->local(s->c, s->shard, &b, &l, s->card[0], s->card[1], s->card[2], s->card[3], out->sums);
}

static const struct {
    const char *name;
    operation *run;
} operations[] = {{"gradient", gradient},
                  {"saga", saga},
                  {"difference", difference},
                  {"local saga", local_saga},
                  {"local sgd", local_sgd},
                  {"objective", objective},
                  {"objective and shift", shift},
                  {"anchor", anchor},
                  {"curvature", curvature},
                  {"rows", rows},
                  {"history_get", history_get},
                  {"history_set", history_set},
                  {"saga, vectors there", saga_there},
                  {"local saga, vectors there", local_there}};

static const shape shape_of[2] = {{SKALD_DENSE, N, DIM, true, 1, 3, 0}, {SKALD_CSR, N, DIM, true, 1, 3, 0}};
static const skald_objective the_objective[2] = {
    {.loss = SKALD_LOGISTIC, .huber_delta = 1, .l2 = 0.01, .intercept = true, .classes = 1},
    {.loss = SKALD_SOFTMAX, .huber_delta = 1, .l2 = 0.01, .intercept = true, .classes = CLASSES}};
static const skald_compute_options the_options = {.device = "cuda", .deterministic = true};

/* kind: dense and sparse rows, then the same with several classes. */
enum { KINDS = 4 };
static skald_status begin(subject *s, int kind) {
    skald_rows r = make_rows(&(compute_suite){0}, &shape_of[kind % 2], &the_objective[kind / 2]);
    s->c = NULL;
    s->shard = NULL;
    memset(s->card, 0, sizeof s->card);
    skald_status st = skald_compute_open(&the_options, &the_objective[kind / 2], DIM, &s->c);
    if (st == SKALD_OK) st = s->c->ops->load(s->c, &r, &s->shard);
    skald_rows_free(&r); /* load has, if it was called */
    return st;
}

static void end(subject *s) {
    for (int k = 0; k < 4; k++)
        if (s->card[k]) s->v.ops->destroy(&s->v, s->card[k]);
    if (s->shard) s->c->ops->unload(s->c, s->shard);
    if (s->c) s->c->ops->destroy(s->c);
}

static void fill(subject *s) {
    for (size_t i = 0; i < N; i++) {
        s->rows[i] = (uint32_t)skald_permute(4, N, i);
    }
    for (size_t i = 0; i < N * CLASSES; i++) s->before[i] = 0.25f * (float)skald_normal(5, i);
    for (size_t j = 0; j < DIM * CLASSES; j++) {
        s->w[j] = 0.1 * skald_normal(1, j);
        s->u[j] = 0.1 * skald_normal(2, j);
    }
    OK(s->c->ops->history_set(s->c, s->shard, s->before));
}

static void fill_card(subject *s) {
    OK(s->c->ops->vectors(s->c, &s->v));
    for (int k = 0; k < 4; k++) OK(s->v.ops->create(&s->v, &s->card[k]));
    OK(s->v.ops->write(&s->v, s->card[0], s->w));
    OK(s->v.ops->write(&s->v, s->card[1], s->u));
}

static bool is_there(size_t k) {
    return operations[k].run == saga_there || operations[k].run == local_there;
}

static void take_there(subject *s, size_t k, output *out) {
    for (int i = 0; is_there(k) && i < 2; i++) OK(s->v.ops->read(&s->v, out->v[i], s->card[2 + i]));
}

static void history_is(subject *s, const float *want, const char *name, long n) {
    float alpha[N * CLASSES];
    OK(s->c->ops->history_get(s->c, s->shard, alpha));
    for (size_t i = 0; i < N * skald_objective_classes(&s->c->objective); i++)
        if (memcmp(&alpha[i], &want[i], sizeof alpha[i]) != 0)
            fail_msg("%s, call %ld: the history of row %zu is %.9g, not %.9g (before: %.9g)", name, n, i,
                     (double)alpha[i], (double)want[i], (double)s->before[i]);
}

static void clean_error(skald_status st, const char *name, long n) {
    const bool known = st == SKALD_EIO || st == SKALD_ENOMEM || st == SKALD_EUNSUPPORTED;
    if (!known || (!strstr(skald_error(), "cudaError") && !strstr(skald_error(), "cuBLAS")) ||
        strlen(skald_error()) < 30)
        fail_msg("%s, call %ld: status %d, '%s'", name, n, (int)st, skald_error());
}

/* What failed may have been a release: then there was no error, and that one thing is still there. */
static void nothing_left(skald_status st, int *live, const char *name, long n) {
    const int now = emulated.live(), allowed = st == SKALD_OK ? 1 : 0;
    if (now < *live || now > *live + allowed) fail_msg("%s, call %ld: %d left behind", name, n, now - *live);
    *live = now;
}

/* Of softmax's calls, which are many, and of all under a sanitizer: one in so many fails; SKALD_EVERY_CALL: each. */
static long every(int kind) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    const long few = kind / 2 ? 11 : 5;
#else
    const long few = kind / 2 ? 3 : 1;
#endif
    return getenv("SKALD_EVERY_CALL") ? 1 : few;
}

static void test_operations(void **state) {
    for (int kind = 0; kind < KINDS; kind++)
        for (size_t k = 0; k < SKALD_ARRAY_LENGTH(operations); k++) {
            const char *name = operations[k].name;
            if (is_there(k) && kind != (operations[k].run == local_there)) continue; /* takes long enough */
            subject s;
            output want = {0}, got;
            OK(begin(&s, kind));
            fill(&s);
            if (is_there(k)) fill_card(&s);
            const long first = emulated.calls();
            OK(operations[k].run(&s, &want));
            const long calls = emulated.calls() - first;
            take_there(&s, k, &want);
            OK(s.c->ops->history_get(s.c, s.shard, want.alpha));
            end(&s);
            assert_true(calls > 0);
            int live = emulated.live();
            long failures = 0;
            for (long n = 1 + (long)k % every(kind); n <= calls; n += every(kind)) {
                OK(begin(&s, kind));
                fill(&s);
                if (is_there(k)) fill_card(&s);
                memset(&got, 0, sizeof got);
                emulated.fail_at(n);
                skald_status st = operations[k].run(&s, &got);
                emulated.fail_at(0);
                if (st != SKALD_OK) {
                    clean_error(st, name, n);
                    failures++;
                    /* several classes: a copy that was waited for in vain may have been made */
                    if (kind < 2 || operations[k].run != history_set) history_is(&s, s.before, name, n);
                    memset(&got, 0, sizeof got);
                    OK(operations[k].run(&s, &got));
                }
                history_is(&s, want.alpha, name, n);
                take_there(&s, k, &got);
                memcpy(got.alpha, want.alpha, sizeof got.alpha);
                if (memcmp(&got, &want, sizeof want) != 0) fail_msg("%s, call %ld: another result", name, n);
                end(&s);
                nothing_left(st, &live, name, n);
            }
            assert_true(failures >= calls / 2 / every(kind)); /* calls did fail */
        }
}

/* The second local task of a kind allocates nothing and makes fewer calls than it has steps: those are in graphs. */
static void test_steady(void **state) {
    for (int kind = 0; kind < KINDS; kind++) {
        subject s;
        output out;
        OK(begin(&s, kind));
        fill(&s);
        OK(local_saga(&s, &out));
        const int live = emulated.live();
        const long first = emulated.calls();
        OK(local_saga(&s, &out));
        assert_int_equal(emulated.live(), live);
        assert_in_range(emulated.calls() - first, 1, N - 8);
        end(&s);
    }
}

static void test_loading(void **state) {
    for (int kind = 0; kind < KINDS; kind++) {
        subject s;
        int live = emulated.live();
        const long first = emulated.calls();
        OK(begin(&s, kind));
        const long calls = emulated.calls() - first;
        end(&s);
        for (long n = 1; n <= calls; n++) {
            emulated.fail_at(n);
            skald_status st = begin(&s, kind);
            emulated.fail_at(0);
            if (st != SKALD_OK) clean_error(st, "load", n);
            if (st != SKALD_OK) assert_null(s.shard);
            end(&s);
            nothing_left(st, &live, "load", n);
        }
    }
}

/* All verbs once; what came out. */
static skald_status verbs(subject *s, double *out) {
    const skald_regulariser r = {0.1, 0.02, true, 0, 1};
    skald_vectors *v = &s->v;
    TRY(s->c->ops->vectors(s->c, v));
    for (int k = 0; k < 4; k++) TRY(v->ops->create(v, &s->card[k]));
    double **x = s->card;
    TRY(v->ops->write(v, x[0], s->w));
    TRY(v->ops->write(v, x[1], s->u));
    v->ops->copy(v, x[2], x[1]);
    v->ops->saga_update(v, x[0], x[1], x[2], 0.5, x[2], 0.1, N, &r);
    v->ops->sgd_update(v, x[0], x[2], 0.5, 0.1, &r);
    v->ops->local_merge(v, x[0], x[1], x[2], 0.1, x[2], N);
    v->ops->proximal_step(v, x[0], x[1], 0.1, &r);
    v->ops->zero(v, x[3]);
    v->ops->axpy(v, x[3], 2, x[0]);
    v->ops->combine(v, x[3], 2, x[0], 1, x[3]);
    out[DIM] = v->ops->norm2(v, x[3]);
    out[DIM + 1] = v->ops->penalty(v, x[3], &r);
    out[DIM + 2] = v->ops->stationarity(v, x[3], x[1], 0.1, &r);
    TRY(v->ops->status(v));
    return v->ops->read(v, out, x[3]);
}

/* A verb that fails is known to have, from then on; or it made no difference. */
static void test_verbs(void **state) {
    subject s;
    double want[DIM + 3], got[DIM + 3];
    OK(begin(&s, SKALD_DENSE));
    fill(&s);
    const long first = emulated.calls();
    OK(verbs(&s, want));
    const long calls = emulated.calls() - first;
    end(&s);
    int live = emulated.live();
    long failures = 0;
    for (long n = 1; n <= calls; n++) {
        OK(begin(&s, SKALD_DENSE));
        fill(&s);
        emulated.fail_at(n);
        skald_status st = verbs(&s, got);
        emulated.fail_at(0);
        if (st == SKALD_OK) {
            assert_memory_equal(got, want, sizeof want);
        } else {
            clean_error(st, "verbs", n);
            failures++;
        }
        end(&s);
        nothing_left(st, &live, "verbs", n);
    }
    assert_true(failures >= calls / 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_loading), cmocka_unit_test(test_steady),
                                       cmocka_unit_test(test_operations), cmocka_unit_test(test_verbs)};
    return cmocka_run_group_tests(tests, setup, NULL);
}

#else
int main(void) {
    return 0;
}
#endif
