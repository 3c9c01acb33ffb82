/* The report of a comparison: results.json, its plots, and a page with the plots drawn in it, which opens anywhere. */
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "cli/bench.h"

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
        json_array_append_new(cells, json_pack("{s:s,s:s,s:s,s:i,s:i,s:o,s:o,s:o,s:o,s:b,s:o,s:o,s:o,s:o}", "straggler",
                                               c->straggler, "algo", c->algo, "mode", c->mode, "runs", c->runs,
                                               "reached", c->reached, "seconds", real(c->median), "least",
                                               real(c->least), "most", real(c->most), "speedup", real(c->speedup),
                                               "speedup_at_least", (int)c->at_least, "wait_ms", real(c->wait_ms),
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

/* ---- the page -------------------------------------------------------------------------------------------- */

static void table(FILE *f, const bench *b) {
    char t[32], least[32], most[32], faster[32];
    fputs("<table><tr><th>straggler<th>algorithm<th>mode<th>to target, median<th>least to most<th>speed-up<th>wait, ms "
          "a task"
          "<th>updates<th>MB<th>processor</tr>\n",
          f);
    for (int k = 0; k < b->cell_count; k++) {
        const bench_cell *c = &b->cells[k];
        fputs("<tr><td>", f);
        bench_text(f, c->straggler);
        fprintf(f, "<td>%s<td>", c->algo);
        bench_text(f, c->mode);
        fprintf(f,
                "<td class=\"n\">%s%s<td class=\"n\">%s to %s<td class=\"n\">%s<td class=\"n\">%.3g<td "
                "class=\"n\">%.0f"
                "<td class=\"n\">%.1f<td class=\"n\">%.0f%%</tr>\n",
                c->reached < c->runs ? "&gt; " : "", bench_seconds(c->median, t), bench_seconds(c->least, least),
                bench_seconds(c->most, most), bench_faster(c, faster), c->wait_ms, c->updates, c->mb, 100 * c->cpu);
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

/* A plot goes into a file of its own, and into the page. */
typedef struct drawing {
    const bench *b;
    FILE *page;
    skald_status status;
} drawing;

static FILE *begin_drawing(char **svg, size_t *size) {
    *svg = NULL;
    return open_memstream(svg, size);
}

/* KIND-ALGO-STRAGGLER[-MODE].svg; what file names cannot hold becomes a dash. */
static void end_drawing(drawing *d, FILE *f, char **svg, const char *kind, const bench_cell *c, const char *mode) {
    char name[128], path[600];
    if (!f || fclose(f) != 0) {
        d->status = skald_fail(SKALD_ENOMEM, "out of memory");
        return;
    }
    snprintf(name, sizeof name, "%s-%s-%s%s%s", kind, c->algo, c->straggler, mode ? "-" : "", mode ? mode : "");
    for (char *p = name; *p; p++)
        if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-", *p)) *p = '-';
    fputs(*svg, d->page);
    snprintf(path, sizeof path, "%.400s/%s.svg", d->b->folder, name);
    FILE *file = **svg ? fopen(path, "we") : NULL;
    if (**svg && (!file || fputs(*svg, file) < 0)) d->status = skald_fail(SKALD_EIO, "%s: %s", path, strerror(errno));
    if (file && fclose(file) != 0) d->status = skald_fail(SKALD_EIO, "%s: cannot write it: %s", path, strerror(errno));
    free(*svg);
}

static void group(drawing *d, int first, int last) {
    const bench *b = d->b;
    FILE *f;
    char *svg;
    size_t size;
    fputs("<h2>", d->page);
    bench_text(d->page, b->cells[first].algo);
    fputs(", stragglers: ", d->page);
    bench_text(d->page, b->cells[first].straggler);
    fputs("</h2>\n<h3>Gap against time</h3>\n", d->page);
    if ((f = begin_drawing(&svg, &size))) bench_plot_gap(f, b, first, last);
    end_drawing(d, f, &svg, "gap", &b->cells[first], NULL);
    for (int c = first; c < last; c++) {
        fputs("<h3>", d->page);
        bench_text(d->page, b->cells[c].mode);
        fputs(": staleness, and what each worker did</h3>\n", d->page);
        if ((f = begin_drawing(&svg, &size))) bench_plot_stale(f, &b->cells[c], c - first);
        end_drawing(d, f, &svg, "staleness", &b->cells[c], b->cells[c].mode);
        if ((f = begin_drawing(&svg, &size))) bench_plot_lanes(f, b, &b->cells[c]);
        end_drawing(d, f, &svg, "lanes", &b->cells[c], b->cells[c].mode);
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

skald_status bench_report(const bench *b, const skald_options *options) {
    char path[512];
    TRY(write_json(b, options));
    snprintf(path, sizeof path, "%.400s/index.html", b->folder);
    FILE *f = fopen(path, "we");
    if (!f) return skald_fail(SKALD_EIO, "%s: %s", path, strerror(errno));
    fputs(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>skald bench</title><style>"
        "body{font:15px/1.4 sans-serif;max-width:900px;margin:2em auto;padding:0 1em;color:#222}"
        "table{border-collapse:collapse}td,th{padding:.2em .6em;border-bottom:1px solid #ccc;text-align:left}"
        ".n{text-align:right;font-variant-numeric:tabular-nums}svg{max-width:100%;height:auto;display:block}</style>\n"
        "<h1>skald bench</h1>\n<p>",
        f);
    bench_text(f, b->data);
    fprintf(
        f,
        ": %d workers, each task at least %d ms, to a gap (F &minus; F*) / F* of %g, F* = %.12g. Medians of %d runs; "
        "speed-ups are over the first mode. Evaluations are off the clock. Blue: computing; orange, hatched: held "
        "back; grey: waiting.</p>\n",
        (int)b->s->workers, (int)b->s->pace_ms, b->s->gap, b->optimum, (int)b->s->repeats);
    table(f, b);
    drawing d = {.b = b, .page = f};
    for (int k = 0, next; k < b->cell_count; k = next) {
        next = same_group(b, k);
        group(&d, k, next);
    }
    fputs("</html>\n", f);
    const bool failed = ferror(f) != 0;
    if (d.status != SKALD_OK) {
        fclose(f);
        return d.status;
    }
    return fclose(f) != 0 || failed ? skald_fail(SKALD_EIO, "%s: cannot write it: %s", path, strerror(errno))
                                    : SKALD_OK;
}
