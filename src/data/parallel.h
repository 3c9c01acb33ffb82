/* A loop over independent tasks on a few threads. */
#ifndef SKALD_DATA_PARALLEL_H
#define SKALD_DATA_PARALLEL_H

#include <stddef.h>

#include "skald/status.h"

/* `worker` < threads: which thread runs it, for scratch memory of its own. */
typedef skald_status (*data_task)(void *context, int worker, size_t task);

/* Runs task 0 .. tasks-1, handed out in order, on `threads` threads (the caller is one). After a failure no
 * further task starts; the status and message are those of the lowest failed task, so that the first
 * bad line of a file is the one reported however many threads there are. Blocks until all are done. */
skald_status data_parallel(int threads, size_t tasks, data_task run, void *context);

#endif
