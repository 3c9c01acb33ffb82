#include "cli/man.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cli/cli.h"

/* Text as roff takes it: no backslash, no - that becomes a hyphen, no line that looks like a request. */
static void put(FILE *f, const char *text, size_t length) {
    for (size_t k = 0; k < length && text[k]; k++) {
        if ((text[k] == '.' || text[k] == '\'') && (k == 0 || text[k - 1] == '\n')) fputs("\\&", f);
        if (text[k] == '\\')
            fputs("\\e", f);
        else if (text[k] == '-')
            fputs("\\-", f);
        else if (text[k] == '\'')
            fputs("\\(aq", f);
        else if (text[k] == '^')
            fputs("\\(ha", f);
        else if (text[k] == '~')
            fputs("\\(ti", f);
        else
            fputc(text[k], f);
    }
}

static void put_all(FILE *f, const char *text) {
    put(f, text, strlen(text));
}

static void head(FILE *f, const char *name, const char *summary) {
    char title[64];
    snprintf(title, sizeof title, "%s", name);
    for (char *c = title; *c; c++)
        if (*c >= 'a' && *c <= 'z') *c = (char)(*c - 'a' + 'A');
    fprintf(f, ".\\\" made by skald help --man\n.TH \"");
    put_all(f, title);
    fprintf(f, "\" 1 \"\" \"skald %s\" \"Skald\"\n.SH NAME\n", SKALD_VERSION);
    put_all(f, name);
    fputs(" \\- ", f);
    put_all(f, summary);
    fputc('\n', f);
}

/* Paragraphs; lines that begin with blanks (commands) as they are. */
static void put_notes(FILE *f, const char *text) {
    bool as_is = false;
    while (*text) {
        const size_t length = strcspn(text, "\n");
        if (length && (text[0] == ' ') != as_is) {
            as_is = !as_is;
            fputs(as_is ? ".PP\n.RS 4\n.nf\n" : ".fi\n.RE\n", f);
        }
        const size_t blanks = as_is ? strspn(text, " ") : 0;
        if (length) {
            put(f, text + blanks, length - blanks);
            fputc('\n', f);
        } else if (!as_is && text[1]) {
            fputs(".PP\n", f);
        }
        text += length + (text[length] == '\n');
    }
    if (as_is) fputs(".fi\n.RE\n", f);
}

static void put_option(FILE *f, const skald_option *o) {
    char *value = o->type == SKALD_OPTION_FLAG ? NULL : arguments_placeholder(o), *help = arguments_help_text(o);
    fputs(".TP\n\\fB\\-\\-", f);
    put_all(f, o->name);
    fputs("\\fR", f);
    if (value) {
        fputs("=\\fI", f);
        put_all(f, value);
        fputs("\\fR", f);
    } else {
        fputs("[=\\fIyes\\fR|\\fIno\\fR]", f);
    }
    fputc('\n', f);
    put_all(f, help);
    fputc('\n', f);
    free(value);
    free(help);
}

static void put_index(FILE *f, const command *const *all, size_t count) {
    head(f, "skald", "train linear models on data that many machines hold together");
    fputs(".SH SYNOPSIS\n\\fBskald\\fR \\fICOMMAND\\fR [\\fIOPTION\\fR...] [\\fIARGUMENT\\fR...]\n.SH COMMANDS\n", f);
    for (size_t k = 0; k < count; k++) {
        fputs(".TP\n\\fBskald\\-", f);
        put_all(f, all[k]->name);
        fputs("\\fR(1)\n", f);
        put_all(f, all[k]->summary);
        fputc('\n', f);
    }
    fputs(".SH EXAMPLES\n", f);
    put_notes(f, "  skald generate rcv1 --rows 20000 --output train.svm\n"
                 "  skald train --loss logistic --l2 1e-4 --target-gap 1e-8 --model model.h5 train.svm\n"
                 "  skald evaluate --model model.h5 train.svm\n");
}

void man_page(FILE *f, const command *about, const command *const *all, size_t count) {
    char name[64];
    if (!about) {
        put_index(f, all, count);
        return;
    }
    snprintf(name, sizeof name, "skald-%s", about->name);
    head(f, name, about->summary);
    fputs(".SH SYNOPSIS\n\\fBskald ", f);
    put_all(f, about->name);
    fputs("\\fR [\\fIOPTION\\fR...] ", f);
    put_all(f, about->words);
    fputc('\n', f);
    if (about->about) {
        fputs(".SH DESCRIPTION\n", f);
        put_all(f, about->about);
        fputc('\n', f);
    }
    fputs(".SH OPTIONS\n", f);
    for (const skald_option *o = about->table; o->name; o++) {
        if (o->group) {
            fputs(".SS \"", f);
            put_all(f, o->group);
            fputs("\"\n", f);
        }
        if (!o->hidden) put_option(f, o);
    }
    fputs(".TP\n\\fB\\-\\-dump\\-config\\fR\nPrint every setting, and where it came from, and stop\n"
          ".TP\n\\fB\\-\\-help\\fR\nPrint the same in short\n",
          f);
    if (about->notes) {
        fputs(".SH NOTES\n", f);
        put_notes(f, about->notes);
    }
    fputs(".SH ENVIRONMENT\nEvery option can also be given as a variable: \\-\\-max\\-passes as "
          "\\fBSKALD_MAX_PASSES\\fR.\n.SH SEE ALSO\n\\fBskald\\fR(1)\n",
          f);
}

static skald_status write_page(const char *folder, const command *about, const command *const *all, size_t count) {
    char path[512];
    snprintf(path, sizeof path, "%.400s/skald%s%s.1", folder, about ? "-" : "", about ? about->name : "");
    FILE *f = fopen(path, "we");
    if (!f) return skald_fail(SKALD_EIO, "%s: cannot write: %s", path, strerror(errno));
    man_page(f, about, all, count);
    const bool bad = ferror(f);
    return fclose(f) != 0 || bad ? skald_fail(SKALD_EIO, "%s: cannot write: %s", path, strerror(errno)) : SKALD_OK;
}

skald_status man_folder(const char *folder, const command *const *all, size_t count) {
    if (mkdir(folder, 0777) != 0 && errno != EEXIST)
        return skald_fail(SKALD_EIO, "%s: cannot make the folder: %s", folder, strerror(errno));
    TRY(write_page(folder, NULL, all, count));
    for (size_t k = 0; k < count; k++) TRY(write_page(folder, all[k], all, count));
    return SKALD_OK;
}
