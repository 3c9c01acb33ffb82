/* Who is let in, who is shown out, and what is told of it. */
#include <stdio.h>
#include <string.h>

#include "coordinator/state.h"

/* A session's mark, until it has a seat: it has spoken; it was shown out, and what else it said is not looked at. */
static const char spoke, shut;

enum { FIRST_BYTES = 64 << 10 }; /* of a first frame, which is a hello */

static void *mark(const char *which) {
    return (void *)(uintptr_t)which;
}

skald_session_state *skald_door_seat(const skald_net_session *session) {
    void *is = skald_net_user(session);
    return is == &spoke || is == &shut ? NULL : is;
}

/* ---- on the I/O thread ----------------------------------------------------------------------------------- */

/* To the owner thread, who tells it. */
static void hand_over(skald_coordinator *c, const char *peer, const char *reason) {
    skald_input in = {.kind = SKALD_INPUT_REFUSED};
    uint64_t untold;
    snprintf(in.reason, sizeof in.reason, "%s: %s", peer[0] ? peer : "somebody", reason);
    if (!skald_guard_tells(c->guard, in.reason, &untold)) return;
    if (untold) {
        skald_input more = {.kind = SKALD_INPUT_REFUSED};
        snprintf(more.reason, sizeof more.reason, "%llu more, for these or other reasons", (unsigned long long)untold);
        skald_queue_push(c->inputs, &more);
    }
    skald_queue_push(c->inputs, &in);
}

void skald_door_refused(void *user, const char *peer, const char *identity, skald_status code, const char *reason) {
    skald_coordinator *c = user;
    if (code == SKALD_EPEER) skald_guard_offence(c->guard, peer, identity, reason);
    hand_over(c, peer, reason);
}

bool skald_door_admits(void *user, const char *peer, const char *identity, char *reason) {
    skald_coordinator *c = user;
    if (skald_guard_admits(c->guard, peer, identity, reason)) return true;
    hand_over(c, peer, "knocks again, and is refused for a while");
    return false;
}

bool skald_door_passes(skald_coordinator *c, skald_net_session *session, const skald_frame *frame) {
    const void *is = skald_net_user(session);
    if (is == &shut) return false;
    if (is) return true; /* it has spoken, or has a seat */
    skald_net_set_user(session, mark(&spoke));
    if (frame->size <= FIRST_BYTES) return true;
    char reason[128];
    snprintf(reason, sizeof reason, "its first frame has %zu bytes; a hello has less than %d", frame->size,
             FIRST_BYTES);
    skald_door_offence(c, session, reason);
    skald_net_set_user(session, mark(&shut));
    hand_over(c, skald_net_peer(session), reason);
    skald_net_close(session, SKALD_EPEER, reason);
    return false;
}

/* ---- on the owner thread --------------------------------------------------------------------------------- */

void skald_door_offence(skald_coordinator *c, const skald_net_session *session, const char *what) {
    skald_guard_offence(c->guard, skald_net_peer(session), skald_net_identity(session), what);
}

void skald_coordinator_turned_away(const skald_coordinator *c, const char *text) {
    skald_coordinator_notice(c, "refused %s", text);
}

void skald_coordinator_refuse(skald_coordinator *c, skald_net_session *session, skald_status code, const char *reason) {
    if (skald_net_user(session) == &shut) return; /* what it said before it heard */
    skald_net_set_user(session, mark(&shut));
    skald_door_refused(c, skald_net_peer(session), skald_net_identity(session), code, reason);
    skald_net_close(session, code, reason);
}

void skald_coordinator_closed(skald_coordinator *c, const skald_input *in) {
    skald_session_state *s = skald_coordinator_find(c, in->session);
    const bool offence = in->code == SKALD_ETOOBIG || (in->code == SKALD_ETIMEOUT && !s);
    if (offence && skald_net_user(in->session) != &shut) {
        skald_door_offence(c, in->session, in->reason);
        if (!s) hand_over(c, skald_net_peer(in->session), in->reason);
    }
    if (s) skald_members_close(c, s, in);
}
