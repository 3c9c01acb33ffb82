/* Records of runs: what the coordinator did and in which order, so that one machine can do it again to the same bits.
 *
 * A record is text, one JSON object a line. The first line says what was run:
 *   {"skald_record":5, "version", "command", "data", "options":{name:text}, "given":[name],
 *    "n", "length", "floats", "isa", "most", "shards":[checksum],
 *    "workers":[{"name","device","slots","depth","shards":[k]}]}
 * then come, in the order in which they happened (t: nanoseconds since the record began, by the coordinator's clock):
 *   {"do":"task", "id","worker","kind","shard","at","rows","b","eta","theta","after","version","origin","before",
 *    "commits","generation"}
 *       handed out: `at` and `rows` are the draw, H = rows / b steps; shard -1: all that the worker holds; origin: the
 *       version a difference is taken to; before: of a history by version, that rows at older ones are taken anew
 *   {"do":"result", "t","id","arrived","wait","receive","compute","delay","came","posted"}  (ns); "status","error" if
 * it failed
 *   {"do":"merge", "id","how","stale","step","q","commits","generation"}
 *       the engine's answer: apply, scale (shortened for its age), fold (history only), reject (dropped), repair,
 *       full (a full gradient, of a task a shard); step: theta or eta as applied; id 0: of several tasks, a round's
 *       or a full gradient's; a rise of generation is a rollback
 *   {"do":"tick","t"}  {"do":"audit","t"}  {"do":"interrupt","t"}
 *       tick: time passed, and nothing came
 *   {"do":"lost","t","worker","reason"}  {"do":"joined","t","worker","name","device","slots","depth"}
 *   {"do":"withdrawn","t","worker","shard"}  {"do":"leased","t","worker","shard"}
 *       members came or went, of `most` there can be at a time, as skald/crew.h has it
 *   {"do":"end","stop","updates","model"}  (model: a hash of its bits)   or   {"do":"failed","error"}
 * Numbers are written so that reading gives the same bits. A record without its last line broke off. */
#ifndef SKALD_REPLAY_RECORD_H
#define SKALD_REPLAY_RECORD_H

#include <stdatomic.h>

#include "base/options.h"
#include "skald/train.h"

#define SKALD_RECORD_VERSION 5
#define SKALD_RECORD_ALL (-1) /* `shard` of a task over all shards */

/* ---- writing: between an engine and its crew ----------------------------------------------------------- */

typedef struct skald_recorder skald_recorder;

/* What the first line says; not kept. */
typedef struct skald_recording {
    const char *path, *command, *data;
    const skald_options *options; /* of `command`; outputs among them are left out */
    bool floats;                  /* the crew sends vectors of local tasks as floats */
} skald_recording;

/* Opens the file and writes the first line. The engine must then be given the recorder's crew, clock and stop flag:
 * they are those passed in, but time stands still and no request to stop is seen except between events, so that all the
 * engine can see is on record. Lines go through a buffer to a thread of their own, at the latest after half a second.
 * SKALD_EIO; SKALD_EUNSUPPORTED for devices that cannot be replayed. The crew stays the caller's. */
skald_status skald_recorder_open(const skald_recording *what, skald_crew *crew, skald_clock *clock,
                                 const atomic_int *stop_flag, skald_recorder **out);
skald_crew *skald_recorder_crew(skald_recorder *recorder);
skald_clock *skald_recorder_clock(skald_recorder *recorder);
const atomic_int *skald_recorder_stop(skald_recorder *recorder);
/* For the observer's `merged`. */
void skald_recorder_merged(skald_recorder *recorder, const skald_merged *m);
/* The last line, from the outcome, or from `error` if the run failed. SKALD_EIO when the record is not whole, and why.
 * Frees the recorder. NULL-safe. */
skald_status skald_recorder_close(skald_recorder *recorder, const skald_outcome *outcome, const char *error);

/* "avx512" of "cpu (avx512, 4 threads)"; false: not a CPU. */
bool skald_record_isa(const char *device, char out[32]);
/* A hash of a model's bits. */
uint64_t skald_model_hash(const double *w, uint32_t length);

/* ---- reading ----------------------------------------------------------------------------------------- */

typedef enum skald_record_kind {
    SKALD_RECORD_TASK,
    SKALD_RECORD_RESULT,
    SKALD_RECORD_MERGE,
    SKALD_RECORD_TICK,
    SKALD_RECORD_AUDIT,
    SKALD_RECORD_INTERRUPT,
    SKALD_RECORD_LOST,
    SKALD_RECORD_JOINED,
    SKALD_RECORD_WITHDRAWN,
    SKALD_RECORD_LEASED,
    SKALD_RECORD_END,
    SKALD_RECORD_FAILED,
    SKALD_RECORD_BROKEN /* the file ends here, though not the run; the number is that of the line missing */
} skald_record_kind;

/* One line; fields its kind does not have are 0. */
typedef struct skald_record_line {
    skald_record_kind kind;
    unsigned number;
    int64_t t, arrived, wait, receive, compute, delay, came, posted, shard;
    uint64_t id, at, after, version, origin, before, commits, stale, updates, model;
    uint32_t worker, rows, b, generation, slots, depth;
    int status;
    double eta, theta, step, q;
    char what[32]; /* kind of a task, how a merge went, why a run stopped */
    char device[64];
    char text[1024]; /* error, reason, a worker's name */
} skald_record_line;

typedef struct skald_record {
    char *path, *command, *data, *version, isa[32];
    double n;
    uint32_t length;
    bool floats;
    char **names, **texts; /* options, `option_count` */
    bool *given;
    uint32_t option_count;
    uint64_t *checksums; /* shard_count */
    uint32_t shard_count;
    skald_member *members; /* their shards are owned here */
    uint32_t *dealt;       /* member_count x shard_count */
    uint32_t member_count, most;
    skald_record_line line; /* the one to come */
    struct skald_record_file *file;
} skald_record;

/* Reads the first line and looks at the second. SKALD_EIO; SKALD_EDATA with file:line. Free with skald_record_close. */
skald_status skald_record_open(const char *path, skald_record *out);
/* Goes on to the next line: record->line. SKALD_EDATA with file:line when it is not what a recorder writes. */
skald_status skald_record_next(skald_record *record);
void skald_record_close(skald_record *record);
/* The effective text of an option; NULL if it has none. */
const char *skald_record_option(const skald_record *record, const char *name);

#endif
