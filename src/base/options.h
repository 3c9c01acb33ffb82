/* The option table: every setting of a subcommand in one place, however it is given.
 *
 * One entry describes an option's name, type, default, range and help; the same table drives the command
 * line, the environment (SKALD_ + the name in capitals, - as _), --help and --dump-config. Values land in
 * a struct of the caller's at `offset`. Precedence: default < environment < command line. */
#ifndef SKALD_BASE_OPTIONS_H
#define SKALD_BASE_OPTIONS_H

#include <float.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "skald/status.h"

typedef enum skald_option_type {
    SKALD_OPTION_FLAG,     /* bool */
    SKALD_OPTION_INT,      /* int64_t */
    SKALD_OPTION_REAL,     /* double */
    SKALD_OPTION_TEXT,     /* const char *, NULL when not given and without default */
    SKALD_OPTION_CHOICE,   /* int: position in `words`, from 0 */
    SKALD_OPTION_DURATION, /* int64_t ns: "250ms", "30s", "5m", "2h"; without a unit seconds */
    SKALD_OPTION_BYTES     /* int64_t: "4096", "64k", "16M", "1G" (powers of 1024) */
} skald_option_type;

#define SKALD_POSITIVE DBL_MIN /* as `min`: more than 0 */

typedef struct skald_option {
    const char *name; /* without the dashes */
    skald_option_type type;
    size_t offset;
    const char *fallback; /* the default, as it would be typed; NULL: zero, off, none */
    double min, max;      /* numbers; durations in seconds; both 0: anything finite */
    const char *words;    /* choices: "async|sync"; numbers: words that stand for one, "auto=0|end=-1" */
    const char *value;    /* placeholder in the help, e.g. "FILE" */
    const char *help;
    const char *group; /* a heading that begins here; NULL: as the entry before */
    bool hidden;
} skald_option;

typedef enum skald_option_source {
    SKALD_FROM_DEFAULT = 0,
    SKALD_FROM_ENVIRONMENT,
    SKALD_FROM_COMMAND
} skald_option_source;

typedef struct skald_options {
    const skald_option *table;
    size_t count;
    void *values;
    char **texts; /* each option's effective value as typed; owned: TEXT values point here */
    skald_option_source *sources;
} skald_options;

/* Entries before the one without a name. */
size_t skald_options_count(const skald_option *table);
/* Fills *values with the defaults. The table ends with an entry without a name; it and the values must outlive
 * the set. */
skald_status skald_options_init(skald_options *set, const skald_option *table, void *values);
void skald_options_fini(skald_options *set);

/* Parses and stores; SKALD_EINVAL names the option, the value and what would be allowed. */
skald_status skald_options_set(skald_options *set, size_t index, const char *text, skald_option_source source);
/* Takes values from the environment. */
skald_status skald_options_environment(skald_options *set);

/* Index of the option called name[0..length), or of the only one that begins so; -1 if none or several. */
int skald_options_find(const skald_options *set, const char *name, size_t length);
/* The option that looks most like name[0..length); NULL if none looks much like it. */
const char *skald_options_nearest(const skald_options *set, const char *name, size_t length);
/* Was it given (not left at its default)? `name` must be in the table. */
bool skald_options_given(const skald_options *set, const char *name);

/* "SKALD_MAX_PASSES" for "max-passes"; returns out. */
char *skald_option_variable(const skald_option *option, char *out, size_t size);
/* What may be given: "0 .. 4096", "more than 0", "async|sync"; "" if anything may. Returns out. */
char *skald_option_range(const skald_option *option, char *out, size_t size);
/* One line an option: --name value (where it came from). */
void skald_options_dump(const skald_options *set, FILE *out);

/* Length of the shortest edit from a to b (insertions, deletions, substitutions). */
unsigned skald_edit_distance(const char *a, size_t a_length, const char *b);

#endif
