/* Everything that can be set about a training run: the table of `train` and `coordinator`, and what it means. */
#ifndef SKALD_CLI_SETTINGS_H
#define SKALD_CLI_SETTINGS_H

#include "cli/arguments.h"
#include "skald/problem.h"
#include "skald/train.h"

typedef struct settings {
    /* data */
    int64_t dim, shards;
    int index_base, scale;
    bool contiguous;
    const char *class_weight, *sample_weights;
    /* objective */
    int loss;
    double huber_delta, l2, l1;
    bool intercept;
    /* algorithm */
    int algo, local;
    const char *mode, *barrier, *stale;
    double step, step_decay, theta;
    int64_t batch, task_rows, max_stale, seed;
    /* stopping */
    bool eval_beside;
    double target_gap, target_gradient, target_objective, target_tolerance, max_passes, eval_every;
    int64_t max_updates, max_time;
    /* who computes */
    int64_t workers, threads, wait, linger, pace_ms;
    const char *device, *isa, *listen, *connect, *straggler;
    bool insecure;
    /* simulations */
    double row_ns, message_us, coordinator_us;
    bool free_evaluations;
    /* comparisons */
    const char *modes, *algos, *stragglers, *baselines, *out;
    double gap;
    int64_t repeats, timeout;
    /* what is written */
    const char *log, *model, *export_path, *record;
    int progress;
    double slow_ratio;
    bool quiet;
} settings;

enum { MAX_CLASS_WEIGHTS = SKALD_MAX_LABELS };

/* The same, as the layers below want it. Pointers lead into the settings and into this struct: do not copy it. */
typedef struct training {
    skald_objective objective;
    skald_data_options data;
    skald_compute_options compute;
    skald_train_options train;
    skald_barrier_rule *barrier; /* NULL: none; owned */
    char barrier_text[80];
    skald_stale_rules *stale_rules; /* the same */
    double class_labels[MAX_CLASS_WEIGHTS], class_weights[MAX_CLASS_WEIGHTS];
} training;

extern const skald_option train_options[], coordinator_options[], simulate_options[], bench_options[];

/* Checks what no single option can tell (SKALD_EINVAL names the options), fills in defaults that depend on others. */
skald_status settings_resolve(const settings *s, const skald_options *given, const char *data_path, training *out);

/* Frees what resolving made. */
void settings_release(training *t);

#endif
