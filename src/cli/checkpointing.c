#include "cli/checkpointing.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/base.h"
#include "cli/cli.h"

/* "60s", "5m", "2passes" */
static skald_status parse_every(const char *text, int64_t *ns, double *passes) {
    static const struct {
        const char *name;
        double seconds; /* 0: passes */
    } units[] = {{"", 1}, {"ms", 1e-3}, {"s", 1}, {"m", 60}, {"h", 3600}, {"pass", 0}, {"passes", 0}};
    char *end = NULL;
    const double number = strtod(text, &end);
    if (end != text && number > 0 && number < 1e9)
        for (size_t k = 0; k < SKALD_ARRAY_LENGTH(units); k++)
            if (strcmp(end, units[k].name) == 0) {
                *ns = (int64_t)(number * units[k].seconds * 1e9);
                *passes = units[k].seconds > 0 ? 0 : number;
                return SKALD_OK;
            }
    return skald_fail(SKALD_EINVAL, "--checkpoint-every %s: must be a time, as 60s or 5m, or passes, as 2passes", text);
}

static bool there(const char *path, const char *end) {
    char *name = NULL;
    const bool found = asprintf(&name, "%s%s", path, end) >= 0 && access(name, F_OK) == 0;
    free(name);
    return found;
}

/* A term above any that the run has had, as far as the files beside it tell: perhaps it is not the newest that is gone
 * on from. */
static void raise_term(checkpointing *c, const char *path) {
    uint64_t highest = c->from.term;
    for (int k = 0; k < 2; k++) {
        char run[40], *name = NULL;
        uint64_t term = 0;
        if (asprintf(&name, "%s%s", path, k ? ".1" : "") >= 0 && skald_checkpoint_peek(NULL, name, run, &term) &&
            strcmp(run, c->from.run) == 0 && term > highest && term < UINT32_MAX)
            highest = term;
        free(name);
    }
    c->term = c->from.term = highest + 1;
}

/* Is `from` the one before `path`? Then whatever is at `path`, it is damaged. */
static bool is_previous(const char *path, const char *from) {
    const size_t n = strlen(path);
    return from && strncmp(path, from, n) == 0 && strcmp(from + n, ".1") == 0;
}

static skald_status may_replace(const checkpointing *c, const char *path, const char *from) {
    char run[40];
    uint64_t term;
    if (!there(path, "") || is_previous(path, from)) return SKALD_OK;
    if (!skald_checkpoint_peek(NULL, path, run, &term))
        return skald_fail(SKALD_EIO, "%s: is not a Skald checkpoint, and is not replaced by one", path);
    if (from && strcmp(run, c->from.run) == 0) return SKALD_OK;
    return skald_fail(SKALD_EIO, "%s: holds run %s: --resume %s goes on with it; remove it to begin anew", path, run,
                      path);
}

/* The last checkpoint cannot be gone on from. `auto` is a supervisor's word, who would only try again: if that file is
 * damaged, and the one before it is whole and of the same run, it is put aside and the other one taken. Else `st`. */
static skald_status fall_back(checkpointing *c, const char *path, skald_status st) {
    char why[900], run[40], *aside = NULL;
    uint64_t term = 0;
    snprintf(why, sizeof why, "%s", skald_error());
    if (asprintf(&c->previous, "%s.1", path) < 0) c->previous = NULL;
    if (asprintf(&aside, "%s.damaged", path) < 0) aside = NULL;
    const bool can = c->previous && aside && st == SKALD_EMODEL && skald_checkpoint_peek(NULL, path, run, &term) &&
                     skald_checkpoint_load(NULL, c->previous, &c->from) == SKALD_OK && strcmp(run, c->from.run) == 0 &&
                     rename(path, aside) == 0;
    if (can) {
        if (term > c->from.term && term < UINT32_MAX) c->from.term = term;
        fprintf(stderr, "skald: %s: is damaged, and is %s now; going on from %s, of %.1f passes\n", path, aside,
                c->previous, c->from.passes);
    } else {
        skald_checkpoint_free(&c->from);
        free(c->previous);
        c->previous = NULL;
    }
    free(aside);
    return can ? SKALD_OK : skald_fail(st, "%s", why);
}

/* What nobody says now is what it was. */
static skald_status take_choices(const checkpointing *c, const char *from, training *t) {
    if (t->data.choose_loss && skald_loss_parse(c->from.loss, &t->objective.loss) != SKALD_OK)
        return skald_context(SKALD_EMODEL, "%s", from);
    if (t->data.choose_loss) t->loss_why = "the checkpoint's";
    t->data.choose_loss = false;
    if (t->choose_algo && !skald_algo_parse(c->from.algo, &t->train.algo))
        return skald_fail(SKALD_EMODEL, "%s: its algorithm '%s' is not known", from, c->from.algo);
    if (t->choose_algo) t->algo_why = "the checkpoint's";
    t->choose_algo = false;
    return SKALD_OK;
}

skald_status checkpointing_open(checkpointing *c, const settings *s, training *t) {
    *c = (checkpointing){0};
    if (!s->checkpoint && !s->resume) return SKALD_OK;
    const bool automatic = s->resume && strcmp(s->resume, "auto") == 0;
    if (automatic && !s->checkpoint) return skald_fail(SKALD_EINVAL, "--resume auto needs --checkpoint FILE");
    const char *path = s->checkpoint ? s->checkpoint : s->resume;
    const char *from = automatic ? there(path, "") || there(path, ".1") ? path : NULL : s->resume;
    skald_checkpointer_options options = {.path = path};
    TRY(parse_every(s->checkpoint_every, &options.every_ns, &options.every_passes));
    TRY(check_output_path(path));
    skald_status st = from ? skald_checkpoint_open(NULL, from, &c->from) : SKALD_OK;
    if (st != SKALD_OK && automatic) st = fall_back(c, path, st);
    if (st != SKALD_OK) return st;
    if (c->previous) from = c->previous;
    st = may_replace(c, path, from);
    if (st == SKALD_OK && from) {
        raise_term(c, path);
        st = skald_checkpoint_save(NULL, path, &c->from);
        if (st != SKALD_OK) skald_context(st, "the run cannot be gone on with");
        memcpy(c->run, c->from.run, sizeof c->run);
        t->train.resume = &c->from;
        t->train.resume_path = from;
        if (st == SKALD_OK) st = take_choices(c, from, t);
        t->data.least_shards = (uint32_t)c->from.shard_count;
    } else {
        skald_run_id(c->run);
        c->term = 1;
    }
    memcpy(options.run, c->run, sizeof options.run);
    options.term = c->term;
    if (st == SKALD_OK) st = skald_checkpointer_open(&options, &c->writer);
    t->train.checkpointer = c->writer;
    return st;
}

void checkpointing_tell(const checkpointing *c, skald_coordinator_options *o) {
    if (!c->writer) return;
    o->run = c->run;
    o->term = (uint32_t)c->term;
    o->manifest = c->from.manifest;
    o->manifest_bytes = c->from.manifest_bytes;
    o->commits = c->from.commits;
}

skald_status checkpointing_blame(const checkpointing *c, const settings *s, skald_status st) {
    if (st != SKALD_EDATA || !c->from.manifest) return st;
    return skald_context(st, "%s is a checkpoint of other data, or they have changed",
                         strcmp(s->resume, "auto") == 0 ? s->checkpoint : s->resume);
}

skald_status checkpointing_close(checkpointing *c) {
    const skald_status st = skald_checkpointer_close(c->writer);
    c->writer = NULL;
    skald_checkpoint_free(&c->from);
    free(c->previous);
    c->previous = NULL;
    return st;
}
