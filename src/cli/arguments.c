#include "cli/arguments.h"

#include <argp.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"

extern char **environ;

enum { KEY_DUMP = 1000, KEY_FIRST = 2000 }; /* beyond characters: no short options */

typedef struct parse {
    const command *self;
    arguments *args;
    bool dump;
} parse;

void arguments_error(const command *self, const char *format, ...) {
    fprintf(stderr, "skald %s: ", self->name);
    va_list list;
    va_start(list, format);
    vfprintf(stderr, format, list);
    va_end(list);
    fprintf(stderr, "\nTry 'skald %s --help'.\n", self->name);
    exit(EXIT_USAGE);
}

static error_t on_option(int key, char *text, struct argp_state *state) {
    parse *p = state->input;
    arguments *args = p->args;
    if (key == KEY_DUMP) {
        p->dump = true;
    } else if (key >= KEY_FIRST && key < KEY_FIRST + (int)args->options.count) {
        if (skald_options_set(&args->options, (size_t)(key - KEY_FIRST), text ? text : "yes", SKALD_FROM_COMMAND))
            arguments_error(p->self, "%s", skald_error());
    } else if (key == ARGP_KEY_ARG) {
        if (args->word_count >= p->self->most_words)
            arguments_error(p->self, "unexpected argument '%s'; usage: skald %s [OPTION...] %s", text, p->self->name,
                            p->self->words);
        args->words[args->word_count++] = text;
    } else {
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static char *joined(const skald_option *o, const char *value) {
    char *out = NULL;
    if (asprintf(&out, "--%s=%s", o->name, value) < 0) abort();
    return out; /* argp's until the process ends */
}

/* Other ways to write a flag's value than the one that argp knows: --no-NAME, and --NAME on. Returns the new argc. */
static int join_flags(const skald_options *set, int argc, char **argv) {
    static const char *const values[] = {"yes", "no", "on", "off"};
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strncmp(argv[i], "--", 2) != 0) continue;
        const bool no =
            strncmp(argv[i], "--no-", 5) == 0 && skald_options_find(set, argv[i] + 2, strlen(argv[i] + 2)) < 0;
        const char *name = argv[i] + (no ? 5 : 2);
        const int index = skald_options_find(set, name, strlen(name));
        if (index < 0) continue;
        const skald_option *o = &set->table[index];
        if (o->type != SKALD_OPTION_FLAG) {
            i += !no; /* what follows is its value */
        } else if (no) {
            argv[i] = joined(o, "no");
        } else {
            for (size_t k = 0; k < sizeof values / sizeof *values && i + 1 < argc; k++) {
                if (strcmp(argv[i + 1], values[k]) != 0) continue;
                argv[i] = joined(o, values[k]);
                memmove(argv + i + 1, argv + i + 2, (size_t)(argc - i - 1) * sizeof *argv); /* the NULL, too */
                argc--;
            }
        }
    }
    return argc;
}

/* argp says "unrecognized option" and no more: look first, so that a typo gets a suggestion. */
static void check_names(const command *self, const skald_options *set, int argc, char **argv) {
    static const char *const built_in[] = {"help", "usage", "dump-config"};
    for (int i = 1; i < argc; i++) {
        const char *word = argv[i];
        if (strcmp(word, "--") == 0) return;
        if (word[0] != '-' || word[1] == '\0') continue;
        if (word[1] != '-') {
            if (strcmp(word, "-h") == 0 || strcmp(word, "-?") == 0) {
                static char help[] = "--help";
                argv[i] = help;
                continue;
            }
            arguments_error(self, "unknown option '%s' (options begin with --)", word);
        }
        const char *name = word + 2;
        size_t length = strcspn(name, "=");
        bool known = false;
        for (size_t k = 0; k < sizeof built_in / sizeof *built_in; k++)
            known |= length > 0 && strncmp(built_in[k], name, length) == 0;
        int index = skald_options_find(set, name, length);
        if (!known && index < 0) {
            const char *nearest = skald_options_nearest(set, name, length);
            arguments_error(self, "unknown option '--%.*s'%s%s%s", (int)length, name,
                            nearest ? "; did you mean --" : "", nearest ? nearest : "", nearest ? "?" : "");
        }
        bool takes_next = index >= 0 && set->table[index].type != SKALD_OPTION_FLAG && name[length] == '\0';
        if (takes_next && i + 1 >= argc) arguments_error(self, "--%s needs a value", set->table[index].name);
        if (takes_next) i++;
    }
}

char *arguments_help_text(const skald_option *o) {
    char range[256], *out = NULL;
    skald_option_range(o, range, sizeof range);
    bool has_default = o->fallback;
    bool choice = o->type == SKALD_OPTION_CHOICE; /* its words are the placeholder already */
    if (choice) range[0] = '\0';
    if (o->type == SKALD_OPTION_FLAG && o->fallback) snprintf(range, sizeof range, "--no-%s: off", o->name);
    if (asprintf(&out, "%s%s%s%s%s%s%s", o->help, range[0] || has_default ? " (" : "", range,
                 range[0] && has_default ? "; " : "", has_default ? "default " : "", has_default ? o->fallback : "",
                 range[0] || has_default ? ")" : "") < 0)
        abort();
    return out;
}

char *arguments_placeholder(const skald_option *o) {
    char range[256];
    if (o->value) return strdup(o->value);
    switch (o->type) {
    case SKALD_OPTION_FLAG:
        return NULL;
    case SKALD_OPTION_CHOICE:
        return strdup(skald_option_range(o, range, sizeof range));
    case SKALD_OPTION_INT:
        return strdup("N");
    case SKALD_OPTION_REAL:
        return strdup("X");
    case SKALD_OPTION_DURATION:
        return strdup("TIME");
    case SKALD_OPTION_BYTES:
        return strdup("SIZE");
    case SKALD_OPTION_TEXT:
        return strdup("TEXT");
    }
    return NULL;
}

static struct argp_option *argp_table(const command *self) {
    const size_t count = skald_options_count(self->table);
    struct argp_option *out = calloc(2 * count + 3, sizeof *out);
    if (!out) abort();
    size_t used = 0;
    int group = 1;
    for (size_t i = 0; i < count; i++) {
        const skald_option *o = &self->table[i];
        if (o->group) out[used++] = (struct argp_option){.doc = o->group, .group = ++group};
        out[used++] = (struct argp_option){.name = o->name,
                                           .key = KEY_FIRST + (int)i,
                                           .arg = o->type == SKALD_OPTION_FLAG ? "YES|NO" : arguments_placeholder(o),
                                           .flags = (o->hidden ? OPTION_HIDDEN : 0) |
                                                    (o->type == SKALD_OPTION_FLAG ? OPTION_ARG_OPTIONAL : 0),
                                           .doc = arguments_help_text(o),
                                           .group = group};
    }
    out[used++] = (struct argp_option){.doc = "Help:", .group = -1};
    out[used] = (struct argp_option){.name = "dump-config",
                                     .key = KEY_DUMP,
                                     .doc = "Print every setting, and where it came from, and stop",
                                     .group = -1};
    return out;
}

static void argp_table_free(const command *self, struct argp_option *table) {
    for (struct argp_option *entry = table; entry->name || entry->doc; entry++) {
        if (entry->key < KEY_FIRST) continue;
        free((void *)entry->doc);
        if (self->table[entry->key - KEY_FIRST].type != SKALD_OPTION_FLAG) free((void *)entry->arg);
    }
    free(table);
}

void arguments_parse(const command *self, int argc, char **argv, void *values, arguments *out) {
    *out = (arguments){0};
    if (skald_options_init(&out->options, self->table, values))
        arguments_error(self, "%s", skald_error()); /* a default out of its own range */
    if (skald_options_environment(&out->options)) arguments_error(self, "%s", skald_error());
    argc = join_flags(&out->options, argc, argv);
    check_names(self, &out->options, argc, argv);

    parse p = {.self = self, .args = out};
    struct argp_option *table = argp_table(self);
    char *doc = NULL, name[64];
    if (asprintf(&doc, "%s\v%s%s", self->about ? self->about : self->summary, self->notes ? self->notes : "",
                 "Every option can also be given as an environment variable: --max-passes as SKALD_MAX_PASSES.") < 0)
        abort();
    struct argp parser = {.options = table, .parser = on_option, .args_doc = self->words, .doc = doc};
    snprintf(name, sizeof name, "skald %s", self->name);
    argv[0] = name;
    argp_err_exit_status = EXIT_USAGE;
    setenv("ARGP_HELP_FMT", "rmargin=112", 0); /* examples stay on their lines */
    error_t error = argp_parse(&parser, argc, argv, 0, NULL, &p);
    argp_table_free(self, table);
    free(doc);
    if (error) arguments_error(self, "%s", strerror(error));
    if (p.dump) {
        skald_options_dump(&out->options, stdout);
        exit(EXIT_SUCCESS);
    }
    if (out->word_count < self->least_words)
        arguments_error(self, "an argument is missing; usage: skald %s [OPTION...] %s", self->name, self->words);
}

void arguments_free(arguments *args) {
    skald_options_fini(&args->options);
}

bool arguments_is_library_variable(const char *entry) {
    static const char *const known[] = {"SKALD_CUDA_PLUGIN=", "SKALD_CUBLAS=", "SKALD_NCCL=", "SKALD_EMULATED_"};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strncmp(entry, known[i], strlen(known[i])) == 0) return true;
    return false;
}

void arguments_warn_unknown_variables(const command *const *commands, size_t count) {
    for (char **entry = environ; *entry; entry++) {
        if (strncmp(*entry, "SKALD_", 6) != 0 || arguments_is_library_variable(*entry)) continue;
        size_t length = strcspn(*entry, "=");
        bool known = false;
        for (size_t c = 0; c < count && !known; c++)
            for (size_t i = 0; commands[c]->table[i].name && !known; i++) {
                char variable[80];
                skald_option_variable(&commands[c]->table[i], variable, sizeof variable);
                known = strlen(variable) == length && strncmp(*entry, variable, length) == 0;
            }
        if (!known) fprintf(stderr, "skald: warning: no option belongs to the variable %.*s\n", (int)length, *entry);
    }
}
