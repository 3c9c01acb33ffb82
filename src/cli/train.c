/* skald train: a whole run on this machine, or a look at one that goes on elsewhere. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/base.h"
#include "cli/children.h"
#include "cli/follow.h"
#include "cli/run.h"
#include "skald/choose.h"
#include "skald/coordinator.h"
#include "skald/worker.h"
#include "worker/local_data.h"

/* The cards that workers are dealt to, none on the CPU; returns how many. */
static uint32_t usable_cards(const settings *s, skald_device cards[SKALD_MAX_CARDS]) {
    char why[256];
    if (strcmp(s->device, "auto") != 0 && strcmp(s->device, "cuda") != 0)
        return strncmp(s->device, "cuda:", 5) == 0 ? 1 : 0; /* which they are told anyway */
    return skald_compute_cards(cards, SKALD_MAX_CARDS, why, NULL);
}

/* What train has seen of the data before anybody computes. */
typedef struct survey {
    skald_source *source;
    skald_manifest manifest;
} survey;

/* Larger files are read by the workers that they need anyway, each a part. */
static const off_t SURVEYED_BYTES = 64 << 20;

static bool is_small(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 && S_ISREG(info.st_mode) && info.st_size < SURVEYED_BYTES;
}

/* An option that is about processes: who gives it wants some. NULL: none is given. */
static const char *about_workers(const skald_options *given) {
    static const char *const names[] = {"listen",          "insecure",       "threads",   "mode",
                                        "barrier",         "stale",          "max-stale", "max-workers",
                                        "on-loss",         "version-budget", "overdue",   "heartbeat-timeout",
                                        "reconnect-grace", "pace",           "straggler", "slow-ratio"};
    for (size_t k = 0; k < SKALD_ARRAY_LENGTH(names); k++)
        if (skald_options_given(given, names[k])) return names[k];
    return NULL;
}

static skald_facts facts_of_manifest(const run *r, const skald_manifest *m) {
    const training *t = &r->t;
    const skald_loss loss =
        t->data.choose_loss ? skald_choose_loss(m->labels, m->label_count, m->rows).loss : t->objective.loss;
    const bool dense = skald_manifest_wants_dense(m, 0.25);
    const double rows = (double)m->rows;
    return (skald_facts){.rows = rows,
                         .dim = m->dim,
                         .dense = dense,
                         .nonzeros = dense ? rows * m->dim : (double)m->nonzeros,
                         .classes = loss == SKALD_SOFTMAX ? m->label_count : 1};
}

/* --workers auto: one a card or core, or none, by the size of the data. What was read for that is kept: by r->t.data.
 */
static skald_status choose_workers(run *r, uint32_t cores, uint32_t cards, survey *seen) {
    training *t = &r->t;
    const uint32_t most = cards ? cards : cores;
    const char *const unit = cards ? "card" : "core", *option = about_workers(&r->args->options);
    r->workers = most;
    if (option || !is_small(r->data)) {
        snprintf(t->place, sizeof t->place, "a worker a %s: %u (%s%s)", unit, most, option ? "--" : "",
                 option ? option : "the file is large");
        return SKALD_OK;
    }
    TRY(skald_local_data_scan(&t->data, &seen->source, &seen->manifest));
    const skald_facts facts = facts_of_manifest(r, &seen->manifest);
    const skald_workers_choice c = skald_choose_workers(&facts, cores, cards, seen->manifest.block_count);
    r->workers = c.workers;
    if (c.workers)
        snprintf(t->place, sizeof t->place, "a worker a %s: %u (%s)", unit, c.workers, c.why);
    else
        snprintf(t->place, sizeof t->place, "in this process (%s)", c.why);
    t->data.opened = seen->source;
    t->data.scanned = &seen->manifest;
    return SKALD_OK;
}

/* No processes: this one computes, in order. */
static int train_alone(run *r) {
    skald_crew *crew = NULL;
    skald_outcome outcome = {0};
    skald_status st = skald_crew_local_open(&r->t.data, &r->t.objective, &r->t.compute, &crew);
    if (st != SKALD_OK) return run_failed(r, st, NULL, NULL);
    int code = run_train(r, crew, &outcome, &st);
    if (st != SKALD_OK) code = run_failed(r, st, crew->problem, &outcome);
    crew->ops->destroy(crew, st, "the run is over");
    skald_outcome_free(&outcome);
    return code;
}

/* Where children reach a coordinator that listens at `address`, port as bound. */
static void address_for_children(const char *address, int port, char *out, size_t size) {
    const char *colon = strrchr(address, ':');
    if (strncmp(address, "unix:", 5) == 0 || !colon) {
        snprintf(out, size, "%s", address);
    } else if (strncmp(address, "0.0.0.0:", 8) == 0 || strncmp(address, "[::]:", 5) == 0) {
        snprintf(out, size, "127.0.0.1:%d", port);
    } else {
        snprintf(out, size, "%.*s:%d", (int)(colon - address), address, port);
    }
}

/* A dead child explains a failure better than the broken connection it left behind. */
static void blame_child(children *c, skald_status *st) {
    char who[700];
    if (signals_asked() || (*st != SKALD_ELOST && *st != SKALD_INTERRUPTED)) return;
    if (!children_find_dead(c, who, sizeof who)) return;
    if (*st == SKALD_INTERRUPTED) *st = SKALD_ELOST;
    skald_fail(*st, "%s", who);
}

static int train_here(run *r, int count, const skald_device *cards, uint32_t card_count) {
    char listen[256], address[256];
    children c;
    skald_coordinator *coordinator = NULL;
    skald_crew *crew = NULL;
    skald_outcome outcome = {0};
    int port = 0, code = EXIT_FAILED;

    signals_watch_children(true);
    skald_status st = children_start(&c, count, r->s, cards, card_count); /* before any thread exists */
    if (st != SKALD_OK) return run_failed(r, st, NULL, NULL);
    if (r->s->listen)
        snprintf(listen, sizeof listen, "%s", r->s->listen);
    else
        snprintf(listen, sizeof listen, "unix:%s/socket", c.folder);
    skald_coordinator_options options = {.address = listen,
                                         .net = {.hello_ns = 10 * SKALD_NS_PER_S},
                                         .workers = (uint32_t)count,
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
                                         .notice = run_notice,
                                         .user = r};
    checkpointing_tell(&r->kept, &options);
    st = skald_coordinator_listen(skald_net_grpc(), &options, &coordinator, &port);
    if (st == SKALD_OK) {
        char text[300];
        address_for_children(listen, port, address, sizeof address);
        snprintf(text, sizeof text, "to watch: skald status --connect %s", address);
        run_notice(r, text);
        children_tell(&c, address);
        st = checkpointing_blame(&r->kept, r->s, skald_coordinator_gather(coordinator, signals_stop_flag(), &crew));
    }
    signals_watch_children(false); /* from here on the engine notices a lost worker */
    if (st == SKALD_OK) code = run_train(r, crew, &outcome, &st);
    if (st != SKALD_OK) {
        blame_child(&c, &st);
        code = run_failed(r, st, crew ? crew->problem : NULL, &outcome);
    }
    if (coordinator) skald_coordinator_close(coordinator, st, st == SKALD_OK ? "the run is over" : skald_error());
    children_end(&c);
    skald_outcome_free(&outcome);
    return code;
}

static int run_command(const command *self, int argc, char **argv) {
    settings s = {0};
    arguments args;
    run r;
    char device[64];
    arguments_parse(self, argc, argv, &s, &args);
    signals_install();
    if (s.connect) {
        if (s.checkpoint || s.resume)
            arguments_error(self,
                            "with --connect the coordinator keeps the checkpoints: --checkpoint and --resume are its");
        if (args.word_count)
            arguments_error(self, "with --connect the coordinator has the data; %s is one too many", args.words[0]);
        if (s.http)
            arguments_error(self, "with --connect there is nothing to serve here: --http goes with the coordinator");
        int code = follow_run(self, &s);
        arguments_free(&args);
        return code;
    }
    if (args.word_count != 1) arguments_error(self, "DATA is missing; usage: skald train [OPTION...] DATA");
    if (s.security.ca || s.security.cert || s.security.key || s.security.token)
        arguments_error(self, "TLS and tokens go with --connect; for workers elsewhere there is skald coordinator");
    if (s.listen && check_listen_address(s.listen, s.insecure)) arguments_error(self, "%s", skald_error());

    skald_status st = run_open(&r, self, &s, &args, args.words[0]);
    /* what every worker would fail of is better said at once */
    if (st == SKALD_OK) st = skald_compute_describe(&r.t.compute, device, r.why_no_card);
    skald_device cards[SKALD_MAX_CARDS];
    survey seen = {0};
    const uint32_t count = st == SKALD_OK ? usable_cards(&s, cards) : 0;
    if (st == SKALD_OK && s.workers == WORKERS_CORES) r.workers = usable_cores();
    if (st == SKALD_OK && s.workers == WORKERS_AUTO) st = choose_workers(&r, (uint32_t)usable_cores(), count, &seen);
    int code = st != SKALD_OK   ? report_failure(self)
               : r.workers == 0 ? train_alone(&r)
                                : train_here(&r, (int)r.workers, cards, count);
    skald_manifest_free(&seen.manifest);
    skald_source_close(seen.source);
    code = run_close(&r, code);
    arguments_free(&args);
    return code;
}

const command command_train = {
    .name = "train",
    .words = "DATA",
    .summary = "train a model on this machine's cores, or follow a run elsewhere",
    .about = "Trains a model on DATA: LIBSVM text (plain, .gz or .xz) or HDF5; alone, or with a coordinator and "
             "--workers worker "
             "processes. Stops when the certified gap, or another target or limit, is reached. What is not said (loss, "
             "algorithm, "
             "who computes, how long) is chosen by the data, and told in a line with the reasons.",
    .notes = "For example:\n\n"
             "  skald train --model model.h5 train.svm\n"
             "  skald train --loss logistic --l2 1e-4 --target-gap 1e-8 --model model.h5 train.svm\n"
             "  skald train --loss squared --l2 1/n --scale standard --mode sync --log run.jsonl train.h5\n"
             "  skald train --l1 1e-4 --l2 1e-6 --workers 8 --max-time 10m --model model.h5 train.svm.xz\n"
             "  skald train --connect node1:7700 --model model.h5\n\n" EXIT_CODES_HELP,
    .table = train_options,
    .most_words = 1,
    .run = run_command,
};
