/* skald worker: joins a coordinator and computes for it until told that the run is over. */
#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/straggler.h"
#include "cli/cli.h"
#include "cli/settings.h"
#include "skald/worker.h"

typedef struct values {
    const char *connect, *device, *name, *isa, *straggler;
    int64_t threads, wait, leave, pace_ms, parent;
    int storage, resident;
    bool deterministic, quiet;
    security security;
} values;

#define AT(member) offsetof(values, member)

/* clang-format off */
static const skald_option table[] = {
    {"connect", SKALD_OPTION_TEXT, AT(connect), "127.0.0.1:7700", .value = "ADDRESS",
     .help = "The coordinator: HOST:PORT or unix:/PATH"},
    {"wait", SKALD_OPTION_DURATION, AT(wait), "1m", 0, 1e8, .help = "How long to wait for it, also when the connection breaks"},
    {"leave-within", SKALD_OPTION_DURATION, AT(leave), "30s", 0, 1e6,
     .help = "Ended by SIGTERM or Ctrl-C: how long others may take to take over its rows; 0: it goes at once"},
    {"threads", SKALD_OPTION_INT, AT(threads), "1", 1, 1024, .help = "Threads; each runs its own tasks"},
    COMPUTE_OPTIONS,
    {"name", SKALD_OPTION_TEXT, AT(name), .help = "What to be called in tables and messages (default HOST:PID)"},
    {"quiet", SKALD_OPTION_FLAG, AT(quiet), .help = "Nothing but errors"},
    SECURITY_OPTIONS,
    {"parent", SKALD_OPTION_INT, AT(parent), "0", 0, 1e9, .help = "End when this process, which started us, ends",
     .hidden = true},
    {"straggler", SKALD_OPTION_TEXT, AT(straggler), .value = "MODEL,...",
     .help = "Be slow on purpose, as 'skald help train' says; without it, as the coordinator was told"},
    {"pace", SKALD_OPTION_INT, AT(pace_ms), "0", 0, 60000, .value = "MS",
     .help = "Take at least so many milliseconds a task, by waiting; 0: as the coordinator was told"},
    {"isa", SKALD_OPTION_TEXT, AT(isa), .help = "portable, avx2 or avx512", .hidden = true},
    {0},
};
/* clang-format on */

static void on_notice(void *user, const char *text) {
    const values *v = user;
    if (!v->quiet) fprintf(stderr, "skald worker: %s\n", text);
}

/* A worker of `skald train` must not outlive it, and leaves Ctrl-C to it. */
static bool bind_to_parent(pid_t parent) {
    signals_ignore_interrupt();
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    return getppid() == parent; /* it may have ended before the line above */
}

/* "fd:3": the address is read from there, once the parent knows it. Returns false if it never comes. */
static bool read_address(const char *where, char *out, size_t size) {
    int fd = atoi(where + 3);
    size_t used = 0;
    while (used + 1 < size) {
        ssize_t got = read(fd, out + used, size - 1 - used);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) break;
        used += (size_t)got;
    }
    out[used] = '\0';
    close(fd);
    return used > 0;
}

static int run(const command *self, int argc, char **argv) {
    values v = {0};
    arguments args;
    char address[256];
    arguments_parse(self, argc, argv, &v, &args);
    signals_install();
    skald_stragglers models;
    skald_status understood = skald_stragglers_parse(v.straggler, &models);
    skald_stragglers_free(&models);
    if (understood != SKALD_OK) arguments_error(self, "%s", skald_error());
    if (v.parent && !bind_to_parent((pid_t)v.parent)) return EXIT_FAILED;
    if (strncmp(v.connect, "fd:", 3) == 0) {
        if (!read_address(v.connect, address, sizeof address)) return EXIT_FAILED;
        v.connect = address;
    }
    secrets files;
    if (secrets_read(&v.security, &files) != SKALD_OK) return report_failure(self);
    skald_worker_options options = {.address = v.connect,
                                    .data_path = args.words[0],
                                    .name = v.name,
                                    .net = {.security = &files.net},
                                    .compute = {.device = v.device,
                                                .threads = (int)v.threads,
                                                .isa = v.isa,
                                                .storage = (skald_storage_kind)v.storage,
                                                .resident = (skald_resident)v.resident,
                                                .deterministic = v.deterministic},
                                    .wait_ns = v.wait,
                                    .leave_ns = v.leave,
                                    .pace_ms = (int)v.pace_ms,
                                    .straggler = v.straggler,
                                    .notice = on_notice,
                                    .user = &v};
    options.collective = skald_compute_collective(&options.compute, &options.collective_device);
    if (!v.quiet)
        fprintf(stderr, "skald worker: joining %s (waiting for it up to %.3g s)\n", v.connect, (double)v.wait * 1e-9);
    skald_status st = skald_worker_run(skald_net_grpc(), &options, signals_stop_flag());
    int code = st == SKALD_OK ? EXIT_DONE : st == SKALD_INTERRUPTED ? EXIT_INTERRUPTED : report_failure(self);
    secrets_free(&files);
    arguments_free(&args);
    return code;
}

const command command_worker = {
    .name = "worker",
    .words = "[DATA]",
    .summary = "join a coordinator and compute for it",
    .about =
        "Joins the coordinator at ADDRESS and computes for it until the run is over. DATA is this machine's copy of "
        "the data file, when it does not lie where the coordinator says; a copy that differs is refused.",
    .notes = "For example:\n\n"
             "  skald worker --connect node1:7700 --threads 16\n"
             "  skald worker --connect node1:7700 --name fast-one /scratch/train.h5\n\n"
             "Exit codes: 0 the run ended in order, 1 failed (also: no coordinator within --wait), 2 usage error, 130 "
             "interrupted (others have its rows then, if there was time).\n\n",
    .table = table,
    .most_words = 1,
    .run = run,
};
