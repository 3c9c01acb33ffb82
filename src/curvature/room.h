/* Arrays that grow and are used again. */
#ifndef SKALD_CURVATURE_ROOM_H
#define SKALD_CURVATURE_ROOM_H

#include <stdlib.h>

#include "base/base.h"

/* At least `count` elements in *array, of which *room are there; what they held is lost if they have to grow. */
static inline skald_status skald_room(void **array, size_t *room, size_t count, size_t size) {
    if (count <= *room) return SKALD_OK;
    free(*array);
    *room = 0;
    *array = skald_alloc(count, size);
    if (!*array) return SKALD_ENOMEM;
    *room = count;
    return SKALD_OK;
}

#endif
