#include "data/source.h"
skald_status h5_source_open(skald_source *s) {
    return skald_fail(SKALD_EUNSUPPORTED, "stub");
}
