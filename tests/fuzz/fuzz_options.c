/* Everything that can be set about a run, a line each, NAME=TEXT or NAME TEXT, as from the command line or the
 * environment: parsed by the table, then resolved. */
#include <string.h>

#include "cli/settings.h"
#include "fuzz_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0 || memmem(data, size, "trace:", 6)) return 0; /* of no other files; fuzz_trace's */
    static FILE *nowhere;
    if (!nowhere && !(nowhere = fopen("/dev/null", "w"))) abort();
    settings s = {.threads = 1};
    skald_options set;
    if (skald_options_init(&set, *data % 2 ? train_options : coordinator_options, &s) != SKALD_OK) abort();
    char *text = strndup((const char *)data, size), *rest = NULL, range[256];
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        const size_t name = strcspn(line, "= ");
        const int k = skald_options_find(&set, line, name);
        if (k >= 0 && line[name]) {
            skald_options_set(&set, (size_t)k, line + name + 1, SKALD_FROM_COMMAND);
            skald_option_range(&set.table[k], range, sizeof range);
        } else {
            skald_options_nearest(&set, line, name);
        }
    }
    training t;
    settings_resolve(&s, &set, "data", &t);
    settings_release(&t);
    skald_options_dump(&set, nowhere);
    skald_options_fini(&set);
    free(text);
    return 0;
}
