/* Local steps against a naive dense loop in double; one captured graph for several tasks; a task that fails. */
#include "problem.h"

typedef struct task {
    bool saga, l1, deterministic, listed;
    uint32_t step_rows;
    size_t count;
    double eta, l2, l1_value;
} task;

/* What a task must give; the formulas are skald_local's in include/skald/compute.h. */
typedef struct expected {
    double *dw, *g;
    float *alpha;
    skald_gpu_sums sums;
} expected;

static double soft(double v, double t) {
    return v > t ? v - t : v < -t ? v + t : 0;
}

#define INTERCEPT_STEP 1.7

static expected expect(const problem *p, const task *t, const double *w0, const double *abar, const uint32_t *list) {
    const size_t dim = p->dim;
    expected e = {host_take(dim * sizeof(double)),
                  host_take(dim * sizeof(double)),
                  host_take(p->n * sizeof(float)),
                  {0, 0, 0, 0, 0, 0, 0, 0}};
    double *w = host_take(dim * sizeof *w), *c = host_take(dim * sizeof *c), *h = host_take(dim * sizeof *h);
    memcpy(w, w0, dim * sizeof *w);
    memcpy(e.alpha, p->alpha, p->n * sizeof(float));
    for (size_t from = 0; from < t->count; from += t->step_rows) {
        const size_t n = t->count - from < t->step_rows ? t->count - from : t->step_rows;
        memset(c, 0, dim * sizeof *c);
        memset(h, 0, dim * sizeof *h);
        for (size_t k = from; k < from + n; k++) {
            const size_t i = list ? list[k] : k;
            const double *x = p->x + i * dim, y = (double)p->y[i], s = (double)p->s[i];
            const double old = t->saga ? (double)p->alpha[i] : 0;
            const double z = margin(p, i, w, NULL), z0 = margin(p, i, w0, NULL);
            double norm2 = 0;
            for (size_t j = 0; j < dim; j++) norm2 += x[j] * x[j];
            const double first = loss_first(p->loss, z, y), e_i = first - old, start = loss_first(p->loss, z0, y);
            const double moved = t->eta / (double)n * s * norm2 * e_i;
            double slope = loss_second(p->loss, z, y);
            if (fabs(moved) > 0.25) slope = (first - loss_first(p->loss, z - moved, y)) / moved;
            const double own = s * norm2 * slope, c_i = e_i / (1 + t->eta / (double)n * own);
            for (size_t j = 0; j < dim; j++) {
                c[j] += s * c_i * x[j];
                h[j] += s * (start - old) * x[j];
            }
            if (t->saga) e.alpha[i] = (float)start;
            e.sums.loss += s * loss_value(p->loss, t->saga ? z0 : z, y);
            e.sums.k += own;
            e.sums.k2 += own * own;
        }
        for (size_t j = 0; j < dim; j++) {
            const bool last = p->intercept && j == dim - 1;
            double step = c[j] / (double)n + (last ? 0 : t->l2 * w[j]);
            if (t->saga) step += abar[j] + e.g[j] / (double)p->n;
            w[j] = soft(w[j] - (last ? INTERCEPT_STEP : 1) * t->eta * step, last ? 0 : t->eta * t->l1_value);
            e.g[j] += h[j];
        }
    }
    for (size_t j = 0; j < dim; j++) e.dw[j] = w[j] - w0[j];
    return e;
}

static double largest(const double *v, size_t n) {
    double most = 0;
    for (size_t j = 0; j < n; j++) most = fmax(most, fabs(v[j]));
    return most;
}

static void compare(const problem *p, const task *t, const skald_gpu_local *local, const expected *e) {
    const size_t dim = p->dim;
    double *found = host_take(dim * sizeof *found);
    float *alpha = device_take(p->n * sizeof(float)), *history = host_take(p->n * sizeof(float));
    skald_gpu_sums sums;
    /* margins are f32 dots: errors of 1e-6 of the step's size, passed on from step to step */
    const double dw_size = largest(e->dw, dim) + 1e-12, g_size = largest(e->g, dim) + 1e-12;
    to_host(found, local->dw, dim * sizeof *found);
    for (size_t j = 0; j < dim; j++)
        CHECK(fabs(found[j] - e->dw[j]) <= 2e-5 * dw_size, "dw[%zu] is %.9g, not %.9g of %g", j, found[j], e->dw[j],
              dw_size);
    if (t->saga) {
        to_host(found, local->g, dim * sizeof *found);
        for (size_t j = 0; j < dim; j++)
            CHECK(fabs(found[j] - e->g[j]) <= 5e-6 * g_size, "g[%zu] is %.9g, not %.9g of %g", j, found[j], e->g[j],
                  g_size);
    }
    to_host(&sums, local->sums, sizeof sums);
    CHECK(sums.bad == 0 && sums.rows == (double)t->count, "%g rows, %g bad", sums.rows, sums.bad);
    CHECK(fabs(sums.loss - e->sums.loss) <= 2e-5 * e->sums.loss, "loss %.9g, not %.9g", sums.loss, e->sums.loss);
    if (p->loss == SKALD_SQUARED || p->loss == SKALD_LOGISTIC) { /* else kappa jumps */
        CHECK(fabs(sums.k - e->sums.k) <= 2e-5 * e->sums.k, "k %.9g, not %.9g", sums.k, e->sums.k);
        CHECK(fabs(sums.k2 - e->sums.k2) <= 2e-5 * e->sums.k2, "k2 %.9g, not %.9g", sums.k2, e->sums.k2);
    }
    CUDA(skald_gpu_history_get(p->rows.record, p->n, alpha, check_stream));
    to_host(history, alpha, p->n * sizeof(float));
    for (size_t i = 0; i < p->n; i++)
        CHECK(fabsf(history[i] - e->alpha[i]) <= (e->alpha[i] == p->alpha[i] ? 0 : 1e-5f * (1 + fabsf(e->alpha[i]))),
              "alpha[%zu] is %.9g, not %.9g", i, (double)history[i], (double)e->alpha[i]);
}

typedef struct device_task {
    skald_gpu_local local;
    skald_gpu_local_settings *settings;
    uint32_t *list;
    double *w, *abar;
    void *workspace;
    cudaGraphExec_t graph;
} device_task;

static uint32_t steps_of(const task *t, uint64_t most) {
    return (uint32_t)((most + t->step_rows - 1) / t->step_rows);
}

/* A graph of a whole task of at most `most` rows. */
static void prepare(const problem *p, const task *t, uint64_t most, device_task *d) {
    const size_t bytes = p->dim * sizeof(double);
    memset(d, 0, sizeof *d);
    d->settings = device_take(sizeof *d->settings);
    d->list = device_take(most * sizeof(uint32_t));
    d->w = device_take(bytes);
    d->abar = device_take(bytes);
    d->local = (skald_gpu_local){.loss = p->loss,
                                 .huber_delta = HUBER_DELTA,
                                 .saga = t->saga,
                                 .intercept = p->intercept,
                                 .intercept_step = INTERCEPT_STEP,
                                 .l1 = t->l1,
                                 .deterministic = t->deterministic,
                                 .rows = &p->rows,
                                 .list = t->listed ? d->list : NULL,
                                 .most = most,
                                 .step_rows = t->step_rows,
                                 .settings = d->settings,
                                 .w = d->w,
                                 .abar = d->abar,
                                 .dw = device_take(bytes),
                                 .g = device_take(bytes),
                                 .sums = device_take(sizeof(skald_gpu_sums))};
    d->workspace = device_take(skald_gpu_local_workspace(&d->local));
    cudaGraph_t graph;
    CUDA(cudaStreamSynchronize(check_stream));
    CUDA(cudaStreamBeginCapture(check_stream, cudaStreamCaptureModeThreadLocal));
    CUDA(skald_gpu_local_begin(&d->local, d->workspace, check_stream));
    CUDA(skald_gpu_local_steps(&d->local, d->workspace, 0, 1, check_stream));
    CUDA(skald_gpu_local_steps(&d->local, d->workspace, 1, steps_of(t, most) - 1, check_stream));
    CUDA(skald_gpu_local_end(&d->local, d->workspace, check_stream));
    CUDA(cudaStreamEndCapture(check_stream, &graph));
    CUDA(cudaGraphInstantiate(&d->graph, graph, 0));
    CUDA(cudaGraphDestroy(graph));
}

static void run_task(const problem *p, const task *t, device_task *d, const double *w, const double *abar,
                     const uint32_t *list) {
    skald_gpu_local_settings settings;
    skald_gpu_local_set(&settings, t->eta, (double)p->n, t->l2, t->l1_value, t->count);
    to_device(d->settings, &settings, sizeof settings);
    to_device(d->list, list, t->count * sizeof *list);
    to_device(d->w, w, p->dim * sizeof *w);
    to_device(d->abar, abar, p->dim * sizeof *abar);
    CUDA(cudaGraphLaunch(d->graph, check_stream));
}

/* The task on a graph made for more rows, then another on the same graph, then the first again: same bits. */
static void test_task(const problem *p, task t) {
    const check_mark before = mark();
    device_task d;
    const size_t bytes = p->dim * sizeof(double);
    double *w = problem_model(p, 1), *abar = problem_model(p, 0.01), *bits[2] = {host_take(bytes), host_take(bytes)};
    uint32_t *list = problem_list(p, t.count);
    prepare(p, &t, t.count + 3, &d);
    CASE("%s %u columns, loss %s, %s, b %u, %zu rows, eta %g, l2 %g, l1 %g%s",
         p->rows.layout == SKALD_CSR ? "csr" : "dense", p->dim, skald_loss_name(p->loss), t.saga ? "saga" : "sgd",
         t.step_rows, t.count, t.eta, t.l2, t.l1_value, t.deterministic ? ", deterministic" : "");
    for (int turn = 0; turn < 3; turn++) {
        task now = t;
        if (turn == 1) now.eta /= 3, now.count = t.count / 2;
        problem_history(p);
        run_task(p, &now, &d, w, abar, list);
        const expected e = expect(p, &now, w, abar, t.listed ? list : NULL);
        compare(p, &now, &d.local, &e);
        if (turn != 1) to_host(bits[turn / 2], d.local.dw, bytes);
    }
    if (p->rows.layout == SKALD_DENSE || t.deterministic || t.l1)
        CHECK(memcmp(bits[0], bits[1], bytes) == 0, "bits differ between two runs");

    /* a model that is lost: bad, the history as it was */
    skald_gpu_sums sums;
    float *alpha = device_take(p->n * sizeof(float)), *history = host_take(p->n * sizeof(float));
    problem_history(p);
    for (uint32_t j = 0; j < p->dim; j++) w[j] = NAN;
    run_task(p, &t, &d, w, abar, list);
    to_host(&sums, d.local.sums, sizeof sums);
    CUDA(skald_gpu_history_get(p->rows.record, p->n, alpha, check_stream));
    to_host(history, alpha, p->n * sizeof(float));
    CHECK(sums.bad > 0, "a model of NaN is not bad");
    CHECK(memcmp(history, p->alpha, p->n * sizeof(float)) == 0, "the history changed");
    CUDA(cudaGraphExecDestroy(d.graph));
    release(before);
}

static void test_rows(problem_options o) {
    const check_mark before = mark();
    problem p;
    CASE("%u columns", o.dim);
    problem_make(&o, &p);
    double most = 0, mean = 0;
    for (size_t i = 0; i < p.n; i++) {
        double norm2 = 0;
        for (size_t j = 0; j < p.dim; j++) norm2 += p.x[i * p.dim + j] * p.x[i * p.dim + j];
        most = fmax(most, norm2);
        mean += norm2 / (double)p.n;
    }
    const double eta = 0.3 / mean;
    const size_t all = p.n - 3;
    test_task(&p, (task){.saga = true, .listed = true, .step_rows = 4, .count = all, .eta = eta, .l2 = 0.01 / eta});
    if (o.dim < 1000) {
        test_task(&p, (task){.step_rows = 16, .listed = true, .count = all, .eta = 4 * eta});
        test_task(&p, (task){.saga = true, .step_rows = 1, .count = 20, .eta = eta, .l2 = 0.5 / eta});
        test_task(&p, (task){.saga = true,
                             .l1 = true,
                             .listed = true,
                             .step_rows = 7,
                             .count = all,
                             .eta = eta,
                             .l2 = 0.01 / eta,
                             .l1_value = 0.005 / eta});
    }
    if (o.layout == SKALD_CSR)
        test_task(&p, (task){.saga = true,
                             .deterministic = true,
                             .listed = true,
                             .step_rows = 5,
                             .count = all,
                             .eta = eta,
                             .l2 = 0.02 / eta});
    release(before);
}

/* `brief`: each kernel, for other orders of the emulated device, and TSan, which races its threads. */
int main(int argc, char **argv) {
    const int skip = check_begin();
    if (skip) return skip;
    if (argc > 1 && strcmp(argv[1], "brief") == 0) {
        for (int storage = SKALD_GPU_F32; storage <= SKALD_GPU_U8; storage++)
            for (int wide = 0; wide < 2; wide++) {
                problem_options o = {
                    .storage = (skald_gpu_storage)storage, .dim = wide ? 8224 : 784, .n = wide ? 11 : 26};
                o.unit = storage == SKALD_GPU_U8;
                o.loss = (skald_loss)((storage + wide) % 4);
                test_rows(o);
            }
        test_rows((problem_options){.layout = SKALD_CSR, .dim = 300, .n = 26, .density = 0.05, .intercept = true});
        return check_end("test_kernels_local brief");
    }
    for (int storage = SKALD_GPU_F32; storage <= SKALD_GPU_U8; storage++) {
        problem_options o = {.storage = (skald_gpu_storage)storage, .weights = true, .intercept = true, .n = 50};
        o.unit = storage == SKALD_GPU_U8;
        static const uint32_t dims[] = {3, 784, 2001, 8192};
        for (int k = 0; k < 4; k++) {
            o.dim = dims[k];
            o.n = o.dim > 1000 ? 14 : 40;
            o.loss = (skald_loss)((storage + k) % 4);
            test_rows(o);
        }
    }
    test_rows((problem_options){.dim = 1, .n = 40, .loss = SKALD_LOGISTIC});
    test_rows((problem_options){.dim = 60, .n = 300, .loss = SKALD_LOGISTIC, .intercept = true});
    test_rows((problem_options){.layout = SKALD_CSR, .dim = 1, .n = 40, .density = 0.7, .loss = SKALD_LOGISTIC});
    problem_options csr = {.layout = SKALD_CSR, .dim = 300, .n = 200, .density = 0.05, .intercept = true};
    csr.weights = true;
    csr.loss = SKALD_LOGISTIC;
    test_rows(csr);
    test_rows((problem_options){.layout = SKALD_CSR, .dim = 2001, .n = 60, .density = 0.02, .loss = SKALD_SQUARED});
    return check_end("test_kernels_local");
}
