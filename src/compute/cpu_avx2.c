/* CPU kernels for avx2; compiled with its options, run only where the CPU has it. */
#if defined(__x86_64__)
#define SKALD_VECTOR_BYTES 32
#define SKALD_KERNELS cpu_kernels_avx2
#define SKALD_ISA "avx2"
#include "compute/kernels/kernels.inc"
#endif
