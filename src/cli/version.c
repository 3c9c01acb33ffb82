/* skald version: what this binary is. */
#include <stdio.h>

#include "cli/cli.h"
#include "skald/worker.h"

static const skald_option table[] = {{0}};

static int run(const command *self, int argc, char **argv) {
    arguments args;
    char nothing = 0;
    arguments_parse(self, argc, argv, &nothing, &args);
    const char *revision = SKALD_REVISION; /* empty unless the build was told */
    printf("skald %s%s%s (protocol %u)\n", SKALD_VERSION, *revision ? ", " : "", revision, SKALD_PROTOCOL);
    arguments_free(&args);
    return EXIT_DONE;
}

const command command_version = {
    .name = "version", .words = "", .summary = "print the version", .table = table, .run = run};
