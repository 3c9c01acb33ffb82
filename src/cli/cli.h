/* The command line: exit codes and the things several subcommands share. */
#ifndef SKALD_CLI_CLI_H
#define SKALD_CLI_CLI_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include "cli/arguments.h"
#include "skald/status.h"

/* Scripts rely on these. */
enum {
    EXIT_DONE = 0,          /* also: the target was reached */
    EXIT_FAILED = 1,        /* the reason is on stderr */
    EXIT_USAGE = 2,         /* unknown option, value out of range, arguments missing */
    EXIT_STOPPED_SHORT = 3, /* a limit (passes, time, updates) came before the target */
    EXIT_INTERRUPTED = 130  /* SIGINT or SIGTERM; the model was written */
};

#define EXIT_CODES_HELP                                                                                                \
    "Exit codes: 0 done (target reached), 1 failed, 2 usage error, 3 stopped by a limit before the target, 130 "       \
    "interrupted (the model is written).\n\n"

extern const command command_train, command_coordinator, command_worker, command_predict, command_evaluate,
    command_convert, command_generate, command_replay, command_simulate, command_status, command_drain, command_top,
    command_devices, command_version, command_what_if, command_bench, command_completion;

/* All of them, as `skald --help` lists them. */
const command *const *commands_all(size_t *count);

/* Prints "skald NAME: message of the last failure" to stderr; returns EXIT_FAILED. */
int report_failure(const command *self);

/* ---- signals (signals.c) ---- */

/* SIGINT and SIGTERM set the flag; a second one kills. SIGPIPE is ignored. */
void signals_install(void);
/* For workers started by `train`: Ctrl-C is the parent's business. */
void signals_ignore_interrupt(void);
/* The flag: non-zero once asked to stop. */
const atomic_int *signals_stop_flag(void);
/* Between on and off, the death of a child sets the flag too (told apart by signals_asked). */
void signals_watch_children(bool on);
/* Was it a person who asked to stop? */
bool signals_asked(void);

/* ---- small checks (checks.c) ---- */

/* SKALD_EINVAL when plain text would listen beyond this machine without --insecure. */
skald_status check_listen_address(const char *address, bool insecure);
/* SKALD_EIO when `path` cannot be written later: no such directory, not writable, a directory itself. */
skald_status check_output_path(const char *path);
/* Cores this process may use. */
int usable_cores(void);

#endif
