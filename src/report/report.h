/* Reports: what a run shows on a terminal, in its log and at its end. Everything writes to a FILE it is given.
 * One thread (the owner), except where said. */
#ifndef SKALD_REPORT_REPORT_H
#define SKALD_REPORT_REPORT_H

#include <stdbool.h>
#include <stdio.h>

#include "base/options.h"
#include "skald/problem.h"
#include "skald/train.h"

/* ---- progress: one live line on a terminal, plain lines elsewhere ----------------------------------- */

typedef enum skald_progress_style {
    SKALD_PROGRESS_AUTO = 0, /* live on a terminal, else line */
    SKALD_PROGRESS_LINE,     /* a line an evaluation */
    SKALD_PROGRESS_LIVE,     /* one line that rewrites itself */
    SKALD_PROGRESS_NONE      /* notices only */
} skald_progress_style;

typedef struct skald_progress_view {
    FILE *out;
    bool live, lines, quiet;
    bool line_shown; /* a live line is on the screen */
} skald_progress_view;

/* quiet: not even notices. */
void skald_progress_init(skald_progress_view *view, FILE *out, skald_progress_style style, bool quiet);
void skald_progress_update(skald_progress_view *view, const skald_progress *p);
void skald_progress_evaluation(skald_progress_view *view, const skald_evaluation *e);
void skald_progress_notice(skald_progress_view *view, const char *text);
/* Takes the live line off the screen. */
void skald_progress_finish(skald_progress_view *view);

/* The live line, at most `width` columns: fields that do not fit are left out, the least needed first. Returns its
 * length; out holds at least width + 1. */
size_t skald_progress_format(const skald_progress *p, size_t width, char *out, size_t size);
size_t skald_evaluation_format(const skald_evaluation *e, char *out, size_t size);

/* ---- run log: one JSON object a line ------------------------------------------------------------------ */

typedef struct skald_runlog {
    FILE *file;       /* NULL: no log */
    const char *path; /* the caller's */
    bool failed;      /* a write failed; it has been said, nothing more is written */
    void (*complain)(void *user, const char *text);
    void *user;
} skald_runlog;

/* Truncates. SKALD_EIO. complain is called once, should a later write fail. */
skald_status skald_runlog_open(skald_runlog *log, const char *path, void (*complain)(void *user, const char *text),
                               void *user);
/* chosen: as in skald_train_options. */
void skald_runlog_start(skald_runlog *log, const skald_options *options, const char *data, const skald_problem *problem,
                        const skald_crew *crew, const char *chosen);
void skald_runlog_evaluation(skald_runlog *log, const skald_evaluation *e);
void skald_runlog_notice(skald_runlog *log, double seconds, const char *text);
/* error: NULL, or why the run ended early. */
void skald_runlog_end(skald_runlog *log, const skald_problem *problem, const skald_outcome *outcome, const char *error);
void skald_runlog_close(skald_runlog *log);
/* What `skald status` is told once the run is over: like the engine's answer while it goes on, with "state": "ended".
 * free() it; NULL when out of memory. */
char *skald_outcome_status(const skald_train_options *options, const skald_problem *problem,
                           const skald_outcome *outcome);

/* ---- the end, and the status table ---------------------------------------------------------------------- */

void skald_summary_print(FILE *out, const skald_outcome *outcome);
void skald_worker_table(FILE *out, const skald_worker_row *rows, uint32_t count);
/* A line of `skald top` about a worker (NULL: the heading), at most `width` columns; 80 hold all but the parts of its
 * time, 120 hold those too. */
void skald_top_line(const skald_worker_row *row, size_t width, char *out, size_t size);

/* What `skald top` can sort by. */
typedef enum skald_top_key {
    SKALD_TOP_NUMBER = 0, /* as they joined */
    SKALD_TOP_NAME,
    SKALD_TOP_STATE,
    SKALD_TOP_TASKS,
    SKALD_TOP_STALE,
    SKALD_TOP_TASK,
    SKALD_TOP_P95,
    SKALD_TOP_WAIT,
    SKALD_TOP_SLOWDOWN,
    SKALD_TOP_KEYS
} skald_top_key;
const char *skald_top_title(skald_top_key key);         /* as in the heading */
bool skald_top_letter(char letter, skald_top_key *key); /* false: no key of sorting has it; *key is left */
/* Numbers of the rows that have `filter` (NULL, "": any) in name, device, state or cause, letters' case aside, in
 * order; equals as they joined. out holds `count`; returns how many. */
uint32_t skald_top_order(const skald_worker_row *rows, uint32_t count, skald_top_key key, bool down, const char *filter,
                         uint32_t *out);

/* Lines of skald_slow_text, at most `most` and then how many more. */
void skald_slow_list(FILE *out, const skald_worker_row *rows, uint32_t count, uint32_t most);

/* A StatusReply as parsed; free with skald_status_view_free. */
typedef struct skald_status_view {
    char run[64], state[32], mode[64], algo[16];
    uint64_t term, version, updates, available, in_flight, applied, shortened, folded, rejected;
    double coverage;         /* share of the rows drawn at least once; NaN: not told */
    skald_progress progress; /* passes, seconds, rates, staleness, last objective and gap */
    skald_worker_row *workers;
    uint32_t worker_count;
    uint64_t joined, wanted; /* while it gathers: workers that are there, and that it waits for */
    bool ended, reached;     /* the run is over; as skald_outcome.reached */
    bool audited;
    uint32_t audit_shards;
    double audit_drift;
    bool has_problem; /* the rest: what is being trained */
    skald_objective objective;
    uint32_t features, label_count;
    double rows, *labels; /* label_count, owned */
    bool scaled, zero_based;
} skald_status_view;

/* SKALD_EPEER when the text is not what a coordinator sends. */
skald_status skald_status_parse(const char *json, skald_status_view *out);
void skald_status_view_free(skald_status_view *view);
void skald_status_print(FILE *out, const skald_status_view *view);

/* 1234567 -> "1.2M"; returns out. */
char *skald_count_format(double value, char *out, size_t size);

#endif
