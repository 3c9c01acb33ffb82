/* Other solvers on the same data, to the same gap: liblinear through its command line, scikit-learn through python3.
 * Neither knows of F*: each is given ever tighter tolerances until it is there, and the time of that solve counts.
 * Loading is excluded for scikit-learn; liblinear's command line reads its text each time, and that is part of it. */
#include <fcntl.h>
#include <math.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/base.h"
#include "cli/bench.h"
#include "worker/local_data.h"

extern char **environ;

/* argv: data C intercept target-objective gap; prints a line a solver: name, seconds, objective; or why not. */
static const char script[] =
    "import sys, time, warnings, numpy as np\n"
    "warnings.filterwarnings('ignore')\n"
    "from sklearn.datasets import load_svmlight_file\n"
    "from sklearn.linear_model import LogisticRegression\n"
    "path, l2, best, gap, limit = sys.argv[1], *map(float, sys.argv[2:6])\n"
    "x, y = load_svmlight_file(path)\n"
    "y = np.where(y > y.min(), 1.0, -1.0)\n"
    "n = len(y); l2 = l2 if l2 > 0 else -l2 / n\n"
    "def objective(w): return np.logaddexp(0, -y * (x @ w)).mean() + l2 / 2 * (w @ w)\n"
    "for solver in ('lbfgs', 'saga'):\n"
    "    spent, tolerance, reached = 0, 1e-2, False\n"
    "    while spent < limit and tolerance > 1e-12 and not reached:\n"
    "        m = LogisticRegression(C=1 / (n * l2), fit_intercept=False, solver=solver, tol=tolerance, "
    "max_iter=100000)\n"
    "        t = time.perf_counter(); m.fit(x, y); t = time.perf_counter() - t\n"
    "        spent += t; tolerance /= 4; f = objective(m.coef_[0]); reached = f <= best * (1 + gap)\n"
    "    print(f'scikit-learn {solver}|{t:.17g}|{(f - best) / best:.17g}|{int(reached)}')\n";

/* Finds a program in PATH; false if there is none. */
static bool find_program(const char *const *names, char *out, size_t size) {
    const char *path = getenv("PATH");
    for (; path && *names; names++) {
        for (const char *at = path; *at;) {
            const size_t length = strcspn(at, ":");
            snprintf(out, size, "%.*s/%s", (int)length, at, *names);
            if (length && access(out, X_OK) == 0) return true;
            at += length + (at[length] == ':');
        }
    }
    return false;
}

/* Runs it with its output in a file; the exit code, or -1. */
static int run_program(const char *const *words, const char *output) {
    pid_t pid;
    int status = -1;
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 1, output, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
    if (posix_spawn(&pid, words[0], &actions, NULL, (char *const *)(uintptr_t)words, environ) == 0)
        while (waitpid(pid, &status, 0) < 0) {
        }
    posix_spawn_file_actions_destroy(&actions);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static bench_baseline *another(bench *b, const char *name) {
    if (b->baseline_count == (int)SKALD_ARRAY_LENGTH(b->baselines)) return NULL;
    bench_baseline *x = &b->baselines[b->baseline_count++];
    *x = (bench_baseline){.gap = NAN};
    snprintf(x->name, sizeof x->name, "%s", name);
    return x;
}

static void skip(bench *b, const char *name, const char *why) {
    bench_baseline *x = another(b, name);
    if (x) snprintf(x->note, sizeof x->note, "%s", why);
}

static void scikit(bench *b) {
    static const char *const names[] = {"python3", NULL};
    char python[512], l2[40], best[40], gap[40], limit[40], output[512], line[256], name[64];
    if (!find_program(names, python, sizeof python)) {
        skip(b, "scikit-learn", "there is no python3");
        return;
    }
    snprintf(output, sizeof output, "%.400s/sklearn.txt", b->folder);
    snprintf(l2, sizeof l2, "%.17g", b->s->l2);
    snprintf(best, sizeof best, "%.17g", b->optimum);
    snprintf(gap, sizeof gap, "%.17g", b->s->gap);
    snprintf(limit, sizeof limit, "%.17g", (double)b->s->timeout * 1e-9);
    const char *const probe[] = {python, "-c", "import sklearn", NULL};
    const char *const words[] = {python, "-c", script, b->data, l2, best, gap, limit, NULL};
    if (run_program(probe, "/dev/null") != 0) {
        skip(b, "scikit-learn", "python3 has no sklearn");
        return;
    }
    if (run_program(words, output) != 0) {
        skip(b, "scikit-learn", "it failed on these data (it reads LIBSVM text)");
        return;
    }
    FILE *f = fopen(output, "re");
    while (f && fgets(line, sizeof line, f)) {
        double seconds, reached_gap;
        int reached;
        if (sscanf(line, "%63[^|]|%lf|%lf|%d", name, &seconds, &reached_gap, &reached) != 4) continue;
        bench_baseline *x = another(b, name);
        if (!x) break;
        x->seconds = seconds;
        x->gap = reached_gap;
        if (!reached)
            snprintf(x->note, sizeof x->note, "it did not reach the gap: %.2g after %.3g s", reached_gap, seconds);
    }
    if (f) fclose(f);
}

/* liblinear's text model, as weights for the evaluation: its first class is the positive one. */
static skald_status evaluate_liblinear(const bench *b, const char *path, double *objective) {
    settings s = *b->s;
    skald_local_data local;
    skald_data_options data = {.path = b->data, .source = {.index_base = s.index_base - 1, .threads = 1}, .seed = 1};
    const skald_objective o = {.loss = SKALD_LOGISTIC, .l2 = s.l2, .classes = 1, .huber_delta = 1};
    const skald_compute_options compute = {.device = "cpu", .threads = 1, .isa = s.isa};
    char line[256];
    double first = 0, second = 0;
    bool body = false;
    TRY(skald_local_data_open(&data, &o, &compute, 1, 1, &local));
    const uint32_t dim = skald_problem_length(&local.problem);
    double *w = skald_zalloc(dim, sizeof *w);
    FILE *f = fopen(path, "re");
    uint32_t j = 0;
    while (w && f && fgets(line, sizeof line, f)) {
        if (sscanf(line, "label %lf %lf", &first, &second) == 2) continue;
        if (strncmp(line, "w\n", 2) == 0)
            body = true;
        else if (body && j < dim)
            w[j++] = strtod(line, NULL);
    }
    if (f) fclose(f);
    double loss = 0, norm = 0;
    skald_lane lane = {0};
    skald_status st = w && body ? skald_lane_init(&lane, &local.runner) : skald_fail(SKALD_EDATA, "no model");
    for (j = 0; st == SKALD_OK && j < dim; j++) {
        if (first < second) w[j] = -w[j];
        norm += w[j] * w[j];
    }
    if (st == SKALD_OK) {
        skald_version model = {.id = 1, .count = 1, .dim = dim, .vectors = {w}};
        const skald_task task = {.kind = SKALD_TASK_OBJECTIVE,
                                 .shard = SKALD_ALL_SHARDS,
                                 .model = &model,
                                 .points = 1,
                                 .n = local.problem.n};
        skald_result r = {0};
        skald_runner_run(&local.runner, &lane, &task, &r);
        st = r.status;
        loss = r.sums[0].loss;
    }
    *objective = loss / local.problem.n + 0.5 * local.problem.objective.l2 * norm;
    skald_lane_fini(&lane);
    free(w);
    skald_local_data_close(&local);
    return st;
}

static void liblinear(bench *b) {
    static const char *const names[] = {"liblinear-train", "train", NULL};
    static const char *const solvers[] = {"0", "7"};
    char program[512], model[512], c[40], eps[40], name[64];
    if (!find_program(names, program, sizeof program)) {
        skip(b, "liblinear", "there is no liblinear-train (or train)");
        return;
    }
    snprintf(model, sizeof model, "%.400s/liblinear.model", b->folder);
    snprintf(c, sizeof c, "%.17g", b->s->l2 > 0 ? 1 / (b->s->l2 * b->n) : -1 / b->s->l2);
    for (size_t k = 0; k < SKALD_ARRAY_LENGTH(solvers); k++) {
        double seconds = 0, spent = 0, gap = INFINITY, tolerance = 1;
        snprintf(name, sizeof name, "liblinear -s %s", solvers[k]);
        bench_baseline *x = another(b, name);
        if (!x) return;
        for (; gap > b->s->gap && tolerance > 1e-9 && spent < (double)b->s->timeout * 1e-9; tolerance /= 4) {
            double objective;
            snprintf(eps, sizeof eps, "%.6g", tolerance);
            const char *const words[] = {program, "-q", "-s", solvers[k], "-c", c, "-e", eps, b->data, model, NULL};
            const int64_t began = skald_now_ns(skald_clock_system());
            const int code = run_program(words, "/dev/null");
            seconds = (double)(skald_now_ns(skald_clock_system()) - began) * 1e-9;
            spent += seconds;
            if (code != 0 || evaluate_liblinear(b, model, &objective) != SKALD_OK) {
                snprintf(x->note, sizeof x->note, "it failed on these data (it reads LIBSVM text, plain)");
                return;
            }
            gap = (objective - b->optimum) / fabs(b->optimum);
        }
        x->seconds = seconds;
        x->gap = gap;
        if (gap > b->s->gap)
            snprintf(x->note, sizeof x->note, "it did not reach the gap: %.2g after %.3g s", gap, spent);
    }
}

skald_status bench_check_baselines(const char *list) {
    char *names = strdup(list ? list : ""), *rest = NULL;
    if (!names) return skald_fail(SKALD_ENOMEM, "out of memory");
    skald_status st = SKALD_OK;
    for (char *w = strtok_r(names, ", ", &rest); w && st == SKALD_OK; w = strtok_r(NULL, ", ", &rest))
        if (strcmp(w, "sklearn") != 0 && strcmp(w, "liblinear") != 0)
            st = skald_fail(SKALD_EINVAL, "--baseline: %s is not known; sklearn and liblinear are", w);
    free(names);
    return st;
}

skald_status bench_baselines(bench *b) {
    if (!b->s->baselines) return SKALD_OK;
    char *names = strdup(b->s->baselines), *rest = NULL;
    if (!names) return skald_fail(SKALD_ENOMEM, "out of memory");
    const bool fits = b->logistic && b->s->l1 == 0 && !b->s->intercept && b->s->scale == 0;
    for (char *w = strtok_r(names, ", ", &rest); w; w = strtok_r(NULL, ", ", &rest)) {
        if (!fits)
            skip(b, w, "baselines are for --loss logistic with --l2 alone, --no-intercept and no --scale");
        else
            (strcmp(w, "sklearn") == 0 ? scikit : liblinear)(b);
    }
    free(names);
    return SKALD_OK;
}
