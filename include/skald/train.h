/* Training: configuration, progress and outcome. The engine over a crew, and what it reports. */
#ifndef SKALD_TRAIN_H
#define SKALD_TRAIN_H

#include <stdatomic.h>

#include "skald/barrier.h"
#include "skald/clock.h"
#include "skald/crew.h"
#include "skald/engine.h"
#include "skald/stale.h"

typedef enum skald_mode { SKALD_ASYNC = 0, SKALD_SYNC } skald_mode;
typedef enum skald_algo { SKALD_SGD = 0, SKALD_SAGA, SKALD_SVRG, SKALD_SYNTHESIS, SKALD_NEWTON } skald_algo;
const char *skald_algo_name(skald_algo algo); /* "sgd", ... */
bool skald_algo_parse(const char *name, skald_algo *out);

typedef struct skald_train_options {
    skald_mode mode;
    skald_algo algo;
    double step;                          /* eta; 0 = auto */
    double step_decay;                    /* sgd: T in eta / sqrt(1 + passes/T); 0 = constant; < 0 = auto */
    uint32_t step_rows;                   /* b; 0 = auto */
    uint32_t task_rows;                   /* rows a message; 0 = auto */
    int local;                            /* 1 local steps, 0 plain tasks, -1 auto (local) */
    double theta;                         /* local: weight of a merge times P; 0 = auto (see schedule.c) */
    uint32_t depth;                       /* local, async: tasks a slot holds; 0 = what the crew can (2 over a net) */
    skald_stale stale;                    /* fold, reject: of results staler than max_stale, and scale below */
    const skald_stale_rules *stale_rules; /* in place of stale, if not NULL */
    uint64_t max_stale;                   /* 0 = 8 P */
    skald_barrier barrier; /* async: who may be given work; NULL: everybody. A slot holds one task at a time then */
    void *barrier_user;
    const char *barrier_text, *mode_name; /* for messages and status; may be NULL */
    const char *chosen;                   /* what was chosen where nothing was said, and why; for status, may be NULL */
    uint32_t history_versions; /* saga: 0: a number a row; else by version, of which a worker keeps so many */
    double epoch;              /* svrg, synthesis: passes between full gradients; 0 = auto (2; about 1) */
    double q_cap; /* sgd, svrg, synthesis: largest q_k; 0 = 8; negative: q_k = 1 (biased; for comparison) */
    /* stopping; 0 = not used */
    double target_gap, target_decrement, target_gradient, max_passes, max_seconds;
    uint64_t max_updates;
    bool has_target_objective;
    double target_objective, target_tolerance; /* F <= target (1 + tolerance): default 1e-8 */
    bool audit;                                /* compare every shard's anchor at the end: skald_outcome.audit_drift */
    bool eval_beside;  /* async: training goes on beside evaluations for a target objective too */
    double slow_ratio; /* a worker is slow whose mean task time is so many times the median; 0 = 1.5 */
    double eval_every; /* passes between evaluations; 0 = auto (<= 10% of rows), < 0 only at the end */
    struct skald_checkpointer *checkpointer; /* keeps the run's state (checkpoint.h); may be NULL */
    const struct skald_checkpoint *resume;   /* to go on from; limits and times count from its beginning. NULL: anew */
    const char *resume_path;                 /* for messages */
} skald_train_options;

/* One evaluation of the objective on a pinned version, by real passes over the data. */
typedef struct skald_evaluation {
    double passes, seconds; /* when its version was published; wall time since training began */
    double train_seconds;   /* seconds minus the time when only evaluations were running */
    uint64_t commits, updates;
    double objective;     /* F of the better point */
    double gap;           /* certified F - F*, at most F (infinity: no certificate) */
    double relative_gap;  /* certified (F - F*) / F* (see certificate.h); infinity while the gap is not below F */
    double decrement;     /* estimate of (F - F*)/F from the gradient and the solver's curvature; NaN: it knows none */
    double gradient_norm; /* |grad F|; with l1, of the proximal step (see certificate.h) */
    double accuracy;      /* share of rows on the right side; NaN for real targets */
    bool average;         /* the better point was the average iterate */
} skald_evaluation;

/* A look at the run between evaluations; estimates are marked as such by their names. */
typedef struct skald_progress {
    double seconds, passes, rows_per_s, updates_per_s;
    double estimated_objective;      /* from the batches of the last pass; NaN early on */
    double last_objective, last_gap; /* of the last evaluation; NaN before */
    double staleness_mean;
    uint64_t staleness_max, commits;
    uint32_t workers, slowest; /* slowest: index, UINT32_MAX when none stands out */
    double slowest_ratio;      /* its mean task time over the median */
    char slowest_name[64];
} skald_progress;

/* What the engine did with a result (in synchronous mode: with a round's). */
typedef struct skald_merged {
    uint64_t task;   /* the result's; 0: a round's */
    const char *how; /* "apply"; "scale": its step was shortened for its age; "fold": history only; "reject":
                      * dropped; "repair": the history put right; "full": a full gradient; static */
    uint64_t staleness, commits;
    uint32_t generation; /* afterwards: a rise is a rollback */
    double step, bias;   /* theta (local) or eta (plain) really applied; q_k in it */
} skald_merged;

/* Where a task's time goes, from hand-out to merge, in this order. */
typedef enum skald_part {
    SKALD_PART_RECEIVE = 0, /* on its way to the worker, its model with it */
    SKALD_PART_HELD,        /* at the worker, behind another task */
    SKALD_PART_COMPUTE,
    SKALD_PART_DELAY, /* waited on purpose: --pace, --straggler */
    SKALD_PART_SEND,  /* the result on its way */
    SKALD_PART_QUEUE, /* at the coordinator, until it is dealt with */
    SKALD_PARTS
} skald_part;
const char *skald_part_name(skald_part part); /* "receive", ... */

/* A result as it is dealt with. Times in ns of the run's clock, since training began. */
typedef struct skald_task_seen {
    uint32_t worker, slots; /* slots: tasks that worker computes at the same time */
    bool trains;            /* it will be merged; not: it failed, or is part of a full gradient */
    int64_t issued_ns, ended_ns;
    double part_ns[SKALD_PARTS];
    uint64_t staleness, rows;
} skald_task_seen;

/* Who wants to know. Called on the owner thread; must not block for long. Any may be NULL. */
typedef struct skald_observer {
    void *user;
    void (*evaluation)(void *user, const skald_evaluation *e);
    void (*progress)(void *user, const skald_progress *p); /* about 10 times a second */
    void (*merged)(void *user, const skald_merged *m);     /* after each commit */
    void (*notice)(void *user, const char *text);          /* rollback, warnings, loss of a worker */
    void (*task)(void *user, const skald_task_seen *t);    /* each result of training and of full gradients */
    /* After progress(): is a look at the status table wanted now? If so, table() gets one, as `skald status --json`
     * has it; it owns the text and frees it. Both or neither. */
    bool (*table_due)(void *user);
    void (*table)(void *user, char *json);
} skald_observer;

typedef enum skald_stop {
    SKALD_STOP_NONE = 0,
    SKALD_STOP_GAP,
    SKALD_STOP_GRADIENT,
    SKALD_STOP_OBJECTIVE,
    SKALD_STOP_PASSES,
    SKALD_STOP_TIME,
    SKALD_STOP_UPDATES,
    SKALD_STOP_INTERRUPTED,
    SKALD_STOP_SOLVER, /* the solver returned by itself */
    SKALD_STOP_DECREMENT
} skald_stop;
/* "async", "sync", or what the options call it. */
const char *skald_mode_name(const skald_train_options *options);
const char *skald_stop_name(skald_stop stop); /* "target gap reached", ... */

enum { SKALD_ROW_QUANTILES = 21 };

typedef struct skald_worker_row { /* the status table's row, for people and --json */
    char name[64], device[64];
    bool alive;
    uint32_t shards, slots;
    uint64_t rows_held, tasks, rows;
    double staleness_mean;
    uint64_t staleness_last, staleness_max;
    double occupied_ms[SKALD_ROW_QUANTILES]; /* by a task, computing or held back: quantiles from 0 to 100% */
    double task_ms_mean, wait_ms_mean, network_ms_mean; /* moving averages; wait: between tasks */
    double waited_s;                                    /* between tasks, over the whole run */
    double part_ms[SKALD_PARTS];                        /* of task_ms_mean */
    double task_ms_p50, task_ms_p95;                    /* of the last 64 tasks */
    double slowdown;                                    /* task_ms_mean over the median of all; 1: not known */
    char state[12], cause[40];                          /* "busy", "waiting", "dead"; why it is slow, "": it is not */
    uint64_t bytes_sent, bytes_received, versions_sent, bytes_saved, bytes_summed; /* see skald_member */
} skald_worker_row;

typedef struct skald_outcome {
    skald_stop stop;
    bool reached; /* a target was asked for and reached, or none was asked for */
    skald_evaluation last;
    double seconds, train_seconds, passes, rows_per_s;
    uint64_t applied, scaled, folded, rejected; /* results, by what became of them */
    uint64_t updates, commits, rollbacks, evaluations, duplicates, full_gradients;
    uint64_t guards;        /* newton: times its steps did not do what they promised, and were held back */
    uint64_t evictions;     /* history by version: tasks that made room */
    uint32_t versions_held; /* by the history of one worker, at most */
    double staleness_mean;
    uint64_t staleness_max;
    double step, theta; /* as used at the end */
    uint32_t step_rows, task_rows, worker_count;
    skald_worker_row *workers; /* worker_count; freed by skald_outcome_free */
    double *w;                 /* skald_problem_length, in the scaled feature space; freed by skald_outcome_free */
    double audit_drift;        /* largest |A_k - audit| / |A_k| seen; -1 when none was made */
} skald_outcome;
void skald_outcome_free(skald_outcome *outcome);
/* "worker 5 (node7, cuda:2): 2.8x the median, computing"; returns out. */
char *skald_slow_text(uint32_t worker, const skald_worker_row *row, char *out, size_t size);

/* Trains over a ready crew and fills the outcome, also (as far as it got) on error. `stop_flag` (may be
 * NULL) is read between events: non-zero stops in order. The crew is not destroyed. Blocks. */
typedef skald_status (*skald_solver)(skald_engine *engine, const skald_train_options *options);
skald_status skald_train(skald_crew *crew, skald_solver solver, const skald_train_options *options, skald_clock *clock,
                         const skald_observer *observer, const atomic_int *stop_flag, skald_outcome *outcome);

#endif
