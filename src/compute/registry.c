/* The compute registry: the only place that knows which backends there are. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compute/cpu.h"
#include "compute/plugin.h"

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

/* What was asked for, resolved. */
typedef struct choice {
    const skald_compute_plugin *plugin; /* NULL: the CPU */
    int threads;
    skald_device card;
} choice;

/* ":3": the card's number. */
static bool card_number(const char *text, uint32_t *out) {
    char *end;
    unsigned long number = strtoul(text + 1, &end, 10);
    *out = (uint32_t)number;
    return text[1] >= '0' && text[1] <= '9' && *end == '\0' && number < 1024;
}

/* The card of that number, or (NULL) the first that can be used. */
static skald_status choose_card(const char *device, const uint32_t *number, choice *out) {
    skald_device cards[SKALD_MAX_CARDS];
    uint32_t count = 0, k = 0;
    char why[256];
    skald_status st = compute_plugin_cuda(&out->plugin);
    if (st == SKALD_OK) st = out->plugin->devices(cards, SKALD_MAX_CARDS, &count, why);
    if (count > SKALD_MAX_CARDS) count = SKALD_MAX_CARDS;
    while (number && k < count && cards[k].index != *number) k++;
    if (st == SKALD_OK && count == 0) st = skald_fail(SKALD_EUNSUPPORTED, "%s", why);
    if (st == SKALD_OK && k == count)
        st = skald_fail(SKALD_EUNSUPPORTED, "there is no such card that can be used, but %u other%s%s%s", count,
                        count > 1 ? "s" : "", why[0] ? "; " : "", why);
    if (st != SKALD_OK) return skald_context(st, "device '%s'", device);
    out->card = cards[k];
    return SKALD_OK;
}

static skald_status choose(const skald_compute_options *options, choice *out, char *why) {
    const char *device = options->device ? options->device : "auto";
    uint32_t number;
    *out = (choice){.threads = options->threads ? options->threads : 1};
    if (why) why[0] = '\0';
    if (options->threads < 0 || options->threads > 4096)
        return skald_fail(SKALD_EINVAL, "%d threads: must be between 1 and 4096", options->threads);
    if (strcmp(device, "cuda") == 0) return choose_card(device, NULL, out);
    if (strncmp(device, "cuda:", 5) == 0) {
        if (!card_number(device + 4, &number))
            return skald_fail(SKALD_EINVAL, "device '%s': a card is cuda:N, N from 0", device);
        return choose_card(device, &number, out);
    }
    const bool automatic = strcmp(device, "auto") == 0;
    if (!automatic && strcmp(device, "cpu") != 0)
        return skald_fail(SKALD_EINVAL, "unknown device '%s': use auto, cpu, cuda or cuda:N", device);
    if (automatic) {
        char reason[256];
        bool there;
        if (skald_compute_cards(NULL, 0, reason, &there)) return choose_card("cuda", NULL, out);
        if (there && why) memcpy(why, reason, sizeof reason);
    }
    if (options->storage > SKALD_STORE_F32)
        return skald_fail(SKALD_EUNSUPPORTED, "the CPU keeps rows as f32 only: leave --storage out, or use a card");
    return SKALD_OK;
}

uint32_t skald_compute_cards(skald_device *out, uint32_t room, char why[256], bool *there) {
    const skald_compute_plugin *plugin = NULL;
    uint32_t count = 0;
    skald_status st = compute_plugin_cuda(&plugin);
    if (there) *there = plugin || !compute_plugin_absent();
    if (st == SKALD_OK) st = plugin->devices(out, room, &count, why);
    if (st == SKALD_OK) return count < SKALD_MAX_CARDS ? count : SKALD_MAX_CARDS;
    snprintf(why, 256, "%s", skald_error());
    return 0;
}

skald_status skald_compute_describe(const skald_compute_options *options, char device[64], char why[256]) {
    choice c;
    TRY(choose(options, &c, why));
    if (!c.plugin) return cpu_describe(c.threads, options->isa, device);
    snprintf(device, 64, "%s (%.44s)", c.card.spec, c.card.name);
    return SKALD_OK;
}

const struct skald_collective_ops *skald_compute_collective(const skald_compute_options *options, uint32_t *index) {
    choice c;
    *index = 0;
    if (choose(options, &c, NULL) != SKALD_OK || !c.plugin) return NULL;
    *index = c.card.index;
    return c.plugin->collective;
}

skald_status skald_compute_open(const skald_compute_options *options, const skald_objective *objective, uint32_t dim,
                                skald_compute **out) {
    static const skald_compute_options defaults = {0};
    *out = NULL;
    if (!options) options = &defaults;
    choice c;
    TRY(check_objective(objective));
    if (dim == 0) return skald_fail(SKALD_EINVAL, "a model needs at least one column");
    TRY(choose(options, &c, NULL));
    if (!c.plugin) return cpu_open(c.threads, options->isa, objective, dim, out);
    TRY(c.plugin->open(c.card.index, options, objective, dim, out));
    snprintf((*out)->device, sizeof(*out)->device, "%s (%.44s)", c.card.spec, c.card.name);
    return SKALD_OK;
}

void skald_shard_get_facts(const skald_shard *shard, skald_shard_facts *out) {
    *out = shard->facts;
}
