/* Everything that can be set about a training run: the table of `train` and `coordinator`, and what it means. */
#ifndef SKALD_CLI_SETTINGS_H
#define SKALD_CLI_SETTINGS_H

#include "cli/arguments.h"
#include "cli/security.h"
#include "skald/problem.h"
#include "skald/train.h"

/* How a worker computes: entries for tables of values with these members (AT(member) is their offset). */
/* clang-format off */
#define COMPUTE_OPTIONS \
    {"device", SKALD_OPTION_TEXT, AT(device), "auto", .value = "auto|cpu|cuda[:N]", \
     .help = "Where a worker computes; auto: on a card if there is one. 'skald devices' lists them"}, \
    {"storage", SKALD_OPTION_CHOICE, AT(storage), "auto", .words = "auto|f32|bf16|u8", \
     .help = "How a card keeps dense rows; auto: u8 if all values are whole numbers from 0 to 255, else f32. bf16 rounds"}, \
    {"resident", SKALD_OPTION_CHOICE, AT(resident), "auto", .words = "auto|device|host", \
     .help = "Where a card's rows are kept; auto: on the card if they fit, else in host memory"}, \
    {"deterministic", SKALD_OPTION_FLAG, AT(deterministic), \
     .help = "Same bits every run on a card, for sparse data too (slower; the CPU's are always)"}
/* clang-format on */

typedef struct settings {
    /* data */
    int64_t dim, shards;
    int index_base, scale;
    bool contiguous;
    const char *class_weight, *sample_weights;
    /* objective */
    int loss;
    double huber_delta, l2, l1, nonconvex;
    bool intercept;
    /* algorithm */
    int algo, local, history;
    const char *mode, *barrier, *stale;
    double step, step_decay, theta, epoch;
    int64_t batch, task_rows, max_stale, history_versions, seed;
    /* stopping */
    bool eval_beside;
    double target_gap, target_decrement, target_gradient, target_objective, target_tolerance, max_passes, eval_every;
    int64_t max_updates, max_time;
    /* who computes */
    int64_t workers, threads, wait, linger, pace_ms, version_budget;
    int64_t max_workers, heartbeat_timeout, reconnect_grace, overdue;
    int on_loss;
    const char *device, *isa, *listen, *connect, *straggler, *http;
    int storage, resident;
    bool deterministic;
    bool insecure, http_insecure;
    security security;
    int64_t max_sessions, max_message, hello, offences, refuse;
    const char *health;
    /* simulations */
    double row_ns, message_us, coordinator_us;
    bool free_evaluations;
    /* comparisons */
    const char *modes, *algos, *stragglers, *baselines, *out;
    double gap;
    int64_t repeats, timeout;
    /* what is written */
    const char *log, *model, *export_path, *record, *checkpoint, *checkpoint_every, *resume;
    int progress;
    double slow_ratio;
    bool quiet;
} settings;

enum { MAX_CLASS_WEIGHTS = SKALD_MAX_LABELS };

/* Of --workers, where it may be. */
enum { WORKERS_AUTO = -1, WORKERS_CORES = -2 };
/* Of the choices --loss and --algo: 0 is auto, the others follow in their enum's order. */
enum { CHOICE_AUTO = 0, CHOICE_FIRST = 1 };

/* The same, as the layers below want it. Pointers lead into the settings and into this struct: do not copy it. */
typedef struct training {
    skald_objective objective;
    skald_data_options data;
    skald_compute_options compute;
    skald_train_options train;
    skald_barrier_rule *barrier; /* NULL: none; owned */
    char barrier_text[80];
    skald_stale_rules *stale_rules;  /* the same */
    bool choose_algo;                /* by the problem, once there is one: training_choose */
    bool stochastic;                 /* as in skald_facts */
    bool choose_passes;              /* nobody gave a target or limit */
    const char *loss_why, *algo_why; /* auto, but other options or a checkpoint left no choice; NULL: not so */
    char place[160];                 /* who computes, where that was chosen; "": it was given */
    char chosen[800];                /* once chosen: "loss ..., algo ..., ..."; "": all was given */
    double class_labels[MAX_CLASS_WEIGHTS], class_weights[MAX_CLASS_WEIGHTS];
} training;

extern const skald_option train_options[], coordinator_options[], simulate_options[], bench_options[];

/* Checks what no single option can tell (SKALD_EINVAL names the options), fills in defaults that depend on others. */
skald_status settings_resolve(const settings *s, const skald_options *given, const char *data_path, training *out);

/* What could not be chosen without the problem, for so many workers; t->chosen says what and why. */
void training_choose(training *t, const skald_problem *problem, uint32_t workers);

/* Frees what resolving made. */
void settings_release(training *t);

#endif
