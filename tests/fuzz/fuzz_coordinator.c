/* A coordinator whose worker means harm: everything that comes from there, from its hello to the results of a run. */
#include <stdatomic.h>

#include "fuzz_session.h"
#include "skald/coordinator.h"
#include "skald/solver.h"

static const uint8_t *input;
static size_t input_size;
static atomic_int stop;
static unsigned looks;

/* Time passes with every look at the clock; some time after the last frame the run is stopped. */
static int64_t now(skald_clock *clock) {
    static unsigned idle;
    idle = fuzz_left || !looks ? 0 : idle + 1;
    if (idle > 40 || looks > 4000) stop = 1;
    return (int64_t)++looks * 1000000;
}

struct skald_net_server {
    skald_net_session *session;
};

static skald_status serve(const char *address, const skald_net_options *options, const skald_net_handlers *handlers,
                          skald_net_on_call on_call, void *user, skald_net_server **out, int *port) {
    skald_net_server *s = *out = malloc(sizeof *s);
    if (!s) abort();
    s->session = fuzz_session();
    handlers->on_open(user, s->session);
    fuzz_bring(input, input_size, handlers, user, s->session);
    if (input_size % 2) handlers->on_close(user, s->session, SKALD_ELOST, "gone");
    return SKALD_OK;
}

static void shut(skald_net_server *s, int64_t grace_ns) {
    skald_net_session_unref(s->session);
    free(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const skald_net_ops net = {.name = "fuzz", .listen = serve, .shutdown = shut};
    static skald_clock clock = {now};
    const skald_coordinator_options options = {
        .address = "fuzz",
        .workers = 1,
        .data = {.path = fuzz_rows(),
                 .source = {.index_base = -1, .threads = 1},
                 .seed = 1,
                 .shards = 1,
                 .intercept = true},
        .objective = {.loss = SKALD_LOGISTIC, .l2 = 1e-3, .huber_delta = 1, .classes = 1, .intercept = true},
        .clock = &clock,
        .repeat_ns = 1,
        .heartbeat_timeout_ns = 3 * SKALD_NS_PER_S};
    const skald_train_options train = {
        .algo = SKALD_SAGA, .local = -1, .step_decay = -1, .max_passes = 3, .target_gap = 1e-9, .audit = true};
    input = data;
    input_size = size;
    looks = 0;
    stop = 0;
    skald_coordinator *c = NULL;
    skald_crew *crew = NULL;
    if (skald_coordinator_listen(&net, &options, &c, NULL) != SKALD_OK) return 0;
    skald_status st = skald_coordinator_gather(c, &stop, &crew);
    if (st == SKALD_OK) {
        skald_outcome outcome = {0};
        st = skald_train(crew, skald_solver_of(SKALD_SAGA), &train, &clock, NULL, &stop, &outcome);
        skald_outcome_free(&outcome);
    }
    skald_coordinator_close(c, st, "over");
    return 0;
}
