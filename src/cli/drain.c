/* skald drain: a worker leaves a run that goes on. */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/cli.h"
#include "cli/remote.h"
#include "cli/security.h"

typedef struct values {
    const char *connect;
    int64_t wait;
    bool json;
    security security;
} values;

#define AT(member) offsetof(values, member)

/* clang-format off */
static const skald_option table[] = {
    {"connect", SKALD_OPTION_TEXT, AT(connect), "127.0.0.1:7700", .value = "ADDRESS",
     .help = "The coordinator: HOST:PORT or unix:/PATH"},
    {"wait", SKALD_OPTION_DURATION, AT(wait), "10m", 0, 1e8, .help = "How long to wait until it has left"},
    SECURITY_OPTIONS,
    {"json", SKALD_OPTION_FLAG, AT(json), .help = "The answer as a JSON object"},
    {0},
};
/* clang-format on */

static int run(const command *self, int argc, char **argv) {
    values v = {0};
    arguments args;
    arguments_parse(self, argc, argv, &v, &args);
    char *json = NULL;
    secrets files;
    skald_status st = secrets_read(&v.security, &files);
    if (st == SKALD_OK && !v.json)
        fprintf(stderr, "skald drain: waiting up to %.3g s until the others have the rows of %s\n",
                (double)v.wait * 1e-9, args.words[0]);
    if (st == SKALD_OK) st = remote_drain(v.connect, &files.net, v.wait, args.words[0], &json);
    secrets_free(&files);
    if (st == SKALD_OK && v.json) puts(json);
    if (st == SKALD_OK && !v.json) printf("worker %s has left\n", args.words[0]);
    free(json);
    arguments_free(&args);
    return st == SKALD_OK ? EXIT_DONE : report_failure(self);
}

const command command_drain = {
    .name = "drain",
    .words = "WORKER",
    .summary = "let a worker leave a run that goes on",
    .about = "Has the coordinator at ADDRESS move all rows of WORKER (its name, or its number, as 'skald status' shows "
             "them) to the others, and then tells it to go. Nothing that it has computed is lost. Returns when it has "
             "left; its process ends with exit code 0. With TLS or tokens it takes an operator's.",
    .notes = "For example:\n\n"
             "  skald drain --connect node1:7700 node7:4711\n\n",
    .table = table,
    .least_words = 1,
    .most_words = 1,
    .run = run,
};
