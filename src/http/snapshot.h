/* What the server's thread sees of a run: immutable, refcounted. Private to src/http. */
#ifndef SKALD_HTTP_SNAPSHOT_H
#define SKALD_HTTP_SNAPSHOT_H

#include <jansson.h>
#include <stdatomic.h>

#include "http/history.h"

typedef struct snapshot {
    atomic_uint refs;
    uint64_t number;
    int64_t taken_ns; /* system clock */
    bool final;
    char *status;   /* JSON text */
    json_t *parsed; /* of it, by the server's thread when first wanted; NULL before */
    history history;
    char *lanes;    /* [worker][place][HISTORY_LANES], see history_cell_text */
    double *until;  /* [worker] */
    double *part_s; /* [worker][SKALD_PARTS] */
} snapshot;

/* Takes `status`, copies the rest. NULL when out of memory. One reference. */
snapshot *snapshot_take(const history *h, const history_lane *lanes, char *status, int64_t now_ns, bool final);
void snapshot_unref(snapshot *s);

/* ---- by the server's thread; free() what they return; NULL when out of memory ---- */

/* /live.json: what came after snapshot `after` (0: all). instance: of this server; now_ns: by the system clock. */
char *snapshot_live(snapshot *s, uint64_t after, const char *instance, int64_t now_ns);
/* /metrics */
char *snapshot_metrics(snapshot *s);
/* The parsed status; borrowed; an empty object when it is no JSON. */
json_t *snapshot_status(snapshot *s);

#endif
