/* The thread that writes checkpoints, so that training waits for no disk. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "skald/checkpoint.h"

struct skald_checkpointer {
    skald_checkpointer_options options;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    /* under the mutex */
    skald_checkpoint *waiting, *idle; /* to be written; to be filled again */
    bool writing, ending, told_failure, told_slow;
    skald_status last;
    char error[700], news[900];
    /* the owner's */
    skald_checkpoint *filling;
    bool begun;
    int64_t begun_ns;
    double begun_passes;
    uint8_t *manifest;
    size_t manifest_bytes;
};

static void drop(skald_checkpoint *c) {
    if (!c) return;
    c->manifest = NULL; /* the checkpointer's */
    skald_checkpoint_free(c);
    free(c);
}

static void say(skald_checkpointer *c, const char *text) { /* under the mutex; what nobody has read yet is overtaken */
    snprintf(c->news, sizeof c->news, "%s", text);
}

static void done(skald_checkpointer *c, skald_status st) { /* under the mutex */
    char text[900];
    if (st != SKALD_OK) snprintf(c->error, sizeof c->error, "%s", skald_error());
    if (st != SKALD_OK && !c->told_failure) {
        snprintf(text, sizeof text, "no checkpoint: %s; the last one is as it was, and training goes on", c->error);
        say(c, text);
    } else if (st == SKALD_OK && c->told_failure) {
        snprintf(text, sizeof text, "checkpoints are written again: %.600s", c->options.path);
        say(c, text);
    }
    c->told_failure = st != SKALD_OK;
    c->told_slow = false;
    c->last = st;
}

static void *write_all(void *argument) {
    skald_checkpointer *c = argument;
    pthread_mutex_lock(&c->mutex);
    for (;;) {
        while (!c->waiting && !c->ending) pthread_cond_wait(&c->changed, &c->mutex);
        skald_checkpoint *next = c->waiting;
        if (!next) break;
        c->waiting = NULL;
        c->writing = true;
        pthread_mutex_unlock(&c->mutex);
        const skald_status st = skald_checkpoint_save(c->options.storage, c->options.path, next);
        pthread_mutex_lock(&c->mutex);
        done(c, st);
        c->writing = false;
        skald_checkpoint *spare = c->idle;
        c->idle = next;
        pthread_mutex_unlock(&c->mutex);
        drop(spare);
        pthread_mutex_lock(&c->mutex);
    }
    pthread_mutex_unlock(&c->mutex);
    return NULL;
}

skald_status skald_checkpointer_open(const skald_checkpointer_options *options, skald_checkpointer **out) {
    skald_checkpointer *c = skald_zalloc(1, sizeof *c);
    if (!c) return SKALD_ENOMEM;
    c->options = *options;
    pthread_mutex_init(&c->mutex, NULL);
    pthread_cond_init(&c->changed, NULL);
    if (pthread_create(&c->thread, NULL, write_all, c) != 0) {
        pthread_mutex_destroy(&c->mutex);
        pthread_cond_destroy(&c->changed);
        free(c);
        return skald_fail(SKALD_ENOMEM, "cannot start a thread for checkpoints");
    }
    *out = c;
    return SKALD_OK;
}

bool skald_checkpointer_due(skald_checkpointer *c, int64_t now_ns, double passes) {
    const skald_checkpointer_options *o = &c->options;
    const bool first = !c->begun && o->term <= 1; /* a later term's file is there already */
    if (!c->begun) {
        c->begun = true;
        c->begun_ns = now_ns;
        c->begun_passes = passes;
    }
    const bool time = o->every_ns > 0 && now_ns - c->begun_ns >= o->every_ns;
    if (!first && !time && !(o->every_passes > 0 && passes - c->begun_passes >= o->every_passes)) return false;
    pthread_mutex_lock(&c->mutex);
    const bool busy = c->writing || c->waiting;
    if (busy && !c->told_slow) {
        char text[900];
        snprintf(text, sizeof text,
                 "%.600s: the storage is slow, the last checkpoint is still being written; the next one waits",
                 o->path);
        say(c, text);
        c->told_slow = true;
    }
    pthread_mutex_unlock(&c->mutex);
    if (busy) return false;
    c->begun_ns = now_ns;
    c->begun_passes = passes;
    return true;
}

skald_checkpoint *skald_checkpointer_begin(skald_checkpointer *c, uint64_t length, uint64_t shards, bool history,
                                           uint64_t parts, uint64_t versions) {
    pthread_mutex_lock(&c->mutex);
    if (!c->filling) c->filling = c->idle, c->idle = NULL;
    pthread_mutex_unlock(&c->mutex);
    skald_checkpoint *f = c->filling;
    if (f && (f->length != length || f->shard_count != shards || !f->anchors != !history)) {
        drop(f);
        f = NULL;
    }
    if (!f) {
        f = skald_zalloc(1, sizeof *f);
        if (f && skald_checkpoint_make(length, shards, history, f) != SKALD_OK) {
            free(f);
            f = NULL;
        }
    }
    if (f && skald_checkpoint_fit(f, parts, versions) != SKALD_OK) {
        drop(f);
        f = NULL;
    }
    c->filling = f;
    if (!f) {
        skald_fail(SKALD_ENOMEM, "%s: out of memory", c->options.path);
        pthread_mutex_lock(&c->mutex);
        done(c, SKALD_ENOMEM);
        pthread_mutex_unlock(&c->mutex);
        return NULL;
    }
    memcpy(f->run, c->options.run, sizeof f->run);
    f->term = c->options.term;
    f->manifest = c->manifest;
    f->manifest_bytes = c->manifest_bytes;
    return f;
}

void skald_checkpointer_manifest(skald_checkpointer *c, uint8_t *packed, size_t size) {
    if (c->manifest)
        free(packed); /* that of a second training is the same */
    else
        c->manifest = packed, c->manifest_bytes = size;
}

void skald_checkpointer_give(skald_checkpointer *c) {
    pthread_mutex_lock(&c->mutex);
    skald_checkpoint *overtaken = c->waiting;
    c->waiting = c->filling;
    pthread_cond_signal(&c->changed);
    pthread_mutex_unlock(&c->mutex);
    c->filling = NULL;
    drop(overtaken);
}

bool skald_checkpointer_news(skald_checkpointer *c, char *out, size_t size) {
    pthread_mutex_lock(&c->mutex);
    const bool any = c->news[0];
    if (any) snprintf(out, size, "%s", c->news);
    c->news[0] = '\0';
    pthread_mutex_unlock(&c->mutex);
    return any;
}

skald_status skald_checkpointer_close(skald_checkpointer *c) {
    if (!c) return SKALD_OK;
    pthread_mutex_lock(&c->mutex);
    c->ending = true;
    pthread_cond_signal(&c->changed);
    pthread_mutex_unlock(&c->mutex);
    pthread_join(c->thread, NULL);
    const skald_status st = c->last;
    if (st != SKALD_OK) skald_fail(st, "no checkpoint: %s", c->error);
    drop(c->filling);
    drop(c->idle);
    free(c->manifest);
    pthread_mutex_destroy(&c->mutex);
    pthread_cond_destroy(&c->changed);
    free(c);
    return st;
}
