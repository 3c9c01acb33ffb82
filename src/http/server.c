#include "http/server.h"

#include <microhttpd.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/base.h"
#include "http/page_source.h"

enum { CONNECTIONS = 64, IDLE_S = 15, REQUEST_BYTES = 16 << 10 };

struct server {
    struct MHD_Daemon *daemon;
    bool loopback;
    char instance[20];    /* a page that finds another one here begins anew */
    pthread_mutex_t lock; /* of `latest`; held to take a reference, no longer */
    snapshot *latest;
    atomic_llong asked_ns;
    atomic_ullong seen; /* the newest snapshot that /live.json has given out */
};

typedef enum MHD_Result result;

static const char POLICY[] =
    "default-src 'none'; script-src '" SKALD_PAGE_SCRIPT_HASH "'; style-src '" SKALD_PAGE_STYLE_HASH
    "'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/* Answers with `text`, freed when free_it. */
static result answer(struct MHD_Connection *c, unsigned code, const char *type, const char *text, size_t size,
                     bool free_it) {
    struct MHD_Response *r = MHD_create_response_from_buffer(size, (void *)(uintptr_t)text,
                                                             free_it ? MHD_RESPMEM_MUST_FREE : MHD_RESPMEM_PERSISTENT);
    if (!r) {
        if (free_it) free((void *)(uintptr_t)text);
        return MHD_NO;
    }
    MHD_add_response_header(r, "Content-Type", type);
    MHD_add_response_header(r, "Cache-Control", "no-store");
    MHD_add_response_header(r, "Content-Security-Policy", POLICY);
    MHD_add_response_header(r, "X-Content-Type-Options", "nosniff");
    MHD_add_response_header(r, "Referrer-Policy", "no-referrer");
    MHD_add_response_header(r, "Cross-Origin-Resource-Policy", "same-origin");
    if (code == MHD_HTTP_METHOD_NOT_ALLOWED) MHD_add_response_header(r, "Allow", "GET, HEAD");
    const result done = MHD_queue_response(c, code, r);
    MHD_destroy_response(r);
    return done;
}

static result refuse(struct MHD_Connection *c, unsigned code, const char *text) {
    return answer(c, code, "text/plain; charset=utf-8", text, strlen(text), false);
}

static result give(struct MHD_Connection *c, const char *type, char *text) {
    if (!text) return refuse(c, MHD_HTTP_INTERNAL_SERVER_ERROR, "out of memory\n");
    return answer(c, MHD_HTTP_OK, type, text, strlen(text), true);
}

/* Is this Host a name of this machine? */
static bool local_name(const char *host) {
    if (!host) return true; /* HTTP/1.0: no browser */
    if (host[0] == '[') return strncmp(host, "[::1]", 5) == 0 && (host[5] == ':' || !host[5]);
    const size_t length = strcspn(host, ":");
    if (length == 9 && strncmp(host, "localhost", 9) == 0) return true;
    return strncmp(host, "127.", 4) == 0 && strspn(host, "0123456789.") == length;
}

static snapshot *take(server *s) {
    pthread_mutex_lock(&s->lock);
    snapshot *latest = s->latest;
    if (latest) atomic_fetch_add(&latest->refs, 1);
    pthread_mutex_unlock(&s->lock);
    return latest;
}

static result live(server *s, struct MHD_Connection *c, snapshot *now) {
    const char *after = MHD_lookup_connection_value(c, MHD_GET_ARGUMENT_KIND, "after");
    const int64_t at = skald_now_ns(skald_clock_system());
    char *text = snapshot_live(now, after ? strtoull(after, NULL, 10) : 0, s->instance, at);
    atomic_store(&s->asked_ns, at);
    if (text) atomic_store(&s->seen, now->number);
    return give(c, "application/json", text);
}

static result on_request(void *user, struct MHD_Connection *c, const char *url, const char *method, const char *version,
                         const char *upload, size_t *upload_size, void **state) {
    server *s = user;
    const bool body = MHD_lookup_connection_value(c, MHD_HEADER_KIND, "Transfer-Encoding") ||
                      MHD_lookup_connection_value(c, MHD_HEADER_KIND, "Content-Length");
    if (strcmp(method, "GET") != 0 && strcmp(method, "HEAD") != 0)
        return refuse(c, MHD_HTTP_METHOD_NOT_ALLOWED, "only GET and HEAD\n");
    if (body) return refuse(c, MHD_HTTP_BAD_REQUEST, "a request has no body here\n");
    if (s->loopback && !local_name(MHD_lookup_connection_value(c, MHD_HEADER_KIND, "Host")))
        return refuse(c, MHD_HTTP_FORBIDDEN, "this page is for this machine: ask for it as localhost or 127.0.0.1\n");
    if (!*state) { /* an answer before the request is read whole would end the connection: the ones above are to */
        *state = s;
        return MHD_YES;
    }
    if (strcmp(url, "/") == 0)
        return answer(c, MHD_HTTP_OK, "text/html; charset=utf-8", (const char *)skald_page_source,
                      skald_page_source_size, false);
    snapshot *now = take(s);
    result done;
    if (!now)
        done = refuse(c, MHD_HTTP_SERVICE_UNAVAILABLE, "nothing to see yet\n");
    else if (strcmp(url, "/live.json") == 0)
        done = live(s, c, now);
    else if (strcmp(url, "/status.json") == 0)
        done = give(c, "application/json", strdup(now->status));
    else if (strcmp(url, "/metrics") == 0)
        done = give(c, "text/plain; version=0.0.4; charset=utf-8", snapshot_metrics(now));
    else
        done = refuse(c, MHD_HTTP_NOT_FOUND, "there are /, /status.json and /metrics\n");
    snapshot_unref(now);
    return done;
}

skald_status server_start(int socket, bool loopback, server **out) {
    server *s = skald_zalloc(1, sizeof *s);
    if (!s) {
        close(socket);
        return skald_fail(SKALD_ENOMEM, "out of memory");
    }
    s->loopback = loopback;
    pthread_mutex_init(&s->lock, NULL);
    snprintf(s->instance, sizeof s->instance, "%016llx",
             (unsigned long long)skald_mix64((uint64_t)skald_now_ns(skald_clock_system()) ^ (uint64_t)getpid() << 40));
    /* signals are for the owner thread */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    s->daemon = MHD_start_daemon(MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_AUTO | MHD_USE_ITC, 0, NULL, NULL,
                                 on_request, s, MHD_OPTION_LISTEN_SOCKET, socket, MHD_OPTION_CONNECTION_LIMIT,
                                 CONNECTIONS, MHD_OPTION_CONNECTION_TIMEOUT, IDLE_S, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
                                 (size_t)REQUEST_BYTES, MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_END);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!s->daemon) {
        close(socket);
        pthread_mutex_destroy(&s->lock);
        free(s);
        return skald_fail(SKALD_EIO, "--http: no server could be started");
    }
    *out = s;
    return SKALD_OK;
}

void server_put(server *s, snapshot *snap) {
    pthread_mutex_lock(&s->lock);
    snapshot *old = s->latest;
    s->latest = snap;
    pthread_mutex_unlock(&s->lock);
    snapshot_unref(old);
}

int64_t server_asked_ns(server *s) {
    return atomic_load(&s->asked_ns);
}

bool server_has_seen(server *s, uint64_t number) {
    return atomic_load(&s->seen) >= number;
}

void server_stop(server *s) {
    if (!s) return;
    MHD_stop_daemon(s->daemon); /* closes the socket */
    snapshot_unref(s->latest);
    pthread_mutex_destroy(&s->lock);
    free(s);
}
