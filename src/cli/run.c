#include "cli/run.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/model_io.h"
#include "skald/solver.h"

/* L_max / (l2 n) above this takes many passes (see choose.c). */
static const double SLOW_CONDITION = 3;

static void complain(void *user, const char *text) {
    run *r = user;
    skald_progress_notice(&r->view, text);
}

static skald_status serve(run *r) {
    char url[300], text[320];
    TRY(skald_page_open(r->s->http, r->s->http_insecure, &r->page, url, sizeof url));
    skald_page_stage(r->page, "gathering");
    snprintf(text, sizeof text, "the live page: %s", url);
    skald_progress_notice(&r->view, text);
    return SKALD_OK;
}

skald_status run_open(run *r, const command *self, const settings *s, const arguments *args, const char *data) {
    *r = (run){.self = self, .s = s, .args = args, .data = data, .workers = s->workers};
    r->begin_ns = skald_now_ns(skald_clock_system());
    if (settings_resolve(s, &args->options, data, &r->t)) arguments_error(self, "%s", skald_error());
    const char *export_path = NULL;
    if (s->export_path && model_export_path(s->export_path, &export_path)) arguments_error(self, "%s", skald_error());
    if (s->http && skald_page_check(s->http, s->http_insecure)) arguments_error(self, "%s", skald_error());
    skald_progress_init(&r->view, stderr, (skald_progress_style)s->progress, s->quiet);
    /* now, not after hours of training */
    if (s->model) TRY(check_output_path(s->model));
    if (export_path) TRY(check_output_path(export_path));
    if (s->record) TRY(check_output_path(s->record));
    if (s->log) TRY(skald_runlog_open(&r->log, s->log, complain, r));
    const skald_status st = checkpointing_open(&r->kept, s, &r->t);
    if (st == SKALD_EINVAL) arguments_error(self, "%s", skald_error());
    return st == SKALD_OK && s->http ? serve(r) : st;
}

int run_close(run *r, int code) {
    skald_page_close(r->page);
    const bool kept = r->kept.writer != NULL;
    if (checkpointing_close(&r->kept) != SKALD_OK) {
        report_failure(r->self);
        if (signals_terminated()) code = EXIT_FAILED;
    } else if (kept && code == EXIT_INTERRUPTED) {
        const char *path = r->s->checkpoint ? r->s->checkpoint : r->s->resume;
        if (!r->s->quiet) fprintf(stderr, "skald: %s has it all; --resume %s goes on\n", path, path);
        if (signals_terminated()) code = EXIT_DONE;
    }
    settings_release(&r->t);
    skald_runlog_close(&r->log);
    return code;
}

/* The log's first line needs facts that are known only once training is under way (L). */
static void start_log(run *r) {
    if (r->log_started || !r->crew) return;
    r->log_started = true;
    skald_runlog_start(&r->log, &r->args->options, r->data, r->crew->problem, r->crew, r->t.train.chosen);
}

void run_notice(void *user, const char *text) {
    run *r = user;
    skald_progress_notice(&r->view, text);
    if (r->page) skald_page_notice(r->page, text);
    if (r->crew) {
        start_log(r);
        double seconds = (double)(skald_now_ns(skald_clock_system()) - r->begin_ns) * 1e-9;
        skald_runlog_notice(&r->log, seconds, text);
    }
}

static void on_progress(void *user, const skald_progress *p) {
    run *r = user;
    start_log(r);
    skald_progress_update(&r->view, p);
    if (r->page) skald_page_progress(r->page, p);
}

static void on_task(void *user, const skald_task_seen *t) {
    skald_page_task(((run *)user)->page, t);
}

static bool on_table_due(void *user) {
    return skald_page_due(((run *)user)->page);
}

static void on_table(void *user, char *json) {
    skald_page_table(((run *)user)->page, json);
}

static void on_evaluation(void *user, const skald_evaluation *e) {
    run *r = user;
    start_log(r);
    skald_progress_evaluation(&r->view, e);
    skald_runlog_evaluation(&r->log, e);
    if (r->page) skald_page_evaluation(r->page, e);
}

/* Who computes what; with processes the coordinator has told the shape of the data already. */
static void describe(run *r, const skald_crew *crew) {
    const skald_problem *p = crew->problem;
    uint32_t workers = crew->ops->size(crew);
    char text[512];
    if (r->workers == 0) {
        snprintf(text, sizeof text, "%.0f rows x %u columns, %s, computed here", p->n, p->features,
                 p->dense ? "dense" : "sparse");
        skald_progress_notice(&r->view, text);
    }
    if (r->t.chosen[0]) {
        char chosen[sizeof r->t.chosen + 10];
        snprintf(chosen, sizeof chosen, "chosen: %s", r->t.chosen);
        skald_progress_notice(&r->view, chosen);
    }
    for (uint32_t k = 0; k < workers && workers <= 16; k++) {
        const skald_member *m = crew->ops->member(crew, k);
        snprintf(text, sizeof text, "%s: %s, %llu rows in %u shard%s", m->name, m->device, (unsigned long long)m->rows,
                 m->shard_count, m->shard_count == 1 ? "" : "s");
        skald_progress_notice(&r->view, text);
    }
    if (r->why_no_card[0]) {
        snprintf(text, sizeof text, "computing on the CPU: %s", r->why_no_card);
        run_notice(r, text);
    }
    char warnings[sizeof p->warnings];
    memcpy(warnings, p->warnings, sizeof warnings);
    char *rest = NULL;
    for (char *line = strtok_r(warnings, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        snprintf(text, sizeof text, "warning: %.480s", line);
        run_notice(r, text);
    }
}

static skald_status write_model(run *r, const skald_problem *problem, const skald_outcome *outcome) {
    if (r->s->model) {
        TRY(model_save(r->s->model, problem, outcome->w, skald_problem_zero_based_text(problem), &outcome->last));
        if (!r->s->quiet) printf("model written to %s\n", r->s->model);
    }
    if (r->s->export_path) {
        const char *path;
        TRY(model_export_path(r->s->export_path, &path));
        TRY(model_export(path, problem, outcome->w));
        if (!r->s->quiet) printf("model exported to %s\n", path);
    }
    return SKALD_OK;
}

int run_failed(run *r, skald_status st, const skald_problem *problem, const skald_outcome *outcome) {
    static const skald_outcome nothing = {.audit_drift = -1};
    skald_progress_finish(&r->view);
    skald_runlog_end(&r->log, problem, outcome ? outcome : &nothing, skald_error());
    if (r->page) skald_page_end(r->page, NULL, skald_error());
    report_failure(r->self);
    /* a supervisor ends the workers too, which may be quicker */
    const bool together = st == SKALD_ELOST && signals_terminated() && r->kept.writer;
    return st == SKALD_INTERRUPTED || together ? EXIT_INTERRUPTED : EXIT_FAILED;
}

static void on_merged(void *user, const skald_merged *m) {
    run *r = user;
    if (r->recorder) skald_recorder_merged(r->recorder, m);
    if (r->replay) skald_replay_merged(r->replay, m);
}

/* Trains, in between a recorder if one is asked for. */
static skald_status train_on_record(run *r, skald_crew *crew, const skald_observer *observer, skald_outcome *outcome) {
    const skald_solver solver = skald_solver_of(r->t.train.algo);
    skald_clock *clock = r->clock ? r->clock : skald_clock_system();
    const atomic_int *stop = r->stop ? r->stop : signals_stop_flag();
    if (!r->s->record) return skald_train(crew, solver, &r->t.train, clock, observer, stop, outcome);
    char error[1024];
    const skald_recording what = {.path = r->s->record,
                                  .command = r->self->name,
                                  .data = r->data,
                                  .options = &r->args->options,
                                  .floats = r->workers != 0};
    TRY(skald_recorder_open(&what, crew, clock, stop, &r->recorder));
    const skald_status st =
        skald_train(skald_recorder_crew(r->recorder), solver, &r->t.train, skald_recorder_clock(r->recorder), observer,
                    skald_recorder_stop(r->recorder), outcome);
    snprintf(error, sizeof error, "%s", skald_error());
    const skald_status kept = skald_recorder_close(r->recorder, outcome, st != SKALD_OK ? error : NULL);
    r->recorder = NULL;
    return st != SKALD_OK ? skald_fail(st, "%s", error) : kept;
}

/* A limit came before the target: which one, how far it is, what helps. */
static void say_what_lacks(run *r, const skald_problem *p, const skald_outcome *o) {
    const skald_train_options *t = &r->t.train;
    const skald_evaluation *e = &o->last;
    const double gap = e->relative_gap, gradient = e->gradient_norm;
    const bool passes = o->stop == SKALD_STOP_PASSES;
    char limit[80] = "", far[120] = "", text[512];
    if (o->stop != SKALD_STOP_PASSES && o->stop != SKALD_STOP_TIME && o->stop != SKALD_STOP_UPDATES) return;
    if (passes)
        snprintf(limit, sizeof limit, "%s%g passes", r->t.choose_passes ? "the default limit of " : "--max-passes, ",
                 t->max_passes);
    else if (o->stop == SKALD_STOP_TIME)
        snprintf(limit, sizeof limit, "--max-time, %g s", t->max_seconds);
    else
        snprintf(limit, sizeof limit, "--max-updates, %llu", (unsigned long long)t->max_updates);
    if (t->target_gap > 0 && !isfinite(gap))
        snprintf(far, sizeof far, "no gap is certified yet, %g was asked for", t->target_gap);
    else if (t->target_gap > 0)
        snprintf(far, sizeof far, "a gap of %.2g is certified, %g was asked for", gap, t->target_gap);
    else if (t->target_decrement > 0 && t->algo == SKALD_NEWTON)
        snprintf(far, sizeof far, "F is about %.2g of itself from the optimum, %g was asked for", e->decrement,
                 t->target_decrement);
    else if (t->target_gradient > 0)
        snprintf(far, sizeof far, "|grad| is %.2g, %g was asked for", gradient, t->target_gradient);
    else
        snprintf(far, sizeof far, "F is %.10g, %.10g was asked for", e->objective, t->target_objective);
    const bool scale = r->s->scale == 0 && p->L_max > SLOW_CONDITION * p->n * p->objective.l2;
    const char *const option = passes ? "--max-passes" : o->stop == SKALD_STOP_TIME ? "--max-time" : "--max-updates";
    snprintf(text, sizeof text, "stopped by %s: %s; a higher %s%s goes further%s", limit, far, option,
             r->kept.writer ? " with --resume" : "", scale ? ", --scale or a larger --l2 arrives sooner" : "");
    run_notice(r, text);
}

int run_train(run *r, skald_crew *crew, skald_outcome *outcome, skald_status *st) {
    r->crew = crew;
    training_choose(&r->t, crew->problem, crew->ops->size(crew));
    describe(r, crew);
    if (r->page) skald_page_stage(r->page, "starting");
    const bool merged = r->s->record || r->replay;
    const skald_observer observer = {.user = r,
                                     .evaluation = on_evaluation,
                                     .progress = on_progress,
                                     .merged = merged ? on_merged : NULL,
                                     .notice = run_notice,
                                     .task = r->page ? on_task : NULL,
                                     .table_due = r->page ? on_table_due : NULL,
                                     .table = r->page ? on_table : NULL};
    *st = train_on_record(r, crew, &observer, outcome);
    start_log(r);
    skald_progress_finish(&r->view);
    if (*st != SKALD_OK) return EXIT_FAILED;

    if (r->page) skald_page_end(r->page, skald_outcome_status(&r->t.train, crew->problem, outcome), NULL);
    if (!r->s->quiet) skald_summary_print(stdout, outcome);
    if (!outcome->reached) say_what_lacks(r, crew->problem, outcome);
    *st = write_model(r, crew->problem, outcome);
    if (*st != SKALD_OK) return EXIT_FAILED;
    skald_runlog_end(&r->log, crew->problem, outcome, NULL);
    if (outcome->stop == SKALD_STOP_INTERRUPTED) return EXIT_INTERRUPTED;
    return outcome->reached ? EXIT_DONE : EXIT_STOPPED_SHORT;
}
