/* skald devices: what this machine can compute on. */
#include <jansson.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/cli.h"
#include "skald/compute.h"

typedef struct values {
    bool json;
} values;

static const skald_option table[] = {
    {"json", SKALD_OPTION_FLAG, offsetof(values, json), .help = "One JSON object instead of a table"},
    {0},
};

static void print_json(const char *cpu, const skald_device *cards, uint32_t count, const char *why) {
    char isa[16] = "";
    int threads = 0;
    sscanf(cpu, "cpu (%15[^,], %d", isa, &threads);
    json_t *list = json_array();
    for (uint32_t k = 0; k < count; k++) {
        char capability[24];
        snprintf(capability, sizeof capability, "%u.%u", cards[k].major, cards[k].minor);
        json_array_append_new(list, json_pack("{ss ss sI si ss}", "device", cards[k].spec, "name", cards[k].name,
                                              "memory_bytes", (json_int_t)cards[k].memory_bytes, "multiprocessors",
                                              (int)cards[k].units, "compute_capability", capability));
    }
    json_t *all = json_pack("{s{ss si} so ss}", "cpu", "isa", isa, "threads", threads, "cards", list, "why", why);
    char *text = all ? json_dumps(all, JSON_COMPACT) : NULL;
    if (text) puts(text);
    free(text);
    json_decref(all);
}

static void print_table(const char *cpu, const skald_device *cards, uint32_t count, const char *why) {
    printf("%s\n", cpu);
    for (uint32_t k = 0; k < count; k++)
        printf("%-7s %s, %.1f GB, %u multiprocessors, compute capability %u.%u\n", cards[k].spec, cards[k].name,
               (double)cards[k].memory_bytes * 1e-9, cards[k].units, cards[k].major, cards[k].minor);
    if (why[0]) printf("%s: %s\n", count ? "not used" : "no card", why);
}

static int run(const command *self, int argc, char **argv) {
    values v = {0};
    arguments args;
    arguments_parse(self, argc, argv, &v, &args);
    const skald_compute_options options = {.device = "cpu", .threads = usable_cores()};
    char cpu[64], why[256];
    skald_device cards[SKALD_MAX_CARDS];
    skald_status st = skald_compute_describe(&options, cpu, NULL);
    if (st == SKALD_OK) {
        uint32_t count = skald_compute_cards(cards, SKALD_MAX_CARDS, why, NULL);
        (v.json ? print_json : print_table)(cpu, cards, count, why);
    }
    arguments_free(&args);
    return st == SKALD_OK ? EXIT_DONE : report_failure(self);
}

const command command_devices = {
    .name = "devices",
    .words = "",
    .summary = "list what this machine can compute on",
    .about = "Lists the CPU and the CUDA cards that workers on this machine can use, or why there is no card.",
    .notes = "For example:\n\n"
             "  skald devices\n"
             "  skald devices --json\n"
             "  skald worker --device cuda:1 --connect node1:7700\n\n"
             "Cards need the plugin libskald_cuda.so beside the binary, in ../lib, or where the loader looks; "
             "SKALD_CUDA_PLUGIN names another file.\n\n",
    .table = table,
    .run = run,
};
