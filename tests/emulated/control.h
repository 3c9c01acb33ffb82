// What a test may ask of the emulated device beyond CUDA's interface. Everything else is set by environment variables,
// read once at the first call (tests/emulated/README.md).
#pragma once

#include <stddef.h>

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
// Copies of at least so many bytes that were asked for so far and go to the device, from it, and within it, as
// cudaMemcpyHostToDevice (1), DeviceToHost (2) and DeviceToDevice (3) say. Copies in graphs are not counted.
SKALD_EMULATED_API long skald_emulated_copies(int kind, size_t bytes);
// Allocations (device and pinned), streams, events and graphs that are not released.
SKALD_EMULATED_API int skald_emulated_live(void);

#ifdef __cplusplus
}
#endif
