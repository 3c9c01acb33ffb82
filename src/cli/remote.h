/* Calls to a running coordinator that need no session: its status, its model. */
#ifndef SKALD_CLI_REMOTE_H
#define SKALD_CLI_REMOTE_H

#include <stdbool.h>
#include <stdint.h>

#include "skald/net.h"
#include "skald/status.h"

/* The coordinator's status as JSON text; free() it. Waits up to wait_ns for a coordinator to be there, and
 * says so on stderr unless `quiet`. */
skald_status remote_status(const char *address, const skald_net_security *security, int64_t wait_ns, bool audit,
                           bool quiet, char **json);

/* Asks for a worker (its name, or its number) to be let go; waits up to wait_ns until it has left. The answer as JSON
 * text; free() it. */
skald_status remote_drain(const char *address, const skald_net_security *security, int64_t wait_ns, const char *worker,
                          char **json);

typedef struct remote_model {
    double *w; /* dim; free() it; NULL: there is none yet */
    uint32_t dim;
    uint64_t version;
} remote_model;

/* The model, in the feature space it is trained in. */
skald_status remote_fetch_model(const char *address, const skald_net_security *security, int64_t wait_ns,
                                remote_model *out);

#endif
