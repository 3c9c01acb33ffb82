#include "skald/task.h"

#include "base/base.h"

const char *skald_task_kind_name(skald_task_kind kind) {
    switch (kind) {
    case SKALD_TASK_GRADIENT:
        return "gradient";
    case SKALD_TASK_SAGA:
        return "saga";
    case SKALD_TASK_LOCAL:
        return "local";
    case SKALD_TASK_DIFFERENCE:
        return "difference";
    case SKALD_TASK_OBJECTIVE:
        return "objective";
    case SKALD_TASK_SHIFT:
        return "shift";
    case SKALD_TASK_ANCHOR:
        return "anchor";
    case SKALD_TASK_CURVATURE:
        return "curvature";
    case SKALD_TASK_SAMPLE:
        return "sample";
    }
    return "unknown";
}

uint32_t skald_task_vectors(const skald_task *t) {
    switch (t->kind) {
    case SKALD_TASK_LOCAL:
        return t->saga ? 2 : 1;
    case SKALD_TASK_OBJECTIVE:
        return t->want_gradient ? t->points : 0;
    case SKALD_TASK_SHIFT:
        return t->model ? t->points : 0;
    case SKALD_TASK_SAMPLE:
        return 0;
    default:
        return 1;
    }
}

size_t skald_task_sample(uint64_t seed, uint32_t shard, size_t n, uint64_t position, size_t count, uint32_t *rows) {
    static const uint64_t SAMPLES = 0x53414d504c45; /* a stream of its own: batches of that shard are other draws */
    return position < n ? skald_draw(seed ^ SAMPLES, shard, n, position, count, rows) : 0;
}

static uint32_t mask(uint64_t seed, uint32_t shard, uint64_t group) {
    static const uint64_t PARTS = 0x5041525453;
    return (uint32_t)(skald_random(skald_mix64(seed ^ PARTS) + shard, group) % SKALD_SHARD_PARTS);
}

uint32_t skald_task_part_of(uint64_t seed, uint32_t shard, uint64_t row) {
    return (uint32_t)(row % SKALD_SHARD_PARTS) ^ mask(seed, shard, row / SKALD_SHARD_PARTS);
}

size_t skald_task_part(uint64_t seed, uint32_t shard, size_t n, uint32_t part, uint32_t *rows) {
    const size_t whole = n / SKALD_SHARD_PARTS;
    size_t count = whole;
    for (size_t g = 0; rows && g < whole; g++)
        rows[g] = (uint32_t)(g * SKALD_SHARD_PARTS + (part ^ mask(seed, shard, g)));
    const size_t last = whole * SKALD_SHARD_PARTS + (part ^ mask(seed, shard, whole));
    if (last >= n) return count;
    if (rows) rows[count] = (uint32_t)last;
    return count + 1;
}
