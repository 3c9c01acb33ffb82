/* Vector verbs against loops in double, and what packing does to values that a storage does not hold. */
#include "problem.h"

static double soft(double v, double t) {
    return v > t ? v - t : v < -t ? v + t : 0;
}

typedef struct pair {
    double *host, *device;
} pair;

static pair vector(size_t n) {
    pair v = {host_take(n * sizeof(double)), NULL};
    for (size_t j = 0; j < n; j++) v.host[j] = random_unit();
    v.device = device_copy(v.host, n * sizeof(double));
    return v;
}

static void same(pair v, size_t n, const char *what) {
    double *found = host_take(n * sizeof *found);
    to_host(found, v.device, n * sizeof *found);
    for (size_t j = 0; j < n; j++)
        CHECK(fabs(found[j] - v.host[j]) <= 4e-16 * (1 + fabs(v.host[j])), "%s[%zu] is %.17g, not %.17g", what, j,
              found[j], v.host[j]);
}

static void test_sums(size_t n, const skald_gpu_regulariser *r, pair w, pair g, double eta) {
    static const char *const names[3] = {"|w|^2", "the penalty", "the stationarity"};
    double found[6], want[3] = {0}, *sums = device_take(sizeof found);
    void *workspace = device_take(SKALD_GPU_SUM_BYTES);
    for (int k = 0; k < 2; k++) {
        CUDA(skald_gpu_norm2(n, w.device, sums + 3 * k, workspace, check_stream));
        CUDA(skald_gpu_penalty(n, w.device, r, sums + 3 * k + 1, workspace, check_stream));
        CUDA(skald_gpu_stationarity(n, w.device, g.device, eta, r, sums + 3 * k + 2, workspace, check_stream));
    }
    to_host(found, sums, sizeof found);
    for (size_t j = 0; j < n; j++) {
        const double v = w.host[j];
        want[0] += v * v;
        if (r->intercept && j % r->columns == r->columns - 1) continue;
        const double slope = g.host[j] + r->l2 * v + r->nonconvex * skald_bounded_slope(v);
        const double s = (v - soft(v - eta * slope, eta * r->l1)) / eta;
        want[1] += 0.5 * r->l2 * v * v + r->l1 * fabs(v) + r->nonconvex * skald_bounded_value(v);
        want[2] += s * s;
    }
    for (int k = 0; k < 3; k++) {
        CHECK(fabs(found[k] - want[k]) <= 1e-12 * want[k], "%s is %.17g, not %.17g", names[k], found[k], want[k]);
        CHECK(memcmp(&found[k], &found[3 + k], sizeof *found) == 0, "%s differs between two runs", names[k]);
    }
}

/* columns: of a class. */
static void test_updates(size_t n, size_t columns, bool intercept, double bent) {
    const check_mark before = mark();
    const double eta = 0.3, l2 = 0.1, l1 = 0.5, a = 0.7, rows = 11, theta = 0.6;
    pair w = vector(n), abar = vector(n), g = vector(n), h = vector(n), out = vector(n);
    const skald_gpu_regulariser r = {l2, l1, bent, intercept, (uint32_t)columns, 3};
    CASE("vectors of %zu, %zu a class", n, columns);
    CUDA(skald_gpu_combine(n, out.device, a, w.device, -2, g.device, check_stream));
    for (size_t j = 0; j < n; j++) out.host[j] = a * w.host[j] - 2 * g.host[j];
    same(out, n, "combine");
    CUDA(skald_gpu_combine(n, out.device, a, out.device, 0, NULL, check_stream));
    for (size_t j = 0; j < n; j++) out.host[j] *= a;
    same(out, n, "combine of one");
    CUDA(skald_gpu_axpy(n, out.device, a, g.device, check_stream));
    for (size_t j = 0; j < n; j++) out.host[j] += a * g.host[j];
    same(out, n, "axpy");

    CUDA(skald_gpu_sgd_update(n, w.device, g.device, a, eta, &r, check_stream));
    for (size_t j = 0; j < n; j++) {
        const bool last = intercept && j % columns == columns - 1;
        double slope = a * g.host[j] + (last ? 0 : l2) * w.host[j];
        if (!last) slope += bent * skald_bounded_slope(w.host[j]);
        w.host[j] = soft(w.host[j] - (last ? 3 * eta : eta) * slope, last ? 0 : eta * l1);
    }
    same(w, n, "sgd_update");
    for (int alias = 0; alias < 2; alias++) {
        const pair d = alias ? g : h;
        CUDA(skald_gpu_saga_update(n, w.device, abar.device, g.device, a, d.device, eta, rows, &r, check_stream));
        for (size_t j = 0; j < n; j++) {
            const bool last = intercept && j % columns == columns - 1;
            const double step = a * g.host[j] + abar.host[j] + (last ? 0 : l2) * w.host[j];
            w.host[j] = soft(w.host[j] - (last ? 3 * eta : eta) * step, last ? 0 : eta * l1);
            abar.host[j] += d.host[j] / rows;
        }
        same(w, n, "saga_update's w");
        same(abar, n, "saga_update's abar");
    }
    for (int sgd = 0; sgd < 2; sgd++) {
        CUDA(skald_gpu_local_merge(n, w.device, sgd ? NULL : abar.device, g.device, theta, sgd ? NULL : h.device, rows,
                                   check_stream));
        for (size_t j = 0; j < n; j++) {
            w.host[j] += theta * g.host[j];
            if (!sgd) abar.host[j] += h.host[j] / rows;
        }
        same(w, n, "local_merge's w");
        same(abar, n, "local_merge's abar");
    }

    test_sums(n, &r, w, g, eta);
    release(before);
}

static void test_pack(void) {
    const check_mark before = mark();
    /* halves of the last kept bit go to even; 0x3f808000 is halfway between two bf16 */
    static const uint32_t bits[] = {0x3f808000, 0x3f818000, 0x3f807fff, 0xbf808001, 0x7f7fffff, 0x7f800000, 0x00000000};
    static const uint16_t rounded[] = {0x3f80, 0x3f82, 0x3f80, 0xbf81, 0x7f80, 0x7f80, 0x0000};
    static const float values[] = {0, 1, 254.4f, 254.6f, 255, 300, -4};
    static const uint8_t bytes[] = {0, 1, 254, 255, 255, 255, 0};
    uint16_t half[16];
    uint8_t byte[32];
    uint32_t inexact[2] = {0, 0};
    uint32_t *flag = device_copy(inexact, sizeof inexact);
    void *x = device_take(64);
    CASE("packing");
    CUDA(skald_gpu_pack(device_copy(bits, sizeof bits), 7, 1, 7, SKALD_GPU_BF16, NULL, x, 16, flag, check_stream));
    to_host(half, x, sizeof half);
    for (int j = 0; j < 16; j++) CHECK(half[j] == (j < 7 ? rounded[j] : 0), "bf16[%d] is %x", j, half[j]);
    CUDA(
        skald_gpu_pack(device_copy(values, sizeof values), 7, 1, 7, SKALD_GPU_U8, NULL, x, 32, flag + 1, check_stream));
    to_host(byte, x, sizeof byte);
    for (int j = 0; j < 32; j++) CHECK(byte[j] == (j < 7 ? bytes[j] : 0), "u8[%d] is %d", j, byte[j]);
    to_host(inexact, flag, sizeof inexact);
    CHECK(inexact[0] == 1 && inexact[1] == 1, "changed values were not seen");
    CHECK(skald_gpu_stride(1, SKALD_GPU_F32) == 8 && skald_gpu_stride(784, SKALD_GPU_U8) == 800 &&
              skald_gpu_stride(2001, SKALD_GPU_BF16) == 2016,
          "strides");
    release(before);
}

int main(void) {
    const int skip = check_begin();
    if (skip) return skip;
    static const size_t sizes[] = {1, 2, 255, 2001, 70000};
    for (size_t k = 0; k < 5; k++) test_updates(sizes[k], sizes[k], k % 2 == 1, k % 3 ? 0.2 : 0);
    test_updates(7 * 29, 29, true, 0);
    test_updates(7 * 29, 29, false, 0);
    test_pack();
    return check_end("test_kernels_vectors");
}
