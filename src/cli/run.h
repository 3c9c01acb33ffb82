/* One training run, whoever computes: shows it, logs it, writes its model. */
#ifndef SKALD_CLI_RUN_H
#define SKALD_CLI_RUN_H

#include "cli/checkpointing.h"
#include "cli/cli.h"
#include "cli/settings.h"
#include "http/http.h"
#include "replay/replay.h"
#include "report/report.h"

typedef struct run {
    const command *self;
    const settings *s;
    const arguments *args;
    const char *data;
    training t;
    checkpointing kept;
    skald_progress_view view;
    skald_runlog log;
    skald_page *page; /* NULL: no --http */
    skald_crew *crew; /* while training */
    bool log_started;
    int64_t begin_ns;
    int64_t workers;          /* processes, 0: this one computes; where `auto` is allowed, what it came to */
    char why_no_card[256];    /* when auto meant the CPU although the CUDA plugin is there; else "" */
    skald_recorder *recorder; /* while training, with --record */
    skald_replay *replay;     /* set by `replay`: what is trained is a record */
    skald_clock *clock;       /* NULL: the system's */
    const atomic_int *stop;   /* NULL: signals */
} run;

/* Resolves the settings, checks that what is to be written can be, opens the log. Usage errors end the process. */
skald_status run_open(run *r, const command *self, const settings *s, const arguments *args, const char *data);
/* A line for people, and into the log. `user` is the run: fits skald_observer.notice and the coordinator's. */
void run_notice(void *user, const char *text);
/* Trains, prints the summary, writes the model. Returns the exit code; *outcome (freed by the caller) as far as it
 * got. A failure is returned in *st and not yet reported, so that the caller can say more. */
int run_train(run *r, skald_crew *crew, skald_outcome *outcome, skald_status *st);
/* Reports the failure `st` (with the message of the last skald_fail), also into the log. Returns the exit code. */
int run_failed(run *r, skald_status st, const skald_problem *problem, const skald_outcome *outcome);
/* After the workers have gone. Waits for the last checkpoint; returns the exit code, `code` but for what that changes.
 */
int run_close(run *r, int code);

#endif
