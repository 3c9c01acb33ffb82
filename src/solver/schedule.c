#include "solver/schedule.h"

#include <math.h>

double skald_expected_smoothness(double n, double b, double L, double L_max) {
    if (n <= 1 || b >= n) return L;
    return n * (b - 1) / (b * (n - 1)) * L + (n - b) / (b * (n - 1)) * L_max;
}

/* Rows a local step. Small batches make the most progress a row, big ones spare passes over the state (five
 * doubles an entry from cache for each step against one float an entry from memory for each row): the
 * minimum of time to a given accuracy, ~ (row + state/b) x b L_b. Sparse steps touch only the batch's columns. */
static uint32_t local_batch(const skald_problem *p) {
    if (!p->dense) return 1;
    uint32_t best = 1;
    double least = INFINITY;
    for (uint32_t b = 1; b <= 16; b *= 2) {
        double cost = (1 + 1.7 / b) * b * skald_expected_smoothness(p->n, b, p->L, p->L_max);
        if (cost < least) least = cost, best = b;
    }
    return best;
}

static double mean_shard_rows(const skald_problem *p) {
    return p->n / p->shard_count;
}

/* Rows whose steps take as long as their task's message, both ends together: in nanoseconds on one core, of which only
 * the ratio matters (a message is four vectors). */
static double message_rows(const skald_problem *p) {
    const double classes = skald_objective_classes(&p->objective);
    double row = p->dense ? 0.45 * p->dim * classes : 60 + 4.5 * p->nonzeros / p->n * classes;
    return (150e3 + 32.0 * skald_problem_length(p)) / row;
}

/* Rows of a local task: a sixteenth of its shard's; where messages outweigh that, up to a tenth, or an eighth for a
 * lone chain with history (1 % more passes on average of eight problems, 7 % at most). Longer runs lose in passes
 * what they save in messages, and beyond an eighth long steps may diverge. */
static double local_rows(const skald_problem *p, bool lone) {
    double shard = mean_shard_rows(p);
    return ceil(fmin(fmax(shard / 16, message_rows(p)), fmax(shard / (lone ? 8 : 10), 1)));
}

/* The weight of local runs when merged, times their number P. A mean of them goes too short a way where they have not
 * arrived yet: relaxed a little, runs of two workers took a tenth to a quarter fewer passes on every problem tried. But
 * a queued task does not know what the others' runs before it have found, which is then done twice: the loop has a gain
 * of theta (P-1)/P a round later, and swings without end at 1 (seen with 4 and 8 equal workers that answer in step). */
static const double RELAXED = 1.2, GAIN = 0.7;

static double local_weight(uint32_t P) {
    return P > 1 ? fmin(RELAXED, GAIN * P / (P - 1)) : 1;
}

skald_schedule skald_schedule_make(const skald_engine *e, const skald_train_options *o, bool history) {
    const skald_problem *p = e->problem;
    skald_schedule s = {.parallel = e->parallel,
                        .local = o->local != 0,
                        .theta = o->theta > 0 ? o->theta
                                 : history    ? local_weight(e->parallel)
                                              : 1};
    double shard = mean_shard_rows(p);
    if (s.local) {
        s.step_rows = o->step_rows ? o->step_rows : local_batch(p);
        s.task_rows = o->task_rows ? o->task_rows : (uint32_t)local_rows(p, history && e->parallel == 1);
    } else {
        /* plain: a batch a message; where L_b has come half way down to L, but no more than an eighth of a shard's
         * epoch */
        double b = fmax(p->L_max / p->L, 1);
        /* by version: a worker's pass in as many tasks as it keeps versions; more, and rows are taken anew often */
        if (o->history_versions) b = fmax(b, p->n / (e->parallel * (double)o->history_versions));
        b = fmin(b, fmax(shard / 8, 1));
        s.task_rows = o->task_rows ? o->task_rows : o->step_rows ? o->step_rows : (uint32_t)b;
        s.step_rows = s.task_rows;
    }
    double L_b = skald_expected_smoothness(p->n, s.step_rows, p->L, p->L_max) + p->objective.l2;
    if (o->step > 0) {
        s.eta = o->step;
    } else if (history) {
        s.eta = 1 / (3 * L_b);
        if (!s.local && o->mode == SKALD_ASYNC) s.eta /= e->parallel; /* ASYNC's rule for plain tasks */
        if (!s.local && o->mode == SKALD_SYNC)                        /* a round is one batch of P tasks */
            s.eta = 1 / (3 * (skald_expected_smoothness(p->n, (double)s.step_rows * e->parallel, p->L, p->L_max) +
                              p->objective.l2));
    } else {
        s.eta = 1 / (2 * L_b);
        if (!s.local && o->mode == SKALD_ASYNC) s.eta /= e->parallel;
    }
    s.lengthen = history && s.local && !(o->step > 0);
    if (!history) s.decay = o->step_decay < 0 ? (o->step > 0 ? 0 : 0.1) : o->step_decay;
    return s;
}

/* A step of P tasks of b rows in flight may be 1/(3 (L_b + (P-1) L)): L_b for the spread of a batch, and the P-1 merges
 * that a result does not know of add up along the directions they share, which L bounds. A pass of such steps goes as
 * far as 1 / (L_max + b P L) says, and takes (1 + M/b) times as long as its rows, M the rows a message is worth: the b
 * in between, but one where the passes are no more than about four times those of the smallest. */
static double difference_rows(const skald_problem *p, double parallel) {
    const double ratio = p->L_max / (p->L * parallel), shard = mean_shard_rows(p);
    return fmin(fmax(fmin(sqrt(message_rows(p) * ratio), 4 * ratio), 1), fmax(shard / 8, 1));
}

skald_schedule skald_schedule_difference(const skald_engine *e, const skald_train_options *o) {
    const skald_problem *p = e->problem;
    const double P = e->parallel;
    skald_schedule s = {.parallel = e->parallel, .theta = 1};
    s.task_rows = o->task_rows ? o->task_rows : o->step_rows ? o->step_rows : (uint32_t)difference_rows(p, P);
    s.step_rows = s.task_rows;
    const double b = s.task_rows;
    const double L = o->mode == SKALD_SYNC /* a round is one batch of P tasks */
                         ? skald_expected_smoothness(p->n, b * P, p->L, p->L_max)
                         : skald_expected_smoothness(p->n, b, p->L, p->L_max) + (P - 1) * p->L;
    s.eta = o->step > 0 ? o->step : 1 / (3 * (L + p->objective.l2));
    return s;
}

/* The error of G after q steps is about sqrt((q/b) L L_max) eta times the gradient (b rows a piece); the step keeps
 * that below a half. The pieces that are out are L (P-1) eta of it, and 1.5 would be too much. */
skald_schedule skald_schedule_path(const skald_engine *e, const skald_train_options *o) {
    const skald_problem *p = e->problem;
    const double P = e->parallel, own = p->objective.l2 + 2 * p->objective.nonconvex, shard = mean_shard_rows(p);
    const bool sync = o->mode == SKALD_SYNC;
    skald_schedule s = {.parallel = e->parallel, .theta = 1};
    const double rows = ceil(fmin(sqrt(p->n) / (sync ? P : 1), fmax(shard / 8, 1)));
    s.task_rows = o->task_rows ? o->task_rows : o->step_rows ? o->step_rows : (uint32_t)rows;
    s.step_rows = s.task_rows;
    const double b = sync ? s.task_rows * P : s.task_rows, spread = fmax(p->L, sqrt(sqrt(p->n) / b * p->L * p->L_max));
    s.eta = o->step > 0 ? o->step : 1 / (2 * spread + (sync ? 0 : (P - 1) * p->L) + own);
    return s;
}

/* Implicit steps (see skald_local) may be as long as Point-SAGA's (Defazio 2016, theorem 1),
 *     gamma = ( sqrt((N-1)^2 + 4 N L/mu) - (N-1) ) / (2 L N),
 * which has the rate of N + sqrt(N L/mu) steps where 1/(3 L) has N + L/mu: many times fewer on ill-conditioned
 * problems. N = n/b. L is not the worst row's but the mean of k_i over curvature, as the last pass met it: on
 * saturated rows of a logistic loss the difference is great. LONGEST: beyond, the spread between the model read and
 * the local one, in which the history is wrong, no longer shrinks (found by experiment, with room: 1.5 stalls). */
static const double LONGEST = 0.75;

static double long_step(const skald_schedule *s, const skald_engine *e) {
    const skald_problem *p = e->problem;
    const double N = fmax(p->n / s->step_rows, 1), mu = p->objective.l2;
    const double L = skald_expected_smoothness(p->n, s->step_rows, fmin(p->L, e->smoothness), e->smoothness) + mu;
    const double longest = LONGEST / L;
    if (mu <= 0) return longest;
    return fmin(longest, (sqrt((N - 1) * (N - 1) + 4 * N * L / mu) - (N - 1)) / (2 * L * N));
}

double skald_schedule_eta(const skald_schedule *s, const skald_engine *e) {
    double eta = s->eta;
    if (s->lengthen && e->smoothness > 0 && e->passes >= 1) /* once there is a history */
        eta = fmax(eta, long_step(s, e));
    eta *= e->backoff;
    return s->decay > 0 ? eta / sqrt(1 + e->passes / s->decay) : eta;
}

double skald_schedule_damping(const skald_schedule *s, const skald_merge *m) {
    if (m->fold) return 0;
    if (m->action == SKALD_STALE_APPLY) return 1;
    if (m->action == SKALD_STALE_ADAPT) return m->adapted;
    return fmin(1, (1.0 + (double)m->regular) / (1.0 + (double)m->staleness));
}

double skald_schedule_theta(const skald_schedule *s, const skald_merge *m) {
    return s->theta / m->chains * skald_schedule_damping(s, m) * m->bias;
}
