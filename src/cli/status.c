/* skald status: what a running coordinator is doing. */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/remote.h"
#include "cli/security.h"
#include "report/report.h"

typedef struct values {
    const char *connect;
    int64_t wait;
    bool json, audit;
    security security;
} values;

#define AT(member) offsetof(values, member)

/* clang-format off */
static const skald_option table[] = {
    {"connect", SKALD_OPTION_TEXT, AT(connect), "127.0.0.1:7700", .value = "ADDRESS",
     .help = "The coordinator: HOST:PORT or unix:/PATH"},
    {"wait", SKALD_OPTION_DURATION, AT(wait), "10s", 0, 1e8, .help = "How long to wait for its answer"},
    SECURITY_OPTIONS,
    {"json", SKALD_OPTION_FLAG, AT(json), .help = "The JSON object as it came, instead of a table"},
    {"audit", SKALD_OPTION_FLAG, AT(audit),
     .help = "Have every worker add up its history from scratch and compare it with the coordinator's"},
    {0},
};
/* clang-format on */

/* Why the answer has no audit in it. */
static skald_status no_audit(const skald_status_view *v) {
    if (strcmp(v->state, "training") != 0)
        return skald_fail(SKALD_EUNAVAILABLE, "no audit: the run is %s, and only one that trains can be audited",
                          v->state);
    if (strcmp(v->algo, "saga") != 0 && strcmp(v->algo, "newton") != 0)
        return skald_fail(SKALD_EUNAVAILABLE, "no audit: %s keeps no history that could be compared", v->algo);
    return skald_fail(SKALD_EUNAVAILABLE, "no audit: somebody else's is under way; ask again");
}

static int run(const command *self, int argc, char **argv) {
    values v = {0};
    arguments args;
    arguments_parse(self, argc, argv, &v, &args);
    char *json = NULL;
    skald_status_view view = {0};
    secrets files;
    skald_status st = secrets_read(&v.security, &files);
    if (st == SKALD_OK) st = remote_status(v.connect, &files.net, v.wait, v.audit, false, &json);
    secrets_free(&files);
    if (st == SKALD_OK && v.json) puts(json);
    if (st == SKALD_OK && (!v.json || v.audit)) st = skald_status_parse(json, &view);
    if (st == SKALD_OK && !v.json) skald_status_print(stdout, &view);
    if (st == SKALD_OK && v.audit && !view.audited) st = no_audit(&view);
    skald_status_view_free(&view);
    free(json);
    arguments_free(&args);
    return st == SKALD_OK ? EXIT_DONE : report_failure(self);
}

const command command_status = {
    .name = "status",
    .words = "",
    .summary = "show what a running coordinator is doing",
    .about = "Asks the coordinator at ADDRESS for the state of its run and of every worker.",
    .notes = "For example:\n\n"
             "  skald status --connect node1:7700\n"
             "  skald status --connect unix:/run/skald.sock --audit --json\n\n"
             "The README says what the columns mean.\n\n",
    .table = table,
    .run = run,
};
