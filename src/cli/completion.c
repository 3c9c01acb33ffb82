/* skald completion: the option tables as a script for a shell. */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

static const skald_option table[] = {{0}};

/* The words of "auto=0|end=-1" or "async|ssp:S": what can be typed as it is. */
static void put_words(const char *words) {
    bool first = true;
    while (*words) {
        const size_t whole = strcspn(words, "|"), own = strcspn(words, "=|");
        if (own && strcspn(words, ":.,ABCDEFGHIJKLMNOPQRSTUVWXYZ") >= own) {
            printf("%s%.*s", first ? "" : " ", (int)own, words);
            first = false;
        }
        words += whole + (words[whole] == '|');
    }
}

static void put_command(const command *c) {
    const size_t count = skald_options_count(c->table);
    printf("        %s)\n            options='--help --dump-config", c->name);
    for (size_t k = 0; k < count; k++)
        if (!c->table[k].hidden) {
            const bool flag = c->table[k].type == SKALD_OPTION_FLAG;
            printf(" --%s%s", c->table[k].name, flag ? "" : "=");
            if (flag && c->table[k].fallback) printf(" --no-%s", c->table[k].name);
        }
    printf("'\n            case $option in\n");
    for (size_t k = 0; k < count; k++) {
        const skald_option *o = &c->table[k];
        const char *words = o->words                            ? o->words
                            : o->value && strchr(o->value, '|') ? o->value
                            : o->type == SKALD_OPTION_FLAG      ? "yes|no"
                                                                : NULL;
        const bool file = o->value && (strstr(o->value, "FILE") || strstr(o->value, "FOLDER"));
        if (o->hidden || (!words && file)) continue; /* files are what there is otherwise */
        printf("                --%s) files=no values='", o->name);
        if (words) put_words(words);
        printf("' ;;\n");
    }
    printf("            esac ;;\n");
}

static int run(const command *self, int argc, char **argv) {
    arguments args;
    char nothing = 0;
    size_t count;
    const command *const *list = commands_all(&count);
    arguments_parse(self, argc, argv, &nothing, &args);
    if (strcmp(args.words[0], "bash") != 0)
        arguments_error(self, "no completion for '%s': there is 'bash', which zsh takes too, after bashcompinit",
                        args.words[0]);
    arguments_free(&args);

    printf(
        "# Completion of skald for bash, made by 'skald completion bash' from its option tables.\n"
        "_skald() {\n"
        "    local word=${COMP_WORDS[COMP_CWORD]} option='' options='' values='' files=yes\n"
        "    COMPREPLY=()\n"
        "    if [ \"$COMP_CWORD\" -eq 1 ] || { [ \"$COMP_CWORD\" -eq 2 ] && [ \"${COMP_WORDS[1]}\" = help ]; }; then\n"
        "        COMPREPLY=($(compgen -W 'help");
    for (size_t c = 0; c < count; c++) printf(" %s", list[c]->name);
    printf("' -- \"$word\"))\n        return\n    fi\n"
           "    # --option value, --option=value: = is a word of its own\n"
           "    if [ \"$word\" = = ]; then\n"
           "        option=${COMP_WORDS[COMP_CWORD-1]} word=''\n"
           "    elif [ \"${COMP_WORDS[COMP_CWORD-1]}\" = = ]; then\n"
           "        option=${COMP_WORDS[COMP_CWORD-2]}\n"
           "    else\n"
           "        option=${COMP_WORDS[COMP_CWORD-1]}\n"
           "    fi\n"
           "    case ${COMP_WORDS[1]} in\n");
    for (size_t c = 0; c < count; c++) put_command(list[c]);
    printf("    esac\n"
           "    case \" $options \" in\n"
           "        *\" $option \"*) # a flag: its value comes with = alone\n"
           "            [ \"${COMP_WORDS[COMP_CWORD-1]}\" = = ] || [ \"${COMP_WORDS[COMP_CWORD]}\" = = ] || files=yes "
           "values='' ;;\n"
           "    esac\n"
           "    if [[ $word == -* && -z $values ]]; then\n"
           "        COMPREPLY=($(compgen -W \"$options\" -- \"$word\"))\n"
           "        [[ ${COMPREPLY[0]:-} == *= ]] && compopt -o nospace 2>/dev/null\n"
           "    elif [ -n \"$values\" ]; then\n"
           "        COMPREPLY=($(compgen -W \"$values\" -- \"$word\"))\n"
           "    elif [ $files = yes ]; then\n"
           "        compopt -o filenames 2>/dev/null\n"
           "        COMPREPLY=($(compgen -f -- \"$word\"))\n"
           "    fi\n"
           "}\n"
           "complete -F _skald skald\n");
    return EXIT_DONE;
}

const command command_completion = {
    .name = "completion",
    .words = "bash",
    .summary = "print a script that lets the shell complete skald's commands and options",
    .about =
        "Prints completion for bash, from the same tables as --help. zsh takes it after 'autoload -U bashcompinit; "
        "bashcompinit'.",
    .notes = "For example:\n\n"
             "  source <(skald completion bash)\n"
             "  skald completion bash >/etc/bash_completion.d/skald\n\n",
    .table = table,
    .least_words = 1,
    .most_words = 1,
    .run = run,
};
