/* The report of a comparison: results.json, and a page with its plots drawn in it, which opens anywhere.
 *
 * Colours are Okabe and Ito's, which colour-blind people tell apart; modes differ in dash and label too. */
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "cli/bench.h"

static const char *const colours[] = {"#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000"};
static const char *const dashes[] = {"none", "8 4", "2 3", "10 3 2 3", "14 4", "4 2", "1 5"};

enum { WIDTH = 860, HEIGHT = 300, LEFT = 70, RIGHT = 120, TOP = 12, BOTTOM = 42 };

/* ---- results.json ---------------------------------------------------------------------------------------- */

static json_t *real(double x) {
    return isfinite(x) ? json_real(x) : json_null();
}

static skald_status write_json(const bench *b, const skald_options *options) {
    char path[512];
    json_t *root = json_object(), *config = json_object(), *runs = json_array(), *cells = json_array(),
           *baselines = json_array();
    for (size_t i = 0; i < options->count; i++)
        if (options->texts[i]) json_object_set_new(config, options->table[i].name, json_string(options->texts[i]));
    for (int k = 0; k < b->cell_count; k++) {
        const bench_cell *c = &b->cells[k];
        json_array_append_new(cells,
                              json_pack("{s:s,s:s,s:s,s:i,s:i,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o}", "straggler",
                                        c->straggler, "algo", c->algo, "mode", c->mode, "runs", c->runs, "reached",
                                        c->reached, "seconds", real(c->median), "least", real(c->least), "most",
                                        real(c->most), "speedup", real(c->speedup), "wait_ms", real(c->wait_ms),
                                        "updates", real(c->updates), "mb", real(c->mb), "cpu", real(c->cpu)));
    }
    for (int k = 0; k < b->run_count; k++) {
        const bench_run *r = &b->runs[k];
        json_t *curve = json_array();
        for (int i = 0; i < r->point_count; i++)
            json_array_append_new(curve, json_pack("[o,o,o]", real(r->points[i].seconds), real(r->points[i].passes),
                                                   real(r->points[i].gap)));
        json_array_append_new(runs, json_pack("{s:s,s:s,s:s,s:i,s:b,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o}",
                                              "straggler", r->straggler, "algo", r->algo, "mode", r->mode, "repeat",
                                              r->repeat, "reached", (int)r->reached, "seconds_to_target",
                                              real(r->to_target), "seconds", real(r->seconds), "passes",
                                              real(r->passes), "updates", real(r->updates), "wait_ms", real(r->wait_ms),
                                              "task_ms", real(r->task_ms), "staleness_mean", real(r->stale_mean),
                                              "staleness_max", real(r->stale_max), "mb", real(r->mb), "curve", curve));
    }
    for (int k = 0; k < b->baseline_count; k++) {
        const bench_baseline *x = &b->baselines[k];
        json_array_append_new(baselines, x->note[0] ? json_pack("{s:s,s:s}", "name", x->name, "skipped", x->note)
                                                    : json_pack("{s:s,s:o,s:o}", "name", x->name, "seconds",
                                                                real(x->seconds), "gap", real(x->gap)));
    }
    json_object_set_new(root, "skald", json_string(SKALD_VERSION));
    json_object_set_new(root, "data", json_string(b->data));
    json_object_set_new(root, "config", config);
    json_object_set_new(root, "optimum", real(b->optimum));
    json_object_set_new(root, "cells", cells);
    json_object_set_new(root, "runs", runs);
    json_object_set_new(root, "baselines", baselines);
    snprintf(path, sizeof path, "%.400s/results.json", b->folder);
    const int failed = json_dump_file(root, path, JSON_INDENT(1));
    json_decref(root);
    return failed ? skald_fail(SKALD_EIO, "%s: cannot write it", path) : SKALD_OK;
}

/* ---- plots ----------------------------------------------------------------------------------------------- */

/* What the user wrote may hold anything. */
static void text(FILE *f, const char *s) {
    for (; *s; s++) {
        if (*s == '<')
            fputs("&lt;", f);
        else if (*s == '&')
            fputs("&amp;", f);
        else
            fputc(*s, f);
    }
}

/* The cells of one comparison follow one another: same straggler, same algorithm. */
static int same_group(const bench *b, int first) {
    int k = first;
    while (k < b->cell_count && strcmp(b->cells[k].straggler, b->cells[first].straggler) == 0 &&
           strcmp(b->cells[k].algo, b->cells[first].algo) == 0)
        k++;
    return k;
}

static double x_of(double value, double most) {
    return LEFT + (WIDTH - LEFT - RIGHT) * value / most;
}

static void open_plot(FILE *f, int height, const char *title) {
    fprintf(f, "<svg viewBox=\"0 0 %d %d\" width=\"%d\" height=\"%d\" role=\"img\"><title>%s</title>\n", WIDTH, height,
            WIDTH, height, title);
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
static void gap_plot(FILE *f, const bench *b, int first, int last) {
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
        text(f, r->mode);
        fputs("</text>\n", f);
    }
    fputs("</svg>\n", f);
}

/* How stale merges were. */
static void stale_plot(FILE *f, const bench_cell *c, int style) {
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
            colours[style], k, 100.0 * (double)r->stale[k] / (double)all);
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
static void lane_plot(FILE *f, const bench *b, const bench_cell *c) {
    const bench_run *r = c->first;
    const int workers = (int)b->s->workers, lane = workers > 16 ? 11 : 16;
    if (!r->span_count) return;
    double window = fmin(r->seconds, 24 * fmax(r->task_ms * 1e-3 / 2, (double)b->s->pace_ms * 1e-3));
    const int bottom = TOP + workers * lane;
    open_plot(f, bottom + BOTTOM, "what each worker did when");
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

/* ---- the page -------------------------------------------------------------------------------------------- */

static void table(FILE *f, const bench *b) {
    char t[32], least[32], most[32];
    fputs("<table><tr><th>straggler<th>algorithm<th>mode<th>to target, median<th>least to most<th>speed-up<th>wait, ms "
          "a task"
          "<th>updates<th>MB<th>processor</tr>\n",
          f);
    for (int k = 0; k < b->cell_count; k++) {
        const bench_cell *c = &b->cells[k];
        fputs("<tr><td>", f);
        text(f, c->straggler);
        fprintf(f, "<td>%s<td>", c->algo);
        text(f, c->mode);
        fprintf(f,
                "<td class=\"n\">%s%s<td class=\"n\">%s to %s<td class=\"n\">%.2f&times;<td class=\"n\">%.3g<td "
                "class=\"n\">%.0f"
                "<td class=\"n\">%.1f<td class=\"n\">%.0f%%</tr>\n",
                c->reached < c->runs ? "&gt; " : "", bench_seconds(c->median, t), bench_seconds(c->least, least),
                bench_seconds(c->most, most), c->speedup, c->wait_ms, c->updates, c->mb, 100 * c->cpu);
    }
    fputs("</table>\n", f);
    for (int k = 0; k < b->baseline_count; k++) {
        const bench_baseline *x = &b->baselines[k];
        if (x->note[0])
            fprintf(f, "<p>%s: skipped: %s</p>\n", x->name, x->note);
        else
            fprintf(f, "<p>%s: %s to a gap of %.2g, on this machine's cores without delays.</p>\n", x->name,
                    bench_seconds(x->seconds, t), x->gap);
    }
}

static void group(FILE *f, const bench *b, int first, int last) {
    fputs("<h2>", f);
    text(f, b->cells[first].algo);
    fputs(", stragglers: ", f);
    text(f, b->cells[first].straggler);
    fputs("</h2>\n<h3>Gap against time</h3>\n", f);
    gap_plot(f, b, first, last);
    for (int c = first; c < last; c++) {
        fputs("<h3>", f);
        text(f, b->cells[c].mode);
        fputs(": staleness, and what each worker did</h3>\n", f);
        stale_plot(f, &b->cells[c], (c - first) % (int)SKALD_ARRAY_LENGTH(colours));
        lane_plot(f, b, &b->cells[c]);
    }
}

skald_status bench_report(const bench *b, const skald_options *options) {
    char path[512];
    TRY(write_json(b, options));
    snprintf(path, sizeof path, "%.400s/index.html", b->folder);
    FILE *f = fopen(path, "we");
    if (!f) return skald_fail(SKALD_EIO, "%s: %s", path, strerror(errno));
    fputs("<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>skald bench</title><style>"
          "body{font:15px/1.4 sans-serif;max-width:900px;margin:2em auto;padding:0 1em;color:#222}"
          "table{border-collapse:collapse}td,th{padding:.2em .6em;border-bottom:1px solid #ccc;text-align:left}"
          ".n{text-align:right;font-variant-numeric:tabular-nums}svg{max-width:100%;height:auto;display:block}"
          "svg text{font:12px sans-serif}.g{stroke:#ddd}</style>\n"
          "<svg width=\"0\" height=\"0\"><defs><pattern id=\"held\" width=\"5\" height=\"5\" "
          "patternUnits=\"userSpaceOnUse\" "
          "patternTransform=\"rotate(45)\"><rect width=\"5\" height=\"5\" fill=\"#E69F00\"/><line y2=\"5\" "
          "stroke=\"#fff\" "
          "stroke-width=\"2\"/></pattern></defs></svg>\n<h1>skald bench</h1>\n<p>",
          f);
    text(f, b->data);
    fprintf(
        f,
        ": %d workers, each task at least %d ms, to a gap (F &minus; F*) / F* of %g, F* = %.12g. Medians of %d runs; "
        "speed-ups are over the first mode. Evaluations are off the clock. Blue: computing; orange, hatched: held "
        "back; grey: waiting.</p>\n",
        (int)b->s->workers, (int)b->s->pace_ms, b->s->gap, b->optimum, (int)b->s->repeats);
    table(f, b);
    for (int k = 0, next; k < b->cell_count; k = next) {
        next = same_group(b, k);
        group(f, b, k, next);
    }
    fputs("</html>\n", f);
    const bool failed = ferror(f) != 0;
    return fclose(f) != 0 || failed ? skald_fail(SKALD_EIO, "%s: cannot write it: %s", path, strerror(errno))
                                    : SKALD_OK;
}
