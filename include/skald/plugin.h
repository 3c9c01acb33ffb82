/* What a plugin with a compute backend exports: one function, named as in SKALD_CUDA_ENTRY.
 *
 * The host opens the library by name and calls the entry once; the library is never closed. Nothing of a device's own
 * interface crosses this line. Both sides must have been built from the same revision of this file, compute.h,
 * vectors.h, collective.h and data.h: SKALD_PLUGIN_ABI counts those. */
#ifndef SKALD_PLUGIN_H
#define SKALD_PLUGIN_H

#include <stdint.h>

#include "skald/collective.h"
#include "skald/compute.h"

#define SKALD_PLUGIN_ABI 3u
#define SKALD_CUDA_ENTRY "skald_cuda_plugin"

/* What the host lends the plugin. */
typedef struct skald_plugin_host {
    char *(*error_buffer)(void); /* the calling thread's message, 1 KiB: skald_error_share */
} skald_plugin_host;

typedef struct skald_compute_plugin {
    uint32_t abi;
    const char *name; /* "cuda" */
    /* The first `room` of the cards that can be used; *count of all of these. `why`: what is wrong with others, or that
     * there is none; "" else. SKALD_EUNSUPPORTED with the reason when the driver is missing or does not answer. Any
     * thread. */
    skald_status (*devices)(skald_device *out, uint32_t room, uint32_t *count, char why[256]);
    /* Opens card number `index` (by the driver's count), which must be one of these; options, objective and dim have
     * been checked. */
    skald_status (*open)(uint32_t index, const skald_compute_options *options, const skald_objective *objective,
                         uint32_t dim, skald_compute **out);
    const skald_collective_ops *collective; /* its cards as ranks; whether they can be is for its probe to say */
} skald_compute_plugin;

/* NULL if the plugin does not know this `abi`. */
typedef const skald_compute_plugin *skald_plugin_entry(uint32_t abi, const skald_plugin_host *host);

#endif
