/* The state of one training run over a crew; private to src/engine. One owner thread. */
#ifndef SKALD_ENGINE_RUN_H
#define SKALD_ENGINE_RUN_H

#include "base/histogram.h"
#include "engine/evaluation.h"
#include "engine/ledger.h"
#include "engine/parts.h"
#include "engine/sampling.h"
#include "engine/versions.h"
#include "skald/train.h"

#define SKALD_NOBODY UINT32_MAX

enum {
    SKALD_STEPS_KEPT = 1024,
    SKALD_RECENT = 64,
    SKALD_REFUSALS = 100
}; /* of one worker's results, before the run gives up */

/* A task that has been handed out. */
typedef struct skald_flight {
    uint64_t task;
    skald_task_kind kind;
    uint32_t worker, shard, generation;
    uint64_t commits;     /* the clock when its version was published */
    uint64_t position;    /* of its batch */
    uint32_t part;        /* parts: of the shard; SKALD_SHARD_PARTS: all */
    skald_version *model; /* parts: that it was computed at; a reference; NULL without */
    int64_t issued_ns;
    bool trains;
    bool refresh;              /* retakes a shard's history, or a stale part's: merged without a step */
    bool rebuild;              /* fills an empty table: its history replaces A_k, without a step */
    bool full;                 /* part of a full gradient: see full.c */
    uint32_t epoch;            /* full gradients committed before it */
    uint32_t evaluation;       /* objective, shift: the evaluator's round */
    struct skald_piece *piece; /* of the model's way that it covers, or NULL: see path.c */
    bool lost;                 /* its result was not usable */
    skald_result *result;      /* sync: arrived, waiting for the rest of the round */
    double share;              /* sync: weight in the round */
} skald_flight;

/* Per worker; what skald_worker_row shows. */
typedef struct skald_member_state {
    bool alive;
    uint32_t busy;     /* slots with a task */
    uint32_t training; /* of them for training: kept for the barrier only, as of the last dispatch */
    uint32_t refused;
    uint32_t slots;        /* tasks it can compute at the same time, with the shards it has */
    uint64_t laps, lapped; /* for leads: tasks a slot until its slots last changed, and its tasks by then */
    uint64_t tasks, rows, staleness_sum, staleness_last, staleness_max;
    skald_histogram occupied;                      /* by a task: computing, and held back */
    double task_ns, wait_ns, part_ns[SKALD_PARTS]; /* moving averages */
    int64_t waited_ns;                             /* in all */
    float recent_ms[SKALD_RECENT];                 /* the last task times, oldest overwritten */
    int64_t least_there, least_back; /* least difference of the clocks as a task arrived, as its result did */
    uint64_t *held; /* eviction.c: versions its tables may be at, oldest first; NULL: no history by version */
    uint32_t held_count, held_capacity, newest_generation;
    skald_version *newest;       /* of those handed to it */
    int64_t slow_since, told_ns; /* slow.c: 0: it is not slow; nobody has been told */
    int told_cause;

} skald_member_state;

/* Events that came while the owner thread waited for something else (beside.c): the next to be dealt with, in order. */
typedef struct skald_ahead {
    skald_event *events;
    size_t first, count, room;
} skald_ahead;

/* Objective estimate from the batches, the guard's snapshot, the average iterate. */
typedef struct skald_watch {
    double window_loss, window_rows, window_begin; /* since this many passes */
    double estimate;                               /* F by the last full window; NaN before */
    double best;                      /* lowest mean loss of a window; at first the loss where a new run begins */
    double good_loss, candidate_loss; /* mean loss about these models, not less than theirs */
    double *good;                     /* w at the beginning of the last window that was well (vectors are
                                       * the engine's) */
    double *candidate;                /* w at its end: good if the next window is well too */
    double k, k2;                     /* sums of curvature (skald_sums), forgotten over a pass */
    uint32_t failures;                /* rollbacks without a good window in between */
    double *sum, *average;            /* iterates since average_begin; mean over the pass before */
    double sum_count, average_begin;
    bool has_average;
} skald_watch;

/* A gradient over all rows at one version, shard by shard, beside other work. */
typedef struct skald_full {
    skald_version *model;   /* NULL: no round is open */
    uint32_t generation;    /* of the round */
    bool *asked;            /* shards */
    skald_result **results; /* shards, those not summed yet; owned by the crew until released */
    double *sum;            /* over the first `summed` shards */
    uint32_t summed;
    uint32_t flights; /* tasks in flight, of abandoned rounds too */
    double norm;      /* of the gradient of F at the last one, for the judge; NaN before */
} skald_full;

/* A piece of the model's way, in the hands of one or more tasks. */
typedef struct skald_piece {
    skald_version *from, *to; /* NULL: not in use */
    uint32_t parts;           /* tasks that share it: each counts one part */
    uint32_t open;            /* in flight */
    uint32_t lost;            /* to be given out again */
    bool settled;             /* a part has been merged: there will be no more */
} skald_piece;

typedef struct skald_path {
    skald_piece **pieces; /* owned; as many as were ever out */
    uint32_t count;
    skald_piece *last;      /* the one that goes up to `covered`; NULL: done with, or none yet */
    skald_version *covered; /* NULL before the first full gradient */
} skald_path;

typedef struct skald_audit {
    void *asker;          /* NULL: none is running */
    uint32_t outstanding; /* shards still to be compared */
    double drift;         /* largest relative difference so far */
} skald_audit;

typedef struct skald_run {
    skald_engine engine;
    skald_crew *crew;
    const skald_problem *problem;
    const skald_train_options *options;
    skald_clock *clock;
    const skald_observer *observer;
    const atomic_int *stop_flag;

    bool history;
    skald_work work; /* the solver's vectors, as of the last dispatch */
    skald_ledger ledger;
    skald_parts parts; /* newton; else empty */
    skald_sampling sampling;
    skald_member_state *members;
    uint32_t size, most; /* members so far; numbers there can be */
    uint32_t *holders;   /* by shard: the member that has it; SKALD_NOBODY */
    uint32_t unheld;     /* shards that nobody has */
    skald_flight *flights;
    uint32_t flight_count, flight_room;
    uint32_t flight_capacity; /* tasks that can be in flight: all slots of those alive */
    uint32_t training;        /* flights that train */
    bool round_spoilt;        /* sync: a part of the round was lost */
    skald_versions *versions;
    skald_version *current;
    skald_full full;
    skald_version *origin; /* the model of the last full gradient committed; NULL before */
    uint32_t epoch;        /* full gradients committed */
    skald_path path;
    uint64_t evictions;     /* tasks for want of room for versions: eviction.c */
    uint32_t versions_held; /* by one worker, at most */
    bool dirty;             /* the vectors changed since `current` was published */

    skald_result *held; /* async: the result being merged */
    skald_ahead ahead;
    double *round_g;     /* sync: the round's direction or model difference; the engine's vectors, as the next */
    double *history_sum; /* sync: the round's history; repair and rebuild: the anchor's change */
    double *moved;       /* parts: what a merge makes of wbar */

    bool regroup;      /* ranks: somebody was lost, which has not been dealt with */
    double *ending[2]; /* ranks: w and abar once training is over */

    uint64_t applied, scaled, folded, rejected; /* results merged, by what became of them */
    float steps[SKALD_STEPS_KEPT];              /* by commit: how much of a full step it was (action adapt) */
    bool told_folds;
    uint64_t next_task, commits, updates, rollbacks, refused, merged;
    uint64_t staleness_sum, staleness_max;
    double rows; /* processed by training tasks */
    uint32_t generation;

    skald_watch watch;
    skald_evaluator evaluator;
    double eval_passes, eval_seconds, eval_train_seconds; /* when the running evaluation was pinned */
    uint64_t eval_commits, eval_updates, evaluations;
    double last_eval_passes, estimate_checked, eval_estimate, calibration;
    double lowest;                        /* F at the best look; NaN before */
    uint64_t lowest_updates, lowest_idle; /* steps that had been made then, and results without one */
    double bound;                         /* of F*, from below: the best certified so far; -infinity: none */
    skald_evaluation last;
    bool quiesce;      /* training waits for the running evaluation */
    double *delivered; /* host memory, as the next */
    double *smooth;    /* a gradient for the solver's judgement; NULL: it has none */

    skald_audit audit;
    double audit_drift;

    skald_overview overview;               /* barrier.c */
    uint64_t slowest_tasks, refused_tasks; /* a slot, of the slowest worker; hand-outs refused in this dispatch */
    bool told_fewer;

    uint64_t resumed_version;     /* commits of the model it began with; 0: a new run */
    double *start_w, *start_abar; /* as skald_engine has them; NULL: at 0 */
    double *start_wbar;
    bool copying; /* a checkpoint is being filled in */
    struct {
        skald_version **held; /* the models it will have, by ascending number; from `done` on with a reference each */
        double *to;
        uint64_t room;
        uint32_t count, done;
    } models;
    bool unsettled; /* A_k are of a bad model, shares of the sum, or older than the tables: no step before all are put
                     * right */
    uint64_t data;  /* hash of all blocks, for checkpoints */

    int64_t begin_ns, paused_ns, pause_began_ns, progress_ns;
    uint64_t progress_updates;
    double progress_rows, rows_per_s, updates_per_s;
    skald_stop stop;
    double step_used, theta_used;
} skald_run;

/* train.c: of the run as a whole */
int64_t skald_run_now(const skald_run *run); /* ns since training began */
void skald_run_notice(const skald_run *run, const char *format, ...) __attribute__((format(printf, 2, 3)));
double skald_run_passes(const skald_run *run);
/* engine.c: sends a worker away because of its result; false when that is not its fault, or nobody can be spared. */
bool skald_run_expel(skald_run *run, uint32_t worker, const char *kind, const skald_result *r);
void skald_run_drop(skald_run *run, double **x); /* frees one of the engine's vectors, if there is one */

/* smoothness.c: L of the data term, measured by the crew; members may come and go meanwhile. */
skald_status skald_smoothness_measure(skald_run *run, double *L);

/* watch.c: after each commit; rolls back when the run diverges (SKALD_EDIVERGED when that does not help). */
skald_status skald_watch_init(skald_run *run);
void skald_watch_fini(skald_run *run);
void skald_watch_loss(skald_run *run, const skald_result *result);
void skald_watch_settled(skald_run *run); /* the anchors have been put right: steps begin */
skald_status skald_watch_commit(skald_run *run);
skald_status skald_watch_rollback(skald_run *run, const char *why);

/* judge.c: when to evaluate, and what the outcome means for stopping. */
bool skald_judge_due(skald_run *run);
/* |grad F| at w, g being the data term's gradient, with l1 as the certificate has it and intercepts apart. */
double skald_run_stationarity(skald_run *run, const double *w, const double *g);
skald_status skald_judge_begin(skald_run *run);
/* The target that this evaluation has reached; SKALD_STOP_NONE: none of them. */
skald_stop skald_judge_reached(const skald_train_options *options, const skald_evaluation *evaluation);
skald_status skald_judge_done(skald_run *run);

/* full.c: full gradients. Begin: when the work asks for one and none is open. Task: the next one of the open round for
 * this worker; false: none. Add takes the result, and is true when it completes the round: *m is its merge. */
skald_status skald_full_init(skald_run *run);
void skald_full_fini(skald_run *run);
skald_status skald_full_begin(skald_run *run);
bool skald_full_task(skald_run *run, uint32_t worker, skald_task *task);
bool skald_full_add(skald_run *run, const skald_flight *flight, skald_result *result, skald_merge *m);
void skald_full_commit(skald_run *run);

/* path.c. Take: the piece for the next task, at the current version (published by the caller); NULL: there is none now.
 * Part: what a merged result of it counts. Land: a task of it is done, merged or not. Restart: from a full gradient. */
void skald_path_fini(skald_run *run);
void skald_path_restart(skald_run *run);
skald_piece *skald_path_take(skald_run *run);
double skald_path_part(skald_piece *piece);
void skald_path_land(skald_run *run, const skald_flight *flight);

/* eviction.c: history by version. Look: before a round of hand-outs. Pick: a shard for the worker's next task, one to
 * be put right first; UINT32_MAX: none now. Target: the model to take gradients anew at. Issued, landed: of every task.
 */
void skald_eviction_fini(skald_run *run);
void skald_eviction_leave(skald_run *run, uint32_t worker); /* its seat is another's: frees what is kept of it */
void skald_eviction_look(skald_run *run);
uint32_t skald_eviction_pick(const skald_run *run, uint32_t worker, uint32_t depth);
skald_version *skald_eviction_target(const skald_run *run, uint32_t worker);
skald_status skald_eviction_issued(skald_run *run, uint32_t worker, const skald_task *task);
void skald_eviction_landed(skald_run *run, const skald_result *result);

/* barrier.c: a look before a round of hand-outs; may this worker be given a task; it has been; would the run hang? */
void skald_barrier_look(skald_run *run);
bool skald_barrier_admits(skald_run *run, uint32_t worker);
void skald_barrier_dealt(skald_run *run, uint32_t worker);
skald_status skald_barrier_check(skald_run *run);

/* stale.c: what the policy makes of a result as stale as this; how much of a full step is made of it by `adapt`; what
 * became of a merge that a step of this length was made with: apply, scale (less than a full step), fold (none) or
 * reject. */
skald_stale skald_stale_action(skald_run *run, const skald_flight *flight, uint64_t staleness, uint64_t regular);
double skald_stale_part(const skald_run *run, uint64_t staleness, uint64_t regular);
skald_stale skald_stale_fate(const skald_merge *merge, double step);

/* table.c: the status table. */
double skald_table_slowdown(const skald_run *run, uint32_t worker); /* mean task time over the median; 1: not known */
double skald_table_median(const skald_run *run); /* of the workers' mean task times, ns; 0: none yet */
void skald_table_result(skald_run *run, const skald_flight *flight, const skald_result *result);
void skald_table_rows(const skald_run *run, skald_worker_row *rows); /* run->size of them */
uint32_t skald_table_slowest(const skald_run *run, double *ratio);   /* UINT32_MAX: nobody stands out */
void skald_table_progress(skald_run *run);                           /* tells the observer, at most 10 times a second */
void skald_table_fill(const skald_run *run, skald_progress *progress);
char *skald_table_json(const skald_run *run, bool audit); /* free() it; NULL when out of memory */

/* slow.c: who is slow, and why. */
void skald_slow_fill(const skald_run *run, skald_worker_row *rows); /* slowdown and cause */
void skald_slow_watch(skald_run *run); /* tells when that changes; about 10 times a second */

/* dispatch.c: the engine port's; who is given what. Publish: makes `current` a version of the solver's vectors. */
skald_status skald_run_publish(skald_run *run);
skald_status skald_run_dispatch(skald_engine *engine, const skald_work *work);

/* merge.c: what a result does to the ledger, and the merge that the solver is given. One: *m is its merge, and it is
 * held until committed. Round: all that has come, summed in the order of dispatch; SKALD_AGAIN: ranks were lost
 * meanwhile, and the round with them. Anchor: one recomputed from scratch; true: it is held, and *m puts things right.
 */
void skald_merge_one(skald_run *run, const skald_flight *flight, skald_result *r, skald_merge *m);
skald_status skald_merge_round(skald_run *run, skald_merge *m);
bool skald_merge_anchor(skald_run *run, const skald_flight *flight, skald_result *r, skald_merge *m);

/* engine.c: the engine port over a crew. */
extern const skald_engine_ops skald_crew_engine_ops;
/* The next event, dealt with; SKALD_AGAIN when it was not a training result, or none came. */
skald_status skald_run_pump(skald_run *run, skald_merge *merge);
/* Answers a request, or notes it. */
void skald_run_answer(skald_run *run, const skald_event *event);
/* Should the run end, and why? (Targets aside: skald_judge_reached.) */
skald_stop skald_run_stop_reason(const skald_run *run);
/* beside.c: the engine's operation; the oldest event that it held, if there is one; dropping what is left. */
skald_status skald_run_beside(skald_engine *engine, skald_status (*work)(void *user, const atomic_bool *stop),
                              void *user);
bool skald_run_next_held(skald_run *run, skald_event *event);
void skald_run_drop_held(skald_run *run);
skald_flight *skald_run_find(skald_run *run, uint64_t task);
void skald_run_land(skald_run *run, skald_flight *flight);
/* Asks every shard's holder for its anchor; `asker` (may be NULL) is answered when all have been compared. */
void skald_audit_begin(skald_run *run, void *asker);
void skald_audit_finish(skald_run *run);
/* Parts: how far the solver's wbar is from the models that the parts are at; relative. While the solver runs. */
double skald_audit_points(const skald_run *run);
/* Tasks it computes at the same time: those of one shard run one after the other. */
uint32_t skald_run_slots(const skald_member *member);
uint32_t skald_run_depth(const skald_run *run, const skald_member *member); /* tasks a slot may hold */
skald_status skald_run_submit(skald_run *run, uint32_t worker, skald_task *task);

/* membership.c: who is there and who has which shard. Event: lost, joined, withdrawn, leased (a
 * synchronous round may be complete then, but for what is lost). Complete: every shard is somebody's. */
skald_status skald_members_init(skald_run *run);
skald_status skald_members_ready(skald_run *run); /* once there is an evaluator */
skald_status skald_members_event(skald_run *run, const skald_event *event);
static inline bool skald_members_complete(const skald_run *run) {
    return run->unheld == 0;
}
/* Training tasks a slot of this worker has done, on the scale that leads are measured on. */
uint64_t skald_members_laps(const skald_run *run, uint32_t worker);
/* checkpoint.c. Resume: the run as the checkpoint has it; refuses one of another problem (SKALD_EMODEL). Tend: after
 * each commit. Last: training is over, and the solver's vectors are still there. */
skald_status skald_checkpoint_init(skald_run *run);
void skald_checkpoint_fini(skald_run *run);
skald_status skald_checkpoint_resume(skald_run *run);
void skald_checkpoint_tend(skald_run *run);
void skald_checkpoint_last(skald_run *run);

/* ranks.c: what a crew of ranks needs besides, before anything is dispatched: the audit somebody asked for, and putting
 * things right after a loss. */
skald_status skald_ranks_init(skald_run *run);
void skald_ranks_fini(skald_run *run);
skald_status skald_ranks_lost(skald_run *run); /* notes it; SKALD_AGAIN */
skald_status skald_ranks_tend(skald_run *run);
/* The solver is about to free its vectors: `work` has copies from here on, for what comes after training. */
void skald_ranks_finish(skald_run *run);

#endif
