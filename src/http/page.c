/* The owner thread's side of the page. */
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/base.h"
#include "http/http.h"
#include "http/server.h"

static const int64_t WATCHED_NS = SKALD_NS_PER_S / 5, IDLE_NS = SKALD_NS_PER_S; /* between snapshots */
static const int64_t READER_NS = 10 * SKALD_NS_PER_S; /* who asked within that time is there still */
enum { SHARE = 50 };                                  /* making snapshots takes at most one part of so many */

struct skald_page {
    server *server;
    history history;
    history_lane *lanes;
    char *status;    /* the last one put up */
    int64_t due_ns;  /* no snapshot before */
    int64_t work_ns; /* when making the next one began; 0: not yet */
    bool table;      /* there has been one */
    double seconds;  /* since training began, as last told */
};

static int64_t now(void) {
    return skald_now_ns(skald_clock_system());
}

/* ---- the address ------------------------------------------------------------------------------------------------- */

typedef struct place {
    char host[256], port[8];
    bool loopback;
} place;

static skald_status place_parse(const char *address, place *out) {
    const char *colon = strrchr(address, ':'), *port = colon ? colon + 1 : address;
    size_t host = colon ? (size_t)(colon - address) : 0;
    const size_t digits = strlen(port);
    bool good = digits >= 1 && digits <= 5 && strspn(port, "0123456789") == digits && atoi(port) <= 65535;
    const char *from = address;
    if (host >= 2 && from[0] == '[' && from[host - 1] == ']')
        from++, host -= 2;
    else if (host && memchr(from, ':', host))
        good = false;
    if (!good || (colon && !host) || host >= sizeof out->host)
        return skald_fail(SKALD_EINVAL,
                          "--http %s: must be PORT, HOST:PORT or [IPV6]:PORT, e.g. 9464 (of this machine alone)",
                          address);
    snprintf(out->host, sizeof out->host, "%.*s", (int)(host ? host : 9), host ? from : "127.0.0.1");
    snprintf(out->port, sizeof out->port, "%s", port);
    out->loopback = skald_host_is_loopback(out->host);
    return SKALD_OK;
}

skald_status skald_page_check(const char *address, bool elsewhere) {
    place at;
    TRY(place_parse(address, &at));
    if (at.loopback || elsewhere) return SKALD_OK;
    return skald_fail(
        SKALD_EINVAL,
        "--http %s: everyone who reaches this address could watch the run, in plain text; say --http-insecure "
        "if the network is trusted, or give a port alone: it is this machine's",
        address);
}

static skald_status listen_at(const char *address, const place *at, int *out, int *port) {
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    const int no = getaddrinfo(at->host, at->port, &hints, &found);
    if (no) return skald_fail(SKALD_EINVAL, "--http %s: %s", address, gai_strerror(no));
    int fd = -1, reason = 0;
    for (const struct addrinfo *one = found; one && fd < 0; one = one->ai_next) {
        const int yes = 1;
        fd = socket(one->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) == 0 &&
            bind(fd, one->ai_addr, one->ai_addrlen) == 0 && listen(fd, 64) == 0)
            break;
        reason = errno;
        if (fd >= 0) close(fd);
        fd = -1;
    }
    freeaddrinfo(found);
    if (fd < 0)
        return skald_fail(reason == EADDRINUSE ? SKALD_EADDRINUSE : SKALD_EIO, "--http %s: cannot listen there: %s",
                          address, strerror(reason));
    struct sockaddr_storage bound;
    socklen_t size = sizeof bound;
    char text[8] = "";
    if (getsockname(fd, (struct sockaddr *)&bound, &size) == 0)
        getnameinfo((struct sockaddr *)&bound, size, NULL, 0, text, sizeof text, NI_NUMERICSERV);
    *port = atoi(text);
    *out = fd;
    return SKALD_OK;
}

/* ---- snapshots ------------------------------------------------------------------------------------------------- */

/* Puts up what there is, with this status (taken). */
static void put(skald_page *page, char *status, bool final) {
    const int64_t began = page->work_ns ? page->work_ns : now();
    page->work_ns = 0;
    if (status && status != page->status) {
        free(page->status);
        page->status = strdup(status);
    } else if (page->status) {
        status = strdup(page->status);
    }
    snapshot *snap = snapshot_take(&page->history, page->lanes, status, now(), final);
    if (!snap) return;
    page->history.next++;
    server_put(page->server, snap);
    const int64_t asked = server_asked_ns(page->server), ended = now();
    const int64_t least = asked && ended - asked < READER_NS ? WATCHED_NS : IDLE_NS;
    const int64_t cost = SHARE * (ended - began);
    page->due_ns = ended + (cost > least ? cost : least);
}

skald_status skald_page_open(const char *address, bool elsewhere, skald_page **out, char *url, size_t size) {
    place at;
    int fd = -1, port = 0;
    TRY(skald_page_check(address, elsewhere));
    TRY(place_parse(address, &at));
    TRY(listen_at(address, &at, &fd, &port));
    skald_page *page = skald_zalloc(1, sizeof *page);
    if (!page) {
        close(fd);
        return skald_fail(SKALD_ENOMEM, "out of memory");
    }
    history_init(&page->history);
    skald_status st = server_start(fd, at.loopback, &page->server);
    if (st != SKALD_OK) {
        free(page);
        return st;
    }
    const bool six = strchr(at.host, ':');
    snprintf(url, size, "http://%s%s%s:%d/", six ? "[" : "", at.host, six ? "]" : "", port);
    *out = page;
    return SKALD_OK;
}

void skald_page_stage(skald_page *page, const char *stage) {
    char *json = NULL;
    if (asprintf(&json, "{\"state\":\"%s\",\"workers\":[]}", stage) > 0) put(page, json, false);
}

void skald_page_task(skald_page *page, const skald_task_seen *t) {
    history_task(&page->history, &page->lanes, t);
}

void skald_page_evaluation(skald_page *page, const skald_evaluation *e) {
    history_evaluation(&page->history, e);
}

void skald_page_notice(skald_page *page, const char *text) {
    history_notice_add(&page->history, page->table ? page->seconds : 0, text);
    if (!page->table) put(page, page->status, false);
}

void skald_page_progress(skald_page *page, const skald_progress *p) {
    history_progress(&page->history, p);
    page->seconds = p->seconds;
}

bool skald_page_due(skald_page *page) {
    const int64_t at = now();
    if (at < page->due_ns) return false;
    page->work_ns = at; /* the table is made for us: part of what a snapshot costs */
    return true;
}

void skald_page_table(skald_page *page, char *json) {
    page->table = true;
    put(page, json, false);
}

void skald_page_end(skald_page *page, char *json, const char *error) {
    if (!json && page->status) {
        json_t *o = json_loads(page->status, 0, NULL);
        if (json_is_object(o)) {
            json_object_set_new(o, "state", json_string("failed"));
            json_object_set_new(o, "error", json_string(error ? error : ""));
            json = json_dumps(o, JSON_COMPACT);
        }
        json_decref(o);
    }
    put(page, json, true);
}

void skald_page_close(skald_page *page) {
    if (!page) return;
    const int64_t began = now(), asked = server_asked_ns(page->server);
    /* a page that somebody looks at asks twice a second: it is to say how the run ended, not only that it is gone */
    if (asked && began - asked < 2 * SKALD_NS_PER_S)
        while (!server_has_seen(page->server, page->history.next - 1) && now() - began < SKALD_NS_PER_S)
            nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    if (asked) nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL); /* for the last bytes */
    server_stop(page->server);
    free(page->lanes);
    free(page->status);
    free(page);
}
