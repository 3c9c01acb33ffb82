/* A worker whose coordinator means harm: everything that comes from there, with real rows and real tasks. */
#include "fuzz_session.h"
#include "skald/worker.h"

static const uint8_t *input;
static size_t input_size;

struct skald_net_client {
    skald_net_session *session;
};

static skald_status join(const char *address, const skald_net_options *options, const skald_net_handlers *handlers,
                         void *user, int64_t wait_ns, skald_net_client **out) {
    skald_net_client *c = *out = malloc(sizeof *c);
    if (!c) abort();
    c->session = fuzz_session();
    handlers->on_open(user, c->session);
    fuzz_bring(input, input_size, handlers, user, c->session);
    handlers->on_close(user, c->session, SKALD_OK, "over");
    return SKALD_OK;
}

static void leave(skald_net_client *c) {
    skald_net_session_unref(c->session);
    free(c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const skald_net_ops net = {.name = "fuzz", .connect = join, .disconnect = leave};
    const skald_worker_options options = {.address = "fuzz",
                                          .name = "w",
                                          .data_path = fuzz_rows(),
                                          .straggler = "none", /* pace and death are another's to give */
                                          .compute = {.device = "cpu", .threads = 1}};
    input = data;
    input_size = size;
    skald_worker_run(&net, &options, NULL);
    return 0;
}
