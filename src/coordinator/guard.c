#include "coordinator/guard.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "skald/net.h"

enum { KNOWN = 1024, NAME = 160, WHAT = 200, LINES = 32 };
static const int64_t LINES_NS = 10 * SKALD_NS_PER_S;

typedef struct offender {
    char name[NAME];                     /* "": free */
    char what[WHAT];                     /* the last thing it did */
    uint32_t count;                      /* offences since first_ns */
    int64_t first_ns, last_ns, until_ns; /* until_ns: refused till then; 0: not */
} offender;

struct skald_guard {
    pthread_mutex_t lock;
    skald_guard_options options;
    skald_clock *clock;
    offender known[KNOWN];
    char said[LINES][WHAT]; /* reasons told since said_ns */
    uint32_t said_count;
    int64_t said_ns;
    uint64_t untold;
};

skald_status skald_guard_create(const skald_guard_options *options, skald_clock *clock, skald_guard **out) {
    skald_guard *g = skald_zalloc(1, sizeof *g);
    if (!g) return SKALD_ENOMEM;
    pthread_mutex_init(&g->lock, NULL);
    g->clock = clock;
    g->options = *options;
    if (!g->options.offences) g->options.offences = 5;
    if (!g->options.refuse_ns) g->options.refuse_ns = 60 * SKALD_NS_PER_S;
    *out = g;
    return SKALD_OK;
}

void skald_guard_destroy(skald_guard *g) {
    if (!g) return;
    pthread_mutex_destroy(&g->lock);
    free(g);
}

/* ---- who is it? ------------------------------------------------------------------------------------------ */

/* "ipv6:[2001:db8::1]:4711" (the brackets as such, or as %5B and %5D) to "2001:db8::/64". */
static bool network(const char *peer, char name[NAME]) {
    const char *from = strncmp(peer, "ipv6:", 5) == 0 ? peer + 5 : NULL;
    if (!from) return false;
    from += *from == '[' ? 1 : strncasecmp(from, "%5B", 3) == 0 ? 3 : 0;
    char text[INET6_ADDRSTRLEN] = "", shown[INET6_ADDRSTRLEN];
    struct in6_addr address;
    const size_t size = strspn(from, "0123456789abcdefABCDEF:.");
    if (size >= sizeof text) return false;
    memcpy(text, from, size);
    if (inet_pton(AF_INET6, text, &address) != 1) return false;
    memset(&address.s6_addr[8], 0, 8);
    snprintf(name, NAME, "%s/64", inet_ntop(AF_INET6, &address, shown, sizeof shown));
    return true;
}

static void name_of(const char *peer, const char *identity, char name[NAME]) {
    const char *port = strrchr(peer, ':');
    if (identity && *identity)
        snprintf(name, NAME, "the certificate of '%.128s'", identity);
    else if (strncmp(peer, "ipv4:", 5) == 0 && port > peer + 4)
        snprintf(name, NAME, "%.*s", (int)(port - (peer + 5)), peer + 5);
    else if (!network(peer, name))
        snprintf(name, NAME, "%.150s", peer);
}

/* With the lock held. */
static offender *find(skald_guard *g, const char *name) {
    for (size_t k = 0; k < KNOWN; k++)
        if (strcmp(g->known[k].name, name) == 0) return &g->known[k];
    return NULL;
}

/* A free place, or that of whoever has been quiet for longest; of those refused only if there are no others. */
static offender *place(skald_guard *g, int64_t now) {
    offender *best = &g->known[0];
    for (size_t k = 0; k < KNOWN; k++) {
        offender *o = &g->known[k];
        if (!o->name[0]) return o;
        const bool shut = o->until_ns > now, best_shut = best->until_ns > now;
        if (shut != best_shut ? best_shut : o->last_ns < best->last_ns) best = o;
    }
    return best;
}

/* ---- offences -------------------------------------------------------------------------------------------- */

bool skald_guard_admits(skald_guard *g, const char *peer, const char *identity, char *reason) {
    char name[NAME];
    name_of(peer, identity, name);
    const int64_t now = skald_now_ns(g->clock);
    pthread_mutex_lock(&g->lock);
    const offender *o = find(g, name);
    const bool shut = o && o->until_ns > now;
    if (shut)
        snprintf(reason, SKALD_NET_REASON, "%s is refused for another %lld s after %u offences, the last: %s", name,
                 (long long)((o->until_ns - now + SKALD_NS_PER_S - 1) / SKALD_NS_PER_S), o->count, o->what);
    pthread_mutex_unlock(&g->lock);
    return !shut;
}

void skald_guard_offence(skald_guard *g, const char *peer, const char *identity, const char *what) {
    char name[NAME];
    name_of(peer, identity, name);
    const int64_t now = skald_now_ns(g->clock);
    pthread_mutex_lock(&g->lock);
    offender *o = find(g, name);
    if (!o) {
        o = place(g, now);
        *o = (offender){.first_ns = now};
        memcpy(o->name, name, sizeof name);
    }
    if (now >= o->until_ns && (o->until_ns || now - o->first_ns > g->options.refuse_ns)) { /* long ago, or served */
        o->count = 0;
        o->until_ns = 0;
        o->first_ns = now;
    }
    o->last_ns = now;
    snprintf(o->what, sizeof o->what, "%.190s", what);
    if (++o->count >= g->options.offences) o->until_ns = now + g->options.refuse_ns;
    pthread_mutex_unlock(&g->lock);
}

/* ---- the log --------------------------------------------------------------------------------------------- */

bool skald_guard_tells(skald_guard *g, const char *text, uint64_t *untold) {
    const char *why = strstr(text, ": ");
    char reason[WHAT];
    snprintf(reason, sizeof reason, "%.190s", why ? why : text);
    const int64_t now = skald_now_ns(g->clock);
    pthread_mutex_lock(&g->lock);
    if (now - g->said_ns >= LINES_NS) {
        g->said_count = 0;
        g->said_ns = now;
    }
    bool tell = g->said_count < LINES;
    for (uint32_t k = 0; k < g->said_count && tell; k++) tell = strcmp(g->said[k], reason) != 0;
    if (tell) memcpy(g->said[g->said_count++], reason, sizeof reason);
    *untold = g->untold;
    g->untold = tell ? 0 : g->untold + 1;
    pthread_mutex_unlock(&g->lock);
    return tell;
}
