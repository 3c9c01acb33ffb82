/* Rows in memory. A file of its own: backends in plugins take rows over and free them. */
#include <stdlib.h>
#include <string.h>

#include "skald/data.h"

void skald_rows_free(skald_rows *rows) {
    free(rows->x);
    free(rows->ptr);
    free(rows->idx);
    free(rows->val);
    free(rows->y);
    free(rows->s);
    free(rows->origin);
    *rows = (skald_rows){0};
}
