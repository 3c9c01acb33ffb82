/* What has happened, as far as the page shows it: bounded, however long the run. Private to src/http; owner thread.
 *
 * A copy of one is plain memory, but for the lanes, which grow with the number of workers. */
#ifndef SKALD_HTTP_HISTORY_H
#define SKALD_HTTP_HISTORY_H

#include "skald/train.h"

enum {
    HISTORY_POINTS = 512, /* of a series; when it is full, every other one goes */
    HISTORY_WIDTH = 7,
    HISTORY_CELLS = 120, /* of a lane: the last minute */
    HISTORY_CELL_MS = 500,
    HISTORY_LANES = 4, /* of a cell: what its time went to */
    HISTORY_STALE = 1024,
    HISTORY_SLOW = 16, /* task times: up to 2^k ms, then what is longer */
    HISTORY_NOTICES = 32
};

/* A growing list of points; later ones further apart, so that the whole run is there. */
typedef struct history_series {
    uint32_t count;
    uint64_t skip, seen; /* one in `skip` is kept; what has been offered */
    struct {
        uint64_t snapshot; /* the first that has it */
        double v[HISTORY_WIDTH];
    } points[HISTORY_POINTS];
} history_series;

typedef struct history_notice {
    uint64_t snapshot;
    double seconds;
    char text[240];
} history_notice;

/* One worker's last minute and totals. A cell counts nanoseconds of: computing, delayed on purpose, on the way, queued;
 * with several slots, of all of them. */
typedef struct history_lane {
    float cells[HISTORY_CELLS][HISTORY_LANES];
    uint32_t slots;
    double until;               /* seconds: end of the last task seen */
    double part_s[SKALD_PARTS]; /* in all */
} history_lane;

typedef struct history {
    history_series evaluations;        /* seconds, passes, objective, relative gap, gradient norm, updates */
    history_series samples;            /* seconds, passes, rows/s, updates/s, mean staleness, estimated objective */
    uint64_t stale[HISTORY_STALE + 1]; /* results by staleness; the last: all beyond */
    double stale_sum;
    uint64_t slow[HISTORY_SLOW + 1];
    double slow_sum; /* seconds */
    history_notice notices[HISTORY_NOTICES];
    uint64_t notice_count;                          /* in all: the oldest are overwritten */
    int64_t cell[HISTORY_CELLS];                    /* which half second is in this place; -1: none */
    uint64_t changed[HISTORY_CELLS];                /* the first snapshot that has it as it is */
    double sampled, rate_rows, rate_updates, since; /* of the sample under way */
    uint64_t next;                                  /* the number of the next snapshot */
    uint32_t lanes;
} history;

void history_init(history *h);
/* Lanes grow as workers are seen: *lanes is the caller's, to be freed. What there is no memory for is not shown. */
void history_task(history *h, history_lane **lanes, const skald_task_seen *t);
void history_evaluation(history *h, const skald_evaluation *e);
void history_progress(history *h, const skald_progress *p);
void history_notice_add(history *h, double seconds, const char *text);
/* A cell as text: HISTORY_LANES digits, 0 to 9 then a to f, fifteenths of it. */
void history_cell_text(const history_lane *lane, uint32_t place, char out[HISTORY_LANES]);

#endif
