/* HTTP on a thread of its own. Private to src/http. */
#ifndef SKALD_HTTP_SERVER_H
#define SKALD_HTTP_SERVER_H

#include "http/snapshot.h"

typedef struct server server;

/* Takes the listening socket. loopback: only names of this machine are accepted as Host, so that no other page can
 * have a browser read from here under a name of its own. */
skald_status server_start(int socket, bool loopback, server **out);
/* Puts the snapshot up (takes the reference). Does not wait for readers. */
void server_put(server *s, snapshot *snap);
/* When a page asked last, by the system clock; 0: never. Whether one has had snapshot `number`. */
int64_t server_asked_ns(server *s);
bool server_has_seen(server *s, uint64_t number);
void server_stop(server *s);

#endif
