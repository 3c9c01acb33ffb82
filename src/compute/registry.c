/* The compute registry: the only place that knows which backends were built in. */
#include "compute/cpu.h"

#include <math.h>
#include <string.h>

static bool device_is(const char *device, const char *kind) {
    size_t length = strlen(kind);
    return strncmp(device, kind, length) == 0 && (device[length] == '\0' || device[length] == ':');
}

static skald_status check_objective(const skald_objective *o) {
    if ((unsigned)o->loss > SKALD_SOFTMAX) return skald_fail(SKALD_EINVAL, "unknown loss %d", (int)o->loss);
    if (o->loss == SKALD_SOFTMAX && (o->classes < 2 || o->classes > SKALD_MAX_LABELS))
        return skald_fail(SKALD_EINVAL, "softmax over %u classes: must be between 2 and %d", o->classes,
                          SKALD_MAX_LABELS);
    if (o->loss != SKALD_SOFTMAX && o->classes > 1)
        return skald_fail(SKALD_EINVAL, "the %s loss has one class, not %u", skald_loss_name(o->loss), o->classes);
    if (o->loss == SKALD_HUBER && !(o->huber_delta > 0 && isfinite(o->huber_delta)))
        return skald_fail(SKALD_EINVAL, "huber delta %g: must be positive", o->huber_delta);
    if (!(o->l2 >= 0 && isfinite(o->l2))) return skald_fail(SKALD_EINVAL, "l2 = %g: must be 0 or more", o->l2);
    if (!(o->l1 >= 0 && isfinite(o->l1))) return skald_fail(SKALD_EINVAL, "l1 = %g: must be 0 or more", o->l1);
    return SKALD_OK;
}

/* Checks what was asked for; *cpu_threads: how many the CPU backend is to have. */
static skald_status choose(const skald_compute_options *options, int *cpu_threads) {
    const char *device = options->device ? options->device : "auto";
    if (options->threads < 0 || options->threads > 4096)
        return skald_fail(SKALD_EINVAL, "%d threads: must be between 1 and 4096", options->threads);
    *cpu_threads = options->threads ? options->threads : 1;
    if (strcmp(device, "auto") == 0 || strcmp(device, "cpu") == 0) return SKALD_OK;
    if (device_is(device, "cuda"))
        return skald_fail(SKALD_EUNSUPPORTED, "device '%s': this build has no CUDA backend; use 'cpu'", device);
    return skald_fail(SKALD_EINVAL, "unknown device '%s': use auto, cpu, cuda or cuda:N", device);
}

skald_status skald_compute_describe(const skald_compute_options *options, char device[64]) {
    int threads = 1;
    TRY(choose(options, &threads));
    return cpu_describe(threads, options->isa, device);
}

skald_status skald_compute_open(const skald_compute_options *options, const skald_objective *objective, uint32_t dim,
                                skald_compute **out) {
    static const skald_compute_options defaults = {0};
    *out = NULL;
    if (!options) options = &defaults;
    int threads = 1;
    TRY(check_objective(objective));
    if (dim == 0) return skald_fail(SKALD_EINVAL, "a model needs at least one column");
    TRY(choose(options, &threads));
    return cpu_open(threads, options->isa, objective, dim, out);
}

void skald_shard_get_facts(const skald_shard *shard, skald_shard_facts *out) {
    *out = shard->facts;
}
