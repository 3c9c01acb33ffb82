/* What is chosen where the user did not say: pure functions of facts about the data, each with its reason in words for
 * people. They allocate nothing, never fail and depend on nothing else, so that the same data give the same choice on
 * every machine (but for the number of cores, where that is a fact). Any thread. */
#ifndef SKALD_CHOOSE_H
#define SKALD_CHOOSE_H

#include <stdbool.h>
#include <stdint.h>

#include "skald/data.h"
#include "skald/problem.h"
#include "skald/train.h"

enum { SKALD_WHY = 120 };

typedef struct skald_loss_choice {
    skald_loss loss;
    bool doubtful;       /* the targets might as well be numbers as names of classes */
    char why[SKALD_WHY]; /* "two labels, -1 and 1" */
} skald_loss_choice;

/* From what a manifest says of labels (ascending; count > SKALD_MAX_LABELS: more than that, values unknown): two values
 * are logistic's, whole numbers that look like classes softmax's, the rest squared's. See choose.c for "look like". */
skald_loss_choice skald_choose_loss(const skald_label *labels, uint32_t count, uint64_t rows);

/* Facts of a problem and of the run it is to have. */
typedef struct skald_facts {
    double rows;
    uint32_t dim;    /* columns, the intercept's included */
    double nonzeros; /* entries a pass touches; dense: rows x dim */
    bool dense;
    uint32_t classes; /* 1 for all losses but softmax */
    double l1, l2;
    double L, L_max; /* smoothness of the data term; L 0: not measured yet */
    bool nonconvex;
    uint32_t workers; /* at least 1, which may be this process */
    bool stochastic;  /* options were given that only solvers of steps over some of the rows have (--step, ...) */
} skald_facts;
/* Of a loaded problem (see skald_problem_loaded). */
skald_facts skald_facts_of(const skald_problem *problem, uint32_t workers);

typedef struct skald_algo_choice {
    skald_algo algo;
    char why[SKALD_WHY];
} skald_algo_choice;
skald_algo_choice skald_choose_algo(const skald_facts *facts);

/* Nanoseconds one core takes for a pass: an estimate from the shape, as task sizes are chosen by. */
double skald_pass_ns(const skald_facts *facts);

typedef struct skald_workers_choice {
    uint32_t workers; /* 0: this process alone */
    char why[SKALD_WHY];
} skald_workers_choice;
/* One a card, or without cards a core, where they pay and the data divide into as many blocks. L, L_max, l1 and l2 are
 * not read. */
skald_workers_choice skald_choose_workers(const skald_facts *facts, uint32_t cores, uint32_t cards, uint64_t blocks);

/* The passes after which a run without any limit ends: some minutes of one core, at least a hundred. */
double skald_choose_passes(const skald_facts *facts);

#endif
