#include "net/grpc_common.h"

#include <grpc/support/log.h>
#include <grpc/support/time.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"

#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
#define TSAN_RELEASE(tag) __tsan_release(tag)
#define TSAN_ACQUIRE(tag) __tsan_acquire(tag)
#else
#define TSAN_RELEASE(tag) (void)(tag)
#define TSAN_ACQUIRE(tag) (void)(tag)
#endif

/* ---- runtime ------------------------------------------------------------------------------------------- */

void net_block_signals(void *old) {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, old);
}

void net_restore_signals(const void *old) {
    pthread_sigmask(SIG_SETMASK, old, NULL);
}

static pthread_mutex_t ears_lock = PTHREAD_MUTEX_INITIALIZER;
static net_ear *ears;

/* A library does not print; failures come back as status. But that a handshake failed the core tells nobody else. */
static void overhear(gpr_log_func_args *args) {
    static const char says[] = "Handshake failed with fatal error ";
    const char *what = args->message ? strstr(args->message, says) : NULL;
    if (!what) return;
    pthread_mutex_lock(&ears_lock);
    for (net_ear *e = ears; e; e = e->next) e->heard(e->owner, what + strlen(says));
    pthread_mutex_unlock(&ears_lock);
}

static void quieten(void) {
    if (!getenv("GRPC_VERBOSITY") && !getenv("GRPC_TRACE")) gpr_set_log_function(overhear);
}

void net_ear_open(net_ear *ear) {
    pthread_mutex_lock(&ears_lock);
    ear->next = ears;
    ears = ear;
    pthread_mutex_unlock(&ears_lock);
}

void net_ear_close(net_ear *ear) {
    pthread_mutex_lock(&ears_lock);
    net_ear **at = &ears;
    while (*at && *at != ear) at = &(*at)->next;
    if (*at) *at = ear->next;
    pthread_mutex_unlock(&ears_lock);
}

void net_grpc_ref(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, quieten);
    sigset_t old;
    net_block_signals(&old);
    grpc_init();
    net_restore_signals(&old);
}

void net_grpc_unref(void) {
    grpc_shutdown_blocking();
}

/* ---- completion queue ---------------------------------------------------------------------------------- */

void net_tag_start(net_tag *tag) {
    TSAN_RELEASE(tag);
}

bool net_batch(grpc_call *call, const grpc_op *ops, size_t count, net_tag *tag) {
    net_tag_start(tag);
    return grpc_call_start_batch(call, ops, count, tag, NULL) == GRPC_CALL_OK;
}

bool net_poll(grpc_completion_queue *queue, gpr_timespec deadline) {
    grpc_event event = grpc_completion_queue_next(queue, deadline, NULL);
    if (event.type == GRPC_QUEUE_SHUTDOWN) return false;
    if (event.type == GRPC_OP_COMPLETE) {
        net_tag *tag = event.tag;
        TSAN_ACQUIRE(tag);
        tag->fn(tag->owner, event.success != 0);
    }
    return true;
}

/* ---- time and threads --------------------------------------------------------------------------------- */

gpr_timespec net_deadline(int64_t ns) {
    if (ns > INT64_MAX / 4) return gpr_inf_future(GPR_CLOCK_MONOTONIC);
    return gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_nanos(ns, GPR_TIMESPAN));
}

skald_status net_thread_start(pthread_t *thread, void *(*run)(void *), void *argument) {
    sigset_t old;
    net_block_signals(&old);
    int error = pthread_create(thread, NULL, run, argument);
    net_restore_signals(&old);
    return error ? skald_fail(SKALD_ENOMEM, "cannot start a thread: %s", strerror(error)) : SKALD_OK;
}

/* ---- channel arguments --------------------------------------------------------------------------------- */

static void add(net_args *a, const char *key, int value) {
    grpc_arg *arg = &a->list[a->args.num_args++];
    arg->type = GRPC_ARG_INTEGER;
    arg->key = (char *)(uintptr_t)key;
    arg->value.integer = value;
}

void net_args_fill(net_args *a, const skald_net_options *options, bool server) {
    memset(a, 0, sizeof *a);
    a->args.args = a->list;
    int keepalive_ms =
        options->keepalive_ns / 1000000 > 0x3fffffff ? 0x3fffffff : (int)(options->keepalive_ns / 1000000);
    add(a, GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, (int)options->max_frame_bytes);
    add(a, GRPC_ARG_MAX_SEND_MESSAGE_LENGTH, (int)options->max_frame_bytes);
    add(a, GRPC_ARG_KEEPALIVE_TIME_MS, keepalive_ms);
    add(a, GRPC_ARG_KEEPALIVE_TIMEOUT_MS, keepalive_ms / 2 > 1 ? keepalive_ms / 2 : 1);
    add(a, GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
    add(a, GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0); /* no limit; by default idle pings stop after two */
    if (server) {
        add(a, GRPC_ARG_ALLOW_REUSEPORT, 0); /* else a second server shares the port silently */
        /* Pings more often than this get a client thrown out. */
        add(a, GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, keepalive_ms < 2000 ? keepalive_ms / 2 : 1000);
        const int64_t hello_ms = options->hello_ns / 1000000;
        add(a, GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, hello_ms && hello_ms < 10000 ? (int)hello_ms : 10000);
        if (hello_ms) add(a, GRPC_ARG_MAX_CONNECTION_IDLE_MS, hello_ms > 0x3fffffff ? 0x3fffffff : (int)hello_ms);
        add(a, GRPC_ARG_MAX_CONCURRENT_STREAMS, 32); /* a connection; ours have one */
        add(a, GRPC_ARG_MAX_METADATA_SIZE, 16 << 10);
    } else {
        add(a, GRPC_ARG_ENABLE_HTTP_PROXY, 0);
        add(a, GRPC_ARG_ENABLE_RETRIES, 0);
        add(a, GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
        add(a, GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 100);
        add(a, GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 2000);
        /* A client has a connection of its own: what one session does leaves the next one's alone. */
        add(a, GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    }
}

/* ---- bytes --------------------------------------------------------------------------------------------- */

static void let_go(void *owner) {
    TSAN_ACQUIRE(owner); /* the core brought it to this thread, which ThreadSanitizer does not see */
    skald_bytes_unref(owner);
}

grpc_byte_buffer *net_message(const skald_segment *segments, size_t count) {
    grpc_slice slices[SKALD_MAX_SEGMENTS];
    size_t n = 0;
    for (size_t k = 0; k < count;) {
        size_t run = 0, end = k;
        while (end < count && segments[end].size <= NET_COPY_BYTES) run += segments[end++].size;
        if (run) {
            slices[n] = grpc_slice_malloc(run);
            uint8_t *p = GRPC_SLICE_START_PTR(slices[n]);
            for (size_t j = k; j < end; j++) {
                if (segments[j].size) memcpy(p, segments[j].data, segments[j].size);
                p += segments[j].size;
            }
            n++;
        }
        k = end;
        if (k == count) break;
        skald_bytes_ref(segments[k].owner);
        TSAN_RELEASE(segments[k].owner);
        slices[n++] = grpc_slice_new_with_user_data((void *)(uintptr_t)segments[k].data, segments[k].size, let_go,
                                                    segments[k].owner);
        k++;
    }
    grpc_byte_buffer *message = grpc_raw_byte_buffer_create(slices, n);
    for (size_t k = 0; k < n; k++) grpc_slice_unref(slices[k]);
    return message;
}

static void drop_message(net_frame *frame) {
    if (frame->payload) grpc_byte_buffer_destroy(frame->payload);
}

net_frames *net_grpc_frames(void) {
    net_grpc_ref();
    net_frames *frames = net_frames_create(drop_message, net_grpc_unref);
    if (!frames) net_grpc_unref();
    return frames;
}

net_frame *net_frame_of(net_frames *frames, grpc_byte_buffer *message) {
    grpc_slice_buffer *slices = &message->data.raw.slice_buffer;
    net_frame *frame = net_frames_get(frames, slices->count);
    if (!frame) {
        grpc_byte_buffer_destroy(message);
        return NULL;
    }
    frame->payload = message;
    for (size_t k = 0; k < slices->count; k++) { /* short slices lie inside the buffer: it does not move any more */
        size_t size = GRPC_SLICE_LENGTH(slices->slices[k]);
        frame->segments[k] = (skald_segment){NULL, GRPC_SLICE_START_PTR(slices->slices[k]), size};
        frame->base.size += size;
    }
    frame->base.count = slices->count;
    return frame;
}

/* ---- status -------------------------------------------------------------------------------------------- */

grpc_status_code net_status_to_grpc(skald_status status) {
    switch (status) { /* where there is a choice, codes the library never makes itself */
    case SKALD_OK:
        return GRPC_STATUS_OK;
    case SKALD_EINVAL:
    case SKALD_EDATA:
    case SKALD_EMODEL:
    case SKALD_EPEER:
        return GRPC_STATUS_INVALID_ARGUMENT;
    case SKALD_EVERSION:
    case SKALD_EREFUSED:
        return GRPC_STATUS_FAILED_PRECONDITION;
    case SKALD_ETOOBIG:
    case SKALD_ENOMEM:
        return GRPC_STATUS_RESOURCE_EXHAUSTED;
    case SKALD_EUNAVAILABLE:
        return GRPC_STATUS_UNAVAILABLE;
    case SKALD_ETIMEOUT:
        return GRPC_STATUS_DEADLINE_EXCEEDED;
    case SKALD_EUNSUPPORTED:
        return GRPC_STATUS_UNIMPLEMENTED;
    case SKALD_AGAIN:
        return GRPC_STATUS_NOT_FOUND;
    case SKALD_EINTERNAL:
        return GRPC_STATUS_INTERNAL;
    default:
        return GRPC_STATUS_ABORTED;
    }
}

skald_status net_status_from_grpc(grpc_status_code code, bool opened) {
    switch (code) {
    case GRPC_STATUS_OK:
        return SKALD_OK;
    case GRPC_STATUS_RESOURCE_EXHAUSTED:
        return SKALD_ETOOBIG;
    case GRPC_STATUS_DEADLINE_EXCEEDED:
        return SKALD_ETIMEOUT;
    case GRPC_STATUS_UNIMPLEMENTED:
        return SKALD_EVERSION;
    case GRPC_STATUS_UNAVAILABLE:
        return opened ? SKALD_ELOST : SKALD_EUNAVAILABLE;
    case GRPC_STATUS_CANCELLED:
    case GRPC_STATUS_INTERNAL:
    case GRPC_STATUS_UNKNOWN:
        return SKALD_ELOST;
    case GRPC_STATUS_NOT_FOUND:
        return SKALD_AGAIN;
    default:
        return SKALD_EREFUSED;
    }
}

bool net_status_in(const grpc_metadata_array *trailing, skald_status *status) {
    for (size_t k = 0; k < trailing->count; k++) {
        const grpc_metadata *m = &trailing->metadata[k];
        if (grpc_slice_str_cmp(m->key, NET_STATUS_KEY) != 0) continue;
        char text[8] = "";
        size_t size = GRPC_SLICE_LENGTH(m->value);
        if (size == 0 || size >= sizeof text) return false;
        memcpy(text, GRPC_SLICE_START_PTR(m->value), size);
        if (strspn(text, "0123456789") != size) return false;
        *status = (skald_status)atoi(text);
        return true;
    }
    return false;
}

void net_status_fill(grpc_op *op, net_status_op *store, skald_status status, const char *reason) {
    char number[16], text[NET_REASON_BYTES];
    snprintf(number, sizeof number, "%d", (int)status);
    snprintf(text, sizeof text, "%s", reason);
    memset(store, 0, sizeof *store);
    store->metadata.key = grpc_slice_from_static_string(NET_STATUS_KEY);
    store->metadata.value = grpc_slice_from_copied_string(number);
    store->details = grpc_slice_from_copied_string(text);
    op->op = GRPC_OP_SEND_STATUS_FROM_SERVER;
    op->data.send_status_from_server.trailing_metadata_count = 1;
    op->data.send_status_from_server.trailing_metadata = &store->metadata;
    op->data.send_status_from_server.status = net_status_to_grpc(status);
    op->data.send_status_from_server.status_details = &store->details;
}

void net_status_clear(net_status_op *store) {
    grpc_slice_unref(store->metadata.value);
    grpc_slice_unref(store->details);
}
