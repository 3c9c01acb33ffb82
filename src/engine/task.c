#include "skald/task.h"

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
    default:
        return 1;
    }
}
