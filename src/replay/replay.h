/* Replay: a crew that computes in this process and delivers as recorded. The engine above it, its solver and all they
 * decide are the very text of the run on record, so every task and merge is checked against it, and the model comes
 * out with the same bits. */
#ifndef SKALD_REPLAY_REPLAY_H
#define SKALD_REPLAY_REPLAY_H

#include "replay/record.h"
#include "skald/crew.h"

typedef struct skald_replay skald_replay;

typedef struct skald_replay_options {
    bool partial; /* a record that breaks off is replayed as far as it goes, and then stopped */
    bool anyway;  /* with other data or another instruction set: same order, other numbers */
} skald_replay_options;

/* Loads the data and checks that they are those on record. The record must outlive the replay. SKALD_EDATA,
 * SKALD_EUNSUPPORTED (an instruction set this machine lacks), each naming the record. */
skald_status skald_replay_open(skald_record *record, const skald_data_options *data, const skald_objective *objective,
                               const skald_replay_options *options, skald_replay **out);
/* What the engine is to be given. */
skald_crew *skald_replay_crew(skald_replay *replay);
skald_clock *skald_replay_clock(skald_replay *replay);
const atomic_int *skald_replay_stop(skald_replay *replay);
void skald_replay_merged(skald_replay *replay, const skald_merged *m);
/* After training: was it the whole record, and is this its model? *same: bit for bit (never of a part).
 * SKALD_EDATA with file:line when it is not, unless `anyway`. */
skald_status skald_replay_finish(skald_replay *replay, const skald_outcome *outcome, bool *same);
void skald_replay_close(skald_replay *replay); /* NULL-safe */

#endif
