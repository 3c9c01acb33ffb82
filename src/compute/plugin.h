/* Finding and opening the plugins of the compute port. */
#ifndef SKALD_COMPUTE_PLUGIN_H
#define SKALD_COMPUTE_PLUGIN_H

#include <stdbool.h>

#include "skald/plugin.h"

/* The CUDA plugin, opened at the first call: the file that SKALD_CUDA_PLUGIN names, or else libskald_cuda.so beside
 * this binary, in ../lib, or where the loader looks. SKALD_EUNSUPPORTED with the reason; the same every time. */
skald_status compute_plugin_cuda(const skald_compute_plugin **out);
/* After a failure: was there no file at all, rather than one that cannot be used? */
bool compute_plugin_absent(void);

#endif
