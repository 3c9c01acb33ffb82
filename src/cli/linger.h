/* After the end: a coordinator goes on answering for a moment, so that whoever follows gets the final model. */
#ifndef SKALD_CLI_LINGER_H
#define SKALD_CLI_LINGER_H

#include "skald/train.h"

/* Answers status and model requests from the outcome, for `for_ns` (< 0: for ever) or until *stop_flag. */
void linger(skald_crew *crew, const skald_train_options *options, const skald_outcome *outcome, int64_t for_ns,
            const atomic_int *stop_flag);

#endif
