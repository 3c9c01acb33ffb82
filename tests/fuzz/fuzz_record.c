/* A record of a run, as skald replay reads it: the first line, then line by line to the end. */
#include "fuzz_file.h"
#include "replay/record.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    skald_record record;
    if (skald_record_open(fuzz_file(data, size), &record) != SKALD_OK) return 0;
    uint64_t held = 0;
    for (uint32_t k = 0; k < record.member_count; k++)
        for (uint32_t i = 0; i < record.members[k].shard_count; i++) {
            if (record.members[k].shards[i] >= record.shard_count) abort();
            held++;
        }
    if (held != record.shard_count) abort();
    skald_record_option(&record, "algo");
    while (record.line.kind != SKALD_RECORD_BROKEN && skald_record_next(&record) == SKALD_OK) {
    }
    skald_record_close(&record);
    return 0;
}
