/* skald convert: any readable file to the HDF5 form, shuffled. */
#include <stddef.h>
#include <stdio.h>

#include "cli/cli.h"
#include "skald/data.h"

typedef struct values {
    int index_base;
    int64_t dim, seed, threads;
    const char *sample_weights;
    bool quiet;
} values;

#define AT(member) offsetof(values, member)

/* clang-format off */
static const skald_option table[] = {
    {"seed", SKALD_OPTION_INT, AT(seed), "1", 0, 9e15, .help = "Of the shuffle"},
    {"sample-weights", SKALD_OPTION_TEXT, AT(sample_weights), .value = "FILE", .help = "One weight a row, in text"},
    {"index-base", SKALD_OPTION_CHOICE, AT(index_base), "auto", .words = "auto|0|1",
     .help = "First index of LIBSVM text; auto: 0 if an index 0 occurs"},
    {"dim", SKALD_OPTION_INT, AT(dim), "auto", 1, 4294967294.0, "auto=0",
     .help = "Number of features; auto: the largest index seen"},
    {"threads", SKALD_OPTION_INT, AT(threads), "cores", 1, 1024, "cores=0", .help = "Threads that read"},
    {"quiet", SKALD_OPTION_FLAG, AT(quiet), .help = "Nothing but errors"},
    {0},
};
/* clang-format on */

static int run(const command *self, int argc, char **argv) {
    values v = {0};
    arguments args;
    arguments_parse(self, argc, argv, &v, &args);
    skald_source_options options = {.weights_path = v.sample_weights,
                                    .index_base = v.index_base - 1,
                                    .dim = (uint32_t)v.dim,
                                    .threads = v.threads ? (int)v.threads : usable_cores()};
    skald_status st = check_output_path(args.words[1]);
    if (st == SKALD_OK) st = skald_convert(args.words[0], &options, (uint64_t)v.seed, args.words[1]);
    if (st == SKALD_OK && !v.quiet) printf("%s written\n", args.words[1]);
    arguments_free(&args);
    return st == SKALD_OK ? EXIT_DONE : report_failure(self);
}

const command command_convert = {
    .name = "convert",
    .words = "IN OUT.h5",
    .summary = "write a data file in the HDF5 form, shuffled, that loads at disk speed",
    .about = "Reads IN (LIBSVM text, plain, .gz or .xz, or HDF5) and writes it as HDF5 with its rows shuffled; their "
             "numbers in IN are kept.",
    .notes = "For example:\n\n  skald convert --seed 1 train.svm.xz train.h5\n\n",
    .table = table,
    .least_words = 2,
    .most_words = 2,
    .run = run,
};
