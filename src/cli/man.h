/* Manual pages, from the same tables as --help. */
#ifndef SKALD_CLI_MAN_H
#define SKALD_CLI_MAN_H

#include <stdio.h>

#include "cli/arguments.h"

/* skald-COMMAND(1); about NULL: skald(1), which lists the commands. */
void man_page(FILE *f, const command *about, const command *const *all, size_t count);
/* All of them into a folder, which is made: skald.1, skald-train.1, ... SKALD_EIO. */
skald_status man_folder(const char *folder, const command *const *all, size_t count);

#endif
