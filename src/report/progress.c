#include "report/report.h"

#include <math.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

char *skald_count_format(double value, char *out, size_t size) {
    static const char units[] = {' ', 'k', 'M', 'G', 'T', 'P'};
    size_t unit = 0;
    while (fabs(value) >= 999.5 && unit + 1 < sizeof units) {
        value /= 1000;
        unit++;
    }
    int digits = unit > 0 && fabs(value) < 9.95 ? 1 : 0;
    int length = snprintf(out, size, "%.*f", digits, value);
    if (unit && length > 0 && (size_t)length + 1 < size) {
        out[length] = units[unit];
        out[length + 1] = '\0';
    }
    return out;
}

/* Adds a field if it still fits; later fields are less needed. */
static void add_field(char *line, size_t *used, size_t width, const char *field) {
    size_t gap = *used ? 2 : 0, length = strlen(field);
    if (length == 0 || *used + gap + length > width) return;
    memset(line + *used, ' ', gap);
    memcpy(line + *used + gap, field, length + 1);
    *used += gap + length;
}

size_t skald_progress_format(const skald_progress *p, size_t width, char *out, size_t size) {
    size_t used = 0;
    char field[128], count[32];
    if (size == 0) return 0;
    if (width > size - 1) width = size - 1;
    out[0] = '\0';

    snprintf(field, sizeof field, "pass %.1f", p->passes);
    add_field(out, &used, width, field);
    if (isfinite(p->estimated_objective)) {
        snprintf(field, sizeof field, "F ~%.7g", p->estimated_objective); /* ~: from batches, not evaluated */
        add_field(out, &used, width, field);
    } else if (isfinite(p->last_objective)) {
        snprintf(field, sizeof field, "F %.7g", p->last_objective);
        add_field(out, &used, width, field);
    }
    if (isfinite(p->last_gap)) {
        snprintf(field, sizeof field, "gap %.1e", p->last_gap);
        add_field(out, &used, width, field);
    }
    snprintf(field, sizeof field, "%s rows/s", skald_count_format(p->rows_per_s, count, sizeof count));
    add_field(out, &used, width, field);
    snprintf(field, sizeof field, "%s updates/s", skald_count_format(p->updates_per_s, count, sizeof count));
    add_field(out, &used, width, field);
    snprintf(field, sizeof field, "stale %.1f/%llu", p->staleness_mean, (unsigned long long)p->staleness_max);
    add_field(out, &used, width, field);
    if (p->slowest != UINT32_MAX) {
        snprintf(field, sizeof field, "slowest %.60s %.1fx", p->slowest_name, p->slowest_ratio);
        add_field(out, &used, width, field);
    }
    snprintf(field, sizeof field, "%.1f s", p->seconds);
    add_field(out, &used, width, field);
    return used;
}

size_t skald_evaluation_format(const skald_evaluation *e, char *out, size_t size) {
    char gap[48] = "", accuracy[48] = "";
    if (isfinite(e->relative_gap)) snprintf(gap, sizeof gap, "  gap %.2e", e->relative_gap);
    if (isfinite(e->accuracy)) snprintf(accuracy, sizeof accuracy, "  accuracy %.4f", e->accuracy);
    int length = snprintf(out, size, "pass %7.2f  %8.2f s  F %.10g%s  |grad| %.2e%s", e->passes, e->seconds,
                          e->objective, gap, e->gradient_norm, accuracy);
    return length < 0 ? 0 : (size_t)length < size ? (size_t)length : size - 1;
}

void skald_progress_init(skald_progress_view *view, FILE *out, skald_progress_style style, bool quiet) {
    bool terminal = isatty(fileno(out));
    *view = (skald_progress_view){.out = out, .quiet = quiet};
    if (quiet || style == SKALD_PROGRESS_NONE) return;
    view->live = style == SKALD_PROGRESS_LIVE || (style == SKALD_PROGRESS_AUTO && terminal);
    view->lines = !view->live;
}

static size_t width_of(FILE *out) {
    struct winsize size;
    if (ioctl(fileno(out), TIOCGWINSZ, &size) == 0 && size.ws_col > 1) return size.ws_col - 1u;
    return 79; /* the last column stays free: some terminals wrap when it is written */
}

void skald_progress_finish(skald_progress_view *view) {
    if (!view->line_shown) return;
    fputs("\r\033[K", view->out);
    fflush(view->out);
    view->line_shown = false;
}

void skald_progress_update(skald_progress_view *view, const skald_progress *p) {
    if (!view->live) return;
    char line[256];
    skald_progress_format(p, width_of(view->out), line, sizeof line);
    fprintf(view->out, "\r%s\033[K", line);
    fflush(view->out);
    view->line_shown = true;
}

void skald_progress_evaluation(skald_progress_view *view, const skald_evaluation *e) {
    if (!view->lines) return;
    char line[256];
    skald_evaluation_format(e, line, sizeof line);
    fprintf(view->out, "%s\n", line);
    fflush(view->out);
}

void skald_progress_notice(skald_progress_view *view, const char *text) {
    if (view->quiet) return;
    skald_progress_finish(view);
    fprintf(view->out, "skald: %s\n", text);
    fflush(view->out);
}
