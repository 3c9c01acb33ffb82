/* The worker processes that `skald train` starts on this machine. */
#ifndef SKALD_CLI_CHILDREN_H
#define SKALD_CLI_CHILDREN_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "cli/settings.h"

typedef struct child {
    pid_t pid;   /* 0: reaped */
    int telling; /* pipe that will carry the address; -1 once told */
    int how;     /* wait status, once reaped */
} child;

typedef struct children {
    child *list;
    int count;
    char folder[108]; /* for their sockets and what they write on stderr; removed at the end */
} children;

/* Makes the folder and starts `count` workers, dealt in turn to these cards if they are more than one; they wait to be
 * told where to connect. Must come before anything starts threads. On failure nothing is left behind. */
skald_status children_start(children *c, int count, const settings *s, const skald_device *cards, uint32_t card_count);
void children_tell(children *c, const char *address);
/* If one has died, says which, how, and its last words. A dying process closes its connections a moment before it can
 * be reaped: waits for that moment. */
bool children_find_dead(children *c, char *out, size_t size);
/* Waits for all of them a little, kills the rest, removes the folder. */
void children_end(children *c);

#endif
