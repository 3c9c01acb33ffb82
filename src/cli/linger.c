#include "cli/linger.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "report/report.h"

/* The final model as a version; its memory is its own, since a send may still hold it when we return. */
typedef struct final_version {
    skald_version version;
    double w[];
} final_version;

static void release(skald_bytes *bytes) {
    free((char *)bytes - offsetof(final_version, version.bytes));
}

static skald_version *make_final(const skald_problem *problem, const skald_outcome *outcome) {
    size_t bytes = (size_t)skald_problem_length(problem) * sizeof(double);
    final_version *f = skald_zalloc(1, sizeof *f + bytes);
    if (!f) return NULL;
    memcpy(f->w, outcome->w, bytes);
    f->version =
        (skald_version){.id = UINT64_MAX,
                        .commits = outcome->commits,
                        .count = 1,
                        .dim = skald_problem_length(problem),
                        .vectors = {f->w},
                        .bytes = {.data = (const uint8_t *)f->w, .size = bytes, .release = release, .refs = 1}};
    return &f->version;
}

void linger(skald_crew *crew, const skald_train_options *options, const skald_outcome *outcome, int64_t for_ns,
            const atomic_int *stop_flag) {
    skald_clock *clock = skald_clock_system();
    const int64_t end = for_ns < 0 ? INT64_MAX : skald_now_ns(clock) + for_ns;
    skald_version *final = outcome->w ? make_final(crew->problem, outcome) : NULL;
    char *json = skald_outcome_status(options, crew->problem, outcome);
    while (final && json && !*stop_flag && skald_now_ns(clock) < end) {
        skald_event event = {0};
        if (crew->ops->next(crew, SKALD_NS_PER_S / 20, &event) != SKALD_OK) break;
        if (event.kind == SKALD_EVENT_RESULT) crew->ops->release(crew, event.result);
        if (event.kind == SKALD_EVENT_REQUEST)
            crew->ops->answer(crew, event.asker, event.request == SKALD_REQUEST_MODEL ? NULL : json, final);
    }
    skald_version_unref(final);
    free(json);
}
