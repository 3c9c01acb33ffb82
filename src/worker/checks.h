/* Is what a coordinator asks for within what a worker can do? Each says SKALD_EPEER with what is wrong. */
#ifndef SKALD_WORKER_CHECKS_H
#define SKALD_WORKER_CHECKS_H

#include "skald/data.h"
#include "wire/wire.h"

/* limit: bytes of a frame. A model that no frame can bring is not set up. */
skald_status skald_check_setup(const Skald__V1__Setup *m, size_t limit);
/* Before memory is taken for what it names. */
skald_status skald_check_task(const Skald__V1__Task *m);
/* In the order of the file, and none twice: so their rows are no more than the file's. */
skald_status skald_check_blocks(const skald_block *blocks, uint64_t count);

#endif
