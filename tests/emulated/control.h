// What a test may ask of the emulated device beyond CUDA's interface. Everything else is set by environment variables,
// read once at the first call (tests/emulated/README.md).
#pragma once

#ifdef __cplusplus
extern "C" {
#endif

#define SKALD_EMULATED_API __attribute__((visibility("default")))

// When streams run, and in which order blocks do: as the variables SKALD_EMULATED_STREAMS and SKALD_EMULATED_BLOCKS.
// 0, or -1 if the text says nothing known. Takes effect with the next call.
SKALD_EMULATED_API int skald_emulated_streams(const char *text);
SKALD_EMULATED_API int skald_emulated_blocks(const char *text);
// The n-th call from now fails (1: the next); 0: none does.
SKALD_EMULATED_API void skald_emulated_fail_at(long n);
// Calls counted so far, those that can fail.
SKALD_EMULATED_API long skald_emulated_calls(void);
// Allocations (device and pinned), streams, events and graphs that are not released.
SKALD_EMULATED_API int skald_emulated_live(void);

#ifdef __cplusplus
}
#endif
