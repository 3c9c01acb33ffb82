/* skald replay: does again, on this machine, what a record says, and ends with the same bits. */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/run.h"

typedef struct values {
    const char *model, *export_path, *log;
    bool partial, anyway, quiet;
    int progress;
} values;

#define AT(member) offsetof(values, member)

/* clang-format off */
static const skald_option table[] = {
    {"partial", SKALD_OPTION_FLAG, AT(partial),
     .help = "A record that breaks off (its run was killed) is replayed as far as it goes"},
    {"anyway", SKALD_OPTION_FLAG, AT(anyway),
     .help = "Replay the order also on other data or another instruction set; the bits will be others"},
    {"model", SKALD_OPTION_TEXT, AT(model), .value = "FILE", .help = "Write the model here (HDF5)", .group = "Output:"},
    {"export", SKALD_OPTION_TEXT, AT(export_path), .value = "liblinear:FILE",
     .help = "Write the model for liblinear's predict too"},
    {"log", SKALD_OPTION_TEXT, AT(log), .value = "FILE", .help = "Write one JSON object a line, as train does"},
    {"progress", SKALD_OPTION_CHOICE, AT(progress), "auto", .words = "auto|line|live|none", .value = "HOW",
     .help = "As of train"},
    {"quiet", SKALD_OPTION_FLAG, AT(quiet), .help = "Nothing but errors"},
    {0},
};
/* clang-format on */

/* The settings that the recorded command had. */
static skald_status recorded_settings(const skald_record *record, const skald_option *of, skald_options *set,
                                      settings *s) {
    TRY(skald_options_init(set, of, s));
    for (uint32_t k = 0; k < record->option_count; k++) {
        const char *name = record->names[k];
        size_t i = 0;
        while (i < set->count && strcmp(set->table[i].name, name) != 0) i++;
        skald_status st = i < set->count ? skald_options_set(set, i, record->texts[k],
                                                             record->given[k] ? SKALD_FROM_COMMAND : SKALD_FROM_DEFAULT)
                                         : skald_fail(SKALD_EDATA, "option '%s' is not known", name);
        if (st != SKALD_OK) return skald_context(SKALD_EDATA, "%s:1", record->path);
    }
    return SKALD_OK;
}

static int replay_run(run *r, skald_record *record, const values *v) {
    skald_outcome outcome = {0};
    const skald_replay_options options = {.partial = v->partial, .anyway = v->anyway};
    skald_status st = skald_replay_open(record, &r->t.data, &r->t.objective, &options, &r->replay);
    if (st != SKALD_OK) return run_failed(r, st, NULL, NULL);
    bool same = false;
    r->clock = skald_replay_clock(r->replay);
    r->stop = skald_replay_stop(r->replay);
    skald_crew *crew = skald_replay_crew(r->replay);
    int code = run_train(r, crew, &outcome, &st);
    if (st == SKALD_OK) st = skald_replay_finish(r->replay, &outcome, &same);
    if (st != SKALD_OK)
        code = run_failed(r, st, crew->problem, &outcome);
    else if (!v->quiet)
        printf("replayed %llu updates of %u workers: %s\n", (unsigned long long)outcome.updates, record->member_count,
               same        ? "the model is the recorded one, bit for bit"
               : v->anyway ? "the order is the recorded one, the model is not"
                           : "as far as the record goes");
    if (st == SKALD_OK) code = same ? EXIT_DONE : EXIT_STOPPED_SHORT; /* whatever stopped the run on record */
    skald_replay_close(r->replay);
    skald_outcome_free(&outcome);
    return code;
}

static int run_command(const command *self, int argc, char **argv) {
    values v = {0};
    arguments args, recorded = {0};
    settings s = {.threads = 1};
    skald_record record;
    run r;
    arguments_parse(self, argc, argv, &v, &args);
    signals_install();
    if (skald_record_open(args.words[0], &record) != SKALD_OK) {
        arguments_free(&args);
        return report_failure(self);
    }
    const skald_option *of = strcmp(record.command, "coordinator") == 0 ? coordinator_options
                             : strcmp(record.command, "simulate") == 0  ? simulate_options
                                                                        : train_options;
    int code = EXIT_FAILED;
    skald_status st = recorded_settings(&record, of, &recorded.options, &s);
    if (st == SKALD_OK) {
        s.model = v.model;
        s.export_path = v.export_path;
        s.log = v.log;
        s.http = NULL;
        s.quiet = v.quiet;
        s.progress = v.progress;
        st = run_open(&r, self, &s, &recorded, args.word_count > 1 ? args.words[1] : record.data);
        code = st == SKALD_OK ? replay_run(&r, &record, &v) : report_failure(self);
        run_close(&r);
    } else {
        report_failure(self);
    }
    skald_options_fini(&recorded.options);
    skald_record_close(&record);
    arguments_free(&args);
    return code;
}

const command command_replay = {
    .name = "replay",
    .words = "RECORD [DATA]",
    .summary = "do a recorded run again on this machine, to the same bits",
    .about =
        "Re-executes a run recorded with --record, however many workers it had, in this process: every task in its "
        "recorded place, every result merged in its recorded order. The model ends up the same to the last bit, or "
        "the line of the record where things differ is named. DATA: where the data are now, if not where they "
        "were.",
    .notes = "For example:\n\n"
             "  skald train --workers 8 --record run.record --model a.h5 train.svm\n"
             "  skald replay --model b.h5 run.record\n\n"
             "Exit codes: 0 the same model, 1 failed, also when something differs, 2 usage error, 3 another model, as "
             "--partial or "
             "--anyway allowed.\n\n",
    .table = table,
    .least_words = 1,
    .most_words = 2,
    .run = run_command,
};
