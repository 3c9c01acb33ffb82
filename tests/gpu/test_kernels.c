/* Passes over rows: every kernel against a naive loop in double, all storages and losses, shapes with tails; dense
 * results repeat bit for bit; what is not finite leaves the history alone. */
#include "problem.h"

#define EPS 1.5e-6 /* of the sum of the terms' sizes: f32 products and chains, f32 alpha */

static const char *const kind_names[] = {"gradient", "saga", "difference", "objective", "anchor", "curvature"};
static const char *const storage_names[] = {"f32", "bf16", "u8"};

/* What a pass must give: numbers, and for each the size that its error is measured by. */
typedef struct expected {
    double *g[2], *g_size[2];
    skald_gpu_sums sums[2], size[2];
    float *alpha; /* n, after the pass */
    double *z[2]; /* n */
} expected;

static void expect_row(const problem *p, const skald_gpu_pass *pass, const double *const w[2], size_t i, expected *e) {
    double z[2] = {0, 0}, size[2] = {0, 0}, c[2] = {0, 0}, c_size[2];
    const double s = (double)p->s[i], y = (double)p->y[i], old = (double)p->alpha[i];
    for (int q = 0; q < 2; q++) {
        if (w[q]) z[q] = margin(p, i, w[q], &size[q]);
        const double first = loss_first(p->loss, z[q], y), second = loss_second(p->loss, z[q], y);
        c[q] = s * first;
        c_size[q] = s * (fabs(first) + fabs(old) + size[q]);
        e->z[q][i] = z[q];
        const bool right = skald_loss_correct(p->loss, z[q], y);
        e->sums[q].loss += s * loss_value(p->loss, z[q], y);
        e->sums[q].dphi += s * first;
        e->sums[q].d2phi += s * second;
        e->sums[q].correct += right;
        e->sums[q].rows += 1;
        e->size[q].loss += s * (loss_value(p->loss, z[q], y) + (1 + fabs(first)) * size[q]);
        e->size[q].dphi += c_size[q];
        /* phi'' jumps, and so does the side: rows within the error of the jump do not count */
        e->size[q].d2phi += s * (second + size[q]);
        if (p->loss == SKALD_SQUARED_HINGE && fabs(y * z[q] - 1) < EPS * size[q]) e->size[q].d2phi += s / EPS;
        if (p->loss == SKALD_HUBER && fabs(fabs(z[q] - y) - HUBER_DELTA) < EPS * size[q]) e->size[q].d2phi += s / EPS;
        if (fabs(z[q]) < EPS * size[q]) e->size[q].correct += 1;
    }
    if (pass->kind == SKALD_GPU_SAGA) {
        e->alpha[i] = (float)loss_first(p->loss, z[0], y);
        c[0] -= s * old;
    } else if (pass->kind == SKALD_GPU_DIFFERENCE) {
        c[0] -= c[1];
        c_size[0] += c_size[1];
    } else if (pass->kind == SKALD_GPU_ANCHOR) {
        c[0] = s * old;
    } else if (pass->kind == SKALD_GPU_CURVATURE) {
        c[0] = s * z[0];
    }
    for (int q = 0; q < 2; q++)
        for (uint32_t j = 0; j < p->dim; j++) {
            const double x = p->x[i * p->dim + j];
            e->g[q][j] += c[q] * x;
            e->g_size[q][j] += c_size[q] * fabs(x);
        }
}

static expected expect(const problem *p, const skald_gpu_pass *pass, const double *const w[2], const uint32_t *list) {
    expected e = {0};
    for (int q = 0; q < 2; q++) {
        e.g[q] = host_take(p->dim * sizeof(double));
        e.g_size[q] = host_take(p->dim * sizeof(double));
        e.z[q] = host_take(p->n * sizeof(double));
    }
    e.alpha = host_take(p->n * sizeof(float));
    memcpy(e.alpha, p->alpha, p->n * sizeof(float));
    for (size_t k = 0; k < pass->count; k++) expect_row(p, pass, w, list ? list[k] : k, &e);
    if (pass->kind == SKALD_GPU_CURVATURE)
        for (uint32_t j = 0; j < p->dim; j++) {
            e.g[0][j] /= (double)pass->count;
            e.g_size[0][j] /= (double)pass->count;
        }
    return e;
}

static void near(double found, double wanted, double size, const char *what, size_t j) {
    CHECK(fabs(found - wanted) <= EPS * size + 1e-30, "%s[%zu] is %.9g, not %.9g (size %g)", what, j, found, wanted,
          size);
}

static void compare(const problem *p, const skald_gpu_pass *pass, const expected *e, int points, bool with_g) {
    double *g = host_take(p->dim * sizeof *g);
    float *alpha = device_take(p->n * sizeof(float)), *found = host_take(p->n * sizeof(float));
    skald_gpu_sums sums[2];
    to_host(sums, pass->sums, (size_t)points * sizeof *sums);
    for (int q = 0; q < points; q++) {
        CHECK(sums[q].bad == 0, "%g rows are bad", sums[q].bad);
        CHECK(sums[q].rows == (double)pass->count, "%g rows", sums[q].rows);
        if (pass->kind != SKALD_GPU_ANCHOR && pass->kind != SKALD_GPU_CURVATURE)
            near(sums[q].loss, e->sums[q].loss, e->size[q].loss, "loss", (size_t)q);
        if (with_g && pass->g[q]) {
            to_host(g, pass->g[q], p->dim * sizeof *g);
            for (uint32_t j = 0; j < p->dim; j++) near(g[j], e->g[q][j], e->g_size[q][j], "g", j);
        }
        if (pass->kind != SKALD_GPU_OBJECTIVE) continue;
        near(sums[q].dphi, e->sums[q].dphi, e->size[q].dphi, "dphi", (size_t)q);
        near(sums[q].d2phi, e->sums[q].d2phi, e->size[q].d2phi, "d2phi", (size_t)q);
        CHECK(fabs(sums[q].correct - e->sums[q].correct) <= e->size[q].correct, "%g correct, not %g", sums[q].correct,
              e->sums[q].correct);
    }
    CUDA(skald_gpu_history_get(p->rows.record, p->n, alpha, check_stream));
    to_host(found, alpha, p->n * sizeof(float));
    for (size_t i = 0; i < p->n; i++) {
        const bool kept = pass->kind != SKALD_GPU_SAGA || e->alpha[i] == p->alpha[i];
        CHECK(kept ? found[i] == p->alpha[i] : fabsf(found[i] - e->alpha[i]) <= 1e-5f * (1 + fabsf(e->alpha[i])),
              "alpha[%zu] is %.9g, not %.9g", i, (double)found[i], (double)e->alpha[i]);
    }
}

/* One pass of a kind, checked; twice, to compare bits. */
static void run_pass(const problem *p, skald_gpu_kind kind, skald_gpu_kernel kernel, size_t count, bool listed,
                     uint32_t points, bool with_g, bool deterministic) {
    const check_mark before = mark();
    const int outs = kind == SKALD_GPU_OBJECTIVE ? (int)points : 1;
    skald_gpu_pass pass = {.kind = kind, .loss = p->loss, .huber_delta = HUBER_DELTA, .rows = &p->rows, .count = count};
    pass.points = points;
    pass.kernel = kernel;
    pass.deterministic = deterministic;
    pass.intercept = p->intercept;
    const double *w[2] = {problem_model(p, 1), problem_model(p, 0.5)};
    uint32_t *list = listed ? problem_list(p, count) : NULL;
    double *g_again[2], *bits[2];
    for (int q = 0; q < 2; q++) {
        if (kind != SKALD_GPU_ANCHOR) pass.w[q] = device_copy(w[q], p->dim * sizeof(double));
        g_again[q] = device_take(p->dim * sizeof(double));
        bits[q] = host_take(p->dim * sizeof(double));
        if (with_g && q < outs) pass.g[q] = device_take(p->dim * sizeof(double));
        if (kind == SKALD_GPU_OBJECTIVE && q < outs) pass.margin[q] = device_take(p->n * sizeof(double));
    }
    pass.sums = device_take(2 * sizeof *pass.sums);
    if (list) pass.list = device_copy(list, count * sizeof *list);
    const size_t bytes = skald_gpu_pass_workspace(&check_device, &pass);
    CASE("%s, %s %u x %zu, kernel %s, loss %s, %u points", kind_names[kind],
         p->rows.layout == SKALD_CSR ? "csr" : storage_names[p->rows.storage], p->dim, count,
         skald_gpu_pass_name(&check_device, &pass), skald_loss_name(p->loss), points);
    CHECK(bytes <= skald_gpu_pass_workspace_most(&check_device, &p->rows, count) || kernel != SKALD_GPU_AUTO,
          "workspace_most is less than %zu", bytes);
    void *workspace = device_take(bytes);
    problem_history(p);
    CUDA(skald_gpu_pass_run(&check_device, &pass, workspace, bytes, check_stream));
    const expected e = expect(p, &pass, w, list);
    compare(p, &pass, &e, outs, with_g);
    if (pass.margin[0]) {
        double *z = host_take(p->n * sizeof *z), size;
        to_host(z, pass.margin[0], p->n * sizeof *z);
        for (size_t k = 0; k < count; k++) {
            const size_t i = list ? list[k] : k;
            margin(p, i, w[0], &size);
            near(z[i], e.z[0][i], size, "z", i);
        }
    }
    if (with_g && (p->rows.layout == SKALD_DENSE || deterministic)) {
        skald_gpu_pass again = pass;
        for (int q = 0; q < outs; q++) again.g[q] = g_again[q];
        problem_history(p);
        CUDA(skald_gpu_pass_run(&check_device, &again, workspace, bytes, check_stream));
        for (int q = 0; q < outs; q++) {
            to_host(bits[0], pass.g[q], p->dim * sizeof(double));
            to_host(bits[1], again.g[q], p->dim * sizeof(double));
            CHECK(memcmp(bits[0], bits[1], p->dim * sizeof(double)) == 0, "bits differ between two runs");
        }
    }
    release(before);
}

static bool allowed(const problem *p, skald_gpu_kernel kernel) {
    skald_gpu_pass pass = {.kind = SKALD_GPU_GRADIENT, .rows = &p->rows, .count = 1, .kernel = kernel};
    return strcmp(skald_gpu_pass_name(&check_device, &pass), "none") != 0;
}

static skald_loss next_loss(void) {
    static int turn;
    return (skald_loss)(turn++ % 4);
}

/* All kinds on a batch, every kernel that takes the shape. */
static void test_dense(skald_gpu_storage storage, uint32_t dim, size_t batch) {
    const check_mark before = mark();
    problem p;
    problem_options o = {.layout = SKALD_DENSE, .storage = storage, .dim = dim, .n = batch + 5, .loss = next_loss()};
    o.weights = dim % 2 == 0;
    o.unit = storage == SKALD_GPU_U8 || dim % 3 == 0;
    o.intercept = dim > 1;
    CASE("%s, %u columns", storage_names[storage], dim);
    problem_make(&o, &p);
    for (int k = SKALD_GPU_AUTO; k <= SKALD_GPU_TWICE; k++) {
        const skald_gpu_kernel kernel = (skald_gpu_kernel)k;
        if (!allowed(&p, kernel)) continue;
        run_pass(&p, SKALD_GPU_GRADIENT, kernel, batch, false, 1, true, false);
        run_pass(&p, SKALD_GPU_SAGA, kernel, batch, true, 1, true, false);
        if (kernel == SKALD_GPU_RING) continue;
        run_pass(&p, SKALD_GPU_DIFFERENCE, kernel, batch, true, 1, true, false);
        run_pass(&p, SKALD_GPU_OBJECTIVE, kernel, p.n, false, 2, true, false);
    }
    run_pass(&p, SKALD_GPU_OBJECTIVE, SKALD_GPU_AUTO, p.n, false, 1, true, false);
    run_pass(&p, SKALD_GPU_OBJECTIVE, SKALD_GPU_AUTO, p.n, false, 2, false, false);
    run_pass(&p, SKALD_GPU_ANCHOR, SKALD_GPU_AUTO, p.n, false, 1, true, false);
    run_pass(&p, SKALD_GPU_CURVATURE, SKALD_GPU_AUTO, batch, false, 1, true, false);
    release(before);
}

/* Many rows: several rounds of every block. */
static void test_many(skald_gpu_storage storage, uint32_t dim, skald_loss loss) {
    const check_mark before = mark();
    problem p;
    problem_options o = {
        .layout = SKALD_DENSE, .storage = storage, .dim = dim, .n = 4100, .loss = loss, .weights = true};
    CASE("%s, %u columns", storage_names[storage], dim);
    problem_make(&o, &p);
    run_pass(&p, SKALD_GPU_GRADIENT, SKALD_GPU_AUTO, 4096, false, 1, true, false);
    run_pass(&p, SKALD_GPU_SAGA, SKALD_GPU_AUTO, 4096, true, 1, true, false);
    if (allowed(&p, SKALD_GPU_RING)) run_pass(&p, SKALD_GPU_SAGA, SKALD_GPU_RING, 4096, true, 1, true, false);
    release(before);
}

static void test_sparse(uint32_t dim, size_t batch, double density) {
    const check_mark before = mark();
    problem p;
    problem_options o = {.layout = SKALD_CSR, .dim = dim, .n = batch + 5, .loss = next_loss(), .density = density};
    o.weights = dim % 2 == 0;
    o.intercept = dim > 2;
    CASE("csr, %u columns", dim);
    problem_make(&o, &p);
    for (int deterministic = 0; deterministic < 2; deterministic++) {
        const bool fixed = deterministic != 0;
        run_pass(&p, SKALD_GPU_GRADIENT, SKALD_GPU_AUTO, batch, false, 1, true, fixed);
        run_pass(&p, SKALD_GPU_SAGA, SKALD_GPU_AUTO, batch, true, 1, true, fixed);
        run_pass(&p, SKALD_GPU_DIFFERENCE, SKALD_GPU_AUTO, batch, true, 1, true, fixed);
        run_pass(&p, SKALD_GPU_OBJECTIVE, SKALD_GPU_AUTO, p.n, false, 2, true, fixed);
        run_pass(&p, SKALD_GPU_OBJECTIVE, SKALD_GPU_AUTO, p.n, false, 1, false, fixed);
        run_pass(&p, SKALD_GPU_ANCHOR, SKALD_GPU_AUTO, p.n, false, 1, true, fixed);
        run_pass(&p, SKALD_GPU_CURVATURE, SKALD_GPU_AUTO, batch, false, 1, true, fixed);
    }
    release(before);
}

/* A model that is not finite, or whose margins do not fit: bad is set and the history stays; so it does for an empty
 * batch, which gives zeros. */
static void test_bad(skald_layout layout, uint32_t dim) {
    const check_mark before = mark();
    problem p;
    problem_options o = {.layout = layout, .dim = dim, .n = 40, .loss = SKALD_SQUARED, .density = 0.5};
    problem_make(&o, &p);
    skald_gpu_pass pass = {.kind = SKALD_GPU_SAGA, .loss = p.loss, .rows = &p.rows, .count = p.n};
    const double values[] = {NAN, INFINITY, 1e30, 1e200, 0};
    double *w = problem_model(&p, 1), *g = host_take(dim * sizeof *g);
    const double kept = w[0];
    float *alpha = device_take(p.n * sizeof(float)), *found = host_take(p.n * sizeof(float));
    pass.g[0] = device_take(dim * sizeof(double));
    pass.sums = device_take(sizeof *pass.sums);
    const size_t bytes = skald_gpu_pass_workspace(&check_device, &pass);
    void *workspace = device_take(bytes);
    for (size_t k = 0; k < 5; k++) {
        skald_gpu_sums sums;
        const bool finite = k == 2 || k == 4;
        w[0] = k == 4 ? kept : values[k];
        pass.w[0] = device_copy(w, dim * sizeof *w);
        pass.count = k == 4 ? 0 : p.n;
        CASE("%s, %u columns, w[0] = %g, %d rows", layout == SKALD_CSR ? "csr" : "f32", dim, w[0], (int)pass.count);
        problem_history(&p);
        CUDA(skald_gpu_pass_run(&check_device, &pass, workspace, bytes, check_stream));
        to_host(&sums, pass.sums, sizeof sums);
        CHECK(finite ? sums.bad == 0 : sums.bad > 0, "%g rows are bad", sums.bad);
        CUDA(skald_gpu_history_get(p.rows.record, p.n, alpha, check_stream));
        to_host(found, alpha, p.n * sizeof(float));
        size_t changed = 0;
        for (size_t i = 0; i < p.n; i++) changed += found[i] != p.alpha[i];
        CHECK(k == 2 ? changed > 0 : changed == 0, "%zu alphas changed", changed);
        if (k != 4) continue;
        to_host(g, pass.g[0], dim * sizeof *g);
        CHECK(sums.rows == 0 && sums.loss == 0, "an empty batch has %g rows", sums.rows);
        for (uint32_t j = 0; j < dim; j++) CHECK(g[j] == 0, "g[%u] of an empty batch is %g", j, g[j]);
    }
    release(before);
}

static void test_shift(void) {
    const check_mark before = mark();
    problem p;
    problem_options o = {.layout = SKALD_DENSE, .dim = 7, .n = 3000, .loss = SKALD_LOGISTIC, .weights = true};
    CASE("shift");
    problem_make(&o, &p);
    const double delta[2] = {0.25, -3};
    double *z[2];
    const double *margins[2];
    skald_gpu_sums found[2], *sums = device_take(sizeof found);
    void *workspace = device_take(skald_gpu_shift_workspace());
    for (int q = 0; q < 2; q++) {
        z[q] = host_take(p.n * sizeof(double));
        for (size_t i = 0; i < p.n; i++) z[q][i] = 4 * random_unit();
        margins[q] = device_copy(z[q], p.n * sizeof(double));
    }
    CUDA(skald_gpu_shift(&p.rows, p.loss, HUBER_DELTA, 2, margins, delta, sums, workspace, check_stream));
    to_host(found, sums, sizeof found);
    for (int q = 0; q < 2; q++) {
        skald_gpu_sums e = {0};
        for (size_t i = 0; i < p.n; i++) {
            const double at = z[q][i] + delta[q], y = (double)p.y[i], s = (double)p.s[i];
            e.loss += s * loss_value(p.loss, at, y);
            e.dphi += s * loss_first(p.loss, at, y);
            e.d2phi += s * loss_second(p.loss, at, y);
            e.correct += skald_loss_correct(p.loss, at, y);
        }
        CHECK(fabs(found[q].loss - e.loss) < 1e-12 * e.loss, "loss %.17g, not %.17g", found[q].loss, e.loss);
        CHECK(fabs(found[q].dphi - e.dphi) < 1e-11 * e.loss, "dphi %.17g, not %.17g", found[q].dphi, e.dphi);
        CHECK(fabs(found[q].d2phi - e.d2phi) < 1e-12 * e.loss, "d2phi %.17g, not %.17g", found[q].d2phi, e.d2phi);
        CHECK(found[q].correct == e.correct && found[q].rows == (double)p.n && found[q].bad == 0, "counts");
    }
    release(before);
}

/* Every kernel of a storage once, at rows that no narrower one takes: barriers kept from one round to the next, rings
 * gone round (that of 784 bytes has nine stages). */
static void test_briefly(skald_gpu_storage storage) {
    static const struct {
        uint32_t dim;
        skald_gpu_kernel kernel;
        size_t batch;
    } shapes[] = {{100, SKALD_GPU_LANES, 200}, {400, SKALD_GPU_WARP, 61},   {784, SKALD_GPU_WARP, 61},
                  {784, SKALD_GPU_RING, 300},  {2000, SKALD_GPU_BLOCK, 61}, {2000, SKALD_GPU_RING, 100},
                  {4100, SKALD_GPU_BLOCK, 13}, {4100, SKALD_GPU_RING, 61},  {9000, SKALD_GPU_TWICE, 41}};
    for (size_t k = 0; k < sizeof shapes / sizeof *shapes; k++) {
        const check_mark before = mark();
        const skald_gpu_kernel kernel = shapes[k].kernel;
        problem p;
        problem_options o = {.storage = storage, .dim = shapes[k].dim, .n = shapes[k].batch, .loss = next_loss()};
        o.unit = storage == SKALD_GPU_U8;
        o.intercept = true;
        CASE("%s, %u columns", storage_names[storage], o.dim);
        problem_make(&o, &p);
        run_pass(&p, SKALD_GPU_SAGA, kernel, p.n, true, 1, true, false);
        if (kernel != SKALD_GPU_RING) {
            run_pass(&p, SKALD_GPU_DIFFERENCE, kernel, p.n, true, 1, true, false);
            run_pass(&p, SKALD_GPU_OBJECTIVE, kernel, p.n, false, 2, true, false);
        }
        if (kernel == SKALD_GPU_TWICE) {
            run_pass(&p, SKALD_GPU_OBJECTIVE, kernel, p.n, false, 2, false, false);
            run_pass(&p, SKALD_GPU_ANCHOR, kernel, p.n, false, 1, true, false);
        }
        release(before);
    }
}

/* `brief`: each kernel, for other orders of the emulated device, and TSan, which races its threads. */
int main(int argc, char **argv) {
    const int skip = check_begin();
    if (skip) return skip;
    if (argc > 1 && strcmp(argv[1], "brief") == 0) {
        check_device.processors = 1; /* few blocks, so that each has several rounds */
        for (int storage = SKALD_GPU_F32; storage <= SKALD_GPU_U8; storage++) test_briefly((skald_gpu_storage)storage);
        test_sparse(784, 31, 0.1);
        test_shift();
        return check_end("test_kernels brief");
    }
    static const uint32_t dims[] = {1, 3, 100, 400, 784, 2000, 2001, 8192, 20000};
    for (int storage = SKALD_GPU_F32; storage <= SKALD_GPU_U8; storage++) {
        for (size_t k = 0; k < sizeof dims / sizeof *dims; k++) {
            test_dense((skald_gpu_storage)storage, dims[k], 31);
            if (dims[k] < 3000) test_dense((skald_gpu_storage)storage, dims[k], 1);
        }
        test_many((skald_gpu_storage)storage, 784, next_loss());
    }
    test_many(SKALD_GPU_F32, 3, SKALD_LOGISTIC);
    test_many(SKALD_GPU_F32, 2000, SKALD_HUBER);
    test_sparse(1, 31, 0.5);
    test_sparse(3, 4096, 0.5);
    test_sparse(784, 31, 0.1);
    test_sparse(2001, 400, 0.03);
    test_sparse(20000, 1, 0.05);
    test_bad(SKALD_DENSE, 3);
    test_bad(SKALD_DENSE, 2000);
    test_bad(SKALD_DENSE, 9000);
    test_bad(SKALD_CSR, 50);
    test_shift();
    return check_end("test_kernels");
}
