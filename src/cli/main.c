/* skald: one binary, one subcommand a file. */
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "cli/cli.h"
#include "cli/man.h"

static const command *const commands[] = {
    &command_train,      &command_coordinator, &command_worker,  &command_predict,  &command_evaluate,
    &command_convert,    &command_generate,    &command_replay,  &command_simulate, &command_status,
    &command_drain,      &command_top,         &command_devices, &command_what_if,  &command_bench,
    &command_completion, &command_version};

const command *const *commands_all(size_t *count) {
    *count = SKALD_ARRAY_LENGTH(commands);
    return commands;
}

int report_failure(const command *self) {
    fprintf(stderr, "skald %s: %s\n", self->name, skald_error());
    return EXIT_FAILED;
}

static void print_help(void) {
    printf("Usage: skald COMMAND [OPTION...] [ARGUMENT...]\n\n"
           "Skald trains linear models (least squares, logistic and softmax regression, squared hinge, huber; l1 and\n"
           "l2) on data that many machines hold together. A coordinator keeps the model; workers, however uneven,\n"
           "compute on their shards; each result is merged as it comes. History (SAGA) makes that converge to the\n"
           "exact optimum.\n\n");
    for (size_t i = 0; i < SKALD_ARRAY_LENGTH(commands); i++)
        printf("  %-12s %s\n", commands[i]->name, commands[i]->summary);
    printf("\nThree lines to begin with:\n\n"
           "  skald generate rcv1 --rows 20000 --output train.svm\n"
           "  skald train --loss logistic --l2 1e-4 --target-gap 1e-8 --model model.h5 train.svm\n"
           "  skald evaluate --model model.h5 train.svm\n\n"
           "'skald help COMMAND' tells the rest; 'skald help --man [COMMAND]' as a manual page, 'skald help "
           "--man=FOLDER' all\n"
           "of them into a folder.\n");
}

static const command *find(const char *name) {
    for (size_t i = 0; i < SKALD_ARRAY_LENGTH(commands); i++)
        if (strcmp(commands[i]->name, name) == 0) return commands[i];
    const char *nearest = NULL;
    unsigned least = 4;
    for (size_t i = 0; i < SKALD_ARRAY_LENGTH(commands); i++) {
        unsigned distance = skald_edit_distance(name, strlen(name), commands[i]->name);
        if (distance < least) {
            least = distance;
            nearest = commands[i]->name;
        }
    }
    fprintf(stderr, "skald: unknown command '%s'%s%s%s\nTry 'skald --help'.\n", name, nearest ? "; did you mean " : "",
            nearest ? nearest : "", nearest ? "?" : "");
    exit(EXIT_USAGE);
}

/* help --man [COMMAND], help --man=FOLDER */
static int print_manual(const char *rest, const char *name) {
    if (rest[0] == '=' && rest[1] && !name) {
        if (man_folder(rest + 1, commands, SKALD_ARRAY_LENGTH(commands)) == SKALD_OK) return EXIT_DONE;
        fprintf(stderr, "skald help: %s\n", skald_error());
        return EXIT_FAILED;
    }
    if (rest[0]) {
        fprintf(stderr, "skald help: must be --man [COMMAND] or --man=FOLDER\n");
        return EXIT_USAGE;
    }
    man_page(stdout, name ? find(name) : NULL, commands, SKALD_ARRAY_LENGTH(commands));
    return fflush(stdout) == 0 ? EXIT_DONE : EXIT_FAILED;
}

int main(int argc, char **argv) {
    if (argc < 2) {
        fprintf(stderr, "skald: a command is missing\nTry 'skald --help'.\n");
        return EXIT_USAGE;
    }
    const char *name = argv[1];
    bool help = strcmp(name, "help") == 0 || strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0;
    if (help && argc == 2) {
        print_help();
        return EXIT_DONE;
    }
    if (help && strncmp(argv[2], "--man", 5) == 0) return print_manual(argv[2] + 5, argc > 3 ? argv[3] : NULL);
    if (strcmp(name, "--version") == 0) name = "version";
    /* Messages are as long as the model and come many times a second: their memory stays, rather than being mapped,
     * cleared and given back for each. */
    mallopt(M_MMAP_THRESHOLD, 32 << 20);
    mallopt(M_TRIM_THRESHOLD, 1 << 30);
    mallopt(M_TOP_PAD, 16 << 20);
    const command *chosen = find(help ? argv[2] : name);
    arguments_warn_unknown_variables(commands, SKALD_ARRAY_LENGTH(commands));
    if (help) {
        char command_name[32], flag[] = "--help";
        snprintf(command_name, sizeof command_name, "%s", chosen->name);
        char *words[] = {command_name, flag, NULL};
        return chosen->run(chosen, 2, words);
    }
    int code = chosen->run(chosen, argc - 1, argv + 1);
    /* what was printed must have arrived: a full disk under stdout is a failure */
    if (fflush(stdout) != 0 || ferror(stdout)) {
        fprintf(stderr, "skald %s: cannot write to standard output\n", chosen->name);
        if (code == EXIT_DONE) code = EXIT_FAILED;
    }
    return code;
}
