/* --checkpoint, --checkpoint-every, --resume. */
#ifndef SKALD_CLI_CHECKPOINTING_H
#define SKALD_CLI_CHECKPOINTING_H

#include "cli/settings.h"
#include "skald/checkpoint.h"
#include "skald/coordinator.h"

typedef struct checkpointing {
    skald_checkpointer *writer; /* NULL: none is asked for */
    skald_checkpoint from;      /* what is gone on from; empty: begun anew */
    char *previous;             /* the file that `auto` fell back on; NULL: it did not */
    char run[40];
    uint64_t term;
} checkpointing;

/* Reads what is to go on, raises its term, and has that on disk before anybody is served; refuses to overwrite what is
 * no checkpoint of the same run. Sets what t says about it. Without the options: nothing. */
skald_status checkpointing_open(checkpointing *c, const settings *s, training *t);
/* Run, term and manifest, where there are any. */
void checkpointing_tell(const checkpointing *c, skald_coordinator_options *options);
/* Says of a failure to load the data what it means when a run goes on. Returns st. */
skald_status checkpointing_blame(const checkpointing *c, const settings *s, skald_status st);
/* The status of the last write. */
skald_status checkpointing_close(checkpointing *c);

#endif
