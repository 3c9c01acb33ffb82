/* The problem: what the manifest and the options together make of the data. */
#ifndef SKALD_PROBLEM_H
#define SKALD_PROBLEM_H

#include "skald/compute.h"
#include "skald/data.h"
#include "skald/objective.h"

/* How the user wants the data seen. Owned by the caller. */
typedef struct skald_data_options {
    const char *path;
    skald_source_options source;
    skald_scaling scaling;
    bool intercept;
    bool choose_loss;            /* by the labels (choose.h): the objective's loss is not read */
    bool balanced;               /* class weights n / (classes * count) */
    uint32_t class_weight_count; /* explicit class weights, by label value as in the file */
    const double *class_weight_label, *class_weight;
    uint32_t shards;       /* 0: one a slot */
    uint32_t least_shards; /* of 0 above: but no fewer (those of the run that goes on) */
    bool contiguous;       /* shards are runs of the file instead of dealt blocks */
    uint64_t seed;
    /* Of `path`, opened and scanned already, for who reads it in this process; NULL: neither is. Both the caller's. */
    skald_source *opened;
    const skald_manifest *scanned;
} skald_data_options;

typedef struct skald_shard_info {
    uint64_t rows;
    uint64_t checksum;
    uint64_t block_begin, block_count; /* into skald_problem.blocks */
    skald_shard_facts facts;           /* filled once it is loaded */
} skald_shard_info;

typedef struct skald_problem {
    skald_objective objective;
    uint32_t dim;      /* columns of the rows, intercept included: see skald_problem_length for vectors */
    uint32_t features; /* dim without it */
    double n;          /* rows */
    double nonzeros;   /* entries a pass touches, dense: n x dim */
    bool dense;
    double weight_scale; /* n / sum of the weights as read */
    double L, L_max;     /* smoothness of the data term: of its average and of its worst row */
    uint64_t seed;
    uint32_t shard_count;
    skald_shard_info *shards;
    skald_block *blocks;       /* grouped by shard */
    skald_transform transform; /* its arrays are owned by the problem */
    double *column_mean2;      /* dim: mean of x^2, as trained (scaled), by column; without weights */
    skald_label *labels;
    uint32_t label_count; /* 0: real targets */
    char chosen[160];     /* "loss logistic (two labels, -1 and 1)"; "": it was given */
    bool unknown_shares;  /* labels[].weight_sum is not what a class weighs: weights come from a file of their own */
    double *start;        /* the constant (of each class) that a new run begins with; NULL without an intercept */
    double start_loss;    /* the mean loss there is no more: classes, that of no model at all; else about b */
    char warnings[1024];  /* for people; "" if none */
} skald_problem;

/* Entries of the solver's vectors: dim x classes (see skald_objective_length); below 2^32. */
static inline uint32_t skald_problem_length(const skald_problem *problem) {
    return (uint32_t)skald_objective_length(&problem->objective, problem->dim);
}

/* Builds the problem from a finished manifest: label map, scaling, shards. Refuses (SKALD_EDATA) labels the
 * loss cannot use, more shards than blocks, and so on, naming path. An l2 of -k stands for k/n, and becomes that.
 * slots: tasks the workers run at the same time, all together; as many shards unless the options say. */
skald_status skald_problem_make(const skald_manifest *manifest, const skald_data_options *options,
                                const skald_objective *objective, uint32_t workers, uint64_t slots, skald_problem *out);
/* Facts of rows as read (weights not yet rescaled; sums of weights and weighted norms are linear in them). */
void skald_rows_facts(const skald_rows *rows, const skald_objective *objective, skald_shard_facts *out);
/* Once every shard's raw facts are in: sets weight_scale = n / sum of weights, rescales the facts by it,
 * L_max, nonzeros, start, warnings. SKALD_EDATA when all weights are zero. */
skald_status skald_problem_loaded(skald_problem *problem);
/* Mean loss of w = 0, once the facts are there: for classes phi(0, y), the same for all; for real targets y^2/2, which
 * huber's is at most. */
double skald_problem_loss_at_zero(const skald_problem *problem);
/* What labels are of the order of: 1 for classes, for real targets the root of their mean square, about
 * the constant if there is one. */
double skald_problem_label_scale(const skald_problem *problem);
/* Sets start and start_loss: where a run begins when it does not go on, w = 0 and the best b beside that. With mean the
 * weighted mean of y, and positives = (1 + mean)/2:
 *   squared, squared-hinge   b = mean
 *   huber                    b = mean (the median would be better, and is not known)
 *   logistic                 b = log(positives / (1 - positives))
 *   softmax                  b_c = log(share of class c), less the mean over c; 0 where shares are unknown
 * A class of no weight counts half a row. */
skald_status skald_problem_start(skald_problem *problem);
/* s_i *= weight_scale: what the holder of the rows does then, before loading them into a backend. */
void skald_rows_rescale(skald_rows *rows, double weight_scale);
/* Blocks as little-endian words, SKALD_BLOCK_WORDS each, for the wire. */
#define SKALD_BLOCK_WORDS 5
void skald_blocks_to_words(const skald_block *blocks, uint64_t count, uint64_t *words);
void skald_blocks_from_words(const uint64_t *words, uint64_t count, skald_block *blocks);
void skald_problem_free(skald_problem *problem);
/* What a client has to know to write a model, as a JSON object; free() it. NULL: out of memory. */
char *skald_problem_json(const skald_problem *problem);
/* Do the data come from LIBSVM text whose indices begin at 0? (HDF5 has no such question: its blocks have no bytes.) */
static inline bool skald_problem_zero_based_text(const skald_problem *problem) {
    return problem->transform.zero_based && problem->blocks && problem->blocks[0].bytes > 0;
}

#endif
