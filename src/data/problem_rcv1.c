/* `rcv1.binary` (Lewis et al. 2004, as on the LIBSVM page: 47,236 columns, 0.16% not zero, about 74 a row, tf-idf rows
 * of unit length, 53% positive; the largest eigenvalue of X'X/n is a few hundredths; linear models reach 96-98%).
 *
 * Here: each document has one of 32 topics and a length (log-normal, mean near 74); a word comes from the whole
 * language's Zipf law or from the topic's own one over a shuffled vocabulary; value = (1 + log tf) * log(1/share of the
 * documents), rows scaled to unit length, 6 decimals. Labels: a sparse linear model (a fifth of the words count, and
 * the topic) plus noise. */
#include <stdlib.h>
#include <string.h>

#include "data/problem.h"

enum { DIM = 47236, TOPICS = 32, TOPIC_WORDS = 2000, LONGEST = 600 };

struct problem {
    uint64_t seed;
    double cumulative[DIM]; /* of the language's Zipf law */
    double topic_cumulative[TOPIC_WORDS];
    uint32_t guide[4097]; /* first rank whose cumulative reaches k / 4096 */
    uint32_t topic_word[TOPICS][TOPIC_WORDS];
    float idf[DIM], weight[DIM];
    float topic_weight[TOPICS];
    double threshold;
    double topic_share;
};

/* Words: rank r of the language is column word(r), so that frequent ones lie anywhere in the vocabulary. */
static uint32_t word_of_rank(const problem *p, uint32_t rank) {
    return (uint32_t)skald_permute(problem_key(p->seed, 1, 0), DIM, rank);
}

/* First rank with cumulative >= u. */
static uint32_t find(const double *cumulative, uint32_t low, uint32_t high, double u) {
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (cumulative[middle] < u)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

typedef struct draft {
    double value[LONGEST];
    uint32_t words[LONGEST], idx[LONGEST]; /* idx and q: for rows that go nowhere */
    int32_t q[LONGEST];
} draft;

static int ascending(const void *a, const void *b) {
    uint32_t i = *(const uint32_t *)a, j = *(const uint32_t *)b;
    return i < j ? -1 : i > j;
}

/* A row and the value its label is the sign of, before the threshold. */
static double make(const problem *p, uint64_t i, uint32_t *idx, int32_t *q, uint32_t *entries, draft *d) {
    uint32_t *words = d->words;
    double *value = d->value;
    uint64_t key = problem_key(p->seed, 10, i);
    uint32_t topic = (uint32_t)(TOPICS * skald_uniform(key, 0) * skald_uniform(key, 1)); /* some are common */
    double length = 81 * exp(0.55 * problem_normal(key, 2));
    uint32_t draws = length < 8 ? 8 : length > LONGEST ? LONGEST : (uint32_t)length, n = 0;
    for (uint64_t k = 0; k < draws; k++) {
        double which = skald_uniform(key, 10 + 2 * k), u = skald_uniform(key, 11 + 2 * k);
        if (which < p->topic_share) {
            words[k] = p->topic_word[topic][find(p->topic_cumulative, 0, TOPIC_WORDS - 1, u)];
        } else {
            uint32_t slot = (uint32_t)(u * 4096);
            words[k] = word_of_rank(p, find(p->cumulative, p->guide[slot], p->guide[slot + 1], u));
        }
    }
    qsort(words, draws, sizeof *words, ascending);
    double norm2 = 0, margin = p->topic_weight[topic];
    for (uint32_t k = 0; k < draws;) {
        uint32_t j = words[k], count = 0;
        while (k < draws && words[k] == j) k++, count++;
        value[n] = (1 + log(count)) * p->idf[j];
        norm2 += value[n] * value[n];
        idx[n++] = j;
    }
    for (uint32_t k = 0; k < n; k++) {
        double v = value[k] / sqrt(norm2);
        q[k] = (int32_t)(v * 1e6 + 0.5);
        margin += v * p->weight[idx[k]];
    }
    *entries = n;
    return margin + 0.05 * problem_normal(key, 3);
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* So that 53% of the rows are positive, as in the real set: from rows that no file gets to. */
static skald_status place_threshold(problem *p) {
    enum { SAMPLE = 4096 };
    draft *d = malloc(sizeof *d);
    double *margin = malloc(SAMPLE * sizeof *margin);
    if (d && margin) {
        uint32_t n;
        for (uint64_t i = 0; i < SAMPLE; i++) margin[i] = make(p, UINT64_MAX - i, d->idx, d->q, &n, d);
        qsort(margin, SAMPLE, sizeof *margin, by_value);
        p->threshold = margin[(int)(0.47 * SAMPLE)];
    }
    bool good = d && margin;
    free(d);
    free(margin);
    return good ? SKALD_OK : skald_fail(SKALD_ENOMEM, "out of memory");
}

static uint32_t row(const problem *p, uint64_t i, uint32_t *idx, int32_t *q, int *label, void *scratch) {
    uint32_t n;
    *label = make(p, i, idx, q, &n, scratch) > p->threshold ? 1 : -1;
    return n;
}

static skald_status create(uint64_t seed, problem **out) {
    problem *p = calloc(1, sizeof *p);
    if (!p) return skald_fail(SKALD_ENOMEM, "out of memory");
    p->seed = seed;
    p->topic_share = 0.68;
    double sum = 0, topic_sum = 0;
    /* stop words are not in the set: the law starts flat */
    for (int r = 0; r < DIM; r++) p->cumulative[r] = sum += pow(r + 12.0, -1.1);
    for (int r = 0; r < TOPIC_WORDS; r++) p->topic_cumulative[r] = topic_sum += pow(r + 3.0, -1.15);
    double *share = calloc(DIM, sizeof *share); /* of the words drawn */
    if (!share) {
        free(p);
        return skald_fail(SKALD_ENOMEM, "out of memory");
    }
    for (uint32_t r = 0; r < DIM; r++) {
        double before = r ? p->cumulative[r - 1] / sum : 0;
        share[word_of_rank(p, r)] += (1 - p->topic_share) * (p->cumulative[r] / sum - before);
    }
    for (int r = 0; r < DIM; r++) p->cumulative[r] /= sum;
    for (int r = 0; r < TOPIC_WORDS; r++) p->topic_cumulative[r] /= topic_sum;
    for (uint32_t k = 0, r = 0; k <= 4096; k++) {
        while (r < DIM - 1 && p->cumulative[r] < k / 4096.0) r++;
        p->guide[k] = r;
    }
    for (uint32_t t = 0; t < TOPICS; t++) {
        for (uint32_t r = 0; r < TOPIC_WORDS; r++) {
            /* a topic's words are mostly middling ones of the language */
            uint32_t rank = (uint32_t)(12000 * pow(skald_uniform(problem_key(seed, 2, t), r), 1.5));
            uint32_t word = p->topic_word[t][r] = word_of_rank(p, rank);
            double before = r ? p->topic_cumulative[r - 1] : 0;
            share[word] += p->topic_share / TOPICS * (p->topic_cumulative[r] - before);
        }
        p->topic_weight[t] = (float)(1.1 * problem_normal(problem_key(seed, 3, 0), t));
    }
    for (uint64_t j = 0; j < DIM; j++) {
        double documents = 1 - exp(-82 * share[j]); /* share of documents with the word, at 82 draws each */
        p->idf[j] = (float)log(1 / (documents + 1e-6));
        bool counts = skald_uniform(problem_key(seed, 4, 0), j) < 0.2;
        p->weight[j] = counts ? (float)(0.7 * problem_normal(problem_key(seed, 5, 0), j)) : 0;
    }
    free(share);
    skald_status st = place_threshold(p);
    if (st == SKALD_OK)
        *out = p;
    else
        free(p);
    return st;
}

static void destroy(problem *p) {
    free(p);
}

const problem_ops problem_rcv1 = {.kind = "rcv1",
                                  .dim = DIM,
                                  .row_most = LONGEST,
                                  .decimals = 6,
                                  .labels_signed = true,
                                  .create = create,
                                  .destroy = destroy,
                                  .row = row,
                                  .scratch = sizeof(draft)};
