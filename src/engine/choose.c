#include "skald/choose.h"

#include <math.h>
#include <stdio.h>

/* ---- the loss -------------------------------------------------------------------------------------- */

/* Classes are numbered, or have small codes; a year, a price or a weight is none. */
static const double LARGEST_CODE = 1000;
/* So many whole numbers may be any codes (digits, grades, 20 newsgroups); more, up to 100 (letters, CIFAR-100), are
 * classes only if they are numbered without a gap from 0 or 1, and the rarest has a tenth of the mean class: ages,
 * years and counts have gaps, begin elsewhere, or thin out. */
enum { FEW_CLASSES = 20, MANY_CLASSES = 100, RARE = 10 };
/* A class of which there are not even three rows on average is no class. */
enum { ROWS_A_CLASS = 3 };

static bool all_codes(const skald_label *labels, uint32_t count) {
    for (uint32_t k = 0; k < count; k++)
        if (labels[k].value != floor(labels[k].value) || fabs(labels[k].value) > LARGEST_CODE) return false;
    return true;
}

static bool numbered(const skald_label *labels, uint32_t count, uint64_t rows) {
    if (labels[0].value != 0 && labels[0].value != 1) return false;
    if (labels[count - 1].value - labels[0].value != count - 1) return false; /* distinct, whole, ascending */
    for (uint32_t k = 0; k < count; k++)
        if ((double)labels[k].count * RARE * count < (double)rows) return false;
    return true;
}

skald_loss_choice skald_choose_loss(const skald_label *labels, uint32_t count, uint64_t rows) {
    skald_loss_choice c = {.loss = SKALD_SQUARED};
    if (count > SKALD_MAX_LABELS) {
        snprintf(c.why, sizeof c.why, "more than %d different targets", SKALD_MAX_LABELS);
    } else if (count <= 2) { /* of one alone logistic says that there is nothing to learn */
        c.loss = SKALD_LOGISTIC;
        snprintf(c.why, sizeof c.why, "two labels, %g and %g", labels[0].value, labels[count - 1].value);
    } else if (!all_codes(labels, count)) {
        snprintf(c.why, sizeof c.why, "%u different targets, not all of them small whole numbers", count);
    } else if (rows < (uint64_t)ROWS_A_CLASS * count) {
        snprintf(c.why, sizeof c.why, "%u whole numbers in %llu rows are too many for classes", count,
                 (unsigned long long)rows);
    } else if (count <= FEW_CLASSES || (count <= MANY_CLASSES && numbered(labels, count, rows))) {
        c.loss = SKALD_SOFTMAX;
        c.doubtful = true;
        snprintf(c.why, sizeof c.why, "%u labels, %g to %g; if they are amounts: --loss squared", count,
                 labels[0].value, labels[count - 1].value);
    } else {
        c.doubtful = count <= MANY_CLASSES;
        snprintf(c.why, sizeof c.why, "%u whole numbers, %g to %g%s", count, labels[0].value, labels[count - 1].value,
                 c.doubtful ? "; if they are classes: --loss softmax" : "");
    }
    return c;
}

/* ---- facts ----------------------------------------------------------------------------------------- */

skald_facts skald_facts_of(const skald_problem *p, uint32_t workers) {
    return (skald_facts){.rows = p->n,
                         .dim = p->dim,
                         .nonzeros = p->nonzeros,
                         .dense = p->dense,
                         .classes = skald_objective_classes(&p->objective),
                         .l1 = p->objective.l1,
                         .l2 = p->objective.l2,
                         .L = p->L,
                         .L_max = p->L_max,
                         .nonconvex = p->objective.nonconvex > 0,
                         .workers = workers};
}

double skald_pass_ns(const skald_facts *f) {
    const double row = f->dense ? 0.45 * f->dim * f->classes : 60 + 4.5 * f->nonzeros / f->rows * f->classes;
    return f->rows * row;
}

/* ---- the algorithm --------------------------------------------------------------------------------- */

/* SAGA takes about (n + L_max/l2) log(1/gap) rows (Defazio et al. 2014), here some seven passes and a third of that for
 * each n of condition. */
static const double WELL = 3, PASSES = 7, PASSES_BY_CONDITION = 2;
/* Newton: about a dozen measures of the curvature of all rows, if those are few, or five of a sample's. */
static const double MEASURES = 12, SAMPLE_MEASURES = 5, FLOPS_A_NS = 30, STEPS = 80;
static const double MOST_ENTRIES = 2e7, MOST_DENSE = 4096, MOST_CLASS_COLUMNS = 1536, EXACT_CLASS_COLUMNS = 160;
static const double ILL = 30; /* below, a sample's Newton gains nothing */

/* Nanoseconds to measure curvature on so many rows, and to step by it. */
static double measure_ns(const skald_facts *f, double rows) {
    const double d = f->dim * (double)f->classes, entry = f->dense ? f->dim : f->nonzeros / f->rows;
    if (f->classes > 1 && d > (f->l1 > 0 ? MOST_CLASS_COLUMNS : EXACT_CLASS_COLUMNS))
        return 8 * rows * entry * f->classes; /* conjugate gradients */
    if (f->classes == 1 && 2 * rows <= d) return (rows * rows * entry + rows * rows * rows / 3) / FLOPS_A_NS;
    const double columns =
        f->dense ? f->dim : fmin(f->dim, 4 * entry); /* a sparse row's square is done entry by entry */
    return (rows * columns * columns * f->classes * (f->classes + 1) / 2 + d * d * d / 3) / FLOPS_A_NS;
}

static double saga_ns(const skald_facts *f, double condition) {
    return (PASSES + PASSES_BY_CONDITION * condition) * skald_pass_ns(f) / f->workers;
}

/* INFINITY: not to be had, or not to be trusted. */
static double newton_ns(const skald_facts *f, double condition) {
    const double pass = skald_pass_ns(f) / f->workers;
    if (f->l1 > 0 && f->classes > 1 && f->dim * (double)f->classes > MOST_CLASS_COLUMNS) return INFINITY;
    if (f->nonzeros * f->classes <= MOST_ENTRIES) return MEASURES * measure_ns(f, f->rows) + 3 * pass;
    if (f->classes > 1 || f->dim > MOST_DENSE || condition < ILL) return INFINITY;
    const double rows = fmin(f->rows, 10.0 * f->dim);
    return 1.5 * PASSES * pass + SAMPLE_MEASURES * measure_ns(f, rows) + STEPS * 0.5 * f->dim * (double)f->dim;
}

skald_algo_choice skald_choose_algo(const skald_facts *f) {
    skald_algo_choice c = {.algo = SKALD_SAGA};
    if (f->nonconvex) {
        c.algo = SKALD_SYNTHESIS;
        snprintf(c.why, sizeof c.why, "not convex");
    } else if (f->stochastic) {
        snprintf(c.why, sizeof c.why, "takes the options given");
    } else {
        const double condition = f->L_max / (f->l2 * f->rows); /* infinite without l2 */
        if (newton_ns(f, condition) < saga_ns(f, condition)) c.algo = SKALD_NEWTON;
        snprintf(c.why, sizeof c.why, "%s conditioned: L_max/l2 is %.2g n", condition <= WELL ? "well" : "badly",
                 condition);
    }
    return c;
}

/* ---- who computes ---------------------------------------------------------------------------------- */

/* A pass of at least so long on one core pays for workers. They send some ten messages a pass each, of 0.1 ms and more
 * with long models; what is merged takes up to twice the passes of steps made in a row; starting them takes 0.1 s. With
 * saga to gaps of 1e-3 and 1e-6 two of them took 1.5 to 10 times as long below 15 ms a pass, and as long from 18 ms on
 * (README, "Who computes"), where also the data begin to be large enough that reading them in parallel counts. */
static const double PAYS_NS = 50e6;

skald_workers_choice skald_choose_workers(const skald_facts *f, uint32_t cores, uint32_t cards, uint64_t blocks) {
    skald_workers_choice c = {0};
    const uint32_t most = cards ? cards : cores;
    const double pass = skald_pass_ns(f);
    if (pass < PAYS_NS) {
        snprintf(c.why, sizeof c.why, "a pass takes about %.2g ms", pass * 1e-6);
    } else if (!cards && cores < 2) {
        snprintf(c.why, sizeof c.why, "there is one core");
    } else {
        c.workers = blocks < most ? (uint32_t)blocks : most;
        snprintf(c.why, sizeof c.why, "a pass takes one core about %.2g s", pass * 1e-9);
    }
    return c;
}

/* ---- how long -------------------------------------------------------------------------------------- */

/* Two minutes of one core, and no more than a hundred thousand passes: what has not arrived by then will not. */
static const double LONGEST_NS = 120e9, MOST_PASSES = 1e5, LEAST_PASSES = 100;

double skald_choose_passes(const skald_facts *f) {
    const double passes = fmin(fmax(LONGEST_NS / skald_pass_ns(f), LEAST_PASSES), MOST_PASSES);
    const double digit = pow(10, floor(log10(passes)));
    return floor(passes / digit) * digit; /* a round number to tell */
}
