/* The tables of what can be set: read by the parser, --help, the manual pages and completion. */
#include <math.h>
#include <stddef.h>

#include "cli/settings.h"

#define AT(member) offsetof(settings, member)
#define FLAG SKALD_OPTION_FLAG
#define INT SKALD_OPTION_INT
#define REAL SKALD_OPTION_REAL
#define TEXT SKALD_OPTION_TEXT
#define CHOICE SKALD_OPTION_CHOICE
#define DURATION SKALD_OPTION_DURATION
#define POSITIVE .min = SKALD_POSITIVE, .max = INFINITY

/* What `train` and `coordinator` share. A table reads best as one. */
/* clang-format off */
#define PROBLEM_OPTIONS \
    {"loss", CHOICE, AT(loss), "auto", .words = "auto|squared|logistic|squared-hinge|huber|softmax", .value = "LOSS", \
     .help = "squared, logistic, squared-hinge, huber, or softmax for any number of classes; auto: logistic for two labels, " \
             "softmax for a few small whole numbers, else squared; with --resume the checkpoint's", .group = "The model:"}, \
    {"l2", REAL, AT(l2), "1/n", 0, INFINITY, "1/n=-1", \
     .help = "Weight of |w|^2 / 2. 1/n is liblinear's -c 1"}, \
    {"l1", REAL, AT(l1), "0", 0, INFINITY, .help = "Weight of the sum of |w_j|: makes zeros"}, \
    {"nonconvex", REAL, AT(nonconvex), "0", 0, INFINITY, \
     .help = "Weight of the sum of w_j^2 / (1 + w_j^2), which is not convex (synthesis; sgd with --local off)"}, \
    {"intercept", FLAG, AT(intercept), "yes", .help = "Fit a constant too, not regularised. Without it: as liblinear's -B -1"}, \
    {"huber-delta", REAL, AT(huber_delta), "1", POSITIVE, .help = "Where huber turns from quadratic to linear"}, \
    {"class-weight", TEXT, AT(class_weight), .value = "LABEL=W,...|balanced", \
     .help = "Weights by label, or 'balanced': inverse to the label's share"}, \
    {"sample-weights", TEXT, AT(sample_weights), .value = "FILE", .help = "One weight a row, in text"}, \
    {"scale", CHOICE, AT(scale), "none", .words = "none|maxabs|standard", .value = "HOW", \
     .help = "Scale features: none, maxabs (largest |x_j| = 1) or standard (deviation 1, and mean 0 unless the data are " \
             "sparse). The model written is for unscaled data", .group = "The data:"}, \
    {"index-base", CHOICE, AT(index_base), "auto", .words = "auto|0|1", \
     .help = "First index of LIBSVM text; auto: 0 if an index 0 occurs"}, \
    {"dim", INT, AT(dim), "auto", 1, 4294967294.0, "auto=0", .help = "Number of features; auto: the largest index seen"}, \
    {"shards", INT, AT(shards), "auto", 1, 1048576, "auto=0", .help = "Pieces the data are dealt in; auto: one a worker thread"}, \
    {"contiguous", FLAG, AT(contiguous), .help = "Shards are runs of the file, not blocks dealt at random"}

#define SOLVER_OPTIONS \
    {"algo", CHOICE, AT(algo), "auto", .words = "auto|sgd|saga|svrg|synthesis|newton", .value = "ALGO", .group = "The algorithm:", \
     .help = "The solver, auto|sgd|saga|svrg|synthesis|newton. auto: as the problem asks for, and said. saga keeps the gradient of every row; " \
             "newton measures curvature too, for ill-conditioned data and for many workers; svrg takes all gradients every --epoch; " \
             "synthesis follows the gradient along the way, for objectives that are not convex; sgd has no history"}, \
    {"history", CHOICE, AT(history), "scalar", .words = "scalar|version", \
     .help = "saga: what is kept of a row's gradient: a number (a class), or which version of the model it was taken at"}, \
    {"history-versions", INT, AT(history_versions), "64", 2, 32768, .value = "N", \
     .help = "With --history version: versions a worker keeps. Before one goes, its rows' gradients are taken anew"}, \
    {"mode", TEXT, AT(mode), "async", .value = "async|sync|ssp:S|partial:B", \
     .help = "async: merge each result as it comes. sync: wait for everybody, every round. ssp:S: nobody gets more than S " \
             "tasks ahead of the slowest. partial:B: hand out work when the share B of the workers is free"}, \
    {"barrier", TEXT, AT(barrier), .value = "EXPR", \
     .help = "Hand out work where this holds, e.g. 'avail >= 0.7*workers && max_stale < 16'. Of the run: workers, avail, " \
             "busy, in_flight, max_stale, updates, passes; of the worker: worker, tasks, lead, staleness, " \
             "mean_staleness, time, slowdown, waiting"}, \
    {"step", REAL, AT(step), "auto", POSITIVE, "auto=0", .help = "Step length; auto: from the data's smoothness"}, \
    {"step-decay", REAL, AT(step_decay), "auto", 0, INFINITY, "auto=-1|none=0", \
     .help = "sgd: T in step / sqrt(1 + passes / T)"}, \
    {"epoch", REAL, AT(epoch), "auto", POSITIVE, "auto=0", .value = "PASSES", \
     .help = "Passes from one full gradient to the next; auto: 2 with svrg, about 1 with synthesis"}, \
    {"batch", INT, AT(batch), "auto", 1, 16777216, "auto=0", .help = "Rows a step"}, \
    {"task-rows", INT, AT(task_rows), "auto", 1, 1073741824, "auto=0", .help = "Rows a message"}, \
    {"local", CHOICE, AT(local), "auto", .words = "off|on|auto", \
     .help = "Many steps on the worker's own copy of the model a message (sgd, saga)"}, \
    {"theta", REAL, AT(theta), "auto", SKALD_POSITIVE, 1024, "auto=0", \
     .help = "Weight of a local result when merged, times the tasks in flight"}, \
    {"stale", TEXT, AT(stale), "scale", .value = "scale|apply|fold|reject|adapt|RULE,...", \
     .help = "Late results: scale (shorten their step), apply as they are, adapt (what the steps meanwhile leave of a " \
             "budget), fold (beyond --max-stale into the history only) or reject; or rules such as 'fold if staleness > " \
             "64, apply' over staleness, regular, workers, worker, updates, passes, slowdown"}, \
    {"max-stale", INT, AT(max_stale), "auto", 1, 1e9, "auto=0", \
     .help = "What is too late for --stale fold and reject; auto: 8 times the tasks in flight"}, \
    {"seed", INT, AT(seed), "1", 0, 9e15, .help = "Of everything random"}, \
    {"target-gap", REAL, AT(target_gap), NULL, POSITIVE, \
     .help = "Stop when (F - F*) / F* is certified to be at most this. Needs l2 or l1 above 0. Without any target or limit: 1e-6", \
     .group = "When to stop (what comes first; targets are checked at evaluations):"}, \
    {"target-decrement", REAL, AT(target_decrement), NULL, POSITIVE, \
     .help = "newton: stop when (F - F*) / F is at most this by gradient and curvature (half the squared Newton decrement): " \
             "an estimate that needs neither l2 nor l1. Without any target or limit: 1e-7, or a gap of 1e-6"}, \
    {"target-gradient", REAL, AT(target_gradient), NULL, POSITIVE, .help = "Stop when |grad F| is at most this"}, \
    {"target-objective", REAL, AT(target_objective), .value = "F", .help = "Stop when the objective is at most this"}, \
    {"target-tolerance", REAL, AT(target_tolerance), "1e-8", 0, 1, .help = "Relative, on --target-objective"}, \
    {"max-passes", REAL, AT(max_passes), NULL, POSITIVE, \
     .help = "Stop after so many passes over the data. Without any target or limit: what one core does in two " \
             "minutes, from 100 to 100000; without l2, where no gap can be certified, 100"}, \
    {"max-updates", INT, AT(max_updates), NULL, 1, 9e15, .help = "Stop after so many results merged"}, \
    {"max-time", DURATION, AT(max_time), NULL, 0.001, 1e8, .help = "Stop after 30s, 5m, 2h, ..."}, \
    {"eval-every", REAL, AT(eval_every), "auto", POSITIVE, "auto=0|end=-1", .value = "PASSES", \
     .help = "Passes between evaluations; auto: at most a tenth of the rows; end: only at the end"}, \
    {"eval-beside", FLAG, AT(eval_beside), .help = "Evaluations for a target objective do not halt training", \
     .hidden = true}

#define MEMBER_OPTIONS \
    {"on-loss", CHOICE, AT(on_loss), "reassign", .words = "reassign|wait|stop", .value = "HOW", \
     .help = "What becomes of a lost worker's rows: reassign, to the others; wait, for a worker to join; stop: the run ends", \
     .group = "Workers that come and go:"}, \
    {"max-workers", INT, AT(max_workers), "auto", 1, 65536, "auto=0", \
     .help = "Workers there can be at a time, those that join later too; auto: twice --workers, or 8 more"}, \
    {"heartbeat-timeout", DURATION, AT(heartbeat_timeout), "30s", 0.1, 86400, \
     .help = "A worker that has given no sign of life for so long is lost"}, \
    {"reconnect-grace", DURATION, AT(reconnect_grace), "auto", 0.001, 86400, "auto=0|none=-1", \
     .help = "How long a worker whose connection broke is waited for; auto: 10s, and not at all within this machine, " \
             "where it means that the process is dead"}, \
    {"overdue", DURATION, AT(overdue), "30s", 0.1, 1e6, \
     .help = "A worker whose task computes for so long, and for 20 times what 95% of its tasks take, is lost"}

#define TRIAL_OPTIONS \
    {"straggler", TEXT, AT(straggler), "none", .value = "MODEL,...", \
     .help = "Make workers slow on purpose, by waiting: cds:C (worker 0 waits C mean task times), pcs (a quarter of the " \
             "workers, at random), trace:FILE, pause:W@T+D, kill:W@T (seconds)", \
     .group = "To try what happens:"}, \
    {"pace", INT, AT(pace_ms), "0", 0, 60000, .value = "MS", \
     .help = "Each task takes at least so many milliseconds, by waiting: many workers on few cores. --straggler's delays " \
             "are relative to it"}

#define CHECKPOINT_OPTIONS \
    {"checkpoint", TEXT, AT(checkpoint), .value = "FILE", \
     .help = "Keep all that is needed to go on in FILE, and what it was before in FILE.1; the last one is made as training " \
             "ends, on SIGTERM too", .group = "To go on later:"}, \
    {"checkpoint-every", TEXT, AT(checkpoint_every), "60s", .value = "TIME|PASSES", \
     .help = "How often: 60s, 5m, or 2passes"}, \
    {"resume", TEXT, AT(resume), .value = "FILE|auto", \
     .help = "Go on from FILE, and keep on writing it (or --checkpoint's); on as many workers as there are now. Limits are " \
             "those of the whole run. auto: from --checkpoint's if it is there, else anew"}

#define OUTPUT_OPTIONS \
    {"model", TEXT, AT(model), .value = "FILE", .help = "Write the model here (HDF5)", .group = "Output:"}, \
    {"export", TEXT, AT(export_path), .value = "liblinear:FILE", \
     .help = "Write the model for liblinear's predict too"}, \
    {"log", TEXT, AT(log), .value = "FILE", .help = "Write one JSON object a line: start, evaluations, notices, end"}, \
    {"record", TEXT, AT(record), .value = "FILE", \
     .help = "Keep the order of everything that happens, for 'skald replay'"}, \
    {"progress", CHOICE, AT(progress), "auto", .words = "auto|line|live|none", .value = "HOW", \
     .help = "live: one line that rewrites itself; line: a line an evaluation; auto: live on a terminal, else line"}, \
    {"slow-ratio", REAL, AT(slow_ratio), "1.5", 1, 1000, .value = "X", \
     .help = "Name a worker as slow whose tasks take X times the median"}, \
    {"quiet", FLAG, AT(quiet), .help = "Nothing but errors"}

#define PAGE_OPTIONS \
    {"http", TEXT, AT(http), .value = "[HOST:]PORT", .group = "To watch:", \
     .help = "Serve a live page, /metrics for Prometheus and /status.json here; a port alone is this machine's"}, \
    {"http-insecure", FLAG, AT(http_insecure), .help = "Let --http, which is plain text, reach beyond this machine"}

const skald_option train_options[] = {
    PROBLEM_OPTIONS,
    SOLVER_OPTIONS,
    {"workers", INT, AT(workers), "auto", 0, 4096, "auto=-1|cores=-2",
     .help = "Worker processes to start; 0: this process computes, alone and in order; auto: 0 for small data, else one a "
             "card that --device may use, or else one a core. On several cards they are dealt in turn",
     .group = "Who computes:"},
    {"threads", INT, AT(threads), "auto", 1, 1024, "auto=1", .help = "Threads a worker: each runs its own tasks; auto: one"},
    COMPUTE_OPTIONS,
    {"listen", TEXT, AT(listen), .value = "ADDRESS",
     .help = "HOST:PORT or unix:/PATH for the workers and for 'skald status'; without it a socket in a folder made for "
             "this run"},
    {"insecure", FLAG, AT(insecure), .help = "Let --listen reach beyond this machine in plain text, or to anybody"},
    {"connect", TEXT, AT(connect), .value = "ADDRESS",
     .help = "Train nothing here: follow the run of the coordinator at ADDRESS, and fetch its model at the end"},
    {"version-budget", INT, AT(version_budget), "auto", 1, 1048576, "auto=0", .value = "MB",
     .help = "Model versions a worker keeps, so that they need not be sent again; auto: eight vectors"},
    {"wait", DURATION, AT(wait), "30s", 0, 1e8, .help = "With --connect: how long to wait for the coordinator"},
    SECURITY_OPTIONS,
    MEMBER_OPTIONS,
    CHECKPOINT_OPTIONS,
    PAGE_OPTIONS,
    TRIAL_OPTIONS,
    OUTPUT_OPTIONS,
    {"isa", TEXT, AT(isa), .help = "portable, avx2 or avx512", .hidden = true},
    {0},
};

const skald_option coordinator_options[] = {
    {"listen", TEXT, AT(listen), "127.0.0.1:7700", .value = "ADDRESS",
     .help = "HOST:PORT (port 0: a free one) or unix:/PATH", .group = "The workers:"},
    {"workers", INT, AT(workers), "1", 1, 4096, .help = "How many to wait for before the data are dealt"},
    {"wait", DURATION, AT(wait), "forever", 0, 1e8, "forever=0",
     .help = "How long to wait for them, and for others when all are lost"},
    {"insecure", FLAG, AT(insecure), .help = "Let --listen reach beyond this machine in plain text, or to anybody"},
    {"version-budget", INT, AT(version_budget), "auto", 1, 1048576, "auto=0", .value = "MB",
     .help = "Model versions a worker keeps, so that they need not be sent again; auto: eight vectors"},
    {"linger", DURATION, AT(linger), "1s", 0, 1e8, "forever=-1",
     .help = "After the end, when the workers have gone, go on answering 'skald status' and 'skald train --connect' for "
             "that long; forever: until SIGTERM"},
    SECURITY_OPTIONS,
    MEMBER_OPTIONS,
    {"max-sessions", INT, AT(max_sessions), "4096", 1, 65536, .help = "Sessions at a time, workers' and strangers'"},
    {"max-message", SKALD_OPTION_BYTES, AT(max_message), "1G", 65536, 2147483647.0, .value = "BYTES",
     .help = "Who sends a longer message is shown out"},
    {"hello-within", DURATION, AT(hello), "10s", 0.001, 3600,
     .help = "Who connects and says nothing for so long is shown out"},
    {"offences", INT, AT(offences), "5", 1, 1000000, .value = "N",
     .help = "Nonsense, silence, wrong tokens, others' names: who comes to N within --refuse-for is refused for so long"},
    {"refuse-for", DURATION, AT(refuse), "60s", 0.001, 1e6, .help = "See --offences; by certificate, or without one by host"},
    {"health", TEXT, AT(health), .value = "ADDRESS",
     .help = "With TLS: answer gRPC health probes, and nothing else, in plain text here"},
    PAGE_OPTIONS,
    PROBLEM_OPTIONS,
    SOLVER_OPTIONS,
    CHECKPOINT_OPTIONS,
    TRIAL_OPTIONS,
    OUTPUT_OPTIONS,
    {0},
};

const skald_option simulate_options[] = {
    {"workers", INT, AT(workers), "32", 1, 65536, .help = "Simulated workers, a thread each", .group = "Who computes:"},
    {"row-time", REAL, AT(row_ns), "auto", POSITIVE, "auto=0", .value = "NS",
     .help = "What a worker needs for a row; auto: as the data's shape suggests"},
    {"message-time", REAL, AT(message_us), "auto", 0, 1e9, "auto=-1", .value = "US",
     .help = "A message on its way, in microseconds"},
    {"coordinator-time", REAL, AT(coordinator_us), "auto", 0, 1e9, "auto=-1", .value = "US",
     .help = "What the coordinator needs for a result, in microseconds"},
    {"free-evaluations", FLAG, AT(free_evaluations), .help = "Evaluations take no time"},
    PAGE_OPTIONS,
    TRIAL_OPTIONS,
    PROBLEM_OPTIONS,
    SOLVER_OPTIONS,
    OUTPUT_OPTIONS,
    {"isa", TEXT, AT(isa), .help = "portable, avx2 or avx512", .hidden = true},
    {0},
};

const skald_option bench_options[] = {
    {"modes", TEXT, AT(modes), "sync,async", .value = "MODE,...", .help = "Of train's --mode; speed-ups are over the first",
     .group = "What is compared:"},
    {"algos", TEXT, AT(algos), "saga", .value = "ALGO,...", .help = "Of train's --algo"},
    {"stragglers", TEXT, AT(stragglers), "none pcs", .value = "'MODEL MODEL ...'",
     .help = "Of train's --straggler, blanks between them"},
    {"gap", REAL, AT(gap), "1e-3", POSITIVE, .help = "The target: (F - F*) / F*, F* found first and off the clock"},
    {"repeats", INT, AT(repeats), "3", 1, 99, .help = "Runs of each; medians are compared"},
    {"workers", INT, AT(workers), "8", 1, 4096, .help = "Worker processes of each run"},
    {"pace", INT, AT(pace_ms), "20", 0, 60000, .value = "MS",
     .help = "Each task takes at least so long, by waiting: many workers on few cores"},
    {"timeout", DURATION, AT(timeout), "5m", 1, 1e6, .help = "A run that takes longer is stopped, and counts as that long"},
    {"baseline", TEXT, AT(baselines), NULL, .value = "sklearn,liblinear",
     .help = "Solve with these beside it, where installed (logistic loss, LIBSVM text)"},
    {"output", TEXT, AT(out), "bench-report", .value = "FOLDER", .help = "The report: index.html, results.json, logs"},
    {"quiet", FLAG, AT(quiet), .help = "Nothing but errors"},
    PROBLEM_OPTIONS,
    SOLVER_OPTIONS,
    {"isa", TEXT, AT(isa), .help = "portable, avx2 or avx512", .hidden = true},
    {0},
};
/* clang-format on */
