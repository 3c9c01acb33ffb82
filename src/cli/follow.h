/* skald train --connect: follow a run that a coordinator elsewhere conducts. */
#ifndef SKALD_CLI_FOLLOW_H
#define SKALD_CLI_FOLLOW_H

#include "cli/cli.h"
#include "cli/settings.h"

/* Shows the run's progress until it ends, then writes its model to s->model, if given. Returns the exit code. */
int follow_run(const command *self, const settings *s);

#endif
