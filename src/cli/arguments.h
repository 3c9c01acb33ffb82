/* One subcommand's arguments: the option table, its help, and the words that are not options. */
#ifndef SKALD_CLI_ARGUMENTS_H
#define SKALD_CLI_ARGUMENTS_H

#include "base/options.h"

enum { ARGUMENTS_MAX_WORDS = 4 };

typedef struct command {
    const char *name;          /* "train" */
    const char *words;         /* for the usage line: "DATA" */
    const char *summary;       /* one line, for `skald --help` */
    const char *about;         /* a paragraph above the options; may be NULL */
    const char *notes;         /* below them: examples, exit codes; may be NULL */
    const skald_option *table; /* ends with an entry without a name */
    int least_words, most_words;
    int (*run)(const struct command *self, int argc, char **argv); /* argv[0] is the subcommand; the exit code */
} command;

typedef struct arguments {
    skald_options options;
    const char *words[ARGUMENTS_MAX_WORDS]; /* NULL beyond word_count */
    int word_count;
} arguments;

/* Fills *values from defaults, environment and command line. Handles --help, --usage and --dump-config, and ends
 * the process after them (0) or on a usage error (2). */
void arguments_parse(const command *self, int argc, char **argv, void *values, arguments *out);
void arguments_free(arguments *args);
/* Ends the process with a usage error (2) in the subcommand's name. */
void arguments_error(const command *self, const char *format, ...) __attribute__((format(printf, 2, 3), noreturn));

/* The help of an entry, with default and range; what stands for its value (NULL: a flag). free() them. */
char *arguments_help_text(const skald_option *option);
char *arguments_placeholder(const skald_option *option);

/* Is this entry of the environment one that names libraries to open (or is for the tests' device), and no option? */
bool arguments_is_library_variable(const char *entry);

/* Warns on stderr of SKALD_* variables that no subcommand knows. */
void arguments_warn_unknown_variables(const command *const *commands, size_t count);

#endif
