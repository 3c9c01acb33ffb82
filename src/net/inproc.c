/* The in-process adapter: listeners by name, and unary calls. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/base.h"
#include "net/inproc.h"

#define RETRY_NS 1000000           /* a client that waits for its server looks this often */
#define DISCONNECT_NS 2000000000ll /* what is queued has this long to go out */

typedef struct inproc_call inproc_call;

struct skald_net_server {
    inproc_node *node;
    char *address;
    skald_net_on_call on_call;
    skald_net_server *next; /* in the hub's list */
    inproc_call *calls;     /* not answered yet; under the hub's lock */
};

struct skald_net_client {
    inproc_node *node;
    char *address;
    int64_t wait_ns, until;
    bool cancelled; /* under the hub's lock, as is: */
    bool settled;   /* connected, or given up */
};

/* The one thing in the process both sides know: who listens where. */
static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    skald_net_server *servers;
    skald_net_faults faults;
    uint64_t sessions; /* since the faults were set */
} hub = {.lock = PTHREAD_MUTEX_INITIALIZER};
static pthread_once_t hub_once = PTHREAD_ONCE_INIT;

static void init_hub(void) {
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&hub.changed, &attributes);
    pthread_condattr_destroy(&attributes);
}

void skald_net_inproc_set_faults(const skald_net_faults *faults) {
    pthread_mutex_lock(&hub.lock);
    hub.faults = faults ? *faults : (skald_net_faults){0};
    hub.sessions = 0;
    pthread_mutex_unlock(&hub.lock);
}

skald_net_faults inproc_faults(uint64_t *session_number) { /* called with the hub's lock held, by try_open */
    *session_number = hub.sessions++;
    return hub.faults;
}

static skald_net_server *find(const char *address) {
    for (skald_net_server *s = hub.servers; s; s = s->next)
        if (strcmp(s->address, address) == 0) return s;
    return NULL;
}

static skald_status check_address(const char *address) {
    if (strncmp(address, "inproc:", 7) != 0 || address[7] == '\0')
        return skald_fail(SKALD_EINVAL, "address '%s': expected inproc:NAME", address);
    return SKALD_OK;
}

/* ---- server ------------------------------------------------------------------------------------------ */

static skald_status inproc_listen(const char *address, const skald_net_options *options,
                                  const skald_net_handlers *handlers, skald_net_on_call on_call, void *user,
                                  skald_net_server **out, int *port) {
    *out = NULL;
    if (port) *port = 0;
    TRY(check_address(address));
    skald_net_server *server = skald_zalloc(1, sizeof *server);
    if (!server) return SKALD_ENOMEM;
    skald_status st = SKALD_OK;
    server->on_call = on_call;
    server->address = strdup(address);
    if (!server->address) st = skald_fail(SKALD_ENOMEM, "out of memory");
    if (st == SKALD_OK) st = inproc_node_create(options, handlers, user, &server->node);
    if (st != SKALD_OK) goto fail;
    pthread_mutex_lock(&hub.lock);
    if (find(address)) {
        st = skald_fail(SKALD_EADDRINUSE, "cannot listen on %s: address already in use", address);
    } else {
        server->next = hub.servers;
        hub.servers = server;
        pthread_cond_broadcast(&hub.changed);
    }
    pthread_mutex_unlock(&hub.lock);
    if (st == SKALD_OK) {
        *out = server;
        return SKALD_OK;
    }
    inproc_node_stop(server->node);
fail:
    inproc_node_unref(server->node);
    free(server->address);
    free(server);
    return st;
}

static void refuse_calls(skald_net_server *server);

static void inproc_shutdown(skald_net_server *server, int64_t grace_ns) {
    pthread_mutex_lock(&hub.lock);
    for (skald_net_server **s = &hub.servers; *s; s = &(*s)->next) {
        if (*s != server) continue;
        *s = server->next;
        break;
    }
    pthread_mutex_unlock(&hub.lock);
    inproc_node_close_all(server->node, "shutting down", grace_ns);
    inproc_node_stop(server->node);
    refuse_calls(server);
    inproc_node_unref(server->node);
    free(server->address);
    free(server);
}

/* ---- client ------------------------------------------------------------------------------------------ */

static void settle(skald_net_client *client) {
    pthread_mutex_lock(&hub.lock);
    client->settled = true;
    pthread_cond_broadcast(&hub.changed);
    pthread_mutex_unlock(&hub.lock);
}

/* A session that never was: on_close wants one to show. */
static skald_status lost_send(skald_net_session *session, const skald_segment *segments, size_t count) {
    return skald_fail(SKALD_ELOST, "the session with %s never opened", skald_net_peer(session));
}
static size_t lost_pending(const skald_net_session *session) {
    return 0;
}
static void lost_close(skald_net_session *session, skald_status code, const char *reason) {}
static void lost_destroy(skald_net_session *session) {
    free(session->peer);
    free(session);
}
static const net_session_ops lost_ops = {lost_send, lost_pending, lost_close, lost_destroy};

static void give_up(skald_net_client *client, skald_status code, const char *reason) {
    char why[NET_REASON_BYTES];
    strncpy(why, reason, sizeof why - 1);
    why[sizeof why - 1] = '\0';
    skald_net_session *session = skald_zalloc(1, sizeof *session);
    if (session) {
        net_session_init(session, &lost_ops);
        session->peer = strdup(client->address);
        client->node->handlers.on_close(client->node->user, session, code, why);
        skald_net_session_unref(session);
    }
    settle(client);
}

static void try_open(void *a, void *b, bool live) {
    skald_net_client *client = a;
    if (!live) return;
    skald_status st = SKALD_AGAIN;
    pthread_mutex_lock(&hub.lock);
    bool cancelled = client->cancelled;
    skald_net_server *server = cancelled ? NULL : find(client->address);
    if (server) st = inproc_pair_open(client->node, server->node, client->address);
    pthread_mutex_unlock(&hub.lock);
    int64_t now = skald_now_ns(skald_clock_system());
    if (st == SKALD_OK) {
        settle(client);
    } else if (st != SKALD_AGAIN) {
        give_up(client, st, skald_error());
    } else if (cancelled) {
        give_up(client, SKALD_EUNAVAILABLE, "gave up waiting: disconnected");
    } else if (now >= client->until) {
        skald_fail(SKALD_EUNAVAILABLE, "no server at %s within %.3g s", client->address,
                   (double)client->wait_ns * 1e-9);
        give_up(client, SKALD_EUNAVAILABLE, skald_error());
    } else if (inproc_node_post(client->node, now + RETRY_NS, try_open, client, NULL) != SKALD_OK) {
        give_up(client, SKALD_EUNAVAILABLE, skald_error());
    }
}

static int64_t deadline(int64_t wait_ns) {
    int64_t until = skald_now_ns(skald_clock_system());
    return __builtin_add_overflow(until, wait_ns, &until) ? INT64_MAX : until;
}

static skald_status inproc_connect(const char *address, const skald_net_options *options,
                                   const skald_net_handlers *handlers, void *user, int64_t wait_ns,
                                   skald_net_client **out) {
    *out = NULL;
    TRY(check_address(address));
    skald_net_client *client = skald_zalloc(1, sizeof *client);
    if (!client) return SKALD_ENOMEM;
    client->address = strdup(address);
    client->wait_ns = wait_ns;
    client->until = deadline(wait_ns);
    skald_status st = client->address ? SKALD_OK : skald_fail(SKALD_ENOMEM, "out of memory");
    if (st == SKALD_OK) st = inproc_node_create(options, handlers, user, &client->node);
    if (st == SKALD_OK) {
        *out = client; /* before the first handler runs */
        st = inproc_node_post(client->node, 0, try_open, client, NULL);
        if (st == SKALD_OK) return SKALD_OK;
        *out = NULL;
        inproc_node_stop(client->node);
    }
    inproc_node_unref(client->node);
    free(client->address);
    free(client);
    return st;
}

static void inproc_disconnect(skald_net_client *client) {
    pthread_mutex_lock(&hub.lock);
    client->cancelled = true;
    while (!client->settled) pthread_cond_wait(&hub.changed, &hub.lock);
    pthread_mutex_unlock(&hub.lock);
    inproc_node_close_all(client->node, "disconnected", DISCONNECT_NS);
    inproc_node_stop(client->node);
    inproc_node_unref(client->node);
    free(client->address);
    free(client);
}

/* ---- unary calls ------------------------------------------------------------------------------------- */

struct inproc_call {
    skald_net_call base; /* first */
    skald_net_server *server;
    inproc_call *next; /* in the server's list */
    skald_method method;
    size_t limit;       /* the caller's, for the reply */
    net_frames *frames; /* for the reply */
    skald_pool *small;
    /* under the hub's lock: */
    int refs; /* the caller and the server's side */
    bool listed, done;
    skald_status code;
    char reason[NET_REASON_BYTES];
    net_frame *reply;
};

static void call_unref(inproc_call *call) {
    pthread_mutex_lock(&hub.lock);
    bool last = --call->refs == 0;
    pthread_mutex_unlock(&hub.lock);
    if (!last) return;
    if (call->reply) skald_frame_release(&call->reply->base);
    net_frames_unref(call->frames);
    skald_pool_destroy(call->small);
    free(call);
}

/* With the hub's lock held. The first answer counts; false: the frame is still the caller's. */
static bool settle_call(inproc_call *call, skald_status code, const char *reason, net_frame *reply) {
    for (inproc_call **c = call->listed ? &call->server->calls : NULL; c && *c; c = &(*c)->next) {
        if (*c != call) continue;
        *c = call->next;
        break;
    }
    call->listed = false;
    if (call->done) return false;
    call->done = true;
    call->code = code;
    strncpy(call->reason, reason, sizeof call->reason - 1);
    call->reply = reply;
    pthread_cond_broadcast(&hub.changed);
    return true;
}

static void reply_call(skald_net_call *base, skald_status code, const char *reason, const skald_segment *segments,
                       size_t count) {
    inproc_call *call = (inproc_call *)base;
    net_frame *frame = NULL;
    if (code == SKALD_OK) {
        size_t bytes = 0;
        code = net_segments_check(segments, count, call->limit, &bytes);
        if (code == SKALD_OK) {
            frame = inproc_frame(call->frames, call->small, segments, count, 1);
            if (!frame) code = SKALD_ENOMEM;
        }
        if (code != SKALD_OK) reason = skald_error();
    }
    pthread_mutex_lock(&hub.lock);
    bool taken = settle_call(call, code, reason, frame);
    pthread_mutex_unlock(&hub.lock);
    if (!taken && frame) skald_frame_release(&frame->base);
    call_unref(call);
}

static void call_arrives(void *a, void *b, bool live) {
    inproc_call *call = a;
    skald_frame *request = b;
    if (live) {
        skald_net_server *server = call->server; /* there as long as its node runs */
        server->on_call(server->node->user, call->method, request, &call->base);
    } else {
        skald_frame_release(request);
        reply_call(&call->base, SKALD_EUNAVAILABLE, "shutting down", NULL, 0);
    }
}

/* Calls the application still holds: it may answer them later, to nobody. */
static void refuse_calls(skald_net_server *server) {
    pthread_mutex_lock(&hub.lock);
    while (server->calls) settle_call(server->calls, SKALD_EUNAVAILABLE, "shutting down", NULL);
    pthread_mutex_unlock(&hub.lock);
}

/* With the hub's lock held: hands the call to the server's thread. */
static skald_status start_call(inproc_call *call, skald_net_server *server, const skald_segment *segments,
                               size_t count) {
    if (!server->on_call) return skald_fail(SKALD_EUNSUPPORTED, "%s answers no calls", server->address);
    size_t bytes = 0;
    TRY(net_segments_check(segments, count, server->node->options.max_frame_bytes, &bytes));
    net_frame *request = inproc_frame(server->node->frames, server->node->small, segments, count, 2);
    if (!request) return SKALD_ENOMEM;
    call->server = server;
    skald_status st = inproc_node_post(server->node, 0, call_arrives, call, &request->base);
    if (st != SKALD_OK) {
        skald_frame_release(&request->base);
        return st;
    }
    call->next = server->calls;
    server->calls = call;
    call->listed = true;
    call->refs++;
    return SKALD_OK;
}

static skald_status inproc_call_method(const char *address, const skald_net_options *options, skald_method method,
                                       const skald_segment *segments, size_t count, int64_t wait_ns,
                                       skald_frame **reply) {
    *reply = NULL;
    TRY(check_address(address));
    skald_net_options resolved;
    TRY(net_options_resolve(options, &resolved));
    size_t bytes = 0;
    TRY(net_segments_check(segments, count, resolved.max_frame_bytes, &bytes));
    if ((unsigned)method >= SKALD_METHOD_COUNT) return skald_fail(SKALD_EINVAL, "no method %d", (int)method);

    inproc_call *call = skald_zalloc(1, sizeof *call);
    if (!call) return SKALD_ENOMEM;
    call->base.reply = reply_call;
    call->method = method;
    call->limit = resolved.max_frame_bytes;
    call->refs = 1;
    call->frames = inproc_frames_create();
    skald_status st = call->frames ? SKALD_OK : SKALD_ENOMEM;
    if (st == SKALD_OK) st = skald_pool_create(SKALD_MAX_SEGMENTS * NET_COPY_BYTES, &call->small);

    int64_t until = deadline(wait_ns);
    bool started = false;
    pthread_mutex_lock(&hub.lock);
    while (st == SKALD_OK && !call->done) {
        skald_net_server *server = started ? NULL : find(address);
        if (server) {
            st = start_call(call, server, segments, count);
            started = true;
            continue;
        }
        struct timespec at = {until / SKALD_NS_PER_S, until % SKALD_NS_PER_S};
        if (pthread_cond_timedwait(&hub.changed, &hub.lock, &at) != ETIMEDOUT) continue;
        if (call->done) break;
        if (started)
            st = skald_fail(SKALD_ETIMEOUT, "%s did not answer within %.3g s", address, (double)wait_ns * 1e-9);
        else
            st = skald_fail(SKALD_EUNAVAILABLE, "no server at %s within %.3g s", address, (double)wait_ns * 1e-9);
    }
    if (st == SKALD_OK) {
        st = call->code;
        if (st != SKALD_OK) {
            skald_fail(st, "%s: %s", address, call->reason);
        } else {
            *reply = &call->reply->base;
            call->reply = NULL;
        }
    }
    call->done = true; /* an answer from here on comes too late */
    pthread_mutex_unlock(&hub.lock);
    call_unref(call);
    return st;
}

const skald_net_ops *skald_net_inproc(void) {
    pthread_once(&hub_once, init_hub);
    static const skald_net_ops ops = {"inproc",       inproc_listen,     inproc_shutdown,
                                      inproc_connect, inproc_disconnect, inproc_call_method};
    return &ops;
}
