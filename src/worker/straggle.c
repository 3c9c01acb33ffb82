/* Slowness on purpose: a minimal pace, delays in units of it, pauses, death. Waiting, never burning the processor. */
#include <math.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "base/base.h"
#include "worker/worker_state.h"

/* Without a pace, delays are relative to the mean time of so many tasks, which come without delay (as ASYNC has it). */
static const uint64_t WARM_UP = 100;

skald_status skald_straggle_init(skald_worker *w, const Skald__V1__Setup *m) {
    const char *own = w->options->straggler;
    w->workers = m->workers ? m->workers : 1;
    w->straggle.seed = m->seed;
    w->straggle.pace_ns = (w->options->pace_ms > 0 ? w->options->pace_ms : (int64_t)m->pace_ms) * 1000000;
    return skald_stragglers_parse(own ? own : m->straggler[0] ? m->straggler : NULL, &w->straggle.models);
}

/* A time from now that any clock can tell. */
static int64_t clamp_ns(double ns) {
    return ns >= 0 && ns < 1e17 ? (int64_t)ns : ns < 0 ? 0 : (int64_t)1e17;
}

int64_t skald_straggle_until(skald_worker *w, int64_t start_ns, int64_t now_ns) {
    const skald_stragglers *models = &w->straggle.models;
    const int64_t pace = w->straggle.pace_ns;
    int64_t until = now_ns > start_ns + pace ? now_ns : start_ns + pace;
    if (!models->count) return until;
    long long none = 0;
    atomic_compare_exchange_strong(&w->straggle.begin_ns, &none, start_ns);
    const uint64_t draw = atomic_fetch_add(&w->straggle.tasks, 1);
    double unit = (double)pace;
    if (!pace) {
        const uint64_t warm = atomic_load(&w->straggle.warm_tasks);
        if (warm >= WARM_UP) {
            unit = (double)atomic_load(&w->straggle.warm_ns) / (double)warm;
        } else {
            atomic_fetch_add(&w->straggle.warm_ns, now_ns - start_ns);
            atomic_fetch_add(&w->straggle.warm_tasks, 1);
        }
    }
    until += clamp_ns(unit * skald_stragglers_delay(models, w->straggle.seed, w->number, w->workers, draw));
    const int64_t begin = atomic_load(&w->straggle.begin_ns);
    return begin + clamp_ns(1e9 * skald_stragglers_resume(models, w->number, (double)(until - begin) * 1e-9));
}

void skald_straggle_die(skald_worker *w, int64_t now_ns) {
    const int64_t begin = atomic_load(&w->straggle.begin_ns);
    if (begin && (double)(now_ns - begin) * 1e-9 >= skald_stragglers_death(&w->straggle.models, w->number))
        kill(getpid(), SIGKILL);
}
