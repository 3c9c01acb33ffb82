/* skald simulate: a run of any number of workers on a virtual clock, computed here. */
#include <stdio.h>
#include <stdlib.h>

#include "cli/run.h"
#include "replay/simulation.h"

static int simulate(run *r) {
    skald_simulation *simulation = NULL;
    skald_outcome outcome = {0};
    skald_stragglers stragglers;
    const settings *s = r->s;
    skald_status st = skald_stragglers_parse(s->straggler, &stragglers);
    const skald_timing timing = {.row_ns = s->row_ns,
                                 .message_ns = s->message_us < 0 ? -1 : s->message_us * 1e3,
                                 .coordinator_ns = s->coordinator_us < 0 ? -1 : s->coordinator_us * 1e3,
                                 .pace_ns = s->pace_ms * 1000000,
                                 .stragglers = &stragglers,
                                 .free_evaluations = s->free_evaluations};
    if (st == SKALD_OK)
        st = skald_simulation_open(&r->t.data, &r->t.objective, &r->t.compute, (uint32_t)s->workers, &timing,
                                   &simulation);
    int code = EXIT_FAILED;
    const int64_t began = skald_now_ns(skald_clock_system());
    if (st == SKALD_OK) {
        r->clock = skald_simulation_clock(simulation);
        code = run_train(r, skald_simulation_crew(simulation), &outcome, &st);
    }
    if (st != SKALD_OK) {
        code = run_failed(r, st, simulation ? skald_simulation_crew(simulation)->problem : NULL, &outcome);
    } else if (!s->quiet) {
        const skald_timing *t = skald_simulation_timing(simulation);
        printf(
            "simulated %d workers: %.3f s of theirs in %.3f s here (a row %.3g us, a message %.3g us, a result at the "
            "coordinator %.3g us)\n",
            (int)s->workers, outcome.seconds, (double)(skald_now_ns(skald_clock_system()) - began) * 1e-9,
            t->row_ns * 1e-3, t->message_ns * 1e-3, t->coordinator_ns * 1e-3);
    }
    skald_simulation_close(simulation);
    skald_stragglers_free(&stragglers);
    skald_outcome_free(&outcome);
    return code;
}

static int run_command(const command *self, int argc, char **argv) {
    settings s = {.threads = 1, .device = "cpu"};
    arguments args;
    run r;
    arguments_parse(self, argc, argv, &s, &args);
    signals_install();
    const skald_status st = run_open(&r, self, &s, &args, args.words[0]);
    int code = st == SKALD_OK ? simulate(&r) : report_failure(self);
    code = run_close(&r, code);
    arguments_free(&args);
    return code;
}

const command command_simulate = {
    .name = "simulate",
    .words = "DATA",
    .summary = "train with simulated workers on a virtual clock",
    .about =
        "The same solver, engine, barriers and status as a real run; the workers' gradients are computed here, one "
        "after the other, and their time is simulated: rows, messages, the coordinator, a pace, stragglers. All "
        "seconds told are virtual. The same options give the same run, to the bit.",
    .notes = "For example:\n\n"
             "  skald simulate --workers 1000 --straggler pcs --pace 100 --mode async --target-gap 1e-4 "
             "train.h5\n\n" EXIT_CODES_HELP,
    .table = simulate_options,
    .least_words = 1,
    .most_words = 1,
    .run = run_command,
};
