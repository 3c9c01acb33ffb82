/* Who knocks too often with nonsense is not let in for a while, and does not fill the log either.
 *
 * Somebody is whoever a certificate names; without one, the host a connection comes from (of IPv6 the first 64 bits,
 * since the rest is free to choose). All functions may be called on any thread and do not block. */
#ifndef SKALD_COORDINATOR_GUARD_H
#define SKALD_COORDINATOR_GUARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "skald/clock.h"
#include "skald/status.h"

typedef struct skald_guard skald_guard;

typedef struct skald_guard_options {
    uint32_t offences; /* so many within `refuse_ns` are too many; 0: 5 */
    int64_t refuse_ns; /* for so long; 0: a minute */
} skald_guard_options;

skald_status skald_guard_create(const skald_guard_options *options, skald_clock *clock, skald_guard **out);
void skald_guard_destroy(skald_guard *guard); /* NULL-safe */

/* peer: as skald_net_peer; identity: as skald_net_identity, may be NULL. False: `reason` (SKALD_NET_REASON bytes) says
 * until when, and why. */
bool skald_guard_admits(skald_guard *guard, const char *peer, const char *identity, char *reason);
/* Counts what they did: they sent nonsense, or claimed what is not theirs. */
void skald_guard_offence(skald_guard *guard, const char *peer, const char *identity, const char *what);
/* Is this line ("PEER: reason") to be told? The same reason is told once in ten seconds, and no more than 32 lines in
 * that time. *untold: how many were not, since the last one told. */
bool skald_guard_tells(skald_guard *guard, const char *text, uint64_t *untold);

#endif
