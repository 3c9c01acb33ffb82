/* skald coordinator: conducts a run whose workers are started elsewhere. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/linger.h"
#include "cli/run.h"
#include "skald/coordinator.h"

static int conduct(run *r) {
    skald_coordinator *coordinator = NULL;
    skald_crew *crew = NULL;
    skald_outcome outcome = {0};
    int port = 0, code = EXIT_FAILED;
    secrets files;
    raise_file_limit();
    skald_status st = secrets_read(&r->s->security, &files);
    skald_coordinator_options options = {.address = r->s->listen,
                                         .net = {.security = &files.net,
                                                 .health = r->s->health,
                                                 .max_frame_bytes = (size_t)r->s->max_message,
                                                 .max_sessions = (uint32_t)r->s->max_sessions,
                                                 .hello_ns = r->s->hello},
                                         .offences = (uint32_t)r->s->offences,
                                         .refuse_ns = r->s->refuse,
                                         .workers = (uint32_t)r->s->workers,
                                         .wait_ns = r->s->wait,
                                         .data = r->t.data,
                                         .objective = r->t.objective,
                                         .clock = skald_clock_system(),
                                         .version_budget = (uint64_t)r->s->version_budget << 20,
                                         .straggler = r->s->straggler,
                                         .pace_ms = (int)r->s->pace_ms,
                                         .most = (uint32_t)r->s->max_workers,
                                         .heartbeat_timeout_ns = r->s->heartbeat_timeout,
                                         .reconnect_grace_ns = r->s->reconnect_grace,
                                         .overdue_ns = r->s->overdue,
                                         .on_loss = (skald_on_loss)r->s->on_loss,
                                         .alone_ns = r->s->wait > 0 ? r->s->wait : -1,
                                         .notice = run_notice,
                                         .user = r};
    checkpointing_tell(&r->kept, &options);
    if (st == SKALD_OK) st = skald_coordinator_listen(skald_net_grpc(), &options, &coordinator, &port);
    if (st == SKALD_OK) {
        char text[300];
        const char *colon = strrchr(r->s->listen, ':');
        if (port)
            snprintf(text, sizeof text, "listening on %.*s:%d, waiting for %d worker%s", (int)(colon - r->s->listen),
                     r->s->listen, port, (int)r->s->workers, r->s->workers == 1 ? "" : "s");
        else
            snprintf(text, sizeof text, "listening on %.200s, waiting for %d worker%s", r->s->listen,
                     (int)r->s->workers, r->s->workers == 1 ? "" : "s");
        run_notice(r, text);
        st = checkpointing_blame(&r->kept, r->s, skald_coordinator_gather(coordinator, signals_stop_flag(), &crew));
    }
    if (st == SKALD_OK) code = run_train(r, crew, &outcome, &st);
    if (st != SKALD_OK) code = run_failed(r, st, crew ? crew->problem : NULL, &outcome);
    if (st == SKALD_OK) skald_coordinator_dismiss(coordinator, st, "the run is over");
    if (st == SKALD_OK && r->s->linger != 0) linger(crew, &r->t.train, &outcome, r->s->linger, signals_stop_flag());
    if (coordinator) skald_coordinator_close(coordinator, st, st == SKALD_OK ? "the run is over" : skald_error());
    secrets_free(&files);
    skald_outcome_free(&outcome);
    return code;
}

static int run_command(const command *self, int argc, char **argv) {
    settings s = {.threads = 1};
    arguments args;
    run r;
    arguments_parse(self, argc, argv, &s, &args);
    signals_install();
    if (check_listen_address(s.listen, s.insecure || security_asks(&s.security)))
        arguments_error(self, "%s", skald_error());
    if (s.health && !security_encrypts(&s.security))
        arguments_error(self, "--health is for TLS (--tls-cert, --tls-key): without it --listen answers probes itself");
    skald_status st = run_open(&r, self, &s, &args, args.words[0]);
    int code = st == SKALD_OK ? conduct(&r) : report_failure(self);
    code = run_close(&r, code);
    arguments_free(&args);
    return code;
}

const command command_coordinator = {
    .name = "coordinator",
    .words = "DATA",
    .summary = "conduct a run: workers join it from any machine",
    .about = "Listens at ADDRESS, waits for --workers workers, deals them the rows of DATA and trains. DATA is a path "
             "that every worker can open, or has a copy of; this process reads none of it.",
    .notes =
        "For example, with workers on two machines:\n\n"
        "  node1$ skald coordinator --listen 10.0.0.1:7700 --insecure --workers 2 --model model.h5 /data/train.h5\n"
        "  node1$ skald worker --connect 10.0.0.1:7700 --threads 16\n"
        "  node2$ skald worker --connect 10.0.0.1:7700 --threads 64\n\n" EXIT_CODES_HELP,
    .table = coordinator_options,
    .least_words = 1,
    .most_words = 1,
    .run = run_command,
};
