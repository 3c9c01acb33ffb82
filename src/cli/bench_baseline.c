#include "cli/bench.h"
skald_status bench_baselines(bench *b) {
    return SKALD_OK;
}
