#include "bare_echo.h"

#include <grpc/byte_buffer.h>
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <grpc/slice.h>
#include <grpc/support/time.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct stream stream;
typedef struct tag {
    void (*fn)(stream *s, bool ok);
    stream *s;
} tag;

/* Either end of a stream: messages owed go out one at a time, every one received makes one more owed. */
struct stream {
    grpc_call *call;
    const grpc_slice *payload;
    tag sent, received, ended, started;
    grpc_byte_buffer *out, *in;
    int owed, in_flight, cancelled;
    bool sending, over;
    uint64_t count; /* received; atomic */
    grpc_metadata_array initial, trailing;
    grpc_status_code status;
    grpc_slice details;
};

typedef struct server {
    grpc_server *core;
    grpc_completion_queue *queue;
    void *method;
    const grpc_slice *payload;
    tag requested, down;
    stream *next; /* the one to be filled in by the next request */
    grpc_metadata_array metadata;
    gpr_timespec deadline;
} server;

typedef struct client {
    pthread_t thread;
    char address[64];
    const grpc_slice *payload;
    int outstanding;
    int max_bytes;
    int stop; /* atomic */
    stream s;
} client;

static void start(stream *s, grpc_op *ops, size_t n, tag *t) {
    if (grpc_call_start_batch(s->call, ops, n, t, NULL) == GRPC_CALL_OK) s->in_flight++;
}

static void receive(stream *s) {
    grpc_op op = {.op = GRPC_OP_RECV_MESSAGE};
    op.data.recv_message.recv_message = &s->in;
    start(s, &op, 1, &s->received);
}

static void pump(stream *s) {
    if (s->sending || s->over || s->owed == 0) return;
    s->owed--;
    s->sending = true;
    grpc_slice slice = *s->payload;
    s->out = grpc_raw_byte_buffer_create(&slice, 1);
    grpc_op op = {.op = GRPC_OP_SEND_MESSAGE};
    op.data.send_message.send_message = s->out;
    start(s, &op, 1, &s->sent);
}

static void on_sent(stream *s, bool ok) {
    grpc_byte_buffer_destroy(s->out);
    s->sending = false;
    pump(s);
}

static void on_received(stream *s, bool ok) {
    if (!s->in) return;
    grpc_byte_buffer_destroy(s->in);
    s->in = NULL;
    __atomic_fetch_add(&s->count, 1, __ATOMIC_RELAXED);
    s->owed++;
    pump(s);
    if (!s->over) receive(s);
}

static void on_ended(stream *s, bool ok) {
    s->over = true;
}

static void on_started(stream *s, bool ok) {}

static void prepare(stream *s, const grpc_slice *payload) {
    memset(s, 0, sizeof *s);
    s->payload = payload;
    s->sent = (tag){on_sent, s};
    s->received = (tag){on_received, s};
    s->ended = (tag){on_ended, s};
    s->started = (tag){on_started, s};
}

/* One event; false when the queue is done. */
static bool step(grpc_completion_queue *queue, stream **ended) {
    grpc_event e = grpc_completion_queue_next(queue, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
    *ended = NULL;
    if (e.type == GRPC_QUEUE_SHUTDOWN) return false;
    tag *t = e.tag;
    if (!t->s) {
        t->fn(NULL, e.success != 0);
        return true;
    }
    t->fn(t->s, e.success != 0);
    if (--t->s->in_flight == 0) *ended = t->s;
    return true;
}

static grpc_channel_args *channel_args(int max_bytes) {
    static __thread grpc_arg list[3];
    static __thread grpc_channel_args args;
    list[0] =
        (grpc_arg){GRPC_ARG_INTEGER, (char *)(uintptr_t)GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, {.integer = max_bytes}};
    list[1] = (grpc_arg){GRPC_ARG_INTEGER, (char *)(uintptr_t)GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, {.integer = 1}};
    list[2] = (grpc_arg){GRPC_ARG_INTEGER, (char *)(uintptr_t)GRPC_ARG_ENABLE_HTTP_PROXY, {.integer = 0}};
    args = (grpc_channel_args){3, list};
    return &args;
}

/* ---- server -------------------------------------------------------------------------------------------- */

static void request(server *v) {
    v->next = malloc(sizeof *v->next);
    prepare(v->next, v->payload);
    grpc_metadata_array_init(&v->metadata);
    grpc_server_request_registered_call(v->core, v->method, &v->next->call, &v->deadline, &v->metadata, NULL, v->queue,
                                        v->queue, &v->requested);
}

static void accept_stream(server *v, bool ok) {
    stream *s = v->next;
    grpc_metadata_array_destroy(&v->metadata);
    v->next = NULL;
    if (!ok) {
        free(s);
        return;
    }
    request(v);
    grpc_op op = {.op = GRPC_OP_RECV_CLOSE_ON_SERVER};
    op.data.recv_close_on_server.cancelled = &s->cancelled;
    start(s, &op, 1, &s->ended);
    op = (grpc_op){.op = GRPC_OP_SEND_INITIAL_METADATA};
    start(s, &op, 1, &s->started);
    receive(s);
}

static void *serve(void *argument) {
    server *v = argument;
    for (;;) {
        grpc_event e = grpc_completion_queue_next(v->queue, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
        if (e.type == GRPC_QUEUE_SHUTDOWN) return NULL;
        tag *t = e.tag;
        if (t == &v->requested) {
            accept_stream(v, e.success != 0);
        } else if (t == &v->down) {
            grpc_completion_queue_shutdown(v->queue);
        } else {
            t->fn(t->s, e.success != 0);
            if (--t->s->in_flight == 0) {
                grpc_call_unref(t->s->call);
                free(t->s);
            }
        }
    }
}

/* ---- client -------------------------------------------------------------------------------------------- */

static void *drive(void *argument) {
    client *c = argument;
    stream *s = &c->s, *ended = NULL;
    grpc_completion_queue *queue = grpc_completion_queue_create_for_next(NULL);
    grpc_channel_credentials *plain = grpc_insecure_credentials_create();
    grpc_channel *channel = grpc_channel_create(c->address, plain, channel_args(c->max_bytes));
    grpc_channel_credentials_release(plain);
    s->call = grpc_channel_create_call(channel, NULL, GRPC_PROPAGATE_DEFAULTS, queue,
                                       grpc_slice_from_static_string("/bare/Echo"), NULL,
                                       gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
    grpc_metadata_array_init(&s->initial);
    grpc_metadata_array_init(&s->trailing);
    grpc_op op = {.op = GRPC_OP_RECV_STATUS_ON_CLIENT};
    op.data.recv_status_on_client.trailing_metadata = &s->trailing;
    op.data.recv_status_on_client.status = &s->status;
    op.data.recv_status_on_client.status_details = &s->details;
    start(s, &op, 1, &s->ended);
    grpc_op ops[2];
    memset(ops, 0, sizeof ops);
    ops[0].op = GRPC_OP_SEND_INITIAL_METADATA;
    ops[1].op = GRPC_OP_RECV_INITIAL_METADATA;
    ops[1].data.recv_initial_metadata.recv_initial_metadata = &s->initial;
    start(s, ops, 2, &s->started);
    s->owed = c->outstanding;
    receive(s);
    pump(s);
    while (step(queue, &ended)) {
        if (ended) grpc_completion_queue_shutdown(queue);
        if (__atomic_load_n(&c->stop, __ATOMIC_ACQUIRE) && !s->over) {
            s->over = true;
            grpc_call_cancel(s->call, NULL);
        }
    }
    grpc_metadata_array_destroy(&s->initial);
    grpc_metadata_array_destroy(&s->trailing);
    grpc_slice_unref(s->details);
    grpc_call_unref(s->call);
    grpc_channel_destroy(channel);
    grpc_completion_queue_destroy(queue);
    return NULL;
}

/* ---- both ---------------------------------------------------------------------------------------------- */

static uint64_t total(client *clients, int n) {
    uint64_t sum = 0;
    for (int k = 0; k < n; k++) sum += __atomic_load_n(&clients[k].s.count, __ATOMIC_RELAXED);
    return sum;
}

static double now(void) {
    gpr_timespec t = gpr_now(GPR_CLOCK_MONOTONIC);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

double bare_echo_run(const bare_echo_options *options) {
    int streams = options->streams ? options->streams : 4, max_bytes = (int)options->payload_bytes + 1024;
    uint8_t *bytes = calloc(1, options->payload_bytes ? options->payload_bytes : 1);
    client *clients = calloc((size_t)streams, sizeof *clients);
    grpc_init();
    grpc_slice payload = grpc_slice_from_static_buffer(bytes, options->payload_bytes);
    server v;
    memset(&v, 0, sizeof v);
    v.payload = &payload;
    v.core = grpc_server_create(channel_args(max_bytes), NULL);
    v.queue = grpc_completion_queue_create_for_next(NULL);
    grpc_server_register_completion_queue(v.core, v.queue, NULL);
    v.method = grpc_server_register_method(v.core, "/bare/Echo", NULL, GRPC_SRM_PAYLOAD_NONE, 0);
    grpc_server_credentials *plain = grpc_insecure_server_credentials_create();
    int port = grpc_server_add_http2_port(v.core, "127.0.0.1:0", plain);
    grpc_server_credentials_release(plain);
    grpc_server_start(v.core);
    request(&v);
    pthread_t thread;
    pthread_create(&thread, NULL, serve, &v);

    for (int k = 0; k < streams; k++) {
        client *c = &clients[k];
        prepare(&c->s, &payload);
        snprintf(c->address, sizeof c->address, "127.0.0.1:%d", port);
        c->payload = &payload;
        c->outstanding = options->outstanding ? options->outstanding : 2;
        c->max_bytes = max_bytes;
        pthread_create(&c->thread, NULL, drive, c);
    }
    usleep((useconds_t)(options->seconds * 0.2e6));
    double from = now();
    uint64_t before = total(clients, streams);
    usleep((useconds_t)(options->seconds * 1e6));
    double rate = (double)(total(clients, streams) - before) / (now() - from);
    for (int k = 0; k < streams; k++) __atomic_store_n(&clients[k].stop, 1, __ATOMIC_RELEASE);
    for (int k = 0; k < streams; k++) pthread_join(clients[k].thread, NULL);
    grpc_server_shutdown_and_notify(v.core, v.queue, &v.down);
    grpc_server_cancel_all_calls(v.core);
    pthread_join(thread, NULL);
    grpc_server_destroy(v.core);
    grpc_completion_queue_destroy(v.queue);
    grpc_shutdown_blocking();
    free(clients);
    free(bytes);
    return port ? rate : -1;
}
