/* The live page: a run as a browser and Prometheus see it.
 *
 * The owner thread tells the page what happens; about five times a second it puts a snapshot up: immutable,
 * refcounted, and all that the server's own thread ever looks at. So a reader, however slow, holds up nobody.
 *
 *   /             one HTML page, whole: no other file, no other host
 *   /live.json    what the page polls: the status, and of the history what came after snapshot ?after=N
 *   /status.json  what `skald status --json` prints
 *   /metrics      Prometheus' text format
 *
 * Everything here is called by the owner thread, and nothing of it waits for a reader but skald_page_close. */
#ifndef SKALD_HTTP_HTTP_H
#define SKALD_HTTP_HTTP_H

#include "skald/train.h"

typedef struct skald_page skald_page;

/* PORT (of this machine alone), HOST:PORT or [V6]:PORT; port 0: a free one. SKALD_EINVAL names --http when it is none
 * of these, or reaches beyond this machine and `elsewhere` is not set. */
skald_status skald_page_check(const char *address, bool elsewhere);
/* Listens and serves. SKALD_EADDRINUSE and others say why not. url receives where people find it. */
skald_status skald_page_open(const char *address, bool elsewhere, skald_page **out, char *url, size_t size);

/* The run is at this stage, before there is a table: "gathering", "starting". */
void skald_page_stage(skald_page *page, const char *stage);
/* As in skald_observer. */
void skald_page_task(skald_page *page, const skald_task_seen *t);
void skald_page_evaluation(skald_page *page, const skald_evaluation *e);
void skald_page_progress(skald_page *page, const skald_progress *p);
void skald_page_notice(skald_page *page, const char *text);
bool skald_page_due(skald_page *page);
void skald_page_table(skald_page *page, char *json);
/* The run is over: its last status (freed), or (NULL) the last one known, with the reason it failed for. */
void skald_page_end(skald_page *page, char *json, const char *error);
/* Stops serving and frees; a page that somebody looks at gets up to a second to see the end. NULL is fine. */
void skald_page_close(skald_page *page);

#endif
