#include "base/options.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- words ---------------------------------------------------------------------------------------- */

/* Finds `text` among "a|b=2|c"; *position counts from 0, *value is what follows '=' (else the position). */
static bool word_find(const char *words, const char *text, int *position, double *value) {
    size_t length = strlen(text);
    int k = 0;
    for (const char *at = words; at && *at; k++) {
        size_t whole = strcspn(at, "|");
        const char *equals = memchr(at, '=', whole);
        size_t own = equals ? (size_t)(equals - at) : whole;
        if (own == length && strncmp(at, text, length) == 0) {
            *position = k;
            *value = equals ? strtod(equals + 1, NULL) : k;
            return true;
        }
        at += whole;
        if (*at == '|') at++;
    }
    return false;
}

/* "auto=0|end=-1" as people see it: "auto|end". */
static void words_show(const char *words, char *out, size_t size) {
    size_t used = 0;
    bool skip = false;
    for (const char *at = words; *at && used + 1 < size; at++) {
        if (*at == '|') skip = false;
        if (*at == '=') skip = true;
        if (!skip) out[used++] = *at;
    }
    out[used] = '\0';
}

/* ---- ranges --------------------------------------------------------------------------------------- */

static bool has_range(const skald_option *o) {
    return o->min != 0 || o->max != 0;
}

char *skald_option_range(const skald_option *o, char *out, size_t size) {
    char words[128] = "", numbers[96] = "";
    if (o->words) words_show(o->words, words, sizeof words);
    const char *unit = o->type == SKALD_OPTION_DURATION ? " seconds" : "";
    if (o->type != SKALD_OPTION_CHOICE && has_range(o)) {
        if (o->min == SKALD_POSITIVE && isinf(o->max))
            snprintf(numbers, sizeof numbers, "more than 0");
        else if (o->min == SKALD_POSITIVE)
            snprintf(numbers, sizeof numbers, "more than 0, at most %.12g%s", o->max, unit);
        else if (isinf(o->max))
            snprintf(numbers, sizeof numbers, "at least %.12g%s", o->min, unit);
        else
            snprintf(numbers, sizeof numbers, "%.12g to %.12g%s", o->min, o->max, unit);
    }
    snprintf(out, size, "%s%s%s", words, words[0] && numbers[0] ? " or " : "", numbers);
    return out;
}

static skald_status refuse(const skald_option *o, skald_option_source source, const char *text, const char *why) {
    char name[80], range[256];
    if (source == SKALD_FROM_ENVIRONMENT)
        skald_option_variable(o, name, sizeof name);
    else
        snprintf(name, sizeof name, "--%s", o->name);
    skald_option_range(o, range, sizeof range);
    return skald_fail(SKALD_EINVAL, "%s %s: %s%s%s", name, text, why, range[0] ? "; may be " : "", range);
}

/* ---- values --------------------------------------------------------------------------------------- */

static bool parse_flag(const char *text, bool *out) {
    static const char *const yes[] = {"1", "true", "yes", "on"}, *const no[] = {"0", "false", "no", "off"};
    for (size_t i = 0; i < 4; i++) {
        if (strcasecmp(text, yes[i]) == 0) return *out = true;
        if (strcasecmp(text, no[i]) == 0) {
            *out = false;
            return true;
        }
    }
    return false;
}

/* Factor of the unit after a number, 0 if there is no such unit. Durations come out in seconds. */
static double unit_factor(skald_option_type type, const char *unit) {
    static const struct {
        const char *unit;
        double factor;
    } seconds[] = {{"", 1}, {"ms", 1e-3}, {"s", 1}, {"m", 60}, {"min", 60}, {"h", 3600}, {"d", 86400}},
      bytes[] = {{"", 1}, {"k", 1024}, {"K", 1024}, {"M", 1048576}, {"G", 1073741824}};
    if (type == SKALD_OPTION_DURATION) {
        for (size_t i = 0; i < sizeof seconds / sizeof *seconds; i++)
            if (strcmp(unit, seconds[i].unit) == 0) return seconds[i].factor;
    } else if (type == SKALD_OPTION_BYTES) {
        for (size_t i = 0; i < sizeof bytes / sizeof *bytes; i++)
            if (strcmp(unit, bytes[i].unit) == 0) return bytes[i].factor;
    } else if (*unit == '\0') {
        return 1;
    }
    return 0;
}

static skald_status parse_number(const skald_option *o, const char *text, skald_option_source source, double *out) {
    int position;
    if (o->words && word_find(o->words, text, &position, out)) return SKALD_OK;
    char *end;
    double number = strtod(text, &end);
    if (end == text || isspace((unsigned char)text[0]) || !isfinite(number))
        return refuse(o, source, text, "is not a number");
    double factor = unit_factor(o->type, end);
    if (factor == 0)
        return refuse(o, source, text,
                      o->type == SKALD_OPTION_DURATION ? "is not a duration such as 250ms, 30s, 5m or 2h"
                      : o->type == SKALD_OPTION_BYTES  ? "is not a size such as 4096, 64k, 16M or 1G"
                                                       : "is not a number");
    number *= factor;
    if (o->type == SKALD_OPTION_INT && number != floor(number)) return refuse(o, source, text, "is not a whole number");
    if (has_range(o) && !(number >= o->min && number <= o->max)) return refuse(o, source, text, "is out of range");
    if (o->type != SKALD_OPTION_REAL && fabs(number) > (o->type == SKALD_OPTION_DURATION ? 9e9 : 9e15))
        return refuse(o, source, text, "is out of range");
    *out = number;
    return SKALD_OK;
}

skald_status skald_options_set(skald_options *set, size_t index, const char *text, skald_option_source source) {
    const skald_option *o = &set->table[index];
    void *place = (char *)set->values + o->offset;
    double number = 0;
    int position = 0;
    bool flag = false;
    char *copy = strdup(text);
    if (!copy) return skald_fail(SKALD_ENOMEM, "out of memory");

    skald_status st = SKALD_OK;
    switch (o->type) {
    case SKALD_OPTION_FLAG:
        if (!parse_flag(text, &flag))
            st = refuse(o, source, text, "is neither yes nor no");
        else
            *(bool *)place = flag;
        break;
    case SKALD_OPTION_CHOICE:
        if (!word_find(o->words, text, &position, &number))
            st = refuse(o, source, text, "is not known");
        else
            *(int *)place = position;
        break;
    case SKALD_OPTION_TEXT:
        if (text[0] == '\0')
            st = refuse(o, source, "''", "is empty");
        else
            *(const char **)place = copy;
        break;
    case SKALD_OPTION_REAL:
        st = parse_number(o, text, source, &number);
        if (st == SKALD_OK) *(double *)place = number;
        break;
    case SKALD_OPTION_DURATION:
        st = parse_number(o, text, source, &number);
        if (st == SKALD_OK) *(int64_t *)place = (int64_t)(number * 1e9);
        break;
    case SKALD_OPTION_INT:
    case SKALD_OPTION_BYTES:
        st = parse_number(o, text, source, &number);
        if (st == SKALD_OK) *(int64_t *)place = (int64_t)number;
        break;
    }
    if (st != SKALD_OK) {
        free(copy);
        return st;
    }
    free(set->texts[index]);
    set->texts[index] = copy;
    set->sources[index] = source;
    return SKALD_OK;
}

/* ---- sets ----------------------------------------------------------------------------------------- */

size_t skald_options_count(const skald_option *table) {
    size_t count = 0;
    while (table[count].name) count++;
    return count;
}

skald_status skald_options_init(skald_options *set, const skald_option *table, void *values) {
    const size_t count = skald_options_count(table);
    *set = (skald_options){.table = table, .count = count, .values = values};
    set->texts = calloc(count + 1, sizeof *set->texts);
    set->sources = calloc(count + 1, sizeof *set->sources);
    skald_status st = set->texts && set->sources ? SKALD_OK : skald_fail(SKALD_ENOMEM, "out of memory");
    for (size_t i = 0; st == SKALD_OK && i < count; i++)
        if (table[i].fallback) st = skald_options_set(set, i, table[i].fallback, SKALD_FROM_DEFAULT);
    if (st != SKALD_OK) skald_options_fini(set);
    return st;
}

void skald_options_fini(skald_options *set) {
    for (size_t i = 0; set->texts && i < set->count; i++) free(set->texts[i]);
    free(set->texts);
    free(set->sources);
    *set = (skald_options){0};
}

char *skald_option_variable(const skald_option *o, char *out, size_t size) {
    snprintf(out, size, "SKALD_%s", o->name);
    for (char *c = out; *c; c++) *c = *c == '-' ? '_' : (char)toupper((unsigned char)*c);
    return out;
}

skald_status skald_options_environment(skald_options *set) {
    for (size_t i = 0; i < set->count; i++) {
        char variable[80];
        const char *text = getenv(skald_option_variable(&set->table[i], variable, sizeof variable));
        if (text && *text) TRY(skald_options_set(set, i, text, SKALD_FROM_ENVIRONMENT));
    }
    return SKALD_OK;
}

int skald_options_find(const skald_options *set, const char *name, size_t length) {
    int found = -1, matches = 0;
    for (size_t i = 0; i < set->count; i++) {
        if (strncmp(set->table[i].name, name, length) != 0) continue;
        if (set->table[i].name[length] == '\0') return (int)i;
        found = (int)i;
        matches++;
    }
    return matches == 1 ? found : -1;
}

bool skald_options_given(const skald_options *set, const char *name) {
    int i = skald_options_find(set, name, strlen(name));
    return i >= 0 && set->sources[i] != SKALD_FROM_DEFAULT;
}

unsigned skald_edit_distance(const char *a, size_t a_length, const char *b) {
    enum { LONGEST = 64 };
    size_t b_length = strlen(b);
    if (a_length > LONGEST || b_length > LONGEST) return LONGEST;
    unsigned row[LONGEST + 1];
    for (size_t j = 0; j <= b_length; j++) row[j] = (unsigned)j;
    for (size_t i = 1; i <= a_length; i++) {
        unsigned diagonal = row[0];
        row[0] = (unsigned)i;
        for (size_t j = 1; j <= b_length; j++) {
            unsigned best = diagonal + (a[i - 1] != b[j - 1]);
            if (row[j] + 1 < best) best = row[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            diagonal = row[j];
            row[j] = best;
        }
    }
    return row[b_length];
}

const char *skald_options_nearest(const skald_options *set, const char *name, size_t length) {
    const char *nearest = NULL;
    unsigned least = length < 4 ? 2 : length < 9 ? 3 : 4; /* further away it is no typo */
    for (size_t i = 0; i < set->count; i++) {
        if (set->table[i].hidden) continue;
        unsigned distance = skald_edit_distance(name, length, set->table[i].name);
        if (distance < least) {
            least = distance;
            nearest = set->table[i].name;
        }
    }
    return nearest;
}

void skald_options_dump(const skald_options *set, FILE *out) {
    static const char *const from[] = {"default", "environment", "command line"};
    for (size_t i = 0; i < set->count; i++) {
        const skald_option *o = &set->table[i];
        if (o->hidden) continue;
        const char *text = set->texts[i] ? set->texts[i] : o->type == SKALD_OPTION_FLAG ? "no" : "(none)";
        fprintf(out, "--%-20s %-24s # %s\n", o->name, text, from[set->sources[i]]);
    }
}
