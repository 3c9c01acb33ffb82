/* CPU kernels for avx512; compiled with its options, run only where the CPU has it. */
#if defined(__x86_64__)
#define SKALD_VECTOR_BYTES 64
#define SKALD_KERNELS cpu_kernels_avx512
#define SKALD_ISA "avx512"
#include "compute/kernels/kernels.inc"
#endif
