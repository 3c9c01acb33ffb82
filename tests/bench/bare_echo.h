/* The measure for everything that talks over gRPC here: a bidirectional echo on the bare C core, as thin as it can be.
 * One server thread answers each message with one of the same size; each client is a thread with a connection and a
 * stream of its own and keeps a few messages outstanding. No bytes are copied or looked at by either. */
#ifndef BARE_ECHO_H
#define BARE_ECHO_H

#include <stddef.h>

typedef struct bare_echo_options {
    size_t payload_bytes;
    int streams;     /* 0: 4 */
    int outstanding; /* a stream; 0: 2 */
    double seconds;  /* measured, after a fifth of it to warm up */
} bare_echo_options;

/* Messages answered a second, all streams together; a negative number when it could not be run. */
double bare_echo_run(const bare_echo_options *options);

#endif
