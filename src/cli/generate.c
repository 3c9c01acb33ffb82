/* skald generate: seeded problems with the shapes of well-known data sets. */
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "skald/data.h"
#include "skald/objective.h"

typedef struct values {
    int64_t rows, seed;
    const char *output;
    bool sort_by_label;
} values;

#define AT(member) offsetof(values, member)

/* clang-format off */
static const skald_option table[] = {
    {"rows", SKALD_OPTION_INT, AT(rows), "10000", 1, 1e10, .help = "Rows"},
    {"seed", SKALD_OPTION_INT, AT(seed), "1", 0, 9e15, .help = "Same seed, same file"},
    {"output", SKALD_OPTION_TEXT, AT(output), .value = "FILE", .help = "Ends in .h5 or .hdf5: HDF5; else LIBSVM text"},
    {"sort-by-label", SKALD_OPTION_FLAG, AT(sort_by_label), .help = "All rows of one label first, as files often are"},
    {0},
};
/* clang-format on */

static int run(const command *self, int argc, char **argv) {
    values v = {0};
    arguments args;
    arguments_parse(self, argc, argv, &v, &args);
    const char *kind = args.words[0];
    if (strcmp(kind, "epsilon") != 0 && strcmp(kind, "mnist8m") != 0 && strcmp(kind, "rcv1") != 0)
        arguments_error(self, "unknown kind '%s'; may be epsilon, mnist8m or rcv1", kind);
    if (!v.output) arguments_error(self, "--output FILE is missing");

    skald_generate_options options = {
        .kind = kind, .rows = (uint64_t)v.rows, .seed = (uint64_t)v.seed, .sort_by_label = v.sort_by_label};
    skald_generate_report report = {0};
    skald_status st = check_output_path(v.output);
    if (st == SKALD_OK) st = skald_generate(&options, v.output, &report);
    if (st == SKALD_OK) {
        double logistic = skald_loss_curvature(SKALD_LOGISTIC);
        printf("%s: %lld rows, %u columns, density %.4g, %.1f%% positive\n", v.output, (long long)v.rows, report.dim,
               report.density, 100 * report.positive_share);
        printf("squared loss:  L %.6g  L_max %.6g\n", report.L_squared, report.L_max_squared);
        printf("logistic loss: L %.6g  L_max %.6g\n", logistic * report.L_squared, logistic * report.L_max_squared);
    }
    arguments_free(&args);
    return st == SKALD_OK ? EXIT_DONE : report_failure(self);
}

const command command_generate = {
    .name = "generate",
    .words = "epsilon|mnist8m|rcv1",
    .summary = "write a seeded problem with the shape of a well-known data set",
    .about =
        "Writes a problem made from a seed: epsilon (2000 dense unit rows), mnist8m (784 non-negative columns) or "
        "rcv1 (47,236 columns, about 74 nonzeros a row), and prints its smoothness: L of the average loss, L_max of "
        "the worst row.",
    .notes = "For example:\n\n  skald generate epsilon --rows 40000 --seed 1 --output epsilon.h5\n\n",
    .table = table,
    .least_words = 1,
    .most_words = 1,
    .run = run,
};
