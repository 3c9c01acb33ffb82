/* `mnist8m` (Loosli, Canu, Bottou 2007: MNIST with deformations; 784 columns of 0 .. 255, about a quarter not zero -
 * MNIST itself 19% -, ten classes; borders nearly always 0; the largest eigenvalue of X'X/n is 40 to 45% of the trace,
 * and the spectrum falls fast: ill-conditioned).
 *
 * Here: ten digits drawn as polylines with a soft pen, each row with its own rotation, slant, size, place, pen width,
 * and a smooth random displacement of the pen's path. */
#include <stdlib.h>
#include <string.h>

#include "data/problem.h"

enum { SIDE = 28, DIM = SIDE * SIDE, POINTS = 12 };

/* The digits, in a box of [-1, 1]^2, y downwards. A point {9, 9} lifts the pen. */
typedef struct point {
    float x, y;
} point;

static const point digits[10][POINTS] = {
    {{0, -1}, {-.45f, -.8f}, {-.65f, 0}, {-.45f, .8f}, {0, 1}, {.45f, .8f}, {.65f, 0}, {.45f, -.8f}, {0, -1}},
    {{-.15f, -.7f}, {.1f, -1}, {.05f, 0}, {0, 1}},
    {{-.6f, -.6f}, {-.3f, -.95f}, {.25f, -.95f}, {.5f, -.55f}, {.2f, .05f}, {-.6f, .95f}, {0, .85f}, {.65f, .95f}},
    {{-.5f, -.85f}, {.1f, -1}, {.5f, -.6f}, {0, -.1f}, {.55f, .3f}, {.45f, .8f}, {0, 1}, {-.55f, .8f}},
    {{-.35f, -1}, {-.6f, 0}, {.1f, .1f}, {.6f, 0}, {9, 9}, {.4f, -1}, {.35f, 0}, {.3f, 1}},
    {{.55f, -.95f}, {-.35f, -.95f}, {-.45f, -.1f}, {.2f, -.2f}, {.55f, .3f}, {.3f, .85f}, {-.2f, 1}, {-.6f, .8f}},
    {{.35f, -1}, {-.2f, -.5f}, {-.5f, .3f}, {-.3f, .9f}, {.15f, 1}, {.5f, .6f}, {.3f, .1f}, {-.1f, .15f}, {-.45f, .5f}},
    {{-.6f, -.9f}, {0, -.85f}, {.6f, -.95f}, {.25f, -.2f}, {0, .4f}, {-.1f, 1}},
    {{.1f, -.05f},
     {-.45f, -.5f},
     {-.1f, -1},
     {.4f, -.8f},
     {.3f, -.3f},
     {-.4f, .4f},
     {-.3f, .9f},
     {.15f, 1},
     {.45f, .6f},
     {.1f, -.05f}},
    {{.45f, -.55f}, {.1f, -.1f}, {-.4f, -.3f}, {-.4f, -.8f}, {0, -1}, {.4f, -.8f}, {.45f, -.3f}, {.35f, .3f}, {.1f, 1}},
};

struct problem {
    uint64_t seed;
};

static skald_status create(uint64_t seed, problem **out) {
    problem *p = calloc(1, sizeof *p);
    if (!p) return skald_fail(SKALD_ENOMEM, "out of memory");
    p->seed = seed;
    *out = p;
    return SKALD_OK;
}

static void destroy(problem *p) {
    free(p);
}

/* Raises each pixel near the segment a-b to the pen's darkness there. */
static void draw(float *image, point a, point b, float pen) {
    const float soft = 0.75f, reach = pen + soft;
    float dx = b.x - a.x, dy = b.y - a.y, length2 = dx * dx + dy * dy + 1e-6f;
    int x0 = (int)(fminf(a.x, b.x) - reach), x1 = (int)(fmaxf(a.x, b.x) + reach) + 1;
    int y0 = (int)(fminf(a.y, b.y) - reach), y1 = (int)(fmaxf(a.y, b.y) + reach) + 1;
    for (int y = y0 < 0 ? 0 : y0; y <= y1 && y < SIDE; y++)
        for (int x = x0 < 0 ? 0 : x0; x <= x1 && x < SIDE; x++) {
            float px = (float)x - a.x, py = (float)y - a.y, t = (px * dx + py * dy) / length2;
            t = t < 0 ? 0 : t > 1 ? 1 : t;
            px -= t * dx;
            py -= t * dy;
            float dark = (reach - sqrtf(px * px + py * py)) / (2 * soft);
            dark = dark > 1 ? 1 : dark;
            if (dark > image[y * SIDE + x]) image[y * SIDE + x] = dark;
        }
}

static uint32_t row(const problem *p, uint64_t i, uint32_t *idx, int32_t *q, int *label, void *scratch) {
    float *image = scratch;
    uint64_t key = problem_key(p->seed, 10, i);
    int digit = (int)(10 * skald_uniform(key, 0));
    float turn = (float)(0.14 * problem_normal(key, 1)), slant = (float)(0.12 + 0.2 * problem_normal(key, 2));
    float wide = (float)(8.5 + 1.1 * problem_normal(key, 3)), high = (float)(9.4 + 0.8 * problem_normal(key, 4));
    float x0 = (float)(13.5 + 1.1 * problem_normal(key, 5)), y0 = (float)(13.5 + 1.1 * problem_normal(key, 6));
    float pen = (float)(1.15 + 0.3 * problem_normal(key, 7)), bend = 0.13f;
    memset(image, 0, DIM * sizeof *image);
    pen = pen < 0.3f ? 0.3f : pen;
    /* sine and cosine of a small angle, without libm */
    float sine = turn - turn * turn * turn / 6, cosine = 1 - turn * turn / 2;
    point last = {0, 0};
    bool down = false;
    for (uint64_t k = 0; k < POINTS; k++) {
        point c = digits[digit][k];
        if (k && c.x == 0 && c.y == 0) break; /* the table's unused end */
        if (c.x > 8) {
            down = false;
            continue;
        }
        c.x += bend * (float)problem_normal(key, 10 + 2 * k);
        c.y += bend * (float)problem_normal(key, 11 + 2 * k);
        float x = c.x - slant * c.y;
        point at = {x0 + wide * (cosine * x - sine * c.y), y0 + high * (sine * x + cosine * c.y)};
        if (down) draw(image, last, at, pen);
        last = at;
        down = true;
    }
    uint32_t n = 0;
    for (uint32_t j = 0; j < DIM; j++) {
        int32_t v = (int32_t)(image[j] * 255.99f);
        if (v <= 0) continue;
        idx[n] = j;
        q[n++] = v;
    }
    *label = digit;
    return n;
}

const problem_ops problem_mnist8m = {.kind = "mnist8m",
                                     .dim = DIM,
                                     .row_most = DIM,
                                     .create = create,
                                     .destroy = destroy,
                                     .row = row,
                                     .scratch = DIM * sizeof(float)};
