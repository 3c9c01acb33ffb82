#include "cli/follow.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "cli/model_io.h"
#include "cli/remote.h"
#include "report/report.h"

static const int64_t SECOND = 1000000000;

/* Enough of a problem to write a model file. */
static skald_status write_model(const settings *s, const skald_status_view *v, const remote_model *model) {
    if (!v->has_problem) return skald_fail(SKALD_EPEER, "%s: the coordinator did not say what it trains", s->connect);
    if (v->scaled)
        return skald_fail(SKALD_EUNSUPPORTED,
                          "%s: this run scales its features, and only the coordinator knows how: give --model there",
                          s->connect);
    const uint32_t columns = v->features + (v->objective.intercept ? 1 : 0);
    if (!model->w || model->dim != skald_objective_length(&v->objective, columns))
        return skald_fail(SKALD_EPEER, "%s: a model of %u entries for %u features", s->connect, model->dim,
                          v->features);
    skald_label labels[SKALD_MAX_LABELS] = {0};
    for (uint32_t k = 0; k < v->label_count; k++) labels[k].value = v->labels[k];
    skald_problem problem = {.objective = v->objective,
                             .dim = columns,
                             .features = v->features,
                             .n = v->rows,
                             .transform = {.dim = v->features},
                             .labels = labels,
                             .label_count = v->label_count};
    TRY(model_save(s->model, &problem, model->w, v->zero_based, NULL));
    if (!s->quiet) printf("model written to %s\n", s->model);
    return SKALD_OK;
}

static void show(skald_progress_view *view, const skald_status_view *now, double *shown) {
    skald_progress_update(view, &now->progress);
    if (!view->lines || !isfinite(now->progress.last_objective) || now->progress.last_objective == *shown) return;
    char line[256];
    *shown = now->progress.last_objective; /* a line an evaluation */
    skald_progress_format(&now->progress, sizeof line - 1, line, sizeof line);
    fprintf(view->out, "%s\n", line);
}

int follow_run(const command *self, const settings *s) {
    skald_progress_view view;
    skald_status_view now = {0}, known = {0}; /* known: the last answer that said what is trained */
    remote_model model = {0};
    double shown = NAN;
    bool seen = false;
    if (s->model && check_output_path(s->model)) return report_failure(self);
    skald_progress_init(&view, stderr, (skald_progress_style)s->progress, s->quiet);

    skald_status st = SKALD_OK;
    while (st == SKALD_OK && !now.ended && !*signals_stop_flag()) {
        char *json = NULL;
        skald_status_view_free(&now);
        st = remote_status(s->connect, seen ? 5 * SECOND : s->wait, false, s->quiet, &json);
        if (st == SKALD_OK) st = skald_status_parse(json, &now);
        free(json);
        if (st != SKALD_OK) break;
        seen = true;
        if (now.has_problem) {
            free(known.labels); /* of what it owns, the labels go over */
            known = now;
            known.workers = NULL;
            now.labels = NULL;
        }
        show(&view, &now, &shown);
        if (!now.ended) nanosleep(&(struct timespec){.tv_nsec = 200000000}, NULL);
    }
    skald_progress_finish(&view);
    if (st != SKALD_OK && seen) skald_context(st, "the coordinator left before it said how the run ended");
    if (st == SKALD_OK && now.ended && s->model) {
        st = remote_fetch_model(s->connect, 5 * SECOND, &model);
        if (st == SKALD_OK) st = write_model(s, &known, &model);
    }
    if (st == SKALD_OK && now.ended && !s->quiet) skald_status_print(stdout, &now);
    int code = st != SKALD_OK ? report_failure(self)
               : !now.ended   ? EXIT_INTERRUPTED
               : now.reached  ? EXIT_DONE
                              : EXIT_STOPPED_SHORT;
    free(model.w);
    skald_status_view_free(&known);
    skald_status_view_free(&now);
    return code;
}
