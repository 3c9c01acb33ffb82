/* A queue of small fixed-size items from any thread to one owner thread. */
#ifndef SKALD_BASE_QUEUE_H
#define SKALD_BASE_QUEUE_H

#include <stddef.h>
#include <stdint.h>

#include "skald/status.h"

typedef struct skald_queue skald_queue;

/* Items are copied in and out, `item_bytes` each. The ring starts at `capacity` items (0: 64) and doubles when
 * full, so that pushing allocates only until the largest backlog has been seen once. */
skald_status skald_queue_create(size_t item_bytes, size_t capacity, skald_queue **out);
/* No thread may be inside a call. Items left are forgotten: pop them first if they own anything. NULL-safe. */
void skald_queue_destroy(skald_queue *queue);

/* Any thread; never waits for the owner. SKALD_ELOST when closed, SKALD_ENOMEM; the item stays the caller's then. */
skald_status skald_queue_push(skald_queue *queue, const void *item);
/* The owner. Waits at most `timeout_ns` (0: does not wait, negative: for ever). SKALD_AGAIN on timeout (no message
 * is set), SKALD_ELOST when the queue is closed and empty: what was pushed before the close still comes. */
skald_status skald_queue_pop(skald_queue *queue, void *item, int64_t timeout_ns);
/* Any thread, any number of times. */
void skald_queue_close(skald_queue *queue);
size_t skald_queue_size(skald_queue *queue);

#endif
