/* The plots of a comparison, each a whole SVG file.
 *
 * Colours are Okabe and Ito's, which colour-blind people tell apart; modes differ in dash and label too. */
#include <math.h>
#include <stdio.h>

#include "base/base.h"
#include "cli/bench.h"

static const char *const colours[] = {"#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000"};
static const char *const dashes[] = {"none", "8 4", "2 3", "10 3 2 3", "14 4", "4 2", "1 5"};

enum { WIDTH = 860, HEIGHT = 300, LEFT = 70, RIGHT = 120, TOP = 12, BOTTOM = 42 };

void bench_text(FILE *f, const char *s) {
    for (; *s; s++) {
        if (*s == '<')
            fputs("&lt;", f);
        else if (*s == '&')
            fputs("&amp;", f);
        else
            fputc(*s, f);
    }
}

static double x_of(double value, double most) {
    return LEFT + (WIDTH - LEFT - RIGHT) * value / most;
}

static void open_plot(FILE *f, int height, const char *title) {
    fprintf(f,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" height=\"%d\" "
            "role=\"img\"><title>%s</title><style>text{font:12px sans-serif}.g{stroke:#ddd}</style>\n",
            WIDTH, height, WIDTH, height, title);
}

/* A round step that makes about five of them. */
static double step_of(double most) {
    const double raw = most / 5, power = pow(10, floor(log10(raw)));
    return raw / power < 1.5 ? power : raw / power < 3.5 ? 2 * power : raw / power < 7.5 ? 5 * power : 10 * power;
}

static void seconds_axis(FILE *f, double most, int bottom, const char *label) {
    for (double v = 0; v <= most * 1.0001; v += step_of(most))
        fprintf(f,
                "<line class=\"g\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%d\" y2=\"%d\"/><text x=\"%.1f\" y=\"%d\" "
                "text-anchor=\"middle\">%.4g</text>\n",
                x_of(v, most), x_of(v, most), TOP, bottom, x_of(v, most), bottom + 15, v);
    fprintf(f, "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">%s</text>\n", (LEFT + WIDTH - RIGHT) / 2, bottom + 32,
            label);
}

/* Gap against time, a line a mode (the first repeat). */
void bench_plot_gap(FILE *f, const bench *b, int first, int last) {
    double most = 0, high = 0, low = b->s->gap;
    for (int c = first; c < last; c++)
        for (int k = 0; k < b->cells[c].first->point_count; k++) {
            const bench_point *p = &b->cells[c].first->points[k];
            most = fmax(most, p->seconds);
            if (p->gap > 0) high = fmax(high, p->gap), low = fmin(low, p->gap);
        }
    if (!(most > 0) || !(high > 0)) return;
    low = fmax(low, b->s->gap * 1e-2);
    const double top = ceil(log10(high)), bottom = fmin(floor(log10(low)), top - 1), tall = HEIGHT - TOP - BOTTOM;
    open_plot(f, HEIGHT, "gap against time");
    seconds_axis(f, most, HEIGHT - BOTTOM, "seconds of training");
    for (double e = bottom; e <= top; e++)
        fprintf(f,
                "<line class=\"g\" x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\"/><text x=\"%d\" y=\"%.1f\" "
                "text-anchor=\"end\">1e%.0f</text>\n",
                LEFT, WIDTH - RIGHT, TOP + tall * (top - e) / (top - bottom), TOP + tall * (top - e) / (top - bottom),
                LEFT - 6, TOP + tall * (top - e) / (top - bottom) + 4, e);
    const double target = TOP + tall * (top - log10(b->s->gap)) / (top - bottom);
    fprintf(
        f,
        "<line x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\" stroke=\"#555\"/><text x=\"%d\" y=\"%.1f\">target</text>\n",
        LEFT, WIDTH - RIGHT, target, target, WIDTH - RIGHT + 4, target + 4);
    double told[16];
    for (int c = first; c < last; c++) {
        const bench_run *r = b->cells[c].first;
        const int style = (c - first) % (int)SKALD_ARRAY_LENGTH(colours);
        double x = LEFT, y = TOP;
        fprintf(f, "<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"2\" stroke-dasharray=\"%s\" points=\"",
                colours[style], dashes[style]);
        for (int k = 0; k < r->point_count; k++) {
            const double e = r->points[k].gap > 0 ? log10(r->points[k].gap) : bottom;
            x = x_of(r->points[k].seconds, most);
            y = TOP + tall * (top - fmax(e, bottom)) / (top - bottom);
            fprintf(f, "%.1f,%.1f ", x, y);
        }
        double label = y;
        for (int k = 0; k < c - first && k < 16; k++)
            if (fabs(told[k] - label) < 13) label = told[k] - 13, k = -1; /* labels do not cover each other */
        if (c - first < 16) told[c - first] = label;
        fprintf(f, "\"/><text x=\"%.1f\" y=\"%.1f\" fill=\"%s\" font-weight=\"bold\">", x + 5, label - 3,
                colours[style]);
        bench_text(f, r->mode);
        fputs("</text>\n", f);
    }
    fputs("</svg>\n", f);
}

/* How stale merges were. */
void bench_plot_stale(FILE *f, const bench_cell *c, int style) {
    const bench_run *r = c->first;
    int top = 0;
    uint64_t most = 0, all = 0;
    for (int k = 0; k < BENCH_STALE_MAX; k++) {
        if (r->stale[k]) top = k;
        if (r->stale[k] > most) most = r->stale[k];
        all += r->stale[k];
    }
    if (!all) return;
    const double range = top + 1 < 8 ? 8 : top + 1;
    const int height = 170;
    open_plot(f, height, "staleness of merged results");
    for (int k = 0; k <= top; k++)
        fprintf(
            f,
            "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"%s\"><title>%d: %.1f%%</title></rect>\n",
            x_of(k, range), height - BOTTOM - (height - TOP - BOTTOM) * (double)r->stale[k] / (double)most,
            fmax((WIDTH - LEFT - RIGHT) / range - 1, 0.7), (height - TOP - BOTTOM) * (double)r->stale[k] / (double)most,
            colours[style % (int)SKALD_ARRAY_LENGTH(colours)], k, 100.0 * (double)r->stale[k] / (double)all);
    for (double v = 0; v < range; v += fmax(1, step_of(range)))
        fprintf(f, "<text x=\"%.1f\" y=\"%d\">%.0f</text>\n", x_of(v, range), height - BOTTOM + 15, v);
    fprintf(
        f,
        "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">staleness (commits)%s</text><text x=\"%d\" y=\"%d\">mean %.1f, "
        "max %.0f</text></svg>\n",
        (LEFT + WIDTH - RIGHT) / 2, height - BOTTOM + 32, top == BENCH_STALE_MAX - 1 ? "; last: and more" : "",
        WIDTH - RIGHT + 4, TOP + 12, r->stale_mean, r->stale_max);
}

/* A lane a worker: computing, held back, idle; the first two dozen tasks' worth of time. */
void bench_plot_lanes(FILE *f, const bench *b, const bench_cell *c) {
    const bench_run *r = c->first;
    const int workers = (int)b->s->workers, lane = workers > 16 ? 11 : 16;
    if (!r->span_count) return;
    double window = fmin(r->seconds, 24 * fmax(r->task_ms * 1e-3 / 2, (double)b->s->pace_ms * 1e-3));
    const int bottom = TOP + workers * lane;
    open_plot(f, bottom + BOTTOM, "what each worker did when");
    fputs("<defs><pattern id=\"held\" width=\"5\" height=\"5\" patternUnits=\"userSpaceOnUse\" "
          "patternTransform=\"rotate(45)\"><rect width=\"5\" height=\"5\" fill=\"#E69F00\"/><line y2=\"5\" "
          "stroke=\"#fff\" stroke-width=\"2\"/></pattern></defs>\n",
          f);
    seconds_axis(f, window, bottom, "seconds since the first task: computing, held back (pace and straggler), waiting");
    for (int w = 0; w < workers; w++)
        fprintf(f,
                "<text x=\"%d\" y=\"%d\" text-anchor=\"end\" font-size=\"%d\">worker %d</text><rect x=\"%d\" y=\"%d\" "
                "width=\"%d\" height=\"%d\" fill=\"#f2f2f2\"/>\n",
                LEFT - 6, TOP + w * lane + lane - 4, lane - 3, w, LEFT, TOP + w * lane + 1, WIDTH - LEFT - RIGHT,
                lane - 2);
    for (int k = 0; k < r->span_count; k++) {
        const bench_span *s = &r->spans[k];
        if (s->begun < 0 || s->begun >= window || (int)s->worker >= workers) continue;
        const double from = x_of(s->begun, window), done = x_of(fmin(s->computed, window), window),
                     left = x_of(fmin(s->posted, window), window);
        const int y = TOP + (int)s->worker * lane + 2;
        fprintf(f,
                "<rect x=\"%.1f\" y=\"%d\" width=\"%.1f\" height=\"%d\" fill=\"#0072B2\"/><rect x=\"%.1f\" y=\"%d\" "
                "width=\"%.1f\" height=\"%d\" fill=\"url(#held)\"/>\n",
                from, y, fmax(done - from, 1), lane - 4, done, y, fmax(left - done - 0.6, 0), lane - 4);
    }
    fputs("</svg>\n", f);
}
