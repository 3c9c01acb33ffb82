/* A device that hangs. For programs that CMakeLists.txt links with skald_runner_run wrapped. */
#ifndef SKALD_TESTS_HANG_H
#define SKALD_TESTS_HANG_H

#include <stdatomic.h>
#include <time.h>

#include "worker/runner.h"

static atomic_int hang_in;      /* so many training tasks from now; 0: never */
static atomic_int hang_seen;    /* ... was noticed: it ends when others go on without it, so that it can be joined */
static atomic_int hang_has_end; /* it computes again */

void __real_skald_runner_run(skald_runner *runner, skald_lane *lane, const skald_task *task, skald_result *result);
void __wrap_skald_runner_run(skald_runner *runner, skald_lane *lane, const skald_task *task, skald_result *result);

void __wrap_skald_runner_run(skald_runner *runner, skald_lane *lane, const skald_task *task, skald_result *result) {
    const bool trains = skald_task_trains(task->kind);
    const struct timespec nap = {0, 1000000};
    if (trains && atomic_load(&hang_seen)) atomic_store(&hang_has_end, 1);
    if (trains && atomic_load(&hang_in) > 0 && atomic_fetch_sub(&hang_in, 1) == 1)
        for (int k = 0; k < 100000 && !atomic_load(&hang_has_end); k++) nanosleep(&nap, NULL);
    __real_skald_runner_run(runner, lane, task, result);
}

static void hang_plan(int tasks) {
    atomic_store(&hang_seen, 0);
    atomic_store(&hang_has_end, 0);
    atomic_store(&hang_in, tasks);
}

__attribute__((unused)) static void hang_noticed(void) {
    atomic_store(&hang_seen, 1);
}

static void hang_over(void) {
    atomic_store(&hang_in, 0);
    atomic_store(&hang_has_end, 1);
}

#endif
